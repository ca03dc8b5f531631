"""Comparing samples with real data: which metrics, against which split, through which features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scorefield.lab.data import Split
from scorefield.lab.data.order import pick
from scorefield.metrics import (
    ClassifierFeatures,
    Features,
    FrechetDistance,
    MemorisationRatio,
    Metric,
    MetricResult,
    NearestNeighbours,
    RawFeatures,
    Reference,
    SampleSource,
    SlicedWasserstein,
    StackedClassifier,
    StackedModes,
    measure,
)

FeatureChoice = Literal["auto", "classifier", "raw"]
LARGEST = 10_000
"""Real examples used at most, chosen by a hash of their index; the receipt's N says how many were."""


@dataclass(frozen=True)
class Comparison:
    """Metrics of samples and, beside them, of real data that were held back from the reference in the same number.

    Args:
        samples: Results for the samples.
        real: The same metrics for real examples of the training split: what a perfect model of that size would get.
            Empty where the training data are not known, and so are the next two.
        neighbours: Holds the nearest training examples of each sample.
        train: The training examples that it counts.
    """

    samples: list[MetricResult]
    real: list[MetricResult]
    neighbours: NearestNeighbours | None
    train: Tensor | None


def examples(split: Split, count: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Examples of a split in data units and their labels, at most `count`, chosen by a hash."""
    chosen = np.arange(len(split)) if count is None or count >= len(split) else pick(len(split), count, seed)
    parts = [split.batch(rows)[0] for rows in np.array_split(chosen, max(1, len(chosen) // 512))]
    labels = None if split.labels is None else torch.from_numpy(np.asarray(split.labels)[chosen]).long()
    return torch.cat(parts), labels


def choose_features(choice: FeatureChoice, train: Split, held_out: Split | None) -> Features:
    """The feature function of a Frechet distance.

    Args:
        choice: "classifier" trains a small classifier on the labelled real data; "raw" is the values themselves;
            "auto" is the first where there are labels.
        train: Where it learns.
        held_out: Where its accuracy is measured.

    Raises:
        ValueError: "classifier" without labels.
    """
    if choice == "raw" or (choice == "auto" and train.labels is None):
        return RawFeatures()
    x, labels = examples(train, LARGEST)
    if labels is None:
        raise ValueError(f"{train.name} has no labels to train a classifier on; use --features raw")
    held = None
    if held_out is not None and held_out.labels is not None:
        held_x, held_labels = examples(held_out, 2000)
        assert held_labels is not None
        held = (held_x, held_labels)
    return ClassifierFeatures.fit(x, labels, train.spec, held_out=held)


def compare(
    x: Tensor, source: SampleSource | None, train: Split | None, held_out: Split, features: Features, *, seed: int = 0
) -> Comparison:
    """Frechet distance, sliced Wasserstein distance and memorisation of samples, against held-out data.

    Where the features are those of a `StackedClassifier`, also the modes of stacked examples.

    Args:
        x: Samples in data units, (N, *shape).
        source: How they were made.
        train: What the model saw, for memorisation and for a second real split; None where it is not known.
        held_out: What it did not see: the reference.
        features: For the Frechet distance.
        seed: Of random projections.
    """
    held_x, _ = examples(held_out, LARGEST)
    reference = Reference(held_x, name=held_out.name, split="held-out", units=held_out.spec.units)
    metrics: tuple[Metric, ...] = (FrechetDistance(features, reference), SlicedWasserstein(reference, seed=seed))
    if isinstance(features, StackedClassifier):
        metrics = (*metrics, StackedModes(reference, features))
    of_samples = [measure(metric, x, source=source) for metric in metrics]
    if train is None:
        return Comparison(of_samples, [], None, None)
    train_x, _ = examples(train, LARGEST)
    real, _ = examples(train, min(len(x), len(train_x)), seed=1)
    real_source = SampleSource(sampler="none: real examples of the training split")
    of_real = [measure(metric, real.to(torch.float32), source=real_source) for metric in metrics]
    known = Reference(train_x, name=train.name, split="train", units=train.spec.units)
    memory = MemorisationRatio(known, reference)
    of_samples.append(measure(memory, x, source=source))
    return Comparison(of_samples, of_real, memory, train_x)


def summary(results: Sequence[MetricResult], title: str) -> list[str]:
    """One line per result, for a log."""
    lines = []
    for result in results:
        value = result.value
        interval = "" if value.interval is None else f"  [{value.interval[0]:.4g}, {value.interval[1]:.4g}]"
        lines.append(
            f"{title:<24} {result.receipt.metric:<28} {value.number:10.4g}{interval}  N = {result.receipt.count}"
        )
        if value.details:
            lines.append("  " + ", ".join(f"{what} {number:.4g}" for what, number in value.details.items()))
        lines += [f"  note: {warning}" for warning in value.warnings]
    return lines
