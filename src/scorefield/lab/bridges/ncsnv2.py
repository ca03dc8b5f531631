"""Checkpoints of NCSNv2 (Song and Ermon 2020).

A list [network, optimiser, epoch, step, average]: the network's names begin with `module.`, the average's do not. The
network's state has the ladder as its buffer `sigmas`, largest first; the release divides the output by it, here the
parametrisation does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from scorefield.lab.bridges.imported import BridgeError, Hints, Imported, Weights, choose_weights, settled
from scorefield.lab.bridges.lists import (
    LOGITS,
    activation_of,
    agree,
    ladder_of,
    read_image,
    read_list,
    spacing_of,
    stage_names,
)
from scorefield.lab.bridges.ncsn import optimiser
from scorefield.lab.bridges.reading import field, read_config
from scorefield.lab.data import DataSource
from scorefield.lab.recipes.ladders import ladder
from scorefield.lab.recipes.ncsn import ROWS, Settings, experiment
from scorefield.nets.ncsnv2 import NCSNv2
from scorefield.process.levels import langevin_step
from scorefield.process.tabulated import Tabulated


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """A checkpoint as a model; see `scorefield.lab.bridges`."""
    parts, found = read_list(checkpoint, "ncsnv2"), read_config(config)
    tensors, notes = dict(parts.raw), []
    low, high, levels, spacing = ladder_of(tensors.pop("sigmas"), checkpoint)
    process = ladder(low, high, levels, spacing)
    for name, value in (("sigma_min", low), ("sigma_max", high), ("levels", levels)):
        settled(hints, name, value)
    if found is not None:
        agree(checkpoint, process, _configured(found))
    image = read_image(found, hints, "ncsnv2", tensors["begin_conv.weight"].shape[1])
    if image.model_range is None:
        notes.append(LOGITS)
    size, repeats, note = langevin_settings(process, found)
    notes += note
    settings = Settings(
        refine_network(tensors, found, image.centered),
        image.shape,
        sigma_max=high,
        sigma_min=low,
        levels=levels,
        spacing=spacing,
        step_size=size,
        repeats=repeats,
        final="denoise" if field(found or {}, "sampling.denoise", True) else "none",
        steps=int(field(found or {}, "training.n_iters", 300_001)),
        batch_size=int(field(found or {}, "training.batch_size", 128)),
        optimiser=optimiser(found, 1e-4),
        decay=_decay(found, parts.average),
        dequantise=bool(field(found or {}, "data.uniform_dequantization", False)),
        model_range=image.model_range,
        flip=image.flip,
    )
    name = "-".join(filter(None, ("ncsnv2", image.dataset.lower())))
    data = DataSource(flip=image.flip, model_range=image.model_range or (-1.0, 1.0))
    made = experiment(name, settings, data=data, source="Song and Ermon 2020, arXiv:2006.09011")
    expected = bool(field(found or {}, "model.ema", True))
    chosen, named = choose_weights(tensors, parts.average, weights, settings.decay, made, checkpoint, expected=expected)
    return Imported(made, chosen, named, parts.step, tuple(notes))


def _decay(config: Mapping[str, Any] | None, average: Mapping[str, Tensor] | None) -> float | None:
    if average is None:
        return None
    decay = field(config or {}, "model.ema_rate", None)
    return None if decay is None else float(decay)


def _configured(config: Mapping[str, Any]) -> Tabulated:
    """The ladder that a configuration describes."""
    ends = float(field(config, "model.sigma_end")), float(field(config, "model.sigma_begin"))
    return ladder(*ends, int(field(config, "model.num_classes")), spacing_of(config))


def langevin_settings(process: Tabulated, config: Mapping[str, Any] | None) -> tuple[float, int, list[str]]:
    """(step size, steps per level, notes) of annealed Langevin dynamics: configured, published, or by technique 4."""
    found = config or {}
    repeats = int(field(found, "sampling.n_steps_each", 5))
    size = field(found, "sampling.step_lr", None)
    if size is not None:
        return float(size), repeats, []
    for settings, *_ in ROWS.values():
        if isinstance(settings.network, NCSNv2) and process == ladder(
            settings.sigma_min, settings.sigma_max, settings.levels, settings.spacing
        ):
            return settings.step_size, settings.repeats, ["the sampler is the published one of this ladder"]
    chosen = langevin_step(process.ladder.table()[1], repeats).step
    return chosen, repeats, [f"no sampler is configured: its step {chosen:.3g} is NCSNv2's technique 4 for this ladder"]


def refine_network(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None, centered: bool) -> NCSNv2:
    """The unconditional RefineNet of a state: its kind from the names, its sizes from the configuration if given."""
    found, depth = config or {}, stage_names(tensors)
    last = "res5" if depth != "base" else "res4"
    # A stage that only dilates has one convolution as its shortcut; one that halves has a pooled one.
    dilation = not any(name.startswith(f"{last}.0.shortcut.conv.") for name in tensors)
    weight = next(v for name, v in tensors.items() if name in ("begin_conv.weight", "begin_conv.weight_orig"))
    return NCSNv2(
        channels=int(field(found, "model.ngf", weight.shape[0])),
        depth=depth,
        norm=_norm(tensors, config),
        activation=activation_of(config),
        dilation=dilation,
        spectral_norm=any("weight_u" in name or "weight_orig" in name for name in tensors),
        centered=centered,
    )


def _norm(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> Literal["instance++", "variance", "none"]:
    known: dict[str, Literal["instance++", "variance", "none"]] = {
        "InstanceNorm++": "instance++",
        "VarianceNorm": "variance",
        "NoneNorm": "none",
    }
    named = field(config or {}, "model.normalization", None)
    if named is not None:
        if str(named) not in known:
            raise BridgeError(
                f"model.normalization is {named!r}, which the release passes a wrong argument to and never published;"
                f" known are {', '.join(known)}"
            )
        return known[str(named)]
    if "normalizer.gamma" in tensors:
        return "instance++"
    return "variance" if "normalizer.alpha" in tensors else "none"
