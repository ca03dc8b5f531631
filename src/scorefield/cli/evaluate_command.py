"""`scorefield evaluate` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scorefield.cli.sampler_names import SamplerName

SelectName = Literal[
    "fid",
    "fid-infinity",
    "kid",
    "mmd",
    "precision",
    "recall",
    "coverage",
    "inception-score",
    "vendi",
    "sliced-wasserstein",
    "energy-distance",
]
"""`lab.evaluation.SELECTING`; a test compares the two."""


@dataclass(frozen=True)
class Evaluate:
    """Compare samples with real data: metrics with receipts, as JSON and as a page.

    Samples and their features are kept part by part in OUT/parts: the same command goes on where it was stopped, a
    larger -n goes on from a smaller one, and under torchrun the processes share the parts. With --checkpoints, choose a
    checkpoint on one split and report it on another.
    """

    target: tyro.conf.Positional[str]
    """A model, a folder of samples, or samples of any origin, as data for train --data (then give --reference)."""
    reference: str | None = None
    """Real data, or an .npz of their statistics (mu and sigma, or features). Default: the held-out part of the model's
    own data."""
    n: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Samples to draw from a model, or to use of a folder. Default: 1000 of a model, all of a folder."""
    metrics: Annotated[str, tyro.conf.arg(metavar="default|all|NAME,...")] = "default"
    """Of fid, fid-infinity, kid, mmd, precision, recall, density, coverage, inception-score, vendi, sliced-wasserstein,
    energy-distance, memorisation, neighbours, stacked-modes and, of a model, bits-per-dim."""
    sampler: SamplerName | Literal["tuned"] | None = None
    """As for `sample`."""
    steps: int | None = None
    """Steps of the sampler."""
    seed: int = 0
    """Of the samples."""
    weights: str | None = None
    """As for `sample`."""
    features: str = "auto"
    """What metrics look through: classifier (trained on the labelled real data), raw (the values), inception,
    efficientnet-lite0, FILE.onnx or module:attribute. auto is classifier where there are labels, else raw. Only the
    Frechet distance through inception is the papers' FID."""
    inception: Path | None = None
    """File of the weights of --features inception. Default: torch's hub folder, else they are downloaded."""
    gray: Literal["refuse", "repeat"] = "refuse"
    """Images of one channel, for networks of photographs: repeat gives them three."""
    quantise: Literal["round", "truncate", "none"] = "round"
    """To 8 bits, for networks of photographs. The 2021 tables of score SDEs truncate."""
    early: int = 1000
    """Estimate everything after so many samples, where more are to come; 0 for never."""
    checkpoints: Annotated[str | None, tyro.conf.arg(metavar="all|last:K|STEP,...")] = None
    """Choose between these checkpoints of a run: each draws -n samples of the same noise."""
    select: SelectName = "fid"
    """With --checkpoints: the metric that chooses."""
    on: Literal["val", "train"] = "val"
    """With --checkpoints: what chooses. val is one half of the held-out examples, and the other half reports; train is
    the training examples, and all held-out ones report."""
    examples: int = 128
    """Held-out examples of bits-per-dim."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the network computes in; states stay float32. bf16 is for samplers on a grid of steps, not for ode."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile the network (torch.compile); worth it on accelerators."""
    batch_size: int = 128
    """Samples at a time, which is also the size of a part."""
    cache: Path | None = None
    """Folder of features of real data, to share between evaluations. Default: OUT/features."""
    out: Path | None = None
    """Folder. Default: evaluation/TARGET."""
