"""CelebA's lists: which image belongs to which split, and the forty attributes (Liu et al. 2015).

`list_eval_partition.txt` has a line "000001.jpg 0" per image (0 train, 1 validation, 2 test); `list_attr_celeba.txt` a
count, the names of the attributes, and a line with 1 or -1 for each of them per image. The same tables with commas and
a header, ending in .csv, are read too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from scorefield._codec import near
from scorefield.data.source import DataError

_SPLITS = {"0": "train", "1": "validation", "2": "test"}


def find_list(folder: Path, name: str, sub: str) -> Path | None:
    """A list in the folder or in its subfolder `sub`; beside it, where it is img_align_celeba or the like."""
    places = [folder, folder / sub]
    top = folder
    while top.name.startswith(("img_align_celeba", "img_celeba", "Img")):
        top = top.parent
        places += [top, top / sub]
    files = [place / f"{name}{suffix}" for place in places for suffix in (".txt", ".csv")]
    return next((file for file in files if file.is_file()), None)


def partition(folder: Path, files: Sequence[PurePath]) -> dict[str, list[int]] | None:
    """Split -> numbers of its files, or None where there is no list.

    Raises:
        DataError: A file that the list does not name, or a list of something else.
    """
    file = find_list(folder, "list_eval_partition", "Eval")
    if file is None:
        return None
    _, rows = _rows(file)
    found: dict[str, list[int]] = {}
    for number, row in enumerate(_of_files(file, rows, folder, files)):
        if len(row) != 1 or row[0] not in _SPLITS:
            raise DataError(f"{file}: {files[number].name} has {' '.join(row)!r} where 0, 1 or 2 says its split")
        found.setdefault(_SPLITS[row[0]], []).append(number)
    return {split: found[split] for split in _SPLITS.values() if split in found}


def attribute(folder: Path, files: Sequence[PurePath], name: str) -> tuple[np.ndarray, tuple[str, str]]:
    """One attribute of each file as a class, 1 where it has it, and the names of the two classes.

    Raises:
        DataError: No list of attributes, or no such attribute.
    """
    file = find_list(folder, "list_attr_celeba", "Anno")
    if file is None:
        raise DataError(
            f"{folder}: data.label_key={name} names an attribute of CelebA, and there is no list_attr_celeba.txt beside"
            " the images; the labels of other folders are the folders' names"
        )
    names, rows = _rows(file)
    if name not in names:
        raise DataError(f"{file} has no attribute {name!r} (data.label_key).{near(name, names)}")
    column = names.index(name)
    values = []
    for number, row in enumerate(_of_files(file, rows, folder, files)):
        if len(row) != len(names) or row[column] not in ("1", "-1", "0"):
            raise DataError(f"{file}: the line of {files[number].name} does not hold 1 or -1 for {len(names)} names")
        values.append(row[column] == "1")
    return np.array(values, np.int64), (f"not {name}", name)


def _rows(file: Path) -> tuple[list[str], dict[str, list[str]]]:
    """(names of the columns, image without its ending -> values)."""
    comma = "," if file.suffix == ".csv" else None
    header: list[str] = []
    rows: dict[str, list[str]] = {}
    for line in file.read_text(errors="replace").splitlines():
        fields = [field.strip() for field in line.split(comma)]
        if fields and "." in fields[0]:
            rows[PurePath(fields[0]).stem] = fields[1:]
        elif len(fields) > 1 and not rows:
            header = fields[1:] if comma else fields
    return header, rows


def _of_files(file: Path, rows: dict[str, list[str]], folder: Path, files: Sequence[PurePath]) -> list[list[str]]:
    seen: dict[str, PurePath] = {}
    for path in files:
        if path.stem not in rows:
            raise DataError(f"{folder / path} is not in {file}; restore the list, or move the images away from it")
        if path.stem in seen:
            raise DataError(f"{folder} holds {seen[path.stem]} and {path}: give the folder of one of the versions")
        seen[path.stem] = path
    return [rows[path.stem] for path in files]
