"""Stochastic solvers: closed forms, distributions, and agreement between methods."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sampling.doubles import Generated, GivenNoise
from scorefield._codec import dumps, loads
from scorefield._random import StepNoise
from scorefield.process import VE, VP, GeometricSigmas, Process, SubVP, Tabulated
from scorefield.process.grids import EveryLevel, Focused, LogSNR, PowerSigma, Quadratic
from scorefield.sampling import (
    DDIM,
    Ancestral,
    ExponentialMultistep,
    FlowHeun,
    KarrasHeun,
    Sampler,
    Step,
    StochasticHeun,
    StochasticMultistep,
    StochasticRungeKutta,
    drive,
)
from scorefield.sampling.named import edm, named
from scorefield.score import FunctionScore, Score
from scorefield.score.oracles import Gaussian, Mixture, skewed_gaussian, skewed_mixture
from scorefield.selftest.orders import PROBLEMS, affine_chain, chain_error
from tolerance import FLOAT64, ONE_STEP, ORDER, SPREAD, STEP_CHAINS, TWO_INTEGRATORS

F64 = torch.float64
PROCESSES = [VE(0.05, 20.0), VP(), SubVP(), Tabulated(GeometricSigmas(0.05, 20.0, 30))]
STEPS: list[Step] = [
    DDIM(),
    DDIM(0.7),
    StochasticMultistep(1),
    StochasticMultistep(2),
    StochasticMultistep(2, corrector=True),
    StochasticMultistep(2, strength=0.6),
    StochasticHeun(),
    StochasticRungeKutta(),
    KarrasHeun(),
    KarrasHeun(0.2),
]


def chain(step: Step, score: Score, grid: Any, x: Tensor, seed: int = 0) -> Tensor:
    """The final state of a chain; equal seeds give equal noise."""
    return drive(score.bind(None), score.process, step, grid.times(score.process), x, Generated(seed)).x


def start(process: Process, rows: int = 6) -> Tensor:
    return process.prior_std * torch.randn(rows, 2, dtype=F64, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------------------------ one and the same


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_steps_that_are_the_same(process: Process) -> None:
    oracle, x, grid = skewed_mixture(process, 2), start(process), LogSNR(9)

    def same(a: Step, b: Step) -> None:
        torch.testing.assert_close(chain(a, oracle, grid, x), chain(b, oracle, grid, x), rtol=ONE_STEP, atol=ONE_STEP)

    same(DDIM(0.0), ExponentialMultistep(1))
    same(DDIM(1.0), Ancestral("posterior"))
    same(StochasticMultistep(1), Ancestral("posterior"))
    same(StochasticMultistep(2, strength=0.0), ExponentialMultistep(2))
    same(StochasticMultistep(2, corrector=True, strength=0.0), ExponentialMultistep(2, corrector=True))


def test_ddim_is_the_published_one() -> None:
    """Song, Meng and Ermon 2021, eq. 12 and 16, in their alpha (our alpha^2), for VP."""
    process, oracle = VP(), skewed_mixture(VP(), 2)
    x, z = start(process), torch.full((6, 2), 0.7, dtype=F64)
    t, s = torch.full((6,), 0.6, dtype=F64), torch.full((6,), 0.45, dtype=F64)
    a_t, a_s = (process.alpha(u)[:1] ** 2 for u in (t, s))
    for eta in (0.0, 0.3, 1.0):
        sigma = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
        noise = -(1 - a_t).sqrt() * oracle(x, t)
        x0 = (x - (1 - a_t).sqrt() * noise) / a_t.sqrt()
        expected = a_s.sqrt() * x0 + (1 - a_s - sigma**2).sqrt() * noise + sigma * z
        got = DDIM(eta)(oracle.bind(None), process, x, t, s, StepNoise(GivenNoise(lambda like, k: z), 0)).x
        torch.testing.assert_close(got, expected, rtol=ONE_STEP, atol=ONE_STEP)


@pytest.mark.parametrize("churn", [0.0, 4.0])
def test_karras_heun_is_algorithm_2(churn: float) -> None:
    """The published formula in sigma for VE, with its special case of the last step."""
    process = VE(0.02, 20.0)
    oracle, n = skewed_mixture(process, 2), 8
    grid = PowerSigma(n)
    gamma = min(churn / n, math.sqrt(2.0) - 1.0)
    x = start(process)
    sigmas, noise = process.sigma(grid.times(process)).tolist(), Generated(0)

    def denoised(y: Tensor, sigma: float) -> Tensor:
        return oracle.denoised(y, process.time_at_sigma(torch.full((6,), sigma, dtype=F64)))

    y = x
    for i in range(n):
        low = 0.1 <= sigmas[i] <= 10.0
        raised = min(sigmas[i] * (1.0 + gamma * low), 20.0)
        if gamma:
            y = y + 1.007 * math.sqrt(raised**2 - sigmas[i] ** 2) * noise.normal(y, i, 0)
        slope = (y - denoised(y, raised)) / raised
        guess = y + (sigmas[i + 1] - raised) * slope
        y = y + (sigmas[i + 1] - raised) * 0.5 * (slope + (guess - denoised(guess, sigmas[i + 1])) / sigmas[i + 1])
    got = chain(KarrasHeun(gamma, 0.1, 10.0, 1.007), oracle, grid, x)
    torch.testing.assert_close(got, y, rtol=STEP_CHAINS, atol=STEP_CHAINS)
    assert edm(process, n, churn).step == KarrasHeun(gamma)


def test_sra_is_the_published_tableau() -> None:
    """The step in the variable w: y' = D(y, w) + noise, with J the double integral of the path over the step length."""
    process = VP()
    oracle, x = skewed_mixture(process, 2), start(process)
    times = LogSNR(5).times(process)[1:3]
    z = [torch.full((6, 2), v, dtype=F64) for v in (0.4, -1.1)]
    (a, b), (c, d) = process.alpha(times).tolist(), process.sigma(times).tolist()
    w, k = (a / c) ** 2, (b / d) ** 2 - (a / c) ** 2

    def drift(y: Tensor, clock: float) -> Tensor:
        t = process.time_at_log_snr(torch.full((6,), math.log(clock), dtype=F64))
        return oracle.denoised(y * (process.sigma(t) ** 2 / process.alpha(t))[:, None], t)

    y = x * a / c**2
    first, dW = drift(y, w), math.sqrt(k) * z[0]
    double = 0.5 * k * (dW + math.sqrt(k / 3.0) * z[1])
    second = drift(y + 0.75 * k * first + 1.5 * double / k, w + 0.75 * k)
    expected = (y + k * (first + 2.0 * second) / 3.0 + dW) * d**2 / b
    t, s = (u.expand(6) for u in times)
    noise = StepNoise(GivenNoise(lambda like, i: z[i]), 0)
    got = StochasticRungeKutta()(oracle.bind(None), process, x, t, s, noise).x
    torch.testing.assert_close(got, expected, rtol=ONE_STEP, atol=ONE_STEP)


