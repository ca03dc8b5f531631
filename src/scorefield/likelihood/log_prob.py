"""Log densities in data units, with an error budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import near
from scorefield._random import Noise
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.likelihood.dequantisation import DEQUANTISE_STEP, Kumaraswamy, gap
from scorefield.likelihood.divergence import Exact
from scorefield.likelihood.error_budget import Moments, Term, interval, prior_mismatch, truncation
from scorefield.likelihood.probability_flow import (
    FlowDensity,
    FlowSettings,
    choose_divergence,
    decoded_density,
    log_density,
    require_flow,
    start_time,
)
from scorefield.process.process import Process
from scorefield.sampling.adaptive import failure_messages
from scorefield.score.score import BoundScore, Score

Dequantisation = Literal["uniform", "variational", "none"]
DEQUANTISATIONS = ("uniform", "variational", "none")


@dataclass(frozen=True)
class LogProb:
    """Log density of each example, one entry per example; what was not computed is None.

    log p_0 = nats + truncation + prior_mismatch + dequantisation, up to std_error and solver_error: the interval says
    so at 90 percent, and always holds nats. p_0 is the process's density at its least noise: of the data under VP, of
    data with noise sigma_min under VE; of grey levels where several draws show the gap of their bound.

    Args:
        nats: Natural log of the density in data units. For quantised data that were dequantised it is a lower bound (in
            expectation over the dequantisation noise) on the log probability of the grey levels, per quantisation step.
        bits_per_dim: -log2 of that probability per dimension, for dequantised data; else None.
        nfe: Network evaluations of each example, those of the budget included.
        status: 0, or a code of `sampling.adaptive.STATUS`; nats are NaN where it is not 0.
        of: Which density it is, in words.
        interval: Lower and upper ends of a 90 percent interval, nats, (B, 2).
        std_error: Standard error over divergence probes; 0 where the divergence is exact.
        solver_error: Error of the integration, without a sign.
        truncation: Effect of stopping at t_min, with its sign: what going on to t = 0 would add. 0 where a density at
            another time was asked for.
        prior_mismatch: Effect of the prior not being p_1, with its sign: what p_1 in its draw_point would add.
        dequantisation: Gap of the dequantisation bound, not negative; from two draws on.
        time: The time that each flow reached; 1 where the status is 0.
        norm: Root mean square of the state it reached, model units.
        per_probe: nats by each of the first probes alone, (B, P), for `difference`.
    """

    nats: Tensor
    bits_per_dim: Tensor | None
    nfe: Tensor
    status: Tensor
    of: str
    interval: Tensor | None = None
    std_error: Tensor | None = None
    solver_error: Tensor | None = None
    truncation: Tensor | None = None
    prior_mismatch: Tensor | None = None
    dequantisation: Tensor | None = None
    time: Tensor | None = None
    norm: Tensor | None = None
    per_probe: Tensor | None = None

    def __repr__(self) -> str:
        """Two lines: the mean with its interval and failures, and which density it is."""
        good = self.nats[torch.isfinite(self.nats)].double()
        bits = "" if self.bits_per_dim is None else f", {float(self.bits_per_dim.nanmean()):.4g} bits/dim"
        mean = f"mean {float(good.mean()):.6g} nats{bits}" if len(good) else "no finite value"
        width = "" if self.interval is None else (self.interval[:, 1] - self.interval[:, 0]).double()
        spread = "" if isinstance(width, str) else f", 90 % intervals of width {float(width.nanmean()):.3g} nats"
        failed = int((self.status != 0).sum())
        return (
            f"LogProb: {len(self.nats)} examples, {mean}{spread}, {failed} failed\n"
            f"  {self.of}; {float(self.nfe.double().mean()):.4g} network evaluations each"
        )

    def failures(self) -> tuple[str, ...]:
        """A line for each example whose flow gave up: which, why, at what time and how large x was."""
        return () if self.time is None or self.norm is None else failure_messages(self.status, self.time, self.norm)


def difference(first: LogProb, second: LogProb) -> tuple[Tensor, Tensor]:
    """first.nats - second.nats and its standard error over probes that both share, (B,) each.

    With the same probes (those of the same examples under two models, or `common_probes`) most of the error is common
    and cancels; it is measured from the differences probe by probe.

    Raises:
        ValueError: One probe, or other numbers of probes: then there is nothing to measure it from.
    """
    a, b = first.per_probe, second.per_probe
    if a is None or b is None or a.shape != b.shape or a.shape[1] < 2:
        seen = [None if p is None else tuple(p.shape) for p in (a, b)]
        raise ValueError(
            f"a difference needs the same two probes or more of both; nats by probe are {seen}. Compute both with"
            " FlowSettings(divergence='hutchinson', probes=4, common_probes=True)"
        )
    d = a - b
    return d.mean(dim=1), d.std(dim=1) / d.shape[1] ** 0.5


def flow_log_prob(
    score: Score,
    x: Tensor,
    data: DataSpec,
    noise: Noise,
    *,
    condition: Condition | None = None,
    dequantise: Dequantisation | None = None,
    draws: int = 1,
    moments: Moments | None = None,
    settings: FlowSettings | None = None,
    dtype: torch.dtype = torch.float32,
) -> LogProb:
    """Log density of data by the probability flow, with an error budget.

    Args:
        score: The score.
        x: Data in data units, (B, *shape).
        data: Their spec; its log-Jacobian brings nats from model to data units.
        noise: Where dequantisation noise and probes come from.
        condition: What is known of each example.
        dequantise: "uniform" adds noise inside each grey level's bin (the default for quantised data: the density of a
            discrete variable is infinite, and a model can win nats without limit by learning the grid; Theis et al.
            2016), "variational" adds noise of a law fitted to each example, a tighter bound for 40 evaluations more,
            "none" takes x as it is (the default for continuous data).
        draws: Dequantisation draws, each a flow of its own; from two on their spread gives the gap of the bound.
        moments: Of the data in model units, for the prior mismatch; without them it is less certain.
        settings: Of the flow.
        dtype: In which the score is evaluated.

    Raises:
        ValueError: x is not of this spec, the score has no flow, continuous data were to be dequantised, or several
            draws were asked for where nothing is drawn.
    """
    if dequantise not in (None, *DEQUANTISATIONS):
        raise ValueError(f"dequantise={dequantise!r} is no method to dequantise.{near(dequantise, DEQUANTISATIONS)}")
    # A density exists outside the data's range too, where an unclipped sample may lie; whoever says "none" knows.
    data.check(x, name="x", values=dequantise != "none")
    settings = settings or FlowSettings()
    method = dequantise or ("none" if data.levels is None else "uniform")
    if draws < 1 or (draws > 1 and method == "none"):
        raise ValueError(
            f"draws={draws} counts dequantisation draws, at least 1; data that are not dequantised have one"
        )
    require_flow(score)
    bound = score.bind(condition)
    start = start_time(score, settings)
    draw_point, extra = _dequantiser(bound, x, data, noise, method, start, dtype)
    points, penalties = zip(*(draw_point(k) for k in range(draws)), strict=True)
    flows = [log_density(bound, point, noise, settings) for point in points]
    per_draw = torch.stack([f.nats - p for f, p in zip(flows, penalties, strict=True)])
    per_draw = per_draw + data.log_jacobian(dequantised=method != "none")
    nats = per_draw.mean(dim=0)
    budget = _Budget(bound, noise, settings, moments, data)
    truncated, prior, solver, calls = budget.of(points[0], flows[0])
    gap_term = gap(per_draw) if draws > 1 else None
    std_error = torch.stack([f.std_error for f in flows]).mean(dim=0)  # the draws share their probes
    ends = None
    if solver is not None:
        known = [term for term in (truncated, prior, gap_term) if term is not None]
        ends = interval(nats, std_error, flows[0].per_probe.shape[1], [solver], known)
    status = torch.stack([f.status for f in flows]).amax(dim=0)
    worst = flows[0] if draws == 1 else _worst(flows)
    offset = (nats - torch.stack([f.nats for f in flows]).mean(dim=0))[:, None]
    return LogProb(
        nats=nats,
        bits_per_dim=data.bits_per_dim(nats) if method != "none" else None,
        nfe=calls + extra + torch.stack([f.calls for f in flows]).sum(dim=0),
        status=status,
        of=_description(score, start, method),
        interval=ends,
        std_error=std_error,
        solver_error=solver,
        truncation=truncated.value,
        prior_mismatch=None if prior is None else prior.value,
        dequantisation=None if gap_term is None else gap_term.value,
        time=worst.time,
        norm=worst.state.flatten(1).double().square().mean(dim=1).sqrt().cpu(),
        per_probe=torch.stack([f.per_probe for f in flows]).mean(dim=0) + offset,
    )


def flow_samples(
    score: Score,
    latent: Tensor,
    data: DataSpec,
    noise: Noise,
    *,
    condition: Condition | None = None,
    settings: FlowSettings | None = None,
) -> tuple[Tensor, LogProb]:
    """Samples of the flow with their log density, in one integration.

    Args:
        score: The score.
        latent: Latents, model units, (B, *event).
        data: Spec of the data.
        noise: Where probes come from.
        condition: What is known of each example.
        settings: Of the flow.

    Returns:
        Samples in model units at t_min, not denoised, as the density is of those; and the density in data units, with
        standard errors over probes and no other term of the budget.

    Raises:
        ValueError: The score has no flow.
    """
    settings = settings or FlowSettings()
    flow = decoded_density(score.bind(condition), latent, noise, settings)
    jacobian = data.log_jacobian(dequantised=False)
    found = LogProb(
        nats=flow.nats + jacobian,
        bits_per_dim=None,
        nfe=flow.calls,
        status=flow.status,
        of=_description(score, start_time(score, settings), "none"),
        std_error=flow.std_error,
        time=flow.time,
        norm=flow.state.flatten(1).double().square().mean(dim=1).sqrt().cpu(),
        per_probe=flow.per_probe + jacobian,
    )
    return flow.latent, found


DrawPoint = Callable[[int], tuple[Tensor, Tensor]]
"""Draw k: points in model units, and log q of the noise that brought them there, (B,)."""


def _dequantiser(
    bound: BoundScore, x: Tensor, data: DataSpec, noise: Noise, method: str, start: float, dtype: torch.dtype
) -> tuple[DrawPoint, int]:
    """How x comes to model units, and how many evaluations of the score that took."""
    # float64 through the units, so that nats of the same example do not depend on the units it is given in.
    wide, nothing = x.double(), torch.zeros(len(x), dtype=torch.float64)
    if method == "none":
        return lambda k: (data.to_model(wide).to(dtype), nothing), 0

    def uniform(k: int) -> Tensor:
        return noise.uniform(x.to(torch.float32), DEQUANTISE_STEP, k).double()

    if method == "uniform":
        return lambda k: (data.dequantise(wide, uniform(k)).to(dtype), nothing), 0
    data.dequantise(wide, torch.zeros_like(wide))  # refuses continuous data before anything is fitted
    before = bound.calls
    q = Kumaraswamy.fitted(bound, wide, data, noise, start, dtype)

    def fitted(k: int) -> tuple[Tensor, Tensor]:
        u, log_q = q.draw(uniform(k))
        return data.dequantise(wide, u).to(dtype), log_q.cpu()

    return fitted, bound.calls - before


def _worst(flows: list[FlowDensity]) -> FlowDensity:
    """The first flow, or, of examples that gave up in another, that one's state and time."""
    found = flows[0]
    for other in flows[1:]:
        failed = (found.status == 0) & (other.status != 0)
        state = torch.where(
            failed.to(found.state.device).reshape(-1, *(1,) * (found.state.ndim - 1)), other.state, found.state
        )
        time = torch.where(failed, other.time, found.time)
        found = replace(found, state=state, time=time, status=torch.maximum(found.status, other.status))
    return found


