"""Networks of one size: the body that all scores share, and an energy with as many parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from scorefield.data_spec import DataSpec
from scorefield.nets.energy import EnergyResNet
from scorefield.nets.energy_mlp import EnergyMLP
from scorefield.nets.mlp import MLP
from scorefield.nets.ncsnpp import NCSNpp
from scorefield.nets.network import NetworkConfig
from scorefield.recipes.small import digits, images

Body = Literal["mlp", "unet"]

SMALL = 16
"""Images up to this side take the U-Net of two levels, larger ones that of three."""


def body_of(spec: DataSpec, asked: Literal["auto", "mlp", "unet"] = "auto") -> Body:
    """The body for data of a shape: a U-Net where there are one or two spatial axes, else a perceptron.

    Raises:
        ValueError: A U-Net was asked for, and the data have no such axes.
    """
    convolves = len(spec.shape) in (2, 3)
    if asked == "unet" and not convolves:
        raise ValueError(
            f"--network unet takes signals (C, L) and images (C, H, W), and examples of shape {spec.shape} are neither;"
            " --network mlp takes any shape"
        )
    if asked == "auto":
        return "unet" if convolves else "mlp"
    return asked


def score_network(body: Body, spec: DataSpec, embedding: Literal["fourier", "positional"]) -> NetworkConfig:
    """The body, told the noise by one of two embeddings."""
    if body == "mlp":
        return MLP(embedding=embedding)
    recipe = digits() if max(spec.shape[1:]) <= SMALL else images()
    assert isinstance(recipe.network, NCSNpp)
    return replace(recipe.network, embedding=embedding, fourier_scale=2.0, centered=True, dropout=0.0)


def energy_network(body: Body, spec: DataSpec) -> NetworkConfig:
    """The energy whose number of parameters is nearest to the body's."""
    aim = count(score_network(body, spec, "positional"), spec)
    choices: list[NetworkConfig] = [
        EnergyMLP(width=width) if body == "mlp" else EnergyResNet(width, 6) for width in range(1, 513)
    ]
    low, high = 0, len(choices) - 1
    while low < high:  # counts grow with the width
        middle = (low + high) // 2
        low, high = (middle + 1, high) if count(choices[middle], spec) < aim else (low, middle)
    return min(choices[max(low - 1, 0) : low + 1], key=lambda config: abs(count(config, spec) - aim))


def count(config: NetworkConfig, spec: DataSpec) -> int:
    """Parameters of a network, without its memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build(spec).parameters())
