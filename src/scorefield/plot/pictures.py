"""Pictures of examples and curves: from tensors in data units and a DataSpec to PNG images and inline SVG.

What an example looks like follows from its shape: images (C, H, W) are grey for one channel, coloured for three and
one panel per channel otherwise; signals (C, L) are line plots; vectors (D,) are scatter plots of pairs of
coordinates; of volumes (C, D, H, W) the middle slice is drawn. Values are clipped here and nowhere else, because a
screen ends at black and white. Figures are made through matplotlib's objects; the global state of pyplot is never
touched.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield._files import replacing
from scorefield.data_spec import DataSpec

if TYPE_CHECKING:  # matplotlib is imported where a figure is drawn, so that a model can be loaded without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["vector", "signal", "image", "volume"]
_RED_GREEN_BLUE = (("r", "g", "b"), ("red", "green", "blue"))
_MOST_POINTS = 2000


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Args:
        ink: Text and axes.
        muted: Secondary marks.
        rule: Grid lines.
        series: Data, in order of use.
    """

    ink: str
    muted: str
    rule: str
    series: tuple[str, ...]


PAPER = Theme("#1f2328", "#656d76", "#d8dee4", ("#2f6fd0", "#c2561a", "#1f8a5b", "#8250a8"))
"""Colours of PNG files, on white."""

PAGE = Theme("#010201", "#010202", "#010203", ("#010204", "#010205", "#010206", "#010207"))
"""Stand-ins that `to_svg` replaces by the page's own colours, so that figures follow light and dark mode."""

_PAGE_COLOURS = {
    "#010201": "currentColor",
    "#010202": "var(--muted)",
    "#010203": "var(--rule)",
    **{f"#01020{4 + i}": f"var(--series-{i + 1})" for i in range(4)},
}


# ---------------------------------------------------------------------------------------------------- examples


def kind(spec: DataSpec) -> Kind:
    """Which sort of picture the data make."""
    kinds: dict[int, Kind] = {1: "vector", 2: "signal", 3: "image", 4: "volume"}
    if len(spec.shape) not in kinds:
        raise ValueError(f"examples of shape {spec.shape} have {len(spec.shape)} axes; pictures are made for 1 to 4")
    return kinds[len(spec.shape)]


def coloured(spec: DataSpec) -> bool:
    """Whether the three channels are red, green and blue: three unnamed ones are, named ones only if so named."""
    names = spec.channel_names
    return spec.shape[0] == 3 and (names is None or tuple(n.lower() for n in names) in _RED_GREEN_BLUE)


def display_range(spec: DataSpec) -> tuple[Tensor, Tensor]:
    """(black, white) in data units per channel: low and high, or offset -+ 3 scale of unbounded data; float64, (C,)."""
    names = ("low", "high") if spec.bounded else ("offset", "scale")
    a, b = (torch.as_tensor(getattr(spec, n), dtype=torch.float64).expand(spec.shape[0]) for n in names)
    return (a, b) if spec.bounded else (a - 3 * b, a + 3 * b)


def _unit_values(x: Tensor, spec: DataSpec) -> Tensor:
    """Data units to 0 (black) .. 1 (white), float64, not clipped."""
    low, high = (v.reshape((-1,) + (1,) * (len(spec.shape) - 1)) for v in display_range(spec))
    return (x.detach().cpu().to(torch.float64) - low) / (high - low)


def shrink_to_range(x: Tensor, spec: DataSpec) -> tuple[Tensor, float]:
    """Noisy examples drawn towards the middle of the display range until 98 % of their values fit.

    Returns:
        x' = middle + (x - middle) / factor, and the factor, 1 for what fits already.
    """
    u = 2 * _unit_values(x, spec) - 1
    values = u.abs().reshape(-1)
    factor = float(values.kthvalue(max(1, math.ceil(0.98 * len(values)))).values)
    factor = factor if math.isfinite(factor) and factor > 1.25 else 1.0
    low, high = (v.reshape((-1,) + (1,) * (len(spec.shape) - 1)) for v in display_range(spec))
    return low + (u / factor + 1) / 2 * (high - low), factor


