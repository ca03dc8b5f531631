"""Discrete processes: a ladder (table) of N noise levels, with the indexing of the published tables.

Level i of N is at t_i = i / (N - 1), with i = 0 the least noise; the level of a ladder with N = 1 is at t = 1. Below
level 0 there is no noise: alpha = 1 and sigma = 0 at t = -1 / (N - 1). The level of a time is round(t (N - 1)) where
t (N - 1) is within 1e-3 of an integer, and the floor otherwise. The floor alone, in float32, gives the wrong level for
45 of 232 labels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.process.process import Process, TimeLimits

SNAP = 9.9e-4
"""Largest distance from an integer at which t (N - 1) is taken to be that integer.

It is above the rounding error of float32 times, which is 2e-4 for the longest published ladder (N = 2311), and just
below 1e-3, the last time of the published grids for N = 1000, at which t (N - 1) = 0.999 and the level is 0.
"""


class Ladder(ABC):
    """A table of N noise levels, least noise first."""

    @abstractmethod
    def table(self) -> tuple[Tensor, Tensor]:
        """alpha_i and sigma_i (model units) of all levels, float64, shape (N,)."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior from which samplers start, sigma of the last level; model units."""
        return float(self.table()[1][-1])


@record
class GeometricSigmas(Ladder):
    """alpha = 1 and sigma_i geometric from sigma_min to sigma_max: the levels of NCSN and of discrete VE models.

    Args:
        sigma_min: sigma of level 0, model units.
        sigma_max: sigma of level N - 1, model units.
        levels: Number of levels, N.

    Raises:
        ValueError: The levels are not positive and increasing, or there is no level.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    levels: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min <= self.sigma_max < math.inf or self.levels < 1:
            raise ValueError(
                "a geometric ladder needs 0 < sigma_min <= sigma_max and levels >= 1; got"
                f" {self.sigma_min}, {self.sigma_max} and {self.levels}"
            )
        if self.sigma_min == self.sigma_max and self.levels > 1:
            raise ValueError(
                f"sigma_min = sigma_max = {self.sigma_min} is one level, and levels={self.levels}; pass levels=1"
            )

    def table(self) -> tuple[Tensor, Tensor]:
        """alpha_i = 1, sigma_i = exp(linspace(log sigma_min, log sigma_max, N))_i."""
        if self.levels == 1:
            sigmas = torch.tensor([self.sigma_max], dtype=torch.float64)
        else:
            ends = math.log(self.sigma_min), math.log(self.sigma_max)
            sigmas = torch.linspace(*ends, self.levels, dtype=torch.float64).exp()
        return torch.ones_like(sigmas), sigmas


@record
class LinearSigmas(Ladder):
    """alpha = 1 and sigma_i equally spaced from sigma_min to sigma_max: the levels "lin" of MDSM (Li et al. 2019).

    Args:
        sigma_min: sigma of level 0, model units.
        sigma_max: sigma of level N - 1, model units.
        levels: Number of levels, N.

    Raises:
        ValueError: The levels are not positive and increasing, or there are fewer than two.
    """

    sigma_min: float = 0.05
    sigma_max: float = 1.2
    levels: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf or self.levels < 2:
            raise ValueError(
                "a linear ladder needs 0 < sigma_min < sigma_max and levels >= 2; got"
                f" {self.sigma_min}, {self.sigma_max} and {self.levels}"
            )

    def table(self) -> tuple[Tensor, Tensor]:
        """alpha_i = 1, sigma_i = linspace(sigma_min, sigma_max, N)_i."""
        sigmas = torch.linspace(self.sigma_min, self.sigma_max, self.levels, dtype=torch.float64)
        return torch.ones_like(sigmas), sigmas


@record
class LinearBetas(Ladder):
    """beta_i linear from beta_min / N to beta_max / N, alpha_i^2 = prod_{j <= i} (1 - beta_j): DDPM, discrete VP.

    Args:
        beta_min: N beta_0.
        beta_max: N beta_{N-1}.
        levels: Number of levels, N; the default of 1000 gives the betas of DDPM, from 1e-4 to 0.02.

    Raises:
        ValueError: The betas are not positive and increasing, or one is not below 1, or there is no level.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    levels: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max or self.levels < 1:
            raise ValueError(
                "a ladder of linear betas needs 0 < beta_min <= beta_max and levels >= 1; got"
                f" {self.beta_min}, {self.beta_max} and {self.levels}"
            )
        if self.beta_max >= self.levels:
            raise ValueError(
                f"beta_{{N-1}} = beta_max / N = {self.beta_max / self.levels:g} must be below 1; use more than"
                f" {self.beta_max:g} levels"
            )

    def table(self) -> tuple[Tensor, Tensor]:
        """alpha_i and sigma_i = sqrt(1 - alpha_i^2)."""
        n = self.levels
        betas = torch.linspace(self.beta_min / n, self.beta_max / n, n, dtype=torch.float64)
        log_alpha_squared = torch.log1p(-betas).cumsum(0)
        return (0.5 * log_alpha_squared).exp(), (-torch.expm1(log_alpha_squared)).sqrt()

    @property
    def prior_std(self) -> float:
        """1, as published."""  # sigma of the last level is slightly below 1
        return 1.0


