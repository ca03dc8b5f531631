"""Scores of networks loaded from checkpoints in the published layout, against the reference implementation's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nets.published_nets import network_of_release
from scorefield._math import over_event
from scorefield.nets import load_published
from tolerance import GOLDEN_SCORE

GOLDEN = Path(__file__).parents[1] / "golden" / "score_sde"
FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def test_all_five_are_here() -> None:
    assert len(FOLDERS) == 5


@pytest.mark.parametrize("name", FOLDERS)
def test_score_of_the_averaged_weights(name: str) -> None:
    config = json.loads((GOLDEN / name / "config.json").read_text())
    checkpoint = torch.load(GOLDEN / name / "checkpoint.pth", weights_only=True)
    net = network_of_release(config).eval()
    frozen = [value for key, value in checkpoint["model"].items() if key.endswith("all_modules.0.W")]
    load_published(net, checkpoint["ema"]["shadow_params"], frozen)
    io = load_file(GOLDEN / name / "io.safetensors")
    x, t, std = io["xt"], io["t"], io["std"]
    with torch.no_grad():
        if config["training"]["sde"] == "vesde":
            score = net(x, std.log()) / over_event(std, x)
        elif config["training"]["continuous"]:
            score = -net(x, 999 * t) / over_event(std, x)
        else:
            levels = config["model"]["num_scales"]
            c = t * (levels - 1)
            kept = torch.cumprod(1 - torch.linspace(0.1 / levels, 20.0 / levels, levels), 0)
            score = -net(x, c) / over_event((1 - kept).sqrt()[c.long()], x)
    assert (score - io["score"]).abs().max() <= GOLDEN_SCORE * io["score"].abs().max()


def test_raw_weights_differ_from_the_averaged_ones() -> None:
    """The same check must notice the wrong weights: it is not satisfied by any tensors of the right shapes."""
    name = "ncsnpp_ve_continuous"
    config = json.loads((GOLDEN / name / "config.json").read_text())
    checkpoint = torch.load(GOLDEN / name / "checkpoint.pth", weights_only=True)
    net = network_of_release(config).eval()
    load_published(net, [v for k, v in checkpoint["model"].items() if not k.endswith("sigmas")])
    io = load_file(GOLDEN / name / "io.safetensors")
    with torch.no_grad():
        score = net(io["xt"], io["std"].log()) / over_event(io["std"], io["xt"])
    assert (score - io["score"]).abs().max() > 10 * GOLDEN_SCORE * io["score"].abs().max()
