"""`sf.evaluate`: metrics of a model or of samples in one call, in memory. The command `evaluate` does more, on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data import Data, DataError, DataSource, Split, open_data
from scorefield.evaluation.comparison import FeatureChoice, choose_features, compare
from scorefield.metrics.by_name import NAMED, asked
from scorefield.metrics.receipt import MetricResult, SampleSource
from scorefield.models.model import Model
from scorefield.models.sample_folder import source_of
from scorefield.models.samples import Samples

DEFAULT = "fid,sliced-wasserstein,energy-distance,memorisation"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Metrics of samples, with the same metrics of real data beside them.

    Args:
        samples: Result by the short name of its metric.
        real: Results for as many real examples of the training data, as a perfect model would get. Empty where the
            training data are not known.
    """

    samples: dict[str, MetricResult]
    real: dict[str, MetricResult]

    def __getitem__(self, name: str) -> MetricResult:
        """The result of a metric; `float(...)` of it is the number, `.value.interval` its 95 % interval."""
        return self.samples[name]

    def __iter__(self) -> Iterator[str]:
        """The names of the metrics."""
        return iter(self.samples)

    def __repr__(self) -> str:
        """A table: name, value, 95 % interval, N, and the value of real data."""
        rows = [("metric", "value", "95 % interval", "N", "real data")]
        for name, result in self.samples.items():
            value, real = result.value, self.real.get(name)
            interval = "" if value.interval is None else "[{:.4g}, {:.4g}]".format(*value.interval)
            beside = "" if real is None else f"{real.value.number:.4g}"
            rows.append((name, f"{value.number:.4g}", interval, str(result.receipt.count), beside))
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines)


def evaluate(
    target: Any,
    reference: Any = None,
    *,
    metrics: str | Sequence[str] = "auto",
    features: FeatureChoice = "auto",
    n: int = 1000,
    seed: int = 0,
    sampler: Any = None,
    steps: int | None = None,
) -> Evaluation:
    """Metrics of a model's samples, or of given samples, against real data.

    Args:
        target: A model, `Samples`, or samples in data units as an array or tensor (N, *shape).
        reference: Real data: an array, tensor, map-style data set or path. Default: the model's held-out data.
        metrics: Short names, as `scorefield evaluate --metrics` takes them; "auto" is some that any data allow.
        features: Feature extractor of the Frechet distance and its relatives: "classifier", trained on the labels of
            the real data; "raw", the values; "auto" is the first where there are labels.
        n: Number of samples to draw from a model.
        seed: Seed of the samples and of random projections.
        sampler: Sampler or its name, as for `model.sample`.
        steps: Number of steps of the sampler.

    Raises:
        DataError: There are no real data to compare with.
        ValueError: A metric is unknown, or cannot be measured with these data.
    """
    names = DEFAULT if metrics == "auto" else metrics if isinstance(metrics, str) else ",".join(metrics)
    asked(names)  # refuses unknown names before anything is drawn
    model = target if isinstance(target, Model) else None
    train, held_out = _real(model, target, reference)
    source = SampleSource()
    if model is not None:
        drawn = model.sample(n, sampler=sampler, steps=steps, seed=seed, condition=_classes(model, n))
        x, source = drawn.x, source_of(model, drawn)
    else:
        x = target.x if isinstance(target, Samples) else torch.as_tensor(np.asarray(target))
    found = compare(x, source, train, held_out, choose_features(features, train or held_out, held_out), metrics=names)
    return Evaluation(_by_name(found.samples), _by_name(found.real))


def _by_name(results: list[MetricResult]) -> dict[str, MetricResult]:
    """The results by the short names of their metrics."""
    short = {entry.metric.name: name for name, entry in NAMED.items()}
    return {short[result.receipt.metric]: result for result in results}


def _classes(model: Model, n: int) -> dict[str, Tensor] | None:
    """All classes in equal shares, for a model that needs one."""
    kinds = {c.name: c for c in model.data.conditions}
    return {name: torch.arange(n) % c.size for name, c in kinds.items() if c.kind == "class"} or None


def _real(model: Model | None, target: Any, reference: Any) -> tuple[Split | None, Split]:
    """The training split, where it is known, and the data that samples are compared with."""
    if reference is None:
        data = _own(model)
        if data.held_out is None or not len(data.held_out):
            raise DataError(f"{data.name} has no held-out examples; give real data as reference")
        return data.train, data.held_out
    source = DataSource(held_out=0) if model is None else replace(model.experiment.data, kind="auto", held_out=0)
    if isinstance(reference, (str, Path)):
        return None, open_data(replace(source, path=str(reference))).train
    if isinstance(reference, Data):
        return reference.train, reference.held_out or reference.train
    opened = open_data(replace(source, path=None, conditional=False), reference)
    return None, opened.train


def _own(model: Model | None) -> Data:
    if model is None:
        raise DataError("samples by themselves have nothing to be compared with; give real data as reference")
    if model.splits is not None:
        return model.splits
    if model.experiment.data.path is None:
        raise DataError(f"{model.name} does not say where its data are; give real data as reference")
    return open_data(model.experiment.data)
