"""Choosing noise levels from data: Techniques 1, 2 and 4 of NCSNv2 (Song and Ermon 2020), with their reasons in words.

Every length here is in model units, the units in which noise levels are given. `x` is therefore what
`DataSpec.to_model` returns, not the file's own numbers: the published ladders (50 for CIFAR-10) belong to pixels in [0,
1] and double for pixels in [-1, 1].

1. The largest level is the largest distance between two examples, so that at it all modes are one.
2. Neighbouring levels overlap: the radius of N(0, sigma^2 I_D) is about N(sqrt(D) sigma, sigma^2 / 2), and the mass of
   one level in the three-sigma shell of the next, Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) -
   3 gamma), is about one half.
3. (Technique 4.) T Langevin steps of size eta sigma^2 at each level carry the variance of the previous level,
   gamma^2 sigma^2, as near to sigma^2 as they can.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.process.tabulated import GeometricSigmas

Convention = Literal["full", "half"]
"""What a Langevin step size e means. "full": x + e s + sqrt(2 e) z; "half", the papers': x + (e / 2) s + sqrt(e) z."""

MAX_RATIO = 2.0
"""The largest ratio of neighbouring levels; below 5 dimensions Technique 2 lets any ratio pass."""


# ---------------------------------------------------------------------------------------------------- technique 1


class FarthestPair(NamedTuple):
    """The two examples farthest apart, by their indices, and their Euclidean distance."""

    distance: float
    first: int
    second: int


def farthest_pair(x: Tensor, *, block: int = 1024) -> FarthestPair:
    """The exact largest Euclidean distance between two examples.

    Pairs of blocks are visited from the outside of the data inwards, and the search ends when the two radii about the
    mean add to no more than the best distance (the triangle inequality), so that it rarely looks at all N^2 / 2 pairs.

    Args:
        x: Data in model units, shape (N, *event) with N >= 2.
        block: Examples per block; a block of distances takes block^2 numbers.

    Raises:
        ValueError: Fewer than two examples, or values that are not finite.
    """
    if x.ndim < 2 or x.shape[0] < 2:
        raise ValueError(f"the largest distance needs data of shape (N, *event) with N >= 2; got {tuple(x.shape)}")
    flat = x.detach().reshape(x.shape[0], -1)
    if not bool(torch.isfinite(flat).all()):
        raise ValueError("the data hold values that are not finite; `scorefield data inspect` counts them")
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    centred = flat - flat.mean(dim=0)  # distances by the Gram matrix lose no digits to a common offset
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
    """Technique 1's sigma_max: the largest Euclidean distance between two examples (see `farthest_pair`).

    The paper takes it over a random 10,000 of a larger data set: pass x[subset] and say so.
    """
    return farthest_pair(x, block=block).distance


# ---------------------------------------------------------------------------------------------------- technique 2


def _normal_cdf(u: float) -> float:
    return 0.5 * math.erfc(-u / math.sqrt(2.0))


def shell_overlap(ratio: float, dimension: int) -> float:
    """Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma), Song and Ermon 2020, Technique 2.

    Args:
        ratio: gamma. Above 1, the mass of the smaller level in the shell of the larger (NCSNv2); below 1, that of the
            larger level in the shell of the smaller (the form of the ACSM release). They agree to first order.
        dimension: D, the number of values of one example.
    """
    shift = math.sqrt(2.0 * dimension) * (ratio - 1.0)
    return _normal_cdf(shift + 3.0 * ratio) - _normal_cdf(shift - 3.0 * ratio)


def overlap_ladder(sigma_max: float, sigma_min: float, dimension: int, overlap: float = 0.5) -> tuple[int, float]:
    """How many geometric levels make neighbours overlap so much, to the nearest whole number.

    The published ladders, said to have overlap 0.5, have 0.567 (232 levels for CIFAR-10, where 0.5 needs 219).

    Args:
        sigma_max: Largest level, model units.
        sigma_min: Smallest level, model units.
        dimension: D, the number of values of one example.
        overlap: The mass wanted, in (0, 0.99].

    Returns:
        The number of levels L and their ratio gamma = (sigma_max / sigma_min)^(1 / (L - 1)), at most `MAX_RATIO`.

    Raises:
        ValueError: The levels are not ordered, or no ladder has the overlap.
    """
    if not 0.0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"a ladder needs 0 < sigma_min < sigma_max; got {sigma_min:g} and {sigma_max:g}")
    if dimension < 1 or not 0.0 < overlap <= 0.99:
        raise ValueError(f"need dimension >= 1 and 0 < overlap <= 0.99; got {dimension} and {overlap:g}")
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
    """Variance after T Langevin steps on N(0, sigma^2), in units of sigma^2, starting from the previous level's.

    s_T^2 / sigma^2 = (1 - eta)^(2 T) (gamma^2 - b) + b with b = 2 eta / (1 - (1 - eta)^2), the stationary value; never
    below 1 for 0 < eta < 2 (Song and Ermon 2020, proposition 3 and Technique 4).

    Args:
        eta: step / sigma^2 in the "full" convention.
        ratio: gamma > 1, the previous level over this one.
        steps: T.
    """
    stationary = 1.0 / (1.0 - 0.5 * eta)
    return (1.0 - eta) ** (2 * steps) * (ratio**2 - stationary) + stationary


