"""Comparison of models by the objective they minimised, on the same held-out examples, noise levels and noise.

Denoising losses are comparable where models have the same weighting and the same levels: then they exceed
E lambda |s - grad log p|^2 by the same number, so that the smaller loss belongs to the better score. Differences are
paired example by example; their intervals are therefore much narrower than those of the losses.
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
"""Largest number of held-out examples used."""


@dataclass(frozen=True)
class Loss:
    """The held-out loss of a model.

    Args:
        name: Name of the model.
        number: Loss, averaged over examples, levels, noise and dimensions.
        half: Half-width of its 95 % interval over examples.
        beyond: Mean paired difference to the model with the smallest loss; 0 for that model.
        beyond_half: Half-width of the 95 % interval of `beyond`.
    """

    name: str
    number: float
    half: float
    beyond: float
    beyond_half: float

    @property
    def worse(self) -> bool:
        """Whether the whole interval of the difference to the smallest loss is above zero."""
        return self.beyond - self.beyond_half > 0


def common_objective(models: Sequence[tuple[str, Model]]) -> DenoisingScoreMatching:
    """Return the denoising objective by which models can be compared.

    Args:
        models: (name, model) of each.

    Raises:
        ValueError: There are fewer than two models, or they differ in data, process, levels or weighting; the message
            names the difference.
    """
    if len(models) < 2:
        raise ValueError("a comparison by objective takes two models or more: compare-methods A B --by objective")
    (first_name, first), *remaining = models
    for name, model in remaining:
        for what, a, b in zip(_COMPARED, comparison_key(first), comparison_key(model), strict=True):
            if a != b:
                raise ValueError(
                    f"{first_name} and {name} differ in {what}: {a} and {b}. Losses are comparable only where data,"
                    " process, levels and weighting are equal; use --by samples, which compares any models of the same"
                    " data"
                )
    objective = first.experiment.objective
    assert isinstance(objective, AtLevels)
    levels = next((m.experiment.levels for _, m in models if m.experiment.levels is not None), None)
    return DenoisingScoreMatching(weighting=objective.weighting, levels=levels)


_COMPARED = ("data", "process", "levels", "weighting")


def comparison_key(model: Model) -> tuple[Any, Any, Any, Any]:
    """Return what must be equal in models compared by their loss: data, process, levels and weighting.

    Raises:
        ValueError: The model was trained by an objective without levels and weighting.
    """
    experiment = model.experiment
    objective = experiment.objective
    if not isinstance(objective, AtLevels):
        raise ValueError(
            f"{model.name} was trained by {type(objective).__name__}, which has no noise levels and no weighting; only"
            " models trained by score matching at noise levels can be compared by their objective"
        )
    process = experiment.process
    levels = experiment.levels or (process if isinstance(process, Tabulated) else None)
    ladder = "continuous" if levels is None else _codec.encode(levels.ladder)
    return _codec.encode(model.data), _codec.encode(process), ladder, _codec.encode(objective.weighting)


def compare_objectives(
    models: Sequence[tuple[str, Model]], held_out: Split, *, draws: int = 8, seed: int = 0, batch_size: int = 128
) -> list[Loss]:
    """Return the held-out losses of models on the same (x, level, z), smallest first.

    Args:
        models: (name, model) of each.
        held_out: Data on which none of the models was trained.
        draws: Draws of level and noise for each example.
        seed: Seed of the draws.
        batch_size: Batch size of the evaluation.

    Raises:
        ValueError: The models are not comparable, or fewer than two examples are held out.
    """
    objective = common_objective(models)
    x, _ = examples(held_out, MOST)
    if len(x) < 2:
        raise ValueError(
            f"{held_out.name} has {len(x)} examples, and an interval needs two or more; give a larger data set with"
            " --data"
        )
    losses = [torch.zeros(len(x), dtype=torch.float64) for _ in models]
    (_, model_0), *_ = models
    for k in range(draws):
        for first in range(0, len(x), batch_size):
            rows = slice(first, min(first + batch_size, len(x)))
            x0 = model_0.data.to_model(x[rows])
            generator = torch.Generator().manual_seed(1_000_003 * seed + 7919 * k + first)
            draw = objective.draw(model_0.process, x0, generator)
            for values, (_, model) in zip(losses, models, strict=True):
                values[rows] += _loss(objective, model, x0, draw) / draws
    least = min(losses, key=lambda values: float(values.mean()))
    found = [Loss(name, *_mean(v), *_mean(v - least)) for (name, _), v in zip(models, losses, strict=True)]
    return sorted(found, key=lambda loss: loss.number)


def _loss(objective: DenoisingScoreMatching, model: Model, x0: Tensor, draw: Draw) -> Tensor:
    """Return a model's loss of each example on its own device, (B,)."""
    device = model.device
    draw_on_device = Draw(draw.t, draw.z.to(device))
    with torch.no_grad():
        return objective(model.as_score(), x0.to(device), draw_on_device).double().cpu()


def _mean(values: Tensor) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % interval."""
    return float(values.mean()), NORMAL * float(values.std()) / math.sqrt(len(values))


def comparable_groups(models: Sequence[tuple[str, Model]]) -> list[list[tuple[str, Model]]]:
    """Return the groups of two or more models that are comparable with each other, in the order given."""
    groups: list[list[tuple[str, Model]]] = []
    for name, model in models:
        for group in groups:
            if comparison_key(group[0][1]) == comparison_key(model):
                group.append((name, model))
                break
        else:
            groups.append([(name, model)])
    return [group for group in groups if len(group) > 1]
