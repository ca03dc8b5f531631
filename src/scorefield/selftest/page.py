"""The certificate as an HTML report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

from scorefield.plot.pictures import PAGE, grid_of_axes, to_svg
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, facts, number, table, text
from scorefield.selftest.certificate import Certificate
from scorefield.selftest.running import GROUPS, CheckResult

_HOW_TO_READ = (
    "Every row is a claim about this code on this machine: the claim, the equation by which it was checked, the number"
    " that was measured, the value it must have, and the allowed error. Most checks need no random numbers. Statistical"
    " checks have fixed seeds and significance 1e-6."
)

LEAST = 1e-12
"""Smallest ratio of error to allowed error that is drawn; smaller ones are drawn here."""


def sections(certificate: Certificate) -> list[Section]:
    """Return the sections of the report."""
    rows, failed = certificate.rows, certificate.failed
    head = {"checks": len(rows), "failed": len(failed), "seconds": round(certificate.seconds)}
    names = [text("Failed: " + "; ".join(row.check.key for row in failed))] if failed else []
    out = [Section(certificate.verdict.partition(":")[0].capitalize(), [facts(head), *names, text(_HOW_TO_READ)])]
    out.append(Section("Margins", [_margins(rows)]))
    for group, members in groupby(rows, key=lambda row: row.check.group):
        out.append(Section(f"{group}: {GROUPS[group].about}", [_table(list(members))]))
    out.append(Section("Code and machine", [table(["", ""], [list(pair) for pair in certificate.facts().items()])]))
    return out


def _table(rows: Sequence[CheckResult]) -> Block:
    head = '<th>claim</th><th class="number">measured</th><th class="number">must be</th><th></th>'
    return Block(
        f'<figure><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(map(_cells, rows))}</tbody></table></div></figure>"
    )


def _cells(row: CheckResult) -> str:
    check, found = row.check, row.found
    measured = escape(row.problem or "") if found is None else f"<strong>{escape(number(found.value))}</strong>"
    within = f"± {row.allowed:.3g}" if row.allowed else "exactly"
    target = f"{escape(number(check.target))}<small>{within}</small>"
    verdict = "passed" if row.passed else "<mark>FAILED</mark>"
    return (
        f"<tr><th>{escape(check.name)}<small>{escape(check.claim)}</small>{_details(row)}</th>"
        f'<td class="number">{measured}</td><td class="number">{target}</td><td>{verdict}</td></tr>'
    )


def _details(row: CheckResult) -> str:
    """Return the folded-up details of a result: how it was measured, where, and the single numbers."""
    check = row.check
    items = [
        ("checked by", check.by),
        ("measured", check.unit),
        ("reason for the allowed error", check.why),
        ("run on", f"{row.bench.device}, {row.seconds:.2g} s"),
    ]
    if row.found is not None:
        items += [(name, number(value)) for name, value in row.found.details.items()]
    return f"<details><summary>How</summary>{definitions(items)}</details>"


def _margins(rows: Sequence[CheckResult]) -> Block:
    """Draw error over allowed error of every check on a logarithmic axis, one line of dots for each group."""
    names = list(dict.fromkeys(row.check.group for row in rows))
    figure, (ax,) = grid_of_axes(PAGE, 1, 1, (6.4, 0.34 * len(names) + 0.3), above=0.1, beside=0.95, below=0.45)
    for k, name in enumerate(names):
        members = [row for row in rows if row.check.group == name and row.allowed > 0.0]
        ratios = [min(1e3, max(LEAST, row.error / row.allowed)) for row in members]
        ax.plot(
            ratios, [len(names) - k] * len(ratios), "o", markersize=4, alpha=0.55, color=PAGE.series[0], clip_on=False
        )
    ax.axvline(1.0, color=PAGE.series[1], linewidth=1.1)
    ax.set_xscale("log")
    top = max([1.0, *(min(1e3, row.error / row.allowed) for row in rows if row.allowed > 0.0)])
    ax.set_xlim(LEAST, 10.0 ** math.ceil(math.log10(top) + 0.3))
    ax.set_ylim(0.4, len(names) + 0.6)
    ax.set_yticks([len(names) - k for k in range(len(names))], labels=names)
    ax.set_xlabel("error over allowed error", labelpad=1)
    caption = (
        "Every dot is a check; dots to the right of the line have failed. Checks that must be exact, such as counts,"
        " are not drawn."
    )
    return Block(
        f'<figure><div class="chart wide">{to_svg(figure, "Margins")}</div>{caption_of_figure(caption)}</figure>'
    )
