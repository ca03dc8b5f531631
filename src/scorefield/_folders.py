"""Writing files and folders so that a reader, a crash or a full disk never meets half of one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scorefield._files import NoSpaceError, replacing, sync, translated

__all__ = ["NoSpaceError", "replacing", "replacing_folder", "sync", "write_json", "write_text"]


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """`replacing` for a folder and all files in it; an older folder of that name is removed first.

    Raises:
        NoSpaceError: There was no room; neither the folder nor parents made for it are left.
    """
    path = Path(path)
    missing = [parent for parent in path.parents if not parent.exists()]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise translated(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):  # of those that are empty because the folder could not be written
                parent.rmdir()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write strict JSON atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
