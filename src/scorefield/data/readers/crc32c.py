"""The checksum of TFRecords: CRC-32C (Castagnoli), without a loop over bytes.

A register r that has taken in a message m, starting from zero, is linear in m over GF(2). Hence a message is cut into
rows of 64 bytes; all rows go through the table together, and neighbouring results a, b combine to Z a xor b, where the
matrix Z lets zero bytes follow, as many as b stands for. The usual start from all ones adds a term that depends on the
length alone. The polynomial is 0x82F63B78, bits reversed (RFC 3720, appendix B.4 has test vectors).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

_ROW = 6
"""Rows have 2^6 bytes."""


@functools.cache
def _table() -> np.ndarray:
    """The register after one byte, starting from 0, uint32 (256,)."""
    r = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        r = np.where(r & 1, (r >> 1) ^ np.uint32(0x82F63B78), r >> 1)
    return r


def _follow(tables: np.ndarray, r: np.ndarray) -> np.ndarray:
    """A linear map of registers, given by its values on each of their four bytes."""
    return tables[0][r & 255] ^ tables[1][(r >> 8) & 255] ^ tables[2][(r >> 16) & 255] ^ tables[3][r >> 24]


@functools.cache
def _zeros(k: int) -> np.ndarray:
    """The map of a register when 2^k zero bytes follow, as tables (4, 256)."""
    r = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if k == 0:
        images = _table()[r & 255] ^ (r >> 8)
    else:
        images = _follow(_zeros(k - 1), _follow(_zeros(k - 1), r))
    value = np.arange(256)
    tables = np.zeros((4, 256), np.uint32)
    for bit, image in enumerate(images):
        tables[bit // 8] ^= np.where(value >> bit % 8 & 1, image, np.uint32(0))
    return tables


def _rows(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Registers r (N,) after the bytes of x (N, L)."""
    table = _table()
    for column in np.ascontiguousarray(x.T):
        r = table[(r ^ column) & 255] ^ (r >> 8)
    return r


def crc32c(data: Any) -> int:
    """CRC-32C of the bytes of a buffer."""
    x = np.frombuffer(data, np.uint8)
    rows = -(-len(x) // 2**_ROW)
    padded = np.zeros((1 << max(0, rows - 1).bit_length(), 2**_ROW), np.uint8)
    padded.reshape(-1)[padded.size - len(x) :] = x  # zeros in front leave an empty register empty
    r = _rows(padded, np.zeros(len(padded), np.uint32))
    k = _ROW
    while len(r) > 1:
        r = _follow(_zeros(k), r[0::2]) ^ r[1::2]
        k += 1
    start = np.array([0xFFFFFFFF], np.uint32)
    for bit in range(len(x).bit_length()):
        if len(x) >> bit & 1:
            start = _follow(_zeros(bit), start)
    return int(r[0] ^ start[0]) ^ 0xFFFFFFFF


def crc32c_rows(x: np.ndarray) -> np.ndarray:
    """CRC-32C of each of many short messages, uint8 (N, L) -> uint32 (N,)."""
    return _rows(x, np.full(len(x), 0xFFFFFFFF, np.uint32)) ^ np.uint32(0xFFFFFFFF)


def masked(crc: np.ndarray) -> np.ndarray:
    """The form in which TFRecords store a checksum c: c rotated right by 15 bits, plus 0xA282EAD8, modulo 2^32."""
    crc = crc.astype(np.uint32)
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
