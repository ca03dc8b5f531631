"""Test doubles: given noise, constant scores, and the mixed time conventions of the published code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.process import Process, Tabulated, TimeLimits
from scorefield.score import FunctionScore, Score


class GivenNoise:
    """Noise whose k-th draw, k = 0, 1, 2, ..., is made by a function of k."""

    def __init__(self, draw: Callable[[Tensor, int], Tensor]):
        self.draw, self.asked = draw, 0

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        self.asked += 1
        return self.draw(like, self.asked - 1)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return self.normal(like, step, draw)


def sines() -> GivenNoise:
    """Noise whose k-th draw is sin(k), as in the printed scalar chains."""
    return GivenNoise(lambda like, k: torch.full_like(like, float(torch.tensor(float(k), dtype=torch.float64).sin())))


class Generated:
    """Normal noise from one generator; faster than indexed noise where the index of an example does not matter."""

    def __init__(self, seed: int, loudness: float = 1.0):
        self.generator, self.loudness = torch.Generator().manual_seed(seed), loudness

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        return self.loudness * torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, dtype=like.dtype)


def frozen(value: Tensor, process: Process) -> Score:
    """A constant score."""
    return FunctionScore(lambda x, t: value.expand_as(x), process)


class ReleaseClock(Process):
    """alpha at a level of a table and sigma in continuous time, as the published `ald` corrector uses them."""

    def __init__(self, table: Tabulated, continuous: Process):
        self.table, self.continuous = table, continuous

    @property
    def t_min(self) -> TimeLimits:
        return self.continuous.t_min

    def alpha(self, t: Tensor) -> Tensor:
        return self.table.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.continuous.sigma(t)
