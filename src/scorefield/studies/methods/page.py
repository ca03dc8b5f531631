"""The comparison as a table, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from scorefield import _codec
from scorefield._files import write_json
from scorefield.models.run_folder import environment
from scorefield.plot.pictures import Theme, grid_of_axes, image_grid, kind
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, table, text
from scorefield.reports.report import embedded, metric_table, sample_grid, write_report
from scorefield.studies.methods.claims import judged, run_folder
from scorefield.studies.methods.lineage import METHODS, Terms
from scorefield.studies.methods.records import Estimate, MethodRun, over_seeds
from scorefield.studies.methods.running import Judge, density_unit, read_arrays
from scorefield.studies.papers.entry import Claim, Drawing, Table
from scorefield.studies.papers.writing import VERDICT, claims_block, drawing_block

RESULTS, PAGE = "comparison.json", "report.html"
SHOWN = 12
"""Samples of each method on the page."""


@dataclass(frozen=True)
class Line:
    """A method with one of its samplers, over seeds.

    Args:
        method: Its name.
        sampler: Name of the sampler.
        runs: The method's finished runs.
        energy: Squared energy distance to held-out data.
        frechet: Frechet distance.
        density: Of held-out data; on the method's first line.
        failed: Samples that were not finite, of all seeds.
    """

    method: str
    sampler: str
    runs: tuple[MethodRun, ...]
    energy: Estimate | None
    frechet: Estimate | None
    density: Estimate | None
    failed: int


def lines_of(runs: Sequence[MethodRun]) -> list[Line]:
    """One line for every method and sampler, in the order of the lineage."""
    found = []
    for name in METHODS:
        own = tuple(run for run in runs if run.method == name)
        for k, sampled in enumerate(own[0].samples if own else ()):
            all_seeds = [s for run in own if (s := run.sampled(sampled.name)) is not None]
            densities = [(run.density.number, run.density.std_error) for run in own if run.density is not None]
            found.append(
                Line(
                    name,
                    sampled.name,
                    own,
                    _estimate([s.energy for s in all_seeds]),
                    _estimate([s.frechet for s in all_seeds]),
                    over_seeds(densities) if densities and not k else None,
                    sum(s.failed for s in all_seeds),
                )
            )
    return found


def _estimate(results: Sequence[Any]) -> Estimate | None:
    pairs = []
    for result in results:
        if result is not None:
            low, high = result.value.interval
            pairs.append((result.value.number, (high - low) / (2 * 1.959964)))
    return over_seeds(pairs) if pairs else None


def results_table(lines: Sequence[Line], terms: Terms, judge: Judge) -> Table:
    """The table of a comparison."""
    unit = density_unit(terms.spec)
    rows = []
    for k, line in enumerate(lines):
        first = k == 0 or lines[k - 1].method != line.method
        sampled = line.runs[0].sampled(line.sampler)
        assert sampled is not None
        rows.append(
            (
                METHODS[line.method].title if first else "",
                line.sampler,
                _shown(line.energy),
                _shown(line.frechet),
                (_shown(line.density) if line.density is not None else "-") if first else "",
                f"{_mean([run.steps for run in line.runs]):,.0f}" if first else "",
                f"{sampled.calls:.0f}",
                _mean([s.seconds for run in line.runs if (s := run.sampled(line.sampler)) is not None]),
                len(line.runs),
                line.failed,
            )
        )
    columns = ("method", "sampler", "energy distance", "Frechet distance", unit, "training steps", "calls")
    return Table((*columns, "seconds", "seeds", "failed"), tuple(rows), _caption(terms, judge))


def _caption(terms: Terms, judge: Judge) -> str:
    reference, features = judge.reference.facts, judge.features
    return (
        "Lower is better everywhere; in brackets 95 % for other training seeds (for other samples of the one run where"
        " there is one seed). Energy distance: squared, of values in data units, unbiased, so that noise may make it"
        f" negative. Frechet distance: over {features.name}, biased upwards alike for all. {judge.n} samples against"
        f" {reference.count} of {reference.name} (hash {reference.hash[:12]}). Density: of the probability flow,"
        f" {judge.density} held-out examples; a dash where it is not defined, with the reason below. Seconds: to draw"
        f" {judge.n} samples; every method trained for {60 * terms.minutes:.0f} s of wall clock."
    )


def _shown(value: Estimate | None) -> str:
    return "not finite" if value is None else f"{value.number:.3g} [{value.low:.3g}, {value.high:.3g}]"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def notes(runs: Sequence[MethodRun]) -> list[str]:
    """What a reader must know of single methods: no density and why, a critic, uneven load."""
    said = []
    for name in METHODS:
        run = next((r for r in runs if r.method == name), None)
        if run is None:
            continue
        if run.no_density is not None and run.no_density != "not asked for":
            said.append(f"{METHODS[name].title}: no density, {run.no_density}.")
        if run.critic:
            said.append(f"{METHODS[name].title}: {run.critic:,} parameters of a critic beside the network's.")
    sizes = {run.parameters for run in runs}
    said.append(f"Networks have {min(sizes):,} to {max(sizes):,} parameters.")
    loads = [run.load for run in runs if run.load is not None]
    if loads:
        said.append(
            f"Load of the machine at the end of trainings: {min(loads):.1f} to {max(loads):.1f}; equal wall clock is"
            " equal compute only where it is even."
        )
    return said


# ------------------------------------------------------------------------------------------------ files


def write_comparison(folder: Path, runs: Sequence[MethodRun], terms: Terms, judge: Judge) -> tuple[Path, list[Claim]]:
    """Write comparison.json and report.html for what is finished.

    Returns:
        The page and the claims.
    """
    claims = judged(runs, folder, judge.reference)
    lines = lines_of(runs)
    found = results_table(lines, terms, judge)
    facts = environment()
    record = {
        "terms": _codec.encode(terms.spec) | {"minutes": terms.minutes, "calls": terms.calls, "network": terms.body},
        "columns": list(found.columns),
        "rows": [list(row) for row in found.rows],
        "caption": found.caption,
        "claims": [{"says": c.says, "found": c.found, "verdict": VERDICT[c.held]} for c in claims],
        "notes": notes(runs),
        "runs": [_codec.encode(run) for run in runs],
        "environment": facts,
    }
    write_json(folder / RESULTS, record)
    shared = {
        "data": terms.data.path,
        "examples": f"shape {terms.spec.shape}, farthest pair {terms.farthest:.4g} apart (model units)",
        "network": terms.body,
        "training": f"{60 * terms.minutes:.0f} s of wall clock each, batches of {terms.batch_size}, Adam at 1e-3",
        "sampling": f"at most {terms.calls} network calls a sample",
    }
    sections = [
        Section("Results", [table(found.columns, found.rows, found.caption), _list(notes(runs))]),
        Section("The papers' claims", [claims_block(claims), text(_HOW)] if claims else []),
        Section("Intervals", [drawing_block(drawing) for drawing in drawings(lines, terms)]),
        Section("Samples", [block for line in lines if (block := _samples(line, folder, terms)) is not None]),
        Section("Receipts", [_receipts(lines)]),
        Section("Settings", [Block(definitions([(k, str(v)) for k, v in shared.items()]))]),
    ]
    page = write_report(
        folder / PAGE,
        [section for section in sections if section.blocks],
        title=f"Methods on {terms.data.path}",
        subtitle=f"{len({r.method for r in runs})} methods, {60 * terms.minutes:.0f} s of training each",
        command=facts["command"],
    )
    return page, list(claims)


_HOW = (
    "A claim held where the 95 % interval of the paired difference lies wholly on its side, did not hold where it lies"
    " on the other, and is undecided where it holds zero, or where two methods were trained once each. Pairs share"
    " noise, held-out data and training seed. This is a comparison at this size and time; the papers' were at theirs."
)


def _list(lines: Sequence[str]) -> Block:
    return text("\n\n".join(lines))


def _receipts(lines: Sequence[Line]) -> Block:
    columns = {}
    for line in lines:
        for run in line.runs:
            sampled = run.sampled(line.sampler)
            assert sampled is not None
            results = [r for r in (sampled.energy, sampled.frechet) if r is not None]
            columns[f"{METHODS[line.method].title}, {line.sampler}, seed {run.seed}"] = results
    blocks = [metric_table({name: results}).html for name, results in columns.items() if results]
    opened = [
        f"<details><summary>{name}</summary>{html}</details>"
        for name, html in zip((name for name, results in columns.items() if results), blocks, strict=True)
    ]
    return Block("".join(opened))


def _samples(line: Line, folder: Path, terms: Terms) -> Block | None:
    """The first samples of a method's own sampler."""
    own = line.runs[0].samples[0]
    if line.sampler != own.name:
        return None
    x = read_arrays(run_folder(folder, line.method, line.runs[0].seed) / own.folder)["x"]
    x = x[torch.isfinite(x).flatten(1).all(dim=1)]
    if not len(x):
        return None
    caption = f"{METHODS[line.method].title}, by {line.sampler}, seed {line.runs[0].seed}."
    if kind(terms.spec) != "image":
        return sample_grid(x if kind(terms.spec) == "vector" else x[:SHOWN], terms.spec, caption=caption)
    image = image_grid(x[:SHOWN], terms.spec, SHOWN)
    return Block(f"<figure>{embedded(image, caption)}{caption_of_figure(caption)}</figure>")


