"""The density of the probability flow against exact densities."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from likelihood.cases import (
    EXACT,
    PROCESSES,
    TIGHT,
    GivenNoise,
    NoNoise,
    gaussian_flow,
    nats_with_this_prior,
    small_score,
)
from scorefield._codec import dumps, loads, with_field
from scorefield.likelihood.probability_flow import PROBE_STEP, FlowSettings, log_density
from scorefield.process import VE, VP, GeneralSDE, TimeLimits
from scorefield.process.general import NormalPrior
from scorefield.score import EnergyScore, FunctionScore, oracles
from tolerance import FLOAT64, FLOW_DENSITY, FLOW_FLOAT32, FLOW_MASS, FLOW_STEPS, PRIOR_MISMATCH


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("name", PROCESSES)
def test_gaussian(name: str, dimension: int) -> None:
    """For a rotated, anisotropic, off-centre Gaussian the flow, the density and the prior term have closed forms."""
    oracle, s = oracles.skewed_gaussian(PROCESSES[name], dimension), PROCESSES[name].t_min.likelihood
    x = oracle.sample(4, s, seed=3)
    latent = gaussian_flow(oracle, x, s, 1.0)
    expected = nats_with_this_prior(oracle, x, latent, s)
    found = log_density(oracle.bind(None), x, NoNoise(), TIGHT)
    assert found.nats.shape == (4,) and found.nats.dtype == torch.float64 and not found.status.any()
    torch.testing.assert_close(found.latent, latent, rtol=FLOW_DENSITY, atol=FLOW_DENSITY)
    torch.testing.assert_close(found.nats, expected, rtol=0.0, atol=FLOW_DENSITY)
    # The prior is not p_1, and the density differs from p_s by just that: far more than the tolerance.
    mismatch = (expected - oracle.log_prob(x, s)).abs()
    assert 100 * FLOW_DENSITY < float(mismatch.max()) < PRIOR_MISMATCH


@pytest.mark.parametrize(("name", "dimension"), [("VE", 1), ("VP", 2), ("SubVP", 3)])
def test_mixture(name: str, dimension: int) -> None:
    """For three unequal Gaussians, log p_s(x) - int div = log p_1(z) along the exact flow."""
    oracle, s = oracles.skewed_mixture(PROCESSES[name], dimension), PROCESSES[name].t_min.likelihood
    x = oracle.sample(4, s, seed=2)
    found = log_density(oracle.bind(None), x, NoNoise(), TIGHT)
    expected = nats_with_this_prior(oracle, x, found.latent, s)
    torch.testing.assert_close(found.nats, expected, rtol=0.0, atol=FLOW_DENSITY)
    torch.testing.assert_close(found.nats, oracle.log_prob(x, s), rtol=0.0, atol=PRIOR_MISMATCH)


def test_density_at_another_time() -> None:
    oracle = oracles.skewed_gaussian(VP(), 2)
    x = oracle.sample(3, 0.3)
    found = log_density(oracle.bind(None), x, NoNoise(), with_field(TIGHT, "start", 0.3))
    expected = nats_with_this_prior(oracle, x, gaussian_flow(oracle, x, 0.3, 1.0), 0.3)
    torch.testing.assert_close(found.nats, expected, rtol=0.0, atol=FLOW_DENSITY)
    at_the_end = log_density(oracle.bind(None), x, NoNoise(), FlowSettings(start=1.0))
    torch.testing.assert_close(at_the_end.nats, VP().prior_log_prob(x), rtol=FLOAT64, atol=0.0)
    assert not at_the_end.calls.any()


@pytest.mark.parametrize("name", PROCESSES)
def test_total_mass_is_one_for_a_score_that_is_nobody_s(name: str) -> None:
    """The flow of any score maps the prior to a density of mass 1; with a wrong divergence the mass differs."""
    process = PROCESSES[name]

    def function(x: Tensor, t: Tensor) -> Tensor:
        v = (process.alpha(t) ** 2 + process.sigma(t) ** 2)[:, None]
        return -(x - 0.3 * (1.5 * x).sin()) / v

    x = torch.linspace(-9.0, 9.0, 721, dtype=torch.float64)[:, None]
    found = log_density(FunctionScore(function, process).bind(None), x, NoNoise(), FlowSettings(start=0.2))
    mass = torch.trapezoid(found.nats.exp(), x[:, 0])
    torch.testing.assert_close(float(mass), 1.0, rtol=0.0, atol=FLOW_MASS)


def test_gradient_of_an_energy_is_a_score_like_any() -> None:
    oracle = oracles.skewed_gaussian(VP(), 2)
    energy = EnergyScore(lambda x, t, condition: -oracle.log_prob(x, t), VP())
    x = oracle.sample(2, 1e-5)
    one, other = (log_density(s.bind(None), x, NoNoise(), EXACT) for s in (oracle, energy))
    torch.testing.assert_close(one.nats, other.nats, rtol=0.0, atol=FLOW_DENSITY)


def ou_drift(x: Tensor, t: Tensor) -> Tensor:
    return x @ torch.tensor([[-2.0, 0.5], [-1.0, -3.0]], dtype=x.dtype).T + torch.tensor([0.3, 0.0], dtype=x.dtype)


def ou_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return torch.tensor([[1.5, 0.2], [0.0, 0.8]], dtype=x.dtype).expand(len(t), 2, 2)


def test_general_sde_with_matrices() -> None:
    """Under dx = (A x + b) dt + G dw every marginal of Gaussian data is Gaussian, and the flow has its density."""
    prior = NormalPrior((0.1, 0.0), ((0.6, -0.1), (-0.1, 0.2)))
    sde = GeneralSDE(
        ou_drift, ou_diffusion, "matrix", prior, affine=True, state_dependent=False, t_min=TimeLimits(0.01, 0.01, 0.01)
    )
    m, C = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)

    def law(t: Tensor) -> torch.distributions.MultivariateNormal:
        phi, offset, P = sde.transitions((2,)).moments(t)
        return torch.distributions.MultivariateNormal((phi @ m) + offset, phi @ C @ phi.mT + P)

    def score(x: Tensor, t: Tensor) -> Tensor:
        p = law(t)
        return -(p.precision_matrix @ (x - p.mean)[..., None])[..., 0]

    x = torch.tensor([[0.4, -0.8], [1.2, -1.5]], dtype=torch.float64)
    bound = FunctionScore(score, sde).bind(None)  # type: ignore[arg-type]
    found = log_density(bound, x, NoNoise(), TIGHT)
    start, end = (torch.full((2,), t, dtype=torch.float64) for t in (0.01, 1.0))
    expected = law(start).log_prob(x) + sde.prior_log_prob(found.latent) - law(end).log_prob(found.latent)
    torch.testing.assert_close(found.nats, expected, rtol=0.0, atol=FLOW_DENSITY)


# ---------------------------------------------------------------------------------------------------- divergence


def test_all_sign_probes_together_are_exact_and_one_is_not() -> None:
    """The mean of v' J v over all 2^D sign vectors is the trace of J."""
    D, process = 3, VP()
    oracle = oracles.skewed_gaussian(process, D)
    x = oracle.sample(2, process.t_min.likelihood)
    signs = torch.tensor(list(itertools.product((-0.3, 2.0), repeat=D)))  # what counts is the sign
    exact = log_density(oracle.bind(None), x, NoNoise(), with_field(TIGHT, "divergence", "exact"))
    noise = GivenNoise(signs)
    settings = FlowSettings(1e-6, 1e-6, divergence="hutchinson", probes=2**D)
    all_of_them = log_density(oracle.bind(None), x, noise, settings)
    torch.testing.assert_close(all_of_them.nats, exact.nats, rtol=0.0, atol=FLOW_DENSITY)
    assert noise.calls == [(PROBE_STEP, k) for k in range(2**D)]  # once each, and kept for the whole integration
    one = log_density(oracle.bind(None), x, GivenNoise(signs), with_field(settings, "probes", 1))
    assert (one.nats - exact.nats).abs().min() > 100 * FLOW_DENSITY


