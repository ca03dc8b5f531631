"""Energy distance against sums over pairs, the closed form of Gaussians, and estimates that are biased."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from scorefield.metrics import EnergyDistance, ModuleFeatures, Reference, measure
from scorefield.metrics.energy_distance import energy_distance, paired_energy_distance
from tolerance import FLOAT64, JACKKNIFE_RATIO, SIGNIFICANCE

SIGMAS = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_pairs(x: Tensor, y: Tensor) -> float:
    """2 mean |x - y| - mean of |x - x'| - mean of |y - y'|, over differing pairs."""
    apart = [(x[i] - x[j]).norm() for i in range(len(x)) for j in range(len(x)) if i != j]
    inside = [(y[i] - y[j]).norm() for i in range(len(y)) for j in range(len(y)) if i != j]
    cross = [(a - b).norm() for a in x for b in y]
    return float(2 * torch.stack(cross).mean() - torch.stack(apart).mean() - torch.stack(inside).mean())


def of_pairs(x: Tensor, y: Tensor) -> float:
    """The same with equal indices left out of the cross terms too."""
    total = [
        (x[i] - y[j]).norm() + (x[j] - y[i]).norm() - (x[i] - x[j]).norm() - (y[i] - y[j]).norm()
        for i in range(len(x))
        for j in range(len(x))
        if i != j
    ]
    return float(torch.stack(total).mean())


def mean_distance(mean: float, variance: float) -> float:
    """E|z| for z ~ N(mean, variance)."""
    deviation = math.sqrt(variance)
    ratio = mean / deviation
    return deviation * math.sqrt(2 / math.pi) * math.exp(-0.5 * ratio**2) + mean * math.erf(ratio / math.sqrt(2))


def test_the_value_and_what_is_left_out() -> None:
    x, y = normal(0, 6, 2, 2), normal(1, 5, 2, 2) + 0.5
    found = energy_distance(x, y)
    assert found.number == pytest.approx(by_pairs(x, y), abs=FLOAT64)
    for i in range(6):
        wanted = by_pairs(torch.cat([x[:i], x[i + 1 :]]), y)
        assert float(found.left_out[0][i]) == pytest.approx(wanted, abs=FLOAT64)
    for j in range(5):
        wanted = by_pairs(x, torch.cat([y[:j], y[j + 1 :]]))
        assert float(found.left_out[1][j]) == pytest.approx(wanted, abs=FLOAT64)


def test_the_value_of_pairs_and_what_is_left_out() -> None:
    x = normal(2, 6, 3)
    y = 0.7 * x + 0.3 * normal(3, 6, 3)
    found = paired_energy_distance(x, y)
    assert found.number == pytest.approx(of_pairs(x, y), abs=FLOAT64)
    for i in range(6):
        keep = [k for k in range(6) if k != i]
        assert float(found.left_out[0][i]) == pytest.approx(of_pairs(x[keep], y[keep]), abs=FLOAT64)


def test_gaussians_in_one_dimension_without_bias() -> None:
    """The mean over many small sets is the closed form; that of the estimate with equal pairs in it is not."""
    mean, deviation, sets = 0.6, 1.3, 400
    wanted = 2 * mean_distance(mean, 1 + deviation**2) - mean_distance(0, 2) - mean_distance(0, 2 * deviation**2)
    x, y = normal(4, sets, 8, 1), mean + deviation * normal(5, sets, 12, 1)
    values = torch.tensor([energy_distance(a, b).number for a, b in zip(x, y, strict=True)])
    error = float(values.std()) / sets**0.5
    assert abs(float(values.mean()) - wanted) < SIGMAS * error
    # With |x - x| = 0 counted in, the means inside the sets come out (n - 1) / n as large.
    biased = float(values.mean()) + mean_distance(0, 2) / 8 + mean_distance(0, 2 * deviation**2) / 12
    assert abs(biased - wanted) > SIGMAS * error


def test_pairs_of_equal_laws_have_mean_zero_where_independent_sets_are_assumed_they_have_not() -> None:
    sets = 300
    x = normal(6, sets, 10, 1)
    y = 0.8 * x + 0.6 * normal(7, sets, 10, 1)  # N(0, 1) again, correlation 0.8
    pairs = torch.tensor([paired_energy_distance(a, b).number for a, b in zip(x, y, strict=True)])
    assumed = torch.tensor([energy_distance(a, b).number for a, b in zip(x, y, strict=True)])
    assert abs(float(pairs.mean())) < SIGMAS * float(pairs.std()) / sets**0.5
    assert abs(float(assumed.mean())) > SIGMAS * float(assumed.std()) / sets**0.5


@pytest.mark.parametrize("paired", [False, True])
def test_the_standard_error_is_the_spread_of_the_value(paired: bool) -> None:
    sets = 400
    x, y = normal(8, sets, 30, 2), normal(9, sets, 30, 2) + 1.0
    distance = paired_energy_distance if paired else energy_distance
    found = [distance(a, b) for a, b in zip(x, y, strict=True)]
    spread = float(torch.tensor([f.number for f in found]).std())
    stated = sum(f.std_error for f in found) / sets
    assert abs(stated / spread - 1) < JACKKNIFE_RATIO
    without_reference = sum(f.left_out[0].std().item() * 29 / 30**0.5 for f in found) / sets
    assert paired or abs(without_reference / spread - 1) > JACKKNIFE_RATIO


def test_shared_noise_makes_differences_sharper_than_values() -> None:
    x, y = normal(10, 60, 2), normal(11, 50, 2)
    one, other = energy_distance(x, y), energy_distance(1.02 * x, y)
    difference = one.minus(other)
    assert difference.number == pytest.approx(one.number - other.number, abs=FLOAT64)
    assert difference.std_error < 0.2 * one.std_error
    with pytest.raises(ValueError, match=r"\(60, 50\) and of \(59, 50\) examples are not paired"):
        one.minus(energy_distance(x[:59], y))


def test_small_distances_keep_their_digits() -> None:
    x = 1e4 + normal(12, 5, 3)
    y = x + 1e-5
    assert paired_energy_distance(x, y).number == pytest.approx(of_pairs(x, y), rel=1e-3, abs=1e-14)
    assert energy_distance(x, x.flip(0)).number == pytest.approx(by_pairs(x, x), abs=FLOAT64)


def test_too_few_examples_are_refused() -> None:
    x = normal(13, 5, 2)
    with pytest.raises(ValueError, match="at least 3 examples on each side.*got 2"):
        energy_distance(x, x[:2])
    with pytest.raises(ValueError, match="equal numbers of examples; got 5 and 4"):
        paired_energy_distance(x, x[:4])
    with pytest.raises(ValueError, match="at least 3"):
        EnergyDistance(Reference(x[:2], name="two"))


def test_the_metric_states_its_interval_and_unit() -> None:
    x, y = normal(14, 40, 1, 2, 2), normal(15, 30, 1, 2, 2)
    value = measure(EnergyDistance(Reference(y, name="real", units="K")), x, batch_size=7).value
    found = energy_distance(x, y)
    assert value.number == pytest.approx(found.number, abs=FLOAT64)
    assert value.unit == "K" and value.better == "lower" and value.interval is not None
    low, high = value.interval
    assert high - low == pytest.approx(2 * 1.96 * found.std_error, rel=FLOAT64)
    halved = measure(EnergyDistance(Reference(y, name="real"), ModuleFeatures(lambda x: x / 2, name="half")), x).value
    assert halved.number == pytest.approx(found.number / 2, abs=FLOAT64) and halved.unit == "feature units"
