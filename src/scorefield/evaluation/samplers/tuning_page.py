"""The report of a tuning: the settings it tried and chose."""

from __future__ import annotations

from scorefield.models.sampler_records import STANDARD_ERRORS, Tried, TunedSampler
from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, Section, caption_of_figure, code, definitions, facts, table, text


def tuned_sections(found: TunedSampler) -> list[Section]:
    """The parts of the report."""
    groups: dict[str, list[Tried]] = {}
    for one in found.tried:
        groups.setdefault(one.what, []).append(one)
    gain, bar = found.gain.number, STANDARD_ERRORS * found.gain.std_error
    headline = facts(
        {
            "gain on fresh noise (criterion before minus after)": f"{gain:.3g} ± {bar:.1g}",
            "samples of each trial": found.receipt.count,
            "values tried": len(found.tried),
            "adopted": "yes" if found.adopted else "no: not beyond its noise",
        }
    )
    rows = [[t.what, t.value, _pair(t.distance), _pair(t.difference)] for t in found.tried]
    charts = "".join(_chart(what, tried) for what, tried in groups.items() if len(tried) > 1)
    words = (
        f"Criterion: {found.criterion}, model units. All values saw the same noise, so their differences to the best,"
        " drawn here with 95 % bars, are known better than the distances. Values whose bars reach zero are as good as"
        " the best."
    )
    return [
        Section("In short", [headline, text("\n\n".join(found.conclusion))]),
        *([Section("What was tried", [_figure(charts, words)])] if charts else []),
        Section("Every trial", [table(["setting", "value", "distance", "to the best, paired"], rows)]),
        Section("Samplers", [code(f"before  {found.before}\nnow     {found.sampler}")]),
        Section("Receipt", [Block(definitions(list(found.receipt.lines())))]),
    ]


def _pair(value: object) -> str:
    return f"{value.number:.3g}\u00a0±\u00a0{STANDARD_ERRORS * value.std_error:.1g}"  # type: ignore[attr-defined]


def _figure(charts: str, words: str) -> Block:
    return Block(f'<figure><div class="charts">{charts}</div>{caption_of_figure(words)}</figure>')


def _chart(what: str, tried: list[Tried]) -> str:
    """Paired differences of the values of one setting, in their own order."""
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (3.5, 2.5), above=0.2)
    box = ax.get_position()
    ax.set_position((box.x0, box.y0 + 0.16, box.width, box.height - 0.16))  # room for names on a slant
    ordered = sorted(tried, key=lambda one: (_number(one.value) is None, _number(one.value) or 0.0))
    heights = [one.difference.number for one in ordered]
    bars = [STANDARD_ERRORS * one.difference.std_error for one in ordered]
    ax.axhline(0.0, color=PAGE.muted, linewidth=0.8)
    ax.errorbar(range(len(ordered)), heights, bars, fmt="o", markersize=4, color=PAGE.series[0], elinewidth=0.9)
    ax.set_xticks(range(len(ordered)), labels=[_short(one.value) for one in ordered], rotation=35, ha="right")
    ax.ticklabel_format(axis="y", scilimits=(-2, 4))
    return f'<div class="chart"><h3>{what}</h3>{to_svg(figure, f"Distances by {what}")}</div>'


def _short(value: str) -> str:
    found = _number(value)
    return value if found is None else f"{found:.3g}"


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
