"""Operators and masks by name, with the files they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from scorefield.inverse.operators.by_name import operator_named, part
from scorefield.inverse.operators.operator import Operator


def operator_of(text: str, event: tuple[int, ...]) -> Operator:
    """The operator of a name such as "blur:sigma=2", for data units; see `by_name`.

    Args:
        text: A name and its parameters.
        event: Shape of one example.

    Raises:
        ValueError: The text, the operator or a file is invalid; the message says how.
        FileNotFoundError: There is no such file.
    """
    return operator_named(text, event, read_array)


def read_part(which: str, event: tuple[int, ...]) -> Tensor:
    """A part of an event by name or from a file, bool, (*spatial); see `by_name.part`."""
    return part(which, event, read_array)


def read_array(path: str) -> Tensor:
    """The array of an .npy file, or the grey values 0..255 of an image.

    Raises:
        ValueError: The file holds no numbers, or is no image.
        FileNotFoundError: There is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if Path(path).suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise ValueError(f"{path} is no .npy file of numbers: {error}") from None
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{path} holds {array.dtype}, not real numbers")
    else:
        try:
            with Image.open(path) as image:
                array = np.asarray(image.convert("L"))
        except UnidentifiedImageError:
            raise ValueError(f"{path} is neither an .npy file nor an image") from None
    kind = array.dtype if array.dtype.kind in "bf" else np.dtype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array, kind.newbyteorder("=")))
