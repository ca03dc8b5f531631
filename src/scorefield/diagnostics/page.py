"""A checkup as text and as a report: verdict, findings, the table of levels, and the gain of each remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from scorefield.diagnostics.examination import Examination
from scorefield.diagnostics.faults import MARGIN, Diagnosis
from scorefield.diagnostics.findings import Finding
from scorefield.diagnostics.readings import Row
from scorefield.diagnostics.records import Checkup
from scorefield.diagnostics.statistics import Size
from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, facts, table, text

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headings, and rows of as many cells."""

ROUNDING = 1e-9
"""Below it a number and its interval are shown as 0."""

LEAST = -0.2
"""Left end of the chart of remedies."""

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("loss", "loss", ""),
    ("floor", "above floor", ""),
    ("explained", "explained", ""),
    ("gaussian", "to Gaussian", ""),
    ("bias", "bias", "bias"),
    ("slope_x0", "slope x0", "slope of x0"),
    ("slope_z", "slope z", "slope of z"),
    ("calibration", "calibration", "calibration"),
    ("asymmetry", "asymmetry", ""),
    ("fokker_planck", "Fokker-Planck", ""),
    ("gap", "spared", ""),
)
"""Field of a row, its heading, and the identity that may fail there."""


_BRIEF = ("loss", "floor", "explained", "gaussian", "slope_x0", "slope_z", "calibration", "asymmetry")
"""Columns of a terminal."""


def levels(found: Examination, *, brief: bool = False) -> Table:
    """One line a level; an asterisk marks an identity that fails. Columns that nobody knows are left out."""
    kept = [c for c in _COLUMNS if any(getattr(row, c[0]) is not None for row in found.rows)]
    if brief:
        kept = [c for c in kept if c[0] in _BRIEF or found.rows[0].loss is None]
    cells = [
        (
            f"{row.time:.3g}",
            f"{row.sigma:.3g}",
            *(f"{shown(getattr(row, field))}{'*' if name in row.rejected else ''}" for field, _, name in kept),
            row.verdict,
        )
        for row in found.rows
    ]
    return ("t", "sigma", *(heading for _, heading, _ in kept), "verdict"), cells


def shown(size: Size | None) -> str:
    """A number and half of its interval."""
    if size is None:
        return ""
    half = 0.5 * (size.high - size.low)
    if max(half, abs(size.value)) < ROUNDING:
        return "0"
    return f"{size.value:.3g}\u00a0±{half:.1g}" if half > 0.0 else f"{size.value:.3g}"


def lines(found: Examination) -> list[str]:
    """The findings as sentences."""
    out = []
    for finding in found.findings:
        out.append(f"{finding.verdict:8} {finding.name}: {finding.says}")
        if finding.advice:
            out.append(f"{'':8} try: {finding.advice}")
    return out + [f"not examined: {what}" for what in found.not_examined]


def remedies(found: Examination, most: int = 8) -> Table:
    """The best remedy of each fault."""
    cells = [
        (
            d.name,
            d.says,
            shown(d.asked),
            shown(d.fall),
            "<1e\u201112" if d.p_value < 1e-12 else f"{d.p_value:.1g}",
            d.verdict,
        )
        for d in _best(found)[:most]
    ]
    return ("fault", "what it would say", "asked for", "takes", "p", "verdict"), cells


def _best(found: Examination) -> list[Diagnosis]:
    """The remedy of each fault that takes most, those that are named first."""
    best: dict[str, Diagnosis] = {}
    for d in sorted(found.tried, key=lambda d: (d != found.named, d.verdict == "healthy")):
        best.setdefault(d.name, d)
    return list(best.values())


