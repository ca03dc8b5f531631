"""Labels as class numbers, or as measured numbers."""

from __future__ import annotations

import numpy as np

from scorefield.data.source import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "t10k": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Common names of splits -> the names used here."""


def class_numbers(labels: np.ndarray, count: int, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as int64 class numbers (count,), with class names where the labels were texts.

    Args:
        labels: Integers or texts, (count,) or (count, 1); -1 marks an unknown label.
        count: Number of examples they belong to.
        name: What to call them in messages.

    Raises:
        DataError: Another number of labels than examples, or labels that name no classes.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"labels {name} have shape {labels.shape}; one class number per example is wanted, shape ({count},)"
        )
    if len(labels) != count:
        raise DataError(f"there are {len(labels)} labels ({name}) for {count} examples")
    if labels.dtype.kind == "U":
        names, numbers = np.unique(labels, return_inverse=True)
        return numbers.astype(np.int64), tuple(str(n) for n in names)
    if labels.dtype.kind not in "iub":
        raise DataError(f"labels {name} have the type {labels.dtype}; class labels are whole numbers or texts")
    numbers = labels.astype(np.int64)
    if len(numbers) and numbers.min() < -1:
        raise DataError(f"labels {name} go down to {numbers.min()}; classes are numbered from 0, and -1 means unknown")
    return numbers, None


def real_numbers(labels: np.ndarray, count: int, name: str) -> np.ndarray:
    """Labels that are measured, float32 (count, k); a row with NaN is not known.

    Args:
        labels: Floats, (count,) or (count, k).
        count: Number of examples they belong to.
        name: What to call them in messages.

    Raises:
        DataError: Another number of labels than examples, more axes, or infinite values.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise DataError(
            f"labels {name} have shape {labels.shape}; numbers y of {count} examples are ({count},) or ({count}, k)"
        )
    numbers = labels.reshape(count, -1).astype(np.float32)
    if np.isinf(numbers).any():
        raise DataError(f"labels {name} hold infinite values; NaN is for those that are not known")
    return numbers
