"""One method, one seed: train for its time, sample, measure; every finished part is kept and found again."""

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
from scorefield.studies.methods.lineage import METHODS, Method, Sampling, Terms
from scorefield.studies.methods.records import NORMAL, Density, MethodRun, Sampled
from scorefield.studies.methods.sizes import count
from scorefield.training.observer import Observer
from scorefield.training.trainer import train

RECORD = "compared.json"
MOST = 2000
"""Held-out examples used at most: distances cost their square."""

REPLICATES = 60
"""Of the bootstrap of Frechet distances."""

LEAST = 20
"""Finite samples below which nothing is measured."""


@dataclass(frozen=True)
class Judge:
    """What samples are compared with.

    Args:
        held_out: The split.
        reference: Its examples.
        features: Of the Frechet distance.
        n: Samples of each sampler.
        density: Held-out examples whose density is measured; 0 for none.
    """

    held_out: Split
    reference: Reference
    features: Features
    n: int
    density: int


def farthest(data: Data) -> float:
    """The largest distance between two of at most 5,000 training examples, model units."""
    x, _ = examples(data.train, 5000)
    return largest_distance(data.spec.to_model(x))


def judge_of(data: Data, n: int, density: int) -> Judge:
    """The held-out data and features of a comparison.

    Raises:
        DataError: Too few examples are held out.
    """
    held = data.held_out
    if held is None or len(held) < LEAST:
        raise DataError(
            f"{data.name} holds out {0 if held is None else len(held)} examples, and {LEAST} or more are needed to"
            " compare samples with; give a larger set (a tenth is held out), or one with a test split"
        )
    x, _ = examples(held, MOST)
    reference = Reference(x, name=held.name, split="held-out", units=data.spec.units)
    return Judge(held, reference, choose_features("auto", data.train, held), n, density)


def fitting(terms: Terms, names: tuple[str, ...]) -> tuple[Method, ...]:
    """The methods of those names, whose networks take the data.

    Raises:
        ValueError: A name that is none, or data that some of the networks do not take; says which methods fit.
    """
    unknown = next((name for name in names if name not in METHODS), None)
    if unknown is not None:
        raise ValueError(
            f"there is no method {unknown!r}.{_codec.near(unknown, METHODS)} They are {', '.join(METHODS)}"
        )
    problems = {name: problem for name in names if (problem := _problem(METHODS[name], terms)) is not None}
    if problems:
        fit = [name for name in METHODS if _problem(METHODS[name], terms) is None]
        why = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        use = f"--methods {','.join(fit)}" if fit else "--network mlp"
        raise ValueError(f"examples of shape {terms.spec.shape} do not fit {why}. These do: {use}")
    return tuple(METHODS[name] for name in names)


def _problem(method: Method, terms: Terms) -> str | None:
    try:
        made = method.experiment(terms, 0)
        count(made.network, terms.spec)
        if made.adversary is not None:
            with torch.device("meta"):
                build_critic(made, terms.spec)
    except ValueError as error:
        return str(error)
    return None


# ------------------------------------------------------------------------------------------------ a run


def run_method(
    method: Method, seed: int, terms: Terms, data: Data, judge: Judge, folder: Path, observer: Observer
) -> MethodRun:
    """Train, sample and measure; what is already in the folder is not done again.

    Args:
        method: Which.
        seed: Of training and sampling.
        terms: What all methods share.
        data: Opened.
        judge: What samples are compared with.
        folder: The run folder; samples are in its `samples`, the record in compared.json.
        observer: Told of progress.

    Raises:
        Interrupted: SIGINT or SIGTERM in training; the state was saved.
    """
    found = read_run(folder)
    if found is not None:
        return found
    experiment = method.experiment(terms, seed)
    train(experiment, folder, resume="auto", observer=observer, data=data)
    spent = json.loads((_latest(folder) / "state.json").read_text(encoding="utf-8"))
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    model = load(folder)
    samples: list[Sampled] = []
    for sampling in method.samplings(terms):
        observer.message(f"{method.name}, seed {seed}: sampling, {sampling.name}")
        samples += _sampled(model, sampling, seed, judge, folder)
    density, why = _density(model, method, judge, folder)
    critic = 0
    if experiment.adversary is not None:
        critic = sum(p.numel() for p in build_critic(experiment, terms.spec).parameters())
    per_step = experiment.adversary.steps if experiment.adversary is not None else 1
    done = MethodRun(
        method=method.name,
        seed=seed,
        steps=spent["step"],
        examples=spent["step"] * per_step * experiment.training.batch_size,
        seconds=spent["seconds"],
        load=busy,
        parameters=sum(p.numel() for p in model.network.parameters()),
        critic=critic,
        samples=tuple(samples),
        density=density,
        no_density=why,
    )
    write_text(folder / RECORD, _codec.dumps(done) + "\n")
    return done


def read_run(folder: Path) -> MethodRun | None:
    """The record of a finished run."""
    path = folder / RECORD
    return _codec.loads(path.read_text(encoding="utf-8"), MethodRun) if path.is_file() else None


