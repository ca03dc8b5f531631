"""The sampler that --sampler, --steps and --budget ask for, and what measurements of samplers are made of."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scorefield.cli.console.reference_data import real_data
from scorefield.data import DataError
from scorefield.evaluation import examples, samplers
from scorefield.evaluation.samplers import Real
from scorefield.evaluation.samplers.candidates import admitted, candidates, dry_run
from scorefield.likelihood.probability_flow import require_flow
from scorefield.metrics.receipt import ReferenceFacts, data_hash
from scorefield.models.model import Model, bundled
from scorefield.models.run_folder import environment
from scorefield.models.sampler_files import StaleError
from scorefield.models.sampler_records import TABLE, MeasureReceipt, SamplerTable, TunedSampler
from scorefield.sampling.sampler import Sampler

TOLERANCE = samplers.measurement.TOLERANCE
"""Tolerance of the converged flow that samplers are compared with."""

MOST = 2000
"""Held-out examples used at most; distances cost their square."""

QUICK, QUICK_CALLS, QUICK_TOLERANCE = 8, (5, 10, 20, 50), 1e-5
QUICK_NAMES = ("dpm", "edm")
"""Measurement that `--budget` makes if there is no table: samples, numbers of calls, tolerance of the flow."""


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


@dataclass(frozen=True)
class HeldOut:
    """Real examples in model units, their labels, and their facts for the receipt."""

    real: Real | None = None
    labels: Tensor | None = None
    facts: ReferenceFacts | None = None


def held_out_of(model: Model, path: str | None) -> HeldOut:
    """The held-out data of a model, or other data; nothing where the model does not say where its data are.

    Raises:
        DataError: They are not the model's kind of data, or none of them were held out.
    """
    if path is None and model.experiment.data.path is None:
        return HeldOut()
    data = real_data(model.experiment.data, path, model.data)
    split = data.held_out or (data.train if path is not None else None)
    if split is None or not len(split):
        raise DataError(f"{data.name} has no held-out examples; give others with --reference DATA")
    x, labels = examples(split, MOST)
    facts = ReferenceFacts(split.name, "held-out" if path is None else None, len(x), data_hash(x), model.data.units)
    return HeldOut(Real(model.data.to_model(x)), labels, facts)


def receipt_of(model: Model, n: int, seed: int, batch_size: int | None, held_out: HeldOut) -> MeasureReceipt:
    """Everything on which measurements of a model's samplers depend."""
    size = min(batch_size or 128, n)
    facts = environment()
    return MeasureReceipt(
        model.name, model.hash, model.weights, n, seed, held_out.facts, batch_size=size, environment=facts
    )


def keep(folder: Path, value: SamplerTable | TunedSampler) -> Path | None:
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
def nothing_kept() -> Iterator[None]:
    """Says of an interrupted measurement that it left nothing behind."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; nothing was written, and the same command begins again") from None


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def duration(seconds: float) -> str:
    """A time in seconds or minutes, for reading."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def sampler_within(text: str, model: Model, folder: Path, n: int, batch_size: int | None) -> Sampler:
    """The sampler that a --budget chooses; prints its expected error and time.

    Args:
        text: The budget, e.g. "nfe=20".
        model: The model to sample.
        folder: Its folder, which may hold a table of measured samplers, and gets one otherwise.
        n: Number of samples.
        batch_size: Examples per network call; None for the default.

    Raises:
        ValueError: The budget cannot be read or kept.
    """
    budget = samplers.parse_budget(text)
    try:
        table = samplers.read_table(folder, model.hash)
    except StaleError as error:
        print(f"{error}\nmeasuring again")
        table = None
    if table is None:
        table = _quick(folder, model)
    now = table.receipt.seconds_per_call
    if budget.kind == "seconds":  # the machine may be another, or busier
        size = max(1, min(n, batch_size or 128))
        now = samplers.of_model(model, batch_size=size, labels=_labels(model)).seconds_per_call()
    choice = samplers.choose(table, budget, n, model.process, now)
    low, high = choice.interval
    print(f"{text}: {choice.title}, {choice.calls:.4g} network calls per sample, {choice.how}")
    print(f"  {choice.sampler}")
    print(
        f"  expected {choice.of} {choice.quality:.3g}, 95 % {low:.3g} to {high:.3g} (model units); expected time"
        f" {choice.seconds:.3g} s for {n} samples"
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
            f"no error against the flow can be measured ({error}); scorefield compare-samplers {folder}"
            " --reference DATA compares by the distance to data, and --budget then uses its table"
        ) from error
    say(f"no table of this model's samplers yet: measuring quickly with {QUICK} samples (errors against the flow only)")
    receipt = receipt_of(model, QUICK, 0, None, HeldOut())
    subject = samplers.of_model(model, batch_size=receipt.batch_size, labels=_labels(model))
    chosen, refused = candidates(subject, QUICK_CALLS, names=QUICK_NAMES)
    with nothing_kept():
        table = samplers.measure(subject, chosen, receipt, refused=refused, tolerance=QUICK_TOLERANCE)
    if not any(row.error for row in table.rows):
        reasons = "; ".join(one.reason for one in table.refused if one.name == "the converged flow")
        raise ValueError(f"no error against the flow can be measured ({reasons})")
    if keep(folder, table):
        print(f"kept in {folder / TABLE}; scorefield compare-samplers {folder} measures it better")
    return table


def _labels(model: Model) -> Tensor | None:
    """Labels of held-out data, for models that need them."""
    return held_out_of(model, None).labels if model.data.conditions else None
