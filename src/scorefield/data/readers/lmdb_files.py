"""Encoded images in LMDB: LSUN's folders, and the layout of several resolutions that NCSNv2 uses for FFHQ.

LSUN (Yu et al. 2015) has a folder `<category>_<split>_lmdb` per category and split, in which every value is an encoded
image; examples are in the order of their keys. The other layout has a key `length` and keys `{resolution}-{index:05d}`.
Environments are opened read-only and without a lock file, once per process however many readers use them. Values are
read when they are asked for; of the keys only every 64th is held, from which a cursor walks.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import threading
import weakref
from pathlib import Path
from typing import Any

from PIL import Image

from scorefield._codec import near
from scorefield.data.images import ENCODED
from scorefield.data.readers.content import Content, Images
from scorefield.data.readers.labels import SPLIT_NAMES
from scorefield.data.source import DataError, DataSource, square

SUFFIXES = (".mdb", ".lmdb")

_STRIDE = 64
_LOOKED_AT = 8
_RESOLUTION = re.compile(rb"(\d+)-\d{5,}")


def _lmdb() -> Any:
    try:
        import lmdb
    except ImportError:
        raise DataError("reading LMDB needs lmdb: pip install scorefield[data]") from None
    return lmdb


def is_lmdb(path: Path) -> bool:
    """Whether a path is an LMDB environment: a folder with data.mdb, or a file of that kind."""
    return (path / "data.mdb").is_file() if path.is_dir() else path.suffix in SUFFIXES


def read_lmdb(path: Path, source: DataSource) -> dict[str, Content]:
    """One environment, or the splits of one category of a folder of LSUN's folders.

    Args:
        path: `<category>_<split>_lmdb`, a folder of such folders, or a file.
        source: The data source; its `key` is the category where there are several, and `size`, the resolution where
            there are several.

    Raises:
        DataError: No environment, a damaged one, no images in it, a choice to make.
    """
    if is_lmdb(path):
        return {"all": _images(path, source)}
    found: dict[str, dict[str, Path]] = {}
    for child in sorted(path.iterdir()) if path.is_dir() else ():
        if is_lmdb(child):
            words = re.sub(r"[._]l?mdb$", "", child.name.lower()).split("_")
            split = SPLIT_NAMES.get(words[-1])
            category = "_".join(words if split is None else words[:-1])
            found.setdefault(category, {})[split or "all"] = child
    if not found:
        raise DataError(f"{path} is no LMDB folder (with data.mdb in it), nor does it hold one")
    if source.key is not None and source.key not in found:
        raise DataError(f"{path} has no category {source.key!r} (data.key).{near(source.key, found)}")
    chosen = [source.key] if source.key is not None else [c for c in found if c] or [""]
    if len(chosen) > 1:  # LSUN's test_lmdb, a mixture, has no category and is left alone
        raise DataError(f"{path} holds several categories ({', '.join(chosen)}): choose one with data.key")
    return {split: _images(child, source) for split, child in found[chosen[0]].items()}


def _images(path: Path, source: DataSource) -> Images:
    environment = _environment(path)
    length = environment.get(b"length")
    resolutions = [] if length is None else _resolutions(environment)
    if length is None or not resolutions:
        keys = _Keys(environment)
        _check_images(keys, path)
        return Images(keys.count, keys.open, keys.name)
    numbered = _Numbered(environment, _resolution(path, resolutions, source), length)
    return Images(numbered.count, numbered.open, numbered.name)


# ------------------------------------------------------------------------------------------------ environments


class _Environment:
    """An open environment; used by any number of threads, each call in a transaction of its own.

    A forked child uses its parent's: without lock file and writing, an environment is a mapped file and nothing else.
    """

    def __init__(self, path: Path):
        lmdb = _lmdb()
        self.path = path
        file = path / "data.mdb" if path.is_dir() else path
        try:
            size = file.stat().st_size
            self._env = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, max_spare_txns=16
            )
            page, last = self._env.stat()["psize"], self._env.info()["last_pgno"]
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{path} is not a whole LMDB environment ({str(error).split(': ', 1)[-1]})") from None
        # The library maps the file, and touching a page behind its end would kill the process.
        if size < (last + 1) * page:
            self._env.close()
            raise DataError(
                f"{file} is truncated: its header counts {last + 1} pages of {page} bytes, and the file has {size}"
                " bytes. Copy it again, or rewrite it with `mdb_copy -c` where the original is no longer"
            )
        self.entries = int(self._env.stat()["entries"])

    def begin(self) -> Any:
        """A read transaction."""
        return self._env.begin()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        with self.begin() as transaction:
            return transaction.get(key)


_OPEN: weakref.WeakValueDictionary[str, _Environment] = weakref.WeakValueDictionary()
_OPENING = threading.Lock()


def _environment(path: Path) -> _Environment:
    """The environment of a path: the library refuses to open one twice in a process."""
    name = os.path.realpath(path)
    with _OPENING:
        environment = _OPEN.get(name)
        if environment is None:
            environment = _OPEN[name] = _Environment(path)
        return environment


# -------------------------------------------------------------------------------------------------- any keys


class _Keys:
    """Entries by their place in the order of keys."""

    def __init__(self, environment: _Environment):
        self._environment = environment
        self.count = environment.entries
        with environment.begin() as transaction, transaction.cursor() as cursor:
            self._anchors = list(itertools.islice(cursor.iternext(keys=True, values=False), 0, None, _STRIDE))

    def item(self, index: int) -> tuple[bytes, bytes]:
        """Key and value."""
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            cursor.set_key(self._anchors[index // _STRIDE])
            for _ in range(index % _STRIDE):
                cursor.next()
            return cursor.item()

    def open(self, index: int) -> Image.Image:
        """Open the image of an entry."""
        return Image.open(io.BytesIO(self.item(index)[1]))

    def name(self, index: int) -> str:
        """Environment and key."""
        return f"{self._environment.path}[{self.item(index)[0].decode(errors='backslashreplace')}]"


def _check_images(keys: _Keys, path: Path) -> None:
    if keys.count == 0:
        raise DataError(f"{path} is an LMDB environment without entries")
    step = -(-keys.count // _LOOKED_AT)
    items = [keys.item(i) for i in range(0, keys.count, step)]
    if not any(value.startswith(ENCODED) for _, value in items):
        key, value = items[0]
        raise DataError(
            f"{path} holds no images: the value of the key {key[:40]!r} begins with {value[:12]!r}, and none of"
            f" {len(items)} values looks like JPEG, PNG or WEBP. Raw or serialised arrays can be saved as .npy"
        )


# ------------------------------------------------------------------------------------------- numbered by size


class _Numbered:
    """The images of one resolution, by number."""

    def __init__(self, environment: _Environment, resolution: int, length: bytes):
        self._environment, self._resolution = environment, resolution
        if not length.isdigit() or int(length) == 0:
            raise DataError(f"{environment.path}: the key 'length' holds {length[:20]!r} where a number is wanted")
        self.count = int(length)
        if environment.get(self._key(self.count - 1)) is None:
            raise DataError(
                f"{environment.path}: its length is {self.count}, and there is no entry"
                f" {self._key(self.count - 1).decode()!r}; it was not written to the end"
            )

    def _key(self, index: int) -> bytes:
        return f"{self._resolution}-{index:05d}".encode()

    def open(self, index: int) -> Image.Image:
        """Open image i."""
        value = self._environment.get(self._key(index))
        if value is None:
            raise DataError("there is no such entry")
        return Image.open(io.BytesIO(value))

    def name(self, index: int) -> str:
        """Environment and key."""
        return f"{self._environment.path}[{self._key(index).decode()}]"


def _resolutions(environment: _Environment) -> list[int]:
    """The resolutions of keys `{resolution}-{index:05d}`, found by leaping from one to the next; empty for others."""
    found = []
    with environment.begin() as transaction, transaction.cursor() as cursor:
        here = cursor.first()
        while here:
            match = _RESOLUTION.fullmatch(cursor.key())
            if match is None:
                if cursor.key() != b"length":
                    return []
                here = cursor.next()
            else:
                found.append(int(match[1]))
                here = cursor.set_range(match[1] + b".")  # the character behind "-"
    return sorted(found)


def _resolution(path: Path, resolutions: list[int], source: DataSource) -> int:
    if len(resolutions) == 1:
        return resolutions[0]
    if (side := square(source.size)) in resolutions:
        return side
    listed = ", ".join(map(str, resolutions))
    asked = "" if source.size is None else f", and not {source.size}"
    raise DataError(f"{path} holds its images at the resolutions {listed}{asked}: choose one with data.size")
