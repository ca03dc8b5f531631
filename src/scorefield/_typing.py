"""Types that several packages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

Condition: TypeAlias = Mapping[str, Tensor]
"""Conditions of each example: name -> tensor with leading axis B.

A class is int64 of shape (B,), -1 where it is not known; a vector is (B, size) and an image (B, channels, *spatial),
NaN where not known. Unknown entries are what condition drop-out writes during training.
"""

ScoreFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""score(x, t) with the condition already bound: x of shape (B, *event), t of shape (B,), returns the shape of x."""
