"""The releases' own formats and their preprocessing: what was written comes back, and damage has a name."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.files import everything, held, labels, pictures, refused, whole
from data.release_files import (
    bitwise_crc32c,
    encoded,
    example,
    framed,
    raw_records,
    write_cifar10,
    write_lmdb,
    write_tfrecord,
)
from scorefield.data import DataSource, crc32c, inspect, open_data
from scorefield.data.readers.tfrecord import parse_example


def planes(n: int, size: tuple[int, int] = (32, 32), seed: int = 0) -> np.ndarray:
    """Random images, channels first."""
    return np.ascontiguousarray(pictures(n, size, seed).transpose(0, 3, 1, 2))


# ------------------------------------------------------------------------------------------------------ CIFAR


def cifar10(folder: Path) -> tuple[Path, np.ndarray]:
    x = planes(12)
    files = {"data_batch_1.bin": x[:5], "data_batch_2.bin": x[5:9], "test_batch.bin": x[9:]}
    y = {"data_batch_1.bin": [3, 0, 9, 1, 1], "data_batch_2.bin": [2, 4, 4, 8], "test_batch.bin": [7, 0, 6]}
    return write_cifar10(folder, files, y), x


def test_cifar10(tmp_path):
    folder, x = cifar10(tmp_path / "cifar-10-batches-bin")
    data = open_data(DataSource(str(folder), conditional=True))
    np.testing.assert_array_equal(everything(data.train), x[:9])
    np.testing.assert_array_equal(everything(held(data)), x[9:])
    assert labels(data.train).tolist() == [3, 0, 9, 1, 1, 2, 4, 4, 8] and labels(held(data)).tolist() == [7, 0, 6]
    assert data.spec.conditions[0].class_names == tuple(f"name{i}" for i in range(10)) and data.spec.levels == 256
    np.testing.assert_array_equal(data.train.batch([7, 0, 7])[0].numpy(), x[[7, 0, 7]])
    np.testing.assert_array_equal(everything(whole(folder / "data_batch_2.bin")), x[5:9])
    (folder / "batches.meta.txt").unlink()
    assert open_data(DataSource(str(folder), conditional=True)).spec.conditions[0].class_names is None


def test_cifar100(tmp_path):
    x = planes(6)
    coarse, fine = [19, 0, 3, 3, 1, 2], [99, 5, 0, 1, 7, 50]
    rows = [bytes([c, f]) + image.tobytes() for c, f, image in zip(coarse, fine, x, strict=True)]
    (tmp_path / "train.bin").write_bytes(b"".join(rows[:4]))
    (tmp_path / "test.bin").write_bytes(b"".join(rows[4:]))
    refused(tmp_path, "no images")  # such names alone say nothing
    np.testing.assert_array_equal(everything(whole(tmp_path, kind="cifar")), x[:4])
    (tmp_path / "fine_label_names.txt").write_text("".join(f"fine{i}\n" for i in range(100)))
    (tmp_path / "coarse_label_names.txt").write_text("".join(f"coarse{i}\n" for i in range(20)))
    data = open_data(DataSource(str(tmp_path), conditional=True))
    np.testing.assert_array_equal(everything(held(data)), x[4:])
    assert labels(data.train).tolist() == fine[:4] and data.spec.conditions[0].size == 100
    rough = open_data(DataSource(str(tmp_path), conditional=True, label_key="coarse"))
    assert labels(rough.train).tolist() == coarse[:4] and labels(held(rough)).tolist() == coarse[4:]
    assert list(rough.spec.conditions[0].class_names or ())[19] == "coarse19"
    refused(tmp_path, "'fien'", "fine", label_key="fien")


def test_cifar_damage(tmp_path):
    folder, _ = cifar10(tmp_path / "c")
    good = (folder / "data_batch_2.bin").read_bytes()
    for damaged, parts in [
        (good[:-1], ("data_batch_2.bin", "3072 bytes into record 3", "truncated")),
        (b"", ("data_batch_2.bin", "is empty")),
        (good[:3073] + b"\x0a" + good[3074:], ("data_batch_2.bin record 1", "10", "none of the 10 classes")),
    ]:
        (folder / "data_batch_2.bin").write_bytes(damaged)
        refused(folder, *parts)
    (folder / "data_batch_2.bin").rename(folder / "data_batch_3.bin")
    refused(folder, "data_batch_3.bin", "not data_batch_2.bin")
    (folder / "data_batch_3.bin").unlink()
    (folder / "batches.meta.txt").write_text("a\nb\n")
    refused(folder, "batches.meta.txt", "2 classes", "10")
    (folder / "train.bin").write_bytes(bytes(3074))
    refused(folder, "CIFAR-10 and CIFAR-100", kind="cifar")
    (tmp_path / "x.bin").write_bytes(bytes(3073))
    refused(tmp_path / "x.bin", "binary version", kind="cifar")
    refused(tmp_path, "further down", str(folder))


def test_pickled_cifar_is_refused_and_not_opened(tmp_path):
    bomb = b"cos\n_exit\n(I3\ntR."  # unpickling it would end the process
    ten, hundred = tmp_path / "a" / "cifar-10-batches-py", tmp_path / "b" / "cifar-100-python"
    for folder, names in ((ten, ("data_batch_1", "test_batch", "batches.meta")), (hundred, ("train", "test", "meta"))):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(bomb)
    for path in (ten, ten.parent, ten / "data_batch_1"):
        refused(path, "ever unpickled", "cifar-10-binary.tar.gz", "cifar-10-batches-bin")
    for path in (hundred, hundred.parent, hundred / "train"):
        refused(path, "ever unpickled", "cifar-100-binary.tar.gz")
    refused(ten, "ever unpickled", kind="cifar")
    refused(hundred, "ever unpickled", kind="cifar")
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(b""))
    refused(tmp_path / "cifar-10-binary.tar.gz", "archive", "unpack")


# ------------------------------------------------------------------------------------------------------- LMDB


@pytest.fixture
def lmdb():
    return pytest.importorskip("lmdb")


def lsun(path: Path, n: int, seed: int = 0, kind: str = "webp") -> tuple[Path, np.ndarray]:
    """An environment with hashes as keys, and its images in the order of keys."""
    p = pictures(n, (5, 7), seed)
    keys = [hashlib.sha1(bytes([seed, i % 256, i // 256])).hexdigest().encode() for i in range(n)]
    write_lmdb(path, {key: encoded(image, kind) for key, image in zip(keys, p, strict=True)})
    return path, p[np.argsort(keys)].transpose(0, 3, 1, 2)


def test_lsun_folders(tmp_path, lmdb):
    _, train = lsun(tmp_path / "bedroom_train_lmdb", 150)
    _, val = lsun(tmp_path / "bedroom_val_lmdb", 5, seed=1, kind="png")
    data = open_data(DataSource(str(tmp_path)))
    np.testing.assert_array_equal(everything(data.train), train)
    np.testing.assert_array_equal(everything(held(data)), val)
    order = [149, 0, 63, 64, 65, 127, 128, 3]
    streamed = whole(tmp_path / "bedroom_train_lmdb", memory_gib=0.0)
    np.testing.assert_array_equal(streamed.batch(order)[0].numpy(), train[order])
    assert len(streamed.describe(64).split("[")[1]) == 41
    lsun(tmp_path / "church_outdoor_train", 3)  # NCSNv2 names its folders without the ending
    lsun(tmp_path / "test_lmdb", 2)
    refused(tmp_path, "bedroom, church_outdoor", "data.key")
    refused(tmp_path, "'tower'", "bedroom", key="tower")
    assert len(whole(tmp_path, key="church_outdoor")) == 3
    assert whole(tmp_path, key="bedroom").fingerprint == data.train.fingerprint


def test_lmdb_is_read_by_threads_and_by_a_forked_child(tmp_path, lmdb):
    path, x = lsun(tmp_path / "a_lmdb", 100)
    split, again = whole(path, memory_gib=0.0), whole(path, memory_gib=0.0)  # the library opens a path only once
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: (split if i % 2 else again).batch([i])[0][0].numpy(), range(100)))
    np.testing.assert_array_equal(found, x)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_lmdb_is_read_after_a_fork(tmp_path, lmdb):
    from scorefield.data import read_contents
    from scorefield.data.readers.content import Images

    path, x = lsun(tmp_path / "a_lmdb", 70)
    (content,) = read_contents(DataSource(str(path))).values()
    assert isinstance(content, Images)
    child = os.fork()
    if child == 0:
        good = all((np.asarray(content.open(i)).transpose(2, 0, 1) == x[i]).all() for i in range(70))
        (fresh,) = read_contents(DataSource(str(path))).values()
        os._exit(0 if good and fresh.count == 70 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(np.asarray(content.open(69)).transpose(2, 0, 1), x[69])


def ffhq(path: Path, n: int, sides: tuple[int, ...]) -> dict[int, np.ndarray]:
    p = {side: pictures(n, (side, side), side) for side in sides}
    entries = {f"{side}-{i:05d}".encode(): encoded(p[side][i]) for side in sides for i in range(n)}
    write_lmdb(path, {b"length": str(n).encode(), **entries})
    return {side: x.transpose(0, 3, 1, 2) for side, x in p.items()}


@pytest.mark.parametrize("name", ["ffhq", "ffhq.lmdb"])
def test_ffhq_of_several_resolutions(tmp_path, lmdb, name):
    x = ffhq(tmp_path / name, 11, (4, 8, 16))
    for side in x:
        np.testing.assert_array_equal(everything(whole(tmp_path / name, size=side)), x[side])
    assert whole(tmp_path / name, size=(8, 8)).describe(10).endswith("[8-00010]")
    refused(tmp_path / name, "resolutions 4, 8, 16", "data.size")
    refused(tmp_path / name, "resolutions 4, 8, 16", "not 5", size=5)
    ffhq(tmp_path / "one", 2, (16,))
    assert whole(tmp_path / "one").spec.shape == (3, 16, 16) and whole(tmp_path / "one", size=4).spec.shape == (3, 4, 4)


def test_lmdb_damage(tmp_path, lmdb):
    path, _ = lsun(tmp_path / "a_lmdb", 90)
    whole_file = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(whole_file[: len(whole_file) // 2])
    refused(path, "data.mdb is truncated", "pages", "copy")
    for data in (whole_file[:50], b"junk" * 5000, b""):
        (path / "data.mdb").write_bytes(data)
        refused(path, "a_lmdb is not a whole LMDB environment")
    refused(write_lmdb(tmp_path / "empty", {}), "without entries")
    refused(write_lmdb(tmp_path / "text", {b"k": b"some text", b"l": b"more"}), "no images", "b'k'", "b'some text'")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no LMDB folder", kind="lmdb")
    image = encoded(pictures(1)[0])
    refused(write_lmdb(tmp_path / "short", {b"length": b"9", b"6-00000": image}), "length is 9", "'6-00008'")
    refused(write_lmdb(tmp_path / "count", {b"length": b"many", b"6-00000": image}), "'length'", "many")
    gap = write_lmdb(tmp_path / "gap", {b"length": b"3", b"6-00000": image, b"6-00002": image})
    refused(gap, "[6-00001]", "no such entry", "skip_bad")
    assert len(whole(gap, skip_bad=True)) == 2
    cut = write_lmdb(tmp_path / "cut", {b"a": image, b"b": image[:60], b"c": b"text"})
    refused(cut, "[c]", "skip_bad")
    assert len(whole(cut, skip_bad=True)) == 1


def test_lmdb_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    refused(tmp_path, "needs lmdb", "pip install scorefield[data]")


# -------------------------------------------------------------------------------------------------- TFRecords


def test_checksum_vectors():
    # RFC 3720, appendix B.4, and the customary check value.
    for data, crc in [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ]:
        assert crc32c(data) == crc == bitwise_crc32c(data)


@given(data=st.binary(max_size=700), zeros=st.integers(0, 200))
def test_checksum_is_that_of_the_definition(data, zeros):
    assert crc32c(bytes(zeros) + data) == bitwise_crc32c(bytes(zeros) + data)


@given(
    integers=st.lists(st.integers(-(2**63), 2**63 - 1)),
    floats=st.lists(st.floats(width=32, allow_nan=False), min_size=1),
    text=st.binary(),
    packed=st.booleans(),
)
def test_examples_are_parsed(integers, floats, text, packed):
    found = parse_example(example({"i": integers, "f": floats, "b": text, "": b""}, packed))
    assert list(found) == ["i", "f", "b", ""] and found["b"] == [text]
    assert np.asarray(found["i"]).tolist() == integers
    assert np.asarray(found["f"]).tolist() == floats


@given(data=st.binary(max_size=60))
def test_bytes_that_are_no_example_are_refused_in_one_way(data):
    try:
        parse_example(data)
    except (ValueError, IndexError):
        pass


def test_raw_records(tmp_path):
    x = {side: planes(7, (side, side), side) for side in (4, 8, 16)}
    for side, images in x.items():
        write_tfrecord(tmp_path / f"ffhq-r{side.bit_length() - 1:02d}.tfrecords", raw_records(images))
    for side, images in x.items():
        split = whole(tmp_path, size=side)
        np.testing.assert_array_equal(everything(split), images)
        assert split.spec.shape == (3, side, side) and split.spec.levels == 256
        np.testing.assert_array_equal(split.batch([6, 0, 6])[0].numpy(), images[[6, 0, 6]])
    refused(tmp_path, "resolutions 4, 8, 16", "data.size", "give the file")
    refused(tmp_path, "not 5", size=5)
    assert everything(whole(tmp_path / "ffhq-r03.tfrecords")).shape == (7, 3, 8, 8)
    write_tfrecord(tmp_path / "cats-r03.tfrecords", raw_records(x[8]))
    refused(tmp_path, "several data sets (cats, ffhq)", size=8)
    last = write_tfrecord(tmp_path / "b" / "x.tfrecords", raw_records(np.ascontiguousarray(pictures(3))))
    refused(last, "layout=channels_last")
    np.testing.assert_array_equal(everything(whole(last, layout="channels_last")), planes(3, (6, 6)))


def test_encoded_records_with_shards_splits_and_labels(tmp_path):
    p, y = pictures(9), [0, 2, 1, 1, 0, 2, 1, 0, 2]
    payloads = [
        example(
            {"image/encoded": encoded(p[i], "png"), "image/format": b"png", "image/class/label": [y[i]], "w": [0.5]}
        )
        for i in range(9)
    ]
    write_tfrecord(tmp_path / "set-train.tfrecord-00000-of-00002", payloads[:4])
    write_tfrecord(tmp_path / "set-train.tfrecord-00001-of-00002", payloads[4:7])
    write_tfrecord(tmp_path / "set-validation.tfrecord-00000-of-00001", payloads[7:])
    data = open_data(DataSource(str(tmp_path), conditional=True))
    x = p.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(everything(data.train), x[:7])
    np.testing.assert_array_equal(everything(held(data)), x[7:])
    assert labels(data.train).tolist() == y[:7] and labels(held(data)).tolist() == y[7:]
    assert data.train.describe(5).endswith("set-train.tfrecord-00001-of-00002 record 1")


def test_features_by_name(tmp_path):
    p = pictures(2)
    one = example({"before": encoded(p[0]), "after": encoded(p[1]), "label": [3], "other": [1, 2]})
    path = write_tfrecord(tmp_path / "x.tfrecord", [one])
    refused(path, "several (after, before)", "data.key", "label (1 int64)")
    refused(path, "'aftr'", "after", key="aftr")
    refused(path, "'label' is no encoded image", key="label")
    refused(path, "'other'", "data.label_key", key="after", label_key="other")
    np.testing.assert_array_equal(everything(whole(path, key="after")), p[1:].transpose(0, 3, 1, 2))
    bare = write_tfrecord(tmp_path / "y.tfrecord", [example({"photo": encoded(p[0])}), example({"label": [1]})])
    refused(bare, "y.tfrecord record 1", "no bytes in the feature 'photo'")
    assert whole(bare, skip_bad=True).labels is None
    unlabelled = [example({"image": encoded(p[0]), "label": [4]}), example({"image": encoded(p[1])})]
    assert labels(whole(write_tfrecord(tmp_path / "z.tfrecord", unlabelled))).tolist() == [4, -1]
    (tmp_path / "label.labels.txt").write_text("a\nb\n")
    refused(tmp_path / "z.tfrecord", "labels go up to 4", "2 class names", conditional=True)
    (tmp_path / "label.labels.txt").write_text("a\nb\nc\nd\ne\n")
    named = whole(tmp_path / "z.tfrecord", conditional=True)
    assert named.spec.conditions[0].class_names == ("a", "b", "c", "d", "e")
    negative = write_tfrecord(tmp_path / "n.tfrecord", [example({"image": encoded(p[0]), "label": [-2]})])
    refused(negative, "go down to -2")


def test_tfrecord_damage(tmp_path):
    path = tmp_path / "x.tfrecords"
    payloads = raw_records(planes(3, (4, 4)))
    good = b"".join(map(framed, payloads))
    one = len(framed(payloads[0]))
    for data, parts in [
        (good[:-1], ("truncated", "record 2")),
        (good[: one + 7], ("truncated", "header of record 1")),
        (good[: one + 30], ("truncated", "record 1")),
        (b"", ("no records",)),
        (b"not a record at all, whatever its name", ("record 0", "length", "checksum")),
        (good[: one + 1] + b"\x77" + good[one + 2 :], ("record 1", "length", "checksum")),
        (good[: one + 4] + b"\x00" * 8 + good[one + 12 :], ("record 1", "length", "checksum")),
        (good[:-9] + b"\x00" * 4 + good[-5:], ("record 2", "checksum", "damaged")),
        (gzip.compress(good), ("compressed",)),
        (framed(b"\x0a\xff"), ("record 0", "not a tf.train.Example")),
        (framed(b"\x0b\x01"), ("record 0", "not a tf.train.Example")),
        (framed(b""), ("record 0", "none")),
    ]:
        path.write_bytes(data)
        refused(path, "x.tfrecords", *parts)
    image = planes(1, (4, 4))[0]
    for features, parts in [
        ({"shape": [3, 4, 5], "data": image.tobytes()}, ("48 bytes", "60")),
        ({"shape": [3, 16], "data": image.tobytes()}, ("three whole numbers",)),
        ({"shape": [3, 4, -4], "data": image.tobytes()}, ("three whole numbers",)),
        ({"shape": [1.0, 4.0, 4.0], "data": image.tobytes()}, ("three whole numbers",)),
        ({"shape": [3, 4, 4]}, ("shape (3 int64)", "ProgressiveGAN")),
    ]:
        write_tfrecord(path, [example(features)])
        refused(path, "record 0", *parts)
    for features, parts in [
        ({"shape": [3, 2, 8], "data": image.tobytes()}, ("[3, 2, 8]", "[3, 4, 4]")),
        ({"shape": [3, 4, 4]}, ("lacks",)),
    ]:
        write_tfrecord(path, [payloads[0], example(features)])
        refused(path, "record 1", *parts)
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no TFRecords", kind="tfrecord")
    write_tfrecord(tmp_path / "deep" / "er" / "x.tfrecord", payloads)
    refused(tmp_path / "deep", "further down", "er")


def test_folders_of_two_kinds(tmp_path, lmdb):
    lsun(tmp_path, 3)
    write_tfrecord(tmp_path / "x-r02.tfrecords", raw_records(planes(2, (4, 4))))
    cifar10(tmp_path)
    refused(tmp_path, "several kinds", "lmdb", "tfrecord", "cifar", "data.kind")
    assert len(whole(tmp_path, kind="tfrecord")) == 2 and len(whole(tmp_path, kind="lmdb")) == 3
    assert whole(tmp_path, kind="cifar").spec.shape == (3, 32, 32)


# ------------------------------------------------------------------------------------- what all readers share


@pytest.mark.parametrize("kind", ["cifar", "lmdb", "tfrecord"])
def test_one_content_one_order_in_every_format(tmp_path, lmdb, kind):
    x = planes(30)
    if kind == "cifar":
        path = write_cifar10(tmp_path / "c", {"data_batch_1.bin": x}, {"data_batch_1.bin": [0] * 30})
    elif kind == "lmdb":
        path = write_lmdb(tmp_path / "l", {b"%03d" % i: encoded(image.transpose(1, 2, 0)) for i, image in enumerate(x)})
    else:
        path = write_tfrecord(tmp_path / "t.tfrecord", raw_records(x))
    source, plain = DataSource(str(path), held_out=0.2, limit=20), DataSource(held_out=0.2, limit=20)
    found, expected = open_data(source), open_data(plain, x)
    np.testing.assert_array_equal(everything(found.train), everything(expected.train))
    np.testing.assert_array_equal(everything(held(found)), everything(held(expected)))
    assert found.spec == expected.spec
    if kind != "cifar":  # which has labels besides
        assert found.train.fingerprint == expected.train.fingerprint
    report = inspect(DataSource(str(path)))
    assert report.shape == (3, 32, 32) and report.problem is None and report.looked_at == 30
    assert report.command == f"scorefield train images --data {path}"
    assert report.low == tuple(float(v) for v in x.min(axis=(0, 2, 3)))
