"""Training states of the JAX release of the SDE framework: Flax's msgpack files, read without JAX or Flax.

Flax writes nested dictionaries whose arrays are MessagePack extensions: type 1 an array, (shape, name of the type,
bytes) packed once more; type 3 a scalar, packed likewise; arrays above a gigabyte are dictionaries of pieces.
Parameters are named by the class of their module and its number among the modules of that class, counted in the order
of calls; modules without parameters count too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.interop.import_result import CheckpointError
from scorefield.models.weights import differences
from scorefield.nets.layers import ChannelMix, Convolution, Dense
from scorefield.nets.unets.ncsnpp import UNet
from scorefield.nets.unets.release_order import published_modules, published_parts

Tree = Mapping[str, Any]

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"


@dataclass(frozen=True)
class State:
    """The used part of a training state.

    Args:
        params: Tree of parameters, one of the two sets.
        decay: Decay of the averages.
        step: Training step of the run.
    """

    params: Tree
    decay: float | None
    step: int | None


def read_state(path: Path, weights: Literal["ema", "raw"]) -> State:
    """Read one set of parameters of a training state; what is not asked for is skipped and takes no memory.

    Raises:
        CheckpointError: The file is truncated, is no training state, or lacks the set; or msgpack is not installed.
    """
    wanted: dict[str, Any] = {"step": None, "ema_rate": None}
    wanted |= {"params_ema": None} if weights == "ema" else {"optimizer": {"target": None}}
    msgpack = _msgpack()
    try:
        with path.open("rb") as file:
            unpacker = msgpack.Unpacker(file, raw=False, strict_map_key=False, ext_hook=_value, max_buffer_size=0)
            found = _select(unpacker, wanted)
            state = {name: _whole(value) for name, value in found.items()}
    except (msgpack.exceptions.UnpackException, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or damaged, or no file of Flax"
            f" ({type(error).__name__}: {error}). Copy it again"
        ) from None
    params = state.get("params_ema") if weights == "ema" else (state.get("optimizer") or {}).get("target")
    if not isinstance(params, Mapping) or not params:
        instead = "; import the trained ones with --weights raw" if weights == "ema" else ""
        missing = "params_ema" if weights == "ema" else "optimizer/target"
        raise CheckpointError(f"{path} holds no {missing}, the {weights} weights of the JAX release{instead}")
    params = params.get("params", params)
    decay, step = state.get("ema_rate"), state.get("step")
    return State(params, None if decay is None else float(decay), None if step is None else int(step))


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise CheckpointError(
            "checkpoints of JAX and Flax are msgpack files; to read them install pip install 'scorefield[interop]'"
        ) from error
    return msgpack


def _select(unpacker: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The wanted entries of the dictionary that comes next: name -> None for all of it, or -> what of it."""
    found = {}
    for _ in range(unpacker.read_map_header()):
        name = unpacker.unpack()
        if name not in wanted:
            unpacker.skip()
        elif wanted[name] is None:
            found[name] = unpacker.unpack()
        else:
            found[name] = _select(unpacker, wanted[name])
    return found


def _value(code: int, data: bytes) -> Any:
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"MessagePack extension {code} is none of Flax's")
    shape, name, content = _msgpack().unpackb(data, raw=False, use_list=True)
    return _array(tuple(shape), name, content)


def _array(shape: tuple[int, ...], name: str, content: bytes) -> Tensor:
    half = name == "bfloat16"  # which NumPy has not
    kind = np.dtype(np.int16 if half else name)
    if kind.kind not in "fiub":
        raise ValueError(f"an array of type {name} is none of numbers")
    array = np.frombuffer(content, kind).reshape(shape)
    if kind.kind == "u" and kind.itemsize > 1:  # which torch has not
        array = array.astype(np.int64)
    tensor = torch.from_numpy(array.copy())
    return tensor.view(torch.bfloat16) if half else tensor


