"""Operators by name, as on a command line: "blur:sigma=2", "mask:right", "fourier:share=0.3,seed=1"."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from scorefield._codec import near
from scorefield.inverse.operators.fourier import Boundary, Convolution, FourierMask
from scorefield.inverse.operators.operator import Operator
from scorefield.inverse.operators.pixels import Channels, Downsample, Mask, Matrix, Sums
from scorefield.inverse.operators.projections import Projections

Load = Callable[[str], Tensor]
"""An array or image file by its path. Whoever reads files hands this in."""

SIDES = ("left", "right", "top", "bottom", "centre")
"""Parts of an event that go by name."""


def part(which: str, event: tuple[int, ...], load: Load) -> Tensor:
    """A part of an event, bool, (*spatial) for all channels alike or (D,) of a vector.

    Args:
        which: left, right, top, bottom (of images) or centre; or a file of that size, zero outside the part.
        event: Shape of one example.
        load: Reads it.

    Raises:
        ValueError: Neither a name nor a file, or a file of another size or of more than two values.
    """
    spatial = tuple(event[1:]) or tuple(event)
    inside = torch.zeros(spatial, dtype=torch.bool)
    if which in ("left", "right"):
        inside[..., : spatial[-1] // 2] = True
        return inside if which == "left" else ~inside
    if which in ("top", "bottom") and len(spatial) > 1:
        inside[: spatial[0] // 2] = True
        return inside if which == "top" else ~inside
    if which == "centre":
        inside[tuple(slice(n // 4, n - n // 4) for n in spatial)] = True
        return inside
    try:
        given = load(which)
    except FileNotFoundError:
        raise ValueError(
            f"mask {which}: neither a file nor one of left, right, top, bottom (of images), centre"
        ) from None
    if tuple(given.shape) != spatial:
        raise ValueError(f"the mask {which} has shape {tuple(given.shape)}; examples of shape {event} need {spatial}")
    values = given.unique().tolist()
    if len([v for v in values if v != 0]) != 1:
        shown = ", ".join(f"{v:g}" for v in values[:4]) + (", ..." if len(values) > 4 else "")
        raise ValueError(f"the mask {which} has the values {shown}; a mask has two, one of them 0")
    return given != 0


@dataclass(frozen=True)
class Named:
    """How an operator is written and made.

    Args:
        form: Syntax of the name with all its parameters.
        make: (event, load, ...) with the keys as further arguments; the first may be given without its name.
    """

    form: str
    make: Callable[..., Operator]


def _mask(event: tuple[int, ...], load: Load, unknown: str) -> Operator:
    return Mask(~part(unknown, event, load), event)


def _blur(event: tuple[int, ...], load: Load, sigma: float, boundary: str = "periodic") -> Operator:
    return Convolution.gaussian(sigma, event, cast(Boundary, boundary))


def _convolution(event: tuple[int, ...], load: Load, kernel: str, boundary: str = "periodic") -> Operator:
    return Convolution(load(kernel), event, cast(Boundary, boundary))


def _downsample(event: tuple[int, ...], load: Load, factor: int) -> Operator:
    return Downsample(factor, event)


def _grey(event: tuple[int, ...], load: Load) -> Operator:
    return Channels.grey(event)


def _fourier(event: tuple[int, ...], load: Load, share: float, seed: int = 0) -> Operator:
    return FourierMask.share(share, event, seed)


def _projections(event: tuple[int, ...], load: Load, angles: int) -> Operator:
    return Projections(angles, event)


def _matrix(event: tuple[int, ...], load: Load, path: str) -> Operator:
    return Matrix(load(path), event)


def _sums(event: tuple[int, ...], load: Load, axis: int) -> Operator:
    return Sums(axis, event)


OPERATORS = {
    "mask": Named("mask:left|right|top|bottom|centre|FILE (what is unknown; in a file: not 0)", _mask),
    "blur": Named("blur:sigma=PIXELS[,boundary=periodic|zero|reflect]", _blur),
    "convolution": Named("convolution:kernel=FILE[,boundary=periodic|zero|reflect]", _convolution),
    "downsample": Named("downsample:factor=N", _downsample),
    "grey": Named("grey", _grey),
    "fourier": Named("fourier:share=SHARE[,seed=N]", _fourier),
    "projections": Named("projections:angles=N", _projections),
    "matrix": Named("matrix:FILE", _matrix),
    "sums": Named("sums:axis=N (0: channels)", _sums),
}
"""A new operator by name is one line here."""

_READ: dict[str, tuple[Callable[[str], Any], str]] = {
    "float": (float, "a number"),
    "int": (int, "a whole number"),
    "str": (str, "a word"),
}


def operator_named(text: str, event: tuple[int, ...], load: Load) -> Operator:
    """The operator that "name:key=value,key=value" says.

    Args:
        text: A name of `OPERATORS`, and what it needs; the first key may be left out.
        event: Shape of one example.
        load: Reads files that the text names.

    Raises:
        ValueError: No such name or key, a key without value or twice, a missing one, or what the operator itself
            refuses.
    """
    name, _, rest = text.partition(":")
    if name not in OPERATORS:
        forms = "; ".join(known.form for known in OPERATORS.values())
        raise ValueError(f"no operator is called {name!r}.{near(name, OPERATORS)} Operators are written: {forms}")
    named = OPERATORS[name]
    keys = dict(list(inspect.signature(named.make).parameters.items())[2:])
    given: dict[str, Any] = {}
    for number, piece in enumerate(piece.strip() for piece in rest.split(",") if piece.strip()):
        key, equals, value = piece.partition("=")
        if not equals and number == 0 and keys:
            key, value = next(iter(keys)), piece
        if key not in keys or key in given or not value:
            why = "said twice." if key in given else "without value." if key in keys else f"unknown.{near(key, keys)}"
            raise ValueError(f"{text!r}: {key!r} is {why} It is written {named.form}")
        read, kind = _READ[keys[key].annotation]
        try:
            given[key] = read(value)
        except ValueError:
            raise ValueError(f"{text!r}: {key}={value} is not {kind}. It is written {named.form}") from None
    if missing := [key for key, p in keys.items() if p.default is p.empty and key not in given]:
        raise ValueError(f"{text!r} lacks {', '.join(missing)}. It is written {named.form}")
    return named.make(event, load, **given)
