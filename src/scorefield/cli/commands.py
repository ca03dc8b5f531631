"""The commands as data: what can be typed, with its help. Nothing here imports torch: --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scorefield.cli.calibrate_command import Calibrate
from scorefield.cli.compare_command import Compare
from scorefield.cli.doctor_command import Doctor
from scorefield.cli.edit_commands import Edit
from scorefield.cli.energy_commands import Energy
from scorefield.cli.evaluate_command import Evaluate
from scorefield.cli.guide_commands import TrainGuide
from scorefield.cli.sampler_names import SamplerName
from scorefield.cli.selftest_command import Selftest

LayoutName = Literal["score-sde", "ncsn", "ncsnv2", "acsm", "mdsm", "edm", "diffusers"]
"""The keys of `lab.bridges.BRIDGES`; a test compares the two."""

Set = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="FIELD=VALUE")]
UseAppend = tyro.conf.UseAppendAction


@dataclass(frozen=True)
class Demo:
    """Train, sample, score and report on the bundled 8x8 digits: about four minutes on two cores."""

    out: Path = Path("runs/demo")
    """Run folder; the report is OUT/report.html."""
    minutes: float = 2.2
    """Training time at most."""
    seed: int = 0
    """Of training and sampling."""


@dataclass(frozen=True)
class Train:
    """Train a recipe, on its own data or on yours.

    Fields of the experiment change with --set, for example --set training.batch_size=64 --set network.channels=64;
    `scorefield describe RECIPE` lists them all.
    """

    recipe: tyro.conf.Positional[str]
    """A recipe's name, or the path of an experiment.json."""
    data: str | None = None
    """Images, .npy/.npz/.pt arrays, IDX files, image parquet, or module:attribute. Default: the recipe's own."""
    out: Path | None = None
    """Run folder. Default: runs/RECIPE."""
    resume: Literal["no", "auto"] = "no"
    """auto goes on from the newest checkpoint in OUT, exactly where it was."""
    minutes: float | None = None
    """Stop, with a checkpoint, after so many minutes of training."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile the network (torch.compile); worth it on accelerators."""
    skip_bad: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave out images that cannot be read, and name them, in place of stopping."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Open the data, resolve and print the experiment, write nothing."""
    settings: Annotated[UseAppend[tuple[str, ...]], tyro.conf.arg(name="set", metavar="FIELD=VALUE")] = ()
    """Change a field of the experiment; repeatable."""


