"""Normal guidance: the exact score of x_t given y for the priors for which it is exact, at every t."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from inverse.guiding import (
    EVENT,
    F64,
    MATRIX,
    PROCESSES,
    STD,
    TIMES,
    TWICE,
    Y,
    anisotropic,
    in_two_axes,
    isotropic,
    numbers,
    observed,
    times,
)
from scorefield.inverse import Function, GaussianNoise, LaplaceNoise, Matrix, Observation
from scorefield.inverse.solvers.pseudo_inverse import Matched, MomentMatched, PiGDM, PseudoInverse
from scorefield.inverse.solvers.solver import OBSERVED
from scorefield.inverse.solvers.tilted_score import Tilted, TiltingSolver
from scorefield.process import VE, VP, Process
from scorefield.sampling.named import dpm
from scorefield.score import FunctionScore, Score
from scorefield.score.oracles import Oracle
from tolerance import FLOAT64, GUIDED_SCORE, ONE_STEP

X = 2.0 * numbers(5, *EVENT, seed=3)


def tilted(solver: TiltingSolver, prior: Oracle, observation: Observation) -> Tilted:
    return solver.tilted(prior, solver.default_sampler(prior), observation)


def far(ours: Tensor, exact: Tensor) -> float:
    return float((ours - exact).abs().max() / exact.abs().max())


def worst(guided: Tilted, prior: Oracle, exact: Oracle, evidence: float | None) -> float:
    """The largest relative error of score, posterior mean and log p~(y | x_t), over times."""
    found = []
    for t in (times(t, len(X)) for t in TIMES):
        found += [far(guided(X, t), exact(X, t)), far(guided.denoised(X, t), exact.denoised(X, t))]
        D, log_p, slope = guided.twisted(X, t)
        found += [far(D, prior.denoised(X, t)), far(slope, exact(X, t) - prior(X, t))]
        if evidence is not None:  # Bayes: p(y | x_t) = p(x_t | y) p(y) / p(x_t)
            found.append(far(log_p, exact.log_prob(X, t) + evidence - prior.log_prob(X, t)))
    return max(found)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_moment_matching_is_exact_for_gaussian_data(process: Process) -> None:
    prior, observation = anisotropic(process), observed()
    exact, evidence = prior.posterior(MATRIX, Y, STD), prior.log_evidence(MATRIX, Y, STD)
    assert worst(tilted(MomentMatched(), prior, observation), prior, exact, evidence) < GUIDED_SCORE
    # As many conjugate gradients as measurements end the iteration; y on two axes.
    by_steps = tilted(
        MomentMatched(iterations=4), prior, Observation(in_two_axes(), Y.reshape(2, 2), GaussianNoise(STD))
    )
    assert worst(by_steps, prior, exact, None) < GUIDED_SCORE
    assert worst(tilted(PiGDM(), prior, observation), prior, exact, evidence) > 0.05, "one deviation for all is not it"


@pytest.mark.parametrize("std", [0.3, 0.0])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_pseudo_inverse_is_exact_for_equal_deviations(process: Process, std: float) -> None:
    prior = isotropic(process, 0.7)
    exact, evidence = prior.posterior(MATRIX, Y, std), prior.log_evidence(MATRIX, Y, std)
    matched = tilted(PiGDM(prior_std=0.7), prior, observed(std=std))
    assert worst(matched, prior, exact, evidence) < GUIDED_SCORE
    assert worst(tilted(PiGDM(), prior, observed(std=std)), prior, exact, evidence) > 0.05, "the deviation matters"


def test_measurements_that_say_the_same_twice() -> None:
    """Rank 2 of 5: what A cannot reach is noise, and belongs to the density of y."""
    prior = isotropic(PROCESSES["VP"], 0.7)
    y = numbers(5, seed=4)
    exact, evidence = prior.posterior(TWICE, y, STD), prior.log_evidence(TWICE, y, STD)
    for solver in (PiGDM(prior_std=0.7), MomentMatched()):
        assert worst(tilted(solver, prior, observed(TWICE, y)), prior, exact, evidence) < GUIDED_SCORE


def test_published_variance_and_scale() -> None:
    """r_t^2 of data of unit variance by hand, one measured entry; twice the scale, twice the pull."""
    prior = anisotropic(VE(0.02, 20.0))
    t, sigma = times(0.5, 5), prior.process.sigma(times(0.5, 1))
    row = torch.zeros(1, 6, dtype=F64)
    row[0, 2] = 3.0
    observation = observed(row, torch.tensor([0.4], dtype=F64))
    gap = 0.4 - 3.0 * prior.denoised(X, t).flatten(1)[:, 2]
    r_squared = sigma**2 / (1.0 + sigma**2)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: prior.denoised(x[None], times(0.5, 1)).flatten()))(X)
    wanted = (3.0 * gap / (STD**2 + 9.0 * r_squared))[:, None] * jacobian.reshape(5, 6, 6)[:, 2]
    for scale in (1.0, 2.0):
        _, _, slope = tilted(PiGDM(scale), prior, observation).twisted(X, t)
        torch.testing.assert_close(slope.flatten(1), scale * wanted, rtol=ONE_STEP, atol=ONE_STEP)


@pytest.mark.parametrize("solver", [PiGDM(prior_std=0.7), MomentMatched()], ids=["pigdm", "moment-matched"])
def test_each_row_has_its_y_and_no_mates(solver: TiltingSolver) -> None:
    prior, t = isotropic(PROCESSES["VP"], 0.7), times(0.4, 3)
    ys = numbers(3, 4, seed=6)
    together = tilted(solver, prior, observed(y=ys))(X[:3], t, {OBSERVED: ys})
    for k in range(3):
        alone = tilted(solver, prior, observed(y=ys[k]))(X[k : k + 1], t[:1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=ONE_STEP, atol=ONE_STEP)
    assert float((together[0] - tilted(solver, prior, observed(y=ys[1]))(X[:1], t[:1])[0]).abs().max()) > 0.1


def test_the_flow_of_the_guided_score_is_that_of_the_posterior() -> None:
    """The same sampler and the same noise, driven by the exact posterior's score: the same samples, float32 noise."""
    prior = anisotropic(PROCESSES["VP"])
    sampler = dpm(prior.process, 20)
    ys = torch.stack([Y, -Y])
    run = MomentMatched().run(prior, observed(y=ys), sampler, indices=[3, 8], dtype=F64)
    for k, y in enumerate(ys):
        exact = sampler.run(prior.posterior(MATRIX, y, STD), EVENT, indices=[[3], [8]][k], dtype=F64)
        torch.testing.assert_close(run.x[k], exact.x[0], rtol=GUIDED_SCORE, atol=GUIDED_SCORE)
    assert run.calls.tolist() == [21, 21] and not run.x.requires_grad


