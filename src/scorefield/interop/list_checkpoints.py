"""Checkpoints that are lists, those of NCSN, NCSNv2 and adversarial score matching, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from torch import Tensor

from scorefield.interop.checkpoint_files import expect, plain_number, read_torch, without_prefix
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import Hints, image_size
from scorefield.models.experiment import Adam
from scorefield.nets.layers import Activation

Spacing = Literal["geometric", "linear"]

ACTIVATIONS = ("elu", "relu", "lrelu", "swish")
"""Values of the field `nonlinearity` in the releases, which are the names used here."""


class Parts(NamedTuple):
    """Content of a checkpoint list: [network, optimiser, epoch, step, average]; the oldest release has the first two.

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
        CheckpointError: The file is of another layout; the message names the one it looks like.
    """
    content = read_torch(path)
    expect(content, layout, path)
    assert isinstance(content, Sequence)
    step = plain_number(content[3]) if len(content) > 3 else None
    average = next((part for part in reversed(content[2:]) if isinstance(part, Mapping)), None)
    named = None if average is None else without_prefix(average, path)
    return Parts(without_prefix(content[0], path), named, None if step is None else int(step))


class Image(NamedTuple):
    """Properties of the images according to a configuration and the tensors.

    Args:
        shape: (C, H, W).
        centered: Whether the network takes them as they are.
        model_range: Values of black and white in model units; None for logits.
        flip: Whether they are flipped in training.
        dataset: Its name in lower case, "" if unknown.
        low: Lower end of the uniform noise, up to 1, that sampling starts from.
        notes: Notes for the model card.
    """

    shape: tuple[int, int, int]
    centered: bool
    model_range: tuple[float, float] | None
    flip: bool
    dataset: str
    low: float
    notes: tuple[str, ...]


def read_image(fields: Fields, hints: Hints, layout: str, channels: int) -> Image:
    """Channels and size, and how pixels become the numbers that the network sees.

    Raises:
        CheckpointError: The size is nowhere, or contradicts its hint.
    """
    known = fields.has("data.image_size") or (fields.given and hints.size is None)
    size = image_size(fields.count("data.image_size") if known else None, hints, layout)
    channels = fields.count("data.channels", channels)
    rescaled = fields.flag("data.rescaled", False)
    logits = fields.flag("data.logit_transform", False) and not rescaled
    return Image(
        shape=(channels, size, size),
        centered=logits or rescaled,
        model_range=None if logits else (-1.0, 1.0) if rescaled else (0.0, 1.0),
        flip=fields.flag("data.random_flip", False),
        dataset=fields.text("data.dataset", "").lower().replace("_", "-"),
        low=-1.0 if rescaled else 0.0,
        notes=(LOGITS,) if logits else (),
    )


LOGITS = (
    "the release was trained on logits of pixels, log(y / (1 - y)) of y = 1e-6 + (1 - 2e-6) x: data and model units of"
    " this model are logits, and the sigmoid of a sample is the image"
)
"""The note of a model of logits."""


def stage_names(names: Mapping[str, Tensor]) -> Literal["base", "deeper", "deepest"]:
    """Name of the RefineNet that a state dictionary belongs to."""
    if any(name.startswith("refine31.") for name in names):
        return "deepest"
    return "deeper" if any(name.startswith("refine5.") for name in names) else "base"


def spacing_of(fields: Fields) -> Spacing:
    """How a configuration spaces its levels.

    Raises:
        CheckpointError: The spacing is unknown.
    """
    return _SPACINGS[fields.word("model.sigma_dist", tuple(_SPACINGS), "geometric")]


_SPACINGS: dict[str, Spacing] = {"geometric": "geometric", "uniform": "linear", "linear": "linear"}


def activation_of(fields: Fields) -> Activation:
    """The activation that a configuration names.

    Raises:
        CheckpointError: The activation is not one of the releases'.
    """
    return cast(Activation, fields.word("model.nonlinearity", ACTIVATIONS, "elu"))


def optimiser(fields: Fields, rate: float) -> Adam:
    """Adam as a configuration of these releases describes it.

    Args:
        fields: Fields of the configuration.
        rate: The learning rate of the release.
    """
    return Adam(
        learning_rate=fields.number("optim.lr", rate),
        beta1=fields.number("optim.beta1", 0.9),
        eps=fields.number("optim.eps", 1e-8),
        weight_decay=fields.number("optim.weight_decay", 0.0),
        warmup=0,
        clip=None,
    )


def name_of(layout: str, image: Image) -> str:
    """Name of an imported model."""
    return "-".join(filter(None, (layout, image.dataset)))


def decay_of(fields: Fields, parts: Parts) -> float | None:
    """Decay of the average, where there is one and its decay is known."""
    return fields.number("model.ema_rate") if parts.average and fields.has("model.ema_rate") else None
