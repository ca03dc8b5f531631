"""Exponential multistep integrators of the probability flow, for any alpha and sigma and on any grid.

With lambda = log(alpha / sigma) the flow is linear in x except for the posterior mean D, or the predicted noise
e = -sigma score, and the linear part is integrated exactly:

    x_s = (sigma_s / sigma_t) x_t + alpha_s int exp(-(lambda_s - v)) D(v) dv    "data",
    x_s = (alpha_s / alpha_t) x_t - sigma_s int exp(lambda_s - v) e(v) dv       "noise",

with v from lambda_t to lambda_s. A third form uses the straight path from noise to data of standard deviation c: with
rho = c alpha + sigma, x / rho = (1 - u) D / c + u e where u = sigma / rho decreases from near 1 to 0, and since
dx = D dalpha + e dsigma along the flow,

    x_s = rho_s (x_t / rho_t + int (e(u) - D(u) / c) du)                        "velocity",

with u from u_t to u_s. A method of order k replaces D, e or e - D / c by the polynomial, in lambda or in u, through k
evaluations: the present one and those of earlier steps. The weights of the evaluations are moments of the exponential,
or of 1, over the step, so the method is exact for such polynomials for steps of any lengths. The weights depend on the
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
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore

# ------------------------------------------------------------------------------------------------ weights


def exponential_moments(z: float, count: int) -> list[float]:
    """int_0^1 exp(z (1 - u)) u^k du = k! phi_{k+1}(z) for k = 0, ..., count - 1.

    The upward recursion M_k = (k M_{k-1} - 1) / z loses about one digit per step where |z| < 1. There the last moment
    is summed as the series k! sum_n z^n / (n + k + 1)!, and the recursion runs downward, in which errors shrink.
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
        nodes: k distinct nodes, in the coordinate v in which the step runs from 0 to `length`.
        length: Length of the step.
        rate: Rate of the exponential.
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


# ------------------------------------------------------------------------------------------------ levels and history


class Level(NamedTuple):
    """alpha, sigma and lambda = log(alpha / sigma), half the log-SNR, at a time; lambda is inf where sigma is 0."""

    alpha: float
    sigma: float
    half_log_snr: float


Levels = tuple[Level, ...]
"""One level for each example, or a single one where all examples share their time, as in the sampling loop."""

Rows = list[list[float]]
"""Coefficients of a linear combination of tensors, one row for each entry of `Levels`."""


class Evaluation(NamedTuple):
    """One evaluation: the levels at which it was made and its value, a posterior mean, a score or a velocity."""

    levels: Levels
    value: Tensor


@dataclass(frozen=True)
class History:
    """The memory of a multistep method: its last step and the evaluations that later steps use.

    Args:
        start: The levels at the beginning of the last step.
        end: The times at its end, (B,).
        levels: The levels at its end.
        evaluations: Evaluations, newest first.
        used: Their coefficients in the last step; evaluations beyond the end of a row were not used.
    """

    start: Levels
    end: Tensor
    levels: Levels
    evaluations: tuple[Evaluation, ...]
    used: Rows


def levels_at(process: Process, t: Tensor) -> Levels:
    """The levels at times of shape (B,); a single level where all examples share their time."""
    if len(t) == 1 or (len(t) and t.stride(0) == 0):
        t = t[:1]
    alphas, sigmas = process.alpha(t).tolist(), process.sigma(t).tolist()
    return tuple(
        Level(a, s, math.log(a) - math.log(s) if s > 0.0 else math.inf) for a, s in zip(alphas, sigmas, strict=True)
    )


def cached_levels(history: History | None, process: Process, t: Tensor) -> Levels:
    """The levels at t, taken from the history if the last step ended there."""
    if history is not None and torch.equal(history.end, t):
        return history.levels
    return levels_at(process, t)


