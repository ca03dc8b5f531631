"""scorefield train-guide."""

from __future__ import annotations

from pathlib import Path

from scorefield._codec import with_field
from scorefield.cli.guide_commands import TrainGuide
from scorefield.cli.progress import training_display
from scorefield.data import open_data
from scorefield.models.model import load
from scorefield.score.guidance_model import Category
from scorefield.training import distributed
from scorefield.training.guidance import Measured, guide_experiment, train_guide, with_data


def train_a_guide(command: TrainGuide) -> None:
    """Carry out the command."""
    model = load(command.model, weights=command.weights)
    experiment = guide_experiment(model, command.kind, command.data)
    for setting in command.settings:
        field, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting!r} is not FIELD=VALUE, for example --set training.steps=500")
        experiment = with_field(experiment, field, value)
    experiment, data = with_data(experiment, command.kind, model, open_data(experiment.data))
    out = command.out or Path("runs") / f"{model.name}-guide"
    with training_display(experiment.training.steps) as display:
        guide, found = train_guide(experiment, data, out, resume=command.resume, observer=display)
    if distributed.rank() != 0:
        return
    if found is not None:
        print("\n".join(table(found, isinstance(guide.answer, Category))))
    how = "--label CLASS" if isinstance(guide.answer, Category) else "--y " + ",".join("Y" * guide.answer.spec.size)
    print(f"trained: {out}\n  scorefield edit {command.model} class --guide {out} {how} --scale 1")


def table(found: Measured, classes: bool) -> list[str]:
    """How well a guide answers at each noise level, in lines."""
    lines = [f"on {found.examples} held-out examples, noise in model units:"]
    for level in found.levels:
        right = f"accuracy {100 * (1 - level.error):5.1f} %" if classes else f"error {level.error:.3f} of y's deviation"
        lines.append(f"  noise {level.sigma:<9.4g} {right}   -log p {level.loss:.3f} +- {level.loss_error:.3f} nats")
    return [*lines, f"  without looking at x: -log p {found.blind:.3f} nats"]
