"""Checkpoints of a run: folders step_N that appear whole or not at all, and a file `latest` that names the newest.

    checkpoints/step_1200/<module>.safetensors            weights and averages
    checkpoints/step_1200/<module>.optimiser.safetensors  optimiser state, keyed by parameter name
    checkpoints/step_1200/state.json                      step, counters, sums not yet logged, by module
    checkpoints/latest                                    "step_1200"

All randomness of training is a function of (seed, step, process), so there is no generator state to save.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorefield._files import replacing_folder, write_text
from scorefield.losses.denoising import Objective
from scorefield.models.checkpoint_folder import checkpoint_steps, checkpoints_of
from scorefield.models.experiment import Adam
from scorefield.models.weights import WeightsError, fill, load_tensors, save_tensors, trained, weight_sets
from scorefield.score.score import Score
from scorefield.training.ema import Averages

STATE_SCHEMA = 2
"""2 keeps the sums of every module by its name; 1 kept those of a single module."""


@dataclass
class TrainableModule:
    """One network being trained.

    Args:
        name: Name of its files; the first module of a run, whose weights are the model, is called "score".
        network: The module itself, not a distributed or compiled wrapper.
        optimiser: Over its trained parameters.
        averages: Exponential moving averages of its weights.
        rule: Learning rate and clipping of the optimiser.
        objective: What it minimises.
        score: The score that the objective is given.
        wrapped: The distributed or compiled wrapper that the objective calls, for leaving out its reductions.
        every: Number of batches between two of its optimiser steps.
    """

    name: str
    network: nn.Module
    optimiser: torch.optim.Optimizer
    averages: Averages
    rule: Adam
    objective: Objective
    score: Score
    wrapped: nn.Module
    every: int = 1

    def sets(self) -> dict[str, Mapping[str, Tensor]]:
        """Every set of weights."""
        return weight_sets(self.network, self.averages.values)


def save(run: Path, step: int, modules: Sequence[TrainableModule], state: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint, point `latest` at it, then remove all but the newest `keep` older ones."""
    target = checkpoints_of(run) / f"step_{step}"
    with replacing_folder(target) as folder:
        for module in modules:
            save_tensors(
                folder / f"{module.name}.safetensors", module.sets(), {"updates": str(module.averages.updates)}
            )
            save_tensors(folder / f"{module.name}.optimiser.safetensors", _optimiser_sets(module))
        text = json.dumps({"schema": STATE_SCHEMA, "step": step, **state}, allow_nan=False)
        (folder / "state.json").write_text(text, encoding="utf-8")
    write_text(checkpoints_of(run) / "latest", target.name)
    for old in [s for s in checkpoint_steps(run) if s < step][: -keep if keep else None]:
        shutil.rmtree(checkpoints_of(run) / f"step_{old}", ignore_errors=True)
    return target


def restore(checkpoint: Path, modules: Sequence[TrainableModule]) -> dict[str, Any]:
    """Load a checkpoint into the modules, bit by bit, and return its state.

    Raises:
        WeightsError: A file is missing or truncated, or of another architecture.
    """
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise WeightsError(f"{checkpoint / 'state.json'} cannot be read: {error}") from error
    if state["schema"] > STATE_SCHEMA:
        raise WeightsError(
            f"{checkpoint} was written by a newer scorefield (schema {state['schema']}); upgrade to resume it"
        )
    if state["schema"] == 1:
        state["sums"] = {modules[0].name: state["sums"]}
    for module in modules:
        path = checkpoint / f"{module.name}.safetensors"
        sets, metadata = load_tensors(path)
        fill(module.network, {**sets.get("fixed", {}), **sets["raw"]}, str(path))
        missing = [name for name in module.averages.values if name not in sets]
        if missing:
            raise WeightsError(
                f"{path} holds no {missing[0]!r}; it has {sorted(sets)}. Resume with the decays it was trained with"
            )
        module.averages.restore(sets, int(metadata["updates"]))
        _restore_optimiser(module, checkpoint / f"{module.name}.optimiser.safetensors")
    return state


def _optimiser_sets(module: TrainableModule) -> dict[str, dict[str, Tensor]]:
    sets: dict[str, dict[str, Tensor]] = {}
    for name, parameter in trained(module.network).items():
        for key, value in module.optimiser.state.get(parameter, {}).items():
            sets.setdefault(key, {})[name] = torch.as_tensor(value)
    return sets


def _restore_optimiser(module: TrainableModule, path: Path) -> None:
    sets, _ = load_tensors(path)
    for name, parameter in trained(module.network).items():
        entries = {key: tensors[name] for key, tensors in sets.items() if name in tensors}
        if entries:
            module.optimiser.state[parameter] = {
                # The fused optimiser walks memory, not indices: moments need the strides of their parameter.
                key: value.to(parameter.device) if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
                for key, value in entries.items()
            }
