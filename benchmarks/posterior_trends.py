"""What takes the error of a posterior solver away: particles, Langevin steps, resamplings. Exact scores and posteriors.

    python benchmarks/posterior_trends.py            # three tables on the screen, two minutes on one core

Particles. Filters that propose blindly and never resample, for data N((0.4, -0.3), ((0.5, 0.2), (0.2, 0.3))) under VP
and one sharp measurement, 40 steps; 400 samples, each of a filter of its own, error 1 / K.
Rounds. Annealed Langevin dynamics on a mixture of three Gaussians under VE(0.2, 3): four levels, one step each, then
so many at the last; 400 samples, against the exact posterior of data smoothed by 0.2.
Resamplings. Two coordinates of correlation 0.9, one of them known exactly, 60 ancestral steps under VE(0.01, 20), and
replacement with Langevin correctors; 2000 samples.

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
    """Mean and variance of samples (n, d) against an exact posterior, and the noise that n leaves in the mean."""
    mean, covariance = exact.data_moments()
    trace = float(covariance.trace())
    off = float((x.double().mean(0) - mean).norm()) / math.sqrt(trace)
    return f"{off:.3f} | {float(torch.cov(x.double().T).trace()) / trace:.3f} | {1 / math.sqrt(len(x)):.3f} |"


def row(label: str, solver: Solver, prior: Oracle, observation: Observation, sampler: Sampler, n: int, exact: Oracle,
        *, raw: bool = False) -> None:  # fmt: skip
    """Run and print one line; `raw` takes the samples before the final denoising."""
    run = solver.run(prior, observation, sampler, indices=range(n), dtype=F64)
    print(f"| {label} | {int(run.calls.double().mean())} | {errors(run.raw if raw else run.x, exact)}", flush=True)


def head(name: str) -> None:
    """The head of a table."""
    print(f"\n| {name} | calls | mean | variance | noise of the mean |\n| --- | ---: | ---: | ---: | ---: |")


def particles() -> None:
    """More particles."""
    prior = Gaussian(VP(), torch.tensor([0.4, -0.3], dtype=F64), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64))
    A, y = torch.tensor([[1.0, -0.6]], dtype=F64), torch.tensor([1.6], dtype=F64)
    observation, exact = Observation(Matrix(A, (2,)), y, GaussianNoise(0.1)), prior.posterior(A, y, 0.1)
    head("particles")
    for K in (4, 16, 64, 256):
        solver = TwistedParticles(K, "prior", resample_below=0.0)
        row(str(K), solver, prior, observation, Sampler(Ancestral(), LogSNR(40)), 400, exact)


def rounds() -> None:
    """More Langevin steps at the last level."""
    process = VE(0.2, 3.0)
    prior = skewed_mixture(process, 2)
    parts = [c.data_moments() for c in prior.components]
    blurred = torch.stack([covariance + 0.2**2 * torch.eye(2, dtype=F64) for _, covariance in parts])
    smoothed = Mixture(process, prior.weights, torch.stack([mean for mean, _ in parts]), blurred)
    A, y = torch.tensor([[1.0, 0.7]], dtype=F64), torch.tensor([0.9], dtype=F64)
    observation, exact = Observation(Matrix(A, (2,)), y, GaussianNoise(0.3)), smoothed.posterior(A, y, 0.3)
    head("Langevin rounds at the last level")
    for k in (0, 10, 100, 400, 1600):
        solver = PosteriorLangevin(settling=k)
        row(str(k), solver, prior, observation, annealed_langevin(process, 4, 1), 400, exact, raw=True)


def resamplings() -> None:
    """More resamplings, or more correctors."""
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
    rounds()
    resamplings()
