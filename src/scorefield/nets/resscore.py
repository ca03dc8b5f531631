"""The residual autoencoder with which Song and Ermon (2019, figure 1) show why score matching needs noise."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import Activation, GroupNorm, Pointwise, activation
from scorefield.nets.network import Network, NetworkConfig, refuse_condition, refuse_conditions, require_images

GROUPS = 8
"""Number of groups of every normalisation; fewer where 8 does not divide the number of channels."""


@record
class ResScore(NetworkConfig):
    """Configuration of the residual autoencoder; its output is the score of images in [0, 1], and c is ignored.

    Args:
        channels: Number of channels at full size (nef and ndf of the release); it doubles at each of the two halvings.
        activation: Activation function.

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 32
    activation: Activation = "elu"

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be positive, for example 32; got {self.channels}")

    def build(self, data: DataSpec) -> ResidualAutoencoder:
        """The network for images (C, H, W), sizes padded to multiples of 4.

        Raises:
            ValueError: The data are not images, or have conditions.
        """
        refuse_conditions("ResScore", data)
        return ResidualAutoencoder(self, data)


class AutoencoderBlock(nn.Module):
    """act(norm(conv(act(norm(conv(x))))) + shortcut(x)), halving or doubling the size where the width changes.

    The last activation follows the sum, as in the release; the paper's appendix places it before the sum.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels. If it is larger than `inputs`, the first convolution halves the size; if it
            is smaller, the second convolution, which is transposed, doubles the size.
        transposed: Whether the convolutions are transposed, as in the decoder.
        act: Activation function.
    """

    def __init__(self, inputs: int, outputs: int, *, transposed: bool, act: Pointwise):
        super().__init__()
        resamples = inputs != outputs
        if transposed:
            first = nn.ConvTranspose2d(inputs, outputs, 3, padding=1)
            second = _doubling(outputs, outputs) if resamples else nn.ConvTranspose2d(outputs, outputs, 3, padding=1)
            shortcut = _doubling(inputs, outputs)
        else:
            first = nn.Conv2d(inputs, outputs, 3, stride=2 if resamples else 1, padding=1)
            second = nn.Conv2d(outputs, outputs, 3, padding=1)
            shortcut = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        norms = GroupNorm(outputs, GROUPS, act, eps=1e-5), GroupNorm(outputs, GROUPS, eps=1e-5)
        # The keys are those of the release, where layer 2 is the activation, here part of the first normalisation.
        self.main = nn.ModuleDict({"0": first, "1": norms[0], "3": second, "4": norms[1]})
        self.residual = shortcut if resamples else None
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), (B, out, H / 2, W / 2) or (B, out, 2 H, 2 W)."""
        h = x
        for layer in self.main.values():
            h = layer(h)
        return self.act(h + (x if self.residual is None else self.residual(x)))


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """A transposed 3x3 convolution that doubles the size."""
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


class ResidualAutoencoder(Network):
    """The network of a `ResScore` configuration.

    Args:
        config: The configuration.
        data: Shape (C, H, W), without conditions.

    Raises:
        ValueError: The data are not images.
    """

    def __init__(self, config: ResScore, data: DataSpec):
        require_images("ResScore", data, "For vectors use ToyMLP() or MLP(), for signals NCSNpp()")
        super().__init__(data, multiple=4)
        d, act = config.channels, activation(config.activation)
        widths = (d, d, 2 * d, 2 * d, 4 * d, 4 * d)
        self.convs = nn.ModuleList([nn.Conv2d(data.shape[0], d, 3, padding=1)])
        self.deconvs = nn.ModuleList()
        for inputs, outputs in itertools.pairwise(widths):
            self.convs.append(AutoencoderBlock(inputs, outputs, transposed=False, act=act))
        for inputs, outputs in itertools.pairwise((4 * d, *reversed(widths[:-1]))):
            self.deconvs.append(AutoencoderBlock(inputs, outputs, transposed=True, act=act))
        self.deconvs.append(nn.Conv2d(d, data.shape[0], 3, padding=1))

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, C, H, W), (B,) -> (B, C, H, W); see `Network.forward`."""
        self.check(x, c)
        refuse_condition(condition)
        dtype = x.dtype
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)
        h = 2.0 * x - 1.0
        for layer in (*self.convs, *self.deconvs):
            h = layer(h)
        return h.to(dtype).contiguous()
