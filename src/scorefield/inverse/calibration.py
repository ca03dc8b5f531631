"""Calibration of posterior samples: statistics of true examples and posterior samples over many problems.

A problem is a truth x* from the prior, a measurement y of it, and n answers of a solver. Where the answers have the
distribution p(x | y), truth and answers are exchangeable given y, so for every real quantity q(x, y) the rank of q(x*)
among the q(answers) is uniform on 0..n (Talts et al. 2018). A rank r is made continuous by u = (r + U) / (n + 1) with U
uniform on [0, 1), and ties are broken at random, so u is exactly uniform on [0, 1] for every n. From u follow

    coverage      the share of |u - 1/2| <= level / 2: truths inside the central interval of that level
    uniformity    Kolmogorov-Smirnov and chi^2 tests of u, and its energy distance from uniform
    TARP          u of the distance to a reference point r: the expected coverage of balls (Lemos et al. 2023)

Quantities of x alone cannot tell the posterior from the prior: the prior's samples are ranked uniformly too. What
depends on y is tested too (Modrak et al. 2023): the misfit |y - A(x)|, and reference points that depend on y.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._math import norm_event, over_event
from scorefield.inverse.observation import Observation

LEVELS = (0.5, 0.9)
"""At which coverage is stated."""

INTERVAL = 0.95
"""Level of the intervals of shares, and of the bands of curves."""

Values = tuple[Tensor, Tensor]
"""A quantity: of the truths, (P,), and of the answers, (P, n)."""


# ---------------------------------------------------------------------------------------------------- quantities


def simple_quantities(
    truth: Tensor, answers: Tensor, *, projections: int = 8, pixels: int = 16, seed: int = 0
) -> dict[str, Values]:
    """Random projections, pixels spread over the event, and the norm, all of x alone.

    Args:
        truth: x*, (P, *event).
        answers: (P, n, *event).
        projections: Number of random directions.
        pixels: Largest number of entries.
        seed: Seed of the directions.
    """
    flat, found = truth.flatten(1).double(), answers.flatten(2).double()
    D = flat.shape[1]
    draw = torch.Generator().manual_seed(seed)
    directions = torch.randn(D, projections, generator=draw, dtype=torch.float64)
    out = {f"projection {k}": (flat @ w, found @ w) for k, w in enumerate(directions.T)}
    for d in torch.linspace(0, D - 1, min(pixels, D)).round().long().unique().tolist():
        out[f"pixel {d}"] = (flat[:, d], found[:, :, d])
    out["norm"] = (flat.norm(dim=1), found.norm(dim=2))
    return out


def misfit(truth: Tensor, answers: Tensor, observation: Observation) -> Values:
    """-log p(y | x), a quantity that depends on y.

    Raises:
        ValueError: The noise has no density.
    """
    P, n = answers.shape[:2]
    everyone = torch.cat([truth[:, None], answers.to(truth)], dim=1).flatten(0, 1)
    y = observation.y(truth).repeat_interleave(n + 1, dim=0)
    with torch.no_grad():
        values = -observation.log_likelihood(everyone, y).double().reshape(P, n + 1)
    return values[:, 0], values[:, 1:]


def reference_points(observation: Observation, *, seed: int = 0) -> Tensor:
    """A point for each problem that depends on y and on chance alone: b |b|^2 / |A(b) - A(0)|^2 + noise.

    b = J'(y - A(0)) with the Jacobian J of A at 0: for linear A the first step of steepest descent towards y. The noise
    is normal, of half its root mean square. Nothing of the truths or the answers enters, which is what keeps ranks of
    distances uniform.

    Args:
        observation: The observations, one y for every problem.
        seed: Seed of the noise.
    """
    y = observation.observed.double()
    origin = torch.zeros(len(y), *observation.operator.event, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        seen = observation.operator(origin)
        (b,) = torch.autograd.grad(seen, origin, y - seen.detach())
    with torch.no_grad():
        step = norm_event(b) ** 2 / (norm_event(observation.operator(b) - seen.detach()) ** 2).clamp(min=1e-300)
        r = over_event(step, b) * b
    z = torch.randn(r.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return r + 0.5 * r.square().mean().sqrt() * z


def distance(truth: Tensor, answers: Tensor, references: Tensor) -> Values:
    """Euclidean distances to the reference points, (P, *event): what TARP ranks."""
    r = references.flatten(1).double()
    return (truth.flatten(1) - r).norm(dim=1), (answers.flatten(2) - r[:, None]).norm(dim=2)


# ---------------------------------------------------------------------------------------------------- ranks


def ranks(values: Values, *, seed: int = 0) -> Tensor:
    """u = (rank + U) / (n + 1) of each truth among its finite answers, (P,); NaN where there are none."""
    truth, answers = (v.double() for v in values)
    finite = torch.isfinite(answers)
    count = finite.sum(dim=1)
    below = ((answers < truth[:, None]) & finite).sum(dim=1)
    ties = ((answers == truth[:, None]) & finite).sum(dim=1)
    U = torch.rand(len(truth), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = (below + U * (ties + 1)) / (count + 1)
    return u.masked_fill((count == 0) | ~torch.isfinite(truth), math.nan)


@dataclass(frozen=True)
class Uniformity:
    """Tests of u being uniform.

    Args:
        count: Problems.
        ks: p-value of the largest deviation of the distribution function, 2 exp(-2 P D^2): valid for every P
            (Massart 1990).
        chi_square: p-value of the counts in equal bins of eight or more; for large counts.
        energy: Energy distance 2 int (F(u) - u)^2 du less its mean under uniformity, 1 / (3 P); 0 on average.
    """

    count: int
    ks: float
    chi_square: float
    energy: float


def uniformity(u: Tensor) -> Uniformity:
    """Tests of one quantity's u, (P,).

    Raises:
        ValueError: Fewer than 16 problems, of which nothing can be said.
    """
    u = u[torch.isfinite(u)].double().sort().values
    P = len(u)
    if P < 16:
        raise ValueError(f"{P} problems say nothing about uniformity; give 16 or more")
    steps = torch.arange(P + 1, dtype=torch.float64) / P
    D = float(torch.maximum(steps[1:] - u, u - steps[:-1]).max())
    bins = max(2, min(20, P // 8))
    counts = torch.histc(u, bins, 0.0, 1.0)
    statistic = float(((counts - P / bins) ** 2).sum() / (P / bins))
    middle = (2.0 * torch.arange(1, P + 1, dtype=torch.float64) - 1.0) / (2 * P)
    cramer = float(((u - middle) ** 2).sum()) / P + 1.0 / (12.0 * P * P)
    return Uniformity(P, min(1.0, 2.0 * math.exp(-2.0 * P * D * D)), chi_square_tail(statistic, bins - 1),
                      2.0 * cramer - 1.0 / (3.0 * P))  # fmt: skip


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(chi^2 > statistic)."""
    a, x = torch.tensor([freedom / 2.0, statistic / 2.0], dtype=torch.float64)
    return float(torch.special.gammaincc(a, x))


