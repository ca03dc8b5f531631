"""The sampling loop, the starts of a chain, and `Sampler`, the complete description of a sampler."""

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
from scorefield.sampling.step import CompletedStep, Hold, Step, take_step
from scorefield.score.score import BoundScore, Score


@dataclass(frozen=True)
class Progress:
    """The argument of callbacks, which are called after each step.

    Args:
        step: Number of steps done, from 1.
        steps: Total number of steps.
        t: Time reached.
        x: State in model units, (B, *event).
        mean: The state before the step's noise was added, (B, *event).
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
) -> CompletedStep:
    """Run the sampling loop: take one step between each two neighbouring times.

    Args:
        score: The score with its condition bound.
        process: The process whose alpha and sigma the steps use.
        step: The step taken between two times.
        times: Decreasing times, shape (N + 1,), float64.
        x: State at times[0] in model units, (B, *event).
        noise: Source of the steps' noise; the k-th step of the loop uses step number k.
        callbacks: Called after each step. An exception that they raise, such as KeyboardInterrupt, ends the loop.

    Returns:
        The final state, its mean before the last noise, and the status and score evaluations of each example over all
        steps. An example whose state is not finite gets a status; the other examples are not affected.

    Raises:
        ValueError: The step needs something that the process, or the end of the grid, does not have.
    """
    _check_needs(step, process, times)
    known = process if isinstance(process, GeneralSDE) else on_grid(process, times)
    batch, memory, mean, denoised = x.shape[0], None, x, None
    status = calls = torch.zeros(batch, dtype=torch.long)
    for k in range(len(times) - 1):
        t, s = times[k].expand(batch), times[k + 1].expand(batch)
        result = take_step(step, score, known, x, t, s, StepNoise(noise, k), memory)
        x, mean, memory, denoised = result.x, result.mean, result.memory, result.denoised
        status, calls = torch.maximum(status, result.status), calls + result.calls
        for callback in callbacks:
            callback(Progress(k + 1, len(times) - 1, float(times[k + 1]), x, mean))
    finite = torch.isfinite(x).reshape(batch, math.prod(x.shape[1:])).all(dim=1).cpu()
    return CompletedStep(x, mean, memory, torch.where(finite | (status > 0), status, NOT_FINITE), calls, denoised)


def _check_needs(step: Step, process: Process | GeneralSDE, times: Tensor) -> None:
    """Refuse steps that use alpha and sigma of a general SDE, or rates where the noise jumps to zero."""
    if isinstance(process, GeneralSDE):
        missing, why = "scales", "alpha and sigma, and a GeneralSDE has only a drift and a diffusion"
        instead = "EulerMaruyama(), FlowEuler(), FlowHeun() or AdaptiveFlow()"
    elif float(process.sigma(times[-1:])) == 0.0:
        missing, why = "rates", "a drift and a diffusion, and below level 0 of a ladder the noise jumps to zero"
        instead = "EveryLevel(clean=False), or ReverseDiffusion() or Ancestral()"
    else:
        return
    if names := [type(part).__name__ for part in step.parts() if part.needs == missing]:
        raise ValueError(f"{', '.join(names)} needs {why}; use {instead}")


class Start(ABC):
    """The initial state of a chain."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """The initial state.

        Args:
            process: The process of the steps.
            t: The first time of the grid, (B,).
            like: A tensor with the shape, dtype and device of the state.
            noise: Source of noise.
            data: Examples in model units, shape of `like`, or None.

        Returns:
            The state at time t, model units, shape of `like`.
        """


@record
class PriorStart(Start):
    """Start from a draw of the process's prior."""

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """A draw of N(0, prior_std^2 I)."""
        return process.prior_sample(noise(like))


@record
class UniformStart(Start):
    """Start from uniform noise, as NCSN does.

    Args:
        low: Lower end of the range, model units.
        high: Upper end of the range, model units.
    """

    low: float = 0.0
    high: float = 1.0

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """A draw of U[low, high) in every coordinate."""
        return self.low + (self.high - self.low) * noise.uniform(like)


@record
class DataStart(Start):
    """Start from given data, perturbed to the first time.

    Args:
        noised: Whether to add the noise of the first time; False takes the data as they are.
    """

    noised: bool = True

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """alpha_t x_0 + sigma_t z, or x_0 itself.

        Raises:
            ValueError: No data were given.
        """
        if data is None:
            raise ValueError(
                "DataStart begins at given data, and none were given; pass data=x in model units, one example per"
                " sample"
            )
        return process.perturb(data.to(like), t, noise(like)) if self.noised else data.to(like)


@dataclass(frozen=True)
class Run:
    """One batch of samples in model units.

    Args:
        x: Samples after the final denoising, (B, *event).
        raw: Samples before it, (B, *event).
        status: Status codes of `STATUS`, (B,).
        calls: Network evaluations of each sample, (B,).
    """

    x: Tensor
    raw: Tensor
    status: Tensor
    calls: Tensor


