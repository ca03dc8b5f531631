"""`scorefield edit MODEL ...` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scorefield.cli.guide_commands import ClassConditional

SolverName = Literal[
    "auto",
    "ddrm",
    "diffpir",
    "dps",
    "langevin",
    "moment-matched",
    "pigdm",
    "repaint",
    "replacement",
    "twisted",
]
"""auto, and the names of `inference.inverse.solvers`; a test compares the two."""


@dataclass(frozen=True)
class Answering:
    """What is asked of every answer."""

    data: str | None = None
    """Examples to measure. Default: the held-out part of the model's own data."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 8
    """How many examples."""
    answers: int = 4
    """Posterior samples of each."""
    noise: float = 0.0
    """Standard deviation of the noise of what is known, data units; it is added to what is measured here."""
    solver: SolverName = "auto"
    """How to sample what is unknown given what is known; auto says its choice."""
    sampler: str | None = None
    """A sampler by name (pc, ald, ...), for solvers that go with several. Default: the solver's own."""
    steps: int | None = None
    """Steps of the sampler. Default: its own number."""
    seed: int = 0
    """Of all noise."""
    weights: str | None = None
    """raw, ema, ema:0.999, ... Default: the first average."""
    batch_size: int = 64
    """Answers at a time; finished ones are kept, and the same command goes on where it was stopped."""
    out: Path | None = None
    """Folder. Default: edit/MODEL/ACTION."""


@dataclass(frozen=True)
class Inpaint(Answering):
    """Fill in the unknown part of examples, several answers to each."""

    mask: str = "right"
    """What is unknown: left, right, top, bottom, centre, or an image or .npy of the event's height and width (nonzero:
    unknown)."""


@dataclass(frozen=True)
class Colorize(Answering):
    """Colours for the grey values of images: the mean of their channels is what is known."""


@dataclass(frozen=True)
class Restore(Answering):
    """Undo a measurement: sharpen, enlarge, fill in, reconstruct."""

    operator: str = "blur:sigma=1"
    """What is measured, in data units: blur:sigma=2, downsample:2, mask:centre, grey, fourier:share=0.3,
    projections:angles=12, sums:axis=1, convolution:kernel.npy, matrix:A.npy."""
    measured: str | None = None
    """An .npy of measurements, one for each example, in place of measuring data here."""


@dataclass(frozen=True)
class Interpolate:
    """Paths between pairs of examples, through their latents; the same as `scorefield latents interpolate`."""

    data: str | None = None
    """Data to encode. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """How many examples, in pairs."""
    points: int = 9
    """Points of each path."""
    path: Literal["spherical", "linear"] = "spherical"
    """Along the sphere of the prior, or straight."""
    rtol: float = 1e-4
    """Relative tolerance of the solver; the absolute one is the same."""
    weights: str | None = None
    """As for `inpaint`."""
    out: Path | None = None
    """Folder. Default: edit/MODEL/interpolate."""


Action = (
    Annotated[Inpaint, tyro.conf.subcommand("inpaint")]
    | Annotated[Colorize, tyro.conf.subcommand("colorize")]
    | Annotated[ClassConditional, tyro.conf.subcommand("class")]
    | Annotated[Restore, tyro.conf.subcommand("restore")]
    | Annotated[Interpolate, tyro.conf.subcommand("interpolate")]
)


@dataclass(frozen=True)
class Edit:
    """Examples given what is known of them: inpaint, colorize, class, restore; interpolate between examples."""

    model: tyro.conf.Positional[str]
    """A run or model folder, or a bundled model."""
    action: tyro.conf.OmitSubcommandPrefixes[Action]
    """What to do."""
