"""From a model folder to its network: finding the folder, loading weights, device and precision."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from scorefield._codec import near
from scorefield.models.checkpoint_folder import checkpoint_steps, checkpoints_of, latest_checkpoint
from scorefield.models.experiment import AnyExperiment, Experiment
from scorefield.models.networks import build_network
from scorefield.models.weights import choose, ema_name, fill, load_tensors
from scorefield.score.energy import EnergyForm

Precision = Literal["fp32", "bf16"]
"""Arithmetic of a network; the sampler's state and the score keep their own types."""


def bundled() -> dict[str, Path]:
    """The models that ship with the package, by name."""
    root = Path(str(files("scorefield.models"))) / "bundled"
    return {p.name: p for p in sorted(root.iterdir()) if (p / "experiment.json").is_file()} if root.is_dir() else {}


def find(model: str | Path) -> Path:
    """The folder of a model given as a path or the name of a bundled one.

    Raises:
        FileNotFoundError: Neither exists; near matches are shown.
    """
    path = Path(model)
    if (path / "experiment.json").is_file():
        return path
    if path.exists():
        raise FileNotFoundError(f"{model} is not a run or model folder: it has no experiment.json")
    if str(model) in bundled():
        return bundled()[str(model)]
    raise FileNotFoundError(
        f"there is no model folder {str(model)!r} and no bundled model of that name.{near(str(model), bundled())}"
    )


def open_network(
    folder: Path,
    experiment: AnyExperiment,
    weights: str | None,
    device: str | torch.device | None,
    checkpoint: int | None = None,
) -> tuple[nn.Module, str, int | None]:
    """The network of a folder in evaluation mode, which weights it holds, and their training step.

    Args:
        folder: Folder of a run or a model.
        experiment: The experiment of that folder.
        weights: "raw", "ema", "ema:0.999", ...; by default the first average.
        device: Default: the first accelerator, else the CPU.
        checkpoint: The step of a checkpoint of a run; by default what the model is now.

    Raises:
        FileNotFoundError: No weights yet, or no such checkpoint.
        WeightsError: Weights missing, truncated, or of another architecture.
    """
    path = folder / "model.safetensors"
    if checkpoint is not None:
        path = checkpoints_of(folder) / f"step_{checkpoint}" / "score.safetensors"
        if checkpoint not in checkpoint_steps(folder):
            there = ", ".join(map(str, checkpoint_steps(folder))) or "none"
            raise FileNotFoundError(f"{folder} has no checkpoint of step {checkpoint}; it has {there}")
    elif not path.is_file():
        newest = latest_checkpoint(folder)
        if newest is None:
            raise FileNotFoundError(
                f"{folder} holds no weights yet (no model.safetensors and no checkpoint); train it first"
            )
        path = newest / "score.safetensors"
    sets, metadata = load_tensors(path)
    decays = experiment.averaging.decays
    if weights in (None, "ema") and decays and ema_name(decays[0]) in sets:
        weights = ema_name(decays[0])  # the average that training validated
    name = choose(sets, weights, path)
    if experiment.spec is None:
        raise ValueError(f"{folder / 'experiment.json'} has no `spec`, which says what the data are")
    network = build_network(experiment)
    fill(network, {**sets.get("fixed", {}), **sets[name]}, str(path))
    target = torch.device(device) if device is not None else default_device()
    network = network.to(target).eval()
    if len(experiment.spec.shape) == 3:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    step = int(metadata["step"]) if "step" in metadata else checkpoint
    return network, name, step


def run_in(experiment: Experiment, network: nn.Module, precision: Precision, compile: bool) -> None:
    """Have a network compute under autocast, or compiled; its names and its hash stay as they are.

    Raises:
        ValueError: An unknown precision, or bf16 for an energy.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision={precision!r}; a network computes in 'fp32' or, under autocast, in 'bf16'")
    if precision == "bf16":
        if isinstance(experiment.form, EnergyForm):
            raise ValueError(
                "an energy's differences decide what is accepted, and bf16 leaves them two to three digits; load it"
                " with precision='fp32'"
            )
        device = next(network.parameters()).device.type
        network.forward = torch.autocast(device, torch.bfloat16)(network.forward)  # type: ignore[method-assign]
    if compile:
        network.compile()


def default_device() -> torch.device:
    """This process's accelerator, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
