"""How well one number tells outliers from examples of the data, with intervals. Larger is more outlying, always.

A score that is larger where examples are more likely (a log density) is handed over with its sign changed.

    AUROC       P(s_out > s_in) + P(s_out = s_in) / 2, the area under the ROC curve
    FPR at 95 % the share of outliers that pass where 95 % of the data pass (in-distribution is the positive class of
                that name; Liang et al. 2018, ODIN)
    AUPR        average precision with the outliers as positive class ("out") or the data ("in"); unlike the others it
                depends on how many of each there are, so the base rate is part of the value

All are functions of how many examples of either kind have each score, so a bootstrap needs one sort. Intervals are the
union of two that fail in different ways: an asymptotic or exact one, and the percentile bootstrap over both sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from scorefield.metrics.receipt import Value

RESAMPLES = 1000
"""Resamples of a bootstrap."""

LEVEL = 0.95
"""Level of every interval in this module."""

_BLOCK = 4_000_000
"""Numbers of a block of resampled counts."""


@dataclass(frozen=True)
class Detection:
    """How well one outlier score separates two sets.

    Args:
        auroc: 1/2 is chance, 1 perfect, below 1/2 the outliers look more usual than the data.
        fpr95: Outliers that pass where 95 % of the data pass; lower is better.
        aupr_out: Average precision of finding outliers; `base_rate` is chance.
        aupr_in: Average precision of finding data; 1 - `base_rate` is chance.
        base_rate: Share of outliers among all examples.
        inside: Number of examples of the data.
        outside: Number of outliers.
    """

    auroc: Value
    fpr95: Value
    aupr_out: Value
    aupr_in: Value
    base_rate: float
    inside: int
    outside: int


def detection(inside: Tensor, outside: Tensor, *, seed: int = 0, resamples: int = RESAMPLES) -> Detection:
    """All numbers of one score.

    Args:
        inside: Scores of examples of the data, (n,), larger is more outlying.
        outside: Scores of outliers, (m,).
        seed: Seed of the bootstrap; the same seed resamples the same examples of every score.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: A NaN, or fewer than two examples of either kind.

    Reference: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves: a nonparametric approach", 1988.
    """
    negatives, positives = counts(inside, outside)
    drawn = [_all(n, p) for n, p in _resampled([(negatives, positives)], seed, resamples)]
    spread = torch.cat(drawn)
    point = _all(negatives[None], positives[None])[0]
    low, high = _percentiles(spread)
    area = float(point[0])
    analytic = _delong_interval(inside, outside, area)
    passed = round(float(point[1]) * len(outside))
    exact = clopper_pearson(passed, len(outside))
    both = (analytic, exact, None, None)
    values = [
        _value(float(point[i]), other, (float(low[i]), float(high[i])), better)
        for i, (other, better) in enumerate(zip(both, ("higher", "lower", "higher", "higher"), strict=True))
    ]
    n, m = len(inside), len(outside)
    return Detection(values[0], values[1], values[2], values[3], m / (n + m), n, m)


def auroc(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """The area and DeLong's standard error, O((n + m) log(n + m)), ties counted one half.

    With the midranks R of all scores together and r within their own kind, the components are
    v_j = (R_j - r_j) / n of outlier j and w_i = 1 - (R_i - r_i) / m of example i, and the variance of the area
    var(v) / m + var(w) / n (Sun and Xu 2014, "Fast implementation of DeLong's algorithm").
    """
    v, w = _components(inside, outside)
    return float(v.mean()), math.sqrt(float(v.var() / len(v) + w.var() / len(w)))


def advantage(
    scores: tuple[Tensor, Tensor],
    baselines: Sequence[tuple[Tensor, Tensor]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Value:
    """Area of a score minus that of the best baseline, either sign of a baseline allowed, with a paired bootstrap.

    Every resample takes the same examples for all of them and finds its own best baseline, which keeps the choice of
    the best inside the interval.

    Args:
        scores: (inside, outside) of the score.
        baselines: Baseline scores of these examples, in the same order.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: No baselines, or of other numbers of examples.
    """
    if not baselines or any(len(a) != len(scores[0]) or len(b) != len(scores[1]) for a, b in baselines):
        raise ValueError("an advantage is over baselines of the same examples; give at least one, of equal numbers")
    tables = [counts(*pair) for pair in (scores, *baselines)]
    areas = [_area(n[None], p[None])[0] for n, p in tables]

    def over_best(found: list[Tensor]) -> Tensor:
        best = torch.stack([torch.maximum(a, 1.0 - a) for a in found[1:]]).amax(dim=0)
        return found[0] - best

    pairs = list(_paired((scores, *baselines), seed, resamples))
    low, high = _percentiles(over_best([torch.cat(column) for column in zip(*pairs, strict=True)])[:, None])
    number = float(over_best([a[None] for a in areas])[0])
    return _value(number, None, (float(low[0]), float(high[0])), "higher")


def counts(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """How many of either kind have each distinct score, ascending: two (U,) float64.

    Raises:
        ValueError: A NaN, or fewer than two examples of either kind.
    """
    inside, outside = _checked(inside, outside)
    values, where = torch.cat([inside, outside]).unique(return_inverse=True)
    n = len(inside)
    table = [torch.bincount(part, minlength=len(values)).double() for part in (where[:n], where[n:])]
    return table[0], table[1]


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a share: both ends where a binomial tail holds (1 - level) / 2 (Clopper and Pearson 1934).

    Raises:
        ValueError: More successes than trials, or no trial.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no share; 0 <= successes <= trials and at least one trial")
    tail = (1.0 - level) / 2.0
    low = 0.0 if successes == 0 else _solve(lambda p: 1.0 - _below(successes - 1, trials, p) - tail)
    high = 1.0 if successes == trials else _solve(lambda p: tail - _below(successes, trials, p))
    return low, high


# ------------------------------------------------------------------------------------- from counts


def _area(negatives: Tensor, positives: Tensor) -> Tensor:
    """(B, U) counts to areas (B,)."""
    below = negatives.cumsum(-1) - negatives
    return (positives * (below + 0.5 * negatives)).sum(-1) / (positives.sum(-1) * negatives.sum(-1))


def _all(negatives: Tensor, positives: Tensor) -> Tensor:
    """(B, U) counts to area, FPR at 95 %, AUPR out and in, (B, 4)."""
    n, m = negatives.sum(-1, keepdim=True), positives.sum(-1, keepdim=True)
    kept = negatives.cumsum(-1) / n
    # The first score at or below which 95 percent of the data lie; rounding must not push it on.
    threshold = (kept >= 0.95 - 1e-12).to(torch.int8).argmax(-1, keepdim=True)
    passed = (positives.cumsum(-1) / m).gather(-1, threshold)[..., 0]
    out = _precision(positives.flip(-1), negatives.flip(-1))
    return torch.stack([_area(negatives, positives), passed, out, _precision(negatives, positives)], dim=-1)


def _precision(wanted: Tensor, other: Tensor) -> Tensor:
    """sum of (recall_k - recall_(k-1)) precision_k from the most wanted score on, (B,)."""
    found, all_found = wanted.cumsum(-1), (wanted + other).cumsum(-1)
    return (wanted * found / all_found.clamp_min(1.0)).sum(-1) / wanted.sum(-1)


def _components(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    inside, outside = _checked(inside, outside)
    n, m = len(inside), len(outside)
    together = _midranks(torch.cat([inside, outside]))
    v = (together[n:] - _midranks(outside)) / n
    w = 1.0 - (together[:n] - _midranks(inside)) / m
    return v, w


def _midranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, where, many = values.unique(return_inverse=True, return_counts=True)
    last = many.cumsum(0).double()
    return (last - 0.5 * (many - 1).double())[where]


def _checked(inside: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    parts = []
    for name, values in (("the data", inside), ("the outliers", outside)):
        values = values.detach().to("cpu", torch.float64).reshape(-1)
        if len(values) < 2:
            raise ValueError(f"{len(values)} scores of {name} have no spread; give two or more")
        if bad := int(values.isnan().sum()):
            raise ValueError(
                f"{bad} of {len(values)} scores of {name} are NaN and cannot be ranked; leave those examples out and"
                " say how many they are"
            )
        parts.append(values)
    return parts[0], parts[1]


# ------------------------------------------------------------------------------------- intervals


def _delong_interval(inside: Tensor, outside: Tensor, area: float) -> tuple[float, float]:
    """DeLong's on the scale of log odds, which keeps it inside (0, 1); Newcombe's where all components are equal.

    A standard error of zero means that the two kinds do not overlap. That is known no better than from so many
    examples: the end is where the variance of Hanley and McNeil (1982) makes the found area just improbable
    (Newcombe 2006, method 5).
    """
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
    _, error = auroc(inside, outside)
    if error > 0.0 and 0.0 < area < 1.0:
        centre, half = math.log(area / (1.0 - area)), z * error / (area * (1.0 - area))
        return 1.0 / (1.0 + math.exp(half - centre)), 1.0 / (1.0 + math.exp(-half - centre))
    n, m = len(inside), len(outside)
    far = max(area, 1.0 - area)

    def excess(theta: float) -> float:
        spread = 1.0 + (0.5 * (n + m) - 1.0) * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta))
        return z * math.sqrt(theta * (1.0 - theta) * spread / (n * m)) - (far - theta)

    end = _solve(excess, 0.5, 1.0 - 1e-12) if far == 1.0 else far
    return (end, 1.0) if area >= 0.5 else (0.0, 1.0 - end)


def _value(number: float, other: tuple[float, float] | None, resampled: tuple[float, float], better: str) -> Value:
    low, high = resampled
    details = {"bootstrap low": low, "bootstrap high": high}
    if other is not None:
        details |= {"analytic low": other[0], "analytic high": other[1]}
        low, high = min(low, other[0]), max(high, other[1])
    interval = (min(low, number), max(high, number))
    return Value(number, interval, better="lower" if better == "lower" else "higher", details=details)


def _percentiles(values: Tensor) -> tuple[Tensor, Tensor]:
    ends = torch.tensor([(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0], dtype=values.dtype)
    low, high = torch.quantile(values, ends, dim=0)
    return low, high


def _blocks(resamples: int, size: int) -> list[int]:
    step = max(1, min(resamples, _BLOCK // max(size, 1)))
    return [min(step, resamples - first) for first in range(0, resamples, step)]


def _resampled(tables: Sequence[tuple[Tensor, Tensor]], seed: int, resamples: int):  # type: ignore[no-untyped-def]
    """Counts of resampled examples, block by block: multinomial over the distinct scores."""
    generator = torch.Generator().manual_seed(seed)
    ((negatives, positives),) = tables
    for block in _blocks(resamples, len(negatives)):
        yield tuple(_multinomial(table, block, generator) for table in (negatives, positives))


def _multinomial(table: Tensor, block: int, generator: torch.Generator) -> Tensor:
    """`block` resamples of a table of counts, (block, U)."""
    total = int(table.sum())
    chosen = torch.multinomial(table, total * block, replacement=True, generator=generator).reshape(block, total)
    return torch.zeros(block, len(table), dtype=torch.float64).scatter_add_(
        1, chosen, torch.ones(block, total, dtype=torch.float64)
    )


def _paired(pairs: Sequence[tuple[Tensor, Tensor]], seed: int, resamples: int):  # type: ignore[no-untyped-def]
    """Areas of all scores over the same resampled examples, block by block: a tuple of (block,)."""
    generator = torch.Generator().manual_seed(seed)
    n, m = len(pairs[0][0]), len(pairs[0][1])
    placed = []
    for inside, outside in pairs:
        values, where = torch.cat(_checked(inside, outside)).unique(return_inverse=True)
        placed.append((len(values), where[:n], where[n:]))
    for block in _blocks(resamples, n + m):
        rows = torch.randint(n, (block, n), generator=generator), torch.randint(m, (block, m), generator=generator)
        out = []
        for size, *sides in placed:
            table = [
                torch.zeros(block, size, dtype=torch.float64).scatter_add_(
                    1, where[chosen], torch.ones(chosen.shape, dtype=torch.float64)
                )
                for where, chosen in zip(sides, rows, strict=True)
            ]
            out.append(_area(table[0], table[1]))
        yield tuple(out)


def _below(successes: int, trials: int, p: float) -> float:
    """P(X <= successes) of a binomial."""
    if p <= 0.0 or p >= 1.0:
        return 1.0 if p <= 0.0 or successes >= trials else 0.0
    k = torch.arange(successes + 1, dtype=torch.float64)
    n = torch.tensor(float(trials), dtype=torch.float64)
    log_choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return float(torch.logsumexp(log_choose + k * math.log(p) + (n - k) * math.log1p(-p), 0).exp())


def _solve(function, low: float = 0.0, high: float = 1.0) -> float:  # type: ignore[no-untyped-def]
    """Where a function changes its sign, by bisection."""
    rises = function(high) > function(low)
    for _ in range(60):
        middle = 0.5 * (low + high)
        if (function(middle) > 0.0) == rises:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)
