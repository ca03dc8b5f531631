"""Log densities in data units, with an error budget and bits per dimension."""

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
from scorefield.likelihood.error_budget import Moments, Term, interval, prior_mismatch, truncation
from scorefield.likelihood.probability_flow import (
    FlowDensity,
    FlowSettings,
    choose_divergence,
    decoded_density,
    estimator,
    is_exact,
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
    """Log densities with their error budget, one entry per example; quantities that were not computed are None.

    log p_0 = nats + truncation + prior_mismatch + dequantisation, up to std_error and solver_error. The interval
    contains log p_0 with 90 percent coverage and always contains nats. p_0 is the density of the process at its least
    noise: that of the data under VP and of data with noise sigma_min under VE. For dequantised data it is the
    probability of the grey levels, if two or more draws give the gap of the bound.

    Args:
        nats: Natural log of the density in data units. For quantised data that were dequantised it is a lower bound (in
            expectation over the dequantisation noise) on the log probability of the grey levels, per quantisation step.
        bits_per_dim: -log2 of that probability per dimension, for dequantised data; else None.
        nfe: Network evaluations of each example, including those of the budget.
        status: 0, or a code of `sampling.adaptive.STATUS`; nats are NaN where it is not 0.
        of: Description of the density in words.
        interval: Lower and upper ends of a 90 percent interval, nats, (B, 2).
        std_error: Standard error over divergence probes; 0 where the divergence is exact.
        solver_error: Estimated size of the error of the integration, without a sign.
        truncation: Correction for stopping at t_min, with its sign: the change of nats if the flow were continued to
            t = 0. It is 0 where `FlowSettings.start` asks for the density at another time.
        prior_mismatch: Correction for using the prior, with its sign: the change of nats if p_1 were used instead.
        dequantisation: Gap of the dequantisation bound, not negative; needs two or more draws.
        time: The time that each flow reached; 1 where the status is 0.
        norm: Root mean square of the state at that time, model units.
        per_probe: nats computed with each of the first probes alone, (B, P), for `difference`.
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
        """Two lines: the mean with the interval and the number of failures, and the description of the density."""
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
        """One line for each failed example: its index, status, the time reached and the size of x there."""
        return () if self.time is None or self.norm is None else failure_messages(self.status, self.time, self.norm)


def difference(first: LogProb, second: LogProb) -> tuple[Tensor, Tensor]:
    """first.nats - second.nats and its standard error over the probes that both share, (B,) each.

    With equal probes (those of the same examples under two models, or `common_probes`) most of the error is common to
    both and cancels. The standard error is computed from the differences for each probe.

    Raises:
        ValueError: The two have different numbers of probes, or fewer than two.
    """
    a, b = first.per_probe, second.per_probe
    if a is None or b is None or a.shape != b.shape or a.shape[1] < 2:
        shapes = " and ".join("none" if p is None else str(tuple(p.shape)) for p in (a, b))
        raise ValueError(
            f"a difference needs at least two probes, the same for both; the nats per probe have shapes {shapes}."
            " Compute both with FlowSettings(divergence='hutchinson', probes=4, common_probes=True)"
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
        data: The spec of the data; its log-Jacobian converts nats from model to data units.
        noise: Source of the dequantisation noise and the probes.
        condition: The variables that the score is conditioned on, by name, one row per example.
        dequantise: "uniform" adds uniform noise inside the bin of each grey level. It is the default for quantised
            data, because a discrete variable has no density and a model can raise nats without limit by learning the
            grid (Theis et al. 2016). "variational" adds noise from a distribution fitted to each example, a tighter
            bound for 40 further evaluations. "none" takes x as it is, the default for continuous data.
        draws: Number of dequantisation draws, each with its own flow; two or more give the gap of the bound.
        moments: Moments of the data in model units, for the prior mismatch, which is less certain without them.
        settings: Settings of the flow.
        dtype: Dtype in which the score is evaluated.

    Raises:
        ValueError: x does not fit the spec, the score has no flow, continuous data were to be dequantised, or several
            draws were given for data that are not dequantised.
    """
    if dequantise not in (None, *DEQUANTISATIONS):
        known = ", ".join(DEQUANTISATIONS)
        raise ValueError(f"dequantise={dequantise!r} must be one of {known}.{near(dequantise, DEQUANTISATIONS)}")
    # A density exists outside the range of the data too, where unclipped samples may lie, so an explicit "none" is
    # not checked for it.
    data.check(x, name="x", values=dequantise != "none")
    settings = settings or FlowSettings()
    method = dequantise or ("none" if data.levels is None else "uniform")
    if draws < 1 or (draws > 1 and method == "none"):
        raise ValueError(
            f"draws={draws} is the number of dequantisation draws and must be at least 1, and exactly 1 for data that"
            " are not dequantised"
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
    # The corrections and the solver error are computed at one dequantisation draw.
    truncated, prior, calls = _corrections(bound, points[0], flows[0], noise, settings, moments, data)
    gap_term = gap(per_draw) if draws > 1 else None
    std_error = torch.stack([f.std_error for f in flows]).mean(dim=0)  # the draws share their probes
    solver = ends = None
    if settings.loosened is not None:
        solver, more_calls = _solver_error(bound, points[0], flows[0], noise, settings, settings.loosened)
        calls = calls + more_calls
        terms = [term for term in (truncated, prior, gap_term) if term is not None]
        ends = interval(nats, std_error, flows[0].per_probe.shape[1], [solver], terms)
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
    """Samples of the probability flow with their log density, in one integration.

    Args:
        score: The score.
        latent: Latents, model units, (B, *event).
        data: The spec of the data.
        noise: Source of the probes.
        condition: The variables that the score is conditioned on, by name, one row per example.
        settings: Settings of the flow.

    Returns:
        Samples in model units at t_min, which are not denoised because the density is that of x at t_min, and the
        density in data units, with standard errors over probes but no other term of the budget.

    Raises:
        ValueError: The score has no probability flow.
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
"""k -> the k-th dequantised points in model units, (B, *event), and log q of their noise, (B,)."""


def _dequantiser(
    bound: BoundScore, x: Tensor, data: DataSpec, noise: Noise, method: str, start: float, dtype: torch.dtype
) -> tuple[DrawPoint, int]:
    """The function that maps x to model units with the noise of draw k, and the score evaluations of fitting it."""
    # The units are converted in float64, so that the nats of an example do not depend on the units of its data.
    wide, zero = x.double(), torch.zeros(len(x), dtype=torch.float64)
    if method == "none":
        return lambda k: (data.to_model(wide).to(dtype), zero), 0

    def uniform(k: int) -> Tensor:
        return noise.uniform(x.to(torch.float32), DEQUANTISE_STEP, k).double()

    if method == "uniform":
        return lambda k: (data.dequantise(wide, uniform(k)).to(dtype), zero), 0
    data.dequantise(wide, torch.zeros_like(wide))  # refuses continuous data before anything is fitted
    before = bound.calls
    q = Kumaraswamy.fitted(bound, wide, data, noise, start, dtype)

    def fitted(k: int) -> tuple[Tensor, Tensor]:
        u, log_q = q.draw(uniform(k))
        return data.dequantise(wide, u).to(dtype), log_q.cpu()

    return fitted, bound.calls - before


def _worst(flows: list[FlowDensity]) -> FlowDensity:
    """The first flow, with state, time and status of another one for examples that failed only in that one."""
    found = flows[0]
    for other in flows[1:]:
        failed = (found.status == 0) & (other.status != 0)
        state = torch.where(
            failed.to(found.state.device).reshape(-1, *(1,) * (found.state.ndim - 1)), other.state, found.state
        )
        time = torch.where(failed, other.time, found.time)
        found = replace(found, state=state, time=time, status=torch.maximum(found.status, other.status))
    return found


def _corrections(
    bound: BoundScore,
    x: Tensor,
    flow: FlowDensity,
    noise: Noise,
    settings: FlowSettings,
    moments: Moments | None,
    data: DataSpec,
) -> tuple[Term, Term | None, Tensor]:
    """Truncation, prior mismatch (None where it is not defined) and the score evaluations they took, each (B,)."""
    before = bound.calls
    with torch.inference_mode(False), torch.no_grad():
        zero = torch.zeros(len(x), dtype=torch.float64)
        truncated = Term(zero, zero)
        if settings.start is None:
            divergence = choose_divergence(x, noise, settings)
            truncated = truncation(bound, x.clone(), divergence, start_time(bound, settings))
        prior = prior_mismatch(bound, flow.latent.clone(), data, moments)
    return truncated, prior, torch.full((len(x),), bound.calls - before)


def _solver_error(
    bound: BoundScore, x: Tensor, flow: FlowDensity, noise: Noise, settings: FlowSettings, loosened: float
) -> tuple[Tensor, Tensor]:
    """The solver error and the score evaluations it took, each (B,).

    It is the change of nats when both tolerances are multiplied by `loosened`, estimated with the first probe.
    """
    dimension = math.prod(x.shape[1:])
    loose = replace(
        settings,
        rtol=loosened * settings.rtol,
        atol=loosened * settings.atol,
        divergence="exact" if is_exact(settings, dimension) else estimator(settings),
        probes=1,  # enough, because the error of the solver is nearly the same for all probes
        target_se=None,
    )
    other = log_density(bound, x, noise, loose)
    change = other.per_probe[:, 0] - flow.per_probe[:, 0]
    # Two results may agree by chance. A step is allowed about this error, so no smaller error is stated.
    allowed = (settings.atol + settings.rtol) * math.sqrt(dimension)
    return (change.square() + allowed**2).sqrt(), other.calls


def _description(score: Score, start: float, method: str) -> str:
    """Description of the density in words."""
    of = f"x_t at t = {start:g}"
    if isinstance(score.process, Process):
        sigma = float(score.process.sigma(torch.tensor([start], dtype=torch.float64)))
        of += f" (noise {sigma:.3g} in model units)"
    return of + {"none": "", "uniform": ", uniformly dequantised", "variational": ", variationally dequantised"}[method]
