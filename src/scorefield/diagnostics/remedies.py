"""Remedies of known faults as functions of the score; see `faults`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.diagnostics.levels import Examined, Level
from scorefield.diagnostics.statistics import Size, ratio_of
from scorefield.inverse.calibration import Estimate
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score

FAR = 0.08
"""Largest shift of continuous times; what is further off is no step of a schedule."""

SHIFTS = (1e-2, 3e-2)
"""Shifts of continuous times, besides 0, from which a shift is fitted: steps of 100 and of 30 times."""

UNITS = 1.4
"""Least factor of a sigma taken for another; below it the fault is one of time."""


@dataclass(frozen=True)
class Remedy:
    """The correction of a fault.

    Attributes:
        name: Name of the fault.
        says: What is wrong if it helps.
        advice: What to try then.
        at: Number of a level -> the noise in its place, (n, d), or None for a level that it leaves alone.
        fitted: Whether it was fitted to the examples.
    """

    name: str
    says: str
    advice: str
    at: Callable[[int], Tensor | None]
    fitted: bool = False


def remedies_of(
    examined: Examined, seen: Sequence[Tensor], turned: Sequence[Tensor | None], others: Mapping[str, Score]
) -> list[Remedy]:
    """All remedies; arguments as of `faults.diagnose`."""
    return [
        *_powers(examined.levels, seen),
        *_factor(examined.levels, seen),
        *_calls(examined, seen),
        *_straightened(examined.levels, seen, turned),
        *(_between(examined, level) for level in examined.levels),
        *(_other(examined, name, score) for name, score in others.items()),
    ]


_CONVERSION = (
    "look at what the network's output means (its form: noise, score, sigma times score, x_0), and at who divides by"
    " sigma and with which sign"
)


def _powers(levels: Sequence[Level], seen: Sequence[Tensor]) -> list[Remedy]:
    """The score times a power of sigma, with either sign."""
    swapped = "noise and score swapped"
    kinds = (
        (swapped, "what is given for the score is the noise: -sigma times the score", -1.0, -1.0),
        (swapped, "the score was taken for the noise, and divided by -sigma", -1.0, 1.0),
        (swapped, "what is given for the score is sigma times it, the noise with its sign changed", 1.0, -1.0),
        (swapped, "the score is divided by sigma once more than it should be", 1.0, 1.0),
        ("wrong sign", "the score points away from the data: its sign is wrong", -1.0, 0.0),
    )
    return [
        Remedy(name, says, _CONVERSION, lambda k, s=sign, p=power: s * levels[k].sigma ** p * seen[k])
        for name, says, sign, power in kinds
    ]


def _factor(levels: Sequence[Level], seen: Sequence[Tensor]) -> list[Remedy]:
    """One factor for all levels, by least squares with levels weighted as in the fall."""
    above, below = [], []
    for level, h in zip(levels, seen, strict=True):
        scale = float((level.z.flatten(1) - h).square().sum(dim=1).mean())
        if scale > 0.0:
            above.append((level.z.flatten(1) * h).sum(dim=1) / scale)
            below.append(h.square().sum(dim=1) / scale)
    if not above:
        return []
    found = ratio_of(torch.stack(above).mean(dim=0), torch.stack(below).mean(dim=0))
    if found.value <= 0.0:  # of the wrong sign, or 0
        return []
    size = Size.of(Estimate(1.0 / found.value, found.error / found.value**2))
    says = f"the score is {size} times what it should be, at all levels alike"
    advice = "look for a sigma that is off by this factor, or in other units than the data, where the output is scaled"
    return [Remedy("wrong sigma scale", says, advice, lambda k: found.value * seen[k], fitted=True)]


def _calls(examined: Examined, seen: Sequence[Tensor]) -> list[Remedy]:
    """The score called at other times: one level off, a little off, or at those of another sigma."""
    process = examined.process
    if isinstance(process, Tabulated):
        step, out = 1.0 / max(1, process.levels - 1), []
        for sign, side in ((1.0, "below"), (-1.0, "above")):
            says = f"the score that is given for a level is that of the level {side} it"
            out.append(Remedy("off-by-one time", says, _CLOCK, _moved(examined, lambda time, s=sign: time + s * step)))
        return out

    def of_sigma(time: float, log_factor: float) -> float:
        t = torch.tensor([time], dtype=torch.float64)
        wanted = process.log_snr(t) - 2.0 * log_factor
        low, high = process.log_snr(torch.tensor([1.0, process.t_min.smallest], dtype=torch.float64)).tolist()
        return float(process.time_at_log_snr(wanted)) if low <= float(wanted) <= high else math.nan

    out = []
    shift = _fit(examined, seen, lambda time, by: time + by, (*SHIFTS, *(-s for s in SHIFTS)), 1e-4, FAR)
    if shift is not None:
        side = "later" if shift.value < 0.0 else "earlier"
        size = Size.of(Estimate(abs(shift.value), shift.error))
        steps = f", a step of about {1.0 / size.value:.0f}" if size.value > 0.0 else ""
        says = f"the score that is given for t is that of a time {size} {side}{steps}"
        move = _moved(examined, lambda time: time + shift.value)
        out.append(Remedy("off-by-one time", says, _CLOCK, move, fitted=True))
    factor = _fit(examined, seen, of_sigma, (math.log(2.0), -math.log(2.0)), 1e-3, math.log(30.0))
    if factor is not None and abs(factor.value) > math.log(UNITS):
        c = math.exp(-factor.value)
        size = Size.of(Estimate(c, c * factor.error))
        says = f"the score takes sigma for {size} times what it is"
        advice = "look for data and noise in other units: data in [0, 1] taken for [-1, 1], sigma for its square"
        move = _moved(examined, lambda time: of_sigma(time, factor.value))
        out.append(Remedy("wrong sigma scale", says, advice, move, fitted=True))
    return out


_CLOCK = (
    "look at the clock: which level or time the network is given against the one the noise had (rounding, a table that"
    " starts at 1, ascending against descending, t + 1 / N)"
)


def _moved(examined: Examined, move: Callable[[float], float]) -> Callable[[int], Tensor | None]:
    """The score called at a moved time, where it is defined there."""
    low = examined.process.t_min.smallest

    def at(k: int) -> Tensor | None:
        level = examined.levels[k]
        time = move(level.time)
        if not low - 1e-9 <= time <= 1.0 + 1e-9:
            return None
        return examined.noise(level.x, min(max(time, low), 1.0), level.sigma)

    return at


def _fit(
    examined: Examined,
    seen: Sequence[Tensor],
    move: Callable[[float, float], float],
    starts: Sequence[float],
    small: float,
    most: float,
) -> Estimate | None:
    """How far the times are to be moved, by Gauss and Newton from the best of several starts and 0.

    Args:
        examined: Score and data.
        seen: h at each level.
        move: (time, by how much) -> time.
        starts: Starting values.
        small: Difference of the derivative.
        most: Largest value; None is returned where the fit would exceed it.
    """
    z = [level.z.flatten(1) for level in examined.levels]
    own = [max(float((z - h).square().sum(dim=1).mean()), 1e-300) for z, h in zip(z, seen, strict=True)]

    def called(by: float) -> list[Tensor | None]:
        at = _moved(examined, lambda time: move(time, by))
        return [at(k) for k in range(len(z))]

    def relative(by: float) -> float:
        pairs = enumerate(called(by))
        return sum(1.0 if h is None else float((z[k] - h).square().sum(dim=1).mean()) / own[k] for k, h in pairs)

    best = min((0.0, *starts), key=lambda by: relative(by) if by else float(len(z)))
    estimate = None
    for _ in range(3 if best else 1):
        above, below = [], []
        sides = called(best + small), called(best - small)
        for k, (late, early) in enumerate(zip(*sides, strict=True)):
            if late is None or early is None:
                continue
            here, slope = 0.5 * (late + early), (late - early) / (2.0 * small)
            above.append(((z[k] - here) * slope).sum(dim=1) / own[k])
            below.append(slope.square().sum(dim=1) / own[k])
        if not above:
            return None
        step = ratio_of(torch.stack(above).mean(dim=0), torch.stack(below).mean(dim=0))
        best += step.value
        if not abs(best) <= most:
            return None
        estimate = Estimate(best, step.error)
        if abs(step.value) < 0.3 * step.error:
            break
    return estimate


def _straightened(levels: Sequence[Level], seen: Sequence[Tensor], turned: Sequence[Tensor | None]) -> list[Remedy]:
    """The score less its linear rotation about the mean, times one factor for all levels; h = -sigma score."""
    above, below = [], []
    for level, h, field in zip(levels, seen, turned, strict=True):
        if field is not None:
            w = level.z.flatten(1) - h
            scale = float(w.square().sum(dim=1).mean())
            above.append((w * field).sum(dim=1) * level.sigma / max(scale, 1e-300))
            below.append(field.square().sum(dim=1) * level.sigma**2 / max(scale, 1e-300))
    if not above:
        return []
    factor = ratio_of(torch.stack(above).mean(dim=0), torch.stack(below).mean(dim=0)).value

    def at(k: int) -> Tensor | None:
        field = turned[k]
        return None if field is None else seen[k] + factor * levels[k].sigma * field

    says = "the score has a rotation beside its gradient"
    advice = (
        "look for a field that was added, or axes that were exchanged, on the way out of the network; an energy's"
        " gradient, or training for longer, has none"
    )
    return [Remedy("added curl", says, advice, at, fitted=True)]


def _between(examined: Examined, level: Level) -> Remedy:
    """At one level by itself, the mean of the posterior means that the levels beside it give.

    On a ladder these are the ones next to it, else the ones that are examined.
    """
    process = examined.process
    if isinstance(process, Tabulated):
        i = float(process.position(torch.tensor([level.time], dtype=torch.float64)))
        places = [p for p in (i - 1.0, i + 1.0) if 0.0 <= p <= process.levels - 1.0]
        beside = process.time(torch.tensor(places, dtype=torch.float64)).tolist() if places else []
    else:
        beside = [o.time for o in examined.levels[max(0, level.index - 1) : level.index + 2] if o is not level]

    def at(k: int) -> Tensor | None:
        if k != level.index or not beside:
            return None
        means = []
        for time in beside:
            t = torch.tensor([time], dtype=torch.float64)
            alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
            x = level.x * (alpha / level.alpha)
            means.append((x.flatten(1) - sigma * examined.noise(x, time, sigma)) / alpha)
        return level.noise_of(torch.stack(means).mean(dim=0))

    says = f"at t = {level.time:.4g} (sigma = {level.sigma:.4g}) alone the score is worse than what its neighbours say"
    advice = "look for a level that training never drew, whose embedding is stuck, or whose table entry is wrong"
    return Remedy("frozen level", says, advice, at)


def _other(examined: Examined, name: str, score: Score) -> Remedy:
    def at(k: int) -> Tensor:
        level = examined.levels[k]
        return examined.noise(level.x, level.time, level.sigma, score)

    says = f"the {name} weights know what those examined do not: their average did not follow training"
    advice = f"use --weights {name}, train on with a shorter or warmed-up average that is updated each step"
    return Remedy("EMA never updated", says, advice, at)
