"""Stationary Gaussian random fields on periodic signals and images, exact at any size by a fast transform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.process.process import Process
from scorefield.score.oracles.gaussian import ModalGaussian


class GaussianField(ModalGaussian):
    """A stationary Gaussian field: the covariance of two pixels depends only on their (periodic) difference.

    Its covariance is Q kron (H diag(S) H). S is the power spectrum, Q the covariance of the channels, and H the
    orthonormal Hartley transform, H x = Re F x - Im F x with F the unitary discrete Fourier transform; H is real,
    symmetric and its own inverse (Bracewell 1983). The mean of S over the grid is the variance of a pixel. With a
    correlation length l the spectrum is a Matern spectrum, S ~ (1 + |l w|^2)^-(nu + d/2), for w in radians per pixel
    and d spatial axes.

    Args:
        process: The process that adds noise to x_0.
        shape: Event shape, (C, L) for signals or (C, H, W) for images.
        power_spectrum: S in the order of `torch.fft.fftn`, spatial shape, S(k) = S(-k) >= 0. Give either this or
            `correlation_length`.
        correlation_length: l in pixels: one number, or one per spatial axis for an anisotropic field.
        smoothness: nu of the Matern spectrum.
        variance: Variance of a pixel with the Matern spectrum, model units squared.
        mean: Mean in model units: one number, one per channel, or a tensor of the event shape.
        channel_covariance: Q, shape (C, C), which multiplies the spectrum; None for independent channels.

    Raises:
        ValueError: Shapes do not fit, the spectrum or Q is negative or not symmetric, or both or neither of spectrum
            and length are given.
    """

    def __init__(
        self,
        process: Process,
        shape: tuple[int, ...],
        *,
        power_spectrum: Tensor | None = None,
        correlation_length: float | tuple[float, ...] | None = None,
        smoothness: float = 1.5,
        variance: float = 1.0,
        mean: float | Tensor = 0.0,
        channel_covariance: Tensor | None = None,
    ):
        if len(shape) < 2:
            raise ValueError(
                f"shape {tuple(shape)} has no spatial axis; give (channels, *sizes), for example (1, 16, 16)"
            )
        if (power_spectrum is None) == (correlation_length is None):
            raise ValueError(
                "give either power_spectrum or correlation_length, for example correlation_length=3.0 pixels"
            )
        if power_spectrum is None:
            assert correlation_length is not None
            spectrum = matern_spectrum(tuple(shape[1:]), correlation_length, smoothness, variance)
        else:
            spectrum = torch.as_tensor(power_spectrum, dtype=torch.float64)
        _check_spectrum(spectrum, tuple(shape[1:]))
        levels, self._channels = torch.ones(shape[0], dtype=torch.float64), None
        if channel_covariance is not None:
            Q = torch.as_tensor(channel_covariance, dtype=torch.float64)
            if Q.shape != (shape[0], shape[0]) or not torch.allclose(Q, Q.T):
                raise ValueError(f"channel_covariance must be a symmetric ({shape[0]}, {shape[0]}) matrix")
            levels, self._channels = torch.linalg.eigh(Q)
            if float(levels.min()) < -1e-12 * float(levels.max()):
                raise ValueError(
                    f"channel_covariance has the eigenvalue {float(levels.min()):g}; no eigenvalue may be negative"
                )
        m = torch.as_tensor(mean, dtype=torch.float64)
        m = m.reshape(-1, *(1,) * (len(shape) - 1)) if m.ndim == 1 else m
        super().__init__(
            process,
            m.expand(tuple(shape)).clone(),
            torch.outer(levels.clamp_min(0.0), spectrum.clamp_min(0.0).reshape(-1)).reshape(-1),
        )

    def _to_modes(self, x: Tensor) -> Tensor:
        c = hartley(x).flatten(2)
        return (c if self._channels is None else self._channels.to(x).T @ c).flatten(1)

    def _from_modes(self, c: Tensor) -> Tensor:
        c = c.reshape(c.shape[0], self.shape[0], self.dimension // self.shape[0])
        c = c if self._channels is None else self._channels.to(c) @ c
        return hartley(c.reshape(c.shape[0], *self.shape))

    def filtered_posterior(self, transfer: Tensor, observed: Tensor, noise_std: float) -> GaussianField:
        """Distribution of x_0 given a filtered, noisy copy of it, y = h * x_0 + n (deblurring), again diagonal.

        With h(k) the filter's transfer function, mode by mode: variance l r^2 / (h^2 l + r^2), mean
        m + l h / (h^2 l + r^2) (y - h m).

        Args:
            transfer: h(k) in the order of `torch.fft.fftn`, spatial shape, real and even (a symmetric kernel).
            observed: y, event shape, in model units.
            noise_std: r > 0, the standard deviation of n in model units.

        Raises:
            ValueError: A shape does not fit, the transfer function is not even, or r is not positive.
        """
        h = torch.as_tensor(transfer, dtype=torch.float64)
        _check_even(h, self.shape[1:], "transfer")
        y = torch.as_tensor(observed, dtype=torch.float64)
        if tuple(y.shape) != self.shape or not noise_std > 0:
            raise ValueError(
                f"observed must have shape {self.shape} and noise_std must be positive; got shape {tuple(y.shape)} and"
                f" noise_std={noise_std}"
            )
        h = h.reshape(-1).repeat(self.shape[0])
        gain = self.variances / (h * h * self.variances + noise_std**2)
        residual = self._to_modes(y[None]) - h * self._to_modes(self.mean[None])
        posterior = self.under(self.process)
        posterior.mean = self.mean + self._from_modes(gain * h * residual)[0]
        posterior.variances = gain * noise_std**2
        return posterior


def hartley(x: Tensor) -> Tensor:
    """Orthonormal Hartley transform of (B, C, *spatial) over the spatial axes; it is its own inverse."""
    if x.numel() == 0:  # torch's transform refuses an empty batch
        return x
    f = torch.fft.fftn(x, dim=tuple(range(2, x.ndim)), norm="ortho")
    return f.real - f.imag


def matern_spectrum(
    sizes: tuple[int, ...], length: float | tuple[float, ...], smoothness: float, variance: float
) -> Tensor:
    """variance (1 + |l w|^2)^-(nu + d/2), scaled so that its mean is the variance; spatial shape, float64."""
    lengths = (length,) * len(sizes) if isinstance(length, int | float) else tuple(length)
    if len(lengths) != len(sizes) or min(lengths) < 0 or smoothness <= 0 or variance <= 0:
        raise ValueError(
            f"a Matern spectrum needs a correlation length >= 0 for each of {len(sizes)} spatial axes, smoothness > 0"
            f" and variance > 0; got {length}, {smoothness} and {variance}"
        )
    squared = torch.zeros(sizes, dtype=torch.float64)
    for axis, (n, ell) in enumerate(zip(sizes, lengths, strict=True)):
        w = 2.0 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64)
        squared = squared + ((ell * w) ** 2).reshape(-1, *(1,) * (len(sizes) - axis - 1))
    spectrum = (1.0 + squared) ** -(smoothness + 0.5 * len(sizes))
    return variance * spectrum / spectrum.mean()


def _check_even(values: Tensor, sizes: tuple[int, ...], name: str) -> None:
    """Refuse a function of the frequency that has another shape, or is not even."""
    if tuple(values.shape) != sizes:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; it must have the spatial shape {sizes}")
    axes = tuple(range(values.ndim))
    mirrored = values.flip(axes).roll((1,) * values.ndim, axes)
    if not torch.allclose(values, mirrored, rtol=1e-6, atol=1e-9 * float(values.abs().max())):
        raise ValueError(
            f"{name} must be even, value(k) = value(-k), for a real, stationary field; give abs(fftn(...))**2"
        )


def _check_spectrum(spectrum: Tensor, sizes: tuple[int, ...]) -> None:
    """Refuse a spectrum that has another shape, is not even, or is negative."""
    _check_even(spectrum, sizes, "power_spectrum")
    if float(spectrum.min()) < -1e-9 * float(spectrum.max()):
        raise ValueError(
            f"power_spectrum has the negative value {float(spectrum.min()):g}; a spectrum is a variance per frequency"
            " and must not be negative"
        )
