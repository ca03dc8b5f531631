"""Normalisations of NCSN and NCSNv2: InstanceNorm++, conditional on the noise level or not, and its relatives.

All are called as norm(x, labels), labels (B,) being the indices of the noise levels where the normalisation is
conditional and not read where it is not. Names and shapes of parameters are those of the releases. Statistics are those
of each example alone, in training and in evaluation.

Reference: Song and Ermon 2019, appendix A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-5
"""Under the roots."""


def instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale (x - mean) / sqrt(var + 1e-5) + shift, mean and biased variance of each example and channel.

    Args:
        x: (B, C, H, W).
        scale: (B, C).
        shift: (B, C).

    Returns:
        The shape of x, float32 or float64.
    """
    x = _precise(x)
    instances = x.shape[0] * x.shape[1]
    # Examples become channels with a group each: one kernel that knows its first and second derivative.
    flat = x.reshape(1, instances, *x.shape[2:])
    y = torch.group_norm(flat, instances, scale.to(x.dtype).flatten(), shift.to(x.dtype).flatten(), EPS)
    return y.reshape(x.shape)


def channel_contrast(x: Tensor) -> Tensor:
    """(m - mean(m)) / sqrt(var(m) + 1e-5) over the channels, m (B, C) the spatial means of x; unbiased variance."""
    m = _precise(x).mean((2, 3))
    variance, mean = torch.var_mean(m, dim=1, keepdim=True)
    return (m - mean) * (variance + EPS).rsqrt()


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class InstanceNormPlus(nn.Module):
    """InstanceNorm++: gamma (IN(x) + alpha mu) + beta, mu the contrast of the channels' means.

    IN removes each channel's mean; mu puts back how it compares with the other channels, or nothing would tell a bright
    image from a dark one. The paper (Song and Ermon 2019, appendix A.1) writes gamma IN(x) + alpha mu + beta; this is
    the release's form, whose checkpoints hold alpha / gamma.

    Args:
        channels: C, at least 2.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> the same shape; labels are not read."""
        mu = channel_contrast(x)
        return instance_norm(x, self.gamma.expand_as(mu), self.gamma * self.alpha * mu + self.beta)


class ConditionalInstanceNormPlus(nn.Module):
    """InstanceNorm++ with gamma, alpha and beta of each noise level, one row of 3 C numbers in that order.

    Args:
        channels: C, at least 2.
        levels: L.
    """

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels)
        with torch.no_grad():
            self.embed.weight[:, : 2 * channels].normal_(1.0, 0.02)
            self.embed.weight[:, 2 * channels :].zero_()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W), (B,) in 0..L-1 -> the same shape."""
        gamma, alpha, beta = self.embed(labels).chunk(3, dim=1)
        return instance_norm(x, gamma, gamma * alpha * channel_contrast(x) + beta)


class ConditionalInstanceNorm(nn.Module):
    """gamma IN(x) + beta with gamma and beta of each noise level, one row of 2 C numbers (Dumoulin et al. 2017, eq. 5).

    gamma starts uniform in [0, 1), as in the release.

    Args:
        channels: C.
        levels: L.
    """

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.embed = nn.Embedding(levels, 2 * channels)
        with torch.no_grad():
            self.embed.weight[:, :channels].uniform_()
            self.embed.weight[:, channels:].zero_()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W), (B,) in 0..L-1 -> the same shape."""
        return instance_norm(x, *self.embed(labels).chunk(2, dim=1))


class VarianceNorm(nn.Module):
    """alpha x / sqrt(var + 1e-5), the unbiased variance of each example and channel; the mean stays.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) with two positions or more -> the same shape; labels are not read."""
        x = _precise(x)
        return x * (self.alpha[:, None, None] * (x.var((2, 3), keepdim=True) + EPS).rsqrt())


class NoNorm(nn.Module):
    """The identity, in the place of a normalisation."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """X itself."""
        return x
