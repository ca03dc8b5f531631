"""Annealed-temperature Langevin dynamics: the published schedule, stationary variances, the jump, inpainting."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sampling.doubles import Generated
from scorefield._random import StepNoise
from scorefield.process import VE, VP, LinearSigmas, Tabulated
from scorefield.process.grids import Uniform
from scorefield.sampling import InpaintingLangevin, Sampler, TemperatureLangevin, TemperatureSchedule
from scorefield.score import EnergyScore, FunctionScore
from tolerance import FLOAT32, FLOAT64, SPREAD

F64 = torch.float64
PROCESS = Tabulated(LinearSigmas(0.05, 1.2, 16))
SIGMA_0 = 0.1


class Ideal(EnergyScore):
    """E = |x - m|^2 / (2 sigma_0^2), with the largest curvature of an ideal energy; one jump returns m."""

    def __init__(self, mean: float = 0.3, shift: float = 0.0):
        super().__init__(
            lambda x, t, c: 0.5 * ((x - mean) / SIGMA_0).square().flatten(1).sum(1) + shift,
            PROCESS,
            lambda t: (PROCESS.sigma(t) / SIGMA_0) ** 2,
        )


def test_the_published_schedule() -> None:
    found = TemperatureSchedule().temperatures()
    assert len(found) == 2700
    assert float(found[0]) == float(found[499]) == float(found[500]) == 100.0
    assert float(found[2499]) == pytest.approx(1.002305, abs=1e-6)
    assert float(found[2500]) == 1.0 and float(found[2699]) == 0.0
    assert bool((found.diff() <= 0).all())
    linear = TemperatureSchedule(spacing="linear").temperatures()
    torch.testing.assert_close(linear[500:2500], 100.0 - 99.0 * torch.arange(2000, dtype=F64) / 2000)


@pytest.mark.parametrize("process", [PROCESS, VE(0.01, 50.0)], ids=["ladder", "VE"])
def test_a_grid_takes_every_step_of_the_schedule(process: Tabulated | VE) -> None:
    walk = TemperatureLangevin()
    times = Uniform(2700).times(process)[:-1]
    expected = SIGMA_0 * walk.schedule.temperatures().sqrt()
    assert torch.equal(walk.sigma(process, times), expected)
    coarse = Uniform(270).times(process)[:-1]
    assert torch.equal(walk.sigma(process, coarse), expected[::10])


def test_one_step_is_the_published_one_and_zero_temperature_is_finite() -> None:
    score, walk = Ideal(), TemperatureLangevin()
    times = Uniform(2700).times(PROCESS)
    x = torch.linspace(-1.0, 2.0, 6, dtype=F64).reshape(2, 3)
    for k in (0, 1234, 2600, 2699):
        t = times[k].expand(2)
        z = torch.full_like(x, 0.7)
        moved = walk(score.bind(None), PROCESS, x, t, t, StepNoise(Ones(0.7), k))
        temperature = float(walk.schedule.temperatures()[k])
        expected = x - 2e-4 * score.gradient(x, t) + 0.02 * math.sqrt(temperature) * z
        torch.testing.assert_close(moved.x, expected, rtol=10 * FLOAT64, atol=10 * FLOAT64)
    assert temperature == 0.0 and torch.equal(moved.x, moved.mean)


class Ones:
    """Noise whose draws are all the same number."""

    def __init__(self, value: float):
        self.value = value

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        return torch.full_like(like, self.value)

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        return torch.full_like(like, self.value)


def spread_along(walk: TemperatureLangevin) -> dict[int, float]:
    """Standard deviation around m after some steps, by propagating mean 0 and variance 1 through the chain."""
    variance, out, a = 1.0, {}, 0.5 * (walk.step / walk.sigma_0) ** 2
    for k, temperature in enumerate(walk.schedule.temperatures().tolist(), start=1):
        variance = (1.0 - a) ** 2 * variance + walk.step**2 * temperature
        out[k] = math.sqrt(variance)
    return out


def test_spread_along_the_published_anneal() -> None:
    """It is 1.005 sigma_0 sqrt(T) while T changes slowly, and 0.035 at the end, which the jump removes."""
    spread = spread_along(TemperatureLangevin())
    for step, published in ((500, 1.004), (1500, 0.330), (2500, 0.103), (2600, 0.080), (2700, 0.035)):
        assert spread[step] == pytest.approx(published, abs=3e-3)


def test_chains_spread_as_they_should_and_the_jump_lands() -> None:
    walk, seen = TemperatureLangevin(TemperatureSchedule(burn_in=50, anneal=100, quench=20)), {}
    x = 0.3 + torch.randn(200, 20, generator=torch.Generator().manual_seed(0))

    def look(event) -> None:  # type: ignore[no-untyped-def]
        seen[event.step] = float((event.x - 0.3).square().mean().sqrt())

    def run(shift: float, callbacks=()):  # type: ignore[no-untyped-def]
        sampler = Sampler(walk, Uniform(170))
        return sampler.run(
            Ideal(shift=shift), (20,), indices=range(200), latent=x, noise=Generated(1), callbacks=callbacks
        )

    found, spread = run(0.0, [look]), spread_along(walk)
    assert all(seen[step] == pytest.approx(spread[step], rel=2 * SPREAD) for step in (50, 100, 150, 170))
    torch.testing.assert_close(found.x, torch.full_like(found.x, 0.3), rtol=FLOAT32, atol=FLOAT32)
    assert abs(spread_along(replace(walk, step=0.03))[150] / spread[150] - 1) > 4 * SPREAD
    assert torch.equal(run(7.0).raw, found.raw), "a constant in the energy changes no sample"


@pytest.mark.parametrize("rule", ["matched", "published"])
def test_inpainting_keeps_the_known_and_noises_what_the_gradient_sees(rule) -> None:  # type: ignore[no-untyped-def]
    unknown = torch.tensor([True, False, False])
    looked: list[Tensor] = []

    class Watched(Ideal):
        def denoised(self, x: Tensor, t: Tensor, condition=None) -> Tensor:  # type: ignore[no-untyped-def]
            looked.append(x)
            return super().denoised(x, t, condition)

    step = InpaintingLangevin(TemperatureLangevin(), unknown, rule)
    x = torch.tensor([[0.1, 0.2, 0.9]], dtype=F64).expand(2000, 3)
    t = Uniform(2700).times(PROCESS)[:1].expand(2000)  # T = 100
    with torch.no_grad():
        moved = step(Watched().bind(None), PROCESS, x, t, t, StepNoise(Generated(3), 0))
    assert torch.equal(moved.x[:, 1:], x[:, 1:]) and torch.equal(looked[0][:, 0], x[:, 0])
    expected = 1.0 if rule == "matched" else SIGMA_0 * 100**0.25
    assert float((looked[0] - x)[:, 1:].std()) == pytest.approx(expected, rel=2 * SPREAD)
    assert float(moved.x[:, 0].std()) == pytest.approx(0.2, rel=2 * SPREAD)
    run = Sampler(step, Uniform(270)).run(
        Ideal(), (3,), indices=range(20), latent=x[:20], noise=Generated(4), dtype=F64
    )
    assert torch.equal(run.raw[:, 1:], x[:20, 1:])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="too long"):
        TemperatureLangevin(step=0.25)
    with pytest.raises(ValueError, match="must decrease"):
        TemperatureSchedule(high=1.0, low=2.0)
    with pytest.raises(ValueError, match="every value is unknown"):
        InpaintingLangevin(TemperatureLangevin(), torch.ones(3, dtype=torch.bool))
    scaled = FunctionScore(lambda x, t: -x, VP())
    with pytest.raises(ValueError, match="alpha = 1"):
        Sampler(TemperatureLangevin(), Uniform(3)).run(scaled, (2,), indices=[0])
