"""Base class of the oracles: distributions of x_0 whose marginals p_t are known exactly."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from scorefield._math import LOG_2PI, over_event
from scorefield._random import PRIOR_STEP, IndexedNoise, Noise
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score, as_times

SAMPLE_STEP = PRIOR_STEP + 1
"""Step number of the draws of an oracle, so that they are independent of a sampler's draws with the same seed."""

Number = float | Tensor


class Oracle(Score):
    """The exact score of x_t = alpha x_0 + sigma z, for a distribution of x_0 in closed form.

    A subclass defines the distribution of alpha x_0 + sigma z for scales alpha and sigma of shape (B,), and that of x_0
    given an observation. It computes in float64, except on devices without it; results are returned in the dtype of x.
    The process is used only through alpha and sigma, so an oracle is exact under any process that has them, including a
    tabulated one.

    Args:
        process: The process that adds noise to x_0.
        shape: Event shape.
    """

    def __init__(self, process: Process, shape: tuple[int, ...]):
        self.process, self.shape = process, tuple(shape)

    @property
    def dimension(self) -> int:
        """Number of scalars in one example, D."""
        return math.prod(self.shape)

    # ------------------------------------------------------------------------------------- defined by subclasses

    @abstractmethod
    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """Score of alpha x_0 + sigma z at x, shape of x."""

    @abstractmethod
    def _denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """E[x_0 | alpha x_0 + sigma z = x], shape of x, without a division by sigma."""

    @abstractmethod
    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """Log density of alpha x_0 + sigma z at x in nats, shape (B,)."""

    @abstractmethod
    def _sample_data(self, z: Tensor, uniform: Tensor, condition: Condition | None) -> Tensor:
        """Samples of x_0 from standard normal z, shape (n, *event), and uniform numbers of shape (n,)."""

    @abstractmethod
    def data_moments(self) -> tuple[Tensor, Tensor]:
        """Mean of x_0, event shape, and its covariance over the flattened event, shape (D, D); float64."""

    @abstractmethod
    def _given(self, observation: Observation) -> Oracle:
        """The distribution of x_0 given the observation."""

    @abstractmethod
    def _log_evidence(self, observation: Observation) -> Tensor:
        """log p(y) in nats, a tensor with one number; float64."""

    # ------------------------------------------------------------------------------------- derived

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The exact score; see `Score`."""
        self.process.check_time(t)
        state, alpha, sigma = self._prepared(x, t)
        return self._score(state, alpha, sigma, condition).to(x.dtype)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The exact posterior mean E[x_0 | x_t = x], accurate at every sigma, shape of x."""
        self.process.check_time(t)
        state, alpha, sigma = self._prepared(x, t)
        return self._denoised(state, alpha, sigma, condition).to(x.dtype)

    def log_prob(self, x: Tensor, t: Number | None = None, condition: Condition | None = None) -> Tensor:
        """Log density of x_t in nats and model units, shape (B,).

        Args:
            x: Points, shape (B, *event).
            t: Times, shape (B,), or one number; None for the data x_0 themselves.
            condition: Known conditions, as in `Score`.

        Raises:
            ValueError: The distribution at t has no density (point masses or a singular covariance without noise).
        """
        state, alpha, sigma = self._prepared(x, t)
        return self._log_prob(state, alpha, sigma, condition).to(x.dtype)

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log p_t(x), score), both exact and normalised."""
        return self.log_prob(x, t, condition), self(x, t, condition)

    def sample(
        self,
        n: int,
        t: Number | None = None,
        *,
        seed: int = 0,
        start: int = 0,
        condition: Condition | None = None,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Independent samples of x_t = alpha x_0 + sigma z, shape (n, *event), in model units.

        Sample i depends only on the seed and on start + i, and it is made from the same x_0 and z at every t.

        Args:
            n: Number of samples.
            t: Times, shape (n,), or one number; None for the data x_0.
            seed: Seed of the random draws.
            start: Index of the first sample.
            condition: Conditions by name, with leading axis n.
            noise: Source of noise to use in place of seed and start.
            dtype: Data type of the samples.
        """
        source = noise if noise is not None else IndexedNoise(seed, range(start, start + n))
        # One draw for all numbers of a sample, because opening a random stream costs more than drawing the numbers.
        draws = source.normal(torch.empty(n, 2 * self.dimension + 1, dtype=torch.float64), SAMPLE_STEP, 0)
        first, second = (z.reshape(n, *self.shape) for z in (draws[:, : self.dimension], draws[:, self.dimension : -1]))
        x0 = self._sample_data(first, torch.special.ndtr(draws[:, -1]), condition)
        if t is None:
            return x0.to(dtype)
        _, alpha, sigma = self._prepared(x0, t)
        return (over_event(alpha, x0) * x0 + over_event(sigma, x0) * second).to(dtype)

    def posterior(
        self,
        operator: Tensor,
        observed: Tensor,
        noise_std: Number | None = None,
        *,
        noise_covariance: Tensor | None = None,
    ) -> Oracle:
        """The distribution of x_0 given y = A x_0 + n with n ~ N(0, R), as an oracle with the same process.

        Args:
            operator: A, shape (M, D) or (M, *event), acting on the flattened event.
            observed: y, M numbers in model units.
            noise_std: Standard deviation of n in model units, one number or M; 0 for exact observations, where A C A'
                is regular.
            noise_covariance: R, shape (M, M), in place of `noise_std`.

        Returns:
            A Gaussian for Gaussians and fields, a Mixture for mixtures, Points for points.

        Raises:
            ValueError: Sizes do not fit, neither or both of noise_std and noise_covariance are given, or A C A' + R is
                singular.
        """
        return self._given(Observation.of(operator, observed, noise_std, noise_covariance, self.dimension))

    def log_evidence(
        self,
        operator: Tensor,
        observed: Tensor,
        noise_std: Number | None = None,
        *,
        noise_covariance: Tensor | None = None,
    ) -> float:
        """log p(y) of the observation y = A x_0 + n in nats; arguments as in `posterior`."""
        observation = Observation.of(operator, observed, noise_std, noise_covariance, self.dimension)
        return float(self._log_evidence(observation))

    def moments(self, t: Number | None = None) -> tuple[Tensor, Tensor]:
        """Mean alpha m, event shape, and covariance alpha^2 C + sigma^2 I, shape (D, D), of x_t; float64.

        Args:
            t: One time; None for the moments m and C of the data x_0.
        """
        mean, covariance = self.data_moments()
        _, alpha, sigma = self._prepared(mean[None], t)
        return alpha[0] * mean, alpha[0] ** 2 * covariance + sigma[0] ** 2 * torch.eye(len(covariance)).to(covariance)

    def under(self, process: Process) -> Self:
        """An oracle with the same distribution of x_0 and another process."""
        oracle = copy.copy(self)
        oracle.process = process
        return oracle

    def _prepared(self, x: Tensor, t: Number | None) -> tuple[Tensor, Tensor, Tensor]:
        """x in the dtype of the computation, and alpha and sigma of every example, which are 1 and 0 if t is None.

        Raises:
            ValueError: x does not have the event shape, or a time is outside the range of the process.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this oracle takes a batch of shape"
                f" (B, {', '.join(map(str, self.shape))})"
            )
        x = x if x.device.type == "mps" else x.to(torch.float64)  # MPS devices have no float64
        if t is None:
            return x, x.new_ones(x.shape[0]), x.new_zeros(x.shape[0])
        t = as_times(t, x)
        lowest = float(self.process.time(torch.tensor(-1))) if isinstance(self.process, Tabulated) else 0.0
        if t.device.type == "cpu" and t.numel():
            low, high = float(t.detach().min()), float(t.detach().max())
            if low < lowest - 1e-9 or high > 1 + 1e-6:
                raise ValueError(
                    f"t ranges from {low:g} to {high:g}, outside [{lowest:g}, 1]; for the data without noise use t=None"
                )
        return x, self.process.alpha(t).to(x), self.process.sigma(t).to(x)


def refuse_condition(condition: Condition | None, what: str) -> None:
    """Refuse a condition given to a distribution without conditions.

    Args:
        condition: The condition given.
        what: Name of the distribution, for the message.

    Raises:
        ValueError: A condition is given.
    """
    if condition:
        raise ValueError(
            f"{what} takes no condition; got {sorted(condition)}. A Mixture or Points with labels=... takes 'class'"
        )


@dataclass(frozen=True)
class Observation:
    """A linear observation y = A x_0 + n with n ~ N(0, R), in float64 and model units.

    Attributes:
        A: Operator on the flattened event, shape (M, D).
        y: Observed values, shape (M,).
        R: Covariance of the noise, shape (M, M).
    """

    A: Tensor
    y: Tensor
    R: Tensor

    @classmethod
    def of(
        cls,
        operator: Tensor,
        observed: Tensor,
        noise_std: Number | None,
        noise_covariance: Tensor | None,
        dimension: int,
    ) -> Observation:
        """The observation from the arguments of `Oracle.posterior`, after checks.

        Raises:
            ValueError: Sizes do not fit, or neither or both of noise_std and noise_covariance are given.
        """
        A = torch.as_tensor(operator, dtype=torch.float64)
        A = A.reshape(A.shape[0], -1)
        y = torch.as_tensor(observed, dtype=torch.float64).reshape(-1)
        if A.shape != (len(y), dimension):
            raise ValueError(
                f"an operator of shape {tuple(A.shape)} does not map the {dimension} numbers of an event to the"
                f" {len(y)} observed ones; give shape ({len(y)}, {dimension})"
            )
        if (noise_std is None) == (noise_covariance is None):
            raise ValueError(
                "give either noise_std or noise_covariance, in model units; for exact observations use noise_std=0"
            )
        if noise_covariance is not None:
            R = torch.as_tensor(noise_covariance, dtype=torch.float64)
            if R.shape != (len(y), len(y)):
                raise ValueError(
                    f"noise_covariance has shape {tuple(R.shape)}; for {len(y)} observed numbers it must have shape"
                    f" ({len(y)}, {len(y)})"
                )
        else:
            std = torch.as_tensor(noise_std, dtype=torch.float64)
            if std.ndim and std.reshape(-1).shape != y.shape:
                raise ValueError(
                    f"noise_std has {std.numel()} numbers for {len(y)} observed ones; give one number, or {len(y)}"
                )
            R = torch.diag(std.reshape(-1).expand(len(y)) ** 2)
        return cls(A, y, R)

    def factor(self, covariance: Tensor) -> Tensor:
        """Lower Cholesky factor of A C A' + R, the covariance of y, for C = `covariance`.

        Raises:
            ValueError: The covariance of y is singular: a linear combination of the observations has no variance.
        """
        S = self.A @ covariance @ self.A.T + self.R
        L, info = torch.linalg.cholesky_ex(S)
        # The square of a diagonal entry of L is the variance of an observation given those before it.
        if int(info) or bool((L.diagonal() ** 2 < 1e-12 * S.diagonal()).any()):
            raise ValueError(
                "A C A' + R is singular, so y has no density; drop redundant rows of the operator or give noise_std > 0"
            )
        return L

    def log_prob(self, means: Tensor, L: Tensor) -> Tensor:
        """log N(y; A m, L L') for means m of shape (K, D): shape (K,)."""
        residual = torch.linalg.solve_triangular(L, (self.y - means @ self.A.T).T, upper=False)
        return -0.5 * (len(self.y) * LOG_2PI + 2.0 * L.diagonal().log().sum() + (residual**2).sum(0))
