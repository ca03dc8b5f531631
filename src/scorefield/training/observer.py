"""Observers of long work: progress displays, tests, notebooks."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """Observer of a run: the progress display of the command line, a test, a notebook."""

    def message(self, text: str) -> None:
        """A line worth telling."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """After each step."""

    def row(self, row: dict[str, Any]) -> None:
        """After each row of metrics.jsonl."""


class Silent:
    """An observer that does nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Nothing."""

    def row(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End."""


class ProgressBar(Silent):
    """An observer that shows a bar on a terminal, and nothing elsewhere.

    Args:
        steps: Optimiser steps of the run.
    """

    def __init__(self, steps: int):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task("training", total=steps)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=step, description=f"training  loss {loss:.4f}")

    def __enter__(self) -> ProgressBar:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self._progress.stop()
