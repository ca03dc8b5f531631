"""Calibration of solvers as a table and a report: coverage and TARP curves, histograms of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from scorefield.evaluation.calibration.measurement import DOUBT, SolverRow
from scorefield.inverse.calibration import INTERVAL, Curve, Estimate, coverage_curve, expected_coverage
from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, Section, caption_of_figure, table, text

BINS = 11
"""Bins of the histograms of ranks."""

_SHOWN = 6
"""Panels in a row."""


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headings, and rows of as many cells."""


def summary(rows: Sequence[SolverRow]) -> Table:
    """Coverage, spread, cost and verdict of each solver."""
    levels = tuple(f"{part.level:.0%}" for part in rows[0].calibration.coverage)
    cells = [
        (
            row.name,
            *(f"{p.share:.2f} [{p.low:.2f},\u00a0{p.high:.2f}]" for p in row.calibration.coverage),
            _estimate(row.calibration.spread),
            f"{row.calls:.4g}",
            f"{row.seconds:.2g}",
            row.verdict,
        )
        for row in rows
    ]
    return ("solver", *levels, "spread / error", "calls", "s / answer", "verdict"), cells


def tests(rows: Sequence[SolverRow]) -> Table:
    """p-values, residuals, failures, and what the exact posterior says where it is known."""
    exact = any(row.width is not None for row in rows)
    cells = [
        (
            row.name,
            *(_p(value) for value in (row.ranks, row.misfit, row.tarp, row.residual)),
            "" if row.discrepancy is None else f"{row.discrepancy:.3g}",
            f"{row.rms:.3g}",
            _estimate(row.calibration.bias),
            *((_estimate(row.width), _estimate(row.mean_error)) if exact else ()),
            str(row.failed),
        )
        for row in rows
    ]
    known = ("width / exact", "error of mean") if exact else ()
    return ("solver", "ranks", "misfit", "TARP", "residual", "chi2", "rms", "bias", *known, "failed"), cells


def _estimate(value: Estimate | None) -> str:
    return "" if value is None else f"{value.value:.3g}\u00a0±\u00a0{2.0 * value.error:.1g}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<1e-6" if value < 1e-6 else f"{value:.2g}"


def sections(rows: Sequence[SolverRow], refused: Sequence[tuple[str, str]], told: str) -> list[Section]:
    """The parts of the report.

    Args:
        rows: One for each solver.
        refused: Solvers that were left out, and why.
        told: Description of the problem.
    """
    out = [
        Section("In short", [text(told + "\n\n" + _HOW), table(*summary(rows), _SUMMARY)]),
        Section("Coverage", [_curves(rows)]),
        Section("Ranks", [_histograms(rows)]),
        Section("Tests", [table(*tests(rows), _TESTS)]),
    ]
    if refused:
        out.append(Section("Left out", [table(["solver", "why"], [list(pair) for pair in refused])]))
    return out


_HOW = (
    "Truths x* were measured, and each solver gave answers x to every y. If the answers have the posterior's"
    " distribution, a"
    " truth is one more of them: its ranks are uniform, central intervals hold it as often as their level says, and"
    " y - A(x) is noise."
)

_SUMMARY = (
    "Percentages: share of truths inside central intervals of that level, over random projections and pixels, with the"
    f" {INTERVAL:.0%} interval of the share. Spread / error: deviation of the answers over the error of their mean, 1"
    f" if right, ± two standard errors. The verdict counts p-values below {DOUBT:g} and spreads four standard errors"
    " from 1; what is not rejected is not proven right."
)

_TESTS = (
    "p-values of the ranks of quantities of x alone (projections, pixels, norm), of -log p(y | x), of distances to"
    " points that depend on y (TARP), and of y - A(x) being noise. chi2: mean of -2 log p(y | x) over the answers, over"
    " that of the truths, 1 if right. rms: root mean square of y - A(x), units of y. Bias: mean of truth less"
    " answers, in deviations. Width / exact: deviation over that of the exact posterior. Error of mean: squared, in"
    " exact variances, less what as many exact answers have."
)


# ---------------------------------------------------------------------------------------------------- figures


