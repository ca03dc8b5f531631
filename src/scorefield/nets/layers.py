"""Layers shared by the networks, for signals (B, C, L) and images (B, C, H, W) alike.

Every layer works for one and for two spatial axes and keeps float64 inputs in float64. For speed, convolutions take
images in channels_last layout, normalisation stays in float32 under autocast, and attention is one projection followed
by `scaled_dot_product_attention`.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["swish", "elu", "relu", "lrelu"]


class Pointwise(Protocol):
    """An activation function, applied to every entry."""

    def __call__(self, input: Tensor, *, inplace: bool = False) -> Tensor:
        """The activations, in the shape of the input; `inplace` allows the function to overwrite its input."""
        ...


LARGE_IMAGE = 64 * 64
"""Number of positions above which `GroupNorm` sums pairwise, as sequential sums in float32 lose too many digits."""

SMALL_IMAGE = 16 * 16
"""Number of positions up to which `GroupNorm`, without gradients, is faster with its own sums than torch's kernel."""

CONVOLUTION_MODULES: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
"""Number of spatial axes -> torch's convolution module."""

CONVOLVE = {1: functional.conv1d, 2: functional.conv2d}
"""Number of spatial axes -> torch's convolution function."""

MEAN_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d}
"""Number of spatial axes -> torch's mean over windows."""

_ACTIVATIONS: dict[str, Pointwise] = {
    "swish": functional.silu,
    "elu": functional.elu,
    "relu": functional.relu,
    "lrelu": functools.partial(functional.leaky_relu, negative_slope=0.2),
}


def activation(name: Activation) -> Pointwise:
    """The activation function of a name: swish(x) = x / (1 + exp(-x)), elu, relu, or lrelu with slope 0.2."""
    return _ACTIVATIONS[name]


def variance_scaling_(weight: Tensor, scale: float = 1.0) -> Tensor:
    """Fill a weight (out, in, *kernel) with U(-r, r), r = sqrt(3 scale / ((fan_in + fan_out) / 2)).

    `scale` multiplies the variance, and 0 is replaced by 1e-10, as in the code of Ho et al. (2020): their layers
    "initialised to zero" start at about 1e-6, which their first gradients depend on (Glorot and Bengio 2010, eq. 16).
    """
    positions = math.prod(weight.shape[2:])
    fan = 0.5 * positions * (weight.shape[0] + weight.shape[1])
    r = math.sqrt(3.0 * (scale or 1e-10) / fan)
    with torch.no_grad():
        return weight.uniform_(-r, r)


class Convolution(nn.Module):
    """Convolution over `dims` spatial axes, with a variance-scaled weight (out, in, *kernel) and initial bias 0.

    Args:
        dims: Number of spatial axes, 1 or 2.
        inputs: Number of input channels.
        outputs: Number of output channels.
        size: Kernel size on every axis.
        stride: Stride on every axis.
        padding: Number of zeros on each side of each axis; None keeps the spatial size at stride 1.
        init_scale: Factor on the variance of the initial weight (see `variance_scaling_`).
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        init_scale: float = 1.0,
    ):
        super().__init__()
        self.weight = nn.Parameter(variance_scaling_(torch.empty(outputs, inputs, *(size,) * dims), init_scale))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.dims, self.stride = dims, stride
        self.padding = size // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial / stride)."""
        return self.evaluate(x, self.weight, self.bias)

    def evaluate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with another weight and bias, so that a caller may scale, merge or omit them."""
        return CONVOLVE[self.dims](x, weight, bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Shape of the weight, for printing."""
        return f"{tuple(self.weight.shape)}, stride={self.stride}"


