"""Problems whose truths are known: drawn from an oracle, a model or its held-out data, and measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._codec import near
from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise
from scorefield.inverse.noise import GaussianNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.operators.operator import Operator
from scorefield.inverse.operators.pixels import Matrix
from scorefield.inverse.solvers.solver import Solver
from scorefield.models.model import Model
from scorefield.process.families import VP
from scorefield.sampling.named import with_steps
from scorefield.sampling.sampler import Sampler
from scorefield.score.oracles import Mixture, Oracle, skewed_field, skewed_gaussian, skewed_mixture
from scorefield.score.score import Score

TRUTHS, MEASUREMENTS, EXACT = 2**40, 2**41, 2**42
"""Indices from which truths, noise of measurements and exact answers are numbered, so that none shares the noise of a
solver's answers with the same seed."""

ORACLES: dict[str, Callable[[], Oracle]] = {
    "gaussian-8d": lambda: skewed_gaussian(VP(), 8),
    "mixture-2d": lambda: skewed_mixture(VP(), 2),
    "mixture-8d": lambda: skewed_mixture(VP(), 8),
    "mixture-64d": lambda: _image_mixture(),
    "field": lambda: skewed_field(VP(), (1, 8, 12)),
}
"""Distributions that are known exactly, by the name after "oracle:"."""


def _image_mixture() -> Mixture:
    """The mixture of 64 entries as an image of 8 x 8, for operators on images."""
    return skewed_mixture(VP(), (1, 8, 8))


@dataclass(frozen=True)
class Subject:
    """A prior of which problems are made, with the score that solvers are given.

    Args:
        name: What it is called.
        score: The score, in model units.
        shape: Shape of one example.
        device: Device of the score.
        identity: Changes when the score does.
        truths: (how many, seed) -> truths, model units.
        to_data: Model units to those the operator is of.
        observed: An observation of data units in model units.
        fitted: A solver with what it leaves open filled in from what the data are.
        own_sampler: What a solver is used with.
        oracle: The prior itself, where it is known.
    """

    name: str
    score: Score
    shape: tuple[int, ...]
    device: torch.device
    identity: str
    truths: Callable[[int, int], Tensor]
    to_data: Callable[[Tensor], Tensor]
    observed: Callable[[Observation], Observation]
    fitted: Callable[[Solver, Observation], Solver]
    own_sampler: Callable[[Solver], Sampler]
    oracle: Oracle | None = None

    def sampler(self, solver: Solver, steps: int | None) -> Sampler:
        """A solver's own sampler, with the given number of steps if there is one.

        Raises:
            ValueError: Its grid has no number of steps.
        """
        own = self.own_sampler(solver)
        return own if steps is None else with_steps(own, steps)


def oracle_subject(name: str) -> Subject:
    """A distribution of `ORACLES`; its operators are of model units.

    Raises:
        ValueError: No such name.
    """
    if name not in ORACLES:
        raise ValueError(f"there is no oracle {name!r}.{near(name, ORACLES)}")
    oracle = ORACLES[name]()
    return Subject(
        name=f"oracle:{name}",
        score=oracle,
        shape=oracle.shape,
        device=torch.device("cpu"),
        identity=name,
        truths=lambda n, seed: oracle.sample(n, seed=seed, start=TRUTHS),
        to_data=lambda x: x,
        observed=lambda observation: observation,
        fitted=lambda solver, observation: solver,
        own_sampler=lambda solver: solver.default_sampler(oracle),
        oracle=oracle,
    )


def model_subject(model: Model, held_out: Tensor | None = None) -> Subject:
    """A trained model: of its own samples, which tests solvers alone, or of held-out data, which tests both.

    Args:
        model: Without conditions, or with samples that need none.
        held_out: Truths in data units, in the order in which they are used; None for samples.
    """

    def truths(n: int, seed: int) -> Tensor:
        if held_out is None:
            return model.data.to_model(model.sample(n, seed=seed, start=TRUTHS).x)
        if len(held_out) < n:
            raise ValueError(f"there are {len(held_out)} held-out examples and {n} problems were asked for; lower -n")
        return model.data.to_model(held_out[:n])

    return Subject(
        name=model.name,
        score=model.prior(),
        shape=model.data.shape,
        device=model.device,
        identity=model.hash,
        truths=truths,
        to_data=model.data.to_data,
        observed=lambda observation: observation.in_model_units(model.data),
        fitted=lambda solver, observation: solver.for_data(model.data, observation),
        own_sampler=model.posterior_sampler,
    )


def default_operator(shape: tuple[int, ...]) -> Matrix:
    """Random mixtures of all entries, half as many as there are, each of norm about 1."""
    D = math.prod(shape)
    draw = torch.Generator().manual_seed(0)
    return Matrix(torch.randn(max(1, D // 2), D, generator=draw, dtype=torch.float64) / D**0.5, shape)


@dataclass(frozen=True)
class Problems:
    """Truths and their measurements.

    Args:
        subject: What they are of.
        truth: Model units, (P, *event).
        observation: Model units, with a y for each.
        noise_std: Standard deviation of the noise of y, in its units.
    """

    subject: Subject
    truth: Tensor
    observation: Observation
    noise_std: float


def simulate(subject: Subject, operator: Operator, n: int, *, noise: float | None = None, seed: int = 0) -> Problems:
    """n truths and y = A(x) + noise of each.

    Args:
        subject: The source of true examples.
        operator: A, of data units.
        n: Number of problems.
        noise: Standard deviation of y's noise, in its units; by default a tenth of the deviation of A(x).
        seed: Seed of true examples and noise.

    Raises:
        ValueError: The operator is for other examples, or a noise that cannot be.
    """
    if operator.event != subject.shape:
        raise ValueError(f"the operator is for examples of shape {operator.event}; those of {subject.name} have"
                         f" {subject.shape}")  # fmt: skip
    truth = subject.truths(n, seed)
    with torch.no_grad():
        seen = operator(subject.to_data(truth))
    if noise is None:
        noise = 0.1 * float((seen - seen.mean(0)).double().square().mean().sqrt())
    law = GaussianNoise(noise)
    draws = StepNoise(IndexedNoise(seed, range(MEASUREMENTS, MEASUREMENTS + n)), PRIOR_STEP)
    observation = subject.observed(Observation(operator, law.sample(seen, draws), law))
    assert math.isfinite(noise)
    return Problems(subject, truth, observation, noise)
