"""Training curves from the rows of metrics.jsonl, for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, caption_of_figure, number

_RAMP = ((0.0, (79, 134, 224)), (0.5, (176, 104, 200)), (1.0, (224, 122, 63)))
"""Least noise to most noise: blue, purple, orange of middle lightness, to be read on white and on black."""
_MOST_VERTICES = 400


def loss_curves(
    rows: Sequence[Mapping[str, Any]], *, loss_unit: str = "mean over examples", bin_unit: str = "t"
) -> Block:
    """Training and validation loss, loss by noise level, gradient norm and learning rate against the step.

    Args:
        rows: Rows of metrics.jsonl; of the keys step, seconds, loss, loss_bins, bin_edges, validation, lr and grad_norm
            any but step may be missing, None or not finite, in any row.
        loss_unit: What the loss is, for the axis.
        bin_unit: What the bin edges are.
    """
    charts = [_loss_chart(rows, loss_unit), *_bin_charts(rows, loss_unit, bin_unit)]
    for key, title in (("grad_norm", "Gradient norm before clipping"), ("lr", "Learning rate")):
        steps, values = _column(rows, key)
        if len(steps):
            charts.append(_chart(title, "step", "", [(steps, values, PAGE.series[0], "", False)]))
    shown = "".join(chart for chart in charts if chart)
    if not shown:
        return Block("<p>No training rows were recorded.</p>")
    return Block(f'<figure><div class="charts">{shown}</div>{caption_of_figure(_summary(rows))}</figure>')


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    steps, _ = _column(rows, "step")
    _, seconds = _column(rows, "seconds")
    words = [f"To step {int(steps[-1]):,}" if len(steps) else "", f"{_duration(seconds[-1])}" if len(seconds) else ""]
    last = [
        f"last {what} {number(float(values[-1]))}"
        for key, what in (("loss", "training loss"), ("validation", "validation loss"))
        for values in [_column(rows, key)[1]]
        if len(values)
    ]
    return ", ".join(filter(None, [*words, *last])) + ". Strong lines are running means of the faint ones."


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _loss_chart(rows: Sequence[Mapping[str, Any]], unit: str) -> str:
    lines = []
    steps, loss = _column(rows, "loss")
    if len(steps):
        smooth = _running_mean(loss)
        if len(steps) > 20:
            lines.append((steps, loss, PAGE.series[0], "", True))
        lines.append((steps, smooth, PAGE.series[0], "training", False))
    steps, validation = _column(rows, "validation")
    if len(steps):
        lines.append((steps, validation, PAGE.series[1], "validation, fixed noise", False))
    return _chart("Loss", "step", unit, lines) if lines else ""


def _bin_charts(rows: Sequence[Mapping[str, Any]], unit: str, bin_unit: str) -> list[str]:
    """The loss of each noise bin against the step, and the last losses against the noise level."""
    kept = [r for r in rows if r.get("loss_bins") is not None and r.get("step") is not None]
    if not kept:
        return []
    count = len(kept[-1]["loss_bins"])
    kept = [r for r in kept if len(r["loss_bins"]) == count]
    steps = np.array([r["step"] for r in kept], float)
    losses = np.array([[_float(v) for v in r["loss_bins"]] for r in kept])
    edges = kept[-1].get("bin_edges")
    if edges is None or len(edges) != count + 1:
        edges, bin_unit = list(range(count + 1)), "bin"
    lines = []
    for k in range(count):
        seen = np.isfinite(losses[:, k])
        if seen.any():
            label = f"{edges[k]:.3g} to {edges[k + 1]:.3g}"
            lines.append((steps[seen], _running_mean(losses[seen, k]), _ramp(k / max(1, count - 1)), label, False))
    if not lines:
        return []
    tail = losses[-max(1, len(losses) // 10) :]
    finite = [column[np.isfinite(column)] for column in tail.T]
    last = np.array([column.mean() if len(column) else np.nan for column in finite])
    last_rows = f"{len(tail)} rows" if len(tail) > 1 else "row"
    return [
        _chart("Loss of each noise level", "step", unit, lines, f"{bin_unit} from"),
        _bars(f"Loss by noise level, last {last_rows}", bin_unit, unit, np.asarray(edges, float), last),
    ]


# ---------------------------------------------------------------------------------------------------- one chart


def _chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[tuple[np.ndarray, np.ndarray, str, str, bool]],
    keyed: str = "",
) -> str:
    """A titled line chart with its legend as text, which wraps on a narrow screen."""
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (3.5, 2.0), above=0.2)
    ax.set_xlabel(x_label, labelpad=2)
    for x, y, colour, _, faint in lines:
        x, y = _thinned(x, y)
        alone = "o" if len(x) == 1 else None
        ax.plot(
            x, y, color=colour, linewidth=0.8 if faint else 1.6, alpha=0.3 if faint else 1.0, marker=alone, markersize=4
        )
    _choose_scale(ax, np.concatenate([y for _, y, *_ in lines]))
    keys = "".join(
        f'<span><i style="background:{_css(colour)}"></i>{escape(label)}</span>'
        for _, _, colour, label, _ in lines
        if label
    )
    keyed = f"<span>{escape(keyed)}</span>" if keyed else ""
    legend = f'<div class="legend">{keyed}{keys}</div>' if keys else ""
    return f'<div class="chart"><h3>{escape(title)}{_unit(y_label)}</h3>{to_svg(figure, title)}{legend}</div>'


def _bars(title: str, x_label: str, y_label: str, edges: np.ndarray, values: np.ndarray) -> str:
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (3.5, 2.0), above=0.2)
    ax.set_xlabel(x_label, labelpad=2)
    for k, value in enumerate(values):
        if math.isfinite(value):
            colour = _ramp(k / max(1, len(values) - 1))
            ax.plot(edges[k : k + 2], [value, value], color=colour, linewidth=3, solid_capstyle="butt")
    _choose_scale(ax, values[np.isfinite(values)])
    return f'<div class="chart"><h3>{escape(title)}{_unit(y_label)}</h3>{to_svg(figure, title)}</div>'


def _choose_scale(ax: Axes, values: np.ndarray) -> None:
    """Logarithmic where the values are positive and span a factor of 20; else from zero where that is near."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 20:
        ax.set_yscale("log")
        return
    if 0 <= low < 0.4 * high:
        ax.set_ylim(bottom=0)
    ax.ticklabel_format(axis="y", scilimits=(-2, 4))
    ax.yaxis.get_offset_text().set(color=PAGE.muted, fontsize=8)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of the rows in which the key holds a finite number."""
    pairs = [(_float(r.get("step")), _float(r.get(key))) for r in rows]
    pairs = [p for p in pairs if all(map(math.isfinite, p))]
    steps, values = (np.array(c, float) for c in zip(*pairs, strict=True)) if pairs else (np.empty(0), np.empty(0))
    return steps, values


def _float(value: Any) -> float:
    try:
        return float(value)  # also reads "nan" and "inf", which strict JSON writes as text
    except (TypeError, ValueError):
        return float("nan")


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a fortieth of the run, over fewer values towards its ends."""
    half = len(values) // 80
    if half == 0:
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(np.minimum(at, len(values) - 1 - at), half)
    return (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MOST_VERTICES` of the points, the first and last among them; a screen shows no more."""
    if len(x) <= _MOST_VERTICES:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, _MOST_VERTICES).round().astype(int))
    return x[keep], y[keep]


def _unit(unit: str) -> str:
    return f"<small>{escape(unit)}</small>" if unit else ""


def _ramp(position: float) -> str:
    places = [place for place, _ in _RAMP]
    mixed = [round(float(np.interp(position, places, [colour[i] for _, colour in _RAMP]))) for i in range(3)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _css(colour: str) -> str:
    return f"var(--series-{PAGE.series.index(colour) + 1})" if colour in PAGE.series else colour
