"""scorefield evaluate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scorefield import _codec
from scorefield.app.commands import Evaluate
from scorefield.app.progress import sampling_display
from scorefield.data_spec import DataSpec
from scorefield.lab.data import Data, DataError, DataSource, Split, open_data
from scorefield.lab.evaluation import Comparison, choose_features, compare, summary
from scorefield.lab.files import write_json
from scorefield.lab.model import Model, load
from scorefield.lab.report import Section, metric_table, nearest_neighbours, sample_grid, write_report
from scorefield.lab.run_folder import environment
from scorefield.lab.sample_folder import ARRAYS, RECORD, SampleFolder, read_samples, source_of
from scorefield.lab.stacked import stacked_classifier
from scorefield.metrics import SampleSource


def real_data(source: DataSource, path: str | None, spec: DataSpec) -> Data:
    """The data of a model, or all of other data read in the same way.

    Raises:
        DataError: They are of another shape, range or unit than the model's.
    """
    if path is not None:
        source = replace(source, path=path, kind="auto", held_out=0)
    if source.path is None:
        raise DataError("the model does not say where its data are; give them with --reference or --data PATH")
    data = open_data(source) if path is None else _read_alike(source, spec)
    if data.spec.shape != spec.shape:
        raise DataError(
            f"{data.name} has examples of shape {data.spec.shape}, the model was trained on {spec.shape}; give data"
            f" of its shape"
            " (the fields size, crop and channels of its data source apply)"
        )
    there, here = ((s.low, s.high, s.levels, s.units) for s in (data.spec, spec))
    if there != here:
        raise DataError(
            f"{data.name} has low, high, levels, units = {there}, the model's data {here}; nothing can be compared"
            f" across units. Arrays of floats, which state no range, are taken to be in the model's units"
        )
    return data


def _read_alike(source: DataSource, spec: DataSpec) -> Data:
    """Other data than the model's own, read in the same way; floats that state no range in the model's units."""
    plain = source if source.low is not None else replace(source, model_range=DataSource().model_range)
    data = open_data(plain)
    if data.spec.bounded or not spec.bounded:
        return data
    stated = open_data(replace(source, low=spec.low, high=spec.high, levels=spec.levels, units=spec.units))
    between = f"{spec.low} to {spec.high}{f' {spec.units}' if spec.units else ''}"
    print(f"{data.name} states no range: its values are taken to be in the model's units, {between}")
    return stated


def evaluate(command: Evaluate) -> None:
    """Carry out the command."""
    target = Path(command.target)
    folder = target.parent if target.name == ARRAYS else target
    if (folder / RECORD).is_file():
        samples, name, model = read_samples(folder), folder.name, None
    else:
        model = load(command.target, weights=command.weights, precision=command.precision, compile=command.compile)
        name = Path(command.target).name
        samples = SampleFolder(torch.empty(0), model.data, SampleSource(), model.experiment.data)
    own = real_data(samples.data, None, samples.spec) if samples.data.path is not None else None
    other = real_data(samples.data, command.reference, samples.spec) if command.reference is not None else own
    if other is None:
        raise DataError(f"{name} does not say where its data are; give --reference PATH")
    reference = other.held_out or (other.train if command.reference is not None else None)
    if reference is None or not len(reference):
        raise DataError(
            f"{other.name} has no held-out examples; give --reference PATH, or train with data.held_out above 0"
        )
    if model is not None:
        samples = _drawn(command, model, reference, samples)
    train = own.train if own is not None else None
    _report(command, samples, train, reference, command.out or Path("evaluation") / name, name)


def _drawn(command: Evaluate, model: Model, reference: Split, samples: SampleFolder) -> SampleFolder:
    """Samples of the model, under the reference's labels where it takes them."""
    condition = None
    if model.data.conditions and reference.labels is not None:
        condition = {"class": torch.from_numpy(reference.labels[np.arange(command.n) % len(reference)]).long()}
    sampler = model.sampler(command.sampler, command.steps)
    with sampling_display(command.n) as display:
        callbacks = (display.within,)
        drawn = model.sample(
            command.n,
            sampler=sampler,
            seed=command.seed,
            condition=condition,
            callbacks=callbacks,
            on_batch=display.finished,
        )
    return replace(samples, x=drawn.x, source=source_of(model, drawn))


def _report(
    command: Evaluate, samples: SampleFolder, train: Split | None, reference: Split, out: Path, name: str
) -> None:
    x = samples.x[: command.n]
    if samples.data.stack > 1 and command.features != "raw":
        path = samples.data.path if command.reference is None else command.reference
        features = stacked_classifier(replace(samples.data, path=path), out)
    else:
        features = choose_features(command.features, train or reference, reference)
    found = compare(x, samples.source, train, reference, features, seed=command.seed)
    for line in summary(found.samples, "samples") + summary(found.real, "second real split"):
        print(line)
    columns = {"samples": found.samples, **({"second real split": found.real} if found.real else {})}
    record = {title: [_codec.encode(r) for r in results] for title, results in columns.items()}
    facts = environment()
    write_json(out / "metrics.json", {**record, "environment": facts})
    sections = [
        Section("Metrics", [metric_table(columns)]),
        Section("Samples", [sample_grid(x[:64], samples.spec)]),
        *neighbour_sections(found, x, samples.spec),
    ]
    report = write_report(
        out / "report.html",
        sections,
        title=f"Evaluation of {name}",
        command=facts["command"],
        environment=flat(facts),
    )
    print(f"{out / 'metrics.json'}\n{report}")


def neighbour_sections(found: Comparison, x: torch.Tensor, spec: DataSpec, shown: int = 10) -> list[Section]:
    """The nearest training examples of the first samples, where the training data are known."""
    if found.neighbours is None or found.train is None:
        return []
    nearest, rows = found.neighbours.neighbours(), slice(0, shown)
    block = nearest_neighbours(x[rows], found.train[nearest.index[rows]].to(x.dtype), nearest.distance[rows], spec)
    return [Section("Nearest training examples", [block])]


def flat(facts: dict[str, object]) -> dict[str, str]:
    """Facts of the environment as lines of a report."""
    packages = facts["packages"]
    assert isinstance(packages, dict)
    rest = {key: str(value) for key, value in facts.items() if key not in ("packages", "command")}
    return {**rest, **{f"{key}": str(value) for key, value in packages.items()}}
