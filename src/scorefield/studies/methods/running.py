"""Trains, samples and measures one method with one seed.

Every finished part is kept in the run folder, so that a run that was interrupted continues where it stopped.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield import _codec
from scorefield._files import replacing, write_text
from scorefield.data import Data, DataError, Split
from scorefield.data.order import pick
from scorefield.data_spec import DataSpec
from scorefield.evaluation import choose_features, examples
from scorefield.likelihood.probability_flow import FlowSettings, require_flow
from scorefield.metrics import EnergyDistance, Features, FrechetDistance, MetricResult, Reference, SampleSource, measure
from scorefield.metrics.features.feature import feature_rows
from scorefield.metrics.frechet import Moments, frechet_distance
from scorefield.models.checkpoint_folder import latest_checkpoint
from scorefield.models.model import Model, load
from scorefield.models.networks import build_critic
from scorefield.models.sample_folder import ARRAYS, write_samples
from scorefield.process.levels import largest_distance
from scorefield.score.energy import EnergyForm
from scorefield.studies.methods.definitions import METHODS, Method, Sampling, SharedSettings
from scorefield.studies.methods.records import NORMAL, Density, MethodRun, Sampled
from scorefield.studies.methods.sizes import count
from scorefield.training.observer import Observer
from scorefield.training.trainer import train

RECORD = "compared.json"
"""File of a finished run's record."""

MOST = 2000
"""Largest number of held-out examples used: the cost of distances grows with its square."""

REPLICATES = 60
"""Bootstrap replicates of Frechet distances."""

LEAST = 20
"""Smallest number of finite samples, and of held-out examples, with which metrics are computed."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Reference data and number of samples.

    Args:
        held_out: Held-out split.
        reference: Examples of the split.
        features: Feature extractor of the Frechet distance.
        n: Samples drawn by each sampler.
        density: Held-out examples whose density is measured; 0 for none.
    """

    held_out: Split
    reference: Reference
    features: Features
    n: int
    density: int


def largest_data_distance(data: Data) -> float:
    """Return the largest distance between two of at most 5,000 training examples, model units."""
    x, _ = examples(data.train, 5000)
    return largest_distance(data.spec.to_model(x))


def evaluation_settings(data: Data, n: int, density: int) -> EvaluationSettings:
    """Return the held-out data and the feature extractor of a comparison.

    Args:
        data: The data of the comparison.
        n: Samples drawn by each sampler.
        density: Held-out examples whose density is measured; 0 for none.

    Raises:
        DataError: Fewer than `LEAST` examples are held out.
    """
    held = data.held_out
    if held is None or len(held) < LEAST:
        raise DataError(
            f"{data.name} has {0 if held is None else len(held)} held-out examples, and {LEAST} or more are needed to"
            " compare samples with. Give a larger data set, of which a tenth is held out, or one with a test split"
        )
    x, _ = examples(held, MOST)
    reference = Reference(x, name=held.name, split="held-out", units=data.spec.units)
    return EvaluationSettings(held, reference, choose_features("auto", data.train, held), n, density)


def select_methods(shared: SharedSettings, names: tuple[str, ...]) -> tuple[Method, ...]:
    """Return the methods of the given names, after a check that their networks take the data.

    Raises:
        ValueError: A name is unknown, or some of the networks do not take examples of this shape; the message names
            the methods that do.
    """
    unknown = next((name for name in names if name not in METHODS), None)
    if unknown is not None:
        raise ValueError(
            f"there is no method {unknown!r}.{_codec.near(unknown, METHODS)} The methods are {', '.join(METHODS)}"
        )
    problems = {name: problem for name in names if (problem := _problem(METHODS[name], shared)) is not None}
    if problems:
        possible = [name for name in METHODS if _problem(METHODS[name], shared) is None]
        reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        use = f"--methods {','.join(possible)}" if possible else "--network mlp"
        raise ValueError(
            f"examples of shape {shared.spec.shape} do not fit the networks of some methods ({reasons}). Use {use}"
        )
    return tuple(METHODS[name] for name in names)


