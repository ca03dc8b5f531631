"""Choosing samplers: what is measured of them on laws known in closed form, budgets from exact power laws, tuning."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from scorefield._codec import dumps, loads
from scorefield.evaluation.samplers import Real, Subject, choose, measure, nearer_to_data, of_score, parse_budget, tune
from scorefield.evaluation.samplers.candidates import Candidate, candidates, dry_run, other_grids, with_calls
from scorefield.evaluation.samplers.measurement import converged_flow, trajectory_error, with_fronts
from scorefield.evaluation.samplers.page import COLUMNS, cells, ordered, sections
from scorefield.evaluation.samplers.settings import Setting, admissible_eta, settings_of
from scorefield.evaluation.samplers.tuning import Criterion, search_number
from scorefield.metrics.energy_distance import energy_distance
from scorefield.models.sampler_records import Measured, MeasureReceipt, Refused, SamplerRow, SamplerTable, TunedSampler
from scorefield.process import VE, VP, GeometricSigmas, Tabulated
from scorefield.process.grids import EveryLevel, LogSNR, PowerSigma, Uniform
from scorefield.sampling import (
    AdaptiveFlow,
    Chain,
    Consistent,
    FlowEuler,
    FlowHeun,
    Hold,
    Langevin,
    NoiseScaled,
    Repeat,
    Sampler,
)
from scorefield.sampling.named import NAMED, named
from scorefield.score.oracles import Gaussian
from tolerance import FLOAT64, FLOW_OF_A_GAUSSIAN, INTERPOLATED

F64 = torch.float64
MEAN = torch.tensor([0.5, -1.0], dtype=F64)
VARIANCES = torch.tensor([0.4, 0.09], dtype=F64)
PLAIN = MeasureReceipt("oracle", None, None, 40, 0)


def gaussian(process: Any) -> Subject:
    return of_score(Gaussian(process, mean=MEAN, covariance=VARIANCES.diag()), (2,))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def data(count: int, seed: int = 5) -> Real:
    return Real(MEAN + VARIANCES.sqrt() * normal(seed, count, 2))


# ------------------------------------------------------------------------------------------------ candidates


@pytest.fixture(scope="module")
def nine() -> tuple[list[Candidate], list[Refused]]:
    """Every sampler under VP at nine calls."""
    return candidates(gaussian(VP()), [9], variants=False)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer names, for what each of them would show."""
    few = {name: NAMED[name] for name in ("pc", "ancestral", "flow-heun", "dpm")}
    monkeypatch.setattr("scorefield.evaluation.samplers.candidates.NAMED", few)


def test_every_named_sampler_is_a_candidate_or_refused_with_a_reason(nine: Any) -> None:
    found, refused = nine
    assert {c.name for c in found} | {r.name for r in refused} == set(NAMED)
    assert all(r.reason for r in refused)


def test_deterministic_candidates_are_those_that_give_the_same_end_under_other_noise(nine: Any) -> None:
    subject, latent = gaussian(VP()), normal(1, 2, 2)
    for candidate in nine[0]:
        if candidate.variant in ("", "tolerance 1e-02"):
            ends = [
                candidate.sampler.run(subject.score, (2,), indices=range(2), seed=s, latent=latent, dtype=F64).x
                for s in (0, 1)
            ]
            assert torch.equal(*ends) == candidate.deterministic, candidate.name
    assert {"ode", "flow-euler", "dpm"} <= {c.name for c in nine[0] if c.deterministic}


def test_the_dry_run_makes_as_many_calls_as_the_score_counts(nine: Any) -> None:
    subject = gaussian(VP())
    for candidate in nine[0]:
        made = dry_run(candidate.sampler, VP()).calls
        if candidate.sampler.step.calls_per_step() is not None:
            assert made == int(subject.draw(candidate.sampler, 0, 2).calls[0]) <= 9


def test_the_most_steps_within_a_number_of_calls() -> None:
    process = VP()
    for calls, steps in ((3, 1), (12, 5), (13, 6)):  # two calls a step and one to denoise
        sampler, trial = with_calls(lambda n: named("flow-heun", process, n), process, calls)
        assert sampler.grid == LogSNR(steps) and trial.calls == 2 * steps + 1
    bare, trial = with_calls(lambda n: Sampler(FlowEuler(), LogSNR(n), final="none"), process, 4)
    assert bare.grid == LogSNR(4) and trial.calls == 4
    with pytest.raises(ValueError, match="least number of calls is 3"):
        with_calls(lambda n: named("flow-heun", process, n), process, 2)
    with pytest.raises(ValueError, match="at least 1"):
        candidates(gaussian(process), [0])


