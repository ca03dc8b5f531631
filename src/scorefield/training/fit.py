"""`sf.fit`: a model of any data in one call."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorefield.data import Data, DataError, DataSource, open_data, suggest_recipe
from scorefield.data.readers.content import Arrays
from scorefield.models.checkpoint_folder import latest_checkpoint
from scorefield.models.experiment import Experiment
from scorefield.models.model import Model, load
from scorefield.recipes import recipe as recipe_named
from scorefield.training.observer import ProgressBar, Silent
from scorefield.training.trainer import train


def fit(
    x: Any,
    *,
    condition: Any = None,
    recipe: str | Experiment = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Model:
    """Train a model of data and return it.

    Whole numbers of 8 bits are grey levels 0..255; other numbers are unbounded and standardised. What else the data
    mean (ranges, units, layout of channels) is said by the fields of `data` of an experiment given as `recipe`.

    Args:
        x: Examples: an array or tensor (N, ...), a DataFrame of numbers, a map-style data set, or the path of anything
            that `--data` takes.
        condition: What is known of each example, of N rows: whole numbers (N,) are classes, other numbers (N,) or
            (N, k) a vector. The labels of a path or data set are used where the experiment says data.conditional.
        recipe: Name of a recipe, or an `Experiment`; "auto" chooses by the shape of the examples.
        minutes: Longest training time in minutes.
        steps: Number of optimiser steps. Default: the recipe's.
        out: Run folder. A run in it is resumed; without one the run is in a temporary folder that lives as long as the
            model.
        seed: Seed of initial weights, order of the data and noise.
        progress: Show a progress bar where there is a terminal.

    Returns:
        The model with its first EMA, in evaluation mode; `model.splits` are the data that it was trained on.

    Raises:
        DataError: The data cannot be used as they are; the message says why and which field would help.
        TrainingError: Training cannot go on, or `out` holds another run.
        ValueError: There is no such recipe, or minutes or steps are not positive.
    """
    if (minutes is not None and not minutes > 0) or (steps is not None and steps < 1):
        raise ValueError(f"minutes={minutes} and steps={steps} must be positive")
    experiment = recipe if isinstance(recipe, Experiment) else None if recipe == "auto" else recipe_named(recipe)
    source = DataSource() if experiment is None else replace(experiment.data, path=None, kind="auto")
    source, dataset = _examples(x, condition, source)
    data = open_data(source, dataset)
    if experiment is None:
        experiment = recipe_named(suggest_recipe(data.spec))
    training = replace(experiment.training, seed=seed)
    if minutes is not None:
        training = replace(training, max_minutes=minutes)
    if steps is not None:
        training = replace(training, steps=steps)
    experiment = replace(experiment, data=source, training=training, spec=None)
    if out is not None:
        return _trained(experiment, Path(out), data, progress)
    folder = Path(tempfile.mkdtemp(prefix="scorefield-"))
    try:
        model = _trained(experiment, folder / experiment.name, data, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model


def _trained(experiment: Experiment, out: Path, data: Data, progress: bool) -> Model:
    observer = ProgressBar(experiment.training.steps) if progress else Silent()
    resume = "auto" if latest_checkpoint(out) is not None else "no"
    with observer:
        run = train(experiment, out, resume=resume, observer=observer, data=data)
    model = load(run)
    model.splits = data
    return model


def _examples(x: Any, condition: Any, source: DataSource) -> tuple[DataSource, Any]:
    """The source and, for data in memory, the data set."""
    if isinstance(x, (str, Path)):
        if condition is not None:
            raise DataError(
                "a path brings its own labels: leave condition out, and set data.conditional=true in the experiment"
                " given as recipe to use them"
            )
        return replace(source, path=str(x)), None
    if hasattr(x, "columns") and hasattr(x, "to_numpy"):
        x, names = _table(x)
        source = replace(source, channel_names=source.channel_names or names)
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().numpy()
    if isinstance(x, list) and x and isinstance(x[0], (list, tuple, float)):
        x = np.asarray(x)
    if condition is None:
        return source, x
    if not isinstance(x, np.ndarray):
        raise DataError(
            f"condition goes with an array, tensor or DataFrame; a {type(x).__name__} brings its own labels, as second"
            " part of each item, used with data.conditional=true"
        )
    return replace(source, conditional=True), _with_condition(x, condition)


def _with_condition(x: np.ndarray, condition: Any) -> Arrays:
    if isinstance(condition, torch.Tensor):
        condition = condition.detach().cpu().numpy()
    known = np.asarray(condition.to_numpy() if hasattr(condition, "to_numpy") else condition)
    if known.ndim not in (1, 2) or len(known) != len(x) or known.dtype.kind not in "biuf":
        raise DataError(
            f"condition has shape {known.shape} and type {known.dtype} for {len(x)} examples; give one row for each:"
            f" whole numbers ({len(x)},) for classes, or numbers ({len(x)}, k)"
        )
    if known.ndim == 1 and known.dtype.kind in "biu":
        if known.min() < 0:
            raise DataError(f"condition has the class {known.min()}; classes are numbered from 0")
        return Arrays(x, "x", labels=known.astype(np.int64))
    if not np.isfinite(known).all():
        raise DataError("condition has NaN or infinite values; give numbers for every example")
    return Arrays(x, "x", numbers=known.reshape(len(x), -1).astype(np.float32))


def _table(frame: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numbers of a DataFrame, float32, and the names of its columns.

    Raises:
        DataError: A column is not numeric, or values are missing.
    """
    names = tuple(str(name) for name in frame.columns)
    columns = [np.asarray(frame[name]) for name in frame.columns]
    words = [name for name, column in zip(names, columns, strict=True) if column.dtype.kind not in "biuf"]
    if words:
        raise DataError(
            f"the columns {', '.join(words)} of the table are not numbers; leave them out or encode them, for example"
            " frame.select_dtypes('number'), or give one of them as condition"
        )
    missing = {name: int(np.isnan(column.astype(float)).sum()) for name, column in zip(names, columns, strict=True)}
    if holes := {name: count for name, count in missing.items() if count}:
        listed = ", ".join(f"{name} ({count})" for name, count in holes.items())
        raise DataError(f"values are missing in the columns {listed} of the table; drop those rows, frame.dropna()")
    return np.stack([column.astype(np.float32) for column in columns], axis=1), names
