"""Whether samples explain the measurement as well as its noise says they should."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._math import mean_event, sum_event
from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise
from scorefield.inverse.noise import GaussianNoise, MeasurementNoise
from scorefield.inverse.observation import Observation

RESIDUAL_STEP = PRIOR_STEP + 2
"""The step number of simulated measurements, so that they never meet a sampler's or an oracle's draws."""

REPLICATES = 199
"""Simulated measurements of each sample, where the noise is not normal: p-values are multiples of 1 / 200."""


@dataclass(frozen=True)
class ResidualTest:
    """The discrepancy D(x) = -2 log p(y | x) + const of samples, compared with its distribution under noise alone.

    If x* has the prior's distribution, y = A(x*) + noise, and x is drawn from p(x | y), then (x, y) has the
    distribution of (x*, y). So over problems, y - A(x) is distributed as the noise: with normal noise D = |y - A(x)|^2
    / std^2 is chi^2 with M degrees of freedom, and p is uniform. This is the posterior predictive p-value of Meng
    (1994) for one x. What is tested is the joint distribution of x and y: the model and the solver together. Given one
    y alone D is not chi^2, and the samples of one y share it; `combined` is valid for any dependence.

    Small D: samples fit the noise of y. Large D: they do not reach y.

    Args:
        rms: Root mean square of y - A(x), units of y, shape (n,) or (B, n).
        statistic: D, shape of rms; None where y is exact.
        freedom: M, numbers measured of each example.
        p_value: Two-sided, shape of rms; None where y is exact.
    """

    rms: Tensor
    statistic: Tensor | None
    freedom: int
    p_value: Tensor | None

    @property
    def combined(self) -> Tensor | None:
        """One p-value for each y, () or (B,): twice the mean over its finite samples, at most 1.

        Twice an average of p-values is a p-value whatever their dependence (Rueschendorf 1982).
        """
        return None if self.p_value is None else (2.0 * self.p_value.nanmean(dim=-1)).clamp(max=1.0)


def residual_test(x: Tensor, observation: Observation, *, seed: int = 0, indices: range | None = None) -> ResidualTest:
    """The test for samples x of one batch, row by row.

    Args:
        x: Samples in the units the observation is of, (n, *event).
        observation: The observation, with one y for all rows or one for each.
        seed: Seed of simulated measurements, which are used only where the noise is not normal.
        indices: Indices of the rows in that noise.

    Returns:
        Entries of shape (n,), NaN where x is not finite.
    """
    y = observation.y(x)
    mean = observation.operator(x)
    M, finite = math.prod(y.shape[1:]), torch.isfinite(x).flatten(1).all(dim=1)
    rms = mean_event((y - mean) ** 2).sqrt().double().cpu()
    noise = observation.noise
    if isinstance(noise, GaussianNoise):
        if noise.std == 0.0:
            return ResidualTest(rms, None, M, None)
        D = (sum_event((y - mean).double() ** 2) / noise.std**2).cpu()
        below = torch.special.gammainc(D.new_tensor(M / 2.0), D / 2.0)
        p = 2.0 * torch.minimum(below, 1.0 - below)
    else:
        D = -2.0 * noise.log_prob(y, mean).double().cpu()
        p = _simulated(D, torch.where(_like(finite, mean), mean, torch.ones_like(mean)), noise, seed, indices)
    bad = ~finite.cpu() | ~torch.isfinite(D)
    return ResidualTest(rms, D, M, p.masked_fill(bad, math.nan))


def _simulated(D: Tensor, mean: Tensor, noise: MeasurementNoise, seed: int, indices: range | None) -> Tensor:
    """Two-sided p-values of D among discrepancies of simulated measurements of the same samples."""
    draws = StepNoise(IndexedNoise(seed, indices or range(len(mean))), RESIDUAL_STEP)
    above, below = torch.ones_like(D), torch.ones_like(D)
    for _ in range(REPLICATES):
        other = -2.0 * noise.log_prob(noise.sample(mean, draws), mean).double().cpu()
        above, below = above + (other >= D), below + (other <= D)
    return (2.0 * torch.minimum(above, below) / (REPLICATES + 1.0)).clamp(max=1.0)


def _like(per_row: Tensor, x: Tensor) -> Tensor:
    return per_row.reshape(-1, *(1,) * (x.ndim - 1))
