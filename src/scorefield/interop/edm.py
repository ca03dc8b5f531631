"""Pickled networks of EDM (Karras et al. 2022, arXiv:2206.00364): SongUNet in its DDPM++ and NCSN++ variants.

A file `network-snapshot-*.pkl` is a pickled dictionary whose entry `ema` is a preconditioned network. SongUNet is the
U-Net of NCSN++ under other names; three things are laid out otherwise. Query, key and value are one convolution whose
output channels alternate, q_0 k_0 v_0 q_1 ...; a class enters before the two layers of the time embedding, as
W onehot sqrt(classes) + b; and the embedding of the augmentations of training is zero at sampling, where it adds
nothing.

In EDM every network is a denoiser D(x, sigma) of images in [-1, 1] with noise of deviation sigma, whatever it was
trained on. Ours are the same functions in the terms of the process each was trained with:

    EDMPrecond  KarrasForm with c = ln(sigma) / 4     VE, model units [-1, 1]
    VPPrecond   D = x - sigma F with c = (M - 1) t    VP at x alpha(t), sigma(t) / alpha(t) = sigma
    VEPrecond   D = x + sigma F with c = ln(sigma/2)  VE in model units [0, 1], where the noise is half as large

EDM has sigma(t) = t without bounds. A VE process differs from it by its clock alone, the score at a noise level is the
same, so that its bounds are those between which EDM samples, 0.002 and 80.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scorefield.data import DataSource
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.interop.checkpoint_files import file_kind, recognise
from scorefield.interop.import_result import CheckpointError, Hints, Imported, Weights
from scorefield.interop.restricted_pickle import Inert, read_pickle
from scorefield.models.experiment import Experiment, Training
from scorefield.models.networks import meta_network
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.process.families import VE, VP
from scorefield.process.grids import PowerSigma
from scorefield.process.process import Process
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.stochastic import KarrasHeun
from scorefield.score.parametrisation import (
    Form,
    KarrasForm,
    LogRatio,
    LogSigma,
    NoiseForm,
    ScaledScoreForm,
    ScaledTime,
    TimeInput,
)

SONG: dict[str, Any] = {
    "label_dim": 0,
    "augment_dim": 0,
    "model_channels": 128,
    "channel_mult": (1, 2, 2, 2),
    "channel_mult_emb": 4,
    "num_blocks": 4,
    "attn_resolutions": (16,),
    "dropout": 0.1,
    "label_dropout": 0,
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": (1, 1),
}
"""Defaults of the arguments of SongUNet."""

STEPS = 17
"""Heun steps of the default sampler, between the 18 noise levels that EDM samples images of 32x32 at; its step from the
last of them to no noise is the final denoising. 35 calls."""


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """Read a network snapshot.

    Args:
        checkpoint: The pickle.
        config: None: the network's arguments are in the pickle.
        weights: "ema" or None: there are no others.
        hints: sigma_min and sigma_max of an EDMPrecond, in place of 0.002 and 80.

    Raises:
        CheckpointError: No pickle of EDM, a damaged one, one with code, or a network that is no SongUNet.
    """
    if config is not None:
        raise CheckpointError(f"a pickle of EDM holds its network's arguments; leave --config {config} out")
    if hints.levels is not None:
        raise CheckpointError("EDM's networks are trained in continuous time, which has no levels; leave --levels out")
    if weights == "raw":
        raise CheckpointError(f"{checkpoint} holds the average of the weights alone; import it with --weights ema")
    outer = _preconditioned(checkpoint)
    try:
        return _imported(outer, checkpoint, hints)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint} is not laid out as EDM writes its networks ({type(error).__name__}: {error})"
        ) from None


def _imported(outer: Inert, checkpoint: Path, hints: Hints) -> Imported:
    song = outer.state["_modules"]["model"]
    arguments = _arguments(song, checkpoint)
    process, form, time_input, low = _process(outer, hints)
    channels, side, classes = (arguments[name] for name in ("in_channels", "img_resolution", "label_dim"))
    if arguments["out_channels"] != channels:
        raise CheckpointError(
            f"the SongUNet has in_channels = {channels} and out_channels = {arguments['out_channels']}"
        )
    conditions = (ConditionSpec("class", "class", classes),) if classes else ()
    network = _network(arguments, side, centered=low < 0)
    experiment = Experiment(
        name=checkpoint.stem,
        data=DataSource(model_range=(low, 1.0), conditional=bool(classes)),
        spec=DataSpec((channels, side, side), 0, 255, 256, model_range=(low, 1.0), conditions=conditions),
        process=process,
        network=network,
        form=form,
        time_input=time_input,
        sampler=Sampler(KarrasHeun(), PowerSigma(STEPS, rho=7.0), final="denoise"),
        training=Training(condition_dropout=float(arguments["label_dropout"])),
        source=f"Karras et al. 2022, arXiv:2206.00364, {outer.kind} with SongUNet",
    )
    _check_layers(song, arguments, experiment)
    return Imported(experiment, "ema", _tensors(song, arguments), notes=_notes(outer, arguments, checkpoint))


def _notes(outer: Inert, arguments: Mapping[str, Any], checkpoint: Path) -> tuple[str, ...]:
    notes = [
        "EDM's own grid ends at sigma = 0; here the last step is the final denoising, which is EDM's Euler step to 0",
        f"the sampler takes {STEPS} Heun steps in t, where EDM takes 18 or 40 in sigma",
    ]
    if outer.kind == "EDMPrecond":
        notes.append("the process is VE over the noise levels of EDM's sampler; EDM's own has no bounds")
    if arguments["augment_dim"]:
        notes.append("the augmentation embedding (map_augment) was left out: it adds nothing at sampling")
    if found := re.fullmatch(r"network-snapshot-(\d+)", checkpoint.stem):
        notes.append(f"after {int(found.group(1))} thousand training images")
    return tuple(notes)


# ---------------------------------------------------------------------------------------------- the file


def _preconditioned(checkpoint: Path) -> Inert:
    """The network of a snapshot, around a SongUNet."""
    if not checkpoint.is_file():
        raise CheckpointError(f"there is no file {checkpoint}")
    if (kind := file_kind(checkpoint)) != "pickle":
        found = recognise(checkpoint)
        hint = f" It looks like {found}: scorefield import {found} CHECKPOINT --out DIR" if found else ""
        raise CheckpointError(
            f"{checkpoint} is no pickle but of the kind {kind!r}; EDM's networks are network-snapshot-*.pkl, and"
            f" training-state-*.pt cannot be imported.{hint}"
        )
    content = read_pickle(checkpoint)
    outer = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(outer, Inert):
        raise CheckpointError(f"{checkpoint} holds no entry `ema` with a network, so it is no network snapshot of EDM")
    if outer.kind not in _PROCESSES:
        raise CheckpointError(f"the network of {checkpoint} is a {outer.kind}; {', '.join(_PROCESSES)} can be imported")
    song = outer.state.get("_modules", {}).get("model")
    if not isinstance(song, Inert):
        raise CheckpointError(f"the {outer.kind} of {checkpoint} has no network `model`")
    if song.kind != "SongUNet":
        why = "DhariwalUNet, that of ADM, has other blocks" if song.kind == "DhariwalUNet" else "it is none of EDM's"
        raise CheckpointError(f"{checkpoint} holds a {song.kind}, and only SongUNet can be imported: {why}")
    return outer


def _arguments(song: Inert, checkpoint: Path) -> dict[str, Any]:
    """The arguments that a SongUNet was made with, its defaults filled in."""
    given = song.state.get("_init_kwargs")
    if not isinstance(given, dict) or song.state.get("_init_args"):
        raise CheckpointError(f"the SongUNet of {checkpoint} does not say which arguments it was made with, by name")
    unknown = set(given) - set(SONG) - {"img_resolution", "in_channels", "out_channels"}
    if unknown:
        raise CheckpointError(
            f"the SongUNet of {checkpoint} has the argument {sorted(unknown)[0]!r}: it is a changed one"
        )
    return {**SONG, **given}


# ---------------------------------------------------------------------------------------------- process and form

Reading = tuple[Process, Form, TimeInput, float]
"""Process, form, time input, and where black lies in model units."""


def _edm(state: Mapping[str, Any], hints: Hints) -> Reading:
    low = max(0.002 if hints.sigma_min is None else hints.sigma_min, state["sigma_min"])
    high = min(80.0 if hints.sigma_max is None else hints.sigma_max, state["sigma_max"])
    return VE(low, high), KarrasForm(float(state["sigma_data"])), LogRatio(), -1.0


def _vp(state: Mapping[str, Any], _: Hints) -> Reading:
    process = VP(state["beta_min"], state["beta_min"] + state["beta_d"])
    return process, NoiseForm(), ScaledTime(state["M"] - 1.0), -1.0


def _ve(state: Mapping[str, Any], _: Hints) -> Reading:
    return VE(state["sigma_min"] / 2.0, state["sigma_max"] / 2.0), ScaledScoreForm(), LogSigma(), 0.0


_PROCESSES = {"EDMPrecond": _edm, "VPPrecond": _vp, "VEPrecond": _ve}


def _process(outer: Inert, hints: Hints) -> Reading:
    try:
        return _PROCESSES[outer.kind](outer.state, hints)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the settings of the {outer.kind} make no process: {error}") from None


# ---------------------------------------------------------------------------------------------- the network


_ENCODERS: dict[str, Literal["none", "input_skip", "residual"]] = {
    "standard": "none",
    "skip": "input_skip",
    "residual": "residual",
}


def _network(arguments: Mapping[str, Any], side: int, *, centered: bool) -> NCSNpp:
    """The NCSNpp that equals a SongUNet."""
    taps, embedding = tuple(float(tap) for tap in arguments["resample_filter"]), arguments["embedding_type"]
    levels = len(arguments["channel_mult"])
    allowed: dict[str, tuple[Any, ...]] = {
        "embedding_type": ("positional", "fourier"),
        "channel_mult_noise": (2,) if embedding == "fourier" else (1,),
        "channel_mult_emb": (4,),
        "encoder_type": tuple(_ENCODERS),
        "decoder_type": ("standard", "skip"),
    }
    for name, values in allowed.items():
        if arguments[name] not in values:
            expected = " or ".join(repr(value) for value in values)
            raise CheckpointError(f"the SongUNet has {name} = {arguments[name]!r}, and only {expected} can be imported")
    if len(taps) % 2 or taps != taps[::-1]:
        raise CheckpointError(f"the SongUNet has resample_filter = {taps}; one of even length and symmetric is needed")
    if side % 2 ** (levels - 1):
        raise CheckpointError(f"the SongUNet halves {side} pixels {levels - 1} times, which leaves no whole number")
    encoder = arguments["encoder_type"]
    try:
        return NCSNpp(
            channels=arguments["model_channels"],
            channel_multipliers=tuple(arguments["channel_mult"]),
            blocks=arguments["num_blocks"],
            attention_sizes=tuple(arguments["attn_resolutions"]),
            dropout=float(arguments["dropout"]),
            # With taps (1, 1) the filter is the mean, but for a residual encoder, which convolves around it.
            fir=taps != (1.0, 1.0) or encoder == "residual",
            fir_kernel=taps,
            progressive="output_skip" if arguments["decoder_type"] == "skip" else "none",
            progressive_input=_ENCODERS[encoder],
            embedding=embedding,
            centered=centered,
            conditions_enter="features" if arguments["label_dim"] else "embedding",
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the arguments of the SongUNet make no network: {error}") from None


def module_names(side: int, levels: int, blocks: int, *, skip: bool) -> dict[str, str]:
    """EDM's name -> ours for every module that holds parameters (attention apart), whether or not a network has it.

    Args:
        side: Height and width of the images.
        levels: Number of sizes.
        blocks: Residual blocks per level on the way down.
        skip: The decoder is of the type "skip".
    """
    last = levels - 1
    names = {
        "map_layer0": "time.first",
        "map_layer1": "time.second",
        f"enc.{side}x{side}_conv": "conv_in",
        f"dec.{side >> last}x{side >> last}_in0": "middle.0.block",
        f"dec.{side >> last}x{side >> last}_in1": "middle.1.block",
    }
    for level in range(levels):
        size = f"{side >> level}x{side >> level}"
        up, head = f"up.{last - level}", f"up.{last - level}.pyramid" if skip else "head"
        names |= {f"enc.{size}_block{j}": f"down.{level}.stages.{j}.block" for j in range(blocks)}
        names |= {f"dec.{size}_block{j}": f"{up}.blocks.{j}" for j in range(blocks + 1)}
        names |= {f"dec.{size}_aux_norm": f"{head}.norm", f"dec.{size}_aux_conv": f"{head}.conv"}
        if level > 0:  # what changes the size belongs to the level that it is done at there, and that it leaves here
            names[f"enc.{size}_down"] = f"down.{level - 1}.resample"
            names |= {f"enc.{size}_aux_{kind}": f"down.{level - 1}.pyramid.conv" for kind in ("skip", "residual")}
        if level < last:
            names[f"dec.{size}_up"] = f"up.{last - level - 1}.resample"
    inside = {
        "norm0": "norm_0", "conv0": "conv_0", "affine": "dense", "norm1": "norm_1", "conv1": "conv_1",
        "skip": "shortcut",
    }  # fmt: skip
    blocky = {theirs: ours for theirs, ours in names.items() if re.search(r"_(block\d+|in[01]|down|up)$", theirs)}
    return names | {f"{a}.{x}": f"{b}.{y}" for a, b in blocky.items() for x, y in inside.items()}


def _attention_name(block: str, table: Mapping[str, str]) -> str:
    """Where our attention of one of EDM's blocks is: beside the block on the way down, at the level on the way up."""
    ours = table[block]
    return (ours.removesuffix(".block") if ours.endswith(".block") else ours.rpartition(".blocks.")[0]) + ".attention"


