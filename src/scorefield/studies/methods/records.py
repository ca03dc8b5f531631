"""What one run of a method left behind, and numbers over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scorefield._codec import record
from scorefield.metrics import MetricResult

NORMAL = 1.959964
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantiles of Student's t at 1, 2, ... degrees of freedom."""


@record(tag="ComparedSamples")
class Sampled:
    """Samples of one trained model by one sampler, measured.

    Args:
        name: Of the sampler, with ", raw" before the last denoising.
        folder: Where the samples lie, relative to the run.
        calls: Network calls of a sample, the mean.
        seconds: To draw all.
        failed: Samples that are not finite; they are left out of the numbers.
        energy: Squared energy distance to held-out data, its interval by the jackknife; None where too few are finite.
        frechet: Frechet distance, its interval by the bootstrap; None likewise.
    """

    name: str
    folder: str
    calls: float
    seconds: float
    failed: int
    energy: MetricResult | None
    frechet: MetricResult | None


@record(tag="ComparedDensity")
class Density:
    """Density of held-out examples by the probability flow.

    Args:
        number: Mean over examples of bits/dim, or of negative nats where the data have no grey levels.
        std_error: Of that mean, over examples.
        count: Examples.
        failed: Examples whose flow gave up.
        calls: Network calls of an example, the mean.
    """

    number: float
    std_error: float
    count: int
    failed: int
    calls: float


@record(tag="ComparedRun")
class MethodRun:
    """One method trained with one seed.

    Args:
        method: Its name.
        seed: Of training and sampling.
        steps: Optimiser steps reached.
        examples: Seen in training.
        seconds: Of training.
        load: Mean number of processes that wanted the machine in the last minute of training; None where not known.
        parameters: Of the network.
        critic: Parameters of the critic, 0 without one.
        samples: By every sampler, the method's own first.
        density: Of held-out data, where it is defined.
        no_density: Why it is not.
    """

    method: str
    seed: int
    steps: int
    examples: int
    seconds: float
    load: float | None
    parameters: int
    critic: int
    samples: tuple[Sampled, ...]
    density: Density | None = None
    no_density: str | None = None

    def sampled(self, name: str) -> Sampled | None:
        """The samples of that sampler."""
        return next((s for s in self.samples if s.name == name), None)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Args:
        number: The mean over seeds.
        low: Lower end.
        high: Upper end.
        seeds: How many.
    """

    number: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.number:.4g} [{self.low:.4g}, {self.high:.4g}]"


def over_seeds(values: Sequence[tuple[float, float]]) -> Estimate:
    """The mean of (value, standard error) pairs, one per seed, with an interval for another draw of seeds.

    mean +- max(t s / sqrt(k), 1.96 mean standard error): Student's interval from the spread of k seeds, never narrower
    than one run's own, because the seeds share their held-out data. One seed has its own alone.

    Raises:
        ValueError: No value.
    """
    k = len(values)
    if not k:
        raise ValueError("no run has this number")
    mean = sum(v for v, _ in values) / k
    half = NORMAL * sum(e for _, e in values) / k
    if k > 1:
        spread = math.sqrt(sum((v - mean) ** 2 for v, _ in values) / (k - 1))
        half = max(half, STUDENT[min(k - 1, len(STUDENT)) - 1] * spread / math.sqrt(k))
    return Estimate(mean, mean - half, mean + half, k)
