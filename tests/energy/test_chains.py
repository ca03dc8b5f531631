"""Metropolis chains of energies: exact at any temperature and event shape, one gradient per step, failures reported."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

import scorefield.energy.transition as moves
from sampling.doubles import Generated
from scorefield._random import StepNoise
from scorefield.energy.chains import Chains, run_chains
from scorefield.energy.convergence import ess_bulk
from scorefield.energy.posterior import posterior_energy
from scorefield.energy.transition import Kernel, State, transition, tune
from scorefield.inverse import GaussianNoise, Matrix, Observation
from scorefield.process import VE
from scorefield.score import Confined, Energy, EnergyForm, NetworkEnergy
from scorefield.score.oracles import skewed_gaussian, skewed_mixture
from tolerance import ACCEPTANCE, FLOAT64, PERIODIC_WORTH, SIGNIFICANCE, TUNED_ACCEPTANCE

F64 = torch.float64
T = 2.5


def gumbel(x: Tensor) -> Tensor:
    """E with exp(-E / T) a product of Gumbel distributions: skewed, off-centre, and with exact draws."""
    return T * (x + torch.exp(-x)).flatten(1).sum(1)


def exact(n: int, seed: int = 0) -> Tensor:
    u = torch.rand(n, 2, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return -torch.log(-torch.log(u))


def p_value(x: Tensor) -> float:
    """p-value of x being Gumbel: Kolmogorov-Smirnov, mean and variance of each coordinate, Bonferroni-corrected."""
    flat, n = x.flatten(1), len(x)
    shape = [kstest(column.numpy(), lambda q: np.exp(-np.exp(-q))).pvalue for column in flat.T]
    variance = math.pi**2 / 6
    z = torch.cat(
        [
            (flat.mean(0) - float(np.euler_gamma)) / math.sqrt(variance / n),
            (flat.var(0) - variance)
            / (variance * math.sqrt((5.4 - 1.0) / n)),  # fourth moment 27/5 of the variance squared
        ]
    )
    return min(*shape, math.erfc(float(z.abs().max()) / math.sqrt(2.0))) * 12


def after(kernel: Kernel, temperature: float = T, chains: int = 10_000) -> Chains:
    return run_chains(
        gumbel, exact(chains), draws=1, thin=12, kernel=kernel, temperature=temperature, noise=Generated(1)
    )


KERNELS = [Kernel(epsilon=0.75), Kernel(leapfrog=3, epsilon=0.6)]


@pytest.mark.parametrize("kernel", KERNELS, ids=["MALA", "HMC"])
def test_exact_draws_stay_exact(kernel: Kernel) -> None:
    found = after(kernel)
    assert 0.3 < float(found.acceptance.mean()) < 0.95, "a test that never rejects tests nothing"
    assert p_value(found.last) > SIGNIFICANCE


@pytest.mark.parametrize("kernel", KERNELS, ids=["MALA", "HMC"])
def test_mutants_are_noticed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert p_value(after(kernel, temperature=1.0).last) < SIGNIFICANCE  # the temperature forgotten
    monkeypatch.setattr(moves, "kinetic_difference", lambda p, q: torch.zeros(len(p), dtype=p.dtype))
    assert p_value(after(kernel).last) < SIGNIFICANCE  # the test without the proposals' densities


def test_without_the_closing_half_kick_chains_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect of the published annealed importance sampler: one half kick, then full kicks, no closing half kick."""
    true = moves.leapfrog

    def released(field, x, momentum, slope, h, steps):  # type: ignore[no-untyped-def]
        end = true(field, x, momentum, slope, h, steps)
        return type(end)(end.x, end.momentum - 0.5 * h * end.slope, end.slope, end.found, end.line_integral)

    monkeypatch.setattr(moves, "leapfrog", released)
    assert p_value(after(KERNELS[1], chains=60_000).last) < SIGNIFICANCE


