"""Guided solvers against exact posteriors of a mixture: how far each may be off, and what takes the error away."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inverse.guiding import F64, numbers
from scorefield.inverse import (
    GaussianNoise,
    Matrix,
    MomentMatched,
    Observation,
    PiGDM,
    PosteriorLangevin,
    Solver,
    TwistedParticles,
)
from scorefield.process import VE, VP
from scorefield.process.grids import LogSNR
from scorefield.sampling import Ancestral, Sampler
from scorefield.sampling.named import annealed_langevin
from scorefield.score.oracles import Gaussian, Mixture, Oracle, skewed_mixture
from tolerance import POSTERIORS, PRIOR_OFF, SETTLED

pytestmark = pytest.mark.slow
MEASUREMENTS = {2: 1, 8: 4}
SOLVERS: dict[str, Solver] = {"pigdm": PiGDM(prior_std=0.5), "moment-matched": MomentMatched()}


def problem(d: int) -> tuple[Mixture, Observation, Oracle]:
    """y of a point of the first component, measured by random rows."""
    prior = skewed_mixture(VP(), d)
    A = numbers(MEASUREMENTS[d], d, seed=d) / d**0.5
    y = A @ prior.components[0].sample(1, seed=4)[0]
    return prior, Observation(Matrix(A, (d,)), y, GaussianNoise(0.2)), prior.posterior(A, y, 0.2)


def off(x: Tensor, exact: Oracle) -> float:
    """The larger of the errors of mean, in deviations, and of covariance, relative."""
    mean, covariance = exact.data_moments()
    x = x.double()
    shift = float((x.mean(0) - mean).norm()) / math.sqrt(float(covariance.trace()))
    return max(shift, float((torch.cov(x.T) - covariance).norm() / covariance.norm()))


@pytest.mark.parametrize("d", MEASUREMENTS)
@pytest.mark.parametrize("name", SOLVERS)
def test_within_the_stated_error(name: str, d: int) -> None:
    prior, observation, exact = problem(d)
    run = SOLVERS[name].run(prior, observation, indices=range(192))
    assert off(run.x, exact) < POSTERIORS[name][d]
    assert off(prior.sample(192, seed=1), exact) > PRIOR_OFF, "not by samples that have not heard of y"


def test_more_particles_take_the_error_away() -> None:
    """Samples of filters that propose blindly, by their error in deviations: 1 / K down to the noise of 400."""
    prior = Gaussian(VP(), torch.tensor([0.4, -0.3], dtype=F64), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64))
    A, y = torch.tensor([[1.0, -0.6]], dtype=F64), torch.tensor([1.6], dtype=F64)
    observation, exact = Observation(Matrix(A, (2,)), y, GaussianNoise(0.1)), prior.posterior(A, y, 0.1)
    mean, covariance = exact.data_moments()
    errors = []
    for K in (4, 16, 64, 256):
        solver = TwistedParticles(K, "prior", resample_below=0.0)
        x = solver.run(prior, observation, Sampler(Ancestral(), LogSNR(40)), indices=range(400)).x.double()
        errors.append(float((x.mean(0) - mean).norm()) / math.sqrt(float(covariance.trace())))
    assert errors[0] > 2.0 * errors[1] and errors[1] > 1.5 * errors[3], errors


def test_longer_chains_take_the_error_away() -> None:
    """Of data smoothed at the last level, 0.2: Langevin steps there, few and many, from a start far too wide."""
    process = VE(0.2, 3.0)
    prior = skewed_mixture(process, 2)
    A, y = torch.tensor([[1.0, 0.7]], dtype=F64), torch.tensor([0.9], dtype=F64)
    smoothed = Mixture(
        process,
        prior.weights,
        torch.stack([c.data_moments()[0] for c in prior.components]),
        torch.stack([c.data_moments()[1] + 0.2**2 * torch.eye(2, dtype=F64) for c in prior.components]),
    )
    exact, errors = smoothed.posterior(A, y, 0.3), []
    for rounds in (0, 10, 400):
        sampler = annealed_langevin(process, 4, 1)
        run = PosteriorLangevin(settling=rounds).run(
            prior, Observation(Matrix(A, (2,)), y, GaussianNoise(0.3)), sampler, indices=range(400)
        )
        errors.append(off(run.raw, exact))
    assert errors[0] > errors[1] > 2.0 * errors[2], errors
    assert errors[2] < SETTLED
