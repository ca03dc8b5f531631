"""The ratio of two normalising constants from work values in both directions, with an interval and a verdict.

The mean of exp(w_F) over forward chains is Z_1 / Z_0, and that of exp(w_R) over reverse chains is Z_0 / Z_1 (Neal 2001;
Jarzynski 1997). Each mean alone is dominated by rare chains. Bennett's acceptance ratio (1976) combines both with the
smallest variance: with M = ln(n_F / n_R), c = log Z_1 / Z_0 solves

    sum_F sigmoid(w_F - c - M) = sum_R sigmoid(w_R + c + M).

Its error bar is reliable only where the two sets of work values overlap, so the estimate comes with a verdict. All
functions take work values with leading batch axes, (..., chains), float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield._random import philox

LEAST_EFFECTIVE = 10.0
"""Number of effective chains, forward or reverse, below which the verdict is unusable."""

FEW_EFFECTIVE = 30.0
"""Number of effective chains below which the verdict is wide; the interval then covers both one-sided estimates too."""

LEAST_OVERLAP = 0.03
"""Overlap of the two ends below which the verdict is unusable (Klimovich, Shirts and Mobley 2015)."""

LARGEST_GAP = 6.0
"""Difference of the forward and the reverse estimate, in standard errors, above which they contradict each other."""

BOOTSTRAP_BATCH = 2**20
"""Number of work values that the bootstrap resamples at a time."""

VERDICTS = ("ok", "wide", "unusable")
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Bridge:
    """Estimates of c = log Z_1 / Z_0, one for each entry of the batch.

    Args:
        value: Bennett's estimate; NaN where the verdict is unusable.
        low: Lower end of the 95 percent interval, the wider of the asymptotic and the bootstrap interval. Where the
            verdict is not ok it is extended to contain the forward and the reverse estimate.
        high: Upper end of the interval.
        standard_error: Standard error that corresponds to the wider interval, before it was extended.
        forward: Log mean of the forward weights, too low in expectation.
        reverse: Minus the log mean of the reverse weights, too high in expectation if the starts are exact.
        ess_forward: Number of effective forward chains, (sum w)^2 / sum w^2.
        ess_reverse: Number of effective reverse chains.
        overlap: Element of the overlap matrix of the two ends, at most n_R / (n_F + n_R).
        verdict: 0, 1 or 2, an index of `VERDICTS`.
    """

    value: Tensor
    low: Tensor
    high: Tensor
    standard_error: Tensor
    forward: Tensor
    reverse: Tensor
    ess_forward: Tensor
    ess_reverse: Tensor
    overlap: Tensor
    verdict: Tensor

    @property
    def gap(self) -> Tensor:
        """|forward - reverse| in standard errors; 0 where the two are equal up to rounding."""
        apart = (self.forward - self.reverse).abs()
        floor = 1e-9 * (1.0 + self.forward.abs())
        return torch.where(apart <= floor, 0.0, apart / self.standard_error)


def log_mean_exp(work: Tensor) -> Tensor:
    """Log of the mean of exp(work) over chains."""
    return torch.logsumexp(work, dim=-1) - math.log(work.shape[-1])


def effective_chains(work: Tensor) -> Tensor:
    """Number of effective chains, (sum w)^2 / sum w^2 with w = exp(work); 0 where all weights are 0."""
    return torch.exp(2.0 * torch.logsumexp(work, dim=-1) - torch.logsumexp(2.0 * work, dim=-1)).nan_to_num(0.0)


def acceptance_ratio(forward: Tensor, reverse: Tensor) -> Tensor:
    """Bennett's estimate of log Z_1 / Z_0, by bisection of the monotone equation above.

    Args:
        forward: w_F, (..., n_F); -inf for a chain of weight 0.
        reverse: w_R, (..., n_R).
    """
    M = math.log(forward.shape[-1] / reverse.shape[-1])
    pad = abs(M) + 5.0 + math.log(forward.shape[-1] + reverse.shape[-1])
    finite = torch.where(forward.isfinite(), forward, -reverse[..., :1])
    low = torch.minimum(finite.amin(-1), (-reverse).amin(-1)) - pad
    high = torch.maximum(finite.amax(-1), (-reverse).amax(-1)) + pad
    for _ in range(48):
        c = 0.5 * (low + high)
        excess = _fermi_terms(forward, reverse, c, M)
        larger = excess[0].sum(-1) > excess[1].sum(-1)
        low, high = torch.where(larger, c, low), torch.where(larger, high, c)
    return 0.5 * (low + high)


def _fermi_terms(forward: Tensor, reverse: Tensor, c: Tensor, M: float) -> tuple[Tensor, Tensor]:
    """The terms of the two sums of Bennett's equation, shapes of `forward` and `reverse`."""
    return torch.sigmoid(forward - c[..., None] - M), torch.sigmoid(reverse + c[..., None] + M)


