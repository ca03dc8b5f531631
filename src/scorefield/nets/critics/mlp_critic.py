"""A critic for examples of any shape: the multilayer perceptron of the published toy experiments."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.critics.critic import Critic, CriticConfig
from scorefield.nets.network import refuse_conditions


@record
class MLPCritic(CriticConfig):
    """Configuration of a multilayer perceptron as critic of vectors, and of other small examples, flattened.

    The defaults are those of the synthetic experiments of Jolicoeur-Martineau et al. (2021), 512 -> 512 -> 512 -> 1
    with leaky rectifiers of slope 0.01. Initial weights are PyTorch's.

    Args:
        width: Number of units of each hidden layer.
        depth: Number of hidden layers.
        slope: Slope of the leaky rectifier for negative inputs.

    Raises:
        ValueError: A field is out of its range.
    """

    width: int = 512
    depth: int = 3
    slope: float = 0.01

    def __post_init__(self) -> None:
        if min(self.width, self.depth) < 1:
            raise ValueError(f"width and depth must be positive; got {self.width} and {self.depth}")
        if not 0.0 <= self.slope < 1.0:
            raise ValueError(f"slope must be at least 0 and below 1; got {self.slope}")

    def build(self, data: DataSpec) -> PerceptronCritic:
        """The critic of examples of any shape."""
        return PerceptronCritic(self, data)


class PerceptronCritic(Critic):
    """The network of an `MLPCritic` configuration.

    Raises:
        ValueError: The data have conditions.
    """

    def __init__(self, config: MLPCritic, data: DataSpec):
        refuse_conditions("MLPCritic", data)
        super().__init__(data)
        self.config = config
        sizes = [math.prod(data.shape), *(config.width,) * config.depth]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(config.slope)]
        self.model = nn.Sequential(*layers, nn.Linear(config.width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *event) -> (B,); see `Critic.forward`."""
        self.check(x)
        return self.model(x)[:, 0].to(x.dtype)
