"""What the releases do to images before training: CelebA's lists, crops, resizes, borders, stacks of digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tolerance
from data.files import everything, held, labels, pictures, refused, whole, write_idx, write_images
from scorefield._codec import CodecError, dumps, loads, with_field
from scorefield.data import DataError, DataSource, Stacking, inspect, open_data
from scorefield.data.order import epoch_order

# ---------------------------------------------------------------------------------------------------- CelebA


def celeba(folder: Path, n: int = 6) -> np.ndarray:
    """The release's folder with its lists: images 1..n, their splits 0, 0, 0, 1, 2, 2, ..."""
    p = pictures(n, (5, 4))
    write_images(folder / "img_align_celeba", {f"{i + 1:06d}.png": p[i] for i in range(n)})
    splits = [0, 0, 0, 1, 2, 2, 2][:n]
    (folder / "list_eval_partition.txt").write_text("".join(f"{i + 1:06d}.jpg {s}\n" for i, s in enumerate(splits)))
    rows = "".join(f"{i + 1:06d}.jpg {1 if i % 2 else -1:2d}  1\n" for i in range(n))
    (folder / "list_attr_celeba.txt").write_text(f"{n}\nSmiling Young \n{rows}")
    return p.transpose(0, 3, 1, 2)


def test_celeba(tmp_path):
    x = celeba(tmp_path)
    for path in (tmp_path, tmp_path / "img_align_celeba"):
        data = open_data(DataSource(str(path)))
        np.testing.assert_array_equal(everything(data.train), x[:3])
        np.testing.assert_array_equal(everything(held(data)), x[3:4])
        np.testing.assert_array_equal(everything(whole(path, split="test")), x[4:])
        assert data.train.labels is None
    smiling = open_data(DataSource(str(tmp_path), conditional=True, label_key="Smiling"))
    assert labels(smiling.train).tolist() == [0, 1, 0] and labels(held(smiling)).tolist() == [1]
    assert smiling.spec.conditions[0].class_names == ("not Smiling", "Smiling")
    # The same tables with commas and headers, and the folders of the original archive.
    (tmp_path / "Eval").mkdir()
    (tmp_path / "list_eval_partition.txt").unlink()
    rows = "".join(f"{i + 1:06d}.jpg,{int(i > 3) * 2}\n" for i in range(6))
    (tmp_path / "Eval" / "list_eval_partition.csv").write_text("image_id,partition\n" + rows)
    data = open_data(DataSource(str(tmp_path / "img_align_celeba")))
    assert (len(data.train), len(held(data))) == (4, 2)
    (tmp_path / "list_attr_celeba.txt").unlink()
    rows = "".join(f"{i + 1:06d}.jpg,1,{i % 2 * 2 - 1}\n" for i in range(6))
    (tmp_path / "list_attr_celeba.csv").write_text("image_id,Smiling,Young\n" + rows)
    assert labels(whole(tmp_path, label_key="Young")).tolist() == [0, 1, 0, 1]


def test_lists_that_do_not_fit(tmp_path):
    celeba(tmp_path)
    refused(tmp_path, "no attribute 'Smilling'", "Smiling", label_key="Smilling")
    lists = tmp_path / "list_eval_partition.txt"
    text = lists.read_text()
    lists.write_text(text.replace("000002.jpg 0\n", ""))
    refused(tmp_path, "000002.png", "is not in", "list_eval_partition.txt")
    lists.write_text(text.replace("000002.jpg 0", "000002.jpg 7"))
    refused(tmp_path, "000002.png", "'7'", "0, 1 or 2")
    lists.write_text(text)
    attributes = tmp_path / "list_attr_celeba.txt"
    attributes.write_text(attributes.read_text().replace("000003.jpg -1", "000003.jpg 5"))
    refused(tmp_path, "000003.png", "1 or -1", label_key="Smiling")
    write_images(tmp_path / "other", {"000001.png": pictures(1)[0]})
    refused(tmp_path, "other/000001.png", "give the folder")
    assert len(whole(tmp_path / "other")) == 1  # lists beside other folders are not theirs
    refused(tmp_path / "other", "attribute of CelebA", "folders' names", label_key="Smiling")


# --------------------------------------------------------------------------------------------- preprocessing


def only(tmp_path: Path, array: np.ndarray, **fields) -> np.ndarray:
    """The single image (H, W, C) of a folder as scorefield reads it, (C, H, W)."""
    write_images(tmp_path, {"a.png": array})
    return everything(whole(tmp_path, **fields))[0]