class LangevinStep(NamedTuple):
    """Technique 4's answer: the step size at the smallest level and what it achieves.

    Attributes:
        step: Step size at sigma_min in the convention asked for, model units squared; at level i it is step (sigma_i /
            sigma_min)^2.
        eta: step / sigma_min^2 in the "full" convention.
        variance_ratio: s_T^2 / sigma^2 at every level, 1 would be exact.
        stable_below: Step sizes from here on diverge at sigma_min.
    """

    step: float
    eta: float
    variance_ratio: float
    stable_below: float


def langevin_step(sigmas: Tensor, steps: int, convention: Convention = "full") -> LangevinStep:
    """The step size for which s_T^2 / sigma^2 comes nearest to 1 (Technique 4), for the widest gap of the ladder.

    The published step sizes (6.2e-6 for CIFAR-10, T = 5) are in the "full" convention, that of the release's code; the
    paper's algorithm has half of that drift, and needs twice the number.

    Args:
        sigmas: Two or more noise levels, model units, in either order.
        steps: T, Langevin steps per level.
        convention: What a step size means.

    Raises:
        ValueError: Fewer than two levels, equal or non-positive ones, or no steps.
    """
    ladder = torch.as_tensor(sigmas, dtype=torch.float64).sort().values
    if ladder.ndim != 1 or len(ladder) < 2 or float(ladder[0]) <= 0 or float(ladder.diff().min()) <= 0:
        raise ValueError("Technique 4 compares neighbouring levels: give two or more distinct positive sigmas")
    if steps < 1 or convention not in ("full", "half"):
        raise ValueError(f"need steps >= 1 and convention 'full' or 'half'; got {steps} and {convention!r}")
    gamma, sigma_min = float((ladder[1:] / ladder[:-1]).max()), float(ladder[0])
    # A logarithmic grid finds the basin (the curve is flat on the right), golden section the bottom.
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
    """A ladder chosen from data, the Langevin step that goes with it, and why.

    Args:
        ladder: The levels, model units.
        langevin_steps: T, steps per level.
        langevin_step: Step size at the smallest level, model units squared.
        convention: What the step size means.
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
    """Noise levels and Langevin step for a data set by Techniques 1, 2 and 4 of NCSNv2.

    Args:
        x: Data in model units, shape (N, *event).
        sigma_min: Smallest level, model units; the published value 0.01 is for pixels in [0, 1].
        overlap: Mass of one level in the shell of the next.
        langevin_steps: T; by default what makes about 1000 network calls, at least 3 per level.
        convention: What a step size means.
        examples: Largest number of examples, chosen at random, that enter the largest distance (the paper's 10,000).
        seed: Seed of that random choice.

    Raises:
        ValueError: The data have no spread above sigma_min, or an argument is out of range.
    """
    total, dimension = x.shape[0], x[0].numel() if x.shape[0] else 0
    subset = torch.arange(total)
    if total > examples:
        subset = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:examples]
    pair = farthest_pair(x[subset.to(x.device)])
    if pair.distance <= sigma_min:
        raise ValueError(
            f"the largest distance between two examples is {pair.distance:g}, not above sigma_min = {sigma_min:g} (both"
            " in model units): the examples are equal, or sigma_min is too large for their scale; pass a smaller one"
        )
    first, second = int(subset[pair.first]), int(subset[pair.second])
    levels, gamma = overlap_ladder(pair.distance, sigma_min, dimension, overlap)
    ladder = GeometricSigmas(sigma_min, pair.distance, levels)
    steps = langevin_steps or max(3, round(1000 / levels))
    step = langevin_step(ladder.table()[1], steps, convention)
    of_all = f"all {total}" if total <= examples else f"a random {examples} of {total}"
    capped = shell_overlap(MAX_RATIO, dimension) >= overlap
    why = (
        f"in {dimension} dimensions every ratio passes the overlap rule, so the ratio is at most {MAX_RATIO:g}"
        if capped
        else f"neighbouring noise shells share {shell_overlap(gamma, dimension):.3f} of their mass (wanted {overlap:g})"
    )
    update = "x + e s + sqrt(2 e) z" if convention == "full" else "x + (e/2) s + sqrt(e) z"
    reasons = (
        f"sigma_max = {pair.distance:.4g}: the largest distance between two of {of_all} examples (numbers {first} and"
        f" {second}), so that the noisiest level joins all modes (Technique 1; model units)",
        f"sigma_min = {sigma_min:g}: given; noise that should be invisible in the data (model units)",
        f"{levels} levels, ratio {gamma:.5g}: {why} (Technique 2)",
        f"step {step.step:.3g} at sigma_min, {steps} steps per level, {steps * levels} network calls: leaves"
        f" {step.variance_ratio:.4f} of the wanted variance at every level, for updates {update}; it must stay below"
        f" {step.stable_below:.3g} (Technique 4)",
    )
    return LevelChoice(ladder, steps, step.step, convention, reasons)
