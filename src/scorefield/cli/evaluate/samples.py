"""scorefield evaluate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorefield import _codec
from scorefield._files import write_json
from scorefield.cli.console.reference_data import neighbour_sections, real_data
from scorefield.cli.console.sampler_choice import chosen_sampler, require_numbers
from scorefield.cli.evaluate import Evaluate
from scorefield.cli.evaluate.parts import Early, drawn, source_of_draws
from scorefield.data import DataError, DataSource, Split, open_data
from scorefield.data.order import pick
from scorefield.data_spec import DataSpec
from scorefield.evaluation import (
    Comparison,
    Densities,
    Given,
    Measures,
    OfModel,
    SampleStream,
    against,
    bits_per_dim,
    choose_features,
    examples,
    examples_at,
    finished,
    first_of,
    reference_of,
    summary,
    why_not,
)
from scorefield.evaluation.stacked_examples import stacked_classifier
from scorefield.metrics import (
    FeatureCache,
    Features,
    MetricResult,
    RawFeatures,
    Reference,
    ReferenceFacts,
    SampleSource,
    features_by_name,
    read_statistics,
)
from scorefield.metrics.by_name import BITS, Ingredients, asked, functions_of, possible
from scorefield.metrics.features.feature import feature_rows
from scorefield.metrics.statistics import MOMENTS, ROWS, Statistics
from scorefield.models.loading import default_device
from scorefield.models.model import Model, load
from scorefield.models.run_folder import environment, environment_lines
from scorefield.models.sample_folder import ARRAYS, RECORD, read_samples
from scorefield.reports.methods_paragraph import paper_section
from scorefield.reports.report import Section, metric_table, sample_grid, write_report
from scorefield.training import distributed


@dataclass(frozen=True)
class Job:
    """Samples and reference data of an evaluation.

    Args:
        name: Name of the model or the folder of samples.
        out: Output folder.
        source: The data of the model, or of the model of the samples.
        spec: What the samples are.
        train: What the model saw; None where it is not known.
        reference: Real examples that it did not see; None where statistics stand for them.
        statistics: Statistics of real data, in place of examples.
        rows: Indices of the examples of the reference; None for all.
        part: What to call them.
    """

    name: str
    out: Path
    source: DataSource
    spec: DataSpec
    train: Split | None
    reference: Split | None
    statistics: Reference | None = None
    rows: np.ndarray | None = None
    part: str = "held-out"


def evaluate(command: Evaluate) -> None:
    """Carry out the command; under torchrun the processes share the parts, and the first one measures.

    Raises:
        ValueError: Numbers that cannot be, an unknown metric, or data that metrics cannot take.
    """
    asked(command.metrics)
    require_numbers(1 if command.n is None else command.n, command.seed, command.batch_size)
    distributed.start()
    target = Path(command.target)
    folder = target.parent if target.name == ARRAYS else target
    if (folder / RECORD).is_file():
        samples = read_samples(folder)
        job = job_of(command, folder.name, samples.data, samples.spec)
        x = samples.x if command.n is None else samples.x[: command.n]
        run(command, job, Given(x), len(x), samples.source)
        return
    if command.reference is not None and target.exists() and not (target / "experiment.json").is_file():
        data = open_data(DataSource(path=command.target, held_out=0))
        job = job_of(command, target.name, replace(DataSource(), held_out=0), data.spec)
        x, _ = examples(data.train, command.n)
        run(command, job, Given(x), len(x), SampleSource(sampler=f"not known: read from {data.name}"))
        return
    model = load(command.target, weights=command.weights, precision=command.precision, compile=command.compile)
    job = job_of(command, Path(command.target).name, model.experiment.data, model.data)
    labels = None if job.reference is None else classes(model, job.reference, np.arange(len(job.reference)))
    run(command, job, draws_of(command, model, labels), command.n or 1000, None)


def job_of(command: Evaluate, name: str, source: DataSource, spec: DataSpec) -> Job:
    """Reference data.

    Raises:
        DataError: The data are not known, are of another shape, or nothing of them is held out.
    """
    out = command.out or Path("evaluation") / name
    own = real_data(source, None, spec) if source.path is not None else None
    train = own.train if own is not None else None
    if command.reference is not None and holds_statistics(command.reference):
        return Job(name, out, source, spec, train, None, read_statistics(command.reference))
    other = real_data(source, command.reference, spec) if command.reference is not None else own
    if other is None:
        raise DataError(f"{name} does not say where its data are; give --reference PATH")
    reference = other.held_out or (other.train if command.reference is not None else None)
    if reference is None or not len(reference):
        raise DataError(
            f"{other.name} has no held-out examples; give --reference PATH, or train with data.held_out above 0"
        )
    return Job(name, out, source, spec, train, reference)


def holds_statistics(path: str) -> bool:
    """Whether a file holds reference statistics and not examples."""
    if Path(path).suffix != ".npz" or not Path(path).is_file():
        return False
    with np.load(path, allow_pickle=False) as arrays:
        keys = set(arrays.files)
    return bool(keys & set(ROWS)) or any(set(pair) <= keys for pair in MOMENTS)


def classes(model: Model, reference: Split, rows: np.ndarray) -> torch.Tensor | None:
    """Classes of some real examples, which the samples of a class-conditional model take in turn."""
    if not model.data.conditions or reference.labels is None:
        return None
    return torch.from_numpy(reference.labels[rows]).long()


def draws_of(command: Evaluate, model: Model, labels: torch.Tensor | None, start: int = 0) -> OfModel:
    """The samples of a model that the command asks for, from an index on."""
    sampler = chosen_sampler(model, command.sampler, command.steps)
    return OfModel(model, sampler, seed=command.seed, start=start, labels=labels, size=command.batch_size)


def features_of(command: Evaluate, job: Job) -> Features:
    """The feature function of the command, on the first accelerator, if there is one.

    Raises:
        ValueError: No such features, or data that they do not take.
        DataError: Statistics of features without saying which.
    """
    if job.source.stack > 1 and command.features in ("auto", "classifier"):
        path = job.source.path if command.reference is None else command.reference
        return stacked_classifier(replace(job.source, path=path), job.out)
    if job.statistics is not None and command.features in ("auto", "classifier"):
        raise DataError(
            f"{job.statistics.facts.name!r} holds statistics of features, and samples must go through the same: say"
            " which they are, for example --features inception"
        )
    if command.features in ("auto", "classifier", "raw"):
        known = job.train or job.reference
        return RawFeatures() if known is None else choose_features(command.features, known, job.reference)  # type: ignore[arg-type]
    return features_by_name(
        command.features,
        job.spec,
        gray=command.gray,
        quantise=command.quantise,
        weights=command.inception,
        device=str(default_device()),
    )


# ---------------------------------------------------------------------------------------------------- the work


def run(
    command: Evaluate, job: Job, draws: Given | OfModel, n: int, source: SampleSource | None, **record: Any
) -> None:
    """Draw what is missing, measure, write metrics.json and the page.

    Args:
        command: The command.
        job: What is compared with what.
        draws: The samples.
        n: Number of samples.
        source: Provenance of the samples, where they are not drawn here.
        record: More for metrics.json.
    """
    model = draws.model if isinstance(draws, OfModel) else None
    ingredients, names = prepared(command, job, model)
    measured = [name for name in names if name != BITS]
    first = distributed.rank() == 0
    # Only the first process measures; it refuses data that features cannot take before anything is drawn.
    measures = Measures(measured, ingredients) if first else None
    functions = functions_of(measured, ingredients)
    stream = SampleStream(draws, functions, job.out / "parts", command.batch_size)
    early = Early(measures, stream, n, command.early, draws, source, job.out) if measures is not None else None
    drawn(stream, n, "samples", early)
    bits = None if model is None or BITS not in names else _bits(command, job, model)
    if measures is None:
        return
    source = source_of_draws(draws, stream, n) or source
    found = finished(measures, lambda: stream.parts(n), source, job.train, n)
    results = found.samples + ([bits] if bits is not None else [])
    paper = of_draws(draws, stream, n, results)
    _write(job, stream, n, replace(found, samples=results), paper, {**(early.record if early else {}), **record})


def prepared(command: Evaluate, job: Job, model: Model | None) -> tuple[Ingredients, tuple[str, ...]]:
    """Inputs of the metrics, and the metrics to be computed.

    Raises:
        ValueError: A metric asked for by name that these data do not allow, or statistics of other features.
    """
    features = features_of(command, job)
    cache = FeatureCache(command.cache or job.out / "features")
    if job.statistics is not None:
        known = None if job.train is None else reference_of(job.train, np.arange(len(job.train)), "train", cache)
        ingredients = Ingredients(features, job.statistics, known, seed=command.seed)
    else:
        assert job.reference is not None
        ingredients = against(
            job.reference, job.train, features, seed=command.seed, cache=cache, rows=job.rows, part=job.part
        )
    if isinstance(job.statistics, Statistics):
        width = feature_rows(features, torch.zeros(1, *job.spec.shape)).shape[1]
        if width != job.statistics.width:
            raise ValueError(
                f"{job.statistics.facts.name!r} holds statistics of {job.statistics.width} features and"
                f" {features.name!r} has {width}; name the features that they are of, --features"
            )
    names, left = possible(command.metrics, ingredients)
    reason = _no_bits(job, model) if BITS in names else None
    if reason is not None:
        if command.metrics != "all":
            raise ValueError(reason)
        names, left = tuple(name for name in names if name != BITS), (*left, reason)
    for line in left if distributed.rank() == 0 else ():
        print(f"left out: {line}")
    return ingredients, names


def _no_bits(job: Job, model: Model | None) -> str | None:
    """Why there are no bits per dimension, None where there are."""
    if model is None:
        return f"{BITS} is of a model, and {job.name} is a folder of samples"
    if job.reference is None:
        return f"{BITS} needs held-out examples, and --reference names statistics of features"
    return why_not(model)


def _bits(command: Evaluate, job: Job, model: Model) -> MetricResult | None:
    """Bits per dimension of held-out examples; None in processes that do not report."""
    assert job.reference is not None
    rows = np.arange(len(job.reference)) if job.rows is None else job.rows
    x, labels = examples_at(job.reference, rows[pick(len(rows), command.examples, 0)])
    densities = Densities(model, x, labels, seed=command.seed, size=min(command.batch_size, 32))
    stream = SampleStream(densities, (), job.out / "parts", min(command.batch_size, 32))
    drawn(stream, len(x), "densities")
    facts = ReferenceFacts(job.reference.name, job.part, len(x), "", job.reference.spec.units)
    return bits_per_dim(densities, stream, facts) if distributed.rank() == 0 else None


def of_draws(draws: Given | OfModel, stream: SampleStream, n: int, results: list[MetricResult]) -> Section:
    """The entries of an evaluation that a paper needs."""
    if isinstance(draws, Given):
        return paper_section(None, results=results)
    model = draws.model
    return paper_section(
        model.experiment,
        parameters=sum(p.numel() for p in model.network.parameters()),
        step=model.step,
        weights=model.weights,
        sampler=draws.sampler,
        nfe=float(stream.column("nfe", n).double().mean()),
        results=results,
    )


def _write(job: Job, stream: SampleStream, n: int, found: Comparison, paper: Section, record: dict[str, Any]) -> None:
    """metrics.json and report.html."""
    for line in summary(found.samples, "samples") + summary(found.real, "second real split"):
        print(line)
    columns = {"samples": found.samples, **({"second real split": found.real} if found.real else {})}
    facts = environment()
    results = {name: [_codec.encode(r) for r in rows] for name, rows in columns.items()}
    failed = int((stream.column("status", n) != 0).sum())
    write_json(job.out / "metrics.json", {**results, **record, "failed": failed, "environment": facts})
    if failed:
        print(f"warning: {failed} of {n} samples did not succeed (status); they are among those measured")
    x = torch.cat([part.x for part in first_of(stream.parts(n), 64)])
    sections = [
        Section("Metrics", [metric_table(columns)]),
        Section("Samples", [sample_grid(x, job.spec)]),
        *neighbour_sections(found, x, job.spec),
        paper,
    ]
    report = write_report(
        job.out / "report.html",
        sections,
        title=f"Evaluation of {job.name}",
        command=facts["command"],
        environment=environment_lines(facts),
    )
    print(f"{job.out / 'metrics.json'}\n{report}")
