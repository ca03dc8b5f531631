"""Decrease of the error of posterior solvers with particles, Langevin steps and resamplings, with exact scores.

    python benchmarks/posterior_trends.py            # three tables on the screen, two minutes on one core

Particles. Particle filters that propose from the prior and never resample, for data N((0.4, -0.3), ((0.5, 0.2),
(0.2, 0.3))) under VP and one accurate measurement, 40 steps; 400 samples, each from a separate filter. The error falls
as 1 / K with the number K of particles.
Langevin steps. Annealed Langevin dynamics on a mixture of three Gaussians under VE(0.2, 3), with four levels of one
step each and a given number of further steps at the last level; 400 samples, against the exact posterior of the data
smoothed by 0.2.
Resamplings. Two coordinates with correlation 0.9, one of which is observed exactly, 60 ancestral steps under
VE(0.01, 20), and replacement with Langevin correctors; 2000 samples.

mean        |mean - exact mean| over the exact root mean square deviation
variance    trace of the covariance over the exact one
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.inverse import (
    GaussianNoise,
    Mask,
    Matrix,
    Observation,
    PosteriorLangevin,
    RePaint,
    Replacement,
    Solver,
    TwistedParticles,
)
from scorefield.process import VE, VP
from scorefield.process.grids import LogSNR
from scorefield.sampling import Ancestral, Chain, Langevin, NoiseScaled, Repeat, Sampler
from scorefield.sampling.named import annealed_langevin
from scorefield.score.oracles import Gaussian, Mixture, Oracle, skewed_mixture

F64 = torch.float64


def errors(x: Tensor, exact: Oracle) -> str:
    """Return the errors of samples, (n, d), against an exact posterior as cells, and the sampling noise of the mean."""
    mean, covariance = exact.data_moments()
    trace = float(covariance.trace())
    error = float((x.double().mean(0) - mean).norm()) / math.sqrt(trace)
    return f"{error:.3f} | {float(torch.cov(x.double().T).trace()) / trace:.3f} | {1 / math.sqrt(len(x)):.3f} |"


def row(label: str, solver: Solver, prior: Oracle, observation: Observation, sampler: Sampler, n: int, exact: Oracle,
        *, raw: bool = False) -> None:  # fmt: skip
    """Run a solver and print one row; with `raw` the samples before the final denoising are measured."""
    run = solver.run(prior, observation, sampler, indices=range(n), dtype=F64)
    print(f"| {label} | {int(run.calls.double().mean())} | {errors(run.raw if raw else run.x, exact)}", flush=True)


def head(name: str) -> None:
    """Print the head of a table."""
    print(f"\n| {name} | calls | mean | variance | noise of the mean |\n| --- | ---: | ---: | ---: | ---: |")


def particles() -> None:
    """Print the table of the number of particles."""
    prior = Gaussian(VP(), torch.tensor([0.4, -0.3], dtype=F64), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64))
    A, y = torch.tensor([[1.0, -0.6]], dtype=F64), torch.tensor([1.6], dtype=F64)
    observation, exact = Observation(Matrix(A, (2,)), y, GaussianNoise(0.1)), prior.posterior(A, y, 0.1)
    head("particles")
    for K in (4, 16, 64, 256):
        solver = TwistedParticles(K, "prior", resample_below=0.0)
        row(str(K), solver, prior, observation, Sampler(Ancestral(), LogSNR(40)), 400, exact)


def langevin_steps() -> None:
    """Print the table of the number of Langevin steps at the last level."""
    process = VE(0.2, 3.0)
    prior = skewed_mixture(process, 2)
    parts = [c.data_moments() for c in prior.components]
    blurred = torch.stack([covariance + 0.2**2 * torch.eye(2, dtype=F64) for _, covariance in parts])
    smoothed = Mixture(process, prior.weights, torch.stack([mean for mean, _ in parts]), blurred)
    A, y = torch.tensor([[1.0, 0.7]], dtype=F64), torch.tensor([0.9], dtype=F64)
    observation, exact = Observation(Matrix(A, (2,)), y, GaussianNoise(0.3)), smoothed.posterior(A, y, 0.3)
    head("Langevin steps at the last level")
    for k in (0, 10, 100, 400, 1600):
        solver = PosteriorLangevin(settling=k)
        row(str(k), solver, prior, observation, annealed_langevin(process, 4, 1), 400, exact, raw=True)


def resamplings() -> None:
    """Print the table of the number of resamplings, and of replacement with correctors."""
    prior = Gaussian(VE(0.01, 20.0), torch.zeros(2, dtype=F64), torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64))
    known = torch.tensor([True, False])
    observation = Observation(Mask(known, (2,)), torch.tensor([1.5], dtype=F64), GaussianNoise(0.0))
    exact = prior.posterior(torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([1.5]), 0.0)
    grid = LogSNR(60)
    head("resamplings")
    row("1 (replacement)", Replacement(), prior, observation, Sampler(Ancestral(), grid), 2000, exact)
    for k in (2, 5, 20):
        row(str(k), RePaint(1, k), prior, observation, Sampler(Ancestral(), grid), 2000, exact)
    corrected = Chain((Repeat(Langevin(NoiseScaled(0.16)), 16), Ancestral()))
    row("replacement, 16 correctors", Replacement(), prior, observation, Sampler(corrected, grid), 2000, exact)


if __name__ == "__main__":
    torch.set_num_threads(1)
    particles()
    langevin_steps()
    resamplings()
