"""Steps that move from t to s with one or two evaluations of the score."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event
from scorefield._random import StepNoise
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
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
        h = t - s
        mean = x - over_event(h, x) * process.reverse_drift(x, t, score(x, t))
        return Moved(mean + over_event(h.sqrt(), x) * _diffused(process, x, t, noise), mean)


def _diffused(process: Process | GeneralSDE, x: Tensor, t: Tensor, noise: StepNoise) -> Tensor:
    """G z, shape of x, for the number of independent noises that the diffusion G acts on."""
    if not isinstance(process, GeneralSDE):
        return over_event(process.diffusion(t), x) * noise(x)
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
        a, b = process.kernel(s, t)
        weight = 0.5 * b**2 if self.flow else b**2
        mean = over_event(2.0 - a, x) * x + over_event(weight, x) * score(x, t)
        return Moved(mean, mean) if self.flow else Moved(mean + over_event(b, x) * noise(x), mean)


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
        a, b = process.kernel(s, t)
        mean = (x + over_event(b**2, x) * score(x, t)) / over_event(a, x)
        std = b if self.variance == "forward" else b * process.sigma(s) / process.sigma(t)
        return Moved(mean + over_event(std, x) * noise(x), mean)


@record
class FlowEuler(Step):
    """Euler's method on the probability flow dx/dt = f x - g^2 score / 2 (Song et al. 2021, eq. 13)."""

    order: ClassVar[int | None] = 1
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "rates"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`."""
        x = x + over_event(s - t, x) * process.flow_drift(x, t, score(x, t))
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
        h = over_event(s - t, x)
        first = process.flow_drift(x, t, score(x, t))
        guess = x + h * first
        x = x + 0.5 * h * (first + process.flow_drift(guess, s, score(guess, s)))
        return Moved(x, x)

    def calls_per_step(self) -> int | None:
        """Two."""
        return 2
