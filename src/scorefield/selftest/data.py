"""Checks of data units: the maps between data and model units, and the change of densities under them."""

from __future__ import annotations

import math

import torch

from scorefield.data_spec import DataSpec
from scorefield.process import VP
from scorefield.score.oracles import Gaussian
from scorefield.selftest.check import Bench, CheckGroup, Measurement, largest, relative, times

GROUP = CheckGroup("data", "units: round trips, dequantisation, Jacobians, bits")

SPECS = {
    "grey levels": DataSpec((1, 3, 2), 0.0, 255.0, 256),
    "[0, 1]": DataSpec((1, 3, 2), 0.0, 1.0, 16, model_range=(0.0, 1.0)),
    "kelvin, bounded": DataSpec((2, 3), (200.0, 150.0), (310.0, 400.0), units="K"),
    "kelvin, standardised": DataSpec((2, 3), units="K", offset=(280.0, 300.0), scale=(12.0, 7.0)),
}


@GROUP.check(
    "round trips",
    claim="data units map to model units and back, and the ends of the range map to the stated values",
    by="to_data(to_model(x)) = x; low and high to model_range; offset to 0 and offset + scale to 1",
    allowed=1e-12,
    why="float64 rounding of numbers up to 400",
    single=1e-5,
)
def _round_trips(bench: Bench) -> Measurement:
    errors = {}
    for name, spec in SPECS.items():
        bounded = spec.low is not None and spec.high is not None
        low, high = (spec.low, spec.high) if bounded else (spec.offset, _offset_plus_scale(spec))
        ends = torch.stack([_event(spec, low), _event(spec, high)])
        model_ends = spec.model_range if bounded else (0.0, 1.0)
        x = bench.to(
            ends[:1] + (ends[1:] - ends[:1]) * torch.rand(4, *spec.shape, generator=torch.Generator().manual_seed(1))
        )
        expected = torch.stack([torch.full(spec.shape, value, dtype=torch.float64) for value in model_ends])
        errors[name] = max(
            relative(spec.to_data(spec.to_model(x)), x), relative(spec.to_model(bench.to(ends)), expected)
        )
    return largest(errors)


def _offset_plus_scale(spec: DataSpec) -> tuple[float, ...]:
    """Return offset + scale of each channel, which maps to 1 in model units."""
    assert isinstance(spec.offset, tuple) and isinstance(spec.scale, tuple)
    return tuple(o + s for o, s in zip(spec.offset, spec.scale, strict=True))


def _event(spec: DataSpec, per_channel: object) -> torch.Tensor:
    """Return a value, or one value for each channel, with the shape of an example."""
    value = torch.as_tensor(per_channel, dtype=torch.float64)
    return value.reshape(-1, *(1,) * (len(spec.shape) - 1)).expand(spec.shape)


@GROUP.check(
    "Jacobians",
    claim="nats in model units and in data units differ by the log-Jacobian of the map",
    by="log |det d model / d data| by automatic differentiation; for dequantised grey levels the slope is smaller by"
    " (levels - 1) / levels in each number",
    allowed=1e-11,
    why="a determinant of six numbers",
    unit="nats, relative",
)
def _jacobians(bench: Bench) -> Measurement:
    errors = {}
    for name, spec in SPECS.items():
        D = spec.dimension
        x = bench.to(_event(spec, spec.low if spec.low is not None else spec.offset))[None] + 0.3
        slopes = torch.autograd.functional.jacobian(spec.to_model, x)
        assert isinstance(slopes, torch.Tensor)
        exact = float(slopes.reshape(D, D).slogdet().logabsdet)
        found = spec.log_jacobian(dequantised=False)
        errors[name] = abs(found / exact - 1.0) if exact else abs(found)
        if spec.levels is not None:
            dequantised = exact + D * math.log((spec.levels - 1) / spec.levels)
            errors[f"{name}, dequantised"] = abs(spec.log_jacobian(dequantised=True) - dequantised)
    return largest(errors)


@GROUP.check(
    "densities in units",
    claim="a Gaussian in model units has the exact density in kelvin",
    by="log N(m; ...) + log-Jacobian against log N(x; offset + scale mean, scale^2 variance)",
    allowed=1e-11,
    why="sums of six terms of order one",
    single=1e-4,
)
def _densities(bench: Bench) -> Measurement:
    spec = SPECS["kelvin, standardised"]
    oracle = Gaussian(VP(), torch.full(spec.shape, 0.2, dtype=torch.float64), 0.49)
    scale = _event(spec, spec.scale)
    centre = _event(spec, spec.offset) + 0.2 * scale
    x = centre + scale * bench.normal(5, *spec.shape, seed=2).cpu().double()
    exact = torch.distributions.Normal(centre, 0.7 * scale).log_prob(x).flatten(1).sum(1)
    nats = oracle.log_prob(spec.to_model(bench.to(x))).cpu().double() + spec.log_jacobian(dequantised=False)
    return largest({"nats": relative(nats, exact)})


@GROUP.check(
    "bits",
    claim="bits per dimension are -log2 of the probability of grey levels; for 8 bits the offset is 7 with the model"
    " range (-1, 1) and 8 with (0, 1)",
    by="uniform grey levels have exactly log2(levels) bits; -nats / (D log 2) + offset of Song et al. (2021, D.2)",
    allowed=1e-11,
    why="float64 rounding of sums of logarithms",
    unit="bits",
)
def _bits(bench: Bench) -> Measurement:
    errors = {}
    for model_range, offset in (((-1.0, 1.0), 7.0), ((0.0, 1.0), 8.0)):
        spec = DataSpec((3, 2, 2), 0.0, 255.0, 256, model_range=model_range)
        nats = times(-3.0, 0.0, 11.0)
        bits = spec.bits_per_dim(nats + spec.log_jacobian(dequantised=True))
        errors[f"{model_range}"] = float((bits + nats / (12 * math.log(2.0)) - offset).abs().max())
    uniform = DataSpec((4,), 0.0, 1.0, 16)
    nats = times(-4.0 * math.log(2.0)) + uniform.log_jacobian(dequantised=True)
    errors["uniform"] = float((uniform.bits_per_dim(nats) - 4.0).abs())
    return largest(errors)


@GROUP.check(
    "dequantisation",
    claim="dequantised grey levels fill the model range, one bin for each level",
    by="k + u maps to the fraction (k + u) / levels of the range (Theis et al. 2016)",
    allowed=1e-12,
    why="float64 rounding",
    single=1e-5,
)
def _bins(bench: Bench) -> Measurement:
    errors = {}
    for name in ("grey levels", "[0, 1]"):
        spec = SPECS[name]
        assert spec.levels is not None and isinstance(spec.high, float)
        k = torch.randint(spec.levels, (4, *spec.shape), generator=torch.Generator().manual_seed(2)).double()
        u = torch.rand(k.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        a, b = spec.model_range
        found = spec.dequantise(bench.to(k * spec.high / (spec.levels - 1)), bench.to(u))
        errors[name] = relative(found, a + (b - a) * (k + u) / spec.levels)
    return largest(errors)
