"""`scorefield describe`: a recipe or model in full."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from scorefield.cli.console.arguments import Settings

if TYPE_CHECKING:
    from scorefield.models.sampler_records import TunedSampler


@dataclass(frozen=True)
class Describe:
    """Print a recipe or model in full: every field, the number of parameters, and the source of its settings."""

    target: Positional[
        Annotated[
            str, arg(metavar="RECIPE|MODEL", help="Name of a recipe, path of an experiment.json, or a model folder.")
        ]
    ]
    settings: Settings = ()


def run(command: Describe) -> None:
    """Carry out the command."""
    from scorefield._codec import near
    from scorefield.cli.train import experiment_of
    from scorefield.models.description import describe_experiment
    from scorefield.models.model import bundled, find
    from scorefield.models.run_folder import read_experiment
    from scorefield.models.sampler_files import read_tuned
    from scorefield.models.sampler_records import TABLE, TUNED
    from scorefield.models.weights import load_tensors
    from scorefield.recipes import RECIPES

    path = Path(command.target)
    is_model = (path / "experiment.json").is_file() or (command.target not in RECIPES and command.target in bundled())
    if not is_model:
        if command.target not in RECIPES and not path.is_file():
            raise ValueError(
                f"there is no recipe or model {command.target!r}.{near(command.target, [*RECIPES, *bundled()])}"
            )
        print("\n".join(describe_experiment(experiment_of(command.target, command.settings))))
        return
    if command.settings:
        raise ValueError("a trained model's fields cannot be changed; --set is for recipes")
    folder = find(command.target)
    experiment = read_experiment(folder)
    print("\n".join(describe_experiment(experiment)))
    if (folder / "model.safetensors").is_file():
        sets, metadata = load_tensors(folder / "model.safetensors")
        names = [name for name in sets if name != "fixed"]
        print(f"weights: {', '.join(names)}, of step {metadata.get('step', 'unknown')}")
    if (folder / TUNED).is_file():
        print("\n".join(tuned_lines(read_tuned(folder, folder.name, None))))
    if (folder / TABLE).is_file():
        print(f"samplers measured: {folder / TABLE}, for sample --budget")


def tuned_lines(found: TunedSampler) -> list[str]:
    """Description of a tuned sampler."""
    receipt = found.receipt
    head = f"tuned sampler (--sampler tuned): {found.sampler}"
    how = f"  by {found.criterion}, {receipt.count} samples a trial, weights {receipt.weights}"
    return [head, how, *(f"  {line}" for line in found.conclusion)]
