"""Means of independent numbers: their intervals, and the chance that their expectation is 0."""

from __future__ import annotations

import math

from torch import Tensor

from scorefield._codec import record
from scorefield.inverse.calibration import Estimate

WIDTH = 1.96
"""Standard errors on either side of an interval of 95 percent."""


@record(tag="DoctorSize")
class Size:
    """An effect with its 95 percent interval.

    Args:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @staticmethod
    def of(estimate: Estimate) -> Size:
        """An estimate with the interval of a standard error."""
        half = WIDTH * estimate.error
        return Size(estimate.value, estimate.value - half, estimate.value + half)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_of(values: Tensor) -> Estimate:
    """Mean and standard error of independent numbers, (n,)."""
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def ratio_of(above: Tensor, below: Tensor) -> Estimate:
    """Mean of `above` over mean of `below`, with the error of its linearisation; 0 of 0 is 0."""
    low = float(below.mean())
    if low == 0.0:
        return Estimate(0.0, 0.0)
    value = float(above.mean()) / low
    return Estimate(value, mean_of((above - value * below) / low).error)


def root_of(squared: Estimate) -> Estimate:
    """Square root of a number that is not negative, with the error of its linearisation."""
    root = math.sqrt(max(squared.value, 0.0))
    return Estimate(root, 0.0 if root == 0.0 else 0.5 * squared.error / root)


def upper_tail(values: Tensor, least: float = 0.0) -> float:
    """p-value of the expectation of independent numbers, (n,), being at most `least`.

    Student's t after Hall's (1992, J. R. Statist. Soc. B 54) transformation, which takes out the skewness; the tail of
    t by Wallace's (1959) approximation.
    """
    n = len(values)
    mean, spread = float(values.mean()), float(values.std())
    if spread == 0.0 or n < 3:
        return 0.0 if mean > least and n >= 3 else 1.0
    skew = float(((values - mean) / spread).pow(3).mean())
    s = (mean - least) / spread
    t = math.sqrt(n) * (s + skew * s * s / 3.0 + skew**2 * s**3 / 27.0 + skew / (6.0 * n))
    nu = n - 1
    z = math.copysign((8 * nu + 1) / (8 * nu + 3) * math.sqrt(nu * math.log1p(t * t / nu)), t)
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def two_sided(values: Tensor) -> float:
    """p-value of the expectation of independent numbers, (n,), being 0."""
    return min(1.0, 2.0 * min(upper_tail(values), upper_tail(-values)))
