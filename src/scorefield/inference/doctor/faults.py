"""Known faults, each with what would mend it: a fault is named when the data ask for its remedy.

An exact score is the regression of z on x: with h the noise it sees and w = z - h, E[w . u(x)] = 0 whatever u is. A
remedy puts h + u in the place of h, which changes the loss E|w|^2 by -E[2 w . u - |u|^2]. So

    b = E[w . u] / E|u|^2        is 0 for an exact score, and 1 for a score that has just this fault,

above 1/2 the remedy lowers the loss, and b > 0, tested one-sided, proves that the score is not exact. Remedies use the
score itself:

    wrong sigma scale        a factor on the score, one for all levels; the score called at another sigma
    noise and score swapped  -1 / sigma, -sigma, 1 / sigma or sigma times the score
    wrong sign               -1 times the score
    off-by-one time          the score called one level up or down; where time is continuous, a little off
    frozen level             at one level, the posterior means that its neighbours give
    added curl               the score less (J - J') (x - mean) / 2 of its Jacobian J: a linear rotation is gone then
    EMA never updated        another set of weights: the raw ones

Networks are never exact, so that with enough data every b is above 0. A fault is *faulty* if its remedy takes more than
`MARGIN` of the loss (or of `LITTLE`, where the loss is less), on average over the levels it touches; one for all levels
must also be asked for without the level at which it does most, else one bad level would pass for a fault of all. It is
*suspect* if it takes less and yet accounts for all that is found: with it no identity of the mean fails. Of several,
those that take at least `CLOSE` of what the best does where they can are compared on the levels that all of them touch:
one that accounts for all goes before one that does not, and then the larger. All p-values carry Bonferroni's correction
for the number of remedies; factors and times that are fitted, on the same examples, count twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.inference.calibration import Estimate
from scorefield.inference.doctor.identities import LITTLE, of_the_mean
from scorefield.inference.doctor.levels import Examined, Level
from scorefield.inference.doctor.statistics import Size, mean_of, ratio_of, upper_tail
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score

Verdict = Literal["healthy", "suspect", "faulty"]

ORDER: tuple[Verdict, ...] = ("healthy", "suspect", "faulty")

MARGIN = 0.02
"""Least share of the loss that counts; a score 10 percent too large loses from 1 to 10 percent."""

FAR = 0.08
"""Largest shift of continuous times; what is further off is no step of a schedule."""

CLOSE = 0.6
"""Share of the best remedy's total from which another is a rival."""

SHIFTS = (1e-2, 3e-2)
"""Of continuous times, from which a shift is fitted, besides 0: steps of 100 and of 30 times."""

ROUNDING = 1e-20
"""Of the size of a remedy, relative to the loss: below it there is none."""

UNITS = 1.4
"""Least factor of a sigma taken for another; below it the fault is one of time."""


@record(tag="DoctorDiagnosis")
class Diagnosis:
    """A known fault and how well its remedy does.

    Args:
        name: Of the fault.
        says: What is wrong, and how large.
        advice: What to try.
        asked: b, how much of the remedy the data ask for: 0 none, 1 all.
        fall: Share of the loss, or of `LITTLE` where the loss is less, that it takes; mean over the levels it touches.
        p_value: Of b being 0, corrected for the number of remedies.
        levels: Numbers of the levels that it touches.
        falls: Share of the loss that it takes at each of them.
        failing: Those of them at which an identity of the mean fails even with it.
        verdict: faulty, suspect, or healthy where it is not named.
    """

    name: str
    says: str
    advice: str
    asked: Size
    fall: Size
    p_value: float
    levels: tuple[int, ...]
    falls: tuple[float, ...]
    failing: tuple[int, ...]
    verdict: Verdict

    @property
    def total(self) -> float:
        """Falls summed over levels."""
        return sum(self.falls)

    def on(self, levels: Collection[int]) -> float:
        """Falls summed over some levels."""
        return sum(fall for k, fall in zip(self.levels, self.falls, strict=True) if k in levels)


@dataclass(frozen=True)
class Remedy:
    """What would mend a fault.

    Attributes:
        name: Of the fault.
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


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several; healthy of none."""
    found = set(verdicts)
    for verdict in reversed(ORDER):
        if verdict in found:
            return verdict
    return "healthy"


