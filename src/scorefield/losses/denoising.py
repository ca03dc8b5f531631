"""Denoising score matching (Vincent 2011) over noise levels, and the base classes of all objectives."""

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
        """lambda / sigma^2, the weight of |sigma score + z|^2, shape (B,).

        Objectives use this ratio because it stays finite where lambda vanishes together with sigma.
        """

    def value(self, process: Process, t: Tensor) -> Tensor:
        """lambda itself, shape (B,), for objectives in which the score has no factor sigma.

        Raises:
            ValueError: The process has no noise level sigma(t), from which this weighting is computed.
        """
        if isinstance(process, GeneralSDE):
            raise ValueError(
                f"{type(self).__name__} is computed from the noise level sigma(t), and a GeneralSDE has only a drift"
                " and a diffusion. Give the weight as a function: weighting=Custom(function), where"
                " function(process, t) returns shape (B,), for example t itself"
            )
        return self.times_noise_variance(process, t) * process.sigma(t) ** 2


@record
class NoiseVariance(Weighting):
    """lambda = sigma^2 (Song and Ermon 2019; Song et al. 2021).

    At initialisation, where the network returns about zero, every noise level contributes equally to the loss.
    """

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """lambda / sigma^2 = 1, shape of t."""
        return torch.ones_like(t)


@record
class Likelihood(Weighting):
    """lambda = g^2: half the loss bounds the negative log-likelihood, up to a constant (Song, Durkan et al. 2021)."""

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """lambda / sigma^2 = g^2 / sigma^2, shape (B,).

        Raises:
            ValueError: The process is a ladder of discrete levels, between which no rate g^2 is defined.
        """
        if isinstance(process, Tabulated):
            raise ValueError(
                f"the likelihood weighting g^2 is a rate in continuous time, and this process has {process.levels}"
                " levels. Train with VE, VP or SubVP and levels=None, or weight the levels with Custom(function)"
            )
        return process.diffusion_squared(t) / process.sigma(t) ** 2


@record
class Custom(Weighting):
    """A weighting given as a function.

    Args:
        function: lambda(process, t), which returns shape (B,). It must be importable by name, so that an experiment
            with this weighting can be saved.
    """

    function: Callable[[Process, Tensor], Tensor]

    def times_noise_variance(self, process: Process, t: Tensor) -> Tensor:
        """lambda / sigma^2, shape (B,)."""
        return self.function(process, t) / process.sigma(t) ** 2

    def value(self, process: Process, t: Tensor) -> Tensor:
        """lambda, shape (B,); defined under every process, a `GeneralSDE` included."""
        return self.function(process, t)


@dataclass(frozen=True)
class Draw:
    """The random numbers of one evaluation of an objective.

    Args:
        t: Times, float64 on the CPU, shape (B,).
        z: Standard normal noise, shape (B, *event); (B, N, *event) where x_t is reached by N simulation steps.
        probes: Projection directions of the sliced objectives, shape (B, P, *event); None for other objectives.
    """

    t: Tensor
    z: Tensor
    probes: Tensor | None = None

    def rows(self, rows: slice | Tensor) -> Draw:
        """The random numbers of a subset of the examples, chosen by a slice or by indices."""
        return Draw(self.t[rows], self.z[rows], None if self.probes is None else self.probes[rows])


class Objective(ABC):
    """A training objective: one value per example."""

    @abstractmethod
    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """Draw times and noise for a batch.

        Args:
            process: The process whose time range, or whose levels, are sampled.
            like: A batch, (B, *event); only its shape, dtype and device are used.
            generator: A CPU generator, so that the numbers are the same on every device.
        """

    @abstractmethod
    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """The loss of each example, shape (B,).

        Args:
            score: The score being trained.
            x0: Clean data in model units, (B, *event).
            draw: Times and noise.
            condition: The variables that the score is conditioned on, by name, one row per example.
        """


