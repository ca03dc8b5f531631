"""Straightforward implementation of NCSN++: the baseline of the benchmarks and an independent reference in the tests.

It has the same parameters and computes the same function as `scorefield.nets.NCSNpp(...).build(...)` on square images,
written directly from the description: NCHW tensors, every FIR filter as zero insertion, padding, one dense convolution
and slicing, attention as two einsums, 1x1 maps as products over a permuted axis, the embedding activated in every
block, and shortcuts resampled before their weights are applied. From the package it uses only the configuration and
the order of the parameters, by which they are copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from scorefield.nets import NCSNpp, UNet, published_order

ACTIVATIONS = {"swish": nn.SiLU(), "elu": nn.ELU(), "relu": nn.ReLU(), "lrelu": nn.LeakyReLU(0.2)}


def fir_filter(x: Tensor, taps: Iterable[float], gain: float, up: int, down: int, before: int, after: int) -> Tensor:
    """Insert up - 1 zeros after each pixel, pad, convolve with the outer product of the taps, keep every down-th pixel.

    Args:
        x: Images, (B, C, H, W).
        taps: One-dimensional filter.
        gain: Sum of the normalised two-dimensional filter.
        up: Upsampling factor.
        down: Downsampling factor.
        before: Padding on the left and top.
        after: Padding on the right and bottom.
    """
    b, c, h, w = x.shape
    k = torch.tensor(list(taps), dtype=x.dtype)
    kernel = torch.outer(k, k)
    kernel = gain * kernel / kernel.sum()
    x = x.reshape(b * c, 1, h, 1, w, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(b * c, 1, h * up, w * up)
    x = F.pad(x, (before, after, before, after))
    x = F.conv2d(x, kernel.flip(0, 1)[None, None])[:, :, ::down, ::down]
    return x.reshape(b, c, x.shape[2], x.shape[3])


def up2(x: Tensor, config: NCSNpp) -> Tensor:
    """Double height and width."""
    if not config.fir:
        return F.interpolate(x, scale_factor=2)
    p = len(config.fir_kernel) - 2
    return fir_filter(x, config.fir_kernel, 4.0, 2, 1, (p + 1) // 2 + 1, p // 2)


def down2(x: Tensor, config: NCSNpp) -> Tensor:
    """Halve height and width."""
    if not config.fir:
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    p = len(config.fir_kernel) - 2
    return fir_filter(x, config.fir_kernel, 1.0, 1, 2, (p + 1) // 2, p // 2)


class Nin(nn.Module):
    """Linear map of the channels of every pixel."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.W = nn.Parameter(torch.empty(inputs, outputs))
        self.b = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bhwi,io->bhwo", x.permute(0, 2, 3, 1), self.W).add(self.b).permute(0, 3, 1, 2)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Attention(nn.Module):
    """Self-attention over all pixels with one head and a residual connection."""

    def __init__(self, config: NCSNpp, channels: int):
        super().__init__()
        self.config = config
        self.norm = norm(channels)
        self.nins = nn.ModuleList(Nin(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        h = self.norm(x)
        q, k, v = (nin(h) for nin in self.nins[:3])
        logits = torch.einsum("bchw,bcij->bhwij", q, k) * c**-0.5
        weights = torch.softmax(logits.reshape(b, height, width, height * width), dim=-1)
        h = torch.einsum("bhwij,bcij->bchw", weights.reshape(b, height, width, height, width), v)
        h = self.nins[3](h)
        return (x + h) / math.sqrt(2) if self.config.skip_rescale else x + h


class Block(nn.Module):
    """Residual block with group norms, noise-level embedding and optional resampling."""

    def __init__(self, config: NCSNpp, inputs: int, outputs: int, resample: str = ""):
        super().__init__()
        self.config, self.resample = config, resample
        self.act = ACTIVATIONS[config.activation]
        self.norm0 = norm(inputs)
        self.conv0 = conv3(inputs, outputs)
        self.dense = nn.Linear(4 * config.channels, outputs) if config.time_conditional else None
        self.norm1 = norm(outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.conv1 = conv3(outputs, outputs)
        self.shortcut = None
        if inputs != outputs or resample:
            self.shortcut = nn.Conv2d(inputs, outputs, 1) if config.block == "biggan" else Nin(inputs, outputs)

    def forward(self, x: Tensor, temb: Tensor | None) -> Tensor:
        h = self.act(self.norm0(x))
        if self.resample:
            change = up2 if self.resample == "up" else down2
            h, x = change(h, self.config), change(x, self.config)
        h = self.conv0(h)
        if self.dense is not None:
            h = h + self.dense(self.act(temb))[:, :, None, None]
        h = self.conv1(self.dropout(self.act(self.norm1(h))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        return (x + h) / math.sqrt(2) if self.config.skip_rescale else x + h


class LearnedDown(nn.Module):
    """Downsampling by two with a strided convolution."""

    def __init__(self, config: NCSNpp, inputs: int, outputs: int):
        super().__init__()
        self.config = config
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        n = len(self.config.fir_kernel)
        if self.config.fir:
            x = fir_filter(x, self.config.fir_kernel, 1.0, 1, 1, (n + 1) // 2, n // 2)
        else:
            x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)


class LearnedUp(nn.Module):
    """Upsampling by two with a transposed convolution."""

    def __init__(self, config: NCSNpp, inputs: int, outputs: int):
        super().__init__()
        self.config = config
        self.conv = conv3(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if not self.config.fir:
            return self.conv(F.interpolate(x, scale_factor=2))
        p = len(self.config.fir_kernel) - 4
        weight = self.conv.weight.flip(2, 3).transpose(0, 1)
        x = fir_filter(
            F.conv_transpose2d(x, weight, stride=2), self.config.fir_kernel, 4.0, 1, 1, (p + 1) // 2 + 1, p // 2 + 1
        )
        assert self.conv.bias is not None
        return x + self.conv.bias[:, None, None]


class Fourier(nn.Module):
    """Gaussian Fourier features of the noise level."""

    def __init__(self, size: int):
        super().__init__()
        self.W = nn.Parameter(torch.empty(size), requires_grad=False)

    def forward(self, u: Tensor) -> Tensor:
        p = u[:, None] * self.W[None, :] * 2 * math.pi
        return torch.cat([torch.sin(p), torch.cos(p)], dim=1)


class NaiveNCSNpp(nn.Module):
    """NCSN++ with all modules in one list in the published order; the forward pass takes them one after the other."""

    def __init__(self, config: NCSNpp, image_channels: int, size: int):
        super().__init__()
        self.config, self.size = config, size
        nf, last = config.channels, len(config.channel_multipliers) - 1
        self.act = ACTIVATIONS[config.activation]
        modules: list[nn.Module] = []
        if config.time_conditional:
            if config.embedding == "fourier":
                modules.append(Fourier(nf))
            modules += [nn.Linear(2 * nf if config.embedding == "fourier" else nf, 4 * nf), nn.Linear(4 * nf, 4 * nf)]
        modules.append(conv3(image_channels, nf))
        stack, current, pyramid = [nf], nf, image_channels
        for level, multiplier in enumerate(config.channel_multipliers):
            for _ in range(config.blocks):
                modules.append(Block(config, current, nf * multiplier))
                current = nf * multiplier
                if size >> level in config.attention_sizes:
                    modules.append(Attention(config, current))
                stack.append(current)
            if level < last:
                if config.block == "biggan":
                    modules.append(Block(config, current, current, "down"))
                elif config.resample_with_conv:
                    modules.append(LearnedDown(config, current, current))
                if config.progressive_input == "input_skip":
                    modules.append(nn.Conv2d(image_channels, current, 1))
                    current *= 2 if config.progressive_combine == "cat" else 1
                elif config.progressive_input == "residual":
                    modules.append(LearnedDown(config, pyramid, current))
                    pyramid = current
                stack.append(current)
        modules += [Block(config, current, current), Attention(config, current), Block(config, current, current)]
        for level in range(last, -1, -1):
            for _ in range(config.blocks + 1):
                modules.append(Block(config, current + stack.pop(), nf * config.channel_multipliers[level]))
                current = nf * config.channel_multipliers[level]
            if size >> level in config.attention_sizes:
                modules.append(Attention(config, current))
            if config.progressive == "output_skip":
                modules += [norm(current), conv3(current, image_channels)]
            elif config.progressive == "residual":
                modules += [norm(current), conv3(current, current)] if level == last else []
                modules += [LearnedUp(config, pyramid, current)] if level < last else []
                pyramid = current
            if level:
                if config.block == "biggan":
                    modules.append(Block(config, current, current, "up"))
                elif config.resample_with_conv:
                    modules.append(LearnedUp(config, current, current))
        if config.progressive != "output_skip":
            modules += [norm(current), conv3(current, image_channels)]
        self.all_modules = nn.ModuleList(modules)

    def merge(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b) / math.sqrt(2) if self.config.skip_rescale else a + b

    def time(self, c: Tensor, take: Callable[[], nn.Module]) -> Tensor | None:
        if not self.config.time_conditional:
            return None
        if self.config.embedding == "fourier":
            features = take()(c)
        else:
            half = self.config.channels // 2
            f = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=c.dtype) / (half - 1))
            features = torch.cat([torch.sin(c[:, None] * f), torch.cos(c[:, None] * f)], dim=1)
        temb = take()(features)
        return take()(self.act(temb))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        config, last = self.config, len(self.config.channel_multipliers) - 1
        queue = iter(self.all_modules)
        take = queue.__next__
        temb = self.time(c, take)
        if not config.centered:
            x = 2 * x - 1
        pyramid = x
        stack = [take()(x)]
        for level in range(last + 1):
            for _ in range(config.blocks):
                h = take()(stack[-1], temb)
                stack.append(take()(h) if self.size >> level in config.attention_sizes else h)
            if level < last:
                stack.append(self._down(stack[-1], temb, take))
                if config.progressive_input == "input_skip":
                    pyramid = down2(pyramid, config)
                    y = take()(pyramid)
                    cat = config.progressive_combine == "cat"
                    stack[-1] = torch.cat([y, stack[-1]], dim=1) if cat else y + stack[-1]
                elif config.progressive_input == "residual":
                    pyramid = stack[-1] = self.merge(take()(pyramid), stack[-1])
        h = take()(stack[-1], temb)
        h = take()(h)
        h = take()(h, temb)
        return self._ascend(h, stack, temb, take)

    def _down(self, h: Tensor, temb: Tensor | None, take: Callable[[], nn.Module]) -> Tensor:
        if self.config.block == "biggan":
            return take()(h, temb)
        return take()(h) if self.config.resample_with_conv else down2(h, self.config)

    def _ascend(self, h: Tensor, stack: list[Tensor], temb: Tensor | None, take: Callable[[], nn.Module]) -> Tensor:
        config, last = self.config, len(self.config.channel_multipliers) - 1
        pyramid = h
        for level in range(last, -1, -1):
            for _ in range(config.blocks + 1):
                h = take()(torch.cat([h, stack.pop()], dim=1), temb)
            if self.size >> level in config.attention_sizes:
                h = take()(h)
            if config.progressive != "none" and level == last:
                n, conv = take(), take()
                pyramid = conv(self.act(n(h)))
            elif config.progressive == "output_skip":
                n, conv = take(), take()
                pyramid = up2(pyramid, config) + conv(self.act(n(h)))
            elif config.progressive == "residual":
                pyramid = h = self.merge(take()(pyramid), h)
            if level:
                if config.block == "biggan":
                    h = take()(h, temb)
                else:
                    h = take()(h) if config.resample_with_conv else up2(h, config)
        if config.progressive == "output_skip":
            return pyramid
        n, conv = take(), take()
        return conv(self.act(n(h)))


def naive_copy(net: UNet) -> NaiveNCSNpp:
    """Return the straightforward implementation of a network of the package, with copies of its weights."""
    config = net.config
    naive = NaiveNCSNpp(config, net.data.shape[0], net.data.shape[1]).to(next(net.parameters()).dtype)
    ours = published_order(net)
    theirs = list(naive.parameters())
    assert len(ours) == len(theirs)
    with torch.no_grad():
        for source, target in zip(ours, theirs, strict=True):
            target.copy_(source.parameter.T if source.transposed else source.parameter)
    return naive
