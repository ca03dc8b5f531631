"""`scorefield energy`: energies of examples, denoising, restoration, outliers and normalising constants.

examples  score, denoise, restore
outliers  outliers
logz      logz
at_noise  energies at a noise level, shared by the actions
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import OmitSubcommandPrefixes, arg, subcommand

from scorefield.cli.console.arguments import Count, Data, Flag, ModelName, Noise, Number, Out, Seed, Weights, Whole


@dataclass(frozen=True)
class ScoreExamples:
    """Energy, gradient norm and denoising residual of each example, as scores.npz and scores.csv.

    Energies are trained on noisy examples only, so noise is added to each example and the results are averaged over
    draws. A model without an energy gives the other numbers.
    """

    model: ModelName
    data: Data = None
    n: Count = 1000
    """Number of examples."""
    noise: Noise = None
    """Noise level, model units. Default: sigma_0 of an energy, else a tenth of the range of the data."""
    draws: Whole = 4
    """Noise draws to average over."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Examples per network call."""
    out: Out = None
    """Output folder. Default: energy/MODEL/score."""


@dataclass(frozen=True)
class DenoiseExamples:
    """Remove noise in one step: x - sigma_0^2 grad E for an energy, the posterior mean for any other model."""

    model: ModelName
    data: Data = None
    n: Count = 32
    """Number of examples."""
    noise: Noise = None
    """Noise level, model units. Default: sigma_0 of an energy, else a tenth of the range of the data."""
    as_is: Flag = False
    """The data already have this noise: add none."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Examples per network call."""
    out: Out = None
    """Output folder. Default: energy/MODEL/denoise."""


@dataclass(frozen=True)
class RestoreExamples:
    """Fill in the unknown part of examples by Langevin dynamics at falling temperatures, several samples of each."""

    model: ModelName
    mask: Annotated[str, arg(metavar="NAME|FILE")] = "right"
    """Unknown part: left, right, top, bottom, centre, or an image or .npy of the height and width of an example
    (nonzero: unknown)."""
    data: Data = None
    n: Count = 8
    """Number of examples."""
    samples: Whole = 4
    """Completions of each example."""
    steps: Whole = 2700
    """Number of Langevin steps; fewer steps pass through the same temperatures faster."""
    noise_scale: Literal["matched", "published"] = "matched"
    """Noise on the known part: sigma_0 sqrt(T), or sigma_0 T^(1/4) as in the release."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Completions per network call."""
    out: Out = None
    """Output folder. Default: energy/MODEL/restore."""


@dataclass(frozen=True)
class Outliers:
    """How well a model detects outliers: AUROC and more with intervals, beside baselines without a model.

    The data are divided in three: one part fits medians and covariances, one calibrates p-values, one is compared with
    the outliers. Writes outliers.json, outliers.html and the scores.
    """

    model: ModelName
    outliers: Annotated[str, arg(metavar="DATA|uniform|constant")]
    """Outliers: data of the model's shape and range; uniform, noise over the range; or constant, one value for each."""
    data: Data = None
    n: Count = 1500
    """Largest number of examples of the data; outliers are half as many at most."""
    fit: Flag = False
    """Resize outliers of another size, map their range and repeat a grey channel, and print that this was done."""
    likelihood: Flag = False
    """Also score by -log p of the probability flow, where the model has one; slow."""
    alpha: Number = 0.05
    """Level of the p-values: the share of the data that should be flagged."""
    noise: Noise = None
    """Noise level of the scored examples, model units. Default: sigma_0 of an energy, else a tenth of the range."""
    draws: Whole = 4
    """Noise draws to average over."""
    resamples: Whole = 1000
    """Bootstrap resamples."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Examples per network call; finished batches are kept, and the same command continues an interrupted one."""
    out: Out = None
    """Output folder. Default: energy/MODEL/outliers."""


@dataclass(frozen=True)
class NormalisingConstant:
    """log Z of exp(-E / T), by annealed importance sampling in both directions, with an interval and a verdict.

    The reverse direction starts from chains at T, once from noisy data and once from noise through falling
    temperatures; where the two disagree, one of them misses modes and no estimate is given. Bits per dimension of
    held-out data smoothed by the noise sigma_0 sqrt(T) follow.
    """

    model: ModelName
    temperature: Number = 1.0
    """Temperature T; it corresponds to the noise level sigma_0 sqrt(T)."""
    confinement: Literal["ball", "box"] = "ball"
    """An energy need not be bounded below, so it is normalised within a region: a ball that holds the data, on a path
    from a Gaussian around them, or a box, on a much longer path from the uniform distribution."""
    box: Annotated[tuple[float, float] | None, arg(metavar="LOW HIGH")] = None
    """Ends of the box, the same for every coordinate, model units. Default: the range of the data and five noise levels
    on either side."""
    chains: Whole = 128
    """Chains in each direction."""
    warmup: Whole = 1000
    """Steps at T of the chains from which the reverse direction starts; the chains from noise take as many again at
    falling temperatures."""
    work_variance: Number = 0.7
    """Target variance of the log weight of a chain in the pilot run; smaller values give more temperatures."""
    max_rungs: Whole = 4000
    """Largest number of temperatures."""
    data: Data = None
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 64
    """Chains per network call; finished batches are kept, and the same command continues an interrupted one."""
    out: Out = None
    """Output folder. Default: energy/MODEL/logz."""


Action = (
    Annotated[ScoreExamples, subcommand("score")]
    | Annotated[DenoiseExamples, subcommand("denoise")]
    | Annotated[RestoreExamples, subcommand("restore")]
    | Annotated[Outliers, subcommand("outliers")]
    | Annotated[NormalisingConstant, subcommand("logz")]
)


@dataclass(frozen=True)
class Energy:
    """Energies and scores of examples: score, denoise, restore, outliers, and log Z."""

    action: OmitSubcommandPrefixes[Action]


def run(command: Energy) -> None:
    """Carry out the command."""
    action = command.action
    if isinstance(action, Outliers):
        from scorefield.cli.energy.outliers import outliers

        outliers(action)
    elif isinstance(action, NormalisingConstant):
        from scorefield.cli.energy.logz import log_normaliser

        log_normaliser(action)
    else:
        from scorefield.cli.energy.examples import energy

        energy(action)
