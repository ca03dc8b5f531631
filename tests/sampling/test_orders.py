"""Every step has the order it declares; see `scorefield.selftest.orders` for how that is measured."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from scorefield._math import over_event
from scorefield._random import StepNoise
from scorefield.process import VP, Process
from scorefield.process.grids import Uniform
from scorefield.sampling import (
    Ancestral,
    Chain,
    ExponentialMultistep,
    Hold,
    Langevin,
    NoiseScaled,
    NormRatio,
    Step,
    StepResult,
    StochasticRungeKutta,
)
from scorefield.sampling.adaptive import dormand_prince_step
from scorefield.score import BoundScore
from scorefield.score.oracles import Gaussian, skewed_gaussian
from scorefield.selftest.orders import (
    PROBLEMS,
    Problem,
    affine_chain,
    applies,
    chain_error,
    measured_order,
    ordered_steps,
    step_types,
)
from tolerance import AFFINE, FLOAT64, ORDER


def spared(step: Step) -> bool:
    """Whether ladders are left to the slow lane.

    `StochasticRungeKutta` looks for a time between levels at every step, by bisection. What multistep methods of the
    flow do on a ladder is asked of those that predict data; the others see the same levels.
    """
    others = isinstance(step, ExponentialMultistep) and step.predict != "data"
    return isinstance(step, StochasticRungeKutta) or others


CASES = [
    pytest.param(
        step,
        problem,
        id=f"{type(step).__name__}-{problem.name}",
        marks=[pytest.mark.slow] if problem.ladder and spared(step) else [],
    )
    for step in ordered_steps()
    for problem in PROBLEMS
    if applies(step, problem)
]
F64 = torch.float64


@pytest.mark.parametrize(("step", "problem"), CASES)
def test_measured_order_is_declared_order(step: Step, problem: Problem) -> None:
    assert step.order is not None
    order, _ = measured_order(step, problem)
    assert abs(order - step.order) <= ORDER, f"{step} on {problem.name}: declared {step.order}, measured {order:.3f}"


def test_every_step_declares_an_order_or_a_law() -> None:
    names = [cls.__name__ for cls in step_types()]
    assert {"EulerMaruyama", "ReverseDiffusion", "Ancestral", "FlowEuler", "FlowHeun", "AdaptiveFlow"} <= set(names)
    for cls in step_types():
        assert (cls.order is None) == bool(cls.invariant), f"{cls.__name__} needs an order or an invariant"


# ------------------------------------------------------------------------------------- the probe itself


class Adams(Step):
    """Adams-Bashforth of second order on the flow, started by Euler's method on the midpoint; for uniform grids."""

    order: ClassVar[int | None] = 2

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        h = over_event(s - t, x)
        slope = process.flow_drift(x, t, score(x, t))
        if memory is None:
            middle = 0.5 * (t + s)
            half = x + 0.5 * h * slope
            new = x + h * process.flow_drift(half, middle, score(half, middle))
        else:
            new = x + h * (1.5 * slope - 0.5 * memory)
        return StepResult(new, new, slope)


class Forgetful(Adams):
    """A mutant that loses its previous slope and uses the present one instead."""

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        slope = process.flow_drift(x, t, score(x, t))
        return super().__call__(score, process, x, t, s, noise, slope)


class Loud(Ancestral):
    """A mutant of ancestral sampling with 1.05 times the noise."""

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        moved = super().__call__(score, process, x, t, s, noise)
        return StepResult(moved.mean + 1.05 * (moved.x - moved.mean), moved.mean)


UNIFORM = Problem("VP", lambda n: VP(0.1, 8.0), Uniform)


def test_a_step_with_memory_is_measured_with_its_history() -> None:
    assert abs(measured_order(Adams(), UNIFORM)[0] - 2) <= ORDER
    assert chain_error(Chain((Adams(),)), UNIFORM, 16) == chain_error(Adams(), UNIFORM, 16)


def test_mutants_lose_their_order() -> None:
    assert abs(measured_order(Forgetful(), UNIFORM)[0] - 2) > ORDER
    assert abs(measured_order(Loud(), UNIFORM)[0] - 1) > ORDER


def test_norm_rules_are_not_affine() -> None:
    """Such steps have no order of this kind, and the probe refuses them instead of returning a meaningless number."""
    process = VP(0.1, 8.0)
    times = Uniform(4).times(process)
    for size, affine in ((NoiseScaled(), True), (NormRatio(norm="example"), False), (NormRatio(norm="batch"), False)):
        chain = affine_chain(Chain((Langevin(size), Hold())), skewed_gaussian(process), process, times)
        assert (chain.defect < AFFINE) == affine


# ------------------------------------------------------------------------------------- cases that are exact


@pytest.mark.parametrize("steps", [1, 3])
def test_ancestral_sampling_with_forward_variance_is_exact_on_unit_gaussians(steps: int) -> None:
    process = VP(0.1, 8.0)
    oracle = Gaussian(process, torch.zeros(2), 1.0)
    chain = affine_chain(Ancestral("forward"), oracle, process, Uniform(steps).times(process))
    mean, covariance = chain.push(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    assert float((covariance - torch.eye(2)).abs().max()) <= FLOAT64 and not bool(mean.any())


@pytest.mark.parametrize("steps", [1, 3])
def test_ancestral_sampling_with_posterior_variance_is_exact_on_a_point(steps: int) -> None:
    process = VP(0.1, 8.0)
    oracle = Gaussian(process, torch.tensor([0.3, -1.1]), 0.0)
    times = Uniform(steps).times(process)
    chain = affine_chain(Ancestral("posterior"), oracle, process, times)
    mean, covariance = chain.push(*oracle.moments(float(times[0])))
    exact_mean, exact_covariance = oracle.moments(float(times[-1]))
    assert torch.allclose(mean, exact_mean, rtol=FLOAT64, atol=FLOAT64)
    assert torch.allclose(covariance, exact_covariance, rtol=1e3 * FLOAT64, atol=FLOAT64)


def test_the_embedded_error_is_of_fifth_order() -> None:
    """The estimate is the local error of the embedded fourth-order method, h^5: 2^5 times smaller for half the step."""
    field = lambda t, y, rows: -y + t[:, None].sin()  # noqa: E731
    y, t, rows = torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64), torch.arange(1)
    sizes = []
    for h in (0.1, 0.05):
        length = torch.full((1,), h, dtype=F64)
        sizes.append(float(dormand_prince_step(field, t, y, length, field(t, y, rows), rows)[1].abs()))
    assert abs(torch.tensor(sizes[0] / sizes[1]).log2().item() - 5) <= ORDER


def test_errors_shrink_with_the_grid() -> None:
    errors = [chain_error(Ancestral(), UNIFORM, n) for n in (16, 32, 64)]
    assert errors[0] > errors[1] > errors[2]
