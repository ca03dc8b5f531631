"""Interface of the metrics: accumulators of samples that merge across processes and state their receipt."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield.metrics.features.feature import Features
from scorefield.metrics.receipt import (
    FeatureFacts,
    MetricResult,
    Receipt,
    SampleSource,
    Value,
    add_hash_sums,
    example_hashes,
    finish_hash,
    software_versions,
    sum_hashes,
)
from scorefield.metrics.reference import Reference, refuse_non_finite


class Metric(ABC):
    """A number about samples, accumulated batch by batch in float64 and mergeable across processes.

    `update` takes samples, `merge` adds what another accumulator of the same settings has seen, `compute` gives the
    value of everything seen. Across processes, gather `state()` (plain tensors) and call `merge_state` on one rank; the
    result and its receipt then do not depend on how the samples were divided.

    Args:
        reference: The real data.
        features: The feature function, (B, *event) in data units -> (B, F).
    """

    name: ClassVar[str]
    """The metric's name in receipts and reports."""

    def __init__(self, reference: Reference, features: Features):
        self.reference = reference
        self.features = features
        self.reset()

    # ------------------------------------------------------------------------------------------- what a metric defines

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """The metric's own settings as JSON values, for the receipt."""

    @abstractmethod
    def compute(self) -> Value:
        """The value of all samples seen.

        Raises:
            ValueError: Too few samples were seen.
        """

    @abstractmethod
    def _clear(self) -> None:
        """Forget all samples."""

    @abstractmethod
    def _accumulate(self, x: Tensor, hashes: list[int]) -> None:
        """Add a checked batch, whose examples have these hashes."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """The accumulators."""

    @abstractmethod
    def _absorb(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Add the accumulators of `count` > 0 other samples."""

    # ------------------------------------------------------------------------------------------- what all share

    def reset(self) -> None:
        """Forget all samples and keep the reference."""
        self.count = 0
        self._hash_sum = 0
        self._clear()

    def update(self, x: Tensor) -> None:
        """Add samples.

        Args:
            x: Samples in data units, not clipped, shape (B, *event).

        Raises:
            ValueError: Another event shape than the reference's, or NaN or infinite values.
        """
        self.reference.check(x)
        if len(x) == 0:
            return
        refuse_non_finite(x, "a batch of samples", self.count)
        x = x.detach() if x.is_floating_point() else x.to(torch.float32)
        hashes = example_hashes(x)
        self._accumulate(x, hashes)
        self._hash_sum = add_hash_sums(self._hash_sum, sum_hashes(hashes))
        self.count += len(x)

    def state(self) -> dict[str, Tensor]:
        """Everything accumulated, as tensors that can be sent to another process."""
        return {
            "identity": torch.frombuffer(bytearray(self._identity()), dtype=torch.uint8),
            "count": torch.tensor(self.count),
            "hash_sum": torch.frombuffer(bytearray(self._hash_sum.to_bytes(32, "big")), dtype=torch.uint8),
            **self._tensors(),
        }

    def merge_state(self, state: Mapping[str, Tensor]) -> None:
        """Add what another accumulator has seen.

        Args:
            state: The other's `state()`.

        Raises:
            ValueError: The other is another metric, or has another reference, features or settings.
        """
        if bytes(state["identity"].tolist()) != self._identity():
            raise ValueError(
                f"cannot merge into {self.name}: the other accumulator differs in metric, reference, features or"
                f" settings; build both with the same arguments (here: {self._facts()})"
            )
        count = int(state["count"])
        if count:
            self._absorb(state, count)
            self._hash_sum = add_hash_sums(self._hash_sum, int.from_bytes(bytes(state["hash_sum"].tolist()), "big"))
            self.count += count

    def merge(self, other: Metric) -> None:
        """Add what another accumulator of the same settings has seen; raises as `merge_state` does."""
        self.merge_state(other.state())

    def result(self, source: SampleSource | None = None) -> MetricResult:
        """The value with its receipt.

        Args:
            source: Provenance of the samples.
        """
        facts = FeatureFacts(self.features.name, self.features.hash, getattr(self.features, "note", None))
        receipt = Receipt(
            metric=self.name,
            settings=dict(self.settings()),
            count=self.count,
            samples_hash=finish_hash(self.count, self._hash_sum),
            reference=self.reference.facts,
            features=facts,
            source=source or SampleSource(),
            versions=dict(software_versions()),
        )
        return MetricResult(self.compute(), receipt)

    def _need(self, least: int) -> None:
        if self.count < least:
            raise ValueError(
                f"{self.name} needs at least {least} samples and has seen {self.count}; call update(x) first"
            )

    def _facts(self) -> dict[str, Any]:
        reference, features = self.reference.facts, self.features
        return {
            "metric": self.name,
            "reference": f"{reference.name} {reference.hash}",
            "features": f"{features.name} {features.hash}",
            "settings": dict(self.settings()),
        }

    def _identity(self) -> bytes:
        return hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode()).digest()


def measure(
    metric: Metric, samples: Tensor, *, source: SampleSource | None = None, batch_size: int = 256
) -> MetricResult:
    """Value and receipt of one set of samples: reset, update in batches, result.

    Args:
        metric: The accumulator; what it had seen is forgotten.
        samples: Samples in data units, shape (N, *event).
        source: Provenance of the samples.
        batch_size: Number of samples per call of the feature extractor.
    """
    return measure_all([metric], samples, source=source, batch_size=batch_size)[0]


def measure_all(
    metrics: Sequence[Metric], samples: Tensor, *, source: SampleSource | None = None, batch_size: int = 256
) -> list[MetricResult]:
    """`measure` of several metrics in one pass over the samples; metrics whose features are one `Remembered` share it.

    Args:
        metrics: The accumulators; what they had seen is forgotten.
        samples: Samples in data units, shape (N, *event).
        source: Provenance of the samples.
        batch_size: Number of samples per call of the feature extractors.
    """
    for metric in metrics:
        metric.reset()
    for batch in samples.split(batch_size):
        for metric in metrics:
            metric.update(batch)
    return [metric.result(source) for metric in metrics]