class _Budget:
    """The terms beside the standard error, at one draw; each costs a few evaluations, or half a flow (the solver's)."""

    def __init__(
        self, bound: BoundScore, noise: Noise, settings: FlowSettings, moments: Moments | None, data: DataSpec
    ):
        self._bound, self._noise, self._settings, self._data = bound, noise, settings, data
        self._moments = moments

    def of(self, x: Tensor, flow: FlowDensity) -> tuple[Term, Term | None, Tensor | None, Tensor]:
        """Truncation, prior mismatch or None, the solver's error or None, and evaluations; all (B,)."""
        before, settings = self._bound.calls, self._settings
        divergence = choose_divergence(x, self._noise, settings)
        with torch.inference_mode(False), torch.no_grad():
            nothing = torch.zeros(len(x), dtype=torch.float64)
            truncated = Term(nothing, nothing)
            if settings.start is None:
                truncated = truncation(self._bound, x.clone(), divergence, start_time(self._bound, settings))
            prior = prior_mismatch(self._bound, flow.latent.clone(), self._data, self._moments)
        calls = torch.full((len(x),), self._bound.calls - before)
        if settings.loosened is None:
            return truncated, prior, None, calls
        # One probe is enough: what the solver does to its estimate, it does to those of the others.
        method = (
            "exact"
            if isinstance(divergence, Exact)
            else "hutch++"
            if settings.divergence == "hutch++"
            else "hutchinson"
        )
        loose = replace(
            settings,
            rtol=settings.loosened * settings.rtol,
            atol=settings.loosened * settings.atol,
            divergence=method,
            probes=1,
            target_se=None,
        )
        other = log_density(self._bound, x, self._noise, loose)
        moved = other.per_probe[:, 0] - flow.per_probe[:, 0]
        # Two errors may be equal by chance; a step is allowed about this much, so no less is stated.
        allowed = (settings.atol + settings.rtol) * math.sqrt(self._data.dimension)
        return truncated, prior, (moved.square() + allowed**2).sqrt(), calls + other.calls


def _description(score: Score, start: float, method: str) -> str:
    """Which density it is."""
    of = f"x_t at t = {start:g}"
    if isinstance(score.process, Process):
        sigma = float(score.process.sigma(torch.tensor([start], dtype=torch.float64)))
        of += f" (noise {sigma:.3g} in model units)"
    return of + {"none": "", "uniform": ", uniformly dequantised", "variational": ", variationally dequantised"}[method]
