"""Dormand-Prince 5(4) with a step size, an error and a status for each example.

Every example of the batch has its own time, step and decision to accept, so its result does not depend on its batch
mates; finished examples leave the batch. A hard example ends with a status, not with an exception for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.step import STATUS, Moved, Step
from scorefield.score.score import BoundScore

OK, TOO_MANY_STEPS, UNDERFLOW, NOT_FINITE = range(len(STATUS))

Field = Callable[[Tensor, Tensor, Tensor], Tensor]
"""dy/dt = field(t, y, rows): t (b,), y (b, n) float64 for the rows of the batch that are still under way."""

# Dormand and Prince (1980), RK5(4)7M: nodes, stages, and the difference of the two weight rows.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class Solution:
    """The end of an integration.

    Args:
        y: Final state, (B, n) float64; where the status is not 0, the last accepted state.
        status: Codes of `STATUS`, (B,).
        calls: Evaluations of the field per example, (B,).
        time: The time each example reached, (B,).
    """

    y: Tensor
    status: Tensor
    calls: Tensor
    time: Tensor


def attempt(
    field: Field, t: Tensor, y: Tensor, h: Tensor, first: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of length h (signed): the fifth-order state, the embedded error estimate and the slope at its end."""
    slopes = [first]
    length = h[:, None]
    new = y
    for node, weights in zip(_NODES[1:], _STAGES, strict=True):
        new = y + length * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
        slopes.append(field(t + node * h, new, rows))
    error = length * sum(w * k for w, k in zip(_ERROR, slopes, strict=True) if w)
    return new, error, slopes[-1]


def integrate(
    field: Field,
    y: Tensor,
    start: Tensor,
    end: Tensor,
    *,
    rtol: float,
    atol: float,
    max_steps: int = 10_000,
    blocks: tuple[int, ...] | None = None,
) -> Solution:
    """Integrate from `start` to `end`, each example on its own.

    An attempt is accepted where the error norm, the largest over blocks of the root mean square of
    error / (atol + rtol max(|y|, |y_new|)), is at most 1; the next step is 0.9 norm^(-1/5) times as long, within
    [0.2, 10] (Hairer, Norsett and Wanner 1993, II.4).

    Args:
        field: The right-hand side.
        y: Initial states, (B, n).
        start: Initial times, (B,).
        end: Final times, (B,); before or after `start`.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Attempts after which an example gives up.
        blocks: Sizes of the parts of the state whose errors are held to the tolerance separately, so that one number (a
            log density) is not averaged away among many; default one block.
    """
    y, t = y.to(torch.float64).clone(), start.to(y.device, torch.float64).clone()
    end = end.to(y.device, torch.float64)
    status = torch.full((len(y),), OK, device=y.device)
    calls = torch.zeros_like(status)
    blocks = blocks or (y.shape[1],)
    active = torch.arange(len(y), device=y.device)[t != end]
    if not len(active):
        return Solution(y, status, calls, t)
    slope = torch.zeros_like(y)
    slope[active] = field(t[active], y[active], active)
    h = torch.zeros_like(t)
    h[active] = _first_step(field, t, y, slope, end, active, rtol, atol, blocks)
    calls[active] += 2
    grow = torch.full_like(t, 10.0)
    for _ in range(max_steps):
        if not len(active):
            break
        # Clip the last step to the end; reaching it must be exact, so it is assigned below, not added.
        rest = end[active] - t[active]
        last = h[active].abs() >= rest.abs()
        step = torch.where(last, rest, h[active])
        new, error, end_slope = attempt(field, t[active], y[active], step, slope[active], active)
        calls[active] += 6
        norm = _error_norm(error, y[active], new, rtol, atol, blocks)
        finite = torch.isfinite(norm)
        accepted = finite & (norm <= 1.0)
        factor = torch.where(finite, 0.9 * norm.clamp_min(1e-10) ** -0.2, 0.2).clamp(0.2)
        factor = torch.minimum(factor, torch.where(accepted, grow[active], 1.0))
        grow[active] = torch.where(accepted, 10.0, 1.0).to(grow)
        moved = active[accepted]
        t[moved] = torch.where(last[accepted], end[moved], t[moved] + step[accepted])
        y[moved], slope[moved] = new[accepted], end_slope[accepted]
        h[active] = step * factor
        tiny = h[active].abs() < 1e-12 * t[active].abs().clamp_min(1e-6)
        done = accepted & last
        stuck = tiny & ~done
        status[active[stuck]] = torch.where(finite[stuck], UNDERFLOW, NOT_FINITE)
        active = active[~stuck & ~done]
    status[active] = TOO_MANY_STEPS
    return Solution(y, status, calls, t)


