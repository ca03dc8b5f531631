"""Dormand-Prince 5(4) with a step size, an error estimate and a status for each example.

Every example of the batch has its own time, step size and accept/reject decision, so that its result does not depend on
the other examples; finished examples leave the batch. An example that fails is retried from its last accepted state
with smaller steps. If it fails again, it ends with a status and that state, and the other examples are not affected.
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
from scorefield.sampling.step import STATUS, Step, StepResult
from scorefield.score.score import BoundScore

OK, TOO_MANY_STEPS, UNDERFLOW, NOT_FINITE = range(len(STATUS))

Field = Callable[[Tensor, Tensor, Tensor], Tensor]
"""dy/dt = field(t, y, rows) with t (b,) and y (b, n) float64; `rows` are the unfinished examples of the batch, (b,)."""

# Dormand and Prince (1980), RK5(4)7M: nodes, stage weights, and the difference between the weights of the two orders.
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


# Weights of the quartic term, which the interpolant of order 4 adds to the cubic Hermite interpolant of the two ends
# (Hairer, Norsett and Wanner 1993, II.6, after Shampine 1986); the second stage has no weight.
_QUARTIC = (
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
    """The result of an integration.

    Args:
        y: Final state, (B, n) float64; where the status is not 0, the last accepted state.
        status: Codes of `STATUS`, (B,).
        calls: Evaluations of the field for each example, (B,).
        time: The time that each example reached, (B,).
        dense_states: States at `dense_times`, (B, M, n), NaN where an example stopped before; None without dense
            output.
    """

    y: Tensor
    status: Tensor
    calls: Tensor
    time: Tensor
    dense_states: Tensor | None = None


@dataclass(frozen=True)
class Accepted:
    """Accepted steps of some examples.

    Args:
        rows: Indices of the examples in the batch, (b,).
        t: Times before the step, (b,).
        h: Signed step lengths, (b,).
        y: States before the step, (b, n).
        new: States after the step, (b, n).
        slopes: dy/dt at the seven stages, each (b, n); the last one is at `new`.
    """

    rows: Tensor
    t: Tensor
    h: Tensor
    y: Tensor
    new: Tensor
    slopes: list[Tensor]

    def at(self, part: Tensor) -> Tensor:
        """States inside the step by interpolation of order 4.

        Args:
            part: Positions as fractions of the step in [0, 1], (b, M).

        Returns:
            States, (b, M, n).
        """
        u, h = part[:, :, None], self.h[:, None]
        rise = self.new - self.y
        left, right = h * self.slopes[0] - rise, rise - h * self.slopes[-1]
        quartic = h * sum(w * k for w, k in zip(_QUARTIC, self.slopes, strict=True) if w)
        v = 1.0 - u
        cubic = self.y[:, None] + u * (rise[:, None] + v * (left[:, None] + u * (right - left)[:, None]))
        return cubic + (u * v) ** 2 * quartic[:, None]


def dormand_prince_step(
    field: Field, t: Tensor, y: Tensor, h: Tensor, first: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One step of Dormand-Prince 5(4).

    Args:
        field: The right-hand side.
        t: Times before the step, (b,).
        y: States, (b, n).
        h: Signed step lengths, (b,).
        first: dy/dt at (t, y), shape of y.
        rows: Indices of the examples in the batch, (b,).

    Returns:
        The fifth-order state, the embedded error estimate, and dy/dt at the seven stages.
    """
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
    dense_times: Tensor | None = None,
) -> Solution:
    """Integrate dy/dt = field from `start` to `end`, each example with its own steps.

    An attempted step is accepted where the error norm, the largest over blocks of the root mean square of
    error / (atol + rtol max(|y|, |y_new|)), is at most 1. The next step is 0.9 norm^(-1/5) times as long, within
    [0.2, 10] (Hairer, Norsett and Wanner 1993, II.4). The last step ends at `end` exactly, and the field is never
    evaluated beyond it.

    Args:
        field: The right-hand side.
        y: Initial states, (B, n).
        start: Initial times, (B,).
        end: Final times, (B,); before or after `start`.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Number of attempted steps after which an example stops with the status "too many steps".
        retries: How often a stopped example continues from its last accepted state, with a first step a tenth as long
            as the slopes suggest, steps that at most double, and four times as many attempts.
        blocks: Sizes of the parts of the state whose errors must each meet the tolerance, so that the error of a single
            number (a log density) is not averaged with those of many others. Columns after the last block are
            integrated without error control. By default all columns are one block.
        dense_times: Times at which states are returned too (dense output), (M,) for all examples or (B, M).
    """
    run = _Integration(field, y, start, end, rtol, atol, blocks or (y.shape[1],), dense_times)
    run.advance(torch.arange(len(y), device=y.device)[run.t != run.end], max_steps, 1.0, 10.0)
    for _ in range(retries):
        failed = (run.status != OK).nonzero().flatten()
        run.status[failed] = OK
        run.advance(failed, 4 * max_steps, 0.1, 2.0)
    return Solution(run.y, run.status, run.calls, run.t, run.dense_states)