class ChannelMix(nn.Module):
    """A linear map of the channels, the same at every position: y = W x + b, with weight (out, in).

    The releases call it NIN and store W transposed, (in, out). It is evaluated as a convolution of kernel size 1, which
    is faster on CPUs than a matrix product.
    """

    def __init__(self, inputs: int, outputs: int, *, init_scale: float = 0.1):
        super().__init__()
        self.weight = nn.Parameter(variance_scaling_(torch.empty(outputs, inputs), init_scale))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial)."""
        return mix_channels(x, self.weight, self.bias)

    def evaluate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the map with another weight and bias."""
        return mix_channels(x, weight, bias)

    def extra_repr(self) -> str:
        """Shape of the weight, for printing."""
        return f"{tuple(self.weight.shape)}"


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b at every position: x (B, in, *spatial), weight (out, in)."""
    dims = x.ndim - 2
    return CONVOLVE[dims](x, weight.reshape(weight.shape + (1,) * dims), bias)


class Dense(nn.Linear):
    """A linear layer with variance-scaled weight and zero bias."""

    def reset_parameters(self) -> None:
        """Draw the weight by `variance_scaling_` and set the bias to 0."""
        variance_scaling_(self.weight)
        nn.init.zeros_(self.bias)


class GroupNorm(nn.GroupNorm):
    """Group normalisation followed by an activation (Wu and He 2018, eq. 7).

    The number of groups is the largest divisor of the number of channels up to `limit`; in the published networks it is
    `limit` itself. Half-precision inputs are converted to float32, because the statistics lose too many digits in half
    precision, and because the half-precision channels_last kernels are several times slower on CPUs.

    Args:
        channels: Number of channels, C.
        limit: Largest number of groups.
        act: Activation function of the result, or None.
        eps: Number added to the variance.
    """

    def __init__(self, channels: int, limit: int, act: Pointwise | None = None, *, eps: float = 1e-6):
        groups = max(1, min(limit, channels))
        while channels % groups:
            groups -= 1
        super().__init__(groups, channels, eps=eps)
        self.act = act

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, *spatial) -> the same shape, float32 or float64."""
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        if self._prefers_pairwise_sums(x):
            y = self._pairwise(x)
        else:
            y = functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return y if self.act is None else self.act(y, inplace=not torch.is_grad_enabled())

    def _prefers_pairwise_sums(self, x: Tensor) -> bool:
        """Whether `_pairwise` is more accurate (large images) or faster (small ones, without gradients)."""
        if x.dtype != torch.float32 or x.ndim != 4 or not _channels_last(x):
            return False
        positions = x.shape[2] * x.shape[3]
        return positions > LARGE_IMAGE or (positions <= SMALL_IMAGE and not torch.is_grad_enabled())

    def _pairwise(self, x: Tensor) -> Tensor:
        """Group normalisation of images in channels_last layout, with pairwise sums.

        Torch's kernel for that layout adds all positions sequentially in float32, with an error of 1e-3 at 1024x1024;
        reductions over two axes are pairwise, and their error stays near 1e-6.
        """
        groups, square = (self.num_groups, -1), x * x
        sums = torch.stack([x.sum((2, 3)), square.sum((2, 3))]).unflatten(2, groups).sum(3, keepdim=True)
        mean, second = (sums * (self.num_groups / x[0].numel())).unbind()
        r = (torch.addcmul(second, mean, mean, value=-1).clamp(min=0.0) + self.eps).rsqrt()
        scale = self.weight.unflatten(0, groups) * r
        shift = torch.addcmul(self.bias.unflatten(0, groups), scale, mean, value=-1)
        out = None if torch.is_grad_enabled() else square  # its memory is warm and no longer needed
        return torch.addcmul(shift.flatten(1)[:, :, None, None], x, scale.flatten(1)[:, :, None, None], out=out)


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each entry with probability p and divide the rest by 1 - p.

    On a CPU, four entries share one 64-bit random number, which costs less than half of the time of
    `torch.nn.functional.dropout`. p is then rounded to a multiple of 2**-16, and the division uses the rounded value,
    so that the expectation is exact. Random numbers come from torch's global generator.
    """
    threshold = round(p * 65536)
    if x.device.type != "cpu" or threshold in (0, 65536):
        return functional.dropout(x, p)
    if not torch.ops.aten.is_non_overlapping_and_dense(x):
        x = x.contiguous()
    count = x.numel()
    bits = torch.empty((count + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    keep = bits.view(torch.int16)[:count].as_strided(x.shape, x.stride()) >= threshold - 32768
    return x * keep.to(x.dtype).mul_(65536.0 / (65536 - threshold))


class Attention(nn.Module):
    """Self-attention among positions with one head, added to the input.

    h = GroupNorm(x); logits q_i . k_j / sqrt(C); out = x + W_3 sum_j softmax_j(logits) v_j + b_3, divided by sqrt(2) if
    `skip_rescale` (Ho et al. 2020, appendix B; Vaswani et al. 2017, eq. 1).

    Args:
        channels: Number of channels, C.
        group_limit: Largest number of groups of the normalisation.
        init_scale: Factor on the initial variance of the last projection.
        skip_rescale: Whether the sum is divided by sqrt(2), which keeps the variance of two unit-variance terms.
    """

    def __init__(self, channels: int, *, group_limit: int, init_scale: float, skip_rescale: bool):
        super().__init__()
        self.norm = GroupNorm(channels, group_limit)
        self.query = ChannelMix(channels, channels)
        self.key = ChannelMix(channels, channels)
        self.value = ChannelMix(channels, channels)
        self.project = ChannelMix(channels, channels, init_scale=init_scale)
        self.gain = residual_gain(skip_rescale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> the same shape."""
        parts = (self.query, self.key, self.value)
        weight, bias = torch.cat([m.weight for m in parts]), torch.cat([m.bias for m in parts])
        h = attend(mix_channels(self.norm(x), weight, bias)).reshape(x.shape)
        h = self.project.evaluate(h, times(self.project.weight, self.gain), times(self.project.bias, self.gain))
        return residual_sum(x, h, self.gain)


