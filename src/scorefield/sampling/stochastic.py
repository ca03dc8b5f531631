"""Stochastic solvers that integrate the linear part and the noise exactly, for any alpha and sigma and on any grid.

With lambda = log(alpha / sigma), h = lambda_s - lambda_t > 0 and the posterior mean D, the steps

    x_s = (sigma_s / sigma_t) exp(-e^2 h) x_t + (1 + e^2) alpha_s int exp(-(1 + e^2) (lambda_s - v)) D(v) dv
          + sigma_s sqrt(1 - exp(-2 e^2 h)) z

have the marginals of the reverse SDE for every e: e = 1 is that SDE itself and e = 0 the probability flow. In the time
variable w = (alpha / sigma)^2, the signal-to-noise ratio, and with y = (alpha / sigma^2) x, the reverse SDE becomes
dy = D dw + dW. Its noise is additive, so a Runge-Kutta method of two evaluations has second weak order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.exponential import (
    Level,
    Levels,
    Multistep,
    add_noise,
    cached_levels,
    data_coefficients,
    levels_at,
    linear_combination,
    zip_rows,
)
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore


def _renewed_variance(a: Level, b: Level, strength: float = 1.0) -> float:
    """1 - exp(-2 e^2 h), the fraction of the noise variance that is drawn anew from a to b; 1 where b has no noise."""
    return -math.expm1(2.0 * strength**2 * (a.half_log_snr - b.half_log_snr)) if b.sigma > 0.0 else 1.0


@record
class DDIM(Step):
    """DDIM: x_s = alpha_s D + sqrt(sigma_s^2 - d^2) e + d z with the predicted noise e = (x - alpha_t D) / sigma_t.

    d = eta sigma_s sqrt(1 - exp(-2 h)) is eta times the standard deviation of x_s given x_t and x_0 (Song, Meng and
    Ermon 2021, eq. 12 and 16, here for any alpha and sigma). eta = 1 is ancestral sampling with the posterior variance;
    eta = 0 is the first-order exponential step on the probability flow.

    Args:
        eta: Strength of the noise that is drawn anew, in [0, 1].

    Raises:
        ValueError: eta lies outside [0, 1].
    """

    eta: float = 0.0

    order: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(
                f"eta={self.eta} must lie in [0, 1]: 0 draws no noise, 1 is ancestral sampling, and more than 1 would"
                " give x_s more noise than its level has"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        denoised = score.denoised(x, t)
        rows, stds = [], []
        for a, b in zip_rows(now, then):
            d = self.eta * b.sigma * math.sqrt(_renewed_variance(a, b))
            keep = math.sqrt(b.sigma**2 - d**2) / a.sigma
            rows.append([keep, b.alpha - a.alpha * keep])
            stds.append(d)
        mean = linear_combination(rows, [x, denoised])
        return StepResult(add_noise(mean, stds, noise(x)) if self.eta else mean, mean, denoised=denoised)


@record
class StochasticMultistep(Multistep):
    """Exponential multistep method on the reverse SDE, with one score evaluation per step.

    Order 1 is ancestral sampling. Order 2 uses the line through the last two evaluations of D, which is
    SDE-DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", section 6) with exact weights. The change of D is measured
    over the previous step, whose noise has the same distribution as that of the present one, so that the variance is of
    second order too. The corrector is that of SA-Solver (Xue et al. 2023, algorithm 1). A step into a level without
    noise returns the posterior mean.

    Args:
        order: Weak order, and the number of evaluations that a step uses.
        corrector: Whether to predict with one evaluation fewer and then correct with the next one, without a further
            evaluation. The last step of a chain is not corrected.
        strength: e, the strength of the noise; 1 is the reverse SDE, 0 the probability flow.

    Raises:
        ValueError: The order is not 1 or 2, or does not fit the corrector, or the strength is negative or infinite.
    """

    order: Literal[1, 2] = 2  # pyright: ignore[reportIncompatibleVariableOverride]
    corrector: bool = False
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order={self.order!r} must be 1 or 2, the weak orders of the stochastic multistep method")
        if self.corrector and self.order == 1:
            raise ValueError(
                "corrector=True does not fit order=1: the predictor uses one evaluation fewer than the corrector. Use"
                " order=2 with it"
            )
        if not 0.0 <= self.strength < math.inf:
            raise ValueError(
                f"strength={self.strength} of the noise must be finite and not negative; 1 is the reverse SDE, 0 the"
                " probability flow"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        now = cached_levels(memory, process, t)
        mean, denoised, history = self._advance(score, process, x, t, s, memory)
        if self.strength == 0.0 or history is None:
            return StepResult(mean, mean, history, denoised=denoised)
        stds = [b.sigma * math.sqrt(_renewed_variance(a, b, self.strength)) for a, b in zip_rows(now, history.levels)]
        return StepResult(add_noise(mean, stds, noise(x)), mean, history, denoised=denoised)

    def _evaluate(self, score: BoundScore, x: Tensor, t: Tensor, levels: Levels) -> Tensor:
        return score.denoised(x, t)

    def _evaluation_counts(self) -> tuple[int, int]:
        return (self.order - 1, self.order) if self.corrector else (self.order, 0)

    def _weights(self, a: Level, b: Level, nodes: Sequence[Level]) -> list[float]:
        return data_coefficients(a, b, [node.half_log_snr - a.half_log_snr for node in nodes], 1.0 + self.strength**2)


@record
class StochasticHeun(Step):
    """Heun's method on the reverse SDE: D is interpolated between its value at t and that at a first estimate of x_s.

    The estimate and the step use the same noise (Kloeden and Platen 1992, section 15.1, for additive noise), and the
    interpolating line is integrated with its exponential weights. A step into a level without noise returns the
    posterior mean and makes one evaluation.
    """

    order: ClassVar[int | None] = 2

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        first = score.denoised(x, t)
        guess = linear_combination([data_coefficients(a, b, [0.0], 2.0) for a, b in zip_rows(now, then)], [x, first])
        if all(b.sigma == 0.0 for b in then):
            return StepResult(guess, guess, denoised=first)
        stds, z = [b.sigma * math.sqrt(_renewed_variance(a, b)) for a, b in zip_rows(now, then)], noise(x)
        second = score.denoised(add_noise(guess, stds, z), s)
        rows = [data_coefficients(a, b, [0.0, b.half_log_snr - a.half_log_snr], 2.0) for a, b in zip_rows(now, then)]
        mean = linear_combination(rows, [x, first, second])
        return StepResult(add_noise(mean, stds, z), mean, denoised=second)

    def calls_per_step(self) -> int | None:
        """2: one evaluation at the beginning of the step and one inside it or at its end."""
        return 2


@record
class StochasticRungeKutta(Step):
    """SRA1 of Roessler (2010, table 6.3) on the reverse SDE in the form dy = D dw + dW.

        Y = y + (3/4) k D(y) + (3/2) J,    y' = y + k (D(y) / 3 + 2 D(Y) / 3) + dW,    J = (dW + dZ / sqrt(3)) / 2,

    where k is the step length in w = (alpha / sigma)^2, and dW and dZ are independent with variance k. The method has
    strong order 1.5 and weak order 2. The second evaluation lies at three quarters of the step in w, which is between
    the levels of a ladder. A step into a level without noise returns the posterior mean and makes one evaluation.
    """

    order: ClassVar[int | None] = 2

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        first = score.denoised(x, t)
        if all(b.sigma == 0.0 for b in then):
            clean = linear_combination([[b.alpha] for b in then], [first])
            return StepResult(clean, clean, denoised=first)
        inside = [math.log(_snr(a) + 0.75 * (_snr(b) - _snr(a))) for a, b in zip_rows(now, then)]
        time = process.time_at_log_snr(torch.tensor(inside, dtype=torch.float64)).expand(len(t))
        middle = levels_at(process, time)
        w, z = noise(x), noise(x)
        stage, mean, std = [], [], []
        for a, c, b in zip_rows(now, middle, then):
            k = _snr(b) - _snr(a)
            into_y, out_c, out_b = a.alpha / a.sigma**2, c.sigma**2 / c.alpha, b.sigma**2 / b.alpha
            J = 0.75 * math.sqrt(k)
            stage.append([out_c * into_y, out_c * 0.75 * k, out_c * J, out_c * J / math.sqrt(3.0)])
            mean.append([out_b * into_y, out_b * k / 3.0, out_b * k * 2.0 / 3.0])
            std.append(out_b * math.sqrt(k))
        second = score.denoised(linear_combination(stage, [x, first, w, z]), time)
        x = linear_combination(mean, [x, first, second])
        return StepResult(add_noise(x, std, w), x, denoised=second)

    def calls_per_step(self) -> int | None:
        """2: one evaluation at the beginning of the step and one inside it or at its end."""
        return 2


def _snr(level: Level) -> float:
    """w = (alpha / sigma)^2."""
    return (level.alpha / level.sigma) ** 2


@record
class KarrasHeun(Step):
    """The stochastic sampler of EDM: increase the noise, then take a Heun step (Karras et al. 2022, algorithm 2).

    In y = x / alpha and r = sigma / alpha the probability flow is dy/dr = (y - D) / r. The noise is first increased
    from r_t to (1 + gamma) r_t, at most to that of t = 1. The flow is then followed down to r_s by the trapezoidal
    rule, or into a level without noise by Euler's method, which gives D. At gamma = 0 the step is deterministic and of
    order 2.

    Args:
        gamma: S_churn / N of the paper for N steps, where it is at most sqrt(2) - 1. With a fixed gamma the total added
            noise grows with the number of steps.
        low: S_tmin, the smallest r at which the noise is increased.
        high: S_tmax, the largest r at which the noise is increased.
        inflation: S_noise, the factor by which the standard deviation of the added noise is multiplied.

    Raises:
        ValueError: gamma is negative or infinite, or `inflation` is not positive.
    """

    gamma: float = 0.0
    low: float = 0.0
    high: float = math.inf
    inflation: float = 1.0

    order: ClassVar[int | None] = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma < math.inf or not self.inflation > 0.0:
            raise ValueError(
                f"gamma={self.gamma} must be finite and not negative, and inflation={self.inflation} must be positive;"
                " for S_churn of the paper and N steps pass gamma=min(S_churn / N, 0.4142)"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        if self.gamma:
            x, t, now = self._raised(process, x, t, noise(x))
        first = score.denoised(x, t)
        guess = linear_combination([data_coefficients(a, b, [0.0], 1.0) for a, b in zip_rows(now, then)], [x, first])
        if all(b.sigma == 0.0 for b in then):
            return StepResult(guess, guess, denoised=first)
        second = score.denoised(guess, s)
        rows = []
        for a, b in zip_rows(now, then):
            r, q = a.sigma / a.alpha, b.sigma / b.alpha
            # y + (q - r) / 2 ((y - D) / r + (y_guess - D_guess) / q) with y_guess = D + (q / r) (y - D)
            half = 0.5 * (q - r)
            keep = 1.0 + 2.0 * half / r
            rows.append([b.alpha / a.alpha * keep, b.alpha * (half / q - 2.0 * half / r), -b.alpha * half / q])
        x = linear_combination(rows, [x, first, second])
        return StepResult(x, x, denoised=second)

    def _raised(self, process: Process, x: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Levels]:
        """The state with its noise increased by gamma, and the times and levels of that noise."""
        rows, before = len(t), levels_at(process, t)
        ratios = [a.sigma / a.alpha for a in before]
        aim = torch.tensor([-2.0 * math.log((1.0 + self.gamma) * r) for r in ratios], dtype=torch.float64)
        inside = torch.tensor([self.low <= r <= self.high for r in ratios])
        t = torch.where(inside, process.time_at_log_snr(aim), t[: len(ratios)])
        after = levels_at(process, t)
        kept, stds = [], []
        for a, b in zip_rows(before, after):
            added = max((b.sigma / b.alpha) ** 2 - (a.sigma / a.alpha) ** 2, 0.0)  # 0 at t = 1, the most noise
            kept.append([b.alpha / a.alpha])
            stds.append(self.inflation * b.alpha * math.sqrt(added))
        return add_noise(linear_combination(kept, [x]), stds, z), t.expand(rows), after

    def calls_per_step(self) -> int | None:
        """2: one evaluation at the beginning of the step and one inside it or at its end."""
        return 2
