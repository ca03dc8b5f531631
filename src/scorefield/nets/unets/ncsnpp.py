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
from scorefield.nets.network import Network, NetworkConfig, padded_shape
from scorefield.nets.unets.blocks import BlockStyle, Combine, ResidualBlock, Stage
from scorefield.nets.unets.resampling import ConvolveDown, ConvolveUp, Downsample, Upsample


@record
class NCSNpp(NetworkConfig):
    """Configuration of NCSN++ (the defaults: CIFAR-10, continuous VE) and of DDPM++.

    DDPM++ is fir=False, progressive_input="none", embedding="positional", centered=True.

    Args:
        channels: Width of the first level, nf.
        channel_multipliers: Width of each level over `channels`; every level after the first halves the size.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention_sizes: Levels whose largest spatial size (data padded to the multiple, then halved) is in this tuple
            have attention; the middle always has.
        dropout: Probability, inside blocks.
        resample_with_conv: Resampling between levels of "ddpm" blocks has learned weights.
        time_conditional: Whether blocks receive c.
        fir: Resample through `fir_kernel`; else by mean and repetition.
        fir_kernel: Taps of the filter.
        skip_rescale: Divide sums of two branches by sqrt(2).
        block: "biggan" (resamples inside the block) or "ddpm".
        progressive: The output as a pyramid: "none", "output_skip" (images summed) or "residual" (features).
        progressive_input: The input as a pyramid: "none", "input_skip" (images combined) or "residual" (features).
        progressive_combine: How input_skip combines: "sum" or "cat".
        embedding: "fourier" (c = ln sigma) or "positional" (c = 999 t, or a level).
        fourier_scale: Standard deviation of the Fourier frequencies.
        init_scale: Variance scale of last layers at the start; 0 means 1e-10.
        activation: Pointwise function.
        centered: Whether x is in [-1, 1] already; otherwise the network maps its noisy input to 2 x - 1.
        conditions_enter: Class and vector conditions are added to the embedding of c ("embedding"), or to the features
            that it is made of ("features", as in Karras et al. 2022, appendix F).

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
                f"fir_kernel needs two or more taps with a non-zero sum, as (1, 3, 3, 1); got {self.fir_kernel}"
            )
        if self.init_scale < 0:
            raise ValueError(f"init_scale is a variance and must not be negative; got {self.init_scale}")
        if self.conditions_enter == "features" and not self.time_conditional:
            raise ValueError(
                "conditions_enter='features' adds conditions to the features of c, and time_conditional=False has none;"
                " use conditions_enter='embedding'"
            )

    def build(self, data: DataSpec) -> UNet:
        """The network for data of shape (C, L) or (C, H, W)."""
        return UNet(self, data, group_limit=lambda channels: min(channels // 4, 32))


def check_unet_fields(channels: int, multipliers: tuple[int, ...], blocks: int, dropout: float) -> None:
    """Refuse sizes that describe no U-Net."""
    if channels < 1 or not multipliers or min(multipliers) < 1:
        raise ValueError(
            f"channels and channel_multipliers must be positive, for example 128 and (1, 2, 2, 2);"
            f" got {channels}, {multipliers}"
        )
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1; got {blocks}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a probability below 1; got {dropout}")


class DownLevel(nn.Module):
    """Blocks at one size, then half of it (not at the last level)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.resample: ResidualBlock | ConvolveDown | Downsample | None = None
        self.pyramid: Combine | ConvolveDown | None = None


