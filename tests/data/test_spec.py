"""Units: what a DataSpec says follows from the format, the source, or the training split, and never from a guess."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tolerance
from data.files import pictures, write_images
from scorefield.data import DataError, DataSource, open_data
from scorefield.data.survey import Moments


def test_unbounded_floats_are_standardised_by_the_training_split():
    rng = np.random.default_rng(0)
    x = rng.normal([5.0, -300.0, 0.0], [2.0, 1e-3, 70.0], (500, 3))
    data = open_data(DataSource(held_out=100), x)
    train = np.concatenate([b.numpy() for b, _ in data.train.chunks(64)]).astype(np.float64)
    np.testing.assert_allclose(data.spec.offset, train.mean(axis=0), rtol=tolerance.FLOAT64)
    np.testing.assert_allclose(data.spec.scale, train.std(axis=0), rtol=tolerance.MERGED_MOMENTS)
    m = data.spec.to_model(torch.from_numpy(train))
    np.testing.assert_allclose(m.mean(dim=0), 0.0, atol=tolerance.FLOAT32)
    np.testing.assert_allclose(m.std(dim=0, correction=0), 1.0, rtol=tolerance.FLOAT32)
    # The mutant, statistics of everything, would leak the held-out part.
    assert not np.allclose(data.spec.offset, x.astype(np.float32).mean(axis=0), rtol=tolerance.FLOAT64, atol=0)


def test_statistics_do_not_depend_on_chunks():
    x = np.random.default_rng(1).normal(1e6, 1.0, (300, 2, 7))
    whole, pieces = Moments(2), Moments(2)
    whole.add(x)
    for part in np.split(x, [1, 5, 100]):
        pieces.add(part)
    for a in (whole, pieces):
        np.testing.assert_allclose(a.mean, x.mean(axis=(0, 2)), rtol=tolerance.FLOAT64)
        np.testing.assert_allclose(a.deviation, x.std(axis=(0, 2)), rtol=tolerance.MERGED_MOMENTS)
    # The mutant, mean of squares minus square of the mean, loses six digits here.
    naive = np.sqrt(
        (x.astype(np.float32) ** 2).mean(axis=(0, 2)) - x.astype(np.float32).mean(axis=(0, 2)) ** 2 + 0j
    ).real
    assert not np.allclose(naive, x.std(axis=(0, 2)), rtol=tolerance.MERGED_MOMENTS)


def test_a_constant_channel_is_centred_and_not_scaled():
    x = np.stack([np.arange(20.0), np.full(20, 3.0)], axis=1)
    spec = open_data(DataSource(held_out=0), x).spec
    assert isinstance(spec.offset, tuple) and isinstance(spec.scale, tuple)
    assert spec.offset[1] == 3.0 and spec.scale[1] == 1.0


def test_bounds_levels_and_names_are_taken_from_the_source():
    x = (np.random.default_rng(0).integers(0, 11, (30, 2, 4, 4)) / 10).astype(np.float32)
    source = DataSource(
        low=0.0, high=1.0, levels=11, units="K", channel_names=("a", "b"), model_range=(0.0, 1.0), held_out=0
    )
    spec = open_data(source, x).spec
    assert (spec.low, spec.high, spec.levels, spec.units) == (0.0, 1.0, 11, "K")
    assert spec.channel_names == ("a", "b") and spec.model_range == (0.0, 1.0)
    per_channel = open_data(DataSource(low=(0.0, -1.0), high=(1.0, 1.0), held_out=0), x).spec
    assert per_channel.low == (0.0, -1.0) and per_channel.levels is None


def test_whole_numbers_need_a_range_and_then_have_levels():
    x = np.arange(-40, 40, dtype=np.int16).reshape(20, 4)
    with pytest.raises(DataError, match=r"data\.low=-40 data\.high=39"):
        open_data(DataSource(), x)
    spec = open_data(DataSource(low=-50.0, high=50.0), x).spec
    step = spec.quantisation_step
    assert spec.levels == 101 and step is not None and step.tolist() == [1.0] * 4
    assert open_data(DataSource(held_out=0), x % 2 == 0).spec.levels == 2
    narrow = open_data(DataSource(low=0.0, high=15.0, held_out=0), (x % 16).astype(np.uint8))
    assert narrow.spec.levels == 16 and narrow.train.batch([0])[0].dtype == torch.uint8


def test_quantised_floats_are_not_assumed():
    x = (np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4)) / 255).astype(np.float32)
    assert open_data(DataSource(), x).spec.levels is None
    assert open_data(DataSource(low=0.0, high=1.0), x).spec.levels is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 0.0, "high": 0.5}, r"channel 0 of the data ranges from 0 to 1, outside"),
        ({"low": 0.0, "high": 1.0, "levels": 5}, r"none of the 5 grey levels"),
        ({"low": 0.0}, r"both data\.low and data\.high"),
        ({"levels": 11}, r"needs data\.low and data\.high"),
        ({"channel_names": ("a", "b")}, "channel_names has 2"),
        ({"low": (0.0, 0.0), "high": 1.0}, "low has 2 values"),
    ],
)
def test_values_that_contradict_the_source(fields, message):
    x = np.linspace(0, 1, 11, dtype=np.float32)[:, None]
    with pytest.raises(DataError, match=message):
        open_data(DataSource(held_out=0, **fields), x)


def test_held_out_values_are_checked_too():
    x = np.zeros((10, 1), np.float32)
    with pytest.raises(DataError, match="outside"):
        open_data(DataSource(low=-1.0, high=1.0), {"train": x, "test": x + 2})


def test_image_files_have_their_range(tmp_path):
    write_images(tmp_path, {"a.png": pictures(1)[0]})
    with pytest.raises(DataError, match="0 to 255"):
        open_data(DataSource(str(tmp_path), low=0.0, high=1.0))


@pytest.mark.parametrize(
    "fields",
    [
        {"held_out": -1},
        {"held_out": 1.5},
        {"limit": 0},
        {"size": 0},
        {"crop": (3, -1)},
        {"memory_gib": -1.0},
    ],
)
def test_sources_that_mean_nothing(fields):
    with pytest.raises(ValueError):
        DataSource("x", **fields)