def draw_times(process: Process | GeneralSDE, batch: int, generator: torch.Generator, *, stratified: bool) -> Tensor:
    """Draw the times of a batch, uniform on [t_min.training, 1) or over the levels of a ladder.

    Args:
        process: The process whose time range, or whose levels, are sampled.
        batch: B.
        generator: A CPU generator.
        stratified: Whether [0, 1) is cut into B equal parts and one time is drawn in each, in random order.

    Returns:
        Times, float64 on the CPU, shape (B,).
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
    """The common base of objectives that draw a random noise level for each example.

    Args:
        weighting: lambda(t).
        reduce: "mean" averages over the D numbers of an event; "half_sum" is half their sum, which the published VE
            models use.
        levels: A ladder whose levels are drawn uniformly, for a discrete objective on a continuous process. With None,
            t is uniform on [t_min.training, 1), or uniform over the process's own levels where it is a ladder.
        stratified: Whether the B times of a batch are spread, one in each of B equal parts of [0, 1). This lowers the
            variance of the gradient and leaves its mean unchanged.
    """

    weighting: Weighting = NoiseVariance()
    reduce: Literal["mean", "half_sum"] = "mean"
    levels: Tabulated | None = None
    stratified: bool = False

    def draw_times(self, process: Process | GeneralSDE, batch: int, generator: torch.Generator) -> Tensor:
        """Draw the times of a batch, float64 on the CPU, shape (B,)."""
        return draw_times(self.ladder(process) or process, batch, generator, stratified=self.stratified)

    def ladder(self, process: Process | GeneralSDE) -> Tabulated | None:
        """The ladder whose levels are drawn; None where times are continuous."""
        if self.levels is not None:
            return self.levels
        return process if isinstance(process, Tabulated) else None


def normal_like(like: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers with the dtype and device of `like`.

    They are drawn in float32 on the CPU whatever dtype `like` or torch's default has, so that one seed gives one noise.
    """
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(device=like.device, dtype=like.dtype)


@record
class DenoisingScoreMatching(AtLevels):
    """lambda(t) |score(x_t, t) + z / sigma_t|^2 with x_t = alpha_t x_0 + sigma_t z (Song et al. 2021, eq. 7).

    The minimum over all functions is the score of p_t. The loss is evaluated as (lambda / sigma^2) |sigma score + z|^2,
    which stays finite as sigma goes to zero. Under a `GeneralSDE` with affine drift, sigma is replaced by the Cholesky
    factor L of the covariance of x_t given x_0, and the loss is |L' score + z|^2. With an `EnergyForm` it is the
    multi-scale objective of energies, l(sigma) |x_0 - x_t + sigma_0^2 grad E|^2 (Li et al. 2019), where
    lambda = l(sigma) sigma^4; the published l is 1 / sigma^2, which is the default weighting.

    The arguments are those of `AtLevels`.
    """

    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        t = self.draw_times(process, like.shape[0], generator)
        return Draw(t, normal_like(like, tuple(like.shape), generator))

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`.

        Raises:
            ValueError: The weighting is not defined for this process, or its transition kernel is not known.
        """
        process = self.ladder(score.process) or score.process
        x_t = process.perturb(x0, draw.t, draw.z)
        value = score(x_t, draw.t, condition)
        if isinstance(process, GeneralSDE):
            if not isinstance(self.weighting, NoiseVariance):
                raise ValueError(
                    f"{type(self.weighting).__name__} needs one noise level sigma(t) per time, and the noise of a"
                    " GeneralSDE is a covariance matrix. Use weighting=NoiseVariance()"
                )
            residual = process.weighted_residual(value, draw.t, draw.z)
        else:
            residual = over_event(process.sigma(draw.t), x_t) * value + draw.z
        weight = self.weighting.times_noise_variance(process, draw.t).to(residual)
        reduced = mean_event(residual**2) if self.reduce == "mean" else 0.5 * sum_event(residual**2)
        return weight * reduced
