"""IDX files, the format of MNIST and Fashion-MNIST, raw or gzipped.

Layout: two zero bytes, a type code, the number of axes, the axes as big-endian uint32, then the values, big-endian
(LeCun, Cortes & Burges, "The MNIST database").
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from scorefield.data.readers.content import Arrays, Content
from scorefield.data.readers.labels import SPLIT_NAMES, class_numbers
from scorefield.data.source import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAME = re.compile(r"[-.]idx\d[-.]?ubyte(\.gz)?$|\.idx\d?(\.gz)?$", re.IGNORECASE)


def is_idx_name(name: str) -> bool:
    """Whether a file is called like an IDX file, for example train-images-idx3-ubyte.gz."""
    return _NAME.search(name) is not None


def read_idx_file(path: Path) -> np.ndarray:
    """The array of one file; a raw file is memory-mapped, a gzipped one is read.

    Raises:
        DataError: No IDX file, or shorter or longer than its header says.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
                raise DataError(f"{path} is not an IDX file: it begins with {magic.hex() or 'nothing'}")
            dtype = np.dtype(_TYPES[magic[2]])
            axes = file.read(4 * magic[3])
            if len(axes) < 4 * magic[3]:
                raise DataError(f"{path} is truncated within its header")
            shape = tuple(int(n) for n in np.frombuffer(axes, ">u4"))
            wanted = math.prod(shape) * dtype.itemsize
            # One byte more than wanted tells a longer file, and a false header cannot ask for memory it has not.
            found = len(body := file.read(wanted + 1)) if packed else path.stat().st_size - 4 - len(axes)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or truncated ({error})") from None
    if found != wanted:
        what = "is truncated" if found < wanted else "is longer than its header says"
        raise DataError(f"{path} {what}: shape {shape} of {dtype} needs {wanted} bytes and it has {found} or more")
    if packed:
        return np.frombuffer(body, dtype).reshape(shape)
    if wanted == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", 4 + len(axes), shape)


def read_idx(path: Path) -> dict[str, Content]:
    """The images of one file, or of all `*images*` files of a folder by split, with their `*labels*` files.

    Raises:
        DataError: No images file, or two for one split.
    """
    if path.is_file():
        return {"all": _with_labels(path)}
    found: dict[str, Path] = {}
    for file in sorted(f for f in path.iterdir() if is_idx_name(f.name)):
        if "labels" in file.name or file.name.removesuffix(".gz") in {f.name for f in found.values()}:
            continue
        split = next((s for word, s in SPLIT_NAMES.items() if word in re.split(r"[-_.]", file.name.lower())), "all")
        if split in found:
            raise DataError(f"{path} holds {found[split].name} and {file.name}: give one of the files as the path")
        found[split] = file
    if not found:
        raise DataError(f"{path} holds no IDX file of images (such as train-images-idx3-ubyte.gz)")
    return {split: _with_labels(file) for split, file in found.items()}


def _with_labels(images: Path) -> Arrays:
    array = read_idx_file(images)
    if array.ndim < 2:
        raise DataError(f"{images} has shape {array.shape}: it holds labels, not examples")
    layout = "grey" if array.ndim == 3 else None
    labels = _labels_beside(images)
    if labels is None:
        return Arrays(array, str(images), layout=layout)
    numbers, _ = class_numbers(read_idx_file(labels), len(array), labels.name)
    return Arrays(array, str(images), numbers, layout=layout)


def _labels_beside(images: Path) -> Path | None:
    if "images" not in images.name:
        return None
    name = re.sub(r"idx\d", "idx1", images.name.replace("images", "labels")).removesuffix(".gz")
    return next((images.parent / n for n in (name, f"{name}.gz") if (images.parent / n).is_file()), None)
