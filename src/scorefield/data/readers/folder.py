"""Image files in a folder, below split folders and class folders where there are any."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from scorefield.data.readers import celeba
from scorefield.data.readers.content import Content, Images
from scorefield.data.readers.labels import SPLIT_NAMES
from scorefield.data.source import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
"""Suffixes of image files; other files in a folder are ignored."""


def files_below(folder: Path) -> Iterator[PurePosixPath]:
    """Relative paths of all files, hidden ones excepted; symbolic links are followed, each folder once."""
    seen = set()
    for top, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(n for n in names if not n.startswith("."))
        for file in files:
            if not file.startswith("."):
                yield PurePosixPath((Path(top) / file).relative_to(folder).as_posix())


def read_folder(folder: Path, label_key: str | None = None) -> dict[str, Content]:
    """Splits of a folder of images; classes are the first folders below the split, in alphabetical order.

    `train/` and `test/` (or `validation/`) folders are splits where they are all there is; CelebA's are those of its
    `list_eval_partition.txt`, in the folder or beside its `img_align_celeba`. Files are ordered by their path, so that
    the index of an example does not depend on the file system.

    Args:
        folder: The folder of the files.
        label_key: An attribute of CelebA's `list_attr_celeba.txt` in place of the folders' names.

    Raises:
        DataError: No image files, or lists of CelebA that do not belong to them.
    """
    everything = list(files_below(folder))
    files = sorted((f for f in everything if f.suffix.lower() in SUFFIXES), key=str)
    if not files:
        raise DataError(
            f"{folder} holds no images ({_found(everything)}); image files end in {', '.join(sorted(SUFFIXES))}"
        )
    by_split: dict[str, list[PurePosixPath]] = {}
    listed = celeba.partition(folder, files)
    if listed is not None:
        by_split, below = {split: [files[i] for i in members] for split, members in listed.items()}, 0
    elif all(len(f.parts) > 1 and f.parts[0].lower() in SPLIT_NAMES for f in files):
        for f in files:
            by_split.setdefault(SPLIT_NAMES[f.parts[0].lower()], []).append(f)
        below = 1
    else:
        by_split, below = {"all": files}, 0
    class_of = {f: f.parts[below] if len(f.parts) > below + 1 else None for f in files}
    classes = sorted({c for c in class_of.values() if c is not None})
    # One class says nothing, and a file beside the class folders has none.
    labelled = len(classes) > 1 and None not in class_of.values()
    number = {c: i for i, c in enumerate(classes)}
    label_of = {f: number[class_of[f] or ""] for f in files} if labelled else None
    if label_key is not None:
        values, names = celeba.attribute(folder, files, label_key)
        label_of, classes = dict(zip(files, values.tolist(), strict=True)), list(names)
    return {
        split: _images(
            folder,
            members,
            None if label_of is None else np.array([label_of[f] for f in members], np.int64),
            None if label_of is None else tuple(classes),
        )
        for split, members in by_split.items()
    }


def _images(
    folder: Path, files: list[PurePosixPath], labels: np.ndarray | None, class_names: tuple[str, ...] | None
) -> Images:
    def name(index: int) -> str:
        return str(folder / files[index])

    return Images(len(files), lambda i: Image.open(name(i)), name, labels, class_names)


def _found(files: list[PurePosixPath]) -> str:
    if not files:
        return "it is empty"
    counts = Counter(f.suffix.lower() or "no suffix" for f in files)
    return "found " + ", ".join(
        f"{n} files with {s}" if s == "no suffix" else f"{n} {s}" for s, n in counts.most_common(5)
    )
