"""The examples that training and evaluation see: batches in data units, with conditions and a content hash."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from scorefield.data.rows import Rows, evenly
from scorefield.data_spec import DataSpec

FINGERPRINT_EXAMPLES = 4096
"""Examples that enter a fingerprint: all of a split up to this size, so many evenly spaced ones of a larger split."""


class Split:
    """Examples 0..n-1 of one split.

    Args:
        name: Name of the split in receipts and messages.
        spec: Shape, range and units of an example; shared by all splits.
        rows: The rows from which examples are read.
        where: Row of each example, ascending.
        labels: Class of every row, -1 unknown, or None.
        flip: Whether training should flip (see `Loader`); `batch` itself flips only the examples that its argument
            names.
        numbers: What was measured of every row, float32 (rows, k), NaN unknown, or None.
    """

    def __init__(
        self,
        name: str,
        spec: DataSpec,
        rows: Rows,
        where: np.ndarray,
        labels: np.ndarray | None,
        flip: bool = False,
        numbers: np.ndarray | None = None,
    ):
        self.name, self.spec, self.flip = name, spec, flip
        self._rows, self._where = rows, where
        self.labels = None if labels is None else labels[where]
        self.numbers = None if numbers is None else numbers[where]

    def under(self, spec: DataSpec) -> Split:
        """These examples under another spec, for example a model's units and conditions."""
        twin = copy.copy(self)
        twin.spec = spec
        return twin

    def __len__(self) -> int:
        return len(self._where)

    def batch(
        self, indices: Sequence[int] | np.ndarray | range, flips: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Examples in data units and their conditions.

        Args:
            indices: Indices of the examples, each in 0..n-1.
            flips: Whether to mirror each example left to right, bool; None for none.

        Returns:
            x of shape (B, *shape), uint8 for 8-bit data and float32 otherwise, and {"class": int64 (B,)} or
            {"y": float32 (B, k)} where the spec has that condition.

        Raises:
            DataError: An example cannot be decoded; the message names it.
            IndexError: An index outside 0..n-1.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(
                f"examples of {self.name} are numbered 0..{len(self) - 1}; got {chosen.min()}..{chosen.max()}"
            )
        x = self._rows.read(self._where[chosen])
        if flips is not None and flips.any():
            x[flips] = x[flips][..., ::-1]
        condition = {}
        for spec in self.spec.conditions:
            values = self.labels if spec.kind == "class" else self.numbers
            assert values is not None
            condition[spec.name] = torch.from_numpy(values[chosen])
        return torch.from_numpy(x), condition

    def chunks(self, batch_size: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """All examples in order, batch by batch."""
        for start in range(0, len(self), batch_size):
            yield self.batch(range(start, min(start + batch_size, len(self))))

    def describe(self, index: int) -> str:
        """Name of an example in messages: its file, or array and row."""
        return self._rows.describe(int(self._where[index]))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content as training sees it (decoded, cropped, resized, unflipped), in hexadecimal.

        It covers the number of examples, their shape and type, their labels, and the values of every example of a split
        of up to 4096, or of 4096 evenly spaced ones. It depends neither on the file format nor on file names.
        """
        digest = hashlib.sha256()
        digest.update(f"scorefield-data 1 {len(self)} {self.spec.shape} {self._rows.dtype.name}\n".encode())
        chosen = evenly(len(self), FINGERPRINT_EXAMPLES)
        for start in range(0, len(chosen), 256):
            x = self._rows.read(self._where[chosen[start : start + 256]])
            digest.update(np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        if self.numbers is not None:
            digest.update(self.numbers.astype("<f4").tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Data:
    """An opened source.

    Attributes:
        name: Name of the source.
        spec: Shape, range and units of one example, from the training split.
        train: Examples for training.
        held_out: Examples held out from training, or None.
        skipped: Names of the examples left out by `skip_bad`.
    """

    name: str
    spec: DataSpec
    train: Split
    held_out: Split | None
    skipped: tuple[str, ...] = ()