def test_gaussian_probes_are_used_as_drawn() -> None:
    """Probes sqrt(D) e_k have identity second moment, so their mean is exact; that of their signs is not."""
    D, process = 3, VP()
    oracle = oracles.skewed_gaussian(process, D)
    x = oracle.sample(2, process.t_min.likelihood)
    axes = math.sqrt(D) * torch.eye(D)
    exact = log_density(oracle.bind(None), x, NoNoise(), TIGHT)
    settings = FlowSettings(1e-6, 1e-6, divergence="hutchinson", probes=D, probe="gaussian")
    found = log_density(oracle.bind(None), x, GivenNoise(axes), settings)
    torch.testing.assert_close(found.nats, exact.nats, rtol=0.0, atol=FLOW_DENSITY)
    signs = log_density(oracle.bind(None), x, GivenNoise(axes), with_field(settings, "probe", "rademacher"))
    assert (signs.nats - exact.nats).abs().max() > 100 * FLOW_DENSITY


def test_automatic_divergence_is_exact_in_low_dimension_only() -> None:
    small, large = (oracles.Gaussian(VP(), torch.zeros(D), 0.25) for D in (8, 9))
    log_density(small.bind(None), torch.zeros(1, 8), NoNoise(), FlowSettings())
    noise = GivenNoise(torch.ones(1, 9))
    log_density(large.bind(None), torch.zeros(1, 9), noise, FlowSettings())
    assert noise.calls == [(PROBE_STEP, 0)]