def asymptotic_error(forward: Tensor, reverse: Tensor, c: Tensor) -> Tensor:
    """Standard error of `acceptance_ratio`: (<f^2> / <f>^2 - 1) / n of both directions (Bennett 1976, eq. 10)."""
    sides = _fermi_terms(forward, reverse, c, math.log(forward.shape[-1] / reverse.shape[-1]))
    parts = [(f.square().mean(-1) / f.mean(-1).square() - 1.0) / f.shape[-1] for f in sides]
    return (parts[0] + parts[1]).clamp_min(0.0).sqrt()


def overlap(forward: Tensor, reverse: Tensor, c: Tensor) -> Tensor:
    """Sum over all chains of q (1 - q) / n_F, where q is the probability that a chain of this work is a forward chain.

    This is the off-diagonal element of the overlap matrix of the two ends (Klimovich, Shirts and Mobley 2015): it is
    n_R / (n_F + n_R) where the ends are equal and 0 where they do not overlap.
    """
    f, r = _fermi_terms(forward, reverse, c, math.log(forward.shape[-1] / reverse.shape[-1]))
    return ((f * (1.0 - f)).sum(-1) + (r * (1.0 - r)).sum(-1)) / forward.shape[-1]


def bootstrap(forward: Tensor, reverse: Tensor, resamples: int, seed: int) -> Tensor:
    """`acceptance_ratio` of chains resampled with replacement, separately in each direction, (..., resamples)."""
    generator, estimates = philox(seed, 0), []
    batch = max(1, min(resamples, BOOTSTRAP_BATCH // (forward.numel() + reverse.numel())))
    for first in range(0, resamples, batch):
        size = min(batch, resamples - first)
        resampled = []
        for w in (forward, reverse):
            copies = w[None].expand(size, *w.shape)
            rows = torch.from_numpy(generator.integers(0, w.shape[-1], copies.shape))
            resampled.append(copies.gather(-1, rows))
        estimates.append(acceptance_ratio(*resampled))
    return torch.cat(estimates).movedim(0, -1)


def bridge(forward: Tensor, reverse: Tensor, *, resamples: int = 400, seed: int = 0) -> Bridge:
    """log Z_1 / Z_0 from work values of independent forward and reverse chains.

    The 95 percent interval is the wider of the asymptotic interval and the percentiles of a bootstrap over chains. The
    verdict is "unusable", and there is no estimate, where fewer than 10 chains are effective in one direction, the ends
    do not overlap, or the forward and the reverse estimate are more than 6 standard errors apart. It is "wide" below 30
    effective chains. Where the verdict is not "ok", the interval contains both one-sided estimates.

    Args:
        forward: w_F, the log weight of each forward chain, (..., n_F).
        reverse: w_R, the log weight of each reverse chain, (..., n_R).
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: There are fewer than two chains in a direction, or reverse work that is not finite.
    """
    if min(forward.shape[-1], reverse.shape[-1]) < 2:
        raise ValueError(
            f"no error can be estimated from {forward.shape[-1]} forward and {reverse.shape[-1]} reverse chains; run at"
            " least 2 of each, better 64"
        )
    if not bool(reverse.isfinite().all()):
        raise ValueError(
            "a reverse chain has work that is not finite, because its start has an infinite energy; start reverse"
            " chains"
            " from draws of the same energy"
        )
    forward, reverse = forward.double(), reverse.double()
    c = acceptance_ratio(forward, reverse)
    error = asymptotic_error(forward, reverse, c)
    resampled = bootstrap(forward, reverse, resamples, seed)
    ends = torch.quantile(resampled, torch.tensor([0.025, 0.975], dtype=resampled.dtype), dim=-1)
    wider = (ends[1] - ends[0]) > 2.0 * NORMAL_95 * error
    low = torch.where(wider, ends[0], c - NORMAL_95 * error)
    high = torch.where(wider, ends[1], c + NORMAL_95 * error)
    estimate = Bridge(
        value=c,
        low=low,
        high=high,
        standard_error=(high - low) / (2.0 * NORMAL_95),
        forward=log_mean_exp(forward),
        reverse=-log_mean_exp(reverse),
        ess_forward=effective_chains(forward),
        ess_reverse=effective_chains(reverse),
        overlap=overlap(forward, reverse, c),
        verdict=torch.zeros(c.shape, dtype=torch.long),
    )
    return _with_verdict(estimate)


def _with_verdict(estimate: Bridge) -> Bridge:
    """The estimate with its verdict; an interval that is not ok is extended, and an unusable value is removed."""
    fewest = torch.minimum(estimate.ess_forward, estimate.ess_reverse)
    unusable = (fewest < LEAST_EFFECTIVE) | (estimate.overlap < LEAST_OVERLAP) | (estimate.gap > LARGEST_GAP)
    unusable = unusable | ~estimate.value.isfinite() | estimate.gap.isnan()
    wide = ~unusable & (fewest < FEW_EFFECTIVE)
    extended = unusable | wide
    ends = torch.stack([estimate.low, estimate.high, estimate.forward, estimate.reverse])
    return replace(
        estimate,
        value=torch.where(unusable, torch.nan, estimate.value),
        low=torch.where(extended, ends.amin(0), estimate.low),
        high=torch.where(extended, ends.amax(0), estimate.high),
        verdict=torch.where(unusable, 2, torch.where(wide, 1, 0)),
    )
