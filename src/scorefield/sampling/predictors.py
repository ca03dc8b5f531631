"""Predictors: steps from t to s with one or two score evaluations."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, plus_scaled, unexpanded
from scorefield._random import StepNoise
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.sampling.exponential import Rows, linear_combination
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore


@record
class EulerMaruyama(Step):
    """Euler-Maruyama on the reverse-time SDE: x + (f x - g^2 score)(s - t) + g sqrt(t - s) z.

    This is the method of Song et al. (2021, section 3.3) and the `euler_maruyama` predictor of their code, whose step
    length is 1/N; here it is t - s.
    """

    order: ClassVar[int | None] = 1
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        h, slope = unexpanded(t) - unexpanded(s), score(x, t)
        if isinstance(process, GeneralSDE):
            mean = x - over_event(h, x) * process.reverse_drift(x, t, slope)
            return StepResult(mean + over_event(h.sqrt(), x) * _diffused(process, x, t, noise), mean)
        mean = linear_combination(_euler(process, t, s, 1.0), [x, slope])
        return StepResult(plus_scaled(mean, h.sqrt() * process.diffusion(unexpanded(t)), noise(x)), mean)


def _euler(process: Process, t: Tensor, s: Tensor, share: float) -> Rows:
    """Coefficients of x and the score in x + (s - t) (f x - share g^2 score).

    `share` is 1 for the reverse SDE and 1/2 for the probability flow.
    """
    t, h = unexpanded(t), unexpanded(s) - unexpanded(t)
    f, g_squared = process.log_alpha_rate(t), process.diffusion_squared(t)
    return torch.stack([1.0 + h * f, -share * h * g_squared], 1).tolist()


def _diffused(process: GeneralSDE, x: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
    """G z, shape of x, where z has as many components as the diffusion matrix G has columns."""
    like = x
    if process.noise == "matrix":
        like = x.new_empty(x.shape[0], process.diffusion(x, t).shape[-1])
    return process.apply_diffusion(x, t, noise(like))


@record
class ReverseDiffusion(Step):
    """Reverse diffusion: x_s = (2 - a) x + b^2 score + b z for the forward transition x_t = a x_s + b z.

    Song et al. 2021, appendix E (eq. 46). On a ladder this is the published predictor: x + (sigma_k^2 -
    sigma_{k-1}^2) score for VE, (2 - sqrt(1 - beta_k)) x + beta_k score for VP. For sub-VP it follows from the
    transition kernel in the same way; the published code, which has no ladder for sub-VP, uses Euler-Maruyama instead.

    Args:
        flow: Whether to use the probability-flow variant of the published code: half the score term and no noise.
    """

    flow: bool = False

    order: ClassVar[int | None] = 1

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        a, b = process.kernel(unexpanded(s), unexpanded(t))
        weight = 0.5 * b**2 if self.flow else b**2
        mean = linear_combination(torch.stack([2.0 - a, weight], 1).tolist(), [x, score(x, t)])
        return StepResult(mean, mean) if self.flow else StepResult(plus_scaled(mean, b, noise(x)), mean)


@record
class Ancestral(Step):
    """Ancestral sampling: a draw of x_s given x_t and x_0, with x_0 replaced by its posterior mean.

    The mean is (x + b^2 score) / a for the transition x_t = a x_s + b z. This is algorithm 2 of Ho et al. (2020) for
    any process; Song et al. (2021, appendix F) give it for VE and VP.

    Args:
        variance: "posterior" is sigma_s^2 b^2 / sigma_t^2, the variance given x_0, which is exact for data at a single
            point. "forward" is b^2, the choice of the published VP predictor (beta_k), which is exact for VP and data
            of unit variance.
    """

    variance: Literal["posterior", "forward"] = "posterior"

    order: ClassVar[int | None] = 1

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        a, b = process.kernel(unexpanded(s), unexpanded(t))
        mean = linear_combination(torch.stack([1.0 / a, b**2 / a], 1).tolist(), [x, score(x, t)])
        std = b if self.variance == "forward" else b * process.sigma(unexpanded(s)) / process.sigma(unexpanded(t))
        return StepResult(plus_scaled(mean, std, noise(x)), mean)


@record
class FlowEuler(Step):
    """Euler's method on the probability flow dx/dt = f x - g^2 score / 2 (Song et al. 2021, eq. 13)."""

    order: ClassVar[int | None] = 1
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        slope = score(x, t)
        if isinstance(process, GeneralSDE):
            x = x + over_event(s - t, x) * process.flow_drift(x, t, slope)
        else:
            x = linear_combination(_euler(process, t, s, 0.5), [x, slope])
        return StepResult(x, x)


@record
class FlowHeun(Step):
    """Heun's method (the explicit trapezoidal rule) in t on the probability flow dx/dt = f x - g^2 score / 2."""

    order: ClassVar[int | None] = 2
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        first = score(x, t)
        if isinstance(process, GeneralSDE):
            h, slope = over_event(s - t, x), process.flow_drift(x, t, first)
            guess = x + h * slope
            x = x + 0.5 * h * (slope + process.flow_drift(guess, s, score(guess, s)))
            return StepResult(x, x)
        ahead, back = _euler(process, t, s, 0.5), _euler(process, s, t, 0.5)
        guess = linear_combination(ahead, [x, first])
        # An Euler step from s back to t gives guess - h slope(s), so h slope(s) / 2 is half of guess minus that step.
        rows = [[0.5 + 0.5 * a, 0.5 * b, 0.5 - 0.5 * c, -0.5 * d] for (a, b), (c, d) in zip(ahead, back, strict=True)]
        x = linear_combination(rows, [x, first, guess, score(guess, s)])
        return StepResult(x, x)

    def calls_per_step(self) -> int | None:
        """2: one evaluation at t and one at s."""
        return 2
