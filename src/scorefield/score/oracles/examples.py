"""Small oracles for tests: off-centre, anisotropic, correlated and with unequal weights.

They have no symmetry that would hide an error, such as a wrong sign or a missing factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield._random import philox
from scorefield.process.process import Process
from scorefield.score.oracles.field import GaussianField
from scorefield.score.oracles.gaussian import Gaussian
from scorefield.score.oracles.mixture import Mixture, Points

Shape = int | tuple[int, ...]


def skewed_gaussian(process: Process, shape: Shape = 2) -> Gaussian:
    """An off-centre Gaussian with a rotated covariance, standard deviations from 0.2 to 1.

    Args:
        process: The process that adds noise to x_0.
        shape: Event shape, or the number of entries of a vector.
    """
    size = _shape(shape)
    D = math.prod(size)
    return Gaussian(process, _offsets(D).reshape(size), _covariance(D, 0.2, 1.0, index=0))


def skewed_mixture(process: Process, shape: Shape = 2) -> Mixture:
    """Three rotated Gaussians with weights 0.5, 0.3 and 0.2, unequal widths, and the classes 0, 1 and 1.

    Args:
        process: The process that adds noise to x_0.
        shape: Event shape, or the number of entries of a vector.
    """
    size = _shape(shape)
    D = math.prod(size)
    ramp = _offsets(D)
    means = torch.stack([1.5 * ramp, -1.2 - 0.5 * ramp, 0.3 + ramp.flip(0) * (-1.0) ** torch.arange(D)])
    widths = ((0.15, 0.5), (0.3, 0.4), (0.1, 0.8))
    covariances = torch.stack([_covariance(D, *w, index=k + 1) for k, w in enumerate(widths)])
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return Mixture(process, weights, means.reshape(3, *size), covariances, labels=(0, 1, 1))


def skewed_points(process: Process, shape: Shape = 2, count: int = 7) -> Points:
    """A few off-centre points with weights proportional to 1, 2, ..., and the classes 0 and 1 in turn.

    Args:
        process: The process that adds noise to x_0.
        shape: Event shape, or the number of entries of a vector.
        count: Number of points.
    """
    size = _shape(shape)
    noise = torch.from_numpy(philox(seed=7, index=10).standard_normal((count, math.prod(size))))
    points = 0.3 + noise + 0.5 * noise**2  # a skewed distribution
    weights = torch.arange(1, count + 1, dtype=torch.float64)
    return Points(process, points.reshape(count, *size), weights, labels=[n % 2 for n in range(count)])


def skewed_field(process: Process, shape: tuple[int, ...] = (2, 6, 8)) -> GaussianField:
    """A random field with a different correlation length along each axis, correlated channels and a mean per channel.

    Args:
        process: The process that adds noise to x_0.
        shape: Event shape, (C, L) or (C, H, W).
    """
    lengths = tuple(1.0 + 0.7 * axis for axis in range(len(shape) - 1))
    C = shape[0]
    return GaussianField(
        process,
        shape,
        correlation_length=lengths,
        variance=0.5,
        mean=_offsets(C),
        channel_covariance=_covariance(C, 0.6, 1.3, 5),
    )


EXAMPLES = {Gaussian: skewed_gaussian, Mixture: skewed_mixture, Points: skewed_points, GaussianField: skewed_field}
"""Class of oracle -> a function that makes a small example of it for a process."""


def _shape(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _offsets(D: int) -> Tensor:
    """D numbers from -0.4 to 0.9 in equal steps; 0.7 if D = 1."""
    return torch.linspace(-0.4, 0.9, D, dtype=torch.float64) if D > 1 else torch.tensor([0.7], dtype=torch.float64)


def _covariance(D: int, low: float, high: float, index: int) -> Tensor:
    """A covariance with geometric standard deviations from low to high in the random orthonormal basis `index`."""
    U, _ = torch.linalg.qr(torch.from_numpy(philox(seed=7, index=index).standard_normal((D, D))))
    stds = torch.logspace(math.log10(low), math.log10(high), D, dtype=torch.float64)
    return (U * stds**2) @ U.T
