"""Small files in the releases' own formats, written by the formats' definitions."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write_cifar10(folder: Path, images: dict[str, np.ndarray], labels: dict[str, list[int]]) -> Path:
    """File name -> images (n, 3, 32, 32) and their labels."""
    folder.mkdir(exist_ok=True)
    for name, x in images.items():
        rows = [bytes([y]) + image.tobytes() for image, y in zip(x, labels[name], strict=True)]
        (folder / name).write_bytes(b"".join(rows))
    (folder / "batches.meta.txt").write_text("".join(f"name{i}\n" for i in range(10)) + "\n")
    return folder


def encoded(array: np.ndarray, kind: str = "webp") -> bytes:
    """A losslessly encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **({"lossless": True, "exact": True} if kind == "webp" else {}))
    return buffer.getvalue()


def write_lmdb(path: Path, entries: dict[bytes, bytes]) -> Path:
    import lmdb

    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=2**24, subdir=path.suffix != ".lmdb") as environment:
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                transaction.put(key, value)
    return path


def bitwise_crc32c(data: bytes) -> int:
    """The definition, a bit at a time."""
    r = 0xFFFFFFFF
    for byte in data:
        r ^= byte
        for _ in range(8):
            r = (r >> 1) ^ (0x82F63B78 if r & 1 else 0)
    return r ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> bytes:
    crc = bitwise_crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(n: int) -> bytes:
    out = b""
    n &= 2**64 - 1
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def example(features: dict[str, bytes | list[int] | list[float]], packed: bool = True) -> bytes:
    """A serialised tf.train.Example."""
    entries = b""
    for name, values in features.items():
        if isinstance(values, bytes):
            feature = field(1, field(1, values))
        elif all(isinstance(v, int) for v in values):
            numbers = [varint(int(v)) for v in values]
            feature = field(3, field(1, b"".join(numbers)) if packed else b"".join(b"\x08" + n for n in numbers))
        else:
            numbers = [struct.pack("<f", v) for v in values]
            feature = field(2, field(1, b"".join(numbers)) if packed else b"".join(b"\x0d" + n for n in numbers))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked_crc(length) + payload + masked_crc(payload)


def write_tfrecord(path: Path, payloads: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(framed, payloads)))
    return path


def raw_records(images: np.ndarray) -> list[bytes]:
    """ProgressiveGAN's records of images (n, C, H, W)."""
    return [example({"shape": list(image.shape), "data": image.tobytes()}) for image in images]
