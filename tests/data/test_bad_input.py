"""Each way in which data can be unusable has one message that says what was found and which field helps."""

from __future__ import annotations

import gzip
import pickle
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data.files import held, idx_bytes, pictures, png, write_idx, write_images, write_parquet
from scorefield.data import DataError, DataSource, open_data


def refused(path, *parts: str, **fields) -> str:
    """Opening (and reading) raises one DataError whose message holds all parts."""
    with pytest.raises(DataError) as caught:
        data = open_data(DataSource(str(path), **fields))
        data.train.batch(range(len(data.train)))
    message = str(caught.value)
    assert all(part in message for part in parts), message
    return message


# ------------------------------------------------------------------------------------------------------ paths


def test_paths(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.xyz").write_text("")
    refused(tmp_path / "photo", "does not exist", "photos")
    refused(tmp_path / "no" / "photos", "does not exist", str(tmp_path / "no"))
    refused(tmp_path / "photos", "no images", "1 .xyz")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "it is empty")
    (tmp_path / "x.npx").write_text("")
    refused(tmp_path / "x.npx", ".npx", "Did you mean", ".npy")
    (tmp_path / "plain").write_text("")
    refused(tmp_path / "plain", "without an ending")
    Image.fromarray(pictures(1)[0]).save(tmp_path / "one.png")
    refused(tmp_path / "one.png", "one image", "folder")
    np.save(tmp_path / "empty" / "x.npy", np.zeros(3))
    refused(tmp_path / "empty", "give the array file", "x.npy")
    refused(tmp_path / "empty", "is a folder", kind="array")
    refused(tmp_path / "one.png", "is a file", kind="folder")
    with pytest.raises(DataError, match="--data PATH"):
        open_data(DataSource())


def test_folder_of_several_kinds(tmp_path):
    write_images(tmp_path, {"a.png": pictures(1)[0]})
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((2, 3, 3), np.uint8))
    refused(tmp_path, "several kinds", "folder", "idx", "data.kind")
    assert open_data(DataSource(str(tmp_path), kind="idx")).spec.shape == (1, 3, 3)


def test_splits_and_amounts(tmp_path):
    refused("digits", "no split 'tset'", "test", split="tset")
    refused("digits", "leaves nothing to train on", split="test", held_out=360)
    write_images(tmp_path, {"test/a.png": pictures(1)[0], "val/b.png": pictures(1)[0]})
    refused(tmp_path, "splits", "data.split")


# ----------------------------------------------------------------------------------------------------- images


def broken(folder, n: int = 12):
    p = pictures(n, (16, 16))
    write_images(folder, {f"{i:02d}.png": p[i] for i in range(n)})
    (folder / "03.png").write_bytes(png(p[3])[:300])  # a whole header, and pixels that end early
    (folder / "05.png").write_bytes(b"not an image at all")
    (folder / "07.png").write_bytes(b"")
    return folder


def test_corrupt_images_are_named(tmp_path):
    broken(tmp_path)
    refused(tmp_path, "05.png", "07.png", "skip_bad")
    (tmp_path / "05.png").unlink()
    (tmp_path / "07.png").unlink()
    refused(tmp_path, "03.png", "skip_bad", held_out=0)


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_corrupt_images_are_skipped_only_when_asked(tmp_path, memory):
    data = open_data(DataSource(str(broken(tmp_path)), skip_bad=True, held_out=2, memory_gib=memory))
    assert sorted(name[-6:] for name in data.skipped) == ["03.png", "05.png", "07.png"]
    assert len(data.train) + len(held(data)) == 9
    for split in (data.train, held(data)):
        assert split.batch(range(len(split)))[0].shape[1:] == (3, 16, 16)


def test_nothing_but_corrupt_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"junk")
    refused(tmp_path, "none of 1 images", skip_bad=True)


def test_mixed_sizes(tmp_path):
    p, q = pictures(3, (6, 8)), pictures(2, (10, 5))
    write_images(tmp_path, {f"p{i}.png": x for i, x in enumerate(p)} | {f"q{i}.png": x for i, x in enumerate(q)})
    refused(tmp_path, "6 x 8 (3 times)", "10 x 5 (2 times)", "data.size=5", "data.crop")
    assert open_data(DataSource(str(tmp_path), size=5)).spec.shape == (3, 5, 5)
    refused(tmp_path, "q0.png", "does not fit", crop=(6, 6))
    refused(tmp_path, "different sizes", crop="center")


def test_mixed_channels(tmp_path):
    p = pictures(3)
    write_images(tmp_path, {"a.png": p[0], "b.png": p[1], "c.png": p[2, :, :, 0]})
    refused(tmp_path, "RGB x 2", "L x 1", "c.png", "data.channels=3")
    assert open_data(DataSource(str(tmp_path), channels=1)).spec.shape == (1, 6, 6)


