"""`scorefield energy outliers`: detection with intervals, calibrated p-values, and baselines without a model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield import _codec
from scorefield._files import write_json
from scorefield._random import IndexedNoise
from scorefield.cli.console.batches import in_batches, save
from scorefield.cli.console.reference_data import real_data
from scorefield.cli.energy import Outliers
from scorefield.cli.energy.at_noise import measured, noise_level
from scorefield.data import DataError, open_data
from scorefield.data_spec import DataSpec
from scorefield.energy.outliers import Reference, Statistics, complexity, conformal, uniformity
from scorefield.evaluation import examples
from scorefield.likelihood.probability_flow import require_flow
from scorefield.metrics.detection import Detection, advantage, clopper_pearson, detection
from scorefield.metrics.receipt import Value
from scorefield.models.model import Model, load
from scorefield.models.run_folder import environment, environment_lines
from scorefield.reports.page import Section, table, text
from scorefield.reports.report import sample_grid, write_report

SYNTHETIC = ("uniform", "constant")
"""Outliers that need no file."""


@dataclass(frozen=True)
class Row:
    """One score, or a baseline.

    Args:
        name: Name of the score.
        baseline: Whether it knows no model.
        found: Detection of the outliers.
        advantage: Area minus that of the best baseline; None for baselines.
        false_alarms: Share of fresh data with a p-value of at most alpha.
        uniform: p-value of the hypothesis that p-values of fresh data are uniform.
        detected: Share of outliers with a p-value of at most alpha.
    """

    name: str
    baseline: bool
    found: Detection
    advantage: Value | None
    false_alarms: Value
    uniform: float
    detected: Value


def outliers(command: Outliers) -> None:
    """Carry out the command.

    Raises:
        ValueError: Numbers that cannot be, data that do not fit the model, or too few of them.
    """
    if command.n < 60 or not 0 < command.alpha < 1 or command.resamples < 100:
        raise ValueError(
            f"-n {command.n} --alpha {command.alpha} --resamples {command.resamples}: three parts need 60 examples or"
            " more, alpha is a share, and an interval takes 100 resamples"
        )
    model = load(command.model, weights=command.weights)
    folder = command.out or Path("energy") / model.name / "outliers"
    sigma = noise_level(model, command.noise)
    data = real_data(model.experiment.data, command.data, model.data)
    split = data.held_out or data.train
    inside, _ = examples(split, command.n)
    if len(inside) < 60:
        raise ValueError(f"{split.name} has {len(inside)} examples; three parts need 60 or more")
    outside, notes = read_outliers(command, model, max(2, len(inside) // 2))
    if model.data.conditions and not model.experiment.training.condition_dropout:
        raise ValueError(
            f"{model.name} was trained with every label known, and outliers have none; train with"
            " training.condition_dropout above 0"
        )
    found = _everything(command, model, inside, 0, sigma, folder, "in")
    other = _everything(command, model, outside, len(inside), sigma, folder, "out")
    rows, scores = tabulate(command, model.data, (inside, outside), (found, other))
    save(folder / "scores.npz", scores)
    _print(command, model, rows, split.name, sigma, notes, found)
    _write(command, model, rows, folder, (inside, outside), split.name, sigma, notes, found)


def _everything(
    command: Outliers, model: Model, x: Tensor, first: int, sigma: float, folder: Path, name: str
) -> Statistics:
    """Statistics, and -log p where --likelihood is given."""
    found = measured(
        model, x, None, sigma=sigma, draws=command.draws, seed=command.seed, size=command.batch_size,
        folder=folder / "batches", name=name, first=first,
    )  # fmt: skip
    missing = dict(found.missing)
    values = dict(found.values)
    if not command.likelihood:
        missing["likelihood"] = "not asked for; --likelihood computes -log p by the flow, slowly"
    else:
        try:
            require_flow(model.as_flow())
        except ValueError as error:
            missing["likelihood"] = str(error)
        else:
            values["likelihood"] = _negative_log_likelihood(command, model, x, first, folder, name)
    return Statistics(values, found.norms, missing)


def _negative_log_likelihood(command: Outliers, model: Model, x: Tensor, first: int, folder: Path, name: str) -> Tensor:
    def compute(rows: slice) -> dict[str, Tensor]:
        start = first + rows.start
        found = model.log_prob(x[rows], dequantise="none", seed=command.seed, start=start)
        return {"likelihood": -found.nats}

    identity = {
        "weights": model.hash,
        "data": hashlib.sha256(x.contiguous().cpu().numpy().tobytes()).hexdigest(),
        "seed": command.seed,
        "first": first,
        "batch size": command.batch_size,
    }
    folder = folder / "batches"
    return in_batches(compute, len(x), command.batch_size, folder, f"likelihood_{name}", identity)["likelihood"]


# ------------------------------------------------------------------------------------- outliers


def read_outliers(command: Outliers, model: Model, n: int) -> tuple[Tensor, tuple[str, ...]]:
    """Outliers in data units, and what was done to make them fit.

    Raises:
        DataError: They do not fit, and --fit was not given; or nothing can make them.
    """
    spec = model.data
    if command.outliers in SYNTHETIC:
        return synthetic(command.outliers, spec, n, command.seed), ()
    if not command.fit:
        try:
            data = real_data(model.experiment.data, command.outliers, spec)
        except DataError as error:
            raise DataError(f"{error}. For outliers, --fit resizes them and maps their range, and says so") from error
        return examples(data.held_out or data.train, n)[0], ()
    return _fitted(command.outliers, model, n)


def synthetic(kind: str, spec: DataSpec, n: int, seed: int) -> Tensor:
    """Uniform noise over the range of the data, or examples of one value, in grey levels where the data have them."""
    like = torch.empty(n, *spec.shape)
    source = IndexedNoise(seed, range(n))
    if kind == "uniform":
        u = source.uniform(like, 0, 0)
    else:
        u = source.uniform(torch.empty(n, 1), 0, 0).reshape(n, *(1,) * len(spec.shape)).expand(like.shape)
    if not spec.bounded:
        return spec.to_data(6.0 * u - 3.0)
    if spec.levels is not None:
        u = (u * spec.levels).floor().clamp_max(spec.levels - 1) / (spec.levels - 1)
    a, b = spec.model_range
    return spec.to_data(a + (b - a) * u)


def _fitted(path: str, model: Model, n: int) -> tuple[Tensor, tuple[str, ...]]:
    """Other data resized, repeated over channels and mapped to the model's range."""
    spec, notes = model.data, []
    source = replace(model.experiment.data, path=path, kind="auto", held_out=0, stack=1, conditional=False)
    data = open_data(source)
    if data.spec.shape[1:] != spec.shape[1:] and len(spec.shape) == 3:
        before = open_data(replace(source, pad=0, crop=None, size=None)).spec.shape
        data = open_data(replace(source, pad=0, crop=None, size=spec.shape[1:]))
        notes.append(f"{path}: resized from {before[1:]} to {spec.shape[1:]}")
    x = examples(data.held_out or data.train, n)[0].to(torch.float32)
    if x.shape[1] == 1 and spec.shape[0] > 1 and x.ndim == 4:
        x = x.expand(-1, spec.shape[0], -1, -1).contiguous()
        notes.append(f"{path}: its one channel repeated {spec.shape[0]} times")
    elif x.shape[1] == 3 and spec.shape[0] == 1 and x.ndim == 4:
        x = (x * torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
        notes.append(f"{path}: its three channels turned to grey (ITU-R 601)")
    if tuple(x.shape[1:]) != spec.shape:
        raise DataError(f"{path} has examples of shape {tuple(x.shape[1:])}; nothing fits them to {spec.shape}")
    there, here = data.spec, spec
    if (there.low, there.high) != (here.low, here.high):
        if not (there.bounded and here.bounded) or isinstance(there.low, tuple) or isinstance(here.low, tuple):
            raise DataError(
                f"{path} has the range [{there.low}, {there.high}] and this model's data [{here.low}, {here.high}];"
                " only one number at either end can be mapped. Map the values yourself"
            )
        assert there.low is not None and there.high is not None and here.low is not None and here.high is not None
        share = (x - float(there.low)) / (float(there.high) - float(there.low))  # type: ignore[arg-type]
        x = float(here.low) + share * (float(here.high) - float(here.low))  # type: ignore[arg-type]
        notes.append(f"{path}: its range [{there.low}, {there.high}] mapped to [{here.low}, {here.high}]")
    if here.bounded:
        spec.check(x, name=path)
    return x, tuple(notes)


# ------------------------------------------------------------------------------------- the table


def tabulate(
    command: Outliers, spec: DataSpec, x: tuple[Tensor, Tensor], found: tuple[Statistics, Statistics]
) -> tuple[list[Row], dict[str, Tensor]]:
    """All rows, scores before baselines, and the scores themselves.

    Args:
        command: The flags, of which alpha, resamples and seed are used.
        spec: What the data are.
        x: Data and outliers, data units.
        found: Their statistics.
    """
    n = len(x[0])
    order = torch.randperm(n, generator=torch.Generator().manual_seed(command.seed))
    fit, calibrate, test = order[: n // 3], order[n // 3 : 2 * n // 3], order[2 * n // 3 :]
    reference = Reference.fit(_rows(found[0], fit))
    scores, other = reference.scores(found[0]), reference.scores(found[1])
    plain, plain_other = complexity(x[0], spec), complexity(x[1], spec)
    baselines = [(plain[name][test], plain_other[name]) for name in plain]
    rows = []
    for name, value in {**scores, **plain}.items():
        baseline = name in plain
        outside = plain_other[name] if baseline else other[name]
        _refuse_nan(name, value, outside)
        inside, held = value[test], value[calibrate]
        p_inside, p_outside = conformal(held, inside), conformal(held, outside)
        rows.append(
            Row(
                name,
                baseline,
                detection(inside, outside, seed=command.seed, resamples=command.resamples),
                None
                if baseline
                else advantage((inside, outside), baselines, seed=command.seed, resamples=command.resamples),
                _share(p_inside <= command.alpha),
                uniformity(held, inside),
                _share(p_outside <= command.alpha),
            )
        )
    named = {f"in {k}": v for k, v in {**scores, **plain}.items()}
    named |= {f"out {k}": v for k, v in {**other, **plain_other}.items()}
    return rows, {**named, "in fit": fit, "in calibration": calibrate, "in test": test}


def _rows(found: Statistics, rows: Tensor) -> Statistics:
    return Statistics({k: v[rows] for k, v in found.values.items()}, found.norms[rows], found.missing)


def _refuse_nan(name: str, inside: Tensor, outside: Tensor) -> None:
    for what, values in (("data", inside), ("outliers", outside)):
        if bad := int(values.isnan().sum()):
            raise ValueError(
                f"the score {name!r} is NaN for {bad} of {len(values)} examples of the {what}: the network is not"
                " finite there. They are in the folder's batches; leave those examples out"
            )


def _share(hits: Tensor) -> Value:
    count, total = int(hits.sum()), len(hits)
    return Value(count / total, clopper_pearson(count, total))


# ---------------------------------------------------------------------------------------------------- text

COLUMNS = (
    "score",
    "AUROC",
    "minus best baseline",
    "FPR at 95 %",
    "AUPR out",
    "AUPR in",
    "flagged in",
    "flagged out",
    "p",
)


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of `COLUMNS`."""
    found = row.found
    return (
        row.name + (" (no model)" if row.baseline else ""),
        _shown(found.auroc),
        "" if row.advantage is None else _shown(row.advantage, signed=True),
        _shown(found.fpr95),
        _shown(found.aupr_out),
        _shown(found.aupr_in),
        _shown(row.false_alarms),
        _shown(row.detected),
        f"{row.uniform:.3f}",
    )


def _shown(value: Value, signed: bool = False) -> str:
    number = f"{value.number:+.3f}" if signed else f"{value.number:.3f}"
    if value.interval is None:
        return number
    low, high = value.interval
    return f"{number} [{low:+.3f}, {high:+.3f}]" if signed else f"{number} [{low:.3f}, {high:.3f}]"


def _explained(command: Outliers, rows: list[Row], inside: str, sigma: float) -> list[str]:
    found = rows[0].found
    return [
        f"{found.inside} examples of {inside} against {found.outside} of {command.outliers}, base rate of outliers"
        f" {found.base_rate:.3f}; as many again calibrate the p-values, and as many fit medians and covariances."
        f" Examples are looked at with the noise {sigma:g} (model units), {command.draws} draws.",
        "Larger scores are more outlying. FPR at 95 %: outliers that pass where 95 % of the data pass. Flagged: a"
        f" conformal p-value of at most {command.alpha:g}; of the data that should be {command.alpha:g} or less. p:"
        " that p-values of fresh data are uniform. Intervals are of 95 %.",
        "Scores marked (no model) know only how complicated an example is; either sign of them counts as a baseline. A"
        " score that does not beat them says nothing that they do not.",
    ]


def _print(
    command: Outliers,
    model: Model,
    rows: list[Row],
    inside: str,
    sigma: float,
    notes: tuple[str, ...],
    found: Statistics,
) -> None:
    print(f"outliers by {model.name} ({model.weights})")
    lines = [COLUMNS[:4] + COLUMNS[6:], *(cells(row)[:4] + cells(row)[6:] for row in rows)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(lines[0]))]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for line in (*_explained(command, rows, inside, sigma), *notes):
        print(line)
    for name, why in found.missing.items():
        print(f"no {name}: {why}")


def _write(
    command: Outliers,
    model: Model,
    rows: list[Row],
    folder: Path,
    x: tuple[Tensor, Tensor],
    inside: str,
    sigma: float,
    notes: tuple[str, ...],
    found: Statistics,
) -> None:
    facts = environment()
    record: dict[str, Any] = {
        "model": model.name,
        "weights": model.weights,
        "weights hash": model.hash,
        "data": inside,
        "outliers": command.outliers,
        "noise": sigma,
        "draws": command.draws,
        "alpha": command.alpha,
        "notes": list(notes),
        "missing": dict(found.missing),
        "base rate": rows[0].found.base_rate,
        "counts": {"data": rows[0].found.inside, "outliers": rows[0].found.outside},
        "rows": [_record(row) for row in rows],
        "environment": facts,
    }
    write_json(folder / "outliers.json", json.loads(json.dumps(record)))
    words = [*_explained(command, rows, inside, sigma), *notes]
    words += [f"No {name}: {why}." for name, why in found.missing.items()]
    sections = [
        Section("Detection", [table(COLUMNS, [cells(row) for row in rows]), text("\n\n".join(words))]),
        Section("The data", [sample_grid(x[0][:32].to(torch.float32), model.data)]),
        Section("The outliers", [sample_grid(x[1][:32].to(torch.float32), model.data)]),
    ]
    report = write_report(
        folder / "outliers.html",
        sections,
        title=f"Outliers by {model.name}: {command.outliers}",
        command=facts["command"],
        environment=environment_lines(facts),
    )
    print(f"{folder / 'outliers.json'}\n{report}")


def _record(row: Row) -> dict[str, Any]:
    found = row.found
    values = {
        "AUROC": found.auroc,
        "FPR at 95 % TPR": found.fpr95,
        "AUPR out": found.aupr_out,
        "AUPR in": found.aupr_in,
        "AUROC minus best baseline": row.advantage,
        "false alarms": row.false_alarms,
        "detected": row.detected,
    }
    shown = {name: _codec.encode(value) for name, value in values.items() if value is not None}
    return {"score": row.name, "baseline": row.baseline, **shown, "uniformity p": row.uniform}