def drawings(lines: Sequence[Line], terms: Terms) -> list[Drawing]:
    """Intervals side by side."""
    found = []
    for name, title, values in (
        ("energy-distance", "Squared energy distance to held-out data", [line.energy for line in lines]),
        ("frechet-distance", "Frechet distance to held-out data", [line.frechet for line in lines]),
        ("density", f"Density of held-out data, {density_unit(terms.spec)}", [line.density for line in lines]),
    ):
        kept = [(line, value) for line, value in zip(lines, values, strict=True) if value is not None]
        if kept:
            found.append(Drawing(name, title, "Points and 95 % intervals; lower is better.", _drawer(kept, name)))
    return found


def _drawer(kept: Sequence[tuple[Line, Estimate]], name: str) -> Any:
    def draw(theme: Theme) -> Figure:
        figure, (ax,) = grid_of_axes(theme, 1, 1, (4.6, 0.26 * len(kept) + 0.3), beside=2.5)
        if name == "energy-distance":  # from a hundredth to hundreds, and below zero
            ax.set_xscale("symlog", linthresh=max(1e-3, min(abs(value.number) for _, value in kept)))
        for k, (_, value) in enumerate(kept):
            ax.plot([value.low, value.high], [k, k], color=theme.series[0], linewidth=1.6)
            ax.plot([value.number], [k], "o", color=theme.series[0], markersize=4)
        labels = [METHODS[line.method].title + ("" if name == "density" else f", {line.sampler}") for line, _ in kept]
        ax.set_yticks(range(len(kept)), labels, fontsize=8)
        ax.set_ylim(len(kept) - 0.5, -0.5)
        return figure

    return draw
