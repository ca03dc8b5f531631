"""Preparation of images for networks trained on photographs: recorded, hashed, and refused for other data.

The same images give another Frechet distance when they are rounded or truncated to 8 bits, or resized by another rule
(Parmar, Zhang and Zhu, "On aliased resizing and surprising subtleties in GAN evaluation", 2022). So every choice is a
field of one record, and its hash is part of the features' hash.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scorefield._codec import record
from scorefield.data_spec import DataSpec, PerChannel

Gray = Literal["refuse", "repeat"]
Quantise = Literal["none", "round", "truncate"]
Resize = Literal["none", "torch-fidelity", "bilinear", "bicubic"]

LEVEL_ROUNDING = 2.0**-14
"""Rounding error of a grey level k stored as k / 255 in float32, allowed for so that truncation keeps k."""


@record
class ImagePreparation:
    """Conversion from data units to the pixels that a network of photographs takes, (B, C, H, W) -> (B, 3, H', W').

    In this order: v = 255 (x - low) / (high - low), clipped to [0, 255]; to whole grey levels; one channel to three;
    another size; (v - mean) / deviation.

    Args:
        low: What is black in data units, a number or one for each channel.
        high: What is white.
        gray: One channel: "refuse", since such a network has seen colour photographs, or "repeat" it three times.
        quantise: Conversion to 8 bits by "round" or "truncate" (floor, as the 2021 evaluation of score SDEs did), or
            "none".
        resize: "torch-fidelity" leaves it to the network inside torch-fidelity: to 299 x 299 by the bilinear rule of
            TensorFlow 1, corners not aligned and no antialiasing. "bilinear" and "bicubic" resize here, antialiased, to
            `size`, not rounded afterwards. "none" keeps the size.
        size: Height and width after "bilinear" and "bicubic"; other shapes are squeezed into the square.
        mean: Subtracted from grey levels 0 to 255, a number or one for each of three channels.
        deviation: Divides them.

    Raises:
        ValueError: A range that does not increase, or a size without a rule or the other way round.
    """

    low: PerChannel
    high: PerChannel
    gray: Gray = "refuse"
    quantise: Quantise = "round"
    resize: Resize = "none"
    size: int | None = None
    mean: PerChannel = 0.0
    deviation: PerChannel = 1.0

    def __post_init__(self) -> None:
        for name in ("low", "high", "mean", "deviation"):
            if isinstance(value := getattr(self, name), list):  # tuples compare and hash
                object.__setattr__(self, name, tuple(value))
        if not bool((_channels(self.high) > _channels(self.low)).all()):
            raise ValueError(f"low must be below high; got low={self.low}, high={self.high}")
        sized = self.resize in ("bilinear", "bicubic")
        if (self.size is not None) != sized or (self.size is not None and self.size < 1):
            raise ValueError(
                f"resize={self.resize!r} with size={self.size}: 'bilinear' and 'bicubic' need a size of 1 or more, and"
                " only they take one"
            )

    @property
    def bits(self) -> str:
        """Description of the quantisation."""
        return {"none": "not quantised", "round": "rounded to 8 bits", "truncate": "truncated to 8 bits"}[self.quantise]

    @property
    def text(self) -> str:
        """Description of the preparation, for receipts."""
        size = {
            "none": "not resized",
            "torch-fidelity": "resized to 299 x 299 as TensorFlow 1 does",
        }.get(self.resize, f"resized to {self.size} x {self.size}, {self.resize}, antialiased")
        gray = ", one channel repeated three times" if self.gray == "repeat" else ""
        return f"black {self.low}, white {self.high}, {self.bits}, {size}{gray}"

    def __call__(self, x: Tensor) -> Tensor:
        """Prepare a batch in data units; whole numbers in float32 where quantised and neither resized nor normalised.

        Raises:
            ValueError: No images of three channels, or of one where that is repeated.
        """
        _refuse_others(tuple(x.shape[1:]), self.gray)
        low, high = _channels(self.low).to(x.device), _channels(self.high).to(x.device)
        unit = (x.to(torch.float64) - low) / (high - low)
        v = (255.0 * unit).clamp(0.0, 255.0)
        if self.quantise == "round":
            v = v.round()
        elif self.quantise == "truncate":
            v = (v + LEVEL_ROUNDING).floor()
        v = v.to(torch.float32).expand(-1, 3, -1, -1)
        if self.size is not None:
            v = interpolate(v, size=(self.size, self.size), mode=self.resize, align_corners=False, antialias=True)
        return (v - _channels(self.mean).to(v)) / _channels(self.deviation).to(v)


def image_preparation(
    spec: DataSpec,
    *,
    gray: Gray = "refuse",
    quantise: Quantise = "round",
    resize: Resize = "none",
    size: int | None = None,
    mean: PerChannel = 0.0,
    deviation: PerChannel = 1.0,
) -> ImagePreparation:
    """The preparation of examples of a spec, whose low is black and whose high is white.

    Args:
        spec: What the examples are.
        gray: See `ImagePreparation`.
        quantise: See there.
        resize: See there.
        size: See there.
        mean: See there.
        deviation: See there.

    Raises:
        ValueError: The data are no images of a stated range, or the preparation is none.
    """
    _refuse_others(spec.shape, gray)
    if spec.low is None or spec.high is None:
        units = f" ({spec.units})" if spec.units else ""
        raise ValueError(
            f"data without a smallest and a largest value{units} have no black and white; use a classifier of the data"
            " or the raw values, or write ImagePreparation(low=..., high=...) yourself"
        )
    return ImagePreparation(spec.low, spec.high, gray, quantise, resize, size, mean, deviation)


def _refuse_others(shape: tuple[int, ...], gray: Gray) -> None:
    """Refuse what is no image, and gray images unless they are to be repeated."""
    others = "use features of the data themselves: a classifier trained on them, or the raw values"
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"an example of shape {tuple(shape)} is no image of 1 or 3 channels (C, H, W), which a network of"
            f" photographs takes; {others}"
        )
    if shape[0] == 1 and gray == "refuse":
        raise ValueError(
            f"examples of shape {tuple(shape)} have one channel, and the network was trained on colour photographs; ask"
            f" for gray='repeat' (--gray repeat) to repeat it three times, or {others}"
        )


def _channels(value: PerChannel) -> Tensor:
    """A number, or one for each channel, ready to meet (B, C, H, W)."""
    return torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1, 1)
