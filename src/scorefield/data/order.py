"""The order of examples and flips: pure functions of (seed, epoch, index) and of the step number.

Everything rests on a 64-bit hash, the finaliser of splitmix64 (Steele, Lea & Flood 2014) folded over its arguments, so
that the order of a run is the same on every machine and with every version of numpy. Epoch e visits the examples in the
order of hash(seed, e, index). The training stream is the concatenation of the epochs' orders; step k takes the slice
[k B, (k + 1) B) of it, whatever the number of ranks, and rank r of W takes its contiguous part of that slice. A run is
therefore resumed from the step number alone, also with another number of ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_ORDER, _FLIP, _PICK, _STACK = 1, 2, 3, 4  # keep the hashes for different uses apart


def hash64(*words: int | np.ndarray) -> np.ndarray:
    """Hash integers, broadcast against each other, to uint64 with every bit uniform."""
    with np.errstate(over="ignore"):
        h = np.zeros(1, np.uint64)
        for word in words:
            w = np.asarray(word, np.int64 if np.ndim(word) else None).astype(np.uint64)
            h = (h ^ w) + np.uint64(0x9E3779B97F4A7C15)
            h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            h = h ^ (h >> np.uint64(31))
    return h


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which one epoch visits n examples: a permutation of 0..n-1, int64."""
    return np.argsort(hash64(seed, _ORDER, epoch, np.arange(n)), kind="stable")


def shuffled(n: int, seed: int, number: int) -> np.ndarray:
    """One of the fixed shuffles behind stacked examples: a permutation of 0..n-1, unrelated to the epochs' orders."""
    return np.argsort(hash64(seed, _STACK, number, np.arange(n)), kind="stable")


def flips(seed: int, epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Whether each example is flipped in its epoch: a fair coin per (seed, epoch, index), bool."""
    return (hash64(seed, _FLIP, epochs, indices) >> np.uint64(63)).astype(bool)


def pick(n: int, amount: int | float, seed: int) -> np.ndarray:
    """A fixed choice among n examples, ascending.

    Args:
        n: Number of examples.
        amount: A whole number takes the examples with the smallest hashes; a fraction below 1 takes those whose hash
            lies below it (at least one), a choice that stays when n grows.
        seed: Seed of the hash.
    """
    h = hash64(seed, _PICK, np.arange(n))
    if amount >= 1 or amount == 0:
        return np.sort(np.argsort(h, kind="stable")[: int(amount)])
    chosen = np.flatnonzero(h < np.uint64(int(amount * 2**64)))
    return chosen if len(chosen) else np.argsort(h, kind="stable")[:1]


class BatchIndices(NamedTuple):
    """The examples of one rank's part of one step.

    Attributes:
        indices: Indices of the examples in the split, int64 (b,).
        epochs: The epoch each belongs to (a batch may straddle two), int64 (b,).
        positions: Place of each in the training stream, int64 (b,): a key for per-example noise that does not depend on
            the number of ranks.
        flips: Whether each would be flipped, bool (b,).
    """

    indices: np.ndarray
    epochs: np.ndarray
    positions: np.ndarray
    flips: np.ndarray


class Batches:
    """The training stream cut into steps; `at(step)` is a pure function.

    Args:
        n: Number of examples, at least 1.
        batch_size: Examples per step over all ranks; may exceed n.
        seed: Seed of the order and the flips.
        rank: This process, 0 <= rank < world.
        world: Number of processes. Parts differ by at most one example where world does not divide batch_size.

    Raises:
        ValueError: No examples, or fewer examples in a batch than ranks.
    """

    def __init__(self, n: int, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1):
        if n < 1:
            raise ValueError(f"no examples to train on (n={n})")
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank} must lie in [0, {world})")
        if batch_size < world:
            raise ValueError(
                f"batch_size={batch_size} leaves some of {world} ranks without an example; use at least {world}"
            )
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        self._orders: dict[int, np.ndarray] = {}

    def epoch_of(self, step: int) -> float:
        """Epochs completed before a step, for reports."""
        return step * self.batch_size / self.n

    def at(self, step: int) -> BatchIndices:
        """This rank's examples of step 0, 1, 2, ..."""
        if step < 0:
            raise ValueError(f"step={step} must not be negative")
        first = step * self.batch_size + self.rank * self.batch_size // self.world
        last = step * self.batch_size + (self.rank + 1) * self.batch_size // self.world
        positions = np.arange(first, last, dtype=np.int64)
        epochs = positions // self.n
        orders = {int(e): self._order(int(e)) for e in np.unique(epochs)}
        self._orders = orders  # a later step needs at most the last of these again
        indices = np.empty_like(positions)
        for e, order in orders.items():
            mine = epochs == e
            indices[mine] = order[positions[mine] % self.n]
        return BatchIndices(indices, epochs, positions, flips(self.seed, epochs, indices))

    def _order(self, epoch: int) -> np.ndarray:
        known = self._orders.get(epoch)
        return epoch_order(self.n, self.seed, epoch) if known is None else known
