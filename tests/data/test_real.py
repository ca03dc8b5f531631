"""Real data, where the machine has them: CIFAR-10 as Hugging Face parquet, Fashion-MNIST as IDX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tolerance
from data.files import held, labels
from scorefield.data import Batches, DataSource, Loader, open_data


def test_cifar10(test_data, monkeypatch):
    pytest.importorskip("pyarrow")
    folder = test_data / "cifar10-jpeg"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    monkeypatch.setattr("scorefield.data.rows.HEADERS_CHECKED", 500)  # the rest of 10,000 is only time
    data = open_data(DataSource(str(folder), conditional=True, flip=True))
    assert (len(data.train), len(held(data))) == (50_000, 10_000) and data.spec.shape == (3, 32, 32)
    assert (data.spec.conditions[0].class_names or ())[:2] == ("airplane", "automobile")
    assert np.bincount(labels(data.train)).tolist() == [5000] * 10
    with Loader(data.train, Batches(50_000, 512), stop=3) as loader:
        x = torch.cat([x for x, _ in loader])
    assert x.shape == (1536, 3, 32, 32) and x.dtype == torch.uint8
    # Published means of CIFAR-10 (0.4914, 0.4822, 0.4465) within the error of a sample of this size.
    np.testing.assert_allclose(
        x.float().mean(dim=(0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=tolerance.SAMPLED_MEAN
    )


def test_fashion_mnist():
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    data = open_data(DataSource(str(folder), conditional=True))
    assert (len(data.train), len(held(data))) == (60_000, 10_000) and data.spec.shape == (1, 28, 28)
    assert np.bincount(labels(data.train)).tolist() == [6000] * 10
    assert abs(float(data.train.batch(range(0, 60_000, 60))[0].float().mean()) / 255 - 0.2860) < tolerance.SAMPLED_MEAN
