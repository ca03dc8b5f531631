"""The discriminator of BigGAN without classes (Brock et al. 2019), with spectral normalisation of every weight.

Spectral normalisation divides a weight W by its largest singular value, W / sigma(W). Power iteration estimates
sigma(W) from a vector that is stored between calls: each call in training mode improves the vector, and calls in
evaluation mode leave it unchanged (Miyato et al. 2018, algorithm 1).
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorefield._codec import record
from scorefield.data_spec import DataSpec
from scorefield.nets.critics.critic import Critic, CriticConfig, require_unconditional_images

Initial = Literal["xavier", "ortho", "N02"]

_INITIAL = {
    "xavier": nn.init.xavier_uniform_,
    "ortho": nn.init.orthogonal_,
    "N02": functools.partial(nn.init.normal_, std=0.02),
}


@record
class BigGANCritic(CriticConfig):
    """Configuration of the discriminator of BigGAN without classes (Brock et al. 2019, appendix B), for square images.

    Images with sides of 28 and 32 pixels have four blocks with 4 times `channels`; images with sides of 64, 128 and 256
    pixels have five to seven blocks with up to 16 times `channels`.

    Args:
        channels: Unit of the number of channels, ch.
        attention_size: Side of the feature maps that are followed by attention; None for no attention. With 64, the
            published value, only images with sides of 128 and 256 pixels have attention.
        init: Initial weights: Xavier-uniform ("xavier"), orthogonal ("ortho") or N(0, 0.02^2) ("N02").
        power_iterations: Number of steps of power iteration in each call.

    Raises:
        ValueError: A field is out of its range.
    """

    channels: int = 64
    attention_size: int | None = 64
    init: Initial = "xavier"
    power_iterations: int = 1

    def __post_init__(self) -> None:
        if self.channels < 1 or self.power_iterations < 1:
            raise ValueError(
                f"channels and power_iterations must be at least 1; got {self.channels} and {self.power_iterations}"
            )
        if self.attention_size is not None and self.attention_size < 2:
            raise ValueError(
                f"attention_size must be a side in pixels, at least 2, or None for no attention; got"
                f" {self.attention_size}"
            )
        if self.init not in _INITIAL:
            raise ValueError(f"init must be one of {', '.join(map(repr, _INITIAL))}; got {self.init!r}")

    def build(self, data: DataSpec) -> BigGANDiscriminator:
        """The critic of images (C, S, S) with a side S of 28, 32, 64, 128 or 256 pixels."""
        return BigGANDiscriminator(self, data)


_WIDTHS = {
    28: (4, 4, 4, 4),
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
"""Side -> number of channels of each block divided by `channels`.

