"""`scorefield edit`: posterior samples of examples of which something is known; paths between examples.

posterior_samples  inpaint, colorize, restore
class_conditional  class
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitSubcommandPrefixes, arg, subcommand

from scorefield.cli.console.arguments import (
    SAMPLERS,
    SOLVERS,
    BatchSize,
    Count,
    Data,
    ModelName,
    Number,
    Out,
    Rtol,
    SamplerName,
    Seed,
    Steps,
    Weights,
    Whole,
)


@dataclass(frozen=True)
class PosteriorSamples:
    """Flags shared by all actions that draw posterior samples."""

    model: ModelName
    data: Data = None
    n: Count = 8
    """Number of examples."""
    samples: Whole = 4
    """Posterior samples of each example."""
    noise: Number = 0.0
    """Standard deviation of the measurement noise, data units; it is added to what is measured here."""
    solver: Annotated[str, arg(metavar=SOLVERS)] = "auto"
    """Posterior solver; auto prints its choice and the reason."""
    sampler: Annotated[str | None, arg(metavar=SAMPLERS)] = None
    """Sampler by name, for solvers that admit several. Default: the solver's own."""
    steps: Steps = None
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 64
    """Samples per network call; finished batches are kept, and the same command continues an interrupted one."""
    out: Out = None
    """Output folder. Default: edit/MODEL/ACTION."""


@dataclass(frozen=True)
class Inpaint(PosteriorSamples):
    """Fill in the unknown part of examples, several samples of each."""

    mask: Annotated[str, arg(metavar="NAME|FILE")] = "right"
    """Unknown part: left, right, top, bottom, centre, or an image or .npy of the height and width of an example
    (nonzero: unknown)."""


@dataclass(frozen=True)
class Colorize(PosteriorSamples):
    """Colour grey images: the mean of the channels is known."""


@dataclass(frozen=True)
class Restore(PosteriorSamples):
    """Invert a measurement: sharpen, enlarge, fill in, reconstruct."""

    operator: Annotated[str, arg(metavar="OPERATOR")] = "blur:sigma=1"
    """Measurement operator in data units: blur:sigma=2, downsample:2, mask:centre, grey, fourier:share=0.3,
    projections:angles=12, sums:axis=1, convolution:kernel.npy, matrix:A.npy."""
    measured: Annotated[str | None, arg(metavar="FILE")] = None
    """An .npy of measurements, one for each example, instead of measuring data here."""


@dataclass(frozen=True)
class Interpolate:
    """Paths between pairs of examples through their latents; the same as `scorefield latents interpolate`."""

    model: ModelName
    data: Data = None
    n: Count = 16
    """Number of examples, in pairs."""
    points: Whole = 9
    """Points on each path."""
    path: Literal["spherical", "linear"] = "spherical"
    """Along the sphere of the prior, or along a straight line."""
    rtol: Rtol = 1e-4
    weights: Weights = None
    out: Out = None
    """Output folder. Default: edit/MODEL/interpolate."""


@dataclass(frozen=True)
class ClassConditional:
    """Samples of a class, or conditioned on numbers y, by guidance.

    With --guide from any model of the guidance model's process and data; without it from a model that was trained with
    conditions and drop-out (data.conditional=true, training.condition_dropout=0.1), classifier-free. The same as
    `scorefield sample` with --condition, --guide and --scale.
    """

    model: ModelName
    label: Annotated[str | None, arg(metavar="CLASS")] = None
    """Class, by number or name."""
    y: Annotated[str | None, arg(metavar="Y1,Y2,...")] = None
    """Numbers y, for a guidance model of kind likelihood or a vector condition."""
    guide: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Guidance model of `train-guide`. Default: classifier-free guidance."""
    scale: Number = 1.0
    """Guidance scale: 0 is no guidance, 1 the distribution of x given y, larger values strengthen the condition."""
    n: Count = 16
    """Number of samples."""
    sampler: SamplerName = None
    """Sampler by name. Default: the model's own."""
    steps: Steps = None
    seed: Seed = 0
    weights: Weights = None
    batch_size: BatchSize = None
    out: Out = None
    """Output folder. Default: edit/MODEL/class."""


Action = (
    Annotated[Inpaint, subcommand("inpaint")]
    | Annotated[Colorize, subcommand("colorize")]
    | Annotated[ClassConditional, subcommand("class")]
    | Annotated[Restore, subcommand("restore")]
    | Annotated[Interpolate, subcommand("interpolate")]
)


@dataclass(frozen=True)
class Edit:
    """Posterior samples of partly known examples: inpaint, colorize, class, restore; interpolate between examples."""

    action: OmitSubcommandPrefixes[Action]


def run(command: Edit) -> None:
    """Carry out the command."""
    action = command.action
    if isinstance(action, Interpolate):
        from scorefield.cli.latents import Latents
        from scorefield.cli.latents import run as latents

        out = action.out or Path("edit") / Path(action.model).name / "interpolate"
        latents(
            Latents(
                "interpolate", action.model, data=action.data, n=action.n, points=action.points, path=action.path,
                rtol=action.rtol, weights=action.weights, out=out,
            )
        )  # fmt: skip
    elif isinstance(action, ClassConditional):
        from scorefield.cli.edit.class_conditional import class_conditional

        class_conditional(action)
    else:
        from scorefield.cli.edit.posterior_samples import edit

        edit(action)
