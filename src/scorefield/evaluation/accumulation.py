"""Metrics by name, fed with parts of samples whose features are already known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from scorefield.metrics import (
    Features,
    FrechetInfinity,
    Metric,
    MetricResult,
    NearestNeighbours,
    Remembered,
    SampleSource,
)
from scorefield.metrics.by_name import NAMED, Ingredients, functions_of
from scorefield.metrics.features.feature import feature_rows
from scorefield.metrics.reference import compact

BATCH = 256
"""Examples in memory that go through a feature function at once."""


@dataclass(frozen=True)
class Part:
    """Some samples and what is known of them.

    Args:
        x: Samples in data units, (B, *shape).
        rows: Features of each extractor in the order of `Measures.functions`, (B, F); None where they are not known.
    """

    x: Tensor
    rows: tuple[Tensor | None, ...] = ()


Stream = Callable[[], Iterable[Part]]
"""Returns an iterator over the parts from the beginning, at every call."""


class _Held(Remembered):
    """A feature extractor whose rows of the next batch are known."""

    def hold(self, x: Tensor, rows: Tensor | None) -> None:
        """Give the rows of a batch, so that nothing computes them again."""
        if rows is not None:
            self._last = (x, rows)


class Measures:
    """Metrics by name against one reference, for any number of sets of samples.

    The features of the reference are computed here, so that data which a feature function cannot take are refused
    before any sample is drawn.

    Args:
        names: Short names of metrics, keys of `NAMED`.
        ingredients: What the metrics are made of.
    """

    def __init__(self, names: Sequence[str], ingredients: Ingredients):
        self.names = tuple(names)
        self.functions: list[Features] = functions_of(names, ingredients)
        self._held = [_Held(function) for function in self.functions]
        of = {id(f): held for f, held in zip(self.functions, self._held, strict=True)}
        self._ingredients = replace(
            ingredients,
            features=of.get(id(ingredients.features), ingredients.features),
            probabilities=of.get(id(ingredients.probabilities), ingredients.probabilities),
        )
        self.metrics: dict[str, Metric] = {name: NAMED[name].build(self._ingredients) for name in names}

    def fed(self, metric: Metric, parts: Iterable[Part]) -> Metric:
        """A metric that has seen these parts and nothing else."""
        metric.reset()
        for part in parts:
            for held, rows in zip(self._held, part.rows, strict=False):
                held.hold(part.x, rows)
            metric.update(part.x)
        return metric

    def measure(
        self, parts: Stream, source: SampleSource | None, names: Sequence[str] | None = None
    ) -> list[MetricResult]:
        """All metrics of one set of samples, one after the other, so that one keeps rows at a time.

        Args:
            parts: The samples.
            source: Provenance of the samples.
            names: Some of the metrics.
        """
        results = []
        for name in names or self.names:
            metric = self.fed(self.metrics[name], parts())
            results.append(_with_versions(metric.result(source)))
            if not isinstance(metric, NearestNeighbours):  # whose neighbours are shown
                metric.reset()
        return results

    def in_memory(self, x: Tensor) -> Stream:
        """Samples in memory as parts, (N, *shape) in data units."""
        parts = []
        for batch in x.split(BATCH):
            batch = batch if batch.is_floating_point() else batch.to(torch.float32)
            parts.append(Part(batch, tuple(compact(feature_rows(f, batch)) for f in self.functions)))
        return lambda: parts

    def outlook(self, parts: Stream, result: MetricResult, n: int) -> dict[str, Any]:
        """Prediction of a Frechet distance for N = n and for N to infinity, from the first samples.

        With the bias of the samples b / N to first order and d_inf from halvings of the samples alone (the reference
        stays as it is), d(n) = d_inf + (d(N) - d_inf) N / n.

        Args:
            parts: The first samples.
            result: Their Frechet distance.
            n: Number of samples in all.

        Returns:
            {"at n": value, "interval": its 95 % interval or None, "at infinity": ...} as JSON values.
        """
        i = self._ingredients
        metric = self.fed(FrechetInfinity(i.features, i.reference, reference_is="population"), parts())
        end, now = metric.result().value, result.value.number
        shift = (now - end.number) * result.receipt.count / n
        interval = None if end.interval is None else [end.interval[0] + shift, end.interval[1] + shift]
        return {
            "N": n,
            "number": end.number + shift,
            "interval": interval,
            "status": end.status,
            "as N grows": end.number,
        }


_PACKAGES = (
    ("Inception 2015", "torch-fidelity"),
    (".onnx", "onnxruntime"),
    ("EfficientNet", "efficientnet-lite-pytorch"),
)
"""The package of a feature extractor, by its name."""


def _with_versions(result: MetricResult) -> MetricResult:
    """The receipt with the versions of the packages that its features come from."""
    receipt, found = result.receipt, {}
    for mark, package in _PACKAGES:
        if mark in receipt.features.name:
            with contextlib.suppress(PackageNotFoundError):
                found[package] = version(package)
    return replace(result, receipt=replace(receipt, versions={**receipt.versions, **found}))


def first_of(parts: Iterable[Part], count: int) -> Iterator[Part]:
    """The parts that hold the first `count` samples, the last one cut."""
    for part in parts:
        if count <= 0:
            return
        yield Part(part.x[:count], tuple(None if r is None else r[:count] for r in part.rows))
        count -= len(part.x)