def test_no_positive_definite_covariance_from_a_network_is_needed() -> None:
    """A Jacobian with a negative symmetric part leaves the noise alone, by the matrix and by iterations."""
    process = VE(0.02, 20.0)

    class Bent(Score):
        def __init__(self) -> None:
            self.process = process

        def __call__(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
            return -3.0 * x / process.sigma(t[:1]) ** 2  # D = -2 x

    observation, t = observed(), times(0.5, 5)
    assert isinstance(made := MomentMatched().tilted(Bent(), dpm(process), observation), Matched)
    _, _, slope = made.twisted(X, t)
    wanted = -2.0 * ((Y + 2.0 * X.flatten(1) @ MATRIX.T) / STD**2) @ MATRIX
    torch.testing.assert_close(slope.flatten(1), wanted, rtol=ONE_STEP, atol=ONE_STEP)
    _, _, by_steps = MomentMatched(iterations=3).tilted(Bent(), dpm(process), observation).twisted(X, t)
    assert bool(torch.isfinite(by_steps).all())


def test_refusals() -> None:
    prior = anisotropic(PROCESSES["VP"])
    for solver in (PiGDM(), MomentMatched()):
        run = solver.run
        with pytest.raises(ValueError, match="needs a linear operator"):
            run(prior, Observation(Function(torch.sin, EVENT), torch.zeros(EVENT), GaussianNoise(0.1)), indices=[0])
        with pytest.raises(ValueError, match="needs normal noise"):
            run(prior, replace(observed(), noise=LaplaceNoise(0.1)), indices=[0])
    with pytest.raises(ValueError, match="divides by the noise"):
        MomentMatched().run(prior, observed(std=0.0), indices=[0])
    many = Observation(Matrix(numbers(257, 6), EVENT), numbers(257), GaussianNoise(0.1))
    with pytest.raises(ValueError, match=r"MomentMatched\(iterations=10\)"):
        MomentMatched().run(prior, many, indices=[0])
    for wrong in (lambda: PiGDM(0.0), lambda: PiGDM(prior_std=-1.0), lambda: MomentMatched(iterations=0)):
        with pytest.raises(ValueError, match="="):
            wrong()
    assert isinstance(tilted(PiGDM(), prior, observed()), PseudoInverse)


def test_the_pull_takes_no_example_beyond_what_was_measured() -> None:
    """A network that predicts the noise, 1 percent off: its D and their slope are off by 150 times as much at t = 1."""
    process = VP()
    network = FunctionScore(lambda x, t: -0.99 * x, process)
    A = Matrix(torch.eye(3, dtype=torch.float64)[:2], (3,))
    observation = Observation(A, torch.tensor([0.5, -0.2], dtype=torch.float64), GaussianNoise(0.05))
    x, t = numbers(5, 3, seed=4), torch.ones(5, dtype=torch.float64)
    alone = network.denoised(x, t)
    led = PseudoInverse(network, observation, 1.0, 1.0).denoised(x, t)
    moved, reach = (A(led) - A(alone)).norm(dim=1), observation.residual(alone).norm(dim=1)
    assert bool((moved <= reach * (1.0 + FLOAT64)).all()) and bool((moved > 0.9 * reach).all())
    assert float(alone.abs().max()) > 1.0
