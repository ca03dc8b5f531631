"""Geometry of crop and resize, orientation, colour conversion: what happens to a pixel is stated and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tolerance
from data.files import pictures, write_images
from scorefield.data import DataError, DataSource, frame_geometry, open_data


def only(tmp_path, image: Image.Image, name: str = "a.png", save: dict | None = None, **fields) -> np.ndarray:
    """The single image of a folder as scorefield reads it."""
    image.save(tmp_path / name, **(save or {}))
    return open_data(DataSource(str(tmp_path), held_out=0, **fields)).train.batch([0])[0][0].numpy()


sides = st.integers(1, 300)


@given(h=sides, w=sides, size=st.one_of(sides, st.tuples(sides, sides)), centre=st.booleans())
def test_resize_covers_the_target_and_takes_its_centre(h, w, size, centre):
    geometry = frame_geometry(h, w, "center" if centre else None, size)
    th, tw = (size, size) if isinstance(size, int) else size
    assert geometry.final == (th, tw)
    rh, rw = geometry.resized
    assert rh >= th and rw >= tw and (rh == th or rw == tw)
    left, upper, right, lower = geometry.take
    assert 0 <= (rw - right) - left <= 1 and 0 <= (rh - lower) - upper <= 1
    left, upper, right, lower = geometry.crop
    if centre:
        assert (right - left, lower - upper) == (min(h, w),) * 2
        assert 0 <= (w - right) - left <= 1 and 0 <= (h - lower) - upper <= 1


def test_centre_crop_takes_the_middle_pixels(tmp_path):
    p = pictures(1, (5, 8))[0]
    x = only(tmp_path, Image.fromarray(p), crop="center")
    np.testing.assert_array_equal(x, p[:, 1:6].transpose(2, 0, 1))
    x = only(tmp_path, Image.fromarray(p), crop=(3, 4))
    np.testing.assert_array_equal(x, p[1:4, 2:6].transpose(2, 0, 1))


def test_resize_is_antialiased(tmp_path):
    # Stripes of one pixel: a resize without a wide filter keeps stripes or turns to a constant 0 or 255.
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    x = only(tmp_path, Image.fromarray(stripes), size=16)
    assert x.shape == (1, 16, 16) and abs(x[:, :, 2:-2].astype(float) - 127.5).max() < tolerance.HALF_TONE
    # The mutant: nearest-neighbour picks one colour.
    nearest = np.asarray(Image.fromarray(stripes).resize((16, 16), Image.Resampling.NEAREST))
    assert abs(nearest.astype(float) - 127.5).min() > tolerance.HALF_TONE


def test_arrays_are_resized_by_a_filter_that_keeps_their_range_and_mean():
    x = np.random.default_rng(0).uniform(2.0, 3.0, (4, 5, 32, 48)).astype(np.float32)
    out = open_data(DataSource(size=(8, 12), held_out=0), x).train.batch(range(4))[0].numpy()
    assert out.shape == (4, 5, 8, 12) and out.min() >= 2.0 and out.max() <= 3.0 and out.std() < 0.5 * x.std()
    constant = np.full((2, 1, 9, 9), 1.25, np.float32)
    out = open_data(DataSource(size=4, held_out=0, low=0.0, high=2.0), constant).train.batch([0, 1])[0]
    assert torch.equal(out, torch.full((2, 1, 4, 4), 1.25))
    cropped = open_data(DataSource(crop=(30, 2), held_out=0), x).train.batch(range(4))[0]
    np.testing.assert_array_equal(cropped.numpy(), x[:, :, 1:31, 23:25])


def test_few_grey_levels_are_gone_after_resizing():
    plain, small = open_data(DataSource("digits")), open_data(DataSource("digits", size=4))
    assert plain.spec.levels == 17 and small.spec.levels is None and small.spec.shape == (1, 4, 4)
    assert (small.spec.low, small.spec.high) == (0.0, 16.0) and small.train.batch([0])[0].dtype == torch.float32
    eight_bit = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8)).astype(np.uint8)
    kept = open_data(DataSource(size=4, held_out=0), eight_bit)
    assert kept.spec.levels == 256 and kept.train.batch([0])[0].dtype == torch.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, orientation):
    upright = pictures(1, (8, 16))[0]
    turn = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = Image.fromarray(upright)
    stored = image if turn is None else image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    x = only(tmp_path, stored, save={"exif": exif})
    np.testing.assert_array_equal(x, upright.transpose(2, 0, 1))


RED, CLEAR = (250, 10, 20), (90, 80, 70, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_nothing_is_converted_silently(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 0x1234, np.uint16))
    else:
        colour = Image.new("RGB", (4, 4), RED)
        image = colour.quantize(2) if mode == "P" else colour.convert(mode)
    name = "a.tif" if mode == "CMYK" else "a.png"
    with pytest.raises(DataError, match=rf"a\.{name[-3:]} (has|is).*data\.channels"):
        only(tmp_path, image, name)
    channels = 1 if mode in ("LA", "1", "I;16") else 3
    x = only(tmp_path, image, name, channels=channels)
    assert x.shape == (channels, 4, 4)
    if mode == "I;16":
        assert (x == 0x12).all()
    elif channels == 3:
        np.testing.assert_array_equal(x[:, 0, 0], RED)


def test_sixteen_bit_colour_is_noticed_although_pil_hides_it(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + struct.pack(">6H", *([0x1234, 0x5678, 0x9ABC] * 2)) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    source = DataSource(str(tmp_path), held_out=0)
    with pytest.raises(DataError, match="16 bits per channel"):
        open_data(source)
    split = open_data(DataSource(str(tmp_path), held_out=0, channels=3)).train
    np.testing.assert_array_equal(split.batch([0])[0][0, :, 0, 0], [0x12, 0x56, 0x9A])


def test_transparency_is_composited_over_white_or_kept(tmp_path):
    image = Image.new("RGBA", (2, 1), CLEAR)
    image.putpixel((0, 0), (*RED, 255))
    np.testing.assert_array_equal(only(tmp_path, image, channels=3)[:, 0, :].T, [RED, (255, 255, 255)])
    np.testing.assert_array_equal(only(tmp_path, image, channels=4)[:, 0, :].T, [(*RED, 255), CLEAR])


def test_grey_and_colour_conversions(tmp_path):
    grey = only(tmp_path, Image.new("RGB", (2, 2), (255, 0, 0)), channels=1)
    assert (grey == round(0.299 * 255)).all()  # ITU-R BT.601 luma
    assert only(tmp_path, Image.new("L", (2, 2), 7), channels=3).tolist() == [[[7, 7]] * 2] * 3


def test_flip_needs_images():
    with pytest.raises(DataError, match="flip"):
        open_data(DataSource(flip=True), np.zeros((9, 2), np.float32))


def test_large_sets_are_surveyed_by_sample_and_checked_when_read(tmp_path, monkeypatch):
    p = pictures(30)
    write_images(tmp_path, {f"{i:02d}.png": p[i] for i in range(30)})
    monkeypatch.setattr("scorefield.data.rows.HEADERS_CHECKED", 2)
    Image.fromarray(pictures(1, (6, 7))[0]).save(tmp_path / "11.png")
    Image.fromarray(p[5, :, :, 0]).save(tmp_path / "05.png")
    for skip_bad in (False, True):  # another shape is no damage: it is never skipped
        with pytest.raises(DataError, match=r"(05|11)\.png .*(channels|size)"):
            split = open_data(DataSource(str(tmp_path), held_out=0, skip_bad=skip_bad)).train
            split.batch(range(30))
