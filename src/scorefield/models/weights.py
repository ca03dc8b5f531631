"""Files of weights: safetensors whose keys are "set|parameter", with every set of a run in one file.

A set is "raw" (the weights being trained) or an average such as "ema:0.999"; what training does not change (buffers,
Fourier frequencies) is stored once, in the set "fixed".
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scorefield._codec import near
from scorefield._files import replacing

Sets = Mapping[str, Mapping[str, Tensor]]


class WeightsError(ValueError):
    """A file of weights that cannot be used; the message says why and what differs."""


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def fixed(network: nn.Module) -> dict[str, Tensor]:
    """Other tensors of a network: buffers and frozen parameters (the Fourier frequencies), by name."""
    names = trained(network)
    return {name: value for name, value in network.state_dict().items() if name not in names}


def ema_name(decay: float) -> str:
    """How an average is called, for instance "ema:0.999"."""
    return f"ema:{decay:g}"


def save_tensors(path: str | Path, sets: Sets, metadata: Mapping[str, str] | None = None) -> None:
    """Write sets of tensors to a safetensors file, atomically."""
    flat = {
        f"{s}|{name}": value.detach().cpu().contiguous()
        for s, tensors in sets.items()
        for name, value in tensors.items()
    }
    with replacing(path) as temporary:
        try:
            save_file(flat, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:
            # safetensors wraps the system's error; a full disk gets the same message everywhere.
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number.group(1)), str(error)) if number else error from error


def load_tensors(path: str | Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """Read sets of tensors and the metadata.

    Raises:
        WeightsError: The file is missing, truncated or not of this form.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    sets: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            for key in file.keys():
                name, bar, parameter = key.partition("|")
                if not bar:
                    raise WeightsError(f"{path} is not a scorefield weights file: the tensor {key!r} has no set")
                sets.setdefault(name, {})[parameter] = file.get_tensor(key)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{path} ({path.stat().st_size} bytes) is truncated or not a safetensors file: {error}. Copy it again, or"
            f" use an earlier"
            " checkpoint of the run"
        ) from error
    return sets, metadata


def weight_sets(network: nn.Module, averages: Sets) -> dict[str, Mapping[str, Tensor]]:
    """All sets of a network being trained."""
    return {"fixed": fixed(network), "raw": dict(trained(network)), **averages}


def choose(sets: Sets, wanted: str | None, path: str | Path) -> str:
    """The name of the set to use: the one asked for, else the first average, else the raw weights.

    Raises:
        WeightsError: There is no such set in the file.
    """
    names = [name for name in sets if name != "fixed"]
    if wanted is None:
        return next((n for n in sorted(names) if n.startswith("ema")), "raw" if "raw" in names else names[0])
    if wanted == "ema" and any(n.startswith("ema") for n in names):
        return next(n for n in sorted(names) if n.startswith("ema"))
    if wanted not in names:
        raise WeightsError(f"{path} holds no weights {wanted!r}.{near(wanted, names)}")
    return wanted


HINTED = 12
"""Differences with a near match beside them: messages show no more, and finding matches is slow."""


def differences(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, theirs: str) -> list[str]:
    """Where names or shapes of tensors differ from a network's own, one line each; `theirs` is what holds them."""
    lines = [f"  missing in the {theirs}: {n} {tuple(own[n].shape)}" for n in own if n not in tensors]
    for name, value in tensors.items():
        if name not in own:
            close = difflib.get_close_matches(name, list(own), n=1) if len(lines) < HINTED else []
            lines.append(
                f"  unknown to the network: {name} {tuple(value.shape)}{f' (has {close[0]})' if close else ''}"
            )
        elif own[name].shape != value.shape:
            lines.append(f"  shape of {name}: {theirs} {tuple(value.shape)}, network {tuple(own[name].shape)}")
    return lines


def fill(network: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy tensors into a network by name, strictly.

    Raises:
        WeightsError: Names or shapes differ; every difference is listed.
    """
    own = network.state_dict()
    lines = differences(own, tensors, theirs="file")
    if lines:
        shown = lines[:12] + ([f"  ... and {len(lines) - 12} more"] if len(lines) > 12 else [])
        raise WeightsError(
            f"the weights in {origin} are of another architecture than experiment.json describes; {len(lines)}"
            f" differences:\n" + "\n".join(shown)
        )
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)
