"""Steps that put what is known of an example, noised to the level of the step, in the place of what they found there.

With w = V' x the coordinates in which the operator is diagonal and w_0 = c + rho e what y says of them (`Known`), the
state at noise level s has

    w_s = alpha_s c + sqrt(sigma_s^2 - alpha_s^2 rho^2) z.

The noise of y is part of the noise of the level, so w_s = alpha_s w_0 + sigma_s e' has the distribution it should.
Where the level has less noise than y, a coordinate is left to the step: the state it was last given is y itself as an
example of noise rho, from which the step goes on to the posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event
from scorefield._random import StepNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.solvers.diagonal_measurement import Known, cleaned
from scorefield.inverse.solvers.solver import Solver, Unobserving, take_observed
from scorefield.process.general import GeneralSDE
from scorefield.process.grids import Uniform
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.sampling.consistent import Consistent
from scorefield.sampling.named import annealed_langevin, predictor_corrector
from scorefield.sampling.predictors import Ancestral, EulerMaruyama, FlowEuler, FlowHeun, ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Hold, Repeat, Step, StepResult
from scorefield.sampling.stochastic import DDIM, KarrasHeun, StochasticHeun, StochasticRungeKutta
from scorefield.sampling.temperature import TemperatureLangevin
from scorefield.score.energy import NetworkEnergy
from scorefield.score.score import BoundScore, Score

Renoise: TypeAlias = Literal["fresh", "level"]
When: TypeAlias = Literal["after", "before", "both"]

ONE_STEP: tuple[type[Step], ...] = (
    EulerMaruyama,
    ReverseDiffusion,
    Ancestral,
    FlowEuler,
    FlowHeun,
    DDIM,
    StochasticHeun,
    StochasticRungeKutta,
    KarrasHeun,
    Consistent,
    Hold,
    TemperatureLangevin,
)
"""Steps from one time to the next that keep no history, which a replacement would break."""


class Imposing:
    """The known coordinates at the levels of one step from t to s, and their noise.

    Args:
        known: What y says.
        scales: (alpha, sigma) at a time, each of shape (1,).
        noise: Draws the noise of the level.
        renoise: "fresh" draws for each time it is put into a state, "level" once for each level.
        held: The noise of the present level, by its time, from the step before.
    """

    def __init__(
        self,
        known: Known,
        scales: Callable[[Tensor], tuple[Tensor, Tensor]],
        noise: StepNoise,
        renoise: Renoise,
        held: dict[float, Tensor],
    ):
        self.known, self.scales, self.noise, self.renoise, self.held = known, scales, noise, renoise, held

    def _mean(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha c, its deviation at the level (D,), and which coordinates are at least as certain as the level."""
        alpha, sigma = self.scales(t)
        left = sigma.double() ** 2 - (alpha.double() * self.known.std) ** 2
        return over_event(alpha, self.known.value) * self.known.value, left.clamp_min(0.0).sqrt(), left >= 0.0

    def noisy(self, x: Tensor, t: Tensor) -> Tensor:
        """x with the known coordinates at the noise of t."""
        mean, std, told = self._mean(t)
        return self.known.put(x, mean + std.to(mean) * self._drawn(mean, t), told)

    def mean(self, x: Tensor, t: Tensor) -> Tensor:
        """x with the expectation of the known coordinates at t: a state before noise is added."""
        mean, _, told = self._mean(t)
        return self.known.put(x, mean, told)

    def noiseless(self, t: Tensor) -> bool:
        """Whether there is no noise at t."""
        return float(self.scales(t)[1]) == 0.0

    def _drawn(self, like: Tensor, t: Tensor) -> Tensor:
        if self.renoise == "fresh":
            return self.noise(like)
        level = float(t[0])
        if level not in self.held:
            self.held[level] = self.noise(like)
        return self.held[level]


class Half(Step):
    """One part of a chain with the known coordinates put in before it looks at the state, after it moved it, or both.

    Args:
        step: The part; not a composition.
        imposing: What to put in.
        when: See `Replacement`.
    """

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = "see Replaced"

    def __init__(self, step: Step, imposing: Imposing, when: When):
        self.step, self.imposing, self.when = step, imposing, when
        self.moves = step.moves  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        holds, then = isinstance(self.step, Hold), s if self.step.moves else t
        if self.when != "after" and not holds:
            x = self.imposing.noisy(x, t)
        moved = self.step(score, process, x, t, s, noise, memory)
        # Hold takes the noise of the last level along to where there is none; the sampler denoises it.
        if self.when == "before" or (holds and self.imposing.noiseless(then)):
            return moved
        return replace(
            moved,
            x=self.imposing.noisy(moved.x, then),
            mean=self.imposing.mean(moved.mean, then),
            denoised=None if moved.denoised is None else self.imposing.known.cleaned(moved.denoised),
        )

    def parts(self) -> tuple[Step, ...]:
        """Those of the part."""
        return self.step.parts()


def each_part(step: Step, change: Callable[[Step], Step]) -> Step:
    """This composition with every part replaced."""
    if isinstance(step, Chain):
        return Chain(tuple(each_part(part, change) for part in step.steps))
    return replace(step, step=each_part(step.step, change)) if isinstance(step, Repeat) else change(step)


@dataclass(frozen=True)
class Carried:
    """Memory of an observed step: that of the step within, and the noise of the level reached, by its time."""

    within: Any
    held: dict[float, Tensor]


