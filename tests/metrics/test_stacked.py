"""Modes of stacked examples: counted once, by a classifier that does not draw, and a KL without a histogram's bias."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.metrics import (
    ClassifierFacts,
    ClassifierFeatures,
    Reference,
    StackedClassifier,
    StackedModes,
    confusion_matrix,
    corrected_divergence,
    deconvolved,
    divergence,
    measure,
)
from tolerance import CLOSE_TO_INFINITELY_MANY, FLOAT64, MODES_WITHOUT_BIAS

K, PARTS = 10, 3
DATA = DataSpec((1,), 0, K - 1, K)
UNIFORM = torch.full((K,) * PARTS, 1e-3, dtype=torch.float64)


class _Rounded(ClassifierFeatures):
    """Classifies a number by rounding it; the network behind it is never asked."""

    def __init__(self) -> None:
        self.facts = ClassifierFacts(DATA, K, width=1, accuracy=1.0, held_out=K, seed=0, steps=0)
        self.hash = "rounded"

    def classes_of(self, x: Tensor) -> Tensor:
        return x[:, 0].round().long()


def counter(confusion: Tensor | None = None) -> StackedModes:
    exact = torch.eye(K, dtype=torch.float64)
    classifier = StackedClassifier(_Rounded(), exact if confusion is None else confusion, PARTS)
    return StackedModes(Reference(stacks(torch.arange(1000)), name="digits"), classifier)


def stacks(modes: Tensor) -> Tensor:
    """Stacks of the given modes, one number a part."""
    return torch.stack([modes // 100, modes // 10 % 10, modes % 10], dim=1).float()


def every_mode(times: int = 26) -> Tensor:
    return stacks(torch.arange(1000).repeat(times))


# ------------------------------------------------------------------------ the release's bugs, one test for each


def test_uniform_coverage_has_no_divergence() -> None:
    # Bugs of the released evaluator: q over the 26,000 asked for where 25,000 were made, and a second pass over the
    # same counter. Together they print 1.9231 (KL + ln 1.9231) = 1.2576 here.
    metric = counter()
    value = measure(metric, every_mode(25), batch_size=5000).value
    assert value.details["plug-in KL to uniform"] == pytest.approx(0.0, abs=FLOAT64)
    assert value.details["plug-in KL"] == pytest.approx(0.0, abs=FLOAT64)
    q = 2.0 * metric.histogram().double() / 26_000
    assert float(torch.special.xlogy(q, 1000 * q).sum()) == pytest.approx(1.2576, abs=1e-4)


def test_a_sample_is_counted_once() -> None:
    metric = counter()
    metric.update(every_mode(1))
    assert metric.count == 1000 == int(metric.histogram().sum())
    metric.update(stacks(torch.tensor([314, 314])))
    assert int(metric.histogram()[3, 1, 4]) == 3 and metric.count == 1002 == int(metric.histogram().sum())


def test_shares_are_of_the_samples_that_were_made() -> None:
    # A last batch that is not full belongs to them; a divisor other than N would make q sum to something else than 1.
    modes = torch.cat([torch.arange(500).repeat(8), torch.arange(250)])
    found = measure(counter(), stacks(modes), batch_size=1000).value.details["plug-in KL"]
    q = np.bincount(modes.numpy(), minlength=1000) / 4250
    assert found == pytest.approx(float((q[q > 0] * np.log(1000 * q[q > 0])).sum()), abs=FLOAT64)


def test_the_classifier_does_not_draw() -> None:
    # The release classifies in training mode, with dropout: another histogram each time.
    x, labels = torch.arange(10.0).repeat(8)[:, None], torch.arange(10).repeat(8)
    single = ClassifierFeatures.fit(x, labels, DATA, held_out=(x, labels), width=4, steps=20)
    assert not any(module.training for module in single._module.modules())
    classifier = StackedClassifier(single, torch.eye(K), PARTS)
    z = stacks(torch.arange(0, 1000, 7))
    once = classifier.modes(z)
    assert torch.equal(once, classifier.modes(z))
    assert torch.equal(once, torch.cat([classifier.modes(row[None]) for row in z]))  # and no batch mates
    assert classifier(z).shape == (len(z), 3 * 4)


def test_the_samples_given_are_the_ones_classified() -> None:
    # The release classifies the undenoised samples for the denoised number: other samples, other modes.
    raw, denoised = stacks(torch.zeros(10, dtype=torch.int64)), stacks(torch.arange(10))
    metric = counter()
    assert measure(metric, raw).value.details["modes"] == 1
    second = measure(metric, denoised)
    assert second.value.details["modes"] == 10 and second.receipt.count == 10


# ------------------------------------------------------------------------------------------------ divergence


def test_grassbergers_entropy_of_small_counts() -> None:
    # H = ln N - (1 / N) sum n G(n), G(1) = -gamma - ln 2, G(2) = G(3) = G(1) + 2, G(4) = G(2) + 2 / 3.
    g1 = -0.5772156649015329 - math.log(2.0)
    expected = (1 * g1 + 2 * (g1 + 2) + 3 * (g1 + 2) + 4 * (g1 + 2 + 2 / 3)) / 10 - math.log(10.0) + math.log(5.0)
    number, _ = corrected_divergence(torch.tensor([1, 2, 3, 4, 0]), torch.full((5,), 0.2, dtype=torch.float64))
    assert number == pytest.approx(expected, abs=FLOAT64)


@pytest.mark.parametrize("modes", [1000, 500])
def test_the_number_has_no_bias_and_its_interval_covers(modes: int) -> None:
    # 60 histograms of 5000 samples; the plug-in KL is off by 999 / (2 N) = 0.1, which the same bound must reject.
    p, n, replicates = np.r_[np.full(modes, 1.0 / modes), np.zeros(1000 - modes)], 5000, 60
    draws = torch.from_numpy(np.random.default_rng(1).multinomial(n, p, size=replicates))
    law, true = UNIFORM.flatten(), math.log(1000 / modes)
    found = [corrected_divergence(d, law) for d in draws]
    errors = np.array([number - true for number, _ in found])
    assert abs(errors.mean()) < MODES_WITHOUT_BIAS
    plug_in = np.array([divergence(d, law) - true for d in draws])
    assert plug_in.mean() == pytest.approx((modes - 1) / (2 * n), rel=0.1) and plug_in.mean() > MODES_WITHOUT_BIAS
    assert np.mean([abs(number - true) <= 1.96 * error for number, error in found]) >= 0.85
    assert errors.std() / 1.5 < np.mean([error for _, error in found]) < 1.5 * errors.std()


# --------------------------------------------------------------------------------------- classifier's errors


def test_errors_of_the_classifier_are_taken_out() -> None:
    # A model of the modes with even digits alone, 125; a classifier right in 97 of 100 cases finds more.
    confusion = 0.97 * torch.eye(K, dtype=torch.float64)
    confusion[torch.arange(K), (torch.arange(K) + 1) % K] += 0.03
    even = torch.zeros(K, dtype=torch.float64)
    even[::2] = 0.2
    true = even[:, None, None] * even[:, None] * even
    seen = torch.einsum("abc,ai,bj,ck->ijk", true, confusion, confusion, confusion)
    counts = torch.from_numpy(np.random.default_rng(0).multinomial(200_000, seen.flatten().numpy())).reshape(K, K, K)
    metric = counter(confusion)
    metric._counts, metric.count = counts, 200_000
    details = metric.compute().details
    assert details["modes"] > 500
    assert details["KL corrected"] == pytest.approx(math.log(8.0), abs=CLOSE_TO_INFINITELY_MANY)
    assert details["plug-in KL"] < math.log(8.0) - 0.2  # errors hide divergence, never add it
    torch.testing.assert_close(deconvolved(counts, torch.eye(K, dtype=torch.float64)), counts.double() / 200_000)


def test_confusion_of_held_out_examples() -> None:
    x, labels = torch.tensor([[0.0], [0.0], [1.0], [7.0]]), torch.tensor([0, 0, 1, 1])
    classifier = _Rounded()
    with pytest.raises(ValueError, match=r"no held-out examples of the classes \[2, 3, 4, 5, 6, 7, 8, 9\]"):
        confusion_matrix(classifier, x, labels)
    x, labels = torch.cat([x, torch.arange(2.0, 10)[:, None]]), torch.cat([labels, torch.arange(2, 10)])
    found = confusion_matrix(classifier, x, labels)
    assert found[1, 1] == found[1, 7] == 0.5 and found[0, 0] == 1 and float(found.sum()) == 10
    assert StackedClassifier(classifier, found, 2).accuracy == pytest.approx(0.95**2)


# ---------------------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_counted() -> None:
    classifier = StackedClassifier(_Rounded(), torch.eye(K), PARTS)
    with pytest.raises(ValueError, match=r"10 rows of 10 probabilities, got shape \(3, 3\)"):
        StackedClassifier(_Rounded(), torch.eye(3), PARTS)
    with pytest.raises(ValueError, match="7 parts of 10 classes make 10000000 modes"):
        StackedClassifier(_Rounded(), torch.eye(K), 7)
    with pytest.raises(ValueError, match=r"stacks of 3 examples of shape \(1,\) have shape \(3,\); got .*\(5, 4\)"):
        classifier.modes(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="one of the 10 classes in some place"):
        StackedModes(Reference(stacks(torch.arange(100)), name="few"), classifier)


def test_few_samples_are_said_to_be_few() -> None:
    value = measure(counter(), every_mode(1)).value
    assert value.details["modes of perfect samples"] == pytest.approx(1000 * (1 - 0.999**1000))
    assert "1000 samples are few for 1000 modes: perfect ones cover 632" in value.warnings[0]
    assert value.details["bias of the plug-in KL"] == 999 / 2000
    assert not measure(counter(), every_mode(3)).value.warnings
