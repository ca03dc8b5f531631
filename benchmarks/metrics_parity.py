"""Metrics compared with those of torch-fidelity on the same images, Inception weights and settings; equal to 1e-4.

    python benchmarks/metrics_parity.py                                # 2 x 100 images, random weights
    python benchmarks/metrics_parity.py --images 2200 --layer 2048     # FID of 2048 features needs as many images
    python benchmarks/metrics_parity.py --weights weights-inception-2015-12-05-6726825d.pth

Needs torch-fidelity, torchvision (which torch-fidelity imports; a build without compiled operators suffices) and
scikit-learn. Images are 32 x 32 patches of scikit-learn's two photographs; "samples" are other patches of the same
photographs with changed colours and noise of 25 levels. Random weights are drawn so that activations keep their size
through the layers (He et al. 2015), saved, and loaded by both libraries from the same file.

Where the defaults of the two libraries differ, settings are chosen with which they define the same number:

* Inception score: torch-fidelity shuffles the samples and cuts them into 10 splits, we sort them by a hash and cut.
  With 1 split both give the score of all samples; for 10 splits our formula is applied in torch-fidelity's order.
* KID: torch-fidelity averages over random subsets; 1 subset of all images is our estimator over all pairs. It sums
  kernels of order 1 in float32, which leaves errors of about 1e-7; its formula is therefore also run in float64.
* precision and recall: both use k = 3 by default; torch-fidelity's default network for them is VGG-16, here Inception.
* FID: the definitions agree. It needs more images than features (otherwise both numbers measure N), so that a hundred
  images are compared with 64 features, and 2048 features with rows of random features that both libraries are given.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from scorefield.metrics import (
    FrechetDistance,
    ImagePreparation,
    InceptionFeatures,
    InceptionScore,
    KernelDistance,
    Precision,
    RawFeatures,
    Recall,
    Reference,
    measure_all,
)
from scorefield.metrics.features.inception import extractor_module
from scorefield.metrics.inception_score import mean_score

SPLITS = 10
TOLERANCE = 1e-4


def patches(count: int, seed: int, size: int = 32) -> Tensor:
    """Return random patches of two photographs, uint8 (count, 3, size, size)."""
    draw = np.random.default_rng(seed)
    photographs = load_sample_images().images
    crops = []
    for _ in range(count):
        photograph = photographs[draw.integers(len(photographs))]
        y, x = (draw.integers(side - size) for side in photograph.shape[:2])
        crops.append(photograph[y : y + size, x : x + size].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(crops))


def distorted(x: Tensor, seed: int) -> Tensor:
    """Return images with less contrast, shifted colours and noise of 25 levels, rounded to 8 bits."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    shift = torch.tensor([10.0, 0.0, -10.0]).reshape(3, 1, 1)
    return (0.6 * x.float() + 30.0 + shift + 25.0 * noise).round().clamp(0, 255).to(torch.uint8)


def random_weights(path: Path) -> Path:
    """Write a state dict of the Inception network with random weights and return its path."""
    extractor = extractor_module().FeatureExtractorInceptionV3

    class Uninitialised(extractor):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Load nothing: the constructor requires a file, which is empty here."""

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network = Uninitialised("blank", ["2048"], feature_extractor_weights_path=empty)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


def declare_operators() -> None:
    """Declare torchvision's compiled operators, so that a build without them can be imported; none is called here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        from importlib.util import find_spec

        found = find_spec("torchvision")
        assert found is not None and found.submodule_search_locations is not None
        source = (Path(found.submodule_search_locations[0]) / "_meta_registrations.py").read_text()
        for name in sorted(set(re.findall(r'"torchvision::(\w+)"|register_meta\("(\w+)"', source))):
            torch.library.define(f"torchvision::{name[0] or name[1]}", "() -> ()")


