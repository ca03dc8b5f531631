"""Differences over shared noise: against deletion of every pair, and a closed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scorefield.metrics import (
    Coverage,
    EnergyDistance,
    FrechetDistance,
    GaussianDiscrepancy,
    InceptionScore,
    KernelDistance,
    MemorisationRatio,
    Metric,
    Precision,
    RawFeatures,
    Recall,
    Reference,
    SlicedWasserstein,
    VendiScore,
    contributions,
    paired_difference,
)
from scorefield.metrics.receipt import ReferenceFacts
from scorefield.metrics.statistics import ReferenceMoments
from tolerance import FLOAT64, INFINITESIMAL


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Shares(RawFeatures):
    """Class probabilities: a softmax of the values."""

    name, hash = "shares", "shares"

    def __call__(self, x: Tensor) -> Tensor:
        return x.double().softmax(dim=1)


REAL = Reference(normal(0, 30, 2) * 1.3, name="toy")
Z = normal(1, 24, 2)
A, B = Z * 1.1 + 0.3, Z * 2.2 + 0.1 * normal(2, 24, 2)

EXACT: dict[str, Callable[[], Metric]] = {
    "kid": lambda: KernelDistance(RawFeatures(), REAL),
    "mmd": lambda: GaussianDiscrepancy(REAL),
    "energy": lambda: EnergyDistance(REAL),
    "precision": lambda: Precision(RawFeatures(), REAL),
    "recall": lambda: Recall(RawFeatures(), REAL),
    "coverage": lambda: Coverage(RawFeatures(), REAL),
    "inception": lambda: InceptionScore(Shares(), REAL, splits=1),
}
FIRST_ORDER: dict[str, Callable[[], Metric]] = {
    "fid": lambda: FrechetDistance(RawFeatures(), REAL),
    "vendi": lambda: VendiScore(RawFeatures(), REAL),
    "sliced": lambda: SlicedWasserstein(REAL, projections=8),
}


def fed(make: Callable[[], Metric], x: Tensor) -> Metric:
    metric = make()
    metric.update(x[:10])
    metric.update(x[10:])
    return metric


def without_each(make: Callable[[], Metric]) -> Tensor:
    """The difference of the values without pair i, recomputed from nothing."""
    metric, values = make(), []
    for i in range(len(A)):
        rest = torch.arange(len(A)) != i
        pair = []
        for x in (A, B):
            metric.reset()
            metric.update(x[rest])
            pair.append(float(metric.compute()))
        values.append(pair[0] - pair[1])
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", [*EXACT, *FIRST_ORDER])
def test_leaving_a_pair_out_is_what_deleting_it_does(name: str) -> None:
    make = {**EXACT, **FIRST_ORDER}[name]
    found = contributions(fed(make, A)).minus(contributions(fed(make, B)))
    deleted = without_each(make)
    spread = deleted - deleted.mean()
    own = found.left_out[0] - found.left_out[0].mean()
    bound = FLOAT64 * 100 if name in EXACT else INFINITESIMAL * float(spread.abs().max())
    assert float((own - spread).abs().max()) <= bound
    assert float(spread.abs().max()) > 0
    if name in FIRST_ORDER:  # another order of the samples would not do
        assert float((own.roll(1) - spread).abs().max()) > bound


def test_the_standard_error_of_a_shift_is_that_of_the_mean() -> None:
    """d(z) - d(z + c) = -2 c m - c^2 against the moments 0, 1: the error is 2 c s / sqrt n, to the last digit."""
    z, c = normal(3, 50, 1), 0.4
    one = torch.ones(1, 1, dtype=torch.float64)
    reference = ReferenceMoments(one[0] * 0, one, ReferenceFacts("unit normal", None, None, "0" * 64))

    def value(x: Tensor):
        metric = FrechetDistance(RawFeatures(), reference)
        metric.update(x)
        return contributions(metric)

    found = paired_difference(value(z), value(z + c))
    assert found.number == pytest.approx(-2 * c * float(z.mean()) - c * c, rel=1e-9)
    error = 2 * c * float(z.std()) / len(z) ** 0.5
    assert found.std_error == pytest.approx(error, rel=1e-9)
    assert found.interval[0] == pytest.approx(found.number - 1.959963984540054 * error, rel=1e-9)
    assert found.std_error_unshared > 1.2 * found.std_error
    shuffled = paired_difference(
        value(z), value((z + c)[torch.randperm(50, generator=torch.Generator().manual_seed(0))])
    )
    assert shuffled.number == pytest.approx(found.number, rel=1e-9) and shuffled.std_error > 1.2 * found.std_error


def test_the_same_samples_differ_by_nothing() -> None:
    one = contributions(fed(EXACT["energy"], A))
    assert paired_difference(one, one).interval == (0.0, 0.0)


def test_what_cannot_be_paired_is_refused() -> None:
    memory = MemorisationRatio(REAL, Reference(normal(5, 20, 2), name="held"))
    memory.update(A)
    with pytest.raises(ValueError, match="not paired; compare fid"):
        contributions(memory)
    few = FrechetDistance(RawFeatures(), REAL)
    few.update(A[:2])
    with pytest.raises(ValueError, match="singular"):
        contributions(few)
    with pytest.raises(ValueError, match="not paired; use equal numbers"):
        paired_difference(contributions(fed(EXACT["kid"], A)), contributions(fed(EXACT["kid"], B[:20])))
