"""Checkpoints in the published layouts with the numbers that the reference implementations give for them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nets.published_nets import network_of_release
from scorefield.nets import load_published
from scorefield.process import VE, VP, LinearBetas, Process, SubVP, Tabulated
from scorefield.score import LevelLabel, LogSigma, NetworkScore, NoiseForm, ScaledScoreForm, ScaledTime

GOLDEN = Path(__file__).parent / "golden"
SCORE_SDE = sorted(path.name for path in (GOLDEN / "score_sde").iterdir() if path.is_dir())
CONTINUOUS = [name for name in SCORE_SDE if name != "ddpm_vp_discrete"]


@dataclass(frozen=True)
class Golden:
    """One folder.

    Attributes:
        process: The process of the release's configuration.
        io: Inputs and expected outputs by name.
        meta: Settings of the reference.
        config: The release's configuration.
        folder: Where it lies.
    """

    process: Process
    io: dict[str, Tensor]
    meta: dict[str, Any]
    config: dict[str, Any]
    folder: Path

    def score(self) -> NetworkScore:
        """The network with the averaged weights, in the parametrisation of its release."""
        checkpoint = torch.load(self.folder / "checkpoint.pth", weights_only=True)
        net = network_of_release(self.config).eval()
        frozen = [value for key, value in checkpoint["model"].items() if key.endswith("all_modules.0.W")]
        load_published(net, checkpoint["ema"]["shadow_params"], frozen)
        net.requires_grad_(False)  # after loading, which tells trained tensors from frozen ones by it
        if isinstance(self.process, VE):
            return NetworkScore(net, self.process, ScaledScoreForm(), LogSigma())
        if self.config["training"]["continuous"]:
            return NetworkScore(net, self.process, NoiseForm(), ScaledTime(999.0))
        model = self.config["model"]
        table = Tabulated(LinearBetas(model["beta_min"], model["beta_max"], model["num_scales"]))
        return NetworkScore(net, self.process, NoiseForm(), LevelLabel(between="linear"), levels=table)


@functools.cache
def golden(name: str) -> Golden:
    """A folder of the SDE framework, by name."""
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
