"""What holds of every metric: merging, batching, order, hashes, refusals and JSON."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scorefield._codec import dumps, loads
from scorefield.metrics import (
    Coverage,
    Density,
    EnergyDistance,
    FrechetDistance,
    FrechetInfinity,
    GaussianDiscrepancy,
    InceptionScore,
    KernelDistance,
    MemorisationRatio,
    Metric,
    MetricResult,
    ModuleFeatures,
    NearestNeighbours,
    Precision,
    RawFeatures,
    Recall,
    Reference,
    SampleSource,
    SlicedWasserstein,
    StackedClassifier,
    StackedModes,
    Value,
    VendiScore,
    data_hash,
    measure,
)
from tolerance import FLOAT64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REAL = Reference(normal(0, 60, 2, 2), name="toy", split="train", units="K")
HELD_OUT = Reference(normal(1, 40, 2, 2), name="toy", split="held-out")
SAMPLES = normal(2, 37, 2, 2)


class Halves(StackedClassifier):
    """Two parts of two classes: the parity of each row's sum."""

    name, hash, note, accuracy = "parities", "parities", "parities", 1.0  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        self.parts, self.classes, self.confusion = 2, 2, torch.eye(2, dtype=torch.float64)

    def modes(self, x: Tensor) -> Tensor:
        odd = x.sum(dim=2).round().long() % 2
        return 2 * odd[:, 0] + odd[:, 1]


class Shares(RawFeatures):
    """Class probabilities: a softmax of the values."""

    name, hash = "softmax of the values", "softmax / 8"

    def __call__(self, x: Tensor) -> Tensor:
        return (x.reshape(len(x), -1).double() / 8).softmax(dim=1)


EXAMPLES: dict[type[Metric], Callable[[Reference], Metric]] = {
    FrechetDistance: lambda r: FrechetDistance(RawFeatures(), r),
    FrechetInfinity: lambda r: FrechetInfinity(RawFeatures(), r),
    KernelDistance: lambda r: KernelDistance(RawFeatures(), r),
    GaussianDiscrepancy: lambda r: GaussianDiscrepancy(r),
    Precision: lambda r: Precision(RawFeatures(), r),
    Recall: lambda r: Recall(RawFeatures(), r),
    Density: lambda r: Density(RawFeatures(), r),
    Coverage: lambda r: Coverage(RawFeatures(), r),
    InceptionScore: lambda r: InceptionScore(Shares(), r, splits=4),
    VendiScore: lambda r: VendiScore(RawFeatures(), r),
    SlicedWasserstein: lambda r: SlicedWasserstein(r, projections=9, seed=4),
    EnergyDistance: lambda r: EnergyDistance(r),
    NearestNeighbours: lambda r: NearestNeighbours(r, count=2),
    StackedModes: lambda r: StackedModes(r, Halves()),
    MemorisationRatio: lambda r: MemorisationRatio(r, HELD_OUT, count=2),
}
every_metric = pytest.mark.parametrize("make", EXAMPLES.values(), ids=[cls.__name__ for cls in EXAMPLES])


def subclasses(cls: type) -> set[type]:
    return {s for c in cls.__subclasses__() for s in {c, *subclasses(c)} if not inspect.isabstract(s)}


def same(a: Value, b: Value) -> bool:
    """Numbers and intervals equal to rounding."""
    ends = ((a.number, *(a.interval or ())), (b.number, *(b.interval or ())))
    assert len(ends[0]) == len(ends[1])
    close = all(abs(u - v) <= FLOAT64 * max(1.0, abs(u)) for u, v in zip(*ends, strict=True))
    return close and a.status == b.status


@pytest.mark.parametrize("make", [m for c, m in EXAMPLES.items() if c is not StackedModes])
def test_every_metric_has_an_interval_that_holds_its_number(make: Callable[[Reference], Metric]) -> None:
    value = measure(make(REAL), SAMPLES).value
    assert value.interval is not None and value.interval[0] <= value.number <= value.interval[1]
    assert value.interval[0] < value.interval[1]


def test_features_of_another_size_than_the_references_are_refused() -> None:
    def ragged(x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)[:, : 3 if len(x) == 5 else 4]

    metric = KernelDistance(ModuleFeatures(ragged, name="ragged"), REAL)
    with pytest.raises(ValueError, match="gave 3 numbers for a sample and 4 for a reference example"):
        metric.update(SAMPLES[:5])
    assert metric.count == 0
    with pytest.raises(ValueError, match="returned NaN or infinity for finite samples"):
        KernelDistance(ModuleFeatures(lambda x: x.reshape(len(x), -1).log(), name="log"), REAL)


def test_every_metric_is_tested_here() -> None:
    assert {cls for cls in subclasses(Metric) if cls.__module__.startswith("scorefield.")} == set(EXAMPLES)
    assert len({cls.name for cls in EXAMPLES}) == len(EXAMPLES)


@every_metric
def test_merged_halves_equal_the_whole(make: Callable[[Reference], Metric]) -> None:
    whole, left, right = make(REAL), make(REAL), make(REAL)
    whole.update(SAMPLES)
    left.update(SAMPLES[:20])
    right.update(SAMPLES[20:])
    left.merge(right)
    assert left.count == whole.count == 37
    assert same(left.compute(), whole.compute())
    assert left.result().receipt == whole.result().receipt


