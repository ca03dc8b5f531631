"""The U-Net of denoising diffusion probabilistic models (Ho et al. 2020, appendix B)."""

from __future__ import annotations

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import Activation
from scorefield.nets.network import NetworkConfig
from scorefield.nets.unets.ncsnpp import NCSNpp, UNet, check_unet_fields

GROUPS = 32
"""Number of groups of every normalisation; fewer where 32 does not divide the number of channels."""


@record
class DDPM(NetworkConfig):
    """Configuration of the DDPM U-Net; the defaults are those of CIFAR-10.

    It is an `NCSNpp` with "ddpm" blocks of 32 groups, no FIR filter, no pyramids, no rescaled sums and a positional
    embedding.

    Args:
        channels: Number of channels of the first level, nf.
        channel_multipliers: Number of channels of each level divided by `channels`; every level after the first halves
            the size.
        blocks: Number of residual blocks per level on the way down; there is one more on the way up.
        attention_sizes: Levels whose largest spatial size (of the padded data, halved level by level) is in this tuple
            have attention; the middle always has.
        dropout: Dropout probability inside blocks.
        resample_with_conv: Whether resampling between levels has learned weights.
        time_conditional: Whether blocks are conditioned on c, the index of a level or 999 t.
        activation: Activation function.
        centered: Whether the data are in [-1, 1]; otherwise the network maps its noisy input x to 2 x - 1.

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
