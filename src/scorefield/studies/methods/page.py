"""Results of a comparison: the table, comparison.json, and the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from scorefield import _codec
from scorefield._files import write_json
from scorefield.metrics import MetricResult
from scorefield.models.run_folder import environment
from scorefield.plot.pictures import Theme, grid_of_axes, image_grid, kind
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, table, text
from scorefield.reports.report import embedded, metric_table, sample_grid, write_report
from scorefield.studies.methods.claims import check_claims, run_folder
from scorefield.studies.methods.definitions import METHODS, SharedSettings
from scorefield.studies.methods.records import Estimate, MethodRun, estimate_over_seeds
from scorefield.studies.methods.running import EvaluationSettings, density_unit, finite, read_arrays
from scorefield.studies.papers.entry import NORMAL, Claim, Drawing, Table
from scorefield.studies.papers.writing import VERDICT, claims_block, drawing_block

RESULTS, PAGE = "comparison.json", "report.html"
SHOWN = 12
"""Samples of each method in the report."""


@dataclass(frozen=True)
class ResultRow:
    """A row of the results table: a method with one of its samplers, over seeds.

    Args:
        method: Name of the method.
        sampler: Name of the sampler.
        runs: The method's finished runs.
        energy: Squared energy distance to held-out data; None where it could not be measured.
        frechet: Frechet distance to held-out data; None where it could not be measured.
        density: Density of held-out data; only in the method's first row.
        failed: Number of samples of all seeds that are not finite.
    """

    method: str
    sampler: str
    runs: tuple[MethodRun, ...]
    energy: Estimate | None
    frechet: Estimate | None
    density: Estimate | None
    failed: int


def result_rows(runs: Sequence[MethodRun]) -> list[ResultRow]:
    """Return one row for every method and sampler, in the order of `METHODS`."""
    rows = []
    for name in METHODS:
        own = tuple(run for run in runs if run.method == name)
        for k, sampled in enumerate(own[0].samples if own else ()):
            all_seeds = [s for run in own if (s := run.sampled(sampled.name)) is not None]
            densities = [(run.density.number, run.density.std_error) for run in own if run.density is not None]
            rows.append(
                ResultRow(
                    name,
                    sampled.name,
                    own,
                    _estimate([s.energy for s in all_seeds]),
                    _estimate([s.frechet for s in all_seeds]),
                    estimate_over_seeds(densities) if densities and not k else None,
                    sum(s.failed for s in all_seeds),
                )
            )
    return rows


def _estimate(results: Sequence[MetricResult | None]) -> Estimate | None:
    """Return the estimate over seeds of the results that could be measured."""
    pairs = []
    for result in results:
        if result is not None:
            low, high = result.value.interval
            pairs.append((result.value.number, (high - low) / (2 * NORMAL)))
    return estimate_over_seeds(pairs) if pairs else None


def results_table(rows: Sequence[ResultRow], shared: SharedSettings, evaluation: EvaluationSettings) -> Table:
    """Return the results table of a comparison."""
    unit = density_unit(shared.spec)
    cells = []
    for k, row in enumerate(rows):
        first = k == 0 or rows[k - 1].method != row.method
        sampled = row.runs[0].sampled(row.sampler)
        assert sampled is not None
        cells.append(
            (
                METHODS[row.method].title if first else "",
                row.sampler,
                _cell(row.energy),
                _cell(row.frechet),
                (_cell(row.density) if row.density is not None else "-") if first else "",
                f"{_mean([run.steps for run in row.runs]):,.0f}" if first else "",
                f"{sampled.calls:.0f}",
                _mean([s.seconds for run in row.runs if (s := run.sampled(row.sampler)) is not None]),
                len(row.runs),
                row.failed,
            )
        )
    columns = ("method", "sampler", "energy distance", "Frechet distance", unit, "training steps", "calls")
    return Table((*columns, "seconds", "seeds", "failed"), tuple(cells), _caption(shared, evaluation))


def _caption(shared: SharedSettings, evaluation: EvaluationSettings) -> str:
    reference, features = evaluation.reference.facts, evaluation.features
    return (
        "Lower is better in every column of distances and densities. Brackets: 95 % intervals for other training seeds"
        " (with one seed: for other samples of the same run). Energy distance: squared, of values in data units; the"
        " estimate is unbiased, so that it can be negative. Frechet distance: of the features"
        f" {features.name}; its upward bias is the same for all methods. Both compare {evaluation.n} samples with"
        f" {reference.count} examples of {reference.name} (hash {reference.hash[:12]}). Density: by the probability"
        f" flow on {evaluation.density} held-out examples; a dash where it is not defined, with the reason below."
        f" Calls: network evaluations per sample. Seconds: time to draw {evaluation.n} samples. Failed: samples that"
        f" are not finite. Every method was trained for {60 * shared.minutes:.0f} s of wall clock."
    )


def _cell(value: Estimate | None) -> str:
    return "not finite" if value is None else f"{value.number:.3g} [{value.low:.3g}, {value.high:.3g}]"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def notes(runs: Sequence[MethodRun]) -> list[str]:
    """Return remarks on single methods: reasons for missing densities, discriminators, sizes, and uneven load."""
    remarks = []
    for name in METHODS:
        run = next((r for r in runs if r.method == name), None)
        if run is None:
            continue
        if run.no_density is not None and run.no_density != "not asked for":
            remarks.append(f"{METHODS[name].title} has no density: {run.no_density}.")
        if run.critic:
            remarks.append(
                f"{METHODS[name].title} trains a discriminator of {run.critic:,} parameters beside its network."
            )
    sizes = {run.parameters for run in runs}
    remarks.append(f"Networks have {min(sizes):,} to {max(sizes):,} parameters.")
    loads = [run.load for run in runs if run.load is not None]
    if loads:
        remarks.append(
            f"The load average of the machine at the end of trainings was {min(loads):.1f} to {max(loads):.1f}. Equal"
            " wall-clock time is equal compute only where the load is even."
        )
    return remarks


# ------------------------------------------------------------------------------------------------ files


def write_comparison(
    folder: Path, runs: Sequence[MethodRun], shared: SharedSettings, evaluation: EvaluationSettings
) -> tuple[Path, list[Claim]]:
    """Write comparison.json and report.html for the runs that are finished.

    Args:
        folder: Output folder of the comparison.
        runs: Finished runs.
        shared: Settings that all methods share.
        evaluation: What samples are compared with.

    Returns:
        The path of the report, and the claims with their verdicts.
    """
    claims = check_claims(runs, folder, evaluation.reference)
    rows = result_rows(runs)
    results = results_table(rows, shared, evaluation)
    facts = environment()
    record = {
        "terms": _codec.encode(shared.spec)
        | {"minutes": shared.minutes, "calls": shared.calls, "network": shared.architecture},
        "columns": list(results.columns),
        "rows": [list(row) for row in results.rows],
        "caption": results.caption,
        "claims": [{"says": c.statement, "found": c.found, "verdict": VERDICT[c.held]} for c in claims],
        "notes": notes(runs),
        "runs": [_codec.encode(run) for run in runs],
        "environment": facts,
    }
    write_json(folder / RESULTS, record)
    settings = {
        "data": shared.data.path,
        "examples": f"shape {shared.spec.shape}, largest distance of two {shared.largest_distance:.4g} (model units)",
        "network": shared.architecture,
        "training": f"{60 * shared.minutes:.0f} s of wall clock each, batches of {shared.batch_size}, Adam at 1e-3",
        "sampling": f"at most {shared.calls} network evaluations per sample",
    }
    sections = [
        Section("Results", [table(results.columns, results.rows, results.caption), text("\n\n".join(notes(runs)))]),
        Section("The papers' claims", [claims_block(claims), text(_HOW_CLAIMS_ARE_CHECKED)] if claims else []),
        Section("Intervals", [drawing_block(drawing) for drawing in drawings(rows, shared)]),
        Section("Samples", [block for row in rows if (block := _samples(row, folder, shared)) is not None]),
        Section("Receipts", [_receipts(rows)]),
        Section("Settings", [Block(definitions([(k, str(v)) for k, v in settings.items()]))]),
    ]
    page = write_report(
        folder / PAGE,
        [section for section in sections if section.blocks],
        title=f"Methods on {shared.data.path}",
        subtitle=f"{len({r.method for r in runs})} methods, {60 * shared.minutes:.0f} s of training each",
        command=facts["command"],
    )
    return page, list(claims)


_HOW_CLAIMS_ARE_CHECKED = (
    "A claim held where the 95 % interval of the paired difference lies wholly on its side, did not hold where it lies"
    " on the other side, and is undecided where it contains zero, or where two methods were trained once each. Pairs"
    " share noise, held-out data and training seed. These results are for the size and training time given here; the"
    " papers' claims were made for larger ones."
)


def _receipts(rows: Sequence[ResultRow]) -> Block:
    """Return the provenance records of all metrics, folded up, one block for each sampler and seed."""
    blocks = []
    for row in rows:
        for run in row.runs:
            sampled = run.sampled(row.sampler)
            assert sampled is not None
            results = [r for r in (sampled.energy, sampled.frechet) if r is not None]
            if results:
                name = f"{METHODS[row.method].title}, {row.sampler}, seed {run.seed}"
                table_of_metrics = metric_table({name: results}).html
                blocks.append(f"<details><summary>{name}</summary>{table_of_metrics}</details>")
    return Block("".join(blocks))


def _samples(row: ResultRow, folder: Path, shared: SharedSettings) -> Block | None:
    """Return the first samples of a method's published sampler; None for its other samplers."""
    published = row.runs[0].samples[0]
    if row.sampler != published.name:
        return None
    x = read_arrays(run_folder(folder, row.method, row.runs[0].seed) / published.folder)["x"]
    x = x[finite(x)]
    if not len(x):
        return None
    caption = f"{METHODS[row.method].title}, by {row.sampler}, seed {row.runs[0].seed}."
    if kind(shared.spec) != "image":
        return sample_grid(x if kind(shared.spec) == "vector" else x[:SHOWN], shared.spec, caption=caption)
    image = image_grid(x[:SHOWN], shared.spec, SHOWN)
    return Block(f"<figure>{embedded(image, caption)}{caption_of_figure(caption)}</figure>")


