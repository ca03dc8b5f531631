"""The residual energy networks of multi-scale denoising score matching (Li, Chen and Sommer 2019).

One energy stands for all noise levels, so x is its only input. Parameters have the names and shapes of the release's
state dictionary, without the tensors `bn1` and `bn2` of its blocks: these belong to layer normalisations that the
release creates and never applies.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.nets.layers import CONVOLUTION_MODULES, MEAN_POOL, Activation, Pointwise, activation
from scorefield.nets.network import (
    EnergyNetwork,
    NetworkConfig,
    padded_shape,
    refuse_condition,
    refuse_conditions,
    spatial_axes,
)

_SAME_SIZE_BLOCKS = {6: (0, 0, 0), 12: (1, 1, 1), 18: (2, 2, 2), 34: (2, 3, 5, 2)}
"""Depth -> number of blocks of each stage that follow its first block, which halves the size."""


@record
class EnergyResNet(NetworkConfig):
    """Configuration of the energy networks of MDSM.

    The defaults are the published network for CIFAR-10. Those for MNIST and Fashion-MNIST, padded to 32 x 32, have
    depth=12 and channels=64.

    Args:
        channels: Number of channels at full size, d; it doubles where the size is halved.
        depth: Number of convolutions, counted as in the paper: 6, 12 or 18 (three halvings) or 34 (four halvings).
        head: Energy as a function of the last features h. "quadratic": E = (w_1 . h + b_1) (w_2 . h + b_2) +
            w_q . (h * h) + b_q, which can grow like |x|^2 but is not bounded below. "linear": E = w . act(h) + b.
        activation: Activation function. Training differentiates it twice, so it should be smooth.

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 128
    depth: Literal[6, 12, 18, 34] = 18
    head: Literal["quadratic", "linear"] = "quadratic"
    activation: Activation = "elu"

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be positive, for example 128; got {self.channels}")
        if self.depth not in _SAME_SIZE_BLOCKS:
            raise ValueError(f"depth must be one of {', '.join(map(str, _SAME_SIZE_BLOCKS))}; got {self.depth}")
        if self.head not in ("quadratic", "linear"):
            raise ValueError(f'head must be "quadratic" or "linear"; got {self.head!r}')

    def build(self, data: DataSpec) -> ResidualEnergy:
        """The energy network for data of shape (C, L) or (C, H, W)."""
        return ResidualEnergy(self, data)


class Convolve(nn.Module):
    """A convolution that keeps the size of its input."""

    def __init__(self, dims: int, inputs: int, outputs: int, size: int, *, bias: bool = True):
        super().__init__()
        self.conv = CONVOLUTION_MODULES[dims](inputs, outputs, size, padding=size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial)."""
        return self.conv(x)


class ConvolveThenMean(nn.Module):
    """A 3x3 convolution at full size, then the mean over pairs (signals) or 2x2 blocks (images) of positions."""

    def __init__(self, dims: int, inputs: int, outputs: int):
        super().__init__()
        self.conv = Convolve(dims, inputs, outputs, 3)
        self.mean = MEAN_POOL[dims]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial / 2)."""
        return self.mean(self.conv(x), 2)


