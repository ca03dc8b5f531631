"""Reports: self-contained HTML pages from curves, figures and metrics, with a methods paragraph and its bibliography.

page               the page a report is written on
report             sections of a report: samples, metrics
training_curves    training curves from metrics.jsonl
training_report    the report of a run folder
methods_paragraph  a paragraph of methods
bibliography       the works cited
"""

from __future__ import annotations

from scorefield.reports import (
    bibliography,
    methods_paragraph,
    page,
    report,
    training_curves,
    training_report,
)

__all__ = [
    "bibliography",
    "methods_paragraph",
    "page",
    "report",
    "training_curves",
    "training_report",
]
