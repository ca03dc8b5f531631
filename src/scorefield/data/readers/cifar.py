"""CIFAR-10 and CIFAR-100 in their binary version: files of records, a label or two and 3072 bytes of pixels each.

Layout: CIFAR-10 has one label byte, CIFAR-100 a coarse and a fine one; then 1024 bytes each of red, green and blue,
row by row (Krizhevsky 2009, "Learning multiple layers of features from tiny images", and its web page).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from scorefield._codec import near
from scorefield.data.readers.content import Arrays, Content
from scorefield.data.source import DataError, DataSource

_PIXELS = 3 * 32 * 32


class _Label(NamedTuple):
    name: str
    classes: int
    names: str


class _Version(NamedTuple):
    name: str
    labels: tuple[_Label, ...]
    files: dict[str, str]


_VERSIONS = (
    _Version(
        "CIFAR-10",
        (_Label("label", 10, "batches.meta.txt"),),
        {"train": r"data_batch_(\d+)\.bin", "test": r"test_batch()\.bin"},
    ),
    _Version(
        "CIFAR-100",
        (_Label("coarse", 20, "coarse_label_names.txt"), _Label("fine", 100, "fine_label_names.txt")),
        {"train": r"train()\.bin", "test": r"test()\.bin"},
    ),
)


def is_cifar_file(path: Path) -> bool:
    """Whether a file is one of the binary version; train.bin and test.bin only beside the names of CIFAR-100."""
    found = _recognise(path.name)
    return found is not None and (found[0].name == "CIFAR-10" or (path.parent / "fine_label_names.txt").is_file())


def is_pickled_file(path: PurePath) -> bool:
    """Whether a file is called like one of the Python version, in its usual folder where the name alone is common."""
    if path.parent.name == "cifar-100-python":
        return path.name in ("train", "test", "meta")
    return re.fullmatch(r"data_batch_\d+|test_batch|batches\.meta", path.name) is not None


def pickled(path: Path) -> DataError:
    """Why the Python version is refused, and what to get."""
    hundred = path.parent.name == "cifar-100-python"
    archive, folder = ("cifar-100", "cifar-100-binary") if hundred else ("cifar-10", "cifar-10-batches-bin")
    return DataError(
        f"{path} belongs to the Python version of CIFAR, a pickle, and nothing is ever unpickled (a pickle can run any"
        f" code). Download the binary version, {archive}-binary.tar.gz, unpack it and give the folder {folder}"
    )


def read_cifar(path: Path, source: DataSource) -> dict[str, Content]:
    """The batches of a folder by split, or one file; pixels are mapped, not loaded.

    Args:
        path: A folder such as cifar-10-batches-bin or cifar-100-binary, or one .bin file.
        source: The data source; its `label_key` is "fine" (as with None) or "coarse" for CIFAR-100.

    Raises:
        DataError: The Python version, missing or damaged files, labels outside the classes.
    """
    names = [path] if path.is_file() else sorted(f for f in path.iterdir() if f.is_file())
    found: dict[str, dict[str, list[tuple[int, Path]]]] = {}
    for file in names:
        if (known := _recognise(file.name)) is not None:
            version, split, number = known
            found.setdefault(version.name, {}).setdefault(split, []).append((number, file))
    if not found:
        hundred = {"train", "test", "meta"} <= {f.name for f in names}
        if (wrong := next((f for f in names if hundred or is_pickled_file(f)), None)) is not None:
            raise pickled(wrong)
        raise DataError(
            f"{path} is not of CIFAR's binary version, whose files are data_batch_1.bin to data_batch_5.bin and"
            " test_batch.bin (CIFAR-10), or train.bin and test.bin (CIFAR-100)"
        )
    if len(found) > 1:
        raise DataError(f"{path} holds both {' and '.join(found)}: move one of them, or give a single file")
    name, splits = next(iter(found.items()))
    version = next(v for v in _VERSIONS if v.name == name)
    if path.is_file():
        splits = {"all": next(iter(splits.values()))}
    return {split: _read_split(path, sorted(files), version, source) for split, files in splits.items()}


def _recognise(name: str) -> tuple[_Version, str, int] | None:
    """(version, split, number of the batch) by a file's name."""
    for version in _VERSIONS:
        for split, pattern in version.files.items():
            if (match := re.fullmatch(pattern, name)) is not None:
                return version, split, int(match[1] or 1)
    return None


def _read_split(path: Path, files: list[tuple[int, Path]], version: _Version, source: DataSource) -> Arrays:
    if path.is_dir():
        missing = sorted(set(range(1, files[-1][0] + 1)) - {number for number, _ in files})
        if missing:
            raise DataError(f"{path} holds {files[-1][1].name} and not data_batch_{missing[0]}.bin: unpack it again")
    column, label = _label(path, version, source)
    records = Records([_map(file, version) for _, file in files], len(version.labels))
    numbers = records.head(column).astype(np.int64)
    if (outside := np.flatnonzero(numbers >= label.classes)).size:
        part, row = records.place(outside[:1])
        raise DataError(
            f"{files[int(part[0])][1]} record {int(row[0])}: the {label.name} {numbers[outside[0]]} is none of the"
            f" {label.classes} classes of {version.name}; the file is damaged or something else"
        )
    name = str(files[0][1] if len(files) == 1 else path)
    return Arrays(records, name, numbers, _class_names(files[0][1].parent, label), layout="channels_first")


def _label(path: Path, version: _Version, source: DataSource) -> tuple[int, _Label]:
    if source.label_key is None:
        return len(version.labels) - 1, version.labels[-1]
    for column, label in enumerate(version.labels):
        if label.name == source.label_key:
            return column, label
    known = [label.name for label in version.labels]
    raise DataError(
        f"{path}: {version.name} has no labels {source.label_key!r} (data.label_key).{near(source.label_key, known)}"
    )


def _class_names(folder: Path, label: _Label) -> tuple[str, ...] | None:
    """The names beside the data; None where the file is missing."""
    file = folder / label.names
    if not file.is_file():
        return None
    names = tuple(line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip())
    if len(names) != label.classes:
        raise DataError(f"{file} names {len(names)} classes where there are {label.classes}; restore or remove it")
    return names


def _map(file: Path, version: _Version) -> np.ndarray:
    """The records of a file, (n, labels + 3072)."""
    record = len(version.labels) + _PIXELS
    size = file.stat().st_size
    if size == 0 or size % record:
        whole, rest = divmod(size, record)
        found = "is empty" if size == 0 else f"ends {rest} bytes into record {whole} (records have {record} bytes)"
        raise DataError(f"{file} {found}: it is truncated, or not {version.name}'s binary version")
    return np.memmap(file, np.uint8, "r").reshape(-1, record)


class Records:
    """The images of several mapped files of records as one array (N, 3, 32, 32)."""

    def __init__(self, files: list[np.ndarray], skip: int):
        self._files, self._skip = files, skip
        self._starts = np.cumsum([0, *(len(f) for f in files)])
        self.shape = (int(self._starts[-1]), 3, 32, 32)
        self.dtype = np.dtype(np.uint8)

    def head(self, column: int) -> np.ndarray:
        """A byte before the pixels, of every record."""
        return np.concatenate([f[:, column] for f in self._files])

    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(file, record within it) of each index."""
        part = np.searchsorted(self._starts, indices, side="right") - 1
        return part, indices - self._starts[part]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        part, row = self.place(indices)
        out = np.empty((len(indices), _PIXELS), np.uint8)
        for number in np.unique(part):
            mine = part == number
            out[mine] = self._files[number][row[mine], self._skip :]
        return out.reshape(-1, 3, 32, 32)
