"""A score whose posterior mean is clipped to the range of bounded data."""

from __future__ import annotations

from torch import Tensor

from scorefield._math import plus_scaled, unexpanded
from scorefield._typing import Condition
from scorefield.score.score import Score, tweedie


class Clipped(Score):
    """The score whose posterior mean is D clipped to [low, high]: s + (alpha / sigma^2) (clip(D) - D).

    The posterior mean of data in [low, high] is in [low, high] at every noise level, so an exact score is not changed.
    The D of a network that predicts the noise has the network's error times sigma / alpha, which is 150 at t = 1 of VP.
    Anything computed from such a D is useless, in particular a comparison with measurements and its gradient. The
    gradient of D is zero where D is clipped.

    Args:
        score: The score s, of a process with alpha and sigma.
        low: Lower bound of the data, model units.
        high: Upper bound of the data, model units.

    Raises:
        ValueError: low is not below high.
    """

    def __init__(self, score: Score, low: float, high: float):
        if not low < high:
            raise ValueError(f"the range of the data is from low to high, with low < high; got low={low}, high={high}")
        self.score, self.process, self.low, self.high = score, score.process, low, high

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score plus (alpha / sigma^2) (clip(D) - D)."""
        score, shared_t = self.score(x, t, condition), unexpanded(t)
        D = tweedie(self.process, x, t, score)
        alpha, sigma = self.process.alpha(shared_t), self.process.sigma(shared_t)
        change = D.clamp(self.low, self.high) - D
        return plus_scaled(score, alpha / sigma**2, change)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The posterior mean D, clipped to [low, high]."""
        return self.score.denoised(x, t, condition).clamp(self.low, self.high)

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """Log density and score without clipping, because the clipped score is not the gradient of a known density."""
        return self.score.with_density(x, t, condition)

    def evaluations(self, condition: Condition | None = None) -> int:
        """Network evaluations of the underlying score."""
        return self.score.evaluations(condition)
