"""The findings of an experiment on disk: JSON, pictures and a page."""

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
    """Write findings.json, one PNG per drawing and report.html.

    Returns:
        The page.
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
        Section("What held", [claims_block(findings.claims)]),
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
    """The findings as plain values."""
    return {
        "name": entry.name,
        "paper": entry.paper,
        "item": entry.item,
        "shows": entry.shows,
        "claims": [{"says": c.says, "found": c.found, "verdict": VERDICT[c.held]} for c in findings.claims],
        "tables": [
            {"caption": t.caption, "columns": list(t.columns), "rows": [[_plain(v) for v in row] for row in t.rows]}
            for t in findings.tables
        ],
        "settings": {key: str(value) for key, value in findings.settings.items()},
        "seconds": seconds,
    }


def claims_block(claims: tuple[Claim, ...]) -> Block:
    """Claims as a table."""
    return table(("the paper", "here", "verdict"), [(c.says, c.found, VERDICT[c.held]) for c in claims])


def _plain(value: Any) -> Any:
    """A cell as strict JSON has it; numbers that are not finite become words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def drawing_block(drawing: Drawing) -> Block:
    """A drawing in the colours of the page, with its caption."""
    drawn = drawing.draw(PAGE)
    if isinstance(drawn, Figure):
        shown = f'<div class="chart wide">{to_svg(drawn, drawing.title)}</div>'
    else:
        shown = embedded(drawn, drawing.title)
    return Block(f"<figure><h3>{escape(drawing.title)}</h3>{shown}{caption_of_figure(drawing.caption)}</figure>")
