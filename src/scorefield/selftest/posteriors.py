"""Checks of posteriors: x given y = A x + noise, where the exact answer is a Gaussian."""

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
from scorefield.selftest.check import DEVIATIONS, Bench, Found, Room, largest, relative, surprise, times
from scorefield.selftest.orders import Shallow, affine_chain, distance, slope
from scorefield.selftest.process import PROCESSES

ROOM = Room("posteriors", "linear observations: exact guidance, convergence, unbiased evidence")

A = torch.tensor([[1.0, -0.6, 0.2, 0.0], [0.3, 0.9, 0.0, -0.5]], dtype=torch.float64)
Y, STD = times(0.7, -0.2), 0.3
OBSERVATION = Observation(Matrix(A, (4,)), Y, GaussianNoise(STD))
TIMES = times(0.1, 0.4, 0.99)


def tilted(solver: TiltingSolver, prior: Oracle) -> Tilted:
    """The guided score."""
    return solver.tilted(prior, solver.default_sampler(prior), OBSERVATION)


def _exactness(bench: Bench, solver: TiltingSolver, prior: Oracle) -> float:
    """Largest relative error of score and posterior mean of x_t given y."""
    exact, guided = prior.posterior(A, Y, STD), tilted(solver, prior)
    x = 1.5 * bench.normal(len(TIMES), 4, seed=1)
    return max(
        relative(guided(x, TIMES), exact(x, TIMES)), relative(guided.denoised(x, TIMES), exact.denoised(x, TIMES))
    )


@ROOM.check(
    "moment matching",
    claim="guidance with matched moments is the exact score of x_t given y for Gaussian data, at every t",
    by="grad log p(x_t | y) of MomentMatched against the oracle's posterior (Boys et al. 2024), any covariance",
    allowed=1e-8,
    why="posterior means are divided by sigma^2 (1e-3) and solved for with small matrices",
)
def _matched(bench: Bench) -> Found:
    return largest({n: _exactness(bench, MomentMatched(), skewed_gaussian(p, 4)) for n, p in PROCESSES.items()})


@ROOM.check(
    "pseudo-inverse guidance",
    claim="pseudo-inverse guidance is the exact score of x_t given y for data of one variance",
    by="grad log p(x_t | y) of PiGDM against the oracle's posterior of N(m, 0.49 I) (Song, Vahdat et al. 2023)",
    allowed=1e-8,
    why="as for moment matching",
)
def _pseudo_inverse(bench: Bench) -> Found:
    mean = torch.linspace(-0.4, 0.9, 4, dtype=torch.float64)
    return largest({n: _exactness(bench, PiGDM(prior_std=0.7), Gaussian(p, mean, 0.49)) for n, p in PROCESSES.items()})


def _converged(bench: Bench, steps: int, process: Process) -> float:
    """Relative error of the posterior's mean and covariance after so many steps of its guided flow."""
    prior = skewed_gaussian(process, 4)
    exact, guided = prior.posterior(A, Y, STD), tilted(MomentMatched(), prior)
    y = bench.to(Y)
    score = FunctionScore(lambda x, t: guided(x, t, {OBSERVED: y.expand(len(x), -1)}), process)
    at = Shallow(steps, "log-SNR").times(process)
    chain = affine_chain(ExponentialMultistep(2), score, process, at, dimension=4, device=bench.device)
    return distance(chain.push(*exact.moments(float(at[0]))), exact.moments(float(at[-1])))


@ROOM.check(
    "convergence to the posterior",
    claim="samples guided by matched moments have the posterior's mean and covariance, at the order of their sampler",
    by="measured order of a second-order flow towards p(x | y), without random numbers",
    target=2.0,
    allowed=0.15,
    why="terms of the next order at 64 steps",
    unit="order",
)
def _convergence(bench: Bench) -> Found:
    process = VP(0.1, 8.0)
    errors = _converged(bench, 32, process), _converged(bench, 64, process)
    return Found(slope(errors, (32, 64)), {"relative error in 64 steps": errors[1]})


def _law_of(sampler: Sampler, prior: Gaussian) -> Gaussian:
    """The law of D(x_end) that a sampler's own steps make of the prior N(0, prior_std^2 I)."""
    process, d = prior.process, prior.dimension
    at, one = sampler.times(process), torch.eye(prior.dimension, dtype=torch.float64)
    chain = affine_chain(sampler.step, prior, process, at, dimension=d)
    mean, covariance = chain.push(torch.zeros(d, dtype=torch.float64), process.prior_std**2 * one)
    origin = prior.denoised(torch.zeros_like(one), at[-1].expand(d))
    G = (prior.denoised(one, at[-1].expand(d)) - origin).T
    return Gaussian(process, origin[0] + G @ mean, G @ covariance @ G.T)


@ROOM.check(
    "twisted particles",
    claim="the twisted filter's evidence is without bias with eight particles, and so is its weighted posterior",
    by="p(y), E[x; y] and Var[x; y] of the law that sixteen steps make, 200 filters (Wu et al. 2023)",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _twisted(bench: Bench) -> Found:
    prior = Gaussian(VP(), times(0.4, -0.3), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64))
    row, y = torch.tensor([[1.0, -0.6]], dtype=torch.float64), times(1.1)
    sampler, errors = Sampler(Ancestral(), LogSNR(16)), {}
    law, way = _law_of(sampler, prior), times(0.8, 0.6)
    mean, covariance = law.posterior(row, y, 0.5).data_moments()
    observation = Observation(Matrix(row, (2,)), y, GaussianNoise(0.5))
    for name, solver in (
        ("guided", TwistedParticles(8)),
        ("prior's steps", TwistedParticles(8, "prior")),
        ("reconstruction", TwistedParticles(8, twist=DPS(0.3))),
    ):
        run = solver.run(prior, observation, sampler, indices=range(200), dtype=bench.dtype, device=bench.device)
        assert run.log_evidence is not None and run.particles is not None and run.log_weights is not None
        evidence = (run.log_evidence.cpu() - law.log_evidence(row, y, 0.5)).exp()
        weights, particles = run.log_weights.cpu().exp(), run.particles.cpu().double()
        off = (particles - mean) @ way
        errors[f"{name}, evidence"] = surprise(evidence, 1.0)
        errors[f"{name}, mean"] = surprise(evidence * (weights * off).sum(1), 0.0)
        errors[f"{name}, variance"] = surprise(evidence * ((weights * off**2).sum(1) - way @ covariance @ way), 0.0)
    return largest(errors)


@ROOM.check(
    "adjoints",
    claim="the adjoint of every linear operator is its transpose",
    by="<A x, y> = <x, A' y> for random x and y",
    allowed=1e-11,
    why="float64 rounding of sums of some hundred terms",
    single=1e-4,
)
def _adjoints(bench: Bench) -> Found:
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
        there, back = (operator(x) * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1)
        errors[name] = relative(there, back)
    return largest(errors)
