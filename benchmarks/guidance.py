"""Accuracy of class-conditional digits, by an independent classifier, against the guidance scale.

    python benchmarks/guidance.py --out runs/guidance

Two models are trained unless OUT already holds them: a classifier for the bundled digits model (`scorefield
train-guide digits`), and a conditional model with condition dropout for classifier-free guidance (the recipe digits
with data.conditional=true and training.condition_dropout=0.15). Then n digits, as many of each class, are drawn at
every scale and classified by a support vector machine that was trained on the real training digits.
"""

from __future__ import annotations

import argparse
import json
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
from scorefield.studies.papers.entry import wilson
from scorefield.training.guidance import guide_experiment, train_guide, with_data
from scorefield.training.trainer import train

SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


def all_examples(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return all examples of a split, flattened, and their classes."""
    x, _ = split.batch(range(len(split)))
    assert split.labels is not None
    return x.float().flatten(1).numpy(), np.asarray(split.labels)


def within_class_variance(x: np.ndarray, labels: np.ndarray) -> float:
    """Return the variance within classes, summed over pixels."""
    return float(np.mean([x[labels == k].var(0, ddof=1).sum() for k in np.unique(labels)]))


def measure(model: Model, classifier: SVC, real: float, labels: Tensor, sampler: str, steps: int) -> dict[str, float]:
    """Draw samples of given classes and measure them.

    Args:
        model: The guided model.
        classifier: The independent classifier.
        real: Variance within classes of the real digits.
        labels: Classes to draw, one sample each.
        sampler: Name of the sampler.
        steps: Its number of steps.

    Returns:
        Accuracy with its interval, variance within classes relative to the real digits, network evaluations and
        seconds per sample.
    """
    began = time.perf_counter()
    samples = model.sample(len(labels), sampler=model.sampler(sampler, steps), condition={"class": labels}, seed=1)
    x = samples.x.clamp(0.0, 16.0).flatten(1).numpy()
    correct = int((classifier.predict(x) == labels.numpy()).sum())
    low, high = wilson(correct, len(labels))
    return {
        "accuracy": correct / len(labels),
        "low": low,
        "high": high,
        "spread": within_class_variance(x, labels.numpy()) / real,
        "calls": float(samples.nfe.double().mean()),
        "seconds": (time.perf_counter() - began) / len(labels),
    }


def train_models(out: Path, guide_steps: int, conditional_steps: int) -> tuple[Guide, Model]:
    """Return the guide and the conditional model; those that OUT already holds are loaded, not trained."""
    digits = sf.load("digits")
    experiment = guide_experiment(digits, "classifier")
    experiment = replace(experiment, training=replace(experiment.training, steps=guide_steps))
    experiment, data = with_data(experiment, "classifier", digits, open_data(experiment.data))
    began = time.perf_counter()
    guide, found = train_guide(experiment, data, out / "guide", resume="auto")
    print(f"guide: step {guide.step}, {time.perf_counter() - began:.0f} s")
    assert found is not None
    for level in found.levels:
        print(f"  sigma {level.sigma:8.3f}  error rate {100 * level.error:5.1f} %  loss {level.loss:.3f} nats")
    base = recipe("digits")
    conditional_experiment = replace(
        base,
        data=replace(base.data, conditional=True),
        training=replace(base.training, steps=conditional_steps, condition_dropout=0.15),
    )
    began = time.perf_counter()
    conditional = sf.load(train(conditional_experiment, out / "conditional", resume="auto"))
    print(f"conditional model: step {conditional.step}, {time.perf_counter() - began:.0f} s")
    return guide, conditional


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/guidance"))
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--sampler", default="pc")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--guide-steps", type=int, default=2000)
    parser.add_argument("--free-steps", type=int, default=2000, help="training steps of the conditional model")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    settings = parser.parse_args()
    data = open_data(DataSource("digits"))
    assert data.held_out is not None
    (x, y), (held_x, held_y) = all_examples(data.train), all_examples(data.held_out)
    classifier = SVC(C=10.0, gamma="scale").fit(x, y)
    print(
        f"the support vector machine classifies {100 * classifier.score(held_x, held_y):.1f} % of the real held-out"
        " digits correctly"
    )
    digits = sf.load("digits")
    guide, conditional = train_models(settings.out, settings.guide_steps, settings.free_steps)
    labels, rows = torch.arange(settings.n) % 10, []
    for guidance in ("classifier", "classifier-free"):
        for scale in settings.scales:
            model = digits.guided(guide, scale) if guidance == "classifier" else conditional.guided(scale=scale)
            row = measure(model, classifier, within_class_variance(x, y), labels, settings.sampler, settings.steps)
            rows.append({"way": guidance, "scale": scale, **row})
            share, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
            print(
                f"| {guidance} | {scale:g} | {share:.1f} ({low:.1f} to {high:.1f}) |"
                f" {row['spread']:.2f} | {row['calls']:.0f} | {1e3 * row['seconds']:.0f} |",
                flush=True,
            )
    record = {"n": settings.n, "sampler": settings.sampler, "steps": settings.steps, "rows": rows}
    (settings.out / "guidance.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
