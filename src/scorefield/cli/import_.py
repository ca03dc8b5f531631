"""`scorefield import`: a published checkpoint as a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

LayoutName = Literal["score-sde", "ncsn", "ncsnv2", "acsm", "mdsm", "edm", "diffusers"]
"""The layouts that `interop` imports; a test compares the two."""


@dataclass(frozen=True)
class Import:
    """Convert a published checkpoint into a model folder. Nothing in the checkpoint is executed.

    The release's configuration file supplies what the tensors do not show; without one, the flags below do.
    """

    layout: Positional[Annotated[LayoutName, arg(help="The release that wrote the checkpoint.")]]
    checkpoint: Positional[
        Annotated[Path, arg(metavar="CHECKPOINT", help="The checkpoint file; for diffusers, the folder.")]
    ]
    out: Annotated[Path, arg(metavar="FOLDER")]
    """Output folder, the model folder."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """Configuration of the release, JSON or YAML (ml_collections: config.to_json_best_effort() or to_yaml())."""
    weights: Literal["ema", "raw"] | None = None
    """The moving average of the weights, or the trained weights. Default: the average where there is one."""
    size: Annotated[int | None, arg(metavar="N")] = None
    """Without a configuration: height and width of the images."""
    sigma_min: Annotated[float | None, arg(metavar="SIGMA")] = None
    """Without a configuration: smallest noise level, model units."""
    sigma_max: Annotated[float | None, arg(metavar="SIGMA")] = None
    """Without a configuration: largest noise level, model units."""
    levels: Annotated[int | None, arg(metavar="N")] = None
    """Without a configuration: number of noise levels."""
    process: Literal["ve", "vp", "subvp"] | None = None
    """Without a configuration: family of the process."""
    discrete: bool | None = None
    """Without a configuration: whether it was trained on discrete levels, not in continuous time."""


def run(command: Import) -> None:
    """Carry out the command."""
    from scorefield.interop import Hints, import_checkpoint
    from scorefield.models.model_card import units

    hints = Hints(
        size=command.size,
        sigma_min=command.sigma_min,
        sigma_max=command.sigma_max,
        levels=command.levels,
        process=command.process,
        discrete=command.discrete,
    )
    made = import_checkpoint(
        command.layout, command.checkpoint, command.out, config=command.config, weights=command.weights, hints=hints
    )
    experiment = made.experiment
    assert experiment.spec is not None
    count = sum(value.numel() for value in made.tensors.values())
    print(f"imported {command.checkpoint} ({command.layout}): {made.weights} weights, {count:,} numbers")
    print(f"  examples {experiment.spec.shape}: {units(experiment.spec)}")
    print(f"  {experiment.process}")
    for note in made.notes:
        print(f"  note: {note}")
    print(f"written: {command.out}\n  scorefield describe {command.out}\n  scorefield sample {command.out}")
