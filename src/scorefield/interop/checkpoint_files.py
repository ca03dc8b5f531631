"""Reading checkpoints and configurations without executing anything, and recognising unknown files.

A PyTorch checkpoint is a pickle, and a pickle can run code. Only tensors, containers, numbers and NumPy scalars (a
learning rate in the releases' optimiser state) are read; anything else is refused before it is made.
"""

from __future__ import annotations

import json
import math
import pickletools
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from scorefield.interop.import_result import CheckpointError

LAYOUTS = ("score-sde", "ncsn", "ncsnv2", "acsm", "mdsm", "edm", "diffusers")
"""The layouts that `scorefield import` reads."""

_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_NUMPY = [
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as files of NumPy 1 call it
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_torch(path: Path) -> Any:
    """The content of a file written by `torch.save`, memory-mapped where its format allows it.

    Raises:
        CheckpointError: The file is no such file, is truncated, or holds code.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the checkpoint file in it.{_fits(recognise(path))}")
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    kind = file_kind(path)
    if kind not in ("torch", "pickle"):
        raise CheckpointError(
            f"{path} is no PyTorch checkpoint: it is {_KINDS[kind]}.{_fits(_LAYOUT_OF_KIND.get(kind))}"
        )
    if kind == "pickle" and is_edm(path):
        raise CheckpointError(f"{path} is a pickled network of EDM.{_fits('edm')}")
    mapped = kind == "torch" and zipfile.is_zipfile(path)  # files from before 2020 are no archives
    try:
        with torch.serialization.safe_globals(_NUMPY), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles in newer protocols, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises a dozen types for damaged files
        raise CheckpointError(_why(path, error)) from None


def _why(path: Path, error: Exception) -> str:
    text = str(error)
    found = re.search(r"(?:GLOBAL|[Gg]lobal:?(?: GLOBAL)?) ([\w.]+)", text)
    # The remains of an archive are read as a pickle too.
    newer = "Unsupported operand" in text and (file_kind(path) == "pickle" or zipfile.is_zipfile(path))
    name = found.group(1) if found else _asks_for(path) if newer else None
    if name is not None:
        return (
            f"{path} holds more than tensors and numbers: it asks for {name}, and making that could run code."
            " Nothing was executed. If you trust its author, load it where it was made and save only its state"
            " dictionaries"
        )
    if newer:
        return (
            f"{path} is a pickle in a newer protocol than that of torch.save, in which no checkpoint is read here."
            " Nothing was executed. Where it was made, save it again: torch.save(content, path)"
        )
    return (
        f"{path} ({path.stat().st_size} bytes) is truncated or damaged and cannot be read"
        f" ({type(error).__name__}: {text.splitlines()[0][:160] if text else 'no reason given'}). Copy it again"
    )


def _asks_for(path: Path) -> str | None:
    """The first name outside torch and NumPy that a bare pickle asks for; its instructions are listed, not followed."""
    strings: deque[str] = deque(maxlen=2)
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    name = str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    name = ".".join(strings)
                else:
                    strings.extend([argument] if isinstance(argument, str) else [])
                    continue
                if not name.startswith(("torch.", "numpy.", "collections.")):
                    return name
    except (ValueError, UnicodeDecodeError):  # no pickle, but an archive, or cut off
        pass
    return None


_KINDS = {
    "empty": "empty",
    "safetensors": "a safetensors file",
    "msgpack": "a msgpack file of JAX and Flax",
    "hdf5": "an HDF5 file",
    "text": "a text file",
    "archive": "an archive; unpack it and give the checkpoint in it",
    "unknown": "of no kind that is known here",
}
_LAYOUT_OF_KIND = {"msgpack": "score-sde", "safetensors": "diffusers"}


def file_kind(path: Path) -> str:
    """Kind of a file, by its first bytes: torch, pickle, msgpack, safetensors, ... (keys of the messages above)."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return "empty"
    if head[:2] == b"PK":
        try:
            names = zipfile.ZipFile(path).namelist()
        except zipfile.BadZipFile:  # a truncated checkpoint has lost the table at its end
            return "torch"
        return "torch" if any(name.endswith("data.pkl") for name in names) else "archive"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "pickle"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:4] == b"\x89HDF":
        return "hdf5"
    if head[:2] == b"\x1f\x8b" or head[:4] == b"7z\xbc\xaf":
        return "archive"
    if 0x80 < head[0] <= 0x8F or head[0] in (0xDE, 0xDF):
        return "msgpack"
    return "text" if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head) else "unknown"


def is_edm(path: Path) -> bool:
    """Whether a pickle is one of EDM's: their persistent classes are named near its start."""
    with path.open("rb") as file:
        return b"torch_utils.persistence" in file.read(2**16)