def of_several(p: Sequence[float]) -> float:
    """One p-value of several, whatever their dependence (Bonferroni)."""
    return min(1.0, len(p) * min(p)) if p else math.nan


# ---------------------------------------------------------------------------------------------------- coverage


@dataclass(frozen=True)
class Coverage:
    """The share of truths inside central intervals of a level, with the interval of the share."""

    level: float
    share: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the level lies in the interval."""
        return self.low <= self.level <= self.high


def coverage(u: Tensor, level: float, interval: float = INTERVAL) -> Coverage:
    """Coverage of one quantity, (P,), or pooled over several, (P, K); only different problems are independent.

    The interval is Wilson's, with the effective number of independent cases: share (1 - share) over the squared
    standard error of the problems' mean shares, at least P and at most P K.

    Args:
        u: Ranks, NaN where there is none.
        level: Nominal coverage, between 0 and 1.
        interval: Its level.
    """
    u = u.reshape(len(u), -1)
    u = u[torch.isfinite(u).all(dim=1)]
    P, K = u.shape
    if P < 2:
        return Coverage(level, math.nan, 0.0, 1.0)
    per_problem = ((u - 0.5).abs() <= level / 2).double().mean(dim=1)
    share, squared = float(per_problem.mean()), float(per_problem.var()) / P
    effective = P if squared == 0.0 else min(max(share * (1.0 - share) / squared, P), P * K)
    low, high = wilson(share, effective, interval)
    return Coverage(level, share, low, high)


def wilson(share: float, count: float, level: float = INTERVAL) -> tuple[float, float]:
    """Wilson's interval of a share of `count` independent cases (1927)."""
    z = math.sqrt(2.0) * float(torch.special.erfinv(torch.tensor(level, dtype=torch.float64)))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Curve:
    """Shares at a grid of levels, with a pointwise bootstrap band over problems; all of shape (L,)."""

    levels: Tensor
    share: Tensor
    low: Tensor
    high: Tensor