@every_metric
def test_state_travels_as_plain_tensors_and_empty_ranks_add_nothing(make: Callable[[Reference], Metric]) -> None:
    ranks = [make(REAL) for _ in range(3)]
    ranks[1].update(SAMPLES)
    gathered = [{k: v.clone() for k, v in rank.state().items()} for rank in ranks]
    assert all(isinstance(v, Tensor) for state in gathered for v in state.values())
    total = make(REAL)
    for state in gathered:
        total.merge_state(state)
    assert total.count == 37
    assert same(total.compute(), ranks[1].compute())


@every_metric
def test_neither_batch_size_nor_order_matters(make: Callable[[Reference], Metric]) -> None:
    whole = measure(make(REAL), SAMPLES)
    pieces = measure(make(REAL), SAMPLES.flip(0), batch_size=5)
    assert same(whole.value, pieces.value)
    assert whole.receipt == pieces.receipt


@every_metric
def test_reset_keeps_the_reference_only(make: Callable[[Reference], Metric]) -> None:
    metric = make(REAL)
    measure(metric, SAMPLES + 1)
    assert same(measure(metric, SAMPLES).value, measure(make(REAL), SAMPLES).value)
    metric.reset()
    with pytest.raises(ValueError, match=r"has seen 0; call update\(x\) first"):
        metric.compute()


@every_metric
def test_integers_count_as_numbers(make: Callable[[Reference], Metric]) -> None:
    grey = torch.randint(0, 256, (30, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    metric = make(Reference(torch.randint(0, 256, (20, 2, 2), generator=torch.Generator().manual_seed(2)), name="g"))
    as_bytes, as_floats = measure(metric, grey), measure(metric, grey.to(torch.float32))
    assert as_bytes == as_floats


@every_metric
def test_bad_samples_are_refused_and_leave_no_trace(make: Callable[[Reference], Metric]) -> None:
    metric = make(REAL)
    metric.update(SAMPLES[:9])
    broken = SAMPLES.clone()
    broken[3, 0, 1] = torch.nan
    broken[5, 1, 1] = torch.inf
    with pytest.raises(ValueError, match=r"NaN or infinite values in 2 of 37 examples \(first: \[12, 14\]\)"):
        metric.update(broken)
    with pytest.raises(ValueError, match=r"samples have shape \(4, 3\).*examples of shape \(2, 2\)"):
        metric.update(torch.zeros(4, 3))
    metric.update(SAMPLES[:0])
    assert metric.result().receipt == measure(make(REAL), SAMPLES[:9]).receipt


@every_metric
def test_unlike_accumulators_are_not_merged(make: Callable[[Reference], Metric]) -> None:
    metric, other = make(REAL), make(Reference(REAL.x + 1, name="toy", split="train"))
    other.update(SAMPLES)
    with pytest.raises(ValueError, match="cannot merge into .*differs"):
        metric.merge(other)
    assert metric.count == 0


def test_settings_belong_to_the_identity() -> None:
    with pytest.raises(ValueError, match="'projections': 9"):
        SlicedWasserstein(REAL, projections=9).merge(SlicedWasserstein(REAL, projections=10))


@every_metric
def test_results_round_trip_through_strict_json(make: Callable[[Reference], Metric]) -> None:
    source = SampleSource(
        sampler="pc",
        settings={"steps": 100, "r": 0.16},
        nfe=200.0,
        weights="ema:0.999",
        seed=3,
        start=0,
        model="runs/x",
    )
    result = measure(make(REAL), SAMPLES, source=source)
    text = dumps(result)
    json.loads(text, parse_constant=lambda c: pytest.fail(f"not strict JSON: {c}"))
    assert loads(text, MetricResult) == result


@every_metric
def test_the_receipt_says_what_the_value_depends_on(make: Callable[[Reference], Metric]) -> None:
    receipt = measure(make(REAL), SAMPLES, source=SampleSource(weights="ema:0.999", nfe=1000)).receipt
    assert receipt.count == 37 and receipt.samples_hash == data_hash(SAMPLES)
    assert (receipt.reference.name, receipt.reference.split, receipt.reference.count) == ("toy", "train", 60)
    assert receipt.reference.hash == data_hash(REAL.x) and receipt.reference.units == "K"
    assert receipt.features.name == make(REAL).features.name and receipt.features.hash
    assert {"scorefield", "torch", "numpy", "python"} <= set(receipt.versions)
    lines = dict(receipt.lines())
    assert lines["weights"] == "ema:0.999" and lines["network evaluations per sample"] == "1,000"
    assert receipt.samples_hash[:12] in lines["samples"] and "seed" not in lines


def test_data_hashes_ignore_order_and_nothing_else() -> None:
    x = normal(3, 20, 6)
    shuffled = x[torch.randperm(20, generator=torch.Generator().manual_seed(0))]
    assert data_hash(x) == data_hash(shuffled)
    changed = x.clone()
    changed[4, 2] += 1e-3
    duplicated = torch.cat([x, x[:1]])
    hashes = {data_hash(v) for v in (x, changed, duplicated, x[:-1], x.reshape(20, 2, 3), x.reshape(40, 3))}
    assert len(hashes) == 6
    zero = torch.zeros(1, 3)
    assert data_hash(zero) == data_hash(-zero)


def test_references_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(N, \*event\)"):
        Reference(torch.zeros(0, 3), name="none")
    with pytest.raises(ValueError, match="reference 'bad' has NaN"):
        Reference(torch.tensor([[0.0], [torch.nan]]), name="bad")
