"""Elementary layers against numbers of the reference and against direct formulas."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from scorefield.nets.layers import (
    Attention,
    ChannelMix,
    Convolution,
    FourierFeatures,
    GroupNorm,
    TimeEmbedding,
    activation,
    dropout,
    sinusoid,
    variance_scaling_,
)
from tolerance import FLOAT32, FLOAT64, INITIAL_EXTREME, INITIAL_SCALE, LARGE_NORM, PRINTED_LAYER, SIGNIFICANCE


def test_sinusoid_gives_the_published_numbers() -> None:
    features = sinusoid(torch.tensor([99.9]), 128)[0]
    found = features[[0, 1, 2, 63, 64, 65, 127]]
    expected = [-0.58992290, -0.99669278, -0.73472673, 0.0099898335, 0.80745953, -0.08126168, 0.99995011]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=PRINTED_LAYER)


def test_sinusoid_of_odd_size_ends_with_zero() -> None:
    features = sinusoid(torch.tensor([1.0, 2.0]), 7)
    assert features.shape == (2, 7)
    assert bool((features[:, -1] == 0).all())
    torch.testing.assert_close(features[:, :6], sinusoid(torch.tensor([1.0, 2.0]), 6), rtol=0, atol=0)


def test_fourier_features_are_sines_then_cosines() -> None:
    layer = FourierFeatures(5, 16.0).double()
    u = torch.tensor([-4.6, 0.3], dtype=torch.float64)
    p = 2 * math.pi * u.numpy()[:, None] * layer.W.detach().numpy()
    expected = np.concatenate([np.sin(p), np.cos(p)], axis=1)
    np.testing.assert_allclose(layer(u).detach().numpy(), expected, rtol=0, atol=1e3 * FLOAT64)
    assert not layer.W.requires_grad


@pytest.mark.parametrize("kind", ["fourier", "positional"])
def test_time_embedding_takes_integer_labels(kind: str) -> None:
    embed = TimeEmbedding(kind, 8, 12, fourier_scale=1.0, act=activation("swish"))  # type: ignore[arg-type]
    labels = torch.tensor([0, 3, 999])
    torch.testing.assert_close(embed(labels), embed(labels.float()), rtol=0, atol=0)
    assert embed(labels).shape == (3, 12)


def test_initial_scale_multiplies_the_variance() -> None:
    torch.manual_seed(0)
    mix = ChannelMix(256, 256)
    assert math.isclose(float(mix.weight.detach().std()), math.sqrt(0.1 / 256), rel_tol=INITIAL_SCALE)
    conv = Convolution(2, 128, 256)
    assert math.isclose(float(conv.weight.detach().std()), 0.02406, rel_tol=INITIAL_SCALE)
    zero = Convolution(2, 128, 3, init_scale=0.0)
    assert math.isclose(float(zero.weight.detach().abs().max()), 7e-7, rel_tol=INITIAL_EXTREME)
    # The mutant that scales the deviation instead is told apart.
    wrong = variance_scaling_(torch.empty(256, 256), 0.1**2)
    assert not math.isclose(float(wrong.std()), math.sqrt(0.1 / 256), rel_tol=INITIAL_SCALE)


@pytest.mark.parametrize(
    ("channels", "limit", "groups"), [(48, 12, 12), (128, 32, 32), (6, 1, 1), (14, 3, 2), (3, 0, 1)]
)
def test_groups_divide_the_channels(channels: int, limit: int, groups: int) -> None:
    norm = GroupNorm(channels, limit)
    assert norm.num_groups == groups
    x = torch.linspace(-1, 3, 2 * channels * 10, dtype=torch.float64).reshape(2, channels, 10).sin()
    v = x.reshape(2, groups, -1)
    expected = (v - v.mean(2, keepdim=True)) / (v.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm.double()(x), expected.reshape(x.shape), rtol=0, atol=FLOAT64)


def test_large_channels_last_images_are_normalised_to_float32_precision() -> None:
    torch.manual_seed(0)
    norm = GroupNorm(8, 2)
    torch.nn.init.normal_(norm.weight)
    x = (0.5 * torch.randn(1, 8, 300, 300) + 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, expected = norm(x), copy.deepcopy(norm).double()(exact)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=LARGE_NORM)
    plain = torch.nn.functional.group_norm(x, 2, norm.weight, norm.bias, 1e-6)
    assert float((plain - expected).detach().abs().max()) > LARGE_NORM  # why the library's kernel is not used here
    g = torch.randn(y.shape)
    (ours,), (theirs,) = torch.autograd.grad(y, x, g), torch.autograd.grad(expected, exact, g.double())
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=LARGE_NORM)


@pytest.mark.parametrize("spatial", [(6,), (4, 6)])
@pytest.mark.parametrize("skip_rescale", [False, True])
def test_attention_is_softmax_of_scaled_products(spatial: tuple[int, ...], skip_rescale: bool) -> None:
    torch.manual_seed(1)
    layer = Attention(8, group_limit=2, init_scale=1.0, skip_rescale=skip_rescale).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, 8, *spatial, dtype=torch.float64)
    h = layer.norm(x).flatten(2)
    q, k, v = (m.weight @ h + m.bias[:, None] for m in (layer.query, layer.key, layer.value))
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8), dim=-1)
    h = layer.project.weight @ torch.einsum("bij,bcj->bci", weights, v) + layer.project.bias[:, None]
    expected = (x + h.reshape(x.shape)) / (math.sqrt(2) if skip_rescale else 1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=10 * FLOAT64)


def test_activations() -> None:
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    torch.testing.assert_close(activation("swish")(x), x / (1 + (-x).exp()), rtol=0, atol=FLOAT64)
    torch.testing.assert_close(activation("lrelu")(x), torch.where(x < 0, 0.2 * x, x), rtol=0, atol=FLOAT64)
    torch.testing.assert_close(activation("elu")(x), torch.where(x < 0, x.exp() - 1, x), rtol=0, atol=FLOAT64)
    torch.testing.assert_close(activation("relu")(x), x.clamp(min=0), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------- dropout


def dropped_count_is_plausible(y: torch.Tensor, p: float) -> bool:
    """Two-sided binomial test of the number of zeros."""
    zeros, n = int((y == 0).sum()), y.numel()
    tail = min(binom.cdf(zeros, n, p), binom.sf(zeros - 1, n, p))
    return bool(2 * tail > SIGNIFICANCE)


@pytest.mark.parametrize("shape", [(4, 31, 17, 13), (5, 1000)])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(shape: tuple[int, ...], p: float) -> None:
    torch.manual_seed(2)
    x = torch.ones(64, *shape)
    if len(shape) == 4:
        x = torch.ones(shape).repeat(16, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    y = dropout(x, p)
    assert y.stride() == x.stride()
    assert dropped_count_is_plausible(y, p)
    assert not dropped_count_is_plausible(dropout(x, 1.1 * p), p)
    kept = y[y != 0]
    effective = round(p * 65536) / 65536
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - effective)), rtol=FLOAT32, atol=0)


def test_dropout_masks_neighbours_independently() -> None:
    """Four entries share one draw: each of the 16 patterns of four must come at its own rate."""
    torch.manual_seed(3)
    kept = (dropout(torch.ones(400_000), 0.5) != 0).reshape(-1, 4)
    code = (kept.long() * torch.tensor([1, 2, 4, 8])).sum(1)
    counts = torch.bincount(code, minlength=16).numpy()
    tails = 2 * np.minimum(binom.cdf(counts, len(code), 1 / 16), binom.sf(counts - 1, len(code), 1 / 16))
    assert bool((tails > SIGNIFICANCE / 16).all())
    doubled = torch.bincount(torch.where(code == 3, 12, code), minlength=16).numpy()
    tails = 2 * np.minimum(binom.cdf(doubled, len(code), 1 / 16), binom.sf(doubled - 1, len(code), 1 / 16))
    assert not bool((tails > SIGNIFICANCE / 16).all())


def test_dropout_uses_the_global_generator_and_has_the_mask_as_gradient() -> None:
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.manual_seed(4)
    a = dropout(x, 0.3)
    torch.manual_seed(4)
    b = dropout(x, 0.3)
    assert torch.equal(a, b)
    (gradient,) = torch.autograd.grad(a.sum(), x)
    torch.testing.assert_close(gradient * x, a, rtol=FLOAT32, atol=0)


def test_dropout_of_a_strided_view() -> None:
    torch.manual_seed(5)
    x = torch.ones(20, 50, 8)[:, ::2]
    y = dropout(x, 0.5)
    assert y.shape == x.shape
    assert dropped_count_is_plausible(y, 0.5)
