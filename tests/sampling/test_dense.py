"""Dense output and retries of the adaptive solver."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.sampling.adaptive import (
    NOT_FINITE,
    OK,
    TOO_MANY_STEPS,
    Accepted,
    dormand_prince_step,
    failure_messages,
    integrate,
)
from tolerance import DENSE, FLOAT64, ORDER, SOLVER

F64 = torch.float64


def turning(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """A rotation whose speed depends on the example, times a function of time."""
    speed = (1.0 + rows.to(y))[:, None] * (1.0 + t[:, None])
    return speed * torch.stack([-y[:, 1], y[:, 0]], dim=1)


def exact(times: Tensor, row: int) -> Tensor:
    angle = (1.0 + row) * (times + 0.5 * times**2)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def test_states_between_are_those_of_the_solution_and_belong_to_their_example() -> None:
    y = torch.tensor([[1.0, 0.0]] * 3, dtype=F64)
    zero, one = torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)
    times = torch.linspace(0.0, 1.0, 33, dtype=F64)
    found = integrate(turning, y, zero, one, rtol=1e-7, atol=1e-7, dense_times=times)
    assert found.dense_states is not None and found.dense_states.shape == (3, 33, 2)
    for i in range(3):
        torch.testing.assert_close(found.dense_states[i], exact(times, i), rtol=0.0, atol=DENSE)
    torch.testing.assert_close(found.dense_states[:, -1], found.y, rtol=FLOAT64, atol=FLOAT64)
    assert torch.equal(found.dense_states[:, 0], y)
    plain = integrate(turning, y, zero, one, rtol=1e-7, atol=1e-7)
    assert torch.equal(plain.y, found.y) and torch.equal(plain.calls, found.calls) and plain.dense_states is None
    own = torch.tensor([[0.3], [0.7], [0.1]], dtype=F64)
    backwards = integrate(turning, found.y, one, zero, rtol=1e-7, atol=1e-7, dense_times=own)
    assert backwards.dense_states is not None
    for i in range(3):
        torch.testing.assert_close(backwards.dense_states[i], exact(own[i], i), rtol=0.0, atol=DENSE)


def test_order_of_the_interpolant() -> None:
    """The local error of the interpolant, of order 4, decreases like h^5 at every position in the step."""
    part, rows, errors = torch.tensor([[0.15, 0.5, 0.8]], dtype=F64), torch.tensor([1]), []
    for h in (0.02, 0.01):
        t, length, y = torch.zeros(1, dtype=F64), torch.tensor([h], dtype=F64), exact(torch.zeros(1, dtype=F64), 1)
        new, _, slopes = dormand_prince_step(turning, t, y, length, turning(t, y, rows), rows)
        inside = Accepted(rows, t, length, y, new, slopes).at(part)
        errors.append((inside - exact(part * h, 1)).norm(dim=-1)[0])
    orders = (errors[0] / errors[1]).log2()
    assert float((orders - 5.0).abs().max()) < ORDER, orders


def test_what_a_stopped_example_did_not_reach_is_nan() -> None:
    def stops(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return torch.where((t > 0.45)[:, None], torch.nan, -y)

    times = torch.tensor([0.1, 0.4, 0.9], dtype=F64)
    y = torch.ones(1, 1, dtype=F64)
    found = integrate(stops, y, torch.zeros(1), torch.ones(1), rtol=1e-6, atol=1e-6, dense_times=times)
    assert found.status.tolist() == [NOT_FINITE] and found.dense_states is not None
    torch.testing.assert_close(found.dense_states[0, :2, 0], (-times[:2]).exp(), rtol=0.0, atol=SOLVER)
    assert bool(found.dense_states[0, 2].isnan()) and 0.4 < float(found.time) <= 0.45
    (line,) = failure_messages(found.status, found.time, found.y.square().mean(dim=1).sqrt())
    assert line.startswith("example 0: not finite at t = 0.4") and f"{math.exp(-0.45):.4g}" in line


def test_a_retry_goes_on_from_where_an_example_stopped_and_touches_no_other() -> None:
    seen: list[tuple[float, list[int]]] = []

    def hard(t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        seen.append((float(t.min()), rows.tolist()))
        return torch.where(rows[:, None] == 1, 40.0 * (40.0 * t[:, None]).cos(), torch.ones_like(y))

    def run(retries: int, steps: int = 25):
        return integrate(
            hard, torch.zeros(2, 1, dtype=F64), torch.zeros(2), torch.ones(2), rtol=1e-6, atol=1e-6, max_steps=steps,
            retries=retries,
        )  # fmt: skip

    stopped = run(0)
    assert stopped.status.tolist() == [OK, TOO_MANY_STEPS] and 0.0 < float(stopped.time[1]) < 1.0
    seen.clear()
    found = run(1)
    assert found.status.tolist() == [OK, OK]
    assert abs(float(found.y[1]) - math.sin(40.0)) < SOLVER
    first = next(i for i, (t, rows) in enumerate(seen) if rows == [1] and t >= float(stopped.time[1]))
    assert all(rows == [1] for _, rows in seen[first:]), "the second try is of that example alone, from where it was"
    assert torch.equal(found.y[0], stopped.y[0]) and found.calls[0] == stopped.calls[0]
    assert run(1, steps=3).status.tolist() == [OK, TOO_MANY_STEPS], "and it may fail again"