def sections(checkup: Checkup) -> list[Section]:
    """The parts of the report."""
    found = checkup.examination
    head = {
        "verdict": found.verdict,
        "named fault": found.named.name if found.named is not None else "none",
        "levels": len(found.rows),
        "examples" if checkup.receipt.data else "own samples": found.count,
    }
    out = [Section("In short", [facts(head), *map(_told, found.findings)])]
    charts = _charts(found.rows)
    if charts:
        grid = f'<div class="charts">{"".join(charts)}</div>'
        out.append(Section("Level by level", [Block(f"<figure>{grid}{caption_of_figure(_CHARTS)}</figure>")]))
    out.append(Section("The same in numbers", [table(*levels(found), _LEVELS)]))
    if found.tried:
        blocks = [_takes(found), table(*remedies(found), _REMEDIES)]
        out.append(Section("Known faults", blocks))
    if found.not_examined:
        out.append(Section("Not examined", [text(_capital(what) + ".") for what in found.not_examined]))
    out.append(Section("Receipt", [Block(definitions(list(checkup.receipt.lines())))]))
    return out


def _told(finding: Finding) -> Block:
    word = finding.verdict if finding.verdict == "healthy" else f"<mark>{finding.verdict}</mark>"
    advice = f"<small><i>Try:</i> {escape(finding.advice)}.</small>" if finding.advice else ""
    says = escape(_capital(finding.says))
    return Block(f"<h3>{escape(_capital(finding.name))}: {word}</h3><p>{says}. {advice}</p>")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


_LEVELS = (
    "Loss: mean of |z + sigma score|^2 per value, ± half of the 95 % interval; 0 knows the noise, 1 is a score of 0."
    " Explained: of the variance of x_0, against the best constant. To Gaussian: share of the loss above that of the"
    " exact score of a Gaussian with the data's moments; a model should be below it. Bias and slopes are of the"
    " regressions of x_0 on its posterior mean, and of the noise on the noise seen; calibration is the loss that the"
    " score's divergence predicts over the loss that it has: 0, 1, 1 and 1 for an exact score; * fails, corrected for"
    " all tests of the table. Asymmetry is |J - J'| / |J| of the score's Jacobian; Fokker-Planck the squared residual"
    " of its evolution in t over its squared rate: sizes, which no network has at 0. Spared: 1 - loss on training"
    " examples / loss."
)

_CHARTS = "Bars: 95 % intervals. Dashed: what an exact score has, or does not exceed."

_REMEDIES = (
    "A fault is named when the data ask for its remedy: asked for is 0 for an exact score and 1 for just this fault;"
    " takes is the share of the loss that the remedy takes away, over the levels that it touches, 0.05 of the noise's"
    f" variance standing for a loss that is less. Faulty above {MARGIN:g}; suspect below, where it accounts for all"
    " that is found."
)


# ---------------------------------------------------------------------------------------------------- charts


def _charts(rows: Sequence[Row]) -> list[str]:
    panels: list[tuple[str, str, tuple[tuple[str, Callable[[Row], Size | None]], ...], float | None, bool]] = [
        (
            "Loss",
            "variances of the noise, per value",
            (("measured", lambda r: r.loss), ("predicted by the divergence", _predicted)),
            None,
            True,
        ),
        ("Explained variance of x_0", "against the best constant", (("", lambda r: r.explained),), 1.0, False),
        (
            "Loss above its floor" if any(r.floor for r in rows) else "Loss beyond a Gaussian's",
            "share of the loss",
            (("", lambda r: r.floor or r.gaussian),),
            0.0,
            False,
        ),
        (
            "Slopes",
            "of x_0 on its posterior mean, of the noise on the noise seen",
            (("x_0", lambda r: r.slope_x0), ("noise", lambda r: r.slope_z)),
            1.0,
            False,
        ),
        (
            "Not a gradient, not a density's evolution",
            "asymmetry |J - J'| / |J|, and the Fokker-Planck residual",
            (("asymmetry", lambda r: r.asymmetry), ("Fokker-Planck", lambda r: r.fokker_planck)),
            0.0,
            False,
        ),
        ("Training examples are spared", "share of the loss of others", (("", lambda r: r.gap),), 0.0, False),
    ]
    return [
        _panel(rows, title, unit, kept, reference, log)
        for title, unit, series, reference, log in panels
        if (kept := [(name, pick) for name, pick in series if any(pick(row) is not None for row in rows)])
    ]


def _predicted(row: Row) -> Size | None:
    """The loss that the divergence predicts."""
    if row.loss is None or row.calibration is None:
        return None
    loss = row.loss.value
    return Size(row.calibration.value * loss, row.calibration.low * loss, row.calibration.high * loss)