def _curves(rows: Sequence[SolverRow]) -> Block:
    """Coverage of central intervals and of TARP's balls against their level, less the level, one panel a solver."""
    across = min(len(rows), _SHOWN)
    deep = -(-len(rows) // across)
    figure, axes = grid_of_axes(
        PAGE, deep, across, (1.35, 1.25), above=0.3 if deep == 1 else 0.5, beside=0.42, below=0.5
    )
    for ax in axes[len(rows) :]:
        ax.set_visible(False)
    highest = 0.0
    for ax, row in zip(axes, rows, strict=False):
        found = row.calibration
        ax.plot([0.0, 1.0], [0.0, 0.0], color=PAGE.muted, linewidth=0.8)
        for k, curve in enumerate((coverage_curve(found.pooled), expected_coverage(found.u["TARP"]))):
            highest = max(highest, _excess(ax, curve, PAGE.series[k]))
        ax.set_title(row.name, fontsize=8.5, color=PAGE.ink, pad=4)
    for k, ax in enumerate(axes):
        ax.set_ylim(-1.08 * highest, 1.08 * highest)
        ax.set_xticks([0.0, 0.5, 1.0], labels=["0", "0.5", "1"])
        if k >= across * (deep - 1):
            ax.set_xlabel("level", labelpad=1)
    names = ("central intervals", "balls about points that depend on y (TARP)")
    words = (
        f"Share of truths held less the level, with {INTERVAL:.0%} bands over problems, pointwise; 0 is right. Central"
        " intervals: below 0, too narrow; above, too wide. Balls: any bend is a wrong distribution of x given y."
    )
    return Block(
        f'<figure><h3>Expected coverage less its level</h3><div class="chart">{to_svg(figure, "Coverage")}</div>'
        f"{_legend(names)}{caption_of_figure(words)}</figure>"
    )


def _excess(ax: Axes, curve: Curve, colour: str) -> float:
    levels = curve.levels.numpy()
    low, mid, high = ((part - curve.levels).numpy() for part in (curve.low, curve.share, curve.high))
    ax.fill_between(levels, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.plot(levels, mid, color=colour, linewidth=1.3)
    return float(max(abs(low).max(), abs(high).max()))


def _histograms(rows: Sequence[SolverRow]) -> Block:
    """Ranks of pixels and projections, of the misfit and of TARP: a row of panels each, over all solvers."""
    kinds = [("pixels and projections", lambda row: row.calibration.pooled.reshape(-1))]
    for name in ("misfit", "TARP"):
        if all(name in row.calibration.u for row in rows):
            kinds.append((name, lambda row, name=name: row.calibration.u[name]))
    blocks = []
    for words, pick in kinds:
        across = min(len(rows), _SHOWN)
        deep = -(-len(rows) // across)
        figure, axes = grid_of_axes(
            PAGE, deep, across, (1.35, 0.8), above=0.3 if deep == 1 else 0.5, beside=0.42, below=0.3
        )
        for ax in axes[len(rows) :]:
            ax.set_visible(False)
        for ax, row in zip(axes, rows, strict=False):
            _histogram(ax, pick(row), row.calibration.problems)
            ax.set_title(row.name, fontsize=8.5, color=PAGE.ink, pad=4)
        blocks.append(f'<h3>{words}</h3><div class="chart">{to_svg(figure, f"Ranks of {words}")}</div>')
    caption = (
        "Ranks of the truth among the answers, from least to greatest, over what a flat distribution gives; the band"
        " holds a bin"
        f" of as many independent problems in {INTERVAL:.0%} of cases. A valley: too narrow. A hill: too wide. A slope:"
        " biased."
    )
    return Block(f"<figure>{''.join(blocks)}{caption_of_figure(caption)}</figure>")


def _histogram(ax: Axes, u: Tensor, problems: int) -> None:
    counts = torch.histc(u[torch.isfinite(u)].double(), BINS, 0.0, 1.0)
    height = (counts * BINS / counts.sum()).numpy()
    half = 1.96 * ((BINS - 1) / problems) ** 0.5
    middles = (torch.arange(BINS) + 0.5).numpy() / BINS
    ax.axhspan(max(0.0, 1.0 - half), 1.0 + half, color=PAGE.muted, alpha=0.2, linewidth=0)
    ax.bar(middles, height, width=0.86 / BINS, color=PAGE.series[0])
    ax.set_ylim(0.0, max(2.2, float(height.max()) * 1.05))
    ax.set_xticks([0.0, 0.5, 1.0], labels=["0", "0.5", "1"])


def _legend(names: Sequence[str]) -> str:
    parts = "".join(
        f'<span><i style="background:var(--series-{k + 1})"></i>{name}</span>' for k, name in enumerate(names)
    )
    return f'<div class="legend">{parts}</div>'
