"""Metrics against torch-fidelity: the same images, the same Inception weights, the same settings; equal to 1e-4.

    python benchmarks/metrics_parity.py                                # 2 x 100 images, random weights
    python benchmarks/metrics_parity.py --images 2200 --layer 2048     # FID of 2048 features needs so many
    python benchmarks/metrics_parity.py --weights weights-inception-2015-12-05-6726825d.pth

Needs torch-fidelity, torchvision (which torch-fidelity imports; a build without compiled operators will do) and
scikit-learn. Images are 32 x 32 patches of scikit-learn's two photographs; "samples" are other patches of the same with
a change of colour and noise of 25 levels. Random weights are drawn so that activations keep their size through the
layers (He et al. 2015), saved, and given to both by file.

Where the two libraries mean different things by default, settings are chosen in which they mean the same:

* Inception score: torch-fidelity shuffles and cuts into 10 splits, we sort by a hash and cut. With 1 split both are the
  score of all; for 10 splits our formula is given the samples in torch-fidelity's order.
* KID: torch-fidelity averages over random subsets; 1 subset of all images is our estimator of all pairs. It sums
  kernels of order 1 in float32, which leaves some 1e-7 of the difference; its formula is also run in float64, as ours.
* precision and recall: k = 3, both by default; torch-fidelity's default network for them is VGG-16, here Inception.
* FID: none. It needs more images than features (else both numbers measure N), so a hundred images are compared in 64
  features, and 2048 features in rows that are given to both.
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
    """Random patches of two photographs, uint8 (count, 3, size, size)."""
    draw = np.random.default_rng(seed)
    photographs = load_sample_images().images
    found = []
    for _ in range(count):
        photograph = photographs[draw.integers(len(photographs))]
        y, x = (draw.integers(side - size) for side in photograph.shape[:2])
        found.append(photograph[y : y + size, x : x + size].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(found))


def changed(x: Tensor, seed: int) -> Tensor:
    """Less contrast, a shift of colour and noise of 25 levels, rounded to 8 bits."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    shift = torch.tensor([10.0, 0.0, -10.0]).reshape(3, 1, 1)
    return (0.6 * x.float() + 30.0 + shift + 25.0 * noise).round().clamp(0, 255).to(torch.uint8)


def random_weights(path: Path) -> Path:
    """A state dict of the Inception network drawn at random, on disk."""
    extractor = extractor_module().FeatureExtractorInceptionV3

    class Blank(extractor):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Stay as initialised."""

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network = Blank("blank", ["2048"], feature_extractor_weights_path=empty)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


def without_operators() -> None:
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
    """What torch-fidelity takes: uint8 images one by one."""

    def __init__(self, x: Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


def theirs(samples: Tensor, real: Tensor, weights: Path, layer: str) -> dict[str, float]:
    """torch-fidelity's numbers of what torch-fidelity's extractor gives, one pass of each set."""
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    layers = list(dict.fromkeys([layer, "2048", "logits_unbiased"]))
    extractor = create_feature_extractor(
        "inception-v3-compat", layers, feature_extractor_weights_path=str(weights), cuda=False, verbose=False
    )
    a, b = (get_featuresdict_from_dataset(Images(x), extractor, 50, False, True, False) for x in (samples, real))
    fid, _ = frechet_and_precision(a[layer], b[layer])
    _, shares = frechet_and_precision(a["2048"], b["2048"], distance=False)
    whole = isc_features_to_metric(a["logits_unbiased"], splits=1, shuffle=False)
    cut = isc_features_to_metric(a["logits_unbiased"], splits=SPLITS, shuffle=False)
    return {
        f"FID, {layer} features": fid,
        **kernel(a["2048"], b["2048"], ", 2048 features"),
        "precision, 2048 features": shares[0],
        "recall, 2048 features": shares[1],
        "Inception score, 1 split": whole["inception_score_mean"],
        f"Inception score, {SPLITS} splits": cut["inception_score_mean"],
    }


def kernel(a: Tensor, b: Tensor, what: str) -> dict[str, float]:
    """torch-fidelity's KID in float64; in float32, as it is by default, it is a small difference of large sums."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    found = {}
    for dtype, name in ((torch.float64, "KID"), (torch.float32, "KID in float32")):
        number = kid_features_to_metric(a.to(dtype), b.to(dtype), kid_subsets=1, kid_subset_size=len(a), verbose=False)
        found[f"{name}{what}"] = number["kernel_inception_distance_mean"]
    return found


