"""Dormand-Prince 5(4) with a step size, an error and a status for each example.

Every example of the batch has its own time, step and decision to accept, so its result does not depend on its batch
mates; finished examples leave the batch. A hard example is tried again from where it stopped, and ends with a status
and its last accepted state, not with an exception for all.
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


# The part of the interpolant of order 4 that a cubic through both ends does not have (Hairer, Norsett and Wanner 1993,
# II.6, after Shampine 1986); the second stage has no weight.
_BEND = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)


@dataclass(frozen=True)
class Solution:
    """The end of an integration.

    Args:
        y: Final state, (B, n) float64; where the status is not 0, the last accepted state.
        status: Codes of `STATUS`, (B,).
        calls: Evaluations of the field per example, (B,).
        time: The time each example reached, (B,).
        between: States at the times asked for, (B, M, n); NaN where an example stopped before. None if none were.
    """

    y: Tensor
    status: Tensor
    calls: Tensor
    time: Tensor
    between: Tensor | None = None


@dataclass(frozen=True)
class Accepted:
    """An accepted step of some examples.

    Args:
        rows: Which examples of the batch, (b,).
        t: Times before the step, (b,).
        h: Its length, signed, (b,).
        y: States before, (b, n).
        new: States after, (b, n).
        slopes: The seven stages, each (b, n); the last is the slope at `new`.
    """

    rows: Tensor
    t: Tensor
    h: Tensor
    y: Tensor
    new: Tensor
    slopes: list[Tensor]

    def at(self, part: Tensor) -> Tensor:
        """States inside the step, of order 4: (b, M) parts of its length in [0, 1] to (b, M, n)."""
        u, h = part[:, :, None], self.h[:, None]
        rise = self.new - self.y
        left, right = h * self.slopes[0] - rise, rise - h * self.slopes[-1]
        bend = h * sum(w * k for w, k in zip(_BEND, self.slopes, strict=True) if w)
        v = 1.0 - u
        cubic = self.y[:, None] + u * (rise[:, None] + v * (left[:, None] + u * (right - left)[:, None]))
        return cubic + (u * v) ** 2 * bend[:, None]


def attempt(
    field: Field, t: Tensor, y: Tensor, h: Tensor, first: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One step of length h (signed): the fifth-order state, the embedded error estimate and the seven slopes."""
    slopes = [first]
    length = h[:, None]
    new = y
    for node, weights in zip(_NODES[1:], _STAGES, strict=True):
        new = y + length * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
        slopes.append(field(t + node * h, new, rows))
    error = length * sum(w * k for w, k in zip(_ERROR, slopes, strict=True) if w)
    return new, error, slopes


def integrate(
    field: Field,
    y: Tensor,
    start: Tensor,
    end: Tensor,
    *,
    rtol: float,
    atol: float,
    max_steps: int = 10_000,
    retries: int = 0,
    blocks: tuple[int, ...] | None = None,
    between: Tensor | None = None,
) -> Solution:
    """Integrate from `start` to `end`, each example on its own.

    An attempt is accepted where the error norm, the largest over blocks of the root mean square of
    error / (atol + rtol max(|y|, |y_new|)), is at most 1; the next step is 0.9 norm^(-1/5) times as long, within
    [0.2, 10] (Hairer, Norsett and Wanner 1993, II.4). The last step ends at `end` exactly: the field is never asked
    beyond it.

    Args:
        field: The right-hand side.
        y: Initial states, (B, n).
        start: Initial times, (B,).
        end: Final times, (B,); before or after `start`.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Attempts after which an example gives up.
        retries: How often an example that gave up goes on from its last accepted state: with a first step a tenth of
            what the slopes suggest, steps that at most double, and four times the attempts.
        blocks: Sizes of the parts of the state whose errors are held to the tolerance separately, so that one number (a
            log density) is not averaged away among many; columns beyond them are carried along and hold up no step.
            Default one block of all.
        between: Times at which states are also wanted (dense output), (M,) for all examples or (B, M).
    """
    run = _Run(field, y, start, end, rtol, atol, blocks or (y.shape[1],), between)
    run.go(torch.arange(len(y), device=y.device)[run.t != run.end], max_steps, 1.0, 10.0)
    for _ in range(retries):
        failed = (run.status != OK).nonzero().flatten()
        run.status[failed] = OK
        run.go(failed, 4 * max_steps, 0.1, 2.0)
    return Solution(run.y, run.status, run.calls, run.t, run.between)