def _problem(method: Method, shared: SharedSettings) -> str | None:
    """Return why a method's networks do not take the data, or None; they are built without memory."""
    try:
        experiment = method.experiment(shared, 0)
        count(experiment.network, shared.spec)
        if experiment.adversary is not None:
            with torch.device("meta"):
                build_critic(experiment, shared.spec)
    except ValueError as error:
        return str(error)
    return None


# ------------------------------------------------------------------------------------------------ a run


def run_method(
    method: Method,
    seed: int,
    shared: SharedSettings,
    data: Data,
    evaluation: EvaluationSettings,
    folder: Path,
    observer: Observer,
) -> MethodRun:
    """Train, sample and measure one run; parts that are already in the folder are not repeated.

    Args:
        method: The method.
        seed: Seed of training and sampling.
        shared: Settings that all methods share.
        data: The opened data.
        evaluation: What samples are compared with.
        folder: The run folder; samples are in its folder `samples`, the record in compared.json.
        observer: Receives progress messages.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived during training; its state was saved.
    """
    finished = read_run(folder)
    if finished is not None:
        return finished
    experiment = method.experiment(shared, seed)
    train(experiment, folder, resume="auto", observer=observer, data=data)
    state = json.loads((_latest(folder) / "state.json").read_text(encoding="utf-8"))
    machine_load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # read before sampling adds to it
    model = load(folder)
    samples: list[Sampled] = []
    for sampling in method.samplings(shared):
        observer.message(f"{method.name}, seed {seed}: sampling, {sampling.name}")
        samples += _sampled(model, sampling, seed, evaluation, folder)
    density, no_density = _density(model, evaluation, folder)
    critic = 0
    if experiment.adversary is not None:
        critic = sum(p.numel() for p in build_critic(experiment, shared.spec).parameters())
    batches_per_step = experiment.adversary.steps if experiment.adversary is not None else 1
    finished = MethodRun(
        method=method.name,
        seed=seed,
        steps=state["step"],
        examples=state["step"] * batches_per_step * experiment.training.batch_size,
        seconds=state["seconds"],
        load=machine_load,
        parameters=sum(p.numel() for p in model.network.parameters()),
        critic=critic,
        samples=tuple(samples),
        density=density,
        no_density=no_density,
    )
    write_text(folder / RECORD, _codec.dumps(finished) + "\n")
    return finished


def read_run(folder: Path) -> MethodRun | None:
    """Return the record of a finished run, or None where there is none."""
    path = folder / RECORD
    return _codec.loads(path.read_text(encoding="utf-8"), MethodRun) if path.is_file() else None


def _latest(folder: Path) -> Path:
    newest = latest_checkpoint(folder)
    assert newest is not None
    return newest


def _sampled(
    model: Model, sampling: Sampling, seed: int, evaluation: EvaluationSettings, folder: Path
) -> list[Sampled]:
    """Sample a model by one sampler and measure the samples, where asked also before the final denoising."""
    subfolder = f"samples/{sampling.name.lower().replace(' ', '-')}"
    seconds, source = _draw(model, sampling, seed, evaluation.n, folder / subfolder)
    arrays = read_arrays(folder / subfolder)
    calls = float(arrays["nfe"].double().mean())
    results = []
    for raw in (False, True) if sampling.raw else (False,):
        x = arrays["raw" if raw else "x"]
        usable = finite(x)
        energy = frechet = None
        if int(usable.sum()) >= LEAST:
            energy = measure(EnergyDistance(evaluation.reference), x[usable], source=source)
            frechet = _frechet(x[usable], evaluation, source, seed)
        name = f"{sampling.name}, raw" if raw else sampling.name
        results.append(Sampled(name, subfolder, calls, seconds, int((~usable).sum()), energy, frechet))
    return results


