"""Laws of a measurement given what it measures, in the units of the measurement."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import LOG_2PI, sum_event
from scorefield._random import StepNoise


class MeasurementNoise(ABC):
    """p(y | mean), independent from entry to entry.

    `shift_invariant` says whether it depends on y - mean alone; `kind` names it.
    """

    shift_invariant: ClassVar[bool] = True

    @abstractmethod
    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        """log p(y | mean), summed over each example's entries, (B,), with its constants."""

    @abstractmethod
    def sample(self, mean: Tensor, noise: StepNoise) -> Tensor:
        """A measurement of each row of `mean`."""

    @abstractmethod
    def variance(self, mean: Tensor) -> Tensor:
        """Variance of each entry, shape of `mean` (infinite where there is none)."""

    def check(self, y: Tensor) -> None:  # noqa: B027  # most laws allow every y
        """Refuse a y that cannot occur."""


@record
class GaussianNoise(MeasurementNoise):
    """N(mean, std^2).

    Args:
        std: In the units of the measurement, not negative; 0 says that y is exact, which only some solvers take.

    Raises:
        ValueError: It is negative or not finite.
    """

    std: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.std < math.inf:
            raise ValueError(f"std={self.std} of the measurement noise must not be negative; 0 says that y is exact")

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        """-|y - mean|^2 / (2 std^2) - M log(2 pi std^2) / 2.

        Raises:
            ValueError: std is 0, which has no density.
        """
        if self.std == 0.0:
            raise ValueError(
                "an exact measurement (std=0) has no density over x; state the noise of y, in its units, or use a"
                " solver that imposes y: replacement, repaint, ddrm"
            )
        entries = math.prod(y.shape[1:])
        return -0.5 * sum_event((y - mean) ** 2) / self.std**2 - 0.5 * entries * (LOG_2PI + 2 * math.log(self.std))

    def sample(self, mean: Tensor, noise: StepNoise) -> Tensor:
        """mean + std z."""
        return mean + self.std * noise(mean)

    def variance(self, mean: Tensor) -> Tensor:
        """std^2."""
        return torch.full_like(mean, self.std**2)
