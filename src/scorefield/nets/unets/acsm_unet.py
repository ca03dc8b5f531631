"""The U-Net of adversarial score matching (Jolicoeur-Martineau et al. 2021): that of Ho et al. 2020 without c.

Its parameters have the names and shapes of the release's state dictionary, so that a checkpoint is copied by name.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import (
    CONVOLUTION_MODULES,
    GroupNorm,
    activation,
    attend,
    mix_channels,
    variance_scaling_,
)
from scorefield.nets.network import Network, NetworkConfig, refuse_condition, refuse_conditions, spatial_axes
from scorefield.nets.unets.ncsnpp import check_unet_fields

GROUPS = 32
"""Number of groups of every normalisation; fewer where 32 does not divide the number of channels."""

_DROPOUTS = {1: functional.dropout1d, 2: functional.dropout2d}


@record
class ACSMUNet(NetworkConfig):
    """Configuration of the unconditional U-Net of ACSM ("Ho et al. network"); the defaults are those of CIFAR-10.

    The network is conditioned neither on c nor on conditions: it infers the noise level from the image. Its input is
    not rescaled. The deeper published network has channel_multipliers=(1, 2, 2, 2, 4, 4). It differs from `DDPM` in
    that it has no embedding of c, pads symmetrically where sizes are halved, has attention after every block of one
    level, and drops whole channels.

    Args:
        channels: Number of channels of the first level.
        channel_multipliers: Number of channels of each level divided by `channels`; every level after the first halves
            the size.
        blocks: Number of residual blocks per level on the way down; there is one more on the way up.
        attention_level: Level whose blocks are each followed by attention, counted from 0 at full size; the middle
            always has attention.
        dropout: Probability that a channel is zeroed inside a block; 0 in every published configuration.

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_level: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_unet_fields(self.channels, self.channel_multipliers, self.blocks, self.dropout)
        if not 0 <= self.attention_level < len(self.channel_multipliers):
            raise ValueError(
                f"attention_level must be one of the levels from 0 to {len(self.channel_multipliers) - 1}; got"
                f" {self.attention_level} with channel_multipliers={self.channel_multipliers}"
            )

    def build(self, data: DataSpec) -> UnconditionalUNet:
        """The network for data of shape (C, L) or (C, H, W)."""
        return UnconditionalUNet(self, data)


def _convolution(dims: int, inputs: int, outputs: int, *, stride: int = 1, xavier: bool = False) -> nn.Module:
    """A 3x3 convolution with PyTorch's initial values, or Xavier-uniform with gain sqrt(1/2) and zero bias."""
    conv = CONVOLUTION_MODULES[dims](inputs, outputs, 3, stride=stride, padding=1)
    if xavier:
        variance_scaling_(conv.weight, 0.5)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
    return conv


class ChannelMap(nn.Module):
    """A linear map of the channels, the same at every position; `weights` (out, in), `bias` are the release's names."""

    def __init__(self, inputs: int, outputs: int, *, init_scale: float = 0.5):
        super().__init__()
        self.weights = nn.Parameter(variance_scaling_(torch.empty(outputs, inputs), init_scale))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial)."""
        return mix_channels(x, self.weights, self.bias)


class ResidualBlock(nn.Module):
    """h = conv0(swish(norm(x))); h = conv1(drop(swish(norm(h)))); out = nin(x) + h.

    The channel map `nin` is present only where the numbers of channels differ; otherwise it is the identity.

    Args:
        dims: Number of spatial axes.
        inputs: Number of input channels.
        outputs: Number of output channels.
        drop: Probability that a channel of the second convolution's input is zeroed.
        xavier: Whether the convolutions have Xavier-uniform initial values (see `_convolution`).
    """

    def __init__(self, dims: int, inputs: int, outputs: int, drop: float, *, xavier: bool = False):
        super().__init__()
        swish = activation("swish")
        self.normalize0 = GroupNorm(inputs, GROUPS, swish)
        self.conv0 = _convolution(dims, inputs, outputs, xavier=xavier)
        self.normalize1 = GroupNorm(outputs, GROUPS, swish)
        self.conv1 = _convolution(dims, outputs, outputs, xavier=xavier)
        self.nin = ChannelMap(inputs, outputs) if inputs != outputs else None
        self.dims, self.drop = dims, drop

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial)."""
        h = self.normalize1(self.conv0(self.normalize0(x)))
        if self.training and self.drop:
            h = _DROPOUTS[self.dims](h, self.drop)
        h = self.conv1(h)
        return h + (x if self.nin is None else self.nin(x))


