"""Training curves: what metrics.jsonl holds, as lines on axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.plot.pictures import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_VERTICES = 400


@dataclass(frozen=True)
class Line:
    """A curve of a chart; faint lines are the raw values behind a running mean."""

    x: np.ndarray
    y: np.ndarray
    colour: str
    label: str = ""
    faint: bool = False


def loss_lines(rows: Sequence[Mapping[str, Any]], theme: Theme) -> list[Line]:
    """Training loss with its running mean, and validation loss, against the step.

    Args:
        rows: Rows of metrics.jsonl; keys may be missing, None or not finite in any row.
        theme: Colours.
    """
    lines = []
    steps, loss = column(rows, "loss")
    if len(steps):
        if len(steps) > 20:
            lines.append(Line(steps, loss, theme.series[0], faint=True))
        lines.append(Line(steps, running_mean(loss), theme.series[0], "training"))
    steps, validation = column(rows, "validation")
    if len(steps):
        lines.append(Line(steps, validation, theme.series[1], "validation, fixed noise"))
    return lines


def draw_lines(ax: Axes, lines: Sequence[Line], theme: Theme) -> None:
    """Draw lines on axes, with a logarithmic scale where the values span a factor of 20."""
    for line in lines:
        x, y = thinned(line.x, line.y)
        width, opacity = (0.8, 0.3) if line.faint else (1.6, 1.0)
        alone = "o" if len(x) == 1 else None
        ax.plot(
            x,
            y,
            color=line.colour,
            linewidth=width,
            alpha=opacity,
            marker=alone,
            markersize=4,
            label=line.label or None,
        )
    choose_scale(ax, np.concatenate([line.y for line in lines]), theme)


def choose_scale(ax: Axes, values: np.ndarray, theme: Theme) -> None:
    """Logarithmic where the values are positive and span a factor of 20; else from zero where that is near."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 20:
        ax.set_yscale("log")
        return
    if 0 <= low < 0.4 * high:
        ax.set_ylim(bottom=0)
    ax.ticklabel_format(axis="y", scilimits=(-2, 4))
    ax.yaxis.get_offset_text().set(color=theme.muted, fontsize=8)


def column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of the rows in which the key holds a finite number."""
    pairs = [(number_of(r.get("step")), number_of(r.get(key))) for r in rows]
    pairs = [p for p in pairs if all(map(math.isfinite, p))]
    steps, values = (np.array(c, float) for c in zip(*pairs, strict=True)) if pairs else (np.empty(0), np.empty(0))
    return steps, values


def number_of(value: Any) -> float:
    """A value of metrics.jsonl as a number; NaN where it is none."""
    try:
        return float(value)  # also reads "nan" and "inf", which strict JSON writes as text
    except (TypeError, ValueError):
        return float("nan")


def running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a fortieth of the run, over fewer values towards its ends."""
    half = len(values) // 80
    if half == 0:
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(np.minimum(at, len(values) - 1 - at), half)
    return (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MOST_VERTICES` of the points, the first and last among them; a screen shows no more."""
    if len(x) <= _MOST_VERTICES:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, _MOST_VERTICES).round().astype(int))
    return x[keep], y[keep]
