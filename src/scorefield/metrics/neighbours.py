"""Nearest training examples of samples, and whether samples are closer to the training data than fresh data are.

A model that memorises puts samples next to training examples. How near is near depends on the data, so the yardstick is
held-out real data: with d(x) the distance of x to its nearest training example,

    memorisation ratio = median over samples of d / median over held-out examples of d,

which is about 1 for a model of the data's law, below 1 for one that copies and 0 for copies (compare the three-sample
test of Meehan, Chaudhuri and Dasgupta 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.metrics.features import Features, RawFeatures, feature_rows
from scorefield.metrics.metric import Metric, Reference
from scorefield.metrics.receipt import Value


class Neighbours(NamedTuple):
    """The nearest training examples of each sample, nearest first.

    Attributes:
        distance: Euclidean distances, float64, shape (N, count).
        index: Which training examples, int64, shape (N, count).
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
        count: How many, 1 <= count <= M.
        chunk: How many points to compare with at once.
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


def _compact(rows: Tensor) -> Tensor:
    """The rows in float32 where that loses nothing: a training set is large, and images are float32 or less."""
    single = rows.to(torch.float32)
    return single if torch.equal(single.to(torch.float64), rows) else rows


class NearestNeighbours(Metric):
    """Median distance of samples to their nearest training example, and which examples those are.

    Args:
        train: The training data.
        count: How many neighbours to keep for each sample.
        features: In which space to measure; the values themselves unless given.
        batch_size: How many training examples to push through the features at once.

    Raises:
        ValueError: There are fewer training examples than neighbours asked for.
    """

    name = "distance to the nearest training example"

    def __init__(self, train: Reference, *, count: int = 3, features: Features | None = None, batch_size: int = 1024):
        if not 1 <= count <= len(train):
            raise ValueError(f"count={count} neighbours asked of {len(train)} training examples; use 1..{len(train)}")
        self.neighbour_count = count
        super().__init__(train, features or RawFeatures())
        self._points = torch.cat([_compact(feature_rows(self.features, x)) for x in train.batches(batch_size)])

    def settings(self) -> Mapping[str, Any]:
        """How many neighbours are kept."""
        return {"neighbours": self.neighbour_count}

    def neighbours(self) -> Neighbours:
        """The nearest training examples of every sample seen, in the order seen (then in the order merged)."""
        return Neighbours(*(torch.cat(parts) for parts in zip(*self._found, strict=True)))

    def compute(self) -> Value:
        """The median over samples of the distance to the nearest training example.

        Raises:
            ValueError: No sample was seen.
        """
        self._need(1)
        d = self.neighbours().distance[:, 0]
        return Value(
            float(d.quantile(0.5)),
            unit=self._unit(),
            details={
                "smallest": float(d.min()),
                "lower quartile": float(d.quantile(0.25)),
                "copies": float((d == 0).sum()),
            },
        )

    def _unit(self) -> str:
        raw = isinstance(self.features, RawFeatures)
        return (self.reference.facts.units or "data units") + ", Euclidean" if raw else "feature units, Euclidean"

    def _clear(self) -> None:
        empty = torch.zeros(0, self.neighbour_count)
        self._found = [Neighbours(empty.to(torch.float64), empty.to(torch.int64))]

    def _accumulate(self, x: Tensor) -> None:
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
        count: How many neighbours to keep for each sample.
        features: In which space to measure; the values themselves unless given.
        batch_size: How many real examples to push through the features at once.

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
        rows = [feature_rows(self.features, x) for x in held_out.batches(batch_size)]
        distances = torch.cat([nearest(r, self._points, 1).distance[:, 0] for r in rows])
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
        """The ratio of medians.

        Raises:
            ValueError: No sample was seen.
        """
        distance = super().compute()
        return Value(
            distance.number / self._yardstick,
            better="near 1",
            details={
                "median distance of samples": distance.number,
                "median distance of held-out data": self._yardstick,
                "copies": distance.details["copies"],
            },
        )
