"""The folder of a run that holds its checkpoints: step_N folders, and a file `latest` that names the newest."""

from __future__ import annotations

import re
from pathlib import Path


def checkpoints_of(run: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run / "checkpoints"


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    pointer = checkpoints_of(run) / "latest"
    if pointer.is_file():
        named = checkpoints_of(run) / pointer.read_text(encoding="utf-8").strip()
        if (named / "state.json").is_file():
            return named
    found = checkpoint_steps(run)  # the pointer is written last: after a crash a whole folder may be newer
    return checkpoints_of(run) / f"step_{found[-1]}" if found else None


def checkpoint_steps(run: Path) -> list[int]:
    """The steps of which there is a whole checkpoint, ascending."""
    pattern = re.compile(r"step_(\d+)$")
    found = [(pattern.match(p.name), p) for p in checkpoints_of(run).glob("step_*")]
    return sorted(int(m.group(1)) for m, p in found if m and (p / "state.json").is_file())
