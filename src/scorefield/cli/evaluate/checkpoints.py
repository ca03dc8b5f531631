"""scorefield evaluate RUN --checkpoints ...: a checkpoint chosen on one split and reported on another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from scorefield import _codec
from scorefield._files import write_json
from scorefield.cli.console.reference_data import real_data
from scorefield.cli.console.sampler_choice import require_numbers
from scorefield.cli.evaluate import Evaluate
from scorefield.cli.evaluate.parts import drawn, source_of_draws
from scorefield.cli.evaluate.samples import Job, classes, draws_of, features_of, holds_statistics, run
from scorefield.data import DataError
from scorefield.evaluation import (
    Candidate,
    Measures,
    OfModel,
    SampleStream,
    against,
    ranked,
    require_selecting,
    splits_of,
    steps_of,
    sweep_lines,
)
from scorefield.evaluation.checkpoint_selection import Splits
from scorefield.metrics import FeatureCache, MetricResult
from scorefield.metrics.by_name import asked, functions_of, lacking
from scorefield.metrics.energy_distance import Jackknifed
from scorefield.metrics.paired import contributions
from scorefield.models.model import Model, load
from scorefield.models.run_folder import environment
from scorefield.models.sample_folder import RECORD
from scorefield.training import distributed


def sweep(command: Evaluate) -> None:
    """Carry out the command.

    Raises:
        ValueError: A folder without these checkpoints, a metric that cannot choose, or numbers that cannot be.
        DataError: Nothing is held out to choose by.
    """
    assert command.checkpoints is not None
    asked(command.metrics)
    require_selecting(command.select)
    require_numbers(1 if command.n is None else command.n, command.seed, command.batch_size)
    folder, n = Path(command.target), command.n or 1000
    if (folder / RECORD).is_file():
        raise ValueError(f"{folder} is a folder of samples; --checkpoints chooses among those of a run folder")
    steps = steps_of(folder, command.checkpoints)
    if command.reference is not None and holds_statistics(command.reference):
        raise DataError("--checkpoints needs real examples, to choose by one part and report on another; give data")
    distributed.start()
    model = _at(command, steps[-1])
    job, splits = _job(command, model)
    best, table = _choose(command, job, splits, steps, n)
    chosen = steps[best]
    record = {
        "selection": {
            "metric": command.select,
            "on": splits.selection[2],
            "chosen": chosen,
            "indices": [0, n],
            "checkpoints": [_codec.encode(c) for c in table],
        }
    }
    if table:
        write_json(job.out / "sweep.json", {**record, "environment": environment()})
        print("\n".join(sweep_lines(table, best)))
        print(f"step {chosen} is reported with fresh samples {n} .. {2 * n - 1} against {splits.report[2]}", flush=True)
    model = _at(command, chosen)
    labels = classes(model, splits.report[0], splits.report[1])
    run(command, job, draws_of(command, model, labels, start=n), n, None, **record)


def _at(command: Evaluate, step: int) -> Model:
    return load(
        command.target,
        weights=command.weights,
        precision=command.precision,
        compile=command.compile,
        checkpoint=step,
    )


def _job(command: Evaluate, model: Model) -> tuple[Job, Splits]:
    """The data of the selection and of the report."""
    source, name = model.experiment.data, Path(command.target).name
    own = real_data(source, None, model.data) if source.path is not None else None
    held_out = None if own is None else own.held_out
    if command.reference is not None:
        other = real_data(source, command.reference, model.data)
        held_out = other.held_out or other.train
    splits = splits_of(held_out, None if own is None else own.train, command.on)
    job = Job(
        name,
        command.out or Path("evaluation") / name,
        source,
        model.data,
        None if own is None else own.train,
        splits.report[0],
        rows=splits.report[1],
        part=splits.report[2],
    )
    return job, splits


@dataclass
class _Found:
    """Results of the checkpoints measured so far."""

    results: list[MetricResult]
    parts: list[Jackknifed | str]


def _choose(command: Evaluate, job: Job, splits: Splits, steps: list[int], n: int) -> tuple[int, list[Candidate]]:
    """Position of the best checkpoint, in every process, and the table, in the first."""
    split, rows, part = splits.selection
    cache = FeatureCache(command.cache or job.out / "features")
    ingredients = against(split, None, features_of(command, job), seed=command.seed, cache=cache, rows=rows, part=part)
    if (reason := lacking(command.select, ingredients)) is not None:
        raise ValueError(reason)
    first, found = distributed.rank() == 0, _Found([], [])
    measures = Measures([command.select], ingredients) if first else None
    for step in steps:
        model = _at(command, step)
        draws = draws_of(command, model, classes(model, split, rows))
        functions = functions_of([command.select], ingredients)
        stream = SampleStream(draws, functions, job.out / "checkpoints" / f"step_{step}", command.batch_size)
        drawn(stream, n, f"samples of step {step}")
        if measures is not None:
            _measure(measures, command.select, stream, draws, n, found)
    best, table = (0, []) if measures is None else ranked(steps, found.results, found.parts)
    # Rank 0 alone has measured; the sum over processes tells all.
    return int(distributed.all_sum(torch.tensor([float(best if first else 0)]))), table


def _measure(measures: Measures, name: str, stream: SampleStream, draws: OfModel, n: int, found: _Found) -> None:
    metric = measures.fed(measures.metrics[name], stream.parts(n))
    found.results.append(metric.result(source_of_draws(draws, stream, n)))
    try:
        found.parts.append(contributions(metric))
    except ValueError as error:
        found.parts.append(str(error))
    metric.reset()