class MeanThenConvolve(nn.Module):
    """The mean over pairs (signals) or 2x2 blocks (images) of positions, then a 1x1 convolution."""

    def __init__(self, dims: int, inputs: int, outputs: int):
        super().__init__()
        self.conv = Convolve(dims, inputs, outputs, 1)
        self.mean = MEAN_POOL[dims]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial / 2)."""
        return self.conv(self.mean(x, 2))


class EnergyBlock(nn.Module):
    """shortcut(x) + conv_2(act(conv_1(act(x)))).

    The shortcut is a 1x1 convolution even where the numbers of channels are equal.

    Args:
        dims: Number of spatial axes.
        inputs: Number of input channels, and of output channels of the first convolution, which has no bias.
        outputs: Number of output channels.
        down: Whether the second convolution and the shortcut halve the size.
        act: Activation function.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, *, down: bool, act: Pointwise):
        super().__init__()
        self.conv_shortcut = MeanThenConvolve(dims, inputs, outputs) if down else Convolve(dims, inputs, outputs, 1)
        self.conv_1 = Convolve(dims, inputs, inputs, 3, bias=False)
        self.conv_2 = ConvolveThenMean(dims, inputs, outputs) if down else Convolve(dims, inputs, outputs, 3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial), or (B, out, *spatial / 2) if `down`."""
        return self.conv_shortcut(x) + self.conv_2(self.act(self.conv_1(self.act(x))))


class ResidualEnergy(EnergyNetwork):
    """The network of an `EnergyResNet` configuration, E(x).

    The head has weights for every position, so the network takes examples of exactly the shape of the data. Sizes that
    are not multiples of 8 (depth 34: 16) are padded with zeros on both sides to the next multiple. The release pads
    MNIST to 32 x 32 in this way before it adds noise.

    Initial weights and biases are PyTorch's, U(+-1/sqrt(fan_in)), with which |E| is about 1e-3 and |dE/dx| about 1e-4.
    Blocks are named as in the release: block k of stage s is rb<s> (k = 0, halving) or rbc<s...s> (k times the digit
    s).

    Args:
        config: The configuration.
        data: Shape (C, L) or (C, H, W), without conditions.

    Raises:
        ValueError: The data have no spatial axes, more than two, or conditions.
    """

    def __init__(self, config: EnergyResNet, data: DataSpec):
        refuse_conditions("EnergyResNet", data)
        stages = _SAME_SIZE_BLOCKS[config.depth]
        super().__init__(data)
        dims = spatial_axes("EnergyResNet", data, "EnergyMLP takes any shape")
        self.config, self.act = config, activation(config.activation)
        halved = 2 ** len(stages)
        padded = padded_shape(data.shape[1:], (halved,) * dims)
        self.pads: list[int] = []
        for n, m in zip(reversed(data.shape[1:]), reversed(padded), strict=True):
            self.pads += [(m - n) // 2, m - n - (m - n) // 2]
        width = config.channels
        self.conv1 = Convolve(dims, data.shape[0], width, 3)
        self.block_names: list[str] = []
        for stage, same_size in enumerate(stages, start=1):
            for index in range(1 + same_size):
                name = f"rbc{str(stage) * index}" if index else f"rb{stage}"
                outputs = width if index else 2 * width
                self.add_module(name, EnergyBlock(dims, width, outputs, down=not index, act=self.act))
                self.block_names.append(name)
                width = outputs
        features = width * math.prod(n // halved for n in padded)
        for name in ("ln1", "ln2", "lq") if config.head == "quadratic" else ("ln",):
            self.add_module(name, nn.Linear(features, 1))

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, C, *spatial), (B,) -> (B,); c is ignored. See `EnergyNetwork.forward`."""
        self.check(x, c)
        if x.shape[1:] != self.data.shape:
            raise ValueError(
                f"the head of this energy has weights for every position and was built for examples of shape"
                f" {self.data.shape}; got a batch of shape {tuple(x.shape)}. Build a network for data of that shape"
            )
        refuse_condition(condition)
        h = self.conv1(functional.pad(x, self.pads) if any(self.pads) else x)
        for name in self.block_names:
            h = self.get_submodule(name)(h)
        return self._head(h).to(x.dtype)

    def _head(self, h: Tensor) -> Tensor:
        # The quadratic head subtracts products of large sums, which half precision under autocast would not resolve.
        with torch.autocast(h.device.type, enabled=False):
            if self.config.head == "linear":
                h = self.act(h)
            ln = self.get_submodule("ln1" if self.config.head == "quadratic" else "ln")
            assert isinstance(ln, nn.Linear)
            h = h.flatten(1).to(ln.weight.dtype)
            energy = ln(h)
            if self.config.head == "quadratic":
                energy = energy * self.get_submodule("ln2")(h) + self.get_submodule("lq")(h * h)
            return energy[:, 0]
