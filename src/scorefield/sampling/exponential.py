"""Exponential multistep integrators of the probability flow, for any alpha and sigma and on any grid.

With lambda = log(alpha / sigma) the flow is linear but for the posterior mean D, or the predicted noise e =
-sigma score, and the linear part is integrated exactly:

    x_s = (sigma_s / sigma_t) x_t + alpha_s int exp(-(lambda_s - v)) D(v) dv    "data",
    x_s = (alpha_s / alpha_t) x_t - sigma_s int exp(lambda_s - v) e(v) dv       "noise",

v from lambda_t to lambda_s. Between the two lies the straight path from noise to data of standard deviation c: with
rho = c alpha + sigma, x / rho = (1 - u) D / c + u e where u = sigma / rho runs from near 1 down to 0, and

    x_s = rho_s (x_t / rho_t + int (e(u) - D(u) / c) du)                        "velocity",

u from u_t to u_s, as dx = D dalpha + e dsigma along the flow. A method of order k puts a polynomial, in lambda or in u,
through k evaluations in the place of D, e or e - D / c: the present one and those of earlier steps. The weights of the
evaluations are the moments of the exponential, or of 1, over the step, exact for steps of any lengths; they depend on
times alone and are computed on the CPU in float64.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.step import Moved, Step
from scorefield.score.score import BoundScore

# ------------------------------------------------------------------------------------------------ weights


def exponential_moments(z: float, count: int) -> list[float]:
    """int_0^1 exp(z (1 - u)) u^k du = k! phi_{k+1}(z) for k = 0, ..., count - 1.

    M_k = (k M_{k-1} - 1) / z loses a digit a step where |z| is small: there the last moment is summed as a series,
    k! sum_n z^n / (n + k + 1)!, and the recursion runs downward, where it gains them.
    """
    if abs(z) >= 1.0:
        moments = [math.expm1(z) / z]
        for k in range(1, count):
            moments.append((k * moments[-1] - 1.0) / z)
        return moments
    term = total = 1.0 / count
    n = 0
    while abs(term) > 1e-18 * total:
        n += 1
        term *= z / (n + count)
        total += term
    moments = [total]
    for k in range(count - 1, 0, -1):
        moments.append((1.0 + z * moments[-1]) / k)
    return moments[::-1]


def exponential_weights(nodes: Sequence[float], length: float, rate: float) -> list[float]:
    """w_j with sum_j w_j p(nodes_j) = int_0^length exp(rate (length - v)) p(v) dv for polynomials p of degree < k.

    Args:
        nodes: k distinct places, in the coordinate v in which the step runs from 0 to `length`.
        length: Of the step.
        rate: Of the exponential.
    """
    if length == 0.0:
        return [0.0] * len(nodes)
    u = [node / length for node in nodes]
    moments = exponential_moments(rate * length, len(u))
    weights = [0.0] * len(u)
    basis = [1.0]  # coefficients of prod_{l < i} (v - u_l), Newton's basis
    for i in range(len(u)):
        integral = length * sum(c * m for c, m in zip(basis, moments, strict=False))
        for j in range(i + 1):  # the divided difference through u_0, ..., u_i, as a sum over its values
            apart = 1.0
            for k in range(i + 1):
                if k != j:
                    apart *= u[j] - u[k]
            weights[j] += integral / apart
        basis = [a - u[i] * b for a, b in zip([0.0, *basis], [*basis, 0.0], strict=True)]
    return weights


# ------------------------------------------------------------------------------------------------ levels and memory


class Level(NamedTuple):
    """alpha, sigma and lambda = log(alpha / sigma) at a time; lambda is infinite where there is no noise."""

    alpha: float
    sigma: float
    snr: float


Levels = tuple[Level, ...]
"""One level for each example, or a single one where all share their time, as in every sampling loop."""

Rows = list[list[float]]
"""Coefficients of a sum of tensors, a row for each level of `Levels`."""


class Point(NamedTuple):
    """An evaluation: where it was made, and what was found there: the posterior mean, the score, or the velocity."""

    levels: Levels
    value: Tensor


@dataclass(frozen=True)
class Past:
    """What a multistep method keeps of the step it made last.

    Args:
        start: The levels that the step came from.
        end: The time it went to.
        levels: The levels there.
        points: Evaluations, newest first.
        used: Their coefficients in that step; evaluations beyond the end of a row were not used.
    """

    start: Levels
    end: Tensor
    levels: Levels
    points: tuple[Point, ...]
    used: Rows


def levels_at(process: Process, t: Tensor) -> Levels:
    """The levels of times of shape (B,)."""
    if len(t) == 1 or (len(t) and t.stride(0) == 0):
        t = t[:1]
    alphas, sigmas = process.alpha(t).tolist(), process.sigma(t).tolist()
    return tuple(
        Level(a, s, math.log(a) - math.log(s) if s > 0.0 else math.inf) for a, s in zip(alphas, sigmas, strict=True)
    )


def resumed(past: Past | None, process: Process, t: Tensor) -> Levels:
    """The levels at t, from memory if the last step went there."""
    if past is not None and torch.equal(past.end, t):
        return past.levels
    return levels_at(process, t)


def side_by_side(*parts: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """zip, with parts of one entry repeated: the levels or coefficients of each example, or one for all."""
    rows = next((len(part) for part in parts if len(part) != 1), 1)
    return zip(*(part if len(part) == rows else list(part) * rows for part in parts), strict=True)


def combined(coefficients: Rows, tensors: Sequence[Tensor]) -> Tensor:
    """sum_j c_j tensor_j, with one row of coefficients for all examples or one for each."""
    if len(coefficients) == 1:
        row = coefficients[0]
        total = tensors[0] * row[0]
        for c, tensor in zip(row[1:], tensors[1:], strict=True):
            total.add_(tensor, alpha=c)
        return total
    columns = torch.tensor(coefficients, dtype=torch.float64).reshape(-1, len(tensors)).unbind(1)
    total = tensors[0] * over_event(columns[0], tensors[0])
    for c, tensor in zip(columns[1:], tensors[1:], strict=True):
        total.addcmul_(tensor, over_event(c, tensor))
    return total


def with_noise(mean: Tensor, stds: Sequence[float], z: Tensor) -> Tensor:
    """mean + std z, with one standard deviation for all examples or one for each."""
    if len(stds) == 1:
        return torch.add(mean, z, alpha=stds[0])
    return torch.addcmul(mean, z, over_event(torch.tensor(stds, dtype=torch.float64), z))


def data_row(a: Level, b: Level, places: Sequence[float], rate: float) -> list[float]:
    """Coefficients of the state and of posterior means in a step that integrates D with exp(-rate (lambda_s - v)).

    (sigma_s / sigma_t) exp((1 - rate) h) for the state, and rate alpha_s w_j for the means; rate = 1 is the flow,
    rate = 2 the reverse SDE. Into a level without noise, alpha_s D.

    Args:
        a: The level at t.
        b: The level at s.
        places: Of the evaluations, lambda - lambda_t; the first is at t.
        rate: Of the exponential.
    """
    if b.sigma == 0.0:
        return [0.0, b.alpha, *(0.0 for _ in places[1:])]
    length = b.snr - a.snr
    keep = b.sigma / a.sigma * math.exp((1.0 - rate) * length)
    return [keep, *(rate * b.alpha * w for w in exponential_weights(places, length, -rate))]


# ------------------------------------------------------------------------------------------------ the steps


class Multistep(Step):
    """A step through the evaluations of earlier steps, and perhaps corrected by that of the next one.

    A subclass says what it evaluates, and the coefficients of the state and of evaluations.
    """

    @abstractmethod
    def _evaluate(self, score: BoundScore, x: Tensor, t: Tensor, levels: Levels) -> Tensor:
        """What is kept of a score call at t, where the levels are these; shape of x."""

    @abstractmethod
    def _row(self, a: Level, b: Level, nodes: Sequence[Level]) -> list[float]:
        """Coefficients in the step from a to b, of the state at a and of evaluations at the nodes."""

    @abstractmethod
    def _reach(self) -> tuple[int, int]:
        """How many evaluations the predictor uses, and the corrector; 0 for no corrector."""

    def _inside(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, then: Levels, point: Point
    ) -> tuple[Point, ...]:
        """The evaluations for the first step, newest first; `point` is that at its start."""
        return (point,)

    def _advanced(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, past: Past | None
    ) -> tuple[Tensor, Tensor | None, Past | None]:
        """The state at s before any noise of the step, the evaluation at t, and what to keep."""
        predict, correct = self._reach()
        now, then = resumed(past, process, t), levels_at(process, s)
        if all(a.snr == b.snr for a, b in side_by_side(now, then)):  # between the levels of a ladder that has steps
            return x * over_event(process.alpha(s) / process.alpha(t), x), None, past
        value = self._evaluate(score, x, t, now)
        point = Point(now, value)
        points = self._inside(score, process, x, t, then, point) if past is None else (point, *past.points)
        used = self._coefficients(now, then, points[:predict])
        total = used
        if past is not None and correct:
            total = [
                [row[0], *(c + row[0] * d for c, d in zip_longest(row[1:], change, fillvalue=0.0))]
                for row, change in side_by_side(used, self._correction(past, points[:correct]))
            ]
        width = max(len(row) for row in total) if total else 1
        x = combined(total, [x, *(p.value for p in points[: width - 1])])
        kept = points[: max(predict, correct) - 1]
        return x, value, Past(now, s, then, kept, [row[1:] for row in used])

    def _coefficients(self, now: Levels, then: Levels, points: Sequence[Point]) -> Rows:
        return [self._row(a, b, nodes) for a, b, *nodes in side_by_side(now, then, *(p.levels for p in points))]

    def _correction(self, past: Past, points: Sequence[Point]) -> Rows:
        """What the newest evaluation changes in the step that led to it: differences of coefficients, newest first."""
        corrected = self._coefficients(past.start, past.levels, points)
        return [
            [c - d for c, d in zip_longest(row[1:], [0.0, *used], fillvalue=0.0)]
            for row, used in side_by_side(corrected, past.used)
        ]


@record
class ExponentialMultistep(Multistep):
    """Exponential Adams methods on the probability flow: one score call a step, of any order from 1 to 4.

    Order 1 is DDIM without noise (Song, Meng and Ermon 2021, eq. 12), in every form. "data" at order 2 with
    start="low" is DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2), with the weights of its Taylor terms
    exact; "noise" is DEIS in the variable lambda (Zhang and Chen 2023, "Fast sampling of diffusion models with
    exponential integrator", eq. 14 and 15); "velocity" is the Adams-Bashforth method on the straight path of flow
    matching (Lipman et al. 2023, "Flow matching for generative modeling", section 4.1). The corrector is that of UniPC
    (Zhao et al. 2023, algorithm 1): the evaluation at the point that a step has reached also corrects the step, at no
    further call. UniPC of order p in its authors' count is of order p + 1 in this one. Into a level without noise the
    step takes the posterior mean.

    Args:
        order: k, the order of the chain with start="own": a step's polynomial runs through the last k evaluations.
        predict: What the polynomial stands for: the posterior mean D, the noise e, or the velocity e - D / spread,
            which varies the least where the noise is very large or very small.
        corrector: Predict by the last k - 1 evaluations, then correct by those and the next. The last step of a chain
            stays as predicted.
        start: What happens before there are k evaluations. "own" makes the first step by a Runge-Kutta method of order
            k - 1, at k - 2 further calls at times between those of the grid. "low" makes do with the evaluations that
            there are, at no further call: the chain is then of order 2 at most, 3 with the corrector, but its further
            errors are small where the first step is an easy one.
        spread: c, the standard deviation of the data in model units, for predict="velocity"; as it grows the step tends
            to that of an Adams method in sigma / alpha, as it shrinks to one in alpha / sigma.
    """

    order: Literal[1, 2, 3, 4] = 3  # pyright: ignore[reportIncompatibleVariableOverride]
    predict: Literal["data", "noise", "velocity"] = "data"
    corrector: bool = False
    start: Literal["own", "low"] = "own"
    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order={self.order!r}; exponential multistep methods of order 1, 2, 3 and 4 are offered")
        if self.corrector and self.order == 1:
            raise ValueError("a corrector adds an evaluation to those of the predictor; use order=2 or more with it")
        if not 0.0 < self.spread < math.inf:
            raise ValueError(f"spread={self.spread}; the data's standard deviation must be positive and finite")

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        x, value, past = self._advanced(score, process, x, t, s, memory)
        return Moved(x, x, past, denoised=value if self.predict == "data" else None)

    def _evaluate(self, score: BoundScore, x: Tensor, t: Tensor, levels: Levels) -> Tensor:
        """D; the score, whose factor -sigma, by which it is the noise, is in the coefficients; (x - rho D / c) / sigma.

        That division by a small sigma costs no accuracy: the weight of the velocity in the step is as small.
        """
        if self.predict == "noise":
            return score(x, t)
        denoised = score.denoised(x, t)
        if self.predict == "data":
            return denoised
        rows = [[1.0 / level.sigma, -self._size(level) / (self.spread * level.sigma)] for level in levels]
        return combined(rows, [x, denoised])

    def _size(self, level: Level) -> float:
        """rho = c alpha + sigma."""
        return self.spread * level.alpha + level.sigma

    def _reach(self) -> tuple[int, int]:
        return (self.order - 1, self.order) if self.corrector else (self.order, 0)

    def _row(self, a: Level, b: Level, nodes: Sequence[Level]) -> list[float]:
        if self.predict == "velocity":
            # Into a level without noise, rho_s (x - sigma_t velocity) / rho_t = alpha_s D.
            rho, new = self._size(a), self._size(b)
            if b.sigma == 0.0:
                return [new / rho, -new * a.sigma / rho, *(0.0 for _ in nodes[1:])]
            u = [level.sigma / self._size(level) - a.sigma / rho for level in (b, *nodes)]
            return [new / rho, *(new * w for w in exponential_weights(u[1:], u[0], 0.0))]
        places, length = [node.snr - a.snr for node in nodes], b.snr - a.snr
        if self.predict == "data":
            return data_row(a, b, places, 1.0)
        if b.sigma == 0.0:
            return [b.alpha / a.alpha, b.alpha / a.alpha * a.sigma**2, *(0.0 for _ in nodes[1:])]
        weights = exponential_weights(places, length, 1.0)
        return [b.alpha / a.alpha, *(b.sigma * node.sigma * w for node, w in zip(nodes, weights, strict=True))]

    def _fractions(self) -> tuple[float, ...]:
        """Where inside the first step its Runge-Kutta method evaluates, in lambda.

        Half-way for order 2; at one third and two thirds for order 3, Heun's method, whose step uses the last and the
        start alone: a line through those two gives parabolas their integral. Errors of a start are not repeated, so
        that it may be of one order less than the method; the corrector brings the order 2 that order 3 needs by itself.
        """
        if self.start == "low" or self.order < 3 or (self.corrector and self.order == 3):
            return ()
        return (1 / 2,) if self.order == 3 else (1 / 3, 2 / 3)

    def _inside(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, then: Levels, point: Point
    ) -> tuple[Point, ...]:
        """The last evaluation of a Runge-Kutta method inside the first step, and that at its start."""
        points, fractions = (point,), self._fractions()
        if not fractions or any(b.sigma == 0.0 for b in then):
            return points
        for fraction in fractions:
            ratio = [2.0 * (a.snr + fraction * (b.snr - a.snr)) for a, b in side_by_side(point.levels, then)]
            time = process.time_at_log_snr(torch.tensor(ratio, dtype=torch.float64)).expand(len(t))
            levels = levels_at(process, time)
            stage = combined(self._coefficients(point.levels, levels, points), [x, *(p.value for p in points)])
            points = (Point(levels, self._evaluate(score, stage, time, levels)), *points)
        return points[0], point
