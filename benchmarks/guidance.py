"""Class-conditional digits: accuracy of guided samples by an independent classifier, against the scale of guidance.

    python benchmarks/guidance.py --out runs/guidance

Trains, where OUT does not hold them yet, a classifier guide for the bundled digits model (`scorefield train-guide
digits`) and a conditional model with drop-out (the recipe digits with data.conditional=true and
training.condition_dropout=0.15, which is guided without a classifier). Then it draws n digits, as many of each class,
at every scale, and asks a support vector machine that was trained on the real training digits which class they are.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

import scorefield as sf
from scorefield.data import DataSource, Split, open_data
from scorefield.models.guidance import Guide
from scorefield.models.model import Model
from scorefield.recipes import recipe
from scorefield.training.guidance import guide_experiment, train_guide, with_data
from scorefield.training.trainer import train

SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
Z = 1.96


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    p, z2 = right / n, Z**2
    centre, half = p + z2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)


def whole(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """All examples, flattened, and their classes."""
    x, _ = split.batch(range(len(split)))
    assert split.labels is not None
    return x.float().flatten(1).numpy(), np.asarray(split.labels)


def spread(x: np.ndarray, labels: np.ndarray) -> float:
    """Variance within the classes, summed over pixels."""
    return float(np.mean([x[labels == k].var(0, ddof=1).sum() for k in np.unique(labels)]))


def measured(model: Model, judge: SVC, real: float, labels: Tensor, sampler: str, steps: int) -> dict[str, float]:
    """Accuracy with its interval, spread within classes relative to the real digits, calls and seconds a sample."""
    began = time.perf_counter()
    samples = model.sample(len(labels), sampler=model.sampler(sampler, steps), condition={"class": labels}, seed=1)
    x = samples.x.clamp(0.0, 16.0).flatten(1).numpy()
    right = int((judge.predict(x) == labels.numpy()).sum())
    low, high = wilson(right, len(labels))
    return {
        "accuracy": right / len(labels),
        "low": low,
        "high": high,
        "spread": spread(x, labels.numpy()) / real,
        "calls": float(samples.nfe.double().mean()),
        "seconds": (time.perf_counter() - began) / len(labels),
    }


def trained(out: Path, guide_steps: int, free_steps: int) -> tuple[Guide, Model]:
    """The guide and the conditional model, trained where they are not there yet."""
    digits = sf.load("digits")
    experiment = guide_experiment(digits, "classifier")
    experiment = replace(experiment, training=replace(experiment.training, steps=guide_steps))
    experiment, data = with_data(experiment, "classifier", digits, open_data(experiment.data))
    began = time.perf_counter()
    guide, found = train_guide(experiment, data, out / "guide", resume="auto")
    print(f"guide: step {guide.step}, {time.perf_counter() - began:.0f} s")
    assert found is not None
    for level in found.levels:
        print(f"  sigma {level.sigma:8.3f}  wrong {100 * level.error:5.1f} %  loss {level.loss:.3f} nats")
    base = recipe("digits")
    conditional = replace(
        base,
        data=replace(base.data, conditional=True),
        training=replace(base.training, steps=free_steps, condition_dropout=0.15),
    )
    began = time.perf_counter()
    free = sf.load(train(conditional, out / "conditional", resume="auto"))
    print(f"conditional model: step {free.step}, {time.perf_counter() - began:.0f} s")
    return guide, free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/guidance"))
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--sampler", default="pc")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--guide-steps", type=int, default=2000)
    parser.add_argument("--free-steps", type=int, default=2000)
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    settings = parser.parse_args()
    data = open_data(DataSource("digits"))
    assert data.held_out is not None
    (x, y), (held_x, held_y) = whole(data.train), whole(data.held_out)
    judge = SVC(C=10.0, gamma="scale").fit(x, y)
    print(
        f"the judge, a support vector machine, has {100 * judge.score(held_x, held_y):.1f} % of real test digits right"
    )
    digits, (guide, free) = sf.load("digits"), trained(settings.out, settings.guide_steps, settings.free_steps)
    labels, rows = torch.arange(settings.n) % 10, []
    for way in ("classifier", "classifier-free"):
        for scale in settings.scales:
            model = digits.guided(guide, scale) if way == "classifier" else free.guided(scale=scale)
            row = measured(model, judge, spread(x, y), labels, settings.sampler, settings.steps)
            rows.append({"way": way, "scale": scale, **row})
            share, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
            print(
                f"| {way} | {scale:g} | {share:.1f} ({low:.1f} to {high:.1f}) |"
                f" {row['spread']:.2f} | {row['calls']:.0f} | {1e3 * row['seconds']:.0f} |",
                flush=True,
            )
    record = {"n": settings.n, "sampler": settings.sampler, "steps": settings.steps, "rows": rows}
    (settings.out / "guidance.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
