"""Singular values of linear operators, without their matrices where the structure gives them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Spectrum(ABC):
    """A = U diag(s) V' for A: R^D -> R^M, kept at length D: coordinates that A does not see have s = 0.

    `right` and `right_back` are V' and V, both orthonormal over all D coordinates. `left` is U' into the same D
    coordinates, zero where s is zero, and `left_back` is U, of what lies where s is not zero.

    Args:
        values: s, shape (D,), not negative.
    """

    def __init__(self, values: Tensor):
        self.values = values

    @property
    def seen(self) -> Tensor:
        """Which coordinates the operator sees, (D,): s above rounding of the largest."""
        return self.values > self.values.max() * 1e-6

    @abstractmethod
    def right(self, x: Tensor) -> Tensor:
        """V' x, (B, *event) -> (B, D)."""

    @abstractmethod
    def right_back(self, z: Tensor) -> Tensor:
        """V z, (B, D) -> (B, *event)."""

    @abstractmethod
    def left(self, y: Tensor) -> Tensor:
        """U' y, (B, *observed) -> (B, D), zero in coordinates that are not seen."""

    @abstractmethod
    def left_back(self, z: Tensor) -> Tensor:
        """U z, (B, D) -> (B, *observed); coordinates that are not seen play no role."""


class DenseSpectrum(Spectrum):
    """Of a matrix (M, D), by its singular value decomposition in float64."""

    def __init__(self, matrix: Tensor, event: tuple[int, ...], observed: tuple[int, ...]):
        rows, columns = matrix.shape
        U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=True)
        values = torch.zeros(columns, dtype=torch.float64, device=matrix.device)
        values[: len(s)] = s
        super().__init__(values)
        self._U, self._Vh, self._event, self._observed = U[:, : min(rows, columns)], Vh, event, observed

    def right(self, x: Tensor) -> Tensor:
        """V' x."""
        return x.flatten(1) @ self._Vh.to(x).T

    def right_back(self, z: Tensor) -> Tensor:
        """V z."""
        return (z @ self._Vh.to(z)).reshape(len(z), *self._event)

    def left(self, y: Tensor) -> Tensor:
        """U' y."""
        z = y.new_zeros(len(y), len(self.values))
        z[:, : self._U.shape[1]] = y.flatten(1) @ self._U.to(y)
        return z * self.seen.to(z)

    def left_back(self, z: Tensor) -> Tensor:
        """U z."""
        kept = (z * self.seen.to(z))[:, : self._U.shape[1]]
        return (kept @ self._U.to(z).T).reshape(len(z), *self._observed)


class ScaledSpectrum(Spectrum):
    """Of c A, c > 0, with the bases of A."""

    def __init__(self, spectrum: Spectrum, factor: float):
        super().__init__(spectrum.values * factor)
        self._of = spectrum

    def right(self, x: Tensor) -> Tensor:
        """V' x."""
        return self._of.right(x)

    def right_back(self, z: Tensor) -> Tensor:
        """V z."""
        return self._of.right_back(z)

    def left(self, y: Tensor) -> Tensor:
        """U' y."""
        return self._of.left(y)

    def left_back(self, z: Tensor) -> Tensor:
        """U z."""
        return self._of.left_back(z)
