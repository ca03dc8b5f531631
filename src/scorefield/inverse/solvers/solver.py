"""Interface of posterior solvers, which prepare a score and a sampler for one observation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.inverse.observation import Observation
from scorefield.inverse.operators.operator import LinearOperator
from scorefield.sampling.sampler import Callback, Run, Sampler
from scorefield.sampling.step import Step
from scorefield.score.score import Score

OBSERVED = "observed y"
"""The name under which each example's y travels with its conditions, so that solvers that drop finished examples from
a batch drop their y along."""


def take_observed(condition: Condition | None, observation: Observation, x: Tensor) -> tuple[Condition | None, Tensor]:
    """(what else is known, y of each row of x), from the conditions where they carry it, else the observation's own."""
    y = observation.y(x) if condition is None or OBSERVED not in condition else condition[OBSERVED].to(x)
    return _without(condition), y


class Unobserving(Score):
    """A score that ignores the condition y, which solvers wrap, since a network has no condition of that name."""

    def __init__(self, score: Score):
        self.score, self.process = score, score.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score under the other conditions."""
        return self.score(x, t, _without(condition))

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The posterior mean under the other conditions."""
        return self.score.denoised(x, t, _without(condition))

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The score's own value under the other conditions."""
        return self.score.with_density(x, t, _without(condition))

    def evaluations(self, condition: Condition | None = None) -> int:
        """The score's own value under the other conditions."""
        return self.score.evaluations(_without(condition))


def _without(condition: Condition | None) -> Condition | None:
    return {k: v for k, v in (condition or {}).items() if k != OBSERVED} or None


@dataclass(frozen=True)
class PosteriorRun(Run):
    """A batch of posterior samples in model units.

    Args:
        log_evidence: log p(y) of each example, where the solver estimates it, (B,).
        effective: Effective number of each example's particles at the end, where the solver weighs some, (B,).
    """

    log_evidence: Tensor | None = None
    effective: Tensor | None = None


class Solver(ABC):
    """A way to sample x given y with the score of x.

    A subclass is a frozen record (`scorefield._codec.record`) of its settings. Most only make a score or a step:
    `prepare` gives the score to follow and the sampler to follow it with, and the one sampling loop does the rest.

    Class attributes: `name` on the command line; `exact`, in what limit its samples have the posterior's distribution,
    or "no" and why; `linear`, `spectrum`, `gaussian`: whether it needs a linear operator, its singular values, normal
    noise; `noisy`: whether it divides by the noise, and so needs some; `steps`: the kinds of steps it goes with, None
    for every step; `sampler`: what it is used with unless told otherwise is `default_sampler`.
    """

    name: ClassVar[str]
    exact: ClassVar[str]
    linear: ClassVar[bool] = False
    spectrum: ClassVar[bool] = False
    gaussian: ClassVar[bool] = False
    noisy: ClassVar[bool] = True
    steps: ClassVar[tuple[type[Step], ...] | None] = None

    @abstractmethod
    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """(score to follow, sampler to follow it with).

        Args:
            score: Score of x, not conditioned on y, under its process.
            sampler: The sampler that the user chose, or `default_sampler`.
            observation: The observation, in model units.
        """

    @abstractmethod
    def default_sampler(self, score: Score) -> Sampler:
        """The sampler used by default."""

    def for_data(self, spec: DataSpec, observation: Observation) -> Solver:
        """The solver with what it leaves open filled in from what the data are; itself where it leaves nothing open."""
        return self

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """Why this solver cannot be used so, in full sentences; empty where it can. Subclasses add their own."""
        why = []
        if self.linear and not observation.linear:
            why.append(f"{self.name} needs a linear operator, and {type(observation.operator).__name__} is not one")
        if self.gaussian and not observation.gaussian:
            why.append(f"{self.name} needs normal noise, and y has {type(observation.noise).__name__}")
        if self.noisy and observation.gaussian and getattr(observation.noise, "std", None) == 0.0:
            why.append(f"{self.name} divides by the noise of y, which is 0")
        if self.spectrum and isinstance(observation.operator, LinearOperator):
            try:
                observation.operator.spectrum()
            except ValueError as error:
                why.append(f"{self.name} needs singular values: {error}")
        if self.steps is not None:
            moving = [part for part in sampler.step.parts() if part.moves]
            if bad := [type(part).__name__ for part in moving if not isinstance(part, self.steps)]:
                legal = ", ".join(kind.__name__ for kind in self.steps)
                why.append(f"{self.name} goes with the steps {legal}, not with {', '.join(bad)}")
        return why

    def run(
        self,
        score: Score,
        observation: Observation,
        sampler: Sampler | None = None,
        *,
        indices: Sequence[int],
        seed: int = 0,
        condition: Condition | None = None,
        callbacks: Sequence[Callback] = (),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> PosteriorRun:
        """One batch of posterior samples, one for each index.

        Args:
            score: Score of x, the prior.
            observation: The observation, in model units; one y for all, or one for each index.
            sampler: A sampler in place of the default.
            indices: The samples' numbers; with the seed they determine all noise.
            seed: Seed of every random draw.
            condition: What else is known of each example.
            callbacks: See `drive`.
            dtype: Type of the state.
            device: Device of the state.

        Raises:
            ValueError: What `refusals` says.
        """
        sampler = self.default_sampler(score) if sampler is None else sampler
        if why := self.refusals(score, sampler, observation):
            raise ValueError("; ".join(why))
        event = observation.operator.event
        like = torch.empty((len(indices), *event), dtype=dtype, device=device)
        guided, observed = self.prepare(Unobserving(score), sampler, observation)
        known: Condition = {**(condition or {}), OBSERVED: observation.y(like)}
        run = observed.run(
            guided,
            event,
            indices=indices,
            seed=seed,
            condition=known,
            callbacks=callbacks,
            dtype=dtype,
            device=device,
        )
        x = run.x if sampler.final == "none" else self.finish(run.x, observation)
        return PosteriorRun(x, run.raw, run.status, run.calls)

    def finish(self, x: Tensor, observation: Observation) -> Tensor:
        """Clean samples with what is known of them exactly put in, where a solver knows it; else as they are."""
        return x