def triangle_resize(x: np.ndarray, n: int) -> np.ndarray:
    """Antialiased bilinear resize of the last axis to n, by its definition: a triangle as wide as the reduction."""
    scale = x.shape[-1] / n
    centre = (np.arange(n) + 0.5) * scale
    distance = np.abs(np.arange(x.shape[-1]) + 0.5 - centre[:, None]) / max(scale, 1.0)
    weight = np.clip(1 - distance, 0, None)
    return x @ (weight / weight.sum(axis=1, keepdims=True)).T


def test_celeba_is_cropped_by_140_and_resized_bilinearly(tmp_path):
    image = pictures(1, (218, 178))[0]
    found = only(tmp_path, image, crop=(140, 140), size=64, resample="bilinear")
    cut = image[39:179, 19:159].transpose(2, 0, 1).astype(np.float64)
    expected = triangle_resize(triangle_resize(cut, 64).swapaxes(1, 2), 64).swapaxes(1, 2)
    assert found.shape == (3, 64, 64)
    # Two passes, each rounded to a grey level.
    assert np.abs(found - expected).max() <= tolerance.TWO_ROUNDED_PASSES
    bicubic = only(tmp_path, image, crop=(140, 140), size=64)
    assert np.abs(bicubic - expected).max() > tolerance.TWO_ROUNDED_PASSES
    np.testing.assert_array_equal(bicubic, only(tmp_path, image, crop=(140, 140), size=64, resample="bicubic"))


