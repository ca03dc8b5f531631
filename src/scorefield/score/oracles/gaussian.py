"""Gaussian data: every marginal is Gaussian, and its covariance is diagonal in the same basis at all times."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from scorefield._math import LOG_2PI, over_event
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.score.oracles.oracle import Number, Observation, Oracle, refuse_condition


class ModalGaussian(Oracle):
    """A Gaussian given by its modes: x_0 ~ N(m, U diag(l) U') with an orthonormal basis U.

    Then x_t ~ N(alpha m, U diag(alpha^2 l + sigma^2) U').

    With c = U' (x - alpha m) and v = alpha^2 l + sigma^2:

        score = -U c / v,    E[x_0 | x_t] = m + U (alpha l / v) c,    log p = -sum(log(2 pi v) + c^2 / v) / 2.

    None of these divides by sigma, so all are accurate as sigma tends to zero.

    Args:
        process: The process that adds noise to x_0.
        mean: m, event shape.
        variances: l >= 0, shape (D,).
    """

    def __init__(self, process: Process, mean: Tensor, variances: Tensor):
        super().__init__(process, tuple(mean.shape))
        self.mean, self.variances = mean.to(torch.float64), variances.to(torch.float64)

    @abstractmethod
    def _to_modes(self, x: Tensor) -> Tensor:
        """U' x: (B, *event) -> (B, D)."""

    @abstractmethod
    def _from_modes(self, c: Tensor) -> Tensor:
        """U c: (B, D) -> (B, *event)."""

    def _centred(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The modes c of x - alpha m, shape (B, D); l in the dtype and on the device of x; and v, shape (B, D)."""
        variances = self.variances.to(x)
        c = self._to_modes(x - over_event(alpha, x) * self.mean.to(x))
        return c, variances, alpha[:, None] ** 2 * variances + sigma[:, None] ** 2

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        refuse_condition(condition, type(self).__name__)
        c, _, v = self._centred(x, alpha, sigma)
        return -self._from_modes(c / v)

    def _denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        refuse_condition(condition, type(self).__name__)
        c, variances, v = self._centred(x, alpha, sigma)
        # The posterior mean of a mode without variance is its mean, also at sigma = 0, where v = 0.
        gain = torch.where(v > 0, alpha[:, None] * variances / torch.where(v > 0, v, 1.0), 0.0)
        return self.mean.to(x) + self._from_modes(gain * c)

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        refuse_condition(condition, type(self).__name__)
        c, _, v = self._centred(x, alpha, sigma)
        if bool((v <= 0).any()):
            raise ValueError(
                f"this {type(self).__name__} has modes of variance 0, so its data have no density; give a time t at"
                " which sigma > 0"
            )
        return -0.5 * (self.dimension * LOG_2PI + v.log().sum(1) + (c * c / v).sum(1))

    def _sample_data(self, z: Tensor, uniform: Tensor, condition: Condition | None) -> Tensor:
        refuse_condition(condition, type(self).__name__)
        return self.mean.to(z) + self._from_modes(self.variances.to(z).sqrt() * z.flatten(1))

    def data_moments(self) -> tuple[Tensor, Tensor]:
        basis = self._from_modes(torch.eye(self.dimension, dtype=torch.float64)).reshape(self.dimension, -1)
        return self.mean, basis.T @ (self.variances[:, None] * basis)

    def _given(self, observation: Observation) -> Gaussian:
        """N(m + K (y - A m), (I - K A) C (I - K A)' + K R K') with K = C A' (A C A' + R)^-1 (Joseph form)."""
        mean, covariance = self.data_moments()
        A, flat = observation.A, mean.reshape(-1)
        K = torch.cholesky_solve(A @ covariance, observation.factor(covariance)).T
        rest = torch.eye(self.dimension, dtype=torch.float64) - K @ A
        updated = rest @ covariance @ rest.T + K @ observation.R @ K.T
        return Gaussian(self.process, (flat + K @ (observation.y - A @ flat)).reshape(self.shape), updated)

    def _log_evidence(self, observation: Observation) -> Tensor:
        """log N(y; A m, A C A' + R)."""
        mean, covariance = self.data_moments()
        return observation.log_prob(mean.reshape(1, -1), observation.factor(covariance))[0]


class Gaussian(ModalGaussian):
    """x_0 ~ N(m, C) with any mean and covariance; singular covariances are allowed.

    Args:
        process: The process that adds noise to x_0.
        mean: m, in the event shape, which has at least one axis.
        covariance: C over the flattened event, shape (D, D); or the variances of independent entries, event shape;
            or one variance. Model units squared.

    Raises:
        ValueError: The mean has no axis, or the covariance has another shape, is not symmetric or has a negative
            eigenvalue.
    """

    def __init__(self, process: Process, mean: Tensor, covariance: Number):
        mean = torch.as_tensor(mean, dtype=torch.float64)
        covariance = torch.as_tensor(covariance, dtype=torch.float64)
        D = mean.numel()
        if mean.ndim == 0:
            raise ValueError("mean is a number; give a tensor of the event shape, for example torch.zeros(2)")
        if covariance.ndim == 0 or covariance.shape == mean.shape:
            variances, self._basis = covariance.expand(mean.shape).reshape(-1), None
        elif covariance.shape == (D, D):
            if not torch.allclose(covariance, covariance.T, rtol=1e-9, atol=1e-12 * float(covariance.abs().max())):
                raise ValueError("covariance is not symmetric; give for example 0.5 * (C + C.T)")
            variances, self._basis = torch.linalg.eigh(0.5 * (covariance + covariance.T))
        else:
            raise ValueError(
                f"covariance has shape {tuple(covariance.shape)} for a mean of shape {tuple(mean.shape)};"
                f" give ({D}, {D}), {tuple(mean.shape)} (variances) or one variance"
            )
        rounding = D * torch.finfo(torch.float64).eps * float(variances.abs().max())
        if float(variances.min()) < -1e4 * rounding or not math.isfinite(float(variances.sum())):
            raise ValueError(
                f"covariance has the eigenvalue {float(variances.min()):g}; eigenvalues must be finite and not negative"
            )
        super().__init__(process, mean, torch.where(variances <= rounding, 0.0, variances))

    def _to_modes(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return flat if self._basis is None else flat @ self._basis.to(x)

    def _from_modes(self, c: Tensor) -> Tensor:
        flat = c if self._basis is None else c @ self._basis.to(c).T
        return flat.reshape(c.shape[0], *self.shape)
