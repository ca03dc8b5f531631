"""Stand-ins for tests: noise that is given, scores that are frozen, the releases' mixed clocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.process import Process, Tabulated, TimeLimits
from scorefield.score import FunctionScore, Score


class GivenNoise:
    """Every draw is made by a function of its number 0, 1, 2, ... in order of asking."""

    def __init__(self, draw: Callable[[Tensor, int], Tensor]):
        self.draw, self.asked = draw, 0

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        self.asked += 1
        return self.draw(like, self.asked - 1)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return self.normal(like, step, draw)


def sines() -> GivenNoise:
    """The k-th draw is sin(k), the noise of the printed scalar chains."""
    return GivenNoise(lambda like, k: torch.full_like(like, float(torch.tensor(float(k), dtype=torch.float64).sin())))


class Generated:
    """Normal noise from one generator, fast where the index of an example does not matter."""

    def __init__(self, seed: int, loudness: float = 1.0):
        self.generator, self.loudness = torch.Generator().manual_seed(seed), loudness

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        return self.loudness * torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, dtype=like.dtype)


def frozen(value: Tensor, process: Process) -> Score:
    """A score that is the same everywhere."""
    return FunctionScore(lambda x, t: value.expand_as(x), process)


class ReleaseClock(Process):
    """alpha by the level of a table, sigma in continuous time: what the published `ald` corrector uses."""

    def __init__(self, table: Tabulated, continuous: Process):
        self.table, self.continuous = table, continuous

    @property
    def t_min(self) -> TimeLimits:
        return self.continuous.t_min

    def alpha(self, t: Tensor) -> Tensor:
        return self.table.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.continuous.sigma(t)
