"""Orders of convergence of sampler steps, measured without Monte Carlo.

On Gaussian data the exact score is affine in x, so that a chain of non-adaptive steps is an affine map of its start and
of its noise, x_N = c + A x_0 + sum_k B_k z_k. One run on a batch of unit inputs reads off c, A and every B_k; mean and
covariance of x_N follow in float64 and are compared with the exact marginal. The whole chain is measured and not a
single step, so that multistep methods are measured with their history and their start.
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
"""Largest relative deviation of a chain from an affine map that rounding over a hundred float64 steps explains."""

# ------------------------------------------------------------------------------------------------ the problems


@dataclass(frozen=True)
class Problem:
    """A process and a grid that are refined together; a ladder is rebuilt with N levels.

    The processes have a moderate range of noise on purpose. Over the full published range of VE, the first-order terms
    of Euler-Maruyama's variance, integrated from sigma = 0 to infinity, cancel, and order 2 would be measured. The same
    happens to other steps under VP and sub-VP down to t = 1e-3.

    Args:
        name: Name of the problem.
        process: Number of steps -> process.
        grid: Number of steps -> grid.
        ladder: Whether the process is a ladder of levels.
        orders: Smallest and largest order that can be measured on it.
    """

    name: str
    process: Callable[[int], Process]
    grid: Callable[[int], Grid]
    ladder: bool = False
    orders: tuple[int, int] = (1, 5)


@dataclass(frozen=True)
class TruncatedGrid(Grid):
    """A grid from t = 1 to t = 0.1, evenly spaced in log-SNR or in sqrt(t).

    Args:
        steps: Number of steps.
        spacing: The variable in which times are evenly spaced; "root" is sqrt(t).
    """

    steps: int
    spacing: Literal["log-SNR", "root"]

    def times(self, process: Process | GeneralSDE) -> Tensor:
        assert isinstance(process, Process)
        ends = torch.tensor([1.0, 0.1], dtype=torch.float64)
        first, last = (process.log_snr(ends) if self.spacing == "log-SNR" else ends.sqrt()).tolist()
        points = torch.linspace(first, last, self.steps + 1, dtype=torch.float64)
        return process.time_at_log_snr(points) if self.spacing == "log-SNR" else points**2


def vp_table(n: int) -> Process:
    """Return VP at n + 1 levels evenly spaced in log-SNR, whose ratios all tend to one as the table is refined."""
    process = VP(0.1, 8.0)
    times = TruncatedGrid(n, "log-SNR").times(process).flip(0)
    return Tabulated(Levels(tuple(process.sigma(times).tolist()), tuple(process.alpha(times).tolist())))


PROBLEMS = (
    Problem("VE", lambda n: VE(0.3, 3.0), Uniform),
    Problem("VP", lambda n: VP(0.1, 8.0), lambda n: TruncatedGrid(n, "log-SNR")),
    Problem("sub-VP", lambda n: SubVP(0.1, 4.0), lambda n: TruncatedGrid(n, "root")),
    Problem(
        "VE ladder", lambda n: Tabulated(GeometricSigmas(0.3, 3.0, n + 1)), lambda n: EveryLevel(False), ladder=True
    ),
    # DDPM's betas: the ratio of the two lowest levels stays at sqrt(2) for any number of levels, so that only first
    # order can be measured.
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
"""Order -> the two numbers of steps between which it is measured: in the asymptotic range and far above rounding."""


# ------------------------------------------------------------------------------------------------ the steps


class FixedDormandPrince(Step):
    """The step of `AdaptiveFlow` from one grid time to the next, without error control."""

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
"""Adaptive step -> the same step with the step length of the grid."""


EXTRA_SETTINGS: tuple[Step, ...] = (
    DDIM(0.5),
    DDIM(1.0),
    StochasticMultistep(2, False, 0.5),
    StochasticMultistep(2, True, 0.5),
)
"""Steps with numerical settings other than the defaults, which are measured as well."""

LOW_STARTS: tuple[tuple[ExponentialMultistep, int], ...] = (
    (ExponentialMultistep(2, start="low"), 2),
    (ExponentialMultistep(3, start="low"), 2),
    (ExponentialMultistep(4, start="low"), 2),
    (ExponentialMultistep(4, "velocity", start="low"), 2),
    (ExponentialMultistep(3, corrector=True, start="low"), 3),
    (ExponentialMultistep(4, "noise", corrector=True, start="low"), 3),
    (ExponentialMultistep(4, "velocity", corrector=True, start="low"), 3),
)
"""Multistep methods whose first steps use only the evaluations made so far, with the order of their chains.

