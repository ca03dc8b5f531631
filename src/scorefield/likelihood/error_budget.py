"""What a log density may be wrong by, and the interval that follows.

nats is log p_s(x) of the flow with the prior in the place of p_1. What one would like to know is log p_0(x), that of
the process at its least noise (the data under VP, data with noise sigma_min under VE), with the true p_1:

    log p_0(x) = nats + truncation + prior_mismatch + (std_error) + (solver_error)

The first two are corrections with a sign, each with an uncertainty of its own; the others are sizes. The interval
reaches from nats to the corrected value and on both sides by the uncertainties, added in squares, so it always holds
nats and is no wider than the errors are.
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
"""The stated coverage of intervals."""

DEVIATIONS = NormalDist().inv_cdf(0.5 + 0.5 * LEVEL)
"""Half of a normal interval of that coverage, in standard deviations."""

MATRIX_UP_TO = 256
"""Dimension up to which moments hold the whole covariance."""


@dataclass(frozen=True)
class Term:
    """A correction of each example and its uncertainty, (B,) float64 in nats."""

    value: Tensor
    uncertainty: Tensor


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the data in model units, for the difference between p_1 and the prior.

    Args:
        mean: m, (D,) float64.
        covariance: C, (D, D), or its diagonal, (D,).
        count: Number of examples they are of; infinite where they are known.
    """

    mean: Tensor
    covariance: Tensor
    count: float = math.inf

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Those of examples in model units, (N, *event); the whole covariance up to D = 256 and from N = 2 D.

        Raises:
            ValueError: Fewer than two examples, which have no variance.
        """
        flat = x.flatten(1).to(torch.float64)
        if len(flat) < 2:
            raise ValueError(f"moments need at least 2 examples, got {len(flat)}; without moments leave moments=None")
        if flat.shape[1] <= MATRIX_UP_TO and len(flat) >= 2 * flat.shape[1]:
            return cls(flat.mean(dim=0), torch.cov(flat.T).reshape(flat.shape[1], -1), len(flat))
        return cls(flat.mean(dim=0), flat.var(dim=0), len(flat))


def truncation(score: BoundScore, x: Tensor, divergence: Divergence, start: float) -> Term:
    """log p_0(x) - log p_s(x) at s = `start`, from the last part of the flow; two evaluations of the score.

    -d log p_t(x) / dt = div F(x, t) + F(x, t) . score(x, t), F the drift of the flow, taken at s and 2 s and continued
    to 0 by a straight line. What the line changes is the uncertainty. A density that has no limit at t = 0 (data on a
    surface) shows itself by a term of the size of the number of missing dimensions.

    Args:
        score: The bound score.
        x: Points in model units, (B, *event).
        divergence: How the divergence is found.
        start: s; at 0 there is nothing to add.
    """
    if start == 0.0:
        nothing = torch.zeros(len(x), dtype=torch.float64)
        return Term(nothing, nothing)
    rows = torch.arange(len(x), device=x.device)
    rates = []
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

    The data enter p_1 through alpha / sigma alone, which is small there, so two moments are enough. Without moments the
    mean is the posterior mean at z, by one evaluation of the score, and the variance a guess from the range of the data
    (uniform) or their scale; then the whole variance term is uncertainty. With the diagonal of C alone, what the rest
    of C could add over z, for correlations of one half, is uncertainty; and what the mean of
    so many examples may be off by.

    Args:
        score: The bound score.
        latent: z, (B, *event).
        data: The spec of the data.
        moments: Of the data, in model units.

    Returns:
        The term; None for a process that has no alpha and sigma.
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
        doubt = (ratio * spread) ** 1.5
    else:
        log_p = normal_log_prob(residual / (alpha**2 * covariance + sigma**2).sqrt(), 1.0)
        log_p = log_p - 0.5 * (alpha**2 * covariance + sigma**2).log().sum()
        spread = float(covariance.sum())
        doubt = DEVIATIONS * ratio * spread * (1.0 if moments is None else 0.5**1.5)
    if moments is not None:  # the mean is of so many examples
        doubt = math.hypot(doubt, DEVIATIONS * math.sqrt(ratio * spread / moments.count))
    value = log_p - process.prior_log_prob(latent.to(torch.float64)).cpu()
    return Term(value, torch.full_like(value, doubt))


def interval(nats: Tensor, std_error: Tensor, probes: int, sizes: Sequence[Tensor], terms: Sequence[Term]) -> Tensor:
    """Lower and upper ends, (B, 2), of the interval described above.

    Args:
        nats: (B,).
        std_error: Standard deviation of nats, (B,).
        probes: P, from which the standard error is known; from a few it is known roughly, and its multiple is
            1 + 1 / (2 P) times the normal one (measured coverage: 0.80 to 0.87 at P = 2 without it). One probe gives an
            upper estimate, which needs none.
        sizes: Errors without a sign, each (B,).
        terms: Corrections.
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
