"""Checks of likelihoods, of latents of the probability flow, and of normalising constants of energies."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scorefield._math import value_and_divergence
from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.energy.annealed_importance import AISSettings, GaussianBase, Schedule
from scorefield.energy.normalising_constant import log_z
from scorefield.likelihood.error_budget import Moments
from scorefield.likelihood.log_prob import flow_log_prob
from scorefield.likelihood.probability_flow import FlowSettings, transport
from scorefield.process import VE, VP, Process, SubVP
from scorefield.score import Energy
from scorefield.score.oracles import Gaussian, Oracle, skewed_gaussian, skewed_mixture
from scorefield.selftest.check import (
    DEVIATIONS,
    Bench,
    CheckGroup,
    Measurement,
    SequentialNoise,
    largest,
    relative,
    rotational_field,
    times,
    z_score,
)

GROUP = CheckGroup("likelihood", "error budgets, latents of the probability flow, normalising constants")

PROCESSES: dict[str, Process] = {"VE": VE(0.05, 20.0), "VP": VP(), "sub-VP": SubVP()}
POINTS = 12


def _moments(oracle: Oracle) -> Moments:
    mean, covariance = oracle.data_moments()
    return Moments(mean.reshape(-1), covariance)


def _densities(bench: Bench, settings: FlowSettings, seed: int = 1) -> dict[str, tuple[Any, Tensor]]:
    """Return log densities by the flow and the exact ones, for a Gaussian and a mixture under every process."""
    densities = {}
    for name, process in PROCESSES.items():
        for kind, oracle in (("Gaussian", skewed_gaussian(process)), ("mixture", skewed_mixture(process))):
            x = bench.to(oracle.sample(POINTS, seed=seed))
            # The exact density is that of x_t at t = 0: VE has the noise sigma_min there, VP and sub-VP have none.
            result = flow_log_prob(
                oracle, x, DataSpec((2,)), IndexedNoise(2, range(POINTS)), moments=_moments(oracle),
                settings=settings, dtype=bench.dtype,
            )  # fmt: skip
            densities[f"{kind}, {name}"] = (result, oracle.log_prob(x.cpu().double(), 0.0))
    return densities


@GROUP.check(
    "likelihood",
    claim="log densities by the probability flow with their stated corrections are the exact ones",
    by="nats + truncation + prior mismatch against log p_0 of Gaussians and mixtures, with the exact divergence",
    allowed=5e-3,
    unit="nats",
    why="under VE two moments of the data do not determine p_1 completely; solver tolerance 1e-6",
    single=1e-2,
)
def _likelihood(bench: Bench) -> Measurement:
    errors = {}
    for name, (result, exact) in _densities(bench, FlowSettings(rtol=1e-6, atol=1e-6, divergence="exact")).items():
        errors[name] = float((result.nats + result.truncation + result.prior_mismatch - exact).abs().max())
    return largest(errors)


@GROUP.check(
    "error budget",
    claim="the exact log density lies inside the stated interval",
    by="distance of log p_0 from the segment between nats and corrected nats, in stated uncertainties, at the worst"
    " point",
    allowed=1.0,
    unit="stated uncertainties",
    why="above 1 the exact value is outside the interval; with an exact divergence nothing in the budget is random",
)
def _budget(bench: Bench) -> Measurement:
    errors = {}
    for name, (result, exact) in _densities(bench, FlowSettings(divergence="exact")).items():
        corrected = result.nats + result.truncation + result.prior_mismatch
        low, high = torch.minimum(result.nats, corrected), torch.maximum(result.nats, corrected)
        uncertainty = 0.5 * (result.interval[:, 1] - result.interval[:, 0] - (high - low))
        errors[name] = float(((exact - exact.clamp(low, high)).abs() / uncertainty).max())
    return largest(errors)


@GROUP.check(
    "divergences",
    claim="the mean of Hutchinson's estimates over orthonormal probes is the trace",
    by="mean of v' (df/dx) v over v = sqrt(D) u_k against the exact trace, for a field that is not a gradient",
    allowed=1e-11,
    why="float64 rounding of a few products",
    single=1e-4,
)
def _divergences(bench: Bench) -> Measurement:
    x = bench.normal(6, 3, seed=3)
    directions, _ = torch.linalg.qr(bench.normal(6, 3, 3, seed=4).cpu())
    probes = bench.to(math.sqrt(3.0) * directions).transpose(0, 1)
    estimated, exact = (value_and_divergence(rotational_field, x, v)[1] for v in (probes, None))
    return largest({"trace": relative(estimated, exact)})


def _exact_flow(oracle: Gaussian, x: Tensor, start: float, end: float) -> Tensor:
    """Return the end point of the exact probability flow of a Gaussian.

    Along each eigenvector of the data's covariance the deviation from the mean scales as the standard deviation does.
    """
    process, (m, C) = oracle.process, oracle.data_moments()
    (a, b), (r, q) = process.alpha(times(start, end)), process.sigma(times(start, end))
    variances, U = torch.linalg.eigh(C)
    scale = ((b**2 * variances + q**2) / (a**2 * variances + r**2)).sqrt()
    return b * m + (scale * ((x - a * m) @ U)) @ U.T


@GROUP.check(
    "latents",
    claim="data are encoded to the latents of the exact probability flow",
    by="the flow carries quantiles to quantiles, in closed form on a Gaussian (Song et al. 2021, section D.4)",
    allowed=1e-4,
    why="local errors of 1e-7 over some tens of steps, amplified up to twentyfold by the flow",
    single=1e-2,
)
def _latents(bench: Bench) -> Measurement:
    settings, errors = FlowSettings(rtol=1e-7, atol=1e-7), {}
    for name, process in PROCESSES.items():
        oracle, low = skewed_gaussian(process), process.t_min.likelihood
        x = oracle.sample(6, low, seed=5)
        found = transport(oracle.bind(None), bench.to(x), low, 1.0, settings).latent
        errors[name] = relative(found, _exact_flow(oracle, x, low, 1.0))
    return largest(errors)


@GROUP.check(
    "encoding and decoding",
    claim="latents decode to the data that were encoded",
    by="the flow of a mixture from t_min to 1 and back",
    allowed=1e-4,
    why="local errors of 1e-7 over some tens of steps in each direction, amplified by the expansion of the flow",
    single=1e-2,
)
def _round_trip(bench: Bench) -> Measurement:
    settings, errors = FlowSettings(rtol=1e-7, atol=1e-7), {}
    for name, process in PROCESSES.items():
        oracle, low = skewed_mixture(process), process.t_min.likelihood
        x = bench.to(oracle.sample(6, low, seed=6))
        latent = transport(oracle.bind(None), x, low, 1.0, settings).latent
        errors[name] = relative(transport(oracle.bind(None), latent, 1.0, low, settings).latent, x)
    return largest(errors)


# ------------------------------------------------------------------------------------------------ log Z

_CENTRE, _STD, _T = (-1.0, 0.5, 2.0), (0.3, 0.7, 1.1), 2.0


def _gaussian_energy(x: Tensor) -> Tensor:
    """Return T = 2 times the energy of a Gaussian of unequal variances, plus 6."""
    return ((x - times(*_CENTRE).to(x)) / times(*_STD).to(x)).square().sum(1) + 6.0


def _log_z(bench: Bench) -> tuple[Any, float]:
    """Return the estimate of log Z of `_gaussian_energy` by annealed importance sampling, and the exact value."""
    base = GaussianBase(times(-0.7, 0.3, 1.5), times(0.5, 0.9, 1.4))
    z = SequentialNoise(7).normal(torch.empty(128, 3, dtype=torch.float64), 0, 0)
    starts = bench.to(times(*_CENTRE) + times(*_STD) * z)
    settings = AISSettings(rungs=40, pilot=16)
    found = log_z(Energy(_gaussian_energy, sigma_0=0.1), base, starts, temperature=_T, settings=settings)
    return found, math.log(math.prod(_STD)) + 1.5 * math.log(2.0 * math.pi) - 3.0


@GROUP.check(
    "log Z",
    claim="annealed importance sampling estimates the normalising constant of an energy with a correct standard error",
    by="forward and reverse chains and Bennett's acceptance ratio (Crooks 2000), Gaussian of unequal variances, in"
    " standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _normaliser(bench: Bench) -> Measurement:
    found, exact = _log_z(bench)
    if found.value is None or found.verdict != "ok":
        return Measurement(math.inf, {"verdict is not ok": 1.0})
    details = {"log Z": found.value, "exact": exact, "standard error": found.standard_error}
    details |= {"95 % interval, low": found.interval[0], "95 % interval, high": found.interval[1]}
    return Measurement(abs(found.value - exact) / found.standard_error, details)


@GROUP.check(
    "log Z, no work",
    claim="where base and target are the same distribution, the work of every chain is zero",
    by="log Z of a normalised energy, estimated from itself as the base",
    allowed=1e-10,
    why="float64 rounding of contributions to the work, which cancel",
    unit="nats",
)
def _no_work(bench: Bench) -> Measurement:
    base = GaussianBase(times(*_CENTRE), times(*_STD))
    starts = times(*_CENTRE) + times(*_STD) * bench.normal(32, 3, seed=8).cpu()
    found = log_z(base.energy, base, bench.to(starts), schedule=Schedule((0.0, 0.5, 1.0), (0.1,), 1, 0.0))
    return largest({"log Z": math.inf if found.value is None else abs(found.value)})


@GROUP.check(
    "average of exp(work)",
    claim="exp(work) of forward chains averages to the ratio of normalising constants, for any number of rungs",
    by="E exp(w) = Z_1 / Z_0 (Jarzynski 1997), the mean over 128 chains in standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _jarzynski(bench: Bench) -> Measurement:
    found, exact = _log_z(bench)
    error = z_score((found.work_forward - exact).exp(), 1.0)
    return Measurement(error, {"mean work": float(found.work_forward.mean())})
