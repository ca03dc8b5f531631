"""Results of readers: encoded images or an array, both with labels. Nothing here decodes or converts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
from PIL import Image


class ArrayLike(Protocol):
    """An array, a memory map, or a dataset whose items are stacked on demand: rows by index."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *item)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of the items."""
        ...

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray:
        """The rows at the given indices, (B, *item)."""
        ...


@dataclasses.dataclass(frozen=True)
class Images:
    """Image files or encoded images.

    Attributes:
        count: Number of images.
        open: Opens image i without decoding its pixels; raises what PIL raises.
        name: What to call image i in messages.
        labels: Class of each, int64 (count,), -1 unknown; None where there are none.
        class_names: Names of the classes by number, if known.
    """

    count: int
    open: Callable[[int], Image.Image]
    name: Callable[[int], str]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Arrays:
    """An array with one example per row.

    Attributes:
        array: (N, ...).
        name: What to call it in messages.
        labels: Class of each, int64 (count,), -1 unknown; None where there are none.
        class_names: Names of the classes by number, if known.
        grey: (low, high, levels) where the format states them.
        layout: Position of the channels, where the format defines it.
        numbers: What was measured of each, float32 (count, k), NaN unknown; None where nothing was.
    """

    array: ArrayLike
    name: str
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    grey: tuple[float, float, int] | None = None
    layout: str | None = None
    numbers: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of examples."""
        return int(self.array.shape[0])


Content = Images | Arrays
