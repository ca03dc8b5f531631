"""The data contract: maps between units and back, their Jacobians, bits, and every refusal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scorefield._codec import dumps, loads
from scorefield.data_spec import ConditionSpec, DataSpec
from tolerance import FINITE_DIFFERENCE, FLOAT64, GREY_ROUND_TRIP

EIGHT_BIT = DataSpec((3, 4, 5), low=0, high=255, levels=256)
PER_CHANNEL = DataSpec((2, 3), low=(-1.0, 0.0), high=(1.0, 40.0), levels=9, model_range=(0.0, 2.0))
STANDARDISED = DataSpec((2, 3), offset=(3.0, -1.0), scale=(0.5, 20.0))
SPECS = [EIGHT_BIT, PER_CHANNEL, STANDARDISED, DataSpec((4,)), DataSpec((1, 2, 2), low=-3.0, high=5.0)]


def draw(spec: DataSpec, batch: int = 3, seed: int = 0) -> Tensor:
    """Data of a spec, float64: on its grey levels, in its range, or anywhere."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *spec.shape)
    if spec.low is None or spec.high is None:
        return 10 * torch.randn(shape, generator=generator, dtype=torch.float64)
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
    if spec.levels:
        unit = (unit * spec.levels).floor() / (spec.levels - 1)
    low, high = per_channel(spec, spec.low), per_channel(spec, spec.high)
    return low + (high - low) * unit


def per_channel(spec: DataSpec, value: float | tuple[float, ...] | Tensor | None) -> Tensor:
    """Shape (C, 1, ...) of one number or one per channel."""
    return torch.as_tensor(value, dtype=torch.float64).expand(spec.shape[0]).reshape(-1, *(1,) * (len(spec.shape) - 1))


# ------------------------------------------------------------------------------------------------ maps


@pytest.mark.parametrize("spec", SPECS)
def test_maps_are_inverse(spec: DataSpec):
    x = draw(spec)
    np.testing.assert_allclose(spec.to_data(spec.to_model(x)), x, rtol=FLOAT64, atol=FLOAT64)


def test_integers_become_float32_and_come_back_to_their_grey_level():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    spec = DataSpec((1, 16, 16), low=0, high=255, levels=256)
    m = spec.to_model(x)
    assert m.dtype == torch.float32
    assert (float(m.min()), float(m.max())) == (-1.0, 1.0)
    np.testing.assert_allclose(spec.to_data(m), x, atol=GREY_ROUND_TRIP)


def test_the_ends_go_to_the_ends_of_the_model_range():
    x = torch.tensor([[[-1.0], [0.0]], [[1.0], [40.0]]], dtype=torch.float64).expand(2, 2, 3)
    m = PER_CHANNEL.to_model(x)
    np.testing.assert_allclose(m, torch.tensor([0.0, 2.0])[:, None, None].expand(2, 2, 3), atol=FLOAT64)


def test_standardised_data_are_offset_and_scaled():
    x = draw(STANDARDISED)
    expected = torch.stack([(x[:, 0] - 3.0) / 0.5, (x[:, 1] + 1.0) / 20.0], dim=1)
    np.testing.assert_allclose(STANDARDISED.to_model(x), expected, rtol=FLOAT64, atol=FLOAT64)


def test_values_out_of_range_are_mapped_not_clipped():
    assert float(EIGHT_BIT.to_data(torch.full((1, 3, 4, 5), 1.2)).max()) > 255


@pytest.mark.parametrize("spec", [EIGHT_BIT, PER_CHANNEL])
def test_dequantised_values_stay_in_their_bin(spec: DataSpec):
    x = draw(spec)
    a, b = spec.model_range
    step = spec.quantisation_step
    assert spec.levels and step is not None
    k = ((x - per_channel(spec, spec.low)) / per_channel(spec, step)).round()
    for u in (0.0, 0.25, 1 - 2**-24):
        unit = (spec.dequantise(x, torch.full_like(x, u)) - a) / (b - a)
        assert 0 <= float(unit.min()) and float(unit.max()) < 1
        np.testing.assert_allclose(unit, (k + u) / spec.levels, rtol=FLOAT64, atol=FLOAT64)


