"""Posterior samples of a trained model, in data units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.inverse.observation import Observation
from scorefield.inverse.posterior import Posterior
from scorefield.inverse.posterior import posterior as draw
from scorefield.inverse.solvers.solver import Solver, Unobserving
from scorefield.inverse.solvers.table import choose, require, solver_named
from scorefield.models.conditions import ConditionLike
from scorefield.models.experiment import Experiment
from scorefield.sampling.sampler import Callback, Sampler
from scorefield.score.clipped import Clipped
from scorefield.score.score import Score


class HasPosterior(ABC):
    """Posterior sampling of a model: x given y."""

    experiment: Experiment
    data: DataSpec

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the network."""

    @abstractmethod
    def as_score(self) -> Score:
        """The score itself."""

    @abstractmethod
    def condition(self, given: ConditionLike | None, n: int) -> Condition | None:
        """Conditions as tensors with leading axis n."""

    @abstractmethod
    def sampler(self, sampler: Sampler | str | None = None, steps: int | None = None) -> Sampler:
        """The given sampler, or one by name."""

    def posterior(
        self,
        observation: Observation,
        n: int,
        *,
        solver: Solver | str = "auto",
        sampler: Sampler | str | None = None,
        seed: int = 0,
        start: int = 0,
        batch_size: int | None = None,
        condition: ConditionLike | None = None,
        callbacks: Sequence[Callback] = (),
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Posterior:
        """n samples of x given y = A(x) + noise in data units, for one y or for each of B; see `inverse.posterior`.

        The posterior mean of bounded data is kept in their range (`score.Clipped`): what solvers compare with y.

        Args:
            observation: A of examples in data units; y and its noise in their own units.
            n: Samples for each y.
            solver: A solver with its settings, a name, or "auto", which states its reason in the result.
            sampler: A sampler or a name, as for `sample`; None for the solver's own.
            seed: Seed of every random draw.
            start: Index of the first; sample j of observation b has the index start + b n + j.
            batch_size: Samples per network call; by default up to 128.
            condition: Other known conditions by name: one value for all, or one for each y.
            callbacks: Called after each step of each batch with a `Progress`.
            on_batch: Called with the offset and the number of samples of each finished batch.

        Raises:
            ValueError: Solver, sampler and observation do not fit (`inverse.posterior`), or an operator for examples of
                another shape.
        """
        observation = observation.for_examples(self.data.shape)
        inside, score = observation.in_model_units(self.data), self.prior()
        used, why = None if sampler is None else self.sampler(sampler), None
        if solver == "auto":
            solver, why = (chosen := choose(score, inside, used)).solver, chosen.why
        elif isinstance(solver, str):
            solver = solver_named(solver)
        solver = solver.for_data(self.data, inside)
        if used is None:  # refused by what its own sampler allows, so that all solvers that would do are named
            require(solver, score, inside)
        found = draw(
            score,
            inside,
            n,
            solver=solver,
            sampler=self.posterior_sampler(solver) if used is None else used,
            seed=seed,
            start=start,
            batch_size=batch_size,
            condition=self.condition(condition, observation.batch or 1),
            callbacks=callbacks,
            on_batch=on_batch,
            device=self.device,
        ).in_data_units(self.data)
        return found if why is None else replace(found, why=why)

    def prior(self) -> Score:
        """The score that solvers follow: the model's, its posterior mean kept in the range of bounded data."""
        return Clipped(self.as_score(), *self.data.model_range) if self.data.bounded else self.as_score()

    def posterior_sampler(self, solver: Solver) -> Sampler:
        """A solver's own sampler: along the ladder of levels, where the network was trained on one."""
        levels = self.experiment.levels
        if levels is None:
            return solver.default_sampler(self.as_score())
        on_ladder = Unobserving(self.as_score())
        on_ladder.process = levels
        return replace(solver.default_sampler(on_ladder), process=replace(levels, between="linear"))


def posterior(
    model: HasPosterior,
    observation: Observation,
    n: int,
    *,
    solver: Solver | str = "auto",
    sampler: Sampler | str | None = None,
    seed: int = 0,
    start: int = 0,
    batch_size: int | None = None,
    condition: ConditionLike | None = None,
) -> Posterior:
    """n samples of x given y = A(x) + noise in data units; `model.posterior` as a function."""
    return model.posterior(
        observation,
        n,
        solver=solver,
        sampler=sampler,
        seed=seed,
        start=start,
        batch_size=batch_size,
        condition=condition,
    )
