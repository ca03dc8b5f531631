"""Guided scores: the score of x given y, from an unconditional score and a likelihood p_t(y | x), or classifier-free.

By Bayes' rule, with x a noisy example at time t,

    grad log p_t(x | y) = grad log p_t(x) + grad log p_t(y | x).

A guidance scale w multiplies the second term (Dhariwal and Nichol 2021, section 4), which gives the score of
p_t(x) p_t(y | x)^w up to normalisation. For w = 1 these densities are the marginals of one diffusion, that of x given
y. For any other w they are not, and the distribution of the samples depends on the sampler too.

A guided score is a `Score`, so that predictors, correctors, the probability flow and denoising all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scorefield._math import plus_scaled, unexpanded, value_and_gradient
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.score.score import Score, require_alpha_sigma

LogLikelihood = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""log p_t(y | x), shape (B,), as a function of (x, t, condition); row i depends only on row i of each argument.

Values that belong to an example, such as its y, must be passed in the condition, because adaptive solvers remove
finished examples from the batch.
"""


def noise_process(score: Score) -> Process:
    """The process that gives alpha and sigma of x_t: the ladder on which the network was trained, else its process."""
    while isinstance(inner := getattr(score, "score", None), Score):
        score = inner
    return getattr(score, "levels", None) or score.process


def likelihood_and_gradient(
    log_likelihood: LogLikelihood, x: Tensor, t: Tensor, condition: Condition | None
) -> tuple[Tensor, Tensor]:
    """log p_t(y | x), (B,), and its gradient in x; differentiable again where gradients are enabled.

    Raises:
        ValueError: The log-likelihood is not one number per example.
    """

    def function(x: Tensor) -> Tensor:
        value = log_likelihood(x, t, condition)
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"the log-likelihood of a batch of shape {tuple(x.shape)} has shape {tuple(value.shape)}; guidance"
                f" takes one number per example, shape ({len(x)},). Sum over the other axes"
            )
        return value

    return value_and_gradient(function, x)


class Guided(Score):
    """s(x, t) + w grad_x log p_t(y | x) (Song et al. 2021, eq. 14; w = 1 there).

    Args:
        score: The score s, not conditioned on y.
        log_likelihood: log p_t(y | x), up to a constant that does not depend on x: `NetworkGuide.log_prob`, or any
            function.
        scale: Guidance scale w >= 0; 0 gives s itself.
        names: Names of the conditions that are y. They are passed to the likelihood and not to the score, which would
            otherwise use y twice.

    Raises:
        ValueError: The scale is negative or not finite.
    """

    def __init__(self, score: Score, log_likelihood: LogLikelihood, scale: float = 1.0, *, names: Sequence[str] = ()):
        check_scale(scale)
        self.score, self.log_likelihood, self.scale = score, log_likelihood, scale
        self.names, self.process = tuple(names), score.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The guided score; see `Score`."""
        score = self.score(x, t, self._without_y(condition))
        if not self.scale:
            return score
        return score + self.scale * likelihood_and_gradient(self.log_likelihood, x, t, condition)[1]

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """D(x) + w (sigma^2 / alpha) grad log p_t(y | x): Tweedie's formula for the guided score."""
        denoised = self.score.denoised(x, t, self._without_y(condition))
        if not self.scale:
            return denoised
        require_alpha_sigma(self.process)
        process, shared_t = noise_process(self.score), unexpanded(t)
        gain = self.scale * process.sigma(shared_t) ** 2 / process.alpha(shared_t)
        return plus_scaled(denoised, gain, likelihood_and_gradient(self.log_likelihood, x, t, condition)[1])

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log p_t(x) + w log p_t(y | x), guided score), if the unguided score has a known density."""
        log_p, score = self.score.with_density(x, t, self._without_y(condition))
        value, gradient = likelihood_and_gradient(self.log_likelihood, x, t, condition)
        return log_p + self.scale * value.to(log_p), score + self.scale * gradient

    def evaluations(self, condition: Condition | None = None) -> int:
        """Network evaluations of the score, and one for the gradient of the likelihood if w > 0."""
        return self.score.evaluations(self._without_y(condition)) + bool(self.scale)

    def _without_y(self, condition: Condition | None) -> Condition | None:
        if not condition or not self.names:
            return condition
        return {name: value for name, value in condition.items() if name not in self.names} or None


class ClassifierFree(Score):
    """Classifier-free guidance, s(x, t) + w (s(x, t | y) - s(x, t)), with one network trained with condition drop-out.

    This w is w + 1 in Ho and Salimans 2022, eq. 6: w = 0 gives the unconditional score, w = 1 the conditional one. The
    difference is the gradient of log p_t(y | x) of an implied classifier. All conditions are dropped together, as in
    training. For an example whose conditions are unknown (label -1, NaN) the two scores are equal, and the guidance has
    no effect.

    Args:
        score: Score of a model trained with and without the condition, s(x, t, condition) and s(x, t, None).
        scale: Guidance scale w >= 0.

    Raises:
        ValueError: The scale is negative or not finite.
    """

    def __init__(self, score: Score, scale: float = 1.0):
        check_scale(scale)
        self.score, self.scale, self.process = score, scale, score.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The guided score; see `Score`."""
        return self._mixed(self.score, x, t, condition)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """D(x) + w (D(x | y) - D(x)), because Tweedie's formula is linear in the score."""
        return self._mixed(self.score.denoised, x, t, condition)

    def evaluations(self, condition: Condition | None = None) -> int:
        """Evaluations with and without the condition; only one of them if w is 0 or 1, or without a condition."""
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
        """function(x | nothing) + w (function(x | y) - function(x | nothing))."""
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
            f"the guidance scale must be a finite number, not negative; got scale={scale}. 0 is no guidance, 1 is the"
            " conditional score, and larger scales strengthen the condition"
        )
