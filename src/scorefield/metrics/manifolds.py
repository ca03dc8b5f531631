"""Precision, recall, density and coverage: do samples lie where data lie, and the other way round?

Around every row of a set lies the ball that reaches to its k-th nearest other row of the set, of radius r. With reals
y_1 .. y_m, samples x_1 .. x_n and their radii,

    precision = share of samples in the ball of some real example,
    recall    = share of real examples in the ball of some sample         (Kynkaanniemi et al. 2019, eq. 2; closed),
    density   = 1 / (k n) sum_j #{i: |x_j - y_i| < r_i},
    coverage  = share of real examples whose ball holds a sample          (Naeem et al. 2020, eqs. 3, 4; open).

Leaving an example out changes few balls and few memberships, so all jackknife values come from the one pass over
distances: a row that leaves takes its ball away, and the balls that reached to it grow to the (k+1)-th neighbour. The
jackknife never understates the variance in expectation (Efron and Stein 1981).
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from scorefield.metrics.energy_distance import Jackknifed
from scorefield.metrics.features.feature import Features
from scorefield.metrics.neighbours import nearest
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference
from scorefield.metrics.rows import KeptRows, normal_interval

BLOCK = 512
"""Rows of the distance matrix held at once."""


class Balls(NamedTuple):
    """Nearest-neighbour balls about the rows of a set.

    Attributes:
        radius: Distance to the k-th nearest other row, (n,).
        grown: Distance to the (k+1)-th, which the ball reaches where one of its k neighbours is left out, (n,).
        neighbours: The k nearest other rows, (n, k).
    """

    radius: Tensor
    grown: Tensor
    neighbours: Tensor


def balls(rows: Tensor, count: int) -> Balls:
    """Balls of `count` neighbours about rows (n, F), n >= count + 2."""
    radius, grown, neighbours = [], [], []
    for start in range(0, len(rows), BLOCK):
        queries = rows[start : start + BLOCK]
        found = nearest(queries, rows, count + 2)
        own = found.index == torch.arange(start, start + len(queries))[:, None]
        # Of more than count + 2 equal rows the own one may not be among those found: then any of them stands for it.
        own[~own.any(dim=1), -1] = True
        others = (~own).nonzero()[:, 1].reshape(len(queries), count + 1)
        distance = found.distance.gather(1, others)
        radius.append(distance[:, count - 1])
        grown.append(distance[:, count])
        neighbours.append(found.index.gather(1, others[:, :count]))
    return Balls(torch.cat(radius), torch.cat(grown), torch.cat(neighbours))


def _distances(centres: Tensor, points: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Blocks of distances of centres to points, (block, n), each with the number of its first centre."""
    for start in range(0, len(centres), BLOCK):
        part = centres[start : start + BLOCK]
        # Not by the Gram matrix: whether a copy lies in a ball must not hang on rounding.
        yield start, torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist")


