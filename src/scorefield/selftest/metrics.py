"""Checks of metrics: closed forms, unbiased estimators by enumeration of all samples, and merging of accumulators."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.metrics import (
    Coverage,
    Density,
    EnergyDistance,
    FrechetDistance,
    GaussianDiscrepancy,
    InceptionScore,
    KernelDistance,
    Metric,
    ModuleFeatures,
    Precision,
    RawFeatures,
    Recall,
    Reference,
    SlicedWasserstein,
    VendiScore,
    frechet_distance,
    measure,
)
from scorefield.selftest.check import Bench, CheckGroup, Measurement, largest, times

GROUP = CheckGroup("metrics", "closed forms, unbiased estimators, exact transport, merging")


def reference(x: Tensor) -> Reference:
    """Return a reference data set for a metric."""
    return Reference(x, name="selftest")


def number(metric: Metric, x: Tensor) -> float:
    """Return the value of a metric of samples."""
    return measure(metric, x).value.number


def _covariance(D: int, seed: int, bench: Bench) -> Tensor:
    R = bench.normal(D, D, seed=seed).cpu().double()
    return R @ R.T / D


@GROUP.check(
    "Frechet distance of Gaussians",
    claim="the Frechet distance is the squared 2-Wasserstein distance of two Gaussians",
    by="|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2) (Dowson and Landau 1982)",
    allowed=1e-10,
    why="square roots of eigenvalues of covariances with condition number 1e3",
)
def _frechet(bench: Bench) -> Measurement:
    D = 6
    S, m = _covariance(D, 1, bench), bench.normal(D, seed=2).cpu().double()
    a, b = times(0.3, 1.0, 2.0), times(1.1, 0.2, 2.5)
    zero = torch.zeros(D, dtype=torch.float64)
    # A symmetric positive map T is optimal, and carries N(0, S) to N(0, T S T) at the cost tr((T - I) S (T - I)).
    T = _covariance(D, 3, bench) + torch.eye(D, dtype=torch.float64)
    displacement = T - torch.eye(D, dtype=torch.float64)
    cost = float((displacement @ S @ displacement).trace())
    return largest(
        {
            "itself": frechet_distance(m, S, m, S),
            "means": abs(frechet_distance(m, S, zero, S) / float(m @ m) - 1.0),
            "axes": abs(
                frechet_distance(a, torch.diag(a**2), b, torch.diag(b**2)) / float(2.0 * (a - b).square().sum()) - 1.0
            ),
            "scales": abs(frechet_distance(zero, S, zero, 9.0 * S) / float(4.0 * S.trace()) - 1.0),
            "optimal map": abs(frechet_distance(zero, S, zero, T @ S @ T) / cost - 1.0),
            "point mass": abs(frechet_distance(zero, 0.0 * S, zero, S) / float(S.trace()) - 1.0),
        }
    )


@GROUP.check(
    "Frechet distance of samples",
    claim="the metric uses means and unbiased covariances (divisor N - 1) of features in float64",
    by="in one dimension (m_a - m_b)^2 + (s_a - s_b)^2 of the two sets, N = 7 and 9",
    allowed=1e-10,
    why="float64 sums of few terms",
    single=1e-4,
)
def _frechet_of_samples(bench: Bench) -> Measurement:
    x, y = bench.normal(7, 1, seed=4), 3.0 + 0.5 * bench.normal(9, 1, seed=5)
    exact = float((x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2)
    return largest({"distance": abs(number(FrechetDistance(RawFeatures(), reference(y)), x) / exact - 1.0)})


def _triples(values: Tensor) -> list[Tensor]:
    """Return all 27 samples of size three drawn with replacement from three values; they are equally likely."""
    return [values[list(rows)] for rows in itertools.product(range(3), repeat=3)]


def _mean_estimate(make: Callable[[Reference], Metric], a: Tensor, b: Tensor) -> float:
    """Return the mean of a metric over all pairs of samples of size three from two populations."""
    found = [[number(metric, x) for x in _triples(a)] for metric in (make(reference(y)) for y in _triples(b))]
    return sum(map(sum, found)) / 27**2


@GROUP.check(
    "unbiased estimators",
    claim="kernel distance (KID), Gaussian MMD and energy distance are unbiased for samples of three against three",
    by="the mean over all 729 pairs of samples of two populations is exactly the distance of the populations",
    allowed=1e-10,
    why="float64 sums of 729 numbers",
    single=1e-4,
)
def _unbiased(bench: Bench) -> Measurement:
    a, b = (
        bench.to(torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.3]])),
        bench.to(torch.tensor([[1.0, 1.0], [-1.5, 0.2], [0.1, -2.0]])),
    )
    kernels: dict[str, tuple[Callable[[Reference], Metric], Callable[[Tensor, Tensor], Tensor]]] = {
        "KID": (lambda r: KernelDistance(RawFeatures(), r), lambda x, y: (x @ y.T / 2 + 1.0) ** 3),
        "MMD": (
            lambda r: GaussianDiscrepancy(r, bandwidth=1.3),
            lambda x, y: (-(x[:, None] - y[None]).square().sum(2) / (2.0 * 1.3**2)).exp(),
        ),
        "energy distance": (EnergyDistance, lambda x, y: -(x[:, None] - y[None]).norm(dim=2)),
    }
    errors = {}
    for name, (make, kernel) in kernels.items():
        u, v = a.cpu().double(), b.cpu().double()
        exact = float(kernel(u, u).mean() + kernel(v, v).mean() - 2.0 * kernel(u, v).mean())
        errors[name] = abs(_mean_estimate(make, a, b) / exact - 1.0)
    return largest(errors)


@GROUP.check(
    "sliced Wasserstein",
    claim="in one dimension the sliced Wasserstein distance is that of optimal transport, for unequal sizes too",
    by="W_p by repeating 6 and 4 values to their common multiple and pairing them in sorted order",
    allowed=1e-11,
    why="float64 rounding",
    single=1e-4,
)
def _sliced(bench: Bench) -> Measurement:
    x, y, errors = bench.normal(6, 1, seed=6), 0.7 + 2.0 * bench.normal(4, 1, seed=7), {}
    u, v = x.cpu().double().sort(dim=0).values, y.cpu().double().sort(dim=0).values
    gaps = u.repeat_interleave(2, 0) - v.repeat_interleave(3, 0)
    for order in (1, 2):
        exact = float(gaps.abs().pow(order).mean()) ** (1.0 / order)
        found = number(SlicedWasserstein(reference(y), projections=3, order=order), x)
        errors[f"W_{order}"] = abs(found / exact - 1.0)
    return largest(errors)


@GROUP.check(
    "precision and recall",
    claim="precision, recall, density and coverage have the values counted by hand",
    by="points on a line, with balls that reach to the nearest other example",
    allowed=1e-12,
    why="the values are ratios of counts",
    unit="error",
    single=1e-6,
)
def _manifolds(bench: Bench) -> Measurement:
    # Balls of the real examples 0, 1, 2 and 10: [-1, 1], [0, 2], [1, 3] and [2, 18].
    real = bench.to(torch.tensor([[0.0], [1.0], [2.0], [10.0]]))
    # Balls of the generated examples: 0.5 +- 1, 1.5 +- 1, -6 +- 6.5 and 40 +- 38.5.
    generated = bench.to(torch.tensor([[0.5], [1.5], [-6.0], [40.0]]))
    expected = {
        "precision": (Precision, 2 / 4),
        "recall": (Recall, 4 / 4),
        "density": (Density, 4 / 4),
        "coverage": (Coverage, 3 / 4),
    }
    errors = {}
    for name, (kind, exact) in expected.items():
        errors[name] = abs(number(kind(RawFeatures(), reference(real), neighbours=1), generated) - exact)
    return largest(errors)


@GROUP.check(
    "Inception and Vendi scores",
    claim="Inception and Vendi scores count the classes of samples whose classes are certain",
    by="K equally frequent, certain classes score K; one class scores 1; K orthogonal features have Vendi score K",
    allowed=1e-9,
    why="exponential of an entropy of few terms",
    single=1e-4,
)
def _classes(bench: Bench) -> Measurement:
    certain = bench.to(torch.eye(5).repeat(4, 1))
    probabilities = ModuleFeatures(lambda x: x, name="selftest", hash="selftest")
    inception = InceptionScore(probabilities, reference(certain), splits=1)
    return largest(
        {
            "five": abs(number(inception, certain) / 5.0 - 1.0),
            "one": abs(number(inception, certain[:1].repeat(8, 1)) - 1.0),
            "Vendi": abs(number(VendiScore(RawFeatures(), reference(certain)), certain) / 5.0 - 1.0),
        }
    )


@GROUP.check(
    "merging",
    claim="accumulators of parts merge to the value of the whole in any order",
    by="three unequal parts, merged in reverse order, against one pass",
    allowed=1e-11,
    why="float64 sums in another order",
    single=1e-5,
)
def _merging(bench: Bench) -> Measurement:
    real, x = reference(bench.normal(40, 3, seed=8)), bench.normal(31, 3, seed=9)
    kinds: dict[str, Callable[[], Metric]] = {
        "Frechet": lambda: FrechetDistance(RawFeatures(), real),
        "KID": lambda: KernelDistance(RawFeatures(), real),
        "MMD": lambda: GaussianDiscrepancy(real),
        "energy": lambda: EnergyDistance(real),
        "sliced Wasserstein": lambda: SlicedWasserstein(real, projections=5),
        "precision": lambda: Precision(RawFeatures(), real),
        "coverage": lambda: Coverage(RawFeatures(), real),
    }
    errors = {}
    for name, make in kinds.items():
        whole = number(make(), x)
        merged = make()
        for rows in (slice(20, 31), slice(3, 20), slice(0, 3)):
            part = make()
            part.update(x[rows])
            merged.merge(part)
        errors[name] = abs(merged.compute().number / whole - 1.0)
    return largest(errors)
