"""Writing a file so that a reader, a crash or a full disk never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

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
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
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
