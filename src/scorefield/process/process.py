"""The base class of every Gaussian noise process: alpha and sigma, and the quantities derived from them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import normal_log_prob, over_event


@record
class TimeLimits:
    """The smallest times at which a process is used; a score raises an error below the smallest of the three.

    Args:
        training: Smallest time used in training.
        sampling: Time at which samplers stop and denoise.
        likelihood: Time at which the probability flow of a likelihood starts.
    """

    training: float
    sampling: float
    likelihood: float

    @property
    def smallest(self) -> float:
        """The smallest of the three times."""
        return min(self.training, self.sampling, self.likelihood)


class Process(ABC):
    """x_t = alpha(t) x_0 + sigma(t) z with z ~ N(0, I), for t from 0 (least noise) to 1 (most).

    A subclass defines `alpha`, `sigma` and `t_min`. The rest is derived here from d log alpha / dt = f and
    d sigma^2 / dt = 2 f sigma^2 + g^2 (Song et al. 2021, eq. 29 and appendix B). A subclass may override a derived
    method with a closed form; a test compares every override with this derivation.

    All times are tensors of shape (B,). Coefficients are returned in the dtype of t. Differences of neighbouring noise
    levels lose digits in float32, so times should be float64 where such differences are formed.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data at time t, shape (B,)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at time t, in model units, shape (B,)."""

    @property
    @abstractmethod
    def t_min(self) -> TimeLimits:
        """The smallest times for training, sampling and likelihood."""

    # ---------------------------------------------------------------------------------------- rates

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        """f(t) = d log alpha / dt, the coefficient of the linear drift, shape (B,)."""
        return _rate(lambda u: self.alpha(u).log(), t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2 = d sigma^2 / dt - 2 f sigma^2, shape (B,)."""
        return _rate(lambda u: self.sigma(u) ** 2, t) - 2.0 * self.log_alpha_rate(t) * self.sigma(t) ** 2

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """Forward drift f(t) x, shape of x."""
        return over_event(self.log_alpha_rate(t), x) * x

    def diffusion(self, t: Tensor) -> Tensor:
        """Forward diffusion g(t) >= 0, shape (B,)."""
        return self.diffusion_squared(t).clamp_min(0.0).sqrt()

    def noise_like(self, x: Tensor, t: Tensor) -> Tensor:
        """A tensor with the shape of the noise z in g(t) z, which is that of x; its values are not used."""
        return x

    def apply_diffusion(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """g(t) z, shape of x."""
        return over_event(self.diffusion(t), x) * z

    def flow_drift(self, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Drift of the probability flow, f x - g^2 score / 2, shape of x (Song et al. 2021, eq. 13)."""
        return self.drift(x, t) - over_event(0.5 * self.diffusion_squared(t), x) * score

    def reverse_drift(self, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Drift of the reverse-time SDE, f x - g^2 score, shape of x (Anderson 1982; Song et al. 2021, eq. 6)."""
        return self.drift(x, t) - over_event(self.diffusion_squared(t), x) * score

    # ---------------------------------------------------------------------------------------- distributions

    def marginal(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean alpha(t) x_0, shape of x0, and standard deviation sigma(t), shape (B,), of x_t given x_0."""
        return over_event(self.alpha(t), x0) * x0, self.sigma(t)

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_t = alpha(t) x_0 + sigma(t) z, shape of x0."""
        return over_event(self.alpha(t), x0) * x0 + over_event(self.sigma(t), x0) * z

    def kernel(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Forward transition x_t = a x_s + b z for s <= t: a = alpha_t / alpha_s, b^2 = sigma_t^2 - a^2 sigma_s^2.

        Args:
            s: Start times, shape (B,).
            t: End times, shape (B,).

        Returns:
            a and b, shape (B,).
        """
        a = self.alpha(t) / self.alpha(s)
        variance = self.sigma(t) ** 2 - (a * self.sigma(s)) ** 2
        return a, variance.clamp_min(0.0).sqrt()

    def posterior(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distribution of x_s given x_t and x_0 for s <= t: N(c_t x_t + c_0 x_0, d^2 I).

        c_t = a sigma_s^2 / sigma_t^2, c_0 = alpha_s b^2 / sigma_t^2, d = sigma_s b / sigma_t with (a, b) = kernel(s, t)
        (Ho et al. 2020, eq. 7, for any process).

        Args:
            s: Times of x_s, shape (B,).
            t: Times of x_t, shape (B,).

        Returns:
            c_t, c_0 and d, shape (B,).
        """
        a, b = self.kernel(s, t)
        sigma_s, sigma_t = self.sigma(s), self.sigma(t)
        return a * (sigma_s / sigma_t) ** 2, self.alpha(s) * (b / sigma_t) ** 2, sigma_s * b / sigma_t

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior at t = 1, in model units; the mean of the prior is zero."""
        return float(self.sigma(torch.ones(1, dtype=torch.float64)))

    def prior_sample(self, z: Tensor) -> Tensor:
        """A sample of the prior N(0, prior_std^2 I) from standard normal noise z, shape of z."""
        return self.prior_std * z

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log density of the prior in nats and model units, (B, *event) -> (B,)."""
        return normal_log_prob(x, self.prior_std**2)

    # ---------------------------------------------------------------------------------------- times of noise levels

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2), decreasing in t, shape (B,)."""
        return 2.0 * (self.alpha(t).log() - self.sigma(t).log())

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time at which log(alpha^2 / sigma^2) has the given value, limited to [t_min.smallest, 1]; shape (B,)."""
        return _bisect(lambda t: -self.log_snr(t), -log_snr, self.t_min.smallest)

    def time_at_sigma(self, sigma: Tensor) -> Tensor:
        """The time at which the noise has the given standard deviation, limited to [t_min.smallest, 1]; shape (B,).

        Args:
            sigma: Standard deviations in model units, shape (B,).
        """
        return _bisect(self.sigma, sigma, self.t_min.smallest)

    def check_time(self, t: Tensor) -> None:
        """Refuse times at which the process is not defined.

        Times are checked on the CPU only, where samplers keep them; the check would stall an accelerator.

        Raises:
            ValueError: A time is below `t_min.smallest` or above 1.
        """
        check_time(t, self.t_min, type(self).__name__)


def check_time(t: Tensor, limits: TimeLimits, name: str) -> None:
    """Refuse times outside [limits.smallest, 1]; times on an accelerator are not checked.

    Args:
        t: Times, any shape.
        limits: The limits of the process.
        name: Name of the process, for the message.

    Raises:
        ValueError: A time is outside.
    """
    if t.device.type != "cpu" or t.numel() == 0:
        return
    low, high, floor = float(t.min()), float(t.max()), limits.smallest
    if not (low >= floor * (1 - 1e-3) - 1e-9 and high <= 1 + 1e-6):
        raise ValueError(
            f"t = {high if high > 1 else low:g} is outside [{floor:g}, 1], where {name} is defined. t = 0 is the least"
            f" noise and t = 1 the most; this process has t_min = {limits}"
        )


def _rate(function, t: Tensor) -> Tensor:
    """d function / dt at each time, by automatic differentiation in float64."""
    with torch.enable_grad():
        u = t.detach().to(torch.float64).requires_grad_(True)
        value = function(u)
        if not value.requires_grad:
            return torch.zeros_like(t)
        (rate,) = torch.autograd.grad(value.sum(), u)
    return rate.to(t.dtype)


def _bisect(increasing, target: Tensor, low: float) -> Tensor:
    """Solve increasing(t) = target on [low, 1] in float64 by bisection."""
    goal = target.to(torch.float64)
    a, b = torch.full_like(goal, low), torch.ones_like(goal)
    for _ in range(60):
        middle = 0.5 * (a + b)
        below = increasing(middle) < goal
        a, b = torch.where(below, middle, a), torch.where(below, b, middle)
    return (0.5 * (a + b)).to(target.dtype)
