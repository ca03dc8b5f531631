"""Reference data of the metrics: real examples and their features, computed once for all metrics."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.metrics.features.cache import FeatureCache
from scorefield.metrics.features.feature import Features, Remembered, View, feature_rows
from scorefield.metrics.receipt import ReferenceFacts, example_hashes, finish_hash, sum_hashes


@dataclass(frozen=True)
class FeatureRows:
    """Features of a set of examples, one row each.

    Attributes:
        rows: (N, F), in the order of the examples, float32 where that loses nothing.
        keys: A hash of each example, (N,) int64.
    """

    rows: Tensor
    keys: Tensor

    @functools.cached_property
    def ordered(self) -> Tensor:
        """The rows in the order of their keys: random, and the same however the examples were batched or ordered."""
        return ordered(self.rows, self.keys)


def ordered(rows: Tensor, keys: Tensor) -> Tensor:
    """Rows (N, F) in the order of their keys (N,)."""
    return rows[keys.argsort(stable=True)]


def compact(rows: Tensor) -> Tensor:
    """The rows in float32 where that loses nothing: a training set is large, and images are float32 or less."""
    single = rows.to(torch.float32)
    return single if torch.equal(single.to(rows.dtype), rows) else rows


def example_keys(hashes: list[int]) -> Tensor:
    """The leading 63 bits of the hashes of examples, (N,) int64."""
    return torch.tensor([h >> 193 for h in hashes], dtype=torch.int64)


def refuse_non_finite(x: Tensor, what: str, offset: int = 0) -> None:
    """Refuse NaN and infinity in a batch, telling which examples hold them, counted from `offset`."""
    if not x.is_floating_point():
        return
    bad = (~torch.isfinite(x)).reshape(len(x), -1).any(dim=1).nonzero()[:, 0]
    if len(bad):
        first = [offset + i for i in bad[:3].tolist()]
        raise ValueError(
            f"{what} has NaN or infinite values in {len(bad)} of {len(x)} examples (first: {first}); a metric of the"
            " rest would describe other samples. Leave out failed samples yourself (Samples.status) and say how many"
        )


class Reference:
    """Real data that samples are compared with.

    Args:
        x: Examples in data units, shape (N, *event), any real dtype.
        name: What the data are called, for the receipt.
        split: Name of the split, for example "train" or "held-out".
        units: Unit of the values.
        cache: Cache of the examples' features; None computes them anew.

    Raises:
        ValueError: No examples, or NaN or infinite values.
    """

    facts: ReferenceFacts
    """Entry of the reference data in a receipt."""

    def __init__(
        self,
        x: Tensor,
        *,
        name: str,
        split: str | None = None,
        units: str | None = None,
        cache: FeatureCache | None = None,
    ):
        if x.ndim < 2 or len(x) == 0:
            raise ValueError(
                f"reference {name!r} has shape {tuple(x.shape)}; it needs the shape (N, *event) with N >= 1"
            )
        refuse_non_finite(x, f"reference {name!r}")
        self.x = x.detach().cpu()
        hashes = example_hashes(self.x)
        self.facts = ReferenceFacts(name, split, len(x), finish_hash(len(x), sum_hashes(hashes)), units)
        self._keys = example_keys(hashes)
        self._cache = cache
        self._known: list[tuple[Features, FeatureRows]] = []

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.x)

    def check(self, x: Tensor) -> None:
        """Refuse samples (B, *event) that cannot be compared with these data.

        Raises:
            ValueError: Another event shape.
        """
        if x.ndim < 1 or tuple(x.shape[1:]) != self.event:
            raise ValueError(
                f"samples have shape {tuple(x.shape)}, but the reference {self.facts.name!r} has examples of"
                f" shape {self.event}; give samples of shape (B, {', '.join(map(str, self.event))})"
            )

    def batches(self, size: int) -> Iterator[Tensor]:
        """The examples in order, `size` at a time, integers as float32."""
        for batch in self.x.split(size):
            yield batch if batch.is_floating_point() else batch.to(torch.float32)

    def features(self, features: Features, batch_size: int = 256) -> FeatureRows:
        """Features of all examples, computed once for each feature function however often they are asked for.

        Feature extractors are distinguished by name and hash, those without a hash by identity.

        Args:
            features: The feature function.
            batch_size: Number of examples per call of the feature extractor.

        Raises:
            ValueError: The function does not give one finite row per example.
        """
        for seen, found in self._known:
            if seen is features or (seen.hash is not None and (seen.name, seen.hash) == (features.name, features.hash)):
                return found

        self._known.append((features, FeatureRows(self._rows_of(features, batch_size), self._keys)))
        return self._known[-1][1]

    def _rows_of(self, features: Features, batch_size: int) -> Tensor:
        if isinstance(features, Remembered):
            return self._rows_of(features.inner, batch_size)
        if isinstance(features, View):
            return compact(features.select(self.features(features.whole, batch_size).rows))

        def compute() -> Tensor:
            return compact(torch.cat([compact(feature_rows(features, x)) for x in self.batches(batch_size)]))

        return compute() if self._cache is None else self._cache.rows(self.x, features, compute)
