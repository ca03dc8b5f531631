"""Noise as a function of (seed, index, step, draw).

Each example has its own counter-based random stream: Philox with the key (seed, index) and the counter (draw, step).
The bits of example i therefore do not depend on the other examples, the batch size, the operating-system process or the
device, and different (seed, index, step, draw) never share a stream (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", 2011). Numbers are drawn on the CPU in float32, then moved to the device and cast, so that a float64 state
gets the same noise as a float32 state.
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
"""Step number of the draws made before the first step, such as prior samples and starting points."""


def philox(seed: int, index: int, step: int = 0, draw: int = 0) -> np.random.Generator:
    """The random generator of one (seed, index, step, draw).

    Args:
        seed: Seed given by the user, 0 <= seed < 2**64.
        index: Index of the example, 0 <= index < 2**64.
        step: Number of the sampler's or trainer's step, 0 <= step < 2**64.
        draw: Number of the draw within the step, 0 <= draw < 2**64.

    Raises:
        ValueError: A number is outside its range.
    """
    for name, word in (("seed", seed), ("index", index), ("step", step), ("draw", draw)):
        if not 0 <= word < 2**64:
            raise ValueError(f"{name} must lie in [0, 2**64) and be an integer; got {word}")
    # The two low words of the counter count the blocks within one draw, so streams of different (step, draw) never
    # overlap.
    bits = np.random.Philox(counter=np.array([0, 0, draw, step], np.uint64), key=np.array([seed, index], np.uint64))
    return np.random.Generator(bits)


KEYED_DRAWS = 2**32
"""First draw number of `StepNoise.keyed`, to which the key is added."""


WRAPPER_DRAWS = 2**31
"""First draw number of `StepNoise.wrapper_noise`; those below belong to the step itself."""


Kind = Literal["normal", "uniform"]


class Noise(Protocol):
    """The source of noise of the steps of a sampler; tests pass sources of their own."""

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Standard normal noise with the shape, dtype and device of `like`, whose leading axis is the batch."""
        ...

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Uniform noise on [0, 1) like `like`; a dtype narrower than float32 may round numbers near 1 to 1."""
        ...


class IndexedNoise:
    """The noise of a batch of examples with given indices.

    Args:
        seed: Seed given by the user.
        indices: One index per example of the batch, in batch order.

    Raises:
        ValueError: The seed or an index is outside [0, 2**64).
    """

    def __init__(self, seed: int, indices: Sequence[int]):
        self.seed = int(seed)
        self.indices = [int(i) for i in indices]
        for index in (min(self.indices, default=0), max(self.indices, default=0)):
            philox(self.seed, index)  # refuses numbers out of range before any computation

    def _draw(self, like: Tensor, step: int, draw: int, kind: Kind) -> Tensor:
        return self._numbers(like.shape, step, draw, kind).to(device=like.device, dtype=like.dtype)

    def _numbers(self, shape: torch.Size, step: int, draw: int, kind: Kind, pinned: bool = False) -> Tensor:
        """The numbers in float32 on the CPU, in pinned memory if `pinned`."""
        if shape[0] != len(self.indices):
            raise ValueError(
                f"this noise has the indices of {len(self.indices)} examples, and a batch of {shape[0]} was given; make"
                " IndexedNoise with one index per example"
            )
        numbers = torch.empty(shape, dtype=torch.float32, pin_memory=pinned)
        rows = numbers.view(shape[0], math.prod(shape[1:])).numpy()
        generator = philox(self.seed, 0, step, draw)
        fill = generator.standard_normal if kind == "normal" else generator.random
        # Setting the state of a generator is four times as fast as making one, which dominates the time of short rows.
        bits, state = generator.bit_generator, generator.bit_generator.state
        for row, index in zip(rows, self.indices, strict=True):
            state["state"]["key"][1] = index
            bits.state = state
            fill(out=row, dtype=np.float32)
        return numbers

    def rows(self, keep: Sequence[int]) -> IndexedNoise:
        """The noise of some examples of the batch, given by their positions in it."""
        return IndexedNoise(self.seed, [self.indices[i] for i in keep])

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Standard normal noise with the shape, dtype and device of `like`."""
        return self._draw(like, step, draw, "normal")

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        """Uniform noise on [0, 1) with the shape, dtype and device of `like`."""
        return self._draw(like, step, draw, "uniform")


class Prefetched(IndexedNoise):
    """The noise of `IndexedNoise`, with that of the next step drawn by a thread while the network computes.

    After each draw, the thread prepares the draw of the same number in the next step, up to the last step. A draw that
    was not prepared is made when it is requested, so the values are always those of `IndexedNoise`. For a CUDA device,
    the numbers are copied from pinned memory and the host does not wait for the copy.

    Args:
        seed: Seed given by the user.
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
    """The noise of one step. It counts the draws, so that a composition of steps never uses a draw twice.

    Args:
        source: Source of the noise.
        step: Number of the step.
        first: Number of the first draw.
    """

    def __init__(self, source: Noise, step: int, first: int = 0):
        self._source, self._step, self._draw = source, step, first

    def wrapper_noise(self) -> StepNoise:
        """Noise of the same step for code that wraps the step, independent of the draws counted here.

        The step itself then makes the same draws with and without the wrapper.
        """
        return StepNoise(self._source, self._step, WRAPPER_DRAWS)

    def __call__(self, like: Tensor) -> Tensor:
        """The next standard normal draw, with the shape, dtype and device of `like`."""
        z = self._source.normal(like, self._step, self._draw)
        self._draw += 1
        return z

    def keyed(self, like: Tensor, key: int, rows: Sequence[int]) -> Tensor:
        """Standard normal noise of some examples, determined by a key and independent of the number of earlier draws.

        Args:
            like: A tensor with the shape, dtype and device of the whole batch.
            key: A number, 0 or more. Draws with a key are independent of draws without one.
            rows: Positions of the examples in the batch, which become the leading axis of the result.
        """
        if isinstance(self._source, IndexedNoise):
            return self._source.rows(rows).normal(like[list(rows)], self._step, KEYED_DRAWS + key)
        return self._source.normal(like, self._step, KEYED_DRAWS + key)[list(rows)]

    def uniform(self, like: Tensor) -> Tensor:
        """The next uniform draw on [0, 1), with the shape, dtype and device of `like`."""
        u = self._source.uniform(like, self._step, self._draw)
        self._draw += 1
        return u
