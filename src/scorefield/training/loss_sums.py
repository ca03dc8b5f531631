"""Sums of losses by noise level since the last row of metrics, over all processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scorefield.training import distributed

BINS = 10
"""Equal bins of t in which the loss is reported."""


@dataclass
class LossSums:
    """Sums over the examples since the last row, float64."""

    loss: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    count: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    norm: float = 0.0
    steps: int = 0

    def add(self, values: Tensor, t: Tensor) -> None:
        """Add the losses of examples, (B,), to the bins of their times t, (B,)."""
        bins = (t.double() * BINS).long().clamp(0, BINS - 1)
        self.loss.index_add_(0, bins, values.detach().double().cpu())
        self.count.index_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))

    def state(self, rank: int, world: int) -> dict[str, Any]:
        """The sums of every process, for a checkpoint."""
        rows = torch.zeros(world, 2 * BINS, dtype=torch.float64)
        rows[rank] = torch.cat([self.loss, self.count])
        return {"rows": distributed.all_sum(rows).tolist(), "norm": self.norm, "steps": self.steps}

    @classmethod
    def restored(cls, state: dict[str, Any], rank: int, world: int) -> LossSums:
        """This process's sums; with another number of processes than before, the first takes all."""
        rows = torch.tensor(state["rows"], dtype=torch.float64)
        mine = rows[rank] if len(rows) == world else rows.sum(0) * (rank == 0)
        return cls(mine[:BINS].clone(), mine[BINS:].clone(), state["norm"], state["steps"])

    def reduced(self) -> LossSums:
        """Sums over all processes."""
        both = distributed.all_sum(torch.cat([self.loss, self.count]))
        return LossSums(both[:BINS], both[BINS:], self.norm, self.steps)

    def row(self) -> dict[str, Any]:
        """The mean loss over all examples and per bin (None where the bin is empty), and the mean gradient norm."""
        total = float(self.count.sum())
        bins = [float(a / b) if b else None for a, b in zip(self.loss.tolist(), self.count.tolist(), strict=True)]
        return {
            "loss": float(self.loss.sum()) / total,
            "loss_bins": bins,
            "bin_edges": [k / BINS for k in range(BINS + 1)],
            "grad_norm": self.norm / max(self.steps, 1),
        }
