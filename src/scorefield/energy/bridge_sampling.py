"""The ratio of two normalisers from work values in both directions, with an interval and a verdict.

E over forward chains of exp(w_F) is Z_1 / Z_0, E over reverse chains of exp(w_R) is Z_0 / Z_1 (Neal 2001; Jarzynski
1997). Each average alone is ruled by rare chains. Bennett's acceptance ratio (1976) combines both with the least
variance: with M = ln(n_F / n_R), c = log Z_1 / Z_0 solves

    sum_F sigmoid(w_F - c - M) = sum_R sigmoid(w_R + c + M).

Its error bar is known only where the two sets overlap, so the estimate comes with a verdict. All functions take work
values with leading batch axes, (..., chains), float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._random import philox

LEAST_EFFECTIVE = 10.0
"""Effective chains, forward or reverse, below which an estimate is unusable."""

FEW_EFFECTIVE = 30.0
"""Below it the interval is united with the range between the forward and the reverse estimate: wide."""

LEAST_OVERLAP = 0.03
"""Of neighbouring states, below which they do not overlap (Klimovich, Shirts and Mobley 2015)."""

LARGEST_GAP = 6.0
"""Between the forward and the reverse estimate, in standard errors, above which they contradict each other."""

AT_ONCE = 2**20
"""Work values that a bootstrap resamples in one go."""

VERDICTS = ("ok", "wide", "unusable")
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Bridge:
    """Estimates of c = log Z_1 / Z_0, one for each entry of the batch.

    Args:
        value: Bennett's estimate; NaN where the verdict is unusable.
        low: Lower end of the 95 percent interval: the wider of the asymptotic and the bootstrap one, united with the
            range between the forward and the reverse estimate where the verdict is not ok.
        high: Upper end.
        standard_error: Of the wider one, before it was united.
        forward: Log mean of forward weights, too low in expectation.
        reverse: Minus the log mean of reverse weights, too high in expectation from exact starts.
        ess_forward: Effective forward chains, (sum w)^2 / sum w^2.
        ess_reverse: Effective reverse chains.
        overlap: Element of the overlap matrix of the two ends, at most n_R / (n_F + n_R).
        verdict: 0, 1, 2: an entry of `VERDICTS`.
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
        """|forward - reverse| in standard errors; two estimates that are equal to rounding have none."""
        apart = (self.forward - self.reverse).abs()
        floor = 1e-9 * (1.0 + self.forward.abs())
        return torch.where(apart <= floor, 0.0, apart / self.standard_error)


def log_mean_exp(work: Tensor) -> Tensor:
    """log of the mean of exp(work) over chains."""
    return torch.logsumexp(work, dim=-1) - math.log(work.shape[-1])


