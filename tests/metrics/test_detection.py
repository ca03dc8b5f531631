"""Areas, rates and precisions of outlier scores: closed forms, ties, a reference, and the coverage of the intervals."""

from __future__ import annotations

import math

import pytest
import torch

from scorefield.metrics.detection import advantage, auroc, clopper_pearson, detection
from tolerance import FLOAT64, SIGNIFICANCE

F64 = torch.float64


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_binormal_area() -> None:
    """N(0, 1) against N(mu, s^2): Phi(mu / sqrt(1 + s^2)), to five of DeLong's errors."""
    inside, outside = normal(0, 20_000), 1.2 + 0.5 * normal(1, 10_000)
    area, error = auroc(inside, outside)
    exact = 0.5 * math.erfc(-1.2 / math.sqrt(1.25) / math.sqrt(2.0))
    assert abs(area - exact) < 5 * error < 0.03
    assert auroc(-inside, -outside)[0] == pytest.approx(1.0 - area, abs=FLOAT64)


def test_ties_count_one_half_and_agree_with_all_pairs() -> None:
    inside, outside = normal(2, 60).round(decimals=1), (normal(3, 40) + 0.5).round(decimals=1)
    pairs = outside[:, None] - inside[None]
    won = (pairs > 0).to(F64) + 0.5 * (pairs == 0)
    assert bool((pairs == 0).any())
    found = detection(inside, outside, resamples=20)
    assert found.auroc.number == pytest.approx(float(won.mean()), abs=1e2 * FLOAT64)
    area, error = auroc(inside, outside)
    assert area == pytest.approx(float(won.mean()), abs=1e2 * FLOAT64)
    by_pairs = won.mean(1).var() / 40 + won.mean(0).var() / 60
    assert error == pytest.approx(math.sqrt(float(by_pairs)), rel=1e3 * FLOAT64)
    same = detection(torch.zeros(10), torch.zeros(8), resamples=10)
    assert same.auroc.number == 0.5 and same.aupr_out.number == same.base_rate == pytest.approx(8 / 18)


def test_against_a_reference() -> None:
    reference = pytest.importorskip("sklearn.metrics")
    inside, outside = normal(4, 200).round(decimals=1), (normal(5, 50) + 1.0).round(decimals=1)
    labels, scores = torch.cat([torch.zeros(200), torch.ones(50)]).numpy(), torch.cat([inside, outside]).numpy()
    found = detection(inside, outside, resamples=20)
    assert found.auroc.number == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e3 * FLOAT64)
    for value, y, s in ((found.aupr_out, labels, scores), (found.aupr_in, 1 - labels, -scores)):
        assert value.number == pytest.approx(reference.average_precision_score(y, s), abs=1e3 * FLOAT64)


def test_passed_outliers_at_95_percent() -> None:
    inside = torch.arange(100.0)
    outside = torch.tensor([10.0, 94.0, 94.5, 200.0])
    found = detection(inside, outside, resamples=50).fpr95
    assert found.number == 0.5, "95 of 100 examples lie at or below 94, and so do two of four outliers"
    assert found.interval is not None and found.interval[0] <= 0.07 and found.interval[1] >= 0.93


def test_exact_intervals_of_shares() -> None:
    low, high = clopper_pearson(0, 20)
    assert low == 0.0 and high == pytest.approx(1.0 - 0.025 ** (1 / 20), abs=1e-9)
    low, high = clopper_pearson(20, 20)
    assert high == 1.0 and low == pytest.approx(0.025 ** (1 / 20), abs=1e-9)
    assert clopper_pearson(3, 50) == pytest.approx((0.012548587835, 0.165481946604), abs=1e-9)
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(3, 2)


@pytest.mark.slow
def test_the_interval_of_an_area_covers() -> None:
    """400 replicates of 30 against 25; half the width is noticed."""
    exact, covered, narrow, runs = 0.5 * math.erfc(-0.5), 0, 0, 400
    draws = normal(6, runs, 55)
    for row in draws:
        found = detection(row[:30], row[30:] + 1.0, resamples=1).auroc
        low, high = found.details["analytic low"], found.details["analytic high"]
        covered += low <= exact <= high
        narrow += 0.75 * low + 0.25 * high <= exact <= 0.25 * low + 0.75 * high

    def improbable(count: int) -> bool:
        return math.erfc(abs(count / runs - 0.95) / math.sqrt(2 * 0.95 * 0.05 / runs)) < SIGNIFICANCE

    assert not improbable(covered) and improbable(narrow)


@pytest.mark.slow
def test_bootstrap_intervals_cover() -> None:
    exact, inside_, runs = 0.5 * math.erfc(-0.5), 0, 200
    rate = 0.5 * math.erfc((1.0 - 1.6448536269514722) / math.sqrt(2.0))
    passes = 0
    draws = normal(7, runs, 220)
    for row in draws:
        found = detection(row[:120], row[120:] + 1.0, resamples=300)
        inside_ += found.auroc.details["bootstrap low"] <= exact <= found.auroc.details["bootstrap high"]
        assert found.fpr95.interval is not None
        passes += found.fpr95.interval[0] <= rate <= found.fpr95.interval[1]
    assert inside_ / runs > 0.87 and passes / runs > 0.87


def test_perfect_separation_is_not_certainty() -> None:
    found = detection(torch.arange(20.0), torch.arange(15.0) + 100.0, resamples=20).auroc
    assert found.number == 1.0 and found.interval is not None and 0.8 < found.interval[0] < 0.95
    turned = detection(torch.arange(15.0) + 100.0, torch.arange(20.0), resamples=20).auroc
    assert turned.number == 0.0 and turned.interval is not None and 0.05 < turned.interval[1] < 0.2


def test_advantage_over_the_best_baseline_of_either_sign() -> None:
    inside, outside = normal(8, 150), normal(9, 100) + 1.0
    noise = (normal(10, 150), normal(11, 100))
    turned = (-inside, -outside)
    against = advantage((inside, outside), [noise, turned], resamples=100)
    assert against.number == pytest.approx(0.0, abs=1e2 * FLOAT64) and against.interval == pytest.approx((0.0, 0.0))
    alone = advantage((inside, outside), [noise], resamples=100)
    assert alone.interval is not None and 0.0 < alone.interval[0] < alone.number < alone.interval[1]
    with pytest.raises(ValueError, match="same examples"):
        advantage((inside, outside), [(inside[1:], outside)])


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="2 of 5 scores of the outliers are NaN"):
        auroc(torch.zeros(4), torch.tensor([1.0, float("nan"), 2.0, float("nan"), 3.0]))
    with pytest.raises(ValueError, match="no spread"):
        auroc(torch.zeros(1), torch.zeros(4))
    infinite = auroc(torch.tensor([0.0, 1.0]), torch.tensor([float("inf"), 3.0]))
    assert infinite[0] == 1.0
