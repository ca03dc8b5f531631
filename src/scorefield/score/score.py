"""The type Score, which samplers, losses and likelihoods take."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scorefield._math import over_event, plus_scaled, unexpanded
from scorefield._typing import Condition, ScoreFunction
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process


class Score(ABC):
    """A score function score(x, t, condition) = grad_x log p_t(x | condition), in model units.

    A trained network, the gradient of an energy, a guided score and a closed-form mixture are all Scores.

    Attributes:
        process: The process whose marginals p_t the score belongs to.
    """

    process: Process

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Evaluate the score.

        Args:
            x: Points in model units, shape (B, *event).
            t: Times, shape (B,), within the limits of the process.
            condition: Conditions by name, each with leading axis B; None if nothing is known.

        Returns:
            The gradient of log p_t at x, shape of x.

        Raises:
            ValueError: A time at which the process, or the network's ladder, is not defined.
        """

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Posterior mean of x_0 given x_t = x: (x + sigma^2 score) / alpha (Tweedie; Efron 2011), shape of x."""
        return tweedie(self.process, x, t, self(x, t, condition))

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log p_t(x) up to a constant that depends on t, score) from one evaluation, for scores with a known density.

        Raises:
            TypeError: This score is a vector field whose density is not known.
        """
        raise TypeError(
            f"{type(self).__name__} is a score without a density: log p_t is known, up to a constant, only for energies"
            " and closed forms. For a Metropolis test without a density use acceptance='line integral', which is"
            " approximate"
        )

    def evaluations(self, condition: Condition | None = None) -> int:
        """Number of network evaluations in one call with this condition; guided scores need more than one."""
        return 1

    def bind(self, condition: Condition | None) -> BoundScore:
        """This score with a fixed condition, which counts its calls."""
        return BoundScore(self, condition)


def require_alpha_sigma(process: Process | GeneralSDE) -> None:
    """Refuse a process without alpha and sigma, under which there is no posterior mean by Tweedie's formula.

    Raises:
        ValueError: The process is a `GeneralSDE`.
    """
    if isinstance(process, GeneralSDE):
        raise ValueError(
            "a posterior mean needs alpha and sigma, and a GeneralSDE has only a drift and a diffusion; sample without"
            ' a final denoising step, Sampler(..., final="none") or final="mean"'
        )


def tweedie(process: Process, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
    """Posterior mean of x_0 given x_t = x from the value of the score at x: (x + sigma^2 score) / alpha."""
    require_alpha_sigma(process)
    t = unexpanded(t)
    return plus_scaled(x, process.sigma(t) ** 2, score) / over_event(process.alpha(t), x)


def network_dtype(network: nn.Module, x: Tensor) -> torch.dtype:
    """The dtype of a network's parameters; that of x for a network without parameters."""
    return next((p.dtype for p in network.parameters()), x.dtype)


def coefficient_times(t: Tensor) -> Tensor:
    """Times at which alpha and sigma are computed: in float64 on the CPU, and only one if all examples share it."""
    return unexpanded(t).to(torch.float64) if t.device.type == "cpu" else t


class BoundScore(Score):
    """A score with a fixed condition that counts its calls, as samplers pass it to their steps.

    `calls` counts calls with a whole batch. The NFE of a sampler is `calls` times `evaluations`, so it is measured and
    not predicted.
    """

    def __init__(self, score: Score, condition: Condition | None = None):
        self.score, self.condition, self.process = score, condition, score.process
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score given the bound condition; a condition given here replaces it."""
        self._count()
        return self.score(x, t, self.condition if condition is None else condition)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The posterior mean given the bound condition; a condition given here replaces it."""
        self._count()
        return self.score.denoised(x, t, self.condition if condition is None else condition)

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """Log density and score given the bound condition, counted as one call."""
        self._count()
        return self.score.with_density(x, t, self.condition if condition is None else condition)

    def evaluations(self, condition: Condition | None = None) -> int:
        """Number of network evaluations in one call with the bound condition."""
        return self.score.evaluations(self.condition if condition is None else condition)

    def rows(self, keep: Tensor) -> BoundScore:
        """The score of some examples of the batch, with their conditions; its calls are counted here as well.

        Args:
            keep: Indices of the examples, int64, shape (K,), or a mask, bool, shape (B,).
        """
        condition = None if self.condition is None else {k: v[keep.to(v.device)] for k, v in self.condition.items()}
        return _Rows(self, condition)

    def _count(self) -> None:
        self.calls += 1


class _Rows(BoundScore):
    """A bound score for some examples of a batch; its calls count as calls of the score for the whole batch."""

    def __init__(self, parent: BoundScore, condition: Condition | None):
        super().__init__(parent.score, condition)
        self._parent = parent

    def _count(self) -> None:
        super()._count()
        self._parent._count()


class FunctionScore(Score):
    """A Score from a plain function.

    Args:
        function: score(x, t) with x of shape (B, *event) and t of shape (B,); returns the shape of x.
        process: The process whose marginals the score belongs to.
    """

    def __init__(self, function: ScoreFunction, process: Process):
        self.function, self.process = function, process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The value of the function.

        Raises:
            ValueError: A condition is given, or a time is outside the limits of the process.
        """
        if condition:
            raise ValueError(
                f"this score is a plain function of x and t and takes no condition; got {sorted(condition)}. Call it"
                " with condition=None"
            )
        self.process.check_time(t)
        return self.function(x, t)


def as_times(t: float | Tensor, x: Tensor) -> Tensor:
    """Times of shape (B,) from one number or one number per example; float64 except on devices without it (MPS).

    Raises:
        ValueError: t is a tensor that holds neither one number nor one per example.
    """
    t = t if isinstance(t, Tensor) and t.device.type == "mps" else torch.as_tensor(t, dtype=torch.float64)
    if t.ndim == 0:
        return t.expand(x.shape[0])
    if t.shape != (x.shape[0],):
        raise ValueError(
            f"t has shape {tuple(t.shape)}; give one time per example, shape ({x.shape[0]},), or one number"
        )
    return t
