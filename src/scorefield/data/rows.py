"""Examples by index in data units: decoded, laid out channel-first, cropped and resized, with bounded memory."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from scorefield.data.images import (
    DECODE_ERRORS,
    UnlikeError,
    channels_of,
    frame_array,
    frame_geometry,
    pixels,
    read_header,
    shape_of,
)
from scorefield.data.readers.content import Arrays, Content, Images
from scorefield.data.source import DataError, DataSource
from scorefield.data.stacking import Stacking

HEADERS_CHECKED = 10_000
"""Image headers read when a set is opened: all of a set up to this size, so many evenly spaced ones of a larger set."""

CHUNK_BYTES = 2**25
"""Aim of `chunks`: memory taken by the examples read at once."""


class Rows(Protocol):
    """Examples by index, in data units."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """A fresh array (B, *shape), uint8 or float32.

        Raises:
            DataError: An example cannot be read; the message names it.
        """
        ...

    def describe(self, index: int) -> str:
        """Name of an example in messages."""
        ...


def chunks(rows: Rows, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices, examples) in pieces of bounded size, in the order given."""
    step = max(1, CHUNK_BYTES // max(1, 4 * math.prod(rows.shape)))
    for start in range(0, len(indices), step):
        part = indices[start : start + step]
        yield part, rows.read(part)


def rows_of(content: Content, source: DataSource) -> Rows:
    """The examples of what a reader found."""
    if content.count == 0:
        raise DataError(f"{source.path} holds no examples")
    return ImageRows(content, source) if isinstance(content, Images) else ArrayRows(content, source)


def evenly(n: int, at_most: int) -> np.ndarray:
    """All of 0..n-1, or `at_most` evenly spaced ones with both ends."""
    return np.arange(n) if n <= at_most else np.linspace(0, n - 1, at_most).round().astype(np.int64)


# ------------------------------------------------------------------------------------------------------ images


class ImageRows:
    """Images decoded by a few threads, each once where all of them fit into `source.memory_gib`.

    On construction only headers are read. Decoding runs in PIL outside the interpreter's lock.

    Raises:
        DataError: Damaged headers (without `skip_bad`), or sizes or colour modes that do not fit together.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: Images, source: DataSource):
        self._images, self._source = images, source
        self._threads = min(8, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, "scorefield-decode")
        modes, sizes, named = self._survey()
        self._channels = channels_of(modes, source, named)
        self._single = (self._channels, *shape_of(sizes, source, named))
        self._stack = Stacking(images.count, source)
        self.shape = (self._stack.count * self._channels, *self._single[1:])
        fits = images.count * math.prod(self._single) <= source.memory_gib * 2**30
        self._kept = np.zeros((images.count, *self._single), np.uint8) if fits else None
        self._ready = np.zeros(images.count if fits else 0, bool)

    def __len__(self) -> int:
        return len(self._stack)

    def describe(self, index: int) -> str:
        """Path of a file, or file and row."""
        return self._stack.describe(self._images.name, int(index))

    def _survey(self) -> tuple[Counter, Counter, dict]:
        modes: Counter = Counter()
        sizes: Counter = Counter()
        named: dict = {}
        bad: list[tuple[int, Exception]] = []
        checked = evenly(self._images.count, HEADERS_CHECKED)
        for index, header in zip(checked, self._spread(checked, self._header), strict=True):
            if isinstance(header, Exception):
                bad.append((int(index), header))
                continue
            modes[header.mode] += 1
            sizes[header.size] += 1
            named.setdefault(header.mode, self._images.name(int(index)))
            named.setdefault(header.size, self._images.name(int(index)))
        if bad and not self._source.skip_bad:
            raise self._damaged(bad)
        if not modes:
            raise DataError(f"{self._source.path}: none of {len(checked)} images can be read; first: {bad[0][1]}")
        return modes, sizes, named

    def _header(self, index: int) -> object:
        try:
            with self._images.open(index) as image:
                return read_header(image)
        except DECODE_ERRORS as error:
            return error

    def _damaged(self, bad: list[tuple[int, Exception]]) -> DataError:
        names = "; ".join(f"{self._images.name(i)} ({_reason(error)})" for i, error in bad[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        return DataError(
            f"cannot read {names}{more}. Repair or remove, or set data.skip_bad=true (--skip-bad) to leave out"
        )

    def _spread(self, indices: np.ndarray, work: Callable[[int], object]) -> list:
        # One task per thread and batch: a future per image would cost as much as decoding a small one.
        parts = [p for p in np.array_split(indices, self._threads) if len(p)]
        if len(indices) < 16:
            parts = [indices]
        results = self._pool.map(lambda part: [work(int(i)) for i in part], parts)
        return [result for part in results for result in part]

    def _decode(self, index: int) -> np.ndarray | Exception:
        try:
            with self._images.open(index) as image:
                x = pixels(image, self._channels, self._source)
        except UnlikeError as error:
            raise DataError(f"{self._images.name(index)} {error}") from None
        except DECODE_ERRORS as error:
            return error
        if x.shape != self._single:
            found = f"{self._images.name(index)} has shape {x.shape} where the others have {self._single}"
            raise DataError(f"{found}; set data.size, or data.crop")
        if self._kept is not None:
            self._kept[index] = x
            self._ready[index] = True
        return x

    def read(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W)."""
        return self._stack.read(self._read, indices)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        wanted = indices if self._kept is None else np.unique(indices[~self._ready[indices]])
        found = self._spread(wanted, self._decode)
        if bad := [(int(i), x) for i, x in zip(wanted, found, strict=True) if isinstance(x, Exception)]:
            raise self._damaged(bad)
        if self._kept is not None:
            return self._kept[indices]
        return np.stack(found) if found else np.zeros((0, *self._single), np.uint8)

    def unreadable(self, indices: np.ndarray) -> np.ndarray:
        """Decode the given examples; those that cannot be."""
        parts = np.stack(self._stack.parts(indices))
        single = np.unique(parts)
        bad: list[int] = []
        for part in np.array_split(single, 1 + len(single) // 1024):
            found = self._spread(part, self._decode)
            bad += [int(i) for i, x in zip(part, found, strict=True) if isinstance(x, Exception)]
        return indices[np.isin(parts, np.array(bad, np.int64)).any(axis=0)]


def _reason(error: Exception) -> str:
    text = str(error).split(" <")[0].strip()
    return text.split("\n")[0][:120] or type(error).__name__


# ------------------------------------------------------------------------------------------------------ arrays


class ArrayRows:
    """Rows of an array: channel-first, cropped, resized and padded; uint8 stays uint8, everything else becomes float32.

    Raises:
        DataError: A type that holds no real numbers, or axes that could mean several things.
    """

    def __init__(self, arrays: Arrays, source: DataSource):
        self._arrays, self._source = arrays, source
        self._name = arrays.name
        stored = np.dtype(arrays.array.dtype)
        _check_type(stored, arrays.name)
        self._last, self._grey = arrange(arrays, source)
        item = tuple(arrays.array.shape[1:])
        item = (1, *item) if self._grey else (item[-1], *item[:-1]) if self._last else item
        if 0 in item:
            raise DataError(f"{arrays.name} has shape {tuple(arrays.array.shape)}: its examples are empty")
        if source.channels is not None and source.channels != item[0]:
            asked = f"data.channels={source.channels}"
            raise DataError(f"{arrays.name} has {item[0]} channel(s) and {asked}: arrays are never converted")
        self._frames = source.crop is not None or source.size is not None or source.pad > 0
        if self._frames:
            if len(item) != 3:
                raise DataError(
                    f"data.crop, data.size and data.pad are for images; the examples of {arrays.name} have shape {item}"
                )
            height, width = frame_geometry(item[1], item[2], source.crop, source.size).final
            item = (item[0], height + 2 * source.pad, width + 2 * source.pad)
        self._stack = Stacking(arrays.count, source)
        self.shape = (self._stack.count * item[0], *item[1:])
        self.dtype = np.dtype(np.uint8 if stored in (np.uint8, np.bool_) else np.float32)
        self.stored = stored
        if self._frames and source.size is not None and (arrays.grey or stored == np.bool_):
            self.dtype = np.dtype(np.float32)  # a resized image of few grey levels has none any more

    def __len__(self) -> int:
        return len(self._stack)

    def describe(self, index: int) -> str:
        """Array and row."""
        return self._stack.describe(lambda i: f"{self._name}[{i}]", int(index))

    def read(self, indices: np.ndarray) -> np.ndarray:
        """uint8 or float32, (B, *shape)."""
        return self._stack.read(self._read, indices)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        x = np.asarray(self._arrays.array[indices])
        if self._last:
            x = np.moveaxis(x, -1, 1)
        if self._grey:
            x = x[:, None]
        with np.errstate(over="ignore"):  # what overflows float32 becomes infinite and is reported as such
            x = x.astype(self.dtype, order="C")
        return np.ascontiguousarray(frame_array(x, self._source)) if self._frames else x


def _check_type(dtype: np.dtype, name: str) -> None:
    if dtype.kind == "c":
        raise DataError(f"{name} is complex ({dtype}): store real and imaginary part as two channels of a real array")
    if dtype.kind not in "biuf":
        raise DataError(f"{name} has the type {dtype}, which is not a number; store the values as float32 or uint8")


def arrange(arrays: Arrays, source: DataSource) -> tuple[bool, bool]:
    """(channels are last, channel axis is missing) of an array; an error where its axes could mean several things."""
    shape, name = tuple(arrays.array.shape), arrays.name
    layout = source.layout or arrays.layout
    if len(shape) == 2:
        if layout not in (None, "channels_first"):
            raise DataError(f"{name} has shape {shape}: vectors have no data.layout={layout}")
        return False, False
    if len(shape) not in (3, 4):
        hint = " Reshape one column of numbers to (N, 1)." if len(shape) == 1 else ""
        raise DataError(
            f"{name} has shape {shape}, and not that of (N, D) vectors, (N, C, L) signals or (N, C, H, W) images.{hint}"
        )
    if layout == "grey":
        if len(shape) != 3:
            raise DataError(f"{name} has shape {shape}; data.layout=grey is for (N, height, width)")
        return False, True
    if layout is not None:
        return layout == "channels_last", False
    if len(shape) == 3:
        if arrays.array.dtype == np.uint8:  # 8-bit signals with channels are unheard of; MNIST is everywhere
            return False, True
        raise DataError(
            f"{name} has shape {shape}, which could be one-channel images or signals: set data.layout=grey for (N,"
            " height, width), channels_first for (N, channels, length), or channels_last for (N, length, channels)"
        )
    if shape[3] <= 4 < shape[1]:
        raise DataError(
            f"{name} has shape {shape}, which looks like (N, height, width, channels): set data.layout=channels_last,"
            f" or channels_first if these are images of {shape[1]} channels, {shape[2]} x {shape[3]} pixels"
        )
    return False, False
