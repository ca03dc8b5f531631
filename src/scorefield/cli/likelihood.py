"""`scorefield likelihood`: log densities with an error budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tyro.conf import arg

from scorefield.cli.console.arguments import BatchSize, Count, Data, ModelName, Out, Rtol, Seed, Weights, Whole

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scorefield.likelihood.bound import VariationalBound
    from scorefield.likelihood.log_prob import LogProb
    from scorefield.likelihood.probability_flow import FlowSettings
    from scorefield.models.model import Model
    from scorefield.process.tabulated import Tabulated


@dataclass(frozen=True)
class Likelihood:
    """Log density of data under a model by the probability flow, in nats and, for grey levels, bits per dimension.

    Comes with an error budget and a 90 percent interval. With --out every finished batch is written at once, and the
    same command continues an interrupted one.
    """

    model: ModelName
    data: Data = None
    n: Count = 128
    """Number of examples."""
    method: Literal["flow", "bound", "both"] = "flow"
    """The probability flow, the variational bound of a model trained on discrete levels, or both side by side."""
    rtol: Rtol = 1e-4
    divergence: Literal["auto", "exact", "hutchinson", "hutch++"] = "auto"
    """Divergence of the flow: exact, or estimated with random probes; auto chooses by dimension."""
    probes: Whole = 2
    """Random probes per example."""
    target_se: Annotated[float | None, arg(metavar="NATS")] = None
    """Add probes until each example's standard error is at most this many nats."""
    dequantise: Literal["uniform", "variational", "none"] | None = None
    """Noise inside the bins of grey levels. Default: uniform for data with grey levels, else none."""
    draws: Whole = 1
    """Dequantisation draws, or for the bound draws at every level; two or more show their spread."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: BatchSize = None
    out: Out = None
    """Output folder for likelihood.npz, likelihood.json and the finished batches. Default: print only."""


Result = TypeVar("Result", "LogProb", "VariationalBound")

TERMS = {
    "std_error": "probes, standard error",
    "solver_error": "solver",
    "truncation": "truncation at t_min",
    "prior_mismatch": "prior in place of p_1",
    "dequantisation": "gap of dequantisation",
}
"""The terms of the budget, and their names in print."""


def run(command: Likelihood) -> None:
    """Carry out the command.

    Raises:
        ValueError: A number that cannot be, a model without what was asked for, or a folder with other results.
    """
    from scorefield._files import write_json
    from scorefield._random import IndexedNoise
    from scorefield.cli.console.reference_data import real_data
    from scorefield.evaluation import LARGEST, examples
    from scorefield.likelihood.bound import VariationalBound, variational_bound
    from scorefield.likelihood.error_budget import Moments
    from scorefield.likelihood.log_prob import LogProb
    from scorefield.likelihood.probability_flow import FlowSettings
    from scorefield.models.model import load

    if command.n < 1:
        raise ValueError(f"n={command.n} must be at least 1")
    if command.seed < 0:
        raise ValueError(f"seed={command.seed} must not be negative")
    model = load(command.model, weights=command.weights)
    settings = FlowSettings(
        rtol=command.rtol,
        atol=command.rtol,
        divergence=command.divergence,
        probes=command.probes,
        target_se=command.target_se,
    )
    _refuse(command, model)
    data = real_data(model.experiment.data, command.data, model.data)
    split = data.held_out or data.train
    x, labels = examples(split, command.n)
    known = {"class": labels} if model.data.conditions and labels is not None else None
    size = command.batch_size or min(len(x), 128)
    moments = None
    if command.method != "bound" and len(data.train) > 1:
        moments = Moments.of(model.data.to_model(examples(data.train, LARGEST)[0]))

    def flow(rows: slice) -> LogProb:
        return model.log_prob(
            x[rows],
            condition=None if known is None else {k: v[rows] for k, v in known.items()},
            settings=settings,
            dequantise=command.dequantise,
            draws=command.draws,
            moments=moments,
            seed=command.seed,
            start=rows.start,
            batch_size=size,
        )

    def bound(rows: slice) -> VariationalBound:
        return variational_bound(
            model.as_score(),
            x[rows].to(model.device),
            model.data,
            _ladder(model),
            IndexedNoise(command.seed, range(rows.start, rows.stop)),
            draws=command.draws,
            condition=model.condition(None if known is None else {k: v[rows] for k, v in known.items()}, len(x[rows])),
        )

    identity = _identity(command, model, x, size, settings)
    record: dict[str, Any] = {"data": split.name, "count": len(x), "weights": model.weights}
    arrays: dict[str, Tensor] = {}
    if command.method in ("flow", "both"):
        found = _batches(flow, LogProb, len(x), size, command.out, "flow", identity)
        record |= _flow_record(found, split.name)
        arrays |= tensors(found)
    if command.method in ("bound", "both"):
        lower = _batches(bound, VariationalBound, len(x), size, command.out, "bound", identity)
        record["variational bound"] = _summary(lower.nats, lower.bits_per_dim, "variational bound, ", split.name)
        arrays |= {f"bound_{name}": value for name, value in tensors(lower).items()}
    if command.out is not None:
        _save(command.out / "likelihood.npz", arrays)
        write_json(command.out / "likelihood.json", json.loads(json.dumps(record)))
        print(command.out / "likelihood.npz")


def _refuse(command: Likelihood, model: Model) -> None:
    """Checks that need no data."""
    from scorefield.likelihood.probability_flow import require_flow

    if command.batch_size is not None and command.batch_size < 1:
        raise ValueError(f"batch_size={command.batch_size} must be at least 1")
    if command.dequantise in ("uniform", "variational") and model.data.levels is None:
        raise ValueError(
            f"--dequantise {command.dequantise}: the data of {model.name} have no grey levels, so there is nothing to"
            " dequantise and no bits/dim; leave it out for their density in nats"
        )
    if command.draws < 1:
        raise ValueError(f"--draws {command.draws} must be at least 1; data that are not dequantised have one")
    if command.method != "flow":
        _ladder(model)
    if command.method != "bound":
        try:
            require_flow(model.as_flow())
        except ValueError as error:
            raise ValueError(f"{error}. Its variational bound needs no flow: --method bound") from error


def _ladder(model: Model) -> Tabulated:
    """The levels a model was trained on.

    Raises:
        ValueError: The model was trained in continuous time.
    """
    from scorefield.process.tabulated import Tabulated

    ladder = model.experiment.levels or model.process
    if not isinstance(ladder, Tabulated):
        raise ValueError(
            f"{model.name} was trained in continuous time with {type(ladder).__name__} and has no levels to sum a"
            " variational bound over; its likelihood is that of the flow: --method flow"
        )
    return ladder


# ---------------------------------------------------------------------------------------------------- batches


def tensors(result: LogProb | VariationalBound) -> dict[str, Tensor]:
    """The arrays of a result by name."""
    from torch import Tensor

    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _identity(command: Likelihood, model: Model, x: Tensor, size: int, settings: FlowSettings) -> dict[str, Any]:
    """Everything the numbers of a batch depend on."""
    from scorefield import _codec

    return {
        "weights": model.hash,
        "data": hashlib.sha256(x.contiguous().cpu().numpy().tobytes()).hexdigest(),
        "count": len(x),
        "batch size": size,
        "seed": command.seed,
        "dequantise": command.dequantise,
        "draws": command.draws,
        "settings": _codec.encode(settings),
    }


def _batches(
    compute: Callable[[slice], Result],
    kind: type[Result],
    n: int,
    size: int,
    out: Path | None,
    name: str,
    identity: dict[str, Any],
) -> Result:
    """All batches, those that an earlier run finished read from its files."""
    import numpy as np

    from scorefield.cli.console.batches import claim
    from scorefield.cli.console.progress import sampling_display
    from scorefield.models.model import join

    folder = None if out is None else out / "batches"
    if folder is not None:
        claim(folder / f"{name}.json", identity)
    parts: list[Result] = []
    try:
        with sampling_display(n, "examples") as display:
            for first in range(0, n, size):
                rows, path = slice(first, min(first + size, n)), None
                if folder is not None:
                    path = folder / f"{name}_{first:08d}.npz"
                part = _read(path, kind) if path is not None and path.is_file() else compute(rows)
                if path is not None and not path.is_file():
                    words = {key: np.array(v) for key, v in vars(part).items() if isinstance(v, str)}
                    _save(path, tensors(part), words)
                parts.append(part)
                display.finished(first, len(part.nats))
    except KeyboardInterrupt as stop:
        kept = "nothing is kept without --out" if folder is None else f"they are in {folder}; the same command goes on"
        raise KeyboardInterrupt(f"{len(parts)} batches of {-(-n // size)} are done; {kept}") from stop
    return join(parts)


def _save(path: Path, arrays: dict[str, Tensor], words: dict[str, np.ndarray] | None = None) -> None:
    import numpy as np

    from scorefield._files import replacing

    with replacing(path) as temporary, temporary.open("wb") as file:
        values = {key: value.cpu().numpy() for key, value in arrays.items()}
        np.savez(file, allow_pickle=False, **values, **(words or {}))


def _read(path: Path, kind: type[Result]) -> Result:
    import numpy as np
    import torch

    with np.load(path, allow_pickle=False) as stored:
        values = {key: str(v) if v.dtype.kind == "U" else torch.from_numpy(v) for key, v in stored.items()}
    return kind(**{field.name: values.get(field.name) for field in fields(kind)})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- text


def _summary(nats: Tensor, bits: Tensor | None, title: str, data: str) -> dict[str, Any]:
    """Means over examples with their standard errors, printed and as a record."""
    record: dict[str, Any] = {}
    for name, values in (("nats", nats), ("bits per dim", bits)):
        if values is None or not len(values):
            continue
        error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
        record[name] = {"mean": float(values.mean()), "standard error over examples": error}
        about = "" if error is None else f" +- {error:.4f}"
        print(f"{title}{name}: {float(values.mean()):.4f}{about} (mean over {len(values)} examples of {data})")
    return record


def _flow_record(found: LogProb, data: str) -> dict[str, Any]:
    """The density, its budget and its failures, printed and as a record."""
    from scorefield.likelihood.error_budget import LEVEL

    ok = found.status == 0
    record: dict[str, Any] = {"density of": found.of, "failed": int((~ok).sum())}
    record |= _summary(found.nats[ok], None if found.bits_per_dim is None else found.bits_per_dim[ok], "", data)
    print(f"density of {found.of}; {found.nfe.double().mean():.0f} network calls per example")
    budget: dict[str, Any] = {}
    for name, words in TERMS.items():
        value = getattr(found, name)
        if value is None or not bool(ok.any()):
            continue
        good = value[ok]
        budget[name] = {"mean": float(good.mean()), "largest": float(good.abs().max())}
        print(f"  {words:<24} {float(good.mean()):+10.4f} nats an example on average, at most {good.abs().max():.4f}")
    if found.interval is not None and bool(ok.any()):
        low, high = found.interval[ok].T
        width = float((high - low).median())
        budget["interval"] = {"level": LEVEL, "low": float(low.mean()), "high": float(high.mean()), "width": width}
        print(
            f"  {f'{LEVEL:.0%} interval':<24} [{low.mean():.4f}, {high.mean():.4f}] nats on average, width {width:.4f}"
        )
    for line in found.failures():
        print(f"warning: {line}; it is left out of the means")
    return {**record, "budget": budget}
