"""Stacked examples: several of one split as one, joined along the channels (3-Stacked MNIST, Metz et al. 2017).

Example i of a split of n is made of the examples pi_1(i), ..., pi_k(i), where pi_c is a shuffle of 0..n-1 of its own:
k independent passes over the split. Further passes continue it, each with shuffles of its own: example i = p n + j is
made of pi_1^p(j), ..., pi_k^p(j), a function of (seed, i) alone. With K classes its class is the number with the
digits of theirs, y = sum_c K^(k - c) y[pi_c(i)].
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np

from scorefield.data.order import shuffled
from scorefield.data.readers.content import Content
from scorefield.data.source import DataSource

_NAMED = 10_000
"""Class names are formed up to so many classes."""


class Stacking:
    """Which examples each stacked example is made of; the examples themselves where `source.stack` is 1."""

    def __init__(self, n: int, source: DataSource):
        seed, count, passes = source.held_out_seed, source.stack, source.stack_passes
        self._length = n * passes
        self._orders: list[np.ndarray] | None = None
        if count > 1:
            shuffles = [[shuffled(n, seed, p * count + c) for p in range(passes)] for c in range(count)]
            self._orders = [np.concatenate(of_place) for of_place in shuffles]

    def __len__(self) -> int:
        """Number of stacked examples."""
        return self._length

    @property
    def count(self) -> int:
        """Number of examples in one."""
        return 1 if self._orders is None else len(self._orders)

    def parts(self, indices: np.ndarray) -> list[np.ndarray]:
        """Indices of the examples at each place of the stack."""
        return [indices] if self._orders is None else [order[indices] for order in self._orders]

    def read(self, read: Callable[[np.ndarray], np.ndarray], indices: np.ndarray) -> np.ndarray:
        """Read single examples (B, C, ...) and join them to (B, count C, ...)."""
        if self._orders is None:
            return read(indices)
        return np.concatenate([read(part) for part in self.parts(indices)], axis=1)

    def describe(self, describe: Callable[[int], str], index: int) -> str:
        """The names of the parts."""
        return " + ".join(describe(int(part)) for part in self.parts(np.array(index)))


def stack_labels(contents: Mapping[str, Content], source: DataSource) -> dict[str, Content]:
    """The contents with the classes of stacked examples; K is the number of classes over all splits."""
    if source.stack == 1:
        return dict(contents)
    known = [c.labels for c in contents.values() if c.labels is not None]
    names = next((c.class_names for c in contents.values() if c.class_names is not None), None)
    base = len(names) if names is not None else max((int(labels.max(initial=-1)) for labels in known), default=-1) + 1
    digits = names or tuple(map(str, range(base)))
    joined = None
    if known and base**source.stack <= _NAMED:
        joined = tuple(" ".join(digit) for digit in itertools.product(digits, repeat=source.stack))
    return {split: _stacked(content, base, joined, source) for split, content in contents.items()}


def _stacked(content: Content, base: int, names: tuple[str, ...] | None, source: DataSource) -> Content:
    if content.labels is None:
        return content
    stacking = Stacking(content.count, source)
    y = np.stack([content.labels[part] for part in stacking.parts(np.arange(len(stacking)))])
    place = base ** np.arange(source.stack - 1, -1, -1, dtype=np.int64)
    labels = np.where((y < 0).any(axis=0), -1, place @ y)
    return dataclasses.replace(content, labels=labels, class_names=names)
