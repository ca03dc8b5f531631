"""The certificate as report.html."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, facts, number, table, text
from scorefield.selftest.certificate import Certificate
from scorefield.selftest.running import ROOMS, Row

_HOW = (
    "Every row is a claim about this code on this machine: what is proved, by which equation, the number that was"
    " measured, what it must be, and how far it may be off. Most need no random numbers. Statistical ones have fixed"
    " seeds and the significance 1e-6."
)

LEAST = 1e-12
"""Of an allowance; what is below is drawn there."""


def sections(certificate: Certificate) -> list[Section]:
    """The parts of the report."""
    rows, bad = certificate.rows, certificate.failed
    head = {"checks": len(rows), "failed": len(bad), "seconds": round(certificate.seconds)}
    named = [text("Failed: " + "; ".join(row.check.key for row in bad))] if bad else []
    out = [Section(certificate.verdict.partition(":")[0].capitalize(), [facts(head), *named, text(_HOW)])]
    out.append(Section("Margins", [_margins(rows)]))
    for room, group in groupby(rows, key=lambda row: row.check.room):
        out.append(Section(f"{room}: {ROOMS[room].about}", [_table(list(group))]))
    out.append(Section("Code and machine", [table(["", ""], [list(pair) for pair in certificate.facts().items()])]))
    return out


def _table(rows: Sequence[Row]) -> Block:
    head = '<th>claim</th><th class="number">measured</th><th class="number">must be</th><th></th>'
    return Block(
        f'<figure><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_cells, rows))}</tbody></table></div></figure>"
    )


def _cells(row: Row) -> str:
    check, found = row.check, row.found
    measured = escape(row.problem or "") if found is None else f"<strong>{escape(number(found.value))}</strong>"
    within = f"± {row.allowed:.3g}" if row.allowed else "exactly"
    wanted = f"{escape(number(check.target))}<small>{within}</small>"
    verdict = "passed" if row.passed else "<mark>FAILED</mark>"
    return (
        f"<tr><th>{escape(check.name)}<small>{escape(check.claim)}</small>{_more(row)}</th>"
        f'<td class="number">{measured}</td><td class="number">{wanted}</td><td>{verdict}</td></tr>'
    )


def _more(row: Row) -> str:
    check = row.check
    items = [
        ("by", check.by),
        ("measured", check.unit),
        ("allowed because of", check.why),
        ("on", f"{row.bench.device}, {row.seconds:.2g} s"),
    ]
    if row.found is not None:
        items += [(name, number(value)) for name, value in row.found.details.items()]
    return f"<details><summary>How</summary>{definitions(items)}</details>"


def _margins(rows: Sequence[Row]) -> Block:
    """Error over allowance of every check, one line of dots a room, on a logarithmic axis."""
    names = list(dict.fromkeys(row.check.room for row in rows))
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (6.4, 0.34 * len(names) + 0.3), above=0.1, beside=0.95, below=0.45)
    for k, name in enumerate(names):
        here = [row for row in rows if row.check.room == name and row.allowed > 0.0]
        share = [min(1e3, max(LEAST, row.error / row.allowed)) for row in here]
        ax.plot(
            share, [len(names) - k] * len(share), "o", markersize=4, alpha=0.55, color=PAGE.series[0], clip_on=False
        )
    ax.axvline(1.0, color=PAGE.series[1], linewidth=1.1)
    ax.set_xscale("log")
    top = max([1.0, *(min(1e3, row.error / row.allowed) for row in rows if row.allowed > 0.0)])
    ax.set_xlim(LEAST, 10.0 ** math.ceil(math.log10(top) + 0.3))
    ax.set_ylim(0.4, len(names) + 0.6)
    ax.set_yticks([len(names) - k for k in range(len(names))], labels=names)
    ax.set_xlabel("error over allowed error", labelpad=1)
    words = "Every dot is a check; right of the line it has failed. Counts, which must be exact, are not drawn."
    return Block(
        f'<figure><div class="chart wide">{to_svg(figure, "Margins")}</div>{caption_of_figure(words)}</figure>'
    )
