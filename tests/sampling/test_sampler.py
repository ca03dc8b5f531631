"""The sampling loop, the record of a sampler, samplers by name, and the distributions of their samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scorefield._codec import dumps, loads
from scorefield._random import IndexedNoise
from scorefield.process import VE, VP, GeneralSDE, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from scorefield.process.general import NormalPrior
from scorefield.process.grids import EveryLevel, GeometricSigma, LogSNR, Uniform
from scorefield.sampling import (
    AdaptiveFlow,
    Ancestral,
    Chain,
    DataStart,
    EulerMaruyama,
    FlowEuler,
    FlowHeun,
    Hold,
    LadderScaled,
    Langevin,
    NormRatio,
    PriorStart,
    Progress,
    Repeat,
    ReverseDiffusion,
    Sampler,
    Step,
    UniformStart,
)
from scorefield.sampling.named import NAMED, named, with_steps
from scorefield.score import FunctionScore, Score
from scorefield.score.oracles import Mixture, skewed_gaussian, skewed_mixture
from scorefield.selftest.orders import affine_chain
from tolerance import ARRIVAL, DENOISED, FLOAT64, ORDER

F64 = torch.float64
LADDERS = [Tabulated(GeometricSigmas(0.01, 5.0, 12)), Tabulated(LinearBetas(0.1, 8.0, 16))]
PROCESSES = [VE(0.01, 5.0), VP(), SubVP(), *LADDERS]
IDS = ["VE", "VP", "sub-VP", "VE-ladder", "VP-ladder"]


class Counted(Score):
    """An oracle that counts how often each example of the batch is evaluated."""

    def __init__(self, oracle: Score):
        self.oracle, self.process, self.asked = oracle, oracle.process, 0

    def __call__(self, x: Tensor, t: Tensor, condition=None) -> Tensor:
        self.asked += len(x)
        return self.oracle(x, t, condition)

    def denoised(self, x: Tensor, t: Tensor, condition=None) -> Tensor:
        self.asked += len(x)
        return self.oracle.denoised(x, t, condition)


# ------------------------------------------------------------------------------------------ evaluations


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize("name", NAMED)
def test_reported_calls_are_calls(name: str, process: Process) -> None:
    score = Counted(skewed_mixture(process, 2))
    steps = None if name == "ode" or (isinstance(process, Tabulated) and not name.startswith("flow")) else 6
    sampler = named(name, process, steps)
    run = sampler.run(score, (2,), indices=range(3))
    assert int(run.calls.sum()) == score.asked
    assert run.status.tolist() == [0] * 3 and bool(torch.isfinite(run.x).all())
    per_step = sampler.step.calls_per_step()
    if per_step is not None:
        taken = (len(sampler.times(process)) - 1) * per_step
        assert set(run.calls.tolist()) <= {taken, taken + 1}, "each step as often as it says, and the final denoising"


def test_calls_of_parts_add_up() -> None:
    stay = Repeat(Langevin(), 3)
    assert Chain((stay, FlowHeun())).calls_per_step() == 5
    assert Chain((stay, Hold())).calls_per_step() == 3
    assert Chain((stay, AdaptiveFlow())).calls_per_step() is None
    # An adaptive part: counts differ between examples, the corrector's are the same for all.
    process = VP()
    score = Counted(skewed_mixture(process, 2))
    sampler = Sampler(Chain((stay, AdaptiveFlow())), Uniform(2), final="none")
    run = sampler.run(score, (2,), indices=range(6))
    assert int(run.calls.sum()) == score.asked and len(set(run.calls.tolist())) > 1


# ------------------------------------------------------------------------------------------ how it ends


def test_final() -> None:
    process = VP()
    oracle = skewed_mixture(process, 2)
    runs = {
        final: Sampler(EulerMaruyama(), Uniform(20), final=final).run(oracle, (2,), indices=range(4), dtype=F64)
        for final in ("none", "mean", "denoise")
    }
    none, mean, denoise = runs.values()
    assert torch.equal(none.x, none.raw) and torch.equal(mean.raw, none.x) and torch.equal(denoise.raw, none.x)
    last = torch.full((4,), process.t_min.sampling, dtype=F64)
    assert torch.allclose(denoise.x, oracle.denoised(none.x, last), rtol=FLOAT64)
    assert not torch.equal(mean.x, none.x)
    assert none.calls.tolist() == mean.calls.tolist() == [20] * 4 and denoise.calls.tolist() == [21] * 4


@pytest.mark.parametrize("table", LADDERS, ids=IDS[3:])
def test_a_step_below_level_zero_denoises_once(table: Tabulated) -> None:
    """At the end of such a grid the predictor's mean is the posterior mean, so it is not denoised a second time."""
    oracle = skewed_mixture(table, 2)
    level_0 = torch.zeros(4, dtype=F64)
    for step in (Ancestral(), ReverseDiffusion()):
        run = Sampler(step, EveryLevel()).run(oracle, (2,), indices=range(4), dtype=F64)
        before = Sampler(step, EveryLevel(clean=False), final="none").run(oracle, (2,), indices=range(4), dtype=F64)
        exact = isinstance(step, Ancestral) or bool((table.alpha(level_0) == 1).all())
        assert torch.allclose(run.x, oracle.denoised(before.x, level_0), rtol=0, atol=FLOAT64 if exact else DENOISED)
        assert run.calls.tolist() == [table.levels] * 4
    # Langevin dynamics has done nothing about the noise of level 0, so it is taken off.
    annealed = Sampler(Chain((Langevin(), Hold())), EveryLevel())
    run = annealed.run(oracle, (2,), indices=range(4), dtype=F64)
    assert torch.allclose(run.x, oracle.denoised(run.raw, level_0), rtol=FLOAT64)


