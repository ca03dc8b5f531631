"""Stochastic solvers that integrate the linear part and the noise exactly, for any alpha and sigma and on any grid.

With lambda = log(alpha / sigma), h = lambda_s - lambda_t > 0 and the posterior mean D, all processes

    x_s = (sigma_s / sigma_t) exp(-e^2 h) x_t + (1 + e^2) alpha_s int exp(-(1 + e^2) (lambda_s - v)) D(v) dv
          + sigma_s sqrt(1 - exp(-2 e^2 h)) z

have the marginals of the reverse SDE: e = 1 is that SDE itself, e = 0 the probability flow. Of the SDE, the clock
w = (alpha / sigma)^2 and y = (alpha / sigma^2) x leave nothing but dy = D dw + dW, an additive noise, for which a
Runge-Kutta method of two evaluations is of second weak order.
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
    combined,
    data_row,
    levels_at,
    resumed,
    side_by_side,
    with_noise,
)
from scorefield.sampling.step import Moved, Step
from scorefield.score.score import BoundScore


def _share(a: Level, b: Level, strength: float = 1.0) -> float:
    """1 - exp(-2 e^2 h), the share of the noise variance that is renewed from a to b; 1 where none is left."""
    return -math.expm1(2.0 * strength**2 * (a.snr - b.snr)) if b.sigma > 0.0 else 1.0


@record
class DDIM(Step):
    """x_s = alpha_s D + sqrt(sigma_s^2 - d^2) e + d z with the noise e = (x - alpha_t D) / sigma_t that D leaves.

    d = eta sigma_s sqrt(1 - exp(-2 h)), eta times the standard deviation of x_s given x_t and x_0 (Song, Meng and
    Ermon 2021, eq. 12 and 16, for any alpha and sigma). eta = 1 is ancestral sampling with the posterior variance;
    eta = 0 the first-order exponential step on the flow.

    Args:
        eta: Share of the noise that is drawn afresh, in [0, 1].
    """

    eta: float = 0.0

    order: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(
                f"eta={self.eta} must lie in [0, 1]: 0 draws no noise, 1 is ancestral sampling, more would leave"
                " x_s with more noise than its level has"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        denoised = score.denoised(x, t)
        rows, stds = [], []
        for a, b in side_by_side(now, then):
            d = self.eta * b.sigma * math.sqrt(_share(a, b))
            keep = math.sqrt(b.sigma**2 - d**2) / a.sigma
            rows.append([keep, b.alpha - a.alpha * keep])
            stds.append(d)
        mean = combined(rows, [x, denoised])
        return Moved(with_noise(mean, stds, noise(x)) if self.eta else mean, mean, denoised=denoised)


@record
class StochasticMultistep(Multistep):
    """Exponential multistep method on the reverse SDE, one score call per step.

    Order 1 is ancestral sampling; order 2 puts a line through the last two evaluations of D: SDE-DPM-Solver++(2M) (Lu
    et al. 2022, "DPM-Solver++", section 6) with exact weights. Its noise is that of the step before when it looks at
    how D changed, which has the same law: the variance, too, is of second order. The corrector is that of SA-Solver
    (Xue et al. 2023, algorithm 1). Into a level without noise the step takes the posterior mean.

    Args:
        order: Weak order; evaluations behind a step.
        corrector: Predict by one evaluation fewer, and correct by the next one, at no further call. The last step stays
            as predicted.
        strength: e, the strength of the noise; 1 is the reverse SDE, 0 the flow.
    """

    order: Literal[1, 2] = 2  # pyright: ignore[reportIncompatibleVariableOverride]
    corrector: bool = False
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order={self.order!r}; the stochastic multistep method is of weak order 1 or 2")
        if self.corrector and self.order == 1:
            raise ValueError("a corrector adds an evaluation to those of the predictor; use order=2 with it")
        if not 0.0 <= self.strength < math.inf:
            raise ValueError(f"strength={self.strength} of the noise; 1 is the reverse SDE, 0 the probability flow")

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        now = resumed(memory, process, t)
        mean, denoised, past = self._advanced(score, process, x, t, s, memory)
        if self.strength == 0.0 or past is None:
            return Moved(mean, mean, past, denoised=denoised)
        stds = [b.sigma * math.sqrt(_share(a, b, self.strength)) for a, b in side_by_side(now, past.levels)]
        return Moved(with_noise(mean, stds, noise(x)), mean, past, denoised=denoised)

    def _evaluate(self, score: BoundScore, x: Tensor, t: Tensor, levels: Levels) -> Tensor:
        return score.denoised(x, t)

    def _reach(self) -> tuple[int, int]:
        return (self.order - 1, self.order) if self.corrector else (self.order, 0)

    def _row(self, a: Level, b: Level, nodes: Sequence[Level]) -> list[float]:
        return data_row(a, b, [node.snr - a.snr for node in nodes], 1.0 + self.strength**2)


@record
class StochasticHeun(Step):
    """Heun's method on the reverse SDE: D is a line from its value at t to that at a first guess of x_s.

    Both use the same noise (Kloeden and Platen 1992, section 15.1, for additive noise), and the exponential weights of
    the line. Into a level without noise the step takes the posterior mean, with one call.
    """

    order: ClassVar[int | None] = 2

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        first = score.denoised(x, t)
        guess = combined([data_row(a, b, [0.0], 2.0) for a, b in side_by_side(now, then)], [x, first])
        if all(b.sigma == 0.0 for b in then):
            return Moved(guess, guess, denoised=first)
        stds, z = [b.sigma * math.sqrt(_share(a, b)) for a, b in side_by_side(now, then)], noise(x)
        second = score.denoised(with_noise(guess, stds, z), s)
        rows = [data_row(a, b, [0.0, b.snr - a.snr], 2.0) for a, b in side_by_side(now, then)]
        mean = combined(rows, [x, first, second])
        return Moved(with_noise(mean, stds, z), mean, denoised=second)

    def calls_per_step(self) -> int | None:
        """Two."""
        return 2


@record
class StochasticRungeKutta(Step):
    """SRA1 of Roessler (2010, table 6.3) on the reverse SDE in the clock in which it is dy = D dw + dW.

        Y = y + (3/4) k D(y) + (3/2) J,    y' = y + k (D(y) / 3 + 2 D(Y) / 3) + dW,    J = (dW + dZ / sqrt(3)) / 2,

    k the step in w = (alpha / sigma)^2, dW and dZ independent of variance k. Strong order 1.5, weak order 2. The second
    evaluation lies at three quarters of the step in w: between the levels of a ladder. Into a level without noise the
    step takes the posterior mean, with one call.
    """

    order: ClassVar[int | None] = 2

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        first = score.denoised(x, t)
        if all(b.sigma == 0.0 for b in then):
            clean = combined([[b.alpha] for b in then], [first])
            return Moved(clean, clean, denoised=first)
        inside = [math.log(_clock(a) + 0.75 * (_clock(b) - _clock(a))) for a, b in side_by_side(now, then)]
        time = process.time_at_log_snr(torch.tensor(inside, dtype=torch.float64)).expand(len(t))
        middle = levels_at(process, time)
        w, z = noise(x), noise(x)
        stage, mean, std = [], [], []
        for a, c, b in side_by_side(now, middle, then):
            k = _clock(b) - _clock(a)
            into_y, out_c, out_b = a.alpha / a.sigma**2, c.sigma**2 / c.alpha, b.sigma**2 / b.alpha
            J = 0.75 * math.sqrt(k)
            stage.append([out_c * into_y, out_c * 0.75 * k, out_c * J, out_c * J / math.sqrt(3.0)])
            mean.append([out_b * into_y, out_b * k / 3.0, out_b * k * 2.0 / 3.0])
            std.append(out_b * math.sqrt(k))
        second = score.denoised(combined(stage, [x, first, w, z]), time)
        x = combined(mean, [x, first, second])
        return Moved(with_noise(x, std, w), x, denoised=second)

    def calls_per_step(self) -> int | None:
        """Two."""
        return 2


def _clock(level: Level) -> float:
    """(alpha / sigma)^2."""
    return (level.alpha / level.sigma) ** 2


@record
class KarrasHeun(Step):
    """The stochastic sampler of EDM: raise the noise, then Heun's method on the flow (Karras et al. 2022, algorithm 2).

    In y = x / alpha and r = sigma / alpha the flow is dy/dr = (y - D) / r. From r_t the noise is first raised to
    (1 + gamma) r_t, at most to that of t = 1, then followed down to r_s with a trapezoid; into a level without noise
    by Euler's method, which gives D. At gamma = 0 it is deterministic, of order 2.

    Args:
        gamma: S_churn / N of the paper for N steps, at most sqrt(2) - 1 there; a fixed gamma adds more noise in all
            the more steps there are.
        low: S_tmin, the least r at which the noise is raised.
        high: S_tmax, the largest.
        inflation: S_noise, by which the added noise is too loud.
    """

    gamma: float = 0.0
    low: float = 0.0
    high: float = math.inf
    inflation: float = 1.0

    order: ClassVar[int | None] = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma < math.inf or not self.inflation > 0.0:
            raise ValueError(
                f"gamma={self.gamma} and inflation={self.inflation}; the noise is raised by gamma >= 0 of itself and"
                " scaled by inflation > 0 (for S_churn of the paper and N steps pass gamma=min(S_churn / N, 0.4142))"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        now, then = levels_at(process, t), levels_at(process, s)
        if self.gamma:
            x, t, now = self._raised(process, x, t, noise(x))
        first = score.denoised(x, t)
        guess = combined([data_row(a, b, [0.0], 1.0) for a, b in side_by_side(now, then)], [x, first])
        if all(b.sigma == 0.0 for b in then):
            return Moved(guess, guess, denoised=first)
        second = score.denoised(guess, s)
        rows = []
        for a, b in side_by_side(now, then):
            r, q = a.sigma / a.alpha, b.sigma / b.alpha
            # y + (q - r) / 2 ((y - D) / r + (y_guess - D_guess) / q) with y_guess = D + (q / r) (y - D)
            half = 0.5 * (q - r)
            keep = 1.0 + 2.0 * half / r
            rows.append([b.alpha / a.alpha * keep, b.alpha * (half / q - 2.0 * half / r), -b.alpha * half / q])
        x = combined(rows, [x, first, second])
        return Moved(x, x, denoised=second)

    def _raised(self, process: Process, x: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Levels]:
        """The state with more noise, and its time and levels."""
        rows, before = len(t), levels_at(process, t)
        ratios = [a.sigma / a.alpha for a in before]
        aim = torch.tensor([-2.0 * math.log((1.0 + self.gamma) * r) for r in ratios], dtype=torch.float64)
        inside = torch.tensor([self.low <= r <= self.high for r in ratios])
        t = torch.where(inside, process.time_at_log_snr(aim), t[: len(ratios)])
        after = levels_at(process, t)
        kept, stds = [], []
        for a, b in side_by_side(before, after):
            added = max((b.sigma / b.alpha) ** 2 - (a.sigma / a.alpha) ** 2, 0.0)  # at t = 1 there is no room above
            kept.append([b.alpha / a.alpha])
            stds.append(self.inflation * b.alpha * math.sqrt(added))
        return with_noise(combined(kept, [x]), stds, z), t.expand(rows), after

    def calls_per_step(self) -> int | None:
        """Two."""
        return 2
