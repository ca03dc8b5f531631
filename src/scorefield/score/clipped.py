"""A score whose posterior mean is clipped to the range of bounded data."""

from __future__ import annotations

from torch import Tensor

from scorefield._math import once, plus_scaled
from scorefield._typing import Condition
from scorefield.score.score import Score, tweedie


class Clipped(Score):
    """The score whose posterior mean is D clipped to [low, high]: s + (alpha / sigma^2) (clip(D) - D).

    Data in [low, high] have their posterior mean there at every noise level, so that exact scores stay as they are. A
    network that predicts the noise has a D that is off by its own error times sigma / alpha, 150 at t = 1 of VP; what
    is made of D, a comparison with measurements and its gradient above all, is worthless there. Where D is clipped its
    gradient is zero.

    Args:
        score: s, with alpha and sigma.
        low: Lower bound of the data, model units.
        high: Upper bound of the data, model units.

    Raises:
        ValueError: The range is empty.
    """

    def __init__(self, score: Score, low: float, high: float):
        if not low < high:
            raise ValueError(f"data lie in a range from low to high; got low={low}, high={high}")
        self.score, self.process, self.low, self.high = score, score.process, low, high

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score, moved by what D was moved."""
        score, t_once = self.score(x, t, condition), once(t)
        D = tweedie(self.process, x, t, score)
        alpha, sigma = self.process.alpha(t_once), self.process.sigma(t_once)
        moved = D.clamp(self.low, self.high) - D
        return plus_scaled(score, alpha / sigma**2, moved)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """D, clipped."""
        return self.score.denoised(x, t, condition).clamp(self.low, self.high)

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The score's own: a clipped one is not the gradient of its density."""
        return self.score.with_density(x, t, condition)

    def evaluations(self, condition: Condition | None = None) -> int:
        """Network evaluations of the underlying score."""
        return self.score.evaluations(condition)
