"""Operators of frequencies: convolutions, and the frequencies of an example that were measured."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from scorefield.inverse.operators.operator import LinearOperator
from scorefield.inverse.operators.pixels import binary, check_finite, floating
from scorefield.inverse.operators.spectrum import FilterSpectrum, SelectedSpectrum, Spectrum
from scorefield.score.oracles.field import hartley

Boundary = Literal["periodic", "zero", "reflect"]
BOUNDARIES: tuple[Boundary, ...] = ("periodic", "zero", "reflect")


class Convolution(LinearOperator):
    """y = k * x over the spatial axes, channel by channel, of the size of x.

    y_n = sum_j k_j x_(n + c - j), with c = size // 2 the middle of the kernel: a point becomes the kernel about itself.

    Args:
        kernel: k, one size per spatial axis, or (C, ...) with a kernel for each channel.
        event: Shape of one example, (C, *spatial), one to three spatial axes.
        boundary: What lies outside: the example again (periodic: singular values by the fast Fourier transform), zeros,
            or the mirrored example without its edge repeated (reflect).

    Raises:
        ValueError: The kernel does not fit the example, or is not finite.
    """

    def __init__(self, kernel: Tensor, event: tuple[int, ...], boundary: Boundary = "periodic"):
        kernel = floating(torch.as_tensor(kernel))
        d = len(event) - 1
        if not 1 <= d <= 3 or kernel.ndim not in (d, d + 1) or (kernel.ndim == d + 1 and len(kernel) != event[0]):
            raise ValueError(
                f"a kernel of shape {tuple(kernel.shape)} does not convolve examples of shape {tuple(event)}: it needs"
                " one axis for each spatial axis (one to three), and may have one kernel per channel before them"
            )
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary={boundary!r} must be one of {', '.join(BOUNDARIES)}")
        sizes = kernel.shape[-d:]
        if boundary == "reflect" and any(k // 2 >= n for k, n in zip(sizes, event[1:], strict=True)):
            raise ValueError(
                f"a kernel of shape {tuple(sizes)} reaches beyond the mirror image of examples of shape {tuple(event)};"
                " cut it, or use boundary='periodic' or 'zero'"
            )
        check_finite(kernel, "the kernel")
        super().__init__(event, event)
        self.kernel, self.boundary = kernel.expand(event[0], *sizes), boundary
        self.monotone = bool((kernel >= 0).all())
        if boundary == "periodic":
            self._transfer = _transfer(self.kernel.double(), tuple(event[1:]))

    @classmethod
    def gaussian(
        cls, sigma: float | tuple[float, ...], event: tuple[int, ...], boundary: Boundary = "periodic"
    ) -> Self:
        """Blur by a normal distribution, cut at four deviations and at the example's size, with sum 1.

        Args:
            sigma: Deviation in pixels, one number or one per spatial axis.
            event: Shape of one example.
            boundary: Boundary condition, as for the class.

        Raises:
            ValueError: sigma is not positive.
        """
        sigmas = (sigma,) * (len(event) - 1) if isinstance(sigma, int | float) else tuple(sigma)
        if len(sigmas) != len(event) - 1 or not all(0 < s < math.inf for s in sigmas):
            raise ValueError(
                f"sigma={sigma} must be a positive number of pixels, one for each of {len(event) - 1} spatial axes"
            )
        kernel = torch.ones((), dtype=torch.float64)
        for s, n in zip(sigmas, event[1:], strict=True):
            reach = min(math.ceil(4 * s), n - 1)
            side = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / s) ** 2)
            kernel = kernel[..., None] * (side / side.sum())
        return cls(kernel, event, boundary)

    def apply(self, x: Tensor) -> Tensor:
        """k * x."""
        return self._filtered(x, conjugate=False) if self.boundary == "periodic" else self._slid(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Correlation with k."""
        return self._filtered(y, conjugate=True) if self.boundary == "periodic" else super().adjoint(y)

    def _filtered(self, x: Tensor, conjugate: bool) -> Tensor:
        if x.numel() == 0:  # an empty batch; the transform refuses it
            return x
        h = self._transfer.to(device=x.device, dtype=torch.complex128 if x.dtype == torch.float64 else torch.complex64)
        axes = tuple(range(2, x.ndim))
        f = torch.fft.rfftn(x, dim=axes)
        h = h[..., : f.shape[-1]]
        return torch.fft.irfftn(f * (h.conj() if conjugate else h), s=x.shape[2:], dim=axes)

    def _slid(self, x: Tensor) -> Tensor:
        sizes = self.kernel.shape[1:]
        # The library's convolution does not turn the kernel round; output n reads from n - (K - 1 - c) on.
        weight = self.kernel.to(x).flip(list(range(1, self.kernel.ndim)))[:, None]
        pad = [side for k in reversed(sizes) for side in (k - 1 - k // 2, k // 2)]
        x = functional.pad(x, pad, mode="reflect") if self.boundary == "reflect" else functional.pad(x, pad)
        slide = (functional.conv1d, functional.conv2d, functional.conv3d)[len(sizes) - 1]
        return slide(x, weight, groups=self.event[0])

    def _decompose(self) -> Spectrum:
        return FilterSpectrum(self._transfer) if self.boundary == "periodic" else super()._decompose()


def _transfer(kernel: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The kernel wrapped round the grid with its middle at 0, and transformed: (C, *sizes) complex128."""
    for axis, n in enumerate(sizes, start=1):
        k = kernel.shape[axis]
        places = (torch.arange(k, device=kernel.device) - k // 2) % n
        shape = (*kernel.shape[:axis], n, *kernel.shape[axis + 1 :])
        kernel = kernel.new_zeros(shape).index_add(axis, places, kernel)
    return torch.fft.fftn(kernel, dim=tuple(range(1, kernel.ndim)))


class FourierMask(LinearOperator):
    """The frequencies of an example that were measured, as real numbers: entries of its Hartley transform.

    With F the unitary discrete Fourier transform over the spatial axes, y = Re F x - Im F x at the measured
    frequencies k and at -k: an example is real, F x(-k) = conj F x(k), so whoever knows one knows the other, and the
    two real numbers say what the complex one does. White noise of deviation r on the entries of x, or of deviation
    r / sqrt(2) on each of real and imaginary part of F x, has deviation r here.

    Args:
        measured: True or 1 where a frequency was measured, in the order of `torch.fft.fftn`, (*spatial) for all
            channels alike or (*event); made symmetric.
        event: Shape of one example, (C, *spatial).

    Raises:
        ValueError: The mask has another size, values other than 0 and 1, or no frequency is measured.
    """

    def __init__(self, measured: Tensor, event: tuple[int, ...]):
        measured, event = torch.as_tensor(measured), tuple(event)
        if len(event) < 2 or tuple(measured.shape) not in (event, event[1:]):
            raise ValueError(
                f"a mask of shape {tuple(measured.shape)} is not over the frequencies of examples of shape {event};"
                f" give {event[1:]}, in the order of torch.fft.fftn"
            )
        self.measured = binary(measured).expand(event)
        self.kept = self.measured | _opposite(self.measured)
        if not bool(self.kept.any()):
            raise ValueError("no frequency is measured: the mask is 0 everywhere")
        super().__init__(event, (int(self.kept.sum()),))

    @classmethod
    def share(cls, share: float, event: tuple[int, ...], seed: int = 0) -> Self:
        """The lowest frequencies and a random choice of the others, alike for all channels.

        Frequencies are drawn with chances that fall as exp(-(|k| / k_0)^2 / 2), k_0 a quarter of the Nyquist frequency,
        until their symmetric closure has the share; the mean is always among them.

        Args:
            share: Share of the frequencies, 0 < share <= 1.
            event: Shape of one example, (C, *spatial).
            seed: Seed of the random choice.

        Raises:
            ValueError: The share is not in (0, 1].
        """
        if not 0.0 < share <= 1.0 or len(event) < 2:
            raise ValueError(f"share={share} of the frequencies of examples of shape {tuple(event)} must be in (0, 1]")
        squared = torch.zeros(event[1:], dtype=torch.float64)
        for axis, n in enumerate(event[1:]):
            k = torch.fft.fftfreq(n, dtype=torch.float64)
            squared = squared + (k**2).reshape(-1, *(1,) * (len(event) - axis - 2))
        # log weight + Gumbel noise, in falling order, is a draw without replacement. The mean comes first.
        u = torch.rand(event[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        keys = -(-torch.log1p(-u)).log() - squared / (2 * 0.125**2)
        keys = torch.where(squared == 0, torch.full_like(keys, math.inf), keys)
        order = keys.flatten().argsort(descending=True)
        measured = torch.zeros(math.prod(event[1:]), dtype=torch.bool)
        wanted = max(1, round(share * len(measured)))
        opposite = _opposite(torch.arange(len(measured)).reshape(1, *event[1:])).flatten()
        for k in order.tolist():
            if int(measured.sum()) >= wanted:
                break
            measured[k] = measured[opposite[k]] = True
        return cls(measured.reshape(event[1:]), event)

    def observe(self, spectrum: Tensor) -> Tensor:
        """y of a measured complex spectrum, (*event) or a batch: F x by the unitary transform, in its order.

        What lies where nothing was measured may be anything. Where k and -k were both measured they are averaged.

        Raises:
            ValueError: The spectrum has another shape, or is not complex.
        """
        spectrum = torch.as_tensor(spectrum)
        batch = spectrum.ndim == len(self.event) + 1
        if not spectrum.is_complex() or tuple(spectrum.shape[int(batch) :]) != self.event:
            raise ValueError(
                f"observe takes a complex spectrum of shape {self.event}, the unitary Fourier transform of an example;"
                f" got {tuple(spectrum.shape)}, {spectrum.dtype}"
            )
        f = spectrum if batch else spectrum[None]
        m = self.measured.to(f.device)
        f = torch.where(m, f, torch.zeros_like(f))
        times = m.to(f.real) + _opposite(m).to(f.real)
        f = (f + _opposite(f.flatten(0, 1)).reshape(f.shape).conj()) / times.clamp_min(1.0)
        y = (f.real - f.imag)[:, self.kept.to(f.device)]
        return y if batch else y[0]

    def apply(self, x: Tensor) -> Tensor:
        """Hartley transform at the measured frequencies."""
        return hartley(x)[:, self.kept.to(x.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        """The transform back, of zeros where nothing was measured."""
        z = y.new_zeros(len(y), *self.event)
        z[:, self.kept.to(y.device)] = y
        return hartley(z)

    def _decompose(self) -> Spectrum:
        return SelectedSpectrum(self.kept, transformed=True)


def _opposite(x: Tensor) -> Tensor:
    """The value at -k, over all axes but the first."""
    for axis in range(1, x.ndim):
        x = x.flip(axis).roll(1, axis)
    return x
