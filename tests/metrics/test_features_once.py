"""One pass through the features for all metrics, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.metrics import (
    ClassifierFeatures,
    ClassProbabilities,
    Coverage,
    EnergyDistance,
    FeatureCache,
    FrechetDistance,
    KernelDistance,
    Metric,
    NearestNeighbours,
    RawFeatures,
    Reference,
    Remembered,
    measure,
    measure_all,
)
from scorefield.metrics.reference import compact


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Counted:
    """Features that count the examples they were run on."""

    def __init__(self, factor: float = 2.0, hash: str | None = "by two"):
        self.name, self.hash, self.factor, self.seen = "counted", hash, factor, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.factor * x.reshape(len(x), -1)


def metrics(reference: Reference, features: Counted | Remembered) -> list[Metric]:
    kinds = (FrechetDistance, KernelDistance, Coverage)
    others = (EnergyDistance(reference, features), NearestNeighbours(reference, features=features))
    return [*(kind(features, reference) for kind in kinds), *others]


@pytest.mark.parametrize("hash", ["by two", None])
def test_metrics_of_one_batch_and_one_reference_run_the_network_once(hash: str | None) -> None:
    counted = Counted(hash=hash)
    reference, samples = Reference(normal(0, 40, 3), name="r"), normal(1, 33, 3)
    together = measure_all(metrics(reference, Remembered(counted)), samples, batch_size=8)
    assert counted.seen == 40 + 33
    apart = [measure(metric, samples) for metric in metrics(Reference(reference.x, name="r"), Counted(hash=hash))]
    assert together == apart  # numbers, names, hashes and notes


def test_what_is_remembered_is_never_stale() -> None:
    counted = Counted()
    remembered = Remembered(counted)
    x = normal(2, 4, 3)
    first = remembered(x).clone()
    assert torch.equal(remembered(x.clone()), first) and counted.seen == 4
    x.numpy()[0, 0] += 1  # in place, behind the back of the tensor's version
    assert torch.equal(remembered(x), 2 * x) and counted.seen == 8
    assert not torch.equal(first, 2 * x)
    assert remembered(x.double()).dtype == torch.float64 and counted.seen == 12


def test_a_reference_keeps_features_by_name_and_hash() -> None:
    reference = Reference(normal(3, 20, 3), name="r")
    one, same, other, unknown = Counted(), Counted(), Counted(3.0, "by three"), Counted(5.0, None)
    rows = reference.features(one, 7).rows
    assert reference.features(same).rows is rows and same.seen == 0
    assert torch.equal(reference.features(other).rows, 3 * reference.x)
    assert torch.equal(reference.features(unknown).rows, 5 * reference.x)
    assert torch.equal(reference.features(Counted(7.0, None)).rows, 7 * reference.x)
    assert torch.equal(reference.features(RawFeatures()).ordered.sort(dim=0).values, reference.x.sort(dim=0).values)
    x, labels = normal(4, 30, 3) + 2 * (torch.arange(30) % 2)[:, None], torch.arange(30) % 2
    classifier = ClassifierFeatures.fit(x, labels, DataSpec((3,)), width=8, steps=2)
    assert ClassProbabilities(classifier).hash != classifier.hash


def test_rows_shrink_only_where_nothing_is_lost() -> None:
    assert compact(torch.ones(2, 2, dtype=torch.float64)).dtype == torch.float32
    assert compact(torch.full((2, 2), 0.1, dtype=torch.float64)).dtype == torch.float64


def test_the_cache_gives_what_was_written_to_the_same_examples_and_features_only(tmp_path: Path) -> None:
    cache, x = FeatureCache(tmp_path / "new"), normal(5, 9, 3)

    def rows(x: Tensor, counted: Counted) -> Tensor:
        return Reference(x, name="r", cache=cache).features(counted).rows

    first, again = Counted(), Counted()
    assert torch.equal(rows(x, first), rows(x, again)) and (first.seen, again.seen) == (9, 0)
    others = [(x.flip(0), Counted()), (x.double(), Counted()), (x[:, None], Counted()), (x, Counted(3.0, "by three"))]
    for values, counted in others:
        assert torch.equal(rows(values, counted).double(), (counted.factor * values).reshape(9, 3).double())
        assert counted.seen == 9
    assert len(list(cache.folder.iterdir())) == 5
    for _ in range(2):
        unknown = Counted(hash=None)
        rows(x, unknown)
        assert unknown.seen == 9
    assert len(list(cache.folder.iterdir())) == 5


def test_damaged_and_foreign_cache_files_are_refused_by_name(tmp_path: Path) -> None:
    x, cache = normal(6, 9, 3), FeatureCache(tmp_path)
    reference = Reference(x, name="r", cache=cache)
    reference.features(Counted())
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()

    def refused(match: str) -> None:
        counted = Counted()
        with pytest.raises(ValueError, match=f"{path} is not used: .*{match}.*; delete that file"):
            Reference(x, name="r", cache=cache).features(counted)
        assert counted.seen == 0

    path.write_bytes(good[:-5])
    refused("cannot be read")
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused("not those that were written")
    save_file({"rows": load_file(str(path))["rows"]}, str(path))
    refused("header")
    path.unlink()
    Reference(x, name="r", cache=cache).features(Counted(3.0, "by three"))
    next(tmp_path.iterdir()).rename(path)  # a stale file under the wanted name
    refused("other examples or features")
    path.write_bytes(good)
    assert torch.equal(Reference(x, name="r", cache=cache).features(Counted()).rows, 2 * x)
