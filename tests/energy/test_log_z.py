"""log Z: the acceptance ratio against closed forms, its error bars and verdicts, and energies whose log Z is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.energy.annealed_importance import AISSettings, BoxBase, GaussianBase, Schedule
from scorefield.energy.bridge_sampling import acceptance_ratio, asymptotic_error, bridge, effective_chains
from scorefield.energy.normalising_constant import LogZ, energy_log_prob, log_evidence, log_z, same_modes
from scorefield.inverse import GaussianNoise, Matrix, Observation
from scorefield.process import VE
from scorefield.score import Confined, Energy
from scorefield.score.oracles import skewed_gaussian
from tolerance import FLOAT64

F64 = torch.float64
FAST = AISSettings(rungs=40, pilot=16)
C = 1.7


def gaussian_work(replicates: int, n: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Work values with Crooks' relation: w_F ~ N(c - s^2 / 2, s^2), w_R ~ N(-c - s^2 / 2, s^2), c = log Z_1 / Z_0."""
    z = torch.randn(2, replicates, n, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return C - spread**2 / 2 + spread * z[0], -C - spread**2 / 2 + spread * z[1]


def test_the_acceptance_ratio_and_its_error() -> None:
    """The bias is below a thousandth, and errors over standard errors have variance one (z test at 1e-6)."""
    F, R = gaussian_work(3000, 100, 1.2)
    c = acceptance_ratio(F, R)
    z = (c - C) / asymptotic_error(F, R, c)
    limit = 5.0 / math.sqrt(3000)
    assert abs(float(z.mean())) < limit + 0.03  # of order 1 / n in the weights, 100 chains
    assert abs(float(z.square().mean()) - 1.0) < limit * math.sqrt(2) + 0.06
    mutant = (acceptance_ratio(F, -R) - C) / asymptotic_error(F, R, c)
    assert abs(float(mutant.mean())) > 5.0, "reverse work with the wrong sign"
    unequal = acceptance_ratio(F[:, :30], R)  # M = ln(n_F / n_R)
    assert abs(float((unequal - C).mean())) < 5.0 * float(unequal.std()) / math.sqrt(3000) + 0.005


def test_shifts_and_signs_are_exact() -> None:
    F, R = gaussian_work(1, 64, 1.0)
    c = acceptance_ratio(F, R)
    torch.testing.assert_close(acceptance_ratio(F + 3.0, R - 3.0), c + 3.0, rtol=FLOAT64, atol=1e2 * FLOAT64)
    torch.testing.assert_close(acceptance_ratio(R, F), -c, rtol=FLOAT64, atol=1e2 * FLOAT64)
    same = bridge(torch.full((32,), 2.0, dtype=F64), torch.full((32,), -2.0, dtype=F64), resamples=10)
    assert float(same.value) == pytest.approx(2.0) and int(same.verdict) == 0
    assert float(same.overlap) == pytest.approx(0.5) and float(same.ess_forward) == pytest.approx(32)


def test_verdicts() -> None:
    """Verdicts: ok with overlap, wide with few effective chains, and unusable without overlap or an estimate."""
    F, R = gaussian_work(1, 400, 0.7)
    ok = bridge(F, R, resamples=50)
    assert int(ok.verdict) == 0 and float(ok.low) < C < float(ok.high)
    F, R = gaussian_work(1, 60, 1.1, seed=3)
    wide = bridge(F, R, resamples=50)
    fewest = min(float(effective_chains(F)), float(effective_chains(R)))
    assert 10 <= fewest < 30 and int(wide.verdict) == 1 and math.isfinite(float(wide.value))
    assert float(wide.low) <= min(float(wide.forward), float(wide.reverse))
    assert float(wide.high) >= max(float(wide.forward), float(wide.reverse))
    F, R = gaussian_work(1, 60, 9.0)
    none = bridge(F, R, resamples=50)
    assert int(none.verdict) == 2 and bool(none.value.isnan())
    assert float(none.low) <= float(none.forward) and float(none.high) >= float(none.reverse)
    F, R = gaussian_work(1, 400, 0.3)
    assert int(bridge(F, R + 1.0, resamples=50).verdict) == 2, "forward and reverse contradict each other"
    with pytest.raises(ValueError, match="no error can be estimated"):
        bridge(F[:, :1], R)
    with pytest.raises(ValueError, match="not finite"):
        bridge(F, torch.full_like(R, -torch.inf))


@pytest.mark.slow
def test_nominal_95_percent_intervals_cover() -> None:
    F, R = gaussian_work(400, 64, 0.7)
    found = bridge(F, R, resamples=200)
    ok = found.verdict == 0
    inside = ((found.low <= C) & (found.high >= C))[ok]
    n, hits = int(ok.sum()), int(inside.sum())
    sigma = math.sqrt(0.95 * 0.05 * n)
    assert n > 300 and abs(hits - 0.95 * n) < 4.9 * sigma
    middle, half = 0.5 * (found.low + found.high), 0.25 * (found.high - found.low)
    assert int(((middle - half <= C) & (C <= middle + half))[ok].sum()) < 0.95 * n - 4.9 * sigma, "half as wide"


# ------------------------------------------------------------------------------------------------ energies

MEAN, STD = torch.tensor([-1.0, 0.5, 2.0], dtype=F64), torch.tensor([0.3, 0.7, 1.1], dtype=F64)


def uneven(x: Tensor) -> Tensor:
    """E = T |(x - m) / s|^2 / 2 + 6 with T = 2, so that log Z(2) = sum log s + 3/2 log 2 pi - 3."""
    return ((x - MEAN) / STD).square().sum(1) + 6.0


BASE = GaussianBase(torch.tensor([-0.7, 0.3, 1.5], dtype=F64), torch.tensor([0.5, 0.9, 1.4], dtype=F64))
UNEVEN = float(STD.log().sum()) + 1.5 * math.log(2 * math.pi) - 3.0


def draws(n: int, seed: int = 0) -> Tensor:
    return MEAN + STD * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.fixture(scope="module")
def known() -> LogZ:
    return log_z(Energy(uneven, sigma_0=0.1), BASE, draws(96), temperature=2.0, settings=FAST)


def test_log_z_of_an_uneven_gaussian(known: LogZ) -> None:
    assert known.verdict == "ok" and known.value is not None
    assert abs(known.value - UNEVEN) < 4.9 * known.standard_error < 1.0
    assert known.interval[0] < known.value < known.interval[1]
    assert known.work_forward.dtype == F64 and known.gradients == 40 and known.schedule.rungs == 40
    assert known.noise == pytest.approx(0.1 * math.sqrt(2)) and "exp(-E / 2)" in known.of
    assert known.record()["rungs"] == 40 and len(known.record()["work_reverse"]) == 96


def test_a_constant_shifts_log_z_by_minus_it(known: LogZ) -> None:
    other = log_z(lambda x: uneven(x) + 8.0, BASE, draws(96), temperature=2.0, schedule=known.schedule)
    assert known.value is not None and other.value == pytest.approx(known.value - 4.0, abs=1e4 * FLOAT64)


def test_a_base_that_is_the_target_needs_no_work() -> None:
    base = GaussianBase(MEAN, STD)
    found = log_z(base.energy, base, draws(32), schedule=Schedule((0.0, 0.5, 1.0), (0.1,), 1, 0.0))
    assert found.value == pytest.approx(0.0, abs=1e2 * FLOAT64) and found.verdict == "ok"
    assert found.ess_forward == pytest.approx(32)


def test_an_unbounded_energy_is_normalised_on_its_box() -> None:
    """log Z of E = -x^2 - x on [-1, 2] by quadrature (infinite without the box); the mass at the border is reported."""
    confined = Confined(lambda x: -(x**2).sum(1) - x.sum(1), box=(-1.0, 2.0))
    grid = torch.linspace(-1.0, 2.0, 60_001, dtype=F64)
    weight = torch.exp(grid**2 + grid)
    true = float(torch.trapezoid(weight, grid).log())
    cdf = weight.cumsum(0) / weight.sum()
    u = torch.rand(150, generator=torch.Generator().manual_seed(1), dtype=F64)
    start = grid[torch.searchsorted(cdf, u)].reshape(150, 1)
    found = log_z(confined, BoxBase(-1.0, 2.0), start, chains=150, settings=replace(FAST, rungs=30))
    assert found.value is not None and abs(found.value - true) < 4.9 * found.standard_error < 0.6
    assert found.border is not None and found.border > 0.1 and "on the box [-1, 2]" in found.of
    with pytest.raises(ValueError, match="same confinement"):
        log_z(confined, BoxBase(-1.0, 2.0), start + 3.0, schedule=found.schedule)


def test_a_ball_walls_in() -> None:
    walled = Confined(lambda x: -x.square().sum(1), ball=(0.5, 2.0), strength=10.0)
    x = torch.tensor([[0.5, 0.5], [3.5, 0.5]], dtype=F64)
    assert walled(x).tolist() == pytest.approx([-0.5, -12.5 + 10.0])
    _, slope = walled.with_gradient(x)
    assert slope.flatten().tolist() == pytest.approx([-1.0, -1.0, -7.0 + 20.0, -1.0])
    assert walled.border(x).tolist() == [0.0, 1.0]


def test_energies_that_are_not_finite_leave_no_estimate(known: LogZ) -> None:
    torn = Energy(lambda x: torch.where(x[:, 0] > 0.0, torch.nan, uneven(x)))
    found = log_z(torn, BASE, draws(96), temperature=2.0, schedule=known.schedule)
    assert found.value is None and found.verdict == "unusable" and "not finite" in found.reasons[0]


@pytest.mark.slow
def test_starts_that_miss_a_mode_are_found_out() -> None:
    """Modes of weight 0.9 and 0.1: starts in the smaller one alone give a wrong log Z with a small error bar."""

    def energy(x: Tensor) -> Tensor:
        logs = torch.tensor([0.9, 0.1], dtype=F64).log()
        return -torch.logsumexp(logs - 0.5 * (x - torch.tensor([-6.0, 6.0], dtype=F64)) ** 2, dim=1)

    z = torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    side = torch.where(torch.arange(64) % 10 == 0, 6.0, -6.0)[:, None]
    base = GaussianBase(torch.tensor(0.0, dtype=F64), torch.tensor(5.0, dtype=F64))
    right = log_z(energy, base, z + side, settings=replace(FAST, rungs=60))
    again = log_z(energy, base, z.flip(0) + side, schedule=right.schedule)
    wrong = log_z(energy, base, z + 6.0, schedule=right.schedule)
    assert same_modes(right, again).agree
    check = same_modes(right, wrong)
    assert not check.agree and check.gap > 1.0 and "misses modes" in check.message
    assert wrong.verdict == "unusable" and "crossed between its modes" in " ".join(wrong.reasons)


def test_evidence_of_an_observation() -> None:
    """log p(y) of a Gaussian in closed form, for an energy scaled by T = 3 and shifted: its log Z is not needed."""
    prior = skewed_gaussian(VE(), 3)
    A, y = torch.tensor([[1.0, -0.5, 0.3]], dtype=F64), torch.tensor([0.9], dtype=F64)
    energy = Energy(lambda x: 5.0 - 3.0 * prior.log_prob(x))
    found = log_evidence(
        energy,
        Observation(Matrix(A, (3,)), y, GaussianNoise(0.3)),
        prior.sample(300, seed=1),
        prior.posterior(A, y, 0.3).sample(300, seed=2),
        temperature=3.0,
        settings=replace(FAST, rungs=25, pilot=32),
    )
    assert found.value is not None
    assert abs(found.value - prior.log_evidence(A, y, 0.3)) < 4.9 * found.standard_error < 1.0


# ------------------------------------------------------------------------------------------------ densities


def test_log_densities_carry_the_interval(known: LogZ) -> None:
    x = draws(4, seed=9)
    found = energy_log_prob(Energy(uneven, sigma_0=0.1), known, x)
    truth = (-0.5 * ((x - MEAN) / STD) ** 2 - STD.log() - 0.5 * math.log(2 * math.pi)).sum(1)
    assert known.value is not None
    torch.testing.assert_close(found.nats, truth + UNEVEN - known.value, rtol=1e2 * FLOAT64, atol=1e2 * FLOAT64)
    assert bool(((found.interval[:, 0] < found.nats) & (found.nats < found.interval[:, 1])).all())
    assert "smoothed by noise of 0.141" in found.of and found.bits_per_dim is None


def test_bits_per_dim(known: LogZ) -> None:
    """Bits are -log2 p / D + 8 for 256 grey levels in [0, 1], and the interval is that of log Z over D log 2."""
    data = DataSpec((3,), 0, 255, 256, model_range=(0.0, 1.0))
    x = torch.tensor([[10.0, 100.0, 250.0]])
    found = energy_log_prob(uneven, known, x, data)
    assert known.value is not None and found.bits_per_dim is not None and found.bits_interval is not None
    nats = -float(uneven(x.double() / 255)) / 2 - known.value
    assert float(found.bits_per_dim[0]) == pytest.approx(-nats / (3 * math.log(2)) + 8, abs=1e-5)
    width = found.bits_interval[1] - found.bits_interval[0]
    assert width == pytest.approx((known.interval[1] - known.interval[0]) / (3 * math.log(2)))


def test_without_log_z_there_are_no_bits(known: LogZ) -> None:
    with pytest.raises(ValueError, match=r"log_z\(energy, base, draws\)"):
        energy_log_prob(uneven, None, draws(2))
    with pytest.raises(ValueError, match="unusable"):
        energy_log_prob(uneven, replace(known, value=None, verdict="unusable", reasons=("no overlap",)), draws(2))
