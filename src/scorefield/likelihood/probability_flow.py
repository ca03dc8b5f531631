"""The probability flow as a map between data and latents, and the density that it defines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import IndexedNoise, Noise
from scorefield.likelihood.divergence import Divergence, Exact, Hutchinson, HutchPlusPlus
from scorefield.process.general import GeneralSDE
from scorefield.sampling.adaptive import Solution, failure_messages, flow_field, integrate
from scorefield.score.score import BoundScore, Score

PROBE_STEP = 2**61
"""Step number of the noise of divergence probes, disjoint from the step numbers of samplers."""

SKETCH_STEP = 2**61 + 2
"""Step number of the noise of the sketches of Hutch++."""

EXACT_UP_TO = 8
"""Dimension D up to which divergence="auto" is exact, because D vector-Jacobian products are cheap there."""

MOST_NEW_PROBES = 16
"""Most probes that `target_se` adds to an example in one integration; each adds D + 1 numbers to the state."""


@record
class FlowSettings:
    """Settings of the integration of the probability flow.

    Args:
        rtol: Relative tolerance of the Dormand-Prince solver, which has its own steps for each example.
        atol: Absolute tolerance, model units. For the log density over D numbers it is multiplied by sqrt(D), in nats.
        divergence: "exact" takes D vector-Jacobian products per evaluation, "hutchinson" one per probe, "hutch++" two
            per column of its sketch and one per probe. "auto" is exact for D up to 8 or D or more probes, and
            hutchinson otherwise.
        probes: Number of probes that are averaged; they are drawn once per example and kept for the whole integration.
        probe: Distribution of the probes; Rademacher probes have the smaller variance.
        max_steps: Number of attempted steps after which an example stops with a status.
        start: Time whose density is computed; None for the process's t_min.likelihood.
        retries: How often a stopped example is continued with smaller steps (`sampling.adaptive.integrate`).
        target_se: Standard error in nats below which an example has enough probes. Probes are added until it is
            reached, or `max_probes`. Where D probes or more would be needed, the divergence is computed exactly.
        max_probes: Most probes of one example when `target_se` adds them.
        common_probes: Whether every example uses the probes of index 0. The errors of two examples are then nearly
            equal, and their difference is more certain than either value. Standard errors are still those of single
            examples.
        sketch: Number of columns of the sketch of "hutch++".
        loosened: Factor by which both tolerances are multiplied in a second integration, whose difference from the
            first is the estimate of the solver error. It costs about half as much as the first; None leaves out the
            estimate, and with it the interval.

    Raises:
        ValueError: A tolerance is not positive, a number of probes, columns or retries is out of range, `target_se` or
            `loosened` is out of range, or `start` lies outside [0, 1].
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    divergence: Literal["auto", "exact", "hutchinson", "hutch++"] = "auto"
    probes: int = 1
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    max_steps: int = 1000
    start: float | None = None
    retries: int = 1
    target_se: float | None = None
    max_probes: int = 256
    common_probes: bool = False
    sketch: int = 4
    loosened: float | None = 10.0

    def __post_init__(self) -> None:
        if not (self.rtol > 0.0 and self.atol > 0.0):
            raise ValueError(
                f"rtol={self.rtol:g} and atol={self.atol:g} must both be positive; the published value is 1e-5"
            )
        if self.target_se is not None and not self.target_se > 0.0:
            raise ValueError(
                f"target_se={self.target_se:g} must be a positive number of nats; for a divergence without error use"
                " divergence='exact'"
            )
        if self.loosened is not None and not self.loosened > 1.0:
            raise ValueError(
                f"loosened={self.loosened:g} must be greater than 1, or None for no estimate of the solver error"
            )
        if self.sketch < 1 or self.retries < 0:
            raise ValueError(
                f"sketch={self.sketch} must be at least 1, and retries={self.retries} must not be negative"
            )
        if self.probes < 1:
            raise ValueError(
                f"probes={self.probes} must be at least 1; to compute the divergence without probes use"
                " divergence='exact'"
            )
        if self.start is not None and not 0.0 <= self.start <= 1.0:
            raise ValueError(f"start={self.start:g} is a time and must lie in [0, 1], where 0 has the least noise")


