"""Reconstruction guidance: the gradient of log p(y | D(x)), and the published displacement of each step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inverse.guiding import EVENT, F64, MATRIX, PROCESSES, TIMES, Y, anisotropic, numbers, observed, times
from likelihood.cases import small_score
from sampling.doubles import sines
from scorefield._random import StepNoise
from scorefield.inverse import Function, GaussianNoise, LaplaceNoise, Observation, StudentNoise
from scorefield.inverse.solvers.reconstruction import DPS
from scorefield.inverse.solvers.solver import OBSERVED, take_observed
from scorefield.process import VE, Process
from scorefield.process.grids import EveryLevel, Uniform
from scorefield.sampling import DDIM, Ancestral, Chain, Langevin, Sampler
from scorefield.score.oracles import skewed_mixture
from tolerance import FLOAT32, GUIDED_SCORE, ONE_STEP

X = 2.0 * numbers(4, *EVENT, seed=3)
BENT = Function(lambda x: torch.stack([x.flatten(1).sum(1).sin(), (x**2).flatten(1).sum(1)], 1), EVENT)


@pytest.mark.parametrize("noise", [GaussianNoise(0.3), LaplaceNoise(0.2), StudentNoise(0.2, 1.5)])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_gradient_of_any_likelihood_at_the_posterior_mean(process: Process, noise: GaussianNoise) -> None:
    """A that is not linear, y of each row: against central differences of log p(y | D(x)) along one direction."""
    prior, ys, way = skewed_mixture(process, EVENT), numbers(4, 2, seed=5), numbers(4, *EVENT, seed=6)
    observation = Observation(BENT, ys, noise)
    guided = DPS(0.7).tilted(prior, Sampler(Ancestral(), Uniform(10)), observation)
    for t in (times(t, 4) for t in TIMES):
        h = 1e-5 * float(process.sigma(t[:1]))

        def log_p(x: Tensor, t: Tensor = t) -> Tensor:
            return noise.log_prob(ys, BENT(prior.denoised(x, t)))

        slope = 0.7 * (log_p(X + h * way) - log_p(X - h * way)) / (2.0 * h)
        pulls = [guided(X, t, {OBSERVED: ys}) - prior(X, t), guided.twisted(X, t, {OBSERVED: ys})[2]]
        with torch.no_grad():
            lifted = guided.denoised(X, t, {OBSERVED: ys}) - prior.denoised(X, t)
        pulls.append(lifted * float(process.alpha(t[:1]) / process.sigma(t[:1]) ** 2))
        for pull in pulls:
            along = (pull * way).flatten(1).sum(1)
            assert float((along - slope).abs().max() / slope.abs().max()) < 1e3 * GUIDED_SCORE


@pytest.mark.parametrize("name", PROCESSES)
def test_the_norm_moves_every_ancestral_step_as_published(name: str) -> None:
    """x_s of the guided step is x_s of the step alone minus 0.4 grad |y - A(D(x))|, on every step of the grid."""
    prior = anisotropic(PROCESSES[name])
    grid = EveryLevel() if name == "ladder" else Uniform(6)
    sampler, observation = Sampler(Ancestral(), grid), observed()
    guided, ending = DPS(0.4, "norm").prepare(prior, sampler, observation)
    assert ending.final == "mean"
    moments = sampler.times(prior.process)
    for k in range(0, len(moments) - 1, 5):
        t, s = moments[k].expand(4), moments[k + 1].expand(4)
        x = X.clone().requires_grad_(True)
        apart = (Y - prior.denoised(x, t).flatten(1) @ MATRIX.T).norm(dim=1)
        (slope,) = torch.autograd.grad(apart.sum(), x)
        ends = [
            Ancestral()(score.bind(None), prior.process, X, t, s, StepNoise(sines(), k)).x for score in (prior, guided)
        ]
        torch.testing.assert_close(ends[1], ends[0] - 0.4 * slope, rtol=ONE_STEP, atol=ONE_STEP)


def test_the_norm_has_no_slope_where_y_is_met() -> None:
    prior, t = anisotropic(PROCESSES["VP"]), times(0.4, 4)
    met = observed().operator(prior.denoised(X, t))
    guided = DPS(rule="norm").tilted(prior, Sampler(Ancestral(), Uniform(6)), observed(y=met))
    assert torch.equal(guided.denoised(X, t), prior.denoised(X, t))


def test_a_network_in_float32_and_no_batch_mates() -> None:
    """Rows of a batch with their own y, through a network under no_grad, by every rule; one evaluation a step."""
    score, ys = small_score(VE(0.05, 20.0)), numbers(3, 2, seed=7).float()
    observation = Observation(Function(torch.tanh, (2,)), ys, GaussianNoise(0.5))
    sampler = Sampler(Ancestral(), Uniform(20))
    for solver in (DPS(0.01), DPS(0.3, "norm")):
        together = solver.run(score, observation, sampler, indices=[4, 5, 6])
        alone = solver.run(score, observation.rows([1]), sampler, indices=[5])
        torch.testing.assert_close(together.x[1:2], alone.x, rtol=FLOAT32, atol=FLOAT32)
        assert int(together.calls[0]) == (21 if solver.rule == "likelihood" else 20)
        assert take_observed({OBSERVED: ys}, observation, together.x)[0] is None
        moved = solver.run(score, observation.rows([0]), sampler, indices=[5])
        assert float((moved.x - alone.x).abs().max()) > 1e-3, "y is heard"


def test_refusals() -> None:
    prior = anisotropic(PROCESSES["VP"])
    exact = observed(std=0.0)
    with pytest.raises(ValueError, match="divides by the noise"):
        DPS().run(prior, exact, indices=[0])
    short = Sampler(Ancestral(), Uniform(3))
    assert bool(torch.isfinite(DPS(0.1, "norm").run(prior, exact, short, indices=[0]).x).all())
    for step in (DDIM(), Chain((Langevin(), Ancestral()))):
        with pytest.raises(ValueError, match="a displacement for each step"):
            DPS(rule="norm").run(prior, exact, Sampler(step, Uniform(3)), indices=[0])
    with pytest.raises(ValueError, match="scale"):
        DPS(0.0)
    assert X.dtype == F64