The first step has order 1, or that of the trapezoidal rule with the corrector; its error dominates on fine grids.
"""


def step_types() -> list[type[Step]]:
    """Return all concrete subclasses of `Step` in the package `sampling`, sorted by name."""
    found: set[type[Step]] = set()
    new: list[type[Step]] = [Step]
    while new:
        new = [sub for cls in new for sub in cls.__subclasses__() if sub not in found]
        found.update(new)
    own = [cls for cls in found if cls.__module__.startswith("scorefield.sampling.") and not cls.__abstractmethods__]
    return sorted(own, key=lambda cls: cls.__name__)


def variants(cls: type[Step]) -> Iterator[Step]:
    """Yield a step with every valid combination of its boolean and Literal fields, and defaults for the others.

    The low-order start of multistep methods is left out, as its chains do not have the order of the formula; see
    `LOW_STARTS`.
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
    """Return every variant of every step that declares an order."""
    return [step for cls in step_types() if cls.order is not None for step in variants(cls)] + list(EXTRA_SETTINGS)


# ------------------------------------------------------------------------------------------------ the chain


class Impulses:
    """Noise source that is zero except for unit vectors in chosen rows, or random vectors in one row.

    It records the random vector of every draw in `drawn`, by (step, draw).

    Args:
        rows: (step, draw) -> first of the rows that get the unit vectors at that draw.
        random_row: Row that gets a random vector at every draw.
    """

    def __init__(self, rows: dict[tuple[int, int], int] | None = None, random_row: int | None = None):
        self.rows, self.random_row = rows or {}, random_row
        self.drawn: dict[tuple[int, int], Tensor] = {}

    def normal(self, like: Tensor, step: int, draw: int) -> Tensor:
        assert (step, draw) not in self.drawn, "a draw was used twice"
        generator = torch.Generator().manual_seed(1 + 1000 * step + draw)
        self.drawn[step, draw] = torch.randn(like.shape[1:], generator=generator, dtype=like.dtype).to(like)
        z = torch.zeros_like(like)
        if (step, draw) in self.rows:
            first, M = self.rows[step, draw], like.shape[1]
            z[first : first + M] = torch.eye(M).to(like)
        if self.random_row is not None:
            z[self.random_row] = self.drawn[step, draw]
        return z

    def uniform(self, like: Tensor, step: int, draw: int) -> Tensor:
        raise AssertionError("a step that declares an order draws normal noise only")


