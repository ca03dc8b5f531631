"""Small files in every format that scorefield reads, written by the formats' definitions."""

from __future__ import annotations

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield.data import Data, DataError, DataSource, Split, open_data

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def write_images(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Relative name -> pixels (H, W) or (H, W, 3)."""
    for name, array in arrays.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    return folder


def pictures(n: int, size: tuple[int, int] = (6, 6), seed: int = 0) -> np.ndarray:
    """Random RGB images (n, H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3)).astype(np.uint8)


def write_parquet(
    path: Path,
    images: list,
    labels: list[int] | None,
    names: list[str] | None = None,
    column: str = "image",
    group: int = 4,
) -> Path:
    """Hugging Face layout; images are encoded bytes, None, or a path as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"bytes": None, "path": image} if isinstance(image, str) else {"bytes": image, "path": None} for image in images
    ]
    columns = {column: pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    features: dict = {column: {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
        if names is not None:
            features["label"] = {"_type": "ClassLabel", "names": names}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def held(data: Data) -> Split:
    """The held-out split, which must exist."""
    assert data.held_out is not None
    return data.held_out


def labels(split: Split) -> np.ndarray:
    """The labels of a split, which must exist."""
    assert split.labels is not None
    return split.labels


def everything(split: Split) -> np.ndarray:
    """All examples."""
    return split.batch(range(len(split)))[0].numpy()


def whole(path, **fields) -> Split:
    """All examples of the training split."""
    return open_data(DataSource(str(path), held_out=0, **fields)).train


def refused(path, *parts: str, **fields) -> None:
    """Opening (and reading) raises one DataError whose message holds all parts."""
    with pytest.raises(DataError) as caught:
        data = open_data(DataSource(str(path), held_out=0, **fields))
        data.train.batch(range(len(data.train)))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
