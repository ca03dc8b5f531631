"""The probability flow as a map between data and latents, and the density it carries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import value_and_divergence
from scorefield._random import Noise
from scorefield.process.general import GeneralSDE
from scorefield.sampling.adaptive import Solution, integrate
from scorefield.score.score import BoundScore, Score

PROBE_STEP = 2**61
"""The step number of divergence probes, disjoint from those of samplers."""

EXACT_UP_TO = 8
"""Dimension up to which divergence="auto" is exact: D vector-Jacobian products are then cheaper than many probes."""


@record
class FlowSettings:
    """How the flow is integrated.

    Args:
        rtol: Relative tolerance of each example's own Dormand-Prince solver.
        atol: Absolute tolerance, model units; of a log density over D numbers sqrt(D) times as many nats.
        divergence: "exact" takes D vector-Jacobian products a call, "hutchinson" one per probe, "auto" is exact up to
            D = 8.
        probes: Number of probes averaged, drawn once per example and kept for the whole integration.
        probe: Law of the probes; Rademacher has the smaller variance.
        max_steps: Attempts after which an example gives up with a status.
        start: Time whose density is asked for; None for the process's t_min.likelihood.

    Raises:
        ValueError: No probe, or a start outside [0, 1].
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    divergence: Literal["auto", "exact", "hutchinson"] = "auto"
    probes: int = 1
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    max_steps: int = 1000
    start: float | None = None

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes={self.probes} must be at least 1; for no probes at all use divergence='exact'")
        if self.start is not None and not 0.0 <= self.start <= 1.0:
            raise ValueError(f"start={self.start:g} is a time and lies in [0, 1]; 0 is the least noise")


@dataclass(frozen=True)
class FlowDensity:
    """The end of a flow, and its density.

    Args:
        nats: Log density of the start in model units, (B,) float64 on the CPU.
        latent: Where the flow ended, shape, dtype and device of the start.
        calls: Evaluations of the flow per example, (B,).
        status: Codes of `sampling.adaptive.STATUS`, (B,). Where it is not 0 the flow stopped early, and nats and
            latent are NaN: numbers there would be believed.
    """

    nats: Tensor
    latent: Tensor
    calls: Tensor
    status: Tensor


def start_time(score: Score, settings: FlowSettings) -> float:
    """The time whose density is computed."""
    return score.process.t_min.likelihood if settings.start is None else settings.start


def log_density(score: BoundScore, x: Tensor, noise: Noise, settings: FlowSettings) -> FlowDensity:
    """log p_s(x) = log p_prior(z) + int_s^1 div(f x - g^2 score / 2) dt along the flow from s = t_min to 1, at z.

    Song et al. 2021, section D.2 (eq. 39 and 40), as an instantaneous change of variables (Chen et al. 2018). The
    density is that of x_t at t = s, data smoothed by sigma(s). Each evaluation of the flow is one of the score, and one
    vector-Jacobian product per probe (or per dimension, if exact). Nothing returned carries a gradient.

    Args:
        score: The bound score.
        x: Points in model units, (B, *event).
        noise: Where probes come from.
        settings: See `FlowSettings`.

    Raises:
        ValueError: The score has no flow, or one whose divergence is not known.
    """
    require_flow(score)
    if isinstance(score.process, GeneralSDE) and score.process.state_dependent:
        raise ValueError(
            "the density needs second derivatives of a diffusion G(x, t); it is computed for a GeneralSDE with"
            " state_dependent=False (transport works with either)"
        )
    dimension = math.prod(x.shape[1:])
    # The log density is a sum of D terms, and its error is held to sqrt(D) times that of one of them; held to the
    # same, it would cost twice the evaluations and ask more than a float32 network keeps.
    unit = math.sqrt(dimension)
    exact = settings.divergence == "exact" or (settings.divergence == "auto" and dimension <= EXACT_UP_TO)
    # A caller's inference mode would switch the divergence's gradients off and leave a wrong number.
    with torch.inference_mode(False), torch.no_grad():
        x = x.clone()
        probes = None if exact else _probes(x, noise, settings)
        velocity = _velocity(score, x)

        def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
            state = y[:, :-1].reshape(len(y), *x.shape[1:])
            chosen = None if probes is None else probes[:, rows]
            value, divergence = value_and_divergence(lambda u: velocity(t, u, rows), state, chosen)
            return torch.cat([value.reshape(len(y), dimension), divergence[:, None] / unit], dim=1)

        y = torch.cat([x.reshape(len(x), dimension).double(), x.new_zeros(len(x), 1, dtype=torch.float64)], dim=1)
        start = torch.full((len(x),), start_time(score, settings), dtype=torch.float64)
        end = integrate(
            field,
            y,
            start,
            torch.ones_like(start),
            rtol=settings.rtol,
            atol=settings.atol,
            max_steps=settings.max_steps,
            blocks=(dimension, 1),
        )
        y = _or_nan(end)
        latent = y[:, :-1].reshape(x.shape)
        nats = score.process.prior_log_prob(latent) + unit * y[:, -1]
    return FlowDensity(nats.cpu(), latent.to(x.dtype), end.calls.cpu(), end.status.cpu())


