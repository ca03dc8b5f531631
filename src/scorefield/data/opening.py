"""From a DataSource to the splits that training and evaluation use."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from scorefield._codec import near
from scorefield._plugins import is_import_path, load_announced
from scorefield.data.order import pick
from scorefield.data.readers import arrays, cifar, folder, idx, lmdb_files, tfrecord
from scorefield.data.readers.content import Arrays, Content
from scorefield.data.readers.digits import read_digits
from scorefield.data.readers.objects import import_dataset, read_object
from scorefield.data.readers.table import READERS
from scorefield.data.rows import ImageRows, Rows, rows_of
from scorefield.data.source import DataError, DataSource
from scorefield.data.split import Data, Split
from scorefield.data.stacking import stack_labels
from scorefield.data.survey import Survey, check_values, conditions_of, needs_survey, spec_of, survey


def open_data(source: DataSource, dataset: Any = None) -> Data:
    """Open the data of an experiment.

    Images are not decoded here (only their headers are read); values of arrays are, where units or NaN depend on them.

    Args:
        source: What to read and how.
        dataset: A map-style dataset, array or tensor, or a mapping of split names to them, in place of `source.path`.

    Raises:
        DataError: The data are not there, are damaged, or do not fit together; the message says which field helps.
    """
    contents = read_contents(source, dataset)
    name = source.path or type(dataset).__name__
    main, other = choose_splits(contents, source)
    conditions = conditions_of([contents[s] for s in (main, other) if s is not None], source)
    parts = _parts(contents, main, other, source)
    if source.flip and len(parts[0].rows.shape) != 3:
        raise DataError(f"data.flip=true mirrors images; the examples of {name} have shape {parts[0].rows.shape}")
    skipped = _vet(parts, name, source)
    train = parts[0]
    if not len(train.indices):
        raise DataError(f"{name}: no example is left to train on")
    spec = spec_of(train.rows, train.content, source, train.seen, conditions)
    for part in parts:
        if part.seen is not None and len(part.indices):
            check_values(part.rows, part.indices, part.seen, spec)
    splits = [
        Split(
            f"{name}/{part.name}",
            spec,
            part.rows,
            part.indices,
            part.content.labels,
            source.flip and part is train,
            part.content.numbers if isinstance(part.content, Arrays) else None,
        )
        for part in parts
    ]
    return Data(name, spec, splits[0], splits[1] if len(splits) > 1 else None, tuple(skipped))


@dataclasses.dataclass
class _Part:
    """Training or held-out examples on their way to a Split."""

    name: str
    content: Content
    rows: Rows
    indices: np.ndarray
    seen: Survey | None = None


def _parts(contents: dict[str, Content], main: str, other: str | None, source: DataSource) -> list[_Part]:
    """The training part and, where anything is held out, that one."""
    rows = rows_of(contents[main], source)
    everything = np.arange(len(rows))
    if other is not None:
        held_rows = rows_of(contents[other], source)
        if held_rows.shape != rows.shape:
            raise DataError(
                f"{source.path}: examples of {main!r} have shape {rows.shape}, of {other!r} {held_rows.shape}"
            )
        parts = [
            _Part(main, contents[main], rows, everything),
            _Part(other, contents[other], held_rows, np.arange(len(held_rows))),
        ]
    else:
        train, held = _hold_out(everything, source)
        parts = [_Part("train" if main == "all" else main, contents[main], rows, train)]
        if len(held):
            parts.append(_Part("held-out" if main == "all" else f"{main}-held-out", contents[main], rows, held))
    for part in parts:
        part.indices = _limited(part.indices, source)
    return parts


def _vet(parts: list[_Part], name: str, source: DataSource) -> list[str]:
    """Take statistics where they are needed and leave out bad examples, returning their names.

    Raises:
        DataError: NaN or infinity, and no `skip_bad`.
    """
    bad: list[tuple[_Part, np.ndarray]] = []
    for part in parts:
        if isinstance(part.rows, ImageRows):
            bad.append((part, part.rows.unreadable(part.indices) if source.skip_bad else part.indices[:0]))
        elif needs_survey(part.rows, part.content, source):
            part.seen = survey(part.rows, part.indices)
            bad.append((part, part.seen.bad))
    names = [part.rows.describe(i) for part, rows in bad for i in rows]
    if names and not source.skip_bad:
        count = sum(len(part.indices) for part in parts)
        first = ", ".join(sorted(names, key=_natural)[:5])
        raise DataError(
            f"{name}: {len(names)} of {count} examples hold NaN or infinity (first: {first})."
            " Repair them, or set data.skip_bad=true (--skip-bad) to leave those examples out"
        )
    for part, rows in bad:
        part.indices = np.setdiff1d(part.indices, rows)
    return names


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts row 9 before row 10."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", text)]


def read_contents(source: DataSource, dataset: Any = None) -> dict[str, Content]:
    """The content of the source by split, before decoding.

    Raises:
        DataError: Nothing there, or nothing that a reader knows.
    """
    return stack_labels(_read(source, dataset), source)


def _read(source: DataSource, dataset: Any) -> dict[str, Content]:
    if dataset is not None:
        return read_object(dataset, source.path or type(dataset).__name__, source)
    if source.path is None:
        raise DataError(
            'no data were named: give --data PATH (or data.path), for example "digits" or a folder of images'
        )
    kind = kind_of(source)
    if kind == "digits":
        return read_digits()
    if kind == "object":
        return read_object(import_dataset(source.path), source.path, source)
    path = Path(source.path).expanduser()
    if not path.exists():
        raise _missing(path)
    return dict(READERS[kind].read(path, source))


def kind_of(source: DataSource) -> str:
    """The reader for a source: as it says, or by the name of its path and what lies in its folder.

    Raises:
        DataError: Nothing there, or nothing that a reader knows.
    """
    if source.kind != "auto":
        known = ("digits", "object", *READERS)
        if source.kind not in known and source.kind not in READERS:
            raise DataError(f"data.kind={source.kind!r} is no kind of data.{near(source.kind, ('auto', *known))}")
        return source.kind
    assert source.path is not None
    if source.path == "digits":
        return "digits"
    path = Path(source.path).expanduser()
    if not path.exists():
        if is_import_path(source.path):
            return "object"
        raise _missing(path)
    return _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)


def _missing(path: Path) -> DataError:
    parent = path.parent
    if not parent.is_dir():
        return DataError(f"{path} does not exist, nor does the folder {parent}")
    names = [p.name for p in parent.iterdir() if not p.name.startswith(".")][:2000]
    hint = near(path.name, names) if names else f" The folder {parent} is empty."
    return DataError(f"{path} does not exist.{hint if len(hint) < 300 else ''}")


def _kind_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in arrays.SUFFIXES:
        return "array"
    if suffix == ".parquet":
        return "parquet"
    if idx.is_idx_name(path.name):
        return "idx"
    if cifar.is_cifar_file(path):
        return "cifar"
    if lmdb_files.is_lmdb(path):
        return "lmdb"
    if tfrecord.is_tfrecord_name(path.name):
        return "tfrecord"
    if cifar.is_pickled_file(path):
        raise cifar.pickled(path)
    if path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        raise DataError(f"{path} is an archive: unpack it and give the folder")
    if suffix in folder.SUFFIXES:
        raise DataError(f"{path} is one image; give the folder that holds the images")
    load_announced()
    for name, found in READERS.items():
        if suffix in found.suffixes:
            return name
    known = {suffix for found in READERS.values() for suffix in found.suffixes}
    ending = f"files ending in {suffix}" if suffix else "files without an ending"
    raise DataError(f"{path}: {ending} are not known.{near(suffix, known)} Or set data.kind")


def _kind_of_folder(path: Path) -> str:
    found: dict[str, str] = {}
    stray: dict[str, Path] = {}
    for file in folder.files_below(path):
        kind = _kind_by_name(path, file)
        if kind is None:
            continue
        # A folder of images or parquet may be deep, LSUN's folders lie side by side, all other files where one says.
        depth = {"folder": None, "parquet": None, "lmdb": 2}.get(kind, 1)
        if kind in ("array", "pickle") or (depth is not None and len(file.parts) > depth):
            stray.setdefault(kind, path / file)
        else:
            found.setdefault(kind, str(file))
    if len(found) > 1:
        listed = ", ".join(f"{kind} ({file})" for kind, file in found.items())
        raise DataError(f"{path} holds data of several kinds: {listed}. Choose one with data.kind, or give a subfolder")
    if found or not stray:
        return next(iter(found), "folder")
    kind, example = next(iter(stray.items()))
    if kind == "pickle":
        raise cifar.pickled(example)
    if kind == "array":
        raise DataError(f"{path} is a folder; give the array file in it, for example {example}")
    raise DataError(f"{path} holds {kind} files further down; give their folder, for example {example.parent}")


def _kind_by_name(path: Path, file: PurePosixPath) -> str | None:
    """Data set to which a file belongs; "pickle" for the Python version of CIFAR; None for any other file."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return "parquet"
    if idx.is_idx_name(file.name):
        return "idx"
    if file.name == "data.mdb" or (suffix in lmdb_files.SUFFIXES and file.name != "lock.mdb"):
        return "lmdb"
    if tfrecord.is_tfrecord_name(file.name):
        return "tfrecord"
    if suffix == ".bin" and cifar.is_cifar_file(path / file):
        return "cifar"
    if suffix in folder.SUFFIXES:
        return "folder"
    if suffix in arrays.SUFFIXES:
        return "array"
    return "pickle" if cifar.is_pickled_file(path / file) else None


def choose_splits(contents: dict[str, Content], source: DataSource) -> tuple[str, str | None]:
    """(split to train on, split to hold out or None)."""
    if source.split is not None:
        if source.split not in contents:
            raise DataError(f"{source.path} has no split {source.split!r} (data.split).{near(source.split, contents)}")
        return source.split, None
    if len(contents) == 1:
        return next(iter(contents)), None
    if "train" not in contents:
        raise DataError(f"{source.path} has the splits {', '.join(contents)}: choose one with data.split")
    return "train", next((s for s in ("validation", "test") if s in contents), None)


def _hold_out(indices: np.ndarray, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    if source.held_out == 0 or len(indices) < 2:
        return indices, indices[:0]
    if source.held_out >= len(indices):
        raise DataError(
            f"data.held_out={source.held_out} leaves nothing to train on: there are {len(indices)} examples"
        )
    chosen = np.isin(np.arange(len(indices)), pick(len(indices), source.held_out, source.held_out_seed))
    return indices[~chosen], indices[chosen]


def _limited(indices: np.ndarray, source: DataSource) -> np.ndarray:
    if source.limit is None or len(indices) <= source.limit:
        return indices
    return indices[pick(len(indices), source.limit, source.held_out_seed + 1)]
