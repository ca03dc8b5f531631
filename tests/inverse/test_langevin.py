"""Annealed Langevin posteriors: the targets exactly, and the law of the steps on them without Monte Carlo."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inverse.guiding import EVENT, F64, MATRIX, PROCESSES, STD, TIMES, Y, anisotropic, numbers, observed, times
from sampling.doubles import GivenNoise
from scorefield._random import StepNoise
from scorefield.inverse import Function, GaussianNoise, LaplaceNoise, Matrix, Observation, StudentNoise
from scorefield.inverse.solvers.langevin import ConditionedLangevin, Measured, PosteriorLangevin, Settling
from scorefield.process import VE, Process, Tabulated
from scorefield.process.grids import EveryLevel, GeometricSigma
from scorefield.sampling import MALA, Ancestral, Chain, Hold, LadderScaled, Langevin, NoiseScaled, Repeat, Sampler, Step
from scorefield.sampling.named import annealed_langevin
from scorefield.score.oracles import Gaussian, skewed_mixture
from tolerance import GUIDED_SCORE, HALVED_STEP, ONE_STEP

X = 2.0 * numbers(4, *EVENT, seed=3)


def at(process: Process, t: float) -> tuple[float, float]:
    """alpha, and sigma / alpha."""
    alpha, sigma = float(process.alpha(times(t, 1))), float(process.sigma(times(t, 1)))
    return alpha, sigma / alpha


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_targets_are_posteriors_of_smoothed_data(process: Process) -> None:
    """At every level: data + r z, measured with std^2 + |A|^2 (r^2 - end^2), the last factor 0 at the end."""
    prior = anisotropic(process)
    mean, covariance = prior.data_moments()
    end = at(process, TIMES[0])[1]
    target = Measured(prior, observed(), 1.0, end)
    assert target.norm == pytest.approx(float(torch.linalg.matrix_norm(MATRIX, 2)), rel=ONE_STEP)
    for t in TIMES:
        alpha, r = at(process, t)
        smoothed = Gaussian(process, mean, covariance + r**2 * torch.eye(6, dtype=F64))
        noise = (STD**2 + target.norm**2 * (r**2 - end**2)) ** 0.5
        posterior = smoothed.posterior(MATRIX, Y, noise)
        place = (X / alpha).requires_grad_(True)
        (wanted,) = torch.autograd.grad(posterior.log_prob(place).sum(), place)
        found = target(X, times(t, 4))
        torch.testing.assert_close(
            found, wanted / alpha, rtol=GUIDED_SCORE, atol=GUIDED_SCORE * float(found.abs().max())
        )
        log_p, slope = target.with_density(X, times(t, 4))
        torch.testing.assert_close(slope, found, rtol=ONE_STEP, atol=ONE_STEP)
        difference = log_p - posterior.log_prob(X / alpha)
        assert float(difference.std()) < GUIDED_SCORE * float(log_p.abs().max()), "up to a constant of t"
        assert torch.equal(target.denoised(X, times(t, 4)), prior.denoised(X, times(t, 4)))


def test_other_noises_fall_likewise() -> None:
    """Any law of y is tempered by v / (v + e^2), one without a variance not at all; |A| = 1 if A is not linear."""
    prior, t = anisotropic(PROCESSES["VP"]), times(0.5, 4)
    bent = Function(lambda x: (x**3).flatten(1)[:, :2], EVENT)
    alpha, r = at(prior.process, 0.5)
    for noise, variance in ((LaplaceNoise(0.2), 0.08), (StudentNoise(0.2, 1.5), None)):
        target = Measured(prior, Observation(bent, Y[:2], noise), 2.0, 0.01)
        place = X.clone().requires_grad_(True)
        weight = 1.0 if variance is None else variance / (variance + 4.0 * (r**2 - 0.01**2))
        (slope,) = torch.autograd.grad(noise.log_prob(Y[:2].expand(4, 2), bent(place / alpha)).sum(), place)
        torch.testing.assert_close(target(X, t) - prior(X, t), weight * slope, rtol=GUIDED_SCORE, atol=GUIDED_SCORE)


# ------------------------------------------------------------------------------------------------ the law of a step

LEVEL = 0.3
VE_PROCESS = VE(0.01, 20.0)


def chain_of(step: Step, target: Measured) -> tuple[Tensor, Tensor, Tensor]:
    """x -> F x + c + G z, the affine map that a step is for Gaussian data: F, c and G."""
    t = VE_PROCESS.time_at_sigma(torch.tensor([LEVEL], dtype=F64)).expand(1)

    def step_from(x: Tensor, z: Tensor) -> Tensor:
        noise = StepNoise(GivenNoise(lambda like, k: z.reshape(like.shape)), 0)
        return step(target.bind(None), VE_PROCESS, x.reshape(1, *EVENT), t, t, noise).x.flatten()

    zero, unit = torch.zeros(6, dtype=F64), torch.eye(6, dtype=F64)
    c = step_from(zero, zero)
    return (
        torch.stack([step_from(e, zero) - c for e in unit], 1),
        c,
        torch.stack([step_from(zero, e) - c for e in unit], 1),
    )


def stationary(step: Step, target: Measured) -> tuple[Tensor, Tensor]:
    """Mean and covariance that the step leaves: m = F m + c, S = F S F' + G G'."""
    F, c, G = chain_of(step, target)
    assert float(torch.linalg.eigvals(F).abs().max()) < 1.0, "stable"
    eye = torch.eye(36, dtype=F64)
    S = torch.linalg.solve(eye - torch.kron(F, F), (G @ G.T).flatten()).reshape(6, 6)
    return torch.linalg.solve(torch.eye(6, dtype=F64) - F, c), S


def of_size(e: float, target: Measured) -> ConditionedLangevin:
    return ConditionedLangevin(Langevin(LadderScaled(e, LEVEL)), target)


def test_steps_leave_the_posterior_in_the_limit() -> None:
    """The last level: the mean is exact, and the error of the covariance halves with the step."""
    prior = anisotropic(VE_PROCESS)
    mean, covariance = prior.data_moments()
    exact = Gaussian(VE_PROCESS, mean, covariance + LEVEL**2 * torch.eye(6, dtype=F64)).posterior(MATRIX, Y, STD)
    m, S = exact.data_moments()
    target = Measured(prior, observed(), 1.0, LEVEL)
    errors = []
    for e in (0.01, 0.005, 0.0025):
        found_mean, found = stationary(of_size(e, target), target)
        torch.testing.assert_close(found_mean, m.flatten(), rtol=GUIDED_SCORE, atol=GUIDED_SCORE)
        errors.append(float((found - S).norm() / S.norm()))
    assert 0.5 - HALVED_STEP < errors[1] / errors[0] < 0.5 + HALVED_STEP
    assert 0.5 - HALVED_STEP < errors[2] / errors[1] < 0.5 + HALVED_STEP
    deaf = Measured(prior, observed(std=1.02 * STD), 1.0, LEVEL)
    _, wider = stationary(of_size(0.0025, deaf), deaf)
    assert float((wider - S).norm() / S.norm()) > 3.0 * errors[2], "two percent more noise is another law"


def test_little_noise_needs_no_smaller_steps() -> None:
    """std 1e-3 against the level 0.3: sizes along singular vectors keep the chain stable, one size does not."""
    target = Measured(anisotropic(VE_PROCESS), observed(std=1e-3), 1.0, LEVEL)
    plain = Langevin(LadderScaled(0.05 * LEVEL**2, LEVEL))
    F, _, _ = chain_of(plain, target)
    assert float(torch.linalg.eigvals(F).abs().max()) > 100.0
    found_mean, _ = stationary(ConditionedLangevin(plain, target), target)
    assert float((found_mean @ MATRIX.T - Y).abs().max()) < 1e-3


# ------------------------------------------------------------------------------------------------ the sampler


def test_the_last_noisy_level_is_repeated() -> None:
    process = PROCESSES["VP"]
    grid = GeometricSigma(5)
    times_there = Settling(grid, 3).times(process)
    assert torch.equal(times_there[:6], grid.times(process)) and torch.equal(
        times_there[6:], times_there[5:6].expand(3)
    )
    ladder = PROCESSES["ladder"]
    assert isinstance(ladder, Tabulated)
    there = Settling(EveryLevel(), 2).times(ladder)
    assert len(there) == 33 and int((there == 0.0).sum()) == 3 and float(ladder.sigma(there[-1:])) == 0.0


def test_each_row_has_its_y_and_no_mates() -> None:
    prior, ys = skewed_mixture(VE_PROCESS, EVENT), numbers(3, 4, seed=6)
    sampler = annealed_langevin(VE_PROCESS, 6, 2)
    together = PosteriorLangevin(settling=2).run(prior, observed(y=ys), sampler, indices=[1, 2, 3], dtype=F64)
    alone = PosteriorLangevin(settling=2).run(prior, observed(y=ys[1]), sampler, indices=[2], dtype=F64)
    torch.testing.assert_close(together.x[1:2], alone.x, rtol=ONE_STEP, atol=ONE_STEP)
    assert together.calls.tolist() == [2 * (6 + 2) + 1] * 3
    other = PosteriorLangevin(settling=2).run(prior, observed(y=ys[0]), sampler, indices=[2], dtype=F64)
    assert float((other.x - alone.x).abs().max()) > 0.01


def test_an_acceptance_test_and_functions_that_are_not_linear() -> None:
    """MALA finds the density of the target; a distance is measured without singular values."""
    prior, y = skewed_mixture(VE_PROCESS, 2), torch.tensor([1.3, 2.2]).repeat_interleave(4)[:, None]
    distance = Function(lambda x: (1.0 + (x**2).sum(1, keepdim=True)).sqrt(), (2,))
    bent = Observation(distance, y, GaussianNoise(0.05))
    for corrector in (MALA(NoiseScaled(0.3)), Langevin()):
        sampler = Sampler(Chain((Hold(), Repeat(corrector, 4))), GeometricSigma(40))
        run = PosteriorLangevin(settling=0).run(prior, bent, sampler, indices=range(8))
        assert bool(torch.isfinite(run.x).all()) and run.status.tolist() == [0] * 8
        found = distance(run.x)
        assert float(found[:4].mean()) < 1.7 < float(found[4:].mean())
        assert found.shape == (8, 1) and int(run.calls[0]) <= 161 + 40


def test_refusals() -> None:
    prior = anisotropic(PROCESSES["VP"])
    for step, why in ((Hold(), "needs a corrector"), (Ancestral(), "goes with the steps Hold")):
        with pytest.raises(ValueError, match=why):
            PosteriorLangevin().run(prior, observed(), Sampler(step), indices=[0])
    with pytest.raises(ValueError, match="divides by the noise"):
        PosteriorLangevin().run(prior, observed(std=0.0), indices=[0])
    with pytest.raises(ValueError, match="negative"):
        PosteriorLangevin(settling=-1)
    assert (
        PosteriorLangevin().refusals(
            prior, annealed_langevin(prior.process), Observation(Matrix(MATRIX, EVENT), Y, GaussianNoise(STD))
        )
        == []
    )
