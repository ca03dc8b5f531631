"""Networks of guidance models p_t(y | x_t): from a noisy example to the parameters of a distribution of y.

The guidance network takes a noisy example in the scale of the data, x_t / alpha = x_0 + (sigma / alpha) z, and
c = ln(sigma / alpha). That number is defined under every process (VE, where it is ln sigma, VP, sub-VP, ladders), says
all that there is to know of the noise, and lets a network that wants an input of order one divide by sqrt(1 + e^(2 c)).
What its outputs mean, logits of classes or means and deviations of numbers, is defined by the guidance model around it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import record
from scorefield._math import over_event
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import Convolution, Dense, GroupNorm, TimeEmbedding, activation
from scorefield.nets.mlp import MLP, ResidualLayer


class GuideNetwork(nn.Module, ABC):
    """A function of a noisy example and a number that says how noisy: net(x, c) -> (B, outputs).

    Args:
        data: Shape of one example; kept as an attribute.
        outputs: Number of outputs for each example; kept as an attribute.

    Raises:
        ValueError: No output.
    """

    def __init__(self, data: DataSpec, outputs: int):
        super().__init__()
        if outputs < 1:
            raise ValueError(f"a guidance network has one output or more; got outputs={outputs}")
        self.data, self.outputs = data, outputs

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Noisy examples in the scale of the data, x_t / alpha in model units, (B, *data.shape).
            c: ln(sigma / alpha) of each, (B,).

        Returns:
            (B, outputs), in the dtype of x; row i depends on example i alone.

        Raises:
            ValueError: x or c does not have the shape the network was built for.
        """

    def check(self, x: Tensor, c: Tensor) -> None:
        """Refuse arguments of another shape than the network was built for.

        Raises:
            ValueError: The shape of one example differs, or there is not one c for each.
        """
        if tuple(x.shape[1:]) != self.data.shape:
            raise ValueError(
                f"the guidance network was built for examples of shape {self.data.shape}; got a batch of shape"
                f" {tuple(x.shape)}. Give it examples of that shape, one per row, or build one for these"
            )
        if c.shape != x.shape[:1]:
            raise ValueError(f"c must have shape ({x.shape[0]},), one number per example; got {tuple(c.shape)}")


class GuideConfig(ABC):
    """Configuration of a guidance network, built for the shape of the data."""

    @abstractmethod
    def build(self, data: DataSpec, outputs: int) -> GuideNetwork:
        """Make the network with freshly drawn weights (torch's global generator).

        Args:
            data: Event shape; conditions that come with the data, such as a class, play no role.
            outputs: Numbers wanted of each example.

        Raises:
            ValueError: The network cannot take data of this shape.
        """


def _positive(name: str, **fields: int) -> None:
    if min(fields.values()) < 1:
        raise ValueError(f"{name}: {', '.join(fields)} must be positive; got {', '.join(map(str, fields.values()))}")


def _order_one(x: Tensor, c: Tensor) -> Tensor:
    """x / sqrt(1 + e^(2 c)): of order one at every noise level for data of order one."""
    return over_event(torch.rsqrt(1.0 + (2.0 * c).exp()), x) * x


@record
class GuideMLP(GuideConfig):
    """Configuration of the perceptron for vectors, and for small events of any shape, flattened.

    Args:
        width: Hidden units.
        depth: Residual layers between the first and the last.
        embedding_size: Fourier frequencies of c.
        fourier_scale: Their standard deviation; small, as the answer changes slowly with c.
        dropout: Probability, before the second map of each layer.

    Raises:
        ValueError: A field is out of its range.
    """

    width: int = 128
    depth: int = 2
    embedding_size: int = 16
    fourier_scale: float = 0.2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        self._layer()

    def _layer(self) -> MLP:
        return MLP(self.width, self.depth, "fourier", self.embedding_size, self.fourier_scale, dropout=self.dropout)

    def build(self, data: DataSpec, outputs: int) -> GuidePerceptron:
        """The network for data of any shape."""
        return GuidePerceptron(self, data, outputs)


