"""From an image to (C, H, W) grey levels: upright, in one colour mode, cropped, resized; every change is stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from scorefield.data.source import DataError, DataSource

DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, Image.DecompressionBombError)
"""Exceptions that PIL raises for damaged files (its decoders are not consistent)."""

NATIVE = {"L": 1, "RGB": 3}
"""Colour modes that need no conversion, and their channel counts."""

_ORIENTATION = 0x0112
"""The EXIF tag."""

ENCODED = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""How files in the formats of JPEG, PNG, WEBP, GIF, BMP and TIFF begin."""

_ADVICE = {
    "RGBA": "has transparency: data.channels=4 keeps it as a channel, data.channels=3 composites over white",
    "LA": "has transparency: data.channels=1 composites over white, data.channels=4 keeps it",
    "P": "is a palette image: data.channels=3 (or 4, with its transparency) looks the colours up",
    "1": "has one bit per pixel: data.channels=1 makes it 0 and 255",
    "CMYK": "is CMYK: data.channels=3 converts to RGB without a colour profile",
    "I;16": "has 16 bits per pixel: data.channels=1 keeps the upper 8 bits; save as .npy to keep all",
    "I": "has 32 bits per pixel, which images cannot carry; save the values as .npy",
    "F": "has floating point pixels, which images cannot carry; save the values as .npy",
}


class UnlikeError(DataError):
    """An undamaged image whose mode differs from that of the set; `skip_bad` does not leave it out."""


class Header(NamedTuple):
    """Header of an image: colour mode (with its depth where PIL would hide it), upright (height, width)."""

    mode: str
    size: tuple[int, int]


def read_header(image: Image.Image) -> Header:
    """Mode and upright size, without decoding pixels.

    Raises:
        DataError: The file holds several frames.
    """
    if getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", "several")
        raise DataError(f"holds {frames} frames; save each frame as its own file, or the stack as .npy")
    mode = _true_mode(image)
    width, height = image.size
    # PIL decodes a whole PNG to look for orientation behind its pixels, where nobody puts it.
    hidden = image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys()
    if not hidden and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):  # those that lie on their side
        width, height = height, width
    return Header(mode, (height, width))


def _true_mode(image: Image.Image) -> str:
    # PIL opens 16-bit RGB files as mode RGB and drops the lower bytes; only the decoder's argument tells.
    tile = getattr(image, "tile", None)
    raw = str(tile[0][3]) if tile else ""
    if image.mode.startswith("I;16"):
        return "I;16"
    return f"{image.mode} 16-bit" if "16" in raw and image.mode in ("L", "LA", "RGB", "RGBA") else image.mode


def channels_of(modes: Counter[str], source: DataSource, example: dict[str, str]) -> int:
    """Channel count of a set of images, from the colour modes found.

    Args:
        modes: Number of images of each mode.
        source: The data source, of which `channels` is used.
        example: Mode -> the name of one image that has it.

    Raises:
        DataError: Modes differ or need a conversion that `channels` does not ask for.
    """
    if impossible := [m for m in modes if m in ("I", "F")]:
        raise DataError(f"{example[impossible[0]]} {_ADVICE[impossible[0]]}")
    if source.channels is not None:
        return source.channels
    if len(modes) > 1:
        found = ", ".join(f"{mode} x {count} ({example[mode]})" for mode, count in modes.most_common(6))
        raise DataError(
            f"the images have different colour modes: {found}. Set data.channels=3 to convert all to RGB, 1 to grey, or"
            " 4 to RGBA"
        )
    mode = next(iter(modes))
    if mode in NATIVE:
        return NATIVE[mode]
    if mode.endswith("16-bit"):
        advice = "has 16 bits per channel: data.channels keeps the upper 8 bits; save as .npy to keep all"
    else:
        advice = _ADVICE.get(
            mode, f"has the colour mode {mode}: data.channels=3 converts to RGB, data.channels=1 to grey"
        )
    raise DataError(f"{example[mode]} {advice}. Nothing is converted unless data.channels says so")


def shape_of(
    sizes: Counter[tuple[int, int]], source: DataSource, example: dict[tuple[int, int], str]
) -> tuple[int, int]:
    """(height, width) of a set of images after crop, resize and pad.

    Raises:
        DataError: They come out in different sizes, or a crop does not fit.
    """
    border = 2 * source.pad
    final: Counter[tuple[int, int]] = Counter()
    for size, count in sizes.items():
        try:
            final[frame_geometry(*size, source.crop, source.size).final] += count
        except DataError as error:
            raise DataError(f"{example[size]}: {error}") from None
    if len(final) > 1:
        found = ", ".join(f"{h} x {w} ({count} times)" for (h, w), count in sizes.most_common(6))
        more = f" and {len(sizes) - 6} other sizes" if len(sizes) > 6 else ""
        smallest = min(min(size) for size in sizes)
        raise DataError(
            f"the images have different sizes (height x width): {found}{more}. Set data.size={smallest} to resize the"
            f" shorter side to {smallest} and take the centre, or data.size=[height,width], or data.crop=[height,width]"
        )
    height, width = next(iter(final))
    return height + border, width + border


