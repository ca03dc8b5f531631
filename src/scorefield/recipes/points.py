"""Point sets in the plane, as data for the smallest recipes."""

from __future__ import annotations

import math

import numpy as np


def spiral(count: int = 4000, seed: int = 0) -> np.ndarray:
    """Points along two turns of a spiral, denser outside, with noise across: (count, 2), float32."""
    generator = np.random.default_rng(seed)
    turn = np.sqrt(generator.uniform(0.05, 1.0, count))
    angle = 4.0 * math.pi * turn
    curve = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1)
    return (curve + 0.02 * generator.standard_normal((count, 2))).astype(np.float32)
