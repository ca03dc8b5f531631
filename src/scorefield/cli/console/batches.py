"""Resumable work on many examples: finished batches are kept, and the same command continues from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._files import replacing, write_json
from scorefield.cli.console.progress import sampling_display

Arrays = dict[str, Tensor]


def claim(path: Path, identity: dict[str, Any]) -> None:
    """Mark a folder as that of one computation.

    Raises:
        ValueError: The folder holds batches of another computation.
    """
    if not path.is_file():
        write_json(path, identity)
        return
    other = json.loads(path.read_text())
    differs = [key for key in identity if other.get(key) != json.loads(json.dumps(identity[key]))]
    if differs:
        raise ValueError(
            f"{path.parent} holds batches of another computation (other {', '.join(differs)}); choose another --out"
        )


def in_batches(
    compute: Callable[[slice], Arrays], n: int, size: int, folder: Path, name: str, identity: dict[str, Any]
) -> Arrays:
    """Arrays of all examples, those that an earlier run finished read from its files.

    Args:
        compute: The arrays of some examples, leading axis the examples.
        n: Number of examples.
        size: Examples at a time.
        folder: Folder of the finished batches.
        name: Name of this set of examples among those in the folder.
        identity: Everything the arrays depend on.

    Raises:
        ValueError: The folder holds batches of another computation, or no batch size.
        KeyboardInterrupt: Stopped; the message says how to go on.
    """
    if size < 1 or n < 1:
        raise ValueError(f"{n} examples in batches of {size}: both must be at least 1")
    claim(folder / f"{name}.json", identity)
    parts: list[Arrays] = []
    try:
        with sampling_display(n, f"examples ({name})") as display:
            for first in range(0, n, size):
                rows, path = slice(first, min(first + size, n)), folder / f"{name}_{first:08d}.npz"
                if path.is_file():
                    part = read(path)
                else:
                    part = {key: value.detach().cpu() for key, value in compute(rows).items()}
                    save(path, part)
                parts.append(part)
                display.finished(first, rows.stop - rows.start)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"{len(parts)} batches of {-(-n // size)} are done; they are in {folder}; the same command continues"
        ) from stop
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays to an .npz, atomically."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{key: value.cpu().numpy() for key, value in arrays.items()})


def read(path: Path) -> Arrays:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return {key: torch.from_numpy(value) for key, value in stored.items()}
