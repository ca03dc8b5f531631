"""The type Step, and the compositions of steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.score.score import BoundScore


@dataclass(frozen=True)
class Moved:
    """What a step returns.

    Args:
        x: The new state, shape (B, *event).
        mean: The state before the step's own noise was added; equal to x where it added none.
        memory: What the step wants to be handed at the next call (multistep methods), None at first.
        status: 0 where the step succeeded, else a code of `adaptive.STATUS`, shape (B,); None means all succeeded.
        calls: Score evaluations each example took, shape (B,); None where every example took as many as the batch.
    """

    x: Tensor
    mean: Tensor
    memory: Any = None
    status: Tensor | None = None
    calls: Tensor | None = None


class Step(ABC):
    """One move of the state from time t to time s < t, or at time t for a corrector.

    `order` is the order of accuracy in the step length of the mean and variance of the state on Gaussian data (the weak order
    of a stochastic step); None for steps that do not move in time, whose `law` then says what they leave invariant.
    """

    order: ClassVar[int | None]
    law: ClassVar[str | None] = None
    moves: ClassVar[bool] = True

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


@record
class Chain(Step):
    """Steps in sequence between the same two times: correctors act at the present time, at most one step moves it.

    Args:
        steps: For predictor-corrector sampling (Song et al. 2021, algorithm 1), a corrector and a predictor. The published code
            runs the corrector first; the paper's pseudo-code the predictor.
    """

    steps: tuple[Step, ...]

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = "that of its parts"

    def __post_init__(self) -> None:
        if sum(step.moves for step in self.steps) != 1:
            raise ValueError(
                "a Chain needs exactly one step that moves in time (use Hold() to drop to the next level without changing x);"
                f" got {[type(s).__name__ for s in self.steps]}"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """Apply the steps in order; see `Step`."""
        memories = list(memory or [None] * len(self.steps))
        status, now, before = None, t, score.calls
        mean, extra = x, None
        for i, step in enumerate(self.steps):
            counted = score.calls
            moved = step(score, process, x, now, s, noise, memories[i])
            x, mean, memories[i] = moved.x, moved.mean, moved.memory
            status = worst(status, moved.status)
            if moved.calls is not None:  # this part did not call once for all: correct the batch count
                difference = moved.calls - (score.calls - counted)
                extra = difference if extra is None else extra + difference
            if step.moves:
                now = s
        calls = None if extra is None else extra + (score.calls - before)
        return Moved(x, mean, memories, status, calls)

    def calls_per_step(self) -> int | None:
        """Sum over the parts."""
        parts = [step.calls_per_step() for step in self.steps]
        return None if None in parts else sum(p for p in parts if p is not None)


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
        moved = Moved(x, x, memory)
        status = None
        for _ in range(self.times):
            moved = self.step(score, process, moved.x, t, s, noise, moved.memory)
            status = worst(status, moved.status)
        return replace(moved, status=status)

    def calls_per_step(self) -> int | None:
        """`times` times the step's."""
        part = self.step.calls_per_step()
        return None if part is None else part * self.times


@record
class Hold(Step):
    """Go to the next noise level without touching x: what annealed Langevin dynamics does between levels."""

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = "leaves x as it is"

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """x; see `Step`."""
        return Moved(x, x)

    def calls_per_step(self) -> int | None:
        """None at all."""
        return 0


def worst(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The larger status code of each example; None stands for success."""
    if a is None or b is None:
        return b if a is None else a
    return torch.maximum(a, b)
