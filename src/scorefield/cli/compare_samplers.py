"""`scorefield compare-samplers`: every sampler that a model admits, measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from scorefield.cli.console.arguments import BatchSize, Count, Flag, ModelName, Out, Reference, Seed, Weights

if TYPE_CHECKING:
    from scorefield.cli.console.sampler_choice import HeldOut
    from scorefield.evaluation import samplers
    from scorefield.models.model import Model
    from scorefield.models.sampler_records import SamplerTable


@dataclass(frozen=True)
class CompareSamplers:
    """Measure every sampler that a model admits, at several numbers of network calls, from the same noise.

    Reports errors against the converged probability flow, distances to held-out data, seconds and failures, with
    intervals: as a table, as samplers.json in the model folder (which `sample --budget` reads) and as a page.
    """

    model: ModelName
    reference: Reference = None
    n: Count = 256
    """Number of samples of each sampler."""
    calls: Annotated[str, arg(metavar="N,N,...")] = "5,10,20,30,50,100"
    """Numbers of network calls per sample to try."""
    samplers: Annotated[str | None, arg(metavar="NAME,NAME,...")] = None
    """Only these samplers, for example ode,dpm; their table goes to --out, not into the model folder."""
    variants: Flag = False
    """Also measure other orders and grids of the deterministic samplers; takes several times as long."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: BatchSize = None
    out: Out = None
    """Output folder of the page. Default: the model's own folder; for a bundled model samplers/MODEL."""


FLOW_CALLS = 400
"""Roughly what the converged flow and its check cost, for estimates of time."""


def numbers_of(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas.

    Raises:
        ValueError: Something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--calls {text!r} is not a list of whole numbers such as 10,20,50") from None
    if min(found) < 1:
        raise ValueError(f"--calls {text!r}: a sampler makes at least 1 call")
    return found


def run(command: CompareSamplers) -> None:
    """Carry out the command."""
    from scorefield.cli.console.sampler_choice import (
        TOLERANCE,
        duration,
        held_out_of,
        keep,
        nothing_kept,
        receipt_of,
        require_numbers,
        say,
    )
    from scorefield.evaluation import samplers
    from scorefield.evaluation.samplers.candidates import candidates, dry_run
    from scorefield.evaluation.samplers.page import sections
    from scorefield.models.model import find, load
    from scorefield.models.run_folder import environment, environment_lines
    from scorefield.models.sampler_records import TABLE
    from scorefield.reports.methods_paragraph import paper_section
    from scorefield.reports.report import write_report

    require_numbers(command.n, command.seed, command.batch_size)
    calls = numbers_of(command.calls)
    folder, model = find(command.model), load(command.model, weights=command.weights)
    held_out = held_out_of(model, command.reference)
    receipt = receipt_of(model, command.n, command.seed, command.batch_size, held_out)
    samplers.measurement.require_enough(command.n, held_out.real)
    subject = _subject(model, command.seed, receipt.batch_size, held_out)
    names = command.samplers.split(",") if command.samplers else None
    chosen, refused = candidates(subject, calls, names=names, variants=command.variants)
    if held_out.real is None:
        say("the model does not say where its data are: errors and distances to its flow are measured, none to data")
    total = sum(dry_run(candidate.sampler, model.process).calls for candidate in chosen) + FLOW_CALLS
    seconds = total * command.n * subject.seconds_per_call(receipt.batch_size)
    say(f"measuring {len(chosen)} samplers of {model.name} with {command.n} samples each: about {duration(seconds)}")
    with nothing_kept():
        table = samplers.measure(
            subject,
            chosen,
            receipt,
            real=held_out.real,
            refused=refused,
            tolerance=TOLERANCE,
            say=say,
        )
    print()
    print("\n".join(lines_of(table)))
    saved = None if names else keep(folder, table)  # a table of some samplers does not replace one of all
    out = command.out or (folder if saved else Path("samplers") / model.name)
    facts = environment()
    page = write_report(
        out / "samplers.html",
        [*sections(table), paper_section(model.experiment, step=model.step, parts=["compare-samplers"])],
        title=f"Samplers of {model.name}",
        subtitle=f"Measured with {command.n} samples of each, from the same noise.",
        command=facts["command"],
        environment=environment_lines(facts),
    )
    if saved is None:
        samplers.write_record(out, table)
    print(f"{saved or out / TABLE}\n{page}")


def _subject(model: Model, seed: int, batch_size: int, held_out: HeldOut) -> samplers.Subject:
    """The model, and the tuned sampler if it has one that fits its weights."""
    from scorefield.evaluation import samplers

    subject = samplers.of_model(model, seed=seed, batch_size=batch_size, labels=held_out.labels)
    try:
        return replace(subject, own={**subject.own, "tuned": model.sampler("tuned")})
    except ValueError:
        return subject


def lines_of(table: SamplerTable) -> list[str]:
    """The table as aligned text, its failures below."""
    from scorefield.evaluation.samplers.page import COLUMNS, cells, ordered

    rows = [COLUMNS, *(cells(row) for row in ordered(table))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in table.refused:
        at = "" if one.calls is None else f" at {one.calls} calls"
        lines.append(f"not measured: {one.name}{at}: {one.reason}")
    return lines