def test_eight_bit_images_are_dequantised_as_published():
    # Uniform dequantisation of Song et al. 2021: x in [0, 1] becomes (u + 255 x) / 256, then 2 x - 1 if centred.
    x = torch.randint(0, 256, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    u = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    unit = (u + 255 * (x.double() / 255)) / 256
    np.testing.assert_allclose(EIGHT_BIT.dequantise(x, u.double()), 2 * unit - 1, rtol=FLOAT64, atol=FLOAT64)


# ------------------------------------------------------------------------------------------------ Jacobians and bits


def log_slope(values: Tensor, start: Tensor, width: Tensor) -> float:
    """log |det| of a diagonal map from its differences over `width` in every coordinate."""
    return float(((values - start).abs() / width).log().sum())


@pytest.mark.parametrize("spec", SPECS)
def test_log_jacobian_by_finite_differences(spec: DataSpec):
    x = draw(spec, batch=1)
    h = torch.full_like(x, 1e-5)
    measured = log_slope(spec.to_model(x + h), spec.to_model(x - h), 2 * h)
    assert measured == pytest.approx(spec.log_jacobian(dequantised=False), rel=FINITE_DIFFERENCE, abs=FINITE_DIFFERENCE)


@pytest.mark.parametrize("spec", [EIGHT_BIT, PER_CHANNEL])
def test_log_jacobian_of_dequantised_data_is_that_of_one_grey_level(spec: DataSpec):
    step = spec.quantisation_step
    assert step is not None
    width = per_channel(spec, step).expand(1, *spec.shape)
    x = per_channel(spec, spec.low) + 2 * width
    u = torch.full_like(x, 0.3)
    measured = log_slope(spec.dequantise(x + width, u), spec.dequantise(x, u), width)
    assert measured == pytest.approx(spec.log_jacobian(dequantised=True), rel=FLOAT64, abs=FLOAT64)


@pytest.mark.parametrize(("model_range", "offset"), [((-1.0, 1.0), 7.0), ((0.0, 1.0), 8.0)])
@pytest.mark.parametrize("high", [1.0, 255.0])
def test_bits_of_eight_bit_data_have_the_published_offset(model_range: tuple[float, float], offset: float, high: float):
    # Song et al. 2021 report -log p(model units) / (D log 2) plus 7 for data in [-1, 1] and 8 for data in [0, 1].
    spec = DataSpec((3, 32, 32), low=0.0, high=high, levels=256, model_range=model_range)
    nats = torch.tensor([0.0, -1234.5, 6543.2], dtype=torch.float64)
    bits = spec.bits_per_dim(nats + spec.log_jacobian(dequantised=True))
    np.testing.assert_allclose(bits, -nats / (3072 * math.log(2)) + offset, rtol=FLOAT64)


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=9), st.floats(-5, 5), st.floats(0.1, 300.0))
def test_bits_are_those_of_the_grey_levels(weights: list[float], low: float, width: float):
    """A density that is constant in each bin gives level k exactly -log2 p_k bits, in any units."""
    p = np.array(weights) / np.sum(weights)
    spec = DataSpec((1,), low=low, high=low + width, levels=len(p), model_range=(-2.0, 3.0))
    assert spec.quantisation_step is not None
    x = low + torch.arange(len(p), dtype=torch.float64)[:, None] * spec.quantisation_step
    m = spec.dequantise(x, torch.full_like(x, 0.5))
    density = torch.as_tensor(p * len(p) / 5.0)  # in model units, where a bin has width 5 / levels
    k = torch.bucketize(m[:, 0], torch.linspace(-2.0, 3.0, len(p) + 1, dtype=torch.float64)) - 1
    nats = density[k].log() + spec.log_jacobian(dequantised=True)
    np.testing.assert_allclose(spec.bits_per_dim(nats), -np.log2(p), rtol=FLOAT64, atol=FLOAT64)


def test_continuous_data_have_no_bits():
    spec = DataSpec((2,), low=0.0, high=1.0)
    assert spec.quantisation_step is None
    with pytest.raises(ValueError, match="bits/dim needs grey levels.*LogProb.nats"):
        spec.bits_per_dim(torch.zeros(1))
    with pytest.raises(ValueError, match="only data with grey levels"):
        spec.dequantise(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="never dequantised"):
        spec.log_jacobian(dequantised=True)


def test_values_between_grey_levels_are_not_rounded_in_silence():
    x = torch.full((1, 3, 4, 5), 7.0)
    x[0, 1, 2, 3] = 7.4
    with pytest.raises(ValueError, match="between the 256 grey levels"):
        EIGHT_BIT.dequantise(x, torch.zeros_like(x))


# ------------------------------------------------------------------------------------------------ checks


def spoiled(spec: DataSpec, value: float, *where: int) -> Tensor:
    x = draw(spec, batch=4)
    x[where] = value
    return x


