"""Langevin correctors: steps at one noise level, and the rules for their size.

Two conventions are in use for the size e. This library's, and that of the published code, is

    x + e score + sqrt(2 e) z        stationary variance v / (1 - e / (2 v)) on a Gaussian of variance v ("full");

the papers write x + (e / 2) score + sqrt(e) z, with v / (1 - e / (4 v)) ("half").
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor

from scorefield._codec import record
from scorefield._math import norm_event, once, over_event, plus_scaled
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.step import Moved, Step
from scorefield.score.score import BoundScore, tweedie


class StepSize(ABC):
    """A rule for the Langevin step size, (B,)."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """The size at level t of a chain whose next level is s; `gradient` is the score, z the noise of this step."""


def _decay(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """(alpha_t / alpha_s)^2: 1 for VE, 1 - beta_k on DDPM's table; the prefactor alpha of the published correctors."""
    return (process.alpha(once(t)) / process.alpha(once(s))) ** 2


@record
class NoiseScaled(StepSize):
    """e = 2 a (r sigma_t)^2: depends on the noise level alone, so that the step's law is known. The default.

    The `ald` corrector of Song et al.'s code; a is (alpha_t / alpha_s)^2, 1 for VE.

    Args:
        snr: r, the target ratio of score step to noise.
    """

    snr: float = 0.16

    def __post_init__(self) -> None:
        _require_positive("snr", self.snr, "0.16 is the usual one")

    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """2 a (r sigma_t)^2."""
        return 2.0 * _decay(process, t, s) * (self.snr * process.sigma(once(t))) ** 2


@record
class NormRatio(StepSize):
    """e = 2 a (r |z| / |score|)^2, the `langevin` corrector of Song et al. (2021), algorithms 4 and 5.

    Args:
        snr: r.
        norm: "batch" averages both norms over the batch, as published: the result of an example then depends on its
            batch mates. "example" uses each example's own: invariant, but the size depends on the state and the noise,
            which biases the stationary law in low dimension.
    """

    snr: float = 0.16
    norm: Literal["batch", "example"] = "example"

    def __post_init__(self) -> None:
        _require_positive("snr", self.snr, "0.16 is the usual one")

    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """2 a (r |z| / |score|)^2."""
        z_norm, score_norm = norm_event(z), norm_event(gradient)
        if self.norm == "batch":
            z_norm, score_norm = z_norm.mean().expand_as(z_norm), score_norm.mean().expand_as(score_norm)
        return 2.0 * over_event(_decay(process, t, s), z_norm) * (self.snr * z_norm / score_norm) ** 2


@record
class LadderScaled(StepSize):
    """e = epsilon sigma_t^2 / sigma_end^2, the annealed Langevin dynamics of NCSN (Song and Ermon 2019, algorithm 1).

    Args:
        epsilon: The size at the smallest level.
        sigma_end: The smallest level, model units.
    """

    epsilon: float
    sigma_end: float

    def __post_init__(self) -> None:
        _require_positive("sigma_end", self.sigma_end, "it is the smallest noise level")
        most = f"on a point mass x + e score + sqrt(2 e) z is stable for it in (0, {2.0 * self.sigma_end**2:g})"
        _require_positive("epsilon", self.epsilon, most)

    def __call__(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        """epsilon (sigma_t / sigma_end)^2."""
        return self.epsilon * (process.sigma(once(t)) / self.sigma_end) ** 2


def _require_positive(name: str, value: float, advice: str) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name}={value:g} must be a positive number; {advice}")


def require_stable(size: StepSize, convention: Literal["full", "half"] = "full") -> None:
    """Refuse an snr r at which steps amplify noise.

    Where p_t has the variance v = sigma_t^2 of its noise alone, a step multiplies deviations by 1 - e / v, which is
    1 - 2 r^2 in the full convention and 1 - r^2 in the half one: stable for r below 1 and sqrt(2). Leapfrog steps of
    length sqrt(2 e) = 2 r sigma_t are stable for r below 1 as well. (Of `LadderScaled` no such bound is known without
    the data: where they are wide, so may the step be.)

    Raises:
        ValueError: snr lies outside the stable interval.
    """
    if not isinstance(size, NoiseScaled | NormRatio):
        return
    most = 1.0 if convention == "full" else 2.0**0.5
    if size.snr >= most:
        raise ValueError(
            f"snr={size.snr:g} is outside the stable interval (0, {most:.4g}) of the {convention} convention: each step"
            " would amplify the noise; published values lie between 0.01 and 0.22, and scorefield tune finds one"
        )


@record
class Langevin(Step):
    """One unadjusted Langevin step at level t.

    Args:
        size: The rule for e.
        convention: "full" is x + e score + sqrt(2 e) z; "half" is x + (e / 2) score + sqrt(e) z.
        noise: "last" adds the noise after the gradient step; "first" before it, y + e score(y) with y = x + sqrt(2 e)
            z, as most runs of Jolicoeur-Martineau et al. (2021) do: the two alternate the same moves, and "first" ends
            on a gradient step.
    """

    size: StepSize = NoiseScaled()
    convention: Literal["full", "half"] = "full"
    noise: Literal["last", "first"] = "last"

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = (
        "p_t as e -> 0; on a Gaussian of variance v, v / (1 - e / (2 v)) (half: e / (4 v)); noise first: that of the"
        " same chain seen after its gradient steps, v (1 - e / v)^2 / (1 - e / (2 v))"
    )
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_stable(self.size, self.convention)

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`.

        Raises:
            ValueError: There is no noise at t, so no score to follow; or a size that noise="first" cannot know.
        """
        if bool((once(t) < 0.0).any()):
            raise ValueError(
                "a corrector has no score to follow below level 0, where there is no noise; put it before the predictor"
                " in the Chain, or end at level 0 with EveryLevel(clean=False)"
            )
        z = noise(x)
        if self.noise == "first":
            return self._noise_first(score, process, x, t, s, z)
        gradient = score(x, t)
        e = self._full_size(process, t, s, gradient, z)
        mean = plus_scaled(x, e, gradient)
        return Moved(plus_scaled(mean, (2.0 * e).sqrt(), z), mean, denoised=tweedie(process, x, t, gradient))

    def _noise_first(self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, z: Tensor) -> Moved:
        if isinstance(self.size, NormRatio):
            raise ValueError(
                "NormRatio sets the size by the score at the point before the noise, which noise='first' does not"
                " evaluate; use NoiseScaled(snr) or LadderScaled(epsilon, sigma_end)"
            )
        e = self._full_size(process, t, s, x, z)
        y = plus_scaled(x, (2.0 * e).sqrt(), z)
        gradient = score(y, t)
        x = plus_scaled(y, e, gradient)
        return Moved(x, x, denoised=tweedie(process, y, t, gradient))

    def _full_size(self, process: Process, t: Tensor, s: Tensor, gradient: Tensor, z: Tensor) -> Tensor:
        e = self.size(process, t, s, gradient, z)
        return 0.5 * e if self.convention == "half" else e
