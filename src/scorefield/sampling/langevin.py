"""Langevin correctors: steps at one noise level, and the rules for their step size e.

Two conventions are in use for e. On a Gaussian of variance v they have different stationary variances:

    "full"  x + e score + sqrt(2 e) z          v / (1 - e / (2 v))     this library and the published code
    "half"  x + (e / 2) score + sqrt(e) z      v / (1 - e / (4 v))     the papers
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor

from scorefield._codec import record
from scorefield._math import norm_event, over_event, plus_scaled, unexpanded
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore, tweedie


class StepSize(ABC):
    """A rule for the Langevin step size e."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """The step size e.

        Args:
            process: The process whose alpha and sigma are used.
            t: Times of the corrector, (B,).
            s: The next times of the chain, (B,).
            gradient: The score at x_t, (B, *event).
            z: The noise of this step, (B, *event).

        Returns:
            e, shape (B,), or (1,) where all examples share it.
        """


def _decay(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """(alpha_t / alpha_s)^2, the factor alpha of the published correctors: 1 for VE, 1 - beta_k for DDPM's levels."""
    return (process.alpha(unexpanded(t)) / process.alpha(unexpanded(s))) ** 2


@record
class NoiseScaled(StepSize):
    """e = 2 a (r sigma_t)^2 with a = (alpha_t / alpha_s)^2, which is 1 for VE. This is the default rule.

    It is the `ald` corrector of Song et al.'s code. The size depends only on the noise level and not on the state, so
    that the stationary distribution of the step is known.

    Args:
        snr: r, the target ratio of the score step to the noise, positive.
    """

    snr: float = 0.16

    def __post_init__(self) -> None:
        _require_positive("snr", self.snr, "the usual value is 0.16")

    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """e = 2 a (r sigma_t)^2."""
        return 2.0 * _decay(process, t, s) * (self.snr * process.sigma(unexpanded(t))) ** 2


@record
class NormRatio(StepSize):
    """e = 2 a (r |z| / |score|)^2, the `langevin` corrector of Song et al. (2021), algorithms 4 and 5.

    a = (alpha_t / alpha_s)^2.

    Args:
        snr: r, the target ratio of the score step to the noise, positive.
        norm: "batch" averages both norms over the batch, as published; a sample then depends on the other samples of
            its batch. "example" uses the norms of each example, so that samples do not depend on the batch. In both
            cases e depends on the state and the noise, which biases the stationary distribution in low dimension.
    """

    snr: float = 0.16
    norm: Literal["batch", "example"] = "example"

    def __post_init__(self) -> None:
        _require_positive("snr", self.snr, "the usual value is 0.16")

    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """e = 2 a (r |z| / |score|)^2."""
        z_norm, score_norm = norm_event(z), norm_event(gradient)
        if self.norm == "batch":
            z_norm, score_norm = z_norm.mean().expand_as(z_norm), score_norm.mean().expand_as(score_norm)
        return 2.0 * over_event(_decay(process, t, s), z_norm) * (self.snr * z_norm / score_norm) ** 2


@record
class LadderScaled(StepSize):
    """e = epsilon sigma_t^2 / sigma_end^2, the annealed Langevin dynamics of NCSN (Song and Ermon 2019, algorithm 1).

    Args:
        epsilon: The step size at the smallest noise level.
        sigma_end: The smallest noise level, model units.
    """

    epsilon: float
    sigma_end: float

    def __post_init__(self) -> None:
        _require_positive("sigma_end", self.sigma_end, "it is the smallest noise level")
        stable = f"x + e score + sqrt(2 e) z is stable on a point mass for epsilon in (0, {2.0 * self.sigma_end**2:g})"
        _require_positive("epsilon", self.epsilon, stable)

    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """e = epsilon (sigma_t / sigma_end)^2."""
        return self.epsilon * (process.sigma(unexpanded(t)) / self.sigma_end) ** 2


