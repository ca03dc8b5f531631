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
    """A convolution with the spectrally normalised weight W / s (Miyato et al. 2018, algorithm 1).

    s = u . W v estimates the largest singular value of W as a matrix (out, -1). Each evaluation in training improves u
    and v by one step of power iteration; gradients flow through s. The names `weight_orig`, `weight_u` and `weight_v`
    are those of `torch.nn.utils.spectral_norm`, which the release uses. That function is not used here because the
    weight that it attaches to the module cannot be deep-copied.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, padding: int, dilation: int, bias: bool):
        super().__init__(inputs, outputs, size, padding=padding, dilation=dilation, bias=bias)
        weight = self.weight
        del self._parameters["weight"]
        self.weight_orig = nn.Parameter(weight.detach())
        matrix = self.weight_orig.detach().flatten(1)
        u, v = matrix.new_empty(outputs).normal_(), matrix.new_empty(matrix.shape[1])
        if not matrix.is_meta:
            for _ in range(16):  # so that a new network is normalised even if it is evaluated before it is trained
                u, v = self._power_iteration(matrix, u)
        self.register_buffer("weight_u", u)
        self.register_buffer("weight_v", v)
        self.weight_u: Tensor
        self.weight_v: Tensor

    @staticmethod
    def _power_iteration(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """One step: the new estimates of the left and right singular vectors u and v."""
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
                u, v = self._power_iteration(matrix, u)
                self.weight_u.copy_(u)
                self.weight_v.copy_(v)
        return self.weight_orig / torch.dot(u, matrix @ v)


def mean_pool(x: Tensor) -> Tensor:
    """Mean over 5x5 windows at stride 1; positions outside the image count as zeros."""
    return _by_axis(functional.avg_pool2d, x)


def max_pool(x: Tensor) -> Tensor:
    """Maximum over 5x5 windows at stride 1; positions outside the image do not count."""
    return _by_axis(functional.max_pool2d, x)


def _by_axis(pool: Callable[..., Tensor], x: Tensor) -> Tensor:
    # Pooling one axis after the other gives the same result with 10 operations per position instead of 25. On CPUs,
    # torch's pooling is vectorised only in channels_last layout.
    laid_out = x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
    return pool(pool(laid_out, (5, 1), 1, (2, 0)), (1, 5), 1, (0, 2)).contiguous()


@dataclass(frozen=True)
class RefineStyle:
    """Settings that all blocks of one network share.

    Args:
        norm: Function that makes a normalisation for a number of channels.
        norm_in_refinement: Whether refinement blocks have normalisations, as in NCSN.
        act: Activation function.
        pool: Pooling function of the chained pooling.
        spectral_norm: Whether the weight of every convolution is divided by its largest singular value.
    """

    norm: Callable[[int], nn.Module]
    norm_in_refinement: bool
    act: Pointwise
    pool: Callable[[Tensor], Tensor]
    spectral_norm: bool = False

    def conv(self, inputs: int, outputs: int, size: int = 3, *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
        """A convolution that keeps the spatial size, with torch's initial weights."""
        conv = SpectralConv2d if self.spectral_norm else nn.Conv2d
        return conv(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation, bias=bias)


class ZerosToEven(nn.Module):
    """Add a row of zeros at the top if H is odd, and a column of zeros on the left if W is odd."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H or H + 1, W or W + 1)."""
        return functional.pad(x, (x.shape[3] % 2, 0, x.shape[2] % 2, 0))


class MeanPooledConv(nn.Module):
    """A convolution followed by means over 2x2 windows, which halve the size; `odd` pads odd sizes first."""

    def __init__(self, style: RefineStyle, inputs: int, outputs: int, size: int, *, odd: bool = False):
        super().__init__()
        conv = style.conv(inputs, outputs, size)
        self.conv = nn.Sequential(ZerosToEven(), conv) if odd else conv
        self.commutes = size == 1 and not odd

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        # A 1x1 convolution commutes with the mean, and after the mean it has a quarter of the positions.
        pool = functional.avg_pool2d
        return self.conv(pool(x, 2)) if self.commutes else pool(self.conv(x), 2)


