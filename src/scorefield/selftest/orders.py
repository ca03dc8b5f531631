"""The order of every step, measured without Monte Carlo.

On Gaussian data the exact score is affine in x, so a chain of non-adaptive steps is an affine map of its start and of
its noise, x_N = c + A x_0 + sum_k B_k z_k. Driving it once on a batch of unit inputs reads off c, A and every B_k; the
mean and covariance of x_N follow in float64 and are compared with the exact marginal. The whole chain is probed, not
one step, so that steps with memory count with their history and their way of starting up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from scorefield._random import StepNoise
from scorefield.process import VE, VP, GeneralSDE, GeometricSigmas, Levels, LinearBetas, Process, SubVP, Tabulated
from scorefield.process.grids import EveryLevel, Grid, Uniform
from scorefield.sampling import DDIM, AdaptiveFlow, ExponentialMultistep, Step, StepResult, StochasticMultistep, drive
from scorefield.sampling.adaptive import dormand_prince_step, flow_field
from scorefield.score import BoundScore, Score
from scorefield.score.oracles import skewed_gaussian

AFFINE = 1e-9
"""Relative distance of a chain from an affine one that rounding over a hundred float64 steps explains."""

# ------------------------------------------------------------------------------------------------ the problems


@dataclass(frozen=True)
class Problem:
    """A process and a grid that are refined together: a ladder is rebuilt with N levels.

    The families keep a moderate range of noise. Over its full published range VE is a trap: the first-order terms of
    Euler-Maruyama's variance, integrated from sigma = 0 to infinity, cancel, and it would be measured at order 2. So do
    those of other steps under VP and sub-VP down to t = 1e-3.
    """

    name: str
    process: Callable[[int], Process]
    grid: Callable[[int], Grid]
    ladder: bool = False
    orders: tuple[int, int] = (1, 5)


@dataclass(frozen=True)
class Shallow(Grid):
    """The upper part of a grid's range, from t = 1 to t = 0.1: evenly spaced in log-SNR, or in sqrt(t)."""

    steps: int
    clock: Literal["log-SNR", "root"]

    def times(self, process: Process | GeneralSDE) -> Tensor:
        assert isinstance(process, Process)
        ends = torch.tensor([1.0, 0.1], dtype=torch.float64)
        high, low = (process.log_snr(ends) if self.clock == "log-SNR" else ends.sqrt()).tolist()
        places = torch.linspace(high, low, self.steps + 1, dtype=torch.float64)
        return process.time_at_log_snr(places) if self.clock == "log-SNR" else places**2


def vp_table(n: int) -> Process:
    """VP at n + 1 levels of evenly spaced log-SNR, all of whose ratios tend to one when the table is refined."""
    process = VP(0.1, 8.0)
    times = Shallow(n, "log-SNR").times(process).flip(0)
    return Tabulated(Levels(tuple(process.sigma(times).tolist()), tuple(process.alpha(times).tolist())))


PROBLEMS = (
    Problem("VE", lambda n: VE(0.3, 3.0), Uniform),
    Problem("VP", lambda n: VP(0.1, 8.0), lambda n: Shallow(n, "log-SNR")),
    Problem("sub-VP", lambda n: SubVP(0.1, 4.0), lambda n: Shallow(n, "root")),
    Problem(
        "VE ladder", lambda n: Tabulated(GeometricSigmas(0.3, 3.0, n + 1)), lambda n: EveryLevel(False), ladder=True
    ),
    # DDPM's betas: the ratio of the lowest two levels stays at sqrt(2) however many there are, which first order bears.
    Problem(
        "VP ladder",
        lambda n: Tabulated(LinearBetas(0.1, 8.0, n + 1)),
        lambda n: EveryLevel(False),
        ladder=True,
        orders=(1, 1),
    ),
    Problem("VP table", vp_table, lambda n: EveryLevel(False), ladder=True, orders=(2, 5)),
)

STEPS: dict[int, tuple[int, int]] = {1: (40, 80), 2: (32, 64), 3: (96, 192), 4: (96, 192), 5: (48, 96)}
"""Order -> the two numbers of steps between which it is measured: fine enough to be asymptotic, far above rounding."""


# ------------------------------------------------------------------------------------------------ the steps