class Images(torch.utils.data.Dataset[Tensor]):
    """Data set of uint8 images, as torch-fidelity takes them."""

    def __init__(self, x: Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


def torch_fidelity_metrics(samples: Tensor, real: Tensor, weights: Path, layer: str) -> dict[str, float]:
    """Return torch-fidelity's metrics of the features of torch-fidelity's extractor, by one pass over each set."""
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    layers = list(dict.fromkeys([layer, "2048", "logits_unbiased"]))
    extractor = create_feature_extractor(
        "inception-v3-compat", layers, feature_extractor_weights_path=str(weights), cuda=False, verbose=False
    )
    a, b = (get_featuresdict_from_dataset(Images(x), extractor, 50, False, True, False) for x in (samples, real))
    fid, _ = frechet_and_precision(a[layer], b[layer])
    _, (precision, recall) = frechet_and_precision(a["2048"], b["2048"], distance=False)
    one_split = isc_features_to_metric(a["logits_unbiased"], splits=1, shuffle=False)
    several_splits = isc_features_to_metric(a["logits_unbiased"], splits=SPLITS, shuffle=False)
    return {
        f"FID, {layer} features": fid,
        **kernel_distances(a["2048"], b["2048"], ", 2048 features"),
        "precision, 2048 features": precision,
        "recall, 2048 features": recall,
        "Inception score, 1 split": one_split["inception_score_mean"],
        f"Inception score, {SPLITS} splits": several_splits["inception_score_mean"],
    }


def kernel_distances(a: Tensor, b: Tensor, suffix: str) -> dict[str, float]:
    """Return torch-fidelity's KID in float64 and in its default float32, a small difference of large sums.

    Args:
        a: Features of samples.
        b: Features of real images.
        suffix: Added to the names.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    distances = {}
    for dtype, name in ((torch.float64, "KID"), (torch.float32, "KID in float32")):
        number = kid_features_to_metric(a.to(dtype), b.to(dtype), kid_subsets=1, kid_subset_size=len(a), verbose=False)
        distances[f"{name}{suffix}"] = number["kernel_inception_distance_mean"]
    return distances


def frechet_and_precision(a: Tensor, b: Tensor, distance: bool = True) -> tuple[float, tuple[float, float]]:
    """Return torch-fidelity's FID (NaN without `distance`), and precision and recall, of features."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    manifold = prc_features_to_metric(a, b, verbose=False)
    statistics = [fid_features_to_statistics(x) for x in (a, b)] if distance else []
    fid = fid_statistics_to_metric(*statistics, verbose=False) if distance else {"frechet_inception_distance": math.nan}
    return fid["frechet_inception_distance"], (manifold["precision"], manifold["recall"])


def scorefield_metrics(samples: Tensor, real: Tensor, weights: Path, layer: str) -> dict[str, float]:
    """Return the same metrics by this library."""
    preparation = ImagePreparation(0.0, 255.0, resize="torch-fidelity")
    features = InceptionFeatures.load(preparation, weights=weights)
    fid_features = (
        features if layer == "2048" else InceptionFeatures.load(preparation, weights=weights, layer=layer)  # type: ignore[arg-type]
    )
    reference = Reference(real, name="patches")
    score = InceptionScore(features.probabilities, reference, splits=1)
    metrics = [
        FrechetDistance(fid_features, reference, batch_size=50),
        KernelDistance(features, reference, batch_size=50),
        Precision(features, reference),
        Recall(features, reference),
        score,
    ]
    probabilities = []
    for batch in samples.split(50):
        for metric in metrics:
            metric.update(batch)
        probabilities.append(features.probabilities(batch))
    fid, kid, precision, recall, one_split = (float(metric.compute()) for metric in metrics)
    return {
        f"FID, {layer} features": fid,
        "KID, 2048 features": kid,
        "KID in float32, 2048 features": kid,
        "precision, 2048 features": precision,
        "recall, 2048 features": recall,
        "Inception score, 1 split": one_split,
        f"Inception score, {SPLITS} splits": mean_score(torch.cat(probabilities), SPLITS)[0].number,
    }


def given_features(count: int, width: int) -> dict[str, tuple[float, float]]:
    """Return both libraries' metrics of random features, with more rows than features.

    Args:
        count: Rows of each set.
        width: Number of features.
    """
    draw = torch.Generator().manual_seed(3)
    # A few directions have most of the variance and all others a little, as in a trained network.
    mixing = torch.randn(20, width, generator=draw) / 20**0.5

    def rows(scale: float, shift: float) -> Tensor:
        main, rest = (torch.randn(count, size, generator=draw) for size in (20, width))
        return (scale * main @ mixing + 0.2 * rest + shift).relu()

    real, samples = rows(1.0, 0.0), rows(1.05, 0.02)
    reference, features = Reference(real, name="given"), RawFeatures()
    metrics = [kind(features, reference) for kind in (FrechetDistance, KernelDistance, Precision, Recall)]
    numbers = [float(result) for result in measure_all(metrics, samples)]
    fid, manifold = frechet_and_precision(samples, real)
    kid = kernel_distances(samples, real, ", given")
    ours = [numbers[0], numbers[1], numbers[1], *numbers[2:]]
    theirs = [fid, *kid.values(), *manifold]
    names = ["Frechet distance, given", *kid, "precision, given", "recall, given"]
    return dict(zip(names, zip(ours, theirs, strict=True), strict=True))


def main() -> None:
    """Print the tables; the exit status is 1 if a relative difference is above 1e-4."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="images of each set, a multiple of 10")
    parser.add_argument(
        "--layer", default="64", help="features of the FID: 64, 192, 768 or 2048, fewer than there are images"
    )
    parser.add_argument("--weights", type=Path, help="file of Inception weights; default: random weights")
    parser.add_argument("--given", type=int, default=2200, help="rows of the random features")
    arguments = parser.parse_args()
    declare_operators()
    rows = given_features(arguments.given, 2048)
    show(f"2 x {arguments.given} rows of 2048 random features", rows)
    real, samples = patches(arguments.images, 0), distorted(patches(arguments.images, 1), 2)
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights or random_weights(Path(folder) / "random.pth")
        start = time.perf_counter()
        ours = scorefield_metrics(samples, real, weights, arguments.layer)
        middle = time.perf_counter()
        theirs = torch_fidelity_metrics(samples, real, weights, arguments.layer)
        end = time.perf_counter()
    images = {name: (ours[name], theirs[name]) for name in theirs}
    kind = "random" if arguments.weights is None else weights.name
    show(f"2 x {arguments.images} images, Inception with weights {kind}", images)
    print(f"ours {middle - start:.0f} s, torch-fidelity {end - middle:.0f} s")
    compared = {name: pair for name, pair in (rows | images).items() if "float32" not in name}
    worst = max(difference(*pair) for pair in compared.values())
    verdict = "equal" if worst <= TOLERANCE else "NOT EQUAL"
    print(f"largest relative difference, without the rows in float32: {worst:.1e}, {verdict} to {TOLERANCE:g}")
    raise SystemExit(worst > TOLERANCE)


def difference(a: float, b: float) -> float:
    """Return the relative difference."""
    return abs(a - b) / max(abs(b), 1e-12)


def show(title: str, rows: dict[str, tuple[float, float]]) -> None:
    """Print a table of pairs of metrics."""
    print(f"\n{title}\n{'':<32}{'scorefield':>16}{'torch-fidelity':>16}{'relative':>12}")
    for name, pair in rows.items():
        print(f"{name:<32}{pair[0]:>16.8g}{pair[1]:>16.8g}{difference(*pair):>12.1e}", flush=True)


if __name__ == "__main__":
    main()
