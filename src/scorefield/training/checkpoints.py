"""Checkpoints of a run: folders step_N that appear whole or not at all, and a file `latest` that names the newest.

    checkpoints/step_1200/<player>.safetensors            weights and averages
    checkpoints/step_1200/<player>.optimiser.safetensors  optimiser state, keyed by parameter name
    checkpoints/step_1200/state.json                      step, counters, sums not yet logged, by player
    checkpoints/latest                                    "step_1200"

All randomness of training is a function of (seed, step, process), so there is no generator state to save.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.lab.averages import Averages, trained
from scorefield.lab.experiment import Adam
from scorefield.lab.files import replacing_folder, write_text
from scorefield.lab.weights import WeightsError, fill, load_tensors, save_tensors, weight_sets
from scorefield.losses.denoising import Objective
from scorefield.score.score import Score

STATE_SCHEMA = 2
"""2 keeps the sums of every player by its name; 1 kept those of the only one."""


@dataclass
class Player:
    """One network being trained.

    Args:
        name: Of its files; the first player of a run, whose model the run is, is called "score".
        network: The module itself, not a distributed or compiled wrapper.
        optimiser: Over its trained parameters.
        averages: Of its weights.
        rule: Learning rate and clipping of the optimiser.
        objective: What it minimises.
        score: The score that the objective is given.
        wrapped: The distributed or compiled wrapper that the objective calls, for leaving out its reductions.
        every: It plays on every so many-th batch.
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


def folder_of(run: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run / "checkpoints"


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    pointer = folder_of(run) / "latest"
    if pointer.is_file():
        named = folder_of(run) / pointer.read_text(encoding="utf-8").strip()
        if (named / "state.json").is_file():
            return named
    found = steps(run)  # the pointer is written last: after a crash a whole folder may be newer
    return folder_of(run) / f"step_{found[-1]}" if found else None


def steps(run: Path) -> list[int]:
    """The steps of which there is a whole checkpoint, ascending."""
    pattern = re.compile(r"step_(\d+)$")
    found = [(pattern.match(p.name), p) for p in folder_of(run).glob("step_*")]
    return sorted(int(m.group(1)) for m, p in found if m and (p / "state.json").is_file())


def save(run: Path, step: int, players: Sequence[Player], state: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint, point `latest` at it, then remove all but the newest `keep` older ones."""
    target = folder_of(run) / f"step_{step}"
    with replacing_folder(target) as folder:
        for player in players:
            save_tensors(
                folder / f"{player.name}.safetensors", player.sets(), {"updates": str(player.averages.updates)}
            )
            save_tensors(folder / f"{player.name}.optimiser.safetensors", _optimiser_sets(player))
        text = json.dumps({"schema": STATE_SCHEMA, "step": step, **state}, allow_nan=False)
        (folder / "state.json").write_text(text, encoding="utf-8")
    write_text(folder_of(run) / "latest", target.name)
    for old in [s for s in steps(run) if s < step][: -keep if keep else None]:
        shutil.rmtree(folder_of(run) / f"step_{old}", ignore_errors=True)
    return target


def restore(checkpoint: Path, players: Sequence[Player]) -> dict[str, Any]:
    """Load a checkpoint into the players, bit by bit, and return its state.

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
        state["sums"] = {players[0].name: state["sums"]}
    for player in players:
        path = checkpoint / f"{player.name}.safetensors"
        sets, metadata = load_tensors(path)
        fill(player.network, {**sets.get("fixed", {}), **sets["raw"]}, str(path))
        missing = [name for name in player.averages.values if name not in sets]
        if missing:
            raise WeightsError(
                f"{path} holds no {missing[0]!r}; it has {sorted(sets)}. Resume with the decays it was trained with"
            )
        player.averages.restore(sets, int(metadata["updates"]))
        _restore_optimiser(player, checkpoint / f"{player.name}.optimiser.safetensors")
    return state


def _optimiser_sets(player: Player) -> dict[str, dict[str, Tensor]]:
    sets: dict[str, dict[str, Tensor]] = {}
    for name, parameter in trained(player.network).items():
        for key, value in player.optimiser.state.get(parameter, {}).items():
            sets.setdefault(key, {})[name] = torch.as_tensor(value)
    return sets


def _restore_optimiser(player: Player, path: Path) -> None:
    sets, _ = load_tensors(path)
    for name, parameter in trained(player.network).items():
        entries = {key: tensors[name] for key, tensors in sets.items() if name in tensors}
        if entries:
            player.optimiser.state[parameter] = {
                # The fused optimiser walks memory, not indices: moments need the strides of their parameter.
                key: value.to(parameter.device) if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
                for key, value in entries.items()
            }
