"""Singular values of linear operators, without their matrices where the structure gives them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scorefield.score.oracles.field import hartley


class Spectrum(ABC):
    """A = U diag(s) V' for A: R^D -> R^M, kept at length D: coordinates that A does not see have s = 0.

    `right` and `right_back` are V' and V, both orthonormal over all D coordinates. `left` is U' into the same D
    coordinates, zero where s is zero, and `left_back` is U, of what lies where s is not zero.

    Args:
        values: s, shape (D,), not negative, float64.
        by_channel: Whether coordinate d belongs to the channel of entry d of the event alone, so that V commutes with
            a scale per channel.
        picks: Whether U only picks coordinates that are seen, each entry of y being one of them.
    """

    def __init__(self, values: Tensor, by_channel: bool = False, picks: bool = False):
        self.values, self.by_channel, self.picks = values, by_channel, picks

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

    def left(self, y: Tensor) -> Tensor:
        """U' y, (B, *observed) -> (B, D), zero in coordinates that are not seen."""
        z = self._left(y)
        return z * self.seen.to(z)

    def left_back(self, z: Tensor) -> Tensor:
        """U z, (B, D) -> (B, *observed); coordinates that are not seen play no role."""
        return self._left_back(z * self.seen.to(z))

    @abstractmethod
    def _left(self, y: Tensor) -> Tensor:
        """U' y, anything in coordinates that are not seen."""

    @abstractmethod
    def _left_back(self, z: Tensor) -> Tensor:
        """U z for z that is zero where it is not seen."""


class DenseSpectrum(Spectrum):
    """Spectrum of a matrix (M, D), by its singular value decomposition in float64."""

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

    def _left(self, y: Tensor) -> Tensor:
        z = y.new_zeros(len(y), len(self.values))
        z[:, : self._U.shape[1]] = y.flatten(1) @ self._U.to(y)
        return z

    def _left_back(self, z: Tensor) -> Tensor:
        return (z[:, : self._U.shape[1]] @ self._U.to(z).T).reshape(len(z), *self._observed)


class ScaledSpectrum(Spectrum):
    """Spectrum of an operator with scaled singular values: U diag(s c) V'.

    Args:
        spectrum: U, s, V.
        factors: c, positive: one number, or one per coordinate.
    """

    def __init__(self, spectrum: Spectrum, factors: float | Tensor):
        super().__init__(spectrum.values * factors, spectrum.by_channel, spectrum.picks)
        self._of = spectrum

    def right(self, x: Tensor) -> Tensor:
        """V' x."""
        return self._of.right(x)

    def right_back(self, z: Tensor) -> Tensor:
        """V z."""
        return self._of.right_back(z)

    def _left(self, y: Tensor) -> Tensor:
        return self._of._left(y)

    def _left_back(self, z: Tensor) -> Tensor:
        return self._of._left_back(z)


class SelectedSpectrum(Spectrum):
    """Spectrum of a selection of entries of the example, V = I, or of its orthonormal Hartley transform, V = H.

    Args:
        kept: Observed coordinates, bool, (*event).
        transformed: Whether the coordinates are those of the Hartley transform over the spatial axes.
    """

    def __init__(self, kept: Tensor, transformed: bool = False):
        super().__init__(kept.flatten().double(), by_channel=True, picks=True)
        self._kept, self._transformed = kept, transformed

    def right(self, x: Tensor) -> Tensor:
        """V' x."""
        return (hartley(x) if self._transformed else x).flatten(1)

    def right_back(self, z: Tensor) -> Tensor:
        """V z."""
        x = z.reshape(len(z), *self._kept.shape)
        return hartley(x) if self._transformed else x

    def _left(self, y: Tensor) -> Tensor:
        z = y.new_zeros(len(y), len(self.values))
        z[:, self._kept.flatten().to(y.device)] = y
        return z

    def _left_back(self, z: Tensor) -> Tensor:
        return z[:, self._kept.flatten().to(z.device)]


class MixedSpectrum(Spectrum):
    """Spectrum of a matrix (K, C) on the channels of every pixel, from the singular values of that matrix.

    Args:
        matrix: The matrix.
        event: Shape of one example, (C, *spatial).
    """

    def __init__(self, matrix: Tensor, event: tuple[int, ...]):
        U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=True)
        C, pixels = event[0], math.prod(event[1:])
        values = torch.zeros(C, dtype=torch.float64, device=matrix.device)
        values[: len(s)] = s
        super().__init__(values.repeat_interleave(pixels))
        self._U, self._Vh, self._event = U[:, : len(s)], Vh, event

    def right(self, x: Tensor) -> Tensor:
        """V' x."""
        return mixed(self._Vh, x).flatten(1)

    def right_back(self, z: Tensor) -> Tensor:
        """V z."""
        return mixed(self._Vh.T, z.reshape(len(z), *self._event))

    def _left(self, y: Tensor) -> Tensor:
        z = y.new_zeros(len(y), *self._event)
        z[:, : self._U.shape[1]] = mixed(self._U.T, y)
        return z.flatten(1)

    def _left_back(self, z: Tensor) -> Tensor:
        return mixed(self._U, z.reshape(len(z), *self._event)[:, : self._U.shape[1]])


