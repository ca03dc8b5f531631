"""Sums of an image along parallel rays at several angles: tomography."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.inverse.operators.operator import LinearOperator


class Projections(LinearOperator):
    """Sums of an image along parallel rays, y of shape (C, angles, bins).

    A pixel at row r and column c, counted from the middle, meets the detector at s = c cos(angle) + r sin(angle) and is
    shared by linear interpolation between the two bins beside s, so that every projection has the sum of the image: at
    angle 0 those are the sums of columns, and at 90 degrees the sums of rows. Bins are one pixel wide and cover the
    diagonal.

    Args:
        angles: Angles in degrees, or their number, spread evenly over [0, 180).
        event: Shape of one example, (C, H, W).

    Raises:
        ValueError: The example is not an image, or there is no angle.
    """

    monotone = True

    def __init__(self, angles: int | Sequence[float], event: tuple[int, ...]):
        if len(event) != 3:
            raise ValueError(f"projections are of images, (C, H, W); got examples of shape {tuple(event)}")
        given = [180.0 * k / angles for k in range(angles)] if isinstance(angles, int) else list(map(float, angles))
        if not given or not all(map(math.isfinite, given)):
            raise ValueError(f"angles={angles} must be a positive number of angles, or angles in degrees")
        C, H, W = event
        # Up to the diagonal and a bin beyond, and even or odd as the width, so that columns meet bins at angle 0.
        bins = math.ceil(math.hypot(H, W)) + 1
        bins += (bins - W) % 2
        rows, columns = torch.meshgrid(
            torch.arange(H, dtype=torch.float64) - 0.5 * (H - 1),
            torch.arange(W, dtype=torch.float64) - 0.5 * (W - 1),
            indexing="ij",
        )
        places, weights = [], []
        for k, angle in enumerate(given):
            turn = math.radians(angle)
            s = (columns * math.cos(turn) + rows * math.sin(turn)).flatten() + 0.5 * (bins - 1)
            s = torch.where((s - s.round()).abs() < 1e-9, s.round(), s)  # cos(90 degrees) is 6e-17
            below = s.floor()
            places += [k * bins + below.long(), k * bins + below.long() + 1]
            weights += [1.0 - (s - below), s - below]
        pixels = torch.arange(H * W).repeat(2 * len(given))
        at = torch.stack([torch.cat(places), pixels])
        self.angles = tuple(given)
        size = (len(given) * bins, H * W)
        self._rays = torch.sparse_coo_tensor(at, torch.cat(weights), size, check_invariants=True).coalesce()
        self._back = self._rays.t().coalesce()
        super().__init__(event, (C, len(given), bins))

    def _through(self, matrix: Tensor, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        columns = x.reshape(-1, matrix.shape[1]).T
        return torch.sparse.mm(matrix.to(x), columns).T.reshape(len(x), *shape)

    def apply(self, x: Tensor) -> Tensor:
        """The sums."""
        return self._through(self._rays, x, self.observed)

    def adjoint(self, y: Tensor) -> Tensor:
        """Back projection."""
        return self._through(self._back, y, self.event)