@dataclass(frozen=True)
class Sample:
    """Draw samples from a model into a folder: samples.npz (data units), a grid, and a record of how they were made."""

    model: tyro.conf.Positional[str]
    """A run or model folder, or the name of a bundled model (digits)."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many."""
    sampler: SamplerName | Literal["tuned"] | None = None
    """Default: the one the model was made with; tuned is what `tune` found."""
    steps: int | None = None
    """Steps of the sampler."""
    budget: Annotated[str | None, tyro.conf.arg(metavar="nfe=N|seconds=S|error=E")] = None
    """Choose sampler, order, grid and steps from what `compare-samplers` measured of this model, or measure quickly:
    network calls per sample, seconds for all, or a root mean square error in model units."""
    seed: int = 0
    """Of all noise; sample i depends on the seed and i alone."""
    start: int = 0
    """Index of the first sample."""
    condition: Annotated[UseAppend[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """A known condition, for example class=3; repeatable."""
    guide: str | None = None
    """Guide folder of `train-guide`, which leads to the condition."""
    scale: float = 1.0
    """Of guidance: 0 leaves the condition out, 1 is the law given it, more insists on it. Without --guide other scales
    than 1 are classifier-free, for models trained with condition drop-out."""
    weights: str | None = None
    """raw, ema, ema:0.999, ... Default: the first average."""
    batch_size: int | None = None
    """Samples at a time. Default: at most 128."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the network computes in; states stay float32. bf16 is for samplers on a grid of steps, not for ode."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile the network (torch.compile); worth it on accelerators."""
    out: Path | None = None
    """Folder. Default: samples/MODEL."""
    images: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also write every sample as a PNG of its own."""


@dataclass(frozen=True)
class CompareSamplers:
    """Measure every sampler that a model admits, at several numbers of network calls, from the same noise.

    Errors against the converged flow, distances to held-out data, seconds, failures, all with intervals; as a table, as
    samplers.json in the model folder (which `sample --budget` reads) and as a page.
    """

    model: tyro.conf.Positional[str]
    """A run or model folder, or the name of a bundled model (digits)."""
    data: str | None = None
    """Real data. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    """Samples of each sampler."""
    calls: str = "5,10,20,30,50,100"
    """Numbers of network calls per sample, separated by commas."""
    samplers: Annotated[str | None, tyro.conf.arg(metavar="A,B,...")] = None
    """Some samplers alone, for example ode,dpm; their table goes to --out, not into the model folder."""
    variants: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also other orders and grids of the samplers without noise; takes several times as long."""
    seed: int = 0
    """Of all noise."""
    weights: str | None = None
    """As for `sample`."""
    batch_size: int | None = None
    """Samples at a time. Default: at most 128."""
    out: Path | None = None
    """Folder of the page. Default: the model's own; for a bundled model, samplers/MODEL."""


@dataclass(frozen=True)
class Tune:
    """Find a sampler's settings (snr, Langevin step, eta, grid) by the distance of samples to held-out data.

    The result, sampler.json in the model folder, is used by --sampler tuned and never without being asked for.
    """

    model: tyro.conf.Positional[str]
    """A run or model folder, or the name of a bundled model (digits)."""
    data: str | None = None
    """Real data. Default: the held-out part of the model's own."""
    sampler: SamplerName | None = None
    """Whose settings. Default: the sampler that the model was made with."""
    calls: int | None = None
    """Network calls per sample. Default: those of the model's own sampler; 100 for one by name."""
    criterion: Literal["auto", "data", "flow"] = "auto"
    """Distance to held-out data, or to the samples of the converged flow; auto is data where there are some."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256
    """Samples for each value that is tried."""
    seed: int = 0
    """Of all noise."""
    weights: str | None = None
    """As for `sample`."""
    batch_size: int | None = None
    """Samples at a time. Default: at most 128."""
    out: Path | None = None
    """Folder for sampler.json. Default: the model's own."""


@dataclass(frozen=True)
class Likelihood:
    """Log density of data under a model by the probability flow, in nats and, for grey levels, bits/dim.

    It comes with an error budget and a 90 percent interval. With --out every finished batch is written at once, and the
    same command goes on where an interrupted one stopped.
    """

    model: tyro.conf.Positional[str]
    """A run or model folder, or a bundled model."""
    data: str | None = None
    """Data. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 128
    """How many examples."""
    way: Literal["flow", "bound", "both"] = "flow"
    """The probability flow, the variational bound of a model trained on levels, or one beside the other."""
    rtol: float = 1e-4
    """Relative tolerance of the solver; the absolute one is the same."""
    divergence: Literal["auto", "exact", "hutchinson", "hutch++"] = "auto"
    """Exact, or estimated with random probes."""
    probes: int = 2
    """Probes per example."""
    target_se: float | None = None
    """Add probes until each example's standard error is at most so many nats."""
    dequantise: Literal["uniform", "variational", "none"] | None = None
    """Noise inside the bins of grey levels. Default: uniform for data with grey levels, else none."""
    draws: int = 1
    """Dequantisation draws, or for the bound draws of every level; two or more show their spread."""
    seed: int = 0
    """Of probes, dequantisation and levels."""
    weights: str | None = None
    """As for `sample`."""
    batch_size: int | None = None
    """Examples at a time. Default: at most 128."""
    out: Path | None = None
    """Write likelihood.npz, likelihood.json and the finished batches into this folder."""


@dataclass(frozen=True)
class Latents:
    """Latents of the probability flow: encode data, walk between examples, change the temperature, compare models."""

    action: tyro.conf.Positional[Literal["encode", "interpolate", "temperature", "compare"]]
    """What to do."""
    model: tyro.conf.Positional[str]
    """A run or model folder, or a bundled model."""
    other: str | None = None
    """compare: the second model, trained separately on the same data."""
    data: str | None = None
    """Data to encode. Default: the held-out part of the model's own."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """How many examples (interpolate: in pairs) or latents (temperature)."""
    points: int = 9
    """Points of each path, or temperatures."""
    path: Literal["spherical", "linear"] = "spherical"
    """interpolate: along the sphere of the prior, or straight."""
    rtol: float = 1e-4
    """Relative tolerance of the solver; the absolute one is the same."""
    seed: int = 0
    """Of the latents (temperature) and of the shuffles (compare)."""
    weights: str | None = None
    """As for `sample`."""
    out: Path | None = None
    """Folder. Default: latents/MODEL."""


@dataclass(frozen=True)
class Describe:
    """Print a recipe or model in full: every field, parameters, and the source of its numbers."""

    target: tyro.conf.Positional[str]
    """A recipe's name, or a run or model folder."""
    settings: Annotated[UseAppend[tuple[str, ...]], tyro.conf.arg(name="set", metavar="FIELD=VALUE")] = ()
    """Change a field first; repeatable."""


@dataclass(frozen=True)
class DataCommand:
    """Look at data before training: shape, range, grey levels, NaNs, duplicates, and the command to train on them."""

    action: tyro.conf.Positional[Literal["inspect"]]
    """What to do."""
    path: tyro.conf.Positional[str]
    """As for train --data."""
    settings: Annotated[UseAppend[tuple[str, ...]], tyro.conf.arg(name="set", metavar="FIELD=VALUE")] = ()
    """Change a field of the data source, for example --set size=64; repeatable."""


@dataclass(frozen=True)
class Import:
    """Make a model folder of a release's checkpoint. Nothing in the checkpoint is executed.

    The release's configuration file says what the tensors cannot; without one, the flags below do.
    """

    layout: tyro.conf.Positional[LayoutName]
    """Which release's."""
    checkpoint: tyro.conf.Positional[Path]
    """The checkpoint file; for diffusers, the folder."""
    out: Path
    """The model folder to write."""
    config: Path | None = None
    """The release's configuration, JSON or YAML (ml_collections: config.to_json_best_effort() or to_yaml())."""
    weights: Literal["ema", "raw"] | None = None
    """The average of the weights, or the trained ones. Default: the average where there is one."""
    size: int | None = None
    """Without a configuration: height and width of the images."""
    sigma_min: float | None = None
    """Without a configuration: smallest noise level, model units."""
    sigma_max: float | None = None
    """Without a configuration: largest noise level, model units."""
    levels: int | None = None
    """Without a configuration: number of noise levels."""
    process: Literal["ve", "vp", "subvp"] | None = None
    """Without a configuration: family of the process."""
    discrete: bool | None = None
    """Without a configuration: trained on levels, not in continuous time."""


@dataclass(frozen=True)
class Export:
    """Write a model in another library's layout."""

    layout: tyro.conf.Positional[Literal["diffusers"]]
    """Which."""
    model: tyro.conf.Positional[str]
    """A run or model folder, or the name of a bundled model."""
    out: Path
    """The folder to write."""


@dataclass(frozen=True)
class CompareMethods:
    """Train every method of the lineage on the same data for the same time, and compare them; or models by their loss.

    One table with intervals and receipts, a page, and which of the papers' claims held. Every run is kept in OUT: a
    stopped command goes on where it was, and more seeds or methods can be added to a finished one.
    """

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """With --by objective: models to compare, in place of training any."""
    data: str = "digits"
    """As for train."""
    budget: str = "5m"
    """Training time of each method and seed, for example 60s, 5m, 1h."""
    seeds: int = 3
    """Trainings of each method."""
    methods: Annotated[str | None, tyro.conf.arg(metavar="A,B,...")] = None
    """Some of ncsn, ncsnv2, mdsm, adversarial, ve-discrete, ve, vp-discrete, vp, sub-vp. Default: all."""
    network: Literal["auto", "mlp", "unet"] = "auto"
    """What all scores share; auto is a U-Net for signals and images, and a perceptron for all else."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 512
    """Samples of each sampler."""
    calls: int = 500
    """Network calls of a sample, at most."""
    density: int = 64
    """Held-out examples whose density is measured, where the method has one; 0 for none."""
    by: Literal["samples", "objective"] = "samples"
    """What to compare; objective is the held-out loss of those with one weighting and one set of levels."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan with its time, and write nothing."""
    out: Path | None = None
    """Folder. Default: runs/compare-DATA."""


@dataclass(frozen=True)
class Reproduce:
    """Run a table or a figure of the papers: numbers with intervals, a figure, and whether its claims hold here."""

    name: tyro.conf.Positional[str | None] = None
    """Which; --list names all."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List every table and figure: whether it runs here, needs CUDA or needs weights, with time and memory."""
    effort: float = 1.0
    """Factor on particles, samples and training steps; claims are judged at 1."""
    seed: int = 0
    """Of everything random."""
    out: Path | None = None
    """Folder. Default: reproduced/NAME."""


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""

    names_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = field(default=False)
    """Without their descriptions."""


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[TrainGuide, tyro.conf.subcommand("train-guide")]
    | Annotated[Sample, tyro.conf.subcommand("sample")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[CompareSamplers, tyro.conf.subcommand("compare-samplers")]
    | Annotated[CompareMethods, tyro.conf.subcommand("compare-methods")]
    | Annotated[Tune, tyro.conf.subcommand("tune")]
    | Annotated[Likelihood, tyro.conf.subcommand("likelihood")]
    | Annotated[Latents, tyro.conf.subcommand("latents")]
    | Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Energy, tyro.conf.subcommand("energy")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Describe, tyro.conf.subcommand("describe")]
    | Annotated[DataCommand, tyro.conf.subcommand("data")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Selftest, tyro.conf.subcommand("selftest")]
    | Annotated[Recipes, tyro.conf.subcommand("recipes")]
)
