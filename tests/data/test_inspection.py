"""Inspection reports what is there, and its command names the fields that make it work."""

from __future__ import annotations

import itertools
import shlex

import numpy as np
import pytest
from PIL import Image

import tolerance
from data.files import held, pictures, png, write_images, write_parquet
from scorefield._codec import with_field
from scorefield.data import DataSource, inspect, open_data, suggest_recipe
from scorefield.data.inspection import equal_steps
from scorefield.data_spec import DataSpec


def obeyed(found) -> DataSource:
    """The source that the printed command describes."""
    words = shlex.split(found.command)
    assert words[:2] == ["scorefield", "train"] and words[3] == "--data"
    source = DataSource(words[4], skip_bad="--skip-bad" in words)
    for flag, setting in itertools.pairwise(words):
        if flag == "--set":
            field, _, text = setting.partition("=")
            source = with_field(source, field.removeprefix("data."), text)
    return source


def test_digits():
    found = inspect(DataSource("digits"))
    assert found.splits == {"train": 1437, "test": 360} and found.looked_at == 1437
    assert found.shape == (1, 8, 8) and found.grey_levels == (17, 1.0) and (found.low, found.high) == ((0.0,), (16.0,))
    assert found.command == "scorefield train digits --data digits" and found.problem is None
    assert sum((found.labels or {}).values()) == 1437 and found.duplicate_count == 0 and found.shared == 0
    text = "\n".join(found.lines())
    assert all(part in text for part in ("1437 train, 360 test", "1 x 8 x 8", "17, 1 apart", "10 classes"))


def test_a_folder_with_everything_wrong(tmp_path):
    p, q = pictures(5, (6, 8)), pictures(2, (9, 7))
    write_images(tmp_path, {f"a/{i}.png": x for i, x in enumerate(p)} | {"b/q.png": q[0], "b/grey.png": q[1, :, :, 0]})
    write_images(tmp_path, {"a/copy.png": p[0]})
    (tmp_path / "b" / "cut.png").write_bytes(png(q[0])[:150])
    found = inspect(DataSource(str(tmp_path)))
    assert found.sizes == {(6, 8): 6, (9, 7): 2} and found.modes == {"RGB": 7, "L": 1}
    assert [name.endswith("cut.png") for name, _ in found.corrupt] == [True]
    assert found.duplicate_count == 1 and found.duplicates[0][0].endswith("copy.png")
    assert found.labels == {"a": 6, "b": 3}
    assert found.settings == {"skip_bad": "true", "channels": "3", "size": "6"}
    assert found.problem is None and found.spec is not None and found.spec.shape == (3, 6, 6)
    data = open_data(obeyed(found))
    assert len(data.train) + len(held(data)) == 8
    text = "\n".join(found.lines())
    assert all(part in text for part in ("differs", "6 x 8 (6)", "cut.png", "copy.png", "data.size=6"))


def test_statistics_of_images_are_exact(tmp_path):
    p = pictures(20)
    found = inspect(DataSource(str(write_images(tmp_path, {f"{i}.png": p[i] for i in range(20)}))))
    np.testing.assert_allclose(found.mean, p.mean(axis=(0, 1, 2)), rtol=tolerance.FLOAT64)
    np.testing.assert_allclose(found.deviation, p.std(axis=(0, 1, 2)), rtol=tolerance.FLOAT64)
    assert found.low == tuple(p.min(axis=(0, 1, 2))) and found.high == tuple(p.max(axis=(0, 1, 2)))


@pytest.mark.parametrize(
    ("array", "recipe", "settings"),
    [
        (np.random.default_rng(0).normal(size=(40, 2)), "points-2d", {}),
        (np.random.default_rng(0).normal(size=(40, 5)), "vectors", {}),
        (np.random.default_rng(0).normal(size=(40, 2, 30)), "signals", {"layout": "channels_first"}),
        (np.random.default_rng(0).normal(size=(40, 30, 2)), "signals", {"layout": "channels_last"}),
        (np.random.default_rng(0).normal(size=(40, 12, 16)), "images", {"layout": "grey"}),
        (np.random.default_rng(0).normal(size=(40, 2, 12, 16)), "images", {}),
        (np.random.default_rng(0).normal(size=(40, 12, 16, 3)), "images", {"layout": "channels_last"}),
        (np.arange(-40, 40).reshape(40, 2), "points-2d", {"low": "-40", "high": "39"}),
    ],
)
def test_commands_for_arrays(tmp_path, array, recipe, settings):
    np.save(tmp_path / "x.npy", array)
    found = inspect(DataSource(str(tmp_path / "x.npy")))
    assert found.settings == settings and found.command.split()[2] == recipe
    assert open_data(obeyed(found)).spec == found.spec