def _latest(folder: Path) -> Path:
    newest = latest_checkpoint(folder)
    assert newest is not None
    return newest


def _sampled(model: Model, sampling: Sampling, seed: int, judge: Judge, folder: Path) -> list[Sampled]:
    place = f"samples/{sampling.name.lower().replace(' ', '-')}"
    seconds, source = _draw(model, sampling, seed, judge.n, folder / place)
    found = []
    for raw in (False, True) if sampling.raw else (False,):
        x = read_arrays(folder / place)["raw" if raw else "x"]
        fine = finite(x)
        calls = float(read_arrays(folder / place)["nfe"].double().mean())
        energy = frechet = None
        if int(fine.sum()) >= LEAST:
            energy = measure(EnergyDistance(judge.reference), x[fine], source=source)
            frechet = _frechet(x[fine], judge, source, seed)
        name = f"{sampling.name}, raw" if raw else sampling.name
        found.append(Sampled(name, place, calls, seconds, int((~fine).sum()), energy, frechet))
    return found


def _draw(model: Model, sampling: Sampling, seed: int, n: int, folder: Path) -> tuple[float, SampleSource]:
    """Draw into a folder, unless that was done; seconds and how they were made."""
    if not (folder / "samples.json").is_file():
        drawn = model.sample(n, sampler=sampling.sampler, seed=seed)
        write_samples(folder, model, drawn)
    written = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return float(written["seconds"]), _codec.decode(written["source"], SampleSource)


def read_arrays(folder: Path) -> Mapping[str, Tensor]:
    """The arrays of drawn samples."""
    with np.load(folder / ARRAYS, allow_pickle=False) as stored:
        return {key: torch.from_numpy(value) for key, value in stored.items()}


def finite(x: Tensor) -> Tensor:
    """Which examples are finite, (N,)."""
    return torch.isfinite(x).flatten(1).all(dim=1)


def _frechet(x: Tensor, judge: Judge, source: SampleSource, seed: int) -> MetricResult:
    """Frechet distance with 1.96 standard deviations of its bootstrap over samples and real examples."""
    found = measure(FrechetDistance(judge.features, judge.reference), x, source=source)
    ours = torch.cat([feature_rows(judge.features, part) for part in x.split(256)])
    real = torch.cat([feature_rows(judge.features, part) for part in judge.reference.batches(256)])
    values = []
    for k in range(REPLICATES):
        a, b = (_resampled(rows, seed, 2 * k + side) for side, rows in enumerate((ours, real)))
        values.append(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
    half = NORMAL * float(torch.tensor(values, dtype=torch.float64).std())
    return replace(found, value=replace(found.value, interval=(found.value.number - half, found.value.number + half)))


def _resampled(rows: Tensor, seed: int, replicate: int) -> Moments:
    """Moments of as many rows drawn with replacement."""
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + replicate)
    moments = Moments()
    moments.update(rows[torch.randint(len(rows), (len(rows),), generator=generator)])
    return moments


# ------------------------------------------------------------------------------------------------ density


def _density(model: Model, method: Method, judge: Judge, folder: Path) -> tuple[Density | None, str | None]:
    """Bits/dim, or negative nats, of held-out examples; or why there are none."""
    if judge.density == 0:
        return None, "not asked for"
    if isinstance(model.experiment.form, EnergyForm):
        return None, f"needs log Z: scorefield energy {folder} logz"
    flow = model.as_flow()
    try:
        require_flow(flow)
        flow.process.diffusion_squared(torch.tensor([0.5], dtype=torch.float64))
    except ValueError:
        return None, "its network knows the levels of a ladder, and the flow needs every t"
    place = folder / "density.npz"
    if not place.is_file():
        x = density_examples(judge.held_out, judge.density)
        log_prob = model.log_prob(x, settings=FlowSettings(rtol=1e-4, atol=1e-4, loosened=None), seed=0)
        value = -log_prob.nats if log_prob.bits_per_dim is None else log_prob.bits_per_dim
        value = torch.where(log_prob.status == 0, value, math.nan)
        with replacing(place) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, value=value.numpy(), calls=log_prob.nfe.numpy())
    with np.load(place, allow_pickle=False) as stored:
        value, calls = torch.from_numpy(stored["value"]).double(), torch.from_numpy(stored["calls"])
    good = value[torch.isfinite(value)]
    if len(good) < 2:
        return None, "the flow of every example gave up"
    error = float(good.std()) / math.sqrt(len(good))
    failed = len(value) - len(good)
    return Density(float(good.mean()), error, len(value), failed, float(calls.double().mean())), None


def density_examples(split: Split, count: int) -> Tensor:
    """The same examples for every method, data units."""
    chosen = np.arange(len(split)) if count >= len(split) else pick(len(split), count, 0)
    return split.batch(chosen)[0]


def density_unit(spec: DataSpec) -> str:
    """What a density's number is."""
    return "bits/dim" if spec.levels is not None else "negative nats"