def zip_rows(*parts: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """`zip` in which sequences of one entry are repeated: levels or coefficients that all examples share."""
    rows = next((len(part) for part in parts if len(part) != 1), 1)
    return zip(*(part if len(part) == rows else list(part) * rows for part in parts), strict=True)


def linear_combination(coefficients: Rows, tensors: Sequence[Tensor]) -> Tensor:
    """sum_j c_j tensor_j, with one row of coefficients for all examples or one row for each example."""
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


def add_noise(mean: Tensor, stds: Sequence[float], z: Tensor) -> Tensor:
    """mean + std z, with one standard deviation for all examples or one for each example."""
    if len(stds) == 1:
        return torch.add(mean, z, alpha=stds[0])
    return torch.addcmul(mean, z, over_event(torch.tensor(stds, dtype=torch.float64), z))


def data_coefficients(a: Level, b: Level, places: Sequence[float], rate: float) -> list[float]:
    """Coefficients of the state and of posterior means in a step that integrates D with exp(-rate (lambda_s - v)).

    The coefficients are (sigma_s / sigma_t) exp((1 - rate) h) for the state, h the length of the step in lambda, and
    rate alpha_s w_j for the means. rate = 1 is the probability flow and rate = 2 the reverse SDE. For a step into a
    level without noise the combination is alpha_s D.

    Args:
        a: The level at t.
        b: The level at s.
        places: lambda - lambda_t of the evaluations; the first is at t.
        rate: Rate of the exponential.
    """
    if b.sigma == 0.0:
        return [0.0, b.alpha, *(0.0 for _ in places[1:])]
    length = b.half_log_snr - a.half_log_snr
    keep = b.sigma / a.sigma * math.exp((1.0 - rate) * length)
    return [keep, *(rate * b.alpha * w for w in exponential_weights(places, length, -rate))]


# ------------------------------------------------------------------------------------------------ the steps


class Multistep(Step):
    """The common base of multistep methods, with or without a corrector that uses the evaluation at the next point.

    A subclass defines what is evaluated, and the coefficients of the state and of the evaluations in a step.
    """

    @abstractmethod
    def _evaluate(self, score: BoundScore, x: Tensor, t: Tensor, levels: Levels) -> Tensor:
        """The value of one evaluation at t, whose levels are given; shape of x."""

    @abstractmethod
    def _weights(self, a: Level, b: Level, nodes: Sequence[Level]) -> list[float]:
        """Coefficients, in the step from a to b, of the state at a and of the evaluations at the nodes."""

    @abstractmethod
    def _evaluation_counts(self) -> tuple[int, int]:
        """Number of evaluations that the predictor uses, and that the corrector uses (0 for no corrector)."""

    def _startup_evaluations(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, then: Levels, first: Evaluation
    ) -> tuple[Evaluation, ...]:
        """The evaluations that the first step of a chain uses, newest first; `first` is the one at its beginning."""
        return (first,)

    def _advance(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, history: History | None
    ) -> tuple[Tensor, Tensor | None, History | None]:
        """One step: the state at s before any noise of the step, the evaluation at t, and the new history."""
        predict, correct = self._evaluation_counts()
        now, then = cached_levels(history, process, t), levels_at(process, s)
        # Two times within one level of a ladder without interpolation: there is nothing to integrate.
        if all(a.half_log_snr == b.half_log_snr for a, b in zip_rows(now, then)):
            return x * over_event(process.alpha(s) / process.alpha(t), x), None, history
        value = self._evaluate(score, x, t, now)
        newest = Evaluation(now, value)
        if history is None:
            evaluations = self._startup_evaluations(score, process, x, t, then, newest)
        else:
            evaluations = (newest, *history.evaluations)
        used = self._coefficients(now, then, evaluations[:predict])
        total = used
        if history is not None and correct:
            # x at t enters the step linearly, so correcting it only changes the coefficients of the evaluations.
            total = [
                [row[0], *(c + row[0] * d for c, d in zip_longest(row[1:], change, fillvalue=0.0))]
                for row, change in zip_rows(used, self._correction(history, evaluations[:correct]))
            ]
        width = max(len(row) for row in total) if total else 1
        x = linear_combination(total, [x, *(p.value for p in evaluations[: width - 1])])
        kept = evaluations[: max(predict, correct) - 1]
        return x, value, History(now, s, then, kept, [row[1:] for row in used])

    def _coefficients(self, now: Levels, then: Levels, evaluations: Sequence[Evaluation]) -> Rows:
        """The rows of `_weights` for the step between the levels."""
        return [self._weights(a, b, nodes) for a, b, *nodes in zip_rows(now, then, *(p.levels for p in evaluations))]

    def _correction(self, history: History, evaluations: Sequence[Evaluation]) -> Rows:
        """The correction of the last step by the newest evaluation: changes of the coefficients, newest first."""
        corrected = self._coefficients(history.start, history.levels, evaluations)
        return [
            [c - d for c, d in zip_longest(row[1:], [0.0, *used], fillvalue=0.0)]
            for row, used in zip_rows(corrected, history.used)
        ]


@record
class ExponentialMultistep(Multistep):
    """Exponential Adams methods of order 1 to 4 on the probability flow, with one score evaluation per step.

    At order 1 every form is DDIM without noise (Song, Meng and Ermon 2021, eq. 12). "data" of order 2 with start="low"
    is DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2) with the exact weights of its Taylor terms.
    "noise" is DEIS in the variable lambda (Zhang and Chen 2023, "Fast sampling of diffusion models with exponential
    integrator", eq. 14 and 15). "velocity" is the Adams-Bashforth method on the straight path of flow matching (Lipman
    et al. 2023, "Flow matching for generative modeling", section 4.1). The corrector is that of UniPC (Zhao et al.
    2023, algorithm 1): the evaluation at the end point of a step also corrects that step, without a further evaluation.
    UniPC of order p in its authors' count has order p + 1 here. A step into a level without noise returns the
    posterior mean.

    Args:
        order: k, the order of the chain with start="own". The polynomial of a step runs through the last k evaluations.
        predict: The quantity that the polynomial approximates: the posterior mean D, the noise e, or the velocity
            e - D / spread, which varies least where the noise is very large or very small.
        corrector: Whether to predict with the last k - 1 evaluations and then correct with these and the next one. The
            last step of a chain is not corrected.
        start: The treatment of the first steps, before there are k evaluations. "own" makes the first step by a
            Runge-Kutta method of order k - 1, with k - 2 further evaluations at times between those of the grid. "low"
            uses the evaluations there are and needs no further one. The chain then has order 2 at most, or 3 with the
            corrector, but the additional errors are small where the first step is easy to integrate.
        spread: c, the standard deviation of the data in model units, for predict="velocity". For large c the step tends
            to an Adams method in sigma / alpha, for small c to one in alpha / sigma.

    Raises:
        ValueError: The order is not 1, 2, 3 or 4, or does not fit the corrector, or `spread` is not positive.
    """

    order: Literal[1, 2, 3, 4] = 3  # pyright: ignore[reportIncompatibleVariableOverride]
    predict: Literal["data", "noise", "velocity"] = "data"
    corrector: bool = False
    start: Literal["own", "low"] = "own"
    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order={self.order!r} must be 1, 2, 3 or 4 for an exponential multistep method")
        if self.corrector and self.order == 1:
            raise ValueError(
                "corrector=True does not fit order=1: the predictor uses one evaluation fewer than the corrector. Use"
                " order=2 or more with it"
            )
        if not 0.0 < self.spread < math.inf:
            raise ValueError(
                f"spread={self.spread} is the standard deviation of the data in model units and must be positive and"
                " finite"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        x, value, history = self._advance(score, process, x, t, s, memory)
        return StepResult(x, x, history, denoised=value if self.predict == "data" else None)

    def _evaluate(self, score: BoundScore, x: Tensor, t: Tensor, levels: Levels) -> Tensor:
        """The value for each form: D; the score; or the velocity e - D / c = (x - rho D / c) / sigma.

        For "noise" the factor -sigma between score and noise is part of the coefficients. For "velocity" the division
        by a small sigma costs no accuracy, because the weight of the velocity in the step is proportionally small.
        """
        if self.predict == "noise":
            return score(x, t)
        denoised = score.denoised(x, t)
        if self.predict == "data":
            return denoised
        rows = [[1.0 / level.sigma, -self._rho(level) / (self.spread * level.sigma)] for level in levels]
        return linear_combination(rows, [x, denoised])

    def _rho(self, level: Level) -> float:
        """rho = c alpha + sigma."""
        return self.spread * level.alpha + level.sigma

    def _evaluation_counts(self) -> tuple[int, int]:
        return (self.order - 1, self.order) if self.corrector else (self.order, 0)

    def _weights(self, a: Level, b: Level, nodes: Sequence[Level]) -> list[float]:
        if self.predict == "velocity":
            # Into a level without noise, rho_s (x - sigma_t velocity) / rho_t = alpha_s D.
            rho, new = self._rho(a), self._rho(b)
            if b.sigma == 0.0:
                return [new / rho, -new * a.sigma / rho, *(0.0 for _ in nodes[1:])]
            u = [level.sigma / self._rho(level) - a.sigma / rho for level in (b, *nodes)]
            return [new / rho, *(new * w for w in exponential_weights(u[1:], u[0], 0.0))]
        places, length = [node.half_log_snr - a.half_log_snr for node in nodes], b.half_log_snr - a.half_log_snr
        if self.predict == "data":
            return data_coefficients(a, b, places, 1.0)
        if b.sigma == 0.0:
            return [b.alpha / a.alpha, b.alpha / a.alpha * a.sigma**2, *(0.0 for _ in nodes[1:])]
        weights = exponential_weights(places, length, 1.0)
        return [b.alpha / a.alpha, *(b.sigma * node.sigma * w for node, w in zip(nodes, weights, strict=True))]

    def _startup_fractions(self) -> tuple[float, ...]:
        """The nodes of the Runge-Kutta method of the first step, as fractions of the step in lambda.

        The node is half-way for a Runge-Kutta method of order 2. For order 3 the nodes are one third and two thirds
        (Heun's third-order method), and the step uses only the last one and the beginning: the line through these two
        integrates parabolas exactly. The error of the first step is made once, so its order may be one less than that
        of the method. At order 3 with the corrector no node is needed, since the corrector alone gives the first
        step order 2.
        """
        if self.start == "low" or self.order < 3 or (self.corrector and self.order == 3):
            return ()
        return (1 / 2,) if self.order == 3 else (1 / 3, 2 / 3)

    def _startup_evaluations(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, then: Levels, first: Evaluation
    ) -> tuple[Evaluation, ...]:
        """The last evaluation of the Runge-Kutta method inside the first step, and the one at its beginning."""
        evaluations, fractions = (first,), self._startup_fractions()
        if not fractions or any(b.sigma == 0.0 for b in then):
            return evaluations
        for fraction in fractions:
            ratio = [
                2.0 * (a.half_log_snr + fraction * (b.half_log_snr - a.half_log_snr))
                for a, b in zip_rows(first.levels, then)
            ]
            time = process.time_at_log_snr(torch.tensor(ratio, dtype=torch.float64)).expand(len(t))
            levels = levels_at(process, time)
            stage = linear_combination(
                self._coefficients(first.levels, levels, evaluations), [x, *(p.value for p in evaluations)]
            )
            evaluations = (Evaluation(levels, self._evaluate(score, stage, time, levels)), *evaluations)
        return evaluations[0], first