def test_steps_by_rates_refuse_the_jump_below_level_zero() -> None:
    oracle = skewed_gaussian(LADDERS[0])
    for step in (EulerMaruyama(), FlowEuler(), FlowHeun(), AdaptiveFlow(), Chain((Langevin(), EulerMaruyama()))):
        with pytest.raises(ValueError, match=r"below level 0.*EveryLevel\(clean=False\)"):
            Sampler(step, EveryLevel()).run(oracle, (2,), indices=[0])


def test_annealed_langevin_visits_its_levels() -> None:
    """Annealed Langevin visits every level of a ladder, or as many levels as steps, and denoises at the last one."""
    visited: list[float] = []

    def score_at(process: Process) -> Score:
        return FunctionScore(lambda x, t: (visited.append(float(t[0])), -x)[1], process)

    table = LADDERS[0]
    named("ald", table).run(score_at(table), (2,), indices=[0])
    levels = [round(t * (table.levels - 1)) for t in visited[:-1:5]]
    assert levels == list(reversed(range(table.levels))) and visited[-1] == 0.0
    visited.clear()
    process = VE(0.01, 5.0)
    named("ald", process, 7).run(score_at(process), (2,), indices=[0])
    grid = GeometricSigma(7).times(process)
    assert visited[:-1:5] == grid[1:].tolist() and visited[-1] == process.t_min.sampling


# ------------------------------------------------------------------------------------------ how it starts


def test_starts() -> None:
    process = VE(0.01, 5.0)
    oracle = skewed_gaussian(process, 3)
    seen: list[Tensor] = []
    ours = FunctionScore(lambda x, t: (seen.append(x.clone()), oracle(x, t))[1], process)

    def first(start, **given) -> Tensor:
        seen.clear()
        Sampler(FlowEuler(), Uniform(2), start, **given.pop("settings", {})).run(
            ours, (3,), indices=range(400), **given
        )
        return seen[0]

    assert float(first(PriorStart()).std()) == pytest.approx(5.0, rel=0.1)
    uniform = first(UniformStart(-2.0, 1.0))
    assert -2.0 <= float(uniform.min()) < -1.9 and 0.9 < float(uniform.max()) < 1.0
    data = torch.arange(1200.0).reshape(400, 3)
    assert torch.equal(first(DataStart(noised=False), data=data), data)
    half = {"begin": 0.5}
    noised = first(DataStart(), data=data, settings=half)
    sigma = float(process.sigma(torch.tensor([0.5], dtype=F64)))
    assert float((noised - data).std()) == pytest.approx(sigma, rel=0.1)
    assert torch.equal(first(PriorStart(), latent=data, settings=half), data)