@pytest.mark.usefixtures("few")
def test_what_a_ladder_does_not_admit_is_refused_with_the_samplers_own_words() -> None:
    ladder = Tabulated(GeometricSigmas(0.01, 10.0, 12), between="floor")
    found, refused = candidates(gaussian(ladder), [8, 11], variants=False)
    reasons = {r.name: (r.calls, r.reason) for r in refused}
    assert reasons["flow-heun"][0] is None and "between=" in reasons["flow-heun"][1]
    assert {"pc", "ancestral"} <= {c.name for c in found}


@pytest.mark.usefixtures("few")
def test_variants_change_one_thing_and_only_of_flows() -> None:
    found, refused = candidates(gaussian(VP()), [25])
    changed = [c for c in found if c.variant]
    assert changed and all(c.deterministic for c in changed)
    base = {c.name: c.sampler for c in found if not c.variant}
    for candidate in changed:
        own, other = base[candidate.name], candidate.sampler
        assert (own.step == other.step) != (own.grid == other.grid)
    orders = {c.sampler.step.order for c in found if c.name == "dpm"}
    assert {2, 3, 4} <= orders
    assert any(r.name == "dpm, order 1" and r.calls is None for r in refused)


def test_two_names_of_the_same_times_are_one() -> None:
    """Under VE equal steps in t, log sigma and log SNR are the same; under VP they are not."""
    assert LogSNR(9) not in other_grids(Uniform(9), VE(0.01, 10.0)) and LogSNR(9) in other_grids(Uniform(9), VP())
    assert PowerSigma(9) in other_grids(Uniform(9), VE(0.01, 10.0))
    assert other_grids(EveryLevel(), VP()) == []


# ------------------------------------------------------------------------------------------------ measuring


def exact_flow(subject: Subject, n: int) -> Tensor:
    """Where the flow of a Gaussian ends: deviations scale by the ratio of standard deviations; then denoised."""
    process = subject.score.process
    t = torch.tensor([1.0, process.t_min.sampling], dtype=F64)
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    deviation = (alpha**2 * VARIANCES + sigma**2).sqrt()
    latent = subject.draw(Sampler(FlowEuler(), Uniform(1), final="none"), 0, n)
    from scorefield._random import PRIOR_STEP, IndexedNoise

    start = process.prior_std * IndexedNoise(0, range(n)).normal(latent.x, PRIOR_STEP, 0)
    end = (start - alpha[0] * MEAN) * deviation[1] / deviation[0]
    return MEAN + alpha[1] * VARIANCES / deviation[1] ** 2 * end


@pytest.mark.parametrize("process", [VP(), VE(0.01, 10.0)], ids=["VP", "VE"])
def test_errors_are_those_against_the_exact_flow(process: Any) -> None:
    subject, n = gaussian(process), 40
    wanted = exact_flow(subject, n)
    flow = converged_flow(subject, n)
    assert float((flow.drawn.x - wanted).abs().max()) < FLOW_OF_A_GAUSSIAN
    assert 0.0 < flow.error < FLOW_OF_A_GAUSSIAN
    sampler = Sampler(FlowHeun(), LogSNR(12))
    table = measure(subject, [Candidate("heun", "", sampler, True)], PLAIN)
    (row,) = table.rows
    error = (subject.draw(sampler, 0, n).x - wanted).square().mean().sqrt()
    assert row.error is not None and row.error.number == pytest.approx(float(error), abs=FLOW_OF_A_GAUSSIAN)
    assert row.error.number > 100 * FLOW_OF_A_GAUSSIAN  # or the comparison could not fail
    assert row.calls == 25 and row.to_data is None and row.beyond_flow is None and row.to_flow is not None


def test_the_error_of_the_error_is_its_spread() -> None:
    sets = 300
    x = normal(2, sets, 50, 4)
    found = [trajectory_error(rows, torch.zeros_like(rows))[0] for rows in x]
    spread = torch.tensor([f.number for f in found]).std()
    stated = sum(f.std_error for f in found) / sets
    assert float(spread) == pytest.approx(stated, rel=0.15)
    _, (middle, high) = trajectory_error(
        torch.tensor([[3.0, 4.0]] * 19 + [[30.0, 40.0]], dtype=F64), torch.zeros(20, 2)
    )
    assert middle == pytest.approx(12.5**0.5) and middle < high