def coverage_curve(u: Tensor, *, points: int = 41, resamples: int = 400, seed: int = 0) -> Curve:
    """Coverage of central intervals at all levels, pooled over quantities, (P,) or (P, K)."""
    return _curve((u - 0.5).abs() * 2.0, points, resamples, seed)


def expected_coverage(u: Tensor, *, points: int = 41, resamples: int = 400, seed: int = 0) -> Curve:
    """TARP's expected coverage probability: the share of problems whose u of the distance is below each level."""
    return _curve(u, points, resamples, seed)


def _curve(values: Tensor, points: int, resamples: int, seed: int) -> Curve:
    values = values.reshape(len(values), -1)
    values = values[torch.isfinite(values).all(dim=1)]
    levels, P = torch.linspace(0.0, 1.0, points, dtype=torch.float64), len(values)
    inside = (values[:, :, None] <= levels).double().mean(dim=1)
    chosen = torch.randint(P, (resamples, P), generator=torch.Generator().manual_seed(seed))
    again = torch.stack([inside[rows].mean(dim=0) for rows in chosen])
    tail = (1.0 - INTERVAL) / 2.0
    low, high = torch.quantile(again, torch.tensor([tail, 1.0 - tail], dtype=torch.float64), dim=0)
    return Curve(levels, inside.mean(dim=0), low, high)


# ---------------------------------------------------------------------------------------------------- spread


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error over problems."""

    value: float
    error: float


def z_scores(truth: Tensor, answers: Tensor) -> Tensor:
    """(x* - mean) / (std sqrt(1 + 1 / n)) of every entry, (P, *event), by each problem's finite answers."""
    mean, variance, count = _moments(answers)
    return (truth.double() - mean) / (variance * (1.0 + 1.0 / count)).sqrt()


def spread_over_error(truth: Tensor, answers: Tensor) -> Estimate:
    """Root mean square deviation of the answers over that of the truth from their mean, with its standard error.

    E |x* - mean|^2 = (1 + 1 / n) E |std|^2 for exact answers of any distribution (Fortin et al. 2014): below 1 they are
    too narrow, or off; above 1 too wide.
    """
    mean, variance, count = _moments(answers)
    wide = (variance * (1.0 + 1.0 / count)).flatten(1).mean(dim=1)
    off = ((truth.double() - mean) ** 2).flatten(1).mean(dim=1)
    return _root_of_ratio(wide, off)


def spread_over_exact(answers: Tensor, exact_std: Tensor) -> Estimate:
    """Root mean square deviation of the answers over that of the exact posterior, (P, *event)."""
    _, variance, _ = _moments(answers)
    return _root_of_ratio(variance.flatten(1).mean(dim=1), exact_std.double().square().flatten(1).mean(dim=1))


def error_of_mean(answers: Tensor, exact_mean: Tensor, exact_std: Tensor) -> Estimate:
    """Mean squared error of the answers' mean in exact posterior variances, less what n answers always have."""
    mean, variance, count = _moments(answers)
    off = ((mean - exact_mean.double()) ** 2 - variance / count).flatten(1).mean(dim=1)
    return _ratio(off, exact_std.double().square().flatten(1).mean(dim=1))


def bias(truth: Tensor, answers: Tensor) -> Estimate:
    """Mean of x* - mean over all entries in root mean square deviations of the answers; 0 for exact answers."""
    mean, variance, _ = _moments(answers)
    scale = float(variance.nanmean().sqrt())
    off = (truth.double() - mean).flatten(1).mean(dim=1)
    off = off[torch.isfinite(off)]
    return Estimate(float(off.mean()) / scale, float(off.std()) / len(off) ** 0.5 / scale)


