"""Langevin dynamics at one noise level: stationary distributions and step sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sampling.doubles import Generated, GivenNoise, frozen
from scorefield._math import norm_event
from scorefield._random import StepNoise
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, Process, Tabulated
from scorefield.process.grids import EveryLevel
from scorefield.sampling import Chain, Hold, LadderScaled, Langevin, NoiseScaled, NormRatio, Repeat, Sampler
from scorefield.score import Score
from scorefield.score.oracles import Gaussian
from scorefield.selftest.orders import affine_chain
from tolerance import FLOAT64, SIGNIFICANCE, STATIONARY

F64 = torch.float64


def times_of(process: Process, *levels: float) -> Tensor:
    return process.time_at_sigma(torch.tensor(levels, dtype=F64))


def stationary_variance(step: Langevin, variance: float, size: float) -> float:
    """Iterate the exact mean and variance of the chain on N(m, variance) to its fixed point."""
    process = VE(0.01, 5.0)
    data = Gaussian(process, torch.tensor([0.7, -2.0]), variance - 0.25)
    chain = affine_chain(Chain((step, Hold())), data, process, times_of(process, 0.5, 0.4))
    mean, covariance = torch.zeros(2, dtype=F64), 3.0 * torch.eye(2, dtype=F64)
    for _ in range(math.ceil(20 * variance / size)):
        mean, covariance = chain.push(mean, covariance)
    assert torch.allclose(mean, data.mean, rtol=0, atol=STATIONARY)
    assert torch.allclose(covariance, covariance[0, 0] * torch.eye(2, dtype=F64), rtol=0, atol=STATIONARY)
    return float(covariance[0, 0])


@pytest.mark.parametrize("variance", [0.5, 1.3])
@pytest.mark.parametrize("size", [0.02, 0.3])
def test_stationary_variance_of_both_conventions(variance: float, size: float) -> None:
    rule = LadderScaled(epsilon=size, sigma_end=0.5)  # exactly `size` at sigma = 0.5
    full = stationary_variance(Langevin(rule), variance, size)
    half = stationary_variance(Langevin(rule, "half"), variance, 0.5 * size)
    assert full == pytest.approx(variance / (1 - size / (2 * variance)), rel=STATIONARY)
    assert half == pytest.approx(variance / (1 - size / (4 * variance)), rel=STATIONARY)
    assert full != pytest.approx(half, rel=10 * STATIONARY), "the test must tell the conventions apart"


def test_the_law_is_stated() -> None:
    step = Langevin()
    assert step.order is None and not step.moves
    assert "v / (1 - e / (2 v))" in str(step.invariant) and "e / (4 v)" in str(step.invariant)
    assert Repeat(step, 3).invariant and Hold().invariant and Chain((step, Hold())).invariant


def sizes(
    rule: NoiseScaled | NormRatio | LadderScaled, process: Process, x: Tensor, score: Tensor, z: Tensor
) -> Tensor:
    """The step sizes e that a step uses, recovered from x + e score."""
    t, s = times_of(process, 0.5, 0.4)[:, None].expand(2, len(x))
    bound = frozen(score, process).bind(None)
    moved = Langevin(rule)(bound, process, x, t, s, StepNoise(GivenNoise(lambda like, k: z), 0))
    e = ((moved.mean - x) / score)[:, 0]
    assert torch.allclose(moved.x - moved.mean, (2.0 * e).sqrt()[:, None] * z)
    return e


def test_the_default_size_depends_on_the_level_alone() -> None:
    assert Langevin().size == NoiseScaled(0.16)
    x, z = (
        Generated(1).normal(torch.empty(4, 3, dtype=F64), 0, 0),
        Generated(2).normal(torch.empty(4, 3, dtype=F64), 0, 0),
    )
    for process, decay in ((VE(0.01, 5.0), 1.0), (VP(), None)):
        t, s = times_of(process, 0.5, 0.4)
        if decay is None:
            decay = float(process.alpha(t) / process.alpha(s)) ** 2
        e = sizes(NoiseScaled(0.2), process, x, -x, z)
        assert torch.allclose(e, torch.full_like(e, 2 * decay * (0.2 * 0.5) ** 2), rtol=FLOAT64)


def test_norm_rules_step_by_step() -> None:
    process = VE(0.01, 5.0)
    noise = Generated(3)
    x, z, score = (noise.normal(torch.empty(4, 3, dtype=F64), 0, 0) for _ in range(3))
    example = 2 * (0.2 * norm_event(z) / norm_event(score)) ** 2
    batch = 2 * (0.2 * norm_event(z).mean() / norm_event(score).mean()) ** 2
    assert torch.allclose(sizes(NormRatio(0.2, "example"), process, x, score, z), example, rtol=1e3 * FLOAT64)
    assert torch.allclose(sizes(NormRatio(0.2, "batch"), process, x, score, z), batch.expand(4), rtol=1e3 * FLOAT64)


def test_the_published_prefactor_on_a_table() -> None:
    """The factor alpha is 1 - beta_k at level k, also at level 0, for both rules that have it, and 1 on sigmas."""
    betas = torch.linspace(0.1 / 50, 20.0 / 50, 50, dtype=F64)
    for table, expected in (
        (Tabulated(LinearBetas(levels=50)), 1 - betas),
        (Tabulated(GeometricSigmas(levels=50)), None),
    ):
        levels = torch.arange(50)
        t, s = table.time(levels), table.time(levels - 1)
        ones = torch.ones(50, 2, dtype=F64)
        prefactor = torch.ones(50, dtype=F64) if expected is None else expected
        e = NormRatio(0.2)(table, t, s, ones, ones)
        assert torch.allclose(e, 2 * prefactor * 0.04, rtol=FLOAT64)
        e = NoiseScaled(0.2)(table, t, s, ones, ones)
        assert torch.allclose(e, 2 * prefactor * 0.04 * table.sigma(t) ** 2, rtol=FLOAT64)


# --------------------------------------------------------------------------------------- the bias of norm rules


def second_moment_is(step: Langevin, expected: float, loudness: float = 1.0) -> bool:
    """Whether E|x'|^2 after one step from N(0, v I) agrees with its expected value at SIGNIFICANCE."""
    process, D, n = VE(0.01, 5.0), 10, 100_000
    oracle: Score = Gaussian(process, torch.zeros(D), 1.75)  # v = 2 at sigma = 0.5
    t, s = times_of(process, 0.5, 0.4)[:, None].expand(2, n)
    noise = Generated(5, loudness)
    x = math.sqrt(2.0) * Generated(4).normal(torch.empty(n, D, dtype=F64), 0, 0)
    moved = step(oracle.bind(None), process, x, t, s, StepNoise(noise, 0))
    change = (moved.x**2 - x**2).sum(1)
    z_score = (float(change.mean()) - (expected - 2.0 * D)) / (float(change.std()) / math.sqrt(n))
    return math.erfc(abs(z_score) / math.sqrt(2.0)) > SIGNIFICANCE


