"""Models compared by the objective they minimised, on the same held-out examples, noise levels and noise.

Losses are comparable where their weighting and their levels are one: then they differ from E lambda |s - grad log p|^2
by the same number, and the lower one is the better score. The differences are paired, example by example, and much
better known than the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield import _codec
from scorefield.data import Split
from scorefield.evaluation import examples
from scorefield.losses.denoising import AtLevels, DenoisingScoreMatching, Draw
from scorefield.models.model import Model
from scorefield.process.tabulated import Tabulated
from scorefield.studies.methods.records import NORMAL

MOST = 2000
"""Held-out examples at most."""


@dataclass(frozen=True)
class Loss:
    """The held-out loss of a model.

    Args:
        name: Of the model.
        number: Mean over examples, levels and noise; a mean over dimensions.
        half: Half-width of its 95 % interval over examples.
        beyond: The mean paired difference to the model of the least loss; 0 for that one.
        beyond_half: Half-width of its 95 % interval.
    """

    name: str
    number: float
    half: float
    beyond: float
    beyond_half: float

    @property
    def worse(self) -> bool:
        """Whether it is worse than the least by more than the interval."""
        return self.beyond - self.beyond_half > 0


def common_objective(models: Sequence[tuple[str, Model]]) -> DenoisingScoreMatching:
    """The denoising objective on which models can be compared.

    Raises:
        ValueError: They differ in data, process, levels or weighting; says in what, and which.
    """
    if len(models) < 2:
        raise ValueError("a comparison by objective takes two models or more: compare-methods A B --by objective")
    (first, one), *others = models
    for name, model in others:
        for what, a, b in zip(_SAME, identity(one), identity(model), strict=True):
            if a != b:
                raise ValueError(
                    f"{first} and {name} differ in {what}: {a} and {b}. Losses compare where data, process, levels and"
                    " weighting are one; --by samples compares any models of the same data"
                )
    objective = one.experiment.objective
    assert isinstance(objective, AtLevels)
    levels = next((m.experiment.levels for _, m in models if m.experiment.levels is not None), None)
    return DenoisingScoreMatching(weighting=objective.weighting, levels=levels)


_SAME = ("data", "process", "levels", "weighting")


def identity(model: Model) -> tuple[Any, Any, Any, Any]:
    """What must be equal: data in model units, process, levels and weighting."""
    experiment = model.experiment
    objective = experiment.objective
    if not isinstance(objective, AtLevels):
        raise ValueError(
            f"{model.name} was trained by {type(objective).__name__}, which has no levels and weighting of its own"
        )
    process = experiment.process
    levels = experiment.levels or (process if isinstance(process, Tabulated) else None)
    ladder = "continuous" if levels is None else _codec.encode(levels.ladder)
    return _codec.encode(model.data), _codec.encode(process), ladder, _codec.encode(objective.weighting)


def compare_objectives(
    models: Sequence[tuple[str, Model]], held_out: Split, *, draws: int = 8, seed: int = 0, batch_size: int = 128
) -> list[Loss]:
    """Held-out losses of models on the same (x, level, z), least first.

    Args:
        models: Names and models.
        held_out: Data that none of them saw.
        draws: Of level and noise for each example.
        seed: Of the draws.
        batch_size: Examples at a time.

    Raises:
        ValueError: The models do not compare, or fewer than two examples are held out.
    """
    objective = common_objective(models)
    x, _ = examples(held_out, MOST)
    if len(x) < 2:
        raise ValueError(f"{held_out.name} holds {len(x)} examples; an interval needs two or more")
    losses = [torch.zeros(len(x), dtype=torch.float64) for _ in models]
    (_, one), *_ = models
    for k in range(draws):
        for first in range(0, len(x), batch_size):
            rows = slice(first, min(first + batch_size, len(x)))
            x0 = one.data.to_model(x[rows])
            generator = torch.Generator().manual_seed(1_000_003 * seed + 7919 * k + first)
            draw = objective.draw(one.process, x0, generator)
            for values, (_, model) in zip(losses, models, strict=True):
                values[rows] += _loss(objective, model, x0, draw) / draws
    least = min(losses, key=lambda values: float(values.mean()))
    found = [Loss(name, *_mean(v), *_mean(v - least)) for (name, _), v in zip(models, losses, strict=True)]
    return sorted(found, key=lambda loss: loss.number)


def _loss(objective: DenoisingScoreMatching, model: Model, x0: Tensor, draw: Draw) -> Tensor:
    device = model.device
    local = Draw(draw.t, draw.z.to(device))
    with torch.no_grad():
        return objective(model.as_score(), x0.to(device), local).double().cpu()


def _mean(values: Tensor) -> tuple[float, float]:
    """(mean, half-width of its 95 % interval)."""
    return float(values.mean()), NORMAL * float(values.std()) / math.sqrt(len(values))


def alike(models: Sequence[tuple[str, Model]]) -> list[list[tuple[str, Model]]]:
    """Groups of two models or more that compare, in the order given."""
    groups: list[list[tuple[str, Model]]] = []
    for name, model in models:
        for group in groups:
            if identity(group[0][1]) == identity(model):
                group.append((name, model))
                break
        else:
            groups.append([(name, model)])
    return [group for group in groups if len(group) > 1]