def _error_norm(error: Tensor, y: Tensor, new: Tensor, rtol: float, atol: float, blocks: tuple[int, ...]) -> Tensor:
    scaled = error / (atol + rtol * torch.maximum(y.abs(), new.abs()))
    return torch.stack([part.square().mean(dim=1).sqrt() for part in scaled.split(blocks, dim=1)]).amax(dim=0)


def _first_step(
    field: Field,
    t: Tensor,
    y: Tensor,
    slope: Tensor,
    end: Tensor,
    rows: Tensor,
    rtol: float,
    atol: float,
    blocks: tuple[int, ...],
) -> Tensor:
    """Hairer's starting step, one more evaluation; signed."""
    t, y, slope = t[rows], y[rows], slope[rows]
    rest = end[rows] - t
    zero = torch.zeros_like(y)
    d0 = _error_norm(y, y, zero, rtol, atol, blocks)
    d1 = _error_norm(slope, y, zero, rtol, atol, blocks)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1.clamp_min(1e-300))
    # Where the slope is not finite, any length will do: the attempts find out, and end with a status.
    h0 = torch.minimum(torch.where(torch.isfinite(h0), h0, 1e-6), rest.abs()) * rest.sign()
    moved = field(t + h0, y + h0[:, None] * slope, rows)
    d2 = _error_norm(moved - slope, y, zero, rtol, atol, blocks) / h0.abs()
    steep = torch.maximum(d1, d2)
    h1 = torch.where(steep <= 1e-15, (1e-3 * h0.abs()).clamp_min(1e-6), (0.01 / steep.clamp_min(1e-300)) ** 0.2)
    h = torch.minimum(100.0 * h0.abs(), h1)
    h = torch.where(torch.isfinite(h), h, h0.abs())
    return torch.minimum(h, rest.abs()) * rest.sign()


def flow_field(score: BoundScore, process: Process, x: Tensor) -> Field:
    """The probability flow dx/dt of states with the event shape of the batch x, flattened; the score sees x's dtype."""

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        state, clock = y.reshape(len(y), *x.shape[1:]), t.cpu()
        part = score if len(rows) == x.shape[0] else score.rows(rows)
        value = part(state.to(x), clock).to(state)
        return process.flow_drift(state, clock, value).reshape(y.shape)

    return field


@record
class AdaptiveFlow(Step):
    """The probability flow from t to s by adaptive Dormand-Prince 5(4), float64 state around the network's own dtype.

    Song et al. 2021, section D.4, uses SciPy's RK45 on the whole batch as one state; here every example is solved by
    itself.

    Args:
        rtol: Relative tolerance.
        atol: Absolute tolerance, model units.
        max_steps: Attempts after which an example gives up with status 1.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 1000

    order: ClassVar[int | None] = 5
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        y = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        if y.device.type == "mps":  # the one device without float64
            y = y.cpu()
        field = flow_field(score, process, x)
        end = integrate(field, y, t, s, rtol=self.rtol, atol=self.atol, max_steps=self.max_steps)
        x = end.y.reshape(x.shape).to(x)
        return Moved(x, x, None, end.status, end.calls)

    def calls_per_step(self) -> int | None:
        """Depends on the state."""
        return None