@dataclass(frozen=True)
class FlowDensity:
    """The end points of the flow and the log density of its data end.

    Args:
        nats: Log density in model units, (B,) float64 on the CPU.
        latent: The end point of the flow, with shape, dtype and device of its initial point.
        calls: Evaluations of the flow for each example, (B,).
        status: Codes of `sampling.adaptive.STATUS`, (B,). Where it is not 0 the flow stopped early, and nats and latent
            are NaN, so that an unfinished value is not mistaken for a result.
        state: The last accepted state of every example, failed ones included, like `latent`.
        time: The time at which that state was reached, (B,).
        per_probe: nats computed with each of the first P probes alone, (B, P); (B, 1) where the divergence is exact.
        std_error: Standard error of nats over the probes, (B,); 0 where the divergence is exact.
    """

    nats: Tensor
    latent: Tensor
    calls: Tensor
    status: Tensor
    state: Tensor
    time: Tensor
    per_probe: Tensor
    std_error: Tensor

    def failures(self) -> tuple[str, ...]:
        """One line for each failed example."""
        return failure_messages(self.status, self.time, self.state.flatten(1).double().square().mean(dim=1).sqrt())


def start_time(score: Score, settings: FlowSettings) -> float:
    """The time whose density is computed."""
    return score.process.t_min.likelihood if settings.start is None else settings.start


def log_density(score: BoundScore, x: Tensor, noise: Noise, settings: FlowSettings) -> FlowDensity:
    """log p_s(x) = log p_prior(z) + int_s^1 div(f x - g^2 score / 2) dt along the flow from x at s = t_min to z at 1.

    Song et al. 2021, section D.2 (eq. 39 and 40), an instantaneous change of variables (Chen et al. 2018). The density
    is that of x_t at t = s, data smoothed by sigma(s). Each evaluation of the flow takes one score evaluation, and one
    vector-Jacobian product per probe (or per dimension, if exact). The results carry no gradient.

    Args:
        score: The bound score.
        x: Points in model units, (B, *event).
        noise: Source of the probes.
        settings: See `FlowSettings`.

    Raises:
        ValueError: The score has no probability flow, or the divergence of its flow cannot be computed.
    """
    _check_density(score, settings)
    # In a caller's inference mode the gradients of the divergence would silently be zero.
    with torch.inference_mode(False), torch.no_grad():
        x = x.clone()
        first = integrate_density(score, x, choose_divergence(x, noise, settings), settings)
        return first if settings.target_se is None else _with_more_probes(first, score, x, noise, settings)


def _check_density(score: BoundScore, settings: FlowSettings) -> None:
    """Refuse a score without a probability flow, or with a flow whose divergence cannot be computed."""
    require_flow(score)
    if isinstance(score.process, GeneralSDE) and score.process.state_dependent:
        raise ValueError(
            "this GeneralSDE has a state-dependent diffusion G(x, t), whose second derivatives the density would need;"
            " a density is computed for state_dependent=False only (transport works with either)"
        )
    score.process.check_time(torch.tensor([start_time(score, settings)]))


def decoded_density(score: BoundScore, latent: Tensor, noise: Noise, settings: FlowSettings) -> FlowDensity:
    """Samples and their log density in one integration: from latents at t = 1 down to s = t_min.

    log p_s(x) = log p_prior(z) - int_1^s div(f x - g^2 score / 2) dt. `FlowDensity.latent` is x, the end of the
    integration.

    Args:
        score: The bound score.
        latent: z, model units, (B, *event).
        noise: Source of the probes.
        settings: See `FlowSettings`; `target_se`, whose additional probes are integrated upward, has no effect here.

    Raises:
        ValueError: The score has no probability flow, or the divergence of its flow cannot be computed.
    """
    _check_density(score, settings)
    with torch.inference_mode(False), torch.no_grad():
        z = latent.clone()
        return integrate_density(score, z, choose_divergence(z, noise, settings), settings, upward=False)