@dataclass(frozen=True)
class Affine:
    """An affine chain x_N = c + A x_0 + noise of covariance S.

    Args:
        A: Matrix, (D, D).
        c: Offset, (D,).
        S: Covariance of the noise, (D, D).
        defect: Relative deviation of the chain from an affine map.
    """

    A: Tensor
    c: Tensor
    S: Tensor
    defect: float

    def push(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of x_N for x_0 ~ N(mean, covariance)."""
        return self.A @ mean + self.c, self.A @ covariance @ self.A.T + self.S


def affine_chain(
    step: Step,
    score: Score,
    process: Process,
    times: Tensor,
    dimension: int = 2,
    device: torch.device | str = "cpu",
) -> Affine:
    """Return the affine map of a chain, read off with unit inputs.

    Args:
        step: A step that is not adaptive.
        score: A score that is affine in x and the same for all rows.
        process: Process whose alpha and sigma the step uses.
        times: The grid.
        dimension: D.
        device: Device of the states; it must have float64.
    """
    D, bound = dimension, score.bind(None)
    # Rows: the origin, D unit vectors, and a test row with arbitrary start and noise that shows whether it is affine.
    x = torch.zeros(2 + D, D, dtype=torch.float64, device=device)
    x[1 : 1 + D] = torch.eye(D).to(x)
    x[-1] = torch.linspace(-2.0, 3.0, D).to(x)
    noise = Impulses(random_row=1 + D)
    end = drive(bound, process, step, times, x, noise).x
    c, A = end[0], (end[1 : 1 + D] - end[0]).T
    predicted, S, difference = c + A @ x[-1], x.new_zeros(D, D), 0.0
    if noise.drawn:
        # A second batch: the origin, and one row for each normal number. The origin must end where it did before.
        random = torch.cat(list(noise.drawn.values()))
        starts = [0, *accumulate(len(z) for z in noise.drawn.values())]
        impulses = Impulses({key: 1 + first for key, first in zip(noise.drawn, starts, strict=False)})
        ends = drive(bound, process, step, times, x.new_zeros(1 + len(random), D), impulses).x
        B = ends[1:] - c  # row j is the effect of the j-th normal number
        predicted, S, difference = predicted + random @ B, B.T @ B, float((ends[0] - c).abs().max())
    defect = (float((end[-1] - predicted).abs().max()) + difference) / float(end.abs().max())
    return Affine(A.cpu(), c.cpu(), S.cpu(), defect)


def chain_error(step: Step, problem: Problem, n: int, device: torch.device | str = "cpu") -> float:
    """Return the relative error of mean plus covariance after n steps from the exact marginal at t = 1.

    Raises:
        ValueError: On Gaussian data the step is not affine in x and its noise, so that its order cannot be measured.
    """
    process = problem.process(n)
    oracle = skewed_gaussian(process)
    times = problem.grid(n).times(process)
    chain = affine_chain(step, oracle, process, times, device=device)
    if not chain.defect < AFFINE:
        raise ValueError(
            f"{step} is not an affine map on Gaussian data (relative deviation {chain.defect:g}), so that its order"
            " cannot be measured without random numbers; only non-adaptive steps without a Metropolis test have one"
        )
    return distance(chain.push(*oracle.moments(float(times[0]))), oracle.moments(float(times[-1])))


def distance(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> float:
    """Return the relative error of a mean plus that of a covariance."""
    return sum(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))


def slope(errors: tuple[float, float], steps: tuple[int, int]) -> float:
    """Return the order of convergence: the slope of log error over log step length."""
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


def measured_order(step: Step, problem: Problem, device: torch.device | str = "cpu") -> tuple[float, float]:
    """Return the slope of log error over log step length, and the error on the finer grid."""
    assert step.order is not None
    coarse, fine = STEPS[step.order]
    errors = chain_error(step, problem, coarse, device), chain_error(step, problem, fine, device)
    return slope(errors, (coarse, fine)), errors[1]


def applies(step: Step, problem: Problem) -> bool:
    """Return whether the order of a step can be measured on a problem.

    Ladders are for steps that go from level to level by the kernel. The rates of a ladder jump at its levels, which
    limits steps that use rates to first order there, whatever they declare.
    """
    assert step.order is not None
    low, high = problem.orders
    return low <= step.order <= high and not (problem.ladder and step.needs == "rates")


def low_start_order(step: ExponentialMultistep, device: torch.device | str = "cpu") -> float:
    """Return the order of a chain between 128 and 256 steps under VE, where the error of its first step dominates."""
    coarse, fine = 128, 256
    errors = chain_error(step, PROBLEMS[0], coarse, device), chain_error(step, PROBLEMS[0], fine, device)
    return slope(errors, (coarse, fine))