class FixedDormandPrince(Step):
    """`AdaptiveFlow` with every step accepted at the grid's length."""

    order: ClassVar[int | None] = AdaptiveFlow.order
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = AdaptiveFlow.needs

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        field, rows = flow_field(score, process, x), torch.arange(len(x))
        t, length = t.to(x), (s - t).to(x)
        x = dormand_prince_step(field, t, x, length, field(t, x, rows), rows)[0]
        return StepResult(x, x)


FIXED: dict[type[Step], Step] = {AdaptiveFlow: FixedDormandPrince()}
"""Adaptive steps -> what takes their step at a given length."""


FURTHER: tuple[Step, ...] = (
    DDIM(0.5),
    DDIM(1.0),
    StochasticMultistep(2, False, 0.5),
    StochasticMultistep(2, True, 0.5),
)
"""Other settings of numbers, measured beside the defaults."""

LOW_STARTS: tuple[tuple[ExponentialMultistep, int], ...] = (
    (ExponentialMultistep(2, start="low"), 2),
    (ExponentialMultistep(3, start="low"), 2),
    (ExponentialMultistep(4, start="low"), 2),
    (ExponentialMultistep(4, "velocity", start="low"), 2),
    (ExponentialMultistep(3, corrector=True, start="low"), 3),
    (ExponentialMultistep(4, "noise", corrector=True, start="low"), 3),
    (ExponentialMultistep(4, "velocity", corrector=True, start="low"), 3),
)
"""Multistep methods that start with the evaluations that there are, and the order of their chains.

The first step's error is that of order 1, or of a trapezoid with the corrector: it stays when all others vanish.
"""


def step_types() -> list[type[Step]]:
    """Every concrete subclass of Step in the room of samplers, by name."""
    found: set[type[Step]] = set()
    fresh: list[type[Step]] = [Step]
    while fresh:
        fresh = [sub for cls in fresh for sub in cls.__subclasses__() if sub not in found]
        found.update(fresh)
    inside = [cls for cls in found if cls.__module__.startswith("scorefield.sampling.") and not cls.__abstractmethods__]
    return sorted(inside, key=lambda cls: cls.__name__)


def variants(cls: type[Step]) -> Iterator[Step]:
    """The step with every combination of its boolean and Literal fields that it accepts, others at their defaults.

    Not the low-order start of multistep methods, whose chains are not of the order of their formula: see `LOW_STARTS`.
    """
    if cls in FIXED:
        yield FIXED[cls]
        return
    choices: dict[str, tuple[Any, ...]] = {}
    hints = get_type_hints(cls)
    for name in getattr(cls, "__dataclass_fields__", {}):
        if hints[name] is bool:
            choices[name] = (False, True)
        elif get_origin(hints[name]) is Literal:
            choices[name] = get_args(hints[name])
    for values in product(*choices.values()):
        fields = dict(zip(choices, values, strict=True))
        with suppress(ValueError):
            if fields.get("start") != "low":
                yield cls(**fields)


def ordered_steps() -> list[Step]:
    """Every variant of every step that declares an order."""
    return [step for cls in step_types() if cls.order is not None for step in variants(cls)] + list(FURTHER)


# ------------------------------------------------------------------------------------------------ the probe


class Impulses:
    """Noise that is zero, but for a unit vector per row at one draw, or a random vector at every draw; keeps a record.

    Args:
        rows: (step, draw) -> number of the first of the rows that get the unit vectors of that draw.
        busy: A row that gets a random vector at every draw.
    """

    def __init__(self, rows: dict[tuple[int, int], int] | None = None, busy: int | None = None):
        self.rows, self.busy = rows or {}, busy
        self.drawn: dict[tuple[int, int], Tensor] = {}

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        assert (step, draw) not in self.drawn, "a draw was used twice"
        generator = torch.Generator().manual_seed(1 + 1000 * step + draw)
        self.drawn[step, draw] = torch.randn(like.shape[1:], generator=generator, dtype=like.dtype).to(like)
        z = torch.zeros_like(like)
        if (step, draw) in self.rows:
            first, M = self.rows[step, draw], like.shape[1]
            z[first : first + M] = torch.eye(M).to(like)
        if self.busy is not None:
            z[self.busy] = self.drawn[step, draw]
        return z

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        raise AssertionError("a step that declares an order draws normal noise only")