def integrate_density(
    score: BoundScore, x: Tensor, divergence: Divergence, settings: FlowSettings, *, upward: bool = True
) -> FlowDensity:
    """Integrate the flow and its divergence together.

    Args:
        score: The bound score.
        x: Data if `upward`, else latents, (B, *event).
        divergence: The divergence, with its probes.
        settings: Tolerances and limits of the solver.
        upward: Whether to integrate from data to latents, as `log_density`, or down, as `decoded_density`.
    """
    D, P = math.prod(x.shape[1:]), divergence.size
    # The log density is a sum of D terms, so its tolerance is sqrt(D) times that of a coordinate. With the same
    # tolerance the solver would take twice the evaluations and exceed the accuracy of a float32 network.
    unit = math.sqrt(D)
    flow = flow_field(score, score.process, x)

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        def velocity(u: Tensor) -> Tensor:
            return flow(t, u.reshape(len(y), D), rows).reshape(u.shape)

        state = y[:, :D].reshape(len(y), *x.shape[1:])
        value, estimates, carried = divergence.evaluate(velocity, state, rows)
        return torch.cat([value.reshape(len(y), D), estimates / unit, carried], dim=1)

    y = torch.cat([x.reshape(len(x), D).double(), x.new_zeros(len(x), P + divergence.carried).double()], dim=1)
    lowest = torch.full((len(x),), start_time(score, settings), dtype=torch.float64)
    ends = (lowest, torch.ones_like(lowest))
    end = integrate(
        field,
        y,
        *(ends if upward else ends[::-1]),
        rtol=settings.rtol,
        atol=settings.atol,
        max_steps=settings.max_steps,
        retries=settings.retries,
        blocks=(D, P),
    )
    y = _or_nan(end)
    latent = y[:, :D].reshape(x.shape)
    prior = score.process.prior_log_prob(latent if upward else x.double())
    per_probe = prior[:, None] + (1.0 if upward else -1.0) * unit * y[:, D : D + P]
    return FlowDensity(
        nats=per_probe.mean(dim=1).cpu(),
        latent=latent.to(x.dtype),
        calls=end.calls.cpu(),
        status=end.status.cpu(),
        state=end.y[:, :D].reshape(x.shape).to(x.dtype),
        time=end.time.cpu(),
        per_probe=per_probe.cpu(),
        std_error=(divergence.variance(y[:, D + P :]) / P).sqrt().cpu(),
    )


def _with_more_probes(
    found: FlowDensity, score: BoundScore, x: Tensor, noise: Noise, settings: FlowSettings
) -> FlowDensity:
    """Add probes to each example until its standard error is at most `target_se`, or it has `max_probes`.

    The number of new probes is predicted from the variance so far and rounded to a power of two, so that examples can
    be integrated in few groups. It does not depend on the other examples of the batch.
    """
    assert settings.target_se is not None
    most = min(settings.max_probes, math.prod(x.shape[1:])) if settings.divergence == "auto" else settings.max_probes
    had = torch.full((len(x),), found.per_probe.shape[1])
    while bool((unmet := (found.status == 0) & (found.std_error > settings.target_se) & (had < most)).any()):
        # Where D probes would be needed, the exact trace costs no more: it takes D vector-Jacobian products.
        needed = had * (found.std_error / settings.target_se).square()
        exact = unmet & (needed >= math.prod(x.shape[1:])) & (settings.divergence == "auto")
        wanted = 2 ** (needed - had).clamp(1.0, MOST_NEW_PROBES).nan_to_num(1.0).log2().ceil().long()
        wanted = torch.minimum(wanted, most - had) * ~exact
        for count in {int(wanted[i]) for i in unmet.nonzero().flatten().tolist()}:
            first = {int(had[i]) for i in (unmet & (wanted == count)).nonzero().flatten().tolist()}
            for before in first:
                rows = (unmet & (wanted == count) & (had == before)).nonzero().flatten()
                some = rows.to(x.device)
                divergence = Exact()
                if count:
                    more = replace(settings, probes=count, divergence=estimator(settings))
                    divergence = choose_divergence(x, noise, more, before).select(some)
                part = integrate_density(score.rows(some), x[some], divergence, settings)
                found = _merged(found, rows, part, before / (before + count) if count else 0.0)
                had[rows] = before + count if count else most
    return found


def is_exact(settings: FlowSettings, dimension: int) -> bool:
    """Whether the divergence of a flow of that dimension is computed exactly."""
    if settings.divergence == "auto":
        return dimension <= EXACT_UP_TO or settings.probes >= dimension
    return settings.divergence == "exact"


def estimator(settings: FlowSettings) -> Literal["hutchinson", "hutch++"]:
    """The estimator of the divergence where it is not exact."""
    return "hutch++" if settings.divergence == "hutch++" else "hutchinson"


