"""Effective sample sizes against the closed form of an autoregression; R-hat of chains that have and have not mixed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scorefield.energy.convergence import Diagnostics, ess_bulk, ess_mean, ess_tail, r_hat
from tolerance import EFFECTIVE_SIZE

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def autoregression(phi: float, chains: int = 40, draws: int = 1500) -> Tensor:
    """Stationary x_t = phi x_(t-1) + z, for which S draws have the ESS S (1 - phi) / (1 + phi)."""
    z = normal(chains, draws, 3)
    x = [z[:, 0] / (1 - phi**2) ** 0.5]
    for k in range(1, draws):
        x.append(phi * x[-1] + z[:, k])
    return torch.stack(x, dim=1)


@pytest.mark.parametrize("phi", [0.9, 0.5, 0.0, -0.5])
def test_effective_size_of_an_autoregression(phi: float) -> None:
    x = autoregression(phi)
    exact = 40 * 1500 * (1 - phi) / (1 + phi)
    assert bool(((ess_mean(x) / exact - 1).abs() < EFFECTIVE_SIZE).all())
    assert bool(((ess_bulk(x) / exact - 1).abs() < EFFECTIVE_SIZE).all())
    assert bool((ess_bulk(torch.exp(x)) == ess_bulk(x)).all()), "ranks know no scale"


def test_tails_and_heavy_laws() -> None:
    cauchy = normal(8, 500, seed=1) / normal(8, 500, seed=2)
    assert float(ess_tail(cauchy)) > 2000 and float(r_hat(cauchy)) < 1.01


def test_chains_that_have_not_mixed_are_flagged() -> None:
    x = normal(4, 400, 2)
    assert float(r_hat(x).max()) < 1.01
    apart, wider, trend = x.clone(), x.clone(), x.clone()
    apart[0] += 1.0
    wider[0] *= 3.0
    trend += torch.linspace(0.0, 1.5, 400, dtype=F64)[None, :, None]
    for bad in (apart, wider, trend):
        assert float(r_hat(bad).min()) > 1.05
    assert not Diagnostics.of(apart, x[..., 0]).mixed and Diagnostics.of(x, x[..., 0]).mixed


def test_stuck_chains_are_infinitely_bad() -> None:
    stuck = torch.arange(4.0, dtype=F64)[:, None].expand(4, 100)
    assert float(r_hat(stuck)) == torch.inf
    assert float(ess_bulk(stuck)) < 10
    assert (
        bool(r_hat(torch.ones(4, 100)).isnan()) and not Diagnostics.of(torch.ones(4, 100, 1), torch.ones(4, 100)).mixed
    )


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="half chains"):
        r_hat(torch.zeros(4, 3))
