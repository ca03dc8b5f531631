"""Checks of posterior solvers on linear observations y = A x + noise, whose exact posterior is a Gaussian."""

from __future__ import annotations

import torch

from scorefield.inverse import (
    DPS,
    Convolution,
    Downsample,
    GaussianNoise,
    Mask,
    Matrix,
    MomentMatched,
    Observation,
    PiGDM,
    TwistedParticles,
)
from scorefield.inverse.solvers.solver import OBSERVED
from scorefield.inverse.solvers.tilted_score import Tilted, TiltingSolver
from scorefield.process import VP, Process
from scorefield.process.grids import LogSNR
from scorefield.sampling import Ancestral, ExponentialMultistep, Sampler
from scorefield.score import FunctionScore
from scorefield.score.oracles import Gaussian, Oracle, skewed_gaussian
from scorefield.selftest.check import DEVIATIONS, Bench, CheckGroup, Measurement, largest, relative, times, z_score
from scorefield.selftest.orders import TruncatedGrid, affine_chain, distance, slope
from scorefield.selftest.process import PROCESSES

GROUP = CheckGroup("posteriors", "linear observations: exact guidance, convergence, unbiased evidence")

A = torch.tensor([[1.0, -0.6, 0.2, 0.0], [0.3, 0.9, 0.0, -0.5]], dtype=torch.float64)
Y, STD = times(0.7, -0.2), 0.3
OBSERVATION = Observation(Matrix(A, (4,)), Y, GaussianNoise(STD))
TIMES = times(0.1, 0.4, 0.99)


def tilted(solver: TiltingSolver, prior: Oracle) -> Tilted:
    """Return the guided score of a solver for `OBSERVATION`."""
    return solver.tilted(prior, solver.default_sampler(prior), OBSERVATION)


def _exactness(bench: Bench, solver: TiltingSolver, prior: Oracle) -> float:
    """Return the largest relative error of the guided score and posterior mean at x_t given y."""
    exact, guided = prior.posterior(A, Y, STD), tilted(solver, prior)
    x = 1.5 * bench.normal(len(TIMES), 4, seed=1)
    return max(
        relative(guided(x, TIMES), exact(x, TIMES)), relative(guided.denoised(x, TIMES), exact.denoised(x, TIMES))
    )


@GROUP.check(
    "moment matching",
    claim="for Gaussian data, guidance with matched moments is the exact score of x_t given y at every t",
    by="grad log p(x_t | y) of MomentMatched against the oracle's posterior (Boys et al. 2024), any covariance",
    allowed=1e-8,
    why="posterior means are divided by sigma^2 (1e-3) and found by solving small linear systems",
)
def _matched(bench: Bench) -> Measurement:
    return largest({n: _exactness(bench, MomentMatched(), skewed_gaussian(p, 4)) for n, p in PROCESSES.items()})


@GROUP.check(
    "pseudo-inverse guidance",
    claim="for Gaussian data with covariance v I, pseudo-inverse guidance is the exact score of x_t given y",
    by="grad log p(x_t | y) of PiGDM against the oracle's posterior of N(m, 0.49 I) (Song, Vahdat et al. 2023)",
    allowed=1e-8,
    why="posterior means are divided by sigma^2 (1e-3) and found by solving small linear systems",
)
def _pseudo_inverse(bench: Bench) -> Measurement:
    mean = torch.linspace(-0.4, 0.9, 4, dtype=torch.float64)
    return largest({n: _exactness(bench, PiGDM(prior_std=0.7), Gaussian(p, mean, 0.49)) for n, p in PROCESSES.items()})


def _converged(bench: Bench, steps: int, process: Process) -> float:
    """Return the relative error of the posterior's mean and covariance after `steps` steps of its guided flow."""
    prior = skewed_gaussian(process, 4)
    exact, guided = prior.posterior(A, Y, STD), tilted(MomentMatched(), prior)
    y = bench.to(Y)
    score = FunctionScore(lambda x, t: guided(x, t, {OBSERVED: y.expand(len(x), -1)}), process)
    grid = TruncatedGrid(steps, "log-SNR").times(process)
    chain = affine_chain(ExponentialMultistep(2), score, process, grid, dimension=4, device=bench.device)
    return distance(chain.push(*exact.moments(float(grid[0]))), exact.moments(float(grid[-1])))