def _merged(found: FlowDensity, rows: Tensor, part: FlowDensity, share: float) -> FlowDensity:
    """`found` with the results of further probes for the examples `rows`; `share` is the weight of the old probes."""
    nats, error, calls, status = (v.clone() for v in (found.nats, found.std_error, found.calls, found.status))
    nats[rows] = (share * nats[rows] if share else 0.0) + (1.0 - share) * part.nats
    error[rows] = ((share * error[rows]) ** 2 + ((1.0 - share) * part.std_error) ** 2).sqrt()
    calls[rows] += part.calls
    status[rows] = torch.maximum(status[rows], part.status)
    return replace(found, nats=nats, std_error=error, calls=calls, status=status)


def transport(score: BoundScore, x: Tensor, start: float, end: float, settings: FlowSettings) -> FlowDensity:
    """The flow from time `start` to `end` without a density: from data to latents (upward) or back (downward).

    Args:
        score: The bound score.
        x: Points in model units at time `start`, (B, *event).
        start: Initial time.
        end: Final time, before or after `start`.
        settings: Of these only the tolerances and the limits of the solver are used.

    Returns:
        A `FlowDensity` whose `latent` is the final state and whose `nats` are NaN.

    Raises:
        ValueError: The score has no probability flow.
    """
    require_flow(score)
    times = [torch.full((len(x),), time, dtype=torch.float64) for time in (start, end)]
    y = x.reshape(len(x), math.prod(x.shape[1:]))
    with torch.no_grad():
        solved = integrate(
            flow_field(score, score.process, x),
            y,
            *times,
            rtol=settings.rtol,
            atol=settings.atol,
            max_steps=settings.max_steps,
            retries=settings.retries,
        )
    none = torch.full((len(x),), torch.nan, dtype=torch.float64)
    return FlowDensity(
        nats=none,
        latent=_or_nan(solved).reshape(x.shape).to(x.dtype),
        calls=solved.calls.cpu(),
        status=solved.status.cpu(),
        state=solved.y.reshape(x.shape).to(x.dtype),
        time=solved.time.cpu(),
        per_probe=none[:, None],
        std_error=none,
    )


def _or_nan(solution: Solution) -> Tensor:
    """The final states, (B, n), NaN for failed examples."""
    return torch.where((solution.status == 0)[:, None], solution.y, torch.nan)


def choose_divergence(x: Tensor, noise: Noise, settings: FlowSettings, first: int = 0) -> Divergence:
    """Draw the probes and build the divergence that the settings name.

    Args:
        x: The batch, (B, *event).
        noise: Source of the probes.
        settings: The divergence and its number of probes.
        first: Number of the first probe of each example.

    Raises:
        TypeError: `common_probes` with a source of noise that has no indices.
    """
    D = math.prod(x.shape[1:])
    if is_exact(settings, D):
        return Exact()
    if settings.common_probes:
        if not isinstance(noise, IndexedNoise):
            raise TypeError(
                "common_probes=True uses the probes of index 0 of an IndexedNoise, and the noise is a"
                f" {type(noise).__name__}; pass an IndexedNoise, or common_probes=False"
            )
        noise = IndexedNoise(noise.seed, [0] * len(x))
    signs = settings.probe == "rademacher"
    probes = _drawn(x, noise, PROBE_STEP, range(first, first + settings.probes), signs)
    if settings.divergence == "hutch++":
        return HutchPlusPlus(probes, signs, _drawn(x, noise, SKETCH_STEP, range(min(settings.sketch, D)), False))
    return Hutchinson(probes, signs)


def _drawn(x: Tensor, noise: Noise, step: int, draws: range, signs: bool) -> Tensor:
    """Standard normal numbers, or their signs, (draws, B, *event) float64."""
    drawn = [noise.normal(x, step, draw) for draw in draws]
    return torch.stack([torch.where(v < 0, -1.0, 1.0) if signs else v for v in drawn]).to(torch.float64)


def require_flow(score: Score) -> None:
    """Refuse a score that is defined only at the levels of a ladder.

    (A process without drift and diffusion raises its own error.)

    Raises:
        ValueError: The network refuses times between its levels; the message says what to use instead.
    """
    while isinstance(inner := getattr(score, "score", None), Score):
        score = inner
    if getattr(getattr(score, "time_input", None), "between", None) == "refuse":
        raise ValueError(
            "this network is defined only at the levels of its ladder, and the probability flow needs every t; sample"
            " with steps on the levels (--sampler pc, ancestral or ald), or build the score with"
            " LevelLabel(between='linear')"
        )
