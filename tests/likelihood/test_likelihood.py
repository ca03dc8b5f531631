"""Log densities in data units and bits per dimension."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from likelihood.cases import EXACT, TIGHT, GivenNoise, NoNoise, gaussian_flow, nats_with_this_prior, small_score
from scorefield._random import PRIOR_STEP, IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.likelihood.log_prob import DEQUANTISE_STEP, LogProb, flow_log_prob
from scorefield.likelihood.probability_flow import PROBE_STEP, FlowSettings, log_density
from scorefield.process import VE, VP, LinearBetas, Process, SubVP, Tabulated
from scorefield.score import FunctionScore, LevelLabel, NetworkScore, NoiseForm, oracles
from tolerance import BITS, FLOAT64, FLOW_DENSITY, FLOW_FLOAT32, LEADING_ORDER, PRIOR_MISMATCH

# ---------------------------------------------------------------------------------------------------- published check

CENTRED, UNCENTRED = (-1.0, 1.0), (0.0, 1.0)
PUBLISHED = {
    "VP": (VP(), CENTRED, 7.0, 44),
    "SubVP": (SubVP(), CENTRED, 7.0, 62),
    "VE": (VE(0.01, 50.0), UNCENTRED, 8.0, 110),
}
"""Process, model range, and the constant and number of evaluations of the published code."""


def half_normal_score(process: Process) -> FunctionScore:
    """The exact score of data N(0, 0.5^2 I)."""

    def function(x: Tensor, t: Tensor) -> Tensor:
        v = 0.25 * process.alpha(t) ** 2 + process.sigma(t) ** 2
        return -x / v.to(x).reshape(-1, *(1,) * (x.ndim - 1))

    return FunctionScore(function, process)


@pytest.mark.parametrize("name", PUBLISHED)
def test_bits_of_normal_images_with_the_published_constants(name: str) -> None:
    """bits/dim = -log2 density / D + 7 or 8, where the constant follows from the units of the DataSpec."""
    process, model_range, offset, published_calls = PUBLISHED[name]
    data = DataSpec((3, 8, 8), 0.0, 255.0, 256, model_range=model_range)
    score = half_normal_score(process)
    oracle = oracles.Gaussian(process, torch.zeros(3, 8, 8), 0.25)
    x = oracle.sample(4, dtype=torch.float32)
    flow = log_density(score.bind(None), x, IndexedNoise(0, range(4)), FlowSettings())
    bits = data.bits_per_dim(flow.nats + data.log_jacobian(dequantised=True))
    expected = -oracle.log_prob(x.double(), process.t_min.likelihood) / (192 * math.log(2.0)) + offset
    torch.testing.assert_close(bits, expected, rtol=0.0, atol=BITS)
    # Each example has its own solver; the release's has one for the batch. The work is the same.
    assert 0.5 * published_calls < float(flow.calls.double().mean()) < 1.5 * published_calls


# ---------------------------------------------------------------------------------------------------- units


def quantised_pixels(levels: int, *shape: int) -> Tensor:
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("dtype", [torch.uint8, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_bits_do_not_depend_on_the_units_of_grey_values(dtype: torch.dtype) -> None:
    """The same images in [0, 1], [-1, 1], 0..255 and kelvin have equal bits, and nats equal up to the log-Jacobian."""
    k = quantised_pixels(256, 3, 1, 2, 2)
    score = oracles.skewed_gaussian(VP(), (1, 2, 2))
    ranges = [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0), (200.0, 310.0)]
    if dtype == torch.uint8:
        ranges = ranges[:1]
    found = []
    for low, high in ranges:
        x = k.to(dtype) if dtype == torch.uint8 else (low + (high - low) * k / 255).to(dtype)
        data = DataSpec((1, 2, 2), low, high, 256)
        p = flow_log_prob(score, x, data, IndexedNoise(5, range(3)), settings=TIGHT, dtype=torch.float64)
        assert p.bits_per_dim is not None
        found.append((p.bits_per_dim, p.nats + 4 * math.log((high - low) / 255)))
    reference = flow_log_prob(
        score, k, DataSpec((1, 2, 2), 0.0, 255.0, 256), IndexedNoise(5, range(3)), settings=TIGHT, dtype=torch.float64
    )
    for bits, nats_per_step in found:
        torch.testing.assert_close(bits, reference.bits_per_dim, rtol=FLOAT64, atol=0.0)
        torch.testing.assert_close(nats_per_step, reference.nats, rtol=FLOAT64, atol=0.0)


def test_nats_of_continuous_data_carry_their_units() -> None:
    """Densities of data standardised per channel and of data in [0, 1] differ by the log of the scales."""
    score = oracles.skewed_gaussian(VP(), (2, 3))
    m = score.sample(2).clamp(-1.0, 1.0)
    base = DataSpec((2, 3))
    kelvin = DataSpec((2, 3), units="K", offset=(280.0, 300.0), scale=(12.0, 7.0))
    unit = DataSpec((2, 3), 0.0, 1.0)
    nats = {}
    for data in (base, kelvin, unit):
        p = flow_log_prob(score, data.to_data(m), data, NoNoise(), settings=TIGHT, dtype=torch.float64)
        assert p.bits_per_dim is None and "dequantised" not in p.of
        nats[data] = p.nats
    torch.testing.assert_close(nats[kelvin] + 3 * math.log(12.0 * 7.0), nats[base], rtol=0.0, atol=FLOW_DENSITY)
    torch.testing.assert_close(nats[unit] + 6 * math.log(0.5), nats[base], rtol=0.0, atol=FLOW_DENSITY)
    latent = gaussian_flow(score, m, 1e-5, 1.0)
    torch.testing.assert_close(nats[base], nats_with_this_prior(score, m, latent, 1e-5), rtol=0.0, atol=FLOW_DENSITY)


# ---------------------------------------------------------------------------------------------------- dequantisation


def test_bits_of_a_known_discrete_distribution() -> None:
    """For 16 grey levels of a normal density, dequantised bits bound -log2 P(k) from above with a known gap.

    With u averaged exactly (the log density of a normal is quadratic in u, so two Gauss points are), the bits are those
    of the mean log density in the bin.
    """
    levels, deviation = 16, 0.4
    oracle = oracles.Gaussian(VP(0.1, 40.0), torch.zeros(1), deviation**2)  # so much noise that p_1 is the prior
    data = DataSpec((1,), 0.0, float(levels - 1), levels)
    k = torch.arange(levels)[:, None]
    points = [0.5 - 0.5 / math.sqrt(3.0), 0.5 + 0.5 / math.sqrt(3.0)]
    found = [
        flow_log_prob(oracle, k, data, GivenNoise(level=u), settings=TIGHT, dtype=torch.float64).bits_per_dim
        for u in points
    ]
    bits = 0.5 * (found[0] + found[1])  # type: ignore[operator]
    width = 2.0 / levels
    edges = (-1.0 + width * torch.arange(levels + 1, dtype=torch.float64)) / deviation
    middle = (edges[:-1] + 0.5 * width / deviation) * deviation
    log_density_of_bin = -0.5 * (middle**2 + width**2 / 12) / deviation**2 - 0.5 * math.log(2 * math.pi * deviation**2)
    expected = -(log_density_of_bin + math.log(width)) / math.log(2.0)
    torch.testing.assert_close(bits, expected, rtol=0.0, atol=2 * BITS)
    probability = torch.special.ndtr(edges).diff()
    gap = bits + probability.log2()
    assert bool((gap > -2 * BITS).all()) and float(gap.max()) > 10 * BITS
    # To leading order the gap is (slope of log p)^2 width^2 / 24 nats.
    torch.testing.assert_close(
        gap, (middle / deviation**2 * width) ** 2 / 24 / math.log(2.0), rtol=LEADING_ORDER, atol=2 * BITS
    )


def test_noise_of_an_example_follows_its_index() -> None:
    """Dequantisation noise and probes of an example do not depend on its batch, and are different draws."""
    data = DataSpec((3, 2, 2), 0.0, 1.0, 4)
    score = oracles.skewed_gaussian(VP(), (3, 2, 2))
    x = quantised_pixels(4, 3, 3, 2, 2) / 3.0
    together = flow_log_prob(score, x, data, IndexedNoise(1, [4, 7, 2]), dtype=torch.float64)
    alone = flow_log_prob(score, x[1:2], data, IndexedNoise(1, [7]), dtype=torch.float64)
    torch.testing.assert_close(alone.nats, together.nats[1:2], rtol=0.0, atol=FLOW_FLOAT32)
    other = flow_log_prob(score, x[1:2], data, IndexedNoise(1, [8]), dtype=torch.float64)
    assert abs(float(other.nats - alone.nats)) > 100 * FLOW_FLOAT32
    noise = GivenNoise(torch.ones(1, 1, 1, 1))
    flow_log_prob(score, x, data, noise)
    assert noise.calls[:2] == [(DEQUANTISE_STEP, 0), (PROBE_STEP, 0)]
    assert set(noise.calls) == {(DEQUANTISE_STEP, 0), (PROBE_STEP, 0)}, "the budget uses the same probe"
    assert len({DEQUANTISE_STEP, PROBE_STEP, PRIOR_STEP}) == 3 and min(DEQUANTISE_STEP, PROBE_STEP) >= 2**61


def test_grey_levels_taken_as_they_are_have_nats_and_no_bits() -> None:
    data = DataSpec((2,), 0.0, 1.0, 3)
    score = oracles.skewed_gaussian(VP(), 2)
    x = torch.tensor([[0.0, 0.5], [0.2, 0.9]], dtype=torch.float64)  # the second lies between grey levels
    found = flow_log_prob(score, x, data, NoNoise(), dequantise="none", settings=TIGHT, dtype=torch.float64)
    assert found.bits_per_dim is None
    m = 2.0 * x - 1.0
    expected = nats_with_this_prior(score, m, gaussian_flow(score, m, 1e-5, 1.0), 1e-5) + 2 * math.log(2.0)
    torch.testing.assert_close(found.nats, expected, rtol=0.0, atol=FLOW_DENSITY)
    with pytest.raises(ValueError, match="between the 3 grey levels"):
        flow_log_prob(score, x, data, GivenNoise())


def test_continuous_data_have_no_bits_and_are_not_dequantised() -> None:
    score, continuous = oracles.skewed_gaussian(VP(), 2), DataSpec((2,))
    found = flow_log_prob(score, torch.zeros(1, 2), continuous, NoNoise(), settings=EXACT)
    assert found.bits_per_dim is None
    with pytest.raises(ValueError, match="levels=None"):
        flow_log_prob(score, torch.zeros(1, 2), continuous, GivenNoise(), dequantise="uniform")
    with pytest.raises(ValueError, match="grey levels"):
        continuous.bits_per_dim(found.nats)


# ---------------------------------------------------------------------------------------------------- the answer


def test_what_is_returned() -> None:
    data = DataSpec((2,), 0.0, 1.0, 256)
    found = flow_log_prob(small_score(VP()), torch.tensor([[0.0, 1.0], [0.2, 0.6]]), data, IndexedNoise(0, range(2)))
    assert isinstance(found, LogProb)
    assert found.nats.shape == found.nfe.shape == found.status.shape == (2,) and found.nats.dtype == torch.float64
    assert found.status.tolist() == [0, 0] and bool((found.nfe > 2).all())
    assert found.of == "x_t at t = 1e-05 (noise 0.001 in model units), uniformly dequantised"
    assert found.bits_per_dim is not None
    torch.testing.assert_close(found.bits_per_dim, data.bits_per_dim(found.nats), rtol=FLOAT64, atol=0.0)
    for name in ("std_error", "solver_error", "truncation", "prior_mismatch"):
        term = getattr(found, name)
        assert term.shape == (2,) and term.dtype == torch.float64 and bool(term.isfinite().all()), name
    assert found.interval is not None and found.interval.shape == (2, 2)
    assert bool((found.interval[:, 0] <= found.nats).all() and (found.nats <= found.interval[:, 1]).all())
    assert found.dequantisation is None, "one draw does not show the gap"


def test_start_is_named() -> None:
    score, data = oracles.skewed_gaussian(VE(), 2), DataSpec((2,))
    x = torch.zeros(1, 2, dtype=torch.float64)
    found = flow_log_prob(score, x, data, NoNoise(), settings=FlowSettings(start=0.25), dtype=torch.float64)
    assert found.of == "x_t at t = 0.25 (noise 0.0841 in model units)"


def test_a_flow_that_gives_up_has_neither_nats_nor_bits() -> None:
    data = DataSpec((2,), 0.0, 1.0, 256)
    settings = FlowSettings(max_steps=2, retries=0)
    found = flow_log_prob(oracles.skewed_gaussian(VP(), 2), torch.zeros(2, 2), data, GivenNoise(), settings=settings)
    assert found.status.tolist() == [1, 1] and found.bits_per_dim is not None
    assert bool(found.nats.isnan().all()) and bool(found.bits_per_dim.isnan().all())


def test_condition_selects_the_conditional_density() -> None:
    """Conditioned on class 0 of the mixture, the density is that of its single Gaussian."""
    score, data = oracles.skewed_mixture(VP(), 2), DataSpec((2,))
    x = torch.tensor([[-0.5, 1.3], [-0.5, 1.3]], dtype=torch.float64)
    condition = {"class": torch.tensor([0, 1])}
    found = flow_log_prob(score, x, data, NoNoise(), condition=condition, dtype=torch.float64)
    exact = score.log_prob(x, 1e-5, condition)
    assert float((exact[0] - exact[1]).abs()) > 1.0
    torch.testing.assert_close(found.nats, exact, rtol=0.0, atol=PRIOR_MISMATCH)


def test_bad_input_is_refused() -> None:
    score, data = oracles.skewed_gaussian(VP(), 2), DataSpec((2,), 0.0, 1.0, 256)
    with pytest.raises(ValueError, match=r"x has event shape \(3,\)"):
        flow_log_prob(score, torch.zeros(1, 3), data, NoNoise())
    with pytest.raises(ValueError, match=r"NaN.*\[1\]"):
        flow_log_prob(score, torch.tensor([[0.0, 0.0], [0.0, torch.nan]]), data, NoNoise())
    with pytest.raises(ValueError, match="data units"):
        flow_log_prob(score, torch.full((1, 2), 200.0), data, NoNoise())
    with pytest.raises(ValueError, match="Did you mean uniform"):
        flow_log_prob(score, torch.zeros(1, 2), data, NoNoise(), dequantise="uniforn")  # type: ignore[arg-type]
    table = Tabulated(LinearBetas(levels=50))
    ladder = NetworkScore(small_score(VP()).network, VP(), NoiseForm(), LevelLabel(), levels=table)
    with pytest.raises(ValueError, match="LevelLabel"):
        flow_log_prob(ladder, torch.zeros(1, 2), data, GivenNoise())
