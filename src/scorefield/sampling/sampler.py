"""The one sampling loop, and the record that says everything about a sampler."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import PRIOR_STEP, IndexedNoise, Noise, Prefetched, StepNoise
from scorefield._typing import Condition
from scorefield.process.general import GeneralSDE
from scorefield.process.grids import Grid, Uniform
from scorefield.process.process import Process
from scorefield.sampling.adaptive import NOT_FINITE
from scorefield.sampling.on_grid import on_grid
from scorefield.sampling.predictors import EulerMaruyama
from scorefield.sampling.step import Hold, Step, Taken, taken
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


def drive(
    score: BoundScore,
    process: Process,
    step: Step,
    times: Tensor,
    x: Tensor,
    noise: Noise,
    callbacks: Sequence[Callback] = (),
) -> Taken:
    """Take one step after the other along decreasing times.

    Args:
        score: The bound score.
        process: Whose alpha and sigma the steps use.
        step: What to do between two times.
        times: Decreasing, shape (N + 1,), float64.
        x: State at times[0], (B, *event).
        noise: Where the steps' noise comes from; step k of the loop draws from step number k.
        callbacks: Called after each step; what they raise (KeyboardInterrupt among them) ends the loop.

    Returns:
        The end state, its noise-free mean, and status and score calls of each example over all steps. An example whose
        state is not finite has a status, not an exception for all.

    Raises:
        ValueError: The step needs what the process, or the end of the grid, has not.
    """
    _check_needs(step, process, times)
    known = process if isinstance(process, GeneralSDE) else on_grid(process, times)
    batch, memory, mean, denoised = x.shape[0], None, x, None
    status = calls = torch.zeros(batch, dtype=torch.long)
    for k in range(len(times) - 1):
        t, s = times[k].expand(batch), times[k + 1].expand(batch)
        moved = taken(step, score, known, x, t, s, StepNoise(noise, k), memory)
        x, mean, memory, denoised = moved.x, moved.mean, moved.memory, moved.denoised
        status, calls = torch.maximum(status, moved.status), calls + moved.calls
        for callback in callbacks:
            callback(Progress(k + 1, len(times) - 1, float(times[k + 1]), x, mean))
    finite = torch.isfinite(x).reshape(batch, math.prod(x.shape[1:])).all(dim=1).cpu()
    return Taken(x, mean, memory, torch.where(finite | (status > 0), status, NOT_FINITE), calls, denoised)


def _check_needs(step: Step, process: Process | GeneralSDE, times: Tensor) -> None:
    """Refuse alpha and sigma of a general SDE, and rates where the noise jumps to zero."""
    if isinstance(process, GeneralSDE):
        missing, why = "scales", "needs alpha and sigma, and a GeneralSDE has a drift and a diffusion only"
        instead = "EulerMaruyama(), FlowEuler(), FlowHeun() or AdaptiveFlow()"
    elif float(process.sigma(times[-1:])) == 0.0:
        missing, why = "rates", "follows drift and diffusion, and below level 0 the noise ends in a jump"
        instead = "EveryLevel(clean=False), or ReverseDiffusion() or Ancestral()"
    else:
        return
    if names := [type(part).__name__ for part in step.parts() if part.needs == missing]:
        raise ValueError(f"{', '.join(names)} {why}; use {instead}")


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
            raise ValueError("DataStart begins at given data; pass data=x, model units, one example per sample")
        return process.perturb(data.to(like), t, noise(like)) if self.noised else data.to(like)


@dataclass(frozen=True)
class Run:
    """One batch of samples in model units: x after the final denoising, raw before it; calls are of networks."""

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
        final: "denoise" replaces the end state by its posterior mean, with one more score call (Song et al. 2021,
            appendix G), unless the last step went to where there is no noise: its noise-free mean is that already.
            "mean" takes the last step's noise-free mean, what the code of Song et al. does. "expected" takes the
            posterior mean that the last step's own score call gives, at no further call: the expected denoised sample
            of Jolicoeur-Martineau et al. (2021). "none" keeps the noise.
        process: Replaces the score's process in the steps: the ladder of a discrete model, say; None to keep it.
        begin: Time at which to begin, for chains started from data or from a latent; the grid is cut there.
    """

    step: Step = EulerMaruyama()
    grid: Grid = Uniform(1000)
    start: Start = PriorStart()
    final: Literal["denoise", "mean", "expected", "none"] = "denoise"
    process: Process | None = None
    begin: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.begin <= 1.0:
            raise ValueError(f"begin={self.begin} is no time to begin at; 1 is the most noise, 0 the end")
        if not self.step.moves:
            raise ValueError(
                f"{type(self.step).__name__} stays at its noise level; compose it with a step that moves, or with"
                f" Hold(): Chain(({type(self.step).__name__}(...), Hold()))"
            )

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

        Raises:
            ValueError: The sampler does not fit the process, or the data, the latent or the condition the batch.
        """
        process = self.process or score.process
        like = torch.empty((len(indices), *event), dtype=dtype, device=device)
        self._check(process, like, condition, data, latent)
        bound = score.bind(condition)
        with torch.no_grad():
            times = self.times(score.process)
            if noise is None and like.device.type != "cpu":  # on the CPU a thread would take time from the network
                noise = Prefetched(seed, indices, len(times) - 1)
            noise = noise or IndexedNoise(seed, indices)
            if latent is not None:
                x = latent.to(like)
            else:
                x = self.start(process, times[:1].expand(len(indices)), like, StepNoise(noise, PRIOR_STEP), data)
            end = drive(bound, process, self.step, times, x, noise, callbacks)
            clean, calls = self._clean(end), end.calls
            if self.final == "denoise" and (noisy := self._noisy_time(process, times)) is not None:
                clean, calls = bound.denoised(end.x, noisy.expand(len(indices))), calls + 1
        return Run(clean, end.x, end.status, calls * score.evaluations(condition))

    def _clean(self, end: Taken) -> Tensor:
        if self.final != "expected":
            return end.x if self.final == "none" else end.mean
        if end.denoised is None:
            raise ValueError(
                f'final="expected" takes the posterior mean from the last step, and {type(self.step).__name__} offers'
                ' none; use final="denoise", which makes one call more'
            )
        return end.denoised

    def _noisy_time(self, process: Process, times: Tensor) -> Tensor | None:
        """The time whose noise the end state still has; None where the last step has removed all noise."""
        if float(process.sigma(times[-1:])) > 0.0:
            return times[-1]
        # Below level 0: a step that moves x has taken the noise off, Hold has carried that of level 0 along.
        return times[-2] if any(isinstance(part, Hold) for part in self.step.parts()) else None

    def _check(
        self, process: Process, like: Tensor, condition: Condition | None, data: Tensor | None, latent: Tensor | None
    ) -> None:
        """Refuse what does not fit before any work is done."""
        for name, given in (("data", data), ("latent", latent)):
            if given is not None and given.shape != like.shape:
                raise ValueError(
                    f"{name} has shape {tuple(given.shape)}; one example per sample is {tuple(like.shape)}"
                )
        for name, given in (condition or {}).items():
            if len(given) != len(like):
                raise ValueError(f"condition {name!r} has {len(given)} entries for {len(like)} samples; give one each")
        if self.begin < 1.0 and latent is None and isinstance(self.start, PriorStart):
            raise ValueError(
                f"begin={self.begin:g} is inside the chain, where the prior is not the law of the state; start from"
                " data, start=DataStart() and data=x, or from a latent"
            )
        if self.final == "denoise" and isinstance(process, GeneralSDE):
            raise ValueError(
                'final="denoise" needs alpha and sigma, and a GeneralSDE has a drift and a diffusion only; use'
                ' final="mean"'
            )