The first two blocks halve the size for sides below 64; from 64 on, all blocks but the last do.
"""


class _SpectralNorm(nn.Module):
    """A layer with a spectrally normalised weight.

    Buffer u0, shape (1, out), is the estimate of the left singular vector; buffer sv0 is the last sigma computed in
    training, for logs. Both have the names of the release.
    """

    weight: Tensor
    u0: Tensor
    sv0: Tensor
    power_iterations: int

    def _prepare(self, config: BigGANCritic) -> None:
        self.power_iterations = config.power_iterations
        _INITIAL[config.init](self.weight)
        self.register_buffer("u0", torch.randn(1, self.weight.shape[0]))
        self.register_buffer("sv0", torch.ones(1))

    def normalised(self) -> Tensor:
        """W / sigma with sigma = v W' u'; gradients flow through W, not through the singular vectors u and v."""
        W = self.weight.flatten(1)
        with torch.autocast(W.device.type, enabled=False):
            with torch.no_grad():
                u = self.u0
                for _ in range(self.power_iterations):
                    v = functional.normalize(u @ W, eps=1e-12)
                    u = functional.normalize(v @ W.T, eps=1e-12)
            sigma = (v @ W.T @ u.T).squeeze()
            if self.training:
                with torch.no_grad():
                    self.u0.copy_(u)
                    self.sv0.fill_(sigma)
            return self.weight / sigma


class SpectralConv(_SpectralNorm, nn.Conv2d):
    """A convolution of odd kernel size that keeps the size of the image, with a spectrally normalised weight."""

    def __init__(self, config: BigGANCritic, inputs: int, outputs: int, size: int, *, bias: bool = True):
        nn.Conv2d.__init__(self, inputs, outputs, size, padding=size // 2, bias=bias)
        self._prepare(config)

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return self._conv_forward(input, self.normalised(), self.bias)


class SpectralLinear(_SpectralNorm, nn.Linear):
    """A linear layer with a spectrally normalised weight."""

    def __init__(self, config: BigGANCritic, inputs: int, outputs: int):
        nn.Linear.__init__(self, inputs, outputs)
        self._prepare(config)

    def forward(self, input: Tensor) -> Tensor:
        """(B, in) -> (B, out)."""
        return functional.linear(input, self.normalised(), self.bias)


class CriticBlock(nn.Module):
    """shortcut(x) + mean(conv2(relu(conv1(relu(x))))); the first block of a critic omits the first relu.

    Blocks that halve the size take the mean over 2x2 pixels; the others omit it. The shortcut has a 1x1 convolution
    unless the number of channels and the size stay the same. The first block takes the mean of the shortcut before this
    convolution, the others after it.
    """

    def __init__(self, config: BigGANCritic, inputs: int, outputs: int, *, first: bool, down: bool):
        super().__init__()
        self.conv1 = SpectralConv(config, inputs, outputs, 3)
        self.conv2 = SpectralConv(config, outputs, outputs, 3)
        self.conv_sc = SpectralConv(config, inputs, outputs, 1) if down or inputs != outputs else None
        self.first, self.down = first, down

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), or (B, out, H / 2, W / 2) if the block halves the size."""
        h = self.conv2(functional.relu(self.conv1(x if self.first else functional.relu(x))))
        if self.down:
            h = functional.avg_pool2d(h, 2)
        return h + self._shortcut(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.down and self.first:
            x = functional.avg_pool2d(x, 2)
        if self.conv_sc is not None:
            x = self.conv_sc(x)
        return functional.avg_pool2d(x, 2) if self.down and not self.first else x


class CriticAttention(nn.Module):
    """x + gamma o(sum_j softmax_j(theta_i . phi_j) g_j), with initial gamma = 0 (Zhang et al. 2019, eq. 1-3).

    The keys phi and values g are on the grid of half the size. theta and phi have C / 8 features, g has C / 2; there
    are no biases.
    """

    def __init__(self, config: BigGANCritic, channels: int):
        super().__init__()
        if channels < 8:
            raise ValueError(
                f"attention maps C channels to C // 8 features and needs at least 8 channels; this level has {channels}"
                ". Give BigGANCritic channels=8 or more, or attention_size=None"
            )
        self.theta = SpectralConv(config, channels, channels // 8, 1, bias=False)
        self.phi = SpectralConv(config, channels, channels // 8, 1, bias=False)
        self.g = SpectralConv(config, channels, channels // 2, 1, bias=False)
        self.o = SpectralConv(config, channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        theta = self.theta(x).flatten(2)  # (B, C/8, N)
        phi = functional.max_pool2d(self.phi(x), 2).flatten(2)  # (B, C/8, M)
        g = functional.max_pool2d(self.g(x), 2).flatten(2)  # (B, C/2, M)
        weights = torch.softmax(theta.transpose(1, 2) @ phi, dim=2)  # (B, N, M)
        h = (g @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return self.gamma * self.o(h) + x


class BigGANDiscriminator(Critic):
    """The network of a `BigGANCritic` configuration; parameters have the names of the release.

    Raises:
        ValueError: The data are not square images with a side of 28, 32, 64, 128 or 256 pixels, or have conditions.
    """

    def __init__(self, config: BigGANCritic, data: DataSpec):
        require_unconditional_images("BigGANCritic", data)
        super().__init__(data)
        channels, height, side = data.shape
        if height != side or side not in _WIDTHS:
            raise ValueError(
                f"BigGANCritic takes square images with a side of {', '.join(map(str, _WIDTHS))} pixels; got data of"
                f' shape {data.shape}. DCGANCritic(style="sngan") takes images of any size from 8 pixels'
            )
        self.config = config
        blocks: list[nn.Module] = []
        for index, multiplier in enumerate(_WIDTHS[side]):
            width, down = multiplier * config.channels, index < (len(_WIDTHS[side]) - 1 if side >= 64 else 2)
            block = nn.ModuleList([CriticBlock(config, channels, width, first=not index, down=down)])
            height //= 2 if down else 1
            if height == config.attention_size:
                block.append(CriticAttention(config, width))
            blocks.append(block)
            channels = width
        self.blocks = nn.ModuleList(blocks)
        self.linear = SpectralLinear(config, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B,); see `Critic.forward`."""
        self.check(x)
        h = x
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            for module in block:
                h = module(h)
        return self.linear(functional.relu(h).sum((2, 3)))[:, 0].to(x.dtype)
