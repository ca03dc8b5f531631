"""The continuous processes of Song et al. (2021): variance exploding, variance preserving, sub-variance preserving."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.process.process import Process, TimeLimits


@record
class VE(Process):
    """Variance exploding: alpha = 1, sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    dx = sigma(t) sqrt(2 log(sigma_max / sigma_min)) dw (Song et al. 2021, eq. 30). As published, sigma(0) = sigma_min:
    the density at t = 0 is that of the data with noise of standard deviation sigma_min.

    Args:
        sigma_min: Smallest noise level, in model units.
        sigma_max: Largest noise level, in model units; about the largest distance between two training examples.

    Raises:
        ValueError: The levels are not positive and increasing.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"VE needs 0 < sigma_min < sigma_max; got {self.sigma_min} and {self.sigma_max}")

    @property
    def t_min(self) -> TimeLimits:
        """1e-5 for every use, as published; the score would exist at t = 0 too, where the noise is sigma_min."""
        return TimeLimits(training=1e-5, sampling=1e-5, likelihood=1e-5)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        """alpha = 1 at every t."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma = sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * (self._log_ratio * t).exp()

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        """d log alpha / dt = 0."""
        return torch.zeros_like(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g^2 = 2 sigma^2 log(sigma_max / sigma_min)."""
        return 2.0 * self._log_ratio * self.sigma(t) ** 2

    def time_at_sigma(self, sigma: Tensor) -> Tensor:
        """t = log(sigma / sigma_min) / log(sigma_max / sigma_min), limited to [t_min, 1]."""
        return ((sigma / self.sigma_min).log() / self._log_ratio).clamp(self.t_min.smallest, 1.0)

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time at which sigma = exp(-log_snr / 2)."""
        return self.time_at_sigma((-0.5 * log_snr).exp())


class _LinearBeta(Process):
    """The common part of VP and sub-VP: beta(t) linear in t, B(t) its integral from 0 to t, alpha = exp(-B(t) / 2)."""

    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        if not 0.0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                f"{type(self).__name__} needs 0 < beta_min <= beta_max; got {self.beta_min} and {self.beta_max}"
            )

    @property
    def t_min(self) -> TimeLimits:
        """1e-5 for training and likelihood, 1e-3 for sampling, as published."""
        return TimeLimits(training=1e-5, sampling=1e-3, likelihood=1e-5)

    @property
    def prior_std(self) -> float:
        """1, as published; under VP sigma(1) is smaller by exp(-B(1)) / 2, which is 2e-5 for the default betas."""
        return 1.0

    def beta(self, t: Tensor) -> Tensor:
        """The rate beta_min + t (beta_max - beta_min), shape (B,)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _integral(self, t: Tensor) -> Tensor:
        """B(t), the integral of beta from 0 to t."""
        return t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        """alpha = exp(-B(t) / 2)."""
        return (-0.5 * self._integral(t)).exp()

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        """d log alpha / dt = -beta(t) / 2."""
        return -0.5 * self.beta(t)

    def _time_at_integral(self, integral: Tensor) -> Tensor:
        """Solve B(t) = integral, by a form without cancellation that is also valid for beta_max = beta_min."""
        b0, slope = self.beta_min, self.beta_max - self.beta_min
        integral = integral.clamp(
            max=b0 + 0.5 * slope
        )  # B(1); the integral is infinite for noise that is never reached
        t = 2.0 * integral / (b0 + (b0 * b0 + 2.0 * slope * integral).sqrt())
        return t.clamp(self.t_min.smallest, 1.0)


@record
class VP(_LinearBeta):
    """Variance preserving: alpha = exp(-B / 2), sigma^2 = 1 - exp(-B); dx = -beta x / 2 dt + sqrt(beta) dw.

    Song et al. 2021, eq. 32 and 33; beta_min = 0.1 and beta_max = 20 are DDPM's 1e-4 and 0.02 times 1000.

    Args:
        beta_min: beta(0).
        beta_max: beta(1).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def sigma(self, t: Tensor) -> Tensor:
        """sigma = sqrt(1 - exp(-B))."""
        return (-torch.expm1(-self._integral(t))).sqrt()

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g^2 = beta(t)."""
        return self.beta(t)

    def time_at_sigma(self, sigma: Tensor) -> Tensor:
        """The time at which B = -log(1 - sigma^2)."""
        return self._time_at_integral(-torch.log1p(-(sigma.double().clamp(0.0, 1.0) ** 2))).to(sigma.dtype)

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time at which B = log(1 + exp(-log_snr))."""
        return self._time_at_integral(torch.nn.functional.softplus(-log_snr.double())).to(log_snr.dtype)


@record
class SubVP(_LinearBeta):
    """Sub-variance preserving: alpha = exp(-B / 2), sigma = 1 - exp(-B) (a standard deviation, not a variance).

    dx = -beta x / 2 dt + sqrt(beta (1 - exp(-2 B))) dw (Song et al. 2021, eq. 34 and 35). Its sigma is never above that
    of VP with the same betas.

    Args:
        beta_min: beta(0).
        beta_max: beta(1).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def sigma(self, t: Tensor) -> Tensor:
        """sigma = 1 - exp(-B)."""
        return -torch.expm1(-self._integral(t))

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g^2 = beta (1 - exp(-2 B))."""
        return -self.beta(t) * torch.expm1(-2.0 * self._integral(t))

    def time_at_sigma(self, sigma: Tensor) -> Tensor:
        """The time at which B = -log(1 - sigma)."""
        return self._time_at_integral(-torch.log1p(-sigma.double().clamp(0.0, 1.0))).to(sigma.dtype)

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time at which B = 2 arsinh(exp(-log_snr / 2) / 2), because alpha / sigma = 1 / (2 sinh(B / 2))."""
        return self._time_at_integral(2.0 * torch.asinh(0.5 * (-0.5 * log_snr.double()).exp())).to(log_snr.dtype)
