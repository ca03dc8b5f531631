"""Examination of a model, or of a distribution that is known exactly, with data where there are any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from scorefield.diagnostics.coverage import sampler_times
from scorefield.diagnostics.ema_age import average_age
from scorefield.diagnostics.examination import Examination, examine, examine_field
from scorefield.diagnostics.findings import of_levels
from scorefield.diagnostics.levels import default_times
from scorefield.diagnostics.records import Checkup, DoctorReceipt
from scorefield.metrics.receipt import ReferenceFacts, data_hash
from scorefield.models.model import Model, load
from scorefield.models.run_folder import environment
from scorefield.models.weights import WeightsError
from scorefield.process.process import Process
from scorefield.score.oracles.oracle import Oracle

FIRST = 1 << 32
"""Index of the first example drawn of a distribution, and of the first own sample of a model without data."""


@dataclass(frozen=True)
class Examples:
    """Examples in data units.

    Attributes:
        x: (n, *shape).
        labels: Their classes, (n,), or None.
        name: What they are called.
        split: Name of the split.
    """

    x: Tensor
    labels: Tensor | None
    name: str
    split: str

    def facts(self, units: str | None) -> ReferenceFacts:
        """The facts of these examples for a receipt."""
        return ReferenceFacts(self.name, self.split, len(self.x), data_hash(self.x), units)


@dataclass(frozen=True)
class Settings:
    """How to examine.

    Attributes:
        count: Points, where there are no data.
        levels: Noise levels.
        seed: Seed of noise and probes.
        batch_size: Examples at a time.
    """

    count: int = 256
    levels: int = 12
    seed: int = 0
    batch_size: int = 128


Progress = Callable[[float], None]


def examine_model(
    model: Model, data: Examples | None, train: Examples | None, settings: Settings, progress: Progress | None = None
) -> Checkup:
    """A checkup of a model.

    Args:
        model: The model; where it uses an average of the weights, the raw weights are compared with it.
        data: Examples that it was not trained on; None for what can be said without.
        train: Examples that it was trained on, or None.
        settings: Settings of the examination.
        progress: Called with the share that is done, now and then.

    Raises:
        ValueError: What `inference.doctor.examine` refuses.
    """
    process: Process = model.experiment.levels or model.process
    age = average_age(model)
    found = _found(model, process, data, train, settings, progress)
    times = model.sampler().times(model.process)
    more = [of_levels(sampler_times(model.process, process, times)), *([] if age is None else [age.finding()])]
    receipt = DoctorReceipt(
        model=model.name,
        model_hash=model.hash,
        weights=model.weights,
        step=model.step,
        data=None if data is None else data.facts(model.data.units),
        train=None if train is None else train.facts(model.data.units),
        levels=settings.levels,
        seed=settings.seed,
        batch_size=settings.batch_size,
        environment=environment(),
    )
    return Checkup(found.with_findings(more), age, receipt)


def _found(
    model: Model,
    process: Process,
    data: Examples | None,
    train: Examples | None,
    settings: Settings,
    progress: Progress | None,
) -> Examination:
    times = default_times(process, settings.levels)
    if data is None:
        own = model.sample(settings.count, seed=settings.seed, start=FIRST).x
        return examine_field(
            model.as_score(), _entered(model, own), process=process, times=times, seed=settings.seed,
            batch_size=settings.batch_size,
        )  # fmt: skip
    raw, spec = _raw(model), model.data
    step = None
    if spec.levels is not None:
        low, high = spec.model_range
        step = (high - low) / (spec.levels - 1)
    return examine(
        model.as_score(),
        _entered(model, data.x),
        process=process,
        times=None if settings.levels == Settings.levels else times,
        train=None if train is None else _entered(model, train.x),
        condition=_known(model, data),
        train_condition=None if train is None else _known(model, train),
        others={} if raw is None else {"raw": raw.as_score()},
        grey_step=step,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=progress,
    )


def _entered(model: Model, x: Tensor) -> Tensor:
    """Model units, where the model is."""
    return model.data.to_model(x).to(model.device)


def _known(model: Model, examples: Examples) -> dict[str, Tensor] | None:
    """The conditions of a model that takes them."""
    if not model.data.conditions or examples.labels is None:
        return None
    return dict(model.condition({"class": examples.labels}, len(examples.labels)) or {})


def _raw(model: Model) -> Model | None:
    """The raw weights beside an average; None where there are none."""
    if model.weights == "raw" or model.folder is None:
        return None
    try:
        return load(model.folder, weights="raw", device=model.device)
    except WeightsError:
        return None


def examine_oracle(name: str, oracle: Oracle, settings: Settings, progress: Progress | None = None) -> Checkup:
    """A checkup of a distribution that is known exactly, on its own samples; the floor of its loss is its loss."""
    n = settings.count
    x, train = (oracle.sample(n, seed=settings.seed, start=FIRST + k * n) for k in range(2))
    found = examine(
        oracle,
        x,
        times=default_times(oracle.process, settings.levels),
        train=train,
        exact=oracle,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=progress,
    )
    data, seen = (Examples(part, None, name, "drawn").facts(None) for part in (x, train))
    receipt = DoctorReceipt(
        model=name,
        model_hash=None,
        weights=None,
        step=None,
        data=data,
        train=seen,
        levels=settings.levels,
        seed=settings.seed,
        batch_size=settings.batch_size,
        environment=environment(),
    )
    return Checkup(found, None, receipt)
