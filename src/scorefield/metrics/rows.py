"""Metrics that need every sample's features: kept in an order that depends on the samples alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from scorefield.metrics.features.feature import Features, feature_rows
from scorefield.metrics.metric import Metric
from scorefield.metrics.reference import Reference, compact, example_keys, ordered
from scorefield.metrics.statistics import Statistics

NORMAL_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


def normal_interval(number: float, std_error: float) -> tuple[float, float]:
    """95 % interval of an estimate with a standard error."""
    return number - NORMAL_95 * std_error, number + NORMAL_95 * std_error


def mean_error(*sets: Tensor) -> float:
    """Standard error of a sum of means over independent sets: (sum of var / n)^(1/2).

    With the influence of every example on a statistic as values, this is the infinitesimal jackknife (Jaeckel 1972).
    """
    return math.sqrt(sum(float(values.var()) / len(values) for values in sets))


class KeptRows(Metric):
    """A metric that keeps the features of every sample and of every reference example.

    4 bytes each where the features are float32, 8 otherwise. `rows` sorts by a hash of each sample, so that splits,
    subsets and halves drawn from it are random, and the same however samples were batched, ordered or merged.

    Args:
        reference: The real data.
        features: The feature function.
        batch_size: Number of reference examples per call of the feature extractor.
    """

    def __init__(self, reference: Reference, features: Features, *, batch_size: int = 256):
        super().__init__(reference, features)
        self._real = self._rows_of(reference, features, batch_size)

    def rows(self) -> Tensor:
        """Features of the samples seen, (N, F), in the order of their hashes."""
        if not self._rows:
            return self._real[:0].to(torch.float64)
        return ordered(torch.cat(self._rows), torch.cat(self._row_keys))

    def _why_unlike(self) -> str:
        if isinstance(self.reference, Statistics):
            return f"the statistics {self.reference.facts.name!r} were made by other features: choose those"
        return "a feature function must give equally many for every example"

    def pair(self) -> tuple[Tensor, Tensor]:
        """Features of samples and of reference, float64."""
        return self.rows().to(torch.float64), self._real.to(torch.float64)

    def _rows_of(self, reference: Reference, features: Features, batch_size: int) -> Tensor:
        """The reference's features in the order of the examples' hashes."""
        return reference.features(features, batch_size).ordered

    def _clear(self) -> None:
        self._rows: list[Tensor] = []
        self._row_keys: list[Tensor] = []

    def _accumulate(self, x: Tensor, hashes: list[int]) -> None:
        rows = feature_rows(self.features, x)
        if rows.shape[1] != self._real.shape[1]:
            raise ValueError(
                f"features {self.features.name!r} gave {rows.shape[1]} numbers for a sample and {self._real.shape[1]}"
                f" for a reference example; {self._why_unlike()}"
            )
        self._rows.append(compact(rows))
        self._row_keys.append(example_keys(hashes))

    def _tensors(self) -> dict[str, Tensor]:
        empty = torch.zeros(0, dtype=torch.int64)
        return {"rows": torch.cat([self._real[:0], *self._rows]), "keys": torch.cat([empty, *self._row_keys])}

    def _absorb(self, tensors: Mapping[str, Tensor], count: int) -> None:
        self._rows.append(tensors["rows"])
        self._row_keys.append(tensors["keys"])
