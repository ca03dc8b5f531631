"""Checks of samplers: the order of every step that declares one, stationary laws, and samples kept to themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from scorefield._random import IndexedNoise, StepNoise
from scorefield.process import VE, VP, GeometricSigmas, LinearSigmas, Process, SubVP, Tabulated
from scorefield.process.grids import EveryLevel, LogSNR, Uniform
from scorefield.sampling import (
    HMC,
    MALA,
    AdaptiveFlow,
    AdaptiveSDE,
    Ancestral,
    Chain,
    Consistent,
    ExponentialMultistep,
    Hold,
    LadderScaled,
    Langevin,
    Sampler,
    Step,
    TemperatureLangevin,
    TemperatureSchedule,
)
from scorefield.sampling.named import NAMED, named
from scorefield.score import FunctionScore, Score
from scorefield.score.oracles import Gaussian, skewed_gaussian, skewed_mixture
from scorefield.selftest.check import (
    DEVIATIONS,
    Bench,
    Found,
    Room,
    Stream,
    farthest,
    largest,
    relative,
    surprise,
    times,
)
from scorefield.selftest.orders import (
    LOW_STARTS,
    PROBLEMS,
    FixedDormandPrince,
    affine_chain,
    applies,
    low_start_order,
    measured_order,
    ordered_steps,
)

ROOM = Room("sampling", "measured orders of convergence, stationary laws, exact noise, invariance")

# ------------------------------------------------------------------------------------------------ orders


def _ordered(step: Step) -> Callable[[Bench], Found]:
    def measure(bench: Bench) -> Found:
        assert step.order is not None
        orders = {p.name: measured_order(step, p, bench.device)[0] for p in PROBLEMS if applies(step, p)}
        return farthest(orders, step.order)

    return measure


def _started_low(step: ExponentialMultistep, order: int) -> Callable[[Bench], Found]:
    return lambda bench: farthest({"VE": low_start_order(step, bench.device)}, order)


def _named(step: Step) -> str:
    """Its class, and the settings that are not the defaults."""
    if isinstance(step, FixedDormandPrince):
        return "AdaptiveFlow, steps fixed"
    settings = {f.name: (getattr(step, f.name), f.default) for f in fields(step)} if is_dataclass(step) else {}
    told = [k if v is True else f"{k}={v}" for k, (v, default) in settings.items() if v != default or k == "order"]
    return f"{type(step).__name__}({', '.join(told)})" if told else type(step).__name__


_NEXT_ORDER = "terms of the next order at the finest grid; a step of another order is off by 0.5 or more"

for _step in ordered_steps():
    assert _step.order is not None
    ROOM.check(
        f"order of {_named(_step)}",
        claim=f"converges at order {_step.order}",
        by="slope of log error of mean and covariance over log step, exact on Gaussian data without random numbers",
        target=_step.order,
        allowed=0.15,
        why=_NEXT_ORDER,
        unit="order",
    )(_ordered(_step))

for _low, _order in LOW_STARTS:
    ROOM.check(
        f"order of {_named(_low)}",
        claim=f"converges at order {_order}, that of its first step",
        by="slope of log error of mean and covariance over log step, between 128 and 256 steps under VE",
        target=_order,
        allowed=0.15,
        why=_NEXT_ORDER,
        unit="order",
    )(_started_low(_low, _order))


@ROOM.check(
    "exact on the unit Gaussian",
    claim="ancestral sampling with the forward variance takes N(0, I) to itself in any number of steps",
    by="covariance of one chain of three steps, less I (Ho et al. 2020, section 3.2)",
    allowed=1e-12,
    why="rounding of three float64 steps",
)
def _unit(bench: Bench) -> Found:
    process = VP(0.1, 8.0)
    oracle = Gaussian(process, torch.zeros(2, dtype=torch.float64), 1.0)
    chain = affine_chain(Ancestral("forward"), oracle, process, Uniform(3).times(process), device=bench.device)
    one = torch.eye(2, dtype=torch.float64)
    return largest({"covariance": relative(chain.push(torch.zeros(2, dtype=torch.float64), one)[1], one)})


# ------------------------------------------------------------------------------------------------ Langevin

_LEVEL, _NEXT = 0.5, 0.4
_FIXED_POINT = "fixed point of a float64 iteration of some thousand steps"


def _stationary(bench: Bench, step: Step, score: Score, process: Process, rounds: int) -> float:
    """Iterate the exact mean and covariance of a corrector at noise 0.5 to the fixed point; the variance."""
    grid = process.time_at_sigma(times(_LEVEL, _NEXT))
    chain = affine_chain(Chain((step, Hold())), score, process, grid, device=bench.device)
    mean, covariance = torch.zeros(2, dtype=torch.float64), 3.0 * torch.eye(2, dtype=torch.float64)
    for _ in range(rounds):
        mean, covariance = chain.push(mean, covariance)
    return float(covariance.trace()) / 2.0


@ROOM.check(
    "Langevin conventions",
    claim="Langevin steps leave the variance that each convention states, on Gaussians of variance v",
    by="v / (1 - e / (2 v)) for x + e s + sqrt(2 e) z; v / (1 - e / (4 v)) for e / 2 and sqrt(e); noise first:"
    " (1 - e / v)^2 times the first",
    allowed=1e-8,
    why=_FIXED_POINT,
)
def _langevin(bench: Bench) -> Found:
    process, errors = VE(0.01, 5.0), {}
    for v in (0.5, 1.3):
        data = Gaussian(process, times(0.7, -2.0), v - _LEVEL**2)
        for e in (0.02, 0.3):
            rule, rounds = LadderScaled(epsilon=e, sigma_end=_LEVEL), math.ceil(40 * v / e)
            for name, step, wanted in (
                ("full", Langevin(rule), v / (1 - e / (2 * v))),
                ("half", Langevin(rule, "half"), v / (1 - e / (4 * v))),
                ("noise first", Langevin(rule, noise="first"), v * (1 - e / v) ** 2 / (1 - e / (2 * v))),
            ):
                found = _stationary(bench, step, data, process, rounds)
                errors[f"{name}, v = {v:g}, e = {e:g}"] = abs(found / wanted - 1.0)
    return largest(errors)


@ROOM.check(
    "annealed temperature",
    claim="annealed-temperature Langevin leaves its stated variance on the largest curvature of an energy",
    by="T sigma_0^2 / (1 - a / 2), a = step^2 / (2 sigma_0^2), where E = |x - m|^2 / (2 sigma_0^2)",
    allowed=1e-8,
    why=_FIXED_POINT,
)
def _temperature(bench: Bench) -> Found:
    process, sigma_0, step, errors = Tabulated(LinearSigmas(0.05, 1.2, 16)), 0.1, 0.06, {}
    score = FunctionScore(lambda x, t: (0.3 - x) / process.sigma(t).to(x)[:, None] ** 2, process)
    for T in (2.0, 9.0):
        walk = TemperatureLangevin(TemperatureSchedule(high=T), step, sigma_0)
        chain = affine_chain(walk, score, process, times(1.0, 0.99), device=bench.device)
        mean, covariance = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        for _ in range(400):
            mean, covariance = chain.push(mean, covariance)
        a = 0.5 * (step / sigma_0) ** 2
        errors[f"T = {T:g}"] = abs(float(covariance[0, 0]) / (T * sigma_0**2 / (1.0 - 0.5 * a)) - 1.0)
    return largest(errors)


@ROOM.check(
    "Metropolis tests",
    claim="MALA and Hamiltonian Monte Carlo leave their law exactly, at a step at which plain Langevin is far off",
    by="changes of x and |x|^2 over 15 proposals of 8,000 chains started in a mixture, in standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _metropolis(bench: Bench) -> Found:
    process, size, errors = VE(0.01, 5.0), LadderScaled(0.35, _LEVEL), {}
    oracle, n = skewed_mixture(process), 8_000
    t = process.time_at_sigma(times(_LEVEL)).expand(n)
    start = bench.to(oracle.sample(n, t, noise=Stream(1)))
    for name, step in (("MALA", MALA(size)), ("HMC", HMC(size, leapfrog=3))):
        x, noise, memory = start, Stream(2), None
        with torch.no_grad():
            for k in range(15):
                moved = step(oracle.bind(None), process, x, t, t, StepNoise(noise, k), memory)
                x, memory = moved.x, moved.memory
        errors[f"{name}, x"] = max(surprise((x - start)[:, d], 0.0) for d in range(2))
        errors[f"{name}, |x|^2"] = surprise((x * x - start * start).sum(1), 0.0)
    return largest(errors)


# ------------------------------------------------------------------------------------------------ exact noise


@ROOM.check(
    "consistent annealing",
    claim="consistent annealed sampling keeps exactly the noise of every level on a point mass",
    by="standard deviation of the state over sigma_s, over a whole grid (Jolicoeur-Martineau et al. 2021)",
    allowed=1e-10,
    why="float64 rounding of some tens of steps",
)
def _consistent(bench: Bench) -> Found:
    errors, point = {}, times(0.7, -2.0)
    ladder = Tabulated(GeometricSigmas(0.01, 50.0, 40))
    for name, process in {"VE": VE(0.01, 5.0), "VP": VP(), "sub-VP": SubVP(), "VE ladder": ladder}.items():
        data = Gaussian(process, point, 0.0)
        grid = EveryLevel(clean=False) if isinstance(process, Tabulated) else LogSNR(40)
        for eta in (0.4, 1.0):
            at = grid.times(process)
            chain = affine_chain(Consistent(eta), data, process, at, device=bench.device)
            sigma, alpha = process.sigma(at), process.alpha(at)
            mean, covariance = chain.push(alpha[0] * point, sigma[0] ** 2 * torch.eye(2, dtype=torch.float64))
            deviation = float((covariance.diagonal().sqrt() / sigma[-1] - 1.0).abs().max())
            errors[f"{name}, eta = {eta:g}"] = max(deviation, relative(mean, alpha[-1] * point))
    return largest(errors)


@ROOM.check(
    "consistent annealing of a Gaussian",
    claim="on a Gaussian of variance v a step of consistent annealing loses the stated variance",
    by="v + sigma_s^2 - eta^2 sigma_t^2 v / (v + sigma_t^2), noise 2 to 1.6",
    allowed=1e-11,
    why="float64 rounding of one step",
)
def _consistent_loses(bench: Bench) -> Found:
    process, v, errors = VE(0.01, 5.0), 1.7, {}
    data = Gaussian(process, times(0.7, -2.0), v)
    for eta in (0.3, 1.1):
        chain = affine_chain(
            Consistent(eta), data, process, process.time_at_sigma(times(2.0, 1.6)), device=bench.device
        )
        _, covariance = chain.push(data.mean, (v + 4.0) * torch.eye(2, dtype=torch.float64))
        wanted = v + 1.6**2 - eta**2 * 4.0 * v / (v + 4.0)
        errors[f"eta = {eta:g}"] = abs(float(covariance[0, 0]) / wanted - 1.0)
    return largest(errors)


# ------------------------------------------------------------------------------------------------ adaptive


@ROOM.check(
    "adaptive flow",
    claim="the adaptive solver follows the probability flow to its stated tolerance",
    by="quantiles go to quantiles: z of N(m_t, S_t) at t = 1 to the same z at t = t_min, in each mode of a Gaussian",
    allowed=1e-5,
    why="local errors of 1e-7 over some tens of steps",
)
def _adaptive_flow(bench: Bench) -> Found:
    errors = {}
    for name, process in {"VE": VE(0.05, 5.0), "VP": VP(), "sub-VP": SubVP()}.items():
        oracle = skewed_gaussian(process)
        z = bench.normal(6, 2, seed=3)
        at = times(1.0, process.t_min.sampling)
        ends = [_quantiles(oracle, z.cpu().double(), t) for t in at]
        t, s = at[:, None].expand(2, len(z))
        step = AdaptiveFlow(rtol=1e-7, atol=1e-7)
        moved = step(oracle.bind(None), process, bench.to(ends[0]), t, s, StepNoise(Stream(0), 0))
        errors[name] = relative(moved.x, ends[1])
    return largest(errors)


def _quantiles(oracle: Gaussian, z: Tensor, t: Tensor) -> Tensor:
    """m_t + U diag(sqrt(l_t)) z in the basis of the data's covariance, which is that of every time."""
    (mean, _), (_, U) = oracle.moments(float(t)), torch.linalg.eigh(oracle.data_moments()[1])
    deviations = (U.T @ oracle.moments(float(t))[1] @ U).diagonal().sqrt()
    return mean + (deviations * z) @ U.T


