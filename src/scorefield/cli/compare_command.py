"""`scorefield compare` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Compare:
    """Compare evaluations, metric by metric, where their receipts allow it: difference, interval and verdict.

    Numbers of unlike receipts (another N, reference, features or settings) are refused, exit status 2, with what
    differs and the call that would make them alike. How the samples were made may differ: that is what is compared.
    """

    results: tyro.conf.Positional[tuple[Path, ...]]
    """metrics.json of two or more evaluations, or their folders; each is compared with the first."""
    override: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compare unlike receipts all the same, and record that it was done and in which fields."""
    out: Path | None = None
    """Write the comparison as JSON into this file."""
