"""Gaussian guidance: p~(y | x_t) = N(y; A D(x_t), std^2 I + A V_t A'), with a guess V_t of the covariance of x_0."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import LOG_2PI, norm_event, over_event
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.inverse.noise import GaussianNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.operators.operator import LinearOperator
from scorefield.inverse.solvers.tilted_score import Estimate, Tilted, TiltingSolver, require_scale
from scorefield.sampling.named import ddim
from scorefield.sampling.sampler import Sampler
from scorefield.score.score import Score

LARGEST_DENSE = 256
"""Measurements up to which a covariance of y is made entry by entry."""


@record
class PiGDM(TiltingSolver):
    """Pseudo-inverse guidance: V_t = r_t^2 I, the covariance of x_0 given x_t for data N(m, s^2 I).

        grad_x log p~ = (dD/dx)' A' (std^2 I + r_t^2 A A')^-1 (y - A D),
        r_t^2 = s^2 sigma^2 / (s^2 alpha^2 + sigma^2),

    through the singular values of A; with std = 0 the inverse is the pseudo-inverse. With s = 1, r_t^2 is the published
    one: sigma^2 / (1 + sigma^2) for VE and sigma^2 for VP. s is in model units, where images in [0, 1] have 0.3 or so
    and standardised data 1; too large an s makes samples wide and lets them off y, too small a one is DPS. Where it is
    left open it is 1, and for a model of bounded data a quarter of their range (`for_data`). This is the
    score itself, for every sampler; the paper's sampler weighs it anew at each DDIM step, by r_t^2 where y is exact.
    The pull takes A D no farther than y is: a bound that the guess obeys by itself, and a network's Jacobian does not
    at large noise.

    Args:
        scale: Scale of the guidance term towards y.
        prior_std: s, of each entry of the data, model units; None for 1, or what `for_data` says.

    Raises:
        ValueError: A scale or deviation that is not positive.

    Reference: Song, Vahdat, Mardani and Kautz, "Pseudoinverse-guided diffusion models for inverse problems", 2023,
    section 3.
    """

    scale: float = 1.0
    prior_std: float | None = None

    name: ClassVar[str] = "pigdm"
    exact: ClassVar[str] = "as steps -> 0 for data N(m, s^2 I); else no: x_0 given x_t is taken to be N(D, r_t^2 I)"
    linear: ClassVar[bool] = True
    spectrum: ClassVar[bool] = True
    gaussian: ClassVar[bool] = True
    noisy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_scale(self.scale)
        if self.prior_std is not None and not 0.0 < self.prior_std < math.inf:
            raise ValueError(f"prior_std={self.prior_std} of the data, in model units, must be positive")

    def tilted(self, score: Score, sampler: Sampler, observation: Observation) -> Tilted:
        """The guided score."""
        return PseudoInverse(score, observation, self.scale, 1.0 if self.prior_std is None else self.prior_std)

    def for_data(self, spec: DataSpec, observation: Observation) -> PiGDM:
        """With s a quarter of the range of bounded data, in model units: between uniform and peaked data."""
        if self.prior_std is not None or not spec.bounded:
            return self
        return replace(self, prior_std=(spec.model_range[1] - spec.model_range[0]) / 4.0)

    def default_sampler(self, score: Score) -> Sampler:
        """DDIM with eta = 1 in 100 steps, as published."""
        return ddim(score.process, 100, 1.0)


class PseudoInverse(Tilted):
    """The score tilted by N(y; A D, std^2 I + r_t^2 A A')."""

    def __init__(self, score: Score, observation: Observation, scale: float, prior_std: float):
        super().__init__(score, observation, scale)
        operator, self._std, self._s = observation.operator, _std(observation), prior_std
        assert isinstance(operator, LinearOperator)
        self._spectrum = operator.spectrum()
        self._values = torch.where(self._spectrum.seen, self._spectrum.values, 0.0)
        self._rank = int(self._spectrum.seen.sum())

    def _evaluate(
        self, x: Tensor, t: Tensor, condition: Condition | None, what: str
    ) -> tuple[Tensor, Tensor, Tensor, Estimate]:
        """The guidance term of a tilted score, limited so that A D does not move beyond y.

        With the covariance r_t^2 I that the guess stands for, |A (sigma^2 / alpha) slope| <= |y - A D| always. A
        network that predicts the noise has a Jacobian of D that is off by its own error times sigma / alpha, and would
        overshoot without end.
        """
        value, log_p, slope, at = super()._evaluate(x, t, condition, what)
        with torch.no_grad():
            A = self.observation.operator
            moved = norm_event(A(over_event(self.scale * at.sigma**2 / at.alpha, slope) * slope))
            reach = norm_event(at.y - A(at.denoised))
            share = (max(self.scale, 1.0) * reach / moved.clamp_min(torch.finfo(moved.dtype).tiny)).clamp_max(1.0)
        return value, log_p, over_event(share, slope) * slope, at

    def likelihood(self, at: Estimate) -> tuple[Tensor, Tensor]:
        """(log p~, A' (std^2 I + r_t^2 A A')^-1 (y - A D)); where std = 0, of the part of y that A reaches."""
        gap = at.y - self.observation.operator(at.denoised)
        u, s = self._spectrum.left(gap), self._values.to(gap)
        r_squared = (self._s * at.sigma) ** 2 / ((self._s * at.alpha) ** 2 + at.sigma**2)
        seen = s > 0
        variance = torch.where(seen, self._std**2 + r_squared.to(gap)[:, None] * s**2, 1.0)
        log_p = -0.5 * (u**2 / variance + seen * (LOG_2PI + variance.log())).sum(1)
        beside = math.prod(at.y.shape[1:]) - self._rank
        if beside and self._std > 0.0:  # where A cannot reach, y is noise alone
            rest = (gap.flatten(1) ** 2).sum(1) - (u**2).sum(1)
            log_p = log_p - 0.5 * (rest / self._std**2 + beside * (LOG_2PI + 2.0 * math.log(self._std)))
        return log_p, self._spectrum.right_back(s * u / variance)


@record
class MomentMatched(TiltingSolver):
    """Tweedie moment projection: V_t = (sigma^2 / alpha) dD/dx, the covariance of x_0 given x_t itself.

        grad_x log p~ = (dD/dx)' A' (std^2 I + (sigma^2 / alpha) A (dD/dx) A')^-1 (y - A D),

    the change of V_t with x being left out, which is zero for Gaussian data: for them it is the exact score of x_t
    given y, at every t, whatever their covariance. The matrix takes a vector-Jacobian product for each measurement, up
    to 256 of them; its symmetric part is taken, and eigenvalues below 0, which only a network has, as 0. With
    `iterations` the system is solved by so many steps of conjugate gradients instead, a product each.

    Args:
        scale: Scale of the guidance term towards y.
        iterations: Number of conjugate gradient iterations; None solves with the matrix.

    Raises:
        ValueError: A scale or a number of iterations that is not positive.

    Reference: Boys, Girolami, Pidstrigach, Reich, Mosca and Akyildiz, "Tweedie moment projected diffusions for inverse
    problems", 2024, section 3. Conjugate gradients: Rozet et al., "Learning diffusion priors from observations by
    expectation maximization", 2024, section 4.2.
    """

    scale: float = 1.0
    iterations: int | None = None

    name: ClassVar[str] = "moment-matched"
    exact: ClassVar[str] = "as steps -> 0 for Gaussian data; else no: x_0 given x_t is taken to be normal"
    linear: ClassVar[bool] = True
    gaussian: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_scale(self.scale)
        if self.iterations is not None and self.iterations < 1:
            raise ValueError(f"iterations={self.iterations} of conjugate gradients; give 1 or more, or None")

    def tilted(self, score: Score, sampler: Sampler, observation: Observation) -> Tilted:
        """The guided score."""
        if self.iterations is None:
            return Matched(score, observation, self.scale)
        return MatchedByIteration(score, observation, self.scale, self.iterations)

    def default_sampler(self, score: Score) -> Sampler:
        """DDIM with eta = 1 in 100 steps."""
        return ddim(score.process, 100, 1.0)

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """Reasons to refuse: those of every solver, and more measurements than a matrix is made for."""
        why = super().refusals(score, sampler, observation)
        count = math.prod(observation.operator.observed)
        if self.iterations is None and count > LARGEST_DENSE:
            why.append(
                f"{self.name} takes a vector-Jacobian product for each measurement, and y has {count}; use"
                " MomentMatched(iterations=10), or pigdm"
            )
        return why


class Matched(Tilted):
    """The score tilted by N(y; A D, std^2 I + (sigma^2 / alpha) A (dD/dx) A')."""

    def __init__(self, score: Score, observation: Observation, scale: float):
        super().__init__(score, observation, scale)
        self._std, operator = _std(observation), observation.operator
        assert isinstance(operator, LinearOperator)
        unit = torch.eye(math.prod(operator.observed), dtype=torch.float64)
        self._rows = operator.adjoint(unit.reshape(-1, *operator.observed))  # A as rows, (M, *event)

    def likelihood(self, at: Estimate) -> tuple[Tensor, Tensor]:
        """(log p~, A' (std^2 I + A V A')^-1 (y - A D))."""
        operator, rows = self.observation.operator, self._rows.to(at.denoised)
        gap = (at.y - operator(at.denoised)).flatten(1)
        columns = [operator(at.pull(row.expand(at.denoised.shape), False)).flatten(1) for row in rows]
        stretched = over_event(at.sigma**2 / at.alpha, gap) * torch.stack(columns, 2).flatten(1)
        S = stretched.reshape(len(gap), len(rows), len(rows))
        variances, U = torch.linalg.eigh(0.5 * (S + S.mT))
        variances = variances.clamp_min(0.0) + self._std**2
        u = (U.mT @ gap[..., None])[..., 0]
        log_p = -0.5 * (u**2 / variances + LOG_2PI + variances.log()).sum(1)
        solved = (U @ (u / variances)[..., None])[..., 0]
        return log_p, (solved @ rows.flatten(1)).reshape(at.denoised.shape)


class MatchedByIteration(Tilted):
    """The guidance term by conjugate gradients; its log p~ lacks the determinant."""

    def __init__(self, score: Score, observation: Observation, scale: float, iterations: int):
        super().__init__(score, observation, scale)
        self._std, self._iterations = _std(observation), iterations

    def likelihood(self, at: Estimate) -> tuple[Tensor, Tensor]:
        """(-(y - A D)' v / 2, A' v) with v near (std^2 I + A V A')^-1 (y - A D)."""
        operator = self.observation.operator
        assert isinstance(operator, LinearOperator)
        gap = at.y - operator(at.denoised)
        factor = over_event(at.sigma**2 / at.alpha, at.denoised)

        def through(v: Tensor) -> Tensor:
            return self._std**2 * v + operator(factor * at.pull(operator.adjoint(v), False))

        v, rest, way = torch.zeros_like(gap), gap, gap
        size, floor = _dot(rest, rest), torch.finfo(gap.dtype).tiny
        for _ in range(self._iterations):
            image = through(way)
            # A network's Jacobian may bend the wrong way; the least that an exact one has keeps the step finite.
            length = size / torch.maximum(_dot(way, image), self._std**2 * _dot(way, way)).clamp_min(floor)
            v, rest = v + over_event(length, v) * way, rest - over_event(length, v) * image
            before, size = size, _dot(rest, rest)
            way = rest + over_event(size / before.clamp_min(floor), way) * way
        return -0.5 * _dot(gap, v), operator.adjoint(v)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each example, (B,)."""
    return (a * b).flatten(1).sum(1)


def _std(observation: Observation) -> float:
    assert isinstance(observation.noise, GaussianNoise)
    return observation.noise.std
