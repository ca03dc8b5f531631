"""Nearest training examples of samples, and whether samples are closer to the training data than fresh data are.

A model that memorises puts samples next to training examples. How near is near depends on the data, so the yardstick is
held-out real data: with d(x) the distance of x to its nearest training example,

    memorisation ratio = median over samples of d / median over held-out examples of d,

which is about 1 for a model of the data's distribution, below 1 for one that copies and 0 for copies (compare the
three-sample test of Meehan, Chaudhuri and Dasgupta 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield._random import philox
from scorefield.metrics.features.feature import Features, RawFeatures, feature_rows
from scorefield.metrics.metric import Metric
from scorefield.metrics.receipt import Value
from scorefield.metrics.reference import Reference

REPLICATES = 4000
"""Bootstrap samples of a ratio of medians."""
SIGNIFICANT = 3.0
"""Standard errors from which the test for memorisation warns: one false alarm in 700."""


class Neighbours(NamedTuple):
    """The nearest training examples of each sample, nearest first.

    Attributes:
        distance: Euclidean distances, float64, shape (N, count).
        index: Indices of the training examples, int64, shape (N, count).
    """

    distance: Tensor
    index: Tensor


def nearest(queries: Tensor, points: Tensor, count: int, *, chunk: int = 8192) -> Neighbours:
    """The `count` nearest points of each query, in Euclidean distance; equal distances in order of index.

    Candidates come from matrix products over chunks of the points, and are then measured by differences: the expansion
    |q|^2 - 2 q.p + |p|^2 alone would report copies at a distance of about 1e-8 |q| instead of 0.

    Args:
        queries: Shape (N, F), float64.
        points: Shape (M, F), float32 or float64.
        count: Number of neighbours, 1 <= count <= M.
        chunk: Number of points compared at once.
    """
    keep = min(count + 8, len(points))
    centre = points.mean(dim=0, dtype=torch.float64)
    q = queries - centre
    squared = queries.new_full((len(queries), 0), 0.0)
    index = torch.zeros(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(points), chunk):
        p = points[start : start + chunk].to(torch.float64) - centre
        block = p.square().sum(dim=1) - 2 * (q @ p.mT)  # |q|^2 is the same for all points and ranks nothing
        squared = torch.cat([squared, block], dim=1)
        index = torch.cat([index, torch.arange(start, start + len(p)).expand(len(q), -1)], dim=1)
        squared, best = squared.topk(min(keep, squared.shape[1]), dim=1, largest=False)
        index = index.gather(1, best)
    index = index.sort(dim=1).values
    distance = torch.stack([(points[index[:, j]] - queries).norm(dim=1) for j in range(index.shape[1])], dim=1)
    order = distance.argsort(dim=1, stable=True)[:, :count]
    return Neighbours(distance.gather(1, order), index.gather(1, order))


def median_interval(values: Tensor) -> tuple[float, float] | None:
    """95 % interval of a median from order statistics, valid for any distribution; None below 6 values.

    [x_(r), x_(n + 1 - r)] with the largest r for which P(Binomial(n, 1/2) < r) <= 0.025 (David and Nagaraja, "Order
    statistics", 2003, section 7.1).

    Args:
        values: (n,).
    """
    n = len(values)
    k = torch.arange(n + 1, dtype=torch.float64)
    log_p = torch.lgamma(k.new_tensor(n + 1.0)) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1) - n * math.log(2.0)
    r = int((log_p.exp().cumsum(0) <= 0.025).sum())
    if r == 0:
        return None
    ordered = values.sort().values
    return float(ordered[r - 1]), float(ordered[n - r])


def nearer(samples: Tensor, held_out: Tensor) -> tuple[float, float]:
    """Mann-Whitney test that samples lie nearer to the training data than held-out data do.

    Args:
        samples: Distances to the training data, (n,).
        held_out: Distances of held-out data, (m,).

    Returns:
        P(sample nearer), ties half, 1/2 for one distribution; and z, its deviation from 1/2 in standard errors under
        one distribution (ties corrected): above 2 the samples are nearer than chance says (Meehan, Chaudhuri and
        Dasgupta 2020).
    """
    n, m = len(samples), len(held_out)
    samples, ordered = samples.contiguous(), held_out.sort().values
    above = m - torch.searchsorted(ordered, samples, right=True)
    equal = torch.searchsorted(ordered, samples, right=True) - torch.searchsorted(ordered, samples)
    share = float((above + 0.5 * equal).double().sum()) / (n * m)
    ties = torch.cat([samples, held_out]).unique(return_counts=True)[1].double()
    total = n + m
    variance = (total + 1 - float((ties.pow(3) - ties).sum()) / (total * (total - 1))) / (12.0 * n * m)
    return share, (share - 0.5) / math.sqrt(variance) if variance > 0 else 0.0


class NearestNeighbours(Metric):
    """Median distance of samples to their nearest training example, and which examples those are.

    Args:
        train: The training data.
        count: Number of neighbours of each sample.
        features: Feature extractor of the space of the distances; by default the values themselves.
        batch_size: Number of training examples per call of the feature extractor.

    Raises:
        ValueError: There are fewer training examples than neighbours asked for.
    """

    name = "distance to the nearest training example"

    def __init__(self, train: Reference, *, count: int = 3, features: Features | None = None, batch_size: int = 1024):
        if not 1 <= count <= len(train):
            raise ValueError(f"count={count} neighbours asked of {len(train)} training examples; use 1..{len(train)}")
        self.neighbour_count = count
        super().__init__(train, features or RawFeatures())
        self._points = train.features(self.features, batch_size).rows

    def settings(self) -> Mapping[str, Any]:
        """How many neighbours are kept."""
        return {"neighbours": self.neighbour_count}

    def neighbours(self) -> Neighbours:
        """The nearest training examples of every sample seen, in the order seen (then in the order merged)."""
        return Neighbours(*(torch.cat(parts) for parts in zip(*self._found, strict=True)))

    def compute(self) -> Value:
        """The median over samples of the distance to the nearest training example, its interval by order statistics.

        Raises:
            ValueError: No sample was seen.
        """
        self._need(1)
        d = self.neighbours().distance[:, 0]
        return Value(
            float(d.quantile(0.5)),
            median_interval(d),
            unit=self._unit(),
            details={
                "smallest": float(d.min()),
                "lower quartile": float(d.quantile(0.25)),
                "copies": float((d == 0).sum()),
            },
        )

    def _unit(self) -> str:
        raw = self.features.name == RawFeatures.name
        return (self.reference.facts.units or "data units") + ", Euclidean" if raw else "feature units, Euclidean"

    def _clear(self) -> None:
        empty = torch.zeros(0, self.neighbour_count)
        self._found = [Neighbours(empty.to(torch.float64), empty.to(torch.int64))]

    def _accumulate(self, x: Tensor, hashes: list[int]) -> None:
        self._found.append(nearest(feature_rows(self.features, x), self._points, self.neighbour_count))

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.neighbours()._asdict())

    def _absorb(self, tensors: Mapping[str, Tensor], count: int) -> None:
        self._found.append(Neighbours(tensors["distance"], tensors["index"]))


class MemorisationRatio(NearestNeighbours):
    """How near samples lie to the training data, in units of how near held-out data lie: about 1 is right, 0 is copies.

    Args:
        train: The training data.
        held_out: Real data that were not trained on.
        count: Number of neighbours of each sample.
        features: Feature extractor of the space of the distances; by default the values themselves.
        batch_size: Number of real examples per call of the feature extractor.

    Raises:
        ValueError: The two sets have examples of different shape, or most held-out examples are copies of training
            data.
    """

    name = "memorisation ratio"

    def __init__(
        self,
        train: Reference,
        held_out: Reference,
        *,
        count: int = 3,
        features: Features | None = None,
        batch_size: int = 1024,
    ):
        if held_out.event != train.event:
            raise ValueError(f"training examples have shape {train.event} and held-out examples {held_out.event}")
        self.held_out = held_out
        super().__init__(train, count=count, features=features, batch_size=batch_size)
        rows = held_out.features(self.features, batch_size).rows.split(batch_size)
        distances = torch.cat([nearest(r.to(torch.float64), self._points, 1).distance[:, 0] for r in rows])
        self._held_out_distances = distances
        self._yardstick = float(distances.quantile(0.5))
        if self._yardstick == 0:
            raise ValueError(
                f"at least half of the held-out examples of {held_out.facts.name!r} are in the training data, so they"
                " measure nothing; hold out other examples (`scorefield data inspect` counts duplicates)"
            )

    def settings(self) -> Mapping[str, Any]:
        """How many neighbours are kept, and the held-out data."""
        facts = self.held_out.facts
        return {
            **super().settings(),
            "held-out": f"{facts.name}{f' ({facts.split})' if facts.split else ''}, {facts.count} examples",
            "held-out hash": facts.hash,
        }

    def compute(self) -> Value:
        """The ratio of medians, its 95 % interval (bootstrap of both sets), and a test that samples are nearer.

        Raises:
            ValueError: No sample was seen.
        """
        distance = super().compute()
        d, held_out = self.neighbours().distance[:, 0], self._held_out_distances
        share, z = nearer(d, held_out)
        warnings: tuple[str, ...] = ()
        if z > SIGNIFICANT:
            warnings = (
                f"samples lie nearer to the training data than held-out data do (z = {z:.1f}): the model may have"
                " memorised; look at the nearest training examples",
            )
        return Value(
            distance.number / self._yardstick,
            self._interval(d),
            better="near 1",
            warnings=warnings,
            details={
                "median distance of samples": distance.number,
                "median distance of held-out data": self._yardstick,
                "copies": distance.details["copies"],
                "share nearer than held-out data": share,
                "z of the test for nearer": z,
                "p of the test for nearer": 0.5 * math.erfc(z / math.sqrt(2.0)),
            },
        )

    def _interval(self, d: Tensor) -> tuple[float, float] | None:
        """Percentiles of the ratio of resampled medians; None where half of a resampled held-out set are copies."""
        medians = [_resampled_medians(values, draw) for draw, values in enumerate((d, self._held_out_distances))]
        if min(len(d), len(self._held_out_distances)) < 2 or not bool((medians[1] > 0).all()):
            return None
        ratios = medians[0] / medians[1]
        low, high = ratios.quantile(ratios.new_tensor([0.025, 0.975])).tolist()
        return low, high


def _resampled_medians(values: Tensor, draw: int) -> Tensor:
    """Medians of bootstrap samples: order statistic k of n uniform ranks is a rounded Beta(k, n + 1 - k)."""
    n = len(values)
    random = philox(0, 0, draw=draw)
    ordered = values.sort().values
    # An even number has two middle values; which of them is drawn at random stands for their mean.
    k = (n + 1) // 2 + (random.random(REPLICATES) < 0.5) * (n % 2 == 0)
    rank = np.minimum((n * random.beta(k, n + 1 - k)).astype(np.int64), n - 1)
    return ordered[torch.from_numpy(rank)]
