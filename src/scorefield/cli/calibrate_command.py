"""`scorefield calibrate ...` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Calibrate:
    """Whether posterior samples are as wide as they should be, solver by solver: problems whose truths are known.

    Truths are drawn and measured, y = A(x) + noise, each solver answers every y, and the ranks of the truths among the
    answers, the coverage of intervals, TARP and residuals say which answers are to be trusted. Every finished batch of
    problems is kept in OUT, and the same command goes on where it was.
    """

    subject: tyro.conf.Positional[str]
    """A run or model folder, the name of a bundled model (digits), or oracle:NAME with gaussian-8d, mixture-2d,
    mixture-8d, mixture-64d or field, whose exact posterior stands beside the solvers."""
    operator: str | None = None
    """What is measured, data units: blur:sigma=1, mask:right, downsample:2, ... Default: mixtures of all entries, half
    as many as there are."""
    noise: float | None = None
    """Standard deviation of the noise of y, in its units. Default: a tenth of the deviation of what is measured."""
    solvers: Annotated[str, tyro.conf.arg(metavar="all|A,B,...")] = "all"
    """Some of ddrm, diffpir, dps, langevin, moment-matched, pigdm, repaint, replacement, twisted, separated by commas;
    or all that go with the operator."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """Problems; intervals shrink with their root."""
    answers: int = 32
    """Posterior samples of each problem."""
    steps: int | None = None
    """Steps of every solver's own sampler. Default: its own number."""
    truth: Literal["model", "data"] = "model"
    """Of a model: truths are its own samples, which tests the solvers alone, or held-out data, which tests both."""
    data: str | None = None
    """With --truth data: in place of the held-out part of the model's own."""
    seed: int = 0
    """Of truths, noise and answers."""
    weights: str | None = None
    """raw, ema, ema:0.999, ... Default: the first average."""
    batch_size: int = 128
    """Answers at a time."""
    out: Path | None = None
    """Folder. Default: calibration/SUBJECT."""
