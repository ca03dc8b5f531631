"""Checkpoints of NCSNv2 (Song and Ermon 2020).

A list [network, optimiser, epoch, step, average]: the network's names begin with `module.`, the average's do not. The
network's state has the ladder as its buffer `sigmas`, largest first; the release divides the output by it, here the
parametrisation does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from torch import Tensor

from scorefield.data import DataSource
from scorefield.interop.checkpoint_files import read_config, weight
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import CheckpointError, Hints, Imported, Weights, choose_weights
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
from scorefield.interop.noise_table import check_table, ladder_of, take_table
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.process.levels import langevin_step
from scorefield.process.tabulated import GeometricSigmas, LinearSigmas
from scorefield.recipes.ladders import ladder
from scorefield.recipes.ncsn import ROWS, Settings, experiment


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """A checkpoint as a model; see `scorefield.interop`."""
    parts, fields = read_list(checkpoint, "ncsnv2"), Fields(read_config(config))
    tensors = dict(parts.raw)
    sigmas = take_table(tensors, checkpoint)
    assert sigmas is not None  # or it would not be this layout
    levels = _configured(fields) if fields.given else ladder_of(sigmas, checkpoint)
    check_table(sigmas, levels, checkpoint)
    image = read_image(fields, hints, "ncsnv2", first_convolution(tensors, checkpoint).shape[1])
    size, repeats, notes = langevin_settings(levels, fields)
    settings = Settings(
        refine_network(tensors, fields, image.centered, checkpoint),
        image.shape,
        sigma_max=levels.sigma_max,
        sigma_min=levels.sigma_min,
        levels=levels.levels,
        spacing="linear" if isinstance(levels, LinearSigmas) else "geometric",
        step_size=size,
        repeats=repeats,
        final="denoise" if fields.flag("sampling.denoise", True) else "none",
        low=image.low,
        steps=fields.count("training.n_iters", 300_001),
        batch_size=fields.count("training.batch_size", 128),
        optimiser=optimiser(fields, 1e-4),
        decay=decay_of(fields, parts),
        dequantise=fields.flag("data.uniform_dequantization", False),
        model_range=image.model_range,
        flip=image.flip,
    )
    data = DataSource(flip=image.flip, model_range=image.model_range or (-1.0, 1.0))
    made = experiment(name_of("ncsnv2", image), settings, data=data, source="Song and Ermon 2020, arXiv:2006.09011")
    expected = fields.flag("model.ema", True)
    chosen, named = choose_weights(tensors, parts.average, weights, settings.decay, made, checkpoint, expected=expected)
    return Imported(made, chosen, named, parts.step, (*image.notes, *notes))


def _configured(fields: Fields) -> GeometricSigmas | LinearSigmas:
    """The ladder that a configuration describes; a single level is its largest."""
    high, count = fields.number("model.sigma_begin"), fields.count("model.num_classes")
    low = fields.number("model.sigma_end") if count > 1 else high
    return cast(GeometricSigmas | LinearSigmas, ladder(low, high, count, spacing_of(fields)).ladder)


def langevin_settings(levels: GeometricSigmas | LinearSigmas, fields: Fields) -> tuple[float, int, list[str]]:
    """(step size, steps per level, notes) of annealed Langevin dynamics: configured, published, or by technique 4."""
    repeats = fields.count("sampling.n_steps_each", 5)
    if fields.has("sampling.step_lr"):
        return fields.number("sampling.step_lr"), repeats, []
    for row in ROWS.values():
        settings = row[0]
        made = ladder(settings.sigma_min, settings.sigma_max, settings.levels, settings.spacing)
        if isinstance(settings.network, NCSNv2) and made.ladder == levels:
            return settings.step_size, settings.repeats, ["the sampler is the published one of this ladder"]
    if levels.levels == 1:
        size = 0.2 * levels.sigma_max**2
        return size, repeats, [f"no sampler is configured: its step {size:.3g} is 0.2 sigma^2, that of NCSN's baseline"]
    chosen = langevin_step(levels.table()[1], repeats).step
    return chosen, repeats, [f"no sampler is configured: its step {chosen:.3g} is NCSNv2's technique 4 for this ladder"]


def first_convolution(tensors: Mapping[str, Tensor], checkpoint: Path) -> Tensor:
    """The weight (C_out, C_in, 3, 3) of the network's first layer, which may be spectrally normalised."""
    name = "begin_conv.weight_orig" if "begin_conv.weight_orig" in tensors else "begin_conv.weight"
    return weight(tensors, name, 4, checkpoint)


def refine_network(tensors: Mapping[str, Tensor], fields: Fields, centered: bool, checkpoint: Path) -> NCSNv2:
    """The unconditional RefineNet of a state: its kind from the names, its sizes from the configuration if given."""
    depth = stage_names(tensors)
    last = "res5" if depth != "base" else "res4"
    # A stage that only dilates has one convolution as its shortcut; one that halves has a pooled one.
    dilation = not any(name.startswith(f"{last}.0.shortcut.conv.") for name in tensors)
    channels = first_convolution(tensors, checkpoint).shape[0]
    return NCSNv2(
        channels=fields.count("model.ngf") if fields.given else channels,
        depth=depth,
        norm=_norm(tensors, fields),
        activation=activation_of(fields),
        dilation=dilation,
        spectral_norm=any(name.endswith("weight_orig") for name in tensors),
        centered=centered,
    )


_NORMS: dict[str, Literal["instance++", "variance", "none"]] = {
    "InstanceNorm++": "instance++",
    "VarianceNorm": "variance",
    "NoneNorm": "none",
}


def _norm(tensors: Mapping[str, Tensor], fields: Fields) -> Literal["instance++", "variance", "none"]:
    if not fields.has("model.normalization"):
        if "normalizer.gamma" in tensors:
            return "instance++"
        return "variance" if "normalizer.alpha" in tensors else "none"
    if (named := fields.text("model.normalization")) not in _NORMS:
        raise CheckpointError(
            f"model.normalization is {named!r}, which the release passes a wrong argument to and never published;"
            f" known are {', '.join(_NORMS)}"
        )
    return _NORMS[named]