def test_distances_tell_a_right_sampler_from_a_wrong_one() -> None:
    subject, real = gaussian(VP()), data(60)
    right = subject.named("sde-dpm", 20)
    wrong = Sampler(FlowEuler(), Uniform(2))
    chosen = [Candidate("right", "", right, False), Candidate("wrong", "", wrong, True)]
    table = measure(subject, chosen, replace(PLAIN, count=60), real=real)
    good, bad = table.rows
    assert good.to_data is not None and bad.beyond_flow is not None and bad.to_data is not None
    assert abs(good.to_data.number) < 4 * good.to_data.std_error
    assert bad.beyond_flow.interval[0] > 0.0
    # noise and data are shared with the flow
    assert good.error is None
    found = converged_flow(subject, 60)
    own = energy_distance(subject.draw(wrong, 0, 60).x, real.x)
    assert bad.to_data.number == pytest.approx(own.number, abs=FLOAT64)
    base = energy_distance(found.drawn.x, real.x)
    assert bad.beyond_flow.number == pytest.approx(own.number - base.number, abs=FLOAT64)
    assert loads(dumps(table), SamplerTable) == table


def test_failures_are_listed_not_hidden() -> None:
    subject = gaussian(VP())

    def draw(sampler: Sampler, first: int, n: int) -> Any:
        drawn = subject.draw(sampler, first, n)
        if isinstance(sampler.step, FlowHeun):
            return replace(drawn, status=torch.ones(n, dtype=torch.long))
        if sampler.grid == LogSNR(7):
            drawn.status[3] = 3
        if sampler.grid == LogSNR(5):
            raise ValueError("cannot")
        return drawn

    chosen = [
        Candidate("all fail", "", Sampler(FlowHeun(), LogSNR(4)), True),
        Candidate("raises", "", Sampler(FlowEuler(), LogSNR(5)), True),
        Candidate("one fails", "", Sampler(FlowEuler(), LogSNR(7)), True),
    ]
    table = measure(replace(subject, draw=draw), chosen, PLAIN)
    assert {r.name: r.reason for r in table.refused} == {
        "all fail": "40 of 40 samples failed: 40 too many steps",
        "raises": "cannot",
    }
    (row,) = table.rows
    assert row.failed == 1 and not row.best_error and not row.best_distance
    with pytest.raises(ValueError, match="without failures"):
        choose(table, parse_budget("nfe=50"), 4, VP(), 0.0)


def test_a_model_without_a_flow_is_compared_by_distance_alone() -> None:
    subject = gaussian(VP())

    def draw(sampler: Sampler, first: int, n: int) -> Any:
        if isinstance(sampler.step, AdaptiveFlow):
            raise ValueError("only its ladder")
        return subject.draw(sampler, first, n)

    chosen = [Candidate("euler", "", Sampler(FlowEuler(), LogSNR(n)), True) for n in (3, 20)]
    table = measure(replace(subject, draw=draw), chosen, PLAIN, real=data(30))
    assert [(r.name, r.reason) for r in table.refused] == [("the converged flow", "only its ladder")]
    assert len(table.rows) == 2 and all(r.error is None and r.to_data is not None for r in table.rows)
    assert table.receipt.reference is None
    with pytest.raises(ValueError, match="this model has not"):
        choose(table, parse_budget("error=0.1"), 4, VP(), 0.0)
    choice = choose(table, parse_budget("nfe=40"), 4, VP(), 0.0)
    assert choice.of.startswith("squared energy distance") and choice.calls <= 40


def test_too_few_samples_or_data() -> None:
    subject = gaussian(VP())
    chosen = [Candidate("heun", "", Sampler(FlowHeun(), LogSNR(4)), True)]
    with pytest.raises(ValueError, match="-n 7 samples are too few"):
        measure(subject, chosen, replace(PLAIN, count=7))
    with pytest.raises(ValueError, match="5 real examples are too few"):
        measure(subject, chosen, PLAIN, real=data(5))


# ------------------------------------------------------------------------------------------------ fronts and budgets


def row(name: str, calls: int, error: float, **other: Any) -> SamplerRow:
    """A row of a solver with one call a step and one to denoise."""
    sampler = Sampler(FlowEuler(), LogSNR(calls - 1))
    values = {"error": Measured(error, 0.01 * error), "deterministic": True, "seconds": 0.01 * calls, "variant": ""}
    return SamplerRow(name=name, sampler=sampler, calls=calls, **{**values, **other})


