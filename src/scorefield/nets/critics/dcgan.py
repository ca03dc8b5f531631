"""Two smaller convolutional discriminators, after DCGAN (Radford et al. 2016) and SNGAN (Miyato et al. 2018)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.critics.critic import Critic, CriticConfig, require_unconditional_images


@record
class DCGANCritic(CriticConfig):
    """Configuration of the two smaller convolutional critics.

    With batch normalisation, D(x) of one example depends on the other examples of its batch in training mode. Initial
    weights are N(0, 0.02^2) for convolutions, and N(1, 0.02^2) with shift 0 for normalisations.

    Args:
        channels: Number of channels of the first layer.
        style: "dcgan", after Radford et al. 2016: convolutions of kernel size 4 that halve a square image down to 4x4,
            then one of kernel size 4 to a single number; the side must be 4 times a power of two. "sngan", after the
            architecture (not the normalisation) of Miyato et al. 2018: seven convolutions, three of which halve the
            size, then a linear layer; any size from 8 pixels.
        batch_norm: Whether there is batch normalisation after the convolutions, except after the first of "dcgan" and
            the last of "sngan".

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 64
    style: Literal["dcgan", "sngan"] = "sngan"
    batch_norm: bool = True

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be positive, for example 64; got {self.channels}")
        if self.style not in ("dcgan", "sngan"):
            raise ValueError(f'style must be "dcgan" or "sngan"; got {self.style!r}')

    def build(self, data: DataSpec) -> DCGANDiscriminator:
        """The critic of images (C, H, W)."""
        return DCGANDiscriminator(self, data)


class DCGANDiscriminator(Critic):
    """The network of a `DCGANCritic` configuration.

    The slopes of the leaky rectifiers are those of the release: 0.02 for "dcgan" (0.2 in the paper of DCGAN) and 0.1
    for "sngan".

    Raises:
        ValueError: The data are not images, have a size that the style cannot halve, or have conditions.
    """

    def __init__(self, config: DCGANCritic, data: DataSpec):
        require_unconditional_images("DCGANCritic", data)
        super().__init__(data)
        self.config = config
        self.model = nn.Sequential(*(_dcgan(config, data) if config.style == "dcgan" else _sngan(config, data)))
        for module in self.model:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B,); see `Critic.forward`."""
        self.check(x)
        return self.model(x).flatten().to(x.dtype)


def _dcgan(config: DCGANCritic, data: DataSpec) -> list[nn.Module]:
    """Layers of "dcgan": convolutions of stride 2 without bias, with doubling width, to 4x4 and to one number."""
    channels, height, side = data.shape
    halvings = (side // 4).bit_length() - 1
    if height != side or halvings < 1 or side != 4 * 2**halvings:
        raise ValueError(
            f'DCGANCritic(style="dcgan") halves square images down to 4x4 and needs a side of 8, 16, 32, 64, ...; got'
            f' data of shape {data.shape}. style="sngan" takes any size from 8 pixels'
        )
    layers: list[nn.Module] = []
    width = channels
    for index in range(halvings):
        inputs, width = width, config.channels * 2**index
        layers.append(nn.Conv2d(inputs, width, 4, stride=2, padding=1, bias=False))
        if index and config.batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.LeakyReLU(0.02))
    return [*layers, nn.Conv2d(width, 1, 4, bias=False)]


def _sngan(config: DCGANCritic, data: DataSpec) -> list[nn.Module]:
    """Layers of "sngan": convolutions of kernel size 3 alternate with halving ones of kernel size 4; a linear layer."""
    channels, height, side = data.shape
    if min(height, side) < 8:
        raise ValueError(
            'DCGANCritic(style="sngan") halves images three times and needs at least 8 pixels on each side; got data of'
            f" shape {data.shape}. MLPCritic takes examples of any shape"
        )
    layers: list[nn.Module] = []
    multipliers = (1, 1, 2, 2, 4, 4, 8)
    for index, multiplier in enumerate(multipliers):
        inputs, channels = channels, multiplier * config.channels
        halve = index % 2
        layers.append(nn.Conv2d(inputs, channels, 3 + halve, stride=1 + halve, padding=1))
        if config.batch_norm and index < len(multipliers) - 1:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.LeakyReLU(0.1))
    return [*layers, nn.Flatten(), nn.Linear(channels * (height // 8) * (side // 8), 1)]
