"""The readers by name. A plugin adds its own with the decorator `reader`, and `--data` takes its files from then on.

@reader("columns", ".dat")
def read_columns(path: Path, source: DataSource) -> np.ndarray:
    return np.loadtxt(path, dtype=np.float32)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorefield._plugins import Table
from scorefield.data.readers import arrays, cifar, folder, idx, lmdb_files, parquet, tfrecord
from scorefield.data.readers.content import Content
from scorefield.data.readers.objects import read_object
from scorefield.data.source import DataError, DataSource


@dataclass(frozen=True)
class Reader:
    """How one kind of data is read.

    Args:
        read: What a path holds, by split ("all" where there is one); nothing is decoded or converted.
        suffixes: Endings of the names of its files, in lower case with the dot.
    """

    read: Callable[[Path, DataSource], Mapping[str, Content]]
    suffixes: tuple[str, ...] = ()


def reader(
    name: str, *suffixes: str
) -> Callable[[Callable[[Path, DataSource], Any]], Callable[[Path, DataSource], Any]]:
    """Decorator that enters a function as the reader `data.kind=name`, for files with these endings.

    The function is given the path and the `DataSource`. It returns an array or tensor with one row per example, a
    map-style dataset, `Images` or `Arrays` of `scorefield.data`, or a mapping of split names to any of these.

    Raises:
        ValueError: There is a reader of that name, or an ending that another reader takes.
    """
    for suffix in suffixes:
        taken = next(
            (other for other, known in READERS.items() if suffix.lower() in known.suffixes and other != name), None
        )
        if taken is not None:
            raise ValueError(f"files that end in {suffix} are read by the reader {taken!r}; choose another ending")

    def enter(function: Callable[[Path, DataSource], Any]) -> Callable[[Path, DataSource], Any]:
        def read(path: Path, source: DataSource) -> Mapping[str, Content]:
            return read_object(function(path, source), path.name, source)

        read.__qualname__, read.__module__ = function.__qualname__, function.__module__
        READERS[name] = Reader(read, tuple(suffix.lower() for suffix in suffixes))
        return function

    return enter


def _read_folder(path: Path, source: DataSource) -> Mapping[str, Content]:
    if path.is_file():
        raise DataError(f"{path} is a file; for images give the folder that holds them")
    return folder.read_folder(path, source.label_key)


def _read_array(path: Path, source: DataSource) -> Mapping[str, Content]:
    if path.is_dir():
        raise DataError(f"{path} is a folder; for arrays give the file")
    return arrays.read_array(path, source)


READERS: Table[Reader] = Table(
    "reader",
    {
        "folder": Reader(_read_folder),
        "array": Reader(_read_array, arrays.SUFFIXES),
        "idx": Reader(lambda path, source: idx.read_idx(path), (".idx3-ubyte",)),
        "parquet": Reader(parquet.read_parquet, (".parquet",)),
        "cifar": Reader(cifar.read_cifar),
        "lmdb": Reader(lmdb_files.read_lmdb, lmdb_files.SUFFIXES),
        "tfrecord": Reader(tfrecord.read_tfrecord, (".tfrecords",)),
    },
)
"""Name (`data.kind`) -> reader, for what lies at a path; "digits" and "object" have none."""