def test_begin_cuts_the_grid() -> None:
    process = VP()
    sampler = Sampler(EulerMaruyama(), Uniform(10), DataStart(), begin=0.45)
    whole, cut = Uniform(10).times(process), sampler.times(process)
    assert cut[0] == 0.45 and torch.equal(cut[1:], whole[whole < 0.45])
    assert torch.equal(Sampler(EulerMaruyama(), Uniform(10)).times(process), whole)


def test_where_the_samplers_process_replaces_the_scores() -> None:
    """Steps on a ladder with a score of the continuous process that the ladder discretises."""
    process, table = VP(0.1, 8.0), Tabulated(LinearBetas(0.1, 8.0, 40))
    levels = table.time(torch.arange(40))
    oracle = skewed_gaussian(process)
    sampler = Sampler(Ancestral(), EveryLevel(clean=False), process=table, final="none")
    assert torch.equal(sampler.times(process), levels.flip(0))
    ours = FunctionScore(lambda x, t: oracle.under(table)(x, t), table)
    run = sampler.run(ours, (2,), indices=range(3), dtype=F64)
    alone = Sampler(Ancestral(), EveryLevel(clean=False), final="none")
    assert torch.equal(run.x, alone.run(oracle.under(table), (2,), indices=range(3), dtype=F64).x)


# ------------------------------------------------------------------------------------------ callbacks


