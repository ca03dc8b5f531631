"""The one sampling loop, and the record that says everything about a sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import PRIOR_STEP, IndexedNoise, Noise, StepNoise
from scorefield._typing import Condition
from scorefield.process.grids import Grid, Uniform
from scorefield.process.process import Process
from scorefield.sampling.predictors import EulerMaruyama
from scorefield.sampling.step import Step, worst
from scorefield.score.score import BoundScore, Score


@dataclass(frozen=True)
class Progress:
    """What a callback sees after each step.

    Args:
        step: Number of steps done, from 1.
        steps: Number of steps in all.
        t: Time reached.
        x: State, model units.
        mean: State before the step's noise.
    """

    step: int
    steps: int
    t: float
    x: Tensor
    mean: Tensor


Callback = Callable[[Progress], None]


@dataclass(frozen=True)
class Driven:
    """The end of a run of `drive`: state, noise-free mean, per-example status codes and score calls, all with leading axis B."""

    x: Tensor
    mean: Tensor
    status: Tensor
    calls: Tensor


def drive(
    score: BoundScore,
    process: Process,
    step: Step,
    times: Tensor,
    x: Tensor,
    noise: Noise,
    callbacks: Sequence[Callback] = (),
) -> Driven:
    """Take one step after the other along decreasing times.

    Args:
        score: The bound score.
        process: Whose alpha and sigma the steps use.
        step: What to do between two times.
        times: Decreasing, shape (N + 1,), float64.
        x: State at times[0], (B, *event).
        noise: Where the steps' noise comes from; step k of the loop draws from step number k.
        callbacks: Called after each step; what they raise (KeyboardInterrupt among them) ends the loop.
    """
    batch, memory, mean = x.shape[0], None, x
    status: Tensor | None = None
    calls = torch.zeros(batch, dtype=torch.long)
    for k in range(len(times) - 1):
        before = score.calls
        t, s = times[k].expand(batch), times[k + 1].expand(batch)
        moved = step(score, process, x, t, s, StepNoise(noise, k), memory)
        x, mean, memory = moved.x, moved.mean, moved.memory
        status = worst(status, None if moved.status is None else moved.status.cpu())
        calls = calls + (score.calls - before if moved.calls is None else moved.calls.cpu())
        for callback in callbacks:
            callback(Progress(k + 1, len(times) - 1, float(times[k + 1]), x, mean))
    finite = torch.isfinite(x).reshape(batch, -1).all(dim=1).cpu()
    status = torch.zeros(batch, dtype=torch.long) if status is None else status
    return Driven(x, mean, torch.where(finite | (status > 0), status, 3), calls)


class Start(ABC):
    """Where a chain begins."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """The state at the first time t, shape and dtype of `like`; `data` are model units or None."""


@record
class PriorStart(Start):
    """The process's prior."""

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """N(0, prior_std^2 I)."""
        return process.prior_sample(noise(like))


@record
class UniformStart(Start):
    """Uniform noise, the start of NCSN.

    Args:
        low: Lower end, model units.
        high: Upper end.
    """

    low: float = 0.0
    high: float = 1.0

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """U[low, high)."""
        return self.low + (self.high - self.low) * noise.uniform(like)


@record
class DataStart(Start):
    """Given data, noised to the first time.

    Args:
        noised: Whether to add the noise of the first time, or to take the data as they are.
    """

    noised: bool = True

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """alpha x_0 + sigma z.

        Raises:
            ValueError: No data were given.
        """
        if data is None:
            raise ValueError("DataStart needs data: call sample(..., data=x) with one example per sample")
        return process.perturb(data.to(like), t, noise(like)) if self.noised else data.to(like)


@dataclass(frozen=True)
class Run:
    """One batch of samples in model units: x after the final denoising, raw before it."""

    x: Tensor
    raw: Tensor
    status: Tensor
    calls: Tensor


@record
class Sampler:
    """A step, where the steps lie, where the chain starts and how it ends.

    Args:
        step: The move; see `Chain` for predictor-corrector compositions.
        grid: The times.
        start: The state at the first time.
        final: "denoise" replaces the end state by its posterior mean (one more score call; Song et al. 2021, appendix G); "mean"
            takes the last step's noise-free mean (what the published code does, without a call); "none" keeps the noise.
        process: Replaces the score's process in the steps: the ladder of a discrete model, say; None to keep it.
        begin: Time at which to begin, for chains started from data; the grid is cut there.
    """

    step: Step = EulerMaruyama()  # noqa: RUF009 (frozen)
    grid: Grid = Uniform(1000)  # noqa: RUF009 (frozen)
    start: Start = PriorStart()  # noqa: RUF009 (frozen)
    final: Literal["denoise", "mean", "none"] = "denoise"
    process: Process | None = None
    begin: float = 1.0

    def times(self, process: Process) -> Tensor:
        """The grid of a score's process, cut at `begin`."""
        times = self.grid.times(self.process or process)
        if self.begin >= 1.0:
            return times
        kept = times[times < self.begin]
        if not len(kept):
            raise ValueError(f"begin={self.begin:g} leaves no step of the grid; it ends at t = {float(times[-1]):g}")
        return torch.cat([times.new_tensor([self.begin]), kept])

    def run(
        self,
        score: Score,
        event: tuple[int, ...],
        *,
        indices: Sequence[int],
        seed: int = 0,
        condition: Condition | None = None,
        data: Tensor | None = None,
        latent: Tensor | None = None,
        noise: Noise | None = None,
        callbacks: Sequence[Callback] = (),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Run:
        """Sample one batch.

        Args:
            score: What to follow.
            event: Shape of one example.
            indices: The examples' numbers; with the seed they determine all noise.
            seed: The user's seed.
            condition: What is known of each example.
            data: For starts from data, model units, (B, *event).
            latent: The state at the first time itself, in place of the start, (B, *event).
            noise: In place of the noise of (seed, indices).
            callbacks: See `drive`.
            dtype: Of the state.
            device: Of the state.
        """
        process = self.process or score.process
        noise = noise or IndexedNoise(seed, indices)
        like = torch.empty((len(indices), *event), dtype=dtype, device=device)
        bound = score.bind(condition)
        with torch.no_grad():
            times = self.times(score.process)
            first = times[:1].expand(len(indices))
            x = latent.to(like) if latent is not None else None
            if x is None:
                x = self.start(process, first, like, StepNoise(noise, PRIOR_STEP), data)
            end = drive(bound, process, self.step, times, x, noise, callbacks)
            clean, calls = end.x, end.calls
            if self.final == "mean":
                clean = end.mean
            elif self.final == "denoise":
                last = float(times[-1]) if float(process.sigma(times[-1:])) > 0 else float(times[-2])
                clean = bound.denoised(end.x, times.new_full((len(indices),), last))
                calls = calls + 1
        return Run(clean, end.x, end.status, calls)
