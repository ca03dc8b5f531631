"""Findings as sentences: what is wrong, how large it is, and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scorefield._codec import record
from scorefield.diagnostics import coverage
from scorefield.diagnostics.faults import MARGIN, ORDER, Diagnosis, Verdict
from scorefield.diagnostics.identities import LITTLE
from scorefield.diagnostics.levels import Examined, default_times
from scorefield.diagnostics.readings import Reading, Row, Training, counts, poor
from scorefield.diagnostics.statistics import Size, upper_tail
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score

SPARED, REMEMBERED = 0.1, 0.5
"""Shares of the loss that training examples are spared, from which a score is suspect, and a memory of them."""

TURNED = 0.5
"""Asymmetry of the Jacobian from which a level is suspect: half of its size is no gradient."""


@record(tag="DoctorFinding")
class Finding:
    """One thing that was found.

    Args:
        name: Name of the fault or of the tested property.
        verdict: healthy, suspect or faulty.
        says: What, and how large.
        advice: What to try.
        size: Effect with interval, where there is one.
        p_value: p-value of the hypothesis of no fault, corrected for the number of tests of its kind.
    """

    name: str
    verdict: Verdict
    says: str
    advice: str = ""
    size: Size | None = None
    p_value: float | None = None


NOTHING = Finding(
    "score",
    "healthy",
    f"no known fault, and no departure from an exact score that costs {MARGIN:.0%} of the loss; those that are too"
    " large for chance, and cost less, are marked * level by level",
)


def by_weight(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Worst first."""
    return tuple(sorted(findings, key=lambda f: -ORDER.index(f.verdict)))


def of_faults(named: Diagnosis | None, tried: Sequence[Diagnosis]) -> list[Finding]:
    """The fault that is named, with what else would fit."""
    if named is None:
        return []
    best: dict[str, Diagnosis] = {}
    for d in tried:
        if d.verdict != "healthy" and d.name != named.name and d.total > 0.0:
            best.setdefault(d.name, d)
    others = ", ".join(
        f"{d.name} ({d.total / named.total:.0%} of that{', and leaves more failing' if d.failing else ''})"
        for d in best.values()
        if named.total > 0.0
    )
    says = f"{named.says}. Mending that takes {named.fall} of the loss"
    if named.name == "off-by-one time" and named.asked.low > 1.5:
        says += f"; the data ask for {named.asked} such steps"
    if named.verdict == "suspect":
        says += ": little, and all that was found"
    if named.failing:
        says += f"; it is not the whole of it, {len(named.failing)} of {len(named.levels)} levels still fail then"
    says += f". Others that would help: {others}" if others else ""
    return [Finding(named.name, named.verdict, says, named.advice, named.fall, named.p_value)]


def of_rows(
    rows: Sequence[Row], readings: Sequence[Reading], named: Diagnosis | None, significance: float
) -> list[Finding]:
    """Failed tests at levels that no named fault explains."""
    # A fault of several levels is one at the ends of the schedule too, where its remedy may have nowhere to look.
    covered = () if named is None else named.levels if len(named.levels) == 1 else range(len(rows))
    free = [k for k in range(len(rows)) if k not in covered]
    out = []
    for k in free:
        if poor(readings[k], readings, significance):
            size = rows[k].gaussian
            says = f"at {_at(rows[k])} a Gaussian of the same moments does better, by {size} of the loss"
            advice = "train longer, draw this level more often, or give the network more capacity there"
            out.append(Finding("worse than a Gaussian", "faulty", says, advice, size))
    tests = sum(len(reading.identities) for reading in readings)
    for name, words, advice in _IDENTITIES:
        failed = [
            (k, i)
            for k in free
            for i in readings[k].identities
            if i.name == name and i.p_value * tests < significance and counts(i)
        ]
        if failed:
            k, i = max(failed, key=lambda pair: abs(pair[1].estimate.value - pair[1].holds))
            size = Size.of(i.estimate)
            where = f"at {len(failed)} of {len(rows)} levels, most at {_at(rows[k])}"
            out.append(Finding(name, "suspect", f"{where}: {words.format(size)}", advice, size, i.p_value * tests))
    for k in free:
        floor = readings[k].floor
        if floor is not None:
            p = len(readings) * upper_tail(floor, MARGIN * max(float(readings[k].loss.mean()), LITTLE))
            if p < significance:
                says = f"at {_at(rows[k])} the loss is above its floor by {rows[k].floor} of itself"
                out.append(Finding("loss above its floor", "faulty", says, "", rows[k].floor, p))
    return out + of_asymmetry(rows, free)


