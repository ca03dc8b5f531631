"""The report of a run folder: how it was trained, what it draws, from the files of the folder alone."""

from __future__ import annotations

import json
from pathlib import Path

from scorefield import _codec
from scorefield.data import Data
from scorefield.models.model import Model, load
from scorefield.models.run_folder import environment_lines, read_metrics
from scorefield.models.samples import grid_conditions, grid_sampler
from scorefield.reports.methods_paragraph import paper_section
from scorefield.reports.page import Block, Section, code, facts, number, text
from scorefield.reports.report import loss_curves, sample_grid, write_report
from scorefield.sampling.sampler import Sampler

SHARE = 0.1
"""Samples are drawn where they cost less than this share of the training."""

ADAPTIVE = 100
"""Calls, roughly, of a step that chooses its own."""


def training_report(run: str | Path, data: Data) -> Path:
    """Write RUN/report.html: curves, samples beside data, the experiment, and what a paper needs.

    Args:
        run: The run folder, with at least one checkpoint.
        data: What it was trained on.
    """
    run = Path(run)
    model = load(run)
    experiment = model.experiment
    facts_of_run = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    rows = read_metrics(run)
    parameters = sum(p.numel() for p in model.network.parameters())
    sampler = grid_sampler(experiment)
    drawn, nfe = _samples(model, sampler, data)
    sections = [
        Section("In short", [facts(_headlines(model, rows, parameters))]),
        Section("Samples", drawn),
        Section("Training", [loss_curves(rows)]),
        Section("Experiment", [code(_codec.dumps(experiment), "experiment.json")]),
        paper_section(
            experiment,
            parameters=parameters,
            step=model.step,
            weights=model.weights if nfe is not None else None,
            sampler=sampler if nfe is not None else None,
            nfe=nfe,
        ),
    ]
    return write_report(
        run / "report.html",
        sections,
        title=f"Training of {experiment.name}",
        subtitle=f"{model.step:,} of {experiment.training.steps:,} steps.",
        command=facts_of_run["command"],
        environment=environment_lines(facts_of_run),
    )


def _samples(model: Model, sampler: Sampler, data: Data) -> tuple[list[Block], float | None]:
    """Grids of samples and of data, and the calls of each sample; no samples where they would be dear."""
    n, training = model.experiment.training.samples, model.experiment.training
    x, _ = data.train.batch(range(min(n, len(data.train))))
    real = sample_grid(x, model.data, caption=f"{len(x)} training examples.")
    calls: int = (sampler.step.calls_per_step() or ADAPTIVE) * (len(sampler.times(model.process)) - 1)
    # A training step costs an example three network calls: one forward, and two of them backward.
    if calls * n > SHARE * 3 * training.batch_size * (model.step or 0):
        words = (
            f"No samples were drawn: {n} of them, with {calls:,} network calls each, would cost more than a tenth of"
            f" this short training. scorefield sample {model.folder} draws them."
        )
        return [text(words), real], None
    found = model.sample(n, sampler=sampler, condition=grid_conditions(model.data, data.train, n))
    shown = sample_grid(found.x, model.data, caption=f"{n} samples, not chosen.")
    return [shown, real], float(found.nfe.double().mean())


def _headlines(model: Model, rows: list[dict], parameters: int) -> dict[str, str]:
    last = {key: row[key] for row in rows for key in ("loss", "validation", "seconds") if row.get(key) is not None}
    shown = {"training steps": f"{model.step:,}", "parameters": f"{parameters:,}"}
    if "seconds" in last:
        minutes = float(last["seconds"]) / 60
        shown["minutes of training"] = f"{minutes:,.1f}"
    for key, name in (("loss", "training loss, last row"), ("validation", "validation loss, fixed noise")):
        if key in last:
            shown[name] = number(float(last[key]))
    return shown
