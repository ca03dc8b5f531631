"""Every reader gives back what was written: values, order, labels, splits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data.files import held, idx_bytes, labels, pictures, png, write_idx, write_images, write_parquet
from scorefield._codec import dumps, loads
from scorefield.data import Arrays, DataSource, Split, open_data, read_contents
from scorefield.data.source import Layout


def everything(split: Split) -> torch.Tensor:
    return split.batch(range(len(split)))[0]


def whole(path, **fields) -> Split:
    return open_data(DataSource(str(path), held_out=0, **fields)).train


# ------------------------------------------------------------------------------------------------------ digits


def test_digits():
    data = open_data(DataSource("digits", conditional=True))
    assert (len(data.train), len(held(data))) == (1437, 360)
    assert data.spec.shape == (1, 8, 8) and (data.spec.low, data.spec.high, data.spec.levels) == (0.0, 16.0, 17)
    x, condition = data.train.batch([0, 1])
    assert x.dtype == torch.uint8 and condition["class"].dtype == torch.int64
    for split in (data.train, held(data)):
        counts = np.bincount(labels(split))
        assert counts.min() > 0.9 * len(split) / 10 and counts.max() < 1.1 * len(split) / 10


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    original = datasets.load_digits()
    data = open_data(DataSource("digits"))
    stored = torch.cat([everything(data.train), everything(held(data))])[:, 0].numpy()
    targets = np.concatenate([labels(data.train), labels(held(data))])
    rows = {
        image.astype(np.uint8).tobytes() + bytes([t]) for image, t in zip(original.images, original.target, strict=True)
    }
    assert rows == {image.tobytes() + bytes([t]) for image, t in zip(stored, targets, strict=True)}
    assert len(stored) == len(original.images)


# ------------------------------------------------------------------------------------------------------ folders


def test_folder_with_classes_and_splits(tmp_path):
    p = pictures(7)
    write_images(
        tmp_path,
        {
            "train/dog/b.png": p[0],
            "train/dog/a.png": p[1],
            "train/cat/deep/er/1.PNG": p[2],
            "test/dog/x.png": p[3],
            "test/cat/x.bmp": p[4],
        },
    )
    (tmp_path / "train" / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "dog" / ".hidden.png").write_bytes(b"junk")
    data = open_data(DataSource(str(tmp_path), conditional=True))
    assert data.spec.conditions[0].class_names == ("cat", "dog")
    assert everything(data.train).numpy().tolist() == p[[2, 1, 0]].transpose(0, 3, 1, 2).tolist()
    assert labels(data.train).tolist() == [0, 1, 1] and labels(held(data)).tolist() == [0, 1]
    assert data.train.describe(1).endswith("a.png")


def test_flat_folder_has_no_labels_and_non_square_images_stay(tmp_path):
    p = pictures(3, (4, 9))
    split = whole(write_images(tmp_path, {f"{i}.png": p[i] for i in range(3)}))
    assert split.spec.shape == (3, 4, 9) and split.labels is None
    assert (split.spec.low, split.spec.high, split.spec.levels) == (0.0, 255.0, 256)


def test_memory_bound_changes_nothing_but_memory(tmp_path):
    p = pictures(40)
    write_images(tmp_path, {f"{i:02d}.png": p[i] for i in range(40)})
    kept, streamed = whole(tmp_path), whole(tmp_path, memory_gib=0.0)
    order = [3, 39, 3, 0, *range(20)]
    assert torch.equal(kept.batch(order)[0], streamed.batch(order)[0])
    assert torch.equal(kept.batch(order)[0], torch.from_numpy(p[order].transpose(0, 3, 1, 2)))
    assert kept.fingerprint == streamed.fingerprint
    # A batch belongs to the caller: writing into it must not reach the cache.
    kept.batch([3])[0].zero_()
    assert kept.batch([3])[0].any()


# ------------------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize("shape", [(12, 3), (12, 2, 5), (12, 3, 4, 5)])
@pytest.mark.parametrize("suffix", ["npy", "npz", "compressed", "pt"])
def test_float_arrays(tmp_path, shape, suffix):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    path = tmp_path / f"x.{suffix.replace('compressed', 'npz')}"
    if suffix == "npy":
        np.save(path, x)
    elif suffix == "pt":
        torch.save(torch.from_numpy(x), path)
    else:
        (np.savez if suffix == "npz" else np.savez_compressed)(path, x=x)
    split = whole(path, layout="channels_first")
    assert everything(split).numpy().tolist() == x.tolist()
    assert split.spec.shape == shape[1:] and not split.spec.bounded


def test_uncompressed_arrays_are_mapped_not_loaded(tmp_path):
    x = np.arange(60, dtype=np.float64).reshape(10, 6)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", other=np.zeros(3), x=np.asfortranarray(x))
    torch.save({"x": torch.from_numpy(x)}, tmp_path / "x.pt")
    for name in ("x.npy", "x.npz"):
        (content,) = read_contents(DataSource(str(tmp_path / name), key=None if name == "x.npy" else "x")).values()
        assert isinstance(content, Arrays) and isinstance(content.array, np.memmap)
        np.testing.assert_array_equal(content.array, x)
    assert everything(whole(tmp_path / "x.pt")).tolist() == x.tolist()


def test_labels_beside_the_data(tmp_path):
    x, y = np.zeros((4, 2), np.float32), np.array([0, 2, 1, -1])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "both.npz", points=x, kind=np.array(["b", "a", "b", "c"]))
    torch.save({"points": torch.from_numpy(x), "kind": torch.from_numpy(y)[:, None]}, tmp_path / "both.pt")
    assert labels(whole(tmp_path / "x.npy", label_key="y.npy", conditional=True)).tolist() == y.tolist()
    named = whole(tmp_path / "both.npz", label_key="kind", conditional=True)
    assert labels(named).tolist() == [1, 0, 1, 2] and named.spec.conditions[0].class_names == ("a", "b", "c")
    split = whole(tmp_path / "both.pt", key="points", label_key="kind", conditional=True)
    assert split.spec.conditions[0].size == 3
    assert split.batch([3, 0])[1]["class"].tolist() == [-1, 0]


def test_channel_layouts():
    rng = np.random.default_rng(0)
    images, grey, signals = rng.normal(size=(5, 6, 7, 3)), rng.normal(size=(5, 6, 7)), rng.normal(size=(5, 9, 2))
    cases: list[tuple[np.ndarray, Layout, np.ndarray]] = [
        (images, "channels_last", images.transpose(0, 3, 1, 2)),
        (images, "channels_first", images),
        (grey, "grey", grey[:, None]),
        (signals, "channels_last", signals.transpose(0, 2, 1)),
        (signals, "channels_first", signals),
    ]
    for array, layout, expected in cases:
        x = everything(open_data(DataSource(layout=layout, held_out=0), array).train)
        assert x.dtype == torch.float32
        np.testing.assert_array_equal(x.numpy(), expected.astype(np.float32))
    eight_bit = rng.integers(0, 256, (5, 6, 7)).astype(np.uint8)
    assert open_data(DataSource(held_out=0), eight_bit).spec.shape == (1, 6, 7)


# ------------------------------------------------------------------------------------------------------ IDX


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_folder(tmp_path, ending):
    rng = np.random.default_rng(0)
    x = {
        "train": rng.integers(0, 256, (9, 5, 4)).astype(np.uint8),
        "t10k": rng.integers(0, 256, (3, 5, 4)).astype(np.uint8),
    }
    for split, images in x.items():
        write_idx(tmp_path / f"{split}-images-idx3-ubyte{ending}", images)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte{ending}", (np.arange(len(images)) % 3).astype(np.uint8))
    data = open_data(DataSource(str(tmp_path), conditional=True))
    assert data.spec.shape == (1, 5, 4) and data.spec.levels == 256 and data.spec.conditions[0].size == 3
    assert everything(data.train)[:, 0].numpy().tolist() == x["train"].tolist()
    assert everything(held(data))[:, 0].numpy().tolist() == x["t10k"].tolist()
    assert labels(held(data)).tolist() == [0, 1, 2]
    single = whole(tmp_path / f"train-images-idx3-ubyte{ending}")
    assert len(single) == 9 and single.labels is not None


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "float32", "float64"])
def test_idx_types(tmp_path, dtype):
    x = np.random.default_rng(0).integers(-100, 100, (6, 3)).astype(dtype)
    path = write_idx(tmp_path / "values-idx2-ubyte", x)
    split = whole(path, low=-128.0, high=127.0)
    assert everything(split).tolist() == x.tolist()
    assert split.spec.levels == (256 if dtype.startswith("int") else None)


# ------------------------------------------------------------------------------------------------------ parquet


def test_parquet_folder(tmp_path):
    pytest.importorskip("pyarrow")
    p = pictures(11)
    encoded = [png(image) for image in p]
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", encoded[:6], [0, 1, 2, 0, 1, 2], ["a", "b", "c"])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", encoded[6:9], [2, 1, 0], ["a", "b", "c"])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", encoded[9:], [1, -1], ["a", "b", "c"])
    data = open_data(DataSource(str(tmp_path), conditional=True))
    assert data.spec.conditions[0].class_names == ("a", "b", "c")
    expected = torch.from_numpy(p.transpose(0, 3, 1, 2))
    assert torch.equal(everything(data.train), expected[:9]) and torch.equal(everything(held(data)), expected[9:])
    assert labels(data.train).tolist() == [0, 1, 2, 0, 1, 2, 2, 1, 0] and labels(held(data)).tolist() == [1, -1]
    assert data.train.describe(7).endswith("train-00001-of-00002.parquet row 1")
    # Row groups are dropped and read again where memory is short.
    short = open_data(DataSource(str(tmp_path), memory_gib=0.0)).train
    assert torch.equal(short.batch([8, 0, 5, 0])[0], expected[[8, 0, 5, 0]])


def test_parquet_folder_per_split_other_column_and_paths(tmp_path):
    pytest.importorskip("pyarrow")
    p = pictures(3)
    write_images(tmp_path / "train", {"aside.png": p[2]})
    write_parquet(tmp_path / "train" / "0000.parquet", [png(p[0]), png(p[1]), "aside.png"], None, column="img")
    data = open_data(DataSource(str(tmp_path), kind="parquet", held_out=0))
    assert data.train.name.endswith("train") and data.train.labels is None
    assert torch.equal(everything(data.train), torch.from_numpy(p.transpose(0, 3, 1, 2)))


# ------------------------------------------------------------------------------------------------------ objects


class Pairs:
    """Items (value, label)."""

    targets = None

    def __init__(self, kind: str = "array", n: int = 12):
        self.kind, self.n = kind, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        x = np.full((3, 4, 4), i, np.uint8)
        if self.kind == "image":
            return Image.fromarray(x.transpose(1, 2, 0)), i % 2
        if self.kind == "mapping":
            return {"img": torch.from_numpy(x), "label": i % 2, "other": "text"}
        return (x, i % 2) if self.kind == "array" else torch.from_numpy(x)


@pytest.mark.parametrize("kind", ["array", "image", "mapping"])
def test_map_style_datasets(kind):
    data = open_data(DataSource(conditional=True, held_out=2), Pairs(kind))
    assert (len(data.train), len(held(data))) == (10, 2) and data.spec.levels == 256
    x, condition = data.train.batch([1, 4])
    assert x.shape == (2, 3, 4, 4) and (x[:, 0, 0, 0] % 2).tolist() == condition["class"].tolist()


def test_dataset_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_pairs_module.py").write_text(
        "import numpy as np\n\n"
        "def make():\n    return [(np.array([i, -i], np.float32), i % 3) for i in range(9)]\n\n"
        "points = np.arange(8.0).reshape(4, 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        data = open_data(DataSource("my_pairs_module:make", conditional=True, held_out=0))
        assert data.train.batch([2])[0].tolist() == [[2.0, -2.0]] and labels(data.train).tolist() == [0, 1, 2] * 3
        assert len(whole("my_pairs_module:points")) == 4
    finally:
        sys.modules.pop("my_pairs_module", None)


def test_tensors_and_named_splits():
    x = torch.arange(20.0).reshape(10, 2)
    data = open_data(DataSource(), {"train": x[:7], "test": x[7:]})
    assert torch.equal(everything(data.train), x[:7]) and torch.equal(everything(held(data)), x[7:])
    only = open_data(DataSource(split="test", held_out=1), {"train": x[:7], "test": x[7:]})
    assert (len(only.train), len(held(only))) == (2, 1)
    assert torch.equal(torch.cat([everything(only.train), everything(held(only))]).sort(dim=0).values, x[7:])


# --------------------------------------------------------------------------------------------- what all share


def test_held_out_and_limit_are_disjoint_and_repeatable():
    x = np.arange(200.0)[:, None]
    for source in (DataSource(held_out=0.2), DataSource(held_out=30, limit=25)):
        first, again = (open_data(source, x) for _ in range(2))
        a, b = everything(first.train)[:, 0], everything(held(first))[:, 0]
        assert not set(a.tolist()) & set(b.tolist())
        assert torch.equal(a, everything(again.train)[:, 0])
    assert (len(first.train), len(held(first))) == (25, 25)
    other = open_data(DataSource(held_out=0.2, held_out_seed=1), x)
    assert not torch.equal(everything(held(other))[:3], b[:3, None])


def test_same_content_has_one_fingerprint_in_every_format(tmp_path):
    p = pictures(5)
    names = [f"{'ab'[i % 2]}/{i}.png" for i in range(5)]
    order = sorted(range(5), key=lambda i: names[i])
    write_images(tmp_path / "folder", dict(zip(names, p, strict=True)))
    array, labels = p[order].transpose(0, 3, 1, 2), np.array([i % 2 for i in order])
    np.savez(tmp_path / "x.npz", x=array, y=labels)
    by_folder = whole(tmp_path / "folder")
    by_array = whole(tmp_path / "x.npz", key="x", label_key="y")
    assert by_folder.fingerprint == by_array.fingerprint and len(by_folder.fingerprint) == 64
    changed = array.copy()
    changed[4, 0, 0, 0] ^= 1
    assert open_data(DataSource(held_out=0), changed).train.fingerprint != by_array.fingerprint
    assert open_data(DataSource(held_out=0), array[:4]).train.fingerprint != by_array.fingerprint


def test_splits_refuse_indices_they_do_not_have():
    split = open_data(DataSource("digits")).train
    for bad in ([-1], [1437]):
        with pytest.raises(IndexError, match="0..1436"):
            split.batch(bad)
    assert split.batch([])[0].shape == (0, 1, 8, 8)
    assert sum(len(x) for x, _ in split.chunks(500)) == 1437


def test_sources_survive_json():
    source = DataSource("x", crop=(3, 4), size=8, channels=3, held_out=7, low=(0.0, 1.0), high=(2.0, 3.0), units="K")
    assert loads(dumps(source), DataSource) == source
    assert loads(dumps(DataSource(held_out=0.25, crop="center")), DataSource).held_out == 0.25


def test_idx_bytes_of_the_tests_follow_the_format():
    assert idx_bytes(np.array([[1, 2]], np.uint8)) == bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2])
