"""Dormand-Prince with step sizes of each example."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from scorefield._random import IndexedNoise
from scorefield._typing import Condition
from scorefield.process import VE, VP, Process, SubVP
from scorefield.sampling import AdaptiveFlow, drive
from scorefield.sampling.adaptive import NOT_FINITE, OK, STATUS, TOO_MANY_STEPS, UNDERFLOW, flow_field, integrate
from scorefield.score import FunctionScore, Score
from scorefield.score.oracles import Gaussian, Mixture, skewed_mixture
from tolerance import BATCH_MATES, SOLVER, TIGHT_SOLVER

F64 = torch.float64
FAMILIES = [VE(0.05, 10.0), VP(), SubVP()]
IDS = ["VE", "VP", "sub-VP"]


def ends(process: Process, n: int) -> tuple[Tensor, Tensor]:
    return torch.ones(n, dtype=F64), torch.full((n,), process.t_min.sampling, dtype=F64)


def flow(score: Score, x: Tensor, start: Tensor, end: Tensor, tolerance: float, condition: Condition | None = None):
    """One adaptive step outside the sampling loop."""
    step = AdaptiveFlow(rtol=tolerance, atol=tolerance)
    return step(score.bind(condition), score.process, x, start, end, None)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ where it should end


def quantile(oracle: Mixture, u: Tensor, t: float) -> Tensor:
    """Quantiles of a one-dimensional mixture at time t, by bisection of its distribution function."""
    moments = [part.moments(t) for part in oracle.components]
    means = torch.stack([m[0] for m, _ in moments])
    stds = torch.stack([C[0, 0].sqrt() for _, C in moments])
    low, high = torch.full_like(u, -200.0), torch.full_like(u, 200.0)
    for _ in range(80):
        x = 0.5 * (low + high)
        cdf = (oracle.weights * torch.special.ndtr((x[:, None] - means) / stds)).sum(1)
        low, high = torch.where(cdf < u, x, low), torch.where(cdf < u, high, x)
    return 0.5 * (low + high)


@pytest.mark.parametrize("process", FAMILIES, ids=IDS)
def test_quantiles_map_to_quantiles(process: Process) -> None:
    """In one dimension the flow cannot cross itself: it carries each quantile of p_1 to the same quantile of p_t.

    Not the quantile 0.3, where this mixture has a gap: there a small error of the flow is a large one in x.
    """
    oracle = skewed_mixture(process, 1)
    u = torch.tensor([1e-4, 0.01, 0.1, 0.25, 0.4, 0.6, 0.8, 0.95, 0.999], dtype=F64)
    start, end = ends(process, len(u))
    x = quantile(oracle, u, 1.0)[:, None]
    moved = flow(oracle, x, start, end, 1e-8)
    expected = quantile(oracle, u, process.t_min.sampling)
    assert moved.status is not None and not bool(moved.status.any())
    assert torch.allclose(moved.x[:, 0], expected, rtol=0, atol=TIGHT_SOLVER)
    # And back, from data to latents.
    back = flow(oracle, moved.x, end, start, 1e-8)
    assert torch.allclose(back.x, x, rtol=TIGHT_SOLVER, atol=TIGHT_SOLVER)


def test_agrees_with_another_solver() -> None:
    process = VP()
    oracle = skewed_mixture(process, 2)
    x = process.prior_sample(IndexedNoise(0, range(3)).normal(torch.empty(3, 2, dtype=F64), 0, 0))
    start, end = ends(process, 3)
    moved = flow(oracle, x, start, end, 1e-8)
    field = flow_field(oracle.bind(None), process, x)

    def right_hand_side(t: float, y: np.ndarray) -> np.ndarray:
        times = torch.full((3,), t, dtype=F64)
        return field(times, torch.from_numpy(y).reshape(3, 2), torch.arange(3)).numpy().ravel()

    span = float(start[0]), float(end[0])
    reference = solve_ivp(right_hand_side, span, x.numpy().ravel(), method="DOP853", rtol=1e-9, atol=1e-9)
    assert torch.allclose(moved.x.ravel(), torch.from_numpy(reference.y[:, -1]), rtol=0, atol=TIGHT_SOLVER)


@pytest.mark.parametrize(
    ("process", "expected"), [(VP(), 50), (SubVP(), 68), (VE(0.01, 50.0), 98)], ids=["VP", "sub-VP", "VE"]
)
def test_works_like_scipy_on_one_example(process: Process, expected: int) -> None:
    """With the same step-size controller the solver makes as many evaluations on one example as SciPy's RK45.

    The printed counts, 50, 68 and 98, are for another draw of the latent.
    """
    shape = (4, 3, 8, 8)
    oracle = Gaussian(process, torch.zeros(shape), 0.25)
    x = process.prior_sample(IndexedNoise(0, [0]).normal(torch.empty(1, *shape, dtype=F64), 0, 0))
    start, end = ends(process, 1)
    moved = flow(oracle, x, start, end, 1e-5)
    field = flow_field(oracle.bind(None), process, x)

    def right_hand_side(t: float, y: np.ndarray) -> np.ndarray:
        return field(torch.full((1,), t, dtype=F64), torch.from_numpy(y)[None], torch.arange(1)).numpy()[0]

    reference = solve_ivp(right_hand_side, (1.0, float(end[0])), x.numpy().ravel(), rtol=1e-5, atol=1e-5)
    assert moved.calls is not None and moved.calls.tolist() == [reference.nfev]
    assert abs(reference.nfev - expected) <= 6
    assert torch.allclose(moved.x.ravel(), torch.from_numpy(reference.y[:, -1]), rtol=0, atol=1e-3 * SOLVER)


# ------------------------------------------------------------------------------------------ one example at a time


def test_an_example_does_not_depend_on_its_batch_mates() -> None:
    """Results do not depend on the batch: bit-equal where the score is, so the solver mixes no examples."""
    process = VP()
    center = FunctionScore(lambda x, t: -(x - 0.5) / (0.1 + x * x) + x.sin(), process)
    x = torch.linspace(-3.0, 3.0, 12, dtype=F64).reshape(6, 2)
    start, end = ends(process, 6)
    together = flow(center, x, start, end, 1e-5)
    assert together.calls is not None and len(set(together.calls.tolist())) > 1, (
        "the examples must differ in difficulty"
    )
    for i in range(6):
        alone = flow(center, x[i : i + 1], start[:1], end[:1], 1e-5)
        assert torch.equal(alone.x[0], together.x[i])
        assert alone.calls is not None and alone.calls[0] == together.calls[i]
    shuffled = [4, 2, 0, 5, 1, 3]
    assert torch.equal(flow(center, x[shuffled], start, end, 1e-5).x, together.x[shuffled])


def test_an_oracles_examples_do_not_depend_on_their_batch_mates() -> None:
    """Conditions stay with their examples when finished examples leave the batch."""
    process = SubVP()
    oracle = skewed_mixture(process, 3)
    x = process.prior_sample(IndexedNoise(1, range(5)).normal(torch.empty(5, 3, dtype=F64), 0, 0))
    condition = {"class": torch.tensor([0, 1, -1, 1, 0])}
    start, end = ends(process, 5)
    together = flow(oracle, x, start, end, 1e-4, condition)
    for i in range(5):
        alone = flow(oracle, x[i : i + 1], start[:1], end[:1], 1e-4, {"class": condition["class"][i : i + 1]})
        assert torch.allclose(alone.x[0], together.x[i], rtol=0, atol=BATCH_MATES)


def test_finished_examples_leave_the_batch() -> None:
    seen: list[list[int]] = []

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        assert len(t) == len(y) == len(rows)
        seen.append(rows.tolist())
        return -rates[rows, None] * y

    rates = torch.tensor([0.1, 300.0, 3.0], dtype=F64)
    zero, one = torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)
    solution = integrate(field, torch.ones(3, 1, dtype=F64), zero, one, rtol=1e-7, atol=1e-9)
    assert seen[0] == [0, 1, 2] and seen[-1] == [1]
    counts = torch.tensor([sum(i in rows for rows in seen) for i in range(3)])
    assert torch.equal(solution.calls, counts)
    assert bool(((solution.calls - 2) % 6 == 0).all()), "two for the first step size, six per attempt"
    assert torch.allclose(solution.y[:, 0], (-rates).exp(), rtol=0, atol=SOLVER)
    assert torch.equal(solution.time, one)


def test_blocks_are_held_to_the_tolerance_separately() -> None:
    """The error of one hard coordinate among many easy ones must not be averaged away."""

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        slope = torch.zeros_like(y)
        slope[:, -1] = 5.0 * (25.0 * t).cos() * y[:, -1]
        return slope

    y = torch.ones(1, 1001, dtype=F64)
    zero, one = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    exact = math.exp(5.0 * math.sin(25.0) / 25.0)
    errors = [
        abs(float(integrate(field, y, zero, one, rtol=1e-5, atol=1e-5, blocks=blocks).y[0, -1]) - exact)
        for blocks in ((1000, 1), None)
    ]
    assert errors[0] < SOLVER and errors[0] < 0.2 * errors[1]


# ------------------------------------------------------------------------------------------ how it ends


def solved(field: Callable[[Tensor, Tensor, Tensor], Tensor], y: Tensor, max_steps: int = 10_000):
    zero, one = torch.zeros(len(y), dtype=F64), torch.ones(len(y), dtype=F64)
    return integrate(field, y, zero, one, rtol=1e-6, atol=1e-6, max_steps=max_steps)


def test_too_many_steps() -> None:
    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return torch.where(rows[:, None] == 1, 200.0 * (200.0 * t[:, None]).cos(), torch.ones_like(y))

    solution = solved(field, torch.zeros(3, 1, dtype=F64), max_steps=20)
    assert solution.status.tolist() == [OK, TOO_MANY_STEPS, OK] and STATUS[TOO_MANY_STEPS] == "too many steps"
    assert float(solution.time[1]) < 1.0 and torch.allclose(solution.y[[0, 2]], torch.ones(2, 1, dtype=F64))
    assert solution.calls[1] == 2 + 6 * 20
    assert abs(float(solution.y[1]) - math.sin(200.0 * float(solution.time[1]))) < SOLVER, "the last accepted state"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("since", [-1.0, 0.3])
def test_a_field_that_is_not_finite(bad: float, since: float) -> None:
    """A score that is not finite from the start or from t = 0.3 on sets the status of its example only."""

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        assert bool(torch.isfinite(t).all()), "a field is never asked at a time that is no number"
        broken = (rows == 1) & (t > since)
        return torch.where(broken[:, None], bad, -y)

    solution = solved(field, torch.ones(3, 2, dtype=F64))
    assert solution.status.tolist() == [OK, NOT_FINITE, OK] and STATUS[NOT_FINITE] == "not finite"
    assert bool(torch.isfinite(solution.y).all()), "the last accepted state is finite"
    assert torch.allclose(solution.y[[0, 2]], torch.full((2, 2), math.exp(-1), dtype=F64), atol=SOLVER)


def test_step_size_underflow() -> None:
    """y' = 1 / (2 (1/2 - t)) has no solution through t = 1/2: steps shrink until they underflow."""

    def field(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        hard = 0.5 / (0.5 - t[:, None]).abs().clamp_min(1e-30) ** 1.5
        return torch.where(rows[:, None] == 0, hard, torch.ones_like(y))

    solution = solved(field, torch.zeros(2, 1, dtype=F64))
    assert solution.status.tolist() == [UNDERFLOW, OK] and STATUS[UNDERFLOW] == "step size underflow"
    assert abs(float(solution.time[0]) - 0.5) < SOLVER


def test_status_reaches_the_end_of_a_chain() -> None:
    process = VP()
    score = FunctionScore(lambda x, t: torch.where(x > 0, torch.nan, -x), process)
    x = torch.tensor([[-1.0], [1.0]])
    times = torch.tensor([1.0, 0.5, 1e-3], dtype=F64)
    end = drive(score.bind(None), process, AdaptiveFlow(), times, x, IndexedNoise(0, [0, 1]))
    assert end.status.tolist() == [OK, NOT_FINITE]


# ------------------------------------------------------------------------------------------ edges


def test_no_time_and_no_examples() -> None:
    process = VP()
    oracle = skewed_mixture(process, 2)
    x = torch.ones(2, 2)
    half = torch.full((2,), 0.5, dtype=F64)
    moved = flow(oracle, x, half, half, 1e-5)
    assert torch.equal(moved.x, x) and moved.calls is not None and moved.calls.tolist() == [0, 0]
    none = flow(oracle, x[:0], half[:0], half[:0], 1e-5)
    assert none.x.shape == (0, 2)
    # Some examples have no way to go, others do.
    end = torch.tensor([0.5, 0.25], dtype=F64)
    moved = flow(oracle, x, half, end, 1e-5)
    assert torch.equal(moved.x[0], x[0]) and not torch.equal(moved.x[1], x[1])


def test_the_score_is_asked_in_the_dtype_of_the_state() -> None:
    process = VP()
    dtypes: set[torch.dtype] = set()

    def watched(x: Tensor, t: Tensor) -> Tensor:
        dtypes.add(x.dtype)
        return -x

    x = torch.ones(2, 3)
    moved = flow(FunctionScore(watched, process), x, *ends(process, 2), 1e-5)
    assert dtypes == {torch.float32} and moved.x.dtype == torch.float32


# ------------------------------------------------------------------------------------------ a hard example among others


class Stiff:
    """The rows `hard` relax to a moving target at a rate for which an explicit solver needs many steps."""

    def __init__(self, hard: list[int], count: int, dtype: torch.dtype = F64):
        self.rate = torch.ones(count, 1, dtype=dtype)
        self.rate[hard] = 1e6

    def __call__(self, t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        rate = self.rate[rows]
        return (-rate * (y.to(rate) - t[:, None].to(rate).cos())).double()


def test_a_stiff_example_gives_up_alone_and_its_batch_mates_do_not_notice() -> None:
    y, count = torch.linspace(-2.0, 2.0, 8, dtype=F64).reshape(4, 2), 4
    zero, one = torch.zeros(count, dtype=F64), torch.ones(count, dtype=F64)
    settings = {"rtol": 1e-6, "atol": 1e-6, "max_steps": 60, "retries": 1}
    wanted = torch.tensor([0.2, 0.9], dtype=F64)
    found = integrate(Stiff([2], count), y, zero, one, dense_times=wanted, **settings)  # type: ignore[arg-type]
    assert found.status.tolist() == [OK, OK, TOO_MANY_STEPS, OK] and float(found.time[2]) < 1.0
    assert bool(torch.isfinite(found.y).all()) and found.dense_states is not None
    for i in (0, 1, 3):
        field = Stiff([], 1)
        alone = integrate(field, y[i : i + 1], zero[:1], one[:1], dense_times=wanted, **settings)  # type: ignore[arg-type]
        assert torch.equal(alone.y[0], found.y[i]) and alone.dense_states is not None
        assert torch.equal(alone.dense_states[0], found.dense_states[i]) and int(alone.calls[0]) == int(found.calls[i])


def test_the_state_is_float64_around_a_float32_field() -> None:
    """Sums of many small steps in float32 would lose what the tolerance asks for; rounding of the field alone does not.

    y' = cos(t) - y from y(0) = 2: y = (cos t + sin t) / 2 + 1.5 exp(-t).
    """
    y, zero, one = torch.full((1, 1), 2.0), torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    found = integrate(Stiff([], 1, torch.float32), y, zero, one, rtol=1e-6, atol=1e-6)
    exact = 0.5 * (math.cos(1.0) + math.sin(1.0)) + 1.5 * math.exp(-1.0)
    assert found.y.dtype == F64 and found.status.tolist() == [OK]
    assert abs(float(found.y) - exact) < SOLVER
    assert float(found.y) != float(found.y.float()), "the state is not rounded to the field's numbers"
