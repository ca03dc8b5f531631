"""Samples 0, 1, 2, ... as a stream: drawn part by part, their features computed while the next part is drawn.

Part k holds samples k B .. (k + 1) B - 1, always drawn together; with W processes, process r takes the parts r, r + W,
r + 2 W, ... A sample is a function of seed and index, so the parts of any number of processes, of a stopped and of a
whole run are the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from scorefield import _codec
from scorefield.evaluation.accumulation import Part
from scorefield.evaluation.part_files import Parts, ranges
from scorefield.metrics import Features, RawFeatures
from scorefield.metrics.features.feature import feature_rows
from scorefield.metrics.reference import compact, refuse_non_finite
from scorefield.models.model import Model, Samples
from scorefield.sampling.sampler import Callback, Sampler

WAITING = 2
"""Parts that are drawn and wait for their features, at most."""


class Draws(Protocol):
    """Where samples come from.

    Attributes:
        name: What they are called on the disk.
        identity: Everything they depend on, as JSON values.
        kept: Whether they are already on a disk, and need not be written to another place.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def kept(self) -> bool: ...

    def draw(self, first: int, count: int) -> dict[str, Tensor]:
        """Samples first .. first + count - 1: `x` in data units, and `nfe` and `status` where they are known."""
        ...


class OfModel:
    """Samples of a model.

    Args:
        model: What is drawn from.
        sampler: The sampler.
        seed: Seed of every random draw.
        start: Index in the noise of sample 0.
        labels: Classes that the samples take in turn, (K,) int64; sample i that of index start + i, modulo K.
        size: Samples in a part.
        callbacks: Callbacks of the sampling loop.
    """

    name, kept = "samples", False

    def __init__(
        self,
        model: Model,
        sampler: Sampler,
        *,
        seed: int = 0,
        start: int = 0,
        labels: Tensor | None = None,
        size: int = 128,
        callbacks: Sequence[Callback] = (),
    ):
        self.model, self.sampler, self.seed, self.start = model, sampler, seed, start
        self._labels, self.callbacks = labels, tuple(callbacks)
        known = None if labels is None else hashlib.sha256(labels.numpy().tobytes()).hexdigest()
        self.identity: Mapping[str, Any] = {
            "model": model.hash,
            "weights": model.weights,
            "sampler": _codec.encode(sampler),
            "seed": seed,
            "start": start,
            "labels": known,
            "precision": model.precision,
            "compiled": model.compiled,
            "guidance": _codec.encode(model.guidance),
            "samples in a part": size,
        }

    def draw(self, first: int, count: int) -> dict[str, Tensor]:
        """Draw some."""
        start, condition = self.start + first, None
        if self._labels is not None:
            condition = {"class": self._labels[torch.arange(start, start + count) % len(self._labels)]}
        drawn = self.model.sample(
            count,
            sampler=self.sampler,
            seed=self.seed,
            start=start,
            batch_size=count,
            condition=condition,
            callbacks=self.callbacks,
        )
        return {"x": drawn.x, "nfe": drawn.nfe, "status": drawn.status}

    def as_drawn(self, nfe: Tensor, status: Tensor) -> Samples:
        """All samples but for their values, for receipts."""
        none = torch.empty(0)
        return Samples(none, none, nfe, 0.0, status, self.sampler, None, self.seed, self.start)


class Given:
    """Samples that are already there.

    Args:
        x: Samples in data units, (N, *shape).
    """

    name, kept = "samples", True

    def __init__(self, x: Tensor):
        self._x = x if x.is_floating_point() else x.to(torch.float32)
        self.identity: Mapping[str, Any] = {"samples": _bytes_hash(self._x)}

    def draw(self, first: int, count: int) -> dict[str, Tensor]:
        """Look some up."""
        return {"x": self._x[first : first + count]}


