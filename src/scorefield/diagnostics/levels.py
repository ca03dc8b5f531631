"""Examples at the noise levels at which a score is examined, and what the score says of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorefield._random import IndexedNoise
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import BoundScore, Score, require_alpha_sigma

SIGNS = 1
"""Number of the first draw of probes at a level; draw 0 is its noise."""

SCANNED = 10_000
"""Number of the step whose noise is that of the scan of all levels of a ladder."""


@dataclass(frozen=True)
class Level:
    """Examples at one noise level.

    Attributes:
        index: Its number among those examined.
        time: t.
        alpha: Scale of the data.
        sigma: Deviation of the noise, model units.
        x: alpha x_0 + sigma z, (n, *event).
        z: Standard normal, as x.
    """

    index: int
    time: float
    alpha: float
    sigma: float
    x: Tensor
    z: Tensor

    def denoised(self, h: Tensor) -> Tensor:
        """Posterior mean of x_0 by Tweedie's formula, (n, d), from the noise h, (n, d), that is seen in x."""
        return (self.x.flatten(1) - self.sigma * h) / self.alpha

    def noise_of(self, D: Tensor) -> Tensor:
        """The noise in x with D taken for x_0, (n, d)."""
        return (self.x.flatten(1) - self.alpha * D.flatten(1)) / self.sigma


class Examined:
    """A score with the data it is examined on.

    Args:
        score: The score, bound to what is known of each example.
        process: The process of the noise.
        x0: Examples in model units, (n, *event).
        times: Times of the levels, increasing.
        seed: Seed of noise and probes.
        batch_size: Examples at a time.
    """

    def __init__(
        self, score: BoundScore, process: Process, x0: Tensor, times: Sequence[float], *, seed: int, batch_size: int
    ):
        self.score, self.process, self.size = score, process, batch_size
        self.x0 = x0.detach() if x0.device.type == "mps" else x0.detach().double()
        self.draws = IndexedNoise(seed, range(len(x0)))
        self.levels = [self._level(k, float(t), k) for k, t in enumerate(times)]

    def _level(self, index: int, time: float, step: int) -> Level:
        t = torch.tensor([time], dtype=torch.float64)
        z = self.draws.normal(self.x0, step, 0)
        alpha, sigma = float(self.process.alpha(t)), float(self.process.sigma(t))
        return Level(index, time, alpha, sigma, self.process.perturb(self.x0, t, z), z)

    def batches(self, most: int | None = None) -> list[Tensor]:
        """Rows of each batch, of the first `most` examples."""
        return list(torch.arange(len(self.x0) if most is None else min(most, len(self.x0))).split(self.size))

    def noise(self, x: Tensor, time: float, sigma: float, score: Score | None = None) -> Tensor:
        """h = -sigma score(x, t), flattened to (n, d); of another score where one is given."""
        bound = self.score if score is None else score.bind(self.score.condition)
        with torch.no_grad():
            parts = [bound.rows(rows)(x[rows], times(time, rows)) for rows in self.batches()]
        return -sigma * torch.cat(parts).flatten(1).to(self.x0)

    def signs(self, level: Level, number: int) -> Tensor:
        """Rademacher probes, shape of x_0."""
        u = self.draws.uniform(self.x0, level.index, SIGNS + number)
        return torch.where(u < 0.5, -1.0, 1.0).to(self.x0)

    def products(self, level: Level, vectors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]] | None:
        """(J v, J' v), each (n, d), of the Jacobian J of the score for each v, shape of x.

        None for a network of which some derivative is not written.
        """
        parts: list[list[tuple[Tensor, Tensor]]] = []
        for rows in self.batches():
            bound = self.score.rows(rows)
            try:
                found = both_products(bound, level.x[rows], times(level.time, rows), [v[rows] for v in vectors])
            except RuntimeError as error:
                if _unwritten(error):
                    return None
                raise
            parts.append(found)
        joined = zip(*parts, strict=True)
        return [tuple(torch.cat(side).flatten(1) for side in zip(*pairs, strict=True)) for pairs in joined]  # type: ignore[misc]

    def scan(self, most: int = 48) -> list[int]:
        """Levels of a ladder whose loss stands out from both beside it; [] where time is continuous.

        All levels have the same examples and the same noise, so that the loss changes little from one to the next.
        """
        ladder = self.process
        if not isinstance(ladder, Tabulated) or ladder.levels < 3:
            return []
        few = Examined(
            self.score.rows(torch.arange(min(most, len(self.x0)))),
            ladder,
            self.x0[:most],
            [],
            seed=self.draws.seed,
            batch_size=self.size,
        )
        losses = []
        for time in ladder.time(torch.arange(ladder.levels, dtype=torch.float64)).tolist():
            level = few._level(0, time, SCANNED)
            h = few.noise(level.x, time, level.sigma)
            losses.append(float((level.z.flatten(1) - h).square().mean()))
        beside = [max(a, b) for a, b in zip(losses[:-2], losses[2:], strict=True)]
        beside = [losses[1], *beside, losses[-2]]
        return [i for i, (own, other) in enumerate(zip(losses, beside, strict=True)) if not own < 1.25 * other]


def times(time: float, rows: Tensor) -> Tensor:
    """One time for all rows."""
    return torch.tensor([time], dtype=torch.float64).expand(len(rows))


def twice_differentiable() -> AbstractContextManager[Any]:
    """Attention by plain products: the derivative of the fast kernels' derivative is not written."""
    return sdpa_kernel(SDPBackend.MATH)


def both_products(bound: BoundScore, x: Tensor, t: Tensor, vectors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """(J v, J' v) for each v, shape of x: J' v by a backward pass, J v by the derivative of J' c in c."""
    with torch.enable_grad(), twice_differentiable():
        x = x.detach().requires_grad_(True)
        s = bound(x, t)
        if not s.requires_grad:  # a constant
            return [(torch.zeros_like(x), torch.zeros_like(x)) for _ in vectors]
        c = torch.zeros_like(s, requires_grad=True)
        (pulled,) = torch.autograd.grad(s, x, c, create_graph=True, allow_unused=True, materialize_grads=True)
        found = []
        for v in vectors:
            right = torch.zeros_like(x)
            if pulled.requires_grad:
                (right,) = torch.autograd.grad(
                    pulled, c, v, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            (left,) = torch.autograd.grad(s, x, v, retain_graph=True, allow_unused=True, materialize_grads=True)
            found.append((right.detach(), left.detach()))
    return found


def _unwritten(error: RuntimeError) -> bool:
    """Whether an error says that a derivative of a derivative is not there."""
    words = str(error).lower()
    return "derivative" in words or "double backward" in words or "does not require grad" in words


def default_times(process: Process, count: int = 12) -> list[float]:
    """Times of so many levels: equal steps in log(alpha^2 / sigma^2), or levels of a ladder in equal steps.

    Raises:
        ValueError: A `GeneralSDE`, which has no alpha and sigma.
    """
    require_alpha_sigma(process)
    if isinstance(process, Tabulated):
        chosen = torch.linspace(0, process.levels - 1, min(count, process.levels), dtype=torch.float64).round()
        return process.time(chosen).tolist()
    low, high = process.log_snr(torch.tensor([process.t_min.sampling, 1.0], dtype=torch.float64))
    found = process.time_at_log_snr(low + torch.linspace(0.0, 1.0, count, dtype=torch.float64) * (high - low))
    return [process.t_min.sampling, *found[1:-1].tolist(), 1.0]