@dataclass(frozen=True)
class Affine:
    """x_N = c + A x_0 + noise of covariance S; `defect` is how far from affine, relative, the chain was."""

    A: Tensor
    c: Tensor
    S: Tensor
    defect: float

    def push(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of x_N for x_0 ~ N(mean, covariance)."""
        return self.A @ mean + self.c, self.A @ covariance @ self.A.T + self.S


def affine_chain(
    step: Step,
    score: Score,
    process: Process,
    times: Tensor,
    dimension: int = 2,
    device: torch.device | str = "cpu",
) -> Affine:
    """Probe a chain on vectors with unit inputs.

    Args:
        step: The step, of a fixed grid.
        score: Affine in x, of one law for all rows.
        process: Whose alpha and sigma the step uses.
        times: The grid.
        dimension: D.
        device: Where the states are; it must have float64.
    """
    D, bound = dimension, score.bind(None)
    # The origin, D unit vectors, and a busy row with everything at once.
    x = torch.zeros(2 + D, D, dtype=torch.float64, device=device)
    x[1 : 1 + D] = torch.eye(D).to(x)
    x[-1] = torch.linspace(-2.0, 3.0, D).to(x)
    noise = Impulses(busy=1 + D)
    end = drive(bound, process, step, times, x, noise).x
    c, A = end[0], (end[1 : 1 + D] - end[0]).T
    busy, S, apart = c + A @ x[-1], x.new_zeros(D, D), 0.0
    if noise.drawn:
        # The origin again, then unit vectors at each draw. In this other batch the origin must end as it did before.
        random = torch.cat(list(noise.drawn.values()))
        starts = [0, *accumulate(len(z) for z in noise.drawn.values())]
        impulses = Impulses({key: 1 + first for key, first in zip(noise.drawn, starts, strict=False)})
        ends = drive(bound, process, step, times, x.new_zeros(1 + len(random), D), impulses).x
        B = ends[1:] - c  # row j: the effect of the j-th of all normal numbers
        busy, S, apart = busy + random @ B, B.T @ B, float((ends[0] - c).abs().max())
    return Affine(A.cpu(), c.cpu(), S.cpu(), (float((end[-1] - busy).abs().max()) + apart) / float(end.abs().max()))


def chain_error(step: Step, problem: Problem, n: int, device: torch.device | str = "cpu") -> float:
    """Relative error of mean plus covariance after n steps from the exact marginal at t = 1.

    Raises:
        ValueError: The step is not affine in x and its noise on Gaussian data, and has no order of this kind.
    """
    process = problem.process(n)
    oracle = skewed_gaussian(process)
    times = problem.grid(n).times(process)
    chain = affine_chain(step, oracle, process, times, device=device)
    if not chain.defect < AFFINE:
        raise ValueError(f"{step} is not affine on Gaussian data (defect {chain.defect:g}); it has no such order")
    return distance(chain.push(*oracle.moments(float(times[0]))), oracle.moments(float(times[-1])))


def distance(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> float:
    """Relative error of a mean, plus that of a covariance."""
    return sum(float((have - want).norm() / want.norm()) for have, want in zip(found, exact, strict=True))


def slope(errors: tuple[float, float], steps: tuple[int, int]) -> float:
    """Order of convergence: the slope of log error over log step length."""
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


def measured_order(step: Step, problem: Problem, device: torch.device | str = "cpu") -> tuple[float, float]:
    """The slope of log error over log step length, and the error at the finer grid."""
    assert step.order is not None
    coarse, fine = STEPS[step.order]
    errors = chain_error(step, problem, coarse, device), chain_error(step, problem, fine, device)
    return slope(errors, (coarse, fine)), errors[1]


def applies(step: Step, problem: Problem) -> bool:
    """Whether the step is meant for the problem.

    A ladder is for steps from level to level by the kernel. Its rates jump at the levels, which limits steps by rates
    to first order there, whatever they declare.
    """
    assert step.order is not None
    low, high = problem.orders
    return low <= step.order <= high and not (problem.ladder and step.needs == "rates")


def low_start_order(step: ExponentialMultistep, device: torch.device | str = "cpu") -> float:
    """The slope between 128 and 256 steps on VE, where the first step's error has outlived the others."""
    steps = (128, 256)
    return slope((chain_error(step, PROBLEMS[0], 128, device), chain_error(step, PROBLEMS[0], 256, device)), steps)