def _draw(model: Model, sampling: Sampling, seed: int, n: int, folder: Path) -> tuple[float, SampleSource]:
    """Draw samples into a folder unless they are already there; return the seconds it took and the samples' source."""
    if not (folder / "samples.json").is_file():
        drawn = model.sample(n, sampler=sampling.sampler, seed=seed)
        write_samples(folder, model, drawn)
    written = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return float(written["seconds"]), _codec.decode(written["source"], SampleSource)


def read_arrays(folder: Path) -> Mapping[str, Tensor]:
    """Return the arrays in a folder of samples by name."""
    with np.load(folder / ARRAYS, allow_pickle=False) as stored:
        return {key: torch.from_numpy(value) for key, value in stored.items()}


def finite(x: Tensor) -> Tensor:
    """Return which examples are finite, (N,)."""
    return torch.isfinite(x).flatten(1).all(dim=1)


def _frechet(x: Tensor, evaluation: EvaluationSettings, source: SampleSource, seed: int) -> MetricResult:
    """Return the Frechet distance +- 1.96 standard deviations of its bootstrap over samples and real examples."""
    result = measure(FrechetDistance(evaluation.features, evaluation.reference), x, source=source)
    generated = torch.cat([feature_rows(evaluation.features, part) for part in x.split(256)])
    real = torch.cat([feature_rows(evaluation.features, part) for part in evaluation.reference.batches(256)])
    values = []
    for k in range(REPLICATES):
        a, b = (_resampled(rows, seed, 2 * k + side) for side, rows in enumerate((generated, real)))
        values.append(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
    half = NORMAL * float(torch.tensor(values, dtype=torch.float64).std())
    value = replace(result.value, interval=(result.value.number - half, result.value.number + half))
    return replace(result, value=value)


def _resampled(rows: Tensor, seed: int, replicate: int) -> Moments:
    """Return the moments of as many rows, drawn with replacement."""
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + replicate)
    moments = Moments()
    moments.update(rows[torch.randint(len(rows), (len(rows),), generator=generator)])
    return moments


# ------------------------------------------------------------------------------------------------ density


def _density(model: Model, evaluation: EvaluationSettings, folder: Path) -> tuple[Density | None, str | None]:
    """Return the density of held-out examples, or None and the reason why there is none."""
    if evaluation.density == 0:
        return None, "not asked for"
    if isinstance(model.experiment.form, EnergyForm):
        return None, f"needs log Z: scorefield energy logz {folder}"
    flow = model.as_flow()
    try:
        require_flow(flow)
        flow.process.diffusion_squared(torch.tensor([0.5], dtype=torch.float64))
    except ValueError:
        return None, "its network takes only the levels of a ladder, and the probability flow needs every t"
    path = folder / "density.npz"
    if not path.is_file():
        x = density_examples(evaluation.held_out, evaluation.density)
        log_prob = model.log_prob(x, settings=FlowSettings(rtol=1e-4, atol=1e-4, loosened=None), seed=0)
        value = -log_prob.nats if log_prob.bits_per_dim is None else log_prob.bits_per_dim
        value = torch.where(log_prob.status == 0, value, math.nan)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, value=value.numpy(), calls=log_prob.nfe.numpy())
    with np.load(path, allow_pickle=False) as stored:
        value, calls = torch.from_numpy(stored["value"]).double(), torch.from_numpy(stored["calls"])
    good = value[torch.isfinite(value)]
    if len(good) < 2:
        return None, "the solver of the probability flow failed for all held-out examples but one at most"
    error = float(good.std()) / math.sqrt(len(good))
    failed = len(value) - len(good)
    return Density(float(good.mean()), error, len(value), failed, float(calls.double().mean())), None


def density_examples(split: Split, count: int) -> Tensor:
    """Return held-out examples for the density, the same for every method, data units."""
    chosen = np.arange(len(split)) if count >= len(split) else pick(len(split), count, 0)
    return split.batch(chosen)[0]


def density_unit(spec: DataSpec) -> str:
    """Return the unit of a density's number."""
    return "bits/dim" if spec.levels is not None else "negative nats"
