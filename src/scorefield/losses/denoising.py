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
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score


class Weighting(ABC):
    """lambda(t), the weight of |score + z / sigma|^2 in the loss."""

    @abstractmethod
    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """lambda / sigma^2, the weight of |sigma score + z|^2, shape (B,); finite where lambda vanishes with sigma."""

    def value(self, process: Process, t: Tensor) -> Tensor:
        """lambda itself, shape (B,), for objectives that meet the score without a sigma before it.

        Raises:
            ValueError: The process has no noise level sigma(t) that this weighting could be made of.
        """
        if isinstance(process, GeneralSDE):
            raise ValueError(
                f"{type(self).__name__} is made of the noise level sigma(t), and a GeneralSDE has a drift and a"
                " diffusion only; say the weight yourself: weighting=Custom(function) with function(process, t) of"
                " shape (B,), t itself for one"
            )
        return self.times_noise_variance(process, t) * process.sigma(t) ** 2


@record
class NoiseVariance(Weighting):
    """lambda = sigma^2 (Song and Ermon 2019; Song et al. 2021): every level weighs alike at initialisation."""

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)


@record
class Likelihood(Weighting):
    """lambda = g^2: half the loss bounds the negative log-likelihood, up to a constant (Song, Durkan et al. 2021)."""

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """g^2 / sigma^2.

        Raises:
            ValueError: The process is a ladder, which has no g between its levels.
        """
        if isinstance(process, Tabulated):
            raise ValueError(
                f"the likelihood weighting g^2 is a rate in continuous time; these are {process.levels} levels. Train"
                " with VE, VP or SubVP and levels=None, or weight the levels with Custom(function)"
            )
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

    def value(self, process: Process, t: Tensor) -> Tensor:
        """The function, under any process."""
        return self.function(process, t)


@dataclass(frozen=True)
class Draw:
    """The random part of one loss.

    Args:
        t: Times, float64 on the CPU, shape (B,).
        z: Standard normal noise, shape (B, *event); (B, N, *event) where x_t is reached by N steps of a simulation.
        probes: Directions in which sliced objectives look, shape (B, P, *event); None for the others.
    """

    t: Tensor
    z: Tensor
    probes: Tensor | None = None

    def rows(self, rows: slice | Tensor) -> Draw:
        """The draw of some of the examples."""
        return Draw(self.t[rows], self.z[rows], None if self.probes is None else self.probes[rows])


class Objective(ABC):
    """A training objective: one value per example."""

    @abstractmethod
    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """Draw times and noise for a batch.

        Args:
            process: Whose times are drawn.
            like: A batch, (B, *event); only its shape, dtype and device are used.
            generator: A generator of the CPU, so that the draw is the same on every device.
        """

    @abstractmethod
    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """The loss of each example, shape (B,).

        Args:
            score: The score being trained.
            x0: Clean data in model units, (B, *event).
            draw: Times and noise.
            condition: What is known of each example.
        """


def draw_times(process: Process | GeneralSDE, batch: int, generator: torch.Generator, *, stratified: bool) -> Tensor:
    """Times of a batch: uniform on [t_min.training, 1), or over the levels of a ladder.

    Args:
        process: Whose times.
        batch: B.
        generator: Of the CPU.
        stratified: One in each of B equal parts of [0, 1), in random order.

    Returns:
        float64 on the CPU, shape (B,).
    """
    u = torch.rand(batch, generator=generator, dtype=torch.float64)
    if stratified:
        u = (torch.randperm(batch, generator=generator) + u) / batch
    if isinstance(process, Tabulated):
        return process.time((u * process.levels).floor().clamp_max(process.levels - 1))
    low = process.t_min.training
    return low + (1.0 - low) * u


@dataclass(frozen=True)
class AtLevels(Objective):
    """What objectives at random noise levels share; the levels are drawn here.

    Args:
        weighting: lambda.
        reduce: "mean" over the event's D numbers, or "half_sum", half their sum, as the published VE models.
        levels: A ladder whose levels are drawn uniformly, for discrete objectives on a continuous process; None for t
            uniform on [t_min.training, 1), or for the process's own levels if it is a ladder itself.
        stratified: Whether the B times of a batch are spread, one in each of B equal parts of [0, 1); it lowers the
            variance of the gradient and leaves its mean.
    """

    weighting: Weighting = NoiseVariance()
    reduce: Literal["mean", "half_sum"] = "mean"
    levels: Tabulated | None = None
    stratified: bool = False

    def draw_times(self, process: Process | GeneralSDE, batch: int, generator: torch.Generator) -> Tensor:
        """Times of a batch, float64 on the CPU, shape (B,)."""
        return draw_times(self.ladder(process) or process, batch, generator, stratified=self.stratified)

    def ladder(self, process: Process | GeneralSDE) -> Tabulated | None:
        """The table whose levels are drawn, None for continuous times."""
        if self.levels is not None:
            return self.levels
        return process if isinstance(process, Tabulated) else None


def normal_like(like: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers, float32 whatever `like` is and whatever torch's default: same seed, same noise."""
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(device=like.device, dtype=like.dtype)


@record
class DenoisingScoreMatching(AtLevels):
    """lambda(t) |score(x_t, t) + z / sigma_t|^2 with x_t = alpha_t x_0 + sigma_t z (Song et al. 2021, eq. 7).

    The minimum over all functions is the score of p_t. Evaluated as (lambda / sigma^2) |sigma score + z|^2, which stays
    finite as sigma goes to zero. Under a `GeneralSDE` with affine drift the place of sigma is taken by the Cholesky
    factor L of the covariance of x_t given x_0, and the loss is |L' score + z|^2. With an `EnergyForm` it is the
    multi-scale loss of energies, l(sigma) |x_0 - x_t + sigma_0^2 grad E|^2 (Li et al. 2019), where
    lambda = l(sigma) sigma^4 and the published l is 1 / sigma^2, the default weighting.

    Arguments as for `AtLevels`.
    """

    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        t = self.draw_times(process, like.shape[0], generator)
        return Draw(t, normal_like(like, tuple(like.shape), generator))

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`.

        Raises:
            ValueError: The weighting is not defined for this process, or its transition law is not known.
        """
        process = self.ladder(score.process) or score.process
        x_t = process.perturb(x0, draw.t, draw.z)
        value = score(x_t, draw.t, condition)
        if isinstance(process, GeneralSDE):
            if not isinstance(self.weighting, NoiseVariance):
                raise ValueError(
                    f"{type(self.weighting).__name__} weighs one noise level per time; a GeneralSDE has a covariance."
                    " Use weighting=NoiseVariance()"
                )
            residual = process.weighted_residual(value, draw.t, draw.z)
        else:
            residual = over_event(process.sigma(draw.t), x_t) * value + draw.z
        weight = self.weighting.times_noise_variance(process, draw.t).to(residual)
        reduced = mean_event(residual**2) if self.reduce == "mean" else 0.5 * sum_event(residual**2)
        return weight * reduced
