"""Choosing between the checkpoints of a run, on data that the report does not use.

Every checkpoint draws the same indices of the same seed, so that its samples share their noise with those of all
others, and is measured against the selection split alone. The one with the best value is reported with fresh samples
against the report split: the smallest of several noisy values is too small, and neither its samples nor its reference
may serve twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from scorefield._codec import near, record
from scorefield.data import DataError, Split
from scorefield.data.order import pick
from scorefield.metrics import MetricResult
from scorefield.metrics.by_name import BITS, NAMED, SELECTING
from scorefield.metrics.energy_distance import Jackknifed
from scorefield.metrics.paired import PairedDifference, paired_difference
from scorefield.models.checkpoint_folder import checkpoint_steps, checkpoints_of

HALVES = 20_110_713
"""Seed of the hash that halves the held-out examples."""


@dataclass(frozen=True)
class Splits:
    """The data on which a checkpoint is chosen, and the data on which it is reported.

    Args:
        selection: Split, examples of it, and what to call them.
        report: Rows of the reporting split.
    """

    selection: tuple[Split, np.ndarray, str]
    report: tuple[Split, np.ndarray, str]


def splits_of(held_out: Split | None, train: Split | None, on: Literal["val", "train"]) -> Splits:
    """The two splits of a selection.

    Args:
        held_out: What the run did not see.
        train: What it did.
        on: "val" chooses by one half of the held-out examples, drawn by a hash of their indices, and reports on the
            other; "train" chooses by the training examples and reports on all held-out ones.

    Raises:
        DataError: Nothing is held out, or the training data are not known.
    """
    if held_out is None or len(held_out) < 4:
        raise DataError(
            f"{0 if held_out is None else len(held_out)} examples are held out, and what chooses a checkpoint must not"
            " report it; train with data.held_out above 0, or give other real data, --reference PATH"
        )
    everything = np.arange(len(held_out))
    if on == "train":
        if train is None:
            raise DataError("the run does not say where its training data are, and --on train chooses by them")
        return Splits((train, np.arange(len(train)), "train"), (held_out, everything, "held-out"))
    chosen = pick(len(held_out), len(held_out) // 2, HALVES)
    rest = np.setdiff1d(everything, chosen)
    return Splits((held_out, chosen, "held-out, selecting half"), (held_out, rest, "held-out, reporting half"))


def steps_of(run: Path, text: str) -> list[int]:
    """The checkpoints named by "all", "last:K" or "STEP,STEP,...", ascending.

    Raises:
        ValueError: The folder has no checkpoints, or not these.
    """
    there = checkpoint_steps(run)
    if not there:
        raise ValueError(
            f"{run} has no checkpoints to choose from (no folders {checkpoints_of(run)}/step_N); give a run"
            " folder of `scorefield train`, whose training.keep says how many it keeps, or leave out --checkpoints"
        )
    known = f"it has {', '.join(map(str, there))}"
    if text == "all":
        return there
    kind, colon, number = text.partition(":")
    try:
        if colon:
            if kind != "last" or int(number) < 1:
                raise ValueError
            return there[-int(number) :]
        wanted = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise ValueError(f"--checkpoints {text!r}: give all, last:3, or steps such as {there[0]},{there[-1]}") from None
    if missing := [step for step in wanted if step not in there]:
        raise ValueError(f"{run} has no checkpoint of step {', '.join(map(str, missing))}; {known}")
    return wanted


def require_selecting(name: str) -> None:
    """Refuse metrics that cannot choose.

    Raises:
        ValueError: Unknown, or neither lower nor higher is better, or differences of it are not known.
    """
    if name in SELECTING:
        return
    if name in NAMED or name == BITS:
        raise ValueError(
            f"--select {name}: neither lower nor higher of it is better, or its differences are not paired; select by"
            f" {', '.join(SELECTING)}"
        )
    raise ValueError(f"no metric is called {name!r}.{near(name, SELECTING)}")


@record(tag="CheckpointValue")
class Candidate:
    """A checkpoint's value on the selection split.

    Args:
        step: Training step.
        result: The value.
        difference: Difference to the best checkpoint, over shared noise; None for the best, and where it is unknown.
        note: Why they are not known.
        worse: Whether it is significantly worse than the best: the interval of the difference leaves out 0.
    """

    step: int
    result: MetricResult
    difference: PairedDifference | None = None
    note: str | None = None
    worse: bool = False


def ranked(
    steps: Sequence[int], results: Sequence[MetricResult], parts: Sequence[Jackknifed | str]
) -> tuple[int, list[Candidate]]:
    """The best checkpoint, and all with their differences to it.

    Args:
        steps: The checkpoints.
        results: Their values.
        parts: Their contributions, or why these are not known.

    Returns:
        Position of the best, the earliest of equals; and the table.
    """
    sign = -1.0 if results[0].value.better == "higher" else 1.0
    best = int(np.argmin([sign * r.value.number for r in results]))
    table = []
    for k, (step, result, own) in enumerate(zip(steps, results, parts, strict=True)):
        others = parts[best]
        if k == best:
            table.append(Candidate(step, result))
        elif isinstance(own, str) or isinstance(others, str):
            table.append(Candidate(step, result, note=own if isinstance(own, str) else str(others)))
        else:
            d = paired_difference(own, others)
            worse = d.interval[0] > 0.0 if sign > 0 else d.interval[1] < 0.0
            table.append(Candidate(step, result, d, worse=worse))
    return best, table


def lines(table: Sequence[Candidate], best: int) -> list[str]:
    """The table for a log."""
    shown = [f"{'step':>10}  {'value':>10}  {'95 % interval':<24}  difference to the best, noise shared"]
    for k, c in enumerate(table):
        value = c.result.value
        interval = "" if value.interval is None else f"[{value.interval[0]:.4g}, {value.interval[1]:.4g}]"
        if k == best:
            beside = "the best"
        elif c.difference is None:
            beside = f"{value.number - table[best].result.value.number:+.4g}, of unknown error"
        else:
            low, high = c.difference.interval
            beside = f"{c.difference.number:+.4g} [{low:.4g}, {high:.4g}]" + ("  worse" if c.worse else "")
        shown.append(f"{c.step:>10}  {value.number:>10.4g}  {interval:<24}  {beside}")
    notes = dict.fromkeys(c.note for c in table if c.note)
    return [*shown, *(f"note: {note}" for note in notes)]
