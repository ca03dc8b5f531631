"""scorefield energy MODEL logz: the normaliser of an energy, with an interval, a verdict and what follows from it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield._random import IndexedNoise, StepNoise
from scorefield.app.batches import save
from scorefield.app.energy_commands import LogNormaliser
from scorefield.app.evaluation import real_data
from scorefield.app.progress import sampling_display
from scorefield.inference.annealed_importance import AISSettings, Base, BoxBase, GaussianBase
from scorefield.inference.chains import run_chains
from scorefield.inference.normaliser import EnergyLogProb, LogZ, energy_log_prob, log_z
from scorefield.inference.transition import tune
from scorefield.lab.evaluation import examples
from scorefield.lab.files import write_json
from scorefield.lab.model import Model, load
from scorefield.lab.run_folder import environment
from scorefield.score.energy import Confined, Energy, NetworkEnergy

BEYOND = 5.0
"""Noise levels by which the box exceeds the range of the data."""


def log_normaliser(name: str, command: LogNormaliser) -> None:
    """Carry out the command.

    Raises:
        ValueError: A model without an energy, or numbers that cannot be.
    """
    if command.chains < 8 or command.warmup < 0:
        raise ValueError(
            f"--chains {command.chains} --warmup {command.warmup}: at least 8 chains, and no negative steps"
        )
    model = load(name, weights=command.weights)
    score = model.as_score()
    if not isinstance(score, NetworkEnergy):
        raise ValueError(
            f"{model.name} is a score network, which has no energy to normalise; its density is that of the flow:"
            f" scorefield likelihood {name}"
        )
    energy = Energy.of(score)
    noise = energy.noise(command.temperature)
    assert noise is not None
    data = real_data(model.experiment.data, None if command.data is None else command.data, model.data)
    x, _ = examples(data.held_out or data.train, 3 * command.chains)
    if len(x) < command.chains:
        raise ValueError(f"{len(x)} examples for {command.chains} chains; ask for fewer, --chains {len(x)}")
    clean = model.data.to_model(x).to(model.device)
    noisy = clean + noise * StepNoise(IndexedNoise(command.seed, range(len(clean))), 0)(clean)
    confined, base = _confined(command, energy, noisy, noise, model)
    began = time.perf_counter()
    found, chains_record = _normalise(command, confined, base, noisy)
    density = None
    if found.value is not None:
        density = energy_log_prob(confined, found, model.data.to_data(noisy), model.data)
    out = command.out or Path("energy") / model.name / "logz"
    _print(model, found, density, chains_record, time.perf_counter() - began, len(x))
    _write(out, model, found, density, chains_record)


def _confined(
    command: LogNormaliser, energy: Energy, noisy: Tensor, noise: float, model: Model
) -> tuple[Confined, Base]:
    """The energy with its confinement, and the law where forward chains start."""
    if command.confinement == "box":
        box = command.box
        if box is None:
            low, high = model.data.model_range if model.data.bounded else (float(noisy.min()), float(noisy.max()))
            box = (low - BEYOND * noise, high + BEYOND * noise)
        return Confined(energy, box=box), BoxBase(*box)
    if command.box is not None:
        raise ValueError("--box is of --confinement box; a ball is placed by the data")
    centre = float(noisy.mean())
    radius = 1.1 * float((noisy - centre).flatten(1).norm(dim=1).max())
    return Confined(energy, ball=(centre, radius)), GaussianBase.matched(noisy.cpu(), widen=1.1)


def _normalise(command: LogNormaliser, confined: Confined, base: Base, noisy: Tensor) -> tuple[LogZ, dict[str, Any]]:
    """Chains at T from noisy data, then both directions."""
    n = command.chains
    kernel = tune(confined, noisy[-n:], temperature=command.temperature, seed=command.seed)
    with sampling_display(1000, "chains") as display:
        chains = run_chains(
            confined,
            noisy[:n],
            draws=1,
            kernel=kernel,
            temperature=command.temperature,
            warmup=command.warmup,
            seed=command.seed,
            on_step=lambda done, total: display.finished(0, int(1000 * done / total)),
        )
    good = chains.last[chains.last.flatten(1).isfinite().all(dim=1)]
    record = {
        "acceptance": float(chains.acceptance.double().mean()),
        "epsilon": kernel.epsilon,
        "finite chains": chains.finite,
        "chains": n,
        "warmup": command.warmup,
    }
    settings = AISSettings(work_variance=command.work_variance, most_rungs=command.most_rungs, pilot=max(8, min(64, n)))
    with sampling_display(1000, "annealing") as display:
        found = log_z(
            confined,
            base,
            good.to(noisy),
            temperature=command.temperature,
            chains=n,
            settings=settings,
            seed=command.seed,
            on_step=lambda done, total: display.finished(0, int(1000 * done / total)),
        )
    return found, record


def _print(
    model: Model, found: LogZ, density: EnergyLogProb | None, chains: dict[str, Any], seconds: float, examples_: int
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
    print(
        f"  reverse starts: {chains['chains']} chains from noisy data, {chains['warmup']} steps, acceptance"
        f" {chains['acceptance']:.3f}, finite {chains['finite chains']:.3f}. They are approximate draws: what they all"
        " leave out is not seen"
    )
    if found.border is not None:
        print(f"  near the border: {found.border:.4g} of their coordinates (a box) or examples (a ball)")
    for reason in found.reasons:
        print(f"  not ok: {reason}")
    if density is None:
        print("  no density and no bits/dim without an estimate of log Z")
    elif density.bits_per_dim is not None and density.bits_interval is not None:
        a, b = density.bits_interval
        floor = math.log2(float(found.noise or 0.0) * math.sqrt(2.0 * math.pi * math.e)) + _bits_of_range(model)
        print(
            f"  {float(density.bits_per_dim.mean()):.4f} bits/dim [{a:.4f}, {b:.4f}] over {examples_} noisy examples:"
            f" of data smoothed by the noise {found.noise:.4g}, whose own bits are {floor:.4f}. Not comparable with"
            " discrete likelihoods"
        )


def _bits_of_range(model: Model) -> float:
    """log2 of grey levels per model unit."""
    low, high = model.data.model_range
    return math.log2((model.data.levels or 1) / (high - low))


def _write(out: Path, model: Model, found: LogZ, density: EnergyLogProb | None, chains: dict[str, Any]) -> None:
    record = found.record()
    record |= {"model": model.name, "weights": model.weights, "weights hash": model.hash, "reverse starts": chains}
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
