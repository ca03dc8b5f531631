"""The description of data in an experiment, and the error that every reader raises."""

from __future__ import annotations

from typing import Literal

from scorefield._codec import moved, record
from scorefield._plugins import is_import_path
from scorefield.data_spec import PerChannel

Layout = Literal["channels_first", "channels_last", "grey"]


class DataError(ValueError):
    """Data that cannot be used as asked; the message says what was found, why not, and which field to set."""


@record
class DataSource:
    """Where the data of an experiment are and how they become examples.

    Geometry, in this order: images are turned upright (their EXIF orientation is always applied, as every viewer does),
    cropped, resized with antialiasing, padded, stacked, and, in training only, flipped.

    The releases' preprocessing in these terms (spare pixels of odd margins go below and right):

    | release | data | fields |
    | --- | --- | --- |
    | NCSN | CelebA 32 | `crop=(140, 140), size=32, resample="bilinear", flip=True` |
    | NCSNv2 | CelebA 64 | `crop=(140, 140), size=64, resample="bilinear", flip=True` |
    | NCSNv2 | LSUN s | `size=s, resample="bilinear", flip=True` (shorter side to s, then the centre) |
    | Score SDE | CelebA 64 | `crop=(140, 140), size=64, resample="bilinear", flip=True` |
    | Score SDE | LSUN 128 | `size=128, resample="bilinear", flip=True` |
    | Score SDE | LSUN 256 | `crop="center", size=256, resample="bicubic", flip=True` |
    | MDSM | MNIST, Fashion-MNIST | `pad=2` |
    | ACSM | Stacked MNIST | `stack=3, conditional=True` with the folder of MNIST |

    Score SDE resizes CelebA and LSUN at 128 in floating point and keeps fractions of grey levels; here images stay
    8-bit, and values differ by rounding, a level at most. NCSNv2 rounds the longer side of a resized LSUN image down,
    here it goes to the nearest pixel. Score SDE evaluates CelebA and LSUN on validation splits, which `split=None`
    holds out, and FFHQ and CelebA-HQ on the images it trains on (`held_out=0`). NCSNv2 holds out the last 7,000 of
    FFHQ's indices as numpy's legacy generator shuffles them with seed 2019; `held_out=0.1` holds out as many others.

    Args:
        path: "digits" (bundled), a file, a folder, or "module:attribute" for a map-style dataset or a function without
            arguments that returns one.
        kind: The reader; "auto" decides by name. Write "./digits" for a folder called digits.
        split: Which split to train on, where the data have named ones ("train", "test", "validation"). With None it is
            "train", and "validation", else "test", is held out; a split named here is all that is used, and `held_out`
            is taken from it. A single file or LMDB folder has one split, named "all".
        held_out: Fraction (below 1) or number of examples held out where no split of the data serves. Chosen by a hash
            of each example's index: a fraction never moves an old example when data are appended.
        held_out_seed: Seed of that hash, of `limit` and of `stack`.
        limit: Use at most so many examples of each split, chosen by the same kind of hash.
        crop: "center" for the centred square, or (height, width) of a centred crop, taken before resizing.
        size: Antialiased resize: a number s makes the shorter side s and takes the centred s x s; (height, width) makes
            the image just cover that rectangle and takes its centre. All but 8-bit images become continuous (float32).
            Where a set is stored at several resolutions (FFHQ LMDB, TFRecords r02 to r10), it says which one is read.
        resample: Filter of the resize. With None it is bicubic for 8-bit images, and for all other arrays bilinear
            (the triangle filter), which never leaves the range of its input.
        pad: Border of so many pixels of value 0 (in data units) on each side of an image.
        stack: Join so many examples along the channels, each from its own shuffle of the split; n examples make n. The
            class is the number whose digits are theirs, in base of the number of classes: with MNIST and stack=3 it is
            100 R + 10 G + B. A part held out of the same split shares single images with the rest, not stacks.
        stack_passes: With `stack`, number of passes over the split, each with its own shuffles: n examples make
            n stack_passes. One is what is published for 60,000 digits; a small set needs more to fill 1000 classes.
        channels: Convert image files: 1 grey (ITU-R 601 luma), 3 RGB, 4 RGBA. Without it a file that is neither 8-bit
            grey nor 8-bit RGB is refused. Transparency is composited over white by 1 and 3; 16 bits become 8.
        layout: Position of the channels of an array, where its shape does not determine it: "grey" for (N, height,
            width).
        flip: Flip images left to right with probability 1/2, in training only.
        conditional: Labels become the class condition "class"; floats of an array file, named by `label_key`, become
            the vector condition "y".
        key: Which array of an .npz or .pt file, which image column, which entry of a dataset's dictionaries, which
            feature of TFRecords, which category of a folder of LSUN's LMDB folders.
        label_key: Name of the labels in the same sense; for a .npy file the name of a second .npy file beside it, for
            CIFAR-100 "fine" (which None means) or "coarse", for CelebA one of its attributes, such as "Smiling".
        low: Smallest possible value in data units, one number or one per channel. With None floats are unbounded and
            standardised per channel by the mean and deviation of the training split.
        high: Largest possible value.
        levels: Number of equally spaced grey levels from low to high. 8-bit data have 0, 255 and 256 by themselves.
        units: Unit of the values, for plots and reports.
        channel_names: One name per channel.
        model_range: Values of low and high in model units.
        skip_bad: Leave out examples that cannot be decoded or hold NaN. They are found by reading everything once.
        memory_gib: Bound on what decoded images keep in memory, and again on compressed parquet data; larger sets are
            decoded again in every epoch.
    """

    path: str | None = None
    kind: str = "auto"
    split: str | None = None
    held_out: int | float = 0.1
    held_out_seed: int = 0
    limit: int | None = None
    crop: Literal["center"] | tuple[int, int] | None = None
    size: int | tuple[int, int] | None = None
    resample: Literal["bicubic", "bilinear"] | None = None
    pad: int = 0
    stack: int = 1
    stack_passes: int = 1
    channels: Literal[1, 3, 4] | None = None
    layout: Layout | None = None
    flip: bool = False
    conditional: bool = False
    key: str | None = None
    label_key: str | None = None
    low: PerChannel | None = None
    high: PerChannel | None = None
    levels: int | None = None
    units: str | None = None
    channel_names: tuple[str, ...] | None = None
    model_range: tuple[float, float] = (-1.0, 1.0)
    skip_bad: bool = False
    memory_gib: float = 2.0

    def imports(self) -> dict[str, str]:
        """Field -> "module:attribute" that opening these data imports; a file that names it must be trusted."""
        named = self.path is not None and (self.kind == "object" or is_import_path(self.path))
        return {"path": self.path} if named and self.path is not None else {}

    def __post_init__(self) -> None:
        if self.path is not None:
            object.__setattr__(self, "path", moved(self.path))
        if self.held_out < 0 or (isinstance(self.held_out, float) and self.held_out >= 1 and self.held_out % 1):
            raise ValueError(f"held_out={self.held_out}: give a fraction in [0, 1) or a whole number of examples")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit} leaves no example; give at least 1 or None")
        for name in ("crop", "size"):
            value = getattr(self, name)
            sides = value if isinstance(value, tuple) else (value,)
            if any(isinstance(side, int) and side < 1 for side in sides):
                raise ValueError(f"{name}={value}: sizes must be positive")
        if self.pad < 0:
            raise ValueError(f"pad={self.pad} must not be negative; crop=(height, width) takes pixels away")
        if self.stack < 1:
            raise ValueError(f"stack={self.stack} leaves nothing; 1 takes examples as they are")
        if self.stack_passes < 1 or (self.stack == 1 and self.stack_passes > 1):
            raise ValueError(
                f"stack_passes={self.stack_passes} with stack={self.stack}: passes are of stacked examples and there is"
                " at least one; set stack=3 for three examples in one, or stack_passes=1"
            )
        if self.memory_gib < 0:
            raise ValueError(f"memory_gib={self.memory_gib} must not be negative; 0 keeps nothing in memory")


def square(size: int | tuple[int, int] | None) -> int:
    """The side of a square size, 0 for any other."""
    if isinstance(size, tuple):
        return size[0] if size[0] == size[1] else 0
    return size or 0
