"""NCSN++ and DDPM++: the U-Nets of the SDE framework (Song et al. 2021, appendix H), for signals and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.conditioning import Conditioning
from scorefield.nets.layers import Activation, Convolution, TimeEmbedding, activation, residual_gain
from scorefield.nets.network import Network, NetworkConfig, check_dropout, padded_shape, spatial_axes
from scorefield.nets.unets.blocks import BlockStyle, Combine, ResidualBlock, Stage
from scorefield.nets.unets.resampling import ConvolveDown, ConvolveUp, Downsample, Upsample


@record
class NCSNpp(NetworkConfig):
    """Configuration of NCSN++ (the defaults: CIFAR-10, continuous VE) and of DDPM++.

    DDPM++ is fir=False, progressive_input="none", embedding="positional", centered=True.

    Args:
        channels: Number of channels of the first level, nf.
        channel_multipliers: Number of channels of each level divided by `channels`; every level after the first halves
            the size.
        blocks: Number of residual blocks per level on the way down; there is one more on the way up.
        attention_sizes: Levels whose largest spatial size (of the padded data, halved level by level) is in this tuple
            have attention; the middle always has.
        dropout: Dropout probability inside blocks.
        resample_with_conv: Whether resampling between levels of "ddpm" blocks has learned weights.
        time_conditional: Whether blocks are conditioned on c.
        fir: Whether resampling uses the FIR filter `fir_kernel`; otherwise it uses means and repetition.
        fir_kernel: Taps of the filter.
        skip_rescale: Whether sums of two branches are divided by sqrt(2).
        block: "biggan" (blocks that resample themselves) or "ddpm".
        progressive: Pyramid of outputs: "none", "output_skip" (images are summed) or "residual" (features are summed).
        progressive_input: Pyramid of inputs: "none", "input_skip" (images are merged) or "residual" (features are
            summed).
        progressive_combine: How "input_skip" merges the images: "sum" or "cat" (concatenation).
        embedding: Embedding of c: "fourier" (c = ln sigma) or "positional" (c = 999 t, or the index of a level).
        fourier_scale: Standard deviation of the Fourier frequencies.
        init_scale: Factor on the initial variance of the last layers; 0 means 1e-10.
        activation: Activation function.
        centered: Whether the data are in [-1, 1]; otherwise the network maps its noisy input x to 2 x - 1.
        conditions_enter: Whether class and vector conditions are added to the embedding of c ("embedding"), or to the
            features from which it is computed ("features", as in Karras et al. 2022, appendix F).

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention_sizes: tuple[int, ...] = (16,)
    dropout: float = 0.1
    resample_with_conv: bool = True
    time_conditional: bool = True
    fir: bool = True
    fir_kernel: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    skip_rescale: bool = True
    block: Literal["biggan", "ddpm"] = "biggan"
    progressive: Literal["none", "output_skip", "residual"] = "none"
    progressive_input: Literal["none", "input_skip", "residual"] = "residual"
    progressive_combine: Literal["sum", "cat"] = "sum"
    embedding: Literal["fourier", "positional"] = "fourier"
    fourier_scale: float = 16.0
    init_scale: float = 0.0
    activation: Activation = "swish"
    centered: bool = False
    conditions_enter: Literal["embedding", "features"] = "embedding"

    def __post_init__(self) -> None:
        check_unet_fields(self.channels, self.channel_multipliers, self.blocks, self.dropout)
        if self.fir and (len(self.fir_kernel) < 2 or sum(self.fir_kernel) == 0):
            raise ValueError(
                "fir_kernel needs two or more taps with a non-zero sum, for example (1, 3, 3, 1); got"
                f" {self.fir_kernel}"
            )
        if self.init_scale < 0:
            raise ValueError(f"init_scale is a factor on a variance and must not be negative; got {self.init_scale}")
        if self.conditions_enter == "features" and not self.time_conditional:
            raise ValueError(
                "conditions_enter='features' adds conditions to the features of c, and a network with"
                " time_conditional=False has none; use conditions_enter='embedding'"
            )

    def build(self, data: DataSpec) -> UNet:
        """The network for data of shape (C, L) or (C, H, W)."""
        return UNet(self, data, group_limit=lambda channels: min(channels // 4, 32))


def check_unet_fields(channels: int, multipliers: tuple[int, ...], blocks: int, dropout: float) -> None:
    """Refuse field values from which no U-Net can be built.

    Raises:
        ValueError: A size is not positive, or the dropout is not a probability below 1.
    """
    if channels < 1 or not multipliers or min(multipliers) < 1:
        raise ValueError(
            f"channels and channel_multipliers must be positive, for example 128 and (1, 2, 2, 2);"
            f" got {channels}, {multipliers}"
        )
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1; got {blocks}")
    check_dropout(dropout)


class DownLevel(nn.Module):
    """The blocks at one size on the way down, and the resampling to half the size (except at the last level)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.resample: ResidualBlock | ConvolveDown | Downsample | None = None
        self.pyramid: Combine | ConvolveDown | None = None


class UpLevel(nn.Module):
    """The blocks at one size on the way up, attention, output pyramid, and resampling to twice the size.

    The level of full size has no resampling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.attention: nn.Module | None = None
        self.pyramid: Head | Convolution | ConvolveUp | None = None
        self.resample: ResidualBlock | ConvolveUp | Upsample | None = None


class Head(nn.Module):
    """Output layer conv(act(norm(h))), from features to output channels."""

    def __init__(self, style: BlockStyle, inputs: int, outputs: int, init_scale: float):
        super().__init__()
        self.norm = style.norm(inputs)
        self.conv = Convolution(style.dims, inputs, outputs, init_scale=init_scale)

    def forward(self, h: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial)."""
        return self.conv(self.norm(h))


class UNet(Network):
    """The network of an `NCSNpp` or `DDPM` configuration.

    Args:
        config: The configuration.
        data: Shape (C, L) or (C, H, W), and conditions.
        group_limit: Largest number of groups of a normalisation, as a function of the number of channels.

    Attributes:
        checkpoint_activations: Whether training stores only the activations between blocks and recomputes the others
            in the backward pass (Chen et al. 2016, arXiv:1604.06174). Gradients are equal; training needs less memory
            and about a third more time.

    Raises:
        ValueError: The data have no spatial axes, or more than two.
    """

    def __init__(self, config: NCSNpp, data: DataSpec, *, group_limit: Callable[[int], int]):
        levels = len(config.channel_multipliers)
        super().__init__(data, multiple=2 ** (levels - 1))
        dims = spatial_axes("a U-Net", data, "For vectors use MLP()")
        self.config = config
        self.checkpoint_activations = False
        features = 4 * config.channels
        frequencies = config.channels * (2 if config.embedding == "fourier" else 1)
        to_features = config.conditions_enter == "features"
        conditioning = Conditioning(data.conditions, frequencies if to_features else features)
        self.style = BlockStyle(
            dims=dims,
            act=activation(config.activation),
            group_limit=group_limit,
            embedding=features if config.time_conditional or conditioning.embeds else None,
            dropout=config.dropout,
            init_scale=config.init_scale,
            skip_rescale=config.skip_rescale,
            biggan=config.block == "biggan",
            taps=config.fir_kernel if config.fir else None,
        )
        largest = max(padded_shape(data.shape[1:], self.multiple))
        self._attends = tuple(largest // 2**level in config.attention_sizes for level in range(levels))
        self.time = self._time(features) if config.time_conditional else None
        self.conv_in = Convolution(dims, data.shape[0] + conditioning.channels, config.channels)
        self.pyramid_down = Downsample(dims, self.style.taps)
        self.pyramid_up = Upsample(dims, self.style.taps)
        widths = [config.channels]  # numbers of channels of the feature maps that the way up will concatenate
        self.down = nn.ModuleList()
        current = self._build_down(widths)
        self.middle = nn.ModuleList(
            [Stage(self.style, current, current, True), Stage(self.style, current, current, False)]
        )
        self.up = nn.ModuleList()
        current = self._build_up(widths, current)
        self.head = None
        if config.progressive != "output_skip":
            self.head = Head(self.style, current, data.shape[0], config.init_scale)
        # Registered last, because the published networks have no such parameters and their order is kept.
        self.conditioning = conditioning

    # ------------------------------------------------------------------------------------------- construction

    def _time(self, features: int) -> TimeEmbedding:
        config = self.config
        return TimeEmbedding(
            config.embedding,
            config.channels,
            features,
            fourier_scale=config.fourier_scale,
            act=self.style.act,
        )

    def _build_down(self, widths: list[int]) -> int:
        """Append the levels of the way down; returns the number of channels at the bottom."""
        config, style, image = self.config, self.style, self.data.shape[0]
        current, pyramid = config.channels, image
        for index, multiplier in enumerate(config.channel_multipliers):
            level = DownLevel()
            for _ in range(config.blocks):
                level.stages.append(Stage(style, current, config.channels * multiplier, self._attends[index]))
                current = config.channels * multiplier
                widths.append(current)
            if index < len(config.channel_multipliers) - 1:
                level.resample = self._down_sampler(current)
                if config.progressive_input == "input_skip":
                    cat = config.progressive_combine == "cat"
                    level.pyramid = Combine(style.dims, image, current, cat=cat)
                    current *= 2 if cat else 1
                elif config.progressive_input == "residual":
                    level.pyramid = ConvolveDown(style.dims, pyramid, current, style.taps)
                    pyramid = current
                widths.append(current)
            self.down.append(level)
        return current

    def _build_up(self, widths: list[int], current: int) -> int:
        """Append the levels of the way up; returns the number of channels at the top."""
        config, style, image = self.config, self.style, self.data.shape[0]
        pyramid = 0
        for index in reversed(range(len(config.channel_multipliers))):
            level, width = UpLevel(), config.channels * config.channel_multipliers[index]
            for _ in range(config.blocks + 1):
                level.blocks.append(ResidualBlock(style, current + widths.pop(), width))
                current = width
            if self._attends[index]:
                level.attention = style.attention(current)
            if config.progressive == "output_skip":
                level.pyramid = Head(style, current, image, config.init_scale)
            elif config.progressive == "residual":
                lowest = index == len(config.channel_multipliers) - 1
                level.pyramid = (
                    Head(style, current, current, 1.0)
                    if lowest
                    else ConvolveUp(style.dims, pyramid, current, style.taps)
                )
                pyramid = current
            if index:
                level.resample = self._up_sampler(current)
            self.up.append(level)
        return current

    def _down_sampler(self, width: int) -> ResidualBlock | ConvolveDown | Downsample:
        dims, taps = self.style.dims, self.style.taps
        if self.style.biggan:
            return ResidualBlock(self.style, width, width, Downsample(dims, taps))
        return ConvolveDown(dims, width, width, taps) if self.config.resample_with_conv else Downsample(dims, taps)

    def _up_sampler(self, width: int) -> ResidualBlock | ConvolveUp | Upsample:
        dims, taps = self.style.dims, self.style.taps
        if self.style.biggan:
            return ResidualBlock(self.style, width, width, Upsample(dims, taps))
        return ConvolveUp(dims, width, width, taps) if self.config.resample_with_conv else Upsample(dims, taps)

    # ------------------------------------------------------------------------------------------- evaluation

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, C, *spatial), (B,) -> (B, C, *spatial); see `Network.forward`."""
        self.check(x, c)
        dtype = x.dtype
        if x.ndim == 4 and x.device.type == "cpu":  # on CUDA the normalisation is faster in contiguous layout
            x = x.contiguous(memory_format=torch.channels_last)
        embedding = self._embed(c, condition)
        if embedding is not None:
            embedding = self.style.act(embedding)  # once here, because every block takes the activated embedding
        if not self.config.centered:
            x = 2.0 * x - 1.0
        skips = [self.conv_in(self.conditioning.with_images(x, condition))]
        self._descend(x, skips, embedding)
        h = skips[-1]
        for stage in self.middle:
            h = self._run(stage, h, embedding)
        return self._ascend(h, skips, embedding).to(dtype).contiguous()

    def _run(self, part: Callable[..., Tensor], *arguments: object) -> Tensor:
        """part(*arguments), recomputing its inner activations in the backward pass if `checkpoint_activations`."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            output = checkpoint(part, *arguments, use_reentrant=False)
            assert isinstance(output, Tensor)
            return output
        return part(*arguments)

    def _embed(self, c: Tensor, condition: Condition | None) -> Tensor | None:
        """Embedding of c and of the conditions, (B, 4 channels); None if the blocks are not conditioned on either."""
        if self.config.conditions_enter == "features":
            assert self.time is not None
            return self.time(c, self.conditioning.embedding(condition, None, len(c)))
        embedding = self.time(c) if self.time is not None else None
        return self.conditioning.embedding(condition, embedding, len(c))

    def _descend(self, pyramid: Tensor, skips: list[Tensor], embedding: Tensor | None) -> None:
        """Run the way down and append to `skips` the features that the way up will concatenate."""
        for level in self.down:
            assert isinstance(level, DownLevel)
            for stage in level.stages:
                skips.append(self._run(stage, skips[-1], embedding))
            if level.resample is None:
                continue
            h = self._run(_resample, level.resample, skips[-1], embedding)
            if isinstance(level.pyramid, Combine):
                pyramid = self.pyramid_down(pyramid)
                h = level.pyramid(pyramid, h)
            elif level.pyramid is not None:
                pyramid = h = torch.add(level.pyramid(pyramid), h).mul_(residual_gain(self.config.skip_rescale))
            skips.append(h)

    def _ascend(self, h: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        """Run the way up, taking features from the end of `skips`; returns the output."""
        pyramid: Tensor | None = None
        for level in self.up:
            assert isinstance(level, UpLevel)
            for block in level.blocks:
                h = self._run(_concatenate_and_run, block, h, skips.pop(), embedding)
            if level.attention is not None:
                h = self._run(level.attention, h)
            if isinstance(level.pyramid, Head):
                image = self._run(level.pyramid, h)
                pyramid = image if pyramid is None else self.pyramid_up(pyramid) + image
            elif level.pyramid is not None:
                assert pyramid is not None
                pyramid = h = torch.add(level.pyramid(pyramid), h).mul_(residual_gain(self.config.skip_rescale))
            if level.resample is not None:
                h = self._run(_resample, level.resample, h, embedding)
        assert not skips
        if self.head is not None:
            return self._run(self.head, h)
        assert pyramid is not None
        return pyramid


def _concatenate_and_run(block: nn.Module, h: Tensor, skip: Tensor, embedding: Tensor | None) -> Tensor:
    return block(torch.cat([h, skip], dim=1), embedding)


def _resample(module: nn.Module, h: Tensor, embedding: Tensor | None) -> Tensor:
    """Resample by a module that may be a residual block, which takes the embedding too."""
    return module(h, embedding) if isinstance(module, ResidualBlock) else module(h)
