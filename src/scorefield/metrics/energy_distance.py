"""Squared energy distance, unbiased, with a standard error.

    D^2 = 2 E|x - y| - E|x - x'| - E|y - y'|,

x, x' independent samples and y, y' independent real examples: zero for equal distributions and positive for any others
(Szekely and Rizzo 2013, "Energy statistics", proposition 2). It has no bandwidth and no features, its estimate from
differing pairs is unbiased at any number of examples (so it may be negative), and differences between two sets of
samples drawn from the same noise are much better known than either value: `Jackknifed` keeps what that takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.metrics.features.feature import Features, RawFeatures, feature_rows
from scorefield.metrics.metric import Metric
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference

BLOCK = 1024
"""Rows of the distance matrix held at once."""


@dataclass(frozen=True)
class Jackknifed:
    """A statistic of examples, and its values when each of them is left out.

    The standard error is the jackknife's, sum over the sets of (n - 1) / n sum_i (T_(-i) - mean T_(-))^2 (Efron and
    Stein 1981). Where the distributions are equal, the first-order part of an energy distance vanishes and the
    jackknife overstates the variance (up to twofold): it errs to the safe side.

    Args:
        number: The statistic T of all examples.
        left_out: Per set of independent examples, the values T_(-i), each (n,) float64.
    """

    number: float
    left_out: tuple[Tensor, ...]

    @property
    def std_error(self) -> float:
        """The jackknife's standard error."""
        total = 0.0
        for values in self.left_out:
            total += float((values - values.mean()).square().sum()) * (len(values) - 1) / len(values)
        return math.sqrt(total)

    def minus(self, other: Jackknifed) -> Jackknifed:
        """The difference of two statistics of the same examples, or of samples drawn from the same noise.

        Raises:
            ValueError: They are of other numbers of examples, and nothing pairs them.
        """
        counts = [tuple(len(values) for values in side.left_out) for side in (self, other)]
        if counts[0] != counts[1]:
            raise ValueError(
                f"statistics of {counts[0]} and of {counts[1]} examples are not paired; use equal numbers, example i of"
                " one belonging to example i of the other"
            )
        pairs = zip(self.left_out, other.left_out, strict=True)
        return Jackknifed(self.number - other.number, tuple(a - b for a, b in pairs))


def energy_distance(x: Tensor, y: Tensor, inside: Tensor | None = None) -> Jackknifed:
    """Squared energy distance of two independent sets.

    Args:
        x: Samples, (n, *event) with n >= 3.
        y: Real examples, (m, *event) with m >= 3.
        inside: `distance_sums(y, y)`, where it is known from before.

    Returns:
        The unbiased estimate, left out along x and along y.

    Raises:
        ValueError: Too few examples for a value with one of them left out.
    """
    x, y = _matrix(x), _matrix(y)
    inside = distance_sums(y, y) if inside is None else inside
    return two_sample(distance_sums(x, y), distance_sums(y, x), distance_sums(x, x), inside)


def paired_energy_distance(x: Tensor, y: Tensor) -> Jackknifed:
    """Squared energy distance of two sets whose examples i belong together, drawn from the same noise.

    Pairs with equal index are left out of every mean, which keeps the estimate unbiased however x_i depends on y_i
    (the U-statistic of pairs; Gretton et al. 2012, "A kernel two-sample test", lemma 6), and what the pairs share
    cancels.

    Args:
        x: (n, *event), n >= 3.
        y: Shape of x.

    Raises:
        ValueError: Unequal numbers, or too few examples.
    """
    x, y = _matrix(x), _matrix(y)
    if len(x) != len(y):
        raise ValueError(f"pairs need equal numbers of examples; got {len(x)} and {len(y)}")
    n = len(x)
    own = (x - y).norm(dim=1)
    # Each i meets the others as x and as y; leaving pair i out takes away both its row and its column.
    row = distance_sums(x, y) + distance_sums(y, x) - 2.0 * own - distance_sums(x, x) - distance_sums(y, y)
    total = row.sum() / 2.0
    left_out = (total - row) * 2.0 / ((n - 1) * (n - 2))
    return Jackknifed(float(total) * 2.0 / (n * (n - 1)), (left_out,))


