"""Writes the findings of an experiment: findings.json, one PNG per figure, and an HTML report."""

from __future__ import annotations

import math
import shlex
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from scorefield._files import write_json
from scorefield.plot.pictures import PAGE, PAPER, figure_image, save_png, to_svg
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, table, text
from scorefield.reports.report import embedded, write_report
from scorefield.studies.papers.entry import PAPERS, Claim, Drawing, Entry, Findings

VERDICT = {True: "held", False: "did not hold", None: "undecided"}


def write_findings(entry: Entry, findings: Findings, folder: Path, seconds: float) -> Path:
    """Write findings.json, one PNG per figure and report.html into a folder, which is made if need be.

    Args:
        entry: The experiment.
        findings: Its results.
        folder: Output folder.
        seconds: Wall-clock time of the experiment.

    Returns:
        Path of the HTML report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "findings.json", as_json(entry, findings, seconds))
    for drawing in findings.drawings:
        drawn = drawing.draw(PAPER)
        save_png(figure_image(drawn) if isinstance(drawn, Figure) else drawn, folder / f"{drawing.name}.png")
    sections = [
        Section(
            "What the paper shows", [text(f"{entry.paper}, {entry.item}. {entry.shows}\n\n{PAPERS[entry.paper]}.")]
        ),
        Section("Verdicts on its claims", [claims_block(findings.claims)]),
        Section("Figures", [drawing_block(drawing) for drawing in findings.drawings]),
        Section("Numbers", [table(t.columns, t.rows, t.caption) for t in findings.tables]),
        Section("Settings", [Block(definitions([(k, str(v)) for k, v in findings.settings.items()]))]),
    ]
    return write_report(
        folder / "report.html",
        [section for section in sections if section.blocks],
        title=entry.title,
        subtitle=f"{entry.paper}, {entry.item}",
        command=shlex.join(["scorefield", "reproduce", entry.name]),
    )


def as_json(entry: Entry, findings: Findings, seconds: float) -> dict[str, Any]:
    """Return the findings as plain values for findings.json."""
    return {
        "name": entry.name,
        "paper": entry.paper,
        "item": entry.item,
        "shows": entry.shows,
        "claims": [{"says": c.statement, "found": c.found, "verdict": VERDICT[c.held]} for c in findings.claims],
        "tables": [
            {"caption": t.caption, "columns": list(t.columns), "rows": [[_plain(v) for v in row] for row in t.rows]}
            for t in findings.tables
        ],
        "settings": {key: str(value) for key, value in findings.settings.items()},
        "seconds": seconds,
    }


def claims_block(claims: tuple[Claim, ...]) -> Block:
    """Return a table of the claims, what was found and the verdicts."""
    return table(
        ("claim of the paper", "found here", "verdict"), [(c.statement, c.found, VERDICT[c.held]) for c in claims]
    )


def _plain(value: Any) -> Any:
    """Return a cell as strict JSON allows it: numbers that are not finite become strings."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def drawing_block(drawing: Drawing) -> Block:
    """Return a figure in the colours of the HTML page, with its title and caption."""
    drawn = drawing.draw(PAGE)
    if isinstance(drawn, Figure):
        shown = f'<div class="chart wide">{to_svg(drawn, drawing.title)}</div>'
    else:
        shown = embedded(drawn, drawing.title)
    return Block(f"<figure><h3>{escape(drawing.title)}</h3>{shown}{caption_of_figure(drawing.caption)}</figure>")
