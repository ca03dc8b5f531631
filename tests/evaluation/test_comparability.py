"""What may be compared, and choosing a checkpoint: refusals, intervals, splits, the table."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.cli.evaluate import SelectName
from scorefield.data import DataError, open_data
from scorefield.data.source import DataSource
from scorefield.evaluation import (
    UnlikeError,
    compare_results,
    matched,
    overridden,
    ranked,
    require_alike,
    require_selecting,
    splits_of,
    steps_of,
    sweep_lines,
    unlike,
)
from scorefield.evaluation.comparability import difference_interval
from scorefield.metrics import (
    EnergyDistance,
    FeatureFacts,
    FrechetDistance,
    MetricResult,
    RawFeatures,
    Receipt,
    Reference,
    ReferenceFacts,
    SampleSource,
    SlicedWasserstein,
    Value,
    contributions,
    measure,
)
from scorefield.metrics.by_name import SELECTING


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


RECEIPT = Receipt(
    metric="Frechet distance",
    settings={"features": 4},
    count=1000,
    samples_hash="a" * 64,
    reference=ReferenceFacts("toy", "held-out", 60, "b" * 64, "K"),
    features=FeatureFacts("raw values", "c" * 64, "a note"),
    source=SampleSource(sampler="EulerMaruyama", model="m", seed=0, nfe=10.0),
    versions={"torch": "2.13.0"},
)


def result(number: float, interval: tuple[float, float] | None = None, **changes: Any) -> MetricResult:
    error = {} if interval is None else {"standard error": (interval[1] - interval[0]) / (2 * 1.959963984540054)}
    return MetricResult(Value(number, interval, better="lower", details=error), dataclasses.replace(RECEIPT, **changes))


# ---------------------------------------------------------------------------------------------------- alike


UNLIKE = {
    "settings.features": {"settings": {"features": 5}},
    "count": {"count": 2000},
    "reference.hash": {"reference": ReferenceFacts("toy", "held-out", 60, "d" * 64, "K")},
    "reference.split": {"reference": ReferenceFacts("toy", "train", 60, "b" * 64, "K")},
    "reference.units": {"reference": ReferenceFacts("toy", "held-out", 60, "b" * 64, "C")},
    "features.hash": {"features": FeatureFacts("raw values", "d" * 64)},
    "features.name": {"features": FeatureFacts("other", "c" * 64)},
}


@pytest.mark.parametrize("field", UNLIKE)
def test_what_makes_numbers_incomparable_is_refused_and_named(field: str) -> None:
    a, b = result(1.0, (0.5, 1.5)), result(2.0, (1.5, 2.5), **UNLIKE[field])
    (found,) = unlike(a.receipt, b.receipt)
    assert found.field == field
    comparison = compare_results(a, b)
    assert "not alike" in comparison.verdict
    with pytest.raises(UnlikeError) as error:
        require_alike([comparison], ("A.json", "B.json"))
    assert field in str(error.value) and "scorefield" in str(error.value) + "scorefield" * (found.remedy is not None)
    assert overridden([comparison]) == {"Frechet distance": [{"field": field, "a": found.a, "b": found.b}]}


def test_a_remedy_is_a_call() -> None:
    (found,) = unlike(RECEIPT, dataclasses.replace(RECEIPT, count=2000))
    assert found.remedy == "scorefield evaluate m -n 1000"


def test_what_is_being_compared_is_shown() -> None:
    other = {
        "source": SampleSource(sampler="DPM", model="m2", seed=1, nfe=20.0, weights="ema"),
        "samples_hash": "e" * 64,
        "versions": {"torch": "2.14.0"},
        "features": FeatureFacts("raw values", "c" * 64, "another note"),
        "reference": ReferenceFacts("toy again", "held-out", 60, "b" * 64, "K"),
    }
    found = compare_results(result(1.0, (0.5, 1.5)), result(9.0, (8.5, 9.5), **other))
    require_alike([found], ("a", "b"))
    assert {d.field for d in found.compared} == {
        "source.sampler", "source.model", "source.seed", "source.nfe", "source.weights", "samples_hash",
    }  # fmt: skip
    assert [d.field for d in found.versions] == ["versions.torch"]
    assert found.verdict == "A is better" and found.difference == -8.0


def test_features_that_nothing_identifies_are_refused() -> None:
    nameless = FeatureFacts("a function", None)
    (found,) = unlike(*(dataclasses.replace(RECEIPT, features=nameless) for _ in "ab"))
    assert found.field == "features.hash" and "give the feature function a hash" in str(found.remedy)


def test_the_interval_of_a_difference() -> None:
    """Equal to the sum of variances for symmetric intervals; the two-sided form for others."""
    a, b = result(3.0, (2.0, 4.0)).value, result(1.0, (0.5, 1.5)).value
    low, high = difference_interval(a, b) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2.0 - math.hypot(1.0, 0.5), 2.0 + math.hypot(1.0, 0.5)))
    skew = Value(3.0, (2.9, 5.0))
    assert difference_interval(skew, Value(1.0, (0.0, 1.2))) == pytest.approx(
        (2.0 - math.hypot(0.1, 0.2), 2.0 + math.hypot(2.0, 1.0))
    )
    assert difference_interval(a, Value(1.0)) is None


def test_verdicts() -> None:
    def verdict(a: MetricResult, b: MetricResult) -> str:
        return compare_results(a, b).verdict

    mine, other = result(1.0, (0.5, 1.5)), {"samples_hash": "e" * 64}
    assert verdict(mine, result(1.2, (0.7, 1.7), **other)) == "no difference shown at this N"
    assert verdict(mine, mine) == "the same samples and the same value"
    singular = MetricResult(Value(5.0, status="singular"), dataclasses.replace(RECEIPT, **other))
    assert verdict(mine, singular).startswith("unknown: a value has no interval (B singular")
    up = [
        MetricResult(dataclasses.replace(r.value, better="higher"), r.receipt)
        for r in (mine, result(9.0, (8.5, 9.5), **other))
    ]
    assert verdict(*up) == "B is better"


def test_results_are_matched_by_metric_and_features() -> None:
    a, b = result(1.0), result(2.0, features=FeatureFacts("other", "x"))
    assert matched([a, b], [b, a]) == [(a, a), (b, b)]
    with pytest.raises(ValueError, match="no metric is in both"):
        matched([a], [result(1.0, metric="kernel distance")])


# ---------------------------------------------------------------------------------------------------- checkpoints


def test_splits_do_not_overlap() -> None:
    data = open_data(DataSource("digits"))
    found = splits_of(data.held_out, data.train, "val")
    assert data.held_out is not None and found.selection[0] is data.held_out
    chosen, rest = set(found.selection[1].tolist()), set(found.report[1].tolist())
    assert not chosen & rest and chosen | rest == set(range(len(data.held_out)))
    assert abs(len(chosen) - len(rest)) <= 1
    other = splits_of(data.held_out, data.train, "train")
    assert other.selection[0] is data.train and len(other.report[1]) == len(data.held_out)
    with pytest.raises(DataError, match="0 examples are held out"):
        splits_of(None, data.train, "val")
    with pytest.raises(DataError, match="does not say where its training data are"):
        splits_of(data.held_out, None, "train")


def test_checkpoints_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoints to choose from"):
        steps_of(tmp_path, "all")
    for step in (10, 20, 30, 40):
        folder = tmp_path / "checkpoints" / f"step_{step}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")
    assert steps_of(tmp_path, "all") == [10, 20, 30, 40]
    assert steps_of(tmp_path, "last:3") == [20, 30, 40] and steps_of(tmp_path, "30,10") == [10, 30]
    for wrong in ("first", "last:0", "last:x", "10;20"):
        with pytest.raises(ValueError, match="give all, last:3, or steps such as 10,40"):
            steps_of(tmp_path, wrong)
    with pytest.raises(ValueError, match=r"no checkpoint of step 15, 25; it has 10, 20, 30, 40"):
        steps_of(tmp_path, "10,15,25")


def test_what_selects() -> None:
    assert set(get_args(SelectName)) == set(SELECTING)
    require_selecting("kid")
    with pytest.raises(ValueError, match="neither lower nor higher"):
        require_selecting("memorisation")
    with pytest.raises(ValueError, match="no metric is called"):
        require_selecting("fdi")


def test_the_worse_are_known_by_shared_noise_alone() -> None:
    """A tenth of a deviation more is lost in either value's interval and plain in the difference."""
    z, real = normal(0, 200, 2), Reference(normal(1, 200, 2), name="toy")
    results, parts = [], []
    for shift in (1.1, 1.0, 1.2):
        metric = SlicedWasserstein(real, projections=16)
        metric.update(z + shift)
        results.append(metric.result())
        parts.append(contributions(metric))
    best, table = ranked([1, 2, 3], results, parts)
    assert [c.step for c in table] == [1, 2, 3] and best == int(np.argmin([float(r) for r in results]))
    assert table[0].worse and table[best].difference is None
    far = table[0].difference
    assert far is not None and far.std_error < 0.5 * far.std_error_unshared
    assert compare_results(results[0], results[best]).verdict == "no difference shown at this N"
    assert "worse" in sweep_lines(table, best)[1]


