"""Whether noise levels cover the data: from where nothing is left of an example to where nothing is hidden.

largest level    sigma / alpha at t = 1 against the largest distance between two examples (NCSNv2's Technique 1, Song
and Ermon 2020), and what the prior misses: E_{x_0} KL(N(alpha x_0, sigma^2) || N(0, sigma^2)) =
alpha^2 E|x_0|^2 / (2 sigma^2) nats, an upper bound of KL(p_1 || prior) by convexity
least level      the error of the posterior mean there, over the deviation of the data
overlap          of a ladder: the share of one level's noise shell that lies in that of the next (Technique 2)
sampler          whether a sampler asks for times that training never drew
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import sum_event
from scorefield.diagnostics.faults import Verdict
from scorefield.diagnostics.statistics import Size, mean_of
from scorefield.process.levels import largest_distance, shell_overlap
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated

PRIOR_NATS, BLURRED, OVERLAP = 1.0, 0.1, 0.05
"""Thresholds above which a level is suspect: nats that the prior misses, share of the data's deviation that the least
level hides, and least overlap of two levels. The published ladders of NCSNv2 have 0.5, those of NCSN nearly 0."""

MOST = 10_000
"""Examples of the largest distance, as published."""


@record(tag="DoctorCoverage")
class Coverage:
    """One thing that noise levels should do.

    Args:
        name: Name of the property.
        says: The result as a sentence.
        advice: What to try where it is suspect, else "".
        size: The number by which it is judged, where there is one.
        verdict: healthy or suspect.
    """

    name: str
    says: str
    advice: str
    size: Size | None
    verdict: Verdict


def largest_level(process: Process, x0: Tensor) -> Coverage:
    """Whether the prior is what the data become."""
    one = torch.ones(1, dtype=torch.float64)
    alpha, sigma = float(process.alpha(one)), float(process.sigma(one))
    nats = Size.of(mean_of(0.5 * (alpha / sigma) ** 2 * sum_event(x0.double().square())))
    ratio = largest_distance(x0[:MOST]) * alpha / sigma
    says = (
        f"the largest level, sigma / alpha = {sigma / alpha:.4g}, is {1.0 / ratio:.3g} times the largest distance"
        f" between two examples; starting from the prior misses at most {nats} nats"
    )
    bad = nats.low > PRIOR_NATS and ratio > 1.0
    advice = f"take sigma / alpha at t = 1 up to {sigma / alpha * ratio:.4g} (choose_levels says why)" if bad else ""
    return Coverage("largest level", says, advice, nats, "suspect" if bad else "healthy")


def least_level(process: Process, x0: Tensor, time: float, loss: Tensor, grey_step: float | None) -> Coverage:
    """Structure of the data hidden by the lowest noise level.

    Args:
        process: The process of the level.
        x0: Examples in model units.
        time: Time of the least level.
        loss: Loss of the score at that level, mean |z - h|^2 / d of each example, (n,).
        grey_step: Distance of two grey levels in model units; None for continuous data.
    """
    t = torch.tensor([time], dtype=torch.float64)
    ratio = float(process.sigma(t) / process.alpha(t))
    spread = float((x0 - x0.mean(dim=0)).double().square().mean()) ** 0.5
    squared = mean_of(loss * (ratio / max(spread, 1e-300)) ** 2)
    low, high = (max(squared.value + sign * 1.96 * squared.error, 0.0) ** 0.5 for sign in (-1.0, 1.0))
    blurred = Size(max(squared.value, 0.0) ** 0.5, low, high)
    says = (
        f"at the least level, sigma / alpha = {ratio:.3g}, posterior means are off by {blurred} of the data's deviation"
    )
    if grey_step is not None:
        says += f"; its noise is {ratio / grey_step:.3g} grey levels"
    bad = blurred.low > BLURRED
    advice = f"add levels down to sigma / alpha = {ratio * BLURRED / blurred.value:.2g}" if bad else ""
    return Coverage("least level", says, advice, blurred, "suspect" if bad else "healthy")


def overlap(process: Process, dimension: int) -> Coverage | None:
    """Whether neighbouring levels of a ladder meet; None where time is continuous or there is one level."""
    if not isinstance(process, Tabulated) or process.levels < 2:
        return None
    t = process.time(torch.arange(process.levels, dtype=torch.float64))
    ratios = process.sigma(t) / process.alpha(t)
    steps = ratios[1:] / ratios[:-1]
    i = int(steps.argmax())
    share = shell_overlap(float(steps[i]), dimension)
    says = (
        f"neighbouring levels differ by at most a factor of {float(steps[i]):.4g}; their noise shells share at least"
        f" {share:.3g} of their mass (levels {i} and {i + 1} of {process.levels})"
    )
    bad = share < OVERLAP and float(process.alpha(t).min()) == 1.0
    advice = "annealed Langevin steps start outside the next level: take more levels (choose_levels)" if bad else ""
    return Coverage("overlap", says, advice, Size(share, share, share), "suspect" if bad else "healthy")


def sampler_times(process: Process, ladder: Process, times: Tensor) -> Coverage:
    """Whether a sampler calls the score at times that training drew.

    Args:
        process: Process of the model.
        ladder: Noise levels of its training: a table, or the process itself.
        times: Times of the sampler's grid; it stops at the last.
    """
    if isinstance(ladder, Tabulated):
        position = ladder.position(times.clamp_min(0.0))
        off = int((position != position.round()).sum())
        says = f"{off} of the sampler's {len(times)} times lie between two of the {ladder.levels} levels trained"
    else:
        off = int((times[:-1] < process.t_min.training * (1.0 - 1e-6)).sum())
        says = (
            f"{off} of the sampler's {len(times)} times lie below t = {process.t_min.training:g}, where training starts"
        )
    advice = "sample on the levels trained, or train on those between" if off else ""
    return Coverage("sampler", says, advice, None, "suspect" if off else "healthy")