def mixed(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix (K, C) on the channels of every pixel, (B, C, ...) -> (B, K, ...)."""
    return torch.einsum("kc,bc...->bk...", matrix.to(x), x)


class GroupedSpectrum(Spectrum):
    """Spectrum of c times the sums over groups of n entries each: a Householder reflection within each group.

    V = I - 2 v v' / v'v with v = e_1 - 1 / sqrt(n) is symmetric, orthonormal, and takes the constant vector of norm
    one to e_1: the first coordinate of a group has s = c sqrt(n), the others 0.

    Args:
        groups: The entry numbers of each group, (G, n), a permutation of 0..D-1.
        factor: c.
        event: Shape of one example.
        observed: Shape of the G sums.
    """

    def __init__(self, groups: Tensor, factor: float, event: tuple[int, ...], observed: tuple[int, ...]):
        n = groups.shape[1]
        values = torch.zeros(groups.numel(), dtype=torch.float64, device=groups.device)
        values[groups[:, 0]] = factor * math.sqrt(n)
        # The coordinates of a group stay in the places of its entries, so with their channel where it has only one.
        pixels = math.prod(event[1:])
        super().__init__(values, bool((groups // pixels == groups[:, :1] // pixels).all()), picks=True)
        self._groups, self._event, self._observed = groups, event, observed

    def _reflected(self, rows: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        order = self._groups.to(rows.device)
        n = order.shape[1]
        if n == 1:
            return rows
        v = torch.full((n,), -1.0 / math.sqrt(n), dtype=torch.float64)
        v[0] += 1.0
        v = (v / v.norm()).to(rows)
        parts = rows[:, order]
        parts = parts - 2.0 * (parts @ v)[..., None] * v
        out = torch.empty_like(rows)
        out[:, order.flatten()] = parts.flatten(1)
        return out

    def right(self, x: Tensor) -> Tensor:
        """V' x."""
        return self._reflected(x.flatten(1))

    def right_back(self, z: Tensor) -> Tensor:
        """V z."""
        return self._reflected(z).reshape(len(z), *self._event)

    def _left(self, y: Tensor) -> Tensor:
        z = y.new_zeros(len(y), len(self.values))
        z[:, self._groups[:, 0].to(y.device)] = y.flatten(1)
        return z

    def _left_back(self, z: Tensor) -> Tensor:
        return z[:, self._groups[:, 0].to(z.device)].reshape(len(z), *self._observed)


class FilterSpectrum(Spectrum):
    """Spectrum of a periodic convolution with transfer function h = |h| exp(i phi), in real coordinates.

    With F the unitary discrete Fourier transform, V' x = Re F x - Im F x (the Hartley transform), s = |h| and
    U' y = Re(exp(-i phi) F y) - Im(exp(-i phi) F y).

    Args:
        transfer: h in the order of `torch.fft.fftn`, complex128, (C, *spatial), of a real kernel: h(-k) = conj h(k).
    """

    def __init__(self, transfer: Tensor):
        super().__init__(transfer.abs().flatten(), by_channel=True)
        self._shape = tuple(transfer.shape)
        # The phase of what rounding left of zero is arbitrary, and of no use: it is not seen.
        phase = torch.where(self.seen.reshape(self._shape), transfer, torch.ones_like(transfer))
        self._phase = phase / phase.abs()

    def right(self, x: Tensor) -> Tensor:
        """V' x."""
        return hartley(x).flatten(1)

    def right_back(self, z: Tensor) -> Tensor:
        """V z."""
        return hartley(z.reshape(len(z), *self._shape))

    def _turn(self, like: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        kind = torch.complex128 if like.dtype == torch.float64 else torch.complex64
        return self._phase.to(device=like.device, dtype=kind), tuple(range(2, 1 + len(self._shape)))

    def _left(self, y: Tensor) -> Tensor:
        phase, axes = self._turn(y)
        f = torch.fft.fftn(y, dim=axes, norm="ortho") * phase.conj()
        return (f.real - f.imag).flatten(1)

    def _left_back(self, z: Tensor) -> Tensor:
        phase, axes = self._turn(z)
        f = torch.fft.ifftn(z.reshape(len(z), *self._shape) * phase, dim=axes, norm="ortho")
        return f.real + f.imag