@record
class Levels(Ladder):
    """A ladder whose levels are given one by one, least noise first.

    Args:
        sigmas: Increasing standard deviations of the noise, model units.
        alphas: Scales of the data, or None for 1 at every level.

    Raises:
        ValueError: The numbers are not positive, sigma or sigma / alpha does not increase, or the counts differ.
    """

    sigmas: tuple[float, ...]
    alphas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.sigmas or not all(0 < s < math.inf for s in self.sigmas) or not _increasing(self.sigmas):
            raise ValueError(
                f"sigmas must be positive and increase strictly, with level 0 the least noise; got {self.sigmas}"
            )
        if self.alphas is None:
            return
        if len(self.alphas) != len(self.sigmas) or not all(0 < a < math.inf for a in self.alphas):
            raise ValueError(f"alphas must be {len(self.sigmas)} positive numbers, one per level; got {self.alphas}")
        if not _increasing([s / a for s, a in zip(self.sigmas, self.alphas, strict=True)]):
            raise ValueError(
                "sigma / alpha must increase strictly with the level, because each level is made from the one below by"
                f" adding noise; got sigmas={self.sigmas} and alphas={self.alphas}"
            )

    def table(self) -> tuple[Tensor, Tensor]:
        """alpha_i and sigma_i as given."""
        sigmas = torch.tensor(self.sigmas, dtype=torch.float64)
        alphas = torch.ones_like(sigmas) if self.alphas is None else torch.tensor(self.alphas, dtype=torch.float64)
        return alphas, sigmas


def _increasing(numbers: Sequence[float]) -> bool:
    return all(low < high for low, high in zip(numbers, numbers[1:], strict=False))


@record
class Tabulated(Process):
    """The process of a ladder, extended to continuous time by a rule for the times between levels.

    Args:
        ladder: The table of levels.
        between: alpha and sigma at times between levels. "linear": log alpha and log sigma are linear in t, so that a
            discrete model can be sampled with any number of steps. "floor": they are those of the level of t.
    """

    ladder: Ladder = GeometricSigmas()
    between: Literal["linear", "floor"] = "linear"

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        return self.ladder.table()

    @property
    def levels(self) -> int:
        """Number of levels, N."""
        return len(self._table[1])

    @property
    def t_min(self) -> TimeLimits:
        """The time of level 0, for every use."""
        lowest = 0.0 if self.levels > 1 else 1.0
        return TimeLimits(training=lowest, sampling=lowest, likelihood=lowest)

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior of the ladder, model units."""
        return self.ladder.prior_std

    def time(self, level: Tensor) -> Tensor:
        """The time of a level, float64; -1 stands for the time below level 0, without noise."""
        level = level.to(torch.float64)
        return level / (self.levels - 1) if self.levels > 1 else 1.0 + level

    def position(self, t: Tensor) -> Tensor:
        """t (N - 1), float64, rounded to the nearest integer where that is within `SNAP`."""
        t = t.to(torch.float64)
        raw = t * (self.levels - 1) if self.levels > 1 else t - 1.0
        nearest = raw.round()
        return torch.where((raw - nearest).abs() < SNAP, nearest, raw)

    def level(self, t: Tensor) -> Tensor:
        """The level of a time, int64; -1 for times below level 0."""
        return self.position(t).floor().clamp(-1, self.levels - 1).long()

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data at t; 1 below level 0."""
        return self._look_up(0, t, 1.0)

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at t, model units; 0 below level 0."""
        return self._look_up(1, t, 0.0)

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        """d log alpha / dt between levels; at a level, the rate of the interval above it (at t = 1, below it).

        Raises:
            ValueError: The ladder changes in jumps.
        """
        self._need_rates()
        return super().log_alpha_rate(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """d sigma^2 / dt - 2 f sigma^2 between levels; at a level, that of the interval above it (at t = 1, below it).

        Raises:
            ValueError: The ladder changes in jumps.
        """
        self._need_rates()
        return super().diffusion_squared(t)

    def _need_rates(self) -> None:
        if self.between == "floor" or self.levels == 1:
            raise ValueError(
                "a ladder with between='floor', or of one level, changes in jumps and has no drift and diffusion. Use"
                " between='linear', or a step that uses only kernel(s, t), such as ancestral sampling"
            )

    def _look_up(self, which: int, t: Tensor, below: float) -> Tensor:
        """alpha (which=0) or sigma (which=1) at t, in the dtype of t; `below` for times below level 0."""
        table = self._table[which].to(t.device)
        level = self.level(t.detach())
        if self.between == "linear" and self.levels > 1:
            lower = level.clamp(0, self.levels - 2)  # t = 1 belongs to the last interval, so that its rate is not zero
            start, end = table[lower], table[lower + 1]
            position = t.to(torch.float64) * (self.levels - 1)
            # Only rounding errors of t are corrected here (not everything within SNAP), so that the process is
            # continuous and time_at_sigma inverts it; the derivative with respect to t is unchanged.
            off = position.detach().round() - position.detach()
            rounding = 2.0 * torch.finfo(t.dtype).eps * (self.levels - 1)
            position = position + torch.where(off.abs() <= min(rounding, SNAP), off, torch.zeros_like(off))
            value = start * ((end / start).log() * (position - lower).clamp(max=1.0)).exp()
        else:
            value = table[level.clamp_min(0)]
        return torch.where(level < 0, torch.full_like(value, below), value).to(t.dtype)