def test_images_of_several_frames_and_of_floats(tmp_path):
    frames = [Image.fromarray(x) for x in pictures(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    refused(tmp_path, "a.tif", "3 frames")
    (tmp_path / "a.tif").unlink()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "b.tif")
    refused(tmp_path, "b.tif", "floating point", ".npy", channels=1)


def test_splits_of_two_shapes(tmp_path):
    write_images(tmp_path, {"train/a.png": pictures(1)[0], "test/a.png": pictures(1, (5, 5))[0]})
    refused(tmp_path, "'train'", "'test'", "(3, 5, 5)")


def test_conditions_need_labels(tmp_path):
    write_images(tmp_path, {"a.png": pictures(1)[0], "b.png": pictures(1)[0]})
    refused(tmp_path, "no labels", "one folder per class", conditional=True)


# ----------------------------------------------------------------------------------------------------- arrays


def test_nan_is_counted_and_located(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    x[[4, 17], 1] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    refused(tmp_path / "x.npy", "2 of 20 examples", "x.npy[4]", "x.npy[17]", "skip_bad")
    refused(tmp_path / "x.npy", "2 of 20", low=-9.0, high=9.0)
    data = open_data(DataSource(str(tmp_path / "x.npy"), skip_bad=True, held_out=0))
    assert len(data.train) == 18 and len(data.skipped) == 2 and np.isfinite(data.spec.offset).all()
    np.save(tmp_path / "big.npy", np.array([[1.0], [1e39]]))
    refused(tmp_path / "big.npy", "NaN or infinity", "big.npy[1]")


def test_types_that_are_no_numbers(tmp_path):
    for name, array, part in [
        ("c", np.zeros((3, 2), complex), "real and imaginary"),
        ("s", np.array([["a", "b"]]), "not a number"),
        ("t", np.zeros((3, 2), "datetime64[s]"), "not a number"),
        ("o", np.array([[1, "a"]], object), "never unpickled"),
        ("r", np.zeros(3, [("a", "f4")]), "not a number"),
    ]:
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
        refused(tmp_path / f"{name}.npy", part)
        np.savez(tmp_path / f"{name}.npz", array)
        refused(tmp_path / f"{name}.npz", part)


class Bomb:
    def __reduce__(self):
        return (sys.exit, ("a file was unpickled",))


def test_pickles_are_never_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Bomb()]), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([Bomb()]), allow_pickle=True)
    torch.save(Bomb(), tmp_path / "x.pt")
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "x.npy", "never unpickled")
    refused(tmp_path / "x.npz", "never unpickled", key="x")
    refused(tmp_path / "y.npy", "y.npy")
    refused(tmp_path / "x.pt", "x.pt")
    refused(tmp_path / "y.pt", "y.pt")


def test_damaged_files(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(50, 2)))
    np.savez(tmp_path / "x.npz", rng.normal(size=(50, 2)))
    np.savez_compressed(tmp_path / "z.npz", rng.normal(size=(500, 2)))
    torch.save(torch.zeros(500, 2), tmp_path / "x.pt")
    for name in ("x.npy", "x.npz", "z.npz", "x.pt"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        refused(tmp_path / name, name)
    np.savez_compressed(tmp_path / "z.npz", rng.normal(size=(500, 2)))
    data = bytearray((tmp_path / "z.npz").read_bytes())
    data[2000:2100] = bytes(100)
    (tmp_path / "z.npz").write_bytes(data)
    refused(tmp_path / "z.npz", "damaged")


def test_several_arrays_need_a_key(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 3)), labels=np.zeros(4, int))
    torch.save({"images": torch.zeros(4, 3), "labels": torch.zeros(4).int()}, tmp_path / "x.pt")
    for name in ("x.npz", "x.pt"):
        refused(tmp_path / name, "images: float", "labels: int", "data.key")
        refused(tmp_path / name, "no array 'image'", "images", key="image")
        assert len(open_data(DataSource(str(tmp_path / name), label_key="labels", held_out=0)).train) == 4
    torch.save([1, 2], tmp_path / "y.pt")
    refused(tmp_path / "y.pt", "no tensor")
    np.savez(tmp_path / "none.npz")
    refused(tmp_path / "none.npz", "none.npz")


def test_labels_that_do_not_fit(tmp_path):
    x = np.zeros((4, 3))
    for labels, part in [
        (np.zeros(5, int), "5 labels"),
        (np.zeros(4, complex), "complex128"),
        (np.zeros((4, 2), int), "(4, 2)"),
        (np.array([0, 1, -2, 0]), "-2"),
    ]:
        np.savez(tmp_path / "x.npz", x=x, y=labels)
        refused(tmp_path / "x.npz", part, key="x", label_key="y")
    np.savez(tmp_path / "x.npz", x=x, y=np.full(4, -1))
    refused(tmp_path / "x.npz", "every label is -1", key="x", label_key="y", conditional=True)
    np.save(tmp_path / "x.npy", x)
    refused(tmp_path / "x.npy", "no file", label_key="y.npy")


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((10,), ("(N, 1)",)),
        ((10, 6, 7), ("layout=grey", "channels_first", "channels_last")),
        ((10, 8, 8, 3), ("layout=channels_last",)),
        ((2, 3, 4, 5, 6), ("(N, C, H, W)",)),
        ((0, 3), ("no examples",)),
        ((3, 0), ("empty",)),
    ],
)
def test_axes_that_could_mean_several_things(tmp_path, shape, parts):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    refused(tmp_path / "x.npy", *parts)


