"""The type Step, and the compositions of steps."""

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
"""What the status codes 0, 1, 2, 3 mean."""


@dataclass(frozen=True)
class Moved:
    """What a step returns.

    Args:
        x: The new state, shape (B, *event).
        mean: The state before the step's own noise was added; equal to x where it added none.
        memory: What the step wants to be handed at the next call (multistep methods), None at first.
        status: 0 where the step succeeded, else a code of `STATUS`, shape (B,); None means all succeeded.
        calls: Score evaluations each example took, shape (B,); None where every example took as many as the batch.
        denoised: The posterior mean at the point where the step last evaluated its score, from that evaluation; None
            for steps that do not offer it.
    """

    x: Tensor
    mean: Tensor
    memory: Any = None
    status: Tensor | None = None
    calls: Tensor | None = None
    denoised: Tensor | None = None


class Step(ABC):
    """One move of the state from time t to time s < t, or at time t for a corrector.

    `order` is the order of accuracy in the step length of the mean and variance of the state on Gaussian data (the weak
    order of a stochastic step); None for steps that do not follow the process in time, whose `law` then says what they
    leave invariant. `moves` says whether the step goes from t to s or stays at t. `needs` says what it asks of a
    process: "rates" are drift and diffusion, which a `GeneralSDE` has too and which jump below the last level of a
    ladder; "scales" are alpha and sigma, from which the kernel follows.
    """

    order: ClassVar[int | None]
    law: ClassVar[str | None] = None
    moves: ClassVar[bool] = True
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "scales"

    @abstractmethod
    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """Move.

        Args:
            score: The score function, its condition bound.
            process: Whose alpha and sigma the step uses; the score's, or a table in its place.
            x: State in model units, shape (B, *event).
            t: Present times, float64 on the CPU, shape (B,).
            s: Times to move to (a corrector stays at t and may use s to know the step's length).
            noise: Draws standard normal noise like x.
            memory: `Moved.memory` of this step's previous call.
        """

    def calls_per_step(self) -> int | None:
        """Score evaluations per step; None where it depends on the state."""
        return 1

    def parts(self) -> tuple[Step, ...]:
        """The steps that this one is composed of; itself, if of none."""
        return (self,)


@record
class Chain(Step):
    """Steps in sequence between the same two times: correctors act at the present time, at most one step moves it.

    Args:
        steps: For predictor-corrector sampling (Song et al. 2021, algorithm 1), a corrector and a predictor. The
            published code runs the corrector first; the paper's pseudo-code the predictor.
    """

    steps: tuple[Step, ...]

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = "that of its parts"

    def __post_init__(self) -> None:
        if sum(step.moves for step in self.steps) != 1:
            raise ValueError(
                "a Chain needs exactly one step that moves in time (use Hold() to drop to the next level without"
                f" changing x); got {[type(s).__name__ for s in self.steps]}"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """Apply the steps in order; see `Step`."""
        memories = list(memory or [None] * len(self.steps))
        status = calls = torch.zeros(x.shape[0], dtype=torch.long)
        mean, now, denoised = x, t, None
        for i, step in enumerate(self.steps):
            moved = taken(step, score, process, x, now, s, noise, memories[i])
            x, mean, memories[i] = moved.x, moved.mean, moved.memory
            status, calls = torch.maximum(status, moved.status), calls + moved.calls
            denoised = moved.denoised if moved.denoised is not None else denoised
            now = s if step.moves else now
        return Moved(x, mean, memories, status, calls, denoised)

    def calls_per_step(self) -> int | None:
        """Sum over the steps."""
        calls = [step.calls_per_step() for step in self.steps]
        return None if None in calls else sum(c for c in calls if c is not None)

    def parts(self) -> tuple[Step, ...]:
        """Those of its steps."""
        return tuple(part for step in self.steps for part in step.parts())


@record
class Repeat(Step):
    """A corrector, several times at the same noise level.

    Args:
        step: The corrector.
        times: How often.
    """

    step: Step
    times: int

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = "that of the repeated step"
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.step.moves or self.times < 1:
            raise ValueError(
                f"Repeat takes a corrector and times >= 1; got {type(self.step).__name__} and {self.times}"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """Apply the step `times` times; see `Step`."""
        status = calls = torch.zeros(x.shape[0], dtype=torch.long)
        mean, denoised = x, None
        for _ in range(self.times):
            moved = taken(self.step, score, process, x, t, s, noise, memory)
            x, mean, memory = moved.x, moved.mean, moved.memory
            status, calls = torch.maximum(status, moved.status), calls + moved.calls
            denoised = moved.denoised
        return Moved(x, mean, memory, status, calls, denoised)

    def calls_per_step(self) -> int | None:
        """`times` times the step's."""
        calls = self.step.calls_per_step()
        return None if calls is None else calls * self.times

    def parts(self) -> tuple[Step, ...]:
        """Those of the repeated step."""
        return self.step.parts()


@record
class Hold(Step):
    """Go to the next noise level without touching x: what annealed Langevin dynamics does between levels."""

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = "every law: x stays as it is"
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "nothing"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """x; see `Step`."""
        return Moved(x, x)

    def calls_per_step(self) -> int | None:
        """None at all."""
        return 0


@dataclass(frozen=True)
class Taken:
    """`Moved` with the status and the calls of every example filled in, both on the CPU."""

    x: Tensor
    mean: Tensor
    memory: Any
    status: Tensor
    calls: Tensor
    denoised: Tensor | None = None


def taken(
    step: Step, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any
) -> Taken:
    """Take a step and fill in what it left out: success, and as many calls for each example as the batch took."""
    before = score.calls
    moved = step(score, process, x, t, s, noise, memory)
    status, calls = moved.status, moved.calls
    if status is None:
        status = torch.zeros(x.shape[0], dtype=torch.long)
    if calls is None:
        calls = torch.full((x.shape[0],), score.calls - before, dtype=torch.long)
    return Taken(moved.x, moved.mean, moved.memory, status.cpu(), calls.cpu(), moved.denoised)
