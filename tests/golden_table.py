"""Table of the errors of imported reference checkpoints against the reference implementations.

`python -m golden_table`, run in the folder `tests`, imports every folder of `golden` (or of the folder given as the
first argument) as a user would, and prints the largest error of the score, of every step and chain, of samples of the
probability flow and of the bits per dimension, relative to the maximum of the recorded tensor (bits: absolute). The
exit status is 1 if an error exceeds its tolerance. The flows take minutes, because random weights make them stiff.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

import scorefield as sf
from likelihood.cases import GivenNoise as GivenProbes
from sampling.doubles import GivenNoise
from sampling.test_vectors import CLOCKS, release_of
from scorefield.data_spec import DataSpec
from scorefield.interop import import_checkpoint
from scorefield.likelihood.probability_flow import FlowSettings, log_density, transport
from scorefield.losses import DenoisingScoreMatching, Draw
from scorefield.models.model import Model
from scorefield.process import Levels, Tabulated
from scorefield.process.grids import EveryLevel
from scorefield.sampling import (
    Ancestral,
    Chain,
    Consistent,
    EulerMaruyama,
    Hold,
    LadderScaled,
    Langevin,
    Repeat,
    Sampler,
)
from scorefield.score import EnergyForm, ScaledTime, network_score
from tolerance import GOLDEN_BITS, GOLDEN_FLOW, GOLDEN_SCORE

GOLDEN = Path(__file__).parent / "golden"


class Row(NamedTuple):
    """One compared quantity.

    Attributes:
        quantity: Name of the quantity.
        error: Largest absolute error over the recorded maximum; for bits the largest absolute error.
        tolerance: Largest error allowed.
    """

    quantity: str
    error: float
    tolerance: float


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest error over the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


def compare(quantity: str, found: Tensor, expected: Tensor, tolerance: float = GOLDEN_SCORE) -> Row:
    """Return the row of a quantity with its relative error."""
    return Row(quantity, relative(found.detach().to(expected), expected), tolerance)


def compare_folder(folder: Path, model: Model) -> Iterator[Row]:
    """Yield a row for every quantity recorded in a folder."""
    io = load_file(folder / "io.safetensors")
    config = json.loads((folder / "config.json").read_text())
    meta = json.loads((folder / "meta.json").read_text())
    match folder.parent.name:
        case "score_sde":
            yield from sde_rows(model, io, config, meta)
        case "mdsm":
            yield from energy_rows(model, io, meta)
        case layout:
            yield from ladder_rows(layout, model, io, meta)


# ------------------------------------------------------------------------------------------- the SDE framework


def sde_rows(model: Model, io: Mapping[str, Tensor], config: dict[str, Any], meta: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of score, predictors and correctors, losses, samples of the flow, and bits per dimension."""
    score = model.score(io["xt"], io["t"])
    yield compare("score", score, io["score"])
    kind = config["training"]["sde"]
    for name, (step, clock) in CLOCKS.items():
        if f"{name}_next" not in io:
            continue
        if kind == "subvpsde":
            if name not in ("reverse_diffusion", "euler_maruyama"):
                continue
            step, clock = EulerMaruyama(), "time"  # the published code falls back on Euler-Maruyama for sub-VP
        if kind == "vpsde" and name == "ancestral_sampling":
            step = Ancestral("forward")
        moved = release_of(config).take(step, io["xt"], io["t"], score, io[f"{name}_noise"], clock)
        yield compare(f"step {name}", moved.x, io[f"{name}_next"])
        yield compare(f"mean {name}", moved.mean, io[f"{name}_mean"])
    if "ode_sample" not in io:
        return
    with torch.no_grad():
        loss = DenoisingScoreMatching()(model.as_score(), io["x0"], Draw(io["t"].double(), io["z"]))
    yield compare("loss", loss, io["loss_per_example_mean"])
    settings = FlowSettings(meta["rtol_ode"], meta["atol_ode"])
    end = transport(model.as_score().bind(None), io["latent"], 1.0, meta["eps_sampling"], settings)
    yield compare("ode_sample", end.latent, io["ode_sample"], GOLDEN_FLOW)
    data = DataSpec(model.data.shape, 0.0, 255.0, 256, model_range=model.data.model_range)
    settings = FlowSettings(
        meta["rtol_likelihood"], meta["atol_likelihood"], max_steps=3000, start=meta["eps_likelihood"]
    )
    found = log_density(model.as_score().bind(None), io["x0"], GivenProbes(io["probe"][None]), settings)
    bits = data.bits_per_dim(found.nats + data.log_jacobian(dequantised=True))
    yield Row("bits/dim (absolute)", float((bits - io["bpd"].double()).abs().max()), GOLDEN_BITS)


# ------------------------------------------------------------------------------------------- ladders and energies


def chain(epsilon: float, repeats: int, **options: Any) -> Chain:
    """Return annealed Langevin dynamics in the convention x + e score + sqrt(2 e) z."""
    return Chain((Repeat(Langevin(LadderScaled(epsilon, 0.01), **options), repeats), Hold()))


