"""The probability flow as a map between data and latents, and the density it carries."""

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
from scorefield.sampling.adaptive import Solution, failure_messages, integrate
from scorefield.score.score import BoundScore, Score

PROBE_STEP = 2**61
"""The step number of divergence probes, disjoint from those of samplers."""

SKETCH_STEP = 2**61 + 2
"""The step number of the sketches of Hutch++."""

EXACT_UP_TO = 8
"""Dimension up to which divergence="auto" is exact: D vector-Jacobian products are then cheaper than many probes."""

AT_ONCE = 16
"""Probes of an example in one integration, where `target_se` asks for many: each has a state of its own."""


@record
class FlowSettings:
    """How the flow is integrated.

    Args:
        rtol: Relative tolerance of each example's own Dormand-Prince solver.
        atol: Absolute tolerance, model units; of a log density over D numbers sqrt(D) times as many nats.
        divergence: "exact" takes D vector-Jacobian products a call, "hutchinson" one per probe, "hutch++" two per
            column of its sketch and one per probe; "auto" is exact up to D = 8 or for D probes, else hutchinson.
        probes: Number of probes averaged, drawn once per example and kept for the whole integration.
        probe: Law of the probes; Rademacher has the smaller variance.
        max_steps: Attempts after which an example gives up with a status.
        start: Time whose density is asked for; None for the process's t_min.likelihood.
        retries: How often an example that gave up is taken up again, with more care (`sampling.adaptive.integrate`).
        target_se: Standard error in nats at which an example has enough probes; more are added until it has, or has
            `max_probes`. With D probes or more the divergence is made exact instead.
        max_probes: Of one example, where `target_se` asks for more.
        common_probes: Every example gets the probes of index 0, so that the errors of two examples are nearly equal and
            their difference is more certain than either; a standard error is still that of one example.
        sketch: Columns of the sketch of "hutch++".
        loosened: The solver error is how far the result moves when both tolerances are so many times as large, by a
            second solution that costs about half of the first; None leaves it out, and with it the interval.

    Raises:
        ValueError: No probe, no sketch, a target that no number of probes meets, or a start outside [0, 1].
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
            raise ValueError(f"rtol={self.rtol:g} and atol={self.atol:g} must be positive; 1e-5 is the published one")
        if self.target_se is not None and not self.target_se > 0.0:
            raise ValueError(
                f"target_se={self.target_se:g} must be a positive number of nats; no error at all has"
                " divergence='exact'"
            )
        if self.loosened is not None and not self.loosened > 1.0:
            raise ValueError(f"loosened={self.loosened:g} must be above 1, or None for no estimate of the solver error")
        if self.sketch < 1 or self.retries < 0:
            raise ValueError(f"sketch={self.sketch} must be at least 1 and retries={self.retries} not negative")
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
        state: The last accepted state of every example, like `latent`, those that gave up included.
        time: The time at which it was reached, (B,).
        per_probe: nats by each of the first P probes alone, (B, P); (B, 1) where the divergence is exact.
        std_error: Standard error of nats over probes, (B,); 0 where the divergence is exact.
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
        """A line for each example that gave up."""
        return failure_messages(self.status, self.time, self.state.flatten(1).double().square().mean(dim=1).sqrt())


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
    _check_density(score, settings)
    # A caller's inference mode would switch the divergence's gradients off and leave a wrong number.
    with torch.inference_mode(False), torch.no_grad():
        x = x.clone()
        first = along(score, x, choose_divergence(x, noise, settings), settings)
        return first if settings.target_se is None else _until_certain(first, score, x, noise, settings)


def _check_density(score: BoundScore, settings: FlowSettings) -> None:
    """Refuse a score without a flow, or with one whose divergence is not known."""
    require_flow(score)
    if isinstance(score.process, GeneralSDE) and score.process.state_dependent:
        raise ValueError(
            "the density needs second derivatives of a diffusion G(x, t); it is computed for a GeneralSDE with"
            " state_dependent=False (transport works with either)"
        )
    score.process.check_time(torch.tensor([start_time(score, settings)]))


def decoded_density(score: BoundScore, latent: Tensor, noise: Noise, settings: FlowSettings) -> FlowDensity:
    """Samples and their log density in one integration: from latents at t = 1 down to s = t_min.

    log p_s(x) = log p_prior(z) - int_1^s div(f x - g^2 score / 2) dt; `FlowDensity.latent` is x, the other end.

    Args:
        score: The bound score.
        latent: z, model units, (B, *event).
        noise: Where probes come from.
        settings: See `FlowSettings`; `target_se` needs the way up and is not used here.

    Raises:
        ValueError: As for `log_density`.
    """
    _check_density(score, settings)
    with torch.inference_mode(False), torch.no_grad():
        z = latent.clone()
        return along(score, z, choose_divergence(z, noise, settings), settings, upward=False)


def along(
    score: BoundScore, x: Tensor, divergence: Divergence, settings: FlowSettings, *, upward: bool = True
) -> FlowDensity:
    """`log_density` with the divergence given, or, from latents `x`, `decoded_density`; without gradients."""
    D, P = math.prod(x.shape[1:]), divergence.size
    # The log density is a sum of D terms, and its error is held to sqrt(D) times that of one of them; held to the
    # same, it would cost twice the evaluations and ask more than a float32 network keeps.
    unit = math.sqrt(D)
    velocity = _Velocity(score, x)

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        state = y[:, :D].reshape(len(y), *x.shape[1:])
        value, estimates, carried = divergence.evaluate(lambda u: velocity(t, u, rows), state, rows)
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


def _until_certain(
    found: FlowDensity, score: BoundScore, x: Tensor, noise: Noise, settings: FlowSettings
) -> FlowDensity:
    """More probes for each example until its standard error is at most `target_se`, or it has `max_probes`.

    How many is foretold from the variance so far, as a power of two, so that examples are solved in few groups; an
    example's number does not depend on its batch mates.
    """
    assert settings.target_se is not None
    most = min(settings.max_probes, math.prod(x.shape[1:])) if settings.divergence == "auto" else settings.max_probes
    had = torch.full((len(x),), found.per_probe.shape[1])
    while bool((unmet := (found.status == 0) & (found.std_error > settings.target_se) & (had < most)).any()):
        # Where D probes would be needed, D vector-Jacobian products give the trace itself.
        needed = had * (found.std_error / settings.target_se).square()
        exact = unmet & (needed >= math.prod(x.shape[1:])) & (settings.divergence == "auto")
        wanted = 2 ** (needed - had).clamp(1.0, AT_ONCE).nan_to_num(1.0).log2().ceil().long()
        wanted = torch.minimum(wanted, most - had) * ~exact
        for count in {int(wanted[i]) for i in unmet.nonzero().flatten().tolist()}:
            first = {int(had[i]) for i in (unmet & (wanted == count)).nonzero().flatten().tolist()}
            for before in first:
                rows = (unmet & (wanted == count) & (had == before)).nonzero().flatten()
                some = rows.to(x.device)
                divergence = Exact()
                if count:
                    more = replace(settings, probes=count, divergence=_estimate(settings))
                    divergence = choose_divergence(x, noise, more, before).select(some)
                part = along(score.rows(some), x[some], divergence, settings)
                found = _merged(found, rows, part, before / (before + count) if count else 0.0)
                had[rows] = before + count if count else most
    return found


def _estimate(settings: FlowSettings) -> Literal["hutchinson", "hutch++"]:
    return "hutch++" if settings.divergence == "hutch++" else "hutchinson"


def _merged(found: FlowDensity, rows: Tensor, part: FlowDensity, share: float) -> FlowDensity:
    """`found` with more probes of the examples `rows`: means weighted with the share of probes that `found` has."""
    nats, error, calls, status = (v.clone() for v in (found.nats, found.std_error, found.calls, found.status))
    nats[rows] = (share * nats[rows] if share else 0.0) + (1.0 - share) * part.nats
    error[rows] = ((share * error[rows]) ** 2 + ((1.0 - share) * part.std_error) ** 2).sqrt()
    calls[rows] += part.calls
    status[rows] = torch.maximum(status[rows], part.status)
    return replace(found, nats=nats, std_error=error, calls=calls, status=status)


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
    velocity = _Velocity(score, x)

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return velocity(t, y.reshape(len(y), *x.shape[1:]), rows).reshape(y.shape)

    times = [torch.full((len(x),), time, dtype=torch.float64) for time in (start, end)]
    y = x.reshape(len(x), math.prod(x.shape[1:]))
    with torch.no_grad():
        solved = integrate(
            field,
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
    """The final states, (B, n), NaN where the solver gave up."""
    return torch.where((solution.status == 0)[:, None], solution.y, torch.nan)


class _Velocity:
    """dx/dt of float64 states (b, *event) of the examples `rows` of the batch x; the score is asked in x's dtype."""

    def __init__(self, score: BoundScore, x: Tensor):
        self._score, self._x = score, x

    def __call__(self, t: Tensor, state: Tensor, rows: Tensor) -> Tensor:
        part = self._score if len(rows) == len(self._x) else self._score.rows(rows)
        clock = t.cpu()
        value = part(state.to(self._x.dtype), clock).to(torch.float64)
        return part.process.flow_drift(state, clock, value)