class EncoderBlock(nn.Module):
    """shortcut(x) + conv2(act(norm2(conv1(act(norm1(x)))))).

    The first block of a stage changes the number of channels. Without dilation it also halves the size; with dilation
    it keeps the size, and its shortcut is dilated as well.

    Args:
        style: Settings shared by all blocks.
        inputs: Number of input channels.
        outputs: Number of output channels; equal to `inputs` except in the first block of a stage.
        dilation: Dilation of the 3x3 convolutions; 1 for none.
        first: Whether the block is the first of a stage that changes the number of channels or the size.
        odd: Whether odd sizes are padded before they are halved.
    """

    def __init__(self, style: RefineStyle, inputs: int, outputs: int, *, dilation: int, first: bool, odd: bool = False):
        super().__init__()
        assert first or inputs == outputs
        halves = first and dilation == 1
        self.conv1 = style.conv(inputs, inputs, dilation=dilation)
        self.normalize2 = style.norm(inputs)
        self.conv2: nn.Module
        self.shortcut: nn.Module | None = None
        if halves:
            self.conv2 = MeanPooledConv(style, inputs, outputs, 3, odd=odd)
            self.shortcut = MeanPooledConv(style, inputs, outputs, 1, odd=odd)
        else:
            self.conv2 = style.conv(inputs, outputs, dilation=dilation)
            if first:
                self.shortcut = style.conv(inputs, outputs, dilation=dilation)
        self.normalize1 = style.norm(inputs)
        self.act = style.act

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), or (B, out, H / 2, W / 2) where the block halves the size."""
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
        """(B, C, H, W) -> (B, C, H, W)."""
        for block in self.names:
            h = x
            for name in block:
                if self.normalises:
                    h = self.get_submodule(f"{name}_norm")(h, labels)
                h = self.get_submodule(f"{name}_conv")(self.act(h))
            x = residual_sum(x, h, 1.0)
        return x


class Fusion(nn.Module):
    """Multi-resolution fusion: the sum of conv(norm(x_k)), each resized bilinearly with aligned corners."""

    def __init__(self, style: RefineStyle, inputs: Sequence[int], outputs: int):
        super().__init__()
        self.convs = nn.ModuleList(style.conv(channels, outputs) for channels in inputs)
        self.norms = nn.ModuleList(style.norm(n) if style.norm_in_refinement else NoNorm() for n in inputs)

    def forward(self, inputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Feature maps x_k of shape (B, C_k, H_k, W_k) -> (B, out, H_0, W_0)."""
        size, total = inputs[0].shape[2:], None
        for x, norm, conv in zip(inputs, self.norms, self.convs, strict=True):
            h = conv(norm(x, labels))
            if h.shape[2:] != size:  # at equal size the interpolation would be the identity
                h = functional.interpolate(h, size, mode="bilinear", align_corners=True)
            total = h if total is None else total + h
        assert total is not None
        return total


class ChainedPooling(nn.Module):
    """Chained residual pooling: y = x = act(x), then twice y <- conv(pool(norm(y))), x <- x + y; no biases."""

    def __init__(self, style: RefineStyle, channels: int):
        super().__init__()
        self.convs = nn.ModuleList(style.conv(channels, channels, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(style.norm(channels) if style.norm_in_refinement else NoNorm() for _ in range(2))
        self.act, self.pool = style.act, style.pool

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = path = self.act(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(self.pool(norm(path, labels)))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Adapt each input, fuse them at the size of the first, pool, and convolve (Lin et al. 2017, figure 3).

    Args:
        style: Settings shared by all blocks.
        inputs: Numbers of channels of the inputs: the encoder's features and, except in the first refinement block,
            the output of the block before it.
        outputs: Number of output channels.
        last: Whether it is the last block of the network, which has three output units instead of one.
    """

    def __init__(self, style: RefineStyle, inputs: Sequence[int], outputs: int, *, last: bool):
        super().__init__()
        self.adapt_convs = nn.ModuleList(ResidualConvUnits(style, channels, 2) for channels in inputs)
        self.output_convs = ResidualConvUnits(style, outputs, 3 if last else 1)
        self.msf = Fusion(style, inputs, outputs) if len(inputs) > 1 else None
        self.crp = ChainedPooling(style, outputs)

    def forward(self, inputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """Feature maps x_k of shape (B, C_k, H_k, W_k) -> (B, out, H_0, W_0)."""
        adapted = [adapt(x, labels) for adapt, x in zip(self.adapt_convs, inputs, strict=True)]
        h = adapted[0] if self.msf is None else self.msf(adapted, labels)
        return self.output_convs(self.crp(h, labels), labels)
