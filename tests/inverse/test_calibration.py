"""Calibration: exact answers pass at 1e-6; narrow, biased and deaf ones do not, each by what is aimed at it."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from scipy import stats
from torch import Tensor

from inverse.exact_posterior import NOISE, OPERATOR, PRIOR
from scorefield.inverse import Observation
from scorefield.inverse.calibration import (
    Calibration,
    calibrate,
    coverage,
    coverage_curve,
    distance,
    error_of_mean,
    expected_coverage,
    misfit,
    ranks,
    reference_points,
    spread_over_error,
    spread_over_exact,
    uniformity,
    wilson,
    z_scores,
)
from tolerance import FLOAT64, SIGNIFICANCE

F64 = torch.float64
P, N = 1500, 24


@cache
def solved() -> tuple[Tensor, Observation, Tensor, Tensor, Tensor]:
    """(truths, their measurements, exact posterior means, its deviations, exact answers) of a Gaussian prior."""
    draw = torch.Generator().manual_seed(3)
    truth = PRIOR.sample(P, seed=21)
    y = OPERATOR(truth) + NOISE.std * torch.randn(P, 3, generator=draw, dtype=F64)
    m, C = PRIOR.data_moments()
    A = OPERATOR.A
    gain = C @ A.T @ torch.linalg.inv(A @ C @ A.T + NOISE.std**2 * torch.eye(3, dtype=F64))
    mean, covariance = m + (y - m @ A.T) @ gain.T, C - gain @ A @ C
    z = torch.randn(P, N, 4, generator=draw, dtype=F64)
    answers = mean[:, None] + z @ torch.linalg.cholesky(covariance).T
    return truth, Observation(OPERATOR, y, NOISE), mean, covariance.diagonal().sqrt().expand(P, 4), answers


@cache
def found(fault: str = "none") -> Calibration:
    truth, observation, mean, _, answers = solved()
    if fault == "narrow":
        answers = mean[:, None] + 0.8 * (answers - mean[:, None])
    if fault == "biased":
        answers = answers + 0.1
    if fault == "deaf":
        answers = PRIOR.sample(P * N, seed=99).reshape(P, N, 4)
    more = {
        "misfit": misfit(truth, answers, observation),
        "TARP": distance(truth, answers, reference_points(observation, seed=1)),
    }
    return calibrate(truth, answers, more)


def widths(of: Calibration) -> float:
    """Standard errors from 1."""
    return abs(of.spread.value - 1.0) / of.spread.error


def covered(of: Calibration) -> bool:
    """Whether coverage at every level is as stated, at 1e-6."""
    parts = [coverage(of.pooled, level, 1.0 - SIGNIFICANCE) for level in (0.5, 0.9)]
    return all(part.holds for part in parts)


FAMILIES = (("projection", "pixel"), ("norm",), ("misfit",), ("TARP",))


def test_exact_answers_are_accepted() -> None:
    of = found()
    assert of.problems == P and of.dropped == 0 and of.answers == N
    assert all(of.p_value(*family) > SIGNIFICANCE for family in FAMILIES)
    assert covered(of) and widths(of) < 5 and abs(of.bias.value) < 5 * of.bias.error


def test_narrow_answers_are_rejected() -> None:
    of = found("narrow")
    assert of.spread.value == pytest.approx(0.8, abs=0.04) and widths(of) > 5 and not covered(of)
    assert of.coverage[1].share < 0.9 and not of.coverage[1].holds
    assert of.p_value("projection", "pixel") < SIGNIFICANCE


def test_biased_answers_are_rejected() -> None:
    of = found("biased")
    assert abs(of.bias.value) > 5 * of.bias.error and of.p_value("projection", "pixel") < SIGNIFICANCE


def test_answers_that_ignore_y_are_rejected_by_what_hears_y_alone() -> None:
    """The prior's samples have uniform ranks and the right coverage; misfit and TARP tell."""
    of = found("deaf")
    assert of.p_value("projection", "pixel") > SIGNIFICANCE and covered(of)
    assert of.p_value("misfit") < SIGNIFICANCE and of.p_value("TARP") < SIGNIFICANCE


def test_spread_against_the_exact_posterior() -> None:
    truth, _, mean, std, answers = solved()
    right, wide = (
        spread_over_exact(answers, std),
        spread_over_exact(mean[:, None] + 1.25 * (answers - mean[:, None]), std),
    )
    assert abs(right.value - 1.0) < 5 * right.error and abs(wide.value - 1.25) < 5 * wide.error < 0.1
    off = error_of_mean(answers + 0.5 * std[:, None], mean, std)
    assert abs(off.value - 0.25) < 5 * off.error and off.error < 0.02
    exact = error_of_mean(answers, mean, std)
    assert abs(exact.value) < 5 * exact.error
    z = z_scores(truth, answers)
    assert float(z.square().mean()) == pytest.approx((N - 1) / (N - 3), abs=0.06)  # Student's t, N - 1 degrees
    assert spread_over_error(mean + 0 * truth, answers).value > 3.0


