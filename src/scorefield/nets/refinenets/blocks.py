"""Blocks of the RefineNets: encoder blocks, refinement blocks, chained pooling and spectral normalisation.

Names and shapes of parameters are those of the releases' state dictionaries, so that a checkpoint is copied by name.

Every normalisation and every block is called as f(x, labels). `labels`, shape (B,), are the indices of the noise levels
in a network that is conditioned on them, and None in a network that is not.

References: Song and Ermon 2019, appendix A; Lin et al. 2017 ("RefineNet"), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield.nets.layers import Pointwise, residual_sum
from scorefield.nets.refinenets.instance_norm import NoNorm


class SpectralConv2d(nn.Conv2d):
    """A convolution with the weight W / s, s = u . W v an estimate of its largest singular value as a matrix (out, -1).

    Each evaluation in training improves u and v by one step of the power iteration; the gradient flows through s. State
    names (`weight_orig`, `weight_u`, `weight_v`) are those of `torch.nn.utils.spectral_norm`, which the release calls;
    that hook leaves a weight behind that cannot be deep-copied (Miyato et al. 2018, algorithm 1).
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, padding: int, dilation: int, bias: bool):
        super().__init__(inputs, outputs, size, padding=padding, dilation=dilation, bias=bias)
        weight = self.weight
        del self._parameters["weight"]
        self.weight_orig = nn.Parameter(weight.detach())
        matrix = self.weight_orig.detach().flatten(1)
        u, v = matrix.new_empty(outputs).normal_(), matrix.new_empty(matrix.shape[1])
        if not matrix.is_meta:
            for _ in range(16):  # a fresh network may be evaluated before it is trained
                u, v = self._improved(matrix, u)
        self.register_buffer("weight_u", u)
        self.register_buffer("weight_v", v)
        self.weight_u: Tensor
        self.weight_v: Tensor

    @staticmethod
    def _improved(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        v = functional.normalize(matrix.T @ u, dim=0, eps=1e-12)
        return functional.normalize(matrix @ v, dim=0, eps=1e-12), v

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        with torch.autocast(input.device.type, enabled=False):
            weight = self._normalised()
        return self._conv_forward(input, weight, self.bias)

    def _normalised(self) -> Tensor:
        matrix = self.weight_orig.flatten(1)
        u, v = self.weight_u, self.weight_v
        if self.training:
            with torch.no_grad():
                u, v = self._improved(matrix, u)
                self.weight_u.copy_(u)
                self.weight_v.copy_(v)
        return self.weight_orig / torch.dot(u, matrix @ v)


def mean_pool(x: Tensor) -> Tensor:
    """Mean over 5 x 5 windows at stride 1; positions outside count as zeros."""
    return _by_axis(functional.avg_pool2d, x)


def max_pool(x: Tensor) -> Tensor:
    """Maximum over 5 x 5 windows at stride 1; positions outside do not count."""
    return _by_axis(functional.max_pool2d, x)


def _by_axis(pool: Callable[..., Tensor], x: Tensor) -> Tensor:
    # One axis after the other is the same, in ten steps instead of 25; on CPUs only the other layout is vectorised.
    laid_out = x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
    return pool(pool(laid_out, (5, 1), 1, (2, 0)), (1, 5), 1, (0, 2)).contiguous()


@dataclass(frozen=True)
class RefineStyle:
    """What all blocks of one network share.

    Args:
        norm: Channels -> a normalisation.
        norm_in_refinement: Whether refinement blocks normalise too (NCSN does).
        act: Pointwise function.
        pool: Chained pooling.
        spectral_norm: Divide every convolution's weight by its largest singular value.
    """

    norm: Callable[[int], nn.Module]
    norm_in_refinement: bool
    act: Pointwise
    pool: Callable[[Tensor], Tensor]
    spectral_norm: bool = False

    def conv(self, inputs: int, outputs: int, size: int = 3, *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
        """A convolution that keeps the spatial size, torch's initial weights."""
        made = SpectralConv2d if self.spectral_norm else nn.Conv2d
        return made(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation, bias=bias)


class ZerosToEven(nn.Module):
    """A row of zeros above and a column on the left, where there is an odd number of them."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H or H + 1, W or W + 1)."""
        return functional.pad(x, (x.shape[3] % 2, 0, x.shape[2] % 2, 0))


class MeanPooledConv(nn.Module):
    """A convolution, then means over 2 x 2 windows: half the size. With `odd`, zeros make odd sizes even first."""

    def __init__(self, style: RefineStyle, inputs: int, outputs: int, size: int, *, odd: bool = False):
        super().__init__()
        conv = style.conv(inputs, outputs, size)
        self.conv = nn.Sequential(ZerosToEven(), conv) if odd else conv
        self.commutes = size == 1 and not odd

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        pool = functional.avg_pool2d  # a 1 x 1 convolution commutes with it, which leaves a quarter of the work
        return self.conv(pool(x, 2)) if self.commutes else pool(self.conv(x), 2)


class EncoderBlock(nn.Module):
    """shortcut(x) + conv2(act(norm2(conv1(act(norm1(x)))))).

    The first block of a stage changes width: without dilation it halves the size, with dilation it keeps it, and its
    shortcut is dilated like the rest.

    Args:
        style: Shared choices.
        inputs: Channels in.
        outputs: Channels out.
        dilation: Dilation of the 3 x 3 convolutions; 1 for none.
        opens: Whether the block opens a stage; the others have as many channels out as in.
        odd: Whether odd sizes may come in where it halves them.
    """

    def __init__(self, style: RefineStyle, inputs: int, outputs: int, *, dilation: int, opens: bool, odd: bool = False):
        super().__init__()
        assert opens or inputs == outputs
        halves = opens and dilation == 1
        self.conv1 = style.conv(inputs, inputs, dilation=dilation)
        self.normalize2 = style.norm(inputs)
        self.conv2: nn.Module
        self.shortcut: nn.Module | None = None
        if halves:
            self.conv2 = MeanPooledConv(style, inputs, outputs, 3, odd=odd)
            self.shortcut = MeanPooledConv(style, inputs, outputs, 1, odd=odd)
        else:
            self.conv2 = style.conv(inputs, outputs, dilation=dilation)
            if opens:
                self.shortcut = style.conv(inputs, outputs, dilation=dilation)
        self.normalize1 = style.norm(inputs)
        self.act = style.act

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W) or half the size."""
        h = self.conv1(self.act(self.normalize1(x, labels)))
        h = self.conv2(self.act(self.normalize2(h, labels)))
        return residual_sum(x if self.shortcut is None else self.shortcut(x), h, 1.0)


# ------------------------------------------------------------------------------------------------ refinement


class ResidualConvUnits(nn.Module):
    """x <- x + conv(act(norm(conv(act(norm(x)))))), `blocks` times; the convolutions have no bias."""

    def __init__(self, style: RefineStyle, channels: int, blocks: int):
        super().__init__()
        self.names = [[f"{block}_{stage}" for stage in (1, 2)] for block in range(1, blocks + 1)]
        self.act, self.normalises = style.act, style.norm_in_refinement
        for name in sum(self.names, []):
            if self.normalises:
                self.add_module(f"{name}_norm", style.norm(channels))
            self.add_module(f"{name}_conv", style.conv(channels, channels, bias=False))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        for block in self.names:
            h = x
            for name in block:
                if self.normalises:
                    h = self.get_submodule(f"{name}_norm")(h, labels)
                h = self.get_submodule(f"{name}_conv")(self.act(h))
            x = residual_sum(x, h, 1.0)
        return x


class Fusion(nn.Module):
    """Multi-resolution fusion: the sum of conv(norm(x_k)), each resized bilinearly, corners on corners."""

    def __init__(self, style: RefineStyle, inputs: Sequence[int], outputs: int):
        super().__init__()
        self.convs = nn.ModuleList(style.conv(channels, outputs) for channels in inputs)
        self.norms = nn.ModuleList(style.norm(n) if style.norm_in_refinement else NoNorm() for n in inputs)

    def forward(self, inputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Maps (B, C_k, H_k, W_k) -> (B, out, H_0, W_0)."""
        size, total = inputs[0].shape[2:], None
        for x, norm, conv in zip(inputs, self.norms, self.convs, strict=True):
            h = conv(norm(x, labels))
            if h.shape[2:] != size:  # at its own size the interpolation is the identity
                h = functional.interpolate(h, size, mode="bilinear", align_corners=True)
            total = h if total is None else total + h
        assert total is not None
        return total


class ChainedPooling(nn.Module):
    """Chained residual pooling: y = x = act(x); twice, y <- conv(pool(norm(y))) and x <- x + y; no bias."""

    def __init__(self, style: RefineStyle, channels: int):
        super().__init__()
        self.convs = nn.ModuleList(style.conv(channels, channels, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(style.norm(channels) if style.norm_in_refinement else NoNorm() for _ in range(2))
        self.act, self.pool = style.act, style.pool

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        x = path = self.act(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(self.pool(norm(path, labels)))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Adapt each input, fuse them at the size of the first, pool, and convolve (Lin et al. 2017, figure 3).

    Args:
        style: Shared choices.
        inputs: Channels of one input, or of two: the encoder's and the deeper block's.
        outputs: Channels out.
        last: Whether it is the network's last, which has three output units instead of one.
    """

    def __init__(self, style: RefineStyle, inputs: Sequence[int], outputs: int, *, last: bool):
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvUnits(style, channels, 2) for channels in inputs)
        self.output_convs = ResidualConvUnits(style, outputs, 3 if last else 1)
        self.msf = Fusion(style, inputs, outputs) if len(inputs) > 1 else None
        self.crp = ChainedPooling(style, outputs)

    def forward(self, inputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Maps (B, C_k, H_k, W_k) -> (B, out, H_0, W_0)."""
        adapted = [adapt(x, labels) for adapt, x in zip(self.adapt_convs, inputs, strict=True)]
        h = adapted[0] if self.msf is None else self.msf(adapted, labels)
        return self.output_convs(self.crp(h, labels), labels)