# ---------------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("settings", [EXACT, FlowSettings(divergence="hutchinson", probes=2)])
def test_one_score_call_per_evaluation_of_the_flow(settings: FlowSettings) -> None:
    """Every evaluation makes one forward pass of the network, whatever the number of backward passes."""
    bound = oracles.skewed_mixture(VE(0.05, 20.0), 2).bind(None)
    x = torch.tensor([[0.5, 0.1], [-1.0, -1.5], [3.0, 3.0]], dtype=torch.float64)
    found = log_density(bound, x, GivenNoise(torch.tensor([[1.0, 1.0], [1.0, -1.0]])), settings)
    assert len(set(found.calls.tolist())) > 1  # examples differ, the batch's cost is that of the slowest
    assert bound.calls == int(found.calls.max())
    assert bool(((found.calls - 2) % 6 == 0).all())


# ---------------------------------------------------------------------------------------------------- batches, types


def test_examples_do_not_meet() -> None:
    """Latents, nats and calls of an example do not depend on its batch or order, also with conditions."""
    score = small_score(VP())
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64) * torch.tensor([[0.1], [1.0], [1.5], [0.5], [2.0]])
    side = torch.tensor([0, 1, 1, 0, 1])

    def density(rows: list[int]):
        return log_density(score.bind({"side": side[rows]}), x[rows], NoNoise(), EXACT)

    together, permuted = density([0, 1, 2, 3, 4]), density([3, 1, 4, 0, 2])
    torch.testing.assert_close(permuted.nats, together.nats[[3, 1, 4, 0, 2]], rtol=0.0, atol=FLOW_FLOAT32)
    for i in (1, 4):
        alone = density([i])
        torch.testing.assert_close(alone.nats[0], together.nats[i], rtol=0.0, atol=FLOW_FLOAT32)
        torch.testing.assert_close(alone.latent[0], together.latent[i], rtol=0.0, atol=FLOW_FLOAT32)
        assert abs(int(alone.calls[0] - together.calls[i])) <= FLOW_STEPS
    unconditional = log_density(score.bind(None), x, NoNoise(), EXACT)
    assert (unconditional.nats - together.nats).abs()[side == 1].min() > 100 * FLOW_FLOAT32


