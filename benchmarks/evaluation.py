"""Images per second of an evaluation whose features are computed while the next samples are drawn, or after them.

    python benchmarks/evaluation.py                          # table on the screen, benchmarks/results/evaluation.json
    python benchmarks/evaluation.py --rounds 9 --threads 1 2

A small convolutional score model draws 3 x 16 x 16 images in a few reverse-diffusion steps. The number of blocks of a
convolutional feature network is chosen so that computing the features of a part takes about as long as drawing it. The
variant "after" finishes a part before it draws the next one; the variant "overlapped" is `SampleStream`. Both write the
same parts, whose bytes are compared at the end.

How to read the numbers. The two variants alternate, and every ratio is that of two consecutive runs; the median over
rounds is given with the smallest and largest ratio. On CPUs sampling and features share the cores: with as many torch
threads as cores there is little idle time to use, and with fewer threads the features run on a core of their own. On an
accelerator sampling and features share the device, and only waiting times overlap: launches, transfers, hashing and
disk. The last row has a feature extractor that sleeps as long as drawing a part takes, as if another device did its
work: there the ratio stays below 2 only because of the first and last part and of the overhead of the two variants.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.data_spec import DataSpec
from scorefield.evaluation import OfModel, SampleStream, ranges
from scorefield.metrics import Features, ModuleFeatures
from scorefield.models.experiment import Experiment
from scorefield.models.loading import default_device
from scorefield.models.model import Model
from scorefield.models.networks import build_network
from scorefield.recipes import recipe
from scorefield.sampling.named import named


def score_model(channels: int, device: torch.device) -> Model:
    """Return an untrained score model of 3 x 16 x 16 images; its cost is that of a trained one."""
    base: Experiment = recipe("images")
    spec = DataSpec((3, 16, 16), 0.0, 255.0, 256)
    network: Any = base.network
    experiment = replace(base, spec=spec, network=replace(network, channels=channels, blocks=1))
    torch.manual_seed(0)
    return Model(experiment, build_network(experiment).to(device).eval().requires_grad_(False))


class Convolutions(nn.Module):
    """A feature network of pooled convolutions at 8 x 8, whose cost is proportional to the number of blocks."""

    def __init__(self, blocks: int, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(blocks):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x / 255.0).mean(dim=(2, 3))


class SleepingFeatures:
    """A feature extractor that takes a given time without using a core, like one on another device."""

    name, hash = "computed elsewhere", "elsewhere"

    def __init__(self, seconds: float):
        self._seconds = seconds

    def __call__(self, x: Tensor) -> Tensor:
        time.sleep(self._seconds)
        return x.reshape(len(x), -1)[:, :64]


def seconds(work: Any, *arguments: Any) -> float:
    """Return the wall-clock time of a call."""
    began = time.perf_counter()
    work(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def features_like(draws: OfModel, size: int, device: torch.device) -> tuple[Features, float, float]:
    """Return a feature network that takes as long as drawing, and the seconds per part of drawing and of features."""
    draws.draw(0, size)
    drawing = statistics.median(seconds(draws.draw, 0, size) for _ in range(3))
    x = draws.draw(0, size)["x"]

    def build(blocks: int) -> tuple[Features, float]:
        torch.manual_seed(1)
        features = ModuleFeatures(Convolutions(blocks).requires_grad_(False).to(device), name=f"{blocks} convolutions")
        features(x)
        return features, statistics.median(seconds(features, x) for _ in range(3))

    per_block = max(1e-6, (build(24)[1] - build(4)[1]) / 20)
    features, cost = build(max(1, round(drawing / per_block)))
    return features, drawing, cost


def run_sequentially(stream: SampleStream, n: int) -> None:
    """Draw and finish one part after the other, in one thread."""
    for first, count in ranges(n, stream.size):
        stream._finish((first, stream._drawn(first, count), True), False)


def file_contents(folder: Path) -> list[bytes]:
    """Return the contents of all parts in a folder."""
    return [p.read_bytes() for p in sorted(folder.rglob("*.npz"))]


def measure(threads: int, n: int, size: int, rounds: int, steps: int, channels: int, sleeping: bool) -> dict[str, Any]:
    """Return one row of the table.

    Args:
        threads: torch threads.
        n: Samples of an evaluation.
        size: Samples in a part.
        rounds: Repetitions of both variants.
        steps: Sampler steps.
        channels: Width of the score network.
        sleeping: Whether the feature extractor sleeps instead of computing.
    """
    torch.set_num_threads(threads)
    device = default_device()
    model = score_model(channels, device)
    draws = OfModel(model, named("reverse-diffusion", model.process, steps), size=size)
    features, drawing, cost = features_like(draws, size, device)
    if sleeping:
        features, cost = SleepingFeatures(drawing), drawing
    speeds: dict[str, list[float]] = {"after": [], "overlapped": []}
    for round_number in range(rounds):
        order = ("after", "overlapped") if round_number % 2 == 0 else ("overlapped", "after")
        with tempfile.TemporaryDirectory() as folder:
            for name in order:
                stream = SampleStream(draws, [features], Path(folder) / name, size)
                work = (lambda s=stream: run_sequentially(s, n)) if name == "after" else (lambda s=stream: s.run(n))
                speeds[name].append(n / seconds(work))
            same = file_contents(Path(folder) / "after") == file_contents(Path(folder) / "overlapped")
            if not same and device.type == "cpu":
                raise SystemExit("the two variants wrote different parts, so that their speeds are not comparable")
    ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": threads,
        "seconds a part, drawing": drawing,
        "seconds a part, features": cost,
        "features": features.name,
        "images per second, after": statistics.median(speeds["after"]),
        "images per second, overlapped": statistics.median(speeds["overlapped"]),
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("-n", type=int, default=256)
    parser.add_argument("--size", type=int, default=16, help="samples in a part")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "evaluation.json")
    chosen = parser.parse_args()
    rows = []
    for threads, sleeping in [*((t, False) for t in chosen.threads), (chosen.threads[0], True)]:
        row = measure(threads, chosen.n, chosen.size, chosen.rounds, chosen.steps, chosen.channels, sleeping)
        rows.append(row)
        median, low, high = row["ratio"]
        print(
            f"{row['device']}, {threads} torch threads, {row['features']}: a part of {chosen.size} takes"
            f" {row['seconds a part, drawing']:.3f} s to draw and {row['seconds a part, features']:.3f} s for features;"
            f" one after the other {row['images per second, after']:.1f} images/s,"
            f" overlapped {row['images per second, overlapped']:.1f}: x {median:.2f} ({low:.2f} to {high:.2f})",
            flush=True,
        )
    machine = {"cores": os.cpu_count(), "platform": platform.platform(), "torch": str(torch.__version__)}
    settings = {k: v for k, v in vars(chosen).items() if k != "out"}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"rows": rows, "settings": settings, "machine": machine}, indent=1) + "\n")
    print(chosen.out)


if __name__ == "__main__":
    main()
