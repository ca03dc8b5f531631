"""Checkpoints of multi-scale denoising score matching (Li et al. 2019): energies.

A flat state dictionary, with `module.` before every name when trained on several devices. The release builds layer
normalisations (`bn1`, `bn2`) and never applies them; their tensors are dropped. The size of the images follows from the
head, assuming squares; the noise levels are in no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from torch import Tensor

from scorefield.data import DataSource
from scorefield.interop.checkpoint_files import expect, read_config, read_torch, weight, without_prefix
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import CheckpointError, Hints, Imported, Weights, settled
from scorefield.interop.list_checkpoints import ACTIVATIONS
from scorefield.nets.energies.energy_resnet import EnergyResNet
from scorefield.nets.layers import Activation
from scorefield.recipes.mdsm import Settings, experiment

DROPPED = "the layer normalisations of the release, which it never applies, were dropped"


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """A checkpoint as a model; see `scorefield.interop`."""
    content = read_torch(checkpoint)
    expect(content, "mdsm", checkpoint)
    if weights == "ema":
        raise CheckpointError(f"{checkpoint} holds no average of the weights, and MDSM has none; leave --weights out")
    state = without_prefix(content, checkpoint)
    tensors = {name: v for name, v in state.items() if ".bn1." not in name and ".bn2." not in name}
    fields = _flat(config)
    depth, head = _kind(tensors, fields, checkpoint)
    first = weight(tensors, "conv1.conv.weight", 4, checkpoint)
    channels, inputs = (int(n) for n in first.shape[:2])
    inputs = fields.count("in_channels", inputs)
    size = _size(tensors, fields, hints, depth, head, checkpoint)
    activation = cast(Activation, fields.word("activation", ACTIVATIONS, "elu"))
    network = EnergyResNet(fields.count("dim", channels), depth, head, activation)
    spacing: Literal["geometric", "linear"] = "geometric" if inputs == 1 else "linear"
    low, high = (0.1, 3.0) if inputs == 1 else (0.05, 1.2)
    low, high = hints.sigma_min or low, hints.sigma_max or high
    settings = Settings(network, (inputs, size, size), low, high, spacing, levels=hints.levels or 128)
    padded = DataSource(pad=2 if inputs == 1 and size == 32 else 0, model_range=(0.0, 1.0))
    made = experiment("mdsm", settings, data=padded, source="Li et al. 2019, arXiv:1910.07762")
    levels = (
        f"the noise levels are in no file: these are {settings.levels} {spacing} ones from {low:g} to {high:g}, those"
        f" of the release for {'grey' if inputs == 1 else 'colour'} images unless given"
    )
    return Imported(made, "raw", tensors, None, (DROPPED, levels))


def _flat(config: Path | None) -> Fields:
    """The configuration, whose fields may lie in one section or in none.

    Raises:
        CheckpointError: The configuration has no field of MDSM, or asks for normalisation.
    """
    found = read_config(config, sections=False)
    if found is None:
        return Fields(None)
    fields = Fields({k: v for part in (found, *found.values()) if isinstance(part, Mapping) for k, v in part.items()})
    if not any(fields.has(name) for name in ("network", "dim", "in_channels", "activation")):
        raise CheckpointError(
            f"the configuration {config} has none of MDSM's fields (network, dim, in_channels, activation)"
        )
    if fields.flag("normalize", False):
        raise CheckpointError(
            f"the configuration {config} says normalize, and with its layer normalisations applied no network of MDSM"
            " was published or can be imported"
        )
    return fields


def _kind(
    tensors: Mapping[str, Tensor], fields: Fields, checkpoint: Path
) -> tuple[Literal[6, 12, 18, 34], Literal["quadratic", "linear"]]:
    depth: Literal[6, 12, 18, 34] = 6
    markers: tuple[tuple[str, Literal[6, 12, 18, 34]], ...] = (("rbc1", 12), ("rbc11", 18), ("rb4", 34))
    for name, d in markers:
        if any(key.startswith(f"{name}.") for key in tensors):
            depth = d
    head: Literal["quadratic", "linear"] = "linear" if "ln.weight" in tensors else "quadratic"
    found = f"Res{depth}_{head.capitalize()}"
    if (named := fields.text("network", found)) != found:
        raise CheckpointError(
            f"{checkpoint} holds a {found} and its configuration names {named}: it belongs to another checkpoint"
        )
    return depth, head


def _size(tensors: Mapping[str, Tensor], fields: Fields, hints: Hints, depth: int, head: str, checkpoint: Path) -> int:
    """Height and width: the head reads c s^2 features at 1/8 of the size, at 1/16 with four stages."""
    stages = 4 if depth == 34 else 3
    features = weight(tensors, "ln.weight" if head == "linear" else "ln1.weight", 2, checkpoint).shape[1]
    channels = tensors["conv1.conv.weight"].shape[0] * 2**stages
    side = math.isqrt(features // channels) * 2**stages
    if (configured := fields.whole("image_size", side)) != side:
        raise CheckpointError(
            f"the head of this energy belongs to images of {side} pixels; its configuration says {configured}"
        )
    return settled(hints, "size", side)
