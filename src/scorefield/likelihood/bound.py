"""The variational bound of a model on a ladder of noise levels, the likelihood that DDPM reports.

The model is the Markov chain p(x_T) prod p(x_s | x_t) p(x_0 | x_1), whose steps p(x_s | x_t) are q(x_s | x_t, x_0) with
x_0 replaced by the posterior mean D(x_t). With SNR = alpha^2 / sigma^2 (Ho et al. 2020, eq. 5; Kingma et al. 2021)

    -log p(x_0) <= KL(q(x_T | x_0) || prior)
                   + sum_t (SNR(s) - SNR(t)) / 2 E |x_0 - D(x_t)|^2
                   + E[-log p(x_0 | x_1)],

where the sum runs over all pairs of neighbouring levels s < t, and every step has the variance of the posterior. The
bound holds for any score at the levels of its ladder and needs no solver and no divergence. For an exact score the
log-likelihood of the probability flow is tighter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._math import normal_log_prob, over_event, sum_event
from scorefield._random import Noise
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score

BOUND_STEP = 2**61 + 4
"""Step number of the noise of level 0; level i has BOUND_STEP + i."""


@dataclass(frozen=True)
class VariationalBound:
    """A lower bound on the log density, or for grey levels on their log probability; one entry per example.

    Args:
        nats: prior + levels + reconstruction, data units; for grey levels per quantisation step, as `LogProb.nats`.
        bits_per_dim: Bits per dimension for quantised data; else None.
        prior: -KL(q(x_T | x_0) || prior), exact.
        levels: Minus the sum over levels, estimated.
        reconstruction: E log p(x_0 | x_1), estimated.
        std_error: Standard error of nats over draws of the noise; None for a single draw.
        nfe: Network evaluations of each example: one per level and draw.
    """

    nats: Tensor
    bits_per_dim: Tensor | None
    prior: Tensor
    levels: Tensor
    reconstruction: Tensor
    std_error: Tensor | None
    nfe: Tensor


def variational_bound(
    score: Score,
    x: Tensor,
    data: DataSpec,
    ladder: Tabulated,
    noise: Noise,
    *,
    draws: int = 1,
    condition: Condition | None = None,
    dtype: torch.dtype = torch.float32,
) -> VariationalBound:
    """The bound of a score on the levels of a ladder, summed over every level.

    The decoder p(x_0 | x_1) is normal with mean D(x_1) and standard deviation sigma_0 / alpha_0 of level 0. For grey
    levels it is integrated over each bin, the first and the last bin extending to infinity (Ho et al. 2020, section
    3.3).

    Args:
        score: The score.
        x: Data in data units, (B, *shape).
        data: The spec of the data.
        ladder: The levels on which the score was trained.
        noise: Source of the noise of every level.
        draws: Number of draws of the noise of each level; two or more give a standard error.
        condition: The variables that the score is conditioned on, by name, one row per example.
        dtype: Dtype in which the score is evaluated.

    Raises:
        ValueError: x does not fit the spec, or `draws` is below 1.
    """
    data.check(x, name="x")
    if draws < 1:
        raise ValueError(f"draws={draws} of the noise must be at least 1; two or more give a standard error")
    times = ladder.time(torch.arange(ladder.levels))
    alpha, sigma = ladder.alpha(times), ladder.sigma(times)
    snr = (alpha / sigma).square()
    bound, x0 = score.bind(condition), data.to_model(x.double())
    log_jacobian = data.log_jacobian(dequantised=False) if data.levels is None else -_log_step(data)
    sums, decoded = [], []
    with torch.no_grad():
        for draw in range(draws):
            total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            for i in range(ladder.levels):
                t = times[i].to(torch.float64).expand(len(x))
                z = noise.normal(x0.to(torch.float32), BOUND_STEP + i, draw).to(x0)
                x_t = over_event(ladder.alpha(t), x0) * x0 + over_event(ladder.sigma(t), x0) * z
                D = bound.denoised(x_t.to(dtype), t).to(x0)
                if i == 0:
                    decoded.append(_decode(x0, D, float(sigma[0] / alpha[0]), data))
                else:
                    total -= 0.5 * float(snr[i - 1] - snr[i]) * sum_event((x0 - D).square())
            sums.append(total)
    prior = _prior(x0, float(alpha[-1]), float(sigma[-1]), ladder.prior_std)
    levels, reconstruction = torch.stack(sums), torch.stack(decoded) + log_jacobian
    each = levels + reconstruction
    nats = prior + each.mean(dim=0)
    return VariationalBound(
        nats=nats.cpu(),
        bits_per_dim=None if data.levels is None else data.bits_per_dim(nats.cpu()),
        prior=prior.cpu(),
        levels=levels.mean(dim=0).cpu(),
        reconstruction=reconstruction.mean(dim=0).cpu(),
        std_error=(each.std(dim=0) / math.sqrt(draws)).cpu() if draws > 1 else None,
        nfe=torch.full((len(x),), draws * ladder.levels),
    )


def _log_step(data: DataSpec) -> float:
    """Sum of the logs of the quantisation steps of all numbers of an example, data units."""
    step = data.quantisation_step
    assert step is not None
    return float(step.log().sum()) * (data.dimension // data.shape[0])


def _prior(x0: Tensor, alpha: float, sigma: float, prior_std: float) -> Tensor:
    """-KL(N(alpha x_0, sigma^2 I) || N(0, prior_std^2 I)), (B,)."""
    D, ratio = x0[0].numel() if len(x0) else 0, (sigma / prior_std) ** 2
    return -0.5 * ((alpha / prior_std) ** 2 * sum_event(x0.square()) + D * (ratio - 1.0 - math.log(ratio)))


def _decode(x0: Tensor, mean: Tensor, std: float, data: DataSpec) -> Tensor:
    """log p(x_0 | x_1), (B,): of the density in model units, or of the probability of the bins of grey levels."""
    if data.levels is None:
        return normal_log_prob(x0 - mean, std**2)
    low, high = data.model_range
    half = 0.5 * (high - low) / (data.levels - 1)
    # Reflect to the lower tail, where log_ndtr is accurate, so that the difference of two tail probabilities does not
    # cancel.
    residual = x0 - mean
    residual, first, last = (
        -residual.abs(),
        torch.where(residual > 0, x0 > high - half, x0 < low + half),
        torch.where(residual > 0, x0 < low + half, x0 > high - half),
    )
    upper = torch.special.log_ndtr(torch.where(last, torch.inf, (residual + half) / std))
    lower = torch.special.log_ndtr(torch.where(first, -torch.inf, (residual - half) / std))
    return sum_event(upper + torch.log(-torch.expm1(lower - upper)))
