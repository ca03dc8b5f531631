"""`scorefield tune`: a sampler's settings by measurement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from scorefield.cli.console.arguments import SAMPLERS, BatchSize, Count, ModelName, Out, Reference, Seed, Weights

if TYPE_CHECKING:
    from scorefield.models.model import Model
    from scorefield.sampling.sampler import Sampler


@dataclass(frozen=True)
class Tune:
    """Find a sampler's settings (snr, Langevin step, eta, grid) by the distance of its samples to held-out data.

    The result, sampler.json in the model folder, is used by --sampler tuned and never unless it is asked for.
    """

    model: ModelName
    reference: Reference = None
    sampler: Annotated[str | None, arg(metavar=SAMPLERS)] = None
    """Sampler to tune. Default: the model's own."""
    calls: Annotated[int | None, arg(metavar="N")] = None
    """Network calls per sample. Default: those of the model's own sampler; 100 for a sampler by name."""
    criterion: Literal["auto", "data", "flow"] = "auto"
    """Minimise the distance to held-out data, or to samples of the converged flow; auto prefers data."""
    n: Count = 256
    """Number of samples for each value that is tried."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: BatchSize = None
    out: Out = None
    """Output folder for sampler.json. Default: the model's own folder."""


CALLS = 100
"""Network calls per sample of a sampler that is tuned by name, unless told otherwise."""

TRIALS = 14
"""Roughly how many samplers a tuning tries, for estimates of time."""


def run(command: Tune) -> None:
    """Carry out the command."""
    from scorefield.cli.console.sampler_choice import (
        HeldOut,
        duration,
        held_out_of,
        keep,
        nothing_kept,
        receipt_of,
        require_numbers,
        say,
    )
    from scorefield.data import DataError
    from scorefield.evaluation import samplers
    from scorefield.evaluation.samplers.candidates import dry_run
    from scorefield.evaluation.samplers.tuning_page import tuned_sections
    from scorefield.models.model import find, load
    from scorefield.models.run_folder import environment, environment_lines
    from scorefield.models.sampler_records import TUNED
    from scorefield.reports.methods_paragraph import paper_section
    from scorefield.reports.report import write_report

    require_numbers(command.n, command.seed, command.batch_size)
    if command.calls is not None and command.calls < 1:
        raise ValueError(f"--calls {command.calls}: a sampler makes at least 1 call")
    folder, model = find(command.model), load(command.model, weights=command.weights)
    held_out = HeldOut() if command.criterion == "flow" else held_out_of(model, command.reference)
    if command.criterion == "data" and held_out.real is None:
        raise DataError(
            "the model does not say where its data are; give them with --reference DATA, or use --criterion flow"
        )
    receipt = receipt_of(model, command.n, command.seed, command.batch_size, held_out)
    samplers.measurement.require_enough(command.n, held_out.real)
    subject = samplers.of_model(model, seed=command.seed, batch_size=receipt.batch_size, labels=held_out.labels)
    sampler = _to_tune(model, command)
    calls = dry_run(sampler, model.process).calls
    seconds = TRIALS * calls * command.n * subject.seconds_per_call(receipt.batch_size)
    say(
        f"tuning {type(sampler.step).__name__} on {type(sampler.grid).__name__}, {calls} network calls per sample:"
        f" about {duration(seconds)}"
    )
    with nothing_kept():
        found = samplers.tune(subject, sampler, receipt, real=held_out.real, say=say)
    print()
    print("\n".join(found.conclusion))
    print(f"criterion: {found.criterion}, model units, {command.n} samples a trial; smaller differences than its")
    print("intervals were not looked for")
    target = command.out or folder
    saved = keep(target, found)
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
    from scorefield.cli.console.sampler_choice import chosen_sampler
    from scorefield.evaluation.samplers.candidates import with_calls
    from scorefield.sampling.named import with_steps

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
