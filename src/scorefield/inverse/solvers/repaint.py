"""RePaint: going back to more noise and down again, so that the unknown part can fit the known one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, plus_scaled
from scorefield._random import StepNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.solvers.diagonal_measurement import cleaned
from scorefield.inverse.solvers.replacement import ONE_STEP, Replaced, without_scales
from scorefield.inverse.solvers.solver import Solver
from scorefield.process.general import GeneralSDE
from scorefield.process.grids import Grid
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.sampling.named import ancestral
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Hold, Step, StepResult, take_step
from scorefield.sampling.temperature import TemperatureLangevin
from scorefield.score.score import BoundScore, Score


class Blocks(Grid):
    """Every so many times of a grid, and its last.

    Args:
        fine: Decreasing times.
        size: Steps of a block.
    """

    def __init__(self, fine: Tensor, size: int):
        self.fine, self.size = fine, size

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """fine[::size], and fine[-1]."""
        ends = self.fine[:: self.size]
        return ends if (len(self.fine) - 1) % self.size == 0 else torch.cat([ends, self.fine[-1:]])


class Resampled(Step):
    """A block of observed steps from t down to s, several times over: between them the state is noised from s to t.

    x_t = a x_s + b z with the forward kernel (a, b) of the process.

    Args:
        step: The observed step.
        fine: The times of all steps; those within a block are taken one by one.
        resamplings: Number of passes through a block.
    """

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "p_t of the unknown coordinates given the known ones at each step's noise, as steps and resamplings grow"
    )

    def __init__(self, step: Replaced, fine: Tensor, resamplings: int):
        self.step, self.fine, self.resamplings = step, fine, resamplings

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        times = self.fine[(self.fine <= t[0]) & (self.fine >= s[0])]
        a, b = process.kernel(s[:1], t[:1])
        wrapper_noise, mean, denoised = noise.wrapper_noise(), x, None
        status = calls = torch.zeros(len(x), dtype=torch.long)
        for round in range(self.resamplings):
            if round:
                x = plus_scaled(over_event(a, x) * x, b, wrapper_noise(x))
            for now, then in zip(times[:-1], times[1:], strict=True):
                inner = _Aside(self.step, wrapper_noise)
                moved = take_step(inner, score, process, x, now.expand(len(x)), then.expand(len(x)), noise, memory)
                x, mean, memory, denoised = moved.x, moved.mean, moved.memory, moved.denoised
                status, calls = torch.maximum(status, moved.status), calls + moved.calls
        return StepResult(x, mean, memory, status, calls, denoised)

    def calls_per_step(self) -> int | None:
        """Not a number: blocks may be of different lengths."""
        return None

    def parts(self) -> tuple[Step, ...]:
        """Those of the step."""
        return self.step.parts()


class _Aside(Step):
    """An observed step with the stream of what is known given: a step of a block must not draw it anew."""

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = "see Replaced"

    def __init__(self, step: Replaced, wrapper_noise: StepNoise):
        self.step, self.wrapper_noise = step, wrapper_noise

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        return self.step.move(score, process, x, t, s, noise, self.wrapper_noise, memory)


@record
class RePaint(Solver):
    """Replacement with resampling (Lugmayr et al. 2022, algorithm 1 and appendix B).

    The steps of the sampler go in blocks of `jump`; each is gone through `resamplings` times, with the noise of the
    block put back in between. A replaced known part does not fit the unknown one; with every round the unknown part is
    drawn anew by a score that sees both. It costs `resamplings` times the calls.

    Args:
        jump: Steps of a block, j of the paper.
        resamplings: Times that each is gone through, r of the paper; 1 is `Replacement`.

    Raises:
        ValueError: Either is below 1.
    """

    jump: int = 10
    resamplings: int = 10

    name: ClassVar[str] = "repaint"
    exact: ClassVar[str] = "nearly, as resamplings and steps grow; where known and unknown are independent always"
    linear: ClassVar[bool] = True
    spectrum: ClassVar[bool] = True
    gaussian: ClassVar[bool] = True
    noisy: ClassVar[bool] = False
    # Noise that a step has not taken off must not be added again: steps that do not go down to the noise of s are out.
    steps: ClassVar[tuple[type[Step], ...] | None] = tuple(
        kind for kind in ONE_STEP if kind not in (TemperatureLangevin, Hold)
    )

    def __post_init__(self) -> None:
        if self.jump < 1 or self.resamplings < 1:
            raise ValueError(
                f"jump={self.jump} and resamplings={self.resamplings} must be at least 1; the paper's are 10 and 10,"
                " and resamplings=1 is Replacement()"
            )

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The score itself, and the sampler in blocks of observed steps."""
        fine = sampler.times(score.process)
        step = Resampled(Replaced(sampler.step, observation), fine, self.resamplings)
        return score, replace(sampler, step=step, grid=Blocks(fine, self.jump))

    def default_sampler(self, score: Score) -> Sampler:
        """Ancestral sampling, at every level of a ladder, else in 250 steps."""
        return ancestral(score.process, None if isinstance(score.process, Tabulated) else 250)

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """See `Solver`; also processes without alpha and sigma."""
        return [*super().refusals(score, sampler, observation), *without_scales(self, score, sampler)]

    def finish(self, x: Tensor, observation: Observation) -> Tensor:
        """The clean sample with what is known exactly in its place."""
        return cleaned(x, observation)
