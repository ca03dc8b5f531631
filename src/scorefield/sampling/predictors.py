"""Steps that move from t to s with one or two evaluations of the score."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import once, over_event, plus_scaled
from scorefield._random import StepNoise
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.sampling.exponential import Rows, combined
from scorefield.sampling.step import Moved, Step
from scorefield.score.score import BoundScore


@record
class EulerMaruyama(Step):
    """Euler-Maruyama on the reverse-time SDE: x + (f x - g^2 score)(s - t) + g sqrt(t - s) z.

    Song et al. 2021, section 3.3, and the `euler_maruyama` predictor of its code, whose step is 1/N where this one is
    t - s.
    """

    order: ClassVar[int | None] = 1
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        h, slope = once(t) - once(s), score(x, t)
        if isinstance(process, GeneralSDE):
            mean = x - over_event(h, x) * process.reverse_drift(x, t, slope)
            return Moved(mean + over_event(h.sqrt(), x) * _diffused(process, x, t, noise), mean)
        mean = combined(_euler(process, t, s, 1.0), [x, slope])
        return Moved(plus_scaled(mean, h.sqrt() * process.diffusion(once(t)), noise(x)), mean)


def _euler(process: Process, t: Tensor, s: Tensor, share: float) -> Rows:
    """Coefficients of x and the score in x + (s - t) (f x - share g^2 score): 1 for the reverse SDE, 1/2 the flow."""
    t, h = once(t), once(s) - once(t)
    f, g_squared = process.log_alpha_rate(t), process.diffusion_squared(t)
    return torch.stack([1.0 + h * f, -share * h * g_squared], 1).tolist()


def _diffused(process: GeneralSDE, x: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
    """G z, shape of x, for the number of independent noises that the diffusion G acts on."""
    like = x
    if process.noise == "matrix":
        like = x.new_empty(x.shape[0], process.diffusion(x, t).shape[-1])
    return process.apply_diffusion(x, t, noise(like))


@record
class ReverseDiffusion(Step):
    """The forward transition x_t = a x_s + b z run backwards: x_s = (2 - a) x + b^2 score + b z.

    Song et al. 2021, appendix E (eq. 46). On a table it is the published predictor: x + (sigma_k^2 - sigma_{k-1}^2)
    score for VE, (2 - sqrt(1 - beta_k)) x + beta_k score for VP. For sub-VP it follows from the kernel in the same way,
    where the published code, which has no table for it, falls back on Euler-Maruyama.

    Args:
        flow: The probability-flow variant of the published code: half the score term, no noise.
    """

    flow: bool = False

    order: ClassVar[int | None] = 1

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        a, b = process.kernel(once(s), once(t))
        weight = 0.5 * b**2 if self.flow else b**2
        mean = combined(torch.stack([2.0 - a, weight], 1).tolist(), [x, score(x, t)])
        return Moved(mean, mean) if self.flow else Moved(plus_scaled(mean, b, noise(x)), mean)


@record
class Ancestral(Step):
    """Ancestral sampling: the law of x_s given x_t and x_0 with x_0 replaced by its posterior mean.

    mean = (x + b^2 score) / a with the transition x_t = a x_s + b z; Ho et al. 2020, algorithm 2, for any process
    (Song et al. 2021, appendix F, has VE and VP).

    Args:
        variance: "posterior" is sigma_s^2 b^2 / sigma_t^2, the variance given x_0, exact for data that are one point;
            "forward" is b^2, the choice of the published VP predictor (beta_k), exact for VP and data of unit variance.
    """

    variance: Literal["posterior", "forward"] = "posterior"

    order: ClassVar[int | None] = 1

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        a, b = process.kernel(once(s), once(t))
        mean = combined(torch.stack([1.0 / a, b**2 / a], 1).tolist(), [x, score(x, t)])
        std = b if self.variance == "forward" else b * process.sigma(once(s)) / process.sigma(once(t))
        return Moved(plus_scaled(mean, std, noise(x)), mean)


@record
class FlowEuler(Step):
    """Euler's method on the probability flow dx/dt = f x - g^2 score / 2 (Song et al. 2021, eq. 13)."""

    order: ClassVar[int | None] = 1
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        slope = score(x, t)
        if isinstance(process, GeneralSDE):
            x = x + over_event(s - t, x) * process.flow_drift(x, t, slope)
        else:
            x = combined(_euler(process, t, s, 0.5), [x, slope])
        return Moved(x, x)


@record
class FlowHeun(Step):
    """Heun's method (the explicit trapezoid) on the probability flow, in t."""

    order: ClassVar[int | None] = 2
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        first = score(x, t)
        if isinstance(process, GeneralSDE):
            h, slope = over_event(s - t, x), process.flow_drift(x, t, first)
            guess = x + h * slope
            x = x + 0.5 * h * (slope + process.flow_drift(guess, s, score(guess, s)))
            return Moved(x, x)
        ahead, back = _euler(process, t, s, 0.5), _euler(process, s, t, 0.5)
        guess = combined(ahead, [x, first])
        # A step back from s is guess - h slope: of that, -1/2 of what it adds to the guess.
        rows = [[0.5 + 0.5 * a, 0.5 * b, 0.5 - 0.5 * c, -0.5 * d] for (a, b), (c, d) in zip(ahead, back, strict=True)]
        x = combined(rows, [x, first, guess, score(guess, s)])
        return Moved(x, x)

    def calls_per_step(self) -> int | None:
        """Two."""
        return 2