def _whole(value: Any) -> Any:
    """A tree with its arrays in one piece."""
    if not isinstance(value, Mapping):
        return value
    if value.get(_CHUNKED):
        shape, chunks = (value[key] for key in ("shape", "chunks"))
        pieces = [chunks[str(i)] for i in range(len(chunks))]
        return torch.cat([p.flatten() for p in pieces]).reshape([int(shape[str(i)]) for i in range(len(shape))])
    return {str(key): _whole(item) for key, item in value.items()}


# ---------------------------------------------------------------------------------------------- names


class FlaxTensor(NamedTuple):
    """One of our parameters as the JAX release stores it.

    Attributes:
        name: Our parameter's name.
        path: Names down the tree, joined by "/".
        own: Our parameter.
        axes: Axes of the release's array in our order.
    """

    name: str
    path: str
    own: Tensor
    axes: tuple[int, ...]


_CLASSES = {
    "fourier": "GaussianFourierProjection",
    "dense": "Dense",
    "conv": "Conv",
    "norm": "GroupNorm",
    "combine": "Combine",
    "down": "Downsample",
    "up": "Upsample",
}


def flax_order(net: UNet, *, plain: bool) -> Iterator[FlaxTensor]:
    """Our parameters with their places in the release's tree.

    Args:
        net: The network.
        plain: Whether the network is the DDPM U-Net, whose classes have other names than those of NCSN++ with the same
            blocks.
    """
    block = "ResnetBlockBigGANpp" if net.style.biggan else "ResnetBlockDDPM" if plain else "ResnetBlockDDPMpp"
    classes = _CLASSES | {"block": block, "attention": "AttnBlock" if plain else "AttnBlockpp"}
    own, counts = dict(net.named_parameters()), Counter[str]()
    for module in published_modules(net):
        scope = f"{classes[module.kind]}_{counts[module.kind]}"
        counts[module.kind] += 1
        for part, inside in published_parts(net, module).items():
            for leaf in ("W", "weight", "bias"):
                if (parameter := own.get(f"{part}.{leaf}")) is None:
                    continue
                theirs, axes = _leaf(net, part, leaf, inside)
                yield FlaxTensor(f"{part}.{leaf}", "/".join(filter(None, [scope, inside, theirs])), parameter, axes)


def _leaf(net: UNet, part: str, leaf: str, inside: str) -> tuple[str, tuple[int, ...]]:
    """The release's name of a leaf, and its axes in our order."""
    owner = net.get_submodule(part)
    mixes = isinstance(owner, ChannelMix)
    if leaf != "weight":
        return ("b" if mixes else leaf), (0,)
    if isinstance(owner, Convolution):  # height, width, in, out
        return ("weight" if inside == "Conv2d_0" else "kernel"), (3, 2, 0, 1)
    if mixes or isinstance(owner, Dense):
        return ("W" if mixes else "kernel"), (1, 0)
    return "scale", (0,)


def tensors(net: UNet, params: Tree, path: Path, *, plain: bool) -> dict[str, Tensor]:
    """The tree's arrays by our names, views with permuted axes.

    Raises:
        CheckpointError: Names or shapes differ, said in the release's names.
    """
    order = list(flax_order(net, plain=plain))
    theirs = dict(_flat(params, ""))
    if net.time is None:
        theirs.pop("GaussianFourierProjection_0/W", None)  # an unconditional network makes it, and does not read it
    own = {f.path: f.own.permute(tuple(np.argsort(f.axes).tolist())) for f in order}
    if lines := differences(own, theirs, theirs="checkpoint"):
        shown = lines[:12] + ([f"  ... and {len(lines) - 12} more"] if len(lines) > 12 else [])
        raise CheckpointError(
            f"the arrays of {path} are not those of the network that the configuration describes; {len(lines)}"
            " differences, in the release's names:\n"
            + "\n".join(shown)
            + "\nThe configuration belongs to another checkpoint: give the right one with --config"
        )
    return {f.name: theirs[f.path].permute(f.axes) for f in order}


def _flat(tree: Tree, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value