class Attention(nn.Module):
    """x + OUT attention(Q h, K h, V h) with h = norm(x) and one head over all positions; names are the release's."""

    def __init__(self, channels: int):
        super().__init__()
        self.Q = ChannelMap(channels, channels)
        self.K = ChannelMap(channels, channels)
        self.V = ChannelMap(channels, channels)
        self.OUT = ChannelMap(channels, channels, init_scale=0.5e-10)
        self.normalize = GroupNorm(channels, GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> the same shape."""
        parts = (self.Q, self.K, self.V)
        weights, bias = torch.cat([m.weights for m in parts]), torch.cat([m.bias for m in parts])
        return x + self.OUT(attend(mix_channels(self.normalize(x), weights, bias)).reshape(x.shape))


class UpsampleConvolve(nn.Module):
    """Double the size by repetition, then convolve with a 3x3 kernel."""

    def __init__(self, dims: int, channels: int):
        super().__init__()
        self.conv = _convolution(dims, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *2 spatial)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class UnconditionalUNet(Network):
    """The network of an `ACSMUNet` configuration; its output is s(x) = sigma times the score, as in its paper.

    Initial values are those with which the release's training started, which differ from those that its code intends.
    Convolutions of the way down are Xavier-uniform with gain sqrt(1/2) and zero bias, including the second one of each
    block (intended to be near zero). Convolutions of the middle, of the way up and of the output keep PyTorch's
    U(+-1/sqrt(fan_in)). Channel maps are Xavier-uniform with gain sqrt(1/2), the last one of attention with gain
    sqrt(1e-10 / 2), and their biases are zero.

    The two layers of `temb_dense`, a time embedding, are in every published checkpoint and in its averages but are
    never used. They are kept, frozen, so that the names match.

    Args:
        config: The configuration.
        data: Shape (C, L) or (C, H, W), without conditions.

    Raises:
        ValueError: The data have no spatial axes, more than two, or conditions.
    """

    def __init__(self, config: ACSMUNet, data: DataSpec):
        refuse_conditions("ACSMUNet", data)
        super().__init__(data, multiple=2 ** (len(config.channel_multipliers) - 1))
        self.dims = spatial_axes("a U-Net", data, "For vectors use MLP()")
        self.config = config
        self.widths = [config.channels * m for m in config.channel_multipliers]
        skip_widths = [config.channels]  # numbers of channels of the feature maps that the way up will concatenate
        self.downblocks = nn.ModuleList(self._way_down(skip_widths))
        self.middleblocks = nn.ModuleList(
            [self._block(self.widths[-1], self.widths[-1]), Attention(self.widths[-1])]
            + [self._block(self.widths[-1], self.widths[-1])]
        )
        self.upblocks = nn.ModuleList(self._way_up(skip_widths))
        self.normalize = GroupNorm(self.widths[0], GROUPS, activation("swish"))
        self.out = _convolution(self.dims, self.widths[0], data.shape[0])
        self.temb_dense = _unused_time_embedding(config.channels)

    # ------------------------------------------------------------------------------------------- construction

    def _block(self, inputs: int, outputs: int, *, xavier: bool = False) -> ResidualBlock:
        return ResidualBlock(self.dims, inputs, outputs, self.config.dropout, xavier=xavier)

    def _way_down(self, skip_widths: list[int]) -> list[nn.Module]:
        """The modules of the way down; appends the number of channels of each stored feature map to `skip_widths`."""
        modules: list[nn.Module] = [_convolution(self.dims, self.data.shape[0], self.config.channels, xavier=True)]
        for level, width in enumerate(self.widths):
            for _ in range(self.config.blocks):
                modules.append(self._block(skip_widths[-1], width, xavier=True))
                skip_widths.append(width)
                if level == self.config.attention_level:
                    modules.append(Attention(width))
            if level < len(self.widths) - 1:
                modules.append(_convolution(self.dims, width, width, stride=2, xavier=True))
                skip_widths.append(width)
        return modules

    def _way_up(self, skip_widths: list[int]) -> list[nn.Module]:
        """The modules of the way up; takes numbers of channels from the end of `skip_widths`."""
        modules: list[nn.Module] = []
        current = self.widths[-1]
        for level in reversed(range(len(self.widths))):
            width = self.widths[level]
            for _ in range(self.config.blocks + 1):
                modules.append(self._block(current + skip_widths.pop(), width))
                current = width
                if level == self.config.attention_level:
                    modules.append(Attention(width))
            if level:
                modules.append(UpsampleConvolve(self.dims, width))
        return modules

    # ------------------------------------------------------------------------------------------- evaluation

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, C, *spatial), (B,) -> (B, C, *spatial); c is ignored. See `Network.forward`."""
        self.check(x, c)
        refuse_condition(condition)
        dtype = x.dtype
        if x.ndim == 4 and x.device.type == "cpu":  # on CUDA the normalisation is faster in contiguous layout
            x = x.contiguous(memory_format=torch.channels_last)
        skips = [self.downblocks[0](x)]
        for module in list(self.downblocks)[1:]:
            h = module(skips[-1])
            if isinstance(module, Attention):
                skips[-1] = h  # the output of attention replaces that of its block
            else:
                skips.append(h)
        h = skips[-1]
        for module in self.middleblocks:
            h = module(h)
        for module in self.upblocks:
            h = module(torch.cat([h, skips.pop()], dim=1) if isinstance(module, ResidualBlock) else h)
        assert not skips
        return self.out(self.normalize(h)).to(dtype).contiguous()


def _unused_time_embedding(channels: int) -> nn.Sequential:
    """Linear, swish, linear: channels -> 4 channels -> 4 channels, with frozen weights."""
    sizes = (channels, 4 * channels, 4 * channels)
    first, second = (nn.Linear(a, b) for a, b in pairwise(sizes))
    for layer in (first, second):
        variance_scaling_(layer.weight, 0.5)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.SiLU(), second).requires_grad_(False)
