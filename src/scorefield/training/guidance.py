"""Training a guidance model: its experiment, its data in the model's units, and its accuracy at each noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from scorefield import _codec
from scorefield._codec import record
from scorefield._files import write_json
from scorefield.data import Data, DataError, Split
from scorefield.losses.denoising import normal_like
from scorefield.models.experiment import GuideExperiment, Training
from scorefield.models.guidance import Guide, load_guide
from scorefield.models.model import Model
from scorefield.nets.guidance import GuideConvolutions, GuideMLP
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.guidance import noise_process
from scorefield.score.guidance_model import Answer, Category, Quantity
from scorefield.training.observer import Observer
from scorefield.training.trainer import train

Kind = Literal["classifier", "likelihood"]
FILE = "guide.json"
LEVELS = 10
MOST = 2000
"""Largest number of held-out examples on which a guidance model is measured."""


@record
class AtLevel:
    """Accuracy of a guidance model at one noise level, on held-out examples.

    Args:
        t: The time.
        sigma: The noise level, model units.
        loss: Mean of -log p_t(y | x), nats.
        loss_error: Its standard error.
        error: Share of wrong classes, or root mean square error of y in units of its deviation.
    """

    t: float
    sigma: float
    loss: float
    loss_error: float
    error: float


@dataclass(frozen=True)
class Measured:
    """Result of `measure`: each level, least noise first, and the loss of a model that ignores x."""

    levels: tuple[AtLevel, ...]
    examples: int
    blind: float


def guide_experiment(model: Model, kind: Kind, data: str | None = None) -> GuideExperiment:
    """The experiment of a guidance model, under the model's own process; its data are not opened yet.

    Args:
        model: The model to be guided.
        kind: "classifier" for p_t(class | x), "likelihood" for a normal density of numbers y.
        data: Examples with labels, of the model's shape and units; None for the model's own.

    Raises:
        ValueError: The process has no noise level, or no data are named.
    """
    process = noise_process(model.as_score())
    if isinstance(process, GeneralSDE):
        raise ValueError(
            f"{model.name} was trained on a GeneralSDE, which has no single noise level to condition a guidance model"
            " on; train the"
            " model with the condition itself, data.conditional=true"
        )
    own = model.experiment
    path = data or own.data.path
    if path is None:
        raise DataError(f"{model.name} does not say where its data are; give --data PATH, examples with labels")
    vectors = len(model.data.shape) not in (2, 3)
    return GuideExperiment(
        name=f"{kind} for {model.name}",
        data=replace(own.data, path=path, conditional=True),
        process=process,
        network=GuideMLP() if vectors else GuideConvolutions(),
        training=Training(
            steps=2000, batch_size=128, validate_every=250, checkpoint_every=500, dequantise=own.training.dequantise
        ),
        model=model.name,
        model_hash=model.hash,
    )


def with_data(experiment: GuideExperiment, kind: Kind, model: Model, data: Data) -> tuple[GuideExperiment, Data]:
    """The experiment with the distribution of its output filled in (`answer`), and the data in the units of the model.

    Raises:
        DataError: Other data than the model's, or labels of the other kind.
    """
    there, here = ((s.shape, s.low, s.high, s.levels, s.units) for s in (data.spec, model.data))
    if there != here:
        raise DataError(
            f"{data.name} has shape, low, high, levels, units = {there}, the model {model.name} {here}; a guidance"
            " model takes noisy examples of the model's own data (the fields size, crop and"
            " channels of its data source apply)"
        )
    (condition,) = data.spec.conditions
    if (condition.kind == "class") != (kind == "classifier"):
        other = "classifier" if condition.kind == "class" else "likelihood"
        raise DataError(
            f"--kind {kind}: the labels of {data.name} are {'classes' if other == 'classifier' else 'numbers'}; use"
            f" --kind {other}, or name other labels with --set data.label_key=NAME"
        )
    answer: Answer = Category(condition.name, condition.size, condition.class_names)
    if kind == "likelihood":
        answer = _quantity(condition.name, data.train)
    spec = replace(model.data, conditions=(answer.spec,))
    held_out = None if data.held_out is None else data.held_out.under(spec)
    moved = replace(data, spec=spec, train=data.train.under(spec), held_out=held_out)
    return replace(experiment, answer=answer, spec=spec), moved


def _quantity(name: str, split: Split) -> Quantity:
    """Numbers standardised by the training examples whose numbers are known."""
    assert split.numbers is not None
    y = torch.from_numpy(split.numbers).double()
    y = y[~y.isnan().any(1)]
    if len(y) < 2:
        raise DataError(f"{split.name}: y is known of {len(y)} examples; a density takes two or more")
    scale = y.std(0, correction=0)
    return Quantity(name, tuple(y.mean(0).tolist()), tuple(torch.where(scale > 0, scale, 1.0).tolist()))


def train_guide(
    experiment: GuideExperiment,
    data: Data,
    out: str | Path,
    *,
    resume: Literal["no", "auto"] = "no",
    observer: Observer | None = None,
) -> tuple[Guide, Measured | None]:
    """Train a guidance model into a folder, with its accuracy in guide.json; see `trainer.train`.

    Args:
        experiment: The experiment that `with_data` returned.
        data: The data that `with_data` returned.
        out: Output folder.
        resume: "auto" continues from the newest checkpoint, "no" refuses a folder that holds a run.
        observer: Receives progress.

    Returns:
        The guidance model and its accuracy, None without held-out examples.
    """
    run = train(experiment, out, resume=resume, observer=observer, data=data)
    guide = load_guide(run)
    found = None if data.held_out is None or not len(data.held_out) else measure(guide, data.held_out)
    record = {
        "guide_hash": guide.hash,
        "weights": guide.weights,
        "step": guide.step,
        "model": experiment.model,
        "model_hash": experiment.model_hash,
        "process": _codec.encode(experiment.process),
        "answer": _codec.encode(experiment.answer),
        "data": {"name": data.name, "fingerprint": data.train.fingerprint, "examples": len(data.train)},
        "held_out": None
        if found is None
        else {
            "examples": found.examples,
            "loss_without_x": found.blind,
            "levels": [{k: v for k, v in _codec.encode(level).items() if k != "type"} for level in found.levels],
        },
    }
    write_json(run / FILE, record)
    return guide, found


def measure(guide: Guide, split: Split, levels: int = LEVELS, seed: int = 0) -> Measured:
    """Losses and errors of a guidance model on held-out examples, level by level, with the same noise every time.

    Args:
        guide: The guidance model.
        split: Held-out examples with labels, in data units.
        levels: Number of noise levels, evenly spaced in t.
        seed: Seed of the noise.
    """
    score, spec = guide.as_score(), guide.experiment.spec
    assert spec is not None
    x, condition = split.under(spec).batch(range(min(len(split), MOST)))
    y = condition[score.answer.name]
    known = y >= 0 if not y.is_floating_point() else ~y.isnan().any(1)
    x0, y = spec.to_model(x[known]).float(), y[known]
    device = next(guide.network.parameters()).device
    found = []
    for t in level_times(score.process, levels).tolist():
        times = torch.full((len(x0),), t, dtype=torch.float64)
        z = normal_like(x0, tuple(x0.shape), torch.Generator().manual_seed(seed))
        with torch.no_grad():
            raw = score.outputs(score.process.perturb(x0, times, z).to(device), times).cpu().double()
        loss, error = -score.answer.log_prob(raw, y), score.answer.error(raw, y)
        sigma = float(score.process.sigma(times[:1]))
        shown = float(error.mean()) if isinstance(score.answer, Category) else math.sqrt(float(error.mean()))
        found.append(AtLevel(t, sigma, float(loss.mean()), float(loss.std()) / math.sqrt(len(loss)), shown))
    return Measured(tuple(found), len(x0), _blind(score.answer, y))


def level_times(process: Process, levels: int) -> Tensor:
    """Times from the least of training to 1, on the levels of a ladder."""
    low = process.t_min.training
    t = low + (1.0 - low) * torch.linspace(0.0, 1.0, levels, dtype=torch.float64)
    return process.time(process.position(t).round()).unique() if isinstance(process, Tabulated) else t


def _blind(answer: Answer, y: Tensor) -> float:
    """The loss, nats, of the best distribution of y that ignores x: the entropy of the classes, or of a normal fit."""
    if isinstance(answer, Category):
        share = torch.bincount(y, minlength=answer.size).double() / len(y)
        return -float(torch.xlogy(share, share).sum())
    return float((0.5 * (2.0 * math.pi * math.e * y.double().var(0, correction=0)).log()).sum())
