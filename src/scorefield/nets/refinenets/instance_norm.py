"""Normalisations of NCSN and NCSNv2: InstanceNorm++, with and without conditioning on the noise level, and variants.

All are called as norm(x, labels). `labels`, shape (B,), are the indices of the noise levels; normalisations that are
not conditional ignore them. Names and shapes of parameters are those of the releases. Means and variances are those of
each example, in training and in evaluation.

Reference: Song and Ermon 2019, appendix A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-5
"""Number added to every variance."""


def instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale (x - mean) / sqrt(var + 1e-5) + shift, with the mean and the biased variance of each example and channel.

    Args:
        x: (B, C, H, W).
        scale: (B, C).
        shift: (B, C).

    Returns:
        The normalised x, float32 or float64.
    """
    x = _at_least_float32(x)
    instances = x.shape[0] * x.shape[1]
    # Every example and channel becomes a group of one group normalisation, whose kernel has both derivatives.
    flat = x.reshape(1, instances, *x.shape[2:])
    y = torch.group_norm(flat, instances, scale.to(x.dtype).flatten(), shift.to(x.dtype).flatten(), EPS)
    return y.reshape(x.shape)


def channel_contrast(x: Tensor) -> Tensor:
    """(m - mean(m)) / sqrt(var(m) + 1e-5), m (B, C) the spatial means of x; mean, unbiased var over channels."""
    m = _at_least_float32(x).mean((2, 3))
    variance, mean = torch.var_mean(m, dim=1, keepdim=True)
    return (m - mean) * (variance + EPS).rsqrt()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class InstanceNormPlus(nn.Module):
    """InstanceNorm++: gamma (IN(x) + alpha mu) + beta, with mu the normalised channel means (`channel_contrast`).

    IN removes the mean of each channel; mu restores how it compares with the means of the other channels, so that the
    network can tell a bright image from a dark one. The paper (Song and Ermon 2019, appendix A.1) has
    gamma IN(x) + alpha mu + beta. This is the form of the release, in whose checkpoints `alpha` is the paper's alpha
    divided by gamma.

    Args:
        channels: Number of channels, C, at least 2.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); labels are ignored."""
        mu = channel_contrast(x)
        return instance_norm(x, self.gamma.expand_as(mu), self.gamma * self.alpha * mu + self.beta)


class ConditionalInstanceNormPlus(nn.Module):
    """InstanceNorm++ with its own gamma, alpha and beta for each noise level: a row of 3 C numbers in that order.

    Args:
        channels: Number of channels, C, at least 2.
        levels: Number of noise levels, L.
    """

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels)
        with torch.no_grad():
            self.embed.weight[:, : 2 * channels].normal_(1.0, 0.02)
            self.embed.weight[:, 2 * channels :].zero_()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W), labels (B,) in 0..L-1 -> (B, C, H, W)."""
        gamma, alpha, beta = self.embed(labels).chunk(3, dim=1)
        return instance_norm(x, gamma, gamma * alpha * channel_contrast(x) + beta)


class ConditionalInstanceNorm(nn.Module):
    """gamma IN(x) + beta with gamma and beta for each noise level, a row of 2 C numbers (Dumoulin et al. 2017, eq. 5).

    The initial gamma is uniform in [0, 1), as in the release.

    Args:
        channels: Number of channels, C.
        levels: Number of noise levels, L.
    """

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.embed = nn.Embedding(levels, 2 * channels)
        with torch.no_grad():
            self.embed.weight[:, :channels].uniform_()
            self.embed.weight[:, channels:].zero_()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W), labels (B,) in 0..L-1 -> (B, C, H, W)."""
        return instance_norm(x, *self.embed(labels).chunk(2, dim=1))


class VarianceNorm(nn.Module):
    """alpha x / sqrt(var + 1e-5), with the unbiased variance of each example and channel; the mean is not subtracted.

    Args:
        channels: Number of channels, C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1.0, 0.02))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W), with two positions or more -> (B, C, H, W); labels are ignored."""
        x = _at_least_float32(x)
        return x * (self.alpha[:, None, None] * (x.var((2, 3), keepdim=True) + EPS).rsqrt())


class NoNorm(nn.Module):
    """The identity, in place of a normalisation."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return x unchanged."""
        return x
