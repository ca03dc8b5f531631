"""scorefield evaluate and likelihood."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scorefield import _codec
from scorefield.app.commands import Evaluate, Likelihood
from scorefield.app.progress import sampling_display
from scorefield.inference.flow import FlowSettings
from scorefield.lab.data import Data, DataError, Split, open_data
from scorefield.lab.evaluation import choose_features, compare, examples, summary
from scorefield.lab.files import replacing, write_json
from scorefield.lab.model import Model, load
from scorefield.lab.report import Section, metric_table, nearest_neighbours, sample_grid, write_report
from scorefield.lab.run_folder import environment
from scorefield.lab.sample_folder import RECORD, SampleFolder, read_samples, source_of


def real_data(model: Model, path: str | None) -> Data:
    """The data of a model, or other data read in the same way.

    Raises:
        DataError: They are of another shape than the model's.
    """
    source = model.experiment.data if path is None else replace(model.experiment.data, path=path, kind="auto")
    if source.path is None:
        raise DataError(f"{model.name} does not say where its data are; give them with --reference or --data PATH")
    data = open_data(source)
    if data.spec.shape != model.data.shape:
        raise DataError(
            f"{data.name} has examples of shape {data.spec.shape}, {model.name} was trained on {model.data.shape};"
            f" give data of the model's shape"
            " (the fields data.size, data.crop and data.channels of its experiment apply)"
        )
    return data


def _held_out(data: Data) -> Split:
    if data.held_out is None or not len(data.held_out):
        raise DataError(
            f"{data.name} has no held-out examples to compare with; set data.held_out above 0 or give --reference"
        )
    return data.held_out


def evaluate(command: Evaluate) -> None:
    """Carry out the command."""
    if (Path(command.target) / RECORD).is_file():
        samples, data = read_samples(command.target), None
        if command.reference is None:
            model = load(samples.source.model) if samples.source.model else None
            if model is None:
                raise DataError("these samples do not say which model drew them; give --reference PATH")
            data = real_data(model, None)
        name = Path(command.target).name
    else:
        model = load(command.target, weights=command.weights)
        data, name = real_data(model, command.reference), model.name
        sampler = model.sampler(command.sampler, command.steps)
        with sampling_display(command.n) as display:
            drawn = model.sample(
                command.n, sampler=sampler, seed=command.seed, callbacks=(display.within,), on_batch=display.finished
            )
        samples = SampleFolder(drawn.x, model.data, source_of(model, drawn))
    if data is None:
        from scorefield.lab.data import DataSource

        data = open_data(DataSource(command.reference))
    out = command.out or Path("evaluation") / name
    _report(command, samples, data, out, name)


def _report(command: Evaluate, samples: SampleFolder, data: Data, out: Path, name: str) -> None:
    held_out, x = _held_out(data), samples.x[: command.n]
    if tuple(x.shape[1:]) != data.spec.shape:
        raise DataError(
            f"the samples have shape {tuple(x.shape[1:])} and {data.name} has {data.spec.shape}; nothing can be"
            f" compared"
        )
    features = choose_features(command.features, data.train, held_out)
    found = compare(x, samples.source, data.train, held_out, features, seed=command.seed)
    for line in summary(found.samples, "samples") + summary(found.real, "second real split"):
        print(line)
    record = {
        "samples": [_codec.encode(r) for r in found.samples],
        "second real split": [_codec.encode(r) for r in found.real],
    }
    write_json(out / "metrics.json", {**record, "environment": environment()})
    nearest = found.neighbours.neighbours()
    rows = slice(0, 12)
    sections = [
        Section("Metrics", [metric_table({"samples": found.samples, "second real split": found.real})]),
        Section("Samples", [sample_grid(x[:64], samples.spec)]),
        Section(
            "Nearest training examples",
            [
                nearest_neighbours(
                    x[rows], found.train[nearest.index[rows]].to(x.dtype), nearest.distance[rows], samples.spec
                )
            ],
        ),
    ]
    facts = environment()
    report = write_report(
        out / "report.html", sections, title=f"Evaluation of {name}", command=facts["command"], environment=_flat(facts)
    )
    print(f"{out / 'metrics.json'}\n{report}")


def _flat(facts: dict[str, object]) -> dict[str, str]:
    packages = facts["packages"]
    assert isinstance(packages, dict)
    rest = {key: str(value) for key, value in facts.items() if key not in ("packages", "command")}
    return {**rest, **{f"{key}": str(value) for key, value in packages.items()}}


def likelihood(command: Likelihood) -> None:
    """Carry out the command."""
    model = load(command.model, weights=command.weights)
    data = real_data(model, command.data)
    split = data.held_out if command.data is None and data.held_out is not None else data.train
    x, _ = examples(split, command.n)
    settings = FlowSettings(rtol=command.rtol, atol=command.rtol, divergence=command.divergence, probes=command.probes)
    size = command.batch_size or min(len(x), 128)
    parts = []
    with sampling_display(len(x), "examples") as display:
        for first in range(0, len(x), size):
            part = model.log_prob(
                x[first : first + size], settings=settings, seed=command.seed, start=first, batch_size=size
            )
            parts.append(part)
            display.finished(first, _Done(part.nats))
    from scorefield.lab.model import join

    result = join(parts)
    ok = result.status == 0
    record = {
        "data": split.name,
        "count": len(x),
        "density of": result.of,
        "weights": model.weights,
        "failed": int((~ok).sum()),
    }
    for name, values in (("nats", result.nats), ("bits per dim", result.bits_per_dim)):
        if values is not None and bool(ok.any()):
            good = values[ok]
            error = float(good.std() / len(good) ** 0.5) if len(good) > 1 else float("nan")
            record[name] = {
                "mean": float(good.mean()),
                "standard error over examples": error if len(good) > 1 else None,
            }
            print(f"{name}: {float(good.mean()):.4f} +- {error:.4f} (mean over {len(good)} examples of {split.name})")
    print(f"density of {result.of}; {result.nfe.double().mean():.0f} network calls per example")
    if record["failed"]:
        print(f"warning: the solver gave up on {record['failed']} examples; they are left out of the mean")
    if command.out is not None:
        arrays = {"nats": result.nats, "nfe": result.nfe, "status": result.status}
        if result.bits_per_dim is not None:
            arrays["bits_per_dim"] = result.bits_per_dim
        with replacing(command.out / "likelihood.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **{key: value.cpu().numpy() for key, value in arrays.items()})
        write_json(command.out / "likelihood.json", json.loads(json.dumps(record)))
        print(command.out / "likelihood.npz")


class _Done:
    def __init__(self, x: torch.Tensor):
        self.x = x