class _Integration:
    """An integration in progress: times, states and statuses of the whole batch."""

    def __init__(
        self,
        field: Field,
        y: Tensor,
        start: Tensor,
        end: Tensor,
        rtol: float,
        atol: float,
        blocks: tuple[int, ...],
        dense_times: Tensor | None,
    ):
        self.field, self.rtol, self.atol, self.blocks = field, rtol, atol, blocks
        self.y, self.t = y.to(torch.float64).clone(), start.to(y.device, torch.float64).clone()
        self.end = end.to(y.device, torch.float64)
        self.status = torch.full((len(y),), OK, device=y.device)
        self.calls = torch.zeros_like(self.status)
        self.dense_times = self.dense_states = None
        if dense_times is not None:
            self.dense_times = dense_times.to(self.t).expand(len(y), dense_times.shape[-1])
            self.dense_states = torch.full(
                (*self.dense_times.shape, y.shape[1]), torch.nan, dtype=torch.float64, device=y.device
            )
            here = self.dense_times == self.t[:, None]
            self.dense_states[here] = self.y[:, None].expand_as(self.dense_states)[here]

    def advance(self, active: Tensor, max_steps: int, caution: float, most: float) -> None:
        """Integrate the examples `active` to their final times, or until they fail with a status.

        Args:
            active: Indices of the examples.
            max_steps: Maximal number of attempted steps.
            caution: Factor of the first step length.
            most: Largest factor by which a step may grow.
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
            # The last step is clipped to the end. The final time is assigned below instead of added, so it is exact.
            rest = self.end[active] - t
            last = h[active].abs() >= rest.abs()
            step = torch.where(last, rest, h[active])
            new, error, slopes = dormand_prince_step(self.field, t, y, step, slope[active], active)
            self.calls[active] += 6
            norm = self._norm(error, y, new)
            finite = torch.isfinite(norm)
            accepted = finite & (norm <= 1.0)
            if self.dense_times is not None and bool(accepted.any()):
                passed = (v[accepted] for v in (active, t, step, y, new))
                self._interpolate(Accepted(*passed, slopes=[k[accepted] for k in slopes]))
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

    def _interpolate(self, step: Accepted) -> None:
        """Store the states at those dense times that lie inside the step."""
        assert self.dense_times is not None and self.dense_states is not None
        part = (self.dense_times[step.rows] - step.t[:, None]) / step.h[:, None]
        inside = (part > 0.0) & (part <= 1.0)
        found = self.dense_states[step.rows]
        found[inside] = step.at(part.clamp(0.0, 1.0))[inside]
        self.dense_states[step.rows] = found

    def _norm(self, error: Tensor, y: Tensor, new: Tensor) -> Tensor:
        """The error norm of `integrate`, (b,)."""
        held = sum(self.blocks)
        size = torch.maximum(y[:, :held].abs(), new[:, :held].abs())
        scaled = error[:, :held] / (self.atol + self.rtol * size)
        parts = scaled.split(self.blocks, dim=1)
        return torch.stack([part.square().mean(dim=1).sqrt() for part in parts]).amax(dim=0)

    def _first_step(self, slope: Tensor, rows: Tensor) -> Tensor:
        """The signed first step length by the rule of Hairer, Norsett and Wanner (II.4), with one evaluation."""
        t, y, slope = self.t[rows], self.y[rows], slope[rows]
        rest = self.end[rows] - t
        zero = torch.zeros_like(y)
        d0, d1 = self._norm(y, y, zero), self._norm(slope, y, zero)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1.clamp_min(1e-300))
        # Where the slope is not finite any length will do, because the first attempt fails and sets the status.
        h0 = torch.minimum(torch.where(torch.isfinite(h0), h0, 1e-6), rest.abs()) * rest.sign()
        moved = self.field(t + h0, y + h0[:, None] * slope, rows)
        d2 = self._norm(moved - slope, y, zero) / h0.abs()
        steep = torch.maximum(d1, d2)
        h1 = torch.where(steep <= 1e-15, (1e-3 * h0.abs()).clamp_min(1e-6), (0.01 / steep.clamp_min(1e-300)) ** 0.2)
        h = torch.minimum(100.0 * h0.abs(), h1)
        h = torch.where(torch.isfinite(h), h, h0.abs())
        return torch.minimum(h, rest.abs()) * rest.sign()


def failure_messages(status: Tensor, time: Tensor, norm: Tensor) -> tuple[str, ...]:
    """One line for each failed example: its index, status, the time reached and the size of its last accepted state.

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
    """The right-hand side dx/dt of the probability flow for flattened float64 states.

    Args:
        score: The bound score, evaluated in the dtype of x.
        process: The process of the flow.
        x: The batch, (B, *event); only its event shape, length, dtype and device are used.
    """

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        state, t_cpu = y.reshape(len(y), *x.shape[1:]), t.cpu()
        part = score if len(rows) == x.shape[0] else score.rows(rows)
        value = part(state.to(x), t_cpu).to(state)
        return process.flow_drift(state, t_cpu, value).reshape(y.shape)

    return field


@record
class AdaptiveFlow(Step):
    """The probability flow from t to s by adaptive Dormand-Prince 5(4).

    The state is float64; the score is evaluated in the dtype of the batch. Song et al. (2021, section D.4) integrate
    the whole batch as one state with SciPy's RK45; here every example has its own steps.

    Args:
        rtol: Relative tolerance.
        atol: Absolute tolerance, model units.
        max_steps: Number of attempted steps after which an example stops with status 1.
        retries: How often a stopped example is continued with smaller steps; see `integrate`.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 1000
    retries: int = 1

    order: ClassVar[int | None] = 5
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        y = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        if y.device.type == "mps":  # the one device without float64
            y = y.cpu()
        field = flow_field(score, process, x)
        end = integrate(field, y, t, s, rtol=self.rtol, atol=self.atol, max_steps=self.max_steps, retries=self.retries)
        x = end.y.reshape(x.shape).to(x)
        return StepResult(x, x, None, end.status, end.calls)

    def calls_per_step(self) -> int | None:
        """None: the number depends on the state and the tolerances."""
        return None