def test_singular_candidates_have_no_difference() -> None:
    x, real = normal(0, 3, 4), Reference(normal(1, 60, 4), name="toy")
    results = [measure(FrechetDistance(RawFeatures(), real), x), measure(FrechetDistance(RawFeatures(), real), x + 1)]
    _, table = ranked([1, 2], results, ["only 3 samples for 4 features"] * 2)
    assert table[1].difference is None and not table[1].worse
    lines = sweep_lines(table, 0)
    assert "of unknown error" in lines[2] and lines[-1] == "note: only 3 samples for 4 features"


def test_higher_is_better_where_it_is() -> None:
    from scorefield.metrics import Precision

    real = Reference(normal(1, 60, 2), name="toy")
    results, parts = [], []
    for scale in (3.0, 0.3):
        metric = Precision(RawFeatures(), real)
        metric.update(normal(0, 80, 2) * scale)
        results.append(metric.result())
        parts.append(contributions(metric))
    best, table = ranked([1, 2], results, parts)
    assert best == 1 and table[0].worse and float(results[1]) > float(results[0])


def test_energy_distance_keeps_its_order() -> None:
    """The one metric whose rows are not sorted by their hashes."""
    real = Reference(normal(1, 30, 2), name="toy")
    metric = EnergyDistance(real)
    metric.update(normal(0, 20, 2))
    assert torch.equal(contributions(metric).left_out[0], metric.jackknifed().left_out[0])
