"""Networks of equal size: the network that all score models share, and an energy with as many parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from scorefield.data_spec import DataSpec
from scorefield.nets.energies.energy_mlp import EnergyMLP
from scorefield.nets.energies.energy_resnet import EnergyResNet
from scorefield.nets.mlp import MLP
from scorefield.nets.network import NetworkConfig
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.recipes.small import digits, images

Architecture = Literal["mlp", "unet"]

SMALL = 16
"""Images with sides up to this length take the U-Net of two levels, larger ones that of three."""


def choose_architecture(spec: DataSpec, requested: Literal["auto", "mlp", "unet"] = "auto") -> Architecture:
    """Return the architecture for data of a shape.

    Args:
        spec: The data.
        requested: "mlp", "unet", or "auto": a U-Net for data with one or two spatial axes, a perceptron otherwise.

    Raises:
        ValueError: A U-Net was requested, and the data have no such axes.
    """
    spatial = len(spec.shape) in (2, 3)
    if requested == "unet" and not spatial:
        raise ValueError(
            f"--network unet takes signals (C, L) and images (C, H, W), and examples of shape {spec.shape} are neither;"
            " --network mlp takes any shape"
        )
    if requested == "auto":
        return "unet" if spatial else "mlp"
    return requested


def score_network(
    architecture: Architecture, spec: DataSpec, embedding: Literal["fourier", "positional"]
) -> NetworkConfig:
    """Return the network of score models with a Fourier or positional embedding of the noise level."""
    if architecture == "mlp":
        return MLP(embedding=embedding)
    recipe = digits() if max(spec.shape[1:]) <= SMALL else images()
    assert isinstance(recipe.network, NCSNpp)
    return replace(recipe.network, embedding=embedding, fourier_scale=2.0, centered=True, dropout=0.0)


def energy_network(architecture: Architecture, spec: DataSpec) -> NetworkConfig:
    """Return the energy network whose number of parameters is nearest to that of the score network."""
    target = count(score_network(architecture, spec, "positional"), spec)
    choices: list[NetworkConfig] = [
        EnergyMLP(width=width) if architecture == "mlp" else EnergyResNet(width, 6) for width in range(1, 513)
    ]
    low, high = 0, len(choices) - 1
    while low < high:  # bisection, as the number of parameters grows with the width
        middle = (low + high) // 2
        low, high = (middle + 1, high) if count(choices[middle], spec) < target else (low, middle)
    return min(choices[max(low - 1, 0) : low + 1], key=lambda config: abs(count(config, spec) - target))


def count(config: NetworkConfig, spec: DataSpec) -> int:
    """Return the number of parameters of a network, which is built without memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build(spec).parameters())
