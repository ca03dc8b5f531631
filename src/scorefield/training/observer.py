"""Who watches long work: progress displays, tests, notebooks."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """Who watches a run: the command line's progress display, a test, a notebook."""

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