def two_sample(xy: Tensor, yx: Tensor, xx: Tensor, yy: Tensor) -> Jackknifed:
    """2 E d(x, y) - E d(x, x') - E d(y, y'), unbiased, from sums of d.

    Args:
        xy: Mean distance of each x to all y, (n,).
        yx: Mean distance of each y to all x, (m,).
        xx: Mean distance of each x to all other x, (n,).
        yy: Mean distance of each y to all other y, (m,).
    """
    n, m = len(xy), len(yx)
    cross, inside_x, inside_y = xy.sum(), xx.sum(), yy.sum()
    mean_x, mean_y = inside_x / (n * (n - 1)), inside_y / (m * (m - 1))
    number = 2.0 * cross / (n * m) - mean_x - mean_y
    without_x = 2.0 * (cross - xy) / ((n - 1) * m) - (inside_x - 2.0 * xx) / ((n - 1) * (n - 2)) - mean_y
    without_y = 2.0 * (cross - yx) / (n * (m - 1)) - mean_x - (inside_y - 2.0 * yy) / ((m - 1) * (m - 2))
    return Jackknifed(float(number), (without_x, without_y))


def _matrix(x: Tensor) -> Tensor:
    if len(x) < 3:
        raise ValueError(
            f"an energy distance with its error needs at least 3 examples on each side, one to leave out; got {len(x)}"
        )
    return x.detach().to("cpu", torch.float64).reshape(len(x), -1)


def distance_sums(a: Tensor, b: Tensor) -> Tensor:
    """Sum over b of the Euclidean distances to each example of a: (n, *event) and (m, *event) to (n,) float64."""
    a, b = (v.detach().to("cpu", torch.float64).reshape(len(v), -1) for v in (a, b))
    # Not by the Gram matrix, which loses half the digits of small distances.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, b, compute_mode=mode).sum(dim=1) for part in a.split(BLOCK)])


class EnergyDistance(Metric):
    """Squared energy distance of samples to real data, unbiased; lower is better, and noise may make it negative.

    Keeps every sample's features (8 bytes each).

    Args:
        reference: The real data, at least 3 examples.
        features: The feature function; the values themselves by default.

    Raises:
        ValueError: Fewer than 3 real examples.

    Reference: Szekely and Rizzo, "Energy statistics: a class of statistics based on distances", 2013.
    """

    name = "squared energy distance"

    def __init__(self, reference: Reference, features: Features | None = None):
        super().__init__(reference, features or RawFeatures())
        self._real = _matrix(reference.features(self.features, BLOCK).rows)
        self._real_sums = distance_sums(self._real, self._real)

    def settings(self) -> Mapping[str, Any]:
        """None: the distance is Euclidean."""
        return {}

    def jackknifed(self) -> Jackknifed:
        """The value with its left-out values, for differences between samplers that shared their noise.

        Raises:
            ValueError: Fewer than 3 samples were seen.
        """
        self._need(3)
        return energy_distance(torch.cat(self._rows), self._real, self._real_sums)

    def compute(self) -> Value:
        """The distance, its 95 % interval by the jackknife over samples and real examples.

        Raises:
            ValueError: Fewer than 3 samples were seen.
        """
        found = self.jackknifed()
        error = found.std_error
        units = self.reference.facts.units or "data units"
        return Value(
            found.number,
            (found.number - 1.96 * error, found.number + 1.96 * error),
            unit=units if self.features.name == RawFeatures.name else "feature units",
            better="lower",
            details={"standard error": error},
        )

    def _clear(self) -> None:
        self._rows: list[Tensor] = []

    def _accumulate(self, x: Tensor, hashes: list[int]) -> None:
        self._rows.append(feature_rows(self.features, x).to("cpu", torch.float64))

    def _tensors(self) -> dict[str, Tensor]:
        return {"rows": torch.cat([self._real[:0], *self._rows])}

    def _absorb(self, tensors: Mapping[str, Tensor], count: int) -> None:
        self._rows.append(tensors["rows"])
