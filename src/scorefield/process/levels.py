"""Noise levels and Langevin steps chosen from data: Techniques 1, 2 and 4 of NCSNv2 (Song and Ermon 2020).

Every length here is in model units, the units in which noise levels are given. `x` is therefore the result of
`DataSpec.to_model`, not the numbers in a file: the published largest level (50 for CIFAR-10) is for pixels in [0, 1],
and it doubles for pixels in [-1, 1].

* Technique 1: the largest level is the largest distance between two examples, so that all modes merge at this level.
* Technique 2: neighbouring levels overlap. The radius of N(0, sigma^2 I_D) has approximately the distribution
  N(sqrt(D) sigma, sigma^2 / 2), and the mass of one level in the three-sigma shell of the next,
  Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma), should be about one half.
* Technique 4: T Langevin steps of size eta sigma^2 at each level bring the variance of the previous level,
  gamma^2 sigma^2, as close to sigma^2 as possible.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.process.tabulated import GeometricSigmas

Convention = Literal["full", "half"]
"""Meaning of a Langevin step size e. "full": x + e s + sqrt(2 e) z; "half", as in papers: x + (e / 2) s + sqrt(e) z."""

MAX_RATIO = 2.0
"""Largest ratio of neighbouring levels; the only limit below 5 dimensions, where Technique 2 accepts any ratio."""


# ---------------------------------------------------------------------------------------------------- technique 1


class FarthestPair(NamedTuple):
    """The Euclidean distance (model units) of the two examples that are farthest apart, and their indices."""

    distance: float
    first: int
    second: int


def farthest_pair(x: Tensor, *, block: int = 1024) -> FarthestPair:
    """The exact largest Euclidean distance between two examples.

    Examples are sorted by their distance from the mean, and pairs of blocks are visited from the largest distances
    down. By the triangle inequality, the search can end where the sum of two distances from the mean is no larger than
    the best distance found. It therefore rarely computes all N^2 / 2 distances.

    Args:
        x: Data in model units, shape (N, *event) with N >= 2.
        block: Number of examples per block; the distances between two blocks need memory for block^2 numbers.

    Raises:
        ValueError: There are fewer than two examples, or values that are not finite.
    """
    if x.ndim < 2 or x.shape[0] < 2:
        raise ValueError(f"the largest distance needs data of shape (N, *event) with N >= 2; got {tuple(x.shape)}")
    flat = x.detach().reshape(x.shape[0], -1)
    if not bool(torch.isfinite(flat).all()):
        raise ValueError("the data hold values that are not finite; `scorefield data inspect` counts them")
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    centred = flat - flat.mean(dim=0)  # so that distances from the Gram matrix lose no digits to a common offset
    radii, order = centred.norm(dim=1).sort(descending=True)
    centred = centred[order]
    squares = (centred * centred).sum(dim=1)
    starts = range(0, len(centred), block)
    best, pair = -1.0, (0, 1)
    for i in starts:
        if float(2.0 * radii[i]) <= best:
            break
        for j in starts[i // block :]:
            if float(radii[i] + radii[j]) <= best:
                break
            rows, columns = slice(i, i + block), slice(j, j + block)
            squared = squares[rows, None] + squares[None, columns] - 2.0 * centred[rows] @ centred[columns].T
            index = int(squared.argmax())
            found = math.sqrt(max(float(squared.flatten()[index]), 0.0))
            if found > best:
                best, pair = found, (i + index // squared.shape[1], j + index % squared.shape[1])
    first, second = sorted((int(order[pair[0]]), int(order[pair[1]])))
    return FarthestPair(float((flat[first].double() - flat[second].double()).norm()), first, second)


def largest_distance(x: Tensor, *, block: int = 1024) -> float:
    """sigma_max by Technique 1: the largest Euclidean distance between two examples (see `farthest_pair`).

    The paper computes it from 10,000 random examples of a larger data set, for which x[subset] can be passed.
    """
    return farthest_pair(x, block=block).distance


# ---------------------------------------------------------------------------------------------------- technique 2


def _normal_cdf(u: float) -> float:
    return 0.5 * math.erfc(-u / math.sqrt(2.0))


def shell_overlap(ratio: float, dimension: int) -> float:
    """Overlap of neighbouring noise levels (Song and Ermon 2020, Technique 2).

    Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma), with Phi the normal distribution
    function.

    Args:
        ratio: gamma, the ratio of the levels. Above 1, the overlap is the mass of the smaller level in the shell of the
            larger one (NCSNv2); below 1, it is that of the larger level in the shell of the smaller one (the form of
            the ACSM release). The two agree to first order.
        dimension: D, the number of values of one example.
    """
    shift = math.sqrt(2.0 * dimension) * (ratio - 1.0)
    return _normal_cdf(shift + 3.0 * ratio) - _normal_cdf(shift - 3.0 * ratio)


def overlap_ladder(sigma_max: float, sigma_min: float, dimension: int, overlap: float = 0.5) -> tuple[int, float]:
    """The number of geometric levels at which neighbours have a given overlap, to the nearest integer.

    The published ladders are stated to have an overlap of 0.5 but have 0.567 (232 levels for CIFAR-10, where 0.5 needs
    219).

    Args:
        sigma_max: Largest level, model units.
        sigma_min: Smallest level, model units.
        dimension: D, the number of values of one example.
        overlap: Overlap of neighbouring levels (see `shell_overlap`), in (0, 0.99].

    Returns:
        The number of levels L and their ratio gamma = (sigma_max / sigma_min)^(1 / (L - 1)), at most `MAX_RATIO`.

    Raises:
        ValueError: The levels are not positive and increasing, or the dimension or the overlap is out of range.
    """
    if not 0.0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"a ladder needs 0 < sigma_min < sigma_max; got {sigma_min:g} and {sigma_max:g}")
    if dimension < 1 or not 0.0 < overlap <= 0.99:
        raise ValueError(f"a ladder needs dimension >= 1 and 0 < overlap <= 0.99; got {dimension} and {overlap:g}")
    span = math.log(sigma_max / sigma_min)
    if shell_overlap(MAX_RATIO, dimension) >= overlap:
        gaps = math.ceil(span / math.log(MAX_RATIO) - 1e-9)
    else:
        low, high = 1.0, MAX_RATIO
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if shell_overlap(middle, dimension) >= overlap else (low, middle)
        gaps = max(1, round(span / math.log(low)))
    return 1 + gaps, math.exp(span / gaps)


# ---------------------------------------------------------------------------------------------------- technique 4


def langevin_variance_ratio(eta: float, ratio: float, steps: int) -> float:
    """Variance after T Langevin steps on N(0, sigma^2), divided by sigma^2, from the variance of the previous level.

    s_T^2 / sigma^2 = (1 - eta)^(2 T) (gamma^2 - b) + b with the stationary value b = 2 eta / (1 - (1 - eta)^2). It is
    at least 1 for 0 < eta < 2 (Song and Ermon 2020, proposition 3 and Technique 4).

    Args:
        eta: Step size divided by sigma^2, in the "full" convention.
        ratio: gamma > 1, the ratio of the previous level to this one.
        steps: T, the number of Langevin steps.
    """
    stationary = 1.0 / (1.0 - 0.5 * eta)
    return (1.0 - eta) ** (2 * steps) * (ratio**2 - stationary) + stationary


class LangevinStep(NamedTuple):
    """The Langevin step size of Technique 4 and the variance that it achieves.

    Attributes:
        step: Step size at sigma_min in the given convention, model units squared; the step size at level i is
            step (sigma_i / sigma_min)^2.
        eta: Step size divided by sigma_min^2, in the "full" convention.
        variance_ratio: s_T^2 / sigma^2 at every level; 1 is exact.
        stable_below: Step size at sigma_min from which on the chain diverges.
    """

    step: float
    eta: float
    variance_ratio: float
    stable_below: float


def langevin_step(sigmas: Tensor, steps: int, convention: Convention = "full") -> LangevinStep:
    """The step size for which s_T^2 / sigma^2 is closest to 1 at the widest gap of the levels (Technique 4).

    The published step sizes (6.2e-6 for CIFAR-10, T = 5) are in the "full" convention of the release's code. The
    algorithm in the paper has half of that drift and needs twice the step size.

    Args:
        sigmas: Two or more noise levels, model units, in increasing or decreasing order.
        steps: T, the number of Langevin steps per level.
        convention: Meaning of the step size (see `Convention`).

    Raises:
        ValueError: There are fewer than two levels, levels that are equal or not positive, or no steps.
    """
    ladder = torch.as_tensor(sigmas, dtype=torch.float64).sort().values
    if ladder.ndim != 1 or len(ladder) < 2 or float(ladder[0]) <= 0 or float(ladder.diff().min()) <= 0:
        raise ValueError(
            "Technique 4 compares neighbouring levels; give two or more distinct, positive noise levels, not"
            f" {torch.as_tensor(sigmas).tolist()}"
        )
    if steps < 1 or convention not in ("full", "half"):
        raise ValueError(f"steps must be 1 or more, convention 'full' or 'half'; got {steps} and {convention!r}")
    gamma, sigma_min = float((ladder[1:] / ladder[:-1]).max()), float(ladder[0])
    # A logarithmic grid finds the interval of the minimum, and golden-section search the minimum. The grid is needed
    # because the curve is flat for large eta.
    grid = [10.0 ** (-9.0 + 9.0 * k / 900) for k in range(901)]
    k = min(range(len(grid)), key=lambda k: langevin_variance_ratio(grid[k], gamma, steps))
    low, high = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
    golden = 0.5 * (math.sqrt(5.0) - 1.0)
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        lower_left = langevin_variance_ratio(left, gamma, steps) < langevin_variance_ratio(right, gamma, steps)
        low, high = (low, right) if lower_left else (left, high)
    eta = 0.5 * (low + high)
    factor = sigma_min**2 * (2.0 if convention == "half" else 1.0)
    return LangevinStep(factor * eta, eta, langevin_variance_ratio(eta, gamma, steps), 2.0 * factor)


# ---------------------------------------------------------------------------------------------------- all three


@record
class LevelChoice:
    """Noise levels and a Langevin step size chosen from data, with the reasons.

    Args:
        ladder: The noise levels, model units.
        langevin_steps: T, the number of Langevin steps per level.
        langevin_step: Step size at the smallest level, model units squared.
        convention: Meaning of the step size (see `Convention`).
        reasons: One sentence per decision, to be printed.
    """

    ladder: GeometricSigmas
    langevin_steps: int
    langevin_step: float
    convention: Convention
    reasons: tuple[str, ...]


def choose_levels(
    x: Tensor,
    *,
    sigma_min: float = 0.01,
    overlap: float = 0.5,
    langevin_steps: int | None = None,
    convention: Convention = "full",
    examples: int = 10_000,
    seed: int = 0,
) -> LevelChoice:
    """Choose noise levels and a Langevin step size for a data set by Techniques 1, 2 and 4 of NCSNv2.

    Args:
        x: Data in model units, shape (N, *event).
        sigma_min: Smallest level, model units; the published value of 0.01 is for pixels in [0, 1].
        overlap: Overlap of neighbouring levels (see `shell_overlap`).
        langevin_steps: T, the number of Langevin steps per level; by default about 1000 steps in total, and at least 3
            per level.
        convention: Meaning of the step size (see `Convention`).
        examples: Largest number of examples from which the largest distance is computed; a larger data set is replaced
            by a random subset of this size (10,000 in the paper).
        seed: Seed of the random subset.

    Raises:
        ValueError: The largest distance is not above sigma_min, or an argument is out of range.
    """
    total, dimension = x.shape[0], x[0].numel() if x.shape[0] else 0
    subset = torch.arange(total)
    if total > examples:
        subset = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:examples]
    pair = farthest_pair(x[subset.to(x.device)])
    if pair.distance <= sigma_min:
        raise ValueError(
            f"the largest distance between two examples is {pair.distance:g}, which is not above sigma_min ="
            f" {sigma_min:g} (both in model units): the examples are equal, or sigma_min is too large for their scale."
            " Pass a smaller sigma_min"
        )
    first, second = int(subset[pair.first]), int(subset[pair.second])
    levels, gamma = overlap_ladder(pair.distance, sigma_min, dimension, overlap)
    ladder = GeometricSigmas(sigma_min, pair.distance, levels)
    steps = langevin_steps or max(3, round(1000 / levels))
    step = langevin_step(ladder.table()[1], steps, convention)
    of_all = f"all {total}" if total <= examples else f"a random {examples} of {total}"
    ratio_is_limited = shell_overlap(MAX_RATIO, dimension) >= overlap
    why = (
        f"in {dimension} dimensions the overlap rule allows a ratio of {MAX_RATIO:g}, the largest ratio that is used"
        if ratio_is_limited
        else f"neighbouring noise shells share {shell_overlap(gamma, dimension):.3f} of their mass ({overlap:g} wanted)"
    )
    update = "x + e s + sqrt(2 e) z" if convention == "full" else "x + (e/2) s + sqrt(e) z"
    reasons = (
        f"sigma_max = {pair.distance:.4g} (model units) is the largest distance between two of {of_all} examples"
        f" (numbers {first} and {second}), so that all modes merge at the largest noise level (Technique 1).",
        f"sigma_min = {sigma_min:g} (model units) was given; noise of this size should be invisible in the data.",
        f"There are {levels} levels with ratio {gamma:.5g}: {why} (Technique 2).",
        f"The step size is {step.step:.3g} at sigma_min, with {steps} steps per level and {steps * levels} network"
        f" evaluations, for updates {update}. The variance after each level is {step.variance_ratio:.4f} times the"
        f" exact one. Step sizes of {step.stable_below:.3g} and more diverge (Technique 4).",
    )
    return LevelChoice(ladder, steps, step.step, convention, reasons)
