"""UNet2DModel of diffusers as an NCSNpp: its fields, its names, and where the two differ.

With "Skip" blocks and Fourier features it is NCSN++ with output_skip and input_skip pyramids (Song et al. 2021,
appendix H), as published for 256 and 1024 pixels. The groups of some normalisations are counted otherwise: attention
has 32 whatever the width, and so may the first norms on the way up of levels with attention. Both agree for the
published networks, and all are compared one by one here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from scorefield.data_spec import DataSpec
from scorefield.interop.import_result import CheckpointError
from scorefield.nets.unets.ncsnpp import NCSNpp

MODEL = "UNet2DModel"
DOWN = ("SkipDownBlock2D", "AttnSkipDownBlock2D")
UP = ("SkipUpBlock2D", "AttnSkipUpBlock2D")
TAPS = (1.0, 3.0, 3.0, 1.0)

DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
"""Defaults in diffusers of the fields of a UNet2DModel's config.json."""

_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("in_channels", "out_channels", "layers_per_block"), (lambda v: _whole(v), "a positive integer")),
    **dict.fromkeys(("mid_block_scale_factor", "dropout", "norm_eps"), (lambda v: _number(v), "a number")),
    **dict.fromkeys(("down_block_types", "up_block_types"), (lambda v: _list(v, str), "a list of names")),
    "block_out_channels": (lambda v: _list(v, int) and all(map(_whole, v)), "a list of positive integers"),
    "sample_size": (
        lambda v: v is None or _whole(v) or (_list(v, int) and len(v) == 2 and all(map(_whole, v))),
        "null, a positive integer or two of them",
    ),
}

UNREAD = frozenset(
    ("freq_shift", "flip_sin_to_cos", "downsample_padding", "downsample_type", "upsample_type", "num_train_timesteps")
)
"""Fields that mean nothing with Skip blocks and Fourier features."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(value: Any, of: type) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(v, of) for v in value)


# ---------------------------------------------------------------------------------------------- names


def module_names(levels: int, blocks: int) -> dict[str, str]:
    """diffusers' name -> ours for every module that holds parameters, in networks of that depth.

    Args:
        levels: Number of sizes.
        blocks: Residual blocks per level on the way down.
    """
    names = {"conv_in": "conv_in", "time_embedding.linear_1": "time.first", "time_embedding.linear_2": "time.second"}
    residual, attention, plain = [], [], []
    for i in range(levels):
        down, up = f"down_blocks.{i}", f"up_blocks.{i}"
        residual += [(f"{down}.resnets.{j}", f"down.{i}.stages.{j}.block") for j in range(blocks)]
        attention += [(f"{down}.attentions.{j}", f"down.{i}.stages.{j}.attention") for j in range(blocks)]
        residual += [(f"{up}.resnets.{j}", f"up.{i}.blocks.{j}") for j in range(blocks + 1)]
        attention.append((f"{up}.attentions.0", f"up.{i}.attention"))
        if i == levels - 1:  # diffusers' own output layers are the last step of our pyramid
            plain += [("conv_norm_out", f"up.{i}.pyramid.norm"), ("conv_out", f"up.{i}.pyramid.conv")]
            continue
        residual += [(f"{down}.resnet_down", f"down.{i}.resample"), (f"{up}.resnet_up", f"up.{i}.resample")]
        plain.append((f"{down}.skip_conv", f"down.{i}.pyramid.conv"))
        plain += [(f"{up}.skip_norm", f"up.{i}.pyramid.norm"), (f"{up}.skip_conv", f"up.{i}.pyramid.conv")]
    residual += [("mid_block.resnets.0", "middle.0.block"), ("mid_block.resnets.1", "middle.1.block")]
    attention.append(("mid_block.attentions.0", "middle.0.attention"))
    inside_residual = {
        "norm1": "norm_0", "conv1": "conv_0", "time_emb_proj": "dense", "norm2": "norm_1", "conv2": "conv_1",
        "conv_shortcut": "shortcut",
    }  # fmt: skip
    inside_attention = {
        "group_norm": "norm", "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "project",
    }  # fmt: skip
    names |= dict(plain)
    names |= {f"{a}.{x}": f"{b}.{y}" for a, b in residual for x, y in inside_residual.items()}
    return names | {f"{a}.{x}": f"{b}.{y}" for a, b in attention for x, y in inside_attention.items()}


def our_name(name: str, table: Mapping[str, str]) -> str:
    """Our name of a tensor; a name of neither stays, and the check of all tensors shows it."""
    if name == "time_proj.weight":
        return "time.fourier.W"
    module, _, leaf = name.rpartition(".")
    return f"{table[module]}.{leaf}" if module in table else name


# ---------------------------------------------------------------------------------------------- the network


def unet_fields(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A UNet2DModel's fields with diffusers' defaults filled in, and notes on fields that nothing reads.

    Raises:
        CheckpointError: The folder holds another class of network.
    """
    if (name := config.get("_class_name", MODEL)) != MODEL:
        raise CheckpointError(f"_class_name is {name!r}: only {MODEL} can be imported")
    given = {k: v for k, v in config.items() if not k.startswith("_") and k not in UNREAD}
    for field, (kind, what) in _KINDS.items():
        if field in given and not kind(given[field]):
            raise CheckpointError(f"the {MODEL} has {field} = {given[field]!r}, which is not {what}")
    unknown = sorted(set(given) - set(DEFAULTS))
    notes = [f"the field {k} = {given[k]!r} is none of {MODEL}'s and was left out, as diffusers does" for k in unknown]
    return {**DEFAULTS, **{k: v for k, v in given.items() if k in DEFAULTS}}, notes


