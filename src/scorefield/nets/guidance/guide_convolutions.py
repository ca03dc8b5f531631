"""A small convolutional guidance network for signals and images."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.guidance.guide_network import GuideConfig, GuideNetwork, _order_one
from scorefield.nets.layers import Convolution, Dense, GroupNorm, TimeEmbedding, activation


def _positive(name: str, **fields: int) -> None:
    if min(fields.values()) < 1:
        raise ValueError(f"{name}: {', '.join(fields)} must be positive; got {', '.join(map(str, fields.values()))}")


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
