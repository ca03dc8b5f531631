"""Checkpoints of adversarial score matching (Jolicoeur-Martineau et al. 2021).

A list [network, optimiser, epoch, step, average]. The output is sigma times the score and nothing is divided; the
ladder is in the configuration alone. The discriminator of adversarial runs is in no checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield.lab.bridges.imported import Hints, Imported, Weights, choose_weights, settled, with_hints
from scorefield.lab.bridges.lists import read_image, read_list, spacing_of
from scorefield.lab.bridges.ncsnv2 import refine_network
from scorefield.lab.bridges.reading import field, read_config
from scorefield.lab.data import DataSource
from scorefield.lab.recipes.acsm import Settings, experiment
from scorefield.nets.network import NetworkConfig
from scorefield.nets.unet import ACSMUNet

STACKED = "the release trained on 3-Stacked MNIST in [-1, 1]: so are this model's data, with 0 at -1"


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """A checkpoint as a model; see `scorefield.lab.bridges`."""
    parts, found = read_list(checkpoint, "acsm"), read_config(config)
    tensors, notes = parts.raw, []
    unet = "downblocks.0.weight" in tensors
    first = next(v for name, v in tensors.items() if re.match(r"(downblocks\.0|begin_conv)\.weight(_orig)?$", name))
    image = read_image(found, hints, "acsm", first.shape[1])
    sigma_max, sigma_min, levels = _ladder(found, hints)
    model_range = image.model_range or (0.0, 1.0)
    if "mnist" in image.dataset.lower() and image.shape[0] == 3:
        model_range = (-1.0, 1.0)
        notes.append(STACKED)
    network: NetworkConfig = _unet(tensors, found) if unet else refine_network(tensors, found, image.centered)
    size, refine, consistent = _sampler(found, sigma_max, sigma_min, levels, notes)
    decay = field(found or {}, "model.ema_rate", None) if parts.average else None
    settings = Settings(
        network,
        image.shape,
        sigma_max,
        levels,
        size,
        refine,
        consistent,
        noise="first" if field(found or {}, "sampling.noise_first", False) else "last",
        sigma_min=sigma_min,
        spacing=spacing_of(found),
        decay=None if decay is None else float(decay),
        steps=int(field(found or {}, "training.n_iters", 300_001)),
        batch_size=int(field(found or {}, "training.batch_size", 128)),
        learning_rate=float(field(found or {}, "optim.lr", 1e-4)),
        eps=float(field(found or {}, "optim.eps", 1e-8)),
        model_range=model_range,
    )
    name = "-".join(filter(None, ("acsm", image.dataset.lower().replace("_", "-"))))
    data = DataSource(flip=image.flip, model_range=model_range)
    made = experiment(name, settings, data=data, source="Jolicoeur-Martineau et al. 2021, arXiv:2009.05475")
    expected = bool(field(found or {}, "model.ema", True))
    chosen, named = choose_weights(tensors, parts.average, weights, settings.decay, made, checkpoint, expected=expected)
    return Imported(made, chosen, named, parts.step, tuple(notes))


def _ladder(config: Mapping[str, Any] | None, hints: Hints) -> tuple[float, float, int]:
    """(sigma_max, sigma_min, levels), of the configuration or the hints."""
    found = config or {}
    names = {"sigma_max": "model.sigma_begin", "sigma_min": "model.sigma_end", "levels": "model.num_classes"}
    known = {name: field(found, path, None) for name, path in names.items()}
    values = {name: settled(hints, name, None if v is None else float(v)) for name, v in known.items()}
    if values["sigma_max"] is None or values["levels"] is None:
        why = "the ladder is in the configuration alone"
        with_hints(hints, "acsm", sigma_max=why, levels=why)
    assert values["sigma_max"] is not None and values["levels"] is not None
    return values["sigma_max"], values["sigma_min"] or 0.01, int(values["levels"])


def _sampler(
    config: Mapping[str, Any] | None, sigma_max: float, sigma_min: float, levels: int, notes: list[str]
) -> tuple[float, int, bool]:
    """(step size, steps per level, consistent)."""
    size = field(config or {}, "sampling.step_lr", None)
    if size is not None:
        refine = int(field(config or {}, "sampling.nsigma", field(config or {}, "sampling.n_steps_each", 1)))
        return float(size), refine, bool(field(config or {}, "sampling.consistent", False))
    ratio = (sigma_min / sigma_max) ** (1.0 / max(levels - 1, 1))
    eta = min(1.55 * (1.0 - ratio), 1.0)  # 1.55 times the smallest admissible step, as the release tuned CIFAR-10's
    notes.append(
        f"no sampler is configured: consistent annealed sampling with eta = {eta:.4g}, 1.55 times the least admissible"
        " step, as the release has it on CIFAR-10"
    )
    return eta * sigma_min**2, 1, True


def _unet(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> ACSMUNet:
    """The U-Net of a state: walk its way down, where a convolution without a block ends a level."""
    found = config or {}
    channels = int(tensors["downblocks.0.weight"].shape[0])
    widths: list[int] = []
    blocks, attention, level = 0, 0, 0
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("downblocks."))
    for k in range(1, last + 1):
        if f"downblocks.{k}.weight" in tensors:
            level += 1
        elif f"downblocks.{k}.Q.weights" in tensors:
            attention = level
        else:
            width = int(tensors[f"downblocks.{k}.conv1.weight"].shape[0])
            widths += [width] if len(widths) == level else []
            blocks += level == 0
    return ACSMUNet(
        channels=int(field(found, "model.ngf", channels)),
        channel_multipliers=tuple(width // channels for width in widths),
        blocks=blocks,
        attention_level=attention,
        dropout=float(field(found, "model.dropout", 0.0)),
    )
