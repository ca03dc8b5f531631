"""`scorefield train`: train a recipe."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from scorefield.cli.console.arguments import Compile, Flag, Out, RecipeName, Resume, Settings

if TYPE_CHECKING:
    from scorefield.models.experiment import Experiment


@dataclass(frozen=True)
class Train:
    """Train a recipe on its own data or on yours.

    Fields of the experiment change with --set, for example --set training.batch_size=64 --set network.channels=64;
    `scorefield describe RECIPE` lists them all.
    """

    recipe: RecipeName
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """Training data: a folder of images, an .npy, .npz or .pt array, IDX files, image parquet and other formats, or
    module:attribute. Default: the recipe's own."""
    out: Out = None
    """Output folder, the run folder. Default: runs/RECIPE."""
    resume: Annotated[Literal["no", "auto"], Resume] = "no"
    minutes: Annotated[float | None, arg(metavar="X")] = None
    """Stop, with a checkpoint, after this many minutes of training. Default: no limit."""
    compile: Compile = False
    skip_bad: Flag = False
    """Leave out images that cannot be read, and name them, instead of stopping."""
    dry_run: Flag = False
    """Open the data, resolve and print the experiment, and write nothing."""
    settings: Settings = ()


def experiment_of(name: str, settings: tuple[str, ...]) -> Experiment:
    """A recipe, or an experiment.json, with fields changed.

    Raises:
        ValueError: No such recipe, or a setting that is not FIELD=VALUE; near matches are shown.
    """
    from scorefield._codec import loads, with_field
    from scorefield.models.experiment import Experiment
    from scorefield.recipes import RECIPES, recipe

    path = Path(name)
    if path.is_dir() and name not in RECIPES:
        raise ValueError(
            f"{name} is a folder, not a recipe; to train on the data in it: scorefield train RECIPE --data {name}"
            " (scorefield recipes lists them; points-2d, vectors, signals and images are for data of your own)"
        )
    if path.suffix == ".json" or (path.is_file() and _begins_as_json(path)):
        experiment = loads(path.read_text(encoding="utf-8"), Experiment)
    elif path.is_file():
        raise ValueError(
            f"{name} is neither a recipe nor an experiment.json; to train on it: scorefield train RECIPE --data {name}"
            " (scorefield recipes lists them; points-2d, vectors, signals and images are for data of your own)"
        )
    else:
        experiment = recipe(name)
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting!r} is not FIELD=VALUE, for example --set training.batch_size=64")
        experiment = with_field(experiment, field, value)
    return experiment


def _begins_as_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"{")


def run(command: Train) -> None:
    """Carry out the command."""
    from scorefield.cli.console.progress import training_display
    from scorefield.data import DataError, open_data
    from scorefield.models.description import describe_experiment
    from scorefield.reports.training_report import training_report
    from scorefield.training import distributed
    from scorefield.training.trainer import train as run_training

    experiment = experiment_of(command.recipe, command.settings)
    changes: dict[str, object] = {}
    if command.data is not None:
        changes["path"] = command.data
    if command.skip_bad:
        changes["skip_bad"] = True
    if changes:
        experiment = replace(experiment, data=replace(experiment.data, **changes))
    if command.minutes is not None or command.compile:
        minutes = experiment.training.max_minutes if command.minutes is None else command.minutes
        training = replace(
            experiment.training, max_minutes=minutes, compile=command.compile or experiment.training.compile
        )
        experiment = replace(experiment, training=training)
    if experiment.data.path is None and command.dry_run:
        print("\n".join(describe_experiment(experiment)))
        print(f"data: none yet; scorefield train {command.recipe} --data PATH")
        return
    if experiment.data.path is None:
        raise DataError(f"the recipe {experiment.name} needs data: scorefield train {command.recipe} --data PATH")
    out = command.out or Path("runs") / experiment.name
    data = open_data(experiment.data)
    for name in data.skipped:
        print(f"skipped {name}", file=sys.stderr)
    if command.dry_run:
        print("\n".join(describe_experiment(replace(experiment, spec=data.spec))))
        held = len(data.held_out) if data.held_out is not None else 0
        print(f"data: {len(data.train):,} examples to train on, {held:,} held out")
        print(f"would train into {out}; nothing was written")
        return
    with training_display(experiment.training.steps) as display:
        run_training(experiment, out, resume=command.resume, observer=display, data=data)
    if distributed.rank() == 0:
        print(f"trained: {out}\n{training_report(out, data)}\n  scorefield sample {out}\n  scorefield evaluate {out}")
