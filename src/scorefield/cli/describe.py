"""scorefield describe, data inspect, recipes."""

from __future__ import annotations

from pathlib import Path

from scorefield._codec import CodecError, near, with_field
from scorefield.cli.commands import DataCommand, Describe, Recipes
from scorefield.cli.train import experiment_of
from scorefield.data import DataSource, inspect
from scorefield.models.description import describe_experiment
from scorefield.models.model import bundled, find
from scorefield.models.run_folder import read_experiment
from scorefield.models.sampler_files import read_tuned
from scorefield.models.sampler_records import TABLE, TUNED, TunedSampler
from scorefield.models.weights import load_tensors
from scorefield.recipes import RECIPES


def describe(command: Describe) -> None:
    """Carry out the command."""
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
    """A tuned sampler in words."""
    receipt = found.receipt
    head = f"tuned sampler (--sampler tuned): {found.sampler}"
    how = f"  by {found.criterion}, {receipt.count} samples a trial, weights {receipt.weights}"
    return [head, how, *(f"  {line}" for line in found.conclusion)]


def inspect_data(command: DataCommand) -> None:
    """Carry out the command."""
    source = DataSource(command.path)
    for setting in command.settings:
        field, equals, value = setting.removeprefix("data.").partition("=")
        if not equals:
            raise CodecError(f"--set {setting}", "is not FIELD=VALUE, for example --set size=64")
        source = with_field(source, field, value)
    print("\n".join(inspect(source).lines()))


def list_recipes(command: Recipes) -> None:
    """Carry out the command."""
    width = max(map(len, RECIPES))
    for name, function in RECIPES.items():
        summary = (function.__doc__ or "").strip().splitlines()[0]
        print(name if command.names_only else f"{name:<{width}}  {summary}")
