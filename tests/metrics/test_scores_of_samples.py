"""Inception and Vendi scores: closed forms, definitions, left-out values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scorefield.metrics import InceptionScore, RawFeatures, Reference, VendiScore, measure
from scorefield.metrics.inception_score import mean_score, score
from scorefield.metrics.vendi import vendi
from tolerance import FLOAT64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(seed: int, count: int, classes: int = 4) -> Tensor:
    return (2 * normal(seed, count, classes)).softmax(dim=1)


def definition(p: Tensor) -> float:
    marginal = p.mean(dim=0)
    return math.exp(sum(float((row * (row / marginal).log()).sum()) for row in p) / len(p))


def test_inception_score_is_its_definition_also_without_each_sample() -> None:
    p = probabilities(0, 12)
    found = score(p)
    assert abs(found.number - definition(p)) < FLOAT64
    for i in range(12):
        assert abs(float(found.left_out[0][i]) - definition(p[torch.arange(12) != i])) < FLOAT64


def test_sure_and_even_is_the_number_of_classes_and_unsure_or_uneven_is_one() -> None:
    even = torch.eye(4, dtype=torch.float64).repeat(5, 1)
    assert abs(score(even).number - 4.0) < FLOAT64
    assert abs(score(torch.full((6, 4), 0.25)).number - 1.0) < FLOAT64
    assert abs(score(even[:1].repeat(7, 1)).number - 1.0) < FLOAT64


def test_splits_are_averaged_and_their_error_is_that_of_independent_parts() -> None:
    p = probabilities(1, 40)
    found, values = mean_score(p, 4)
    parts = [score(part) for part in p.split(10)]
    assert abs(found.number - sum(part.number for part in parts) / 4) < FLOAT64
    assert values.tolist() == [part.number for part in parts]
    assert abs(found.std_error - math.sqrt(sum(part.std_error**2 for part in parts)) / 4) < FLOAT64


def test_the_metric_splits_the_same_samples_however_they_come() -> None:
    reference = Reference(probabilities(2, 50), name="real")
    metric = InceptionScore(RawFeatures(), reference)
    p = probabilities(3, 45)
    value = measure(metric, p).value
    assert value.details["standard deviation over splits"] > 0
    assert abs(value.details["of the 50 reference examples"] - float(measure(metric, reference.x))) < FLOAT64
    assert value.number == pytest.approx(float(measure(metric, p.flip(0), batch_size=7)), rel=FLOAT64)
    assert float(measure(InceptionScore(RawFeatures(), reference, splits=1), p)) == pytest.approx(definition(p))


def test_the_interval_of_the_inception_score_covers() -> None:
    reference = Reference(probabilities(0, 20), name="real")
    metric = InceptionScore(RawFeatures(), reference, splits=1)
    wanted = score(probabilities(10**6, 20_000)).number
    inside = 0
    for seed in range(60):
        interval = measure(metric, probabilities(seed + 1, 400)).value.interval
        assert interval is not None
        inside += interval[0] <= wanted <= interval[1]
    assert inside >= 44  # P(Binomial(60, 0.95) < 44) < 1e-6


def test_logits_and_too_few_samples_are_refused() -> None:
    reference = Reference(probabilities(2, 50), name="real")
    with pytest.raises(ValueError, match="put a softmax after the logits"):
        InceptionScore(RawFeatures(), Reference(normal(0, 9, 4), name="logits"))
    metric = InceptionScore(RawFeatures(), reference)
    with pytest.raises(ValueError, match="put a softmax after the logits"):
        metric.update(normal(1, 30, 4))
    assert metric.count == 0 and len(metric.rows()) == 0
    metric.update(probabilities(1, 19))
    with pytest.raises(ValueError, match="needs at least 20 samples and has seen 19"):
        metric.compute()
    with pytest.raises(ValueError, match="splits=0"):
        InceptionScore(RawFeatures(), reference, splits=0)


def test_vendi_score_is_the_entropy_of_the_kernel_matrix() -> None:
    rows = normal(4, 9, 5)
    units = rows / rows.norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(units @ units.mT / 9).clamp_min(0.0)
    number, added = vendi(rows)
    assert abs(number - math.exp(float(torch.special.entr(values).sum()))) < FLOAT64
    assert abs(float(added.mean())) < FLOAT64


def test_vendi_score_counts_orthogonal_samples() -> None:
    basis = torch.eye(6, dtype=torch.float64)
    assert abs(vendi(3.0 * basis)[0] - 6.0) < FLOAT64
    assert abs(vendi(basis[:2].repeat(4, 1))[0] - 2.0) < FLOAT64
    assert abs(vendi(basis[:1].repeat(4, 1))[0] - 1.0) < FLOAT64


def test_what_a_row_adds_to_the_vendi_score_is_the_derivative() -> None:
    rows = normal(5, 30, 3)
    number, added = vendi(rows)
    for i in (0, 11):
        copies = 4000  # one more copy of row i among 4000 of every row moves its share by about 1 / (30 * 4000)
        u = rows / rows.norm(dim=1, keepdim=True)
        c = (copies * u.mT @ u + torch.outer(u[i], u[i])) / (30 * copies + 1)
        moved = float(torch.special.entr(torch.linalg.eigvalsh(c)).sum()) - math.log(number)
        assert moved * (30 * copies + 1) == pytest.approx(float(added[i]), abs=1e-3)


def test_a_row_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="all zero"):
        VendiScore(RawFeatures(), Reference(torch.zeros(3, 2), name="zeros"))
