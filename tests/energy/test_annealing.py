"""Annealed chains: every step exact at its own temperature, and the published schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from energy.test_chains import exact, gumbel, p_value
from sampling.doubles import Generated
from scorefield.energy.annealing import Ladder, PublishedAnneal, anneal, tune_ladder
from scorefield.sampling.temperature import TemperatureSchedule
from scorefield.score import Energy
from tolerance import FLOAT64, FOUR_DECIMALS, SIGNIFICANCE

F64 = torch.float64


def bowl(x: Tensor) -> Tensor:
    """An energy of curvature 1 / sigma_0^2 = 100 around 0.5: at T a Gaussian of standard deviation 0.1 sqrt(T)."""
    return 50.0 * (x - 0.5).square().flatten(1).sum(1)


ENERGY = Energy(bowl, sigma_0=0.1)


def test_the_published_schedule() -> None:
    T = PublishedAnneal().temperatures()
    assert len(T) == 2700 == sum(stage.steps for stage in PublishedAnneal().stages())
    assert T[0] == T[499] == T[500] == 100.0 and T[2500] == 1.0 and T[2699] == 0.0
    assert abs(T[2499] - 1.002305) < FOUR_DECIMALS
    short = PublishedAnneal(TemperatureSchedule(high=4.0, burn_in=0, anneal=3, quench=2, spacing="linear"))
    assert [stage.temperature for stage in short.stages()] == [4.0, 3.0, 2.0, 1.0, 0.0]


def test_every_move_leaves_its_temperature_alone() -> None:
    """Draws of exp(-E / 2.5) keep their distribution through two rungs at the temperature 2.5."""
    ladder = Ladder(2.5, 2.5, rungs=2, steps=6, epsilons=(0.75, 0.5))
    end = anneal(gumbel, exact(10_000), ladder, noise=Generated(1)).x
    assert p_value(end) > SIGNIFICANCE
    forgetful = Ladder(1.5, 1.5, rungs=2, steps=6, epsilons=(0.75, 0.5))
    assert p_value(anneal(gumbel, exact(10_000), forgetful, noise=Generated(1)).x) < SIGNIFICANCE


def test_a_ladder_arrives_and_reports_each_rung() -> None:
    ladder = tune_ladder(ENERGY, 0.5 + torch.randn(32, 4, dtype=F64), Ladder(100.0, 1.0, rungs=5, steps=40), steps=20)
    assert ladder.epsilons is not None and max(ladder.epsilons) < 3 * min(ladder.epsilons), "one step fits every T"
    found = anneal(ENERGY, 0.5 + Generated(0).normal(torch.empty(1500, 4, dtype=F64), 0, 0), ladder, noise=Generated(2))
    assert [round(rung.temperature, 3) for rung in found.rungs] == [100.0, 31.623, 10.0, 3.162, 1.0]
    for rung in found.rungs:
        assert rung.noise == pytest.approx(0.1 * math.sqrt(rung.temperature))
        assert 0.2 < float(rung.acceptance.mean()) < 0.95 and rung.acceptance.shape == (1500,)
        assert rung.energy.shape == (1500, 40) and rung.ess is not None and rung.r_hat is not None
        # Equipartition: the mean of E is D T / 2 with variance D T^2 / 2, at the end of every rung.
        z = (rung.energy[:, -1].mean() - 2.0 * rung.temperature) / (rung.temperature * math.sqrt(2.0 / 1500))
        assert abs(float(z)) < 5.3
    assert found.gradients == 201 and found.energies.shape == (1500, 200) and found.finite == 1.0


def test_the_published_run_ends_where_the_theory_says() -> None:
    """On the ideal energy the jump returns the mode, and before it the standard deviation is 0.035."""
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return bowl(x)

    class Short(PublishedAnneal):
        """The last 300 temperatures of the schedule, from exact draws at T = 1."""

        def stages(self):  # type: ignore[no-untyped-def]
            return super().stages()[-200:]

    start = 0.5 + 0.1 * Generated(0).normal(torch.empty(400, 8, dtype=F64), 0, 0)
    found = anneal(Energy(counted, sigma_0=0.1), start, Short(), noise=Generated(1))
    assert len(calls) == 201 == found.gradients
    assert abs(float(found.raw.std()) - 0.035) < 0.002
    torch.testing.assert_close(found.x, torch.full_like(found.x, 0.5), rtol=0, atol=1e2 * FLOAT64)
    last = torch.cat([rung.energy for rung in found.rungs[-1:]], dim=1)
    assert bool((last[:, 0] <= found.rungs[-2].energy[:, 0]).all()), "at T = 0 no energy rises"


def test_mates_and_mistakes() -> None:
    start, ladder = 0.5 + torch.randn(3, 2, dtype=F64), Ladder(4.0, 1.0, 2, 3, (0.05, 0.05))
    together = anneal(ENERGY, start, ladder, seed=5)
    assert torch.equal(anneal(ENERGY, start[1:2], ladder, seed=5, first=1).x[0], together.x[1])
    with pytest.raises(ValueError, match="tune_ladder"):
        anneal(ENERGY, start, Ladder())
    with pytest.raises(ValueError, match="no sigma_0"):
        anneal(Energy(bowl), start, PublishedAnneal())
    with pytest.raises(ValueError, match="is not a ladder"):
        Ladder(1.0, 2.0)
