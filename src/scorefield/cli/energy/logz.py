"""The normalising constant of an energy, with an interval, a verdict and the densities that follow.

What takes long is kept in the folder as it is done (starts of the reverse chains, the pilot's schedule, work values
batch by batch), and the same command goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield._codec import dumps, loads
from scorefield._files import write_json, write_text
from scorefield._random import IndexedNoise, StepNoise
from scorefield.cli.console.batches import Arrays, claim, in_batches, read, save
from scorefield.cli.console.progress import sampling_display
from scorefield.cli.console.reference_data import real_data
from scorefield.cli.energy import NormalisingConstant
from scorefield.energy.annealed_importance import (
    AISSettings,
    Base,
    BoxBase,
    GaussianBase,
    Schedule,
    Work,
    collect_work,
    pilot_schedule,
)
from scorefield.energy.annealing import Ladder, anneal, tune_ladder
from scorefield.energy.chains import run_chains
from scorefield.energy.normalising_constant import (
    REVERSE,
    EnergyLogProb,
    LogZ,
    ModeCheck,
    energy_log_prob,
    log_z_of_work,
    path_to,
    same_modes,
)
from scorefield.energy.transition import pilot_noise, tune
from scorefield.evaluation import examples
from scorefield.models.model import Model, load
from scorefield.models.run_folder import environment
from scorefield.score.energy import Confined, Energy, NetworkEnergy

BEYOND = 5.0
"""Noise levels by which the box exceeds the range of the data."""

RUNGS = 20
"""Temperatures of the chains that come down from the highest noise."""

SOURCES = ("data", "noise")
"""Where the chains start whose ends the reverse direction starts from."""

# First indices in the noise, so that no two sets of chains share any; forward chains are below REVERSE = 2**40.
_OF_DATA = 2**41
_CHAINS = {"data": 2**42, "noise": 2**43}
_BACK = {"data": REVERSE, "noise": REVERSE + 2**32}


@dataclass(frozen=True)
class Task:
    """The energy to be normalised, its base distribution, and the folder of finished parts.

    Args:
        command: The user's.
        energy: The energy with its confinement.
        base: Starting distribution of the forward chains.
        noisy: Data with the noise that T stands for, model units.
        highest: Temperature of the highest noise of training.
        out: Folder of what is kept.
        identity: All that the numbers depend on.
    """

    command: NormalisingConstant
    energy: Confined
    base: Base
    noisy: Tensor
    highest: float
    out: Path
    identity: dict[str, Any]


def log_normaliser(command: NormalisingConstant) -> None:
    """Carry out the command.

    Raises:
        ValueError: A model without an energy, or numbers that cannot be.
    """
    _check(command)
    model = load(command.model, weights=command.weights)
    score = model.as_score()
    if not isinstance(score, NetworkEnergy):
        raise ValueError(
            f"{model.name} is a score network, which has no energy to normalise; its density is that of the flow:"
            f" scorefield likelihood {command.model}"
        )
    data = real_data(model.experiment.data, command.data, model.data)
    x, _ = examples(data.held_out or data.train, 3 * command.chains)
    if len(x) < command.chains:
        raise ValueError(f"{len(x)} examples for {command.chains} chains; ask for fewer, --chains {len(x)}")
    out = command.out or Path("energy") / model.name / "logz"
    task = _task(command, model, score, x, out / "parts")
    claim(task.out / "logz.json", task.identity)
    began = time.perf_counter()
    starts = {source: _kept(task.out / f"starts_{source}.npz", lambda s=source: _starts(task, s)) for source in SOURCES}
    found, check = _normalise(task, {source: _sound(found, source) for source, found in starts.items()})
    density = None
    if found.value is not None:
        density = energy_log_prob(task.energy, found, model.data.to_data(task.noisy), model.data)
    chains = {source: _summary(task, found) for source, found in starts.items()}
    _print(model, found, check, density, chains, time.perf_counter() - began)
    _write(out, model, found, check, density, chains)


def _check(command: NormalisingConstant) -> None:
    if command.chains < 8 or command.warmup < 0 or command.batch_size < 1:
        raise ValueError(
            f"--chains {command.chains} --warmup {command.warmup} --batch-size {command.batch_size}: at least 8 chains,"
            " no negative steps, and at least one chain at a time"
        )
    if command.box is not None and command.confinement == "ball":
        raise ValueError("--box is of --confinement box; a ball is placed by the data")


def _task(command: NormalisingConstant, model: Model, score: NetworkEnergy, x: Tensor, out: Path) -> Task:
    energy = Energy.of(score)
    noise = energy.noise(command.temperature)
    assert noise is not None
    clean = model.data.to_model(x).to(model.device)
    z = StepNoise(IndexedNoise(command.seed, range(_OF_DATA, _OF_DATA + len(clean))), 0)(clean)
    noisy = clean + noise * z
    confined, base = _confined(command, energy, noisy, noise, model)
    top = float(score.process.sigma(torch.ones(1, dtype=torch.float64)))
    asked = {k: v for k, v in vars(command).items() if k not in ("out", "weights", "data")}
    identity = {
        "weights": model.hash,
        "data": hashlib.sha256(x.contiguous().cpu().numpy().tobytes()).hexdigest(),
        "confinement": confined.describe(),
        **asked,
    }
    return Task(command, confined, base, noisy, max(energy.temperature(top), command.temperature), out, identity)


def _confined(
    command: NormalisingConstant, energy: Energy, noisy: Tensor, noise: float, model: Model
) -> tuple[Confined, Base]:
    """The energy with its confinement, and the distribution where forward chains start."""
    if command.confinement == "box":
        box = command.box
        if box is None:
            low, high = model.data.model_range if model.data.bounded else (float(noisy.min()), float(noisy.max()))
            box = (low - BEYOND * noise, high + BEYOND * noise)
        return Confined(energy, box=box), BoxBase(*box)
    centre = float(noisy.mean())
    radius = 1.1 * float((noisy - centre).flatten(1).norm(dim=1).max())
    return Confined(energy, ball=(centre, radius)), GaussianBase.matched(noisy.cpu(), widen=1.1)


# ------------------------------------------------------------------------------------------------ what takes long


def _kept(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Arrays of an earlier run, or new ones."""
    if not path.is_file():
        save(path, make())
    return read(path)


