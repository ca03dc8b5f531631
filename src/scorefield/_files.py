"""Atomic writing of files and folders: a reader, a crash or a full disk never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read once: asking for it means setting it, which another thread must not meet.
_UMASK = os.umask(0)
os.umask(_UMASK)


class NoSpaceError(OSError):
    """The disk is full; the message says what could not be written and what is intact."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; when the block ends it is synced to disk and takes the place of `path`.

    Raises:
        NoSpaceError: There was no room; `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # some writers make files that only their owner reads
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise translated(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk; Windows flushes files that are open for writing, and no folders."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def translated(error: OSError, path: Path) -> OSError:
    """A `NoSpaceError` that says what could not be written, where the disk is full; any other error as it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    there = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    return NoSpaceError(
        errno.ENOSPC,
        f"no space left to write {path} ({free / 2**20:.0f} MiB free on that disk); what was there before is intact."
        " Free some space or choose another --out",
    )


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
