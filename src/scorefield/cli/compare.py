"""`scorefield compare`: differences between evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from scorefield.cli.console.arguments import Flag

if TYPE_CHECKING:
    from scorefield.evaluation.comparability import Difference, ResultComparison
    from scorefield.metrics import MetricResult, Value


@dataclass(frozen=True)
class Compare:
    """Compare evaluations metric by metric, where their provenance allows it: difference, interval and verdict.

    Numbers of unlike provenance (another N, reference, feature extractor or setting) are refused with exit status 2;
    the message names what differs and the call that would make them alike. How the samples were made may differ.
    """

    results: Positional[
        Annotated[
            tuple[Path, ...],
            arg(
                metavar="RESULT",
                help="metrics.json of two or more evaluations, or their folders; the first is the baseline.",
            ),
        ]
    ]
    override: Flag = False
    """Compare despite unlike provenance, and record that this was done and in which fields."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """File for the comparison as JSON."""


FILE = "metrics.json"


def read_results(path: Path) -> list[MetricResult]:
    """The results for samples in a metrics.json, or in the folder of one.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file holds no results.
    """
    from scorefield import _codec
    from scorefield.metrics import MetricResult

    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; `scorefield evaluate MODEL --out {file.parent}` writes it")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        results = [_codec.decode(r, MetricResult) for r in stored["samples"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{file} holds no results of `scorefield evaluate` (a list under "samples"): {error}'
        ) from error
    return results


def run(command: Compare) -> None:
    """Carry out the command.

    Raises:
        ValueError: Fewer than two results, or nothing in common.
        UnlikeError: Receipts that differ in what makes numbers incomparable.
    """
    from scorefield._files import write_json
    from scorefield.evaluation import compare_results, matched, require_alike
    from scorefield.models.run_folder import environment

    if len(command.results) < 2:
        raise ValueError("compare takes two or more: scorefield compare A/metrics.json B/metrics.json")
    first, *others = command.results
    a = read_results(first)
    records: list[dict[str, Any]] = []
    for other in others:
        b = read_results(other)
        found = [compare_results(*pair) for pair in matched(a, b)]
        if not command.override:
            require_alike(found, (str(first), str(other)))
        records.append(_told(first, other, found, [r.receipt.metric for r in (*a, *b)]))
    if command.out is not None:
        write_json(command.out, {"comparisons": records, "environment": environment()})
        print(command.out)


def _told(first: Path, other: Path, found: list[ResultComparison], metrics: list[str]) -> dict[str, Any]:
    """Print a comparison; its record."""
    from scorefield import _codec
    from scorefield.evaluation import overridden

    passed = overridden(found)
    print(f"A: {first}\nB: {other}")
    if passed:
        fields = ", ".join(sorted({d["field"] for fields in passed.values() for d in fields}))
        print(f"OVERRIDDEN: these receipts are not alike (they differ in {fields}); the differences mean little")
    for c in found:
        interval = "" if c.interval is None else f" [{c.interval[0]:.4g}, {c.interval[1]:.4g}]"
        print(f"  {c.metric:<32} A {_shown(c.a)}  B {_shown(c.b)}  A - B {c.difference:.4g}{interval}  {c.verdict}")
    alone = sorted(set(metrics) - {c.metric for c in found})
    if alone:
        print(f"  in one of the two only: {', '.join(alone)}")
    for title, rows in (("compared", found[0].compared), ("note: software differs", found[0].versions)):
        for line in _lines(rows):
            print(f"  {title}: {line}")
    return {
        "a": str(first),
        "b": str(other),
        "overridden": dict(passed) or None,
        "results": [_codec.encode(c) for c in found],
    }


def _shown(value: Value) -> str:
    if value.interval is None:
        return f"{value.number:.4g}" + ("" if value.status == "ok" else f" ({value.status})")
    return f"{value.number:.4g} [{value.interval[0]:.4g}, {value.interval[1]:.4g}]"


def _lines(rows: tuple[Difference, ...]) -> list[str]:
    from scorefield.evaluation.comparability import shown

    return [f"{d.field}: A {shown(d.a)}, B {shown(d.b)}" for d in rows]
