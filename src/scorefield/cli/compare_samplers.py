"""scorefield compare-samplers, tune, and sample --budget."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from scorefield.cli.commands import CompareSamplers, Sample, Tune
from scorefield.cli.reference_data import real_data
from scorefield.data import DataError
from scorefield.evaluation import examples, samplers
from scorefield.evaluation.samplers import Real
from scorefield.evaluation.samplers.candidates import admitted, candidates, dry_run, with_calls
from scorefield.evaluation.samplers.page import COLUMNS, cells, ordered, sections
from scorefield.evaluation.samplers.tuning_page import tuned_sections
from scorefield.likelihood.probability_flow import require_flow
from scorefield.metrics.receipt import ReferenceFacts, data_hash
from scorefield.models.model import Model, bundled, find, load
from scorefield.models.run_folder import environment, environment_lines
from scorefield.models.sampler_files import StaleError
from scorefield.models.sampler_records import TABLE, TUNED, MeasureReceipt, SamplerTable, TunedSampler
from scorefield.reports.methods_paragraph import paper_section
from scorefield.reports.report import write_report
from scorefield.sampling.named import with_steps
from scorefield.sampling.sampler import Sampler

MOST = 2000
"""Held-out examples used at most; distances cost their square."""

QUICK, QUICK_CALLS, QUICK_TOLERANCE = 8, (5, 10, 20, 50), 1e-5
QUICK_NAMES = ("dpm", "edm")
"""What a budget measures by itself where there is no table: samples, numbers of calls, tolerance of the flow."""

TOLERANCE = samplers.measurement.TOLERANCE
"""Of the converged flow that samplers are compared with."""

FLOW_CALLS = 400
"""Roughly what the converged flow and its check cost, for estimates of time."""

CALLS = 100
"""Network calls per sample of a sampler that is tuned by name, unless told otherwise."""

TRIALS = 14
"""Roughly how many samplers a tuning tries, for estimates of time."""


# ------------------------------------------------------------------------------------------------ what cannot be


def require_numbers(n: int, seed: int, batch_size: int | None = None, start: int = 0) -> None:
    """Refuse numbers that cannot be before any work is done.

    Raises:
        ValueError: One of them.
    """
    if n < 1:
        raise ValueError(f"-n {n}: draw at least 1 sample")
    if seed < 0 or start < 0:
        name, value = ("--seed", seed) if seed < 0 else ("--start", start)
        raise ValueError(f"{name} {value} must not be negative; 0 is the default")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"--batch-size {batch_size} must be at least 1; leave it out for at most 128")


def chosen_sampler(model: Model, name: str | None, steps: int | None) -> Sampler:
    """The sampler that --sampler and --steps ask for.

    Raises:
        ValueError: The model does not admit it; says which it does.
    """
    sampler = model.sampler(name, steps)
    if name is not None and name != "tuned":
        try:
            dry_run(sampler, model.process, model.as_score())
        except (ValueError, TypeError) as error:
            names = ", ".join(admitted(model.as_score(), model.sampler)) or "none by name"
            raise ValueError(f"{model.name} does not admit --sampler {name}: {error}. It admits {names}") from error
    return sampler


# ------------------------------------------------------------------------------------------------ what is compared with


@dataclass(frozen=True)
class _HeldOut:
    """Real examples in model units, their labels, and their facts for the receipt."""

    real: Real | None = None
    labels: Tensor | None = None
    facts: ReferenceFacts | None = None


def _held_out(model: Model, path: str | None) -> _HeldOut:
    """The held-out data of a model, or other data; nothing where the model does not say where its data are.

    Raises:
        DataError: They are not the model's kind of data, or none of them were held out.
    """
    if path is None and model.experiment.data.path is None:
        return _HeldOut()
    data = real_data(model.experiment.data, path, model.data)
    split = data.held_out or (data.train if path is not None else None)
    if split is None or not len(split):
        raise DataError(f"{data.name} has no held-out examples; give others with --data PATH")
    x, labels = examples(split, MOST)
    facts = ReferenceFacts(split.name, "held-out" if path is None else None, len(x), data_hash(x), model.data.units)
    return _HeldOut(Real(model.data.to_model(x)), labels, facts)


def _receipt(model: Model, n: int, seed: int, batch_size: int | None, held_out: _HeldOut) -> MeasureReceipt:
    size = min(batch_size or 128, n)
    facts = environment()
    return MeasureReceipt(
        model.name, model.hash, model.weights, n, seed, held_out.facts, batch_size=size, environment=facts
    )


def _kept(folder: Path, value: SamplerTable | TunedSampler) -> Path | None:
    """Write into a model folder; None, with a line that says why, where that cannot be."""
    if any(folder.resolve() == path.resolve() for path in bundled().values()):
        print(f"not saved: {folder.name} is a bundled model; copy its folder, {folder}, to keep what is measured")
        return None
    try:
        return samplers.write_record(folder, value)
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno not in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"not saved: {folder} cannot be written to ({error.strerror or error})")
    return None


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Says of an interrupted measurement that it left nothing behind."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; nothing was written, and the same command begins again") from None


def _say(line: str) -> None:
    print(line, flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


# ------------------------------------------------------------------------------------------------ compare-samplers


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


def compare_samplers(command: CompareSamplers) -> None:
    """Carry out the command."""
    require_numbers(command.n, command.seed, command.batch_size)
    calls = numbers_of(command.calls)
    folder, model = find(command.model), load(command.model, weights=command.weights)
    held_out = _held_out(model, command.data)
    receipt = _receipt(model, command.n, command.seed, command.batch_size, held_out)
    samplers.measurement.require_enough(command.n, held_out.real)
    subject = _subject(model, command.seed, receipt.batch_size, held_out)
    names = command.samplers.split(",") if command.samplers else None
    chosen, refused = candidates(subject, calls, names=names, variants=command.variants)
    if held_out.real is None:
        _say("the model does not say where its data are: errors and distances to its flow are measured, none to data")
    total = sum(dry_run(candidate.sampler, model.process).calls for candidate in chosen) + FLOW_CALLS
    seconds = total * command.n * subject.seconds_per_call(receipt.batch_size)
    _say(f"measuring {len(chosen)} samplers of {model.name} with {command.n} samples each: about {_duration(seconds)}")
    with _nothing_kept():
        table = samplers.measure(
            subject, chosen, receipt, real=held_out.real, refused=refused, tolerance=TOLERANCE, say=_say
        )
    print()
    print("\n".join(lines_of(table)))
    saved = None if names else _kept(folder, table)  # a table of some samplers does not replace one of all
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


def _subject(model: Model, seed: int, batch_size: int, held_out: _HeldOut) -> samplers.Subject:
    """The model, and the tuned sampler if it has one that fits its weights."""
    subject = samplers.of_model(model, seed=seed, batch_size=batch_size, labels=held_out.labels)
    try:
        return replace(subject, own={**subject.own, "tuned": model.sampler("tuned")})
    except ValueError:
        return subject


def lines_of(table: SamplerTable) -> list[str]:
    """The table as aligned text, its failures below."""
    rows = [COLUMNS, *(cells(row) for row in ordered(table))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in table.refused:
        at = "" if one.calls is None else f" at {one.calls} calls"
        lines.append(f"not measured: {one.name}{at}: {one.reason}")
    return lines


# ------------------------------------------------------------------------------------------------ tune


def tune_sampler(command: Tune) -> None:
    """Carry out the command."""
    require_numbers(command.n, command.seed, command.batch_size)
    if command.calls is not None and command.calls < 1:
        raise ValueError(f"--calls {command.calls}: a sampler makes at least 1 call")
    folder, model = find(command.model), load(command.model, weights=command.weights)
    held_out = _HeldOut() if command.criterion == "flow" else _held_out(model, command.data)
    if command.criterion == "data" and held_out.real is None:
        raise DataError(
            "the model does not say where its data are; give them with --data PATH, or use --criterion flow"
        )
    receipt = _receipt(model, command.n, command.seed, command.batch_size, held_out)
    samplers.measurement.require_enough(command.n, held_out.real)
    subject = samplers.of_model(model, seed=command.seed, batch_size=receipt.batch_size, labels=held_out.labels)
    sampler = _to_tune(model, command)
    calls = dry_run(sampler, model.process).calls
    seconds = TRIALS * calls * command.n * subject.seconds_per_call(receipt.batch_size)
    _say(
        f"tuning {type(sampler.step).__name__} on {type(sampler.grid).__name__}, {calls} network calls per sample:"
        f" about {_duration(seconds)}"
    )
    with _nothing_kept():
        found = samplers.tune(subject, sampler, receipt, real=held_out.real, say=_say)
    print()
    print("\n".join(found.conclusion))
    print(f"criterion: {found.criterion}, model units, {command.n} samples a trial; smaller differences than its")
    print("intervals were not looked for")
    target = command.out or folder
    saved = _kept(target, found)
    facts = environment()
    page = write_report(
        (target if saved is not None else Path("samplers") / model.name) / "tune.html",
        [
            *tuned_sections(found),
            paper_section(model.experiment, step=model.step, sampler=found.sampler, parts=["tune"]),
        ],
        title=f"Tuning the sampler of {model.name}",
        command=facts["command"],
        environment=environment_lines(facts),
    )
    print(page)
    if saved is not None:
        print(f"{saved}: {found.sampler}")
        print(f"use it by name: scorefield sample {target} --sampler tuned (the default sampler is what it was)")
    else:
        print(f"found: {found.sampler}; --out FOLDER writes {TUNED} elsewhere")


def _to_tune(model: Model, command: Tune) -> Sampler:
    """The sampler that tuning begins with, at the number of calls asked for."""
    process = model.process

    def build(steps: int) -> Sampler:
        if command.sampler is not None:
            return chosen_sampler(model, command.sampler, steps)
        return with_steps(model.experiment.sampler, steps)

    if command.sampler == "ode":
        raise ValueError(
            "the ode sampler chooses its own steps and has no setting to tune; tune another, for example --sampler pc"
        )
    if command.calls is None and command.sampler is None:
        return model.sampler()
    return with_calls(build, process, CALLS if command.calls is None else command.calls)[0]


# ------------------------------------------------------------------------------------------------ sample --budget


def sampler_for(command: Sample, model: Model) -> Sampler:
    """The sampler that a --budget chooses, with what is expected of it printed.

    Raises:
        ValueError: The budget cannot be read or kept, or comes with a sampler or steps of its own.
    """
    assert command.budget is not None
    if command.sampler is not None or command.steps is not None:
        raise ValueError("--budget chooses the sampler and its steps; leave out --sampler and --steps, or --budget")
    budget = samplers.parse_budget(command.budget)
    folder = find(command.model)
    try:
        table = samplers.read_table(folder, model.hash)
    except StaleError as error:
        print(f"{error}\nmeasuring again")
        table = None
    if table is None:
        table = _quick(folder, model)
    now = table.receipt.seconds_per_call
    if budget.kind == "seconds":  # the machine may be another, or busier
        size = max(1, min(command.n, command.batch_size or 128))
        now = samplers.of_model(model, batch_size=size, labels=_labels(model)).seconds_per_call()
    choice = samplers.choose(table, budget, command.n, model.process, now)
    low, high = choice.interval
    print(f"{command.budget}: {choice.title}, {choice.calls:.4g} network calls per sample, {choice.how}")
    print(f"  {choice.sampler}")
    print(
        f"  expected {choice.of} {choice.quality:.3g}, 95 % {low:.3g} to {high:.3g} (model units); expected time"
        f" {choice.seconds:.3g} s for {command.n} samples"
    )
    calls = budget.amount if budget.kind == "nfe" else choice.calls
    nearer = None if budget.kind == "error" else samplers.nearer_to_data(table, calls)
    if nearer is not None and nearer.beyond_flow is not None:
        closer = nearer.beyond_flow
        print(
            f"  note: {nearer.title} with {nearer.calls:.4g} calls is nearer to the held-out data than the converged"
            f" flow, by {-closer.number:.3g} +- {1.96 * closer.std_error:.2g} in squared energy distance"
        )
    return choice.sampler


def _quick(folder: Path, model: Model) -> SamplerTable:
    """A small table of the samplers that follow the flow, measured now.

    Raises:
        ValueError: The model has no flow.
    """
    try:
        require_flow(model.as_flow())
    except ValueError as error:
        raise ValueError(
            f"no error against the flow can be measured ({error}); scorefield compare-samplers {folder} --data PATH"
            " compares by the distance to data, and --budget then uses its table"
        ) from error
    _say(
        f"no table of this model's samplers yet: measuring quickly with {QUICK} samples (errors against the flow only)"
    )
    receipt = _receipt(model, QUICK, 0, None, _HeldOut())
    subject = samplers.of_model(model, batch_size=receipt.batch_size, labels=_labels(model))
    chosen, refused = candidates(subject, QUICK_CALLS, names=QUICK_NAMES)
    with _nothing_kept():
        table = samplers.measure(subject, chosen, receipt, refused=refused, tolerance=QUICK_TOLERANCE)
    if not any(row.error for row in table.rows):
        reasons = "; ".join(one.reason for one in table.refused if one.name == "the converged flow")
        raise ValueError(f"no error against the flow can be measured ({reasons})")
    if _kept(folder, table):
        print(f"kept in {folder / TABLE}; scorefield compare-samplers {folder} measures it better")
    return table


def _labels(model: Model) -> Tensor | None:
    """Labels of held-out data, for models that need them."""
    return _held_out(model, None).labels if model.data.conditions else None
