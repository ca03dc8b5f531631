"""The interface `Step`, its result, and compositions of steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.score.score import BoundScore

STATUS = ("ok", "too many steps", "step size underflow", "not finite")
"""Meaning of the status codes 0, 1, 2, 3 of an example."""


@dataclass(frozen=True)
class StepResult:
    """The result of one step.

    Args:
        x: The new state in model units, shape (B, *event).
        mean: The new state before the step's own noise was added; equal to x where it added none.
        memory: State of the step itself, such as the evaluations of a multistep method. The sampling loop passes it to
            the next call of the step; None for steps without such a state.
        status: 0 where the step succeeded, else a code of `STATUS`, shape (B,); None means that all succeeded.
        calls: Score evaluations of each example, shape (B,); None where the score was always called with the whole
            batch.
        denoised: The posterior mean at the point of the step's last score evaluation, from that evaluation; None for
            steps that do not compute it.
    """

    x: Tensor
    mean: Tensor
    memory: Any = None
    status: Tensor | None = None
    calls: Tensor | None = None
    denoised: Tensor | None = None


class Step(ABC):
    """One step of a sampler: from time t to time s < t, or at time t for a corrector.

    Attributes:
        order: Order of accuracy in the step length of the mean and variance of the state on Gaussian data (the weak
            order of a stochastic step). None for steps that do not discretise the process in time.
        invariant: For steps without an order, the distribution that the step leaves invariant.
        moves: Whether the step goes from t to s; False for a corrector, which stays at t.
        needs: What the step uses of the process. "rates" are drift and diffusion, which a `GeneralSDE` has too and
            which are not defined below the last level of a ladder; "scales" are alpha and sigma, which also determine
            the transition kernel; "nothing" fits every process.
    """

    order: ClassVar[int | None]
    invariant: ClassVar[str | None] = None
    moves: ClassVar[bool] = True
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "scales"

    @abstractmethod
    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """Take the step.

        Args:
            score: The score function with its condition bound.
            process: The process whose alpha and sigma the step uses: that of the score, or a ladder in its place.
            x: State in model units, shape (B, *event).
            t: Present times, float64 on the CPU, shape (B,).
            s: Times to move to. A corrector stays at t and may use s only for its step size.
            noise: Source of standard normal noise; `noise(x)` has the shape of x.
            memory: `StepResult.memory` of the previous call of this step; None at the first call.
        """

    def calls_per_step(self) -> int | None:
        """Score evaluations per step; None where their number depends on the state."""
        return 1

    def parts(self) -> tuple[Step, ...]:
        """The elementary steps of which this one is composed; the step itself, if it is elementary."""
        return (self,)


@record
class Chain(Step):
    """Steps in sequence between the same two times: one step moves from t to s, and the others are correctors.

    Correctors before the moving step act at t, those after it at s.

    Args:
        steps: The steps in order; for predictor-corrector sampling (Song et al. 2021, algorithm 1) a corrector and a
            predictor. The published code applies the corrector first, the paper's pseudo-code the predictor.
    """

    steps: tuple[Step, ...]

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = "the distribution that its steps leave invariant"

    def __post_init__(self) -> None:
        if sum(step.moves for step in self.steps) != 1:
            raise ValueError(
                "a Chain needs exactly one step that moves in time (use Hold() to drop to the next level without"
                f" changing x); got {[type(s).__name__ for s in self.steps]}"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """Apply the steps in order; see `Step`."""
        memories = list(memory or [None] * len(self.steps))
        status = calls = torch.zeros(x.shape[0], dtype=torch.long)
        mean, now, denoised = x, t, None
        for i, step in enumerate(self.steps):
            result = take_step(step, score, process, x, now, s, noise, memories[i])
            x, mean, memories[i] = result.x, result.mean, result.memory
            status, calls = torch.maximum(status, result.status), calls + result.calls
            denoised = result.denoised if result.denoised is not None else denoised
            now = s if step.moves else now
        return StepResult(x, mean, memories, status, calls, denoised)

    def calls_per_step(self) -> int | None:
        """The sum over the steps; None where one of them has no fixed number."""
        calls = [step.calls_per_step() for step in self.steps]
        return None if None in calls else sum(c for c in calls if c is not None)

    def parts(self) -> tuple[Step, ...]:
        """The elementary steps of all its steps."""
        return tuple(part for step in self.steps for part in step.parts())


@record
class Repeat(Step):
    """A corrector applied several times at the same noise level.

    Args:
        step: The corrector.
        times: Number of applications, at least 1.
    """

    step: Step
    times: int

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = "the distribution that the repeated step leaves invariant"
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.step.moves or self.times < 1:
            raise ValueError(
                f"Repeat takes a corrector, such as Langevin(), and times >= 1; got {type(self.step).__name__} and"
                f" times={self.times}"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """Apply the step `times` times; see `Step`."""
        status = calls = torch.zeros(x.shape[0], dtype=torch.long)
        mean, denoised = x, None
        for _ in range(self.times):
            result = take_step(self.step, score, process, x, t, s, noise, memory)
            x, mean, memory = result.x, result.mean, result.memory
            status, calls = torch.maximum(status, result.status), calls + result.calls
            denoised = result.denoised
        return StepResult(x, mean, memory, status, calls, denoised)

    def calls_per_step(self) -> int | None:
        """`times` multiplied by the calls of the repeated step; None where that has no fixed number."""
        calls = self.step.calls_per_step()
        return None if calls is None else calls * self.times

    def parts(self) -> tuple[Step, ...]:
        """The elementary steps of the repeated step."""
        return self.step.parts()


@record
class Hold(Step):
    """Go to the next noise level without changing x, as annealed Langevin dynamics does between levels."""

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = "every distribution: x is not changed"
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "nothing"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """Return x unchanged; see `Step`."""
        return StepResult(x, x)

    def calls_per_step(self) -> int | None:
        """0: no score is evaluated."""
        return 0


@dataclass(frozen=True)
class CompletedStep:
    """A `StepResult` in which status and calls are given for every example, both on the CPU."""

    x: Tensor
    mean: Tensor
    memory: Any
    status: Tensor
    calls: Tensor
    denoised: Tensor | None = None


def take_step(
    step: Step, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any
) -> CompletedStep:
    """Take a step and fill in what it left as None: status 0, and for every example the calls of the batch."""
    before = score.calls
    result = step(score, process, x, t, s, noise, memory)
    status, calls = result.status, result.calls
    if status is None:
        status = torch.zeros(x.shape[0], dtype=torch.long)
    if calls is None:
        calls = torch.full((x.shape[0],), score.calls - before, dtype=torch.long)
    return CompletedStep(result.x, result.mean, result.memory, status.cpu(), calls.cpu(), result.denoised)
