"""Kernel discrepancies against the definition, a closed form, and estimators that are biased."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scorefield.metrics import GaussianDiscrepancy, KernelDistance, RawFeatures, Reference, kernels, measure
from tolerance import FLOAT64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definition(x: Tensor, y: Tensor, kernel: str, h: float = 1.0) -> float:
    """MMD^2 by loops over pairs that differ."""

    def k(a: Tensor, b: Tensor) -> float:
        if kernel == "cubic":
            return (float(a @ b) / len(a) + 1) ** 3
        return math.exp(-float((a - b).square().sum()) / (2 * h * h))

    def inside(v: Tensor) -> float:
        n = len(v)
        return sum(k(v[i], v[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    return inside(x) + inside(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_both_are_their_definition_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "BLOCK", 4)
    x, y = 0.4 + normal(0, 11, 3), normal(1, 9, 3)
    real = Reference(y, name="real")
    cubic = KernelDistance(RawFeatures(), real)
    assert abs(float(measure(cubic, x)) - definition(x, y, "cubic")) < FLOAT64
    gaussian = GaussianDiscrepancy(real)
    gaps = sorted(float((y[i] - y[j]).norm()) for i in range(9) for j in range(i))
    assert abs(gaussian.bandwidth - gaps[(len(gaps) - 1) // 2]) < FLOAT64
    assert abs(float(measure(gaussian, x)) - definition(x, y, "gaussian", gaussian.bandwidth)) < FLOAT64
    left = gaussian.jackknifed().left_out
    order = gaussian.rows()
    assert (
        abs(float(left[0][2]) - definition(order[torch.arange(11) != 2], y, "gaussian", gaussian.bandwidth)) < FLOAT64
    )


def test_normal_laws_have_a_closed_form_and_keeping_the_diagonal_misses_it() -> None:
    """E exp(-|x - y|^2 / (2 h^2)) of x - y ~ N(m, v) is (1 + v / h^2)^(-1/2) exp(-m^2 / (2 (h^2 + v)))."""
    m, n, replicates = 0.5, 30, 100

    def mean(shift: float) -> float:
        return math.exp(-(shift**2) / 6) / math.sqrt(3.0)  # h = 1, v = 2

    wanted = 2 * mean(0.0) - 2 * mean(m)
    found, diagonal, inside = [], [], 0
    for seed in range(replicates):
        metric = GaussianDiscrepancy(Reference(normal(2 * seed, n, 1), name="normal"), bandwidth=1.0)
        value = measure(metric, m + normal(2 * seed + 1, n, 1)).value
        assert value.interval is not None
        inside += value.interval[0] <= wanted <= value.interval[1]
        found.append(value.number)
        diagonal.append(value.number + 2 * (1 - mean(0.0)) / n)
    error = float(torch.tensor(found).std()) / math.sqrt(replicates)
    assert abs(sum(found) / replicates - wanted) < 5 * error
    assert abs(sum(diagonal) / replicates - wanted) > 5 * error
    assert inside >= 80  # P(Binomial(100, 0.95) < 80) < 1e-6; the interval is first-order, so it may cover more


def test_published_subsets_estimate_the_same_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SUBSET_SIZE", 20)
    real = Reference(normal(0, 50, 4), name="real")
    metric = KernelDistance(RawFeatures(), real, estimator="subsets")
    result = measure(metric, 0.5 + normal(1, 60, 4))
    details = result.value.details
    whole = measure(KernelDistance(RawFeatures(), real), 0.5 + normal(1, 60, 4)).value
    assert abs(details["all pairs"] - whole.number) < FLOAT64
    assert abs(result.value.number - whole.number) < 5 * details["standard deviation over subsets"] / 10
    assert details["standard error"] > whole.details["standard error"]
    assert result.receipt.settings["pairs"] == "100 subsets of at most 20"


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least 3 reference examples"):
        KernelDistance(RawFeatures(), Reference(normal(0, 2, 3), name="two"))
    with pytest.raises(ValueError, match="estimator='blocks' is unknown"):
        KernelDistance(RawFeatures(), Reference(normal(0, 9, 3), name="r"), estimator="blocks")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="give bandwidth"):
        GaussianDiscrepancy(Reference(torch.ones(9, 3), name="equal"))
