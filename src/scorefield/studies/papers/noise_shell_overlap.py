"""Width and overlap of noise shells by dimension.

In d dimensions the norm of noise, |sigma z| with z ~ N(0, I), concentrates at sigma sqrt(d), so that the noise of a
level lies on a shell whose relative width is about 1 / sqrt(2 d). Here are that width and the overlap of the shells of
two levels, in closed form and by Monte Carlo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from scorefield.process import Tabulated
from scorefield.studies.papers.entry import wilson


@dataclass(frozen=True)
class Shells:
    """Noise shells of neighbouring levels of a ladder in d dimensions.

    An overlap is 1 where the distributions of |x| at two levels are equal and 0 where they have no common mass.

    Args:
        dimension: d.
        width: Relative width of a shell, the standard deviation of |z| over its mean.
        least: Smallest overlap of two neighbouring levels.
        most: Largest overlap of two neighbouring levels.
        measured: Overlap of the middle pair of levels, by Monte Carlo.
        interval: 95 % interval of `measured`.
        exact: Overlap of the middle pair of levels in closed form.
    """

    dimension: int
    width: float
    least: float
    most: float
    measured: float
    interval: tuple[float, float]
    exact: float


def overlap(sigma: float, larger: float, dimension: int) -> float:
    """Return the common mass of the distributions of |sigma z| and |larger z|, the integral of the smaller density.

    The densities cross once, at r^2 = d log(larger^2 / sigma^2) / (1 / sigma^2 - 1 / larger^2), and
    |sigma z|^2 / (2 sigma^2) has the gamma distribution of shape d / 2, so with its distribution function P

        overlap = 1 - P(d / 2, r^2 / (2 sigma^2)) + P(d / 2, r^2 / (2 larger^2)).

    Args:
        sigma: Smaller noise level.
        larger: Larger noise level.
        dimension: d.
    """
    if larger == sigma:
        return 1.0
    shape = torch.tensor(dimension / 2.0, dtype=torch.float64)
    square = crossing(sigma, larger, dimension) / 2.0
    below, above = (torch.special.gammainc(shape, torch.tensor(square / s**2).double()) for s in (sigma, larger))
    return float(1.0 - below + above)


def crossing(sigma: float, larger: float, dimension: int) -> float:
    """Return r^2 at which the two densities of |x| are equal; below it the density of `sigma` is the larger one."""
    return dimension * math.log((larger / sigma) ** 2) / (1.0 / sigma**2 - 1.0 / larger**2)


def relative_width(dimension: int) -> float:
    """Return the standard deviation of |z| over its mean, about 1 / sqrt(2 d)."""
    mean = math.sqrt(2.0) * math.exp(math.lgamma((dimension + 1) / 2.0) - math.lgamma(dimension / 2.0))
    return math.sqrt(dimension - mean**2) / mean


def measured_overlap(sigma: float, larger: float, dimension: int, count: int, seed: int) -> tuple[int, int]:
    """Count how often the best guess of the level from |x| is wrong; overlap = 2 misses / draws.

    Args:
        sigma: Smaller noise level.
        larger: Larger noise level.
        dimension: d.
        count: Draws of each level.
        seed: Seed of the draws.

    Returns:
        (misses, draws of both levels together).
    """
    generator = torch.Generator().manual_seed(seed)
    bound, misses = crossing(sigma, larger, dimension), 0
    rows = max(1, 2**20 // dimension)
    for level, wrong in ((sigma, torch.gt), (larger, torch.lt)):
        left = count
        while left > 0:
            z = torch.randn(min(rows, left), dimension, generator=generator)
            misses += int(wrong((level * z).double().square().sum(dim=1), bound).sum())
            left -= len(z)
    return misses, 2 * count


def shells(ladder: Tabulated, dimension: int, count: int, seed: int) -> Shells:
    """Return the shells of a ladder; the overlap of the middle pair of levels is also measured.

    Args:
        ladder: Noise levels.
        dimension: d.
        count: Draws of each of the two levels.
        seed: Seed of the draws.
    """
    times = ladder.time(torch.arange(ladder.levels))
    sigmas = ladder.sigma(times).tolist()
    pairs = list(zip(sigmas, sigmas[1:], strict=False))
    overlaps = [overlap(a, b, dimension) for a, b in pairs]
    middle = len(pairs) // 2
    misses, draws = measured_overlap(*pairs[middle], dimension, count, seed)
    low, high = wilson(misses, draws)
    return Shells(
        dimension,
        relative_width(dimension),
        min(overlaps),
        max(overlaps),
        2.0 * misses / draws,
        (2.0 * low, 2.0 * high),
        overlaps[middle],
    )