def _starts(task: Task, source: str) -> Arrays:
    """Ends of chains at T, from noisy data or from the base through falling temperatures."""
    command, first, n = task.command, _CHAINS[source], task.command.chains
    begin, gradients = task.noisy[:n], 0
    if source == "noise" and task.highest > command.temperature:
        ladder = Ladder(task.highest, command.temperature, RUNGS, max(4, command.warmup // RUNGS))
        few = max(8, min(32, n))
        wide = task.base.draw(pilot_noise(command.seed, few), task.noisy[:1].expand(few, *task.noisy.shape[1:]))
        ladder = tune_ladder(task.energy, wide, ladder, steps=30, seed=command.seed)
        begin = task.base.draw(IndexedNoise(command.seed, range(first, first + n)), begin)
        with sampling_display(1000, "falling temperatures (of 1000)") as display:
            run = anneal(task.energy, begin, ladder, seed=command.seed, first=first, on_step=_shown(display))
        begin, gradients, first = run.raw.to(begin), run.gradients, first + 2**32
    kernel = tune(task.energy, task.noisy[-n:], temperature=command.temperature, seed=command.seed)
    with sampling_display(1000, f"chains from {source} (of 1000)") as display:
        run = run_chains(
            task.energy, begin, draws=1, kernel=kernel, temperature=command.temperature, warmup=command.warmup,
            seed=command.seed, first=first, on_step=_shown(display),
        )  # fmt: skip
    return {
        "x": run.last,
        "acceptance": run.acceptance,
        "not finite": run.not_finite,
        "broken": run.broken,
        "epsilon": torch.tensor(float(kernel.epsilon or 0.0), dtype=torch.float64),
        "gradients": torch.tensor(run.gradients + gradients),
    }


def _shown(display: Any) -> Callable[[int, int], None]:
    return lambda done, total: display.finished(0, int(1000 * done / total))


def _sound(found: Arrays, source: str) -> Tensor:
    """The starts that are draws of the distribution; chains that never moved are named and left out.

    Raises:
        ValueError: Few are left.
    """
    lost = found["broken"].nonzero().flatten().tolist()
    if lost:
        print(
            f"warning: {len(lost)} of {len(found['broken'])} chains from {source} started where the energy or its"
            f" gradient is not finite and never moved (number {', '.join(map(str, lost[:8]))}"
            f"{', ...' if len(lost) > 8 else ''}); they are no draws and are left out"
        )
    if len(found["broken"]) - len(lost) < 8:
        raise ValueError(
            f"{len(found['broken']) - len(lost)} chains from {source} have a finite energy, too few to normalise with;"
            " a wider --box, or --confinement ball"
        )
    return found["x"][~found["broken"]]


def _schedule(task: Task) -> Schedule:
    """The pilot's, frozen in a file."""
    path, command = task.out / "schedule.json", task.command
    if not path.is_file():
        few = max(8, min(64, command.chains))
        settings = AISSettings(work_variance=command.work_variance, most_rungs=command.max_rungs, pilot=few)
        print(f"pilot of {few} chains finds the rungs", flush=True)
        start = task.base.draw(pilot_noise(command.seed, few), task.noisy.new_empty((few, *task.noisy.shape[1:])))
        laws = path_to(task.energy, task.base, command.temperature)
        write_text(path, dumps(pilot_schedule(laws, start, settings, seed=command.seed)))
    return loads(path.read_text(), Schedule)


def _work(task: Task, schedule: Schedule, name: str, start: Tensor | None, first: int) -> Work:
    """Work values of chains from the base, or in reverse from the starts, batch by batch."""
    laws = path_to(task.energy, task.base, task.command.temperature)
    n = task.command.chains if start is None else len(start)

    def compute(rows: slice) -> Arrays:
        noise = IndexedNoise(task.command.seed, range(first + rows.start, first + rows.stop))
        like = task.noisy.new_empty((rows.stop - rows.start, *task.noisy.shape[1:]))
        x = task.base.draw(noise, like) if start is None else start[rows].to(task.noisy)
        found = collect_work(laws, schedule, x, noise, reverse=start is not None)
        shares = found.acceptance if len(found.acceptance) else torch.ones(1, dtype=torch.float64)
        return {
            "log weight": found.log_weight,
            "not finite": found.not_finite,
            "broken": found.broken,
            "least": shares.min().expand(len(x)),
            "greatest": shares.max().expand(len(x)),
        }

    parts = in_batches(compute, n, task.command.batch_size, task.out, name, task.identity)
    shares = torch.stack([parts["least"].min(), parts["greatest"].max()])
    return Work(parts["log weight"], shares, parts["not finite"], parts["broken"])


def _normalise(task: Task, starts: dict[str, Tensor]) -> tuple[LogZ, ModeCheck]:
    """Forward chains, and reverse ones from both sets of starts; where these disagree there is no estimate."""
    schedule, command = _schedule(task), task.command
    there = _work(task, schedule, "forward", None, 0)
    told = []
    for source in SOURCES:
        back = _work(task, schedule, f"reverse from {source}", starts[source], _BACK[source])
        told.append(
            log_z_of_work(
                task.energy, schedule, there, back, starts[source].to(task.noisy),
                temperature=command.temperature, seed=command.seed,
            )
        )  # fmt: skip
    found, other = told
    check = same_modes(found, other)
    if not check.agree:
        ends = (*found.interval, found.forward, found.reverse, other.reverse)
        found = replace(
            found, value=None, verdict="unusable", reasons=(*found.reasons, check.message),
            interval=(min(ends), max(ends)),
        )  # fmt: skip
    return found, check


def _summary(task: Task, found: Arrays) -> dict[str, Any]:
    good = ~found["broken"] & (found["not finite"] == 0)
    return {
        "chains": len(good),
        "warmup": task.command.warmup,
        "gradients": int(found["gradients"]),
        "acceptance": float(found["acceptance"].double().mean()),
        "epsilon": float(found["epsilon"]),
        "finite chains": float(good.double().mean()),
    }


# ------------------------------------------------------------------------------------------------ what is said


def _print(
    model: Model,
    found: LogZ,
    check: ModeCheck,
    density: EnergyLogProb | None,
    chains: dict[str, dict[str, Any]],
    seconds: float,
) -> None:
    said = f"sigma_0 sqrt(T) = {found.noise:.4g}" if found.noise is not None else "none"
    print(f"{model.name} ({model.weights}): {found.of}; T = {found.temperature:g} stands for the noise {said}")
    low, high = found.interval
    number = "no estimate" if found.value is None else f"{found.value:.3f} +- {found.standard_error:.3f}"
    # Without an estimate the two ends are the forward and the reverse value, and no confidence belongs to them.
    kind = "from" if found.value is None else "95 %"
    print(f"  log Z          {number} nats   {kind} [{low:.3f}, {high:.3f}]   verdict: {found.verdict}")
    print(f"  forward        {found.forward:.3f}, {found.ess_forward:.1f} effective chains")
    print(f"  reverse        {found.reverse:.3f}, {found.ess_reverse:.1f} effective chains")
    print(
        f"  overlap {found.overlap:.3g}; acceptance {found.acceptance[0]:.2f} to {found.acceptance[1]:.2f};"
        f" {found.schedule.rungs} rungs, {found.gradients} gradients a chain; {seconds:.0f} s"
    )
    for source, was in chains.items():
        print(
            f"  reverse starts from {source}: {was['chains']} chains of {was['gradients']} gradients, acceptance"
            f" {was['acceptance']:.3f} at T, finite {was['finite chains']:.3f}"
        )
    print(f"  {check.message}")
    if found.border is not None:
        print(f"  near the border: {found.border:.4g} of their coordinates (a box) or examples (a ball)")
    for reason in found.reasons:
        print(f"  not ok: {reason}")
    _print_density(model, found, density)


def _print_density(model: Model, found: LogZ, density: EnergyLogProb | None) -> None:
    if density is None:
        print("  no density and no bits/dim without an estimate of log Z")
        return
    n = len(density.nats)
    error = float(density.nats.std()) / math.sqrt(n)
    low, high = (float(end) for end in density.interval.mean(dim=0))
    print(
        f"  mean log density {float(density.nats.mean()):.3f} nats [{low:.3f}, {high:.3f}] by log Z, +- {error:.3f} by"
        f" the choice of {n} noisy examples"
    )
    if density.bits_per_dim is None or density.bits_interval is None:
        return
    a, b = density.bits_interval
    floor = math.log2(float(found.noise or 0.0) * math.sqrt(2.0 * math.pi * math.e)) + _bits_of_range(model)
    print(
        f"  {float(density.bits_per_dim.mean()):.4f} bits/dim [{a:.4f}, {b:.4f}] of data smoothed by the noise"
        f" {found.noise:.4g}, whose own bits are {floor:.4f}. Not comparable with discrete likelihoods"
    )


def _bits_of_range(model: Model) -> float:
    """log2 of grey levels per model unit."""
    low, high = model.data.model_range
    return math.log2((model.data.levels or 1) / (high - low))


def _write(
    out: Path,
    model: Model,
    found: LogZ,
    check: ModeCheck,
    density: EnergyLogProb | None,
    chains: dict[str, dict[str, Any]],
) -> None:
    record = found.record()
    record |= {"model": model.name, "weights": model.weights, "weights hash": model.hash, "reverse starts": chains}
    record["modes"] = vars(check)
    if density is not None:
        record["nats of noisy data"] = float(density.nats.mean())
        if density.bits_per_dim is not None:
            record["bits per dim of noisy data"] = float(density.bits_per_dim.mean())
            record["bits interval"] = density.bits_interval
        record["density of"] = density.of
    record["environment"] = environment()
    write_json(out / "logz.json", _finite(json.loads(json.dumps(record))))
    save(out / "works.npz", {"forward": found.work_forward, "reverse": found.work_reverse})
    print(out / "logz.json")


def _finite(value: Any) -> Any:
    """Strict JSON has no infinity: log weights of chains that died are the string."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
