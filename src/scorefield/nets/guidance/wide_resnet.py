"""The published noise-conditional classifier: a wide residual network of noisy images, conditioned on ln sigma.

Song et al. (2021, appendix I.1) add grad_x log p_t(y | x) to the score of an unconditional model to sample from one
class. Any `GuideNetwork` with one logit per class can provide that term; this is the network of the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import record
from scorefield.data_spec import DataSpec, PerChannel
from scorefield.nets.guidance.guide_network import GuideConfig, GuideNetwork
from scorefield.nets.layers import CONVOLUTION_MODULES, CONVOLVE, MEAN_POOL, FourierFeatures, GroupNorm, activation
from scorefield.nets.network import spatial_axes

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
"""Mean of each channel of CIFAR-10 in [0, 1], which the published classifier subtracts."""

CIFAR10_DEVIATION = (0.24703223, 0.24348513, 0.26158784)
"""Standard deviation of each channel of CIFAR-10 in [0, 1], by which the published classifier divides."""


@record
class WideResNet(GuideConfig):
    """Configuration of the noise-conditional wide residual network; the defaults are WRN-28-10, c = ln sigma.

    The input is standardised twice, as published: each channel by fixed numbers, then each example by its own mean and
    standard deviation. The published classifier for CIFAR-10 in [0, 1] has mean=CIFAR10_MEAN and
    deviation=CIFAR10_DEVIATION.

    Args:
        depth: Number of layers, 6 n + 4 for n blocks in each of the three groups.
        widen: Factor k on the widths of the three groups, which have 16 k, 32 k and 64 k channels.
        mean: Mean that is subtracted from x, in model units: one number, or one per channel.
        deviation: Standard deviation by which x - mean is divided, in model units: one number, or one per channel.
        embedding_size: Number of Fourier frequencies of c.
        embedding_features: Width of both layers of the embedding.
        fourier_scale: Standard deviation of the frequencies.

    Raises:
        ValueError: A field is out of its range.
    """

    depth: int = 28
    widen: int = 10
    mean: PerChannel = 0.0
    deviation: PerChannel = 1.0
    embedding_size: int = 128
    embedding_features: int = 512
    fourier_scale: float = 16.0

    def __post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth must be 6 n + 4 with n >= 1, such as 10, 16, 22 or 28; got {self.depth}")
        if min(self.widen, self.embedding_size, self.embedding_features) < 1:
            raise ValueError(
                f"widen, embedding_size and embedding_features must be positive; got {self.widen},"
                f" {self.embedding_size} and {self.embedding_features}"
            )
        if not min(self.deviation if isinstance(self.deviation, tuple) else (self.deviation,)) > 0:
            raise ValueError(f"deviation divides x and must be positive; got {self.deviation}")

    def build(self, data: DataSpec, outputs: int) -> NoisyWideResNet:
        """The network for data of shape (C, L) or (C, H, W)."""
        return NoisyWideResNet(self, data, outputs)


class SameConvolution(nn.Module):
    """A 3x3 convolution without bias and with TensorFlow's SAME padding: n positions become ceil(n / stride).

    Where the number of zeros is odd, the additional zero is at the end. The initial weight is N(0, 2 / fan_out) (He et
    al. 2015, eq. 14).
    """

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        conv = CONVOLUTION_MODULES[dims](inputs, outputs, 3, stride=stride, bias=False)
        self.weight, self.stride = conv.weight, stride
        self.convolve = CONVOLVE[dims]
        nn.init.normal_(self.weight, std=math.sqrt(2 / (outputs * 3**dims)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *ceil(spatial / stride))."""
        pads: list[int] = []
        for n in reversed(x.shape[2:]):
            total = 2 if self.stride == 1 or n % 2 else 1
            pads += [total // 2, total - total // 2]
        return self.convolve(functional.pad(x, pads), self.weight, stride=self.stride)


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(channels, min(channels // 4, 32), activation("relu"), eps=1e-5)


def _dense(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with initial weight N(0, 1 / fan_in), truncated at two deviations and rescaled, and zero bias."""
    layer = nn.Linear(inputs, outputs)
    std = 1 / (0.87962566103423978 * math.sqrt(inputs))  # 0.8796... is the deviation of N(0, 1) truncated at +-2
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(layer.bias)
    return layer


class WideBlock(nn.Module):
    """h = conv1(a), a = relu(norm(x)); h = conv2(relu(norm(h + W swish(e)))); out = h + r(x or a).

    The residual r averages over the stride and appends channels of zeros. Its input is a in the first block of a
    network and x in the others.

    Args:
        dims: Number of spatial axes.
        inputs: Number of input channels.
        outputs: Number of output channels.
        stride: Stride of the first convolution.
        features: Width of the embedding e.
        activate_first: Whether the input of the residual is a.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int, features: int, *, activate_first: bool):
        super().__init__()
        self.init_bn = _norm(inputs)
        self.conv1 = SameConvolution(dims, inputs, outputs, stride)
        self.Dense_0 = _dense(features, outputs)
        self.bn_2 = _norm(outputs)
        self.conv2 = SameConvolution(dims, outputs, outputs)
        self.dims, self.stride, self.extra = dims, stride, outputs - inputs
        self.activate_first = activate_first

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, in, *spatial), already activated embedding (B, features) -> (B, out, *ceil(spatial / stride))."""
        a = self.init_bn(x)
        shift = self.Dense_0(embedding)
        h = self.conv1(a) + shift.reshape(shift.shape + (1,) * self.dims)
        h = self.conv2(self.bn_2(h))
        residual = a if self.activate_first else x
        if self.stride > 1:  # at the border, the mean is over the positions of the window that are inside the image
            residual = MEAN_POOL[self.dims](residual, self.stride, ceil_mode=True, count_include_pad=False)
        return h + functional.pad(residual, (0, 0) * self.dims + (0, self.extra))


class NoisyWideResNet(GuideNetwork):
    """The network of a `WideResNet` configuration (Zagoruyko and Komodakis 2016; Song et al. 2021, appendix I.1).

    Normalisation is over groups of channels, so the network is the same function in training and in evaluation.
    Parameters have the scopes of the release's Flax file with "." in place of "/". Its `scale` is called `weight` here,
    and so is its `kernel`, whose last axis becomes the first and whose last axis but one becomes the second.

    Args:
        config: The configuration.
        data: Shape (C, L) or (C, H, W).
        outputs: Number of classes.

    Raises:
        ValueError: The data have no spatial axes, more than two, or another number of channels than the configuration.
    """

    def __init__(self, config: WideResNet, data: DataSpec, outputs: int):
        super().__init__(data, outputs)
        dims = spatial_axes("WideResNet", data, "GuideMLP takes any shape")
        for name, value in (("mean", config.mean), ("deviation", config.deviation)):
            if isinstance(value, tuple) and len(value) != data.shape[0]:
                raise ValueError(
                    f"WideResNet({name}={value}) has {len(value)} numbers for data of shape {data.shape}; give one"
                    f" number, or {data.shape[0]}, one per channel"
                )
        self.config = config
        self.GaussianFourierProjection_0 = FourierFeatures(config.embedding_size, config.fourier_scale)
        self.Dense_0 = _dense(2 * config.embedding_size, config.embedding_features)
        self.Dense_1 = _dense(config.embedding_features, config.embedding_features)
        self.init_conv = SameConvolution(dims, data.shape[0], 16)
        width = 16
        self._blocks: list[str] = []
        for group in range(3):
            blocks = nn.Module()
            for index in range((config.depth - 4) // 6):
                wider, stride = config.widen * 16 * 2**group, 2 if group and not index else 1
                first = not group and not index
                block = WideBlock(dims, width, wider, stride, config.embedding_features, activate_first=first)
                blocks.add_module(f"WideResnetBlock_{index}", block)
                self._blocks.append(f"WideResnetGroup_{group}.WideResnetBlock_{index}")
                width = wider
            self.add_module(f"WideResnetGroup_{group}", blocks)
        self.add_module("pre-pool-bn", _norm(width))
        self.Dense_2 = nn.Linear(width, outputs)
        nn.init.uniform_(self.Dense_2.weight, -1 / math.sqrt(outputs), 1 / math.sqrt(outputs))
        nn.init.zeros_(self.Dense_2.bias)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, C, *spatial), (B,) -> (B, outputs); see `GuideNetwork.forward`."""
        self.check(x, c)
        features = self.GaussianFourierProjection_0(c.to(self.Dense_0.weight))
        embedding = functional.silu(self.Dense_1(functional.silu(self.Dense_0(features))))
        h = self.standardised(x)
        if x.ndim == 4 and x.device.type == "cpu":
            h = h.contiguous(memory_format=torch.channels_last)
        h = self.init_conv(h)
        for name in self._blocks:
            h = self.get_submodule(name)(h, embedding)
        pooled = self.get_submodule("pre-pool-bn")(h).flatten(2).mean(2)
        return self.Dense_2(pooled).to(x.dtype)

    def standardised(self, x: Tensor) -> Tensor:
        """Standardise each channel by the configured numbers, then each example as (x - m) / max(s, 1 / sqrt(D)).

        m is the mean of the example, s its standard deviation with divisor D, and D its number of entries.
        """
        mean, deviation = (
            torch.as_tensor(v, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - 2))
            for v in (self.config.mean, self.config.deviation)
        )
        x = (x - mean) / deviation
        over = tuple(range(1, x.ndim))
        x = x - x.mean(over, keepdim=True)
        least = 1 / math.sqrt(self.data.dimension)
        return x / x.square().mean(over, keepdim=True).clamp(min=least**2).sqrt()