def test_ranks_are_uniform_for_any_number_of_answers_and_with_ties() -> None:
    draw = torch.Generator().manual_seed(8)
    for n, levels in ((1, 0), (3, 0), (6, 2)):
        values = torch.rand(4000, n + 1, generator=draw, dtype=F64)
        values = (values * levels).floor() if levels else values
        u = ranks((values[:, 0], values[:, 1:]))
        assert stats.kstest(u, "uniform").pvalue > SIGNIFICANCE
        assert stats.kstest(ranks((values.max(1).values, values[:, 1:])), "uniform").pvalue < SIGNIFICANCE
    missing = torch.tensor([[math.nan, math.nan], [0.5, math.nan]], dtype=F64)
    u = ranks((torch.tensor([0.1, 0.9], dtype=F64), missing))
    assert bool(u[0].isnan()) and 0.5 <= float(u[1]) <= 1.0


def test_uniformity_against_references() -> None:
    u = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=F64) ** 1.2
    of = uniformity(u)
    D = stats.kstest(u, "uniform").statistic
    assert of.ks == pytest.approx(2 * math.exp(-2 * 200 * D**2), rel=1e4 * FLOAT64)
    assert of.ks >= stats.kstest(u, "uniform").pvalue
    counts = torch.histc(u, 20, 0, 1)
    assert of.chi_square == pytest.approx(stats.chisquare(counts).pvalue, rel=1e6 * FLOAT64)
    cramer = stats.cramervonmises(u, "uniform").statistic / 200
    assert of.energy == pytest.approx(2 * cramer - 1 / 600, rel=1e6 * FLOAT64)
    with pytest.raises(ValueError, match="16 or more"):
        uniformity(u[:15])


def test_uniformity_is_rejected_as_often_as_it_says() -> None:
    """1000 samples of 64: p-values below 5 percent are no more frequent, and not rare either."""
    u = torch.rand(1000, 64, generator=torch.Generator().manual_seed(4), dtype=F64)
    tests = [uniformity(row) for row in u]
    for p, least in (([t.ks for t in tests], 15), ([t.chi_square for t in tests], 25)):
        low = sum(value < 0.05 for value in p)
        assert least < low and stats.binom.sf(low - 1, 1000, 0.06) > SIGNIFICANCE


def test_intervals_of_coverage() -> None:
    low, high = wilson(0.9, 60)
    expected = stats.binomtest(54, 60).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e4 * FLOAT64)
    u = torch.rand(300, generator=torch.Generator().manual_seed(6), dtype=F64)
    one, copies = coverage(u, 0.5), coverage(u[:, None].expand(300, 40), 0.5)
    assert (one.low, one.high) == pytest.approx((copies.low, copies.high), abs=1e-3)  # forty copies say no more
    many = coverage(torch.rand(300, 40, generator=torch.Generator().manual_seed(7), dtype=F64), 0.5)
    assert many.high - many.low < 0.3 * (one.high - one.low)
    assert coverage(torch.full((20,), 0.5), 0.5).low > 0.8


def test_curves_hold_the_diagonal_for_exact_answers_alone() -> None:
    good, narrow = coverage_curve(found().pooled), coverage_curve(found("narrow").pooled)
    inner = slice(8, 33)
    at_half = int((good.levels == 0.5).nonzero())
    assert float(good.share[at_half]) == pytest.approx(found().coverage[0].share, abs=FLOAT64)
    inside = (good.low <= good.levels) & (good.levels <= good.high)
    assert float(inside[inner].double().mean()) > 0.7 and bool((narrow.high < narrow.levels)[inner].all())
    deaf = expected_coverage(found("deaf").u["TARP"])
    assert bool(((deaf.high < deaf.levels) | (deaf.low > deaf.levels))[inner].any())


def test_answers_that_are_not_finite_are_left_out() -> None:
    truth, _, _, _, answers = solved()
    broken = answers[:40].clone()
    broken[3, 1:] = math.nan
    broken[5, 2, 0] = math.inf
    of = calibrate(truth[:40], broken)
    assert of.problems == 39 and of.dropped == 1 and all(bool(u.isfinite().all()) for u in of.u.values())
    with pytest.raises(ValueError, match="have two finite answers; 16 are needed"):
        calibrate(truth[:10], answers[:10])
    with pytest.raises(ValueError, match="need answers"):
        calibrate(truth[:20], answers[:19])