def effective_chains(work: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 with w = exp(work); 0 where no chain has any weight."""
    return torch.exp(2.0 * torch.logsumexp(work, dim=-1) - torch.logsumexp(2.0 * work, dim=-1)).nan_to_num(0.0)


def acceptance_ratio(forward: Tensor, reverse: Tensor) -> Tensor:
    """Bennett's estimate of log Z_1 / Z_0, by bisection of a monotone equation.

    Args:
        forward: w_F, (..., n_F); -inf is a chain without weight.
        reverse: w_R, (..., n_R).
    """
    M = math.log(forward.shape[-1] / reverse.shape[-1])
    pad = abs(M) + 5.0 + math.log(forward.shape[-1] + reverse.shape[-1])
    finite = torch.where(forward.isfinite(), forward, -reverse[..., :1])
    low = torch.minimum(finite.amin(-1), (-reverse).amin(-1)) - pad
    high = torch.maximum(finite.amax(-1), (-reverse).amax(-1)) + pad
    for _ in range(48):
        c = 0.5 * (low + high)
        excess = _sides(forward, reverse, c, M)
        larger = excess[0].sum(-1) > excess[1].sum(-1)
        low, high = torch.where(larger, c, low), torch.where(larger, high, c)
    return 0.5 * (low + high)


def _sides(forward: Tensor, reverse: Tensor, c: Tensor, M: float) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(forward - c[..., None] - M), torch.sigmoid(reverse + c[..., None] + M)


def asymptotic_error(forward: Tensor, reverse: Tensor, c: Tensor) -> Tensor:
    """Standard error of `acceptance_ratio`: (<f^2> / <f>^2 - 1) / n of both directions (Bennett 1976, eq. 10)."""
    sides = _sides(forward, reverse, c, math.log(forward.shape[-1] / reverse.shape[-1]))
    parts = [(f.square().mean(-1) / f.mean(-1).square() - 1.0) / f.shape[-1] for f in sides]
    return (parts[0] + parts[1]).clamp_min(0.0).sqrt()


def overlap(forward: Tensor, reverse: Tensor, c: Tensor) -> Tensor:
    """sum over all chains of q (1 - q) / n_F, q the probability that a chain of such work is a forward one.

    The element of the two states' overlap matrix (Klimovich, Shirts and Mobley 2015): n_R / (n_F + n_R) where the ends
    are the same, 0 where they share nothing.
    """
    f, r = _sides(forward, reverse, c, math.log(forward.shape[-1] / reverse.shape[-1]))
    return ((f * (1.0 - f)).sum(-1) + (r * (1.0 - r)).sum(-1)) / forward.shape[-1]


def bootstrap(forward: Tensor, reverse: Tensor, resamples: int, seed: int) -> Tensor:
    """`acceptance_ratio` of chains drawn again with replacement, forward and reverse apart, (..., resamples)."""
    generator, found = philox(seed, 0), []
    at_once = max(1, min(resamples, AT_ONCE // (forward.numel() + reverse.numel())))
    for first in range(0, resamples, at_once):
        size = min(at_once, resamples - first)
        again = []
        for w in (forward, reverse):
            many = w[None].expand(size, *w.shape)
            again.append(many.gather(-1, torch.from_numpy(generator.integers(0, w.shape[-1], many.shape))))
        found.append(acceptance_ratio(*again))
    return torch.cat(found).movedim(0, -1)


def bridge(forward: Tensor, reverse: Tensor, *, resamples: int = 400, seed: int = 0) -> Bridge:
    """log Z_1 / Z_0 from work values of independent forward and reverse chains.

    The 95 percent interval is the wider of the asymptotic one and the percentiles of a bootstrap over chains. The
    verdict is unusable, without an estimate, where fewer than 10 chains are effective in one direction, the ends do not
    overlap, or the forward and the reverse estimate are more than 6 standard errors apart; it is wide below 30
    effective chains. Where it is not ok the interval holds both one-sided estimates.

    Args:
        forward: w_F = log of the forward weight of each chain, (..., n_F).
        reverse: w_R, (..., n_R).
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: Fewer than two chains in a direction, or reverse work that is not finite.
    """
    if min(forward.shape[-1], reverse.shape[-1]) < 2:
        raise ValueError(
            f"{forward.shape[-1]} forward and {reverse.shape[-1]} reverse chains have no spread; 64 of each"
        )
    if not bool(reverse.isfinite().all()):
        raise ValueError("a reverse chain has work that is not finite: its start has no density under the energy")
    forward, reverse = forward.double(), reverse.double()
    c = acceptance_ratio(forward, reverse)
    error, shared = asymptotic_error(forward, reverse, c), overlap(forward, reverse, c)
    again = bootstrap(forward, reverse, resamples, seed)
    ends = torch.quantile(again, torch.tensor([0.025, 0.975], dtype=again.dtype), dim=-1)
    wider = (ends[1] - ends[0]) > 2.0 * NORMAL_95 * error
    low = torch.where(wider, ends[0], c - NORMAL_95 * error)
    high = torch.where(wider, ends[1], c + NORMAL_95 * error)
    found = Bridge(
        c,
        low,
        high,
        (high - low) / (2.0 * NORMAL_95),
        log_mean_exp(forward),
        -log_mean_exp(reverse),
        effective_chains(forward),
        effective_chains(reverse),
        shared,
        torch.zeros(c.shape, dtype=torch.long),
    )
    return _judged(found)


def _judged(found: Bridge) -> Bridge:
    """With its verdict, and the interval and the estimate that go with it."""
    fewest = torch.minimum(found.ess_forward, found.ess_reverse)
    unusable = (fewest < LEAST_EFFECTIVE) | (found.overlap < LEAST_OVERLAP) | (found.gap > LARGEST_GAP)
    unusable = unusable | ~found.value.isfinite() | found.gap.isnan()
    wide = ~unusable & (fewest < FEW_EFFECTIVE)
    united = unusable | wide
    ends = torch.stack([found.low, found.high, found.forward, found.reverse])
    return Bridge(
        torch.where(unusable, torch.nan, found.value),
        torch.where(united, ends.amin(0), found.low),
        torch.where(united, ends.amax(0), found.high),
        found.standard_error,
        found.forward,
        found.reverse,
        found.ess_forward,
        found.ess_reverse,
        found.overlap,
        torch.where(unusable, 2, torch.where(wide, 1, 0)),
    )
