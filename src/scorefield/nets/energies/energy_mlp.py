"""An energy of vectors and other small events: a multilayer perceptron whose head grows like |x|^2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import Activation, Dense, activation
from scorefield.nets.network import EnergyNetwork, NetworkConfig, refuse_condition, refuse_conditions


@record
class EnergyMLP(NetworkConfig):
    """Configuration of a residual multilayer perceptron with the energy E(x) = |V h|^2 / 2 + w . h.

    h are the last features. They contain a linear function of x, so that E grows like |x|^2, and is bounded below, in
    every direction in which V h grows.

    Args:
        width: Number of hidden units.
        depth: Number of residual layers.
        activation: Activation function. Training differentiates it twice, so it should be smooth.

    Raises:
        ValueError: A field is out of its range.
    """

    width: int = 256
    depth: int = 3
    activation: Activation = "swish"

    def __post_init__(self) -> None:
        if min(self.width, self.depth) < 1:
            raise ValueError(f"width and depth must be positive; got {self.width} and {self.depth}")

    def build(self, data: DataSpec) -> PerceptronEnergy:
        """The energy network for data of any shape, flattened.

        Raises:
            ValueError: The data have conditions.
        """
        return PerceptronEnergy(self, data)


class PerceptronEnergy(EnergyNetwork):
    """The network of an `EnergyMLP` configuration.

    Raises:
        ValueError: The data have conditions.
    """

    def __init__(self, config: EnergyMLP, data: DataSpec):
        refuse_conditions("EnergyMLP", data)
        super().__init__(data)
        self.act = activation(config.activation)
        self.first = Dense(data.dimension, config.width)
        self.layers = nn.ModuleList(
            nn.ModuleList((Dense(config.width, config.width), Dense(config.width, config.width)))
            for _ in range(config.depth)
        )
        self.quadratic = Dense(config.width, data.dimension)
        self.linear = Dense(config.width, 1)

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, *data.shape), (B,) -> (B,); c is ignored. See `EnergyNetwork.forward`."""
        self.check(x, c)
        refuse_condition(condition)
        h = self.first(torch.flatten(x, 1))
        for inner, outer in self.layers:  # type: ignore[misc]
            h = h + outer(self.act(inner(self.act(h))))
        return (0.5 * self.quadratic(h).square().sum(dim=1) + self.linear(h)[:, 0]).to(x.dtype)
