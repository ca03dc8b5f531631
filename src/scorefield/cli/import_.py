"""scorefield import, export."""

from __future__ import annotations

from scorefield.cli.commands import Export, Import
from scorefield.interop import EXPORTS, Hints, import_checkpoint
from scorefield.models.model import find
from scorefield.models.model_card import units


def import_model(command: Import) -> None:
    """Carry out the command."""
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


def export_model(command: Export) -> None:
    """Carry out the command."""
    for note in EXPORTS[command.layout](find(command.model), command.out):
        print(f"note: {note}")
    print(f"written: {command.out}")