def test_lsun_crops_and_resizes(tmp_path):
    image = pictures(1, (60, 90))[0]
    square = Image.fromarray(image[:, 15:75])
    expected = np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(only(tmp_path, image, crop="center", size=16, resample="bicubic"), expected)
    shorter = Image.fromarray(image).resize((24, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(shorter)[:, 4:20].transpose(2, 0, 1)
    np.testing.assert_array_equal(only(tmp_path, image, size=16, resample="bilinear"), expected)


def test_the_filter_of_arrays_can_be_chosen():
    x = np.random.default_rng(0).uniform(size=(3, 2, 12, 12)).astype(np.float32)
    sources = (DataSource(size=6, held_out=0, resample=name) for name in (None, "bilinear", "bicubic"))
    plain, named, other = (everything(open_data(source, x).train) for source in sources)
    np.testing.assert_array_equal(plain, named)
    assert np.abs(plain - other).max() > tolerance.FLOAT32


def test_padding(tmp_path):
    x = np.random.default_rng(0).integers(1, 256, (5, 28, 28)).astype(np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte", x)
    split = whole(tmp_path, pad=2)
    assert split.spec.shape == (1, 32, 32) and split.spec.levels == 256
    expected = np.zeros((5, 32, 32), np.uint8)
    expected[:, 2:30, 2:30] = x
    np.testing.assert_array_equal(everything(split)[:, 0], expected)
    image = pictures(1, (5, 9))[0]
    found = only(tmp_path / "images", image, crop="center", size=3, pad=1)
    assert found.shape == (3, 5, 5) and not found[:, 0].any() and not found[:, :, 4].any()
    np.testing.assert_array_equal(found[:, 1:4, 1:4], only(tmp_path / "images", image, crop="center", size=3))
    floats = np.full((4, 2, 3, 3), 7.0, np.float32)
    with pytest.raises(DataError, match="outside data.low=5"):
        open_data(DataSource(pad=1, held_out=0, low=5.0, high=9.0), floats)
    with pytest.raises(DataError, match="for images"):
        open_data(DataSource(pad=1), np.zeros((4, 2), np.float32))
    assert open_data(DataSource("digits", pad=4)).spec.shape == (1, 16, 16)


# -------------------------------------------------------------------------------------------------- stacking


def mnist(folder: Path, n: int = 40, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (n, size, size)).astype(np.uint8), (np.arange(n) % 10).astype(np.uint8)
    x[:, 0, 0] = np.arange(n)  # each image knows its number
    write_idx(folder / "train-images-idx3-ubyte", x)
    write_idx(folder / "train-labels-idx1-ubyte", y)
    write_idx(folder / "t10k-images-idx3-ubyte", x[:9])
    write_idx(folder / "t10k-labels-idx1-ubyte", y[:9])  # has no nine: the base is that of all splits
    return x, y


def test_stacked_mnist(tmp_path):
    x, y = mnist(tmp_path)
    source = DataSource(str(tmp_path), stack=3, conditional=True, model_range=(0.0, 1.0))
    data = open_data(source)
    assert data.spec.shape == (3, 4, 4) and data.spec.conditions[0].size == 1000
    assert list(data.spec.conditions[0].class_names or ())[314] == "3 1 4"
    for split, n in ((data.train, 40), (held(data), 9)):
        z = everything(split)
        members = z[:, :, 0, 0]
        for channel in range(3):
            assert sorted(members[:, channel]) == list(range(n))  # each channel is a whole pass
            np.testing.assert_array_equal(z[:, channel], x[members[:, channel]])
        assert (members[:, 0] != members[:, 1]).any() and (members[:, 1] != members[:, 2]).any()
        digits = y[members].astype(int)
        assert labels(split).tolist() == (100 * digits[:, 0] + 10 * digits[:, 1] + digits[:, 2]).tolist()
        assert not any((members[:, c] == epoch_order(n, 0, c)).all() for c in range(3))
    m = data.spec.to_model(torch.from_numpy(everything(data.train)))
    assert m.min() >= 0 and m.max() <= 1 and m.max() > 0.9
    np.testing.assert_array_equal(everything(open_data(source).train), everything(data.train))
    other = open_data(DataSource(str(tmp_path), stack=3, held_out_seed=1))
    assert (everything(other.train) != everything(data.train)).any()
    assert data.train.describe(0).count(" + ") == 2
    report = inspect(source)
    assert report.problem is None and report.spec == data.spec and "data.stack=3" in report.command
    shapes = [line[13:] for line in report.lines() if line.startswith(("shape", "trained as"))]
    assert shapes == ["1 x 4 x 4", "3 x 4 x 4"]


def test_passes_continue_the_published_pass(tmp_path):
    x, y = mnist(tmp_path)
    once, more = (open_data(DataSource(str(tmp_path), stack=3, stack_passes=p)) for p in (1, 3))
    z = everything(more.train)
    assert len(more.train) == 120 and len(held(more)) == 27 and more.train.labels is not None
    np.testing.assert_array_equal(z[:40], everything(once.train))
    members = z[:, :, 0, 0].reshape(3, 40, 3)
    assert (np.sort(members, axis=1) == np.arange(40)[:, None]).all()  # every channel of every pass is a whole one
    assert not (members[0] == members[1]).all(axis=0).any() and not (members[1] == members[2]).all(axis=0).any()
    digits = y[members.reshape(120, 3)].astype(int)
    np.testing.assert_array_equal(more.train.labels, digits @ [100, 10, 1])
    np.testing.assert_array_equal(more.train.batch([97])[0].numpy()[0], z[97])  # a function of the index
    with pytest.raises(ValueError, match="stack_passes=2 with stack=1"):
        DataSource("digits", stack_passes=2)


def test_stacks_of_anything(tmp_path):
    points = np.arange(20.0).reshape(10, 2)
    found = everything(open_data(DataSource(stack=2, held_out=0), points).train)
    assert found.shape == (10, 4)
    for half in (found[:, :2], found[:, 2:]):
        assert sorted(map(tuple, half)) == list(map(tuple, points))
    colour = pictures(12)
    write_images(tmp_path, {f"{'ab'[i % 2]}/{i:02d}.png": colour[i] for i in range(12)})
    kept, streamed = (whole(tmp_path, stack=2, conditional=True, memory_gib=gib) for gib in (2.0, 0.0))
    assert kept.spec.shape == (6, 6, 6) and kept.fingerprint == streamed.fingerprint
    assert kept.spec.conditions[0].class_names == ("a a", "a b", "b a", "b b")
    (tmp_path / "a" / "04.png").write_bytes(b"junk")
    refused(tmp_path, "04.png", "skip_bad", stack=2)
    left = open_data(DataSource(str(tmp_path), stack=2, skip_bad=True, held_out=0))
    parts = np.stack(Stacking(12, DataSource(stack=2)).parts(np.arange(12)))
    bad = int(np.flatnonzero(np.array(sorted(f"{'ab'[i % 2]}/{i:02d}" for i in range(12))) == "a/04")[0])
    assert len(left.train) == 12 - int((parts == bad).any(axis=0).sum()) and len(left.skipped) in (1, 2)
    many = open_data(DataSource("digits", stack=5, conditional=True))
    assert many.spec.conditions[0].class_names is None and many.spec.shape == (5, 8, 8)


@pytest.mark.parametrize("fields", [{"pad": -1}, {"stack": 0}])
def test_sources_that_mean_nothing(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        DataSource("x", **fields)


def test_fields_survive_json_and_the_command_line():
    source = DataSource("x", kind="tfrecord", resample="bilinear", pad=2, stack=3)
    assert loads(dumps(source), DataSource) == source
    assert with_field(with_field(DataSource(), "resample", "bilinear"), "pad", "2").pad == 2
    with pytest.raises(CodecError, match="resample"):
        with_field(DataSource(), "resample", "nearest")
