"""The bundled digits: 1797 handwritten digits of 8 x 8 pixels with grey levels 0..16 (UCI, see bundled/digits.txt)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scorefield.data.readers.content import Arrays, Content

_FILE = Path(__file__).parents[1] / "bundled" / "digits.npz"


def read_digits() -> dict[str, Content]:
    """The fixed split, 1437 for training and 360 for testing, with every class in proportion."""
    with np.load(_FILE, allow_pickle=False) as stored:
        return {split: _arrays(split, stored[split], stored[f"{split}_labels"]) for split in ("train", "test")}


def _arrays(split: str, images: np.ndarray, labels: np.ndarray) -> Arrays:
    return Arrays(
        array=images,
        name=f"digits {split}",
        labels=labels.astype(np.int64),
        class_names=tuple("0123456789"),
        grey=(0.0, 16.0, 17),
        layout="grey",
    )
