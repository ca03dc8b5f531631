"""Observers of long work: progress displays, tests, notebooks."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """Observer of a run: the progress display of the command line, a test, a notebook."""

    def message(self, text: str) -> None:
        """Receive one line of text for the user."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Receive the number of optimiser steps taken, of how many, and the loss; called after each step."""

    def row(self, row: dict[str, Any]) -> None:
        """Receive a row of metrics.jsonl after it is written."""


class Silent:
    """An observer that does nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Do nothing."""

    def row(self, row: dict[str, Any]) -> None:
        """Do nothing."""

    def __enter__(self) -> Silent:
        """Return the observer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing."""


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