def attend(projected: Tensor) -> Tensor:
    """Attention among N positions with one head: query, key and value (B, 3 C, *spatial) -> (B, C, N).

    The output at position i is sum_j softmax_j(q_i . k_j / sqrt(C)) v_j (Vaswani et al. 2017, eq. 1).
    """
    tokens = projected.flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1, N, 3C)
    q, k, v = tokens.chunk(3, dim=-1)
    return functional.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)


def residual_gain(rescale: bool) -> float:
    """The factor on both terms of a residual sum: sqrt(1/2), which keeps the variance, or 1.

    The callers multiply the weights of the last layer of one branch by it, because the weights have fewer entries than
    the output of that layer (Song et al. 2021, appendix H).
    """
    return math.sqrt(0.5) if rescale else 1.0


def times(parameter: Tensor, gain: float) -> Tensor:
    """The product of gain and parameter; the parameter itself, without a copy, if the gain is 1."""
    return parameter if gain == 1.0 else gain * parameter


def residual_sum(x: Tensor, h: Tensor, gain: float) -> Tensor:
    """The sum gain x + h. It overwrites h, which must be the output of a convolution: autograd does not save that."""
    return h.add_(x, alpha=gain) if h.dtype == x.dtype else torch.add(h, x, alpha=gain)


class FourierFeatures(nn.Module):
    """Random Fourier features of a scalar: p = 2 pi u W, output [sin p, cos p] (Tancik et al. 2020, eq. 5).

    W ~ scale N(0, 1) is drawn once, saved with the weights and never trained. A trained network depends on its own W.

    Args:
        size: Number of frequencies; the output has twice as many features.
        scale: Standard deviation of W.
    """

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.W = nn.Parameter(torch.randn(size) * scale, requires_grad=False)

    def forward(self, u: Tensor) -> Tensor:
        """(B,) -> (B, 2 size)."""
        # Phases reach 1e3 radians, where the rounding of float32 is visible: the order of the products is that of the
        # releases, because another order rounds differently.
        p = u[:, None] * self.W * 2 * math.pi
        return torch.cat([p.sin(), p.cos()], dim=1)


def sinusoid(labels: Tensor, size: int) -> Tensor:
    """Sinusoidal features of labels (B,): sin(c f_j) for all j, then cos(c f_j), f_j = 10000^(-j / (size // 2 - 1)).

    Returns (B, size) in the dtype of the labels; an odd size ends with a zero (Vaswani et al. 2017, section 3.5, with
    the denominator size // 2 - 1 of Ho et al. 2020).
    """
    half = size // 2
    step = -math.log(10000.0) / max(half - 1, 1)
    frequencies = torch.exp(torch.arange(half, dtype=labels.dtype, device=labels.device) * step)
    p = labels[:, None] * frequencies
    return functional.pad(torch.cat([p.sin(), p.cos()], dim=1), (0, size % 2))


class TimeEmbedding(nn.Module):
    """Noise-level embedding passed to every block: Dense(act(Dense(features(c)))), c (B,) -> (B, outputs).

    Args:
        kind: "fourier" (c is the logarithm of the noise level) or "positional" (c is the index of a level, or 999 t).
        size: Number of frequencies (fourier) or of features (positional).
        outputs: Width of both linear layers.
        fourier_scale: Standard deviation of the Fourier frequencies.
        act: Activation function between the layers.
    """

    def __init__(
        self,
        kind: Literal["fourier", "positional"],
        size: int,
        outputs: int,
        *,
        fourier_scale: float,
        act: Pointwise,
    ):
        super().__init__()
        self.fourier = FourierFeatures(size, fourier_scale) if kind == "fourier" else None
        self.first = Dense(2 * size if kind == "fourier" else size, outputs)
        self.second = Dense(outputs, outputs)
        self.size, self.act = size, act

    def forward(self, c: Tensor, condition: Tensor | None = None) -> Tensor:
        """c (B,) and an optional term added to its features -> (B, outputs); no activation after the second layer."""
        c = c.to(self.first.weight)  # c may be float64 on the CPU, where functions of time are computed
        features = sinusoid(c, self.size) if self.fourier is None else self.fourier(c)
        if condition is not None:
            features = features + condition
        return self.second(self.act(self.first(features)))
