"""Multilayer perceptrons for vectors and other small events: a residual one, and the one of NCSN's toy density."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.conditioning import Conditioning
from scorefield.nets.layers import Activation, Dense, TimeEmbedding, activation, variance_scaling_
from scorefield.nets.network import Network, NetworkConfig, check_dropout, refuse_condition, refuse_conditions


@record
class MLP(NetworkConfig):
    """Configuration of a residual multilayer perceptron; it takes events of any shape, flattened.

    Args:
        width: Hidden units.
        depth: Number of residual layers between the first and the last linear map.
        embedding: Embedding of c: "fourier" (c = ln sigma) or "positional" (c = 999 t, or the index of a level).
        embedding_size: Number of frequencies (fourier) or of features (positional) of c.
        fourier_scale: Standard deviation of the Fourier frequencies. The default is small because the score of
            low-dimensional data changes slowly with ln sigma.
        activation: Activation function.
        dropout: Dropout probability before the second linear map of each residual layer.

    Raises:
        ValueError: A field is out of its range.
    """

    width: int = 256
    depth: int = 3
    embedding: Literal["fourier", "positional"] = "fourier"
    embedding_size: int = 32
    fourier_scale: float = 0.5
    activation: Activation = "swish"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.width, self.embedding_size, self.depth) < 1:
            raise ValueError(
                f"width, embedding_size and depth must be positive; got {self.width}, {self.embedding_size} and"
                f" {self.depth}"
            )
        check_dropout(self.dropout)

    def build(self, data: DataSpec) -> Perceptron:
        """The network for data of any shape."""
        return Perceptron(self, data)


class ResidualLayer(nn.Module):
    """h + W_2 dropout(act(W_1 act(h) + W_t act(e))), with e the embedding of c and of the conditions.

    The activation precedes each linear map, as in He et al. 2016 ("Identity mappings"), figure 4e.
    """

    def __init__(self, config: MLP):
        super().__init__()
        self.first = Dense(config.width, config.width)
        self.time = nn.Linear(config.width, config.width, bias=False)
        self.second = Dense(config.width, config.width)
        variance_scaling_(self.time.weight)
        self.act = activation(config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """(B, width), already activated embedding (B, width) -> (B, width)."""
        inner = self.act(self.first(self.act(h)) + self.time(embedding))
        return h + self.second(self.dropout(inner))


class Perceptron(Network):
    """The network of an `MLP` configuration.

    Image conditions are flattened and concatenated with x, each with an indicator of whether it is known; class and
    vector conditions are added to the embedding of c.
    """

    def __init__(self, config: MLP, data: DataSpec):
        super().__init__(data)
        conditioning = Conditioning(data.conditions, config.width)
        positions = data.dimension // data.shape[0]
        self.act = activation(config.activation)
        self.time = TimeEmbedding(
            config.embedding,
            config.embedding_size,
            config.width,
            fourier_scale=config.fourier_scale,
            act=self.act,
        )
        self.first = Dense(data.dimension + conditioning.channels * positions, config.width)
        self.layers = nn.ModuleList(ResidualLayer(config) for _ in range(config.depth))
        self.last = Dense(config.width, data.dimension)
        self.conditioning = conditioning
        variance_scaling_(self.last.weight, 0.0)

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, *data.shape), (B,) -> (B, *data.shape); see `Network.forward`."""
        self.check(x, c)
        embedding = self.conditioning.embedding(condition, self.time(c), x.shape[0])
        assert embedding is not None
        embedding = self.act(embedding)
        h = self.first(torch.flatten(self.conditioning.with_images(x, condition), 1))
        for layer in self.layers:
            h = layer(h, embedding)
        return self.last(self.act(h)).reshape(x.shape).to(x.dtype)


@record
class ToyMLP(NetworkConfig):
    """Configuration of the multilayer perceptron of a toy density (Song and Ermon 2019, figure 2).

    Its output is the score at one fixed noise level, or without noise; c is ignored.

    Args:
        width: Number of units of each of the two hidden layers.

    Raises:
        ValueError: A field is out of its range.
    """

    width: int = 128

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be positive, for example 128; got {self.width}")

    def build(self, data: DataSpec) -> ToyPerceptron:
        """The network for data of any shape, flattened.

        Raises:
            ValueError: The data have conditions.
        """
        refuse_conditions("ToyMLP", data)
        return ToyPerceptron(self, data)


class ToyPerceptron(Network):
    """The network of a `ToyMLP` configuration: W_3 softplus(W_2 softplus(W_1 x + b_1) + b_2) + b_3."""

    def __init__(self, config: ToyMLP, data: DataSpec):
        super().__init__(data)
        self.first = nn.Linear(data.dimension, config.width)
        self.second = nn.Linear(config.width, config.width)
        self.third = nn.Linear(config.width, data.dimension)

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, *data.shape), (B,) -> (B, *data.shape); see `Network.forward`."""
        self.check(x, c)
        refuse_condition(condition)
        h = functional.softplus(self.first(x.flatten(1)))
        h = functional.softplus(self.second(h))
        return self.third(h).reshape(x.shape).to(x.dtype)
