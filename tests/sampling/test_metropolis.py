"""Metropolis correctors: exactly invariant where a density is known, approximately by the line integral elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sampling.doubles import Generated, frozen
from scorefield._math import sum_event
from scorefield._random import IndexedNoise, StepNoise
from scorefield.process import VE, Process
from scorefield.sampling import Chain, Hold, LadderScaled, Langevin, NoiseScaled, NormRatio, Repeat, StepResult
from scorefield.sampling.metropolis import HMC, MALA, MetropolisMemory
from scorefield.score import EnergyScore, FunctionScore, Score
from scorefield.score.oracles import Gaussian, skewed_mixture
from tolerance import FLOAT64, SIGNIFICANCE

F64 = torch.float64
PROCESS = VE(0.01, 5.0)
LEVEL = 0.5


def time(batch: int) -> Tensor:
    return PROCESS.time_at_sigma(torch.tensor([LEVEL], dtype=F64)).expand(batch)


def gaussian(v: float) -> Gaussian:
    """An oracle whose p_t has variance v at the noise level."""
    return Gaussian(PROCESS, torch.tensor([0.7, -2.0], dtype=F64), v - LEVEL**2)


def walk(
    step: HMC | Langevin, score: Score, x: Tensor, steps: int, seed: int = 0
) -> tuple[Tensor, MetropolisMemory | None]:
    t, memory, bound = time(len(x)), None, score.bind(None)
    for k in range(steps):
        moved = step(bound, PROCESS, x, t, t, StepNoise(Generated(1000 * seed + k), k), memory)
        x, memory = moved.x, moved.memory
    return x, memory


def far_from(x: Tensor, mean: Tensor, variance: float) -> float:
    """Two-sided p-value of the most significant deviation of mean and variance from their exact values."""
    n = len(x)
    z_mean = (x.mean(dim=0) - mean) / (variance / n) ** 0.5
    z_variance = (x.var(dim=0) - variance) / (variance * (2.0 / (n - 1)) ** 0.5)
    largest = float(torch.cat([z_mean, z_variance]).abs().max())
    return 4 * math.erfc(largest / math.sqrt(2.0))


SIZE = LadderScaled(0.6, LEVEL)  # e = 0.6 at the level: Langevin without a test leaves 1.3 times the variance


@pytest.mark.parametrize("step", [MALA(SIZE), HMC(SIZE, leapfrog=3)], ids=["MALA", "HMC"])
def test_the_law_is_left_exactly(step: HMC) -> None:
    """20,000 chains started in p_t keep its moments, at a step size at which unadjusted Langevin does not."""
    target = gaussian(1.3)
    x = target.sample(20_000, float(time(1)), seed=3)
    end, memory = walk(step, target, x, 25)
    assert far_from(end, target.mean, 1.3) > SIGNIFICANCE
    assert isinstance(memory, MetropolisMemory) and memory.proposed == 25
    share = float(memory.accepted.double().mean() / 25)
    assert 0.3 < share < 0.99, "a test that never rejects tests nothing"
    mutant, _ = walk(Langevin(SIZE), target, x, 25)
    assert far_from(mutant, target.mean, 1.3) < SIGNIFICANCE


class Careless(MALA):
    """A mutant whose acceptance ratio leaves out the momentum."""

    def __call__(self, score, process, x, t, s, noise, memory=None) -> StepResult:  # type: ignore[no-untyped-def]
        here = self._at(score, x, t, memory)
        z = noise(x)
        e = self.size(process, t, s, here.score, z)[:, None]
        y = x + e * here.score + (2.0 * e).sqrt() * z
        density, slope = score.with_density(y, t)
        assert here.log_density is not None
        accept = noise.uniform(x.new_empty(len(x), 1))[:, 0].log() < density - here.log_density
        end = torch.where(accept[:, None], y, x)
        return StepResult(
            end, end, self._updated(here, end, t, torch.where(accept[:, None], slope, here.score), density, accept)
        )


def test_a_metropolis_test_without_the_momentum_is_rejected() -> None:
    target = gaussian(1.3)
    x = target.sample(20_000, float(time(1)), seed=3)
    end, _ = walk(Careless(SIZE), target, x, 25)
    assert far_from(end, target.mean, 1.3) < SIGNIFICANCE


def test_one_leapfrog_step_is_the_langevin_proposal() -> None:
    target, x = gaussian(1.3), Generated(1).normal(torch.empty(64, 2, dtype=F64), 0, 0)
    t, noise = time(64), IndexedNoise(0, range(64))
    small = LadderScaled(1e-3, LEVEL)
    plain = Langevin(small)(target.bind(None), PROCESS, x, t, t, StepNoise(noise, 0)).x
    adjusted = MALA(small)(target.bind(None), PROCESS, x, t, t, StepNoise(noise, 0))
    accepted = adjusted.memory.accepted == 1
    assert int(accepted.sum()) > 60
    torch.testing.assert_close(adjusted.x[accepted], plain[accepted], rtol=FLOAT64, atol=FLOAT64)
    assert torch.equal(adjusted.x[~accepted], x[~accepted])


def test_detailed_balance_of_the_proposal() -> None:
    """Leapfrog is reversible and volume-preserving: the reversed trajectory has the inverse acceptance ratio."""
    target = skewed_mixture(PROCESS)
    x = target.sample(16, float(time(1)), seed=0).to(F64)
    t, h = time(16), 0.3

    def leapfrog(place: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(3):
            momentum = momentum + 0.5 * h * target(place, t)
            place = place + h * momentum
            momentum = momentum + 0.5 * h * target(place, t)
        return place, momentum

    p = Generated(5).normal(x, 0, 0)
    y, q = leapfrog(x, p)
    back, r = leapfrog(y, -q)
    torch.testing.assert_close(back, x, rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)
    torch.testing.assert_close(-r, p, rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)

    class Fixed:
        def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
            return p

        def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
            return torch.full_like(like, 0.5)

    step = HMC(LadderScaled(0.5 * h**2, LEVEL), leapfrog=3)
    moved = step(target.bind(None), PROCESS, x, t, t, StepNoise(Fixed(), 0))
    ratio = target.log_prob(y, t) - target.log_prob(x, t) + 0.5 * (sum_event(p**2) - sum_event(q**2))
    expected = torch.where((math.log(0.5) < ratio)[:, None], y, x)
    torch.testing.assert_close(moved.x, expected, rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)


def test_one_call_a_step_and_a_level_change_forgets() -> None:
    target = gaussian(1.3)
    bound, x = target.bind(None), torch.zeros(3, 2, dtype=F64)
    step = Chain((Repeat(MALA(SIZE), 4), Hold()))
    t, s = time(3), PROCESS.time_at_sigma(torch.tensor([0.4], dtype=F64)).expand(3)
    moved = step(bound, PROCESS, x, t, s, StepNoise(Generated(0), 0))
    assert bound.calls == 5 and moved.calls is not None and moved.calls.tolist() == [5, 5, 5]
    moved = step(bound, PROCESS, moved.x, s, s, StepNoise(Generated(1), 1), moved.memory)
    assert bound.calls == 10


def test_energies_know_their_density_and_fields_do_not() -> None:
    target, x, t = gaussian(1.3), torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0)), time(5)
    energy = EnergyScore(lambda x, t, c: -3.0 * target.log_prob(x, t), PROCESS, lambda t: torch.full_like(t, 3.0))
    density, score = energy.bind(None).with_density(x, t)
    expected, slope = target.with_density(x, t)
    torch.testing.assert_close(density, expected, rtol=FLOAT64, atol=FLOAT64)
    torch.testing.assert_close(score.detach(), slope, rtol=1e2 * FLOAT64, atol=FLOAT64)
    field = FunctionScore(lambda x, t: target(x, t), PROCESS)
    with pytest.raises(TypeError, match="only for energies and closed forms.*line integral"):
        walk(MALA(SIZE), field, x, 1)


def test_a_line_integral_is_close_and_is_not_exact() -> None:
    """The line integral is correct to third order in the step, and exact for the linear score of a Gaussian."""
    target = gaussian(1.3)
    field = FunctionScore(lambda x, t: target(x, t), PROCESS)
    x = target.sample(20_000, float(time(1)), seed=3)
    end, _ = walk(HMC(SIZE, 2, "line integral"), field, x, 25)
    assert far_from(end, target.mean, 1.3) > SIGNIFICANCE
    exact, _ = walk(HMC(SIZE, 2), target, x, 25)
    torch.testing.assert_close(end, exact)


def test_what_is_not_finite_is_rejected() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x > 1.0, torch.nan, -x)

    x = torch.tensor([[0.9], [-0.5]], dtype=F64)
    end, memory = walk(HMC(LadderScaled(2.0, LEVEL), 1, "line integral"), FunctionScore(broken, PROCESS), x, 40)
    assert bool(end.isfinite().all()) and isinstance(memory, MetropolisMemory)
    assert int(memory.accepted.sum()) < 80


def test_sizes_that_depend_on_the_state_are_refused() -> None:
    with pytest.raises(ValueError, match="irreversible"):
        MALA(NormRatio())
    with pytest.raises(ValueError, match="leapfrog=0 must be at least 1"):
        HMC(NoiseScaled(), leapfrog=0)
    process: Process = PROCESS
    below = torch.full((2,), -0.1, dtype=F64)
    with pytest.raises(ValueError, match="below level 0"):
        MALA()(
            frozen(torch.zeros(1), process).bind(None),
            process,
            torch.zeros(2, 1),
            below,
            below,
            StepNoise(Generated(0), 0),
        )