def caption_of(spec: DataSpec) -> str:
    """Meaning of the greys, colours or axes of a picture, with units."""
    low, high = display_range(spec)
    unit = f" {spec.units}" if spec.units else ""
    what = kind(spec)
    if what == "vector":
        pairs = "" if spec.shape[0] <= 2 else " Neighbouring pairs of coordinates, at most four."
        pairs += f" At most {_MOST_POINTS:,} points are drawn."
        return f"Axes in data units{f' ({spec.units})' if spec.units else ''}.{pairs}"
    if what == "signal":
        names = f" Channels: {', '.join(spec.channel_names)}." if spec.channel_names else ""
        unit = f" ({spec.units})" if spec.units else ""
        return f"Vertical axis in data units{unit}, horizontal axis by position.{names}"
    span = f"{float(low[0]):g} to {float(high[0]):g}{unit}"
    if len(set(low.tolist())) > 1 or len(set(high.tolist())) > 1:
        span = f"each channel's own range{f' in{unit}' if unit else ''}"
        span += " (low to high)" if spec.bounded else " (offset -3 to +3 scales)"
    slice_of = " Middle slice of each volume." if what == "volume" else ""
    clipped = "values outside are clipped in the drawing only."
    if spec.shape[0] == 1:
        return f"Black to white is {span}; {clipped}{slice_of}"
    if coloured(spec):
        return f"Dark to bright is {span} in each colour; {clipped}{slice_of}"
    names = spec.channel_names or tuple(f"channel {c}" for c in range(spec.shape[0]))
    return f"Panels of one example, left to right: {', '.join(names)}. Black to white is {span}; {clipped}{slice_of}"


# ---------------------------------------------------------------------------------------------------- grids


def image_grid(
    x: Tensor,
    spec: DataSpec,
    columns: int | None = None,
    *,
    tile: int = 64,
    background: tuple[int, int, int, int] = (255, 255, 255, 255),
) -> Image.Image:
    """A grid of examples as one picture, row by row.

    Args:
        x: Examples in data units, shape (N, *event); clipped to the display range here.
        spec: What they are.
        columns: Examples per row; chosen for a nearly square picture when None.
        tile: Small images are enlarged by a whole factor to about this many pixels; large ones keep their size.
        background: Colour between the images as red, green, blue, opacity.

    Returns:
        An RGBA image, or RGB where the background is opaque.

    Raises:
        ValueError: Not examples of this spec, or none.
    """
    spec.check(x, name="examples to draw", values=False)
    if len(x) == 0:
        raise ValueError("there are no examples to draw; give at least one")
    if kind(spec) in ("vector", "signal"):
        figure = scatter_figure(x, spec, PAPER) if kind(spec) == "vector" else signal_figure(x, spec, PAPER, columns)
        return figure_image(figure)
    tiles = _tiles(x, spec, tile)
    count, height, width = tiles.shape[:3]
    columns = min(columns or _fitting_columns(count, math.sqrt(count * height / width)), count)
    rows = math.ceil(count / columns)
    # Panels of one example stand closer together than examples do.
    gap = max(1, round(min(height, width) / (16 if _panels(spec) == 1 else 6)))
    canvas = np.empty((rows * (height + gap) + gap, columns * (width + gap) + gap, 4), np.uint8)
    canvas[:] = np.array(background, np.uint8)
    for i, picture in enumerate(tiles):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        seen = picture[..., 3] > 0
        canvas[top : top + height, left : left + width][seen] = picture[seen]
    image = Image.fromarray(canvas)
    return image.convert("RGB") if background[3] == 255 else image


def wide_columns(count: int, spec: DataSpec) -> int:
    """How many examples to put in a row of a page, half as wide again as high."""
    height, width = (spec.shape[-2], _panels(spec) * spec.shape[-1]) if len(spec.shape) > 2 else (1, 1)
    return _fitting_columns(count, math.sqrt(1.5 * count * height / width))


def _panels(spec: DataSpec) -> int:
    return 1 if coloured(spec) else spec.shape[0]


def _fitting_columns(count: int, wanted: float) -> int:
    """Near the wanted number, preferring one that leaves no hole in the last row."""
    wanted = min(max(wanted, 1.0), count)
    near = range(math.ceil(0.7 * wanted), min(count, math.floor(1.4 * wanted)) + 1)
    return min(near, key=lambda c: (-count % c / c, abs(math.log(c / wanted))))


