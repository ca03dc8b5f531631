"""Energies as scores: exact ones, temperatures, training through the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from score.laws import ORACLES, PROCESSES, over, times
from scorefield._typing import Condition
from scorefield.process import VE, VP
from scorefield.score import EnergyScore
from tolerance import FLOAT64, ORACLE_SCORE


@pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
@pytest.mark.parametrize("name", ["VE", "VP", "ladder"])
@pytest.mark.parametrize("sigma_0", [None, 0.1])
def test_exact_energy_has_the_exact_score(make, name, sigma_0) -> None:
    """E = -T log p + a constant, whatever T: at the multi-scale temperature sigma^2 / sigma_0^2 and at 1."""
    process = PROCESSES[name]
    oracle = make(process)

    def temperature(t: Tensor) -> Tensor:
        return process.sigma(t) ** 2 / sigma_0**2 if sigma_0 else torch.ones_like(t)

    score = EnergyScore(
        lambda x, t, condition: 3.0 - temperature(t) * oracle.log_prob(x, t, condition),
        process,
        temperature if sigma_0 else None,
    )
    t = times(process, 6)
    x = oracle.sample(6, t, seed=2)
    exact = oracle(x, t)
    found = score(x, t)
    scale = exact.flatten(1).norm(dim=1) + 1.0
    assert bool(((found - exact).flatten(1).norm(dim=1) <= ORACLE_SCORE * scale).all())
    assert torch.allclose(score.energy(x, t), 3.0 - temperature(t) * oracle.log_prob(x, t), rtol=FLOAT64)
    assert torch.allclose(score.gradient(x, t), -over(temperature(t), x) * found, rtol=FLOAT64, atol=FLOAT64)


def test_condition_reaches_the_energy() -> None:
    process = VP()

    def energy(x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        return 0.5 * ((x - (condition or {})["vector"]) ** 2).sum(1)

    score = EnergyScore(energy, process)
    x, mean = torch.zeros(2, 3), torch.arange(6.0).reshape(2, 3)
    assert torch.equal(score(x, torch.ones(2), {"vector": mean}), mean)


def test_training_differentiates_the_gradient() -> None:
    """E = a |x|^2 / 2 has score -a x: d/da of |score|^2 is 2 a |x|^2."""
    a = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    score = EnergyScore(lambda x, t, c: 0.5 * a * (x**2).sum(1), VE())
    x = torch.linspace(-1, 2, 6, dtype=torch.float64).reshape(2, 3)
    (score(x, torch.ones(2)) ** 2).sum().backward()
    assert a.grad is not None and torch.allclose(a.grad, 2 * 1.5 * (x**2).sum(), rtol=FLOAT64)


def test_second_derivatives_of_the_state() -> None:
    """The divergence of a score that is a gradient: x that require gradients keep their graph."""
    score = EnergyScore(lambda x, t, c: (x**4).sum(1) / 4, VE())
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    (jacobian_row,) = torch.autograd.grad(score(x, torch.ones(1)).sum(), x)
    assert torch.allclose(jacobian_row, -3 * x.detach() ** 2, rtol=FLOAT64)


def test_without_gradients_nothing_is_kept() -> None:
    a = torch.tensor(1.5, requires_grad=True)
    score = EnergyScore(lambda x, t, c: 0.5 * a * (x**2).sum(1), VE())
    x = torch.ones(2, 3)
    with torch.no_grad():
        found = score(x, torch.ones(2))
    assert not found.requires_grad and not x.requires_grad
    assert torch.allclose(found, -1.5 * x)


def test_times_outside_the_process_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        EnergyScore(lambda x, t, c: x.sum(1), VE())(torch.zeros(1, 2), torch.zeros(1))
