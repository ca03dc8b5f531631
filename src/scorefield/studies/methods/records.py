"""The record of one run of a method, and estimates over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scorefield._codec import record
from scorefield.metrics import MetricResult
from scorefield.studies.papers.entry import NORMAL

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantiles of Student's t at 1, 2, ... degrees of freedom."""


@record(tag="ComparedSamples")
class Sampled:
    """Samples of one trained model by one sampler, with their metrics.

    Args:
        name: Name of the sampler, followed by ", raw" for samples before the final denoising.
        folder: Folder of the samples, relative to the run folder.
        calls: Mean number of network evaluations per sample.
        seconds: Seconds to draw all samples.
        failed: Number of samples that are not finite; metrics leave them out.
        energy: Squared energy distance to held-out data with its jackknife interval; None where too few samples are
            finite.
        frechet: Frechet distance with its bootstrap interval; None where too few samples are finite.
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
        std_error: Standard error of that mean over examples.
        count: Number of examples.
        failed: Number of examples for which the solver of the flow failed.
        calls: Mean number of network evaluations per example.
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
        method: Name of the method.
        seed: Seed of training and sampling.
        steps: Optimiser steps taken.
        examples: Training examples used, with repetitions.
        seconds: Training time.
        load: Load average of the machine over the last minute of training; None where the system does not give it.
        parameters: Parameters of the network.
        critic: Parameters of the discriminator; 0 without one.
        samples: Samples by every sampler, the published one first.
        density: Density of held-out data; None where it is not defined or was not measured.
        no_density: Why there is no density.
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
        """Return the samples of a sampler by name, or None."""
        return next((s for s in self.samples if s.name == name), None)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval.

    Args:
        number: Mean over seeds.
        low: Lower end of the interval.
        high: Upper end of the interval.
        seeds: Number of seeds.
    """

    number: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.number:.4g} [{self.low:.4g}, {self.high:.4g}]"


def estimate_over_seeds(values: Sequence[tuple[float, float]]) -> Estimate:
    """Return the mean over seeds with a 95 % interval for other seeds.

    mean +- max(t s / sqrt(k), 1.96 mean standard error): Student's interval from the spread s of k seeds, but never
    narrower than the mean interval of a single run, because the seeds share their held-out data. With one seed the
    interval is that of the run.

    Args:
        values: (value, standard error) of each seed.

    Raises:
        ValueError: There are no values.
    """
    k = len(values)
    if not k:
        raise ValueError("an estimate over seeds needs the value of at least one run, and none was given")
    mean = sum(v for v, _ in values) / k
    half = NORMAL * sum(e for _, e in values) / k
    if k > 1:
        spread = math.sqrt(sum((v - mean) ** 2 for v, _ in values) / (k - 1))
        half = max(half, STUDENT[min(k - 1, len(STUDENT)) - 1] * spread / math.sqrt(k))
    return Estimate(mean, mean - half, mean + half, k)