# ------------------------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("strength", [0.3, 1.0, 1.7])
def test_every_strength_is_exact_on_a_point(process: Process, strength: float) -> None:
    """For constant D only the linear part and the noise remain, and the variance is exactly sigma^2."""
    oracle = Gaussian(process, torch.tensor([0.3, -1.1]), 0.0)
    steps = [StochasticMultistep(2, False, strength), StochasticMultistep(2, True, strength)]
    steps += [StochasticHeun(), StochasticRungeKutta()] if strength == 1.0 else [DDIM(min(strength, 1.0))]
    times = Focused(6).times(process)
    for step in steps:
        chained = affine_chain(step, oracle, process, times)
        mean, covariance = chained.push(*oracle.moments(float(times[0])))
        exact_mean, exact_covariance = oracle.moments(float(times[-1]))
        torch.testing.assert_close(mean, exact_mean, rtol=ONE_STEP, atol=ONE_STEP)
        torch.testing.assert_close(covariance, exact_covariance, rtol=STEP_CHAINS, atol=FLOAT64)


@pytest.mark.parametrize(
    ("step", "order"),
    [
        (StochasticMultistep(1, strength=0.5), 1),
        (StochasticMultistep(2, strength=1.5), 2),
    ],
    ids=str,
)
def test_order_at_other_strengths(step: Step, order: int) -> None:
    errors = [chain_error(step, PROBLEMS[1], n) for n in (32, 64)]
    assert abs(math.log2(errors[0] / errors[1]) - order) <= ORDER


def test_order_of_karras_heun_with_churn() -> None:
    """The step has second order for a fixed total churn S_churn, and less for a fixed gamma."""
    errors = {n: chain_error(KarrasHeun(3.0 / n), PROBLEMS[1], n) for n in (48, 96)}
    assert abs(math.log2(errors[48] / errors[96]) - 2.0) <= ORDER
    fixed = {n: chain_error(KarrasHeun(0.1), PROBLEMS[1], n) for n in (48, 96)}
    assert math.log2(fixed[48] / fixed[96]) < 2.0 - 5.0 * ORDER


