"""`scorefield train-guide`: train a guidance model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from scorefield.cli.console.arguments import ModelName, Out, Resume, Settings, Weights

if TYPE_CHECKING:
    from scorefield.training.guidance import Measured


@dataclass(frozen=True)
class TrainGuide:
    """Train a guidance model p_t(y | x_t) for a model: its gradient guides the model's samples to y.

    It is trained on examples noised by the model's own process, in the model's units. `scorefield edit class MODEL
    --guide OUT` samples with it.
    """

    model: ModelName
    kind: Literal["classifier", "likelihood"] = "classifier"
    """classifier: y is a class. likelihood: y is one or more numbers, normally distributed given x."""
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """Examples with labels, as for train; numbers y are a second array of an .npz, named by --set data.label_key=NAME
    (the examples by data.key). Default: the model's own data."""
    out: Out = None
    """Output folder, the folder of the guidance model. Default: runs/MODEL-guide."""
    resume: Annotated[Literal["no", "auto"], Resume] = "no"
    weights: Weights = None
    settings: Settings = ()


def run(command: TrainGuide) -> None:
    """Carry out the command."""
    from scorefield._codec import with_field
    from scorefield.cli.console.progress import training_display
    from scorefield.data import open_data
    from scorefield.models.model import load
    from scorefield.score.guidance_model import Category
    from scorefield.training import distributed
    from scorefield.training.guidance import guide_experiment, train_guide, with_data

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
    print(f"trained: {out}\n  scorefield edit class {command.model} --guide {out} {how} --scale 1")


def table(found: Measured, classes: bool) -> list[str]:
    """Lines with the accuracy of a guidance model at each noise level."""
    lines = [f"on {found.examples} held-out examples, noise in model units:"]
    for level in found.levels:
        right = f"accuracy {100 * (1 - level.error):5.1f} %" if classes else f"error {level.error:.3f} of y's deviation"
        lines.append(f"  noise {level.sigma:<9.4g} {right}   -log p {level.loss:.3f} +- {level.loss_error:.3f} nats")
    return [*lines, f"  without looking at x: -log p {found.blind:.3f} nats"]
