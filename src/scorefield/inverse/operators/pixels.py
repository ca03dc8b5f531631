"""Operators that pick, mix or add the entries of an example: masks, matrices, channels, block means, sums."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from scorefield.inverse.operators.operator import LinearOperator
from scorefield.inverse.operators.spectrum import GroupedSpectrum, MixedSpectrum, SelectedSpectrum, Spectrum, mixed

DECOUPLING = (
    (1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)),
    (-2 / math.sqrt(6), 1 / math.sqrt(6), 1 / math.sqrt(6)),
    (0.0, 1 / math.sqrt(2), -1 / math.sqrt(2)),
)
"""Rows: an orthonormal basis of colours whose first is grey (Song et al. 2021, appendix I.3; there as columns, of
which the released figures are a numerical approximation)."""


class Mask(LinearOperator):
    """The known entries of an example, and nothing else: y has shape (known entries,), so it cannot hold the others.

    Args:
        known: True or 1 where an entry is observed, (*event), or (*spatial) for all channels alike.
        event: Shape of one example.

    Raises:
        ValueError: The mask has another size, values other than 0 and 1, or knows all or nothing.
    """

    monotone = True

    def __init__(self, known: Tensor, event: tuple[int, ...]):
        known = torch.as_tensor(known)
        event = tuple(event)
        if tuple(known.shape) not in (event, event[1:], (1, *event[1:])) or not known.ndim:
            alike = f" or {event[1:]} for all channels alike" if event[1:] else ""
            raise ValueError(f"the mask has shape {tuple(known.shape)}; examples of shape {event} need {event}{alike}")
        self.known = binary(known).expand(event).contiguous()
        count = int(self.known.sum())
        if count in (0, self.known.numel()):
            raise ValueError(
                f"the mask knows {'nothing' if count == 0 else 'every entry'} (1 is known, 0 is not)"
                + ("" if count == 0 else f"; a noisy copy of all is Channels(torch.eye({event[0]}), event)")
            )
        super().__init__(event, (count,))

    def observe(self, image: Tensor) -> Tensor:
        """The known entries of an example (*event) or of a batch of them: y. Unknown ones may hold anything.

        Raises:
            ValueError: The image has another shape.
        """
        image = torch.as_tensor(image)
        if tuple(image.shape[-len(self.event) :]) != self.event or image.ndim > len(self.event) + 1:
            raise ValueError(f"the image has shape {tuple(image.shape)}; give {self.event}, or a batch of such")
        return image[..., self.known.to(image.device)]

    def apply(self, x: Tensor) -> Tensor:
        """The known entries."""
        return x[:, self.known.to(x.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        """y in its places and zero elsewhere."""
        x = y.new_zeros(len(y), *self.event)
        x[:, self.known.to(y.device)] = y
        return x

    def _decompose(self) -> Spectrum:
        return SelectedSpectrum(self.known)


def binary(mask: Tensor) -> Tensor:
    """A mask as bool.

    Raises:
        ValueError: The mask has values other than 0 and 1; some are shown.
    """
    if mask.dtype == torch.bool:
        return mask
    if not bool(((mask == 0) | (mask == 1)).all()):
        values = mask.unique()
        shown = ", ".join(f"{v:g}" for v in values[:4].tolist()) + (f", ... {values[-1]:g}" if len(values) > 4 else "")
        raise ValueError(
            f"a mask has values 0 (not observed) and 1 (observed) alone; this has {shown}. Compare it, for example"
            " mask > 0, to say which are meant"
        )
    return mask.bool()


class Matrix(LinearOperator):
    """A matrix on the flattened example, y of shape (M,).

    Args:
        matrix: (M, D), or (M, *event).
        event: Shape of one example.

    Raises:
        ValueError: The matrix does not fit the event, or is not finite.
    """

    def __init__(self, matrix: Tensor, event: tuple[int, ...]):
        matrix = torch.as_tensor(matrix)
        D = math.prod(event)
        if matrix.ndim < 2 or tuple(matrix.shape[1:]) not in ((D,), tuple(event)):
            raise ValueError(
                f"a matrix of shape {tuple(matrix.shape)} does not multiply examples of shape {tuple(event)}, which are"
                f" {D} numbers; give (M, {D})"
            )
        check_finite(matrix, "the matrix")
        super().__init__(event, (len(matrix),))
        self._matrix = floating(matrix).reshape(len(matrix), D)
        self.monotone = bool((self._matrix >= 0).all())

    def apply(self, x: Tensor) -> Tensor:
        """A x."""
        return x.flatten(1) @ self._matrix.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        """A' y."""
        return (y @ self._matrix.to(y)).reshape(len(y), *self.event)

    def matrix(self) -> Tensor:
        """The matrix, float64."""
        return self._matrix.double()


def floating(x: Tensor) -> Tensor:
    """Integers as float64, which holds them; others as they are."""
    return x if x.is_floating_point() else x.double()


