"""Noise as a function of (seed, index, step, draw).

Each example of a batch owns a counter-based stream: Philox with the key (seed, index) and the counter (draw, step).
Example i therefore receives the same bits whatever its batch mates, the batch size, the process it runs in or the
device it runs on, and no two (seed, index, step, draw) share a stream (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", 2011). Numbers are drawn on the CPU in float32 and then moved and cast, so that a float64 state sees the
same noise as a float32 one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

PRIOR_STEP = 2**62
"""The step number of draws made before the first step (prior samples, starting points)."""


def philox(seed: int, index: int, step: int = 0, draw: int = 0) -> np.random.Generator:
    """The generator of one (seed, index, step, draw).

    Args:
        seed: Chosen by the user, 0 <= seed < 2**64.
        index: The example's number, 0 <= index < 2**64.
        step: Which step of the sampler or trainer draws, 0 <= step < 2**64.
        draw: Which of the step's draws, 0 <= draw < 2**64.

    Raises:
        ValueError: A number outside its range.
    """
    for name, word in (("seed", seed), ("index", index), ("step", step), ("draw", draw)):
        if not 0 <= word < 2**64:
            raise ValueError(f"{name} must lie in [0, 2**64), got {word}; noise is a function of four such numbers")
    # The two low counter words count the blocks inside one draw, so streams of distinct (step, draw) never meet.
    bits = np.random.Philox(counter=np.array([0, 0, draw, step], np.uint64), key=np.array([seed, index], np.uint64))
    return np.random.Generator(bits)


KEYED = 2**32
"""Draw numbers from here on belong to keys."""


ASIDE = 2**31
"""Draw numbers from here up to those of keys belong to what wraps a step."""


Kind = Literal["normal", "uniform"]


class Noise(Protocol):
    """Where steps get their randomness from; tests inject their own."""

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Standard normal noise with the shape, dtype and device of `like`, whose leading axis is the batch."""
        ...

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Uniform noise on [0, 1), as above; a type narrower than float32 may round its upper end to 1."""
        ...


class IndexedNoise:
    """Noise of the examples with the given indices.

    Args:
        seed: The user's seed.
        indices: One index per example of the batch, in batch order.

    Raises:
        ValueError: The seed or an index outside [0, 2**64).
    """

    def __init__(self, seed: int, indices: Sequence[int]):
        self.seed = int(seed)
        self.indices = [int(i) for i in indices]
        for index in (min(self.indices, default=0), max(self.indices, default=0)):
            philox(self.seed, index)  # numbers out of range are refused here, before any work

    def _draw(self, like: Tensor, step: int, draw: int, kind: Kind) -> Tensor:
        return self._numbers(like.shape, step, draw, kind).to(device=like.device, dtype=like.dtype)

    def _numbers(self, shape: torch.Size, step: int, draw: int, kind: Kind, pinned: bool = False) -> Tensor:
        """float32 on the CPU."""
        if shape[0] != len(self.indices):
            raise ValueError(f"noise of {len(self.indices)} examples was asked for a batch of {shape[0]}")
        numbers = torch.empty(shape, dtype=torch.float32, pin_memory=pinned)
        rows = numbers.view(shape[0], math.prod(shape[1:])).numpy()
        generator = philox(self.seed, 0, step, draw)
        fill = generator.standard_normal if kind == "normal" else generator.random
        # Setting a generator back is four times as fast as making one, which is what counts for short rows.
        bits, begin = generator.bit_generator, generator.bit_generator.state
        for row, index in zip(rows, self.indices, strict=True):
            begin["state"]["key"][1] = index
            bits.state = begin
            fill(out=row, dtype=np.float32)
        return numbers

    def rows(self, keep: Sequence[int]) -> IndexedNoise:
        """The noise of some examples of the batch alone."""
        return IndexedNoise(self.seed, [self.indices[i] for i in keep])

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Standard normal noise, shape, dtype and device of `like`."""
        return self._draw(like, step, draw, "normal")

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Uniform noise on [0, 1), shape, dtype and device of `like`."""
        return self._draw(like, step, draw, "uniform")


class Prefetched(IndexedNoise):
    """The same noise, that of the next step drawn by a thread while the network computes.

    Every draw is followed by the same draw of the next step, up to the last. Draws are functions of their numbers, so
    what was not foreseen is drawn when it is asked for, and the values are those of `IndexedNoise`. On a CUDA device
    the numbers go through pinned memory, and the host does not wait for the copy.

    Args:
        seed: The user's seed.
        indices: One index per example of the batch, in batch order.
        steps: Number of steps of the sampler.
    """

    def __init__(self, seed: int, indices: Sequence[int], steps: int):
        super().__init__(seed, indices)
        self.steps = steps
        self._ahead: dict[tuple[object, ...], Future[Tensor]] = {}
        self._thread = ThreadPoolExecutor(1)

    def _draw(self, like: Tensor, step: int, draw: int, kind: Kind) -> Tensor:
        pinned = like.device.type == "cuda"
        ready = self._ahead.pop((like.shape, step, draw, kind), None)
        rows = ready.result() if ready is not None else self._numbers(like.shape, step, draw, kind, pinned)
        if step + 1 < self.steps:
            following = (like.shape, step + 1, draw, kind)
            self._ahead[following] = self._thread.submit(self._numbers, *following, pinned)
        return rows.to(device=like.device, dtype=like.dtype, non_blocking=pinned)


class StepNoise:
    """The noise of one step: counts the draws, so that a composition of steps never uses a draw twice."""

    def __init__(self, source: Noise, step: int, first: int = 0):
        self._source, self._step, self._draw = source, step, first

    def aside(self) -> StepNoise:
        """A second count of draws that never meet this one's.

        What wraps a step draws from it, and the step itself draws as it would alone.
        """
        return StepNoise(self._source, self._step, ASIDE)

    def __call__(self, like: Tensor) -> Tensor:
        """The next standard normal draw, shape, dtype and device of `like`."""
        z = self._source.normal(like, self._step, self._draw)
        self._draw += 1
        return z

    def keyed(self, like: Tensor, key: int, rows: Sequence[int]) -> Tensor:
        """Standard normal noise of some examples that depends on a key, and not on how often was drawn.

        Args:
            like: The whole batch.
            key: 0 or more; draws with keys never meet draws without.
            rows: Which examples; the result has them as leading axis.
        """
        if isinstance(self._source, IndexedNoise):
            return self._source.rows(rows).normal(like[list(rows)], self._step, KEYED + key)
        return self._source.normal(like, self._step, KEYED + key)[list(rows)]

    def uniform(self, like: Tensor) -> Tensor:
        """The next uniform draw on [0, 1)."""
        u = self._source.uniform(like, self._step, self._draw)
        self._draw += 1
        return u
