"""Consistent annealed sampling and noise-first Langevin: variances, published chains, the admissible interval."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sampling.doubles import GivenNoise, sines
from scorefield._random import StepNoise
from scorefield.process import VE, VP, GeometricSigmas, Process, SubVP, Tabulated
from scorefield.process.grids import EveryLevel, LogSNR
from scorefield.sampling import (
    Chain,
    Consistent,
    EulerMaruyama,
    Hold,
    LadderScaled,
    Langevin,
    NormRatio,
    Repeat,
    Sampler,
)
from scorefield.score import FunctionScore
from scorefield.score.oracles import Gaussian
from scorefield.selftest.orders import affine_chain
from tolerance import CHAIN_VECTOR, EXACT_NOISE, FLOAT64, STATIONARY

F64 = torch.float64


def ladder(levels: int = 232) -> Tabulated:
    return Tabulated(GeometricSigmas(0.01, 50.0, levels))


def scalar_chain(sampler: Sampler, process: Process) -> tuple[float, float]:
    """(raw, clean) from x0 = 0.5 with sigma score = -0.3 x and the k-th draw sin(k)."""
    score = FunctionScore(lambda x, t: -0.3 * x / process.sigma(t)[:, None], process)
    start = torch.full((1, 1), 0.5, dtype=F64)
    run = sampler.run(score, (1,), indices=[0], latent=start, noise=sines(), dtype=F64)
    return float(run.raw), float(run.x)


def annealed(epsilon: float, repeats: int, noise: str) -> Sampler:
    stay = Repeat(Langevin(LadderScaled(epsilon, 0.01), noise=noise), repeats)  # type: ignore[arg-type]
    return Sampler(Chain((stay, Hold())), EveryLevel(), final="expected")


@pytest.mark.parametrize(
    ("repeats", "epsilon", "raw", "clean"),
    [(1, 1.8e-5, -0.0032584760036, -0.0032504558217), (5, 3.6e-6, 0.0026411673647, 0.0026335282837)],
)
def test_printed_chain_of_annealed_langevin_noise_first(repeats: int, epsilon: float, raw: float, clean: float) -> None:
    found = scalar_chain(annealed(epsilon, repeats, "first"), ladder())
    assert found == pytest.approx((raw, clean), rel=CHAIN_VECTOR)


@pytest.mark.parametrize(
    ("repeats", "epsilon", "raw", "clean"),
    [(1, 1.8e-5, -0.0032601069854, 0.0027073181105), (5, 3.6e-6, 0.0026414449927, 0.0019778629173)],
)
def test_printed_chain_of_annealed_langevin_noise_last(repeats: int, epsilon: float, raw: float, clean: float) -> None:
    """The published code returns the state with its last noise, and the denoised state from before that noise."""
    found = scalar_chain(annealed(epsilon, repeats, "last"), ladder())
    assert found == pytest.approx((raw, clean), rel=CHAIN_VECTOR)


@pytest.mark.parametrize(
    ("refine", "epsilon", "raw", "clean"),
    [(1, 5.6e-6, 8.7991902426e-4, 8.7742667487e-4), (5, 1.1e-6, 3.7409937848e-5, 3.7298938900e-5)],
)
def test_printed_chain_of_consistent_annealing(refine: int, epsilon: float, raw: float, clean: float) -> None:
    sampler = Sampler(Consistent(epsilon / 0.01**2), EveryLevel(refine=refine), final="expected")
    assert scalar_chain(sampler, ladder()) == pytest.approx((raw, clean), rel=CHAIN_VECTOR)
    assert sampler.times(ladder()).shape == (231 * refine + 2,)


PUBLISHED = ((1.0, 10), (50.0, 232), (90.0, 500), (140.0, 788), (190.0, 1086), (348.0, 2311))
"""sigma_max and number of levels down to 0.01: NCSN's, and NCSNv2's for images of 32, 64, 96, 128 and 256 pixels."""


def law_after(sampler: Sampler, data: Gaussian, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    chain = affine_chain(sampler.step, data, data.process, sampler.times(data.process))
    return chain.push(mean, covariance)


@pytest.mark.parametrize("process", [VE(0.01, 5.0), VP(), SubVP(), ladder(40)], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("eta", [0.4, 1.0, 1.5])
def test_a_point_mass_keeps_exactly_the_noise_of_its_level(process: Process, eta: float) -> None:
    """From an exact start the variance at the last noisy level is sigma_s^2; a chain with the wrong eta is rejected."""
    data = Gaussian(process, torch.tensor([0.7, -2.0], dtype=F64), 0.0)
    sampler = Sampler(Consistent(eta), EveryLevel(clean=False) if isinstance(process, Tabulated) else LogSNR(40))
    times = sampler.times(process)
    start = process.sigma(times[:1]) ** 2 * torch.eye(2, dtype=F64)
    mean = process.alpha(times[:1]) * data.mean
    if eta > 1.4 and bool((process.log_snr(times[1:]) - process.log_snr(times[:-1]) > 2 * math.log(2.0)).any()):
        pytest.skip("this grid is too coarse for eta = 1.5")
    mean, covariance = law_after(sampler, data, mean, start)
    sigma = process.sigma(times[-1:])
    assert torch.allclose(covariance, sigma**2 * torch.eye(2, dtype=F64), rtol=STATIONARY, atol=0)
    assert torch.allclose(mean, process.alpha(times[-1:]) * data.mean, rtol=0, atol=STATIONARY)
    if isinstance(process, Tabulated):  # a mutant that must be noticed: Langevin of the same drift lags behind
        langevin = Chain((Langevin(LadderScaled(eta * 0.01**2, 0.01)), Hold()))
        lagging = law_after(Sampler(langevin, EveryLevel(clean=False)), data, mean, start)[1]
        assert not torch.allclose(lagging, covariance, rtol=1e3 * STATIONARY, atol=0)


@pytest.mark.parametrize(("sigma_max", "levels"), PUBLISHED, ids=str)
def test_a_point_mass_keeps_its_noise_on_every_level_of_published_ladders(sigma_max: float, levels: int) -> None:
    """The variance after a step at every level, probed by three examples per level that differ in state and noise."""
    table = Tabulated(GeometricSigmas(0.01, sigma_max, levels))
    times = EveryLevel(clean=False).times(table)
    sigmas, score = table.sigma(times), Gaussian(table, torch.tensor([0.7], dtype=F64), 0.0).bind(None)
    ratio = float((sigmas[1:] / sigmas[:-1]).min())
    x = torch.tensor([0.7, 1.7, 0.7], dtype=F64).repeat(levels - 1)[:, None]
    z = torch.tensor([0.0, 0.0, 1.0], dtype=F64).repeat(levels - 1)[:, None]
    for eta in (1.0 - 0.9 * ratio, 1.0, 1.0 + 0.9 * ratio):
        t, s = times[:-1].repeat_interleave(3), times[1:].repeat_interleave(3)
        ends = Consistent(eta)(score, table, x, t, s, StepNoise(GivenNoise(lambda like, k: z), 0)).x
        variance, levels_below = float(sigmas[0]) ** 2, sigmas[1:].tolist()
        for (at, apart, loud), sigma in zip(ends.reshape(-1, 3).tolist(), levels_below, strict=True):
            variance = (apart - at) ** 2 * variance + (loud - at) ** 2
            assert math.sqrt(variance) == pytest.approx(sigma, rel=EXACT_NOISE)
            assert at == pytest.approx(0.7, rel=EXACT_NOISE)


def test_a_gaussian_loses_the_stated_variance_in_one_step() -> None:
    process, v, eta = VE(0.01, 5.0), 1.7, 0.3
    data = Gaussian(process, torch.tensor([0.7, -2.0], dtype=F64), v)
    times = process.time_at_sigma(torch.tensor([2.0, 1.6], dtype=F64))
    chain = affine_chain(Consistent(eta), data, process, times)
    _, covariance = chain.push(data.mean, (v + 4.0) * torch.eye(2, dtype=F64))
    assert float(covariance[0, 0]) == pytest.approx(v + 1.6**2 - eta**2 * 4.0 * v / (v + 4.0), rel=STATIONARY)


def test_noise_first_leaves_its_stated_variance() -> None:
    process, v, e = VE(0.01, 5.0), 1.3, 0.3
    data = Gaussian(process, torch.tensor([0.7, -2.0], dtype=F64), v - 0.25)
    times = process.time_at_sigma(torch.tensor([0.5, 0.4], dtype=F64))
    chain = affine_chain(Chain((Langevin(LadderScaled(e, 0.5), noise="first"), Hold())), data, process, times)
    mean, covariance = torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    for _ in range(200):
        mean, covariance = chain.push(mean, covariance)
    assert float(covariance[0, 0]) == pytest.approx(v * (1 - e / v) ** 2 / (1 - e / (2 * v)), rel=STATIONARY)


def test_published_bounds_of_the_step_size() -> None:
    """CIFAR-10 with 232 levels admits epsilon in (3.62e-6, 1.964e-4); other values are refused with the interval."""
    for inside, outside in ((3.63e-6, 3.60e-6), (1.963e-4, 1.966e-4)):
        scalar_chain(Sampler(Consistent(inside / 1e-4), EveryLevel(), final="expected"), ladder())
        with pytest.raises(ValueError, match=r"Choose eta in \[0\.0361995, 1\.9638\]"):
            scalar_chain(Sampler(Consistent(outside / 1e-4), EveryLevel(), final="expected"), ladder())


def test_refined_ladder_is_geometric() -> None:
    times = EveryLevel(clean=False, refine=5).times(ladder(24))
    sigmas = ladder(24).sigma(times)
    expected = torch.linspace(math.log(50.0), math.log(0.01), 23 * 5 + 1, dtype=F64).exp()
    torch.testing.assert_close(sigmas, expected, rtol=FLOAT64, atol=0)


def test_what_cannot_work_is_refused() -> None:
    score = Gaussian(VE(), torch.zeros(1), 1.0)
    with pytest.raises(ValueError, match="eta"):
        Consistent(2.0)
    with pytest.raises(ValueError, match="refine"):
        EveryLevel(refine=0)
    with pytest.raises(ValueError, match="constant; use between='linear'"):
        EveryLevel(refine=2).times(Tabulated(GeometricSigmas(), between="floor"))
    with pytest.raises(ValueError, match="EulerMaruyama does not compute it"):
        Sampler(EulerMaruyama(), final="expected").run(score, (1,), indices=[0])
    with pytest.raises(ValueError, match="before the noise"):
        Sampler(Chain((Langevin(NormRatio(), noise="first"), Hold()))).run(score, (1,), indices=[0])