def network_of(fields: Mapping[str, Any], spec: DataSpec) -> NCSNpp:
    """The NCSNpp that equals a UNet2DModel.

    Args:
        fields: All fields, as from `unet_fields`.
        spec: The data it is for.

    Raises:
        CheckpointError: A field has a value that NCSNpp has no word for.
    """
    attends = _block_types(fields)
    widths, size = fields["block_out_channels"], max(spec.shape[1:])
    levels = len(widths)
    if len(attends) != levels:
        _refuse("block_out_channels", widths, f"there are {len(attends)} down_block_types")
    if any(width % widths[0] for width in widths):
        _refuse("block_out_channels", widths, f"widths are multiples of the first, {widths[0]}")
    if any(n % 2 ** (levels - 1) for n in spec.shape[1:]):
        _refuse("sample_size", spec.shape[1:], f"{levels} levels need a multiple of {2 ** (levels - 1)}")
    needed = {
        "time_embedding_type": ("fourier",),
        "time_embedding_dim": (None, 4 * widths[0]),
        "mid_block_type": ("UNetMidBlock2D",),
        "act_fn": ("silu", "swish"),
        "resnet_time_scale_shift": ("default",),
        "add_attention": (True,),
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
    }
    for name, allowed in needed.items():
        if fields[name] not in allowed:
            _refuse(name, fields[name], " or ".join(repr(value) for value in allowed) + " is what NCSN++ has")
    for name, value in (("mid_block_scale_factor", math.sqrt(2.0)), ("norm_eps", 1e-6)):
        if not math.isclose(fields[name], value, rel_tol=1e-6):
            _refuse(name, fields[name], f"NCSN++ has {value:.7g}")
    heads = {width for width, attending in zip(widths, attends, strict=True) if attending} | {widths[-1]}
    if fields["attention_head_dim"] is not None and heads != {fields["attention_head_dim"]}:
        _refuse("attention_head_dim", fields["attention_head_dim"], "attention has one head there: null")
    for name in ("in_channels", "out_channels"):
        if fields[name] != 3:
            _refuse(name, fields[name], "the pyramids of Skip blocks have 3 channels")
    if not 0 <= fields["dropout"] < 1:
        _refuse("dropout", fields["dropout"], "it is a probability below 1")
    network = NCSNpp(
        channels=widths[0],
        channel_multipliers=tuple(width // widths[0] for width in widths),
        blocks=fields["layers_per_block"],
        attention_sizes=tuple(size // 2**level for level in range(levels) if attends[level]),
        dropout=float(fields["dropout"]),
        fir_kernel=TAPS,
        progressive="output_skip",
        progressive_input="input_skip",
        centered=not fields["center_input_sample"],
    )
    _check_groups(network, spec, fields, attends)
    return network


def _refuse(name: str, value: Any, why: str) -> None:
    raise CheckpointError(f"the {MODEL} has {name} = {value!r}, which NCSNpp cannot express: {why}")


def _block_types(fields: Mapping[str, Any]) -> list[bool]:
    """Whether each level has attention, from the largest size down."""
    down, up = fields["down_block_types"], fields["up_block_types"]
    for name, found, known in (("down_block_types", down, DOWN), ("up_block_types", up, UP)):
        for block in found:
            if block not in known:
                why = f"{known[0]} and {known[1]} are the blocks of NCSN++"
                if block.endswith("Block2D"):
                    why += "; those of DDPM have other resampling, groups or attention after every block on the way up"
                _refuse(name, block, why)
    attends = [block == DOWN[1] for block in down]
    if [block == UP[1] for block in reversed(up)] != attends:
        _refuse("up_block_types", up, f"a level has attention both ways or not at all; down_block_types are {down}")
    return attends


def _check_groups(network: NCSNpp, spec: DataSpec, fields: Mapping[str, Any], attends: list[bool]) -> None:
    """Refuse normalisations whose groups differ from ours."""
    with torch.device("meta"):
        net = network.build(spec)
    norms = {name: module for name, module in net.named_modules() if isinstance(module, nn.GroupNorm)}
    middle = fields["norm_num_groups"]
    last = len(attends) - 1
    for name, module in norms.items():
        where, channels = name.split("."), module.num_channels
        theirs, field = min(channels // 4, 32), "block_out_channels"
        if where[0] == "middle" or name == f"up.{last}.pyramid.norm":
            theirs, field = middle or theirs, "norm_num_groups"
            if "attention" in where and fields["attn_norm_num_groups"] is not None:
                theirs, field = fields["attn_norm_num_groups"], "attn_norm_num_groups"
        elif "attention" in where:
            theirs, field = 32, "down_block_types"
        elif where[0] == "up" and attends[last - int(where[1])] and where[2] == "blocks" and where[4] == "norm_0":
            skip = _skip_width(fields["block_out_channels"], last - int(where[1]), int(where[3]), network.blocks)
            theirs, field = min(channels - skip + skip // 4, 32), "up_block_types"
        if theirs != module.num_groups:
            given = fields[field] if field != "block_out_channels" else channels
            why = f"{name} over {channels} channels has {theirs} groups in diffusers and {module.num_groups} here"
            _refuse(field, given, why)


def _skip_width(widths: tuple[int, ...], level: int, block: int, blocks: int) -> int:
    """Channels that a block on the way up takes from the way down."""
    return widths[level] if block < blocks or level == 0 else widths[level - 1]


def fields_of(network: NCSNpp, spec: DataSpec) -> dict[str, Any]:
    """The fields of the UNet2DModel that equals an NCSNpp.

    Raises:
        CheckpointError: UNet2DModel has no word for something; the field of ours is named.
    """
    size, levels = spec.shape[1], len(network.channel_multipliers)
    attends = [size // 2**level in network.attention_sizes for level in range(levels)]
    fields = {
        **DEFAULTS,
        "sample_size": size,
        "in_channels": spec.shape[0],
        "out_channels": spec.shape[0],
        "center_input_sample": not network.centered,
        "time_embedding_type": "fourier",
        "down_block_types": [DOWN[attending] for attending in attends],
        "up_block_types": [UP[attending] for attending in reversed(attends)],
        "block_out_channels": [network.channels * multiplier for multiplier in network.channel_multipliers],
        "layers_per_block": network.blocks,
        "mid_block_scale_factor": math.sqrt(2.0),
        "dropout": network.dropout,
        "attention_head_dim": None,
        "norm_num_groups": None,
        "norm_eps": 1e-6,
    }
    kept = {"init_scale": network.init_scale, "fourier_scale": network.fourier_scale}  # of untrained weights
    ours = dataclasses.replace(
        network,
        attention_sizes=tuple(size // 2**level for level in range(levels) if attends[level]),
        resample_with_conv=True,  # nothing that BigGAN blocks read
    )
    theirs = dataclasses.replace(network_of(fields, spec), **kept)
    for field in dataclasses.fields(NCSNpp):
        if (value := getattr(ours, field.name)) != (only := getattr(theirs, field.name)):
            raise CheckpointError(
                f"network.{field.name} = {value!r} cannot be exported: {MODEL} is NCSN++ with {field.name} = {only!r}"
            )
    return fields