def read_config(path: Path | None, *, sections: bool = True) -> dict[str, Any] | None:
    """A release's configuration file, JSON or YAML, as nested dictionaries; None where none is given.

    The YAML that NCSN's and ACSM's runs write names Python classes (`!!python/object:argparse.Namespace`); such tags
    are read as the mappings and sequences that follow them, and no class is made.

    Args:
        path: The file.
        sections: Whether fields lie in sections such as `model`.

    Raises:
        CheckpointError: No such file, or one that is neither.
    """
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"the configuration {path} cannot be read: {error}") from None
    try:
        found = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Plain)
    except (json.JSONDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CheckpointError(f"the configuration {path} is neither JSON nor YAML: {error}") from None
    if not isinstance(found, dict) or (sections and not any(isinstance(v, dict) for v in found.values())):
        raise CheckpointError(
            f"the configuration {path} holds no sections such as `model` and `data`; give the file that the release"
            " trained with, or its ml_collections dictionary as JSON (config.to_json_best_effort()) or YAML"
        )
    return found


class _Plain(yaml.SafeLoader):
    """Safe YAML in which a tag is ignored and what it tags is kept."""


def _untagged(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        found = loader.construct_mapping(node, deep=True)
        # ml_collections' ConfigDict writes its entries into a field `_fields`; objects write theirs into `state`.
        return next((found[k] for k in ("_fields", "dictitems", "state") if isinstance(found.get(k), dict)), found)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Plain.add_multi_constructor("tag:yaml.org,2002:python/", _untagged)
_Plain.add_multi_constructor("!", _untagged)


def without_prefix(state: Mapping[Any, Any], checkpoint: Path) -> dict[str, Tensor]:
    """A state dictionary without the `module.` that data parallelism puts before every key.

    Raises:
        CheckpointError: An entry is no tensor.
    """
    if bad := [str(name) for name, value in state.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"the model in {checkpoint} holds {bad[0]}, which is no tensor")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def weight(tensors: Mapping[str, Tensor], name: str, axes: int, checkpoint: Path) -> Tensor:
    """A tensor from which a reader takes sizes.

    Raises:
        CheckpointError: The tensor is missing, or has another number of axes.
    """
    if name not in tensors:
        raise CheckpointError(f"the model in {checkpoint} has no {name}: it is incomplete, or of another network")
    if (found := tensors[name]).ndim != axes:
        raise CheckpointError(f"{name} in {checkpoint} has the shape {tuple(found.shape)}; it should have {axes} axes")
    return found


def plain_number(value: object) -> float | None:
    """A number that a checkpoint keeps in Python, NumPy or a tensor; None where it is none."""
    if isinstance(value, Tensor | np.generic) and value.ndim == 0:
        value = value.item()
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


# ---------------------------------------------------------------------------------------------- what is it?


def recognise(path: Path) -> str | None:
    """The layout that a file or folder looks like, None if like none of them. Never raises."""
    try:
        if path.is_dir():
            inside = {p.name for p in path.iterdir()}
            return "diffusers" if {"model_index.json", "unet"} & inside or {"config.json"} <= inside else None
        kind = file_kind(path)
        if kind == "pickle" and is_edm(path):
            return "edm"
        return layout_of(read_torch(path)) if kind in ("torch", "pickle") else _LAYOUT_OF_KIND.get(kind)
    except (OSError, CheckpointError):
        return None


def layout_of(content: Any) -> str | None:
    """The layout of a checkpoint already read."""
    if isinstance(content, Mapping):
        inner = content.get("model")
        if {"model", "ema"} <= set(content) or (isinstance(inner, Mapping) and layout_of(inner) == "score-sde"):
            return "score-sde"
        names = {str(name).removeprefix("module.") for name in content}
        if any(name.startswith("down_blocks.") for name in names):
            return "diffusers"
        if any(name.startswith("all_modules.") for name in names):
            return "score-sde"
        return "mdsm" if {"conv1.conv.weight", "rb1.conv_1.conv.weight"} <= names else None
    if isinstance(content, Sequence) and content and isinstance(content[0], Mapping):
        names = {str(name).removeprefix("module.") for name in content[0]}
        if any(name.endswith("embed.weight") for name in names) or len(content) == 2:
            return "ncsn" if any(name.startswith("refine") for name in names) else None
        if "sigmas" in names:
            return "ncsnv2"
        return "acsm" if any(name.startswith(("refine", "downblocks")) for name in names) else None
    return None


def expect(content: Any, layout: str, path: Path) -> None:
    """Refuse a checkpoint of another layout than the one asked for.

    Raises:
        CheckpointError: The checkpoint looks like another layout, which is named, or like none.
    """
    found = layout_of(content)
    if found == layout:
        return
    what = f"it holds {describe(content)}"
    raise CheckpointError(f"{path} is not a checkpoint of the layout {layout}: {what}.{_fits(found)}")


def describe(content: Any) -> str:
    """A short description of the content of a checkpoint."""
    if isinstance(content, Mapping):
        names = [str(name) for name in content]
        return f"a dictionary of {len(names)} entries ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    if isinstance(content, Sequence) and not isinstance(content, str):
        return f"a list of {len(content)} ({', '.join(type(part).__name__ for part in content[:6])})"
    return f"a {type(content).__name__}"


def _fits(layout: str | None) -> str:
    if layout is None:
        return f" Layouts that can be imported: {', '.join(LAYOUTS)}"
    return f" It looks like {layout}: scorefield import {layout} CHECKPOINT --out DIR"
