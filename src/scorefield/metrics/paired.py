"""Differences of a metric between two sets of samples that were drawn from the same noise.

Sample i of one set and sample i of the other come from noise (seed, i), and both sets meet the same real examples, so
most of what is random in either value is common and cancels in their difference. With I_i^a, I_i^b what sample i adds
to T_a and T_b to first order, and J_j^a, J_j^b the same of real example j,

    var(T_a - T_b) = var(I^a - I^b) / n + var(J^a - J^b) / m,

the infinitesimal jackknife of the difference (Jaeckel 1972; Efron and Stein 1981 for values left out), against
var(I^a) / n + var(I^b) / n + var(J^a - J^b) / m for samples of independent noise.
"""

from __future__ import annotations

import math
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.metrics.energy_distance import Jackknifed
from scorefield.metrics.frechet import FrechetDistance, influence, moments
from scorefield.metrics.inception_score import InceptionScore, mean_score
from scorefield.metrics.manifolds import Recall
from scorefield.metrics.metric import Metric
from scorefield.metrics.rows import KeptRows, normal_interval
from scorefield.metrics.sliced_wasserstein import SlicedWasserstein
from scorefield.metrics.vendi import VendiScore, vendi


@runtime_checkable
class _HasJackknifed(Protocol):
    def jackknifed(self) -> Jackknifed: ...


@record(tag="PairedDifference")
class PairedDifference:
    """A difference of two values of a metric whose samples share their noise.

    Args:
        number: Value of a minus value of b.
        interval: 95 % interval.
        std_error: Standard error of the difference.
        std_error_unshared: What it would be had the samples been drawn from noise of their own.
    """

    number: float
    interval: tuple[float, float]
    std_error: float
    std_error_unshared: float


def contributions(metric: Metric) -> Jackknifed:
    """A metric's value with each sample and each real example left out, to first order, in the order they were fed.

    Keep this and not the metric where many sets are compared: it is n + m numbers.

    Args:
        metric: What has seen the samples.

    Returns:
        The value, left out along the samples (in the order of `update`) and along the reference.

    Raises:
        ValueError: The metric's value does not change smoothly with its samples (medians, counts of modes), or too few
            samples were seen.
    """
    if isinstance(metric, FrechetDistance):
        return _frechet(metric)
    if isinstance(metric, InceptionScore):
        return _inception(metric)
    if isinstance(metric, VendiScore):
        rows = metric.rows()
        number, added = vendi(rows)
        return _from_influence(number, _as_fed(metric, number * added))
    if isinstance(metric, SlicedWasserstein):
        return _sliced(metric)
    if not isinstance(metric, _HasJackknifed):
        raise ValueError(
            f"{metric.name} has no first-order change by one sample, so differences of it are not paired; compare fid,"
            " kid, mmd, energy-distance, sliced-wasserstein, precision, recall, density, coverage, inception-score or"
            " vendi"
        )
    found = metric.jackknifed()
    if not isinstance(metric, KeptRows):
        return found
    samples, reference = reversed(found.left_out) if isinstance(metric, Recall) else found.left_out
    return Jackknifed(found.number, (_as_fed(metric, samples), reference))


def paired_difference(a: Jackknifed, b: Jackknifed) -> PairedDifference:
    """The difference of two values whose samples i share their noise, and whose reference is one.

    Args:
        a: `contributions` of the first.
        b: Metric of the second set: the same metric against the same reference, fed in the same order of indices.

    Raises:
        ValueError: Unequal numbers of samples or of real examples.
    """
    difference = a.minus(b)
    error = difference.std_error
    own = [Jackknifed(side.number, side.left_out[:1]).std_error for side in (a, b)]
    shared = Jackknifed(0.0, difference.left_out[1:]).std_error
    return PairedDifference(
        difference.number, normal_interval(difference.number, error), error, math.hypot(*own, shared)
    )


def _frechet(metric: FrechetDistance) -> Jackknifed:
    number = metric.compute()
    if number.status == "singular":
        raise ValueError(f"{metric.name} is singular here and its changes are not known: {number.warnings[0]}")
    rows, real_moments = metric.rows(), metric._real_moments
    seen = moments(rows)
    sets = [_as_fed(metric, influence(rows, seen, real_moments))]
    if not metric._fixed:
        sets.append(influence(metric._real, metric._real_moments, seen))  # type: ignore[arg-type]  # moments of a sample
    return _from_influence(number.number, *sets)


def _sliced(metric: SlicedWasserstein) -> Jackknifed:
    number = float(metric.compute())
    x, order = torch.cat(metric._rows).sort(dim=0)
    real, real_order = metric._real, metric._real_order
    slope = number ** (1 - metric.order) / metric.order if number > 0 else 0.0  # of the mean's root
    sets = metric._added(x, real, order), metric._added(real, x, real_order)
    return _from_influence(number, *(slope * added for added in sets))


def _inception(metric: InceptionScore) -> Jackknifed:
    """Splits as one set, each about its own mean: a sample moves the score of its own split alone."""
    found, _ = mean_score(metric.rows(), metric.splits)
    together = torch.cat([values - values.mean() for values in found.left_out])
    return Jackknifed(found.number, (_as_fed(metric, found.number + together),))


def _from_influence(number: float, *sets: Tensor) -> Jackknifed:
    """Values left out, T_(-i) = T - (I_i - mean I) / (n - 1)."""
    return Jackknifed(number, tuple(number - (i - i.mean()) / (len(i) - 1) for i in sets))


def _as_fed(metric: KeptRows, values: Tensor) -> Tensor:
    """Values of samples in the order of their hashes, in the order they were fed."""
    keys = cast(Tensor, metric.state()["keys"])
    out = torch.empty_like(values)
    out[keys.argsort(stable=True)] = values
    return out