def choose_divergence(x: Tensor, noise: Noise, settings: FlowSettings, first: int = 0) -> Divergence:
    """The divergence that the settings ask for, its probes drawn.

    Args:
        x: The batch, (B, *event).
        noise: Where probes come from.
        settings: Which divergence, and how many probes.
        first: Number of the first probe of each example.

    Raises:
        TypeError: Common probes of a noise that has no indices.
    """
    D = math.prod(x.shape[1:])
    wanted = settings.divergence
    if wanted == "exact" or (wanted == "auto" and (D <= EXACT_UP_TO or settings.probes >= D)):
        return Exact()
    if settings.common_probes:
        if not isinstance(noise, IndexedNoise):
            raise TypeError(f"common probes are those of index 0 of an IndexedNoise; got {type(noise).__name__}")
        noise = IndexedNoise(noise.seed, [0] * len(x))
    signs = settings.probe == "rademacher"
    probes = _drawn(x, noise, PROBE_STEP, range(first, first + settings.probes), signs)
    if wanted == "hutch++":
        return HutchPlusPlus(probes, signs, _drawn(x, noise, SKETCH_STEP, range(min(settings.sketch, D)), False))
    return Hutchinson(probes, signs)


def _drawn(x: Tensor, noise: Noise, step: int, draws: range, signs: bool) -> Tensor:
    """Normal numbers, or their signs, (draws, B, *event) float64."""
    drawn = [noise.normal(x, step, draw) for draw in draws]
    return torch.stack([torch.where(v < 0, -1.0, 1.0) if signs else v for v in drawn]).to(torch.float64)


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
