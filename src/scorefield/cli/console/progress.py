"""Progress of long work: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def on_terminal() -> bool:
    """Whether a live display makes sense."""
    return sys.stderr.isatty()


def bar() -> Progress:
    """A progress display on stderr; shows nothing where there is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not on_terminal(), transient=True)


class TrainingDisplay:
    """The observer of a training run."""

    def __init__(self, progress: Progress, steps: int):
        self._progress = progress
        self._task = progress.add_task("training", total=steps)

    def message(self, text: str) -> None:
        """A line."""
        if on_terminal():
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        if on_terminal():
            self._progress.update(self._task, completed=step, description=f"training  loss {loss:.4f}")

    def row(self, row: dict[str, Any]) -> None:
        """One line per row of metrics.jsonl; on a terminal the bar shows all but the validation losses."""
        if on_terminal() and "validation" not in row:
            return
        parts = [f"step {row['step']:>7}", f"{row['seconds']:8.1f} s"]
        parts += [f"loss {row['loss']:.4f}"] if "loss" in row else []
        parts += [f"validation {row['validation']:.4f}"] if "validation" in row else []
        parts += [f"{row['examples_per_second']:.0f} examples/s"] if "examples_per_second" in row else []
        self.message("  ".join(parts))


@contextmanager
def training_display(steps: int) -> Iterator[TrainingDisplay]:
    """The display of a training run, cleared at its end."""
    with bar() as progress:
        yield TrainingDisplay(progress, steps)


class SamplingDisplay:
    """A callback of the sampling loop and of finished batches."""

    def __init__(self, progress: Progress, n: int, what: str = "samples"):
        self._progress, self._n, self._what = progress, n, what
        self._task = progress.add_task(what, total=n)
        self._done, self._batch, self._last = 0, 0, time.perf_counter()

    def within(self, event: Any) -> None:
        """After each step of a batch."""
        self._batch = len(event.x)
        if on_terminal():
            self._progress.update(self._task, completed=self._done + self._batch * event.step / event.steps)

    def finished(self, first: int, part: Any) -> None:
        """After each batch: the offset of its first example, and the samples or their number."""
        self._done = first + (part if isinstance(part, int) else len(part.x))
        self._progress.update(self._task, completed=self._done)
        if not on_terminal() and (time.perf_counter() - self._last > 10 or self._done == self._n):
            self._last = time.perf_counter()
            print(f"{self._done} of {self._n} {self._what}", flush=True)


@contextmanager
def sampling_display(n: int, what: str = "samples") -> Iterator[SamplingDisplay]:
    """The display of a sampling run."""
    with bar() as progress:
        yield SamplingDisplay(progress, n, what)