class UpLevel(nn.Module):
    """Blocks at one size, attention, a step of the output pyramid, then twice the size (not at the first level)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.attention: nn.Module | None = None
        self.pyramid: Head | Convolution | ConvolveUp | None = None
        self.resample: ResidualBlock | ConvolveUp | Upsample | None = None


class Head(nn.Module):
    """conv(act(norm(h))): features -> channels of the output."""

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
        config: Every choice.
        data: Shape (C, L) or (C, H, W), and conditions.
        group_limit: Channels -> largest number of groups of a normalisation.

    Attributes:
        checkpoint_activations: Whether training keeps only what passes between blocks and computes the rest again in
            the backward pass (Chen et al. 2016, arXiv:1604.06174): less memory for a third more time, equal gradients.

    Raises:
        ValueError: The data have no spatial axes, or more than two.
    """

    def __init__(self, config: NCSNpp, data: DataSpec, *, group_limit: Callable[[int], int]):
        levels = len(config.channel_multipliers)
        super().__init__(data, multiple=2 ** (levels - 1))
        dims = len(data.shape) - 1
        if dims not in (1, 2):
            raise ValueError(
                f"a U-Net takes signals (C, L) or images (C, H, W); got data of shape {data.shape}. For vectors"
                " use MLP()"
            )
        self.config = config
        self.checkpoint_activations = False
        features = 4 * config.channels
        frequencies = config.channels * (2 if config.embedding == "fourier" else 1)
        early = config.conditions_enter == "features"
        conditioning = Conditioning(data.conditions, frequencies if early else features)
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
        widths = [config.channels]  # of everything the way up will pop
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
        self.conditioning = conditioning  # last: the published networks have no such parameters

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
        """Append the levels on the way down; returns the channels at the bottom."""
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
        """Append the levels on the way up; returns the channels at the top."""
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
        if x.ndim == 4 and x.device.type == "cpu":  # CUDA's normalisation works in the other layout
            x = x.contiguous(memory_format=torch.channels_last)
        embedding = self._embed(c, condition)
        if embedding is not None:
            embedding = self.style.act(embedding)  # every block wants the activated one
        if not self.config.centered:
            x = 2.0 * x - 1.0
        skips = [self.conv_in(self.conditioning.beside(x, condition))]
        self._descend(x, skips, embedding)
        h = skips[-1]
        for stage in self.middle:
            h = self._run(stage, h, embedding)
        return self._ascend(h, skips, embedding).to(dtype).contiguous()

    def _run(self, part: Callable[..., Tensor], *given: object) -> Tensor:
        """part(*given), keeping its inner activations for the backward pass or not."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            kept = checkpoint(part, *given, use_reentrant=False)
            assert isinstance(kept, Tensor)
            return kept
        return part(*given)

    def _embed(self, c: Tensor, condition: Condition | None) -> Tensor | None:
        """Embedding of c and the conditions, (B, 4 channels); None if the blocks are not conditioned."""
        if self.config.conditions_enter == "features":
            assert self.time is not None
            return self.time(c, self.conditioning.embedding(condition, None, len(c)))
        embedding = self.time(c) if self.time is not None else None
        return self.conditioning.embedding(condition, embedding, len(c))

    def _descend(self, pyramid: Tensor, skips: list[Tensor], embedding: Tensor | None) -> None:
        """Run the way down, pushing what the way up will pop."""
        for level in self.down:
            assert isinstance(level, DownLevel)
            for stage in level.stages:
                skips.append(self._run(stage, skips[-1], embedding))
            if level.resample is None:
                continue
            h = self._run(_resampled, level.resample, skips[-1], embedding)
            if isinstance(level.pyramid, Combine):
                pyramid = self.pyramid_down(pyramid)
                h = level.pyramid(pyramid, h)
            elif level.pyramid is not None:
                pyramid = h = torch.add(level.pyramid(pyramid), h).mul_(residual_gain(self.config.skip_rescale))
            skips.append(h)

    def _ascend(self, h: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        """Run the way up; returns the output."""
        pyramid: Tensor | None = None
        for level in self.up:
            assert isinstance(level, UpLevel)
            for block in level.blocks:
                h = self._run(_joined, block, h, skips.pop(), embedding)
            if level.attention is not None:
                h = self._run(level.attention, h)
            if isinstance(level.pyramid, Head):
                image = self._run(level.pyramid, h)
                pyramid = image if pyramid is None else self.pyramid_up(pyramid) + image
            elif level.pyramid is not None:
                assert pyramid is not None
                pyramid = h = torch.add(level.pyramid(pyramid), h).mul_(residual_gain(self.config.skip_rescale))
            if level.resample is not None:
                h = self._run(_resampled, level.resample, h, embedding)
        assert not skips
        if self.head is not None:
            return self._run(self.head, h)
        assert pyramid is not None
        return pyramid


def _joined(block: nn.Module, h: Tensor, skip: Tensor, embedding: Tensor | None) -> Tensor:
    return block(torch.cat([h, skip], dim=1), embedding)


def _resampled(module: nn.Module, h: Tensor, embedding: Tensor | None) -> Tensor:
    return module(h, embedding) if isinstance(module, ResidualBlock) else module(h)
