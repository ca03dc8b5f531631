"""TFRecords of images, read without TensorFlow: raw pixels as ProgressiveGAN writes them, or encoded images.

Frame of a record: its length n (uint64, little-endian), the masked CRC-32C of these 8 bytes, n bytes, their masked
CRC-32C. Records hold a serialised tf.train.Example: names of features -> bytes, floats or integers. ProgressiveGAN's
(Karras et al. 2018) have `shape` (3 integers, channels first) and `data` (raw bytes); most others an encoded image.

When a set is opened all frame headers are read and their checksums compared; the payload of a record is compared with
its checksum when it is first used. Payloads are mapped, not loaded.
"""

from __future__ import annotations

import array
import io
import math
import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scorefield._codec import near
from scorefield.data.images import ENCODED
from scorefield.data.readers.content import Arrays, Content, Images
from scorefield.data.readers.crc32c import crc32c, crc32c_rows, masked
from scorefield.data.readers.labels import SPLIT_NAMES, class_numbers
from scorefield.data.source import DataError, DataSource, square

_NAME = re.compile(r"\.tfrecords?(-\d+-of-\d+)?$", re.IGNORECASE)
_RESOLUTION = re.compile(r"(.*)-r(\d\d)\.tfrecords?", re.IGNORECASE)
_IMAGE_FEATURES = ("image/encoded", "image")
_LABEL_FEATURES = ("image/class/label", "label", "labels")

Feature = list[bytes] | np.ndarray
"""Values of one feature: bytes, float32 or int64."""


def is_tfrecord_name(name: str) -> bool:
    """Whether a file is called like TFRecords, for example ffhq-r08.tfrecords or x-train.tfrecord-00000-of-00002."""
    return _NAME.search(name) is not None


def read_tfrecord(path: Path, source: DataSource) -> dict[str, Content]:
    """One file, the file of one resolution in a folder, or all files of a folder by split.

    Args:
        path: A file, or the folder that holds the files.
        source: The data source; its `size` chooses where a folder has files of several resolutions (`*-r02.tfrecords`
            to `*-r10.tfrecords`, of side 2^2 to 2^10); `key` and `label_key`, names of features.

    Raises:
        DataError: No such files, damaged ones (the message names the record), no images in them, a choice to make.
    """
    if path.is_file():
        return {"all": _read_split([path], source)}
    files = sorted(f for f in path.iterdir() if f.is_file() and is_tfrecord_name(f.name))
    if not files:
        raise DataError(f"{path} holds no TFRecords (such as ffhq-r08.tfrecords, or x-train.tfrecord-00000-of-00002)")
    resolved = [match for f in files if (match := _RESOLUTION.fullmatch(f.name)) is not None]
    if len(resolved) == len(files):
        return {"all": _read_split([_of_resolution(path, resolved, source)], source)}
    found: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[-_.]", file.name.lower())
        found.setdefault(next((SPLIT_NAMES[w] for w in words if w in SPLIT_NAMES), "all"), []).append(file)
    return {split: _read_split(members, source) for split, members in found.items()}


def _of_resolution(path: Path, names: list[re.Match[str]], source: DataSource) -> Path:
    sets = sorted({match[1] for match in names})
    if len(sets) > 1:
        raise DataError(f"{path} holds TFRecords of several data sets ({', '.join(sets)}): give one of the files")
    files = {2 ** int(match[2]): path / match[0] for match in names}
    if len(files) == 1:
        return next(iter(files.values()))
    if (side := square(source.size)) in files:
        return files[side]
    asked = "" if source.size is None else f", and not {source.size}"
    listed = ", ".join(map(str, sorted(files)))
    raise DataError(
        f"{path} holds TFRecords of the resolutions {listed}{asked}: choose one with data.size, or give the file"
    )


def _read_split(files: list[Path], source: DataSource) -> Content:
    records = Records(files)
    if not len(records):
        raise DataError(f"{files[0]} holds no records")
    first = records.example(0)
    name = str(files[0] if len(files) == 1 else files[0].parent)
    labels, names = _labels(records, first, source, files[0])
    if source.key is None and {"shape", "data"} <= first.keys():
        raw = _Raw(records, first)
        channels_last = raw.shape[3] <= 4 < raw.shape[1]  # ambiguous, so the user must set data.layout
        return Arrays(raw, name, labels, names, layout=None if channels_last else "channels_first")
    key = _image_feature(records, first, source)

    def open_image(index: int) -> Image.Image:
        values = records.example(index).get(key)
        if not isinstance(values, list) or not values:
            raise DataError(f"there are no bytes in the feature {key!r}")
        return Image.open(io.BytesIO(values[0]))

    return Images(len(records), open_image, records.name, labels, names)


# ---------------------------------------------------------------------------------------------------- features


def _described(example: dict[str, Feature]) -> str:
    texts = []
    for name, values in sorted(example.items()):
        kind = "bytes" if isinstance(values, list) else values.dtype.name
        texts.append(f"{name} ({len(values)} {kind})")
    return ", ".join(texts[:12]) or "none"