def power_law(name: str, order: float, constant: float = 1.0) -> list[SamplerRow]:
    return [row(name, calls, constant * calls**-order) for calls in (5, 10, 20, 50)]


def table_of(*rows: SamplerRow) -> SamplerTable:
    return SamplerTable(rows, (), replace(PLAIN, seconds_per_call=0.01))


TWO = table_of(*power_law("first", 1.0), *power_law("second", 2.0, 8.0))  # they cross at 8 calls


@pytest.mark.parametrize(
    ("budget", "title", "calls", "error"),
    [("nfe=40", "second", 40, 8 / 1600), ("nfe=7", "first", 7, 1 / 7), ("nfe=20", "second", 20, 8 / 400),
     ("nfe=400", "second", 50, 8 / 2500), ("error=0.01", "second", 29, 8 / 841), ("error=0.5", "first", 5, 0.2),
     ("seconds=1.5", "second", 15, 8 / 225)],
)  # fmt: skip
def test_a_budget_follows_the_power_law(budget: str, title: str, calls: int, error: float) -> None:
    """Errors c N^-p are interpolated exactly; the choice is the best within the budget."""
    choice = choose(TWO, parse_budget(budget), 10, VP(), 0.01)
    assert (choice.title, choice.calls) == (title, calls)
    assert choice.quality == pytest.approx(error, rel=INTERPOLATED)
    assert choice.interval[0] < choice.quality < choice.interval[1]
    assert dry_run(choice.sampler, VP()).calls == calls
    assert choice.seconds == pytest.approx(0.1 * calls, rel=INTERPOLATED)
    assert ("measured" in choice.how) == (calls in (5, 10, 20, 50))


def test_an_error_is_promised_by_the_upper_end_of_its_interval() -> None:
    choice = choose(TWO, parse_budget("error=0.0098"), 10, VP(), 0.01)
    assert choice.quality < choice.interval[1] <= 0.0098
    fewer = 8 / (choice.calls - 1) ** 2
    assert fewer * (1 + 0.0196) > 0.0098


def test_the_interval_of_an_error_holds_that_of_the_flow_itself() -> None:
    """The flow moved by 0.09 at ten times its tolerance: its error is a ninth of that, on both sides."""
    table = replace(TWO, receipt=replace(TWO.receipt, reference_error=0.09))
    sure, unsure = (choose(t, parse_budget("nfe=10"), 10, VP(), 0.01) for t in (TWO, table))
    assert unsure.interval[1] == pytest.approx(sure.interval[1] + 0.01, rel=INTERPOLATED)
    assert unsure.interval[0] == pytest.approx(sure.interval[0] - 0.01, rel=INTERPOLATED)
    assert choose(table, parse_budget("error=0.02"), 10, VP(), 0.01).calls > 20


def test_seconds_are_those_of_this_machine() -> None:
    now = choose(TWO, parse_budget("seconds=3"), 10, VP(), 0.02)  # half as fast as when it was measured
    assert now.calls == 15 and now.seconds == pytest.approx(3.0)


def test_ties_go_to_the_cheaper() -> None:
    table = table_of(row("a", 10, 0.0099), row("b", 20, 0.00985), row("c", 40, 0.0098))
    assert choose(table, parse_budget("nfe=50"), 1, VP(), 0.01).title == "a"
    assert (
        choose(table_of(row("a", 10, 0.02), row("b", 20, 0.0099)), parse_budget("nfe=50"), 1, VP(), 0.01).title == "b"
    )


def test_a_rising_error_is_not_interpolated_into_a_promise() -> None:
    table = table_of(row("a", 10, 0.1), row("a", 20, 0.3), row("a", 40, 0.01))
    assert choose(table, parse_budget("nfe=22"), 1, VP(), 0.01).calls == 10
    assert choose(table, parse_budget("error=0.15"), 1, VP(), 0.01).calls == 10