class _Run:
    """The state of an integration: times, states and statuses of the whole batch."""

    def __init__(
        self,
        field: Field,
        y: Tensor,
        start: Tensor,
        end: Tensor,
        rtol: float,
        atol: float,
        blocks: tuple[int, ...],
        between: Tensor | None,
    ):
        self.field, self.rtol, self.atol, self.blocks = field, rtol, atol, blocks
        self.y, self.t = y.to(torch.float64).clone(), start.to(y.device, torch.float64).clone()
        self.end = end.to(y.device, torch.float64)
        self.status = torch.full((len(y),), OK, device=y.device)
        self.calls = torch.zeros_like(self.status)
        self.wanted = self.between = None
        if between is not None:
            self.wanted = between.to(self.t).expand(len(y), between.shape[-1])
            self.between = torch.full((*self.wanted.shape, y.shape[1]), torch.nan, dtype=torch.float64, device=y.device)
            here = self.wanted == self.t[:, None]
            self.between[here] = self.y[:, None].expand_as(self.between)[here]

    def go(self, active: Tensor, max_steps: int, caution: float, most: float) -> None:
        """Take the examples `active` to their ends, or to a status.

        Args:
            active: Which examples.
            max_steps: Attempts.
            caution: What the first step is multiplied with.
            most: By how much a step may grow.
        """
        if not len(active):
            return
        slope, h, grow = torch.zeros_like(self.y), torch.zeros_like(self.t), torch.full_like(self.t, most)
        slope[active] = self.field(self.t[active], self.y[active], active)
        h[active] = caution * self._first_step(slope, active)
        self.calls[active] += 2
        for _ in range(max_steps):
            if not len(active):
                break
            t, y = self.t[active], self.y[active]
            # Clip the last step to the end; reaching it must be exact, so it is assigned below, not added.
            rest = self.end[active] - t
            last = h[active].abs() >= rest.abs()
            step = torch.where(last, rest, h[active])
            new, error, slopes = attempt(self.field, t, y, step, slope[active], active)
            self.calls[active] += 6
            norm = self._norm(error, y, new)
            finite = torch.isfinite(norm)
            accepted = finite & (norm <= 1.0)
            if self.wanted is not None and bool(accepted.any()):
                passed = (v[accepted] for v in (active, t, step, y, new))
                self._read_off(Accepted(*passed, slopes=[k[accepted] for k in slopes]))
            factor = torch.where(finite, 0.9 * norm.clamp_min(1e-10) ** -0.2, 0.2).clamp(0.2)
            factor = torch.minimum(factor, torch.where(accepted, grow[active], 1.0))
            grow[active] = torch.where(accepted, most, 1.0).to(grow)
            moved = active[accepted]
            self.t[moved] = torch.where(last[accepted], self.end[moved], self.t[moved] + step[accepted])
            self.y[moved], slope[moved] = new[accepted], slopes[-1][accepted]
            h[active] = step * factor
            tiny = h[active].abs() < 1e-12 * self.t[active].abs().clamp_min(1e-6)
            done = accepted & last
            stuck = tiny & ~done
            self.status[active[stuck]] = torch.where(finite[stuck], UNDERFLOW, NOT_FINITE)
            active = active[~stuck & ~done]
        self.status[active] = TOO_MANY_STEPS

    def _read_off(self, step: Accepted) -> None:
        """The states asked for inside a step."""
        assert self.wanted is not None and self.between is not None
        part = (self.wanted[step.rows] - step.t[:, None]) / step.h[:, None]
        inside = (part > 0.0) & (part <= 1.0)
        found = self.between[step.rows]
        found[inside] = step.at(part.clamp(0.0, 1.0))[inside]
        self.between[step.rows] = found

    def _norm(self, error: Tensor, y: Tensor, new: Tensor) -> Tensor:
        held = sum(self.blocks)
        size = torch.maximum(y[:, :held].abs(), new[:, :held].abs())
        scaled = error[:, :held] / (self.atol + self.rtol * size)
        parts = scaled.split(self.blocks, dim=1)
        return torch.stack([part.square().mean(dim=1).sqrt() for part in parts]).amax(dim=0)

    def _first_step(self, slope: Tensor, rows: Tensor) -> Tensor:
        """Hairer's starting step, one more evaluation; signed."""
        t, y, slope = self.t[rows], self.y[rows], slope[rows]
        rest = self.end[rows] - t
        zero = torch.zeros_like(y)
        d0, d1 = self._norm(y, y, zero), self._norm(slope, y, zero)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1.clamp_min(1e-300))
        # Where the slope is not finite, any length will do: the attempts find out, and end with a status.
        h0 = torch.minimum(torch.where(torch.isfinite(h0), h0, 1e-6), rest.abs()) * rest.sign()
        moved = self.field(t + h0, y + h0[:, None] * slope, rows)
        d2 = self._norm(moved - slope, y, zero) / h0.abs()
        steep = torch.maximum(d1, d2)
        h1 = torch.where(steep <= 1e-15, (1e-3 * h0.abs()).clamp_min(1e-6), (0.01 / steep.clamp_min(1e-300)) ** 0.2)
        h = torch.minimum(100.0 * h0.abs(), h1)
        h = torch.where(torch.isfinite(h), h, h0.abs())
        return torch.minimum(h, rest.abs()) * rest.sign()


def why(status: Tensor, time: Tensor, norm: Tensor) -> tuple[str, ...]:
    """One line for each example that gave up: which, why, at what time, and how far its state had gone.

    Args:
        status: Codes of `STATUS`, (B,).
        time: The times reached, (B,).
        norm: Root mean square of the last accepted state, model units, (B,).
    """
    return tuple(
        f"example {i}: {STATUS[int(status[i])]} at t = {float(time[i]):.6g}, where the root mean square of x is"
        f" {float(norm[i]):.4g}"
        for i in status.nonzero().flatten().tolist()
    )


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
        retries: How often an example that gave up is taken up again, with more care; see `integrate`.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 1000
    retries: int = 1

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
        end = integrate(field, y, t, s, rtol=self.rtol, atol=self.atol, max_steps=self.max_steps, retries=self.retries)
        x = end.y.reshape(x.shape).to(x)
        return Moved(x, x, None, end.status, end.calls)

    def calls_per_step(self) -> int | None:
        """Depends on the state."""
        return None