class Geometry(NamedTuple):
    """Crop box (left, upper, right, lower), size after resizing (height, width), and the box taken of that."""

    crop: tuple[int, int, int, int]
    resized: tuple[int, int]
    take: tuple[int, int, int, int]

    @property
    def final(self) -> tuple[int, int]:
        """(height, width) of the result."""
        left, upper, right, lower = self.take
        return lower - upper, right - left


def frame_geometry(
    height: int,
    width: int,
    crop: Literal["center"] | tuple[int, int] | None,
    size: int | tuple[int, int] | None,
) -> Geometry:
    """Where an image of the given size is cut and how it is resized; odd margins put the spare pixel below and right.

    Raises:
        DataError: The crop is larger than the image.
    """
    side = min(height, width)
    h, w = (side, side) if crop == "center" else (crop or (height, width))
    if h > height or w > width:
        raise DataError(f"data.crop={[h, w]} does not fit into an image of height {height} and width {width}")
    box = _centred(height, width, h, w)
    if size is None:
        return Geometry(box, (h, w), (0, 0, w, h))
    th, tw = (size, size) if isinstance(size, int) else size
    factor = max(th / h, tw / w)
    rh, rw = max(th, round(h * factor)), max(tw, round(w * factor))
    return Geometry(box, (rh, rw), _centred(rh, rw, th, tw))


def _centred(height: int, width: int, h: int, w: int) -> tuple[int, int, int, int]:
    upper, left = (height - h) // 2, (width - w) // 2
    return left, upper, left + w, upper + h


def frame(image: Image.Image, source: DataSource) -> Image.Image:
    """Crop and resize as the source says, antialiased: by default bicubic for 8-bit modes and bilinear for mode F."""
    if source.crop is None and source.size is None:
        return image
    geometry = frame_geometry(image.height, image.width, source.crop, source.size)
    image = _cut(image, geometry.crop)
    rh, rw = geometry.resized
    if (image.height, image.width) != (rh, rw):
        name = source.resample or ("bilinear" if image.mode == "F" else "bicubic")
        kind = Image.Resampling.BILINEAR if name == "bilinear" else Image.Resampling.BICUBIC
        image = image.resize((rw, rh), kind)  # PIL widens the filter by the reduction factor: antialiased
    return _cut(image, geometry.take)


def _cut(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    return image if box == (0, 0, image.width, image.height) else image.crop(box)


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Convert to 8-bit grey, RGB or RGBA; transparency is composited over white where it is not kept."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode == mode:
        return image
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if transparent and channels != 4:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert(mode)


def pixels(image: Image.Image, channels: int, source: DataSource) -> np.ndarray:
    """Decode one image: upright, converted where `source.channels` asks for it, framed; uint8 (channels, H, W).

    Raises:
        UnlikeError: The image's mode is not the set's and no conversion was asked for.
    """
    if source.channels is None and NATIVE.get(mode := _true_mode(image)) != channels:
        found = f"has the colour mode {mode}"
        raise UnlikeError(f"{found} where the others have {channels} channel(s); set data.channels to convert")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    values = np.asarray(frame(convert(image, channels), source))
    return _bordered(values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1)), source)


def frame_array(x: np.ndarray, source: DataSource) -> np.ndarray:
    """Crop, resize and pad images (B, C, H, W) of any channel count; uint8 stays uint8, a resize makes float32 else."""
    if source.size is None:
        left, upper, right, lower = frame_geometry(x.shape[2], x.shape[3], source.crop, None).crop
        return _bordered(x[:, :, upper:lower, left:right], source)
    planes: Iterable[np.ndarray] = (x if x.dtype == np.uint8 else x.astype(np.float32)).reshape(-1, *x.shape[2:])
    out = np.stack([np.asarray(frame(Image.fromarray(plane), source)) for plane in planes])
    return _bordered(out.reshape(*x.shape[:2], *out.shape[1:]), source)


def _bordered(x: np.ndarray, source: DataSource) -> np.ndarray:
    """Zeros around the last two axes."""
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(source.pad,) * 2] * 2) if source.pad else x
