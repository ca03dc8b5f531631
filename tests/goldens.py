"""Checkpoints in the published layouts, with the outputs of the reference implementations for them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from scorefield.interop import Hints, score_sde
from scorefield.models.model import build_score
from scorefield.models.weights import fill
from scorefield.process import VE, VP, Process, SubVP
from scorefield.score import NetworkScore

GOLDEN = Path(__file__).parent / "golden"
SCORE_SDE = sorted(path.name for path in (GOLDEN / "score_sde").iterdir() if path.is_dir())
CONTINUOUS = [name for name in SCORE_SDE if name != "ddpm_vp_discrete"]


@dataclass(frozen=True)
class Golden:
    """A folder of a checkpoint with its reference outputs.

    Attributes:
        process: Process of the published configuration.
        io: Inputs and expected outputs by name.
        meta: Settings of the reference implementation.
        config: Published configuration.
        folder: Path of the folder.
    """

    process: Process
    io: dict[str, Tensor]
    meta: dict[str, Any]
    config: dict[str, Any]
    folder: Path

    def score(self) -> NetworkScore:
        """Return the network with the EMA weights, in the published parametrisation."""
        found = score_sde.read(self.folder / "checkpoint.pth", self.folder / "config.json", "ema", Hints())
        assert found.experiment.spec is not None
        net = found.experiment.network.build(found.experiment.spec).eval()
        fill(net, found.tensors, str(self.folder))
        score = build_score(found.experiment, net.requires_grad_(False))
        assert isinstance(score, NetworkScore)
        return score


@functools.cache
def golden(name: str) -> Golden:
    """Return a checkpoint of the SDE framework by the name of its folder."""
    folder = GOLDEN / "score_sde" / name
    config = json.loads((folder / "config.json").read_text())
    model = config["model"]
    match config["training"]["sde"]:
        case "vesde":
            process = VE(model["sigma_min"], model["sigma_max"])
        case "vpsde":
            process = VP(model["beta_min"], model["beta_max"])
        case _:
            process = SubVP(model["beta_min"], model["beta_max"])
    meta = json.loads((folder / "meta.json").read_text())
    return Golden(process, load_file(folder / "io.safetensors"), meta, config, folder)
