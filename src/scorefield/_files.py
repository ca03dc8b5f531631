"""Atomic writing of files and folders: none is ever incomplete, also after a crash or on a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read once at import, because the only way to read the mask is to set it, which would affect files of other threads.
_UMASK = os.umask(0)
os.umask(_UMASK)


class NoSpaceError(OSError):
    """The disk is full; the message says what could not be written and what is intact."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`. At the end of the block it is flushed to disk and replaces `path`.

    Raises:
        NoSpaceError: The disk is full; `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # some libraries write files that only their owner can read
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise _explained(error, path) from error
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


def _explained(error: OSError, path: Path) -> OSError:
    """The error, or a `NoSpaceError` with an explanation in its place if the disk is full."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    return NoSpaceError(
        errno.ENOSPC,
        f"no space left to write {path} ({free / 2**20:.0f} MiB free on that disk); what was there before is intact."
        " Free some space or choose another --out",
    )


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder that replaces the folder `path` at the end of the block, after all its files are flushed.

    Raises:
        NoSpaceError: The disk is full; the temporary folder, and parents created for it, are removed.
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
        raise _explained(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):  # removes only empty parents, that is, if the folder was not written
                parent.rmdir()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write strict JSON atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
