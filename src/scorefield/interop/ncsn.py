"""Checkpoints of NCSN (Song and Ermon 2019), and of its networks as the code of NCSNv2 trains them.

A list [network, optimiser] with `module.` before every name, no average. Labels are indices, 0 the most noise; images
are in [0, 1] and the network maps them to 2 x - 1. The size of the images and the ladder are not in the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from scorefield.data import DataSource
from scorefield.interop.checkpoint_files import read_config, weight
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import Hints, Imported, Weights, choose_weights, settled
from scorefield.interop.list_checkpoints import (
    activation_of,
    decay_of,
    name_of,
    optimiser,
    read_image,
    read_list,
    spacing_of,
    stage_names,
)
from scorefield.nets.refinenets.ncsn import NCSN
from scorefield.recipes.ncsn import Settings, experiment

RETURNED = (
    "annealed Langevin dynamics returns its last state; the release keeps the one before its last update, clamped to"
    " [0, 1]"
)


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """A checkpoint as a model; see `scorefield.interop`."""
    parts, fields = read_list(checkpoint, "ncsn"), Fields(read_config(config))
    tensors = dict(parts.raw)
    tensors.pop("sigmas", None)  # the table of NCSNv2's code, which this network does not read
    image = read_image(fields, hints, "ncsn", weight(tensors, "begin_conv.weight", 4, checkpoint).shape[1])
    network = _network(fields, tensors, image.centered, checkpoint)
    sigma_max, sigma_min, levels = _ladder(fields, hints, network)
    notes = [RETURNED, *image.notes]
    if not fields.given:
        notes.append(f"the ladder, {sigma_max:g} to {sigma_min:g} in {levels} levels, is not in the file")
    settings = Settings(
        network,
        image.shape,
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        levels=levels,
        spacing=spacing_of(fields),
        step_size=fields.number("sampling.step_lr", 2e-5),
        repeats=fields.count("sampling.n_steps_each", 100 if levels > 1 else 1000),
        final="denoise" if fields.flag("sampling.denoise", False) else "none",
        low=image.low,
        steps=fields.count("training.n_iters", 200_001),
        batch_size=fields.count("training.batch_size", 128),
        optimiser=optimiser(fields, 1e-3),
        decay=decay_of(fields, parts),
        dequantise=fields.flag("data.uniform_dequantization", True),
        model_range=image.model_range,
        flip=image.flip,
    )
    data = DataSource(flip=image.flip, model_range=image.model_range or (-1.0, 1.0))
    made = experiment(name_of("ncsn", image), settings, data=data, source="Song and Ermon 2019, arXiv:1907.05600")
    chosen, named = choose_weights(tensors, parts.average, weights, settings.decay, made, checkpoint, expected=False)
    return Imported(made, chosen, named, parts.step, tuple(notes))


def _network(fields: Fields, tensors: Mapping[str, Tensor], centered: bool, checkpoint: Path) -> NCSN:
    """The network: its kind from the names, its sizes from the configuration where there is one."""
    channels, levels, norm = int(tensors["begin_conv.weight"].shape[0]), None, "instance++"
    if any(name.endswith("embed.weight") for name in tensors):
        levels, width = weight(tensors, "normalizer.embed.weight", 2, checkpoint).shape
        norm = "instance++" if width == 3 * channels else "instance"
        levels = fields.count("model.num_classes") if fields.given else levels
    return NCSN(
        channels=fields.count("model.ngf") if fields.given else channels,
        levels=levels,
        deeper=stage_names(tensors) != "base",
        norm=norm,
        activation=activation_of(fields),
        centered=centered,
    )


def _ladder(fields: Fields, hints: Hints, network: NCSN) -> tuple[float, float, int]:
    """(sigma_max, sigma_min, levels); the single-noise baseline has the level 0.01 whatever the file says."""
    if network.levels is None:
        settled(hints, "levels", 1)
        sigma = settled(hints, "sigma_max", None) or settled(hints, "sigma_min", None) or 0.01
        return settled(hints, "sigma_min", sigma), sigma, 1
    settled(hints, "levels", network.levels)
    high = settled(hints, "sigma_max", fields.number("model.sigma_begin") if fields.given else None) or 1.0
    low = settled(hints, "sigma_min", fields.number("model.sigma_end") if fields.given else None) or 0.01
    return high, high if network.levels == 1 else low, network.levels
