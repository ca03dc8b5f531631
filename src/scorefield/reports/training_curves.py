"""Training curves from the rows of metrics.jsonl, for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from scorefield.plot.curves import Line, choose_scale, column, draw_lines, loss_lines, number_of, running_mean
from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, caption_of_figure, number

_RAMP = ((0.0, (79, 134, 224)), (0.5, (176, 104, 200)), (1.0, (224, 122, 63)))
"""Least noise to most noise: blue, purple, orange of middle lightness, to be read on white and on black."""


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
        steps, values = column(rows, key)
        if len(steps):
            charts.append(_chart(title, "step", "", [Line(steps, values, PAGE.series[0])]))
    shown = "".join(chart for chart in charts if chart)
    if not shown:
        return Block("<p>No training rows were recorded.</p>")
    return Block(f'<figure><div class="charts">{shown}</div>{caption_of_figure(_summary(rows))}</figure>')


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    steps, _ = column(rows, "step")
    _, seconds = column(rows, "seconds")
    words = [f"To step {int(steps[-1]):,}" if len(steps) else "", f"{_duration(seconds[-1])}" if len(seconds) else ""]
    last = [
        f"last {what} {number(float(values[-1]))}"
        for key, what in (("loss", "training loss"), ("validation", "validation loss"))
        for values in [column(rows, key)[1]]
        if len(values)
    ]
    return ", ".join(filter(None, [*words, *last])) + ". Strong lines are running means of the faint ones."


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _loss_chart(rows: Sequence[Mapping[str, Any]], unit: str) -> str:
    lines = loss_lines(rows, PAGE)
    return _chart("Loss", "step", unit, lines) if lines else ""


def _bin_charts(rows: Sequence[Mapping[str, Any]], unit: str, bin_unit: str) -> list[str]:
    """The loss of each noise bin against the step, and the last losses against the noise level."""
    kept = [r for r in rows if r.get("loss_bins") is not None and r.get("step") is not None]
    if not kept:
        return []
    count = len(kept[-1]["loss_bins"])
    kept = [r for r in kept if len(r["loss_bins"]) == count]
    steps = np.array([r["step"] for r in kept], float)
    losses = np.array([[number_of(v) for v in r["loss_bins"]] for r in kept])
    edges = kept[-1].get("bin_edges")
    if edges is None or len(edges) != count + 1:
        edges, bin_unit = list(range(count + 1)), "bin"
    lines = []
    for k in range(count):
        seen = np.isfinite(losses[:, k])
        if seen.any():
            label = f"{edges[k]:.3g} to {edges[k + 1]:.3g}"
            lines.append(Line(steps[seen], running_mean(losses[seen, k]), _ramp(k / max(1, count - 1)), label))
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
    lines: Sequence[Line],
    keyed: str = "",
) -> str:
    """A titled line chart with its legend as text, which wraps on a narrow screen."""
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (3.5, 2.0), above=0.2)
    ax.set_xlabel(x_label, labelpad=2)
    draw_lines(ax, lines, PAGE)
    keys = "".join(
        f'<span><i style="background:{_css(line.colour)}"></i>{escape(line.label)}</span>'
        for line in lines
        if line.label
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
    choose_scale(ax, values[np.isfinite(values)], PAGE)
    return f'<div class="chart"><h3>{escape(title)}{_unit(y_label)}</h3>{to_svg(figure, title)}</div>'


def _unit(unit: str) -> str:
    return f"<small>{escape(unit)}</small>" if unit else ""


def _ramp(position: float) -> str:
    places = [place for place, _ in _RAMP]
    mixed = [round(float(np.interp(position, places, [colour[i] for _, colour in _RAMP]))) for i in range(3)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _css(colour: str) -> str:
    return f"var(--series-{PAGE.series.index(colour) + 1})" if colour in PAGE.series else colour
