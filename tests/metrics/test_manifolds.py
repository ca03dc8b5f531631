"""Precision, recall, density and coverage against their definitions, and left-out values against leaving out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scorefield.metrics import Coverage, Density, Precision, RawFeatures, Recall, Reference, manifolds, measure
from scorefield.metrics.energy_distance import Jackknifed
from scorefield.metrics.manifolds import balls
from tolerance import FLOAT64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def radii(rows: Tensor, k: int) -> list[float]:
    return [sorted(float((a - b).norm()) for j, b in enumerate(rows) if j != i)[k - 1] for i, a in enumerate(rows)]


def share_inside(points: Tensor, centres: Tensor, k: int) -> float:
    r = radii(centres, k)
    return sum(any(float((p - c).norm()) <= q for c, q in zip(centres, r, strict=True)) for p in points) / len(points)


def density(points: Tensor, centres: Tensor, k: int) -> float:
    r = radii(centres, k)
    return sum(float((p - c).norm()) < q for p in points for c, q in zip(centres, r, strict=True)) / (k * len(points))


def coverage(points: Tensor, centres: Tensor, k: int) -> float:
    r = radii(centres, k)
    return sum(any(float((p - c).norm()) < q for p in points) for c, q in zip(centres, r, strict=True)) / len(centres)


PAIRS = pytest.mark.parametrize(
    ("ours", "definition"),
    [(manifolds.share_inside, share_inside), (manifolds.density, density), (manifolds.coverage, coverage)],
)


@PAIRS
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 3), grid=st.booleans())
def test_values_and_all_left_out_values_are_the_definitions(
    ours: Callable[..., Jackknifed], definition: Callable[[Tensor, Tensor, int], float], seed: int, k: int, grid: bool
) -> None:
    x, y = 1.3 * normal(seed, 9, 2), normal(seed + 5000, 11, 2)
    if grid:  # equal rows, equal distances, radii of zero
        x, y = x.round(), y.round()
    found = ours(x, y, balls(y, k))
    assert abs(found.number - definition(x, y, k)) < FLOAT64
    for i in range(9):
        assert abs(float(found.left_out[0][i]) - definition(x[torch.arange(9) != i], y, k)) < FLOAT64
    for i in range(11):
        assert abs(float(found.left_out[1][i]) - definition(x, y[torch.arange(11) != i], k)) < FLOAT64


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = 1.3 * normal(0, 23, 3), normal(1, 31, 3)
    for ours in (manifolds.share_inside, manifolds.density, manifolds.coverage):
        whole = ours(x, y, balls(y, 3))
        monkeypatch.setattr(manifolds, "BLOCK", 5)
        parts = ours(x, y, balls(y, 3))
        monkeypatch.undo()
        assert whole.number == parts.number
        assert all(torch.equal(a, b) for a, b in zip(whole.left_out, parts.left_out, strict=True))


def test_the_four_metrics_and_which_set_has_the_balls() -> None:
    real, narrow = normal(2, 40, 2), 0.2 * normal(3, 30, 2)
    reference = Reference(real, name="real")
    precision = float(measure(Precision(RawFeatures(), reference), narrow))
    recall = float(measure(Recall(RawFeatures(), reference), narrow))
    assert abs(precision - share_inside(narrow, real, 3)) < FLOAT64
    assert abs(recall - share_inside(real, narrow, 3)) < FLOAT64
    assert precision > 0.9 > 0.5 > recall  # samples of one mode look real and miss most of the data
    assert abs(float(measure(Density(RawFeatures(), reference), narrow)) - density(narrow, real, 5)) < FLOAT64
    result = measure(Coverage(RawFeatures(), reference), narrow)
    assert abs(float(result) - coverage(narrow, real, 5)) < FLOAT64
    assert result.receipt.settings == {"neighbours": 5}


def test_density_of_equal_laws_is_one_and_with_one_neighbour_more_it_is_not() -> None:
    """A sample lies in a ball of k neighbours with probability k / m where the laws are equal, so E density = 1."""
    found = torch.tensor(
        [
            float(measure(Density(RawFeatures(), Reference(normal(2 * s, 40, 2), name="r"), neighbours=5), x))
            for s in range(60)
            for x in [normal(2 * s + 1, 40, 2)]
        ]
    )
    error = float(found.std()) / 60**0.5
    assert abs(float(found.mean()) - 1.0) < 5.3 * error  # Student's law, 59 degrees of freedom, 1e-6
    assert abs(6 / 5 * float(found.mean()) - 1.0) > 5.3 * error


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbours=3 needs .* at least 5 reference examples.*got 4"):
        Precision(RawFeatures(), Reference(normal(0, 4, 2), name="four"))
    metric = Recall(RawFeatures(), Reference(normal(0, 9, 2), name="nine"))
    metric.update(normal(1, 4, 2))
    with pytest.raises(ValueError, match="needs at least 5 samples and has seen 4"):
        metric.compute()
