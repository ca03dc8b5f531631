"""Checkpoints that are lists, those of NCSN, NCSNv2 and adversarial score matching, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from scorefield.lab.bridges.imported import BridgeError, Hints, image_size, settled
from scorefield.lab.bridges.reading import expect, field, read_torch, without_prefix
from scorefield.nets.layers import Activation
from scorefield.process.tabulated import GeometricSigmas, LinearSigmas, Tabulated

Spacing = Literal["geometric", "linear"]

ACTIVATIONS: dict[str, Activation] = {"elu": "elu", "relu": "relu", "lrelu": "lrelu", "swish": "swish"}
"""The releases' `nonlinearity` -> ours."""


class Parts(NamedTuple):
    """What a list holds: [network, optimiser, epoch, step, average], of which the oldest release has the first two.

    Args:
        raw: The network's state, without the prefix of data parallelism.
        average: Averaged parameters by name, or None.
        step: Training step, or None.
    """

    raw: dict[str, Tensor]
    average: dict[str, Tensor] | None
    step: int | None


def read_list(path: Path, layout: str) -> Parts:
    """Read and take apart a checkpoint.

    Raises:
        BridgeError: It is of another layout; the message names the one it looks like.
    """
    content = read_torch(path)
    expect(content, layout, path)
    assert isinstance(content, Sequence)
    step = next((part for part in reversed(content[2:4]) if isinstance(part, int)), None)
    average = next((part for part in reversed(content[2:]) if isinstance(part, Mapping)), None)
    named = None if average is None else without_prefix(average)
    return Parts(without_prefix(content[0]), named, step)


class Image(NamedTuple):
    """What a configuration and the tensors say of the images.

    Args:
        shape: (C, H, W).
        centered: Whether the network takes them as they are.
        model_range: Where black and white go; None for logits.
        flip: Whether they are flipped in training.
        dataset: Its name, "" if unknown.
    """

    shape: tuple[int, int, int]
    centered: bool
    model_range: tuple[float, float] | None
    flip: bool
    dataset: str


def read_image(config: Mapping[str, Any] | None, hints: Hints, layout: str, channels: int) -> Image:
    """Channels and size, and how pixels become the numbers that the network sees."""
    found = config or {}
    settled(hints, "process", "ve")
    settled(hints, "discrete", True)
    size = image_size(field(found, "data.image_size", None), hints, layout)
    channels = int(field(found, "data.channels", channels))
    logits = bool(field(found, "data.logit_transform", False))
    rescaled = bool(field(found, "data.rescaled", False))
    model_range = None if logits else (-1.0, 1.0) if rescaled else (0.0, 1.0)
    dataset = str(field(found, "data.dataset", ""))
    flip = bool(field(found, "data.random_flip", False))
    return Image((channels, size, size), logits or rescaled, model_range, flip, dataset)


LOGITS = (
    "the release was trained on logits of pixels, log(y / (1 - y)) of y = 1e-6 + (1 - 2e-6) x: data and model units of"
    " this model are logits, and the sigmoid of a sample is the image"
)
"""The note of a model of logits."""


def stage_names(names: Mapping[str, Tensor]) -> Literal["base", "deeper", "deepest"]:
    """Which of the RefineNets a state dictionary belongs to."""
    if any(name.startswith("refine31.") for name in names):
        return "deepest"
    return "deeper" if any(name.startswith("refine5.") for name in names) else "base"


def spacing_of(config: Mapping[str, Any] | None, name: str = "model.sigma_dist") -> Spacing:
    """How a configuration spaces its levels.

    Raises:
        BridgeError: In a way that is not known.
    """
    found = str(field(config or {}, name, "geometric"))
    known: dict[str, Spacing] = {"geometric": "geometric", "uniform": "linear", "linear": "linear"}
    if found not in known:
        raise BridgeError(f"{name} is {found!r}; the releases know {', '.join(known)}")
    return known[found]


def activation_of(config: Mapping[str, Any] | None) -> Activation:
    """The activation that a configuration names.

    Raises:
        BridgeError: It is not one of the releases'.
    """
    found = str(field(config or {}, "model.nonlinearity", "elu")).lower()
    if found not in ACTIVATIONS:
        raise BridgeError(f"model.nonlinearity is {found!r}; the releases know {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[found]


def ladder_of(sigmas: Tensor, path: Path) -> tuple[float, float, int, Spacing]:
    """(sigma_min, sigma_max, levels, spacing) of a table of levels, largest first, to float32.

    Raises:
        BridgeError: The levels are neither geometric nor equally spaced.
    """
    table = sigmas.double().flip(0)
    low, high, n = (float(f"{float(v):.6g}") for v in (table[0], table[-1], len(table)))
    for spacing, made in (("geometric", GeometricSigmas), ("linear", LinearSigmas)):
        if n > 1 and low < high and torch.allclose(made(low, high, int(n)).table()[1], table, rtol=1e-5, atol=0):
            return low, high, int(n), spacing  # type: ignore[return-value]
    if n == 1:
        return low, high, 1, "geometric"
    raise BridgeError(
        f"the noise levels in {path} are neither geometric nor equally spaced: {sigmas[:4].tolist()}, ..."
    )


def agree(path: Path, stored: Tabulated, config: Tabulated) -> None:
    """Refuse a configuration whose ladder is not that of the checkpoint.

    Raises:
        BridgeError: They differ; both are named.
    """
    if stored != config:
        raise BridgeError(
            f"the noise levels of {path}, {stored.ladder}, are not those of its configuration, {config.ladder}: the"
            " configuration belongs to another checkpoint"
        )
