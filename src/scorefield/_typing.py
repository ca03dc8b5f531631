"""Types that several packages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

Condition: TypeAlias = Mapping[str, Tensor]
"""Conditions of each example: name -> tensor with leading axis B.

A class is int64 of shape (B,), -1 where it is unknown. A vector has shape (B, size) and an image (B, channels,
*spatial); both are NaN where they are unknown. Condition drop-out during training sets conditions to unknown.
"""

ScoreFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function score(x, t) with a fixed condition: x has shape (B, *event), t shape (B,), the result the shape of x."""
