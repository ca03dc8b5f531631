"""Halving and doubling of the spatial axes: FIR filters (Zhang 2019; Karras et al. 2020), means and repetition.

With a filter k of n taps and K = outer(k, k) / sum, on each axis with P = n - 2:

    down  pad (P + 1) // 2 zeros before and P // 2 after, convolve with K, keep every second sample
    up    insert a zero after each sample, pad (P + 1) // 2 + 1 zeros before and P // 2 after, convolve with 2^d K
          (d spatial axes)

The first is computed as a depthwise convolution of stride 2, the second as its transpose. Both stay in float32 under
autocast, because half precision would cost the filters more accuracy than it saves time. The zeros outside the grid
darken the borders, as in the published networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield.nets.layers import CONVOLVE, MEAN_POOL, Convolution

_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d}


class Filter(nn.Module):
    """The separable low-pass filter of a FIR resampler, applied to every channel separately.

    Args:
        dims: Number of spatial axes.
        taps: Taps k, for example (1, 3, 3, 1); they are scaled so that their outer product sums to one.

    Raises:
        ValueError: There are fewer than two taps, or they sum to zero.
    """

    def __init__(self, dims: int, taps: Sequence[float]):
        super().__init__()
        if len(taps) < 2 or sum(taps) == 0:
            raise ValueError(
                f"a FIR kernel needs two or more taps with a non-zero sum, for example (1, 3, 3, 1); got {taps}"
            )
        k = torch.tensor(taps, dtype=torch.get_default_dtype())
        outer = k
        for _ in range(dims - 1):
            outer = outer[:, None] * k
        # Not yet normalised, because small integers stay exact when the module is moved to another precision.
        self.register_buffer("outer", outer, persistent=False)
        self.outer: Tensor
        self.dims, self.taps, self.total = dims, len(taps), float(sum(taps)) ** dims

    def down(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *spatial / 2) for even spatial sizes."""
        p = self.taps - 2
        return self._filter(x, (p + 1) // 2, p // 2, stride=2)

    def up(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *2 spatial)."""
        x, weight = self._operands(x, self.outer, 2.0**self.dims)
        with torch.autocast(x.device.type, enabled=False):
            # The transposed convolution yields 2 H - 2 + n samples; an odd n leaves one too many at the end.
            y = _TRANSPOSE[self.dims](x, weight, None, 2, (self.taps - 2) // 2, 0, x.shape[1])
        return y if self.taps % 2 == 0 else y[(..., *(slice(0, 2 * n) for n in x.shape[2:]))]

    def smooth(self, x: Tensor, before: int, after: int, gain: float = 1.0) -> Tensor:
        """Pad each axis with `before` and `after` zeros, convolve with `gain` times the filter; no resampling."""
        return self._filter(x, before, after, stride=1, gain=gain)

    def _filter(self, x: Tensor, before: int, after: int, *, stride: int, gain: float = 1.0) -> Tensor:
        # Torch's convolution is a correlation, so the filter is flipped.
        x, weight = self._operands(x, self.outer.flip(tuple(range(self.dims))), gain)
        if before != after:
            x = functional.pad(x, (before, after) * self.dims)
        with torch.autocast(x.device.type, enabled=False):
            padding = before if before == after else 0
            return CONVOLVE[self.dims](x, weight, None, stride, padding, 1, x.shape[1])

    def _operands(self, x: Tensor, outer: Tensor, gain: float) -> tuple[Tensor, Tensor]:
        """x in float32 or float64, and the scaled kernel repeated for every channel."""
        if x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()
        kernel = outer.to(x.dtype) * (gain / self.total)
        return x, kernel.expand(x.shape[1], 1, *kernel.shape)


def double(x: Tensor) -> Tensor:
    """Repeat each position twice along every spatial axis."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: Tensor) -> Tensor:
    """Mean over pairs of neighbouring positions (signals), or over 2x2 positions (images)."""
    return MEAN_POOL[x.ndim - 2](x, 2)


class Downsample(nn.Module):
    """Halve the size without learned weights: by a FIR filter if taps are given, else by the mean of neighbours."""

    def __init__(self, dims: int, taps: Sequence[float] | None):
        super().__init__()
        self.filter = Filter(dims, taps) if taps else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *spatial / 2)."""
        return self.filter.down(x) if self.filter is not None else halve(x)


class Upsample(nn.Module):
    """Double the size without learned weights: by a FIR filter if taps are given, else by repetition."""

    def __init__(self, dims: int, taps: Sequence[float] | None):
        super().__init__()
        self.filter = Filter(dims, taps) if taps else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *spatial * 2)."""
        return self.filter.up(x) if self.filter is not None else double(x)


class ConvolveDown(nn.Module):
    """Halve the size by a learned convolution of kernel size 3 and stride 2, after the FIR filter if there is one.

    With n taps: pad with (n + 1) // 2 and n // 2 zeros, filter, convolve without padding. Without a filter: pad one
    zero at the end of each axis, convolve.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, taps: Sequence[float] | None):
        super().__init__()
        self.conv = Convolution(dims, inputs, outputs, stride=2, padding=0)
        self.filter = Filter(dims, taps) if taps else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial / 2)."""
        if self.filter is None:
            return self.conv(functional.pad(x, (0, 1) * self.conv.dims))
        n = self.filter.taps
        return self.conv(self.filter.smooth(x, (n + 1) // 2, n // 2))


class ConvolveUp(nn.Module):
    """Double the size by a learned convolution of kernel size 3.

    With a FIR filter of n taps: transposed convolution of stride 2 (to 2 H + 1), then the filter with gain 2^d and the
    padding that leaves 2 H. Without a filter: repeat every position, then convolve.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, taps: Sequence[float] | None):
        super().__init__()
        self.conv = Convolution(dims, inputs, outputs)
        self.filter = Filter(dims, taps) if taps else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, *spatial) -> (B, out, *spatial * 2)."""
        if self.filter is None:
            return self.conv(double(x))
        dims = self.conv.dims
        # Inserting zeros and convolving with W equals the transposed convolution with W flipped and its input and
        # output channels exchanged.
        weight = self.conv.weight.flip(tuple(range(2, 2 + dims))).transpose(0, 1)
        y = _TRANSPOSE[dims](x, weight, None, 2)
        p = self.filter.taps - 4
        y = self.filter.smooth(y, (p + 1) // 2 + 1, p // 2 + 1, gain=2.0**dims)
        return y + self.conv.bias.reshape(-1, *(1,) * dims)