@pytest.mark.parametrize("spec", SPECS)
def test_data_of_the_spec_pass(spec: DataSpec):
    spec.check(draw(spec))
    spec.check(draw(spec)[:0])
    spec.check(draw(spec).float())


@pytest.mark.parametrize(
    ("spec", "x", "message"),
    [
        (EIGHT_BIT, torch.zeros(2, 1, 4, 5), r"^data has event shape \(1, 4, 5\), and the model takes \(3, 4, 5\)"),
        (STANDARDISED, spoiled(STANDARDISED, math.nan, 2, 0, 1), r"NaN or infinite values, first in examples \[2\]"),
        (STANDARDISED, spoiled(STANDARDISED, math.inf, 1), r"first in examples \[1\]"),
        (EIGHT_BIT, spoiled(EIGHT_BIT, 256.0, 1, 2), r"to 256 in channel 2, outside \[0, 255\]"),
        (PER_CHANNEL, spoiled(PER_CHANNEL, 30.0, 1, 0), r"to 30 in channel 0, outside \[-1, 1\]"),
        (
            DataSpec((2,), low=0, high=1, units="K"),
            torch.tensor([[0.0, -3.0]]),
            r"from -3 .* \(K\); give values in data",
        ),
        (
            DataSpec((2,), low=0, high=1, channel_names=("u", "v")),
            torch.tensor([[0, 2]], dtype=torch.uint8),
            "in channel v, outside",
        ),
    ],
)
def test_other_data_are_refused(spec: DataSpec, x: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        spec.check(x)


def test_range_and_nan_can_be_left_unchecked():
    EIGHT_BIT.check(torch.full((1, 3, 4, 5), math.nan), values=False)
    with pytest.raises(ValueError, match="^measurement has event shape"):
        EIGHT_BIT.check(torch.zeros(1, 3, 4), name="measurement", values=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": ()}, "must be one or more positive sizes"),
        ({"shape": (3, 0)}, "must be one or more positive sizes"),
        ({"low": 0.0}, "both low and high or neither; got low=0.0, high=None"),
        ({"high": 0.0}, "both low and high or neither"),
        ({"low": 1.0, "high": 1.0}, "low must be below high"),
        ({"low": (0.0, 2.0), "high": (1.0, 1.0)}, "low must be below high"),
        ({"low": math.nan, "high": 1.0}, "both finite"),
        ({"low": 0.0, "high": math.inf}, "both finite"),
        ({"low": (0.0, 0.0, 0.0), "high": 1.0}, "low has 3 values for 2 channels"),
        ({"channel_names": ("u",)}, "channel_names has 1 values for 2 channels"),
        ({"levels": 4}, "levels=4 needs low and high"),
        ({"low": 0.0, "high": 1.0, "levels": 1}, "at least two levels"),
        ({"low": 0.0, "high": 1.0, "model_range": (1.0, -1.0)}, "model_range must increase"),
        ({"low": 0.0, "high": 1.0, "scale": 2.0}, "offset and scale are for unbounded data"),
        ({"model_range": (0.0, 1.0)}, "these data are unbounded; give offset and scale"),
        ({"scale": (1.0, 0.0)}, "scale must be positive"),
        ({"offset": math.nan}, "offset finite"),
        (
            {"conditions": (ConditionSpec("a", "class", 2), ConditionSpec("a", "vector", 2))},
            "two conditions share a name",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DataSpec(**{"shape": (2, 3), **fields})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "class", 0), "size 0; it must be at least 1"),
        (("a", "class", 2, ("x",)), "class of size 2, and 1 class names are given"),
        (("a", "vector", 1, ("x",)), "vector of size 1, and 1 class names are given"),
    ],
)
def test_impossible_conditions_are_refused(arguments: tuple[Any, ...], message: str):
    with pytest.raises(ValueError, match=message):
        ConditionSpec(*arguments)


def test_lists_become_tuples():
    spec = DataSpec([2, 3], low=[0.0, 1.0], high=[2.0, 3.0])  # pyright: ignore[reportArgumentType]
    assert spec == DataSpec((2, 3), low=(0.0, 1.0), high=(2.0, 3.0))
    assert hash(spec)


@pytest.mark.parametrize("spec", [*SPECS, DataSpec((2,), conditions=(ConditionSpec("digit", "class", 2, ("0", "1")),))])
def test_specs_are_saved_and_read(spec: DataSpec):
    assert loads(dumps(spec), DataSpec) == spec
    assert spec.dimension == math.prod(spec.shape)