def run(model: Model, sampler: Sampler, io: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    """Return samples before and after the final denoising, from the recorded start and noise.

    The recorded noise ends before the last step, which adds none.
    """
    noise, start = io[f"{prefix}_noise"], io[f"{prefix}_init"]
    given = GivenNoise(lambda like, k: noise[k] if k < len(noise) else torch.zeros_like(like))
    event = tuple(start.shape[1:])
    found = sampler.run(model.as_score(), event, indices=range(len(start)), latent=start, noise=given)
    return found.raw, found.x


def ladder_rows(layout: str, model: Model, io: Mapping[str, Tensor], meta: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of score, loss and chains of NCSN, NCSNv2 and adversarial score matching."""
    assert isinstance(model.process, Tabulated)
    t = 1.0 - io["labels"].double() / (model.process.levels - 1)
    yield compare("score", model.score(io["xt"], t), io["score"])
    if "denoised" in io:
        yield compare("denoised", model.denoise(io["xt"], t), io["denoised"])
    if "loss_per_example" in io:
        with torch.no_grad():
            loss = DenoisingScoreMatching(reduce="half_sum")(model.as_score(), io["x0"], Draw(t, io["z"]))
        yield compare("loss", loss, io["loss_per_example"])
    ald = meta["ald"]
    if layout == "acsm":
        for refine in meta["cas"]["n_sigma"]:
            sampler = Sampler(Consistent(meta["cas"]["eta"]), EveryLevel(refine=refine), final="expected")
            raw, clean = run(model, sampler, io, f"cas{refine}")
            yield compare(f"consistent, n_sigma {refine}", raw, io[f"cas{refine}_final"])
            yield compare(f"consistent, n_sigma {refine}, denoised", clean, io[f"cas{refine}_final_denoised"])
        sampler = Sampler(chain(ald["step_lr"], ald["n_sigma"], noise="first"), EveryLevel(), final="expected")
        raw, clean = run(model, sampler, io, "ald")
        yield compare("annealed Langevin, noise first", raw, io["ald_final"])
        yield compare("annealed Langevin, noise first, denoised", clean, io["ald_final_denoised"])
        return
    sampler = Sampler(chain(ald["step_lr"], ald["steps_each"]), EveryLevel(), final="denoise")
    raw, clean = run(model, sampler, io, "ald")
    if layout == "ncsn":
        yield compare("annealed Langevin", raw, io["ald_final"])
    else:
        yield compare("annealed Langevin, denoised", clean, io["ald_final_denoised"])


def energy_rows(model: Model, io: Mapping[str, Tensor], meta: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of energy, gradient, loss, denoising step and chain of MDSM."""
    sigma_0, step = meta["sigma0"], meta["ald"]["step"]

    def score_at(sigmas: Tensor) -> tuple[Any, Tabulated]:
        process = Tabulated(Levels(tuple(float(s) for s in sigmas)))
        return network_score(model.network, process, EnergyForm(sigma_0), ScaledTime(0.0)), process

    t = torch.full((len(io["x0"]),), 0.5)
    yield compare("energy", model.energy(io["x_noisy"], t), io["energy"])
    yield compare("denoised", model.denoise(io["x_noisy"], t), io["denoised"])
    score, process = score_at(io["sigmas"].double())
    times = process.time(torch.arange(len(io["sigmas"])))
    yield compare("gradient", score.gradient(io["x_noisy"], times), io["grad_energy"])
    loss = DenoisingScoreMatching(reduce="half_sum")(score, io["x0"], Draw(times, io["z"]))
    yield compare("loss", 2.0 * loss / sigma_0**4, io["loss_per_example"])
    # The chain at temperature T is annealed Langevin dynamics at the level sigma_0 sqrt(T).
    score, _ = score_at(sigma_0 * io["ald_temperature"].double().sqrt().flip(0))
    sampler = Sampler(Chain((Langevin(LadderScaled(0.5 * step**2, sigma_0)), Hold())), EveryLevel(), final="none")
    given = GivenNoise(lambda like, k: io["ald_noise"][k])
    start = io["ald_init"]
    found = sampler.run(score, tuple(start.shape[1:]), indices=range(len(start)), latent=start, noise=given)
    yield compare("annealed temperature", found.x, io["ald_final"])


def print_line(line: str) -> None:
    """Print a line without buffering."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(root: Path) -> int:
    """Print the table and return the exit status."""
    failed = 0
    print_line(f"{'checkpoint':36}{'quantity':44}{'error':>10}{'allowed':>10}")
    for folder in sorted(path.parent for path in root.glob("*/*/checkpoint.pth")):
        began = time.perf_counter()
        name = f"{folder.parent.name}/{folder.name}"
        with tempfile.TemporaryDirectory() as scratch:
            layout, out = folder.parent.name.replace("_", "-"), Path(scratch) / "model"
            import_checkpoint(layout, folder / "checkpoint.pth", out, config=folder / "config.json")
            model = sf.load(out, device="cpu")
            for row in compare_folder(folder, model):
                over = not row.error <= row.tolerance
                failed += over
                mark = "  OVER" if over else ""
                print_line(f"{name:36}{row.quantity:44}{row.error:10.1e}{row.tolerance:10.0e}{mark}")
        print_line(f"{name:36}{time.perf_counter() - began:.0f} s")
    print_line("all errors are within their tolerances" if not failed else f"{failed} errors exceed their tolerances")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN))