def test_callbacks_see_every_step() -> None:
    process = VP()
    seen: list[Progress] = []
    sampler = Sampler(EulerMaruyama(), Uniform(5), final="none")
    run = sampler.run(skewed_gaussian(process), (2,), indices=range(3), callbacks=[seen.append])
    assert [p.step for p in seen] == [1, 2, 3, 4, 5] and {p.steps for p in seen} == {5}
    assert [p.t for p in seen] == sampler.times(process)[1:].tolist()
    assert torch.equal(seen[-1].x, run.x) and not torch.equal(seen[-1].mean, run.x)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_a_callback_raises_ends_the_run(error: type[BaseException]) -> None:
    steps: list[int] = []

    def stop(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step == 3:
            raise error

    process = VP()
    with pytest.raises(error):
        Sampler(EulerMaruyama(), Uniform(9)).run(skewed_gaussian(process), (2,), indices=[0], callbacks=[stop])
    assert steps == [1, 2, 3]


def test_draws_are_never_used_twice() -> None:
    """Prior, correctors and predictors use different (step, draw) numbers of the noise."""
    asked: list[tuple[int, int]] = []

    class Watched(IndexedNoise):
        def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
            asked.append((step, draw))
            return super().normal(like, step, draw)

    process = VP()
    sampler = Sampler(Chain((Repeat(Langevin(), 3), ReverseDiffusion())), Uniform(4))
    sampler.run(skewed_gaussian(process), (2,), indices=[0, 1], noise=Watched(0, [0, 1]))
    assert len(asked) == len(set(asked)) == 1 + 4 * 4


# ------------------------------------------------------------------------------------------ bad input


def refused(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


def test_bad_input_is_named_and_answered() -> None:
    process = VP()
    oracle = skewed_mixture(process, 2)
    run = Sampler(EulerMaruyama(), Uniform(3)).run
    refused(lambda: named("anscetral", process), "anscetral", "ancestral")
    refused(lambda: named("ode", process, 20), "flow-heun")
    refused(lambda: named("em", process, 0), "steps=0")
    refused(lambda: with_steps(named("ode", process), 20), "AdaptiveFlow", "flow-heun")
    refused(lambda: with_steps(named("pc", LADDERS[0]), 20), "EveryLevel")
    refused(lambda: named("pc", process).run(oracle, (3,), indices=[0]), "shape")
    refused(lambda: run(oracle, (2,), indices=[0, 1], data=torch.zeros(1, 2)), "data", "(1, 2)", "(2, 2)")
    refused(lambda: run(oracle, (2,), indices=[0, 1], latent=torch.zeros(2, 3)), "latent", "(2, 3)")
    refused(lambda: run(oracle, (2,), indices=[0, 1], condition={"class": torch.zeros(3)}), "class", "3", "2")
    refused(lambda: Sampler(start=DataStart()).run(oracle, (2,), indices=[0]), "data=x")
    refused(lambda: Sampler(begin=0.0), "begin")
    refused(lambda: Sampler(begin=1.5), "begin", "1.5")
    refused(lambda: Sampler(begin=0.4).run(oracle, (2,), indices=[0]), "begin=0.4", "DataStart()")
    refused(
        lambda: Sampler(start=DataStart(), begin=1e-4).run(oracle, (2,), indices=[0], data=torch.zeros(1, 2)), "no step"
    )
    refused(lambda: Sampler(Langevin()), "Langevin", "Hold()")
    refused(lambda: Chain((Langevin(),)), "exactly one", "Hold()")
    refused(lambda: Chain((FlowEuler(), FlowEuler())), "exactly one")
    refused(lambda: Repeat(FlowEuler(), 2), "FlowEuler")
    refused(lambda: Repeat(Langevin(), 0), "0")
    refused(lambda: Sampler(EulerMaruyama(), EveryLevel()).run(oracle, (2,), indices=[0]), "VP", "Tabulated")


def test_with_steps_changes_the_grid_alone() -> None:
    sampler = named("flow-heun", VP())
    assert with_steps(sampler, 7) == Sampler(FlowHeun(), LogSNR(7))


# ------------------------------------------------------------------------------------------ as data


@pytest.mark.parametrize("process", PROCESSES, ids=IDS)
@pytest.mark.parametrize("name", NAMED)
def test_named_samplers_are_data(name: str, process: Process) -> None:
    sampler = named(name, process)
    assert loads(dumps(sampler), Sampler) == sampler


def test_a_sampler_with_every_option_is_data() -> None:
    steps: tuple[Step, ...] = (Repeat(Langevin(LadderScaled(1e-5, 0.01), "half"), 4), Ancestral("forward"))
    sampler = Sampler(Chain(steps), EveryLevel(), UniformStart(-1.0), "mean", LADDERS[1], begin=0.7)
    assert loads(dumps(sampler), Sampler) == sampler
    assert loads(dumps(Langevin(NormRatio(0.1, "batch"))), Step) == Langevin(NormRatio(0.1, "batch"))


# ------------------------------------------------------------------------------------------ where it arrives


@pytest.mark.parametrize("process", [VE(0.05, 20.0), VP(), SubVP()], ids=IDS[:3])
@pytest.mark.parametrize("name", ["pc", "em", "reverse-diffusion", "ancestral", "flow-euler", "flow-heun"])
def test_mean_and_covariance_reached_from_the_prior(name: str, process: Process) -> None:
    """Moments are exact for Gaussian data, because the chain is affine; flows take 60 steps, others 100."""
    sampler = named(name, process, 60 if name.startswith("flow") else 100)
    oracle = skewed_gaussian(process)
    chain = affine_chain(sampler.step, oracle, process, sampler.times(process))
    prior = process.prior_std**2 * torch.eye(2, dtype=F64)
    mean, covariance = chain.push(torch.zeros(2, dtype=F64), prior)
    exact_mean, exact_covariance = oracle.moments(process.t_min.sampling)
    bound = ARRIVAL[name]
    assert float((mean - exact_mean).norm() / exact_mean.norm()) <= bound
    assert float((covariance - exact_covariance).norm() / exact_covariance.norm()) <= bound


def test_conditions_are_respected() -> None:
    """With two distant classes every sample lies in its class, and samples of an unknown class in both."""
    process = VP()
    means = torch.tensor([[-2.0, 1.0], [2.0, 0.5]])
    oracle = Mixture(process, torch.tensor([0.5, 0.5]), means, torch.tensor([0.01, 0.02]), labels=(0, 1))
    for name in NAMED:
        wanted = torch.tensor([0, 1, 1, 0, 0, 1, -1, -1, -1, -1, -1, -1])
        sampler = named(name, process, None if name == "ode" else 40)
        x = sampler.run(oracle, (2,), indices=range(12), condition={"class": wanted}).x
        nearest = torch.cdist(x, means).argmin(1)
        assert torch.equal(nearest[:6], wanted[:6]), name
        assert float((x - means[nearest]).norm(dim=1).max()) < 1.0, name
        assert 0 < int(nearest[6:].sum()) < 6, name


# ------------------------------------------------------------------------------------------ general processes


def drift(x: Tensor, t: Tensor) -> Tensor:
    """A rotating, contracting drift."""
    return x @ torch.tensor([[-1.0, 0.8], [-0.5, -1.5]], dtype=x.dtype)


def diffusion(x: Tensor, t: Tensor) -> Tensor:
    """A constant 2 x 3 diffusion matrix: three noises drive two components."""
    return torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.6, 0.9]], dtype=x.dtype).expand(len(x), 2, 3)


