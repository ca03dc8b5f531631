"""Checks of likelihoods, latents and normalising constants."""

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
from scorefield.selftest.check import DEVIATIONS, Bench, Found, Room, Stream, largest, relative, surprise, times

ROOM = Room("likelihood", "error budgets, latents of the flow, normalising constants")

PROCESSES: dict[str, Process] = {"VE": VE(0.05, 20.0), "VP": VP(), "sub-VP": SubVP()}
POINTS = 12


def _moments(oracle: Oracle) -> Moments:
    mean, covariance = oracle.data_moments()
    return Moments(mean.reshape(-1), covariance)


def _densities(bench: Bench, settings: FlowSettings, seed: int = 1) -> dict[str, tuple[Any, Tensor]]:
    """The answer and the truth for a Gaussian and a mixture under every process: log p of x_t at t = 0."""
    found = {}
    for name, process in PROCESSES.items():
        for kind, oracle in (("Gaussian", skewed_gaussian(process)), ("mixture", skewed_mixture(process))):
            x = bench.to(oracle.sample(POINTS, seed=seed))
            # At t = 0 VE still has the noise sigma_min; VP and sub-VP have none.
            answer = flow_log_prob(
                oracle, x, DataSpec((2,)), IndexedNoise(2, range(POINTS)), moments=_moments(oracle),
                settings=settings, dtype=bench.dtype,
            )  # fmt: skip
            found[f"{kind}, {name}"] = (answer, oracle.log_prob(x.cpu().double(), 0.0))
    return found


@ROOM.check(
    "likelihood",
    claim="log densities by the probability flow are the exact ones, once their stated corrections are made",
    by="nats + truncation + prior mismatch against log p_0 of Gaussians and mixtures, nats; divergence exact",
    allowed=5e-3,
    unit="nats",
    why="what two moments of the data leave open of p_1 under VE; solver tolerance 1e-6",
    single=1e-2,
)
def _likelihood(bench: Bench) -> Found:
    errors = {}
    for name, (answer, truth) in _densities(bench, FlowSettings(rtol=1e-6, atol=1e-6, divergence="exact")).items():
        errors[name] = float((answer.nats + answer.truncation + answer.prior_mismatch - truth).abs().max())
    return largest(errors)


@ROOM.check(
    "error budget",
    claim="the exact log density lies inside the stated interval",
    by="how far log p_0 is from the way from nats to corrected nats, in stated uncertainties, at the worst point",
    allowed=1.0,
    unit="stated uncertainties",
    why="beyond 1 it is outside the interval; with an exact divergence nothing in the budget is random",
)
def _budget(bench: Bench) -> Found:
    errors = {}
    for name, (answer, truth) in _densities(bench, FlowSettings(divergence="exact")).items():
        corrected = answer.nats + answer.truncation + answer.prior_mismatch
        low, high = torch.minimum(answer.nats, corrected), torch.maximum(answer.nats, corrected)
        uncertainty = 0.5 * (answer.interval[:, 1] - answer.interval[:, 0] - (high - low))
        errors[name] = float(((truth - truth.clamp(low, high)).abs() / uncertainty).max())
    return largest(errors)


@ROOM.check(
    "divergences",
    claim="Hutchinson's estimate is the trace, in the mean over orthonormal probes",
    by="mean of v' (df/dx) v over v = sqrt(D) u_k against the exact trace, for a field that is no gradient",
    allowed=1e-11,
    why="float64 rounding of a few products",
    single=1e-4,
)
def _divergences(bench: Bench) -> Found:
    def field(x: Tensor) -> Tensor:
        a, b, c = x.unbind(1)
        return torch.stack([(a * b).sin() - a, b.cos() * c - b**3, a - c * (0.3 * b).tanh()], dim=1)

    x = bench.normal(6, 3, seed=3)
    turned, _ = torch.linalg.qr(bench.normal(6, 3, 3, seed=4).cpu())
    probes = bench.to(math.sqrt(3.0) * turned).transpose(0, 1)
    return largest(
        {"trace": relative(value_and_divergence(field, x, probes)[1], value_and_divergence(field, x, None)[1])}
    )


def _carried(oracle: Gaussian, x: Tensor, start: float, end: float) -> Tensor:
    """Where the exact flow carries x: deviations from the mean scale, mode by mode, as the standard deviations do."""
    process, (m, C) = oracle.process, oracle.data_moments()
    (a, b), (r, q) = process.alpha(times(start, end)), process.sigma(times(start, end))
    variances, U = torch.linalg.eigh(C)
    scale = ((b**2 * variances + q**2) / (a**2 * variances + r**2)).sqrt()
    return b * m + (scale * ((x - a * m) @ U)) @ U.T


