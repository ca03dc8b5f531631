"""Batches read ahead of the training loop by one background thread."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

from torch import Tensor

from scorefield.data.order import Batches
from scorefield.data.split import Split

Batch = tuple[Tensor, dict[str, Tensor]]


class Loader:
    """Iterates over (x, condition) of the steps start, start + 1, ..., each read ahead of time.

    The order is that of `batches` and does not depend on timing. An error while reading is raised by the `next` call of
    the very step it belongs to, and again by every later one. Use it in a `with` block or call `close`; a loader that
    is dropped stops its thread too.

    Args:
        split: The examples. Images are flipped as `batches` says where the split asks for flips.
        batches: The examples of each step.
        start: First step.
        stop: Step at which the iteration ends, None for never.
        prefetch: Number of batches held ready.
    """

    def __init__(self, split: Split, batches: Batches, start: int = 0, stop: int | None = None, prefetch: int = 2):
        if batches.n != len(split):
            raise ValueError(f"the batches are of {batches.n} examples and the split {split.name!r} has {len(split)}")
        if prefetch < 1:
            raise ValueError(f"prefetch={prefetch} must be at least 1")
        self.step = start
        self._stop = stop
        self._read = _Reader(split, batches)
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=prefetch)
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        # The thread must not hold `self`, or a dropped loader would live as long as its thread.
        weakref.finalize(self, self._closed.set)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """The batch of step `self.step`, which then advances.

        Raises:
            StopIteration: The step `stop` has been reached.
            RuntimeError: The loader has been closed.
        """
        if self._error is not None:
            raise self._error
        if self._closed.is_set():
            raise RuntimeError("this loader has been closed; make a new one with start=loader.step")
        if self._stop is not None and self.step >= self._stop:
            raise StopIteration
        if self._thread is None:
            arguments = (self._read, self._ready, self._closed, self.step, self._stop)
            self._thread = threading.Thread(target=_fill, args=arguments, name="scorefield-loader", daemon=True)
            self._thread.start()
        item = self._take()
        if isinstance(item, BaseException):
            self._error = item
            raise item
        self.step += 1
        return item

    def _take(self) -> Batch | BaseException:
        while True:
            try:
                return self._ready.get(timeout=1.0)
            except queue.Empty:
                if self._closed.is_set():  # by another thread, while this one waited
                    raise RuntimeError("the loader was closed while a batch was awaited") from None

    def close(self) -> None:
        """Stop the thread and wait for it; safe to call twice."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Reader:
    """Reads the batch of a step."""

    def __init__(self, split: Split, batches: Batches):
        self.split, self.batches = split, batches

    def __call__(self, step: int) -> Batch:
        chosen = self.batches.at(step)
        return self.split.batch(chosen.indices, chosen.flips if self.split.flip else None)


def _fill(
    read: Callable[[int], Batch],
    ready: queue.Queue[Batch | BaseException],
    closed: threading.Event,
    step: int,
    stop: int | None,
) -> None:
    """Body of the thread: put the batches of successive steps, or the first exception, until told to stop."""
    while not closed.is_set() and (stop is None or step < stop):
        try:
            item: Batch | BaseException = read(step)
        except BaseException as error:  # whatever it is, the training loop must see it
            item = error
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                break
            except queue.Full:
                continue
        if isinstance(item, BaseException):
            return
        step += 1