# ---------------------------------------------------------------------------------------------- tensors


def modules(node: Inert, prefix: str = "") -> Iterator[tuple[str, Inert]]:
    """Every module of a pickled network with its dotted name, the network itself with an empty one."""
    yield prefix, node
    for name, child in node.state.get("_modules", {}).items():
        if isinstance(child, Inert):
            yield from modules(child, f"{prefix}.{name}" if prefix else str(name))


def _table(arguments: Mapping[str, Any]) -> dict[str, str]:
    levels, skip = len(arguments["channel_mult"]), arguments["decoder_type"] == "skip"
    return module_names(arguments["img_resolution"], levels, arguments["num_blocks"], skip=skip)


def _tensors(song: Inert, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor by our names; one that has none keeps its own, and the check of all tensors shows it."""
    table, tensors = _table(arguments), {}
    for path, node in modules(song):
        own = {**node.state.get("_parameters", {}), **node.state.get("_buffers", {})}
        own = {name: value for name, value in own.items() if isinstance(value, Tensor) and name != "resample_filter"}
        block, _, leaf = path.rpartition(".")
        if path == "map_augment" or not own:
            continue
        if path == "map_noise":
            tensors["time.fourier.W"] = own["freqs"]
        elif path == "map_label":
            tensors["conditioning.embeddings.0.table.weight"] = _classes(own["weight"], own["bias"])
        elif leaf == "qkv":
            attention = _attention_name(block, table)
            for index, part in enumerate(("query", "key", "value")):
                tensors[f"{attention}.{part}.weight"] = own["weight"][index::3, :, 0, 0]
                tensors[f"{attention}.{part}.bias"] = own["bias"][index::3]
        elif leaf in ("norm2", "proj"):
            attention = f"{_attention_name(block, table)}.{'norm' if leaf == 'norm2' else 'project'}"
            tensors[f"{attention}.weight"] = own["weight"] if leaf == "norm2" else own["weight"][:, :, 0, 0]
            tensors[f"{attention}.bias"] = own["bias"]
        else:
            tensors |= {f"{table.get(path, path)}.{name}": value for name, value in own.items()}
    return {name: value.float() for name, value in tensors.items()}


def _classes(weight: Tensor, bias: Tensor) -> Tensor:
    """W onehot sqrt(n) + b as a row per class, and b alone where the class is not known."""
    rows = weight.T * math.sqrt(weight.shape[1]) + bias
    return torch.cat([rows, bias[None]])


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.isclose(a, b).all())


def _check_layers(song: Inert, arguments: Mapping[str, Any], experiment: Experiment) -> None:
    """Compare what the pickled layers say of themselves with ours: a changed SongUNet may have the same tensors."""
    assert experiment.spec is not None
    table, net = _table(arguments), meta_network(experiment, experiment.spec)
    ours = {name: module for name, module in net.named_modules() if isinstance(module, nn.GroupNorm)}
    taps = torch.tensor([float(tap) for tap in arguments["resample_filter"]])
    expected_filter = torch.outer(taps, taps) / taps.sum() ** 2
    for path, node in modules(song):
        block, _, leaf = path.rpartition(".")
        facts: dict[str, Any] = {}
        if node.kind == "GroupNorm":
            name = f"{_attention_name(block, table)}.norm" if leaf == "norm2" else table.get(path, "")
            if name in ours and ours[name].num_channels == node.state["_parameters"]["weight"].numel():
                facts = {"num_groups": ours[name].num_groups, "eps": ours[name].eps}
        elif node.kind == "UNetBlock":
            facts = {"skip_scale": math.sqrt(0.5), "adaptive_scale": False}
            facts |= {"num_heads": 1} if node.state.get("num_heads") else {}
        for name, value in facts.items():
            if not math.isclose(node.state.get(name, math.nan), value, rel_tol=1e-6):
                raise CheckpointError(
                    f"the SongUNet was changed: {path} has {name} = {node.state.get(name)!r}, where EDM's has {value!r}"
                )
        found = node.state.get("_buffers", {}).get("resample_filter")
        if found is not None and not _close(found.float().reshape(found.shape[-2:]), expected_filter):
            raise CheckpointError(f"the SongUNet was changed: the filter of {path} is not made of {taps.tolist()}")
