"""The table of noise levels, `sigmas`, that the releases keep beside their weights, most noise first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.interop.import_result import CheckpointError
from scorefield.process.tabulated import GeometricSigmas, Ladder, LinearSigmas

TOLERANCE = 1e-4
"""Relative: tables are kept in float32, of numbers that a configuration may round."""


def take_table(state: dict[str, Any], checkpoint: Path) -> Tensor | None:
    """Take the table out of a state dictionary; None where it has none.

    Raises:
        CheckpointError: The table is no decreasing list of positive numbers.
    """
    sigmas = state.pop("sigmas", None)
    if sigmas is None:
        return None
    levels = sigmas.ndim == 1 and len(sigmas) > 0 and sigmas.is_floating_point()
    if not levels or not bool(sigmas.isfinite().all() & (sigmas > 0).all() & (sigmas.diff() < 0).all()):
        raise CheckpointError(
            f"the noise levels `sigmas` in {checkpoint} must be a list of positive numbers that falls from the most"
            f" noise to the least; it is {_shown(sigmas)}"
        )
    return sigmas


def rounded(sigma: Tensor) -> float:
    """A number of a table as its author wrote it: exp(log x) differs from x in the last digits."""
    return float(f"{float(sigma):.{12 if sigma.dtype == torch.float64 else 6}g}")


def _shown(sigmas: Tensor) -> str:
    if sigmas.ndim != 1:
        return f"a tensor of shape {tuple(sigmas.shape)}"
    return f"{[float(f'{v:.6g}') for v in sigmas[:4].tolist()]}{', ...' if len(sigmas) > 4 else ''}"


def ladder_of(sigmas: Tensor, checkpoint: Path) -> GeometricSigmas | LinearSigmas:
    """The ladder that a table is.

    Raises:
        CheckpointError: The levels are neither geometric nor equally spaced.
    """
    low, high = rounded(sigmas[-1]), rounded(sigmas[0])
    if len(sigmas) == 1:
        return GeometricSigmas(high, high, 1)
    for made in (GeometricSigmas, LinearSigmas):
        if _same(sigmas, ladder := made(low, high, len(sigmas))):
            return ladder
    raise CheckpointError(
        f"the noise levels in {checkpoint} are neither geometric nor equally spaced: {_shown(sigmas)}"
    )


def check_table(sigmas: Tensor, ladder: GeometricSigmas | LinearSigmas, checkpoint: Path, *, read: bool = True) -> None:
    """Refuse a ladder that is not the checkpoint's.

    Args:
        sigmas: The table in the checkpoint.
        ladder: What the configuration, or the flags, say.
        checkpoint: Path of the checkpoint, for the message.
        read: Whether the model reads the table; otherwise its length alone counts.

    Raises:
        CheckpointError: They differ; both are named.
    """
    if len(sigmas) == ladder.levels and (not read or _same(sigmas, ladder)):
        return
    own = ladder.table()[1]
    raise CheckpointError(
        f"the noise levels of {checkpoint} are {len(sigmas)} from {float(sigmas[-1]):g} to {float(sigmas[0]):g}; the"
        f" configuration (or the flags) says {ladder.levels} from {float(own[0]):g} to {float(own[-1]):g}"
        f" ({type(ladder).__name__}): it belongs to another checkpoint"
    )


def _same(sigmas: Tensor, ladder: Ladder) -> bool:
    return torch.allclose(sigmas.double(), ladder.table()[1].flip(0), rtol=TOLERANCE, atol=0.0)
