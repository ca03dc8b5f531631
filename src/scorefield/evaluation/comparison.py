"""Comparison of samples with real data: metrics, reference split and feature extractor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scorefield.data import Split
from scorefield.data.order import pick
from scorefield.evaluation.accumulation import Measures, Stream
from scorefield.metrics import (
    ClassifierFeatures,
    ClassProbabilities,
    FeatureCache,
    Features,
    InceptionFeatures,
    MetricResult,
    NearestNeighbours,
    RawFeatures,
    Reference,
    SampleSource,
    StackedClassifier,
)
from scorefield.metrics.by_name import NAMED, Ingredients, asked, lacking
from scorefield.metrics.by_name import title as called

FeatureChoice = Literal["auto", "classifier", "raw"]
LARGEST = 10_000
"""Real examples used at most, chosen by a hash of their index; the receipt's N says how many were."""


@dataclass(frozen=True)
class Comparison:
    """Metrics of samples and, beside them, of real data that were held back from the reference in the same number.

    Args:
        samples: Results for the samples.
        real: Metrics of real examples of the training split, as a perfect model would get with this number of samples.
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
    if count is None or count >= len(split):
        return examples_at(split, np.arange(len(split)))
    return examples_at(split, pick(len(split), count, seed))


def examples_at(split: Split, chosen: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """Some examples of a split in data units and their labels."""
    parts = [split.batch(rows)[0] for rows in np.array_split(chosen, max(1, len(chosen) // 512))]
    labels = None if split.labels is None else torch.from_numpy(np.asarray(split.labels)[chosen]).long()
    return torch.cat(parts), labels


def choose_features(choice: FeatureChoice, train: Split, held_out: Split | None) -> Features:
    """The feature extractor of a Frechet distance.

    Args:
        choice: "classifier" trains a small classifier on the labelled real data; "raw" is the values themselves;
            "auto" is the first where there are labels.
        train: Training split of the classifier.
        held_out: Split on which its accuracy is measured.

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
    x: Tensor,
    source: SampleSource | None,
    train: Split | None,
    held_out: Split,
    features: Features,
    *,
    seed: int = 0,
    metrics: str = "fid,sliced-wasserstein,memorisation",
) -> Comparison:
    """Metrics of samples in memory, against held-out data; by default three that every kind of data allows.

    Where the features are those of a `StackedClassifier`, also the modes of stacked examples.

    Args:
        x: Samples in data units, (N, *shape).
        source: Provenance of the samples.
        train: What the model saw, for memorisation and for a second real split; None where it is not known.
        held_out: What it did not see: the reference.
        features: Feature extractor of the Frechet distance.
        seed: Seed of random projections.
        metrics: Names, as `evaluate --metrics` takes them; those that need the training data are left out without them.
    """
    ingredients = against(held_out, train, features, seed=seed)
    names = asked(metrics + (",stacked-modes" if isinstance(features, StackedClassifier) else ""))
    measures = Measures([name for name in names if lacking(name, ingredients) is None], ingredients)
    return finished(measures, measures.in_memory(x), source, train, len(x))


def against(
    held_out: Split,
    train: Split | None,
    features: Features,
    *,
    seed: int = 0,
    cache: FeatureCache | None = None,
    rows: np.ndarray | None = None,
    part: str = "held-out",
) -> Ingredients:
    """The ingredients of the metrics.

    Args:
        held_out: Holds the reference.
        train: Training split of the model; None where it is not known.
        features: The feature function.
        seed: Seed of random projections.
        cache: Cache of the features of the reference.
        rows: Indices of its examples, ascending; None for all.
        part: Name of the split in receipts.
    """
    reference = reference_of(held_out, np.arange(len(held_out)) if rows is None else rows, part, cache)
    known = None if train is None else reference_of(train, np.arange(len(train)), "train", cache)
    return Ingredients(
        features,
        reference,
        known,
        _probabilities(features),
        features if isinstance(features, StackedClassifier) else None,
        seed,
    )


def _probabilities(features: Features) -> Features | None:
    """Class probabilities of the same network, where it is a classifier."""
    if isinstance(features, ClassifierFeatures):
        return ClassProbabilities(features)
    return features.probabilities if isinstance(features, InceptionFeatures) else None


def reference_of(split: Split, rows: np.ndarray, part: str, cache: FeatureCache | None = None) -> Reference:
    """Some examples of a split as a reference, at most `LARGEST` of them, chosen by a hash.

    Args:
        split: The split.
        rows: Indices of its examples, ascending.
        part: Name of the split in receipts.
        cache: Cache of their features.
    """
    chosen = rows if len(rows) <= LARGEST else rows[pick(len(rows), LARGEST, 0)]
    x, _ = examples_at(split, chosen)
    return Reference(x, name=split.name, split=part, units=split.spec.units, cache=cache)


def finished(
    measures: Measures, parts: Stream, source: SampleSource | None, train: Split | None, count: int
) -> Comparison:
    """All metrics of samples and, where the training data are known, of as many real examples of them.

    Args:
        measures: The metrics.
        parts: The samples.
        source: Provenance of the samples.
        train: Training split of the model; None where it is not known.
        count: Number of samples.
    """
    of_samples = measures.measure(parts, source)
    if train is None:
        return Comparison(of_samples, [], None, None)
    known, _ = examples(train, LARGEST)
    memory = next((m for m in measures.metrics.values() if isinstance(m, NearestNeighbours)), None)
    real, _ = examples(train, min(count, len(known)), seed=1)
    real_source = SampleSource(sampler="none: real examples of the training split")
    beside = [name for name in measures.names if NAMED[name].needs != "train"]
    of_real = measures.measure(measures.in_memory(real), real_source, beside) if beside else []
    return Comparison(of_samples, of_real, memory, known)


def summary(results: Sequence[MetricResult], title: str) -> list[str]:
    """One line per result, for a log."""
    lines = []
    for result in results:
        value = result.value
        interval = "" if value.interval is None else f"  [{value.interval[0]:.4g}, {value.interval[1]:.4g}]"
        lines.append(f"{title:<24} {called(result):<28} {value.number:10.4g}{interval}  N = {result.receipt.count}")
        if value.details:
            lines.append("  " + ", ".join(f"{what} {number:.4g}" for what, number in value.details.items()))
        lines += [f"  note: {warning}" for warning in value.warnings]
    return lines
