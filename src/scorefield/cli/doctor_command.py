"""`scorefield doctor ...` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Doctor:
    """Examine a model's score on data: what exact scores satisfy, level by level, and the name of what is wrong.

    Prints a table and the findings (healthy, suspect, faulty), and writes doctor.json and report.html. The exit status
    is 0 whatever it found; with --strict it is 1 where the verdict is faulty.
    """

    model: tyro.conf.Positional[str]
    """A run or model folder, the name of a bundled model (digits), or oracle:NAME with gaussian-8d, mixture-2d,
    mixture-8d, mixture-64d or field, laws that are known exactly."""
    data: str | None = None
    """Data that the model was not trained on. Default: the held-out part of its own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    """Examples, at most; from 32."""
    levels: int = 12
    """Noise levels, in equal steps of log(alpha^2 / sigma^2) or of the model's ladder."""
    seed: int = 0
    """Of noise and probes."""
    weights: str | None = None
    """raw, ema, ema:0.999, ... Default: the first average, which is compared with the raw weights."""
    batch_size: int = 128
    """Examples at a time."""
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Exit with status 1 where the verdict is faulty."""
    out: Path | None = None
    """Folder. Default: doctor/MODEL."""