@ROOM.check(
    "latents",
    claim="data are encoded to the right latents",
    by="the flow carries quantiles to quantiles, in closed form on a Gaussian (Song et al. 2021, section D.4)",
    allowed=1e-4,
    why="local errors of 1e-7 over some tens of steps, multiplied up to twentyfold on the way",
    single=1e-2,
)
def _latents(bench: Bench) -> Found:
    settings, errors = FlowSettings(rtol=1e-7, atol=1e-7), {}
    for name, process in PROCESSES.items():
        oracle, low = skewed_gaussian(process), process.t_min.likelihood
        x = oracle.sample(6, low, seed=5)
        found = transport(oracle.bind(None), bench.to(x), low, 1.0, settings).latent
        errors[name] = relative(found, _carried(oracle, x, low, 1.0))
    return largest(errors)


@ROOM.check(
    "there and back",
    claim="what was encoded decodes to itself",
    by="the flow of a mixture from t_min to 1 and back",
    allowed=1e-4,
    why="local errors of 1e-7 over some tens of steps each way, multiplied by the flow's expansion",
    single=1e-2,
)
def _back(bench: Bench) -> Found:
    settings, errors = FlowSettings(rtol=1e-7, atol=1e-7), {}
    for name, process in PROCESSES.items():
        oracle, low = skewed_mixture(process), process.t_min.likelihood
        x = bench.to(oracle.sample(6, low, seed=6))
        latent = transport(oracle.bind(None), x, low, 1.0, settings).latent
        errors[name] = relative(transport(oracle.bind(None), latent, 1.0, low, settings).latent, x)
    return largest(errors)


# ------------------------------------------------------------------------------------------------ log Z

_CENTRE, _STD, _T = (-1.0, 0.5, 2.0), (0.3, 0.7, 1.1), 2.0


def _uneven(x: Tensor) -> Tensor:
    """T = 2 times a Gaussian's energy, moved by 6."""
    return ((x - times(*_CENTRE).to(x)) / times(*_STD).to(x)).square().sum(1) + 6.0


def _log_z(bench: Bench) -> tuple[Any, float]:
    base = GaussianBase(times(-0.7, 0.3, 1.5), times(0.5, 0.9, 1.4))
    z = Stream(7).normal(torch.empty(128, 3, dtype=torch.float64), 0, 0)
    starts = bench.to(times(*_CENTRE) + times(*_STD) * z)
    settings = AISSettings(rungs=40, pilot=16)
    found = log_z(Energy(_uneven, sigma_0=0.1), base, starts, temperature=_T, settings=settings)
    return found, math.log(math.prod(_STD)) + 1.5 * math.log(2.0 * math.pi) - 3.0


@ROOM.check(
    "log Z",
    claim="annealed importance sampling finds the normalising constant of an energy, and states an error that is one",
    by="forward and reverse chains and Bennett's acceptance ratio (Crooks 2000), uneven Gaussian, in standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _normaliser(bench: Bench) -> Found:
    found, truth = _log_z(bench)
    if found.value is None or found.verdict != "ok":
        return Found(math.inf, {"verdict is not ok": 1.0})
    details = {"log Z": found.value, "truth": truth, "standard error": found.standard_error}
    details |= {"95 % interval, low": found.interval[0], "95 % interval, high": found.interval[1]}
    return Found(abs(found.value - truth) / found.standard_error, details)


@ROOM.check(
    "log Z, no work",
    claim="where base and target are one law, no chain collects any work",
    by="log Z of a normalised energy from itself",
    allowed=1e-10,
    why="float64 rounding of sums of work that cancel",
    unit="nats",
)
def _no_work(bench: Bench) -> Found:
    base = GaussianBase(times(*_CENTRE), times(*_STD))
    starts = times(*_CENTRE) + times(*_STD) * bench.normal(32, 3, seed=8).cpu()
    found = log_z(base.energy, base, bench.to(starts), schedule=Schedule((0.0, 0.5, 1.0), (0.1,), 1, 0.0))
    return largest({"log Z": math.inf if found.value is None else abs(found.value)})


@ROOM.check(
    "energies' weights",
    claim="the works of forward chains average to the ratio of normalising constants, however few rungs there are",
    by="E exp(w) = Z_1 / Z_0 (Jarzynski 1997), the mean over 128 chains in standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _works(bench: Bench) -> Found:
    found, truth = _log_z(bench)
    return Found(surprise((found.work_forward - truth).exp(), 1.0), {"mean work": float(found.work_forward.mean())})
