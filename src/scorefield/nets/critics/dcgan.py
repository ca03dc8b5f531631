"""Two smaller convolutional discriminators, after DCGAN (Radford et al. 2016) and SNGAN (Miyato et al. 2018)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.critics.critic import Critic, CriticConfig, _check_image


@record
class DCGANCritic(CriticConfig):
    """Configuration of the two smaller critics.

    Batch normalisation makes D of one example depend on its batch in training mode. Convolutions start at N(0, 0.02^2),
    normalisations at N(1, 0.02^2) with shift 0.

    Args:
        channels: Width of the first layer.
        style: "dcgan", after Radford et al. 2016: convolutions of size 4 that halve a square image down to 4x4, then
            one of size 4 to a number; sides 4 times a power of two. "sngan", after the network (not the normalisation)
            of Miyato et al. 2018: seven convolutions, three of which halve, then a linear layer; any size from 8.
        batch_norm: Normalise between convolutions (never after the first of "dcgan" or the last of "sngan").

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

    Leaky slopes are the release's: 0.02 for "dcgan" (whose paper says 0.2) and 0.1 for "sngan".

    Raises:
        ValueError: No images, a size that the style cannot halve, or conditions.
    """

    def __init__(self, config: DCGANCritic, data: DataSpec):
        _check_image("DCGANCritic", data)
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
    """D_0: stride-2 convolutions without bias, doubling widths, to 4x4 and to one number."""
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
    """D_1: convolutions of size 3 and, halving, of size 4, in turn; then a linear layer."""
    channels, height, side = data.shape
    if min(height, side) < 8:
        raise ValueError(
            f'DCGANCritic(style="sngan") halves images three times and needs at least 8 pixels a side; got data of'
            f" shape {data.shape}"
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
