"""Checkpoints of adversarial score matching (Jolicoeur-Martineau et al. 2021).

A list [network, optimiser, epoch, step, average]. The output is sigma times the score and nothing is divided; the
ladder is in the configuration alone. The discriminator of adversarial runs is in no checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from scorefield.data import DataSource
from scorefield.interop.checkpoint_files import read_config, weight
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import (
    CheckpointError,
    Hints,
    Imported,
    Weights,
    choose_weights,
    settled,
    with_hints,
)
from scorefield.interop.list_checkpoints import decay_of, name_of, read_image, read_list, spacing_of
from scorefield.interop.ncsnv2 import first_convolution, refine_network
from scorefield.nets.network import NetworkConfig
from scorefield.nets.unets.acsm_unet import ACSMUNet
from scorefield.process.tabulated import Tabulated
from scorefield.recipes.acsm import Settings, experiment
from scorefield.recipes.ladders import ladder

STACKED = "the release trained on 3-Stacked MNIST in [-1, 1]: so are this model's data, with 0 at -1"


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """A checkpoint as a model; see `scorefield.interop`."""
    parts, fields = read_list(checkpoint, "acsm"), Fields(read_config(config))
    tensors = parts.raw
    unet = _is_unet(tensors, fields, checkpoint)
    first = weight(tensors, "downblocks.0.weight", 4, checkpoint) if unet else first_convolution(tensors, checkpoint)
    image = read_image(fields, hints, "acsm", first.shape[1])
    sigma_max, sigma_min, levels = _ladder(fields, hints)
    spacing, notes, model_range = spacing_of(fields), list(image.notes), image.model_range
    if "mnist" in image.dataset and image.shape[0] == 3:
        model_range = (-1.0, 1.0)
        notes.append(STACKED)
    network: NetworkConfig = (
        _unet(tensors, fields, checkpoint) if unet else refine_network(tensors, fields, image.centered, checkpoint)
    )
    process = ladder(sigma_min, sigma_max, levels, spacing)
    size, refine, consistent, sampler_notes = _sampler(fields, process)
    settings = Settings(
        network,
        image.shape,
        sigma_max,
        levels,
        size,
        refine,
        consistent,
        noise="first" if fields.flag("sampling.noise_first", False) else "last",
        sigma_min=sigma_min,
        spacing=spacing,
        decay=decay_of(fields, parts),
        steps=fields.count("training.n_iters", 300_001),
        batch_size=fields.count("training.batch_size", 128),
        learning_rate=fields.number("optim.lr", 1e-4),
        eps=fields.number("optim.eps", 1e-8),
        model_range=model_range,
        low=image.low,
    )
    data = DataSource(flip=image.flip, model_range=model_range or (-1.0, 1.0))
    source = "Jolicoeur-Martineau et al. 2021, arXiv:2009.05475"
    made = experiment(name_of("acsm", image), settings, data=data, source=source)
    expected = fields.flag("model.ema", True)
    chosen, named = choose_weights(tensors, parts.average, weights, settings.decay, made, checkpoint, expected=expected)
    return Imported(made, chosen, named, parts.step, (*notes, *sampler_notes))


def _is_unet(tensors: Mapping[str, Tensor], fields: Fields, checkpoint: Path) -> bool:
    """Whether the network is the U-Net, and not a RefineNet; the configuration must agree."""
    found = any(name.startswith("downblocks.") for name in tensors)
    if fields.flag("model.unet", found) != found:
        is_that, says = ("the U-Net", "false") if found else ("a RefineNet", "true")
        raise CheckpointError(
            f"{checkpoint} holds {is_that} and the configuration's model.unet is {says}: it belongs to another"
            " checkpoint"
        )
    return found


def _ladder(fields: Fields, hints: Hints) -> tuple[float, float, int]:
    """(sigma_max, sigma_min, levels), of the configuration or the hints."""
    if fields.given:
        high = float(settled(hints, "sigma_max", fields.number("model.sigma_begin")))
        low = float(settled(hints, "sigma_min", fields.number("model.sigma_end")))
        levels = int(settled(hints, "levels", fields.count("model.num_classes")))
    else:
        why = "the ladder is in the configuration alone"
        given = with_hints(hints, "acsm", sigma_max=why, levels=why)
        high, low, levels = given["sigma_max"], given["sigma_min"] or 0.01, given["levels"]
    return high, high if levels == 1 else low, levels


def _sampler(fields: Fields, process: Tabulated) -> tuple[float, int, bool, list[str]]:
    """(step size, steps per level, consistent, notes)."""
    if fields.has("sampling.step_lr"):
        refine = fields.count("sampling.nsigma", fields.count("sampling.n_steps_each", 1))
        return fields.number("sampling.step_lr"), refine, fields.flag("sampling.consistent", False), []
    sigmas = process.ladder.table()[1]
    ratio = float((sigmas[:-1] / sigmas[1:]).min()) if len(sigmas) > 1 else 0.0
    eta = min(1.55 * (1.0 - ratio), 1.0)  # 1.55 times the smallest admissible step, as the release tuned CIFAR-10's
    note = (
        f"no sampler is configured: consistent annealed sampling with eta = {eta:.4g}, 1.55 times the least admissible"
        " step, as the release has it on CIFAR-10"
    )
    return eta * float(sigmas[0]) ** 2, 1, True, [note]


def _unet(tensors: Mapping[str, Tensor], fields: Fields, checkpoint: Path) -> ACSMUNet:
    """The U-Net of a state: walk its way down, where a convolution without a block ends a level."""
    channels = int(tensors["downblocks.0.weight"].shape[0])
    inside: dict[int, set[str]] = {}
    for name in tensors:
        if name.startswith("downblocks."):
            _, index, leaf = name.split(".", 2)
            inside.setdefault(int(index), set()).add(leaf)
    widths: list[int] = []
    blocks, attention, level = 0, 0, 0
    for k in sorted(inside)[1:]:
        if inside[k] & {"weight", "bias"}:
            level += 1
        elif any(leaf.startswith("Q.") for leaf in inside[k]):
            attention = level
        else:
            width = int(weight(tensors, f"downblocks.{k}.conv1.weight", 4, checkpoint).shape[0])
            widths += [width] if len(widths) == level else []
            blocks += level == 0
    return ACSMUNet(
        channels=fields.count("model.ngf") if fields.given else channels,
        channel_multipliers=tuple(width // channels for width in widths),
        blocks=blocks,
        attention_level=attention,
        dropout=fields.number("model.dropout", 0.0),
    )
