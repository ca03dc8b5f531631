"""Checks of samplers: orders of steps, stationary distributions, noise, and independence of the batch."""

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
    CheckGroup,
    Measurement,
    SequentialNoise,
    farthest,
    largest,
    relative,
    times,
    z_score,
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

GROUP = CheckGroup("sampling", "measured orders of convergence, stationary distributions, exact noise, invariance")

# ------------------------------------------------------------------------------------------------ orders


def _measure_order(step: Step) -> Callable[[Bench], Measurement]:
    """Return the measurement of a step's order on every problem that it applies to."""

    def measure(bench: Bench) -> Measurement:
        assert step.order is not None
        orders = {p.name: measured_order(step, p, bench.device)[0] for p in PROBLEMS if applies(step, p)}
        return farthest(orders, step.order)

    return measure


def _measure_low_start(step: ExponentialMultistep, order: int) -> Callable[[Bench], Measurement]:
    """Return the measurement of the order of a multistep method that starts at low order."""
    return lambda bench: farthest({"VE": low_start_order(step, bench.device)}, order)


def _label(step: Step) -> str:
    """Return the class of a step with the settings that are not the defaults."""
    if isinstance(step, FixedDormandPrince):
        return "AdaptiveFlow, steps fixed"
    settings = {f.name: (getattr(step, f.name), f.default) for f in fields(step)} if is_dataclass(step) else {}
    shown = [k if v is True else f"{k}={v}" for k, (v, default) in settings.items() if v != default or k == "order"]
    return f"{type(step).__name__}({', '.join(shown)})" if shown else type(step).__name__


_NEXT_ORDER = "terms of the next order at the finest grid; the order of a wrong step differs by 0.5 or more"

for _step in ordered_steps():
    assert _step.order is not None
    GROUP.check(
        f"order of {_label(_step)}",
        claim=f"converges at order {_step.order}",
        by="slope of log error of mean and covariance over log step on Gaussian data, exact without random numbers",
        target=_step.order,
        allowed=0.15,
        why=_NEXT_ORDER,
        unit="order",
    )(_measure_order(_step))

for _low, _order in LOW_STARTS:
    GROUP.check(
        f"order of {_label(_low)}",
        claim=f"converges at order {_order}, which its first step determines",
        by="slope of log error of mean and covariance over log step, between 128 and 256 steps under VE",
        target=_order,
        allowed=0.15,
        why=_NEXT_ORDER,
        unit="order",
    )(_measure_low_start(_low, _order))


@GROUP.check(
    "exact on the unit Gaussian",
    claim="ancestral sampling with the forward variance leaves N(0, I) invariant for any number of steps",
    by="covariance of a chain of three steps, less I (Ho et al. 2020, section 3.2)",
    allowed=1e-12,
    why="rounding of three float64 steps",
)
def _unit(bench: Bench) -> Measurement:
    process = VP(0.1, 8.0)
    oracle = Gaussian(process, torch.zeros(2, dtype=torch.float64), 1.0)
    chain = affine_chain(Ancestral("forward"), oracle, process, Uniform(3).times(process), device=bench.device)
    one = torch.eye(2, dtype=torch.float64)
    return largest({"covariance": relative(chain.push(torch.zeros(2, dtype=torch.float64), one)[1], one)})


# ------------------------------------------------------------------------------------------------ Langevin

_LEVEL, _NEXT = 0.5, 0.4
"""Noise levels of the state and of the next level on the grid."""
_FIXED_POINT = "fixed point of a float64 iteration of some thousand steps"


def _stationary(bench: Bench, step: Step, score: Score, process: Process, rounds: int) -> float:
    """Return the stationary variance of a corrector at noise 0.5, by iterating its mean and covariance exactly."""
    grid = process.time_at_sigma(times(_LEVEL, _NEXT))
    chain = affine_chain(Chain((step, Hold())), score, process, grid, device=bench.device)
    mean, covariance = torch.zeros(2, dtype=torch.float64), 3.0 * torch.eye(2, dtype=torch.float64)
    for _ in range(rounds):
        mean, covariance = chain.push(mean, covariance)
    return float(covariance.trace()) / 2.0