def frechet_and_precision(a: Tensor, b: Tensor, distance: bool = True) -> tuple[float, tuple[float, float]]:
    """torch-fidelity's FID, precision and recall of features."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    shares = prc_features_to_metric(a, b, verbose=False)
    statistics = [fid_features_to_statistics(x) for x in (a, b)] if distance else []
    fid = fid_statistics_to_metric(*statistics, verbose=False) if distance else {"frechet_inception_distance": math.nan}
    return fid["frechet_inception_distance"], (shares["precision"], shares["recall"])


def ours(samples: Tensor, real: Tensor, weights: Path, layer: str) -> dict[str, float]:
    """Our numbers of the same."""
    preparation = ImagePreparation(0.0, 255.0, resize="torch-fidelity")
    deep = InceptionFeatures.load(preparation, weights=weights)
    narrow = deep if layer == "2048" else InceptionFeatures.load(preparation, weights=weights, layer=layer)  # type: ignore[arg-type]
    reference = Reference(real, name="patches")
    score = InceptionScore(deep.probabilities, reference, splits=1)
    metrics = [
        FrechetDistance(narrow, reference, batch_size=50),
        KernelDistance(deep, reference, batch_size=50),
        Precision(deep, reference),
        Recall(deep, reference),
        score,
    ]
    in_order = []
    for batch in samples.split(50):
        for metric in metrics:
            metric.update(batch)
        in_order.append(deep.probabilities(batch))
    fid, kid, precision, recall, one = (float(metric.compute()) for metric in metrics)
    return {
        f"FID, {layer} features": fid,
        "KID, 2048 features": kid,
        "KID in float32, 2048 features": kid,
        "precision, 2048 features": precision,
        "recall, 2048 features": recall,
        "Inception score, 1 split": one,
        f"Inception score, {SPLITS} splits": mean_score(torch.cat(in_order), SPLITS)[0].number,
    }


def given_features(count: int, width: int) -> dict[str, tuple[float, float]]:
    """Both libraries' numbers of features that are given: as many as an Inception network has, and more rows."""
    draw = torch.Generator().manual_seed(3)
    # A few directions that matter and a little of every other, as in a trained network.
    mixing = torch.randn(20, width, generator=draw) / 20**0.5

    def rows(scale: float, shift: float) -> Tensor:
        main, rest = (torch.randn(count, size, generator=draw) for size in (20, width))
        return (scale * main @ mixing + 0.2 * rest + shift).relu()

    real, samples = rows(1.0, 0.0), rows(1.05, 0.02)
    reference, features = Reference(real, name="given"), RawFeatures()
    metrics = [kind(features, reference) for kind in (FrechetDistance, KernelDistance, Precision, Recall)]
    numbers = [float(result) for result in measure_all(metrics, samples)]
    fid, shares = frechet_and_precision(samples, real)
    kid = kernel(samples, real, ", given")
    here = [numbers[0], numbers[1], numbers[1], *numbers[2:]]
    names = ["Frechet distance, given", *kid, "precision, given", "recall, given"]
    return dict(zip(names, zip(here, (fid, *kid.values(), *shares), strict=True), strict=True))


def main() -> None:
    """Print the table; a difference beyond 1e-4 is said, and the exit code is 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="of each set, a multiple of 10")
    parser.add_argument("--layer", default="64", help="of the FID: 64, 192, 768 or 2048, fewer than images")
    parser.add_argument("--weights", type=Path, help="file of Inception weights; random ones unless given")
    parser.add_argument("--given", type=int, default=2200, help="rows of the given features")
    arguments = parser.parse_args()
    without_operators()
    rows = given_features(arguments.given, 2048)
    show(f"2 x {arguments.given} rows of 2048 given features", rows)
    real, samples = patches(arguments.images, 0), changed(patches(arguments.images, 1), 2)
    with tempfile.TemporaryDirectory() as folder:
        weights = arguments.weights or random_weights(Path(folder) / "random.pth")
        start = time.perf_counter()
        here = ours(samples, real, weights, arguments.layer)
        middle = time.perf_counter()
        there = theirs(samples, real, weights, arguments.layer)
        end = time.perf_counter()
    images = {name: (here[name], there[name]) for name in there}
    kind = "random" if arguments.weights is None else weights.name
    show(f"2 x {arguments.images} images, Inception with weights {kind}", images)
    print(f"ours {middle - start:.0f} s, torch-fidelity {end - middle:.0f} s")
    judged = {name: pair for name, pair in (rows | images).items() if "float32" not in name}
    worst = max(difference(*pair) for pair in judged.values())
    verdict = "equal" if worst <= TOLERANCE else "NOT EQUAL"
    print(f"largest relative difference but in float32 {worst:.1e}: {verdict} to {TOLERANCE:g}")
    raise SystemExit(worst > TOLERANCE)


def difference(a: float, b: float) -> float:
    """Relative."""
    return abs(a - b) / max(abs(b), 1e-12)


def show(title: str, rows: dict[str, tuple[float, float]]) -> None:
    """Print a table of both."""
    print(f"\n{title}\n{'':<32}{'scorefield':>16}{'torch-fidelity':>16}{'relative':>12}")
    for name, pair in rows.items():
        print(f"{name:<32}{pair[0]:>16.8g}{pair[1]:>16.8g}{difference(*pair):>12.1e}", flush=True)


if __name__ == "__main__":
    main()