def drawings(rows: Sequence[ResultRow], shared: SharedSettings) -> list[Drawing]:
    """Return one figure of intervals for each quantity that was measured."""
    found = []
    for name, title, values in (
        ("energy-distance", "Squared energy distance to held-out data", [row.energy for row in rows]),
        ("frechet-distance", "Frechet distance to held-out data", [row.frechet for row in rows]),
        ("density", f"Density of held-out data, {density_unit(shared.spec)}", [row.density for row in rows]),
    ):
        measured = [(row, value) for row, value in zip(rows, values, strict=True) if value is not None]
        if measured:
            caption = "Points are means over seeds, bars 95 % intervals; lower is better."
            found.append(Drawing(name, title, caption, partial(_interval_figure, measured=measured, name=name)))
    return found


def _interval_figure(theme: Theme, measured: Sequence[tuple[ResultRow, Estimate]], name: str) -> Figure:
    """Draw the estimates of one quantity with their intervals, a row for each method and sampler."""
    figure, (ax,) = grid_of_axes(theme, 1, 1, (4.6, 0.26 * len(measured) + 0.3), beside=2.5)
    if name == "energy-distance":  # values range from a hundredth to hundreds and may be negative
        ax.set_xscale("symlog", linthresh=max(1e-3, min(abs(value.number) for _, value in measured)))
    for k, (_, value) in enumerate(measured):
        ax.plot([value.low, value.high], [k, k], color=theme.series[0], linewidth=1.6)
        ax.plot([value.number], [k], "o", color=theme.series[0], markersize=4)
    labels = [METHODS[row.method].title + ("" if name == "density" else f", {row.sampler}") for row, _ in measured]
    ax.set_yticks(range(len(measured)), labels, fontsize=8)
    ax.set_ylim(len(measured) - 0.5, -0.5)
    return figure
