"""Subjects of sampler measurements: a model, or a score known in closed form."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield.sampling.named import named
from scorefield.sampling.sampler import Sampler
from scorefield.score.score import Score

if TYPE_CHECKING:
    from scorefield.models.model import Model


@dataclass(frozen=True)
class Drawn:
    """Samples in model units.

    Args:
        x: (n, D) float64.
        raw: The samples before the final denoising.
        calls: Network calls of each, (n,).
        seconds: Wall time of all.
        status: 0, or a code of `sampling.step.STATUS`, (n,).
    """

    x: Tensor
    raw: Tensor
    calls: Tensor
    seconds: float
    status: Tensor


@dataclass(frozen=True)
class Subject:
    """A model or an exact score on which samplers are measured.

    Args:
        score: What they follow.
        event: Shape of one example.
        draw: (sampler, index of the first sample, number) -> samples of the subject's seed.
        named: (name, steps) -> sampler.
        own: Further samplers by name: the subject's own, a tuned one.
        batch_size: Samples at a time.
        device: Device of the score.
    """

    score: Score
    event: tuple[int, ...]
    draw: Callable[[Sampler, int, int], Drawn]
    named: Callable[[str, int | None], Sampler]
    own: Mapping[str, Sampler] = field(default_factory=dict)
    batch_size: int = 128
    device: torch.device | str = "cpu"
    condition: Callable[[int], Mapping[str, Tensor] | None] = lambda n: None

    def seconds_per_call(self, batch: int | None = None) -> float:
        """Time of one evaluation of the score per example, the best of three at the largest noise."""
        size = batch or self.batch_size
        x = self.score.process.prior_std * torch.ones((size, *self.event), device=self.device)
        t, known, best = torch.ones(size, dtype=torch.float64), self.condition(size), math.inf
        with torch.no_grad():
            for _ in range(3):
                began = time.perf_counter()
                float(self.score(x, t, known).sum())  # reading a number waits for the device
                best = min(best, time.perf_counter() - began)
        return best / size


def of_model(model: Model, *, seed: int = 0, batch_size: int | None = None, labels: Tensor | None = None) -> Subject:
    """A model as a subject.

    Args:
        model: The model.
        seed: Seed of every random draw.
        batch_size: Samples at a time; default at most 128.
        labels: Classes of the samples, one after the other and over again, for models that take them.

    Raises:
        ValueError: The model was trained with conditions always known and there are no labels to take them from.
    """
    size = batch_size or 128

    def condition(first: int, n: int) -> dict[str, Tensor] | None:
        if labels is None or not model.data.conditions:
            return None
        return {"class": labels[torch.arange(first, first + n) % len(labels)]}

    def draw(sampler: Sampler, first: int, n: int) -> Drawn:
        found = model.sample(
            n, sampler=sampler, seed=seed, start=first, batch_size=min(size, n), condition=condition(first, n)
        )
        x, raw = (model.data.to_model(part).to(torch.float64).reshape(n, -1) for part in (found.x, found.raw))
        return Drawn(x, raw, found.nfe, found.seconds, found.status)

    own = {"the model's own": model.experiment.sampler}
    return Subject(
        model.as_score(),
        model.data.shape,
        draw,
        model.sampler,
        own,
        size,
        model.device,
        lambda n: model.condition(condition(0, n), n),
    )


def of_score(score: Score, event: tuple[int, ...], *, seed: int = 0) -> Subject:
    """A score known in closed form as a subject, in float64."""

    def draw(sampler: Sampler, first: int, n: int) -> Drawn:
        began = time.perf_counter()
        run = sampler.run(score, event, indices=range(first, first + n), seed=seed, dtype=torch.float64)
        seconds = time.perf_counter() - began
        return Drawn(run.x.reshape(n, -1), run.raw.reshape(n, -1), run.calls, seconds, run.status)

    return Subject(score, event, draw, lambda name, steps: named(name, score.process, steps))