GENERAL = GeneralSDE(drift, diffusion, "matrix", NormalPrior(0.0, 0.6), affine=True, state_dependent=False)


def general_law(t: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance at t of data N(m, C)."""
    m, C = skewed_gaussian(VP()).data_moments()
    law = GENERAL.transitions((2,)).moments(torch.tensor([t], dtype=F64))
    phi = law.transition[0]
    return phi @ m + law.offset[0], phi @ C @ phi.T + law.covariance[0]


def general_score(x: Tensor, t: Tensor) -> Tensor:
    mean, covariance = general_law(float(t[0]))
    return torch.linalg.solve(covariance, (mean - x).T).T


def general_error(step: Step, steps: int) -> float:
    """Error of mean and covariance of a chain from the exact distribution at t = 1, without Monte Carlo."""
    times = Uniform(steps).times(GENERAL)  # type: ignore[arg-type]
    score = FunctionScore(general_score, GENERAL)  # type: ignore[arg-type]
    chain = affine_chain(step, score, GENERAL, times)  # type: ignore[arg-type]
    mean, covariance = chain.push(*general_law(1.0))
    exact_mean, exact_covariance = general_law(float(times[-1]))
    return float((mean - exact_mean).norm() + (covariance - exact_covariance).norm())


@pytest.mark.parametrize("step", [EulerMaruyama(), FlowEuler(), FlowHeun()], ids=lambda s: type(s).__name__)
def test_steps_by_rates_run_under_a_general_sde(step: Step) -> None:
    """Steps have their declared order for a matrix diffusion with three noises and two components."""
    assert step.order is not None
    order = math.log2(general_error(step, 16) / general_error(step, 32))
    assert abs(order - step.order) <= ORDER


def test_a_general_sde_samples_from_its_prior() -> None:
    score = FunctionScore(general_score, GENERAL)  # type: ignore[arg-type]
    for step in (EulerMaruyama(), AdaptiveFlow()):
        sampler = Sampler(step, Uniform(4), final="mean")
        run = sampler.run(score, (2,), indices=range(3), dtype=F64)
        assert run.x.shape == (3, 2) and run.status.tolist() == [0, 0, 0]
    refused(lambda: Sampler(ReverseDiffusion(), final="mean").run(score, (2,), indices=[0]), "EulerMaruyama()")
    refused(lambda: Sampler(EulerMaruyama()).run(score, (2,), indices=[0]), "denoise", 'final="mean"')
