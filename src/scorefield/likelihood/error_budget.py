"""The error budget of a log density, and the interval computed from it.

nats is log p_s(x) of the flow with the prior instead of p_1. The quantity of interest is log p_0(x), the log density of
the process at its least noise (that of the data under VP, of data with noise sigma_min under VE), with the true p_1:

    log p_0(x) = nats + truncation + prior_mismatch + (std_error) + (solver_error)

The first two terms are corrections with a sign, each with its own uncertainty; the other two are sizes of errors. The
interval reaches from nats to the corrected value and is extended on both sides by the root of the summed squares of the
uncertainties. It therefore always contains nats, and is narrow where all errors are small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from scorefield._math import normal_log_prob, sum_event
from scorefield.data_spec import DataSpec
from scorefield.likelihood.divergence import Divergence
from scorefield.process.process import Process
from scorefield.score.score import BoundScore, tweedie

LEVEL = 0.9
"""The nominal coverage of intervals."""

DEVIATIONS = NormalDist().inv_cdf(0.5 + 0.5 * LEVEL)
"""Half-width of a normal interval of that coverage, in standard deviations."""

MATRIX_UP_TO = 256
"""Dimension up to which moments contain the full covariance matrix."""


@dataclass(frozen=True)
class Term:
    """A correction for each example and its uncertainty, each (B,) float64 in nats."""

    value: Tensor
    uncertainty: Tensor


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the data in model units, from which the mismatch between p_1 and the prior is computed.

    Args:
        mean: m, (D,) float64.
        covariance: C, (D, D), or its diagonal, (D,).
        count: Number of examples from which they were estimated; infinite where they are exact.
    """

    mean: Tensor
    covariance: Tensor
    count: float = math.inf

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Estimate the moments from examples in model units, (N, *event).

        The full covariance is used for D up to 256 and N of at least 2 D, else only its diagonal.

        Raises:
            ValueError: There are fewer than two examples, which have no variance.
        """
        flat = x.flatten(1).to(torch.float64)
        if len(flat) < 2:
            raise ValueError(
                f"moments need at least 2 examples, and {len(flat)} were given; give more, or leave moments=None"
            )
        if flat.shape[1] <= MATRIX_UP_TO and len(flat) >= 2 * flat.shape[1]:
            return cls(flat.mean(dim=0), torch.cov(flat.T).reshape(flat.shape[1], -1), len(flat))
        return cls(flat.mean(dim=0), flat.var(dim=0), len(flat))


def truncation(score: BoundScore, x: Tensor, divergence: Divergence, start: float) -> Term:
    """log p_0(x) - log p_s(x) at s = `start`, extrapolated from two evaluations of the score.

    With F the drift of the flow, -d log p_t(x) / dt = div F(x, t) + F(x, t) . score(x, t). It is evaluated at s and 2 s
    and extrapolated linearly to 0; the contribution of the linear term is the uncertainty. If the density has no limit
    at t = 0, as for data on a surface, the term is about the number of missing dimensions.

    Args:
        score: The bound score.
        x: Points in model units, (B, *event).
        divergence: The method for the divergence.
        start: s; at 0 the correction is 0.
    """
    if start == 0.0:
        zero = torch.zeros(len(x), dtype=torch.float64)
        return Term(zero, zero)
    rows = torch.arange(len(x), device=x.device)
    rates = []  # -d log p_t / dt at s and 2 s
    for time in (start, min(2.0 * start, 1.0)):
        t = torch.full((len(x),), time, dtype=torch.float64)
        state = x.to(torch.float64)
        values: list[Tensor] = []

        def field(u: Tensor, t: Tensor = t, values: list[Tensor] = values) -> Tensor:
            value = score(u.to(x.dtype), t).to(torch.float64)
            values.append(value.detach())
            return score.process.flow_drift(u, t, value)

        drift, estimates, _ = divergence.evaluate(field, state, rows)
        rates.append(estimates.mean(dim=1) + sum_event(drift * values[0]))
    line = start * (rates[0] - 0.5 * (rates[1] - rates[0]))
    return Term(line.cpu(), (line - start * rates[0]).abs().cpu())


def prior_mismatch(score: BoundScore, latent: Tensor, data: DataSpec, moments: Moments | None) -> Term | None:
    """log p_1(z) - log prior(z) at the latents z, with p_1 = N(alpha m, alpha^2 C + sigma^2 I) at t = 1.

    The data enter p_1 only through alpha / sigma, which is small at t = 1, so two moments are enough. Without moments
    the mean is the posterior mean at z, by one evaluation of the score, and the variance is a guess from the range of
    the data (uniform) or their scale; the whole variance term then counts as uncertainty. With only the diagonal of C
    the uncertainty is the effect of the other entries of C for correlations of one half. The error of a mean of so many
    examples is added to the uncertainty.

    Args:
        score: The bound score.
        latent: z, (B, *event).
        data: The spec of the data.
        moments: Moments of the data in model units, or None.

    Returns:
        The correction; None for a process without alpha and sigma.
    """
    process = score.process
    if not isinstance(process, Process):
        return None
    one = torch.ones(len(latent), dtype=torch.float64)
    alpha, sigma = float(process.alpha(one[:1])), float(process.sigma(one[:1]))
    z = latent.flatten(1).to(torch.float64).cpu()
    ratio = (alpha / sigma) ** 2
    if moments is None:
        low, high = data.model_range
        guess = (high - low) ** 2 / 12.0 if data.bounded else 1.0
        centre = tweedie(process, latent, one, score(latent, one)).flatten(1).to(torch.float64).cpu()
        covariance = torch.full_like(z[0], guess)
    else:
        centre, covariance = moments.mean[None], moments.covariance
    residual = z - alpha * centre
    if covariance.ndim == 2:
        total = alpha**2 * covariance + sigma**2 * torch.eye(len(covariance), dtype=torch.float64)
        log_p = torch.distributions.MultivariateNormal(torch.zeros_like(z[0]), total).log_prob(residual)
        spread = float(covariance.trace())
        uncertainty = (ratio * spread) ** 1.5
    else:
        log_p = normal_log_prob(residual / (alpha**2 * covariance + sigma**2).sqrt(), 1.0)
        log_p = log_p - 0.5 * (alpha**2 * covariance + sigma**2).log().sum()
        spread = float(covariance.sum())
        uncertainty = DEVIATIONS * ratio * spread * (1.0 if moments is None else 0.5**1.5)
    if moments is not None:  # the standard error of the mean
        uncertainty = math.hypot(uncertainty, DEVIATIONS * math.sqrt(ratio * spread / moments.count))
    value = log_p - process.prior_log_prob(latent.to(torch.float64)).cpu()
    return Term(value, torch.full_like(value, uncertainty))


def interval(nats: Tensor, std_error: Tensor, probes: int, sizes: Sequence[Tensor], terms: Sequence[Term]) -> Tensor:
    """Lower and upper ends, (B, 2), of the interval described at the top of this module.

    Args:
        nats: Log densities, (B,).
        std_error: Standard error of nats over the probes, (B,).
        probes: P, the number of probes of that standard error. From few probes it is known only roughly, so the normal
            multiple is increased by the factor 1 + 1 / (2 P) (measured coverage without it: 0.80 to 0.87 at P = 2). A
            single probe gives an upper estimate of the standard error, which needs no factor.
        sizes: Errors without a sign, each (B,).
        terms: Corrections with a sign and an uncertainty.
    """
    multiple = DEVIATIONS * (1.0 + (0.5 / probes if probes > 1 else 0.0))
    squared = (multiple * std_error).square()
    shift = torch.zeros_like(nats)
    for term in terms:
        shift = shift + term.value
    for size in (*sizes, *(term.uncertainty for term in terms)):
        squared = squared + size.square()
    u = squared.sqrt()
    return torch.stack([nats + shift.clamp_max(0.0) - u, nats + shift.clamp_min(0.0) + u], dim=1)
