"""Tables of examples as pictures: a row per example, a named column per version of it, and the scale in a caption."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.plot.pictures import PAPER, caption_of, figure_image, image_grid, kind, signal_figure

_SIZE = 12
_LINE = 16


def example_table(columns: Mapping[str, Tensor], spec: DataSpec, *, rows: int = 16, caption: str = "") -> Image.Image:
    """Versions of the same examples side by side, with the names of the columns above and the scale below.

    Args:
        columns: Versions by name, each of shape (N, *event) in data units: images, volumes or signals.
        spec: What the examples are.
        rows: The first this many examples are drawn.
        caption: A sentence to add to the scale of the values, e.g. what white means in a column of its own scale.

    Raises:
        ValueError: The examples are vectors, which have no picture of their own, or there are none.
    """
    if kind(spec) == "vector":
        raise ValueError("examples are vectors, of which one alone has no picture; draw them with sf.plot.samples")
    names, versions = list(columns), [x[:rows].float().cpu() for x in columns.values()]
    x = torch.stack(versions, dim=1).flatten(0, 1).nan_to_num(0.0)
    if kind(spec) == "signal":
        grid = figure_image(signal_figure(x, spec, PAPER, len(names), titles=names)).convert("RGB")
        return _framed(grid, [], caption_of(spec), caption)
    font = ImageFont.load_default(_SIZE)
    widest = math.ceil(max(font.getlength(name) for name in names))
    # Images are enlarged by whole factors; one more where a name would not fit.
    tile = 64
    grid = image_grid(x, spec, len(names), tile=tile)
    while grid.width / len(names) < widest + 4:
        tile *= 2
        grid = image_grid(x, spec, len(names), tile=tile)
    return _framed(grid, names, caption_of(spec), caption)


def _framed(grid: Image.Image, names: list[str], *captions: str) -> Image.Image:
    """The grid with names centred above its columns and wrapped captions below."""
    font = ImageFont.load_default(_SIZE)
    character = font.getlength("abcdefghijklmnopqrstuvwxyz") / 26
    width = max(grid.width, 300)
    words = [line for text in captions if text for line in textwrap.wrap(text, max(20, int((width - 8) / character)))]
    head = _LINE + 4 if names else 0
    image = Image.new("RGB", (width, head + grid.height + _LINE * len(words) + 4), "white")
    image.paste(grid, (0, head))
    draw = ImageDraw.Draw(image)
    for j, name in enumerate(names):
        draw.text(((j + 0.5) * grid.width / len(names), head - 2), name, fill=PAPER.ink, font=font, anchor="ms")
    for k, line in enumerate(words):
        draw.text((4, head + grid.height + 2 + k * _LINE), line, fill=PAPER.muted, font=font)
    return image
