"""Finished parts of a long computation over examples 0, 1, 2, ...: files that are whole and say what they are of.

A folder holds the parts of one computation, `NAME_<first index>.npz`, and `NAME.json`, which describes what the
computation depends on. Every part carries the hash of that text and of its own examples, so that a part of another
model, seed or sampler is never taken for one of this, wherever it was copied from.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._files import replacing, write_json

Arrays = Mapping[str, Tensor]
HEADER = "header"


class StalePartError(ValueError):
    """A file that is in the place of a part and is not of this computation."""


def digest_of(identity: Mapping[str, Any]) -> str:
    """Hash of everything a computation depends on, given as JSON values."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Parts:
    """The parts of one computation in a folder.

    Args:
        folder: Folder of the parts; made when the first is written.
        name: Name of this computation among those in the folder.
        identity: Everything its numbers depend on, but how many there are, as JSON values.
    """

    def __init__(self, folder: Path, name: str, identity: Mapping[str, Any]):
        self.folder, self.name, self.identity = folder, name, identity
        self.digest = digest_of(identity)

    def path(self, first: int) -> Path:
        """The file of the part that begins with an index."""
        return self.folder / f"{self.name}_{first:08d}.npz"

    def has(self, first: int, count: int, of: str = "") -> bool:
        """Whether a part is there, of that many examples; raises as `read`."""
        return self._header(self.path(first), count, of) is not None

    def read(self, first: int, count: int, of: str = "") -> dict[str, Tensor] | None:
        """A part, or None where it is missing, damaged, of another number of examples or made of other ones.

        Args:
            first: Index of its first example.
            count: Number of its examples.
            of: Hash of what it was made of.

        Raises:
            StalePartError: The file is of another computation.
        """
        path = self.path(first)
        if self._header(path, count, of) is None:
            return None
        try:
            # Opened here: np.load leaves a file that it cannot read open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return {key: torch.from_numpy(stored[key]) for key in stored.files if key != HEADER}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None  # the disk lost some of it; it is computed again

    def write(self, first: int, arrays: Arrays, of: str = "") -> None:
        """Write a part, atomically; the first one also writes the description of the computation.

        Raises:
            NoSpaceError: The disk is full; the parts before are intact.
        """
        described = self.folder / f"{self.name}.json"
        if not described.is_file():
            write_json(described, dict(self.identity))
        count = len(next(iter(arrays.values())))
        header = json.dumps({"digest": self.digest, "first": first, "count": count, "of": of})
        with replacing(self.path(first)) as temporary, temporary.open("wb") as file:
            values = {key: value.detach().cpu().numpy() for key, value in arrays.items()}
            np.savez(file, allow_pickle=False, **values, **{HEADER: np.array(header)})

    def _header(self, path: Path, count: int, of: str) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                header = json.loads(str(stored[HEADER]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        if header["digest"] != self.digest:
            raise StalePartError(
                f"{path} is a part of another computation (its header says {header['digest'][:12]}, this one is"
                f" {self.digest[:12]}); it would mix samples of two settings. Remove it, or choose another --out"
            )
        return header if (header["count"], header["of"]) == (count, of) else None


def ranges(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, count) of every part of n examples, `size` at a time."""
    for first in range(0, n, size):
        yield first, min(size, n - first)


def differing(here: Any, there: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(field, here, there) wherever two JSON values differ."""
    if isinstance(here, dict) and isinstance(there, dict):
        for key in {**here, **there}:
            yield from differing(here.get(key), there.get(key), f"{path}.{key}".lstrip("."))
    elif here != there:
        yield path, here, there


def others(parent: Path, own: Parts) -> list[str]:
    """A line for each other computation whose parts lie in sibling folders: how many, and what differs."""
    lines = []
    for described in sorted(parent.glob(f"*/{own.name}.json")):
        if described.parent == own.folder:
            continue
        try:
            there = json.loads(described.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        found = [f"{field}: {_cut(b)} there, {_cut(a)} here" for field, a, b in differing(dict(own.identity), there)]
        count = len(list(described.parent.glob(f"{own.name}_*.npz")))
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        lines.append(f"{described.parent} holds {count} parts of other settings ({shown}); they stay, and are not used")
    return lines


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
