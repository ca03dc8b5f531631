"""The classifier behind the modes of stacked examples: trained on the single ones, stored, and used again.

Two files: `classifier.safetensors`, and `classifier.json` with the hashes of the data, the held-out accuracy and the
confusion matrix. They are used again where the hashes of the data and of the weights agree, and replaced otherwise.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from scorefield._codec import dumps, loads, record
from scorefield._files import replacing
from scorefield.data import DataError, DataSource, Split, open_data
from scorefield.evaluation.comparison import examples
from scorefield.metrics import ClassifierFeatures, StackedClassifier, confusion_matrix

WEIGHTS, FACTS = "classifier.safetensors", "classifier.json"

STEPS = 1000
"""Training steps of 128 examples: ten seconds for 8 x 8 pixels and a minute for 28 x 28 on a quiet core."""


@record(tag="StoredClassifier")
class StoredClassifier:
    """Record stored beside the weights of a classifier of single examples.

    Args:
        trained_on: Name of the split.
        train_hash: Fingerprint of that split: its examples and labels.
        held_out_hash: Fingerprint of the held-out examples behind accuracy and confusion.
        weights_hash: Hash of the module.
        accuracy: Share of held-out single examples classified rightly.
        held_out: Their number.
        confusion: Row a: the distribution of the class given to held-out examples of class a.
    """

    trained_on: str
    train_hash: str
    held_out_hash: str
    weights_hash: str
    accuracy: float
    held_out: int
    confusion: tuple[tuple[float, ...], ...]


def stacked_classifier(source: DataSource, folder: str | Path) -> StackedClassifier:
    """The classifier of the parts of a stacked source: read from `folder`, or trained and stored there.

    Args:
        source: The stacked data; the classifier is trained on their single examples.
        folder: Folder of its two files.

    Raises:
        DataError: The data are not stacked, have no labels, or nothing is held out to measure it on.
    """
    if source.stack == 1:
        raise DataError("data.stack=1: single examples have classes, not modes; stack=3 makes 3-Stacked MNIST")
    data = open_data(dataclasses.replace(source, stack=1, stack_passes=1, conditional=False, flip=False))
    if data.train.labels is None or data.held_out is None or data.held_out.labels is None:
        raise DataError(
            f"{data.name} has no labels or nothing held out: modes are counted by a classifier trained on labelled"
            " single examples and measured on others; give a labelled set with data.held_out above 0"
        )
    hashes = (data.train.fingerprint, data.held_out.fingerprint)
    single, stored = _read(Path(folder), hashes) or _train(data.train, data.held_out, hashes, Path(folder))
    return StackedClassifier(single, torch.tensor(stored.confusion, dtype=torch.float64), source.stack)


def _read(folder: Path, hashes: tuple[str, str]) -> tuple[ClassifierFeatures, StoredClassifier] | None:
    """The stored classifier, if it is complete and belongs to these data."""
    if not ((folder / WEIGHTS).is_file() and (folder / FACTS).is_file()):
        return None
    stored = loads((folder / FACTS).read_text(encoding="utf-8"), StoredClassifier)
    if (stored.train_hash, stored.held_out_hash) != hashes:
        return None
    single = ClassifierFeatures.load(folder / WEIGHTS)
    return (single, stored) if single.hash == stored.weights_hash else None


def _train(
    train: Split, held_out: Split, hashes: tuple[str, str], folder: Path
) -> tuple[ClassifierFeatures, StoredClassifier]:
    x, labels = examples(train)
    held_x, held_labels = examples(held_out)
    assert labels is not None and held_labels is not None
    single = ClassifierFeatures.fit(x, labels, train.spec, held_out=(held_x, held_labels), steps=STEPS)
    rows = confusion_matrix(single, held_x, held_labels).tolist()
    confusion = tuple(tuple(row) for row in rows)
    facts = single.facts
    stored = StoredClassifier(train.name, *hashes, single.hash, facts.accuracy, facts.held_out, confusion)
    with replacing(folder / WEIGHTS) as path:
        single.save(path)
    with replacing(folder / FACTS) as path:
        path.write_text(dumps(stored) + "\n", encoding="utf-8")
    return single, stored