@pytest.mark.parametrize(
    ("budget", "message"),
    [("nfe=4", "too few: the cheapest measured is first; use --budget nfe=5"),
     ("seconds=0.1", "too little for 10 samples.*use --budget seconds=0.5, or draw fewer"),
     ("error=1e-4", "the smallest is 0.0032 .at most 0.0033. by second with 50 calls; use --budget error=0.0033")],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_with_the_nearest_that_can(budget: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(TWO, parse_budget(budget), 10, VP(), 0.01)
    nearest = message.split("use --budget ")[1].split(",")[0]
    choose(TWO, parse_budget(nearest), 10, VP(), 0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [("nfe", "not KIND=NUMBER"), ("second=3", "Did you mean seconds"), ("nfe=many", "'many' is not a number"),
     ("error=0", "positive"), ("seconds=-1", "positive"), ("nfe=2.5", "whole numbers"), ("error=nan", "positive"),
     ("error=inf", "positive")],
)  # fmt: skip
def test_budgets_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_budget(text)


def test_what_comes_nearer_to_the_data_than_the_flow_is_told() -> None:
    close = replace(row("pc", 30, 0.1), error=None, beyond_flow=Measured(-0.5, 0.1), best_distance=True)
    table = table_of(*power_law("first", 1.0), close)
    assert nearer_to_data(table, 30) == close
    assert nearer_to_data(table, 29) is None
    unsure = replace(close, beyond_flow=Measured(-0.5, 0.3))
    assert nearer_to_data(table_of(unsure), 30) is None


def test_fronts() -> None:
    """By error: no cheaper or equal row is as good. By distance: better than all cheaper ones beyond the noise."""
    rows = [row("a", 10, 0.1), row("b", 10, 0.2), row("c", 20, 0.15), row("d", 20, 0.05), row("e", 40, 0.049)]
    real, noise = normal(7, 200, 1), normal(8, 200, 1)
    distances = [energy_distance(noise + shift, real) for shift in (1.0, 1.2, 1.0, 0.2, 0.21)]
    found = with_fronts(rows, distances)
    assert [r.best_error for r in found] == [True, False, False, True, True]
    assert [r.best_distance for r in found] == [True, False, False, True, False]
    failed = with_fronts([replace(rows[0], failed=1), *rows[1:]], [None, *distances[1:]])
    assert [r.best_error for r in failed] == [False, True, False, True, True]


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_shows_every_row_and_every_failure(tmp_path: Any) -> None:
    from scorefield.reports.report import write_report

    subject, refused = gaussian(VP()), [Refused("hmc", None, "needs an energy")]
    chosen = [Candidate(n, "", subject.named(n, k), n != "em") for n, k in (("dpm", 9), ("em", 9), ("dpm", 4))]
    for tolerance in (1e-1, 1e-2):
        step = AdaptiveFlow(tolerance, tolerance)
        chosen.append(Candidate("ode", f"tolerance {tolerance:g}", Sampler(step, Uniform(1)), True))
    table = measure(subject, chosen, PLAIN, real=data(30), refused=refused)
    text = write_report(tmp_path / "samplers.html", sections(table), title="t").read_text()
    for found in table.rows:
        assert all(len(c) == len(COLUMNS) for c in [cells(found)]) and found.title in text
    assert "Not measured" in text and refused[0].reason in text
    assert (
        text.count("<svg") == 2
        and "<script" not in text
        and "http" not in text.split("</style>")[1].replace("http://www.w3.org", "")
    )
    assert [(r.name, r.calls) for r in ordered(table)][:3] == [("dpm", 5), ("dpm", 10), ("em", 10)]


# ------------------------------------------------------------------------------------------------ tuning


def test_settings_and_their_admissible_intervals() -> None:
    process = VE(0.01, 10.0)
    (snr,) = settings_of(named("pc", process, 10), process)
    assert snr.path == "step.steps.0.size.snr" and snr.of(named("pc", process, 10)) == 0.16
    louder = snr.put(named("pc", process, 10), 0.3)
    assert snr.of(louder) == 0.3 and replace(louder, step=named("pc", process, 10).step) == named("pc", process, 10)
    grid = Sampler(FlowHeun(), PowerSigma(8))
    assert [s.what for s in settings_of(grid, process)] == ["rho"]
    (half,) = settings_of(Sampler(Chain((Langevin(NoiseScaled(0.1), convention="half"), Hold())), Uniform(4)), process)
    assert half.high == pytest.approx(0.9 * 2**0.5)
    (ald,) = settings_of(named("ald", process, 30), process)
    # Technique 4: the snr at which its own formula is least
    eta = 2 * ald.hints[0] ** 2
    gamma = 1000.0 ** (1 / 30)

    def carried(e: float) -> float:
        stationary = 2 * e / (1 - (1 - e) ** 2)
        return (1 - e) ** 10 * (gamma**2 - stationary) + stationary

    assert carried(eta) <= min(carried(0.98 * eta), carried(1.02 * eta))


@pytest.mark.parametrize("process", [VE(0.01, 10.0), VP(), Tabulated(GeometricSigmas(0.01, 10.0, 20))], ids=str)
def test_consistent_annealing_stays_inside_its_admissible_interval(process: Any) -> None:
    sampler = named("cas", process, 19)
    low, high = admissible_eta(sampler, process)
    subject = gaussian(process)
    for eta in (low, high):
        assert bool(torch.isfinite(subject.draw(replace(sampler, step=Consistent(eta)), 0, 2).x).all())
    with pytest.raises(ValueError, match="not admissible"):
        subject.draw(replace(sampler, step=Consistent(0.98 * low)), 0, 2)
    if isinstance(process, Tabulated):
        gamma = 1000.0 ** (1 / 19)
        assert low == pytest.approx(1 - 1 / gamma, rel=1e-4)


def test_tuning_finds_the_better_end_where_it_is_known() -> None:
    """On nearly a point the variance at a level is sigma^2 / (1 - snr^2) with a large step, and lags with a small one.

    The chain keeps its noise at the end, so that the data are the point with the noise of the lowest level.
    """
    ladder = Tabulated(GeometricSigmas(0.05, 2.0, 8))
    subject = of_score(Gaussian(ladder, mean=MEAN, covariance=1e-6 * torch.eye(2, dtype=F64)), (2,))
    sampler = Sampler(Chain((Repeat(Langevin(NoiseScaled(0.85)), 3), Hold())), EveryLevel(), final="none")
    real = Real(MEAN + 0.05 * normal(9, 150, 2))
    found = tune(subject, sampler, replace(PLAIN, count=64), real=real)
    (setting,) = settings_of(sampler, ladder)
    assert found.adopted and found.gain.interval[0] > 0.0
    assert 0.2 < setting.of(found.sampler) < 0.75
    criterion = Criterion.start(subject, 200, 64, real)
    values = [criterion(setting.put(sampler, snr)) for snr in (0.05, setting.of(found.sampler), 0.89)]
    low, best, high = (v.number for v in values if v is not None)
    assert best < low and best < high
    assert any("adopted" in line for line in found.conclusion) and any("snr" in line for line in found.conclusion)
    assert loads(dumps(found), TunedSampler) == found


def test_ties_leave_the_sampler_as_it_was() -> None:
    """A grid of many steps: no setting matters, and nothing is claimed."""
    subject = gaussian(VP())
    sampler = subject.named("edm", 12)
    found = tune(subject, sampler, PLAIN, real=data(30))
    assert not found.adopted and found.sampler == sampler
    assert any("stays as it was" in line for line in found.conclusion)


def test_a_search_narrows_until_the_noise() -> None:
    """With a criterion that is exact, the middle of a valley is found to a few percent."""

    class Exact(Criterion):
        def _measured(self, sampler: Sampler) -> Any:
            place = math.log(sampler.grid.rho / 5.0)  # type: ignore[attr-defined]
            return energy_distance(torch.tensor([[place], [place], [place]], dtype=F64), torch.zeros(3, 1, dtype=F64))

    subject = gaussian(VP())
    found = search_number(
        Exact(subject, 0, 3, None), Sampler(FlowHeun(), PowerSigma(8, 1.5)), Setting("grid.rho", "rho", 1.0, 20.0)
    )
    assert 4.0 < found.best < 6.2 and found.taken == found.best and len(found.tried) > 8
    assert found.sampler.grid == PowerSigma(8, found.best)


def test_the_flow_stands_in_where_there_are_no_data() -> None:
    subject = gaussian(VP())
    sampler = replace(subject.named("edm", 4), grid=PowerSigma(4, 1.0))
    found = tune(subject, sampler, PLAIN)
    assert "converged flow" in found.criterion and found.adopted
    assert found.receipt.reference is not None and found.gain.number > 0.0


def test_what_has_no_setting_is_refused() -> None:
    ladder = Tabulated(GeometricSigmas(0.01, 10.0, 12))
    with pytest.raises(ValueError, match="no setting to tune"):
        tune(gaussian(ladder), Sampler(named("ancestral", ladder).step, EveryLevel()), PLAIN, real=data(30))
    subject = gaussian(VP())
    with pytest.raises(ValueError, match="-n 3 samples are too few"):
        tune(subject, subject.named("pc", 5), replace(PLAIN, count=3), real=data(30))