# ------------------------------------------------------------------------------------------------ where they end


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_into_no_noise(step: Step) -> None:
    """A step below level 0 returns the posterior mean at level 0, without noise."""
    process = Tabulated(GeometricSigmas(0.3, 0.3, 1))
    oracle, x = skewed_mixture(process, 2), start(process)
    expected = oracle.denoised(x, torch.ones(6, dtype=F64))
    if isinstance(step, KarrasHeun):  # at t = 1 there is no more noise to raise it to
        assert step.calls_per_step() == 2
    torch.testing.assert_close(chain(step, oracle, EveryLevel(), x), expected, rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)
    longer = Tabulated(GeometricSigmas(0.01, 3.0, 9))
    end = chain(step, skewed_mixture(longer, 2), EveryLevel(), start(longer))
    assert bool(torch.isfinite(end).all())


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_every_example_may_have_its_own_time(step: Step) -> None:
    process = VP()
    oracle, x = skewed_mixture(process, 2), start(process, 3)
    grids = torch.stack([Quadratic(5).times(process), LogSNR(5).times(process), Focused(5).times(process)])

    def run(rows: list[int]) -> Tensor:
        state, memory = x[rows], None
        for k in range(5):
            noise = GivenNoise(lambda like, i, k=k, y=state: torch.sin(7.0 * k + i + y[:, :1]).expand_as(y))
            moved = step(
                oracle.bind(None), process, state, grids[rows, k], grids[rows, k + 1], StepNoise(noise, k), memory
            )
            state, memory = moved.x, moved.memory
        return state

    alone = torch.cat([run([i]) for i in range(3)])
    torch.testing.assert_close(run([0, 1, 2]), alone, rtol=ONE_STEP, atol=ONE_STEP)


@pytest.mark.parametrize("step", [StochasticMultistep(2), StochasticHeun()], ids=str)
def test_flat_steps_of_a_ladder(step: Step) -> None:
    process = Tabulated(GeometricSigmas(0.05, 5.0, 9), "floor")
    oracle, x = skewed_mixture(process, 2), start(process)
    levels = EveryLevel(False).times(process)
    twice = torch.stack([levels, levels - 0.05], 1).reshape(-1)[:-1]
    quiet = GivenNoise(lambda like, k: torch.zeros_like(like))
    ends = [drive(oracle.bind(None), process, step, times, x, quiet).x for times in (levels, twice)]
    torch.testing.assert_close(ends[0], ends[1], rtol=FLOAT64, atol=FLOAT64)


MODES = torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]], dtype=F64)


def within_modes(step: Step, steps: int, loudness: float = 1.0) -> float:
    """Standard deviation of samples within three narrow modes, divided by the exact one."""
    process = VP()
    oracle = Mixture(process, torch.ones(3), MODES, torch.full((3,), 0.05**2))
    times, noise = Focused(steps).times(process), Generated(5, loudness)
    x = torch.randn(3000, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    x = drive(oracle.bind(None), process, step, times, x, noise).x
    alpha, sigma = (float(c[-1]) for c in (process.alpha(times), process.sigma(times)))
    nearest = alpha * MODES[torch.cdist(x, alpha * MODES).argmin(1)]
    return float((x - nearest).square().mean().sqrt()) / math.sqrt((0.05 * alpha) ** 2 + sigma**2)


def test_within_mode_spread() -> None:
    """In 50 evaluations the width of narrow modes is right, unlike ancestral sampling's; too much noise is rejected."""
    assert abs(within_modes(StochasticMultistep(2), 50) - 1.0) <= SPREAD
    assert abs(within_modes(StochasticMultistep(2, strength=0.5), 40) - 1.0) <= SPREAD
    assert within_modes(Ancestral("posterior"), 50) < 1.0 - SPREAD
    assert within_modes(StochasticMultistep(2), 50, loudness=1.05) > 1.0 + SPREAD


# ------------------------------------------------------------------------------------------------ as data


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_codec(step: Step) -> None:
    assert loads(dumps(Sampler(step, Focused(9))), Sampler) == Sampler(step, Focused(9))


def test_names_of_ladders_stay_on_their_levels() -> None:
    process = Tabulated(GeometricSigmas(0.01, 50.0, 40))
    oracle = skewed_mixture(process, 2)

    def refuses_between(x: Tensor, t: Tensor) -> Tensor:
        assert bool(((39.0 * t - (39.0 * t).round()).abs() < 1e-6).all())
        return oracle(x, t)

    score = FunctionScore(refuses_between, process)
    for name in ("dpm", "sde-dpm", "ddim", "edm"):
        run = named(name, process, 12).run(score, (2,), indices=range(2))
        assert run.status.tolist() == [0, 0]


def test_flow_of_karras_heun_and_flow_heun_agree() -> None:
    """Two discretisations of the probability flow converge to the same end."""
    process = VE(0.3, 3.0)
    oracle, x = skewed_gaussian(process), start(process)
    ends = [chain(step, oracle, LogSNR(200), x) for step in (KarrasHeun(), FlowHeun())]
    torch.testing.assert_close(ends[0], ends[1], rtol=TWO_INTEGRATORS, atol=TWO_INTEGRATORS)


def test_refusals() -> None:
    for call, words in (
        (lambda: DDIM(1.5), r"eta=1.5 must lie in \[0, 1\]"),
        (lambda: StochasticMultistep(3), "order=3"),  # type: ignore[arg-type]
        (lambda: StochasticMultistep(1, corrector=True), "Use order=2"),
        (lambda: StochasticMultistep(strength=-1.0), "strength=-1.0"),
        (lambda: KarrasHeun(-0.1), "gamma=-0.1"),
        (lambda: KarrasHeun(inflation=0.0), "inflation=0.0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
