"""Checkpoints of NCSN (Song and Ermon 2019), and of its networks as the code of NCSNv2 trains them.

A list [network, optimiser] with `module.` before every name, no average. Labels are indices, 0 the most noise; images
are in [0, 1] and the network maps them to 2 x - 1. The size of the images and the ladder are not in the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield.lab.bridges.imported import Hints, Imported, Weights, choose_weights, settled
from scorefield.lab.bridges.lists import (
    LOGITS,
    Parts,
    activation_of,
    read_image,
    read_list,
    spacing_of,
    stage_names,
)
from scorefield.lab.bridges.reading import field, read_config
from scorefield.lab.data import DataSource
from scorefield.lab.experiment import Adam
from scorefield.lab.recipes.ncsn import Settings, experiment
from scorefield.nets.ncsn import NCSN

RETURNED = (
    "annealed Langevin dynamics returns its last state; the release keeps the one before its last update, clamped to"
    " [0, 1]"
)


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """A checkpoint as a model; see `scorefield.lab.bridges`."""
    parts, found = read_list(checkpoint, "ncsn"), read_config(config)
    tensors, notes = dict(parts.raw), [RETURNED]
    tensors.pop("sigmas", None)  # the table of NCSNv2's code, which this network does not read
    image = read_image(found, hints, "ncsn", tensors["begin_conv.weight"].shape[1])
    if image.model_range is None:
        notes.append(LOGITS)
    network = _network(found, parts, image.centered)
    sigma_max, sigma_min, levels = _ladder(found, hints, network)
    if found is None:
        notes.append(f"the ladder, {sigma_max:g} to {sigma_min:g} in {levels} levels, is not in the file")
    decay = field(found or {}, "model.ema_rate", None) if parts.average else None
    settings = Settings(
        network,
        image.shape,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        levels=levels,
        spacing=spacing_of(found),
        step_size=float(field(found or {}, "sampling.step_lr", 2e-5)),
        repeats=int(field(found or {}, "sampling.n_steps_each", 100 if levels > 1 else 1000)),
        final="denoise" if field(found or {}, "sampling.denoise", False) else "none",
        steps=int(field(found or {}, "training.n_iters", 200_001)),
        batch_size=int(field(found or {}, "training.batch_size", 128)),
        optimiser=optimiser(found, 1e-3),
        decay=decay,
        dequantise=bool(field(found or {}, "data.uniform_dequantization", found is None or "optim" in found)),
        model_range=image.model_range,
        flip=image.flip,
    )
    name = "-".join(filter(None, ("ncsn", image.dataset.lower())))
    data = DataSource(flip=image.flip, model_range=image.model_range or (-1.0, 1.0))
    made = experiment(name, settings, data=data, source="Song and Ermon 2019, arXiv:1907.05600")
    chosen, named = choose_weights(tensors, parts.average, weights, decay, made, checkpoint, expected=False)
    return Imported(made, chosen, named, parts.step, tuple(notes))


def _network(config: Mapping[str, Any] | None, parts: Parts, centered: bool) -> NCSN:
    """The network: its kind from the names, its sizes from the configuration where there is one."""
    raw = parts.raw
    channels, levels, norm = int(raw["begin_conv.weight"].shape[0]), None, "instance++"
    if "normalizer.embed.weight" in raw:
        levels, width = raw["normalizer.embed.weight"].shape
        norm = "instance++" if width == 3 * channels else "instance"
        levels = int(field(config or {}, "model.num_classes", levels))
    return NCSN(
        channels=int(field(config or {}, "model.ngf", channels)),
        levels=levels,
        deeper=stage_names(raw) != "base",
        norm=norm,
        activation=activation_of(config),
        centered=centered,
    )


def _ladder(config: Mapping[str, Any] | None, hints: Hints, network: NCSN) -> tuple[float, float, int]:
    """(sigma_max, sigma_min, levels); the single-noise baseline has the level 0.01 whatever the file says."""
    found, levels = config or {}, 1 if network.levels is None else network.levels
    settled(hints, "levels", levels)
    # The release's baseline ignores the ladder of its file.
    configured = {} if network.levels is None else found
    high = settled(hints, "sigma_max", _number(configured, "model.sigma_begin")) or (0.01 if levels == 1 else 1.0)
    low = settled(hints, "sigma_min", _number(configured, "model.sigma_end")) or 0.01
    return high, high if levels == 1 else low, levels


def _number(config: Mapping[str, Any], name: str) -> float | None:
    found = field(config, name, None)
    return None if found is None else float(found)


def optimiser(config: Mapping[str, Any] | None, rate: float) -> Adam:
    """Adam as a configuration of these releases describes it."""
    found = config or {}
    return Adam(
        learning_rate=float(field(found, "optim.lr", rate)),
        beta1=float(field(found, "optim.beta1", 0.9)),
        eps=float(field(found, "optim.eps", 1e-8)),
        weight_decay=float(field(found, "optim.weight_decay", 0.0)),
        warmup=0,
        clip=None,
    )