def _require_positive(name: str, value: float, advice: str) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name}={value:g} must be a positive number; {advice}")


def require_stable(size: StepSize, convention: Literal["full", "half"] = "full") -> None:
    """Refuse an snr r at which steps amplify noise.

    Where p_t has only the variance v = sigma_t^2 of its noise, a step multiplies deviations by 1 - e / v, which is
    1 - 2 r^2 in the "full" convention, stable for r < 1, and 1 - r^2 in the "half" convention, stable for r < sqrt(2).
    Leapfrog steps of length sqrt(2 e) = 2 r sigma_t are stable for r < 1 as well. `LadderScaled` is not checked: its
    bound depends on the data, because wide data admit a large step.

    Raises:
        ValueError: snr lies outside the stable interval.
    """
    if not isinstance(size, NoiseScaled | NormRatio):
        return
    most = 1.0 if convention == "full" else 2.0**0.5
    if size.snr >= most:
        raise ValueError(
            f"snr={size.snr:g} is outside the stable interval (0, {most:.4g}) of the {convention} convention: each"
            " step would amplify the noise. Published values lie between 0.01 and 0.22, and scorefield tune finds one"
        )


def require_noise(t: Tensor) -> None:
    """Refuse a corrector at a time below level 0 of a ladder (t < 0), where there is no noise and no score.

    Raises:
        ValueError: A time in t is negative.
    """
    if bool((unexpanded(t) < 0.0).any()):
        raise ValueError(
            "a corrector needs a score, and below level 0 of a ladder there is no noise and no score; put it before the"
            " predictor in the Chain, or end at level 0 with EveryLevel(clean=False)"
        )


@record
class Langevin(Step):
    """One unadjusted Langevin step at level t.

    Args:
        size: The rule for e.
        convention: "full" is x + e score + sqrt(2 e) z; "half" is x + (e / 2) score + sqrt(e) z.
        noise: "last" adds the noise after the gradient step. "first" adds it before, y + e score(y) with
            y = x + sqrt(2 e) z, as in most runs of Jolicoeur-Martineau et al. (2021). Both alternate the same two
            updates; with "first" the last one is a gradient step.

    Raises:
        ValueError: snr lies outside the stable interval.
    """

    size: StepSize = NoiseScaled()
    convention: Literal["full", "half"] = "full"
    noise: Literal["last", "first"] = "last"

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "p_t as e -> 0; on a Gaussian of variance v the variance v / (1 - e / (2 v)), with e / (4 v) in the half"
        " convention; with the noise first v (1 - e / v)^2 / (1 - e / (2 v)), the variance after the gradient steps"
    )
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_stable(self.size, self.convention)

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`.

        Raises:
            ValueError: There is no noise at t and therefore no score; or the rule for the step size needs a score that
                noise="first" does not evaluate.
        """
        require_noise(t)
        z = noise(x)
        if self.noise == "first":
            return self._noise_first(score, process, x, t, s, z)
        gradient = score(x, t)
        e = self._full_size(process, t, s, gradient, z)
        mean = plus_scaled(x, e, gradient)
        return StepResult(plus_scaled(mean, (2.0 * e).sqrt(), z), mean, denoised=tweedie(process, x, t, gradient))

    def _noise_first(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, z: Tensor
    ) -> StepResult:
        if isinstance(self.size, NormRatio):
            raise ValueError(
                "NormRatio computes the step size from the score before the noise is added, which noise='first' does"
                " not evaluate; use NoiseScaled(snr) or LadderScaled(epsilon, sigma_end)"
            )
        e = self._full_size(process, t, s, x, z)
        y = plus_scaled(x, (2.0 * e).sqrt(), z)
        gradient = score(y, t)
        x = plus_scaled(y, e, gradient)
        return StepResult(x, x, denoised=tweedie(process, y, t, gradient))

    def _full_size(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """The step size in the "full" convention."""
        e = self.size(process, t, s, gradient, z)
        return 0.5 * e if self.convention == "half" else e