_IDENTITIES = (
    (
        "bias",
        "posterior means are off by {}, model units, in one direction",
        "look at the offsets of the data, and at a constant missing in the network's output",
    ),
    (
        "slope of x0",
        "x_0 changes by {} for each unit that its posterior mean does",
        "a slope below 1 is of posterior means that vary too much, above 1 too little: train longer",
    ),
    (
        "slope of z",
        "the noise changes by {} for each unit that the score sees of it",
        "a slope below 1 is of a score too large there, above 1 too small: train longer, or draw this level more often",
    ),
    (
        "calibration",
        "the score's divergence predicts {} times the loss that it has",
        "below 1 it has errors that it does not know of: train longer; if training examples are spared, stop earlier",
    ),
)


def _at(row: Row) -> str:
    return f"t = {row.time:.3g} (sigma = {row.sigma:.3g})"


def of_asymmetry(rows: Sequence[Row], free: Sequence[int]) -> list[Finding]:
    """Levels at which the score is far from a gradient."""
    bad = [k for k in free for size in [rows[k].asymmetry] if size is not None and size.low > TURNED]
    if not bad:
        return []
    k = max(bad, key=lambda k: rows[k].asymmetry.value)  # type: ignore[union-attr]
    says = (
        f"at {len(bad)} of {len(rows)} levels the Jacobian is far from symmetric, |J - J'| / |J| = {rows[k].asymmetry}"
        f" at {_at(rows[k])}: no density has this score, and taking the rotation out does not lower the loss"
    )
    return [
        Finding(
            "not a gradient",
            "suspect",
            says,
            "train longer; samplers do not need a gradient, likelihoods and acceptance tests do",
            rows[k].asymmetry,
        )
    ]


def of_memory(known: Training | None, readings: Sequence[Reading], significance: float) -> list[Finding]:
    """Whether training examples are spared some of the loss."""
    if known is None:
        return []
    gaps = [(reading.gap(), reading) for reading in readings]
    found = [(gap, reading) for gap, reading in gaps if gap is not None and gap.error > 0.0]
    for least, verdict in ((REMEMBERED, "faulty"), (SPARED, "suspect")):
        beyond = [(g, r) for g, r in found if len(found) * _normal_tail((g.value - least) / g.error) < significance]
        if beyond:
            gap, reading = max(beyond, key=lambda pair: pair[0].value)
            size = Size.of(gap)
            says = (
                f"training examples are spared {size} of the loss of others at t = {reading.level.time:.3g} (sigma ="
                f" {reading.level.sigma:.3g}), more than {least:g} at {len(beyond)} of {len(found)} levels"
            )
            advice = "stop earlier, take more data, flips or drop-out; compare samples with their nearest examples"
            return [Finding("memorisation", verdict, says, advice, size)]  # type: ignore[arg-type]
    return []


def _normal_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def of_coverage(
    examined: Examined, readings: Sequence[Reading], known: Training | None, grey_step: float | None
) -> list[Finding]:
    """Parts of the data that the noise levels do not cover."""
    data = examined.x0 if known is None else known.x
    first = readings[0]
    found = [coverage.largest_level(examined.process, data), coverage.overlap(examined.process, data[0].numel())]
    if first.level.time <= default_times(examined.process, 2)[0] + 1e-9:  # else the least was not among those asked for
        found.insert(1, coverage.least_level(examined.process, examined.x0, first.level.time, first.loss, grey_step))
    return [of_levels(c) for c in found if c is not None]


def of_levels(found: coverage.Coverage) -> Finding:
    """A finding on noise levels."""
    return Finding(f"schedule: {found.name}", found.verdict, found.says, found.advice, found.size)


def missing(
    examined: Examined, rows: Sequence[Row], known: Training | None, exact: Score | None, others: Mapping[str, Score]
) -> tuple[str, ...]:
    """Checks that were left out, with the reason."""
    out = []
    if exact is None:
        out.append(
            "excess of the loss over its floor: the floor, the variance that x leaves in the noise, is not known for"
            " data; what the score explains, a Gaussian's loss and what remedies would take stand in its place"
        )
    if known is None:
        out.append("memorisation: no training examples were given")
    if not others:
        out.append("whether an average of weights was updated: there are no other weights")
    return (*out, *undifferentiable(examined, rows))


def undifferentiable(examined: Examined, rows: Sequence[Row]) -> tuple[str, ...]:
    """Checks that were left out because derivatives, or times between levels, are not available."""
    out = []
    if any(row.asymmetry is None for row in rows):
        out.append("calibration, asymmetry and curl: a derivative of the network's derivative is not written")
    if isinstance(examined.process, Tabulated):
        out.append("Fokker-Planck equation: a ladder has no times between its levels")
    elif any(row.fokker_planck is None for row in rows):
        out.append("Fokker-Planck equation: the network's third derivatives are not written")
    return tuple(out)
