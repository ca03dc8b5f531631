"""The score doctor: exact scores have a clean bill of health, and every planted fault has its name."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scorefield import _codec, diagnostics
from scorefield._random import IndexedNoise
from scorefield.diagnostics.identities import fokker_planck, of_the_mean, probed
from scorefield.diagnostics.levels import Examined, both_products
from scorefield.diagnostics.planted_faults import Plant, plants
from scorefield.diagnostics.statistics import two_sided, upper_tail
from scorefield.process import VE, VP, GeneralSDE, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from scorefield.score import FunctionScore, Score
from scorefield.score.energy import EnergyScore
from scorefield.score.oracles import Gaussian, Mixture, Points, skewed_gaussian, skewed_mixture
from tolerance import SCORE_FOKKER_PLANCK, SIGNIFICANCE

PROCESSES: dict[str, Process] = {
    "VE": VE(0.05, 10.0),
    "VP": VP(),
    "sub-VP": SubVP(),
    "ladder": Tabulated(GeometricSigmas(0.05, 10.0, 30)),
    "betas": Tabulated(LinearBetas(0.1, 10.0, 24)),
}
N = 256


def exact(name: str, dimension: int = 3) -> Mixture:
    return skewed_mixture(PROCESSES[name], dimension)


def some_times(name: str, count: int = 5) -> list[float]:
    return diagnostics.default_times(PROCESSES[name], count)


def bad(found: diagnostics.Examination) -> list[str]:
    return [f.name for f in found.findings if f.verdict != "healthy"]


# ---------------------------------------------------------------------------------------------------- clean bills


@pytest.mark.parametrize("make", [skewed_gaussian, skewed_mixture])
@pytest.mark.parametrize("name", PROCESSES)
def test_exact_scores_have_a_clean_bill(name: str, make: Callable[..., Gaussian | Mixture]) -> None:
    oracle = make(PROCESSES[name], 3)
    found = diagnostics.examine(
        oracle,
        oracle.sample(96),
        times=some_times(name, 4),
        train=oracle.sample(96, start=96),
        exact=oracle,
        significance=SIGNIFICANCE,
    )
    assert found.verdict == "healthy" and found.named is None
    assert not bad(found) and found.findings[0].name == "score"
    for row in found.rows:
        assert row.verdict == "healthy" and not row.rejected
        assert row.floor is not None and abs(row.floor.value) < 1e-9
        assert row.asymmetry is not None and row.asymmetry.value < 1e-9
        assert row.fokker_planck is None or row.fokker_planck.value < SCORE_FOKKER_PLANCK
    assert _codec.loads(_codec.dumps(found), diagnostics.Examination) == found


def test_loss_is_the_variance_that_x_leaves_in_the_noise() -> None:
    """On a Gaussian: E|z - E[z | x]|^2 / d is the mean of alpha^2 l / (alpha^2 l + sigma^2), and all else follows."""
    oracle = skewed_gaussian(PROCESSES["VP"], 4)
    found = diagnostics.examine(oracle, oracle.sample(N), times=some_times("VP"))
    variances = torch.linalg.eigvalsh(oracle.data_moments()[1])
    for row in found.rows:
        assert row.loss is not None and row.explained is not None
        least = float((row.alpha**2 * variances / (row.alpha**2 * variances + row.sigma**2)).mean())
        known = 1.0 - least * (row.sigma / row.alpha) ** 2 / float(variances.mean())
        assert abs(row.loss.value - least) < 3.0 * (row.loss.high - row.loss.low)
        assert abs(row.explained.value - known) < 3.0 * (row.explained.high - row.explained.low)


# ---------------------------------------------------------------------------------------------------- planted faults

PLANTED = [("VE", plant) for plant in plants(PROCESSES["VE"], some_times("VE")[2], shift=0.03)]
PLANTED += [("ladder", plant) for plant in plants(PROCESSES["ladder"], some_times("ladder")[2])[6:]]
PLANTED += [("VP", plant) for plant in plants(PROCESSES["VP"], some_times("VP")[2], shift=0.05)[8:]]


@pytest.mark.parametrize(("name", "plant"), PLANTED, ids=lambda v: v if isinstance(v, str) else f"{v.name}, {v.how}")
def test_every_planted_fault_is_named(name: str, plant: Plant) -> None:
    oracle, times = skewed_gaussian(PROCESSES[name], 6), some_times(name)
    found = diagnostics.examine(
        plant.into(oracle), oracle.sample(N), times=times, significance=SIGNIFICANCE, batch_size=N
    )
    assert found.named is not None and found.named.name == plant.name, found.findings[0]
    assert found.verdict != "healthy" and found.findings[0].name == plant.name
    assert found.findings[0].size is not None and found.findings[0].advice
    if plant.name == "frozen level":
        assert found.named.levels == (2,)


@pytest.mark.slow
def test_small_shift_of_a_smooth_schedule_is_named_and_called_small() -> None:
    """One step of 1000, which adds 3e-4 of the loss or less; the shift is measured, and its interval holds it."""
    process = PROCESSES["VE"]
    oracle = skewed_gaussian(process, 128)
    (plant,) = (p for p in plants(process, 1.0, shift=1e-3) if p.how.endswith("too late"))
    x = oracle.sample(1024)
    found = diagnostics.examine(
        plant.into(oracle), x, times=some_times("VE", 8), significance=SIGNIFICANCE, batch_size=1024
    )
    assert found.named is not None and found.named.name == "off-by-one time" and found.verdict == "suspect"
    assert "0.00" in found.named.says and "later" in found.named.says
    assert found.named.fall.value < diagnostics.MARGIN and not found.named.failing
    assert diagnostics.examine(oracle, x, times=some_times("VE", 8), batch_size=1024).verdict == "healthy"


def test_frozen_level_that_no_default_time_meets_is_found_by_the_scan() -> None:
    process = PROCESSES["ladder"]
    oracle, stuck = exact("ladder"), float(process.time(torch.tensor(14.0)))  # type: ignore[attr-defined]
    assert all(abs(t - stuck) > 1e-6 for t in diagnostics.default_times(process))
    (plant, _) = (p for p in plants(process, stuck) if p.name == "frozen level")
    found = diagnostics.examine(plant.into(oracle), oracle.sample(64))
    assert found.named is not None and found.named.name == "frozen level"
    assert found.rows[found.named.levels[0]].time == pytest.approx(stuck)


def test_average_that_was_never_updated_is_named() -> None:
    oracle, times = exact("VE"), some_times("VE")
    stale = FunctionScore(lambda x, t: 0.0 * x, oracle.process)
    found = diagnostics.examine(stale, oracle.sample(N), times=times, others={"raw": oracle})
    assert found.named is not None and found.named.name == "EMA never updated" and found.verdict == "faulty"
    assert diagnostics.examine(oracle, oracle.sample(N), times=times, others={"raw": stale}).verdict == "healthy"


def test_conditions_go_with_their_examples() -> None:
    oracle = exact("VE")
    labels = torch.arange(N) % 2
    x = oracle.sample(N, condition={"class": labels})
    right, wrong = (
        diagnostics.examine(oracle, x, times=some_times("VE", 3), condition={"class": c}, batch_size=100)
        for c in (labels, 1 - labels)
    )
    assert right.verdict == "healthy" and wrong.verdict != "healthy"


def test_points_learnt_by_heart_are_told() -> None:
    oracle = exact("VE", 8)
    train = oracle.sample(64, start=N)
    found = diagnostics.examine(Points(oracle.process, train), oracle.sample(128), times=some_times("VE"), train=train)
    assert "memorisation" in bad(found) and found.verdict == "faulty"
    gap = found.rows[0].gap
    assert gap is not None and gap.low > 0.9  # at the least level nothing is lost on a training example


def test_score_worse_than_a_gaussian_is_told_without_a_name() -> None:
    """One mode of a mixture alone: no known fault mends it."""
    oracle = exact("VE")
    one = Gaussian(oracle.process, oracle.sample(64).mean(dim=0) + 2.0, 0.01 * torch.eye(3, dtype=torch.float64))
    x, train = oracle.sample(N), oracle.sample(N, start=N)
    found = diagnostics.examine(one, x, times=some_times("VE", 4), train=train, exact=oracle)
    assert found.verdict == "faulty"
    told = [row for row in found.rows if row.gaussian is not None and row.gaussian.low > diagnostics.MARGIN]
    assert told and all(row.verdict == "faulty" for row in told)


# ---------------------------------------------------------------------------------------------------- numbers


def test_sizes_of_asymmetry_and_fokker_planck_residual() -> None:
    """Of s + A x with A a rotation, and of a score times 2: closed forms on a Gaussian."""
    process = PROCESSES["VE"]
    oracle = Gaussian(process, torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    t = torch.tensor([0.5], dtype=torch.float64)
    x0 = oracle.sample(N)

    def examined(score: Score) -> Examined:
        return Examined(score.bind(None), process, x0, t.tolist(), seed=0, batch_size=100)

    total = 1.0 + float(process.sigma(t)) ** 2
    A = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    turned = examined(FunctionScore(lambda x, t: oracle(x, t) + 0.3 * x @ A.T, process))
    found = probed(turned, turned.levels[0])
    assert found is not None
    # J = -I / total + 0.3 A: |J - J'|^2 = 4 * 2 * 0.09, |J|^2 = 2 / total^2 + 2 * 0.09, for every probe of signs.
    assert found.asymmetry.value == pytest.approx(math.sqrt(0.72 / (2.0 / total**2 + 0.18)), rel=1e-9)
    y = turned.levels[0].x - turned.levels[0].x.mean(dim=0)
    torch.testing.assert_close(found.turned, 0.3 * y.flatten(1) @ A.T)
    torch.testing.assert_close(found.divergence, torch.full_like(found.divergence, -2.0 / total))

    doubled = examined(FunctionScore(lambda x, t: 2.0 * oracle(x, t), process))
    # s = -c x with dc / dt = -c^2 g^2: 2 s changes at the rate 2 c^2 g^2 x, and its square makes that 4 c^2 g^2 x.
    off = fokker_planck(doubled, doubled.levels[0])
    assert off is not None and off.value == pytest.approx(1.0, rel=1e-3)


def test_jacobian_products_of_energies_and_constants() -> None:
    process = VE(0.05, 10.0)
    energy = EnergyScore(lambda x, t, c: 0.25 * x.pow(4).sum(dim=1), process)
    x, v = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    t = torch.tensor([0.5], dtype=torch.float64)
    ((right, left),) = both_products(energy.bind(None), x, t, [v])
    torch.testing.assert_close(right, -3.0 * x**2 * v)
    torch.testing.assert_close(left, right)
    nothing = FunctionScore(lambda x, t: torch.zeros_like(x), process)
    assert all(not bool(side.any()) for side in both_products(nothing.bind(None), x, t, [v])[0])


def test_tests_are_of_the_level_they_claim() -> None:
    """p-values of a mean of 0 are uniform, also of skewed numbers, and a shift is seen."""
    z = IndexedNoise(3, range(400)).normal(torch.empty(400, 64, dtype=torch.float64), 0, 0)
    for values in (z, z**2 - 1.0):
        below = sum(two_sided(row) < 0.05 for row in values)
        assert 2 <= below <= 48  # binomial of 400 at 0.05: one in a million lies outside
    assert sum(two_sided(row + 0.5) < 0.05 for row in z) > 200
    assert upper_tail(torch.ones(40), 0.5) == 0.0 and upper_tail(torch.ones(40), 1.0) == 1.0


def test_identities_reject_a_score_that_is_a_little_too_large() -> None:
    """The mutant of the clean bill: 5 percent more than the exact score, from 2000 examples."""
    oracle = skewed_gaussian(PROCESSES["VE"], 8)
    examined = Examined(oracle.bind(None), oracle.process, oracle.sample(2000), [0.5], seed=0, batch_size=2000)
    level = examined.levels[0]
    h = examined.noise(level.x, level.time, level.sigma)
    found, wrong = ({i.name: i.p_value for i in of_the_mean(level, c * h)} for c in (1.0, 1.05))
    assert min(found.values()) > SIGNIFICANCE > wrong["slope of z"]
    lifted = {i.name: i for i in of_the_mean(level, h + 0.2)}
    assert lifted["bias"].p_value < SIGNIFICANCE


def test_field_without_data_is_examined_for_what_needs_none() -> None:
    oracle = exact("VP")
    found = diagnostics.examine_field(oracle, oracle.sample(40), times=some_times("VP"))
    assert found.verdict == "healthy" and "there are no data" in found.not_examined[0]
    assert all(row.loss is None and row.asymmetry is not None for row in found.rows)


def test_what_cannot_be_examined_is_refused() -> None:
    oracle = exact("VE")
    with pytest.raises(ValueError, match="at least 32"):
        diagnostics.examine(oracle, oracle.sample(8))
    with pytest.raises(ValueError, match="not finite; `scorefield data"):
        diagnostics.examine(oracle, oracle.sample(40) * math.nan)
    with pytest.raises(ValueError, match="the score is not finite at t = "):
        diagnostics.examine(FunctionScore(lambda x, t: x / 0.0, oracle.process), oracle.sample(40))
    with pytest.raises(ValueError, match="of one shape"):
        diagnostics.examine(oracle, oracle.sample(40), train=torch.zeros(9, 5))
    with pytest.raises(ValueError, match="alpha and sigma"):
        sde = GeneralSDE(drift=_drift, diffusion=_diffusion)
        diagnostics.examine(oracle, oracle.sample(40), process=sde)  # type: ignore[arg-type]


def _drift(x: Tensor, t: Tensor) -> Tensor:
    return -x


def _diffusion(x: Tensor, t: Tensor) -> Tensor:
    return torch.ones_like(x)
