"""The variational bound of a ladder, and dequantisation, against closed forms in one dimension."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from likelihood.cases import GivenNoise, NoNoise
from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.likelihood.bound import _decode, variational_bound
from scorefield.likelihood.dequantisation import Kumaraswamy, gap
from scorefield.likelihood.log_prob import flow_log_prob
from scorefield.likelihood.probability_flow import FlowSettings
from scorefield.process import VP, LinearBetas, Tabulated
from scorefield.score import oracles
from tolerance import CALIBRATED, FLOAT64, PLANE_QUADRATURE, QUADRATURE

F64 = torch.float64
MEAN, DEVIATION = 0.3, 0.6
BOTH_SIGNS = torch.tensor([[[1.0]], [[-1.0]]])
"""Two draws that average quadratic functions of normal noise exactly."""


def ladder_and_oracle(levels: int) -> tuple[Tabulated, oracles.Gaussian]:
    table = Tabulated(LinearBetas(levels=levels))
    return table, oracles.Gaussian(table, torch.tensor([MEAN], dtype=F64), DEVIATION**2)


def closed_form(table: Tabulated, x0: Tensor) -> Tensor:
    """For the exact score of a Gaussian D(x_t) is affine, so every expectation of the bound has a closed form."""
    alpha, sigma = table.ladder.table()
    k = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
    missed = ((1 - k * alpha) * (x0[:, None] - MEAN)) ** 2 + (k * sigma) ** 2  # (points, levels)
    snr = alpha**2 / sigma**2
    levels = -0.5 * ((snr[:-1] - snr[1:]) * missed[:, 1:]).sum(1)
    width = sigma[0] / alpha[0]
    decoder = -0.5 * missed[:, 0] / width**2 - width.log() - 0.5 * math.log(2 * math.pi)
    prior = -0.5 * (alpha[-1] ** 2 * x0**2 + sigma[-1] ** 2 - 1 - 2 * sigma[-1].log())
    return prior + levels + decoder


def test_bound_of_gaussian_data_is_the_closed_form_and_below_the_density() -> None:
    """The mean bound approaches the log-likelihood on finer ladders; two points are a quadrature of the data."""
    points = torch.tensor([[MEAN + DEVIATION], [MEAN - DEVIATION]], dtype=F64)
    gaps = []
    for levels in (40, 160):
        table, oracle = ladder_and_oracle(levels)
        found = variational_bound(oracle, points, DataSpec((1,)), table, GivenNoise(BOTH_SIGNS), draws=2, dtype=F64)
        torch.testing.assert_close(found.nats, closed_form(table, points[:, 0]), rtol=QUADRATURE, atol=QUADRATURE)
        torch.testing.assert_close(
            found.nats, found.prior + found.levels + found.reconstruction, rtol=FLOAT64, atol=FLOAT64
        )
        assert found.nfe.tolist() == [2 * levels] * 2 and found.bits_per_dim is None
        gaps.append(float((oracle.log_prob(points) - found.nats).mean()))
    assert gaps[0] > 2.0 * gaps[1] > 0.0


def test_bound_beside_the_flow_on_grey_levels_with_its_standard_error() -> None:
    table, oracle = ladder_and_oracle(50)
    flow = oracle.under(VP())
    data = DataSpec((1,), 0.0, 31.0, 32)
    k = torch.tensor([[14.0], [20.0], [27.0]])
    noise = IndexedNoise(0, range(3))
    bound = variational_bound(oracle, k, data, table, noise, draws=8, dtype=F64)
    assert bound.bits_per_dim is not None and bound.std_error is not None
    # The chain's own probability of a level is close to that of the bin around its training value.
    edge = torch.tensor([[-0.5, 0.5]], dtype=F64)
    cuts = (data.to_model(k.double() + edge) - MEAN) / DEVIATION
    truth = (torch.special.ndtr(cuts[:, 1]) - torch.special.ndtr(cuts[:, 0])).log()
    torch.testing.assert_close(bound.bits_per_dim, -bound.nats / math.log(2.0), rtol=FLOAT64, atol=0.0)
    assert bool((bound.nats < truth + 4 * bound.std_error).all())
    assert bool((truth - bound.nats < 1.0 + 4 * bound.std_error).all())
    exact = flow_log_prob(flow, k, data, noise, dtype=F64)
    assert bool((exact.nats > bound.nats - 4 * bound.std_error).all()), "the flow of an exact score is tighter"
    again = variational_bound(oracle, k[1:2], data, table, IndexedNoise(0, [1]), draws=8, dtype=F64)
    torch.testing.assert_close(again.nats[0], bound.nats[1], rtol=QUADRATURE, atol=0.0)


@pytest.mark.parametrize("std", [0.01, 0.3])
def test_the_decoder_of_grey_levels_is_a_distribution(std: float) -> None:
    data = DataSpec((1,), 0.0, 7.0, 8)
    x0 = data.to_model(torch.arange(8.0, dtype=F64)[:, None])
    for mean in (-1.2, -0.4, 0.31, 1.0):
        log_p = _decode(x0, torch.full_like(x0, mean), std, data)
        torch.testing.assert_close(float(log_p.exp().sum()), 1.0, rtol=FLOAT64, atol=0.0)
        assert bool(log_p.isfinite().all()), "tails far away keep their digits"


def test_bound_refuses_no_draw() -> None:
    table, oracle = ladder_and_oracle(30)
    with pytest.raises(ValueError, match="draws=0"):
        variational_bound(oracle, torch.zeros(1, 1), DataSpec((1,)), table, NoNoise(), draws=0)


# ---------------------------------------------------------------------------------------------------- dequantisation


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 3.0), (1.5, 0.8)])
def test_law_of_fitted_noise(a: float, b: float) -> None:
    """u(v) is the inverse distribution function, so the stated density must be 1 / (du/dv)."""
    log_a, log_b = (torch.full((2001, 1), math.log(n), dtype=F64) for n in (a, b))
    v = torch.linspace(0.01, 0.99, 2001, dtype=F64)[:, None].requires_grad_()
    u, log_q = Kumaraswamy(log_a, log_b).draw(v)
    (slope,) = torch.autograd.grad(u.sum(), v)
    torch.testing.assert_close(log_q, -slope[:, 0].log(), rtol=PLANE_QUADRATURE, atol=PLANE_QUADRATURE)
    assert bool((u > 0).all() and (u < 1).all() and (u.diff(dim=0) > 0).all())
    if a == b == 1.0:
        torch.testing.assert_close(u, v, rtol=FLOAT64, atol=0.0)
        assert float(log_q.detach().abs().max()) < FLOAT64


def level_log_probability(levels: int) -> Tensor:
    edges = (torch.linspace(-1.0, 1.0, levels + 1, dtype=F64) - MEAN) / 0.3
    return torch.special.ndtr(edges).diff().log()


def test_fitted_noise_is_a_tighter_bound_and_the_interval_holds_the_probability() -> None:
    """Four grey levels of a normal density, which varies strongly within a bin."""
    oracle = oracles.Gaussian(VP(0.1, 40.0), torch.tensor([MEAN], dtype=F64), 0.09)
    data, k = DataSpec((1,), 0.0, 3.0, 4), torch.arange(4.0)[:, None]
    truth = level_log_probability(4)
    settings = FlowSettings(1e-4, 1e-4)
    found = {}
    for way in ("uniform", "variational"):
        noise = IndexedNoise(0, range(4))
        p = flow_log_prob(oracle, k, data, noise, dequantise=way, draws=24, settings=settings, dtype=F64)  # type: ignore[arg-type]
        assert p.dequantisation is not None and p.interval is not None and way[:-1] in p.of
        assert bool((p.dequantisation >= 0).all())
        spread = (2.0 * p.dequantisation / 24).sqrt()  # of a mean over 24 draws, whose variance is twice the gap
        assert bool((p.nats < truth + 4.0 * spread).all())
        assert int(((p.interval[:, 0] < truth) & (truth < p.interval[:, 1])).sum()) >= 3
        found[way] = p
    tighter = truth - found["variational"].nats, truth - found["uniform"].nats
    assert float(tighter[0].mean()) < 0.25 * float(tighter[1].mean())
    assert float(found["variational"].dequantisation.mean()) < 0.25 * float(found["uniform"].dequantisation.mean())
    with pytest.raises(ValueError, match="levels=None"):
        flow_log_prob(oracle, k, DataSpec((1,)), IndexedNoise(0, range(4)), dequantise="variational")


def test_gap_of_normal_spreads() -> None:
    """The gap of nats with distribution N(m, s^2) is s^2 / 2; with few draws the rest is in the uncertainty."""
    nats = 0.4 * torch.randn(400, 50, generator=torch.Generator().manual_seed(0), dtype=F64) - 7.0
    many, few = gap(nats), gap(nats[:3])
    torch.testing.assert_close(float(many.value.mean()), 0.08, rtol=CALIBRATED, atol=0.0)
    assert float(((few.value - 0.08).abs() <= few.uncertainty).double().mean()) > 0.8
    torch.testing.assert_close(gap(nats - 1000.0).value, many.value, rtol=PLANE_QUADRATURE, atol=0.0)