class GuidePerceptron(GuideNetwork):
    """The network of a `GuideMLP` configuration: the residual layers of `MLP`, then one linear map."""

    def __init__(self, config: GuideMLP, data: DataSpec, outputs: int):
        super().__init__(data, outputs)
        layer = config._layer()
        self.act = activation(layer.activation)
        self.time = TimeEmbedding(
            "fourier", config.embedding_size, config.width, fourier_scale=config.fourier_scale, act=self.act
        )
        self.first = Dense(data.dimension, config.width)
        self.layers = nn.ModuleList(ResidualLayer(layer) for _ in range(config.depth))
        self.last = Dense(config.width, outputs)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, *data.shape), (B,) -> (B, outputs); see `GuideNetwork.forward`."""
        self.check(x, c)
        embedding = self.act(self.time(c))
        h = self.first(_order_one(x, c).flatten(1))
        for layer in self.layers:
            h = layer(h, embedding)
        return self.last(self.act(h)).to(x.dtype)


@record
class GuideConvolutions(GuideConfig):
    """Configuration of the small convolutional network for signals (C, L) and images (C, H, W) of any size.

    Convolutions of stride 2 lead to at most four positions a side, which are then flattened: for examples up to some 64
    a side, cheap enough to train in a minute on one core.

    Args:
        width: Channels of the first layer; they double at each stride of 2.
        most: But not beyond these.
        embedding_size: Fourier frequencies of c.
        fourier_scale: Their standard deviation.
        dropout: Probability, before the last map.

    Raises:
        ValueError: A field is out of its range.
    """

    width: int = 32
    most: int = 128
    embedding_size: int = 16
    fourier_scale: float = 0.2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _positive("GuideConvolutions", width=self.width, most=self.most, embedding_size=self.embedding_size)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability below 1; got {self.dropout}")

    def build(self, data: DataSpec, outputs: int) -> ConvolutionalGuide:
        """The network for data with one or two spatial axes."""
        return ConvolutionalGuide(self, data, outputs)


class GuideStage(nn.Module):
    """act(norm(conv(h)) + W e), e the activated embedding of c: (B, in, *n) -> (B, out, *ceil(n / stride))."""

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int, features: int):
        super().__init__()
        self.conv = Convolution(dims, inputs, outputs, stride=stride)
        self.norm = GroupNorm(outputs, 8)
        self.shift = Dense(features, outputs)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """See the class."""
        h = self.norm(self.conv(h))
        return functional.silu(h + self.shift(embedding).reshape(*h.shape[:2], *(1,) * (h.ndim - 2)))


class ConvolutionalGuide(GuideNetwork):
    """The network of a `GuideConvolutions` configuration.

    Raises:
        ValueError: The data have no spatial axis, or more than two.
    """

    def __init__(self, config: GuideConvolutions, data: DataSpec, outputs: int):
        super().__init__(data, outputs)
        dims, grid = len(data.shape) - 1, list(data.shape[1:])
        if dims not in (1, 2):
            raise ValueError(
                f"GuideConvolutions takes signals (C, L) and images (C, H, W); got data of shape {data.shape}."
                " GuideMLP takes any shape"
            )
        self.act = activation("swish")
        self.time = TimeEmbedding(
            "fourier", config.embedding_size, config.width, fourier_scale=config.fourier_scale, act=self.act
        )
        stages = [GuideStage(dims, data.shape[0], config.width, 1, config.width)]
        channels = config.width
        while max(grid) > 4:
            wider = min(2 * channels, config.most)
            stages.append(GuideStage(dims, channels, wider, 2, config.width))
            grid, channels = [math.ceil(n / 2) for n in grid], wider
        self.stages = nn.ModuleList(stages)
        self.hidden = Dense(channels * math.prod(grid), config.most)
        self.dropout = nn.Dropout(config.dropout)
        self.last = Dense(config.most, outputs)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, C, *spatial), (B,) -> (B, outputs); see `GuideNetwork.forward`."""
        self.check(x, c)
        embedding = self.act(self.time(c))
        h = _order_one(x, c)
        for stage in self.stages:
            h = stage(h, embedding)
        return self.last(self.dropout(self.act(self.hidden(h.flatten(1))))).to(x.dtype)