def _image_feature(records: Records, first: dict[str, Feature], source: DataSource) -> str:
    """The name of the feature that holds encoded images."""
    known = [n for n, v in first.items() if isinstance(v, list) and v and v[0].startswith(ENCODED)]
    if source.key is not None:
        if source.key not in first:
            raise DataError(f"{records.name(0)} has no feature {source.key!r} (data.key).{near(source.key, first)}")
        if source.key not in known:
            raise DataError(f"{records.name(0)}: the feature {source.key!r} is no encoded image: {_described(first)}")
        return source.key
    usual = next((n for n in _IMAGE_FEATURES if n in known), None)
    if usual is None and len(known) != 1:
        what = f"several ({', '.join(sorted(known))}): choose one with data.key" if known else "none"
        raise DataError(
            f"{records.name(0)}: of its features ({_described(first)}) one should be an encoded image, and there are"
            f" {what}; raw pixels are read where `shape` and `data` give them, as ProgressiveGAN writes"
        )
    return usual or known[0]


def _labels(
    records: Records, first: dict[str, Feature], source: DataSource, file: Path
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Labels of all records where the first has one, and the names in `<feature>.labels.txt` beside them."""
    key = source.label_key
    if key is None:
        key = next((n for n in _LABEL_FEATURES if _is_label(first.get(n))), None)
    elif not _is_label(first.get(key)):
        raise DataError(
            f"{records.name(0)} has no feature {key!r} of one integer (data.label_key); features: {_described(first)}"
        )
    if key is None:
        return None, None
    numbers = np.full(len(records), -1, np.int64)
    for index in range(len(records)):
        values = records.example(index, trusted=True).get(key)
        if values is None or len(values) == 0:
            continue
        if not _is_label(values):
            raise DataError(f"{records.name(index)}: the feature {key!r} does not hold one integer")
        numbers[index] = values[0]
    numbers, _ = class_numbers(numbers, len(records), key)
    beside = file.parent / f"{key}.labels.txt"
    if not beside.is_file():
        return numbers, None
    return numbers, tuple(line.strip() for line in beside.read_text().splitlines() if line.strip())


def _is_label(values: Feature | None) -> bool:
    return isinstance(values, np.ndarray) and values.dtype == np.int64 and len(values) == 1


class _Raw:
    """The raw images of all records as one array (N, *shape); every record must have the shape of the first."""

    def __init__(self, records: Records, first: dict[str, Feature]):
        shape = first["shape"]
        if not isinstance(shape, np.ndarray) or shape.dtype != np.int64 or len(shape) != 3 or (shape < 1).any():
            raise DataError(f"{records.name(0)}: `shape` should be three whole numbers; features: {_described(first)}")
        self._records = records
        self._item = tuple(int(n) for n in shape)
        self.shape = (len(records), *self._item)
        self.dtype = np.dtype(np.uint8)
        self._pixels(0, first)

    def _pixels(self, index: int, example: dict[str, Feature]) -> np.ndarray:
        shape, data = example.get("shape"), example.get("data")
        if not isinstance(shape, np.ndarray) or not isinstance(data, list) or len(data) != 1:
            raise DataError(f"{self._records.name(index)} lacks `shape` or `data`: {_described(example)}")
        if tuple(shape.tolist()) != self._item:
            raise DataError(f"{self._records.name(index)} has shape {shape.tolist()}, the first {list(self._item)}")
        if len(data[0]) != math.prod(self._item):
            raise DataError(
                f"{self._records.name(index)}: `data` has {len(data[0])} bytes, and its shape {list(self._item)} asks"
                f" for {math.prod(self._item)} of uint8"
            )
        return np.frombuffer(data[0], np.uint8).reshape(self._item)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self._item), np.uint8)
        for row, index in enumerate(indices.tolist()):
            out[row] = self._pixels(index, self._records.example(index))
        return out


# ----------------------------------------------------------------------------------------------------- frames


class Records:
    """The records of several files by number.

    Raises:
        DataError: Files that end within a record, or are compressed or something else.
    """

    def __init__(self, files: list[Path]):
        self._files = files
        self._maps: list[mmap.mmap | bytes] = []
        starts, lengths, counts = array.array("q"), array.array("q"), [0]
        for file in files:
            try:
                with open(file, "rb") as opened:
                    size = file.stat().st_size
                    mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            except OSError as error:
                raise DataError(f"{file} cannot be read ({error})") from None
            self._maps.append(mapped)
            _index(file, mapped, starts, lengths)
            counts.append(len(starts))
        self._starts, self._lengths = np.array(starts), np.array(lengths)
        self._first = np.array(counts)  # number of each file's first record
        self._trusted = np.zeros(len(starts), bool)

    def __len__(self) -> int:
        return len(self._starts)

    def name(self, index: int) -> str:
        """File and record within it."""
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        return f"{self._files[number]} record {index - int(self._first[number])}"

    def example(self, index: int, trusted: bool = False) -> dict[str, Feature]:
        """The features of a record.

        Args:
            index: Its number.
            trusted: Leave its checksum for the next time it is read: for small features of all records.

        Raises:
            DataError: The record does not match its checksum, or holds something other than an Example.
        """
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        start, length = int(self._starts[index]), int(self._lengths[index])
        payload = memoryview(self._maps[number])[start : start + length]
        if not trusted and not self._trusted[index]:
            (stored,) = struct.unpack_from("<I", self._maps[number], start + length)
            if int(masked(np.array([crc32c(payload)], np.uint32))[0]) != stored:
                raise DataError(f"{self.name(index)} does not agree with its checksum: the file is damaged")
            self._trusted[index] = True
        try:
            return parse_example(payload, None if not trusted else 64)
        except (ValueError, IndexError, struct.error) as error:
            raise DataError(f"{self.name(index)} is not a tf.train.Example ({error})") from None


def _index(file: Path, mapped: mmap.mmap | bytes, starts: array.array, lengths: array.array) -> None:
    """Append the place of every record of a file."""
    size, position, first = len(mapped), 0, len(starts)
    checks = array.array("I")
    while position < size:
        record = len(starts) - first
        if position + 12 > size:
            raise DataError(f"{file} is truncated: it ends within the header of record {record}")
        length, check = struct.unpack_from("<QI", mapped, position)
        if position + 16 + length > size:  # a damaged length would misplace every later record, so check it now
            _check_lengths(file, mapped, np.array([length], np.uint64), np.array([check], np.uint32), record)
            have = size - position - 12
            raise DataError(f"{file} is truncated: record {record} has {length} bytes and a checksum, {have} are left")
        starts.append(position + 12)
        lengths.append(length)
        checks.append(check)
        position += 16 + length
    _check_lengths(file, mapped, np.array(lengths[first:], np.uint64), np.array(checks, np.uint32), 0)


def _check_lengths(file: Path, mapped: Any, lengths: np.ndarray, checks: np.ndarray, first: int) -> None:
    rows = lengths.astype("<u8").view(np.uint8).reshape(-1, 8)
    bad = np.flatnonzero(masked(crc32c_rows(rows)) != checks)
    if not bad.size:
        return
    if mapped[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\x01", b"\x78\xda"):
        raise DataError(f"{file} is compressed: unpack it first (gunzip, or write it again without compression)")
    raise DataError(
        f"{file} record {first + int(bad[0])}: its length does not agree with its checksum; the file is damaged, or"
        " holds no TFRecords"
    )


# -------------------------------------------------------------------------------------------------- protobuf


def parse_example(payload: Any, longest: int | None = None) -> dict[str, Feature]:
    """A serialised tf.train.Example: {name: values}; unknown fields are passed over.

    The messages are Example {Features features = 1}, Features {map<string, Feature> feature = 1}, and Feature {one of
    BytesList 1, FloatList 2, Int64List 3}, each list {repeated value = 1}, numbers packed or not.

    Args:
        payload: The message.
        longest: Leave out values of bytes that are longer.

    Raises:
        ValueError: The bytes are no message of this kind.
    """
    example: dict[str, Feature] = {}
    for features in _messages(memoryview(payload), 1):
        for entry in _messages(features, 1):
            name, values = "", None
            for number, value in _fields(entry):
                if number == 1 and isinstance(value, memoryview):
                    name = bytes(value).decode()
                elif number == 2 and isinstance(value, memoryview):
                    values = _feature(value, longest)
            example[name] = [] if values is None else values
    return example


def _feature(message: memoryview, longest: int | None) -> Feature | None:
    values: Feature | None = None
    for kind, content in _fields(message):
        if not isinstance(content, memoryview):
            raise ValueError("a feature is not a list")
        items = [value for number, value in _fields(content) if number == 1]
        if kind == 1:
            texts = [v for v in items if isinstance(v, memoryview)]
            values = [bytes(v) for v in texts if longest is None or len(v) <= longest]
        elif kind == 2:
            raw = b"".join(bytes(v) if isinstance(v, memoryview) else struct.pack("<I", v) for v in items)
            values = np.frombuffer(raw, "<f4").astype(np.float32)
        elif kind == 3:
            numbers = [n for v in items for n in (_varints(v) if isinstance(v, memoryview) else (v,))]
            values = np.array(numbers, np.uint64).astype(np.int64)
    return values


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(message):
        if number == wanted:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {number} is not a message")
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of the fields: a view for delimited ones, the unsigned number for all others."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire = tag & 7
        if wire == 0:
            value, position = _varint(message, position)
        else:
            length = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                length, position = _varint(message, position)
            if length is None:
                raise ValueError(f"wire type {wire}")
            if position + length > len(message):
                raise ValueError(f"field {tag >> 3} ends behind its message")
            view = message[position : position + length]
            value = view if wire == 2 else int.from_bytes(view, "little")
            position += length
        yield tag >> 3, value


def _varints(packed: memoryview) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """(value, position behind it)."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
