"""Parametrisations: the meaning of a network's raw output F, and the number c that conditions it on the noise level.

A form is one equation, D = skip x + out F(c_in x, c), for the posterior mean D of x_0 in terms of the noisy input and
the output. The score follows from Tweedie's formula, score = (alpha D - x) / sigma^2. The difference alpha D - x
cancels digits at small sigma, so forms whose score can be computed without it override `score_coefficients`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated


class Form(ABC):
    """The meaning of a network's output. alpha, sigma and all coefficients have shape (B,)."""

    def c_in(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Factor on the network's input; 1 in all forms but that of EDM."""
        return torch.ones_like(sigma)

    @abstractmethod
    def denoised_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(skip, out) of D = skip x + out F."""

    def score_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(skip, out) of score = skip x + out F, from (alpha D - x) / sigma^2."""
        skip, out = self.denoised_coefficients(alpha, sigma)
        return (alpha * skip - 1.0) / sigma**2, alpha * out / sigma**2


@record
class NoiseForm(Form):
    """F predicts the noise z (DDPM, DDPM++; Ho et al. 2020): score = -F / sigma."""

    def denoised_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = (x - sigma F) / alpha."""
        return 1.0 / alpha, -sigma / alpha

    def score_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """score = -F / sigma."""
        return torch.zeros_like(sigma), -1.0 / sigma


@record
class ScaledScoreForm(Form):
    """F predicts sigma * score (NCSN++ and NCSNv2 before their division by sigma, ACSM): score = F / sigma."""

    def denoised_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = (x + sigma F) / alpha."""
        return 1.0 / alpha, sigma / alpha

    def score_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """score = F / sigma."""
        return torch.zeros_like(sigma), 1.0 / sigma


@record
class ScoreForm(Form):
    """F is the score itself (NCSN; Song and Ermon 2019)."""

    def denoised_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = (x + sigma^2 F) / alpha."""
        return 1.0 / alpha, sigma**2 / alpha

    def score_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """score = F."""
        return torch.zeros_like(sigma), torch.ones_like(sigma)


@record
class DataForm(Form):
    """F predicts x_0."""

    def denoised_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = F."""
        return torch.zeros_like(sigma), torch.ones_like(sigma)


@record
class VelocityForm(Form):
    """F predicts the velocity v = alpha z - sigma x_0 (Salimans and Ho 2022)."""

    def denoised_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = (alpha x - sigma F) / (alpha^2 + sigma^2), from x = alpha x_0 + sigma z."""
        total = alpha**2 + sigma**2
        return alpha / total, -sigma / total

    def score_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """score = -(x + (alpha / sigma) F) / (alpha^2 + sigma^2)."""
        total = alpha**2 + sigma**2
        return -1.0 / total, -alpha / (sigma * total)


@record
class KarrasForm(Form):
    """The preconditioning of EDM (Karras et al. 2022, table 1) for any process, with r = sigma / alpha.

    c_skip = s^2 / (r^2 + s^2), c_out = r s / sqrt(r^2 + s^2), c_in = 1 / sqrt(r^2 + s^2), applied to x / alpha.

    Args:
        sigma_data: s, the standard deviation of the data in model units.
    """

    sigma_data: float = 0.5

    def c_in(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """c_in = 1 / sqrt(sigma^2 + alpha^2 s^2)."""
        return (sigma**2 + (alpha * self.sigma_data) ** 2).rsqrt()

    def denoised_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = alpha s^2 / (sigma^2 + alpha^2 s^2) x + sigma s / sqrt(sigma^2 + alpha^2 s^2) F."""
        s = self.sigma_data
        root = (sigma**2 + (alpha * s) ** 2).sqrt()
        return alpha * s * s / root**2, sigma * s / root

    def score_coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """score = -x / (sigma^2 + alpha^2 s^2) + alpha s / (sigma sqrt(sigma^2 + alpha^2 s^2)) F."""
        s = self.sigma_data
        root = (sigma**2 + (alpha * s) ** 2).sqrt()
        return -1.0 / root**2, alpha * s / (sigma * root)


class TimeInput(ABC):
    """The number c that a network is conditioned on."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """c, shape (B,), float64 until the network's dtype is known."""


@record
class ScaledTime(TimeInput):
    """c = factor t.

    Args:
        factor: 999 in the VP and sub-VP models of Song et al. (2021), whatever the number of steps.
    """

    factor: float = 999.0

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """c = factor t."""
        return self.factor * t


@record
class LogSigma(TimeInput):
    """c = log sigma(t), the input of the Fourier features of NCSN++ (Song et al. 2021, section C.2)."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """c = log sigma(t), with sigma in model units."""
        return process.sigma(t).log()


@record
class LogScaledTime(TimeInput):
    """c = log(factor t), the input of Fourier features under VP and sub-VP: the logarithm of `ScaledTime`.

    Args:
        factor: Factor on t, as in `ScaledTime`.
    """

    factor: float = 999.0

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """c = log(factor t)."""
        return (self.factor * t).log()


@record
class LogRatio(TimeInput):
    """c = log(sigma / alpha) / 4, the noise input of EDM (Karras et al. 2022, table 1)."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """c = log(sigma / alpha) / 4, which is -log_snr / 8."""
        return -0.125 * process.log_snr(t)


@record
class LevelLabel(TimeInput):
    """c is the label of the level of t on a ladder.

    Args:
        descending: Whether label 0 is the most noise, as in NCSN; otherwise it is the least noise, as in DDPM.
        between: The label at times between levels: "refuse" raises an error, "linear" gives a fractional label (the
            linear interpolation of Song et al. 2021), "floor" the label of the level below (their rounding).
    """

    descending: bool = False
    between: Literal["refuse", "linear", "floor"] = "refuse"

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """The label of t, shape of t.

        Raises:
            ValueError: t is between two levels and `between` is "refuse", or the process is not `Tabulated`.
        """
        if not isinstance(process, Tabulated):
            raise ValueError(
                f"labels are levels of a Tabulated process, and this score has the process {type(process).__name__};"
                " give NetworkScore(levels=Tabulated(...))"
            )
        position = process.position(t)
        if self.between == "refuse" and t.device.type == "cpu" and bool((position != position.round()).any()):
            raise ValueError(
                f"t = {float(t[position != position.round()][0]):g} lies between two of the {process.levels} levels"
                " on which this network was trained; sample at its levels (grid EveryLevel), or use"
                " LevelLabel(between='linear')"
            )
        if self.between == "floor":
            position = position.floor()
        return process.levels - 1 - position if self.descending else position