def _panel(
    rows: Sequence[Row],
    title: str,
    unit: str,
    series: Sequence[tuple[str, Callable[[Row], Size | None]]],
    reference: float | None,
    log: bool,
) -> str:
    """A small chart of sizes with intervals against the noise."""
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (3.5, 2.0), above=0.2, below=0.42)
    ax.set_xscale("log")
    if log:
        ax.set_yscale("log")
    lowest, highest = [], []
    for k, (_, pick) in enumerate(series):
        points = [(row.sigma / row.alpha, size) for row in rows for size in [pick(row)] if size is not None]
        points = [(x, size) for x, size in points if not log or size.value > 0.0]
        _errors(ax, points, PAGE.series[k])
        lowest += [size.value for _, size in points]
        highest += [size.value for _, size in points]
    if reference is not None:
        ax.axhline(reference, color=PAGE.muted, linewidth=1.0, linestyle="--")
        _limit(ax, [*lowest, reference])
    ax.set_xlabel("sigma / alpha", labelpad=2)
    ax.xaxis.set_major_locator(LogLocator(numticks=7))
    ax.xaxis.set_minor_formatter(NullFormatter())
    keys = "".join(
        f'<span><i style="background:var(--series-{k + 1})"></i>{escape(name)}</span>'
        for k, (name, _) in enumerate(series)
        if name
    )
    legend = f'<div class="legend">{keys}</div>' if keys else ""
    heading = f"<h3>{escape(title)}<small>{escape(unit)}</small></h3>"
    return f'<div class="chart">{heading}{to_svg(figure, title)}{legend}</div>'


def _limit(ax: Axes, values: Sequence[float]) -> None:
    """Room for all values, and for no more of their intervals than as much again; never less than a tenth."""
    low, high = min(values), max(values)
    room = max(high - low, 0.1)
    ax.set_ylim(low - 0.3 * room, high + 0.3 * room)


def _errors(ax: Axes, points: Sequence[tuple[float, Size]], colour: str) -> None:
    x, y = [p for p, _ in points], [size.value for _, size in points]
    bars = [
        [max(size.value - size.low, 0.0) for _, size in points],
        [max(size.high - size.value, 0.0) for _, size in points],
    ]
    ax.errorbar(x, y, bars, color=colour, linewidth=1.3, elinewidth=0.9, marker="o", markersize=3.2)


def _takes(found: Examination) -> Block:
    """Reduction of the loss by the best remedy of each fault, with intervals, compared with the margin."""
    best = _best(found)[::-1]
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (3.2, 0.26 * len(best) + 0.2), above=0.1, beside=1.7, below=0.42)
    colours = {"healthy": PAGE.muted, "suspect": PAGE.series[0], "faulty": PAGE.series[1]}
    for k, d in enumerate(best):
        if d.fall.value < LEAST:
            ax.plot([LEAST], [k], color=colours[d.verdict], marker="<", markersize=4)
            continue
        half = [[max(d.fall.value - d.fall.low, 0.0)], [max(d.fall.high - d.fall.value, 0.0)]]
        ax.errorbar([d.fall.value], [k], xerr=half, color=colours[d.verdict], marker="o", markersize=4)
    ax.axvline(MARGIN, color=PAGE.muted, linewidth=1.0, linestyle="--")
    ax.set_yticks(range(len(best)), labels=[d.name for d in best])
    ax.set_ylim(-0.6, len(best) - 0.4)
    ax.set_xlim(left=1.2 * LEAST, right=max(0.1, 1.1 * max((d.fall.high for d in best), default=0.1)))
    ax.set_xlabel("share of the loss", labelpad=2)
    words = (
        f"Orange: faulty. Blue: suspect. Grey: not named. Dashed: {MARGIN:g}, from which it counts. Triangles: remedies"
        f" that add more than {-LEAST:g} to the loss."
    )
    title = "What the remedy of each fault would take"
    chart = f'<div class="chart narrow">{to_svg(figure, title)}</div>'
    return Block(f"<figure><h3>{title}</h3>{chart}{caption_of_figure(words)}</figure>")