class SampleStream:
    """The parts of a stream in a folder, and how the missing ones are made.

    Args:
        draws: The source of the samples.
        functions: Feature functions to apply to each part. Those without a hash are applied whenever they are asked for
            and not stored, for nothing could show that they are the same another day.
        folder: Parts of other settings lie there in folders of their own.
        size: Samples in a part.
    """

    def __init__(self, draws: Draws, functions: Sequence[Features], folder: Path, size: int = 128):
        if size < 1:
            raise ValueError(f"batch_size={size} must be at least 1")
        self.draws, self.functions, self.size = draws, functions, size
        self.samples = Parts(folder, draws.name, draws.identity)
        self.samples.folder = folder / self.samples.digest[:12]
        self._rows = [
            Parts(self.samples.folder, f"features-{_short(f)}", {"features": f.name, "hash": f.hash})
            if f.hash is not None and f.name != RawFeatures.name
            else None
            for f in functions
        ]

    def run(self, n: int, *, rank: int = 0, world: int = 1, after: Callable[[int, int], None] | None = None) -> None:
        """Make what is missing of this process's parts of the first n samples.

        Args:
            n: Samples.
            rank: This process.
            world: Number of processes.
            after: Called after each part with the number of its samples done and of all of this process.

        Raises:
            StalePartError: A file in the folder is of another computation.
            ValueError: A sample is not finite.
            KeyboardInterrupt: Stopped; the message says what is kept.
        """
        mine = [part for k, part in enumerate(ranges(n, self.size)) if k % world == rank]
        total, done = sum(count for _, count in mine), 0
        try:
            with _worker(self._finish) as put:
                for first, count in mine:
                    known = self._known(first, count)
                    if known is None or not self._complete(first, count, known["x"]):
                        put((first, known or self._drawn(first, count), known is None))
                    done += count
                    if after is not None:
                        after(done, total)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(
                f"stopped: {done} of {total} samples are done; they are in {self.samples.folder}, and the same command"
                " goes on from there"
            ) from stop

    def parts(self, n: int) -> Iterator[Part]:
        """The first n samples with their features.

        Raises:
            FileNotFoundError: A part is missing.
        """
        for first, count in ranges(n, self.size):
            x = self._there(first, count)["x"]
            of = _bytes_hash(x)
            found = [None if rows is None else rows.read(first, count, of) for rows in self._rows]
            yield Part(x, tuple(None if f is None else f["rows"] for f in found))

    def column(self, key: str, n: int) -> Tensor:
        """The stored array of this name for the first n examples, (n, ...); empty if a part does not have it."""
        empty = torch.zeros(0, dtype=torch.int64)
        return torch.cat([self._there(first, count).get(key, empty) for first, count in ranges(n, self.size)])

    def whole(self, n: int) -> bool:
        """Whether every part of the first n samples is there, with its features."""
        for first, count in ranges(n, self.size):
            known = self._known(first, count)
            if known is None or not self._complete(first, count, known["x"]):
                return False
        return True

    # ---------------------------------------------------------------------------------------- one part

    def _known(self, first: int, count: int) -> dict[str, Tensor] | None:
        return self.draws.draw(first, count) if self.draws.kept else self.samples.read(first, count)

    def _there(self, first: int, count: int) -> dict[str, Tensor]:
        known = self._known(first, count)
        if known is None:
            raise FileNotFoundError(
                f"the part {self.samples.path(first)} is not there; several processes must see one and the same --out"
            )
        return known

    def _complete(self, first: int, count: int, x: Tensor) -> bool:
        of = _bytes_hash(x)
        return all(rows is None or rows.has(first, count, of) for rows in self._rows)

    def _drawn(self, first: int, count: int) -> dict[str, Tensor]:
        part = self.draws.draw(first, count)
        refuse_non_finite(part["x"], "a part of the samples", first)
        return part

    def _finish(self, item: tuple[int, dict[str, Tensor], bool], hurry: bool) -> None:
        """Write a part; and its features, unless the run is being stopped."""
        first, part, new = item
        if new:
            self.samples.write(first, part)
        x, of = part["x"], _bytes_hash(part["x"])
        for function, rows in zip(self.functions, self._rows, strict=True):
            if rows is not None and not hurry and not rows.has(first, len(x), of):
                rows.write(first, {"rows": compact(feature_rows(function, x))}, of)


def _short(features: Features) -> str:
    """Two views of one network have one hash and two names."""
    return hashlib.sha256(f"{features.name} {features.hash}".encode()).hexdigest()[:12]


def _bytes_hash(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()


@contextlib.contextmanager
def _worker(work: Callable[[Any, bool], None]) -> Iterator[Callable[[Any], None]]:
    """A thread that works on what it is given, at most `WAITING` things behind; its error is raised here.

    When the block is left by an error the thread finishes what it has in a hurry, so that nothing drawn is lost.
    """
    waiting: queue.Queue[Any] = queue.Queue(WAITING)
    errors: list[BaseException] = []
    leaving = threading.Event()

    def run() -> None:
        while (item := waiting.get()) is not None:
            if errors:
                continue  # nothing more, but whoever puts must not wait
            try:
                work(item, leaving.is_set())
            except BaseException as error:
                errors.append(error)

    def put(item: Any) -> None:
        if errors:
            raise errors[0]
        waiting.put(item)

    thread = threading.Thread(target=run, name="features", daemon=True)
    thread.start()
    try:
        yield put
    except BaseException:
        leaving.set()
        raise
    finally:
        waiting.put(None)
        thread.join()
    if errors:
        raise errors[0]
