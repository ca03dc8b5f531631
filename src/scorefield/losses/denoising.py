"""Denoising score matching (Vincent 2011) over noise levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import mean_event, over_event, sum_event
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score


class Weighting(ABC):
    """lambda(t), the weight of |score + z / sigma|^2 in the loss."""

    @abstractmethod
    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """lambda / sigma^2, the weight of |sigma score + z|^2, shape (B,); finite where lambda vanishes with sigma."""


@record
class NoiseVariance(Weighting):
    """lambda = sigma^2 (Song and Ermon 2019; Song et al. 2021): every level weighs alike at initialisation."""

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)


@record
class Likelihood(Weighting):
    """lambda = g^2: the loss bounds the negative log-likelihood (Song, Durkan et al. 2021)."""

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """g^2 / sigma^2."""
        return process.diffusion_squared(t) / process.sigma(t) ** 2


@record
class Custom(Weighting):
    """A weight given as a function.

    Args:
        function: lambda(process, t) of shape (B,), importable by name so that it can be saved.
    """

    function: Callable[[Process, Tensor], Tensor]

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """lambda / sigma^2."""
        return self.function(process, t) / process.sigma(t) ** 2


@dataclass(frozen=True)
class Draw:
    """The random part of one loss: times t, shape (B,), and standard normal noise z, shape (B, *event)."""

    t: Tensor
    z: Tensor


class Objective(ABC):
    """A training objective: one value per example."""

    @abstractmethod
    def draw(self, process: Process, like: Tensor, generator: torch.Generator) -> Draw:
        """Draw times and noise for a batch like `like`, on the CPU from `generator`, moved to the device of `like`."""

    @abstractmethod
    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """The loss of each example, shape (B,).

        Args:
            score: The score being trained.
            x0: Clean data in model units, (B, *event).
            draw: Times and noise.
            condition: What is known of each example.
        """


@record
class DenoisingScoreMatching(Objective):
    """lambda(t) |score(x_t, t) + z / sigma_t|^2 with x_t = alpha_t x_0 + sigma_t z (Song et al. 2021, eq. 7).

    The minimum over all functions is the score of p_t. Evaluated as (lambda / sigma^2) |sigma score + z|^2, which stays finite as
    sigma goes to zero.

    Args:
        weighting: lambda.
        reduce: "mean" over the event's D numbers, or "half_sum", half their sum, as the published VE models.
        levels: A ladder whose levels are drawn uniformly, for discrete objectives; None for t uniform on [t_min.training, 1).
        stratified: Whether the B times of a batch are spread, one in each of B equal parts of [0, 1); it lowers the
            variance of the gradient and leaves its mean.
    """

    weighting: Weighting = NoiseVariance()  # noqa: RUF009 (frozen)
    reduce: Literal["mean", "half_sum"] = "mean"
    levels: Tabulated | None = None
    stratified: bool = False

    def draw(self, process: Process, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        batch = like.shape[0]
        u = torch.rand(batch, generator=generator, dtype=torch.float64)
        if self.stratified:
            u = (torch.randperm(batch, generator=generator) + u) / batch
        ladder = self._ladder(process)
        if ladder is None:
            low = process.t_min.training
            t = low + (1.0 - low) * u
        else:
            t = ladder.time((u * ladder.levels).floor().clamp_max(ladder.levels - 1))
        z = torch.randn(like.shape, generator=generator)
        return Draw(t, z.to(device=like.device, dtype=like.dtype))

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`."""
        process = self._ladder(score.process) or score.process
        sigma = process.sigma(draw.t)
        x_t = process.perturb(x0, draw.t, draw.z)
        residual = over_event(sigma, x_t) * score(x_t, draw.t, condition) + draw.z
        weight = self.weighting.times_noise_variance(process, draw.t).to(device=x0.device, dtype=x0.dtype)
        reduced = mean_event(residual**2) if self.reduce == "mean" else 0.5 * sum_event(residual**2)
        return weight * reduced

    def _ladder(self, process: Process) -> Tabulated | None:
        return self.levels or (process if isinstance(process, Tabulated) else None)