@record
class Sampler:
    """A sampler: a step, the grid of times, the initial state and the final denoising.

    Args:
        step: The step taken between two times; `Chain` composes a predictor and correctors.
        grid: The times.
        start: The state at the first time.
        final: Treatment of the final state. "denoise" replaces it by its posterior mean, with one further score
            evaluation (Song et al. 2021, appendix G), unless the last step went to a time without noise, where the mean
            of the step is the posterior mean already. "mean" takes the last step's mean before its noise, as the code
            of Song et al. does. "expected" takes the posterior mean from the last step's own score evaluation, without
            a further one: the expected denoised sample of Jolicoeur-Martineau et al. (2021). "none" keeps the noise.
        process: Process used by the steps instead of the score's own, for instance the ladder of a discrete model; None
            for the score's own.
        begin: Time at which to begin, for chains started from data or from a latent; later times are left out of the
            grid.
    """

    step: Step = EulerMaruyama()
    grid: Grid = Uniform(1000)
    start: Start = PriorStart()
    final: Literal["denoise", "mean", "expected", "none"] = "denoise"
    process: Process | None = None
    begin: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.begin <= 1.0:
            raise ValueError(
                f"begin={self.begin} is not a time at which a chain can begin; it must lie in (0, 1], where 1 has the"
                " most noise"
            )
        if not self.step.moves:
            raise ValueError(
                f"{type(self.step).__name__} stays at its noise level, so the chain would never reach the end; compose"
                f" it with a step that moves, or with Hold(): Chain(({type(self.step).__name__}(...), Hold()))"
            )

    def times(self, process: Process) -> Tensor:
        """The times of the steps for a score of this process, (N + 1,), float64, cut at `begin`.

        Raises:
            ValueError: `begin` lies below the last time of the grid.
        """
        times = self.grid.times(self.process or process)
        if self.begin >= 1.0:
            return times
        kept = times[times < self.begin]
        if not len(kept):
            raise ValueError(
                f"begin={self.begin:g} leaves no step, because the grid ends at t = {float(times[-1]):g}; begin at a"
                " later time"
            )
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
            score: The score of the model.
            event: Shape of one example.
            indices: Indices of the samples. All noise of a sample is determined by the seed and its index.
            seed: Seed of every random draw.
            condition: The variables that the score is conditioned on, by name, one row per sample.
            data: Initial data for `DataStart`, model units, (B, *event).
            latent: The state at the first time itself, used instead of `start`, (B, *event).
            noise: Source of noise used instead of that of (seed, indices).
            callbacks: Called after each step; see `drive`.
            dtype: Dtype of the state.
            device: Device of the state.

        Raises:
            ValueError: The sampler does not fit the process, or the data, the latent or the condition do not fit the
                batch.
        """
        process = self.process or score.process
        like = torch.empty((len(indices), *event), dtype=dtype, device=device)
        self._check(process, like, condition, data, latent)
        bound = score.bind(condition)
        with torch.no_grad():
            times = self.times(score.process)
            # Noise is drawn on the CPU; a second thread draws it ahead only where the network runs elsewhere.
            if noise is None and like.device.type != "cpu":
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

    def _clean(self, end: CompletedStep) -> Tensor:
        if self.final != "expected":
            return end.x if self.final == "none" else end.mean
        if end.denoised is None:
            raise ValueError(
                f'final="expected" takes the posterior mean from the last step, and {type(self.step).__name__} does not'
                ' compute it; use final="denoise", which makes one further score evaluation'
            )
        return end.denoised

    def _noisy_time(self, process: Process, times: Tensor) -> Tensor | None:
        """The time whose noise the final state still has; None where the last step has removed all noise."""
        if float(process.sigma(times[-1:])) > 0.0:
            return times[-1]
        # The grid ends below level 0. A step that changes x has removed the noise; with Hold that of level 0 remains.
        return times[-2] if any(isinstance(part, Hold) for part in self.step.parts()) else None

    def _check(
        self, process: Process, like: Tensor, condition: Condition | None, data: Tensor | None, latent: Tensor | None
    ) -> None:
        """Refuse arguments that do not fit before any network evaluation is made."""
        for name, given in (("data", data), ("latent", latent)):
            if given is not None and given.shape != like.shape:
                raise ValueError(
                    f"{name} has shape {tuple(given.shape)}, and this batch needs shape {tuple(like.shape)}: one"
                    " example per sample"
                )
        for name, given in (condition or {}).items():
            if len(given) != len(like):
                raise ValueError(
                    f"condition {name!r} has {len(given)} entries for {len(like)} samples; give one entry per sample"
                )
        if self.begin < 1.0 and latent is None and isinstance(self.start, PriorStart):
            raise ValueError(
                f"begin={self.begin:g} lies inside the chain, where the state does not have the distribution of the"
                " prior; start from data with start=DataStart() and data=x, or from a latent with latent=z"
            )
        if self.final == "denoise" and isinstance(process, GeneralSDE):
            raise ValueError(
                'final="denoise" needs alpha and sigma, and a GeneralSDE has only a drift and a diffusion; use'
                ' final="mean"'
            )