def diagnose(
    examined: Examined,
    seen: Sequence[Tensor],
    turned: Sequence[Tensor | None],
    others: Mapping[str, Score],
    significance: float,
    progress: Callable[[float], None],
) -> tuple[Diagnosis | None, tuple[Diagnosis, ...]]:
    """The fault that explains most, if one is named, and all remedies tried, those that take most first.

    Args:
        examined: Score and data.
        seen: h, the noise that the score sees at each level, (n, d).
        turned: At each level (J - J') (x - mean) / 2 of the score's Jacobian, (n, d), where it is known.
        others: Scores with other weights, by name.
        significance: Of all remedies together.
        progress: Called with the share that is done.
    """
    remedies = [
        *_powers(examined.levels, seen),
        *_factor(examined.levels, seen),
        *_calls(examined, seen),
        _straightened(examined.levels, seen, turned),
        *(_between(examined, level) for level in examined.levels),
        *(_other(examined, name, score) for name, score in others.items()),
    ]
    tried = []
    for k, remedy in enumerate(remedies):
        tried.append(_judged(remedy, examined.levels, seen, len(remedies), significance))
        progress((k + 1) / len(remedies))
    tried.sort(key=lambda d: -d.total)
    return _leading([d for d in tried if d.verdict != "healthy"]), tuple(tried)


def _leading(suspects: Sequence[Diagnosis]) -> Diagnosis | None:
    """The one that explains most, of several with the largest total first."""
    if not suspects or len(suspects[0].levels) == 1:
        return suspects[0] if suspects else None
    best = suspects[0]
    rivals = [d for d in suspects if len(d.levels) > 1 and d.total >= CLOSE * best.on(d.levels)]
    shared = set.intersection(*(set(d.levels) for d in rivals)) or set(best.levels)
    return max(rivals, key=lambda d: (shared.isdisjoint(d.failing), d.on(shared)))


def _judged(
    remedy: Remedy, levels: Sequence[Level], seen: Sequence[Tensor], count: int, significance: float
) -> Diagnosis:
    """How well a remedy does."""
    touched, asked, power, falls, restored = [], [], [], [], []
    for k, (level, h) in enumerate(zip(levels, seen, strict=True)):
        other = remedy.at(k)
        if other is None or not bool(torch.isfinite(other).all()):
            continue
        w, u = level.z.flatten(1) - h, other - h
        scale = float(w.square().sum(dim=1).mean())
        if scale == 0.0:
            continue
        touched.append(k)
        asked.append((w * u).sum(dim=1) / scale)
        power.append(u.square().sum(dim=1) / scale)
        falls.append((2.0 * asked[-1] - power[-1]) * min(1.0, scale / (LITTLE * w.shape[1])))
        restored.append(min((i.p_value for i in of_the_mean(level, other)), default=1.0))
    about = remedy.name, remedy.says, remedy.advice
    if not touched or float(torch.stack(power).mean()) < ROUNDING:
        nothing = Size(0.0, 0.0, 0.0)
        return Diagnosis(*about, nothing, nothing, 1.0, tuple(touched), (0.0,) * len(touched), (), "healthy")
    a, q = torch.stack(asked), torch.stack(power)
    p = min(1.0, count * (2.0 if remedy.fitted else 1.0) * upper_tail(a.mean(dim=0)))
    fall, rest = torch.stack(falls).mean(dim=0), a
    if len(touched) > 1:
        most = int(a.mean(dim=1).argmax())
        rest = torch.cat([a[:most], a[most + 1 :]])
    failing = tuple(
        k for k, p_least in zip(touched, restored, strict=True) if p_least * 3 * len(touched) < significance
    )
    verdict: Verdict = "healthy"
    if p < significance and count * upper_tail(rest.mean(dim=0)) < significance:
        if count * upper_tail(fall, MARGIN) < significance:
            verdict = "faulty"
        elif not failing and len(touched) > 1:
            verdict = "suspect"
    b = Size.of(ratio_of(a.mean(dim=0), q.mean(dim=0)))
    per_level = tuple(float(f.mean()) for f in falls)
    return Diagnosis(*about, b, Size.of(mean_of(fall)), p, tuple(touched), per_level, failing, verdict)


# ---------------------------------------------------------------------------------------------------- remedies

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
        starts: Where to start.
        small: Difference of the derivative.
        most: How far at most; None is returned of what would go further.
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


def _straightened(levels: Sequence[Level], seen: Sequence[Tensor], turned: Sequence[Tensor | None]) -> Remedy:
    """The score less its linear rotation about the mean; h = -sigma score."""

    def at(k: int) -> Tensor | None:
        field = turned[k]
        return None if field is None else seen[k] + levels[k].sigma * field

    says = "the score has a rotation beside its gradient"
    advice = (
        "look for a field that was added, or axes that were exchanged, on the way out of the network; an energy's"
        " gradient, or training for longer, has none"
    )
    return Remedy("added curl", says, advice, at)


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
