"""FIR resampling against zero insertion, padding and a true convolution written out in NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from scorefield.nets.unets.resampling import ConvolveDown, ConvolveUp, Downsample, Filter, Upsample
from tolerance import FLOAT64, PRINTED_LAYER

TAPS = [(1, 3, 3, 1), (1, 2, 1), (1, 4, 6, 4, 1), (1.0, 2.0, 4.0, 3.0), (1, 1), (1, 2, 3, 3, 2, 1)]


def insert_zeros(x: np.ndarray) -> np.ndarray:
    """A zero after each sample of every spatial axis of (B, C, *spatial)."""
    y = np.zeros(x.shape[:2] + tuple(2 * n for n in x.shape[2:]))
    y[(slice(None), slice(None), *(slice(None, None, 2),) * (x.ndim - 2))] = x
    return y


def convolve(x: np.ndarray, taps: tuple[float, ...], gain: float = 1.0) -> np.ndarray:
    """True 'valid' convolution of every channel with the normalised outer product of the taps."""
    k = np.array(taps, float)
    n, dims = len(k), x.ndim - 2
    size = tuple(s - n + 1 for s in x.shape[2:])
    y = np.zeros(x.shape[:2] + size)
    for offsets in itertools.product(range(n), repeat=dims):
        weight = np.prod([k[n - 1 - o] for o in offsets]) / k.sum() ** dims
        y += weight * x[(slice(None), slice(None), *(slice(o, o + s) for o, s in zip(offsets, size, strict=True)))]
    return gain * y


def pad(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """Zeros around every spatial axis; a negative number crops."""
    y = np.pad(x, [(0, 0)] * 2 + [(max(before, 0), max(after, 0))] * (x.ndim - 2))
    crop = slice(max(-before, 0), -after if after < 0 else None)
    return y[(slice(None), slice(None), *(crop,) * (x.ndim - 2))]


def every_second(x: np.ndarray) -> np.ndarray:
    return x[(slice(None), slice(None), *(slice(None, None, 2),) * (x.ndim - 2))]


def correlate(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """Dense 'valid' correlation, weight (out, in, *kernel)."""
    dims = x.ndim - 2
    size = tuple((s - 3) // stride + 1 for s in x.shape[2:])
    y = np.zeros((x.shape[0], weight.shape[0], *size))
    for offsets in itertools.product(range(3), repeat=dims):
        window = tuple(slice(o, o + stride * (s - 1) + 1, stride) for o, s in zip(offsets, size, strict=True))
        y += np.einsum("oi,bi...->bo...", weight[(slice(None), slice(None), *offsets)], x[(..., *window)])
    return y


def random_input(spatial: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, *spatial))


SPATIAL = pytest.mark.parametrize("spatial", [(8,), (6, 8)])
ALL_TAPS = pytest.mark.parametrize("taps", TAPS)


@SPATIAL
@ALL_TAPS
def test_up(taps: tuple[float, ...], spatial: tuple[int, ...]) -> None:
    x, p = random_input(spatial), len(taps) - 2
    expected = convolve(pad(insert_zeros(x), (p + 1) // 2 + 1, p // 2), taps, 2.0 ** len(spatial))
    found = Upsample(len(spatial), taps).double()(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=FLOAT64)


@SPATIAL
@ALL_TAPS
def test_down(taps: tuple[float, ...], spatial: tuple[int, ...]) -> None:
    x, p = random_input(spatial), len(taps) - 2
    expected = every_second(convolve(pad(x, (p + 1) // 2, p // 2), taps))
    found = Downsample(len(spatial), taps).double()(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=FLOAT64)


@SPATIAL
@ALL_TAPS
def test_learned_down(taps: tuple[float, ...], spatial: tuple[int, ...]) -> None:
    x, n = random_input(spatial), len(taps)
    module = ConvolveDown(len(spatial), 3, 4, taps).double()
    weight = module.conv.weight.detach().numpy()
    expected = correlate(convolve(pad(x, (n + 1) // 2, n // 2), taps), weight, 2)
    assert expected.shape[2:] == tuple(s // 2 for s in spatial)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=0, atol=FLOAT64)


@SPATIAL
@ALL_TAPS
def test_learned_up(taps: tuple[float, ...], spatial: tuple[int, ...]) -> None:
    x, p = random_input(spatial), len(taps) - 4
    module = ConvolveUp(len(spatial), 3, 4, taps).double()
    torch.nn.init.constant_(module.conv.bias, 0.7)
    weight = module.conv.weight.detach().numpy()
    # Zero insertion has one trailing zero too many for the transposed convolution's 2 H + 1 samples.
    full = correlate(pad(insert_zeros(x), 2, 1), weight, 1)
    expected = convolve(pad(full, (p + 1) // 2 + 1, p // 2 + 1), taps, 2.0 ** len(spatial)) + 0.7
    assert expected.shape[2:] == tuple(2 * s for s in spatial)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=0, atol=FLOAT64)


@SPATIAL
def test_without_filter(spatial: tuple[int, ...]) -> None:
    x, dims = torch.from_numpy(random_input(spatial)), len(spatial)
    up = Upsample(dims, None)(x)
    repeated = x
    for axis in range(2, 2 + dims):
        repeated = repeated.repeat_interleave(2, dim=axis)
    torch.testing.assert_close(up, repeated, rtol=0, atol=0)
    torch.testing.assert_close(Downsample(dims, None)(up), x, rtol=0, atol=FLOAT64)
    down, rise = ConvolveDown(dims, 3, 4, None).double(), ConvolveUp(dims, 3, 4, None).double()
    expected = correlate(pad(x.numpy(), 0, 1), down.conv.weight.detach().numpy(), 2)
    np.testing.assert_allclose(down(x).detach().numpy(), expected, rtol=0, atol=FLOAT64)
    expected = correlate(pad(repeated.numpy(), 1, 1), rise.conv.weight.detach().numpy(), 1)
    np.testing.assert_allclose(rise(x).detach().numpy(), expected, rtol=0, atol=FLOAT64)


def test_printed_numbers() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    up = Upsample(2, (1, 3, 3, 1))(x)
    assert up.shape == (1, 1, 8, 8)
    expected = torch.tensor([[0, 0.1875, 0.5625, 0.9375], [0.75, 1.25, 1.75, 2.25]])
    torch.testing.assert_close(up[0, 0, :2, :4], expected, rtol=0, atol=PRINTED_LAYER)
    down = Downsample(2, (1, 3, 3, 1))(x)[0, 0]
    torch.testing.assert_close(down, torch.tensor([[2.734375, 3.9375], [7.546875, 8.75]]), rtol=0, atol=PRINTED_LAYER)
    module = ConvolveDown(2, 1, 1, (1, 3, 3, 1))
    torch.nn.init.zeros_(module.conv.bias)
    module.conv.weight.data.copy_(torch.arange(9.0).reshape(1, 1, 3, 3))
    expected = torch.tensor([[157.2031, 173.5156], [212.7031, 210.6406]])
    torch.testing.assert_close(module(x)[0, 0].detach(), expected, rtol=PRINTED_LAYER, atol=0)


def test_filters_stay_in_float32_under_autocast() -> None:
    x = torch.from_numpy(random_input((8, 8))).float().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        for module in (Upsample(2, (1, 3, 3, 1)), Downsample(2, (1, 3, 3, 1))):
            y = module(x)
            assert y.dtype == torch.float32
            torch.testing.assert_close(y, module(x.float()), rtol=0, atol=0)


@pytest.mark.parametrize("taps", [(1,), (1, -1)])
def test_refuses_taps_that_are_no_filter(taps: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 3, 1\)"):
        Filter(2, taps)
