"""Distributions of a measurement given what it measures, in the units of the measurement."""

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

    def check(self, y: Tensor) -> None:  # noqa: B027  # most distributions allow every y
        """Refuse a y that cannot occur."""


@record
class GaussianNoise(MeasurementNoise):
    """N(mean, std^2).

    Args:
        std: Standard deviation in the units of the measurement, not negative; 0 means that y is exact, which only some
            solvers admit.

    Raises:
        ValueError: The deviation is negative or not finite.
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


def _positive(name: str, value: float, what: str) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name}={value} of the measurement noise must be positive: {what}")


@record
class LaplaceNoise(MeasurementNoise):
    """Density exp(-|y - mean| / scale) / (2 scale): errors now and then larger than normal ones.

    Args:
        scale: Scale in the units of the measurement; the standard deviation is sqrt(2) times as large.

    Raises:
        ValueError: The scale is not positive and finite.
    """

    scale: float

    def __post_init__(self) -> None:
        _positive("scale", self.scale, "an exact measurement is GaussianNoise(0.0)")

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        """-|y - mean| / scale - M log(2 scale)."""
        entries = math.prod(y.shape[1:])
        return -sum_event((y - mean).abs()) / self.scale - entries * math.log(2 * self.scale)

    def sample(self, mean: Tensor, noise: StepNoise) -> Tensor:
        """mean plus an exponential number of either sign."""
        size = -torch.log1p(-noise.uniform(mean))
        side = torch.where(noise.uniform(mean) < 0.5, -1.0, 1.0)
        return mean + self.scale * size * side

    def variance(self, mean: Tensor) -> Tensor:
        """2 scale^2."""
        return torch.full_like(mean, 2 * self.scale**2)


@record
class StudentNoise(MeasurementNoise):
    """Student's t about the mean: gross errors are to be expected.

    Args:
        scale: Scale in the units of the measurement.
        dof: Degrees of freedom; up to 2 there is no variance.

    Raises:
        ValueError: One is not positive and finite.
    """

    scale: float
    dof: float

    def __post_init__(self) -> None:
        _positive("scale", self.scale, "an exact measurement is GaussianNoise(0.0)")
        _positive("dof", self.dof, "infinitely many degrees of freedom are GaussianNoise(scale)")

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        """-(dof + 1) / 2 log(1 + (y - mean)^2 / (dof scale^2)), and its constants."""
        half = 0.5 * (self.dof + 1)
        constant = math.lgamma(half) - math.lgamma(0.5 * self.dof) - 0.5 * math.log(math.pi * self.dof * self.scale**2)
        squares = ((y - mean) / self.scale) ** 2 / self.dof
        return math.prod(y.shape[1:]) * constant - half * sum_event(torch.log1p(squares))

    def sample(self, mean: Tensor, noise: StepNoise) -> Tensor:
        """mean + scale sqrt(dof (u^(-2 / dof) - 1)) cos(2 pi v), u and v uniform (Bailey 1994)."""
        u, v = 1.0 - noise.uniform(mean), noise.uniform(mean)
        size = (self.dof * torch.expm1(-2.0 / self.dof * u.log())).sqrt()
        return mean + self.scale * size * torch.cos(2 * math.pi * v)

    def variance(self, mean: Tensor) -> Tensor:
        """scale^2 dof / (dof - 2); infinite for dof <= 2."""
        return torch.full_like(mean, self.scale**2 * self.dof / (self.dof - 2) if self.dof > 2 else math.inf)


@record
class PoissonNoise(MeasurementNoise):
    """y = gain k with counts k of mean A(x) / gain, so that y has the mean A(x) and the variance gain A(x).

    A(x) must not be negative anywhere; where it is, y is impossible and the gradient says nothing. For data that can be
    negative give an A that cannot, for example Function(lambda x: A(x).exp(), event).

    Args:
        gain: What one count adds to y.

    Raises:
        ValueError: The scale is not positive and finite.
    """

    shift_invariant: ClassVar[bool] = False

    gain: float

    def __post_init__(self) -> None:
        _positive("gain", self.gain, "it is what one count adds to y")

    def log_prob(self, y: Tensor, mean: Tensor) -> Tensor:
        """k log r - r - log k! with k = y / gain and r = mean / gain; -inf where r < 0, or r = 0 < k."""
        k, rate = (y / self.gain).round(), mean / self.gain
        possible = torch.where(rate < 0, torch.zeros_like(rate), rate)
        terms = torch.xlogy(k, possible) - possible - torch.lgamma(k + 1)
        return sum_event(torch.where(rate < 0, torch.full_like(rate, -math.inf), terms))

    def sample(self, mean: Tensor, noise: StepNoise) -> Tensor:
        """gain times the smallest k with P(K <= k) > u, u uniform of 48 bits.

        Raises:
            ValueError: A(x) is negative somewhere.
        """
        if bool((mean < 0).any()):
            raise ValueError(
                f"counts have a mean that is not negative, and A(x) goes down to {float(mean.min()):g}; give an"
                " operator without negative values"
            )
        u = noise.uniform(mean).double() + noise.uniform(mean).double() * 2.0**-24
        rate = mean.double() / self.gain
        spread = 10.0 * rate.sqrt() + 40.0
        # P(K <= low) <= u < P(K <= high) throughout, with P(K <= k) = Q(k + 1, rate), Q the incomplete gamma function.
        low, high = (rate - spread).floor().clamp_min(-1.0), (rate + spread).ceil()
        while bool((high - low > 1).any()):
            middle = ((low + high) / 2).floor()
            below = torch.special.gammaincc(middle + 1.0, rate) <= u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (self.gain * high).to(mean)

    def variance(self, mean: Tensor) -> Tensor:
        """gain A(x)."""
        return self.gain * mean.clamp_min(0.0)

    def check(self, y: Tensor) -> None:
        """Refuse a y that is no multiple of the gain.

        Raises:
            ValueError: y has negative values, or values between the multiples.
        """
        k = y.double() / self.gain
        if bool((k < -1e-3).any()) or bool(((k - k.round()).abs() > 1e-3 + 1e-6 * k.abs()).any()):
            raise ValueError(
                f"y of counts is 0, 1, 2, ... times gain={self.gain}; got values from {float(y.min()):g} to"
                f" {float(y.max()):g}, not all of them such multiples. Give y in the units in which one count is gain"
            )