def test_statistics_of_arrays_leave_nan_out(tmp_path):
    x = np.random.default_rng(0).normal([3.0, -1.0], [1.0, 5.0], (100, 2))
    x[7] = np.nan
    x[40] = x[3]
    np.save(tmp_path / "x.npy", x)
    found = inspect(DataSource(str(tmp_path / "x.npy")))
    good = np.delete(x, 7, axis=0).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(found.mean, good.mean(axis=0), rtol=tolerance.MERGED_MOMENTS)
    np.testing.assert_allclose(found.deviation, good.std(axis=0), rtol=tolerance.MERGED_MOMENTS)
    assert [name[-3:] for name in found.bad] == ["[7]"] and found.settings == {"skip_bad": "true"}
    assert found.duplicate_count == 1 and found.duplicates[0][1].endswith("[3]") and found.grey_levels is None
    assert found.looked_at == 100 and "1 examples" in "\n".join(found.lines())


def test_quantised_floats_are_reported_and_not_applied(tmp_path):
    x = (np.random.default_rng(0).integers(0, 256, (100, 3, 8, 8)) / 255).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    found = inspect(DataSource(str(tmp_path / "x.npy")))
    assert found.grey_levels is not None and found.grey_levels[0] == 256
    assert found.settings == {} and found.spec is not None and found.spec.levels is None
    assert "data.low=0 data.high=1 data.levels=256" in "\n".join(found.lines())


def test_equal_steps():
    assert equal_steps(np.array([0.0, 1.0, 3.0, 4.0])) == (5, 1.0)
    assert equal_steps(np.array([0.0, 1.0, 2.5])) is None
    assert equal_steps(np.sort(np.random.default_rng(0).normal(size=200))) is None
    assert equal_steps(np.arange(10.0), seen=10) is None and equal_steps(np.zeros(1)) is None
    assert equal_steps(np.linspace(-1, 1, 65).astype(np.float32).astype(np.float64), seen=1000) == (65, 2 / 64)


def test_shared_examples_between_splits(tmp_path):
    pytest.importorskip("pyarrow")
    encoded = [png(image) for image in pictures(8)]
    write_parquet(tmp_path / "train.parquet", encoded[:6], [0, 1, 0, 1, 0, 1], ["a", "b"])
    write_parquet(tmp_path / "test.parquet", encoded[5:], [0, 1, -1], ["a", "b"])
    found = inspect(DataSource(str(tmp_path), conditional=True))
    assert found.shared == 1 and found.labels == {"a": 3, "b": 3}
    assert "data.conditional=true" in found.command and obeyed(found).conditional
    x = np.random.default_rng(0).normal(size=(9, 2))
    assert inspect(DataSource(), {"train": x[:6], "test": x[4:]}).shared == 2


def test_what_cannot_be_used_is_a_problem_not_an_error(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 2), complex))
    found = inspect(DataSource(str(tmp_path / "x.npy")))
    assert "complex" in str(found.problem) and found.spec is None and any("problem" in line for line in found.lines())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"junk")
    found = inspect(DataSource(str(tmp_path / "photos")))
    assert len(found.corrupt) == 1 and found.problem is not None
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "photos" / "a.tif")
    (tmp_path / "photos" / "a.png").unlink()
    assert "floating point" in str(inspect(DataSource(str(tmp_path / "photos"))).problem)


def test_large_sets_are_sampled(monkeypatch):
    monkeypatch.setattr("scorefield.data.inspection.INSPECTED", 50)
    found = inspect(DataSource("digits"))
    assert found.looked_at == 50 and "50 evenly spaced examples of 1437" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("shape", "recipe"), [((2,), "points-2d"), ((3,), "vectors"), ((2, 9), "signals"), ((1, 8, 8), "images")]
)
def test_suggested_recipes(shape, recipe):
    assert suggest_recipe(DataSpec(shape)) == recipe
