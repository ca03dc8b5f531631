"""`scorefield train-guide` and `scorefield edit MODEL class` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

UseAppend = tyro.conf.UseAppendAction


@dataclass(frozen=True)
class TrainGuide:
    """Train a guide for a model: p_t(y | x) of its noisy examples, whose gradient leads its samples to y.

    Under the model's own process, and in its units. `scorefield edit MODEL class --guide OUT` samples with it.
    """

    model: tyro.conf.Positional[str]
    """A run or model folder, or the name of a bundled model."""
    kind: Literal["classifier", "likelihood"] = "classifier"
    """classifier: y is a class. likelihood: y is one or more numbers, normal given x."""
    data: str | None = None
    """Examples with labels, as for train; numbers y are a second array of an .npz, named by --set data.label_key=NAME
    (the examples by data.key). Default: the model's own."""
    out: Path | None = None
    """Guide folder. Default: runs/MODEL-guide."""
    resume: Literal["no", "auto"] = "no"
    """auto goes on from the newest checkpoint in OUT, exactly where it was."""
    weights: str | None = None
    """Of the model, whose hash the guide keeps; training does not use them."""
    settings: Annotated[UseAppend[tuple[str, ...]], tyro.conf.arg(name="set", metavar="FIELD=VALUE")] = ()
    """Change a field of the guide's experiment, for example --set network=WideResNet --set training.steps=500;
    repeatable."""


@dataclass(frozen=True)
class ClassConditional:
    """Samples of a class, or of a number y, by guidance.

    With --guide from any model of the guide's process and data; without one from a model that was trained with
    conditions and drop-out (data.conditional=true, training.condition_dropout=0.1), classifier-free. The same as
    `scorefield sample` with --condition, --guide and --scale.
    """

    label: str | None = None
    """The class, by number or name."""
    y: Annotated[str | None, tyro.conf.arg(metavar="Y1,Y2,...")] = None
    """Numbers y, for a guide of kind likelihood or a vector condition."""
    guide: str | None = None
    """Folder of `train-guide`. Default: classifier-free guidance."""
    scale: float = 1.0
    """0 is no guidance, 1 the law of x given y, more insists on y."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 16
    """How many."""
    sampler: str | None = None
    """A sampler by name, as for `sample`. Default: the one the model was made with."""
    steps: int | None = None
    """Steps of the sampler."""
    seed: int = 0
    """Of all noise; sample i depends on the seed and i alone."""
    weights: str | None = None
    """raw, ema, ema:0.999, ... Default: the first average."""
    batch_size: int | None = None
    """Samples at a time. Default: at most 128."""
    out: Path | None = None
    """Folder. Default: edit/MODEL/class."""
