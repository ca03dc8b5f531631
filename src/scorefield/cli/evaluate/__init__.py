"""`scorefield evaluate`: metrics of samples against real data.

parts        samples in parts, and their metrics
checkpoints  choosing a checkpoint
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from scorefield.cli.console.arguments import Compile, Out, Precision, SamplerName, Seed, Steps, Weights, Whole

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
"""The metrics that can choose a checkpoint, `metrics.by_name.SELECTING`; a test compares the two."""


@dataclass(frozen=True)
class Evaluate:
    """Compare samples with real data: metrics with confidence intervals and provenance, as JSON and as a page.

    Samples and their features are kept part by part in OUT/parts: the same command continues an interrupted one, a
    larger -n continues a smaller one, and under torchrun the processes share the parts. With --checkpoints, a
    checkpoint is chosen on one split and reported on another.
    """

    target: Positional[
        Annotated[
            str,
            arg(
                metavar="MODEL|FOLDER|DATA",
                help="A model, a folder of samples, or samples of any origin in a format that --data of `train` takes"
                " (then give --reference).",
            ),
        ]
    ]
    reference: Annotated[str | None, arg(metavar="DATA")] = None
    """Real data that samples are compared with, or an .npz of their statistics (mu and sigma, or features). Default:
    the model's own held-out data."""
    n: Annotated[int | None, arg(aliases=["-n"], metavar="N")] = None
    """Number of samples to draw from a model, or to use of a folder. Default: 1000 of a model, all of a folder."""
    metrics: Annotated[str, arg(metavar="default|all|NAME,...")] = "default"
    """Metrics by name: fid, fid-infinity, kid, mmd, precision, recall, density, coverage, inception-score, vendi,
    sliced-wasserstein, energy-distance, memorisation, neighbours, stacked-modes and, for a model, bits-per-dim."""
    sampler: SamplerName = None
    """Sampler by name; tuned is the one that `scorefield tune` found. Default: the model's own."""
    steps: Steps = None
    seed: Seed = 0
    weights: Weights = None
    features: Annotated[str, arg(metavar="auto|classifier|raw|inception|...")] = "auto"
    """Feature extractor of the metrics: classifier (trained on the labelled real data), raw (the values), inception,
    efficientnet-lite0, FILE.onnx or module:attribute. auto is classifier where there are labels, else raw. Only the
    Frechet distance over inception is the papers' FID."""
    inception: Annotated[Path | None, arg(metavar="FILE")] = None
    """File with the weights for --features inception. Default: torch's hub folder, else they are downloaded."""
    gray: Literal["refuse", "repeat"] = "refuse"
    """Images of one channel for feature extractors of photographs: refuse them, or repeat the channel three times."""
    quantise: Literal["round", "truncate", "none"] = "round"
    """Conversion to 8 bits for feature extractors of photographs. The 2021 tables of score SDEs truncate."""
    early: Whole = 1000
    """Print estimates after this many samples, where more are to come; 0 for none."""
    checkpoints: Annotated[str | None, arg(metavar="all|last:K|STEP,...")] = None
    """Choose between these checkpoints of a run: each draws -n samples from the same noise."""
    select: SelectName = "fid"
    """With --checkpoints: metric that chooses the checkpoint."""
    on: Literal["val", "train"] = "val"
    """With --checkpoints: data for the choice. val is one half of the held-out examples, and the other half is
    reported; train is the training examples, and all held-out examples are reported."""
    examples: Whole = 128
    """Held-out examples for bits-per-dim."""
    precision: Annotated[Literal["fp32", "bf16"], Precision] = "fp32"
    compile: Compile = False
    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Examples per network call, and per part on disk."""
    cache: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder with features of real data, shared between evaluations. Default: OUT/features."""
    out: Out = None
    """Output folder. Default: evaluation/TARGET."""


def run(command: Evaluate) -> None:
    """Carry out the command: evaluate samples, or choose a checkpoint."""
    if command.checkpoints is not None:
        from scorefield.cli.evaluate.checkpoints import sweep

        sweep(command)
        return
    from scorefield.cli.evaluate.samples import evaluate

    evaluate(command)