def _moments(answers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and unbiased variance over finite answers, (P, *event), and their number; NaN with fewer than two."""
    x = answers.double()
    good = torch.isfinite(x).flatten(2).all(dim=2)
    good = good.reshape(*good.shape, *(1,) * (x.ndim - 2))
    count = good.sum(dim=1).double()
    mean = torch.where(good, x, 0.0).sum(dim=1) / count
    squares = torch.where(good, (x - mean[:, None]) ** 2, 0.0).sum(dim=1)
    return mean, torch.where(count > 1, squares / (count - 1), math.nan), count


def _ratio(top: Tensor, bottom: Tensor) -> Estimate:
    kept = torch.isfinite(top) & torch.isfinite(bottom)
    top, bottom = top[kept], bottom[kept]
    value = top.mean() / bottom.mean()
    return Estimate(float(value), float((top - value * bottom).std() / bottom.mean() / len(top) ** 0.5))


def _root_of_ratio(top: Tensor, bottom: Tensor) -> Estimate:
    found = _ratio(top, bottom)
    root = math.sqrt(found.value)
    return Estimate(root, found.error / (2.0 * root) if root > 0 else math.nan)


# ---------------------------------------------------------------------------------------------------- all at once


@dataclass(frozen=True)
class Calibration:
    """Calibration of a solver, from posterior samples of many problems.

    Args:
        problems: Number of problems with at least two finite samples.
        dropped: Problems with fewer.
        answers: Number of posterior samples of each problem.
        u: Ranks by quantity, each (P,).
        tests: Uniformity by quantity.
        coverage: Pooled over projections and pixels, at `LEVELS`.
        spread: Deviation of answers over error of their mean.
        bias: Bias of the posterior mean, in posterior deviations.
    """

    problems: int
    dropped: int
    answers: int
    u: Mapping[str, Tensor]
    tests: Mapping[str, Uniformity]
    coverage: tuple[Coverage, ...]
    spread: Estimate
    bias: Estimate

    def p_value(self, *kinds: str) -> float:
        """Smallest p-value, by Bonferroni, of the tests of all quantities whose names begin with one of the words."""
        chosen = [test for name, test in self.tests.items() if name.startswith(kinds)]
        return of_several([p for test in chosen for p in (test.ks, test.chi_square)])

    @property
    def pooled(self) -> Tensor:
        """Ranks of projections and pixels, (P, K): what coverage is of."""
        return torch.stack([u for name, u in self.u.items() if name.startswith(("projection", "pixel"))], dim=1)


def calibrate(
    truth: Tensor, answers: Tensor, more: Mapping[str, Values] | None = None, *, seed: int = 0
) -> Calibration:
    """All statistics of truths and answers.

    Args:
        truth: x*, (P, *event).
        answers: (P, n, *event); those that are not finite are left out.
        more: Further quantities by name, such as `misfit` and `distance`.
        seed: Seed of the directions, of U, and of ties.

    Raises:
        ValueError: Fewer than 16 problems with two finite answers, or shapes that do not fit.
    """
    if answers.ndim != truth.ndim + 1 or answers.shape[0] != len(truth) or answers.shape[2:] != truth.shape[1:]:
        raise ValueError(f"truths {tuple(truth.shape)} need answers (P, n, *event); got {tuple(answers.shape)}")
    usable = torch.isfinite(answers).flatten(2).all(dim=2).sum(dim=1) >= 2
    if int(usable.sum()) < 16:
        raise ValueError(f"{int(usable.sum())} problems of {len(truth)} have two finite answers; 16 are needed")
    good = torch.isfinite(answers).flatten(2).all(dim=2)
    answers = answers.masked_fill(~good.reshape(*good.shape, *(1,) * (answers.ndim - 2)), math.nan)
    values = {**simple_quantities(truth, answers, seed=seed), **(more or {})}
    u = {name: ranks(pair, seed=seed + 1 + k)[usable] for k, (name, pair) in enumerate(values.items())}
    pooled = torch.stack([r for name, r in u.items() if name.startswith(("projection", "pixel"))], dim=1)
    return Calibration(
        problems=int(usable.sum()),
        dropped=int((~usable).sum()),
        answers=answers.shape[1],
        u=u,
        tests={name: uniformity(r) for name, r in u.items()},
        coverage=tuple(coverage(pooled, level) for level in LEVELS),
        spread=spread_over_error(truth[usable], answers[usable]),
        bias=bias(truth[usable], answers[usable]),
    )
