"""The Inception network of published scores: the graph of 2015-12-05, as torch-fidelity ported it.

FID, KID, precision and recall use its pool 3 (2048 numbers), and the Inception score the softmax of
its 1008 logits without their bias (Salimans et al. 2016; the bias is left out as in the release of that paper). Both
come from one pass: `InceptionFeatures` and its `probabilities` are two views of one network.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import sys
import urllib.error
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scorefield._codec import dumps
from scorefield.data_spec import DataSpec
from scorefield.metrics.features.feature import Remembered, View
from scorefield.metrics.features.images import Gray, ImagePreparation, Quantise, image_preparation
from scorefield.metrics.receipt import module_hash

Layer = Literal["64", "192", "768", "2048"]
CLASSES = 1008
"""Logits of the network."""
PUBLISHED = "6726825d"
"""Beginning of the sha256 of the published weights, which their file name ends with."""
FILES = (f"weights-inception-2015-12-05-{PUBLISHED}.pth", f"pt_inception-2015-12-05-{PUBLISHED}.pth")
"""Names of the weights file in torch-fidelity and in pytorch-fid."""


class InceptionFeatures(View):
    """Pool 3 of the Inception network: (B, C, H, W) in data units -> (B, 2048); its note says with which weights.

    Args:
        network: Maps uint8 (B, 3, H, W) to features (B, F) and logits (B, K); `load` makes the published one.
        preparation: Conversion to 8 bits and resize "torch-fidelity".
        layer: Description of the activations that are the features.
        classes: K.
        note: What a reader should know of the weights.

    Raises:
        ValueError: A preparation that does not give 8-bit images.
    """

    def __init__(
        self,
        network: nn.Module,
        preparation: ImagePreparation,
        *,
        layer: str = "pool 3",
        classes: int = CLASSES,
        note: str = "",
    ):
        plain = (preparation.resize, preparation.mean, preparation.deviation) == ("torch-fidelity", 0.0, 1.0)
        if preparation.quantise == "none" or not plain:
            raise ValueError(
                f"the Inception network takes 8-bit images and resizes and normalises them itself; got {preparation}."
                " Use quantise='round' or 'truncate', resize='torch-fidelity', mean=0 and deviation=1"
            )
        self.preparation = preparation
        both = Remembered(_Both(network.eval().requires_grad_(False), preparation, layer, note))
        head, bits = "Inception 2015", preparation.bits
        super().__init__(both, lambda rows: rows[:, :-classes], name=f"{head}, {layer}, {bits}", hash=both.hash)
        self.probabilities = View(
            both,
            lambda rows: rows[:, -classes:].double().softmax(dim=1).float(),
            name=f"{head}, class probabilities, {bits}",
            hash=both.hash,
        )
        """Softmax of the logits, for `InceptionScore`."""

    @classmethod
    def load(
        cls,
        data: DataSpec | ImagePreparation,
        *,
        weights: str | Path | None = None,
        gray: Gray = "refuse",
        quantise: Quantise = "round",
        layer: Layer = "2048",
        device: str = "cpu",
    ) -> InceptionFeatures:
        """The published network, from a local file of weights, or downloaded where there is a network.

        Args:
            data: What the examples are; or their preparation, with which gray and quantise are given.
            weights: File of weights, as .pth or .safetensors; None looks into torch's hub folder, then downloads.
            gray: "repeat" takes data of one channel.
            quantise: "truncate" is the protocol of the 2021 score SDE tables.
            layer: Number of the pooled activations.
            device: Device of the network.

        Raises:
            ImportError: torch-fidelity is not installed.
            FileNotFoundError: No weights here, and none to be had; the message says where to put them.
            ValueError: Weights of another network, or data that are no images.
        """
        if isinstance(data, DataSpec):
            data = image_preparation(data, gray=gray, quantise=quantise, resize="torch-fidelity")
        network, note = load_inception(weights, layer)
        what = "pool 3" if layer == "2048" else f"{layer} features"
        return cls(network.to(device), data, layer=what, note=note)


class _Both:
    """Features, then logits, of every image side by side."""

    name = "Inception 2015, features and logits"

    def __init__(self, network: nn.Module, preparation: ImagePreparation, layer: str, note: str):
        self._network = network
        self._preparation = preparation
        self.hash = hashlib.sha256(f"{module_hash(network)} {layer} {dumps(preparation)}".encode()).hexdigest()
        self.note = f"{preparation.text}; {note}" if note else preparation.text

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        device = next((p.device for p in self._network.parameters()), torch.device("cpu"))
        features, logits = self._network(self._preparation(x.to(device)).to(torch.uint8))
        return torch.cat([features, logits], dim=1).cpu()


def load_inception(weights: str | Path | None = None, layer: Layer = "2048") -> tuple[nn.Module, str]:
    """The network of torch-fidelity with weights from a file, and a note that says which; see `InceptionFeatures.load`.

    The weights are read as plain tensors before the package sees them, since it would unpickle whatever a file holds.
    """
    extractor = extractor_module()
    path = _downloaded(extractor.URL_INCEPTION_V3) if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} of Inception weights")
    tensors = _tensors(path)
    plain = io.BytesIO()
    torch.save(tensors, plain)
    plain.seek(0)
    try:
        network = extractor.FeatureExtractorInceptionV3(
            "inception-v3-compat", [layer, "logits_unbiased"], feature_extractor_weights_path=plain
        )
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds other weights than those of the Inception network of 2015 ({str(error)[:200]} ...)"
        ) from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published = "the published weights" if digest.startswith(PUBLISHED) else "not the published weights"
    return network, f"weights {path.name}, sha256 {digest[:12]}, {published}"


def extractor_module() -> ModuleType:
    """torch-fidelity's module of the network.

    Its front page imports torchvision, which the network does not need and which has no build for many a torch. So
    where the package is not imported yet, this module is imported from under an empty one, which is then taken away.
    """
    name = "torch_fidelity"
    module = f"{name}.feature_extractor_inceptionv3"
    if name in sys.modules:
        return importlib.import_module(module)
    found = importlib.util.find_spec(name)
    if found is None or found.submodule_search_locations is None:
        raise ImportError("the Inception network needs torch-fidelity: pip install 'scorefield[metrics]'")
    bare = ModuleType(name)
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules[name] = bare
    try:
        return importlib.import_module(module)
    finally:
        for key in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[key]


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(str(path))
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: no archive, cut short, or something other than tensors
        raise ValueError(f"{path} cannot be read as weights, plain tensors ({str(error)[:200]})") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} is no state dict of a network, a dictionary of tensors")
    return dict(found)


def _downloaded(url: str) -> Path:
    """The weights in torch's hub folder, downloaded unless they are there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    path = folder / FILES[0]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=PUBLISHED, progress=False)
    except (urllib.error.URLError, OSError) as error:
        raise FileNotFoundError(
            f"the Inception weights could not be downloaded from {url} ({error}). Fetch that file where there is a"
            f" network and put it at {path}, or give its place: weights=FILE"
        ) from None
    return path