def transport(score: BoundScore, x: Tensor, start: float, end: float, settings: FlowSettings) -> FlowDensity:
    """The flow from time `start` to `end` without a density: latents of data (upwards) or data of latents (downwards).

    Args:
        score: The bound score.
        x: Points in model units at time `start`, (B, *event).
        start: From which time.
        end: To which time, before or after it.
        settings: Tolerances and number of attempts; the rest is for densities.

    Returns:
        `FlowDensity` whose `latent` is the end state and whose `nats` are NaN.

    Raises:
        ValueError: The score has no flow.
    """
    require_flow(score)
    velocity = _velocity(score, x)

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return velocity(t, y.reshape(len(y), *x.shape[1:]), rows).reshape(y.shape)

    times = [torch.full((len(x),), time, dtype=torch.float64) for time in (start, end)]
    y = x.reshape(len(x), math.prod(x.shape[1:]))
    with torch.no_grad():
        solved = integrate(field, y, *times, rtol=settings.rtol, atol=settings.atol, max_steps=settings.max_steps)
    nats = torch.full((len(x),), torch.nan, dtype=torch.float64)
    return FlowDensity(nats, _or_nan(solved).reshape(x.shape).to(x.dtype), solved.calls.cpu(), solved.status.cpu())


def _or_nan(solution: Solution) -> Tensor:
    """The final states, (B, n), NaN where the solver gave up."""
    return torch.where((solution.status == 0)[:, None], solution.y, torch.nan)


def _velocity(score: BoundScore, x: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """dx/dt of float64 states (b, *event) of the examples `rows` of the batch x; the score is asked in x's dtype."""

    def velocity(t: Tensor, state: Tensor, rows: Tensor) -> Tensor:
        part = score if len(rows) == len(x) else score.rows(rows)
        clock = t.cpu()
        return score.process.flow_drift(state, clock, part(state.to(x.dtype), clock).to(torch.float64))

    return velocity


def _probes(x: Tensor, noise: Noise, settings: FlowSettings) -> Tensor:
    """The probes of each example, (P, B, *event)."""
    drawn = [noise.normal(x, PROBE_STEP, draw) for draw in range(settings.probes)]
    if settings.probe == "rademacher":
        drawn = [torch.where(v < 0, -1.0, 1.0) for v in drawn]
    return torch.stack(drawn).to(torch.float64)


def require_flow(score: Score) -> None:
    """Refuse a score that exists only on the levels of a ladder (a process without rates refuses by itself).

    Raises:
        ValueError: The network refuses times between its levels; says what works instead.
    """
    while isinstance(inner := getattr(score, "score", None), Score):
        score = inner
    if getattr(getattr(score, "time_input", None), "between", None) == "refuse":
        raise ValueError(
            "this network knows only the levels of its ladder, and the probability flow needs every t; sample with"
            " steps on the levels (pc, ancestral, ald), or build the score with LevelLabel(between='linear')"
        )