def check_finite(x: Tensor, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: There are some.
    """
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} has NaN or infinite values")


class Channels(LinearOperator):
    """A mixture of channels, equal at every pixel: y = B x over the first axis, (K, *spatial).

    Args:
        matrix: B, (K, C).
        event: Shape of one example, (C, *spatial).

    Raises:
        ValueError: The matrix does not fit the channels, or is not finite.
    """

    def __init__(self, matrix: Tensor, event: tuple[int, ...]):
        matrix = floating(torch.as_tensor(matrix))
        if matrix.ndim != 2 or matrix.shape[1] != event[0]:
            raise ValueError(
                f"a matrix of shape {tuple(matrix.shape)} does not mix the {event[0]} channels of examples of shape"
                f" {tuple(event)}; give (K, {event[0]})"
            )
        check_finite(matrix, "the matrix of channels")
        super().__init__(event, (len(matrix), *event[1:]))
        self.mixture = matrix
        self.monotone = bool((matrix >= 0).all())

    @classmethod
    def grey(cls, event: tuple[int, ...]) -> Self:
        """The mean of the channels, (1, *spatial): what colourisation is given.

        Raises:
            ValueError: There is one channel.
        """
        if event[0] < 2:
            raise ValueError(f"examples of shape {tuple(event)} have one channel, which is grey already")
        return cls(torch.full((1, event[0]), 1.0 / event[0], dtype=torch.float64), event)

    @classmethod
    def decoupled(cls, event: tuple[int, ...]) -> Self:
        """The orthonormal colours of `DECOUPLING`: the first is sqrt(3) times the grey value.

        Raises:
            ValueError: There are not three channels.
        """
        if event[0] != 3:
            raise ValueError(f"colours are decoupled of red, green and blue; examples of shape {tuple(event)} are not")
        return cls(torch.tensor(DECOUPLING, dtype=torch.float64), event)

    def apply(self, x: Tensor) -> Tensor:
        """B x."""
        return mixed(self.mixture, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """B' y."""
        return mixed(self.mixture.T, y)

    def _decompose(self) -> Spectrum:
        return MixedSpectrum(self.mixture, self.event)


class Grouped(LinearOperator):
    """c times the sums over groups of entries, all of one size.

    Args:
        numbers: The entry numbers 0..D-1 in the event's shape, rearranged so that groups lie along the last axis.
        factor: c.
        event: Shape of one example.
    """

    monotone = True

    def __init__(self, numbers: Tensor, factor: float, event: tuple[int, ...]):
        super().__init__(event, tuple(numbers.shape[:-1]))
        self._groups, self._factor = numbers.reshape(-1, numbers.shape[-1]), factor

    def apply(self, x: Tensor) -> Tensor:
        """The sums."""
        return self._factor * x.flatten(1)[:, self._groups.to(x.device)].sum(-1).reshape(len(x), *self.observed)

    def adjoint(self, y: Tensor) -> Tensor:
        """Each sum at all entries of its group."""
        x = y.new_empty(len(y), math.prod(self.event))
        groups = self._groups.to(y.device)
        x[:, groups] = self._factor * y.reshape(len(y), -1, 1).expand(-1, -1, groups.shape[1])
        return x.reshape(len(y), *self.event)

    def _decompose(self) -> Spectrum:
        return GroupedSpectrum(self._groups, self._factor, self.event, self.observed)


class Downsample(Grouped):
    """Means over blocks of pixels, (C, *spatial / factor).

    Args:
        factor: Side of a block in pixels, one number or one per spatial axis.
        event: Shape of one example, (C, *spatial).

    Raises:
        ValueError: There is no spatial axis, or the sides are not multiples of the factor.
    """

    def __init__(self, factor: int | tuple[int, ...], event: tuple[int, ...]):
        C, *sizes = event
        factors = (factor,) * len(sizes) if isinstance(factor, int) else tuple(factor)
        if not sizes or len(factors) != len(sizes) or any(f < 1 or n % f for n, f in zip(sizes, factors, strict=True)):
            raise ValueError(
                f"blocks of {factor} do not divide examples of shape {tuple(event)}; every spatial size must be a"
                " multiple of the factor (crop the examples, or take Convolution and Mask)"
            )
        split = [side for n, f in zip(sizes, factors, strict=True) for side in (n // f, f)]
        numbers = torch.arange(math.prod(event)).reshape(C, *split)
        d = len(sizes)
        numbers = numbers.permute(0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2)).flatten(1 + d)
        super().__init__(numbers, 1.0 / math.prod(factors), event)


class Sums(Grouped):
    """Sums over some axes of the example, for example the projection of an image on one side.

    Args:
        axes: Axes of the event to sum over: 0 is the channel. With all axes, y has shape (1,).
        event: Shape of one example.

    Raises:
        ValueError: There is no such axis, or one twice.
    """

    def __init__(self, axes: int | tuple[int, ...], event: tuple[int, ...]):
        given = (axes,) if isinstance(axes, int) else tuple(axes)
        d = len(event)
        if not given or any(not -d <= a < d for a in given) or len({a % d for a in given}) < len(given):
            raise ValueError(
                f"axes {axes} are not different axes of examples of shape {tuple(event)}; these have axes 0 (channels)"
                f" to {d - 1}"
            )
        summed = sorted(a % d for a in given)
        kept = [a for a in range(d) if a not in summed]
        numbers = torch.arange(math.prod(event)).reshape(event).permute(*kept, *summed).flatten(len(kept))
        super().__init__(numbers if kept else numbers[None], 1.0, event)