class Replaced(Step):
    """Any step, or chain of them, with the known coordinates of the state replaced by what is known: an observed step.

    Args:
        step: What moves the state.
        observation: y, for scores whose condition does not carry it.
        renoise: See `Replacement`.
        when: See `Replacement`.
    """

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "p_t of the unknown coordinates where they are independent of the known ones; else p_t of them given the known"
        " ones at each step's noise, as the steps shorten and Langevin steps at each level grow in number"
    )

    def __init__(self, step: Step, observation: Observation, renoise: Renoise = "fresh", when: When = "after"):
        self.step, self.observation = step, observation
        self.renoise: Renoise = renoise
        self.when: When = when

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        return self.move(score, process, x, t, s, noise, noise.wrapper_noise(), memory)

    def move(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, aside: StepNoise,
        memory: Any,
    ) -> StepResult:  # fmt: skip
        """`Step`, with a stream of its own for the noise of what is known: the step within draws as it does alone."""
        _, y = take_observed(score.condition, self.observation, x)
        carried = memory if isinstance(memory, Carried) else None
        imposing = Imposing(
            Known.of(self.observation, y),
            self._scales(process),
            aside,
            self.renoise,
            dict(carried.held) if carried else {},
        )
        if carried is None:  # the start, too, has what is known at its noise
            x = imposing.noisy(x, t)
        within = each_part(self.step, lambda part: Half(part, imposing, self.when))
        moved = within(score, process, x, t, s, noise, carried.within if carried else None)
        held = {time: z for time, z in imposing.held.items() if time == float(s[0])}
        return replace(moved, memory=Carried(moved.memory, held))

    def calls_per_step(self) -> int | None:
        """Those of the step."""
        return self.step.calls_per_step()

    def parts(self) -> tuple[Step, ...]:
        """Those of the step."""
        return self.step.parts()

    def _scales(self, process: Process) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        walk = self.step
        if isinstance(walk, TemperatureLangevin):  # its noise is that of the temperature
            return lambda t: (torch.ones(1, dtype=torch.float64), walk.sigma(process, t[:1]))
        return lambda t: (process.alpha(t[:1]), process.sigma(t[:1]))


@record
class Replacement(Solver):
    """Sampling with what is known put in at the noise of every step (Song et al. 2021, appendix I.2).

    For masks it is inpainting, for the grey channel of an orthogonal change of colours colourisation, for any operator
    with singular values the same in their basis. The state starts with the known part at the first level's noise; the
    answer has it exactly where y has no noise. The unknown part depends on y only through the score, and late: samples
    are exact where known and unknown are independent, else too vague, the less so the more Langevin steps a chain has
    (or use `RePaint`).

    The published variants:

        Song et al. 2021               renoise="fresh", when="after", with a predictor-corrector chain: after each half
        NCSN, Song and Ermon 2019      renoise="level", when="after", with annealed Langevin dynamics
        NCSNv2, Song and Ermon 2020    renoise="fresh", when="before", with annealed Langevin dynamics

    Their code starts from a known part without noise (and masks the prior of a colourisation in RGB), and takes the
    denoised unknown part from the state after its noise; neither is done here.

    Args:
        renoise: "fresh" draws the noise of the known part each time it is put in; "level" once for each level.
        when: "after" every part of a chain has moved the state, "before" every part that looks at it, or "both".
    """

    renoise: Renoise = "fresh"
    when: When = "after"

    name: ClassVar[str] = "replacement"
    exact: ClassVar[str] = (
        "where known and unknown are independent; else with Langevin correctors, as their number at each level grows"
    )
    linear: ClassVar[bool] = True
    spectrum: ClassVar[bool] = True
    gaussian: ClassVar[bool] = True
    noisy: ClassVar[bool] = False
    steps: ClassVar[tuple[type[Step], ...] | None] = ONE_STEP

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The score itself, and the sampler with its step observed."""
        return score, replace(sampler, step=Replaced(sampler.step, observation, self.renoise, self.when))

    def default_sampler(self, score: Score) -> Sampler:
        """See `with_correctors`."""
        return with_correctors(score)

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """See `Solver`; also processes without alpha and sigma."""
        return [*super().refusals(score, sampler, observation), *without_scales(self, score, sampler)]

    def finish(self, x: Tensor, observation: Observation) -> Tensor:
        """The clean sample with what is known exactly in its place."""
        return cleaned(x, observation)


def with_correctors(score: Score) -> Sampler:
    """Falling temperatures for an energy, Langevin dynamics on a ladder of steps, else predictor and corrector.

    The last takes every level of a ladder, or 250 steps.
    """
    inside = score.score if isinstance(score, Unobserving) else score
    if isinstance(inside, NetworkEnergy):
        walk = TemperatureLangevin(step=0.2 * inside.form.sigma_0, sigma_0=inside.form.sigma_0)
        return Sampler(walk, Uniform(walk.schedule.steps))
    process = score.process
    if isinstance(process, Tabulated) and process.between == "floor":
        return annealed_langevin(process)
    return predictor_corrector(process, None if isinstance(process, Tabulated) else 250)


def without_scales(solver: Solver, score: Score, sampler: Sampler) -> list[str]:
    """Why a solver that puts coordinates at noise levels cannot go with a process that has none."""
    if isinstance(sampler.process or score.process, GeneralSDE):
        return [
            f"{solver.name} noises what is known by alpha and sigma, and a GeneralSDE has a drift and a diffusion only"
        ]
    return []
