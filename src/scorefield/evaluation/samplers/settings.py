"""The numbers of a sampler that can be chosen, and the intervals in which they work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from scorefield._codec import with_field
from scorefield.process.grids import Focused, PowerSigma
from scorefield.process.levels import langevin_step
from scorefield.process.process import Process
from scorefield.sampling.consistent import Consistent
from scorefield.sampling.langevin import LadderScaled, Langevin, NoiseScaled, NormRatio
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Repeat, Step
from scorefield.sampling.stochastic import DDIM, KarrasHeun


@dataclass(frozen=True)
class Setting:
    """A number of a sampler that can be chosen.

    Args:
        path: The field, for `with_field`.
        what: Its name for people.
        low: Least value to try.
        high: Largest.
        hints: Values to try besides the grid.
        even: Whether values are tried at equal differences, for a setting that may be 0; else at equal ratios.
    """

    path: str
    what: str
    low: float
    high: float
    hints: tuple[float, ...] = ()
    even: bool = False

    def values(self) -> set[float]:
        """Where a search begins."""
        if self.even:
            return {self.low + (self.high - self.low) * k / 5 for k in range(6)}
        return {self.low * (self.high / self.low) ** (k / 5) for k in range(6)}

    def between(self, a: float, b: float) -> float | None:
        """A value half-way; None where the two are near enough."""
        if self.even:
            return 0.5 * (a + b) if abs(a - b) > 0.02 * (self.high - self.low) else None
        return math.sqrt(a * b) if abs(math.log(a / b)) > math.log(1.05) else None

    def of(self, sampler: Sampler) -> float:
        """The value it has."""
        value: Any = sampler
        for name in self.path.split("."):
            value = value[int(name)] if name.isdigit() else getattr(value, name)
        return float(value)

    def put(self, sampler: Sampler, value: float) -> Sampler:
        """The sampler with another value."""
        return with_field(sampler, self.path, value)


def settings_of(sampler: Sampler, process: Process) -> list[Setting]:
    """The numbers of a sampler that tuning can choose: snr, Langevin step, eta, churn, the shape of a grid.

    Args:
        sampler: The sampler.
        process: Process of the noise.
    """
    used, found = sampler.process or process, []
    for path, step, repeats in _steps(sampler.step, "step", 1):
        if isinstance(step, Langevin) and isinstance(step.size, NoiseScaled | NormRatio):
            # e = 2 (r sigma)^2 diverges at 2 sigma^2 in the full convention: r < 1, sqrt(2) in the half one.
            high = 0.9 * (2.0**0.5 if step.convention == "half" else 1.0)
            hints = _technique_4(sampler, used, repeats, step) if repeats > 1 else ()
            found.append(Setting(f"{path}.size.snr", "snr", 0.01, high, hints))
        elif isinstance(step, Langevin) and isinstance(step.size, LadderScaled):
            most = step.size.sigma_end**2 * (4.0 if step.convention == "half" else 2.0)
            found.append(Setting(f"{path}.size.epsilon", "Langevin step", 1e-3 * most, 0.9 * most))
        elif isinstance(step, Consistent):
            low, high = admissible_eta(sampler, used)
            found.append(Setting(f"{path}.eta", "eta", low, high))
        elif isinstance(step, DDIM):
            found.append(Setting(f"{path}.eta", "eta", 0.0, 1.0, even=True))
        elif isinstance(step, KarrasHeun):
            found.append(Setting(f"{path}.gamma", "gamma", 0.0, 2.0**0.5 - 1.0, even=True))
    if isinstance(sampler.grid, PowerSigma):
        found.append(Setting("grid.rho", "rho", 1.0, 20.0))
    elif isinstance(sampler.grid, Focused):
        found.append(Setting("grid.centre", "centre of the grid", 0.05, 5.0))
        found.append(Setting("grid.width", "width of the grid", 0.5, 8.0))
    return found


def _steps(step: Step, path: str, repeats: int) -> Iterator[tuple[str, Step, int]]:
    """Every step inside a step, with its path and how often it is repeated at a level."""
    if isinstance(step, Chain):
        for i, part in enumerate(step.steps):
            yield from _steps(part, f"{path}.steps.{i}", repeats)
    elif isinstance(step, Repeat):
        yield from _steps(step.step, f"{path}.step", repeats * step.times)
    else:
        yield path, step, repeats


def admissible_eta(sampler: Sampler, process: Process) -> tuple[float, float]:
    """The interval of eta in which consistent annealing can keep its noise level on a grid, cut at 1.

    |1 - eta| <= r_s / r_t for every step into a level with noise (Jolicoeur-Martineau et al. 2021, section 3.2); eta
    above 1 overshoots the posterior mean and is not tried.
    """
    times = sampler.times(process)
    ratio = (process.sigma(times) / process.alpha(times)).to(torch.float64)
    ratio = ratio[ratio > 0]
    least = float((ratio[1:] / ratio[:-1]).min())
    return (1.0 - least) * (1.0 + 1e-6) + 1e-9, 1.0


def _technique_4(sampler: Sampler, process: Process, repeats: int, step: Langevin) -> tuple[float, ...]:
    """snr at which so many Langevin steps carry the noise of one level to that of the next (NCSNv2)."""
    times = sampler.times(process)
    sigmas = process.sigma(times)
    sigmas = sigmas[sigmas > 0].unique()
    if len(sigmas) < 2:
        return ()
    eta = langevin_step(sigmas, repeats).eta * (2.0 if step.convention == "half" else 1.0)
    return ((0.5 * eta) ** 0.5,)
