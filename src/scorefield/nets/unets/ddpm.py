"""The U-Net of denoising diffusion probabilistic models (Ho et al. 2020, appendix B)."""

from __future__ import annotations

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import Activation
from scorefield.nets.network import NetworkConfig
from scorefield.nets.unets.ncsnpp import NCSNpp, UNet, check_unet_fields

GROUPS = 32
"""Groups of every normalisation (fewer where 32 does not divide the channels)."""


@record
class DDPM(NetworkConfig):
    """Configuration of the DDPM U-Net; the defaults are those of CIFAR-10.

    In the terms of `NCSNpp`: "ddpm" blocks with 32 groups, no FIR filter, no pyramids, sums not rescaled, positional
    embedding.

    Args:
        channels: Width of the first level, nf.
        channel_multipliers: Width of each level over `channels`; every level after the first halves the size.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention_sizes: Levels whose largest spatial size (data padded to the multiple, then halved) is in this tuple
            have attention; the middle always has.
        dropout: Probability, inside blocks.
        resample_with_conv: Resampling between levels has learned weights.
        time_conditional: Whether blocks receive c, the number of a level or 999 t.
        activation: Pointwise function.
        centered: Whether x is in [-1, 1] already; otherwise the network maps its noisy input to 2 x - 1.

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_sizes: tuple[int, ...] = (16,)
    dropout: float = 0.1
    resample_with_conv: bool = True
    time_conditional: bool = True
    activation: Activation = "swish"
    centered: bool = True

    def __post_init__(self) -> None:
        check_unet_fields(self.channels, self.channel_multipliers, self.blocks, self.dropout)

    def build(self, data: DataSpec) -> UNet:
        """The network for data of shape (C, L) or (C, H, W)."""
        config = NCSNpp(
            channels=self.channels,
            channel_multipliers=self.channel_multipliers,
            blocks=self.blocks,
            attention_sizes=self.attention_sizes,
            dropout=self.dropout,
            resample_with_conv=self.resample_with_conv,
            time_conditional=self.time_conditional,
            fir=False,
            skip_rescale=False,
            block="ddpm",
            progressive_input="none",
            embedding="positional",
            activation=self.activation,
            centered=self.centered,
        )
        return UNet(config, data, group_limit=lambda channels: GROUPS)