def _tiles(x: Tensor, spec: DataSpec, tile: int) -> np.ndarray:
    """Each example as an RGBA picture, channels side by side unless grey or coloured: uint8 (N, height, width, 4)."""
    u = torch.nan_to_num(_unit_values(x, spec)).clamp(0, 1)
    if kind(spec) == "volume":
        u = u[:, :, u.shape[2] // 2]
    grey = (u * 255).round().to(torch.uint8).numpy()
    scale = max(1, round(tile / max(grey.shape[2:])))
    grey = grey.repeat(scale, axis=2).repeat(scale, axis=3)
    n, channels, height, width = grey.shape
    if coloured(spec):
        panels = [grey.transpose(0, 2, 3, 1)]
    else:
        panels = [np.repeat(grey[:, c, :, :, None], 3, axis=3) for c in range(channels)]
    between = np.zeros((n, height, max(1, scale // 2), 4), np.uint8)
    opaque = np.full((n, height, width, 1), 255, np.uint8)
    parts = []
    for panel in panels:
        parts += (
            [between, np.concatenate([panel, opaque], axis=3)] if parts else [np.concatenate([panel, opaque], axis=3)]
        )
    return np.concatenate(parts, axis=2)


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(image: Image.Image, path: str | Path) -> Path:
    """Write a PNG so that a reader sees the old file or the new one, never half of one."""
    with replacing(path) as temporary:
        temporary.write_bytes(png_bytes(image))
    return Path(path)


def value_range(x: Tensor) -> str:
    """The range of values in words, and how many are not finite."""
    finite = x[torch.isfinite(x)]
    if not len(finite):
        return "no finite values"
    bad = x.numel() - finite.numel()
    words = f"values {float(finite.min()):.4g} to {float(finite.max()):.4g}"
    return f"{words} ({bad} not finite)" if bad else words


def html_of(x: Tensor, spec: DataSpec | None, text: str, most: int = 64) -> str:
    """The first examples as an embedded picture above their description; the description alone without a spec."""
    words = f"<pre>{escape(text)}</pre>"
    if spec is None or not len(x) or len(spec.shape) > 4:
        return words
    shown = x[:most] if kind(spec) != "vector" else x
    data = base64.b64encode(png_bytes(image_grid(shown.float(), spec))).decode()
    return f'<img alt="{escape(text.splitlines()[0])}" src="data:image/png;base64,{data}"/>{words}'


# ---------------------------------------------------------------------------------------------------- figures


def scatter_figure(x: Tensor, spec: DataSpec, theme: Theme, titles: Sequence[str] | None = None) -> Figure:
    """Vectors as scatter plots of neighbouring coordinates, or as a histogram where there is one coordinate.

    Args:
        x: Shape (N, D), or (S, N, D) for one panel per entry of the first axis (its first two coordinates).
        spec: What they are; fixes the axes, so that figures of one spec can be compared.
        theme: Colours.
        titles: One per panel.
    """
    size = spec.shape[0]
    if x.ndim == 3:
        panels = [(frame, 0) for frame in x]
    else:
        panels = [(x, d) for d in range(0, max(1, size - 1), 2)][:4]
    across = math.ceil(len(panels) / math.ceil(len(panels) / 4))
    most = _MOST_POINTS // min(4, len(panels))
    down = math.ceil(len(panels) / across)
    one = 3.2 if len(panels) == 1 else 1.7
    figure, axes = grid_of_axes(theme, down, across, (one, one), above=0.46 if down > 1 else 0.28 if titles else 0.1)
    names = coordinate_names(spec)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for k, (ax, (points, d)) in enumerate(zip(axes, panels, strict=False)):
        draw_points(ax, points[:most], spec, theme, d)
        if titles:
            ax.set_title(titles[k], fontsize=9, color=theme.ink)
        else:
            shown = f"{names[d]}, count" if size == 1 else f"{names[d]}, {names[d + 1]}"
            ax.set_xlabel(shown, labelpad=2)
    return figure


def coordinate_names(spec: DataSpec) -> tuple[str, ...]:
    """Names of the coordinates of vectors or the channels of signals."""
    return spec.channel_names or tuple(f"coordinate {d}" for d in range(spec.shape[0]))


def draw_points(ax: Axes, x: Tensor, spec: DataSpec, theme: Theme, first: int = 0) -> None:
    """Coordinates `first` and `first + 1` of vectors (N, D) as points, or the only one as a histogram.

    The limits of the axes are those of the spec, so that drawings of one spec can be compared.
    """
    values = x.detach().cpu().to(torch.float64).numpy()
    low, high = display_range(spec)
    margin = 0.05 * (high - low)
    ax.set_xlim(float((low - margin)[first]), float((high + margin)[first]))
    if spec.shape[0] == 1:
        ax.hist(values[:, 0], bins=50, color=theme.series[0])
    else:
        ax.scatter(values[:, first], values[:, first + 1], s=4, color=theme.series[0], alpha=0.55, linewidths=0)
        ax.set_ylim(float((low - margin)[first + 1]), float((high + margin)[first + 1]))


def draw_signal(ax: Axes, x: Tensor, spec: DataSpec, theme: Theme) -> None:
    """One signal (C, L), a line for each channel, on the range of the spec."""
    low, high = (float(v) for v in (display_range(spec)[0].min(), display_range(spec)[1].max()))
    for c, line in enumerate(x.detach().cpu().to(torch.float64).numpy()):
        ax.plot(line, color=theme.series[c % len(theme.series)], linewidth=1.0)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def signal_figure(
    x: Tensor, spec: DataSpec, theme: Theme, columns: int | None = None, titles: Sequence[str] | None = None
) -> Figure:
    """Signals as small line plots with common axes, one line per channel.

    Args:
        x: Shape (N, C, L).
        spec: What they are.
        theme: Colours.
        columns: Plots per row.
        titles: Titles of the first plots.
    """
    columns = min(columns or 4, len(x))
    rows = math.ceil(len(x) / columns)
    # Titles stand over the first row; all rows get their room, so that the panels stay equal.
    figure, axes = grid_of_axes(theme, rows, columns, (1.5, 0.85), above=0.24 if titles else 0.12, beside=0.34)
    for k, ax in enumerate(axes):
        if k >= len(x):
            ax.set_visible(False)
            continue
        draw_signal(ax, x[k], spec, theme)
        ax.tick_params(labelleft=k % columns == 0, labelbottom=k + columns >= len(x))
        if titles and k < len(titles):
            ax.set_title(titles[k], fontsize=9, color=theme.ink)
    return figure


def grid_of_axes(
    theme: Theme,
    rows: int,
    columns: int,
    panel: tuple[float, float],
    *,
    above: float = 0.1,
    beside: float = 0.45,
    below: float = 0.32,
) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels with fixed margins, in inches; solving for the best margins would double its cost.

    Args:
        theme: Colours.
        rows: Panels from top to bottom.
        columns: Panels from left to right.
        panel: Width and height of one panel without its margins.
        above: Room over each row, for titles.
        beside: Room left of each column, for tick labels.
        below: Room under the last row, for tick labels; 0.5 has room for the name of an axis too.
    """
    from matplotlib.figure import Figure

    right = 0.08
    width = columns * (panel[0] + beside) + right
    height = rows * (panel[1] + above) + below
    figure = Figure(figsize=(width, height), dpi=72)
    margins = {
        "left": beside / width,
        "right": 1 - right / width,
        "bottom": below / height,
        "top": 1 - above / height,
        "wspace": beside / panel[0],
        "hspace": above / panel[1],
    }
    axes = list(np.asarray(figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins)).reshape(-1))
    for ax in axes:
        style_axes(ax, theme)
        ax.locator_params(nbins=max(3, round(panel[0] / 0.5)), axis="x")
        ax.locator_params(nbins=max(3, round(panel[1] / 0.4)), axis="y")
    return figure, axes


def style_axes(ax: Axes, theme: Theme) -> None:
    """Thin rules, small type, no box."""
    ax.set_facecolor("none")
    ax.set_axisbelow(True)
    ax.grid(True, color=theme.rule, linewidth=0.6)
    for name, spine in ax.spines.items():
        spine.set_visible(name == "bottom")
        spine.set(color=theme.muted, linewidth=0.8)
    ax.tick_params(which="both", colors=theme.muted, labelsize=8.5, length=0, pad=3)
    ax.tick_params(which="major", axis="x", length=3)
    ax.xaxis.label.set(color=theme.muted, fontsize=8.5)
    ax.yaxis.label.set(color=theme.muted, fontsize=8.5)


def to_svg(figure: Figure, label: str) -> str:
    """The figure as an inline SVG element in the page's own colours and type.

    Args:
        figure: Drawn with the theme PAGE.
        label: What it shows, for readers who do not see it.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scorefield"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # Several figures share one page, so their ids must not meet.
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    for stand_in, colour in _PAGE_COLOURS.items():
        text = text.replace(stand_in, colour)
    text = re.sub(r"(font: [^;\"']*?px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    safe = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{safe}">', text, count=1)


def figure_image(figure: Figure) -> Image.Image:
    """The figure, drawn with the theme PAPER, as a picture of 144 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")
