"""Energies and scores of examples, denoising in one step, restoration of unknown parts."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from scorefield._files import write_text
from scorefield._random import IndexedNoise, StepNoise
from scorefield.cli.console.batches import save
from scorefield.cli.console.progress import sampling_display
from scorefield.cli.console.reference_data import real_data
from scorefield.cli.energy import DenoiseExamples, RestoreExamples, ScoreExamples
from scorefield.cli.energy.at_noise import ladder_of, measured, noise_level
from scorefield.data_spec import DataSpec
from scorefield.energy.outliers import time_of_noise
from scorefield.evaluation import examples
from scorefield.inverse.operators.from_files import read_part
from scorefield.models.model import Model, load
from scorefield.plot.pictures import kind, save_png
from scorefield.plot.tables import example_table
from scorefield.process.grids import Uniform
from scorefield.sampling.sampler import DataStart, Sampler
from scorefield.sampling.temperature import InpaintingLangevin, TemperatureLangevin
from scorefield.score.energy import NetworkEnergy

NAMES = {ScoreExamples: "score", DenoiseExamples: "denoise", RestoreExamples: "restore"}


def energy(action: ScoreExamples | DenoiseExamples | RestoreExamples) -> None:
    """Carry out the action."""
    if action.n < 1 or action.batch_size < 1 or action.seed < 0:
        raise ValueError(
            f"-n {action.n}, --batch-size {action.batch_size}, --seed {action.seed}: the first two must be at least 1,"
            " the seed not negative"
        )
    model = load(action.model, weights=action.weights)
    out = action.out or Path("energy") / model.name / NAMES[type(action)]
    data = real_data(model.experiment.data, action.data, model.data)
    x, labels = examples(data.held_out or data.train, action.n)
    known = {"class": labels} if model.data.conditions and labels is not None else None
    do = {
        ScoreExamples: _score,
        DenoiseExamples: _denoise,
        RestoreExamples: _restore,
    }[type(action)]
    do(action, model, x, known, out)


# ------------------------------------------------------------------------------------- actions


def _score(command: ScoreExamples, model: Model, x: Tensor, known: dict[str, Tensor] | None, out: Path) -> None:
    sigma = noise_level(model, command.noise)
    found = measured(
        model, x, known, sigma=sigma, draws=command.draws, seed=command.seed, size=command.batch_size,
        folder=out / "batches", name="score",
    )  # fmt: skip
    save(out / "scores.npz", {**found.values, "log score norms": found.norms})
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["example", *found.values])
    for i in range(len(x)):
        table.writerow([i, *(f"{float(v[i]):.8g}" for v in found.values.values())])
    write_text(out / "scores.csv", stream.getvalue())
    print(f"{len(x)} examples at the noise {sigma:g} (model units), {command.draws} draws, {model.name}")
    for name, values in found.values.items():
        good = values[values.isfinite()]
        print(f"  {name:<20} mean {float(good.mean()):12.5g}   deviation {float(good.std()):10.4g}")
        if len(good) < len(values):
            print(
                f"  warning: {len(values) - len(good)} examples have no finite {name}; they are in the file as they are"
            )
    for name, why in found.missing.items():
        print(f"  no {name}: {why}")
    if "energy" in found.values:
        print(
            "  an energy has one arbitrary constant: compare examples, not models. Its density: scorefield energy logz"
            " MODEL"
        )
    print(out / "scores.csv")


def _denoise(command: DenoiseExamples, model: Model, x: Tensor, known: dict[str, Tensor] | None, out: Path) -> None:
    sigma = noise_level(model, command.noise)
    score, process = model.as_score(), model.process
    clean = model.data.to_model(x)
    t, ladder = time_of_noise(score, sigma), ladder_of(model)
    if ladder is not None and not isinstance(score, NetworkEnergy):
        t = ladder.time(ladder.position(t).round())
    noisy_parts, parts = [], []
    with torch.no_grad(), sampling_display(len(x), "examples") as display:
        for first in range(0, len(x), command.batch_size):
            part = clean[first : first + command.batch_size]
            times = t.expand(len(part))
            if not command.as_is:
                z = StepNoise(IndexedNoise(command.seed, range(first, first + len(part))), 0)(part)
                part = process.perturb(part, times, z)
            condition = None if known is None else {k: v[first : first + len(part)] for k, v in known.items()}
            parts.append(model.denoise(part, times, condition))
            # What is shown is in the scale of the data, which VP shrinks as it adds noise.
            noisy_parts.append(part / float(process.alpha(t)))
            display.finished(first, len(part))
    noisy, restored = (model.data.to_data(torch.cat(p)) for p in (noisy_parts, parts))
    save(out / "denoised.npz", {"noisy": noisy, "denoised": restored})
    if command.as_is:
        print(f"{len(x)} examples denoised once, as data with the noise {sigma:g} (model units)")
    else:
        before, after = (float((v - x).square().mean().sqrt()) for v in (noisy, restored))
        units = model.data.units or "data units"
        print(f"{len(x)} examples with the noise {sigma:g} (model units): root mean square error {before:.4g} {units}")
        print(f"  after one denoising {after:.4g}, {100 * after / before:.1f} percent of it")
    versions = {"noisy": noisy, "denoised": restored}
    _save_table(versions if command.as_is else {"clean": x} | versions, model.data, out / "denoised.png")
    print(out / "denoised.npz")


def _restore(command: RestoreExamples, model: Model, x: Tensor, known: dict[str, Tensor] | None, out: Path) -> None:
    score = model.as_score()
    if not isinstance(score, NetworkEnergy):
        raise ValueError(
            f"{model.name} is a score network; restoration by falling temperatures is of an energy, one for every noise"
            " level (recipes with 'energy' or 'mdsm' in their names)"
        )
    if command.samples < 1 or command.steps < 10:
        raise ValueError(f"--samples {command.samples} --steps {command.steps}: at least 1 sample and 10 steps")
    unknown = read_part(command.mask, model.data.shape)
    unknown = unknown if len(model.data.shape) == 1 else unknown[None]
    own = model.experiment.sampler.step
    walk = own if isinstance(own, TemperatureLangevin) else TemperatureLangevin(sigma_0=score.form.sigma_0)
    walk = replace(walk, sigma_0=score.form.sigma_0, step=0.2 * score.form.sigma_0)
    step = InpaintingLangevin(walk, unknown, command.noise_scale)
    sampler = Sampler(step, Uniform(command.steps), start=DataStart(noised=False), final="none")
    clean = model.data.to_model(x).repeat_interleave(command.samples, dim=0)
    parts, failed = [], 0
    top = walk.sigma_0 * walk.schedule.high**0.5
    with sampling_display(len(clean), "completions") as display:
        for first in range(0, len(clean), command.batch_size):
            part = clean[first : first + command.batch_size]
            indices = range(first, first + len(part))
            z = StepNoise(IndexedNoise(command.seed, indices), 2**61)(part)
            # Unknown values start from noise about the middle of the range, as a sample does.
            begin = torch.where(unknown, 0.5 * sum(model.data.model_range) + top * z, part)
            run = sampler.run(
                score, model.data.shape, indices=indices, seed=command.seed, data=begin, callbacks=(display.within,),
                device=model.device, condition=None,
            )  # fmt: skip
            jumped = model.denoise(run.raw.cpu(), 0.0)
            parts.append(torch.where(unknown, jumped, part))
            failed += int((run.status != 0).sum())
            display.finished(first, len(part))
    answers = model.data.to_data(torch.cat(parts)).reshape(len(x), command.samples, *model.data.shape)
    # Rounding through the model's units must not change what was given.
    answers = torch.where(unknown, answers, x.to(answers)[:, None])
    save(out / "restored.npz", {"restored": answers, "unknown": unknown.expand(model.data.shape).contiguous()})
    spread = float(answers.std(dim=1)[:, unknown.expand(model.data.shape)].mean()) if command.samples > 1 else None
    print(f"{len(x)} examples, {command.samples} completions each, {command.steps} steps at falling temperatures")
    if spread is not None:
        print(f"  completions of one example differ by {spread:.4g} {model.data.units or 'data units'} (deviation)")
    if failed:
        print(f"  warning: {failed} completions are not finite; they are in the file as they are")
    shown = torch.where(unknown, torch.full_like(answers[:, 0], _middle(model.data)), x.to(answers))
    completions = {f"sample {j + 1}": answers[:, j] for j in range(answers.shape[1])}
    _save_table({"truth": x, "known": shown} | completions, model.data, out / "restored.png")
    print(out / "restored.npz")


def _middle(spec: DataSpec) -> float:
    return (
        float(spec.to_data(torch.full((1, *spec.shape), 0.5 * sum(spec.model_range))).mean()) if spec.bounded else 0.0
    )


def _save_table(columns: dict[str, Tensor], spec: DataSpec, path: Path) -> None:
    """One row per example, unless examples are vectors."""
    if kind(spec) == "vector":
        return
    save_png(example_table(columns, spec), path)
    print(f"{path}: {', '.join(columns)}")
