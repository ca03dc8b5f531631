"""Plots and pictures of examples, samples and curves."""

from __future__ import annotations

from scorefield.plot import (
    pictures,
)

__all__ = [
    "pictures",
]
