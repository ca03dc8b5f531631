"""The probability flow as a map between data and latents, and the density it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, value_and_divergence
from scorefield._random import Noise
from scorefield.sampling.adaptive import integrate
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
        atol: Absolute tolerance, model units and nats.
        divergence: "exact" takes D vector-Jacobian products a call, "hutchinson" one per probe, "auto" is exact up to D = 8.
        probes: Number of probes averaged, drawn once per example and kept for the whole integration.
        probe: Law of the probes; Rademacher has the smaller variance.
        max_steps: Attempts after which an example gives up with a status.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    divergence: Literal["auto", "exact", "hutchinson"] = "auto"
    probes: int = 1
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes={self.probes} must be at least 1")


@dataclass(frozen=True)
class FlowDensity:
    """The flow's end and density: nats in model units, latents, per-example calls and status codes."""

    nats: Tensor
    latent: Tensor
    calls: Tensor
    status: Tensor


def log_density(score: BoundScore, x: Tensor, noise: Noise, settings: FlowSettings) -> FlowDensity:
    """log p_{t_min}(x) = log p_prior(z) + int div(f x - g^2 score / 2) dt along the flow from t_min to 1, which ends at z.

    Song et al. 2021, section D.2 (eq. 39 and 40), as an instantaneous change of variables (Chen et al. 2018). The density is that of
    x_t at t = process.t_min.likelihood, data smoothed by sigma(t_min).

    Args:
        score: The bound score.
        x: Points in model units, (B, *event).
        noise: Where probes come from.
        settings: See `FlowSettings`.
    """
    process, (batch, *event) = score.process, x.shape
    dimension = x[0].numel()
    exact = settings.divergence == "exact" or (settings.divergence == "auto" and dimension <= EXACT_UP_TO)
    probes = None if exact else _probes(x, noise, settings)

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        state, clock = y[:, :-1].reshape(len(y), *event), t.cpu()
        part = score if len(rows) == batch else score.rows(rows)
        chosen = None if probes is None else probes[:, rows]
        value, divergence = value_and_divergence(lambda u: part(u.to(x.dtype), clock).to(torch.float64), state, chosen)
        half = 0.5 * process.diffusion_squared(clock)
        drift = process.drift(state, clock) - over_event(half, state) * value
        rate = dimension * process.log_alpha_rate(clock).to(y) - half.to(y) * divergence
        return torch.cat([drift.reshape(len(y), -1), rate[:, None]], dim=1)

    start = torch.full((batch,), process.t_min.likelihood, dtype=torch.float64)
    y = torch.cat(
        [x.reshape(batch, -1).to(torch.float64), torch.zeros(batch, 1, dtype=torch.float64, device=x.device)], dim=1
    )
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
    latent = end.y[:, :-1].reshape(x.shape)
    nats = process.prior_log_prob(latent) + end.y[:, -1]
    # A flow that stopped early has no density; a number there would be believed.
    nats = torch.where(end.status == 0, nats, torch.nan)
    return FlowDensity(nats, latent.to(x.dtype), end.calls.cpu(), end.status.cpu())


def transport(score: BoundScore, x: Tensor, start: float, end: float, settings: FlowSettings) -> FlowDensity:
    """The flow from time `start` to `end` without a density: latents of data (upwards) or data of latents (downwards).

    Returns:
        `FlowDensity` whose `latent` is the end state and whose `nats` are NaN.
    """
    process, (batch, *event) = score.process, x.shape

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        state, clock = y.reshape(len(y), *event), t.cpu()
        part = score if len(rows) == batch else score.rows(rows)
        value = part(state.to(x.dtype), clock).to(torch.float64)
        return process.flow_drift(state, clock, value).reshape(len(y), -1)

    times = torch.full((batch,), start, dtype=torch.float64), torch.full((batch,), end, dtype=torch.float64)
    with torch.no_grad():
        solved = integrate(
            field, x.reshape(batch, -1), *times, rtol=settings.rtol, atol=settings.atol, max_steps=settings.max_steps
        )
    nats = torch.full((batch,), torch.nan, dtype=torch.float64)
    return FlowDensity(nats, solved.y.reshape(x.shape).to(x.dtype), solved.calls.cpu(), solved.status.cpu())


def _probes(x: Tensor, noise: Noise, settings: FlowSettings) -> Tensor:
    drawn = [noise.normal(x, PROBE_STEP, draw) for draw in range(settings.probes)]
    if settings.probe == "rademacher":
        drawn = [torch.where(v < 0, -1.0, 1.0) for v in drawn]
    return torch.stack(drawn).to(torch.float64)


def require_flow(score: Score) -> None:
    """Refuse a score that exists only on the levels of a ladder.

    Raises:
        ValueError: The score's network refuses times between its levels; says what works instead.
    """
    between = getattr(getattr(score, "time_input", None), "between", None)
    if between == "refuse":
        raise ValueError(
            "this network knows only the levels of its ladder, and the probability flow needs every t; sample with steps on the"
            " levels (pc, ancestral, ald), or build the score with LevelLabel(between='linear')"
        )
