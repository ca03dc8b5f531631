"""Residual blocks of the U-Nets NCSN++, DDPM++ and DDPM.

Modules register their parameters in the order of the published networks, so that a published list of unnamed tensors
can be assigned to them (see `scorefield.nets.unets.release_order`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorefield.nets.layers import (
    Attention,
    ChannelMix,
    Convolution,
    Dense,
    GroupNorm,
    Pointwise,
    dropout,
    residual_gain,
    residual_sum,
    times,
)
from scorefield.nets.unets.resampling import Downsample, Upsample


@dataclass(frozen=True)
class BlockStyle:
    """Settings that all blocks of one network share.

    Args:
        dims: Number of spatial axes.
        act: Activation function.
        group_limit: Largest number of groups of a normalisation, as a function of the number of channels.
        embedding: Width of the embedding passed to the blocks; None if they receive none.
        dropout: Dropout probability before the second convolution.
        init_scale: Factor on the initial variance of the last layer of blocks and attention.
        skip_rescale: Whether residual sums are divided by sqrt(2).
        biggan: Whether blocks are those of BigGAN, which resample inside the block and have a 1x1 convolution as
            shortcut (Brock et al. 2019); otherwise they are those of Ho et al. (2020).
        taps: Taps of the FIR filter used for resampling, or None.
    """

    dims: int
    act: Pointwise
    group_limit: Callable[[int], int]
    embedding: int | None
    dropout: float
    init_scale: float
    skip_rescale: bool
    biggan: bool
    taps: tuple[float, ...] | None

    def norm(self, channels: int) -> GroupNorm:
        """A group normalisation in this style, followed by the activation."""
        return GroupNorm(channels, self.group_limit(channels), self.act)

    def attention(self, channels: int) -> Attention:
        """An attention layer in this style."""
        return Attention(
            channels,
            group_limit=self.group_limit(channels),
            init_scale=self.init_scale,
            skip_rescale=self.skip_rescale,
        )


class ResidualBlock(nn.Module):
    """h = conv(act(norm(x))) + dense(act(temb)); h = conv(dropout(act(norm(h)))); out = shortcut(x) + h.

    A block that resamples does so after its first activation, and on the shortcut. `out` is divided by sqrt(2) if
    `style.skip_rescale` (Ho et al. 2020, appendix B; Brock et al. 2019, figure 15; Song et al. 2021, appendix H.1).

    Args:
        style: Settings shared by all blocks.
        inputs: Number of input channels.
        outputs: Number of output channels.
        resample: Module that halves or doubles the size inside a BigGAN block; None keeps the size.
    """

    def __init__(self, style: BlockStyle, inputs: int, outputs: int, resample: Upsample | Downsample | None = None):
        super().__init__()
        self.norm_0 = style.norm(inputs)
        self.conv_0 = Convolution(style.dims, inputs, outputs)
        self.dense = Dense(style.embedding, outputs) if style.embedding is not None else None
        self.norm_1 = style.norm(outputs)
        self.conv_1 = Convolution(style.dims, outputs, outputs, init_scale=style.init_scale)
        self.shortcut: Convolution | ChannelMix | None = None
        if inputs != outputs or resample is not None:
            biggan = style.biggan
            self.shortcut = Convolution(style.dims, inputs, outputs, 1) if biggan else ChannelMix(inputs, outputs)
        self.resample = resample
        self.drop, self.gain = style.dropout, residual_gain(style.skip_rescale)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """(B, in, *spatial), already activated embedding (B, E) -> (B, out, *spatial, doubled or halved)."""
        h = self.norm_0(x)
        if self.resample is not None:
            h = self.resample(h)
        h = self.conv_0(h)
        if self.dense is not None:
            shift = self.dense(embedding)
            # In place, to save memory: autograd does not save the output of a convolution.
            h += shift.reshape(shift.shape + (1,) * (h.ndim - 2))
        h = self.norm_1(h)
        if self.training and self.drop:
            h = dropout(h, self.drop)
        bias = self.conv_1.bias
        if self.shortcut is not None:
            # The weights of the shortcut commute with resampling and are applied at the smaller size; its bias does not
            # commute, because a filter darkens the border, and is added to the bias of the last convolution instead.
            bias = bias + self.shortcut.bias
            x = self._apply_shortcut(self.shortcut, x)
        h = self.conv_1.evaluate(h, times(self.conv_1.weight, self.gain), times(bias, self.gain))
        return residual_sum(x, h, self.gain)

    def _apply_shortcut(self, shortcut: Convolution | ChannelMix, x: Tensor) -> Tensor:
        """Apply the shortcut without its bias, at the smaller of the input and output sizes."""
        if isinstance(self.resample, Upsample):
            return self.resample(shortcut.evaluate(x, shortcut.weight, None))
        return shortcut.evaluate(x if self.resample is None else self.resample(x), shortcut.weight, None)


class Stage(nn.Module):
    """A residual block, followed by attention on the levels that have it."""

    def __init__(self, style: BlockStyle, inputs: int, outputs: int, attention: bool):
        super().__init__()
        self.block = ResidualBlock(style, inputs, outputs)
        self.attention = style.attention(outputs) if attention else None

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial)."""
        h = self.block(x, embedding)
        return h if self.attention is None else self.attention(h)


class Combine(nn.Module):
    """Merge the image pyramid into the features: conv1x1(pyramid) + h, or the concatenation of both if `cat`."""

    def __init__(self, dims: int, inputs: int, outputs: int, *, cat: bool):
        super().__init__()
        self.conv = Convolution(dims, inputs, outputs, 1)
        self.cat = cat

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        """(B, image channels, *spatial), (B, C, *spatial) -> (B, C or 2 C, *spatial)."""
        y = self.conv(pyramid)
        return torch.cat([y, h.to(y.dtype)], dim=1) if self.cat else y + h
