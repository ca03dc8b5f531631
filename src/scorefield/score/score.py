"""The type Score, which samplers, losses and likelihoods take."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scorefield._math import once, over_event, plus_scaled
from scorefield._typing import Condition, ScoreFunction
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process


class Score(ABC):
    """score(x, t, condition) = grad_x log p_t(x | condition), in model units, with the process it belongs to.

    A trained network, the gradient of an energy, a guided score and a closed-form mixture are all Scores.
    """

    process: Process

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score.

        Args:
            x: Points in model units, shape (B, *event).
            t: Times, shape (B,), within the process's limits.
            condition: What is known of each example, or None.

        Returns:
            The gradient of log p_t at x, shape of x.

        Raises:
            ValueError: A time at which the process, or the network's ladder, is not defined.
        """

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Posterior mean of x_0 given x_t = x: (x + sigma^2 score) / alpha (Tweedie; Efron 2011), shape of x."""
        return tweedie(self.process, x, t, self(x, t, condition))

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log p_t(x) up to a constant of t, score) by one evaluation, where the score is known to have a density.

        Raises:
            TypeError: This score is a field of vectors, and what it is the gradient of is not known.
        """
        raise TypeError(
            f"{type(self).__name__} is a score without a density: only energies and closed forms know log p_t up to a"
            " constant. An acceptance test that needs none is approximate: acceptance='line integral'"
        )

    def evaluations(self, condition: Condition | None = None) -> int:
        """Network evaluations in one call under a condition; guided scores take more than one."""
        return 1

    def bind(self, condition: Condition | None) -> BoundScore:
        """This score with its condition bound."""
        return BoundScore(self, condition)


def check_scales(process: Process | GeneralSDE) -> None:
    """Refuse a posterior mean under a process without alpha and sigma.

    Raises:
        ValueError: A `GeneralSDE`.
    """
    if isinstance(process, GeneralSDE):
        raise ValueError(
            "a posterior mean needs alpha and sigma, and a GeneralSDE has a drift and a diffusion only; sample without"
            ' one, Sampler(..., final="none") or "mean"'
        )


def tweedie(process: Process, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
    """Posterior mean of x_0 given x_t = x from a score already evaluated there: (x + sigma^2 score) / alpha."""
    check_scales(process)
    t = once(t)
    return plus_scaled(x, process.sigma(t) ** 2, score) / over_event(process.alpha(t), x)


class BoundScore(Score):
    """A score with its condition bound and its calls counted: what a step is handed.

    `calls` counts calls for a whole batch, so that a sampler's NFE, calls times `evaluations`, is a measurement.
    """

    def __init__(self, score: Score, condition: Condition | None = None):
        self.score, self.condition, self.process = score, condition, score.process
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score under the bound condition."""
        self._count()
        return self.score(x, t, self.condition if condition is None else condition)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The posterior mean under the bound condition."""
        self._count()
        return self.score.denoised(x, t, self.condition if condition is None else condition)

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """Score and density under the bound condition, from one call."""
        self._count()
        return self.score.with_density(x, t, self.condition if condition is None else condition)

    def evaluations(self, condition: Condition | None = None) -> int:
        """Posterior mean under the bound condition."""
        return self.score.evaluations(self.condition if condition is None else condition)

    def rows(self, keep: Tensor) -> BoundScore:
        """The score of some of the batch's examples, their conditions selected along; calls are counted here still."""
        condition = None if self.condition is None else {k: v[keep.to(v.device)] for k, v in self.condition.items()}
        return _Rows(self, condition)

    def _count(self) -> None:
        self.calls += 1


class _Rows(BoundScore):
    """Some rows of a bound score; what they cost is counted by the whole."""

    def __init__(self, parent: BoundScore, condition: Condition | None):
        super().__init__(parent.score, condition)
        self._parent = parent

    def _count(self) -> None:
        super()._count()
        self._parent._count()


class FunctionScore(Score):
    """A Score made of a plain function.

    Args:
        function: score(x, t), both with leading axis B.
        process: The process whose marginals the score belongs to.
    """

    def __init__(self, function: ScoreFunction, process: Process):
        self.function, self.process = function, process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The function's value.

        Raises:
            ValueError: A condition was given; a plain function takes none.
        """
        if condition:
            raise ValueError(
                f"this score is a plain function of x and t and takes no condition; got {sorted(condition)}"
            )
        self.process.check_time(t)
        return self.function(x, t)


def as_times(t: float | Tensor, x: Tensor) -> Tensor:
    """Times of shape (B,) in float64 (where the device has it) from a number or a tensor.

    Raises:
        ValueError: A tensor that is neither one number nor one per example.
    """
    t = t if isinstance(t, Tensor) and t.device.type == "mps" else torch.as_tensor(t, dtype=torch.float64)
    if t.ndim == 0:
        return t.expand(x.shape[0])
    if t.shape != (x.shape[0],):
        raise ValueError(
            f"t has shape {tuple(t.shape)}; give one time per example, shape ({x.shape[0]},), or one number"
        )
    return t
