"""Sliced Wasserstein distance against SciPy, the quantile formula for Gaussians, and wrong directions and couplings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scorefield.metrics import Reference, SlicedWasserstein, measure, random_directions, wasserstein_1d
from scorefield.metrics.sliced_wasserstein import potential
from tolerance import FLOAT64, QUANTILE_GRID, SIGNIFICANCE


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantiles(mean: float, deviation: float, count: int) -> Tensor:
    u = (np.arange(count) + 0.5) / count
    return torch.from_numpy(scipy.stats.norm.ppf(u, mean, deviation))


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 20), st.sampled_from([1, 2]))
def test_empirical_coupling_is_exact_for_any_two_counts(n: int, m: int, seed: int, order: int) -> None:
    a, b = normal(seed, n, 2).sort(dim=0).values, normal(seed + 1, m, 2).sort(dim=0).values
    whole = math.lcm(n, m)  # both quantile functions on a grid that holds all their jumps
    pairs = a.repeat_interleave(whole // n, dim=0) - b.repeat_interleave(whole // m, dim=0)
    wanted = pairs.abs().pow(order).mean(dim=0)
    assert torch.allclose(wasserstein_1d(a, b, order), wanted, rtol=FLOAT64, atol=FLOAT64)
    if order == 1:
        scipys = [scipy.stats.wasserstein_distance(a[:, p], b[:, p]) for p in range(2)]
        assert np.allclose(wasserstein_1d(a, b, 1), scipys, rtol=FLOAT64, atol=FLOAT64)


def test_pairing_by_rank_alone_is_rejected_for_unequal_counts() -> None:
    a, b = normal(1, 6, 1).sort(dim=0).values, normal(2, 9, 1).sort(dim=0).values
    mutant = (a - b[:6]).square().mean()
    assert not torch.allclose(wasserstein_1d(a, b)[0], mutant, rtol=QUANTILE_GRID)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.5, 1.0), (0.0, 2.0), (-0.7, 0.4)])
def test_gaussians_in_one_dimension(mean: float, deviation: float) -> None:
    """W_2^2 = (m_a - m_b)^2 + (s_a - s_b)^2, through the metric, for samples in any order."""
    real = quantiles(0.3, 1.1, 4001)[:, None]
    fake = quantiles(mean, deviation, 4001)[torch.randperm(4001, generator=torch.Generator().manual_seed(0)), None]
    wanted = math.sqrt((mean - 0.3) ** 2 + (deviation - 1.1) ** 2)
    value = float(measure(SlicedWasserstein(Reference(real, name="real"), projections=3), fake))
    assert abs(value - wanted) <= QUANTILE_GRID * wanted
    unsorted = float((fake - real).square().mean().sqrt())
    first_order = float((fake.sort(dim=0).values - real).abs().mean())
    assert abs(unsorted - wanted) > QUANTILE_GRID * wanted
    assert deviation == 1.1 or abs(first_order - wanted) > QUANTILE_GRID * wanted


def direction_score(directions: Tensor, shift: Tensor) -> float:
    """z of the mean over directions of (theta . shift)^2 against |shift|^2 / D and its variance on the sphere."""
    size = len(shift)
    squares = (shift @ directions).square() / float(shift @ shift)
    variance = 2 * (size - 1) / (size**2 * (size + 2))
    return float((squares.mean() - 1 / size) / math.sqrt(variance / directions.shape[1]))


def test_directions_are_uniform_on_the_sphere() -> None:
    """Between two points W_2^2 along theta is (theta . shift)^2: mean |shift|^2 / D if uniform, not else."""
    bound = scipy.stats.norm.isf(SIGNIFICANCE / 2)
    size, count = 5, 4000
    directions = random_directions(size, count, seed=3)
    assert torch.allclose(directions.norm(dim=0), torch.ones(count, dtype=torch.float64), rtol=FLOAT64)
    diagonal, axis = torch.ones(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)[0]
    for shift in (diagonal, axis):
        assert abs(direction_score(directions, shift)) < bound
    stretched = directions * torch.tensor([1.15, 1, 1, 1, 1], dtype=torch.float64)[:, None]
    not_normalised = normal(4, size, count)
    assert abs(direction_score(directions.abs(), diagonal)) > bound
    assert abs(direction_score(not_normalised, diagonal)) > bound
    assert abs(direction_score(1.05 * directions, diagonal)) > bound
    assert abs(direction_score(stretched / stretched.norm(dim=0), axis)) > bound


def test_isotropic_gaussians_in_higher_dimension() -> None:
    """SW_2^2 = |shift|^2 / D for a translation, to the error of the directions that the metric itself states."""
    real = normal(5, 200, 3, 2)
    shift = normal(6, 3, 2)
    result = measure(SlicedWasserstein(Reference(real, name="real"), projections=400), real + shift)
    wanted = math.sqrt(float(shift.square().sum()) / 6)
    error = result.value.details["standard error from the choice of directions"]
    bound = scipy.stats.norm.isf(SIGNIFICANCE / 2)
    assert abs(float(result) - wanted) < bound * error
    assert abs(float(measure(SlicedWasserstein(Reference(real, name="real"), 400), real + 1.3 * shift)) - wanted) > (
        bound * error
    )


def test_invariances() -> None:
    real, fake = normal(7, 40, 3), 1.2 * normal(8, 30, 3)
    value = float(measure(SlicedWasserstein(Reference(real, name="real")), fake))

    def again(x: Tensor, y: Tensor) -> float:
        return float(measure(SlicedWasserstein(Reference(x, name="real")), y))

    assert np.isclose(again(real + 5, fake + 5), value, rtol=FLOAT64)
    assert np.isclose(again(3 * real, 3 * fake), 3 * value, rtol=FLOAT64)
    assert np.isclose(again(real, fake.flip(0)), value, rtol=FLOAT64)
    assert np.isclose(again(real.repeat(2, 1), fake), value, rtol=FLOAT64)
    assert again(real, real.flip(0)) == 0.0
    assert again(real, real.repeat(3, 1)) <= FLOAT64


def test_more_projections_keep_the_first_ones() -> None:
    assert torch.equal(random_directions(4, 10, 1), random_directions(4, 25, 1)[:, :10])
    assert not torch.equal(random_directions(4, 10, 1), random_directions(4, 10, 2))


def test_refusals() -> None:
    reference = Reference(normal(0, 5, 2), name="real")
    with pytest.raises(ValueError, match="projections=0"):
        SlicedWasserstein(reference, projections=0)
    with pytest.raises(ValueError, match="order=3"):
        SlicedWasserstein(reference, order=3)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("real", [7, 13])  # no common factor with 9: else the derivative has two sides
def test_the_potential_is_the_derivative_by_a_samples_share(order: int, real: int) -> None:
    draw = torch.Generator().manual_seed(real)
    a = torch.randn(9, 1, generator=draw, dtype=torch.float64).sort(dim=0).values
    b = torch.randn(real, 1, generator=draw, dtype=torch.float64).sort(dim=0).values
    copies = 5000
    many = a.repeat_interleave(copies, dim=0)
    before, found = float(wasserstein_1d(a, b, order)), potential(a, b, order)
    assert abs(float(found.mean())) < FLOAT64
    for i in (0, 4, 8):
        more = torch.cat([many, a[i : i + 1]]).sort(dim=0).values
        slope = (float(wasserstein_1d(more, b, order)) - before) * (9 * copies + 1)
        assert abs(slope - float(found[i, 0])) < 0.05 * float(found.std())
