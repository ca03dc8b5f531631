"""Definition of a check: a claim, its measurement, the value it must have, and the allowed error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scorefield._random import philox

SIGNIFICANCE = 1e-6
"""Two-sided significance of every statistical check: one correct build in a million fails.

Seeds are fixed, so that a check that passes on a machine passes there again.
"""

DEVIATIONS = 4.8916
"""Number of standard deviations whose two-sided tail probability is `SIGNIFICANCE` for a normal distribution."""


@dataclass(frozen=True)
class Bench:
    """Device and dtype on which checks run.

    Args:
        device: Device of all states; functions of time such as alpha(t) are computed on the CPU, as in the library.
        dtype: dtype of all states: float64, or float32 on a device without float64.
    """

    device: torch.device
    dtype: torch.dtype = torch.float64

    @property
    def double(self) -> bool:
        """Whether states are float64."""
        return self.dtype == torch.float64

    def to(self, x: Tensor) -> Tensor:
        """Return a tensor with the bench's dtype on its device."""
        return x.to(self.dtype).to(self.device)

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        """Return standard normal numbers that depend on seed and shape only."""
        return self.to(torch.from_numpy(np.asarray(philox(20_110_324, seed).standard_normal(shape))))


class SequentialNoise:
    """Noise source that draws from one CPU generator in sequence.

    It is faster than noise keyed by example, and serves checks that need no reproducibility of single examples.

    Args:
        seed: Seed of the generator.
    """

    def __init__(self, seed: int):
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Return standard normal noise with the shape, dtype and device of `like`."""
        return torch.randn(like.shape, generator=self._generator, dtype=torch.float32).to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Return uniform noise on [0, 1) with the shape, dtype and device of `like`."""
        return torch.rand(like.shape, generator=self._generator, dtype=torch.float32).to(like)


@dataclass(frozen=True)
class Measurement:
    """Result of the measurement of a check.

    Args:
        value: The number that is compared with the check's target.
        details: The single numbers behind it, by process, problem or setting.
    """

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


def largest(details: Mapping[str, float]) -> Measurement:
    """Return the largest of several errors; NaN counts as the largest."""
    return Measurement(max(details.values(), key=lambda e: math.inf if math.isnan(e) else e), details)


def farthest(details: Mapping[str, float], target: float) -> Measurement:
    """Return the value farthest from the target, of several that must all equal it; NaN counts as the farthest."""
    return Measurement(max(details.values(), key=lambda v: math.inf if math.isnan(v) else abs(v - target)), details)


@dataclass(frozen=True)
class Check:
    """One claim with its measurement.

    Args:
        group: Name of the group it belongs to.
        name: Name, unique in its group; certificates of different releases are compared by it.
        claim: The claim in words.
        by: The equation or algorithm by which it is measured.
        measure: Function that makes the measurement.
        unit: What the number is, for example "relative error" or "order".
        target: Value that the number must have.
        allowed: Allowed distance from the target in float64.
        why: Reason for the allowed distance.
        single: Allowed distance in float32, on devices without float64; None where float32 cannot distinguish a correct
            result from a wrong one, so that the check runs on the CPU.
        accelerator: Whether the check compares an accelerator with the CPU; it is skipped where there is none.
    """

    group: str
    name: str
    claim: str
    by: str
    measure: Callable[[Bench], Measurement]
    unit: str
    target: float
    allowed: float
    why: str
    single: float | None = None
    accelerator: bool = False

    @property
    def key(self) -> str:
        """Name with the group, as in certificates."""
        return f"{self.group}: {self.name}"

    def bench(self, requested: Bench) -> Bench:
        """Return where the check runs: on the requested bench, or on the CPU where float32 is not sufficient."""
        return requested if requested.double or self.single is not None else Bench(torch.device("cpu"))

    def tolerance(self, bench: Bench) -> float:
        """Return the allowed distance from the target on a bench."""
        return self.allowed if bench.double or self.single is None else self.single


class CheckGroup:
    """The checks about one part of the library.

    Args:
        name: Name of the group, as for `--only`.
        about: What is checked, printed after the name.
    """

    def __init__(self, name: str, about: str):
        self.name, self.about = name, about
        self.checks: list[Check] = []

    def check(
        self,
        name: str,
        *,
        claim: str,
        by: str,
        allowed: float,
        why: str,
        unit: str = "relative error",
        target: float = 0.0,
        single: float | None = None,
        accelerator: bool = False,
    ) -> Callable[[Callable[[Bench], Measurement]], Callable[[Bench], Measurement]]:
        """Return a decorator that adds a check to the group; the decorated function makes its measurement.

        The arguments are those of `Check`.
        """
        assert name not in {check.name for check in self.checks}, f"{self.name} has a check {name!r} already"

        def add(measure: Callable[[Bench], Measurement]) -> Callable[[Bench], Measurement]:
            self.checks.append(
                Check(self.name, name, claim, by, measure, unit, target, allowed, why, single, accelerator)
            )
            return measure

        return add


def exact(x: Tensor) -> Tensor:
    """Return a tensor in float64 on the CPU; it is moved first, because not every device has float64."""
    return x.detach().cpu().double()


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest expected entry; infinite if not finite or of another shape."""
    found, expected = exact(found), exact(expected)
    if found.shape != expected.shape:
        return math.inf
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
    return error if math.isfinite(error) else math.inf


def z_score(values: Tensor, expected: float) -> float:
    """Return the distance of the mean of independent values from its expectation, in standard errors."""
    values = exact(values)
    return float((values.mean() - expected).abs() / (values.std() / len(values) ** 0.5))


def times(*values: float) -> Tensor:
    """Return a float64 tensor on the CPU, as processes take times."""
    return torch.tensor(values, dtype=torch.float64)


def derivative(function: Callable[[Tensor], Tensor], t: Tensor, h: float = 1e-4) -> Tensor:
    """Return d function / dt by central differences of fourth order with steps h and 2 h."""
    near, far = ((function(t + k * h) - function(t - k * h)) / (2.0 * k * h) for k in (1, 2))
    return (4.0 * near - far) / 3.0


def rotational_field(x: Tensor) -> Tensor:
    """Return a vector field on R^3, (B, 3), that is not a gradient and whose components depend on all coordinates."""
    a, b, c = x.unbind(1)
    return torch.stack([(a * b).sin() - a, b.cos() * c - b**3, a - c * (0.3 * b).tanh()], dim=1)
