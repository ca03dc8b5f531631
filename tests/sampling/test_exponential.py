"""Exponential multistep methods: weights, first steps, corrector, and steps into levels without noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limit
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from sampling.doubles import Generated
from scorefield._codec import dumps, loads
from scorefield._random import StepNoise
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, SubVP, Tabulated
from scorefield.process.grids import EveryLevel, Focused, LogSNR, Quadratic, Uniform
from scorefield.sampling import AdaptiveFlow, ExponentialMultistep, Sampler, Step, drive
from scorefield.sampling.exponential import exponential_moments, exponential_weights
from scorefield.score import FunctionScore, Score
from scorefield.score.oracles import Gaussian, skewed_mixture
from scorefield.selftest.orders import LOW_STARTS, low_start_order
from tolerance import EXPONENTIAL_WEIGHTS, FEW_STEPS, FLOAT32, FLOAT64, ORDER, WEIGHTS_OF_CHAINS

F64 = torch.float64
VARIANTS = [
    ExponentialMultistep(order, predict, corrector, start)  # type: ignore[arg-type]
    for order in (1, 2, 3, 4)
    for predict in ("data", "noise", "velocity")
    for corrector in (False, True)
    for start in ("own", "low")
    if order > 1 or not corrector
]


def chain(step: Step, score: Score, grid: Any, x: Tensor) -> Tensor:
    """The final state of a chain."""
    return drive(score.bind(None), score.process, step, grid.times(score.process), x, Generated(0)).x


# ------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("z", [-30.0, -2.0, -1.0, -0.999, -0.3, -1e-3, -1e-9, 0.0, 1e-6, 0.2, 0.999, 1.0, 5.0])
def test_moments_are_integrals(z: float) -> None:
    for k, moment in enumerate(exponential_moments(z, 5)):
        expected = quad(lambda u, k=k: math.exp(z * (1.0 - u)) * u**k, 0.0, 1.0, epsabs=0.0, epsrel=1e-13)[0]
        assert moment == pytest.approx(expected, rel=EXPONENTIAL_WEIGHTS)


@limit(max_examples=60)
@given(
    gaps=st.lists(st.floats(0.3, 3.0), min_size=0, max_size=3),
    length=st.floats(1e-3, 4.0),
    rate=st.sampled_from([-2.0, -1.0, 1.0]),
    ahead=st.booleans(),
    powers=st.integers(0, 3),
)
def test_weights_integrate_polynomials(gaps: list[float], length: float, rate: float, ahead: bool, powers: int) -> None:
    """Weights for any nodes, behind the step and ahead of it (corrector), in units of the step length."""
    nodes = [length] if ahead else []
    nodes.append(0.0)
    for gap in gaps:
        nodes.append(nodes[-1] - gap * length)
    degree = min(powers, len(nodes) - 1)
    weights = exponential_weights(nodes, length, rate)
    value = sum(w * (node / length) ** degree for w, node in zip(weights, nodes, strict=True))
    expected = length * exponential_moments(rate * length, degree + 1)[degree]
    scale = sum(abs(w) * abs(node / length) ** degree for w, node in zip(weights, nodes, strict=True))
    assert abs(value - expected) <= EXPONENTIAL_WEIGHTS * max(scale, expected)


@pytest.mark.parametrize("predict", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_polynomials_in_log_snr_are_integrated_exactly(order: Any, predict: Any) -> None:
    """With D, or the noise, a polynomial of degree order - 1 for every x, steps are exact once the history is full."""
    process = VP()

    def value(v: Any) -> Any:
        return sum((0.7 - k) * v**k / math.factorial(k) for k in range(order))

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        p = value(0.5 * process.log_snr(t)[:, None])
        return (alpha * p - x) / sigma**2 if predict == "data" else -p.expand_as(x) / sigma

    states: list[Tensor] = []
    times = Quadratic(9).times(process)
    bound = FunctionScore(score, process).bind(None)
    x = torch.tensor([[0.3], [-2.0]], dtype=F64)
    step = ExponentialMultistep(order, predict, start="low")
    drive(bound, process, step, times, x, Generated(0), [lambda progress: states.append(progress.x)])
    for k in range(order - 1, len(states) - 1):
        pair = times[[k + 1, k + 2]]
        (a, b), (c, d) = process.alpha(pair).tolist(), process.sigma(pair).tolist()
        now, then = math.log(a / c), math.log(b / d)
        sign = 1.0 if predict == "data" else -1.0
        integral = quad(lambda v, s=then, sign=sign: math.exp(sign * (v - s)) * value(v), now, then)[0]
        exact = d / c * states[k] + b * integral if predict == "data" else b / a * states[k] - d * integral
        torch.testing.assert_close(states[k + 1], exact, rtol=EXPONENTIAL_WEIGHTS, atol=EXPONENTIAL_WEIGHTS)


@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_velocities_polynomial_in_u_are_integrated_exactly(order: Any, spread: float) -> None:
    """As above, with the velocity e - D / spread a polynomial in u = sigma / (spread alpha + sigma) = sigma / rho."""
    process = VP()
    u = lambda t: process.sigma(t) / (spread * process.alpha(t) + process.sigma(t))  # noqa: E731
    coefficients = [(0.7 - k) / math.factorial(k) for k in range(order)]

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        velocity = sum(c * u(t)[:, None] ** k for k, c in enumerate(coefficients))
        return -(x + spread * alpha * velocity) / (sigma * (spread * alpha + sigma))  # e of alpha D + sigma e = x

    states: list[Tensor] = []
    times = Quadratic(9).times(process)
    step = ExponentialMultistep(order, "velocity", start="low", spread=spread)
    x = torch.tensor([[0.3], [-2.0]], dtype=F64)
    watch = [lambda progress: states.append(progress.x)]
    drive(FunctionScore(score, process).bind(None), process, step, times, x, Generated(0), watch)
    rho, places = spread * process.alpha(times) + process.sigma(times), u(times)
    area = torch.stack([c / (k + 1.0) * places ** (k + 1) for k, c in enumerate(coefficients)]).sum(0)
    for k in range(order - 1, len(states) - 1):
        exact = rho[k + 2] * (states[k] / rho[k + 1] + area[k + 2] - area[k + 1])
        torch.testing.assert_close(states[k + 1], exact, rtol=EXPONENTIAL_WEIGHTS, atol=EXPONENTIAL_WEIGHTS)


# ------------------------------------------------------------------------------------------------ start and corrector


@pytest.mark.parametrize(("step", "order"), LOW_STARTS, ids=str)
def test_low_start(step: ExponentialMultistep, order: int) -> None:
    assert abs(low_start_order(step) - order) <= ORDER


@pytest.mark.parametrize("step", VARIANTS, ids=str)
def test_calls_and_memory(step: ExponentialMultistep) -> None:
    score = skewed_mixture(VP(), 2).bind(None)
    end = drive(score, score.process, step, LogSNR(7).times(score.process), torch.zeros(3, 2), Generated(0))
    more = step.order - 2 if step.start == "own" and (step.order == 4 or not step.corrector) else 0
    assert score.calls == 7 + max(more, 0) and end.calls.tolist() == [score.calls] * 3
    assert len(end.memory.evaluations) == step.order - 1, "no evaluation is kept that no later step uses"


@pytest.mark.parametrize("predict", ["data", "noise", "velocity"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_corrector_is_the_step_taken_again(order: Any, predict: Any) -> None:
    """The corrector agrees with repeating the step from the stored state, with weights by quadrature."""
    process, oracle = SubVP(), skewed_mixture(SubVP(), 2)
    times = Quadratic(8).times(process)
    alpha, sigma = process.alpha(times).tolist(), process.sigma(times).tolist()
    snr = [math.log(a / b) for a, b in zip(alpha, sigma, strict=True)]
    # x_s = size_s (x_t / size_t + int value dplace), times a factor inside the integral
    size, place, factor = {
        "data": (sigma, snr, math.exp),
        "noise": (alpha, snr, lambda v: -math.exp(-v)),
        "velocity": ([0.5 * a + b for a, b in zip(alpha, sigma, strict=True)], [], lambda v: 1.0),
    }[predict]
    place = place or [b / rho for b, rho in zip(sigma, size, strict=True)]

    def step(x: Tensor, k: int, points: list[tuple[float, Tensor]]) -> Tensor:
        total = x / size[k]
        for j, (node, value) in enumerate(points):
            others = [p for i, (p, _) in enumerate(points) if i != j]
            basis = lambda v, node=node, others=others: math.prod((v - p) / (node - p) for p in others)  # noqa: E731
            total = total + quad(lambda v, b=basis: factor(v) * b(v), place[k], place[k + 1])[0] * value
        return size[k + 1] * total

    start = torch.tensor([[0.3, -1.0], [1.2, 0.4]], dtype=F64)
    x = corrected = start
    points: list[tuple[float, Tensor]] = []
    for k in range(8):
        D = oracle.denoised(x, times[k].expand(2))
        e = (x - alpha[k] * D) / sigma[k]
        points.insert(0, (place[k], {"data": D, "noise": e, "velocity": e - 2.0 * D}[predict]))
        if k > 0:
            corrected = step(corrected, k - 1, points[:order])
        x = step(corrected, k, points[: order - 1])
    got = chain(ExponentialMultistep(order, predict, corrector=True, start="low"), oracle, Quadratic(8), start)
    torch.testing.assert_close(got, x, rtol=WEIGHTS_OF_CHAINS, atol=WEIGHTS_OF_CHAINS)


def test_what_another_step_did_to_the_state_stays() -> None:
    """The correction is added to the state, so a shift of the state between two steps is propagated like the state."""
    process = VP()

    def score(x: Tensor, t: Tensor) -> Tensor:  # D = log-SNR, whatever x is
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        return (alpha * process.log_snr(t)[:, None] - x) / sigma**2

    bound, times = FunctionScore(score, process).bind(None), LogSNR(3).times(process)
    step, x, noise = ExponentialMultistep(3, corrector=True), torch.zeros(1, 2, dtype=F64), StepNoise(Generated(0), 0)
    first = step(bound, process, x, times[:1], times[1:2], noise)
    ends = [
        step(bound, process, first.x + shift, times[1:2], times[2:3], noise, first.memory).x for shift in (0.0, 0.5)
    ]
    sigma = process.sigma(times)
    expected = (0.5 * sigma[2] / sigma[1]).expand(1, 2)
    torch.testing.assert_close(ends[1] - ends[0], expected, rtol=1e3 * FLOAT64, atol=FLOAT64)


# ------------------------------------------------------------------------------------------------ where it arrives


@pytest.mark.parametrize(
    "process", [VE(0.01, 50.0), VP(), SubVP(), Tabulated(LinearBetas())], ids=lambda p: type(p).__name__
)
def test_the_flow_is_followed(process: Any) -> None:
    """Checked on a mixture, where the score is not affine."""
    oracle = skewed_mixture(process, 2)
    x = process.prior_std * torch.randn(8, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    if isinstance(process, Tabulated):  # whose rates jump
        exact = chain(ExponentialMultistep(4), oracle, LogSNR(300), x)
    else:
        exact = chain(AdaptiveFlow(1e-7, 1e-7), oracle, Uniform(1), x)
    for step in VARIANTS:
        if step.order >= 3 and step.start == "own":
            assert float((chain(step, oracle, Focused(60), x) - exact).abs().max()) <= FEW_STEPS, step


@pytest.mark.parametrize("step", VARIANTS, ids=str)
def test_into_no_noise(step: ExponentialMultistep) -> None:
    """A step below level 0 returns exactly the posterior mean at level 0."""
    process = Tabulated(GeometricSigmas(0.01, 10.0, 12))
    oracle = skewed_mixture(process, 2)
    x = 10.0 * torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    noisy = drive(oracle.bind(None), process, step, EveryLevel(False).times(process), x, Generated(0))
    clean = chain(step, oracle, EveryLevel(), x)
    zero = torch.zeros(5, dtype=F64)
    if not step.corrector or step.order == 1:
        torch.testing.assert_close(clean, oracle.denoised(noisy.x, zero), rtol=FLOAT64, atol=1e3 * FLOAT64)
    alone = Tabulated(GeometricSigmas(0.5, 0.5, 1))
    one = skewed_mixture(alone, 2)
    torch.testing.assert_close(
        chain(step, one, EveryLevel(), x), one.denoised(x, zero + 1.0), rtol=FLOAT64, atol=1e3 * FLOAT64
    )


def test_a_ladder_with_steps_between_its_levels() -> None:
    """With between="floor", a step within one level makes no evaluation and leaves the history unchanged."""
    process = Tabulated(GeometricSigmas(0.05, 5.0, 9), "floor")
    score, step = skewed_mixture(process, 2).bind(None), ExponentialMultistep(3, start="low", corrector=True)
    x = torch.tensor([[3.0, -4.0], [0.5, 6.0]], dtype=F64)
    levels = EveryLevel(False).times(process)
    twice = torch.stack([levels, levels - 0.05], 1).reshape(-1)[:-1]  # 0.05 below a level is the level below
    fine = drive(score, process, step, twice, x, Generated(0))
    plain = drive(score, process, step, levels, x, Generated(0))
    assert torch.equal(fine.x, plain.x)
    assert fine.calls.tolist() == plain.calls.tolist() == [8, 8]


@pytest.mark.parametrize("step", VARIANTS, ids=str)
def test_every_example_may_have_its_own_time(step: ExponentialMultistep) -> None:
    process = SubVP()
    oracle = skewed_mixture(process, 2)
    grids = torch.stack([Quadratic(5).times(process), LogSNR(5).times(process), Focused(5).times(process)])
    x = torch.tensor([[0.3, -1.0], [1.2, 0.4], [0.0, 0.1]], dtype=F64)

    def run(rows: list[int]) -> Tensor:
        state, memory, score = x[rows], None, oracle.bind(None)
        for k in range(5):
            t, s = grids[rows, k], grids[rows, k + 1]
            moved = step(score, process, state, t, s, StepNoise(Generated(0), k), memory)
            state, memory = moved.x, moved.memory
        return state

    together = run([0, 1, 2])
    torch.testing.assert_close(together, torch.cat([run([i]) for i in range(3)]), rtol=FLOAT64 * 100, atol=FLOAT64)


def test_small_noise_in_single_precision() -> None:
    """The state is not divided by sigma, so it is accurate to float32 at small noise."""
    process = VE(1e-6, 10.0)
    oracle = Gaussian(process, torch.tensor([0.3, -1.1]), 0.25)
    x = 10.0 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    for predict in ("data", "noise", "velocity"):
        step = ExponentialMultistep(2, predict)
        single, double = chain(step, oracle, LogSNR(40), x), chain(step, oracle, LogSNR(40), x.double())
        torch.testing.assert_close(single, double.float(), rtol=10 * FLOAT32, atol=10 * FLOAT32)


# ------------------------------------------------------------------------------------------------ as data


@pytest.mark.parametrize("step", VARIANTS, ids=str)
def test_codec(step: ExponentialMultistep) -> None:
    assert loads(dumps(Sampler(step, Focused(9))), Sampler) == Sampler(step, Focused(9))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="order=5 must be 1, 2, 3 or 4"):
        ExponentialMultistep(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Use order=2 or more"):
        ExponentialMultistep(1, corrector=True)
    with pytest.raises(ValueError, match="spread=0.0"):
        ExponentialMultistep(2, "velocity", spread=0.0)
