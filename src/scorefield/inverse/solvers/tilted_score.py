"""The score of p_t(x) p~(y | x): the prior's at each noise level, tilted to y through the posterior mean D.

    grad_x log p_t(x | y) = grad_x log p_t(x) + grad_x log p_t(y | x),        p_t(y | x) = E[p(y | x_0) | x_t = x].

No network knows the last term. Solvers put p~ in its place, a density of y whose centre is A D(x); its gradient in x is
that in D times the Jacobian of D, one network evaluation and one vector-Jacobian product through it. Together they take
two to three times as long as an evaluation, and are counted as one.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._math import Pullback, over_event, plus_scaled, unexpanded, value_and_pullback
from scorefield._typing import Condition
from scorefield.inverse.observation import Observation
from scorefield.inverse.solvers.solver import Solver, take_observed
from scorefield.process.general import GeneralSDE
from scorefield.sampling.sampler import Sampler
from scorefield.score.score import Score, tweedie


@dataclass(frozen=True)
class Estimate:
    """Posterior mean of x_0 and related quantities at one point x_t.

    Args:
        t: Times, (B,), or (1,) where all examples share one.
        alpha: Scale of the data there, shape of t.
        sigma: Noise level at t, shape of t.
        denoised: D, (B, *event).
        pull: (w, last) to w' dD/dx; after `last` there are no more.
        y: Observation of each row, (B, *observed).
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    denoised: Tensor
    pull: Pullback
    y: Tensor


class Tilted(Score):
    """score + scale grad_x log p~(y | x), and the posterior mean that belongs to it.

    Args:
        score: Score of x, the prior.
        observation: The observation, in model units; y comes with the condition where that carries it.
        scale: Scale of the second term; 1 is the gradient itself.
    """

    def __init__(self, score: Score, observation: Observation, scale: float = 1.0):
        self.score, self.process, self.observation, self.scale = score, score.process, observation, scale

    @abstractmethod
    def likelihood(self, at: Estimate) -> tuple[Tensor, Tensor]:
        """(log p~(y | x) in nats, (B,); its gradient with respect to D, (B, *event))."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The tilted score; see `Score`."""
        value, _, slope, _ = self._evaluate(x, t, condition, "score")
        return value + self.scale * slope

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """D + scale (sigma^2 / alpha) grad_x log p~: Tweedie's formula for the tilted score."""
        D, _, slope, at = self._evaluate(x, t, condition, "denoised")
        return plus_scaled(D, self.scale * at.sigma**2 / at.alpha, slope)

    def twisted(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(D of the score alone, log p~(y | x), scale grad_x log p~), by one evaluation."""
        D, log_p, slope, _ = self._evaluate(x, t, condition, "denoised")
        return D, log_p, self.scale * slope

    def evaluations(self, condition: Condition | None = None) -> int:
        """See `Score`."""
        return self.score.evaluations(condition)

    def _evaluate(
        self, x: Tensor, t: Tensor, condition: Condition | None, what: str
    ) -> tuple[Tensor, Tensor, Tensor, Estimate]:
        """The score alone, or its D, as the step asks for it; log p~, its gradient in x, and the estimate."""
        known, y = take_observed(condition, self.observation, x)
        t_once = unexpanded(t)
        alpha, sigma = self.process.alpha(t_once), self.process.sigma(t_once)
        field = self.score if what == "score" else self.score.denoised
        value, pull = value_and_pullback(lambda z: field(z, t, known), x)

        def through_tweedie(w: Tensor, last: bool) -> Tensor:  # w' dD/dx with D = (x + sigma^2 score) / alpha
            return plus_scaled(w, sigma**2, pull(w, last)) / over_event(alpha, w)

        D, through = (tweedie(self.process, x, t, value), through_tweedie) if what == "score" else (value, pull)
        at = Estimate(t_once, alpha, sigma, D, through, y)
        with torch.no_grad():
            log_p, w = self.likelihood(at)
            return value, log_p, through(w, True), at


class TiltingSolver(Solver):
    """A solver that follows a tilted score with the sampler as it is."""

    @abstractmethod
    def tilted(self, score: Score, sampler: Sampler, observation: Observation) -> Tilted:
        """The score to follow; arguments as for `prepare`."""

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The tilted score, and the sampler unchanged."""
        return self.tilted(score, sampler, observation), sampler

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """Reasons to refuse: those of every solver, and processes without alpha and sigma."""
        why = super().refusals(score, sampler, observation)
        if isinstance(score.process, GeneralSDE):
            why.append(f"{self.name} needs alpha and sigma, and a GeneralSDE has a drift and a diffusion only")
        return why


def require_scale(scale: float) -> None:
    """Refuse a scale that is not positive.

    Raises:
        ValueError: The score has no alpha and sigma.
    """
    if not 0.0 < scale < float("inf"):
        raise ValueError(f"scale={scale} of the pull towards y must be positive; 1 is the gradient itself")