def test_float32_network_around_a_float64_state() -> None:
    score = small_score(VP())
    x = torch.tensor([[0.3, -1.0], [0.5, 2.0]])
    narrow = log_density(score.bind(None), x, NoNoise(), EXACT)
    assert score.network.seen == {(torch.float32, torch.float32)}
    assert narrow.nats.dtype == torch.float64 and narrow.latent.dtype == torch.float32
    wide = small_score(VP())
    wide.network.double()
    exact = log_density(wide.bind(None), x.double(), NoNoise(), EXACT)
    assert wide.network.seen == {(torch.float64, torch.float64)} and exact.latent.dtype == torch.float64
    torch.testing.assert_close(narrow.nats, exact.nats, rtol=0.0, atol=FLOW_FLOAT32)


def test_event_shape_is_kept_and_an_empty_batch_is_fine() -> None:
    oracle = oracles.skewed_gaussian(VP(), (1, 2, 2))
    x = oracle.sample(2, 1e-5)
    assert log_density(oracle.bind(None), x, NoNoise(), EXACT).latent.shape == (2, 1, 2, 2)
    for settings in (EXACT, FlowSettings(divergence="hutchinson")):
        none = log_density(oracle.bind(None), x[:0], GivenNoise(torch.ones(1)), settings)
        assert none.nats.shape == (0,) and none.latent.shape == (0, 1, 2, 2)


def test_gradient_modes_of_the_caller_change_nothing() -> None:
    oracle = oracles.skewed_gaussian(VP(), 2)
    x = oracle.sample(2, 1e-5)
    expected = log_density(oracle.bind(None), x, NoNoise(), EXACT).nats
    with torch.inference_mode():
        found = log_density(oracle.bind(None), x.clone(), NoNoise(), EXACT)
    assert torch.equal(found.nats, expected)
    with_gradient = log_density(oracle.bind(None), x.requires_grad_(True), NoNoise(), EXACT)
    assert torch.equal(with_gradient.nats, expected) and not with_gradient.nats.requires_grad


# ---------------------------------------------------------------------------------------------------- failures


def test_an_example_that_gives_up_has_no_density_and_the_others_have_theirs() -> None:
    oracle = oracles.skewed_gaussian(VP(), 2)
    x = oracle.sample(2, 1e-5)
    stopped = log_density(oracle.bind(None), x, NoNoise(), FlowSettings(max_steps=3, retries=0))
    assert stopped.status.tolist() == [1, 1] and bool(stopped.nats.isnan().all())

    def half_broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 50.0, torch.nan, oracle(x, t))

    broken = FunctionScore(half_broken, VP()).bind(None)
    found = log_density(broken, torch.cat([x, torch.tensor([[60.0, 0.0]]).double()]), NoNoise(), EXACT)
    assert found.status.tolist() == [0, 0, 3]
    assert found.nats.isnan().tolist() == [False, False, True]
    assert found.latent.isnan().tolist() == [[False, False], [False, False], [True, True]]
    expected = log_density(oracle.bind(None), x, NoNoise(), EXACT)
    torch.testing.assert_close(found.nats[:2], expected.nats, rtol=0.0, atol=FLOW_DENSITY)


def noisy(x: Tensor, t: Tensor) -> Tensor:
    return x.reshape(len(x), -1)


def test_refused_settings_and_processes() -> None:
    with pytest.raises(ValueError, match="at least 1.*exact"):
        FlowSettings(probes=0)
    with pytest.raises(ValueError, match=r"start=1.5 .*\[0, 1\]"):
        FlowSettings(start=1.5)
    oracle = oracles.skewed_gaussian(VP(), 2)
    with pytest.raises(ValueError, match="t = 0 is outside"):
        log_density(oracle.bind(None), torch.zeros(1, 2), NoNoise(), FlowSettings(start=0.0))
    general = GeneralSDE(noisy, noisy, "diagonal")
    with pytest.raises(ValueError, match="state_dependent=False"):
        score = FunctionScore(lambda x, t: -x, general)  # type: ignore[arg-type]
        log_density(score.bind(None), torch.zeros(1, 2), NoNoise(), FlowSettings())


def test_settings_round_trip_through_json() -> None:
    settings = FlowSettings(1e-4, 1e-3, "hutchinson", 4, "gaussian", 77, 0.02)
    assert loads(dumps(settings), FlowSettings) == settings
    assert loads(dumps(FlowSettings()), FlowSettings) == FlowSettings()
