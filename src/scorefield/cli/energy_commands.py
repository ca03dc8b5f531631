"""`scorefield energy MODEL ...` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class ScoreExamples:
    """Energy, gradient norm and denoising residual of each example: scores.npz and scores.csv.

    Energies are trained on noisy examples alone, so each is looked at with noise, averaged over draws. A model without
    an energy gives the rest.
    """

    data: str | None = None
    """Data. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """How many examples."""
    noise: float | None = None
    """Noise level, model units. Default: sigma_0 of an energy, else a tenth of the range of the data."""
    draws: int = 4
    """Draws of noise to average over."""
    seed: int = 0
    """Of the noise."""
    weights: str | None = None
    """raw, ema, ema:0.999, ... Default: the first average."""
    batch_size: int = 128
    """Examples at a time."""
    out: Path | None = None
    """Folder. Default: energy/MODEL/score."""


@dataclass(frozen=True)
class DenoiseExamples:
    """Remove noise in one step, x - sigma_0^2 grad E for an energy, the posterior mean for any other model."""

    data: str | None = None
    """Data. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 32
    """How many examples."""
    noise: float | None = None
    """Noise level, model units. Default: as for `score`."""
    as_is: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The data have that noise already: add none."""
    seed: int = 0
    """Of the noise."""
    weights: str | None = None
    """As for `score`."""
    batch_size: int = 128
    """Examples at a time."""
    out: Path | None = None
    """Folder. Default: energy/MODEL/denoise."""


@dataclass(frozen=True)
class RestoreExamples:
    """Fill in the unknown part of examples by Langevin dynamics at falling temperatures, several answers to each."""

    mask: str = "right"
    """What is unknown: left, right, top, bottom, centre, or an image or .npy of the event's height and width (nonzero:
    unknown)."""
    data: str | None = None
    """Data. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 8
    """How many examples."""
    answers: int = 4
    """Completions of each."""
    steps: int = 2700
    """Langevin steps; fewer go through the same temperatures faster."""
    noise_scale: Literal["matched", "published"] = "matched"
    """Noise on the known part: sigma_0 sqrt(T), or the release's sigma_0 T^(1/4)."""
    seed: int = 0
    """Of all noise."""
    weights: str | None = None
    """As for `score`."""
    batch_size: int = 128
    """Completions at a time."""
    out: Path | None = None
    """Folder. Default: energy/MODEL/restore."""


@dataclass(frozen=True)
class Outliers:
    """How well the model tells outliers from its data: AUROC and more with intervals, beside scores without a model.

    The data are divided in three: one part fits medians and covariances, one calibrates p-values, one is compared with
    the outliers. Writes outliers.json, outliers.html and the scores.
    """

    outside: Annotated[str, tyro.conf.arg(name="out")]
    """Outliers: data of the model's shape and range; "uniform", noise over the range; "constant", one value each."""
    inside: Annotated[str | None, tyro.conf.arg(name="in")] = None
    """Examples of the data. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1500
    """Examples of the data, and half as many outliers, at most."""
    fit: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Resize outliers of another size, map their range, and repeat a grey channel, and say so."""
    likelihood: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also -log p by the probability flow, where the model has one; slow."""
    alpha: float = 0.05
    """Share of the data that a p-value below alpha should flag."""
    noise: float | None = None
    """Noise level at which examples are looked at, model units. Default: as for `score`."""
    draws: int = 4
    """Draws of noise to average over."""
    resamples: int = 1000
    """Of the bootstrap."""
    seed: int = 0
    """Of noise, division and bootstrap."""
    weights: str | None = None
    """As for `score`."""
    batch_size: int = 128
    """Examples at a time; finished ones are kept, and the same command goes on where it was stopped."""
    report: Path | None = None
    """Folder. Default: energy/MODEL/outliers."""


@dataclass(frozen=True)
class LogNormaliser:
    """log Z of exp(-E / T), by annealed importance sampling in both directions, with interval and verdict.

    The reverse direction starts from chains at T, once from noisy data and once from noise through falling
    temperatures; where the two tell different numbers one misses modes, and there is no estimate. Bits per dimension of
    held-out data follow, of data smoothed by the noise sigma_0 sqrt(T).
    """

    temperature: float = 1.0
    """T; it stands for the noise sigma_0 sqrt(T)."""
    confinement: Literal["ball", "box"] = "ball"
    """An energy need not be bounded below: it is normalised with a wall around a ball that holds the data, by a path
    from a Gaussian about them, or on a box, by a path from the uniform law, which is much longer."""
    box: tuple[float, float] | None = None
    """Ends of the box, the same for every coordinate, model units. Default: the range of the data and five noise levels
    on either side."""
    chains: int = 128
    """Chains of each direction."""
    warmup: int = 1000
    """Steps at T of the chains from which the reverse direction starts; as many again at falling temperatures for those
    from noise."""
    work_variance: float = 0.7
    """Variance of the log weight of a chain that the pilot aims at; smaller makes more rungs."""
    most_rungs: int = 4000
    """Of them."""
    data: str | None = None
    """Data that the chains start from, with noise. Default: the held-out part of the model's own."""
    seed: int = 0
    """Of all noise."""
    weights: str | None = None
    """As for `score`."""
    batch_size: int = 64
    """Chains at a time; finished ones are kept, and the same command goes on where it was stopped."""
    out: Path | None = None
    """Folder. Default: energy/MODEL/logz."""


Action = (
    Annotated[ScoreExamples, tyro.conf.subcommand("score")]
    | Annotated[DenoiseExamples, tyro.conf.subcommand("denoise")]
    | Annotated[RestoreExamples, tyro.conf.subcommand("restore")]
    | Annotated[Outliers, tyro.conf.subcommand("outliers")]
    | Annotated[LogNormaliser, tyro.conf.subcommand("logz")]
)


@dataclass(frozen=True)
class Energy:
    """Numbers from energies and scores: score, denoise, restore, outliers, log Z."""

    model: tyro.conf.Positional[str]
    """A run or model folder, or a bundled model."""
    action: tyro.conf.OmitSubcommandPrefixes[Action]
    """What to do."""