def test_a_trajectory_of_a_period_does_not_freeze_a_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten leapfrog steps of 2 sin(pi / 10) are one period of a unit Gaussian: without jitter the chains never move."""
    bowl = Energy(lambda x: 0.5 * x.square().sum(1), with_gradient=lambda x: (0.5 * x.square().sum(1), x))
    period = Kernel(leapfrog=10, epsilon=2.0 * math.sin(math.pi / 10))
    start = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=F64)

    def worth() -> float:
        found = run_chains(bowl, start, draws=60, kernel=period, noise=Generated(3))
        return float(ess_bulk(found.x).min()) / 1200

    assert worth() > PERIODIC_WORTH
    monkeypatch.setattr(moves, "JITTER", 0.0)
    assert worth() < 0.1 * PERIODIC_WORTH


def test_the_published_step_is_accepted_19_times_of_20() -> None:
    """The acceptance on the ideal energy, curvature 100 and D = 3072, is 2 Phi(-sqrt(h^3 D) / 8) at any T."""
    energy = Energy(lambda x: 50.0 * ((x - 0.5) ** 2).sum((1, 2, 3)), sigma_0=0.1)
    noise = Generated(0)
    for temperature in (1.0, 100.0):
        like = torch.empty(24, 3, 32, 32, dtype=F64)
        state = State.at((energy,), 0.5 + 0.1 * math.sqrt(temperature) * noise.normal(like, 0, 0))
        chances = []
        for k in range(6):
            size = Kernel(epsilon=0.02).size(temperature)
            tried = transition((energy,), (1.0 / temperature,), state, size, 1, StepNoise(noise, k))
            state = tried.state
            chances.append(tried.acceptance_probability)
        found, h = float(torch.cat(chances).mean()), 0.02**2 / 0.1**2
        assert abs(found - math.erfc(math.sqrt(h**3 * 3072) / 8 / math.sqrt(2))) < ACCEPTANCE
        assert abs(found - 0.954) < ACCEPTANCE


def test_the_proposal_is_the_papers() -> None:
    """The proposal y = x - (epsilon^2 / 2) grad E + epsilon sqrt(T) z with the acceptance ratio of the paper."""
    energy, x = Energy(gumbel), exact(64)
    z, eta = Generated(5).normal(x, 0, 0), 0.5 * 0.4**2
    y = x - eta * energy.with_gradient(x)[1] + 0.4 * math.sqrt(T) * z
    there, back = energy.with_gradient(y), energy.with_gradient(x)
    forth = (y - x + eta * back[1]).flatten(1).square().sum(1)
    home = (x - y + eta * there[1]).flatten(1).square().sum(1)
    ratio = -(there[0] - back[0]) / T + (forth - home) / (4 * eta * T)

    class Fixed(Generated):
        def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
            return z

    noise = StepNoise(Fixed(0), 0)
    tried = transition((energy,), (1.0 / T,), State.at((energy,), x), Kernel(epsilon=0.4).size(T), 1, noise)
    torch.testing.assert_close(
        tried.acceptance_probability, ratio.clamp_max(0.0).exp(), rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64
    )
    torch.testing.assert_close(tried.state.x[tried.accepted], y[tried.accepted], rtol=1e2 * FLOAT64, atol=1e2 * FLOAT64)


@pytest.mark.parametrize("leapfrog", [1, 4])
def test_a_step_costs_its_leapfrog_steps_and_no_more(leapfrog: int) -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return gumbel(x)

    found = run_chains(counted, exact(2), draws=5, warmup=3, thin=2, kernel=Kernel(leapfrog, 0.1))
    assert len(calls) == found.gradients == 1 + 13 * leapfrog
    assert found.x.shape == (2, 5, 2, 1, 2) and found.energy.shape == (2, 5)
    torch.testing.assert_close(found.energy[:, -1], gumbel(found.last), rtol=FLOAT64, atol=0)


def test_a_chain_knows_nothing_of_its_mates() -> None:
    kernel, x = Kernel(epsilon=0.5), exact(4)
    together = run_chains(gumbel, x, draws=6, kernel=kernel, temperature=T, seed=3)
    alone = run_chains(gumbel, x[2:3], draws=6, kernel=kernel, temperature=T, seed=3, first=2)
    assert torch.equal(together.x[2], alone.x[0])


def test_tuning_finds_the_acceptance_and_freezes_it() -> None:
    for leapfrog, aim in ((1, 0.574), (4, 0.8)):
        kernel = tune(Energy(gumbel), exact(48, seed=1), temperature=T, kernel=Kernel(leapfrog), steps=50)
        found = run_chains(
            gumbel, exact(2000, seed=2), draws=1, thin=5, kernel=kernel, temperature=T, noise=Generated(4)
        )
        assert abs(float(found.acceptance.mean()) - aim) < TUNED_ACCEPTANCE and found.kernel is kernel
    with pytest.raises(ValueError, match="tune"):
        run_chains(gumbel, exact(2), draws=1, kernel=Kernel())


def test_what_is_not_finite_is_counted_and_named() -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 1.0, torch.nan, -3.0 * x[:, 0])

    found = run_chains(broken, torch.tensor([[0.9], [-5e3], [2.0]]), draws=20, kernel=Kernel(epsilon=0.7), first=7)
    assert bool((found.x[0] <= 1.0).all()) and int(found.not_finite[0]) > 5 and int(found.not_finite[1]) == 0
    assert found.broken.tolist() == [False, False, True] and bool((found.x[2] == 2.0).all())
    assert found.finite == pytest.approx(1 / 3)
    assert [line.split()[1] for line in found.failures()] == ["7", "9"]
    falling = run_chains(lambda x: torch.where(x[:, 0] > 1, -torch.inf, x[:, 0] * 0), torch.zeros(4, 1), draws=30,
                         kernel=Kernel(epsilon=0.8))  # fmt: skip
    assert bool((falling.x <= 1.0).all()) and int(falling.not_finite.sum()) > 5, "-inf would swallow every chain"


def test_outside_a_box_is_no_failure() -> None:
    flat = Confined(lambda x: -(x**2).sum(1), box=(-1.0, 2.0))
    found = run_chains(
        flat, torch.zeros(500, 1, dtype=F64), draws=1, thin=60, kernel=Kernel(epsilon=0.8), noise=Generated(0)
    )
    assert bool(((found.x >= -1.0) & (found.x <= 2.0)).all()) and found.finite == 1.0
    grid = torch.linspace(-1.0, 2.0, 4001, dtype=F64)
    weight = torch.exp(grid**2)
    cumulated = (weight.cumsum(0) / weight.sum()).numpy()
    assert kstest(found.last[:, 0].numpy(), lambda q: np.interp(q, grid.numpy(), cumulated)).pvalue > SIGNIFICANCE
    assert float(flat.border(found.last, margin=0.1).mean()) > 0.3


# ------------------------------------------------------------------------------------------------ the convention


def test_lower_energy_is_more_likely_whatever_the_source() -> None:
    """Energies from a function, a network and a closed form, each with its T and noise level."""
    process = VE(0.05, 1.2)
    low, high = torch.zeros(1, 2, dtype=F64), torch.full((1, 2), 3.0, dtype=F64)
    target = skewed_gaussian(process)
    plain = Energy.of(lambda x: x.square().sum(1))
    closed = Energy.of(target, t=0.3)
    t = torch.full((2,), 0.3, dtype=F64)
    x = torch.cat([low, high])
    torch.testing.assert_close(closed(x), -target.log_prob(x, t), rtol=FLOAT64, atol=0)
    torch.testing.assert_close(closed.with_gradient(x)[1], -target(x, t), rtol=FLOAT64, atol=0)
    assert float(plain(low)) < float(plain(high)) and closed.noise(4.0) is None

    class Bowl(torch.nn.Module):
        def forward(self, x: Tensor, c: Tensor, condition: object = None) -> Tensor:
            return 50.0 * x.square().sum(1)

    score = NetworkEnergy(Bowl(), process, EnergyForm(sigma_0=0.1))
    learned = Energy.of(score)
    assert learned.noise(9.0) == pytest.approx(0.3) and learned.temperature(0.3) == pytest.approx(9.0)
    slope = learned.with_gradient(x)[1]
    temperature = (process.sigma(t) / 0.1) ** 2
    torch.testing.assert_close(-slope / temperature[:, None], score(x, t).detach(), rtol=1e2 * FLOAT64, atol=0)
    assert float(learned(low)) < float(learned(high))


def test_a_constant_changes_no_draw() -> None:
    start = exact(8)
    runs = [
        run_chains(lambda x, c=c: gumbel(x) + c, start, draws=5, kernel=Kernel(epsilon=0.5), temperature=T)
        for c in (0.0, 64.0)
    ]
    torch.testing.assert_close(runs[0].x, runs[1].x, rtol=1e2 * FLOAT64, atol=1e2 * FLOAT64)
    torch.testing.assert_close(runs[1].energy - runs[0].energy, torch.full((8, 5), 64.0, dtype=F64))


def test_bad_energies_and_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match="several outputs"):
        run_chains(lambda x: x.flatten(1), exact(2), draws=1, kernel=Kernel(epsilon=0.1))
    with pytest.raises(ValueError, match="must be positive"):
        run_chains(gumbel, exact(2), draws=1, kernel=Kernel(epsilon=0.1), temperature=0.0)
    with pytest.raises(ValueError, match="either box"):
        Confined(gumbel)
    with pytest.raises(ValueError, match="no sigma_0"):
        Energy(gumbel).temperature(0.3)


def test_export(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = run_chains(gumbel, exact(3), draws=5, kernel=Kernel(epsilon=0.5), temperature=T)
    found.export(tmp_path / "chains.npz")
    with np.load(tmp_path / "chains.npz", allow_pickle=False) as file:
        assert file["x"].shape == (3, 5, 4) and np.array_equal(file["x"], found.x.flatten(2).numpy())
        assert float(file["temperature"]) == T and file["shape"].tolist() == [2, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["chains.npz"]


# ------------------------------------------------------------------------------------------------ posteriors


def test_the_posterior_of_a_gaussian_is_left_exactly() -> None:
    """With E = -T log p of an oracle the prior at T is that oracle, and the posterior has a closed form."""
    prior = skewed_mixture(VE(), 3)
    A = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.8, -1.0]], dtype=F64)
    y, std = torch.tensor([0.4, -0.7], dtype=F64), 0.5
    truth = prior.posterior(A, y, std)
    energy = Energy(lambda x: 4.0 * prior.log_prob(x).neg(), sigma_0=0.1)
    observation = Observation(Matrix(A, (3,)), y, GaussianNoise(std))
    seen = posterior_energy(energy, observation, temperature=4.0)
    start, n = truth.sample(6000, seed=1, noise=Generated(2)), 6000
    found = run_chains(
        seen, start, draws=1, thin=8, kernel=Kernel(epsilon=0.08), temperature=4.0, noise=Generated(3)
    ).last
    mean, covariance = truth.moments()

    def worst(x: Tensor) -> float:
        return float(((x.mean(0) - mean) / (covariance.diagonal() / n).sqrt()).abs().max())

    limit = 5.6  # of six numbers: 1e-6 / 3 on each side
    assert worst(found) < limit
    x = start[:5]
    torch.testing.assert_close(
        -seen(x) / 4.0 - truth.log_prob(x),
        torch.full((5,), prior.log_evidence(A, y, std), dtype=F64),
        rtol=1e4 * FLOAT64,
        atol=1e4 * FLOAT64,
    )
    untempered = posterior_energy(energy, observation, temperature=1.0)
    assert float((-untempered(x) / 4.0 - truth.log_prob(x)).std()) > 0.01, "the observation may not be tempered"


def test_an_exact_observation_is_refused() -> None:
    exactly = Observation(Matrix(torch.eye(2), (2,)), torch.zeros(2), GaussianNoise(0.0))
    with pytest.raises(ValueError, match="has no density over x"):
        posterior_energy(gumbel, exactly)(torch.zeros(1, 2))