@ROOM.check(
    "adaptive SDE",
    claim="the adaptive solver of the reverse SDE arrives in the law of the data",
    by="mean and second moment of 300 samples of a Gaussian against the exact ones, in standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _adaptive_sde(bench: Bench) -> Found:
    process, n = VP(0.1, 8.0), 300
    oracle = skewed_gaussian(process)
    mean, covariance = oracle.moments(0.05)
    start = bench.to(oracle.sample(n, 1.0, seed=4))
    t, s = times(1.0, 0.05)[:, None].expand(2, n)
    step = AdaptiveSDE(rtol=1e-2, atol=1e-2)
    moved = step(oracle.bind(None), process, start, t, s, StepNoise(IndexedNoise(5, range(n)), 0))
    off = moved.x.cpu().double() - mean
    return largest(
        {
            **{f"mean of x_{d}": surprise(off[:, d], 0.0) for d in range(2)},
            **{f"variance of x_{d}": surprise(off[:, d] ** 2, float(covariance[d, d])) for d in range(2)},
            "covariance": surprise(off[:, 0] * off[:, 1], float(covariance[0, 1])),
        }
    )


# ------------------------------------------------------------------------------------------------ invariance


@ROOM.check(
    "noise",
    claim="noise is a function of (seed, index, step, draw): the same bits in any batch, on any device",
    by="numbers that differ between a batch of 64, batches of one, a shuffled batch, float32, float64 and the CPU",
    allowed=0.0,
    why="bits are equal or not",
    unit="count",
    single=0.0,
)
def _noise(bench: Bench) -> Found:
    like = bench.to(torch.empty(64, 2, 3))
    together = IndexedNoise(5, range(64)).normal(like, 7, 2)
    alone = torch.cat([IndexedNoise(5, [i]).normal(like[:1], 7, 2) for i in range(64)])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = IndexedNoise(5, order).normal(like, 7, 2)
    single = IndexedNoise(5, range(64)).normal(torch.empty(64, 2, 3), 7, 2)
    other = IndexedNoise(5, range(64)).normal(like, 7, 3)
    return largest(
        {
            "one at a time": float((together != alone).sum()),
            "shuffled": float((together[order] != shuffled).sum()),
            "float32, CPU": float((together.cpu() != single.to(together.dtype)).sum()),
            "draws that are alike": float((together == other).sum()),
        }
    )


def _apart(bench: Bench, sampler: Sampler, score: Score, count: int = 9) -> float:
    """Largest relative difference between one batch and batches of one, a shuffled one and one that starts later."""

    def draw(indices: Sequence[int]) -> Tensor:
        return sampler.run(score, (3,), indices=indices, seed=11, dtype=bench.dtype, device=bench.device).x

    together = draw(range(count))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    late = list(range(count - 3, count))
    return max(
        relative(torch.cat([draw([i]) for i in range(0, count, 3)]), together[::3]),
        relative(draw(shuffled), together[shuffled]),
        relative(draw(late), together[late]),
    )


@ROOM.check(
    "samples keep to themselves",
    claim="a sample does not depend on batch size, order or start, for every sampler that has a name",
    by="batches of nine, one, shuffled and starting later, on a mixture in three dimensions",
    allowed=1e-9,
    why="sums in another order; the adaptive flow chooses its steps by such numbers",
    single=2e-3,
)
def _alone(bench: Bench) -> Found:
    errors, process = {}, VP()
    oracle = skewed_mixture(process, 3)
    for name in NAMED:
        sampler = named(name, process, None if name == "ode" else 4)
        errors[name] = _apart(bench, sampler, oracle)
    return largest(errors)


@ROOM.check(
    "samples on the device",
    claim="samples on this device are those of the CPU, for every sampler that has a name",
    by="the same seeds and indices, device against CPU in float64, relative to the largest",
    allowed=1e-8,
    why="sums in another order over a few steps",
    single=2e-3,
    accelerator=True,
)
def _on_device(bench: Bench) -> Found:
    errors, process, exact = {}, VP(), Bench(torch.device("cpu"))
    oracle = skewed_mixture(process, 3)
    for name in NAMED:
        sampler = named(name, process, None if name == "ode" else 4)
        here, there = (
            sampler.run(oracle, (3,), indices=range(8), seed=11, dtype=b.dtype, device=b.device).x
            for b in (bench, exact)
        )
        errors[name] = relative(here, there)
    return largest(errors)
