"""What a check is: a claim, how it is measured, what must come out, and how much it may be off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scorefield._random import philox

SIGNIFICANCE = 1e-6
"""Of every statistical check: of a million correct builds one fails. Seeds are fixed, so a pass stays a pass."""

DEVIATIONS = 4.8916
"""Standard deviations that a normal number exceeds, on either side, with probability `SIGNIFICANCE`."""


@dataclass(frozen=True)
class Bench:
    """Where checks are run.

    Args:
        device: Of all states; coefficients of time are computed on the CPU, as everywhere.
        dtype: float64, or float32 on a device that has no other.
    """

    device: torch.device
    dtype: torch.dtype = torch.float64

    @property
    def double(self) -> bool:
        """Whether states have float64."""
        return self.dtype == torch.float64

    def to(self, x: Tensor) -> Tensor:
        """A tensor on the bench, in its dtype."""
        return x.to(self.dtype).to(self.device)

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        """Standard normal numbers that depend on the seed and the shape alone."""
        return self.to(torch.from_numpy(np.asarray(philox(20_110_324, seed).standard_normal(shape))))


class Stream:
    """Noise for steps from one generator of the CPU: fast where the index of an example does not matter.

    Args:
        seed: Of the generator.
    """

    def __init__(self, seed: int):
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Standard normal noise like `like`."""
        return torch.randn(like.shape, generator=self._generator, dtype=torch.float32).to(like)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Uniform noise on [0, 1) like `like`."""
        return torch.rand(like.shape, generator=self._generator, dtype=torch.float32).to(like)


@dataclass(frozen=True)
class Found:
    """What was measured.

    Args:
        value: The number that is judged.
        details: The numbers it was made of, by what they belong to.
    """

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


def largest(details: Mapping[str, float]) -> Found:
    """The largest of several errors; one that is not a number counts as the largest."""
    return Found(max(details.values(), key=lambda e: math.inf if math.isnan(e) else e), details)


def farthest(details: Mapping[str, float], target: float) -> Found:
    """Of several measurements of one number, the one farthest from what it must be."""
    return Found(max(details.values(), key=lambda v: math.inf if math.isnan(v) else abs(v - target)), details)


@dataclass(frozen=True)
class Check:
    """One claim.

    Args:
        room: Which room it is about.
        name: Unique in its room; stays the same from release to release.
        claim: What is proved, in words.
        by: The equation or the algorithm.
        measure: Makes the number.
        unit: What the number is.
        target: What the number must be.
        allowed: How far from it in float64.
        why: Why so far.
        single: How far in float32, on devices without float64; None where float32 could not tell right from wrong: the
            check is then run on the CPU.
        accelerator: Compares an accelerator with the CPU, and is left out where there is none.
    """

    room: str
    name: str
    claim: str
    by: str
    measure: Callable[[Bench], Found]
    unit: str
    target: float
    allowed: float
    why: str
    single: float | None = None
    accelerator: bool = False

    @property
    def key(self) -> str:
        """Its name in certificates."""
        return f"{self.room}: {self.name}"

    def bench(self, given: Bench) -> Bench:
        """Where it is run: on the bench given, or on the CPU where that has not the digits."""
        return given if given.double or self.single is not None else Bench(torch.device("cpu"))

    def tolerance(self, bench: Bench) -> float:
        """How far from its target it may be there."""
        return self.allowed if bench.double or self.single is None else self.single


class Room:
    """The checks of one room.

    Args:
        name: What `--only` calls it.
        about: What is proved, to stand after the name.
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
    ) -> Callable[[Callable[[Bench], Found]], Callable[[Bench], Found]]:
        """Add the check that the decorated function measures; arguments as for `Check`."""
        assert name not in {check.name for check in self.checks}, f"{self.name} has a check {name!r} already"

        def add(measure: Callable[[Bench], Found]) -> Callable[[Bench], Found]:
            self.checks.append(
                Check(self.name, name, claim, by, measure, unit, target, allowed, why, single, accelerator)
            )
            return measure

        return add


def exact(x: Tensor) -> Tensor:
    """In float64 on the CPU, to which it goes first: not every device has float64."""
    return x.detach().cpu().double()


def relative(have: Tensor, want: Tensor) -> float:
    """Largest difference over the largest entry of what is wanted; infinite where shapes differ or it is not finite."""
    have, want = exact(have), exact(want)
    if have.shape != want.shape:
        return math.inf
    error = float((have - want).abs().max() / want.abs().max().clamp_min(1e-300))
    return error if math.isfinite(error) else math.inf


def surprise(values: Tensor, expected: float) -> float:
    """By how many standard errors the mean of independent values is off what is expected."""
    values = exact(values)
    return float((values.mean() - expected).abs() / (values.std() / len(values) ** 0.5))


def times(*values: float) -> Tensor:
    """Times as a process wants them: float64, on the CPU."""
    return torch.tensor(values, dtype=torch.float64)
