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
    added curl               the score less (J - J') (x - mean) / 2, J its mean Jacobian, times a factor: a rotation
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

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.diagnostics.identities import LITTLE, of_the_mean
from scorefield.diagnostics.levels import Examined, Level
from scorefield.diagnostics.remedies import Remedy, remedies_of
from scorefield.diagnostics.statistics import Size, mean_of, ratio_of, upper_tail
from scorefield.score.score import Score

Verdict = Literal["healthy", "suspect", "faulty"]

ORDER: tuple[Verdict, ...] = ("healthy", "suspect", "faulty")

MARGIN = 0.02
"""Least share of the loss that counts; a score 10 percent too large loses from 1 to 10 percent."""

CLOSE = 0.6
"""Share of the best remedy's total from which another is a rival."""

ROUNDING = 1e-20
"""Smallest size of a remedy, relative to the loss, that counts as a fault."""


@record(tag="DoctorDiagnosis")
class Diagnosis:
    """A known fault and how well its remedy does.

    Args:
        name: Name of the fault.
        says: What is wrong, and how large.
        advice: What to try.
        asked: b, how much of the remedy the data ask for: 0 none, 1 all.
        fall: Share of the loss, or of `LITTLE` where the loss is less, that it takes; mean over the levels it touches.
        p_value: p-value of the hypothesis b = 0, corrected for the number of remedies.
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
        turned: Antisymmetric part at each level, (J - J') (x - mean) / 2 with the score's Jacobian J, (n, d), where
            known.
        others: Scores with other weights, by name.
        significance: Significance level of all remedies together.
        progress: Called with the share that is done.
    """
    remedies = remedies_of(examined, seen, turned, others)
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
