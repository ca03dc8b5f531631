"""Guided scores: the score of x given y, from a score that does not know y and a likelihood p_t(y | x), or from two.

By Bayes' rule, with x a noisy example at time t,

    grad log p_t(x | y) = grad log p_t(x) + grad log p_t(y | x),

and a scale w other than 1 multiplies the second term (Dhariwal and Nichol 2021, section 4), which is the score of
p_t(x) p_t(y | x)^w up to normalisation. For w = 1 these are the marginals of one diffusion, that of x given y; for any
other w they are not, and what is sampled depends on the sampler as well.

A guided score is a Score: predictor, corrector, flow and denoising all follow it, and leave everything else alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scorefield._math import once, plus_scaled
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.score.score import Score, check_scales

LogLikelihood = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""log p_t(y | x) of shape (B,) from (x, t, condition); row i depends on row i of each alone. What belongs to an
example, its y for instance, comes in the condition, since adaptive solvers leave finished examples out of the batch."""


def clock(score: Score) -> Process:
    """Process of a score's x_t: the ladder its network was trained on, if any, else its process."""
    while isinstance(inner := getattr(score, "score", None), Score):
        score = inner
    return getattr(score, "levels", None) or score.process


def value_and_gradient(
    log_likelihood: LogLikelihood, x: Tensor, t: Tensor, condition: Condition | None
) -> tuple[Tensor, Tensor]:
    """log p_t(y | x), (B,), and its gradient in x; differentiable once more where gradients are enabled.

    Raises:
        ValueError: Not one number per example.
    """
    training = torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_(True)
        value = log_likelihood(point, t, condition)
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"the log-likelihood of a batch {tuple(x.shape)} has shape {tuple(value.shape)}; guidance takes one"
                f" number per example, shape ({len(x)},): sum over what belongs to one example"
            )
        if not value.requires_grad:  # nothing is known of y
            return value, torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(
            value.sum(), point, create_graph=training, allow_unused=True, materialize_grads=True
        )
    return value if training else value.detach(), gradient


class Guided(Score):
    """s(x, t) + w grad_x log p_t(y | x) (Song et al. 2021, eq. 14; w = 1 there).

    Args:
        score: s, of x without y.
        log_likelihood: log p_t(y | x), up to a constant of x; `NetworkGuide.log_prob`, or any function.
        scale: w >= 0; 0 leaves the score as it is.
        names: Entries of the condition that are y: the likelihood is conditioned on them, the score is not (it would
            count y twice).

    Raises:
        ValueError: A negative scale, or one that is not finite.
    """

    def __init__(self, score: Score, log_likelihood: LogLikelihood, scale: float = 1.0, *, names: Sequence[str] = ()):
        check_scale(scale)
        self.score, self.log_likelihood, self.scale = score, log_likelihood, scale
        self.names, self.process = tuple(names), score.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """See `Score`."""
        score = self.score(x, t, self._rest(condition))
        if not self.scale:
            return score
        return score + self.scale * value_and_gradient(self.log_likelihood, x, t, condition)[1]

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """D(x) + w (sigma^2 / alpha) grad log p_t(y | x): Tweedie's formula for the guided score."""
        denoised = self.score.denoised(x, t, self._rest(condition))
        if not self.scale:
            return denoised
        check_scales(self.process)
        process, t_once = clock(self.score), once(t)
        gain = self.scale * process.sigma(t_once) ** 2 / process.alpha(t_once)
        return plus_scaled(denoised, gain, value_and_gradient(self.log_likelihood, x, t, condition)[1])

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log p_t(x) + w log p_t(y | x), score), where the score itself has a density."""
        log_p, score = self.score.with_density(x, t, self._rest(condition))
        value, gradient = value_and_gradient(self.log_likelihood, x, t, condition)
        return log_p + self.scale * value.to(log_p), score + self.scale * gradient

    def evaluations(self, condition: Condition | None = None) -> int:
        """One more than the score's: the gradient of the likelihood."""
        return self.score.evaluations(self._rest(condition)) + bool(self.scale)

    def _rest(self, condition: Condition | None) -> Condition | None:
        if not condition or not self.names:
            return condition
        return {name: value for name, value in condition.items() if name not in self.names} or None


class ClassifierFree(Score):
    """s(x, t) + w (s(x, t | y) - s(x, t)), both from one network trained with condition drop-out.

    Ho and Salimans 2022, eq. 6, with their w + 1 for this w: w = 0 is the unconditional score, 1 the conditional one.
    The difference is the gradient of log p_t(y | x) of an implied classifier. All conditions are dropped together, as
    in training; an example whose conditions are unknown (label -1, NaN) has the same two scores, and is not guided.

    Args:
        score: Score of a model trained with and without the condition: s(x, t, condition) and s(x, t, None).
        scale: w >= 0.

    Raises:
        ValueError: A negative scale, or one that is not finite.
    """

    def __init__(self, score: Score, scale: float = 1.0):
        check_scale(scale)
        self.score, self.scale, self.process = score, scale, score.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """See `Score`."""
        return self._mixed(self.score, x, t, condition)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """D(x) + w (D(x | y) - D(x)), Tweedie's formula being linear in the score."""
        return self._mixed(self.score.denoised, x, t, condition)

    def evaluations(self, condition: Condition | None = None) -> int:
        """Two, but for scales 0 and 1, or where nothing is known."""
        one = self.score.evaluations(None)
        if not condition or self.scale == 0.0:
            return one
        given = self.score.evaluations(condition)
        return given if self.scale == 1.0 else one + given

    def _mixed(
        self,
        function: Callable[[Tensor, Tensor, Condition | None], Tensor],
        x: Tensor,
        t: Tensor,
        condition: Condition | None,
    ) -> Tensor:
        if not condition or self.scale == 0.0:
            return function(x, t, None)
        given = function(x, t, condition)
        return given if self.scale == 1.0 else torch.lerp(function(x, t, None), given, self.scale)


def check_scale(scale: float) -> None:
    """Check a guidance scale.

    Raises:
        ValueError: The scale is negative, infinite or NaN.
    """
    if not 0.0 <= scale < float("inf"):
        raise ValueError(
            f"scale={scale} must be a finite number, not negative: 0 is no guidance, 1 the conditional score, more"
            " insists on the condition"
        )