def test_norms_per_example_bias_the_law_in_low_dimension() -> None:
    """On N(0, v I_D) with score = -x / v and e = 2 r^2 |z|^2 / |score|^2, by independent chi-squares,

        E|x'|^2 = v D - 2 E[e |x|^2] / v + 2 E[e |z|^2] + E[e^2 |x|^2] / v^2
                = v D + 4 r^2 v D [-1 + (D + 2) / (D - 2)] + O(r^4):

    the bracket would be -1 + 1 were the size independent of x and z. The excess does not vanish with r.
    """
    D, v, r = 10, 2.0, 0.1
    inflow = 2 * 2 * r**2 * v * D * (D + 2) / (D - 2)
    outflow = 2 * 2 * r**2 * v * D
    second = 4 * r**4 * v * D * (D + 2) / (D - 2)
    biased = v * D - outflow + inflow + second
    assert second_moment_is(Langevin(NormRatio(r, "example")), biased)
    assert not second_moment_is(Langevin(NormRatio(r, "example")), v * D)
    assert not second_moment_is(Langevin(NormRatio(r, "example")), biased, loudness=1.05)
    # The state-independent rule at the same typical size has the stationary law that it states.
    e = 2 * r**2 * v
    steady = v * D * (1 - e / v) ** 2 + 2 * e * D
    rule = LadderScaled(epsilon=e, sigma_end=0.5)
    assert second_moment_is(Langevin(rule), steady)
    assert not second_moment_is(Langevin(rule), steady, loudness=1.05)


# --------------------------------------------------------------------------------------- where there is no noise


def test_a_corrector_below_level_zero_says_what_to_do() -> None:
    table = Tabulated(GeometricSigmas(0.01, 1.0, 5))
    oracle = Gaussian(table, torch.zeros(2), 1.0)
    after = Sampler(Chain((Hold(), Langevin())), EveryLevel())
    with pytest.raises(ValueError, match=r"below level 0.*EveryLevel\(clean=False\)"):
        after.run(oracle, (2,), indices=range(2))
    Sampler(after.step, EveryLevel(clean=False)).run(oracle, (2,), indices=range(2))
