"""A checkup of a model: what the doctor found, and what it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from scorefield._codec import record
from scorefield.diagnostics.ema_age import AverageAge
from scorefield.diagnostics.examination import Examination
from scorefield.metrics.receipt import ReferenceFacts, short


@record
class DoctorReceipt:
    """Everything on which an examination depends.

    Args:
        model: Its name.
        model_hash: Hash of the weights; None for a distribution that is known exactly.
        weights: Name of the weights.
        step: Training step of the weights.
        data: The examples; None where there were none.
        train: The training examples that were used; None where there were none.
        levels: Noise levels asked for.
        seed: Seed of noise and probes.
        batch_size: Examples at a time.
        environment: Machine, threads, versions, command.
    """

    model: str
    model_hash: str | None
    weights: str | None
    step: int | None
    data: ReferenceFacts | None
    train: ReferenceFacts | None
    levels: int
    seed: int
    batch_size: int
    environment: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> tuple[tuple[str, str], ...]:
        """(what, text) for reading."""
        facts = [
            ("model", self.model),
            ("weights", self.weights),
            ("model hash", short(self.model_hash) if self.model_hash else None),
            ("step", f"{self.step:,}" if self.step is not None else None),
            ("examples", _told(self.data)),
            ("training examples", _told(self.train)),
            ("levels", str(self.levels)),
            ("seed", str(self.seed)),
            ("batch size", str(self.batch_size)),
            ("units", "model units"),
        ]
        return tuple((what, text) for what, text in facts if text is not None)


@record
class Checkup:
    """An examination of a model with its receipt.

    Args:
        examination: What was found.
        average: Age of the average of weights in use, where there is one.
        receipt: What it depends on.
    """

    examination: Examination
    average: AverageAge | None
    receipt: DoctorReceipt


def _told(data: ReferenceFacts | None) -> str:
    if data is None:
        return "none"
    note = f", {data.note}" if data.note else ""
    return f"{data.count} of {data.name}, {data.split}, hash {short(data.hash)}{note}"
