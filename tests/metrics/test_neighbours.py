"""Nearest neighbours against brute force, and the memorisation ratio at its two ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scorefield.metrics import MemorisationRatio, ModuleFeatures, NearestNeighbours, Reference, measure, nearest
from scorefield.metrics.neighbours import median_interval, nearer
from tolerance import FLOAT64, NEAR_COPIES


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norms(x: Tensor) -> Tensor:
    return x.square().sum(dim=1, keepdim=True)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 6), st.integers(3, 50), st.integers(0, 20))
def test_brute_force(points: int, queries: int, count: int, chunk: int, seed: int) -> None:
    count = min(count, points)
    p, q = normal(seed, points, 3), normal(seed + 1, queries, 3)
    all_pairs = np.linalg.norm(q.numpy()[:, None] - p.numpy()[None], axis=2)
    wanted = np.argsort(all_pairs, axis=1, kind="stable")[:, :count]
    found = nearest(q, p, count, chunk=chunk)
    assert (found.index.numpy() == wanted).all()
    assert np.allclose(found.distance.numpy(), np.take_along_axis(all_pairs, wanted, axis=1), rtol=FLOAT64)


def test_equal_distances_come_in_order_of_index() -> None:
    points = torch.tensor([[1.0], [-1.0], [1.0], [5.0]], dtype=torch.float64)
    assert nearest(torch.zeros(1, 1, dtype=torch.float64), points, 3).index.tolist() == [[0, 1, 2]]


def test_a_copy_is_at_distance_zero_far_from_the_origin_and_the_expanded_square_says_otherwise() -> None:
    train = normal(0, 50, 8) + 1e4
    found = nearest(train[:5], train, 2)
    assert found.distance[:, 0].tolist() == [0.0] * 5
    assert found.index[:, 0].tolist() == [0, 1, 2, 3, 4]
    expanded = norms(train[:5]) - 2 * train[:5] @ train.mT + norms(train).mT
    assert float(expanded.diagonal().abs().max()) > FLOAT64


def test_the_metric_keeps_neighbours_of_all_samples_in_order() -> None:
    train = Reference(normal(1, 30, 2, 2), name="train", split="train", units="mV")
    samples = normal(2, 11, 2, 2)
    metric = NearestNeighbours(train, count=4)
    result = measure(metric, samples, batch_size=3)
    direct = nearest(samples.reshape(11, 4), train.x.reshape(30, 4), 4)
    assert torch.equal(metric.neighbours().index, direct.index)
    assert float(result) == float(direct.distance[:, 0].quantile(0.5))
    assert result.value.unit == "mV, Euclidean" and result.value.details["copies"] == 0


def test_distances_can_be_of_features() -> None:
    train = Reference(normal(3, 20, 5), name="train")
    first = ModuleFeatures(lambda x: x[:, :1], name="first coordinate", hash="1")
    metric = NearestNeighbours(train, count=1, features=first)
    samples = train.x.clone()
    samples[:, 1:] += 100
    assert float(measure(metric, samples)) == 0.0
    assert metric.compute().unit == "feature units, Euclidean"


def test_memorisation_is_one_for_held_out_data_and_zero_for_copies() -> None:
    x = normal(4, 300, 6)
    train, held_out = Reference(x[:200], name="toy", split="train"), Reference(x[200:], name="toy", split="held-out")
    metric = MemorisationRatio(train, held_out)
    assert float(measure(metric, x[200:])) == 1.0
    assert float(measure(metric, x[:50])) == 0.0
    assert metric.compute().details["copies"] == 50
    near_copies = float(measure(metric, x[:50] + 0.05 * normal(5, 50, 6)))
    assert 0.0 < near_copies < NEAR_COPIES
    assert measure(metric, x[200:]).receipt.settings["held-out hash"] == held_out.facts.hash


def test_refusals() -> None:
    train = Reference(normal(6, 5, 3), name="train")
    with pytest.raises(ValueError, match="count=6 neighbours asked of 5"):
        NearestNeighbours(train, count=6)
    with pytest.raises(ValueError, match="at least half of the held-out examples"):
        MemorisationRatio(train, train)
    with pytest.raises(ValueError, match=r"shape \(3,\) and held-out examples \(4,\)"):
        MemorisationRatio(train, Reference(normal(7, 5, 4), name="other"))


def test_medians_interval_is_the_binomials() -> None:
    """n = 10: P(B < 2) = 0.0107, P(B < 3) = 0.055, so the second smallest to the second largest."""
    values = normal(8, 10)
    ordered = values.sort().values
    assert median_interval(values) == (float(ordered[1]), float(ordered[8]))
    assert median_interval(values[:5]) is None


def test_memorisation_test_is_mann_whitneys() -> None:
    a, b = normal(9, 20).abs(), (normal(10, 31) + 0.3).abs()
    a[:6], b[:4] = 0.5, 0.5  # ties
    share, z = nearer(a, b)
    options = {"alternative": "greater", "use_continuity": False, "method": "asymptotic"}
    wanted = scipy.stats.mannwhitneyu(b.numpy(), a.numpy(), **options)
    assert abs(share - wanted.statistic / (20 * 31)) < FLOAT64
    assert abs(0.5 * math.erfc(z / math.sqrt(2)) - wanted.pvalue) < FLOAT64


def test_copies_are_warned_of_and_held_out_data_are_not() -> None:
    x = normal(4, 300, 6)
    train, held_out = Reference(x[:200], name="toy"), Reference(x[200:], name="toy")
    metric = MemorisationRatio(train, held_out)
    near = measure(metric, x[:50] + 0.05 * normal(5, 50, 6)).value
    assert near.interval is not None and near.interval[1] < 1 and "may have memorised" in near.warnings[0]
    fresh = measure(metric, normal(6, 80, 6)).value
    assert fresh.interval is not None and fresh.interval[0] < 1 < fresh.interval[1] and fresh.warnings == ()