@GROUP.check(
    "Langevin conventions",
    claim="on Gaussians of variance v, Langevin steps have the stationary variance that their convention states",
    by="v / (1 - e / (2 v)) for x + e s + sqrt(2 e) z; v / (1 - e / (4 v)) for x + (e / 2) s + sqrt(e) z; with the"
    " noise added first, (1 - e / v)^2 times the first",
    allowed=1e-8,
    why=_FIXED_POINT,
)
def _langevin(bench: Bench) -> Measurement:
    process, errors = VE(0.01, 5.0), {}
    for v in (0.5, 1.3):
        data = Gaussian(process, times(0.7, -2.0), v - _LEVEL**2)
        for e in (0.02, 0.3):
            rule, rounds = LadderScaled(epsilon=e, sigma_end=_LEVEL), math.ceil(40 * v / e)
            for name, step, stationary in (
                ("full", Langevin(rule), v / (1 - e / (2 * v))),
                ("half", Langevin(rule, "half"), v / (1 - e / (4 * v))),
                ("noise first", Langevin(rule, noise="first"), v * (1 - e / v) ** 2 / (1 - e / (2 * v))),
            ):
                found = _stationary(bench, step, data, process, rounds)
                errors[f"{name}, v = {v:g}, e = {e:g}"] = abs(found / stationary - 1.0)
    return largest(errors)


@GROUP.check(
    "annealed temperature",
    claim="Langevin dynamics of annealed temperature has its stated stationary variance where an energy is most curved",
    by="T sigma_0^2 / (1 - a / 2), a = step^2 / (2 sigma_0^2), where E = |x - m|^2 / (2 sigma_0^2)",
    allowed=1e-8,
    why=_FIXED_POINT,
)
def _temperature(bench: Bench) -> Measurement:
    process, sigma_0, step, errors = Tabulated(LinearSigmas(0.05, 1.2, 16)), 0.1, 0.06, {}
    score = FunctionScore(lambda x, t: (0.3 - x) / process.sigma(t).to(x)[:, None] ** 2, process)
    for T in (2.0, 9.0):
        langevin = TemperatureLangevin(TemperatureSchedule(high=T), step, sigma_0)
        chain = affine_chain(langevin, score, process, times(1.0, 0.99), device=bench.device)
        mean, covariance = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
        for _ in range(400):
            mean, covariance = chain.push(mean, covariance)
        a = 0.5 * (step / sigma_0) ** 2
        errors[f"T = {T:g}"] = abs(float(covariance[0, 0]) / (T * sigma_0**2 / (1.0 - 0.5 * a)) - 1.0)
    return largest(errors)


