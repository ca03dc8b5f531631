"""Feature extractors by name, for the command line."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal, get_args

from torch import nn

from scorefield.data_spec import DataSpec
from scorefield.metrics.features.feature import Features, ModuleFeatures, RawFeatures
from scorefield.metrics.features.images import Gray, Quantise
from scorefield.metrics.features.inception import InceptionFeatures
from scorefield.metrics.features.networks import OnnxFeatures, efficientnet_lite0

FeatureName = Literal["raw", "inception", "efficientnet-lite0"]


def features_by_name(
    name: str,
    spec: DataSpec,
    *,
    gray: Gray = "refuse",
    quantise: Quantise = "round",
    weights: str | Path | None = None,
    device: str = "cpu",
) -> Features:
    """The feature function of a name.

    Args:
        name: "raw" (the values), "inception" (of 2015), "efficientnet-lite0", a file "NAME.onnx", or
            "module:attribute", a torch module or a function of a batch that can be imported. The last two are given
            data units.
        spec: What the examples are.
        gray: Images of one channel, for the first two networks: "repeat" gives them three.
        quantise: Conversion to 8 bits, for the first two networks.
        weights: File of Inception weights; None downloads them.
        device: Device of Inception and of modules.

    Raises:
        ValueError: No such name; the message lists them. Or data that the network does not take.
        TypeError: The attribute is neither a module nor a function.
        ImportError: A package is not installed, or there is no such module or attribute.
        FileNotFoundError: A file of weights or of ONNX is missing.
    """
    if weights is not None and name != "inception":
        raise ValueError(f"weights={str(weights)!r} are for the features 'inception', and these are {name!r}")
    if name == "raw":
        return RawFeatures()
    if name == "inception":
        return InceptionFeatures.load(spec, weights=weights, gray=gray, quantise=quantise, device=device)
    if name == "efficientnet-lite0":
        return efficientnet_lite0(spec, gray=gray, quantise=quantise)
    if name.endswith(".onnx"):
        return OnnxFeatures(name)
    if ":" in name:
        return _imported(name, device)
    raise ValueError(
        f"there are no features {name!r}; use {', '.join(get_args(FeatureName))}, a file NAME.onnx, or module:attribute"
        " (a torch module or a function of a batch, importable); `scorefield evaluate` also trains a `classifier`"
    )


def _imported(name: str, device: str) -> ModuleFeatures:
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"features {name!r} cannot be imported ({error}); the module must be installed or lie on PYTHONPATH"
        ) from None
    if isinstance(found, type):
        raise TypeError(f"features {name!r} are a class; name an instance of it, or a function (B, *event) -> (B, F)")
    return ModuleFeatures(found.to(device) if isinstance(found, nn.Module) else found, name=name)  # type: ignore[arg-type]
