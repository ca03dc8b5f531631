"""The table of samplers as a report: quality against calls, the table itself, failures, and what it depends on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scorefield.models.sampler_records import STANDARD_ERRORS, Measured, SamplerRow, SamplerTable
from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, facts, number, table, text

_LINES = ("-", "--", ":", "-.")
_MARKS = ("o", "s", "^", "D", "v", "P")

COLUMNS = ("sampler", "calls", "s / sample", "error", "to data", "beyond the flow", "to the flow", "failed", "best by")


def cells(row: SamplerRow) -> tuple[str, ...]:
    """A row as text, in the order of `COLUMNS`."""
    best = [name for name, is_best in (("error", row.best_error), ("distance", row.best_distance)) if is_best]
    return (
        row.title,
        f"{row.calls:.4g}",
        f"{row.seconds:.3g}",
        _shown(row.error),
        _shown(row.to_data),
        _shown(row.beyond_flow),
        _shown(row.to_flow),
        str(row.failed or ""),
        ", ".join(best),
    )


def _shown(value: Measured | None) -> str:
    if value is None:
        return ""
    return f"{value.number:.3g}\u00a0±\u00a0{STANDARD_ERRORS * value.std_error:.1g}"  # kept on one line


def ordered(found: SamplerTable) -> list[SamplerRow]:
    """Rows by name and variant in the order in which they were measured, then by calls."""
    place = {title: i for i, title in reversed(list(enumerate(_curve_of(row) for row in found.rows)))}
    return sorted(found.rows, key=lambda row: (place[_curve_of(row)], row.calls))


def _curve_of(row: SamplerRow) -> str:
    """Rows of one line: those of a solver that chooses its steps differ by tolerance, not by number of steps."""
    return row.name if row.sampler.step.calls_per_step() is None else row.title


def sections(found: SamplerTable) -> list[Section]:
    """The parts of the report."""
    rows = ordered(found)
    front = sorted((row for row in rows if row.best_error or row.best_distance), key=lambda row: row.calls)
    out = [Section("In short", [_headline(found), text(_words(found))])]
    charts = [_error_chart(rows), _distance_chart(rows)]
    out.append(Section("Quality against calls", [block for block in charts if block is not None]))
    if front:
        caption = "Samplers that no cheaper one makes superfluous, by error or, beyond the noise, by distance."
        out.append(Section("Best for their cost", [table(COLUMNS, [cells(row) for row in front], caption)]))
    caption = "Errors and distances in model units with the half-width of their 95 % interval."
    out.append(Section("All", [table(COLUMNS, [cells(row) for row in rows], caption)]))
    if found.refused:
        out.append(
            Section(
                "Not measured",
                [table(["sampler", "calls", "why"], [[r.name, r.calls or "", r.reason] for r in found.refused])],
            )
        )
    out.append(Section("Receipt", [Block(definitions(list(found.receipt.lines())))]))
    return out


def _headline(found: SamplerTable) -> Block:
    items: dict[str, object] = {"samples of each sampler": found.receipt.count, "measured": len(found.rows)}
    for bound in (1e-1, 1e-2, 1e-3):
        good = [r for r in found.rows if r.error is not None and not r.failed and r.error.interval[1] <= bound]
        if good:
            least = min(good, key=lambda row: row.calls)
            items[f"calls to an error of {bound:g} ({least.title})"] = f"{least.calls:.4g}"
    return facts(items)


def _words(found: SamplerTable) -> str:
    receipt = found.receipt
    words = []
    if receipt.reference is not None and receipt.reference_error is not None:
        words.append(
            "Error is the root mean square difference from the converged probability flow out of the same latents, for"
            " samplers that draw no noise. The flow's own samples are uncertain by about"
            f" {number(receipt.reference_uncertainty)}: they change by {number(receipt.reference_error)} when its"
            " tolerance is ten times as large."
        )
    if receipt.data is not None:
        words.append(
            "Distance to data is the squared energy distance to held-out examples, unbiased, so that noise may make it"
            " negative; it is of the model and the sampler. What lies beyond the converged flow's distance is of the"
            " sampler alone, and known much better, because noise and data are shared."
        )
    return "\n\n".join(words)


# ------------------------------------------------------------------------------------------------ charts


def _error_chart(rows: Sequence[SamplerRow]) -> Block | None:
    """Errors against calls, both logarithmic."""
    kept = [row for row in rows if row.error is not None and row.error.number > 0]
    if not kept:
        return None
    figure, ax = _axes(len({_curve_of(row) for row in kept}))
    ax.set_yscale("log")
    _curves(ax, [(row, row.error) for row in kept], _names(rows), front=lambda row: row.best_error)
    title = "Error against the converged flow, model units"
    return _chart(figure, title, "Bars: 95 %. Ringed: no cheaper sampler has an error as small.")


def _distance_chart(rows: Sequence[SamplerRow]) -> Block | None:
    """Distances against calls, with zero in the middle: logarithmic outside the noise, linear inside."""
    by_data = any(row.beyond_flow is not None for row in rows)
    pairs = [(row, row.beyond_flow if by_data else row.to_data or row.to_flow) for row in rows]
    kept = [(row, value) for row, value in pairs if value is not None and not row.variant.endswith(" grid")]
    if not kept:
        return None
    noise = sorted(value.std_error for _, value in kept)[len(kept) // 2]
    figure, ax = _axes(len({_curve_of(row) for row, _ in kept}))
    ax.set_yscale("symlog", linthresh=max(STANDARD_ERRORS * noise, 1e-12))
    ax.axhline(0.0, color=PAGE.muted, linewidth=0.8)
    _curves(ax, kept, _names(rows), front=lambda row: row.best_distance)
    title = "Squared energy distance" + (" to data beyond that of the converged flow" if by_data else "")
    words = "Bars: 95 %. Ringed: better than every cheaper sampler by more than the noise. The axis is linear about 0."
    return _chart(figure, title, words)


def _axes(curves: int) -> tuple[Figure, Axes]:
    """One wide panel with room for the key below it."""
    key = 0.17 * math.ceil(curves / 3) + 0.25
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (6.6, 3.0 + key), above=0.1, beside=0.55)
    height = figure.get_size_inches()[1]
    box, bottom = ax.get_position(), (0.42 + key) / height
    ax.set_position((box.x0, bottom, box.width, box.y1 - bottom))
    ax.set_xscale("log")
    ax.set_xlabel("network calls per sample", labelpad=2)
    return figure, ax


def _names(rows: Sequence[SamplerRow]) -> list[str]:
    """Samplers in the order of their colours and lines, the same in every chart."""
    return list(dict.fromkeys(row.name for row in rows))


def _curves(
    ax: Axes,
    pairs: Sequence[tuple[SamplerRow, Measured | None]],
    names: Sequence[str],
    *,
    front: Callable[[SamplerRow], bool],
) -> None:
    marks: dict[str, itertools.count] = {name: itertools.count() for name in names}
    for title, group in itertools.groupby(pairs, key=lambda pair: _curve_of(pair[0])):
        curve = [(row, value) for row, value in group if value is not None]
        k = names.index(curve[0][0].name)
        nth = next(marks[names[k]])
        colour, line = PAGE.series[k % 4], _LINES[(k // 4) % 4]
        calls, values = [row.calls for row, _ in curve], [value.number for _, value in curve]
        bars = [STANDARD_ERRORS * value.std_error for _, value in curve]
        ax.errorbar(
            calls, values, bars, color=colour, linestyle=line, linewidth=1.3 if nth == 0 else 0.7,
            elinewidth=0.7, marker=_MARKS[nth % len(_MARKS)], markersize=4, label=title,
        )  # fmt: skip
        ringed = [(c, v) for (row, _), c, v in zip(curve, calls, values, strict=True) if front(row)]
        if ringed:
            ax.plot(*zip(*ringed, strict=True), "o", markersize=9, markerfacecolor="none", color=PAGE.ink)
    ticks = [c for c in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if _inside(c, ax.get_xlim())]
    ax.set_xticks(ticks, labels=[str(c) for c in ticks])
    ax.minorticks_off()


def _inside(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _chart(figure: Figure, title: str, words: str) -> Block:
    ax = figure.axes[0]
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower left", ncols=3, fontsize=7.5, frameon=False, labelcolor=PAGE.ink,
        bbox_to_anchor=(0.06, 0.0), handlelength=2.6, columnspacing=1.6,
    )  # fmt: skip
    svg = to_svg(figure, title)
    return Block(f'<figure><h3>{title}</h3><div class="chart wide">{svg}</div>{caption_of_figure(words)}</figure>')