@GROUP.check(
    "Metropolis tests",
    claim="MALA and Hamiltonian Monte Carlo leave their distribution invariant, also at a step size where Langevin"
    " dynamics without a Metropolis test has a large bias",
    by="changes of x and |x|^2 over 15 proposals in 8,000 chains started from a mixture, in standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _metropolis(bench: Bench) -> Measurement:
    process, size, errors = VE(0.01, 5.0), LadderScaled(0.35, _LEVEL), {}
    oracle, n = skewed_mixture(process), 8_000
    t = process.time_at_sigma(times(_LEVEL)).expand(n)
    start = bench.to(oracle.sample(n, t, noise=SequentialNoise(1)))
    for name, step in (("MALA", MALA(size)), ("HMC", HMC(size, leapfrog=3))):
        x, noise, memory = start, SequentialNoise(2), None
        with torch.no_grad():
            for k in range(15):
                moved = step(oracle.bind(None), process, x, t, t, StepNoise(noise, k), memory)
                x, memory = moved.x, moved.memory
        errors[f"{name}, x"] = max(z_score((x - start)[:, d], 0.0) for d in range(2))
        errors[f"{name}, |x|^2"] = z_score((x * x - start * start).sum(1), 0.0)
    return largest(errors)


# ------------------------------------------------------------------------------------------------ exact noise


@GROUP.check(
    "consistent annealing",
    claim="on a point mass, the state of consistent annealed sampling has exactly the noise of every level",
    by="standard deviation of the state over sigma_s at the end of a grid (Jolicoeur-Martineau et al. 2021)",
    allowed=1e-10,
    why="float64 rounding of some tens of steps",
)
def _consistent(bench: Bench) -> Measurement:
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


@GROUP.check(
    "consistent annealing of a Gaussian",
    claim="on a Gaussian of variance v, a step of consistent annealing loses the stated variance",
    by="v + sigma_s^2 - eta^2 sigma_t^2 v / (v + sigma_t^2), noise 2 to 1.6",
    allowed=1e-11,
    why="float64 rounding of one step",
)
def _consistent_on_a_gaussian(bench: Bench) -> Measurement:
    process, v, errors = VE(0.01, 5.0), 1.7, {}
    data = Gaussian(process, times(0.7, -2.0), v)
    for eta in (0.3, 1.1):
        chain = affine_chain(
            Consistent(eta), data, process, process.time_at_sigma(times(2.0, 1.6)), device=bench.device
        )
        _, covariance = chain.push(data.mean, (v + 4.0) * torch.eye(2, dtype=torch.float64))
        stated = v + 1.6**2 - eta**2 * 4.0 * v / (v + 4.0)
        errors[f"eta = {eta:g}"] = abs(float(covariance[0, 0]) / stated - 1.0)
    return largest(errors)


# ------------------------------------------------------------------------------------------------ adaptive


@GROUP.check(
    "adaptive flow",
    claim="the adaptive solver follows the probability flow to its stated tolerance",
    by="quantiles of N(m_t, S_t) at t = 1 map to the same quantiles at t = t_min, along each eigenvector",
    allowed=1e-5,
    why="local errors of 1e-7 over some tens of steps",
)
def _adaptive_flow(bench: Bench) -> Measurement:
    errors = {}
    for name, process in {"VE": VE(0.05, 5.0), "VP": VP(), "sub-VP": SubVP()}.items():
        oracle = skewed_gaussian(process)
        z = bench.normal(6, 2, seed=3)
        grid = times(1.0, process.t_min.sampling)
        ends = [_quantiles(oracle, z.cpu().double(), t) for t in grid]
        t, s = grid[:, None].expand(2, len(z))
        step = AdaptiveFlow(rtol=1e-7, atol=1e-7)
        moved = step(oracle.bind(None), process, bench.to(ends[0]), t, s, StepNoise(SequentialNoise(0), 0))
        errors[name] = relative(moved.x, ends[1])
    return largest(errors)


def _quantiles(oracle: Gaussian, z: Tensor, t: Tensor) -> Tensor:
    """Return m_t + U diag(sqrt(l_t)) z; the eigenvectors U of the data's covariance are those at every t."""
    (mean, _), (_, U) = oracle.moments(float(t)), torch.linalg.eigh(oracle.data_moments()[1])
    deviations = (U.T @ oracle.moments(float(t))[1] @ U).diagonal().sqrt()
    return mean + (deviations * z) @ U.T


@GROUP.check(
    "adaptive SDE",
    claim="samples of the adaptive solver of the reverse SDE have the distribution of the data",
    by="mean and second moment of 300 samples of a Gaussian against the exact ones, in standard errors",
    allowed=DEVIATIONS,
    why="two-sided significance 1e-6",
    unit="standard errors",
    single=DEVIATIONS,
)
def _adaptive_sde(bench: Bench) -> Measurement:
    process, n = VP(0.1, 8.0), 300
    oracle = skewed_gaussian(process)
    mean, covariance = oracle.moments(0.05)
    start = bench.to(oracle.sample(n, 1.0, seed=4))
    t, s = times(1.0, 0.05)[:, None].expand(2, n)
    step = AdaptiveSDE(rtol=1e-2, atol=1e-2)
    moved = step(oracle.bind(None), process, start, t, s, StepNoise(IndexedNoise(5, range(n)), 0))
    deviations = moved.x.cpu().double() - mean
    return largest(
        {
            **{f"mean of x_{d}": z_score(deviations[:, d], 0.0) for d in range(2)},
            **{f"variance of x_{d}": z_score(deviations[:, d] ** 2, float(covariance[d, d])) for d in range(2)},
            "covariance": z_score(deviations[:, 0] * deviations[:, 1], float(covariance[0, 1])),
        }
    )


# ------------------------------------------------------------------------------------------------ invariance


@GROUP.check(
    "noise",
    claim="noise is a function of (seed, index, step, draw), with the same bits in any batch and on any device",
    by="count of numbers that differ between a batch of 64, batches of one, a shuffled batch, float32 on the CPU and"
    " the device",
    allowed=0.0,
    why="the numbers must be equal bit by bit",
    unit="count",
    single=0.0,
)
def _noise(bench: Bench) -> Measurement:
    like = bench.to(torch.empty(64, 2, 3))
    batch = IndexedNoise(5, range(64)).normal(like, 7, 2)
    alone = torch.cat([IndexedNoise(5, [i]).normal(like[:1], 7, 2) for i in range(64)])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = IndexedNoise(5, order).normal(like, 7, 2)
    single = IndexedNoise(5, range(64)).normal(torch.empty(64, 2, 3), 7, 2)
    next_draw = IndexedNoise(5, range(64)).normal(like, 7, 3)
    return largest(
        {
            "one at a time": float((batch != alone).sum()),
            "shuffled": float((batch[order] != shuffled).sum()),
            "float32, CPU": float((batch.cpu() != single.to(batch.dtype)).sum()),
            "equal numbers in another draw": float((batch == next_draw).sum()),
        }
    )


def _batch_dependence(bench: Bench, sampler: Sampler, score: Score, count: int = 9) -> float:
    """Return the largest relative difference between samples of one batch and of other batches with the same indices.

    The other batches are single examples, a shuffled batch, and one that starts at a later index.
    """

    def draw(indices: Sequence[int]) -> Tensor:
        return sampler.run(score, (3,), indices=indices, seed=11, dtype=bench.dtype, device=bench.device).x

    batch = draw(range(count))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    late = list(range(count - 3, count))
    return max(
        relative(torch.cat([draw([i]) for i in range(0, count, 3)]), batch[::3]),
        relative(draw(shuffled), batch[shuffled]),
        relative(draw(late), batch[late]),
    )


@GROUP.check(
    "independence of the batch",
    claim="a sample does not depend on batch size, order or first index, for every named sampler",
    by="a batch of nine, batches of one, a shuffled batch and one that starts later, on a mixture in three dimensions",
    allowed=1e-9,
    why="sums in another order, by which the adaptive flow also chooses its steps",
    single=2e-3,
)
def _batch_independence(bench: Bench) -> Measurement:
    errors, process = {}, VP()
    oracle = skewed_mixture(process, 3)
    for name in NAMED:
        sampler = named(name, process, None if name == "ode" else 4)
        errors[name] = _batch_dependence(bench, sampler, oracle)
    return largest(errors)


@GROUP.check(
    "samples on the device",
    claim="samples on this device equal those on the CPU, for every named sampler",
    by="the same seeds and indices, device against CPU in float64, relative to the largest",
    allowed=1e-8,
    why="sums in another order over a few steps",
    single=2e-3,
    accelerator=True,
)
def _on_device(bench: Bench) -> Measurement:
    errors, process, cpu = {}, VP(), Bench(torch.device("cpu"))
    oracle = skewed_mixture(process, 3)
    for name in NAMED:
        sampler = named(name, process, None if name == "ode" else 4)
        on_device, on_cpu = (
            sampler.run(oracle, (3,), indices=range(8), seed=11, dtype=b.dtype, device=b.device).x for b in (bench, cpu)
        )
        errors[name] = relative(on_device, on_cpu)
    return largest(errors)