def test_fields_that_do_not_apply_to_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 3), np.float32))
    refused(tmp_path / "x.npy", "vectors have no", layout="grey")
    refused(tmp_path / "x.npy", "for images", size=2)
    refused(tmp_path / "x.npy", "never converted", channels=1)
    np.save(tmp_path / "x.npy", np.full((2, 2), 2**40))
    refused(tmp_path / "x.npy", "not exact in float32", low=0.0, high=2.0**41)


# -------------------------------------------------------------------------------------------------------- IDX


def test_idx_damage(tmp_path):
    x = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
    whole = idx_bytes(x)
    for name, data, part in [
        ("a-images-idx3-ubyte", whole[:-1], "truncated"),
        ("a-images-idx3-ubyte", whole[:9], "within its header"),
        ("a-images-idx3-ubyte", whole + b"1", "longer"),
        ("a-images-idx3-ubyte", b"\1" + whole[1:], "not an IDX file"),
        ("a-images-idx3-ubyte", b"", "nothing"),
        ("b-images-idx3-ubyte.gz", gzip.compress(whole[:-1]), "truncated"),
        ("b-images-idx3-ubyte.gz", gzip.compress(whole)[:-12], "truncated"),
        ("b-images-idx3-ubyte.gz", whole, "damaged"),
    ]:
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, name, part)


def test_idx_folders_that_are_unclear(tmp_path):
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(3, np.uint8))
    refused(tmp_path, "no IDX file of images")
    refused(tmp_path / "train-labels-idx1-ubyte", "labels, not examples")
    for name in ("emnist-a-train-images-idx3-ubyte", "emnist-b-train-images-idx3-ubyte"):
        write_idx(tmp_path / name, np.zeros((2, 3, 3), np.uint8))
    refused(tmp_path, "emnist-a", "emnist-b")
    write_idx(tmp_path / "c-images-idx3-ubyte", np.zeros((2, 3, 3), np.uint8))
    write_idx(tmp_path / "c-labels-idx1-ubyte", np.zeros(3, np.uint8))
    refused(tmp_path / "c-images-idx3-ubyte", "3 labels", "2 examples")


# ---------------------------------------------------------------------------------------------------- parquet


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1, 2], "label": [0, 1]}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "no column of encoded images", "x (int64)")
    refused(tmp_path / "x.parquet", "no column 'y'", key="y")
    refused(tmp_path / "x.parquet", "holds no encoded images", key="x")
    good = [png(image) for image in pictures(6)]
    path = write_parquet(tmp_path / "y.parquet", good, list(range(6)))
    refused(path, "no column 'labl'", "label", label_key="labl")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "not a whole parquet file")
    write_parquet(path, [*good[:2], good[2][:100], b"junk", None, good[5]], None)
    refused(path, "row 3", "row 4", "skip_bad")
    left = open_data(DataSource(str(path), skip_bad=True, held_out=0))
    assert len(left.train) == 3 and [name[-5:] for name in left.skipped] == ["row 2", "row 3", "row 4"]
    image = pa.array([{"bytes": good[0], "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"before": image, "after": image}), tmp_path / "z.parquet")
    refused(tmp_path / "z.parquet", "several columns of images", "before, after", "data.key")
    assert len(open_data(DataSource(str(tmp_path / "z.parquet"), key="after")).train) == 1
    refused(tmp_path, "no parquet files", kind="parquet") if not list(tmp_path.glob("*.parquet")) else None


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused(tmp_path / "x.parquet", "pip install scorefield[data]")


# ---------------------------------------------------------------------------------------------------- objects


def test_import_paths(tmp_path, monkeypatch):
    (tmp_path / "bad_datasets_module.py").write_text(
        "def points():\n    return [[0.0, 1.0]]\n\ndef needs(n):\n    return n\n\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        refused("no_such_module_anywhere:points", "cannot be imported")
        refused("bad_datasets_module:pionts", "Did you mean points")
        refused("bad_datasets_module:needs", "without arguments")
        refused("bad_datasets_module:number", "__getitem__")
        refused("bad_datasets_module:points", "is a list")
    finally:
        sys.modules.pop("bad_datasets_module", None)


@pytest.mark.parametrize(
    ("dataset", "fields", "part"),
    [
        ([], {}, "no examples"),
        (["text"], {}, "is a str"),
        ([np.zeros(2), np.zeros(3)], {}, "[1] has shape (3,)"),
        ([{"a": np.zeros(2)}], {}, "data.key"),
        ([{"x": np.zeros(2)}], {"conditional": True}, "no labels"),
        ([np.zeros(2)], {"conditional": True}, "no labels"),
        (iter([np.zeros(2)]), {}, "map-style"),
    ],
)
def test_datasets(dataset, fields, part):
    with pytest.raises(DataError, match=re.escape(part)):
        data = open_data(DataSource(held_out=0, **fields), dataset)
        data.train.batch(range(len(data.train)))
