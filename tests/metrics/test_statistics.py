"""Reference statistics from files: the layouts, what they serve, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.metrics import (
    FrechetDistance,
    FrechetInfinity,
    KernelDistance,
    Precision,
    RawFeatures,
    Reference,
    ReferenceMoments,
    ReferenceRows,
    SlicedWasserstein,
    measure,
    read_statistics,
)
from scorefield.metrics.frechet import influence, moments
from scorefield.metrics.rows import mean_error
from tolerance import FLOAT64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REAL, SAMPLES = normal(0, 60, 4), 1.2 * normal(1, 50, 4)
DATA = Reference(REAL, name="data")
MEAN, COVARIANCE = REAL.mean(dim=0).numpy(), torch.cov(REAL.mT).numpy()


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    return path


@pytest.mark.parametrize("key", ["pool_3", "pool3", "feats"])
def test_activations_serve_every_metric_as_the_data_do(tmp_path: Path, key: str) -> None:
    path = saved(
        tmp_path / "all.npz", **{key: REAL.numpy(), "logits": np.zeros((60, 9)), "mu": MEAN, "sigma": COVARIANCE}
    )
    statistics = read_statistics(path, split="train")
    assert isinstance(statistics, ReferenceRows) and len(statistics) == 60
    for kind in (FrechetDistance, FrechetInfinity, KernelDistance, Precision):
        of_file, of_data = (measure(kind(RawFeatures(), r), SAMPLES) for r in (statistics, DATA))
        assert abs(float(of_file) - float(of_data)) <= FLOAT64 * float(of_data) or kind is FrechetInfinity
        assert of_file.value.interval is not None and of_file.value.warnings == of_data.value.warnings
    facts = of_file.receipt.reference
    assert (facts.name, facts.split, facts.count) == ("all", "train", 60)
    assert facts.hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "user's word" in dict(of_file.receipt.lines())["about the reference"]


@pytest.mark.parametrize("keys", [("mu", "sigma"), ("mean", "cov")])
def test_a_mean_and_covariance_serve_a_frechet_distance(tmp_path: Path, keys: tuple[str, str]) -> None:
    path = saved(
        tmp_path / "cifar10.npz", **dict(zip(keys, (MEAN, COVARIANCE), strict=True)), arr_0=np.zeros((2, 8, 8, 3))
    )
    statistics = read_statistics(path, name="CIFAR-10")
    assert isinstance(statistics, ReferenceMoments)
    found = measure(FrechetDistance(RawFeatures(), statistics), SAMPLES)
    wanted = measure(FrechetDistance(RawFeatures(), DATA), SAMPLES).value
    assert abs(float(found) - wanted.number) <= FLOAT64 * wanted.number
    error = mean_error(influence(SAMPLES, moments(SAMPLES), moments(REAL)))
    assert abs(found.value.details["standard error"] - error) <= FLOAT64 * error
    assert error < 0.9 * wanted.details["standard error"]  # that of the data holds the reference's noise too
    assert found.value.status == "ok" and "over the samples alone" in found.value.warnings[0]
    assert found.receipt.reference.count is None
    assert "CIFAR-10, an unknown number of examples" in dict(found.receipt.lines())["reference"]


def test_extrapolation_takes_a_mean_and_covariance_for_the_population(tmp_path: Path) -> None:
    statistics = read_statistics(saved(tmp_path / "s.npz", mu=MEAN, sigma=COVARIANCE))
    of_file, of_data = (
        measure(FrechetInfinity(RawFeatures(), r, reference_is="population"), SAMPLES).value for r in (statistics, DATA)
    )
    assert abs(of_file.number - of_data.number) <= FLOAT64 and of_file.interval is not None
    assert of_data.interval is not None
    assert abs(of_file.interval[0] - of_data.interval[0]) <= FLOAT64
    with pytest.raises(ValueError, match="cannot be halved; call .*reference_is='population'"):
        FrechetInfinity(RawFeatures(), statistics)
    value = measure(FrechetDistance(RawFeatures(), statistics), SAMPLES[:3]).value
    assert value.status == "singular" and "only 3 samples" in value.warnings[0]


def test_what_needs_more_than_a_file_holds_says_so(tmp_path: Path) -> None:
    pair = read_statistics(saved(tmp_path / "pair.npz", mu=MEAN, sigma=COVARIANCE))
    rows = read_statistics(saved(tmp_path / "rows.npz", pool_3=REAL.numpy()))
    for kind in (KernelDistance, Precision):
        with pytest.raises(ValueError, match="needs those of every example; give the data, or a file of activations"):
            kind(RawFeatures(), pair)
    with pytest.raises(ValueError, match="no examples, which this metric needs; give the data"):
        SlicedWasserstein(rows)
    for statistics in (pair, rows):
        metric = FrechetDistance(RawFeatures(), statistics)
        with pytest.raises(ValueError, match="gave 6 numbers .* and 4 .*made by other features: choose those"):
            metric.update(normal(2, 5, 6))
        with pytest.raises(ValueError, match="give a batch of shape"):
            metric.update(normal(2, 5))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros(3), "labels": np.zeros(3)}, "holds images, labels; .*pool_3.*mu and sigma"),
        ({"arr_0": np.zeros(3)}, "arr_0 is how images are stored"),
        ({"mu": MEAN}, "holds mu; "),
        (
            {"mu": MEAN, "sigma": COVARIANCE[:3, :3]},
            r"sigma in .* has shape \(3, 3\); with mu of \(4,\) it must be \(4, 4\)",
        ),
        ({"mu": MEAN, "sigma": COVARIANCE + np.eye(4, k=1)}, "sigma in .* is not symmetric"),
        ({"pool_3": np.full((3, 2), np.nan)}, "pool_3 in .* wanted finite floating-point numbers"),
        ({"pool_3": np.zeros((3, 2, 1, 1))}, r"shape \(3, 2, 1, 1\); wanted .*\(N, F\)"),
        ({"pool_3": np.array([{}])}, "no .npz of reference statistics: Object arrays cannot be loaded"),
    ],
)
def test_other_files_are_refused_by_what_they_hold(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "file.npz"
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        read_statistics(path)


def test_no_file_half_a_file_and_a_single_array(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file .* of reference statistics"):
        read_statistics(tmp_path / "none.npz")
    path = saved(tmp_path / "half.npz", pool_3=REAL.numpy())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="no .npz of reference statistics"):
        read_statistics(path)
    np.save(tmp_path / "one.npy", REAL.numpy())
    with pytest.raises(ValueError, match=r"single array; write it with np.savez"):
        read_statistics(tmp_path / "one.npy")
