"""One operator or more of every class, small: vectors, signals, non-square images of several channels."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield import inverse as inv
from scorefield.inverse.operators.operator import Composed, Rescaled, RowScaled
from scorefield.inverse.operators.pixels import Grouped

IMAGE = (3, 4, 6)
F64 = torch.float64


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def linear_operators() -> list[inv.LinearOperator]:
    """Every class of linear operator, in one dimension and two."""
    scales = torch.tensor([0.5, 2.0, 3.0], dtype=F64)
    image: list[inv.LinearOperator] = [
        inv.Mask(numbers(4, 6) > 0, IMAGE),
        inv.Mask((numbers(*IMAGE) > 0).double(), IMAGE),
        inv.Matrix(numbers(5, 72), IMAGE),
        inv.Matrix(numbers(80, *IMAGE), IMAGE),
        inv.Channels(numbers(2, 3), IMAGE),
        inv.Channels(numbers(4, 3), IMAGE),
        inv.Channels.grey(IMAGE),
        inv.Channels.decoupled(IMAGE),
        inv.Convolution(numbers(3, 4), IMAGE),
        inv.Convolution(numbers(3, 5, 9), IMAGE),  # wraps round more than once
        inv.Convolution(numbers(3, 4), IMAGE, "zero"),
        inv.Convolution(numbers(3, 4), IMAGE, "reflect"),
        inv.Convolution.gaussian((0.5, 2.0), IMAGE),
        inv.Downsample(2, IMAGE),
        inv.Downsample((1, 3), IMAGE),
        inv.Sums(1, IMAGE),
        inv.Sums((0, -1), IMAGE),
        inv.Sums((0, 1, 2), IMAGE),
        inv.FourierMask(numbers(4, 6) > 0.5, IMAGE),
        inv.FourierMask.share(0.3, IMAGE),
        inv.Projections((0.0, 30.0, 90.0), IMAGE),
        inv.Linear(lambda x: x[:, :, 1:] - x[:, :, :-1], IMAGE),
        Grouped(torch.arange(72).reshape(24, 3), 0.5, IMAGE),
    ]
    composed = inv.Downsample(2, IMAGE) @ inv.Convolution.gaussian(1.0, IMAGE)
    assert isinstance(composed, Composed)
    return [
        *image,
        *(Rescaled(A, scales) for A in image[1::3]),
        *(Rescaled(A, torch.full((3,), 2.0, dtype=F64)) for A in image[:2]),
        *(RowScaled(A, numbers(*A.observed).abs() + 0.1) for A in image[::4]),
        composed,
        Rescaled(RowScaled(inv.Downsample(2, IMAGE), numbers(3, 2, 3).abs() + 0.1), scales),
        inv.Mask(torch.tensor([1, 0, 1]), (3,)),
        inv.Convolution(numbers(4), (2, 7)),
        inv.Convolution(numbers(4), (2, 7), "zero"),
        inv.Downsample(3, (2, 9)),
        inv.FourierMask(numbers(7) > 0.5, (2, 7)),
        inv.Sums(0, (3,)),
    ]