def share_inside(points: Tensor, centres: Tensor, around: Balls) -> Jackknifed:
    """Share of points in the closed ball of some centre.

    Args:
        points: (n, F).
        centres: (m, F).
        around: Their balls.

    Returns:
        The share, left out along points and along centres.
    """
    n, m = len(points), len(centres)
    covers = torch.zeros(n, dtype=torch.int64)  # how many balls hold each point
    which = torch.zeros(n, dtype=torch.int64)  # sum of their numbers: the ball, where it is one
    shells = []
    for start, d in _distances(centres, points):
        rows = slice(start, start + len(d))
        inside = d <= around.radius[rows, None]
        covers += inside.sum(dim=0)
        which += (inside * torch.arange(start, start + len(d))[:, None]).sum(dim=0)
        # Only points of one ball or none can change when a centre is left out.
        shells.append(((d <= around.grown[rows, None]) & ~inside).nonzero() + torch.tensor([start, 0]))
    shell = torch.cat(shells)
    shell = shell[covers[shell[:, 1]] <= 1]
    # (centre left out, point): the point comes into a ball that grows.
    gained = torch.stack([around.neighbours[shell[:, 0]].flatten(), shell[:, 1].repeat_interleave(_width(around))])
    keys = (gained[0] * n + gained[1]).unique()
    gains = torch.bincount(keys[covers[keys % n] == 0] // n, minlength=m)
    single = (covers == 1).nonzero()[:, 0]
    lost = single[~torch.isin(which[single] * n + single, keys)]
    losses = torch.bincount(which[lost], minlength=m)
    held = (covers > 0).to(torch.float64)
    total = held.sum()
    return Jackknifed(float(total) / n, ((total - held) / (n - 1), (total + gains - losses) / n))


def _width(around: Balls) -> int:
    return around.neighbours.shape[1]


def _neighbour_sums(values: Tensor, around: Balls) -> Tensor:
    """Sum, for each row l, of values_i over the balls i that reach to l as one of their neighbours."""
    flat = around.neighbours.flatten()
    return values.new_zeros(len(values)).index_add(0, flat, values.repeat_interleave(_width(around)))


def density(points: Tensor, centres: Tensor, around: Balls) -> Jackknifed:
    """Mean number of open balls that hold a point, over k; left out along points and along centres."""
    n, k = len(points), _width(around)
    held = torch.zeros(n, dtype=torch.float64)
    holds, shell = [], []
    for start, d in _distances(centres, points):
        rows = slice(start, start + len(d))
        inside = (d < around.radius[rows, None]).to(torch.float64)
        held += inside.sum(dim=0)
        holds.append(inside.sum(dim=1))
        shell.append((d < around.grown[rows, None]).to(torch.float64).sum(dim=1) - holds[-1])
    total = held.sum()
    without_centre = total - torch.cat(holds) + _neighbour_sums(torch.cat(shell), around)
    return Jackknifed(float(total) / (k * n), ((total - held) / (k * (n - 1)), without_centre / (k * n)))


def coverage(points: Tensor, centres: Tensor, around: Balls) -> Jackknifed:
    """Share of open balls that hold a point; left out along points and along centres."""
    n, m = len(points), len(centres)
    count, closest, first = [], [], []
    for start, d in _distances(centres, points):
        inside = d < around.radius[start : start + len(d), None]
        count.append(inside.sum(dim=1))
        least = d.min(dim=1)
        closest.append(least.values)
        first.append(least.indices)
    counts = torch.cat(count)
    full = (counts > 0).to(torch.float64)
    total = full.sum()
    lonely = torch.bincount(torch.cat(first)[counts == 1], minlength=n)
    gains = (torch.cat(closest) < around.grown).to(torch.float64) - full
    without_centre = (total - full + _neighbour_sums(gains, around)) / (m - 1)
    return Jackknifed(float(total) / m, ((total - lonely) / m, without_centre))


class _Manifold(KeptRows):
    """A metric of nearest-neighbour balls; a subclass defines the statistic and its settings."""

    usual: ClassVar[int]
    """Neighbours of the published number."""
    most: ClassVar[float] = 1.0
    """The largest value."""

    def __init__(
        self, features: Features, reference: Reference, *, neighbours: int | None = None, batch_size: int = 256
    ):
        k = self.usual if neighbours is None else neighbours
        if k < 1 or len(reference) < k + 2:
            raise ValueError(
                f"{self.name} with neighbours={k} needs neighbours >= 1 and at least {max(k, 1) + 2} reference"
                f" examples, one to leave out; got {len(reference)}"
            )
        self.neighbours = k
        super().__init__(reference, features, batch_size=batch_size)

    def settings(self) -> Mapping[str, Any]:
        """Neighbours k that a ball reaches."""
        return {"neighbours": self.neighbours}

    @abstractmethod
    def jackknifed(self) -> Jackknifed:
        """The statistic with its left-out values."""

    def compute(self) -> Value:
        """The statistic, its 95 % interval by the jackknife over samples and real examples.

        Raises:
            ValueError: Fewer than k + 2 samples were seen.
        """
        self._need(self.neighbours + 2)
        found = self.jackknifed()
        error = found.std_error
        low, high = normal_interval(found.number, error)
        return Value(
            found.number,
            (max(0.0, low), min(self.most, high)),
            better="near 1" if self.most > 1 else "higher",
            details={"standard error": error},
        )

    @functools.cached_property
    def _balls(self) -> Balls:
        """Around the real examples."""
        return balls(self._real.to(torch.float64), self.neighbours)


class Precision(_Manifold):
    """Share of samples that lie in the ball of a real example: how many look real.

    Args:
        features: The feature function.
        reference: The real data, at least neighbours + 2 examples.
        neighbours: k, 3 as published unless given.
        batch_size: Number of reference examples per call of the feature extractor.

    Raises:
        ValueError: Too few real examples.

    Reference: Kynkaanniemi et al., "Improved precision and recall metric for assessing generative models", 2019.
    """

    name = "precision"
    usual = 3

    def jackknifed(self) -> Jackknifed:
        """The share with its left-out values."""
        x, y = self.pair()
        return share_inside(x, y, self._balls)


class Recall(_Manifold):
    """Share of real examples that lie in the ball of a sample: how much of the data is reached.

    Arguments, refusals and reference as `Precision`.
    """

    name = "recall"
    usual = 3

    def jackknifed(self) -> Jackknifed:
        """The share with its left-out values."""
        x, y = self.pair()
        return share_inside(y, x, balls(x, self.neighbours))


class Density(_Manifold):
    """Mean number of real examples' balls that hold a sample, over k: near 1 for the data's distribution.

    It may exceed 1.

    Args:
        features: The feature function.
        reference: The real data, at least neighbours + 2 examples.
        neighbours: k, 5 as published unless given.
        batch_size: Number of reference examples per call of the feature extractor.

    Raises:
        ValueError: Too few real examples.

    Reference: Naeem, Oh, Uh, Choi and Yoo, "Reliable fidelity and diversity metrics for generative models", 2020.
    """

    name = "density"
    usual = 5
    most = float("inf")

    def jackknifed(self) -> Jackknifed:
        """The density with its left-out values."""
        x, y = self.pair()
        return density(x, y, self._balls)


class Coverage(_Manifold):
    """Share of real examples whose ball holds a sample: how much of the data is reached, outliers of samples aside.

    Arguments, refusals and reference as `Density`.
    """

    name = "coverage"
    usual = 5

    def jackknifed(self) -> Jackknifed:
        """The coverage with its left-out values."""
        x, y = self.pair()
        return coverage(x, y, self._balls)