@GROUP.check(
    "convergence to the posterior",
    claim="samples guided by matched moments converge to the posterior's mean and covariance at the sampler's order",
    by="measured order of a second-order solver of the flow towards p(x | y), without random numbers",
    target=2.0,
    allowed=0.15,
    why="terms of the next order at 64 steps",
    unit="order",
)
def _convergence(bench: Bench) -> Measurement:
    process = VP(0.1, 8.0)
    errors = _converged(bench, 32, process), _converged(bench, 64, process)
    return Measurement(slope(errors, (32, 64)), {"relative error in 64 steps": errors[1]})


def _sampler_distribution(sampler: Sampler, prior: Gaussian) -> Gaussian:
    """Return the distribution of the denoised end point of a sampler that starts at the prior N(0, prior_std^2 I).

    It differs from the data's distribution by the discretisation of the sampler, and is the exact target of a particle
    filter with the same steps.
    """
    process, d = prior.process, prior.dimension
    at, one = sampler.times(process), torch.eye(prior.dimension, dtype=torch.float64)
    chain = affine_chain(sampler.step, prior, process, at, dimension=d)
    mean, covariance = chain.push(torch.zeros(d, dtype=torch.float64), process.prior_std**2 * one)
    origin = prior.denoised(torch.zeros_like(one), at[-1].expand(d))
    G = (prior.denoised(one, at[-1].expand(d)) - origin).T
    return Gaussian(process, origin[0] + G @ mean, G @ covariance @ G.T)


@GROUP.check(
    "twisted particles",
    claim="the twisted filter's evidence and weighted posterior are unbiased with eight particles",
    by="p(y), E[x; y] and Var[x; y] of the distribution of sixteen sampler steps, 200 filters (Wu et al. 2023)",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _twisted(bench: Bench) -> Measurement:
    prior = Gaussian(VP(), times(0.4, -0.3), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64))
    row, y = torch.tensor([[1.0, -0.6]], dtype=torch.float64), times(1.1)
    sampler, errors = Sampler(Ancestral(), LogSNR(16)), {}
    target, direction = _sampler_distribution(sampler, prior), times(0.8, 0.6)
    mean, covariance = target.posterior(row, y, 0.5).data_moments()
    observation = Observation(Matrix(row, (2,)), y, GaussianNoise(0.5))
    for name, solver in (
        ("guided", TwistedParticles(8)),
        ("prior's steps", TwistedParticles(8, "prior")),
        ("reconstruction", TwistedParticles(8, twist=DPS(0.3))),
    ):
        run = solver.run(prior, observation, sampler, indices=range(200), dtype=bench.dtype, device=bench.device)
        assert run.log_evidence is not None and run.particles is not None and run.log_weights is not None
        # Normalised weights times the evidence give unbiased estimates of E[h(x) p(y | x)] / p(y).
        evidence = (run.log_evidence.cpu() - target.log_evidence(row, y, 0.5)).exp()
        weights, particles = run.log_weights.cpu().exp(), run.particles.cpu().double()
        deviations = (particles - mean) @ direction
        excess = (weights * deviations**2).sum(1) - direction @ covariance @ direction
        errors[f"{name}, evidence"] = z_score(evidence, 1.0)
        errors[f"{name}, mean"] = z_score(evidence * (weights * deviations).sum(1), 0.0)
        errors[f"{name}, variance"] = z_score(evidence * excess, 0.0)
    return largest(errors)


@GROUP.check(
    "adjoints",
    claim="the adjoint of every linear operator is its transpose",
    by="<A x, y> = <x, A' y> for random x and y",
    allowed=1e-11,
    why="float64 rounding of sums of some hundred terms",
    single=1e-4,
)
def _adjoints(bench: Bench) -> Measurement:
    event = (3, 4, 6)
    operators = {
        "matrix": Matrix(bench.normal(5, 72, seed=2).cpu().double(), event),
        "mask": Mask(bench.normal(4, 6, seed=3).cpu() > 0, event),
        "blur": Convolution.gaussian(1.0, event),
        "block means": Downsample(2, event),
    }
    x, errors = bench.normal(2, *event, seed=4), {}
    for name, operator in operators.items():
        y = bench.normal(2, *operator.observed, seed=5)
        forward, adjoint = (operator(x) * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1)
        errors[name] = relative(forward, adjoint)
    return largest(errors)
