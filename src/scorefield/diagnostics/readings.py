"""Measurements of a score at each noise level, and the verdict of each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._typing import Condition
from scorefield.diagnostics.faults import MARGIN, Diagnosis, Verdict, worst
from scorefield.diagnostics.identities import LITTLE, Identity, calibration, fokker_planck, of_the_mean, probed
from scorefield.diagnostics.levels import Examined, Level
from scorefield.diagnostics.statistics import Size, mean_of, ratio_of, upper_tail
from scorefield.inverse.calibration import Estimate
from scorefield.likelihood.error_budget import Moments
from scorefield.process.process import Process
from scorefield.score.oracles import Gaussian
from scorefield.score.score import Score

SLACK = 0.2
"""Share of the loss that may be predicted wrongly at a level that is called healthy."""


@record(tag="DoctorRow")
class Row:
    """One noise level. Losses are E|z + sigma score|^2 / d, in variances of the noise: 1 for a score of 0.

    Without data only the level, the asymmetry and the Fokker-Planck equation are known.

    Args:
        time: t.
        alpha: Scale of the data.
        sigma: Deviation of the noise, model units.
        asymmetry: |J - J'| / |J|.
        fokker_planck: Squared residual over the squared rate of the score.
        verdict: The verdict in one word.
        loss: Loss of the examples.
        explained: 1 - E|x_0 - D|^2 / E|x_0 - mean|^2: of the variance of x_0, against the best constant.
        floor: Share of the loss above that of the exact score, where that is known.
        gaussian: Share of the loss above that of the exact score of a Gaussian with the data's moments (negative:
            below it, as it should be).
        bias: Bias of the posterior means, model units.
        slope_x0: Slope of the regression of x_0 on D.
        slope_z: Slope of the regression of z on the noise estimated by the score.
        calibration: Loss that the score predicts, by its divergence, over the one that it has.
        gap: 1 - loss of training examples / loss: what they are spared.
        rejected: Identities that fail.
    """

    time: float
    alpha: float
    sigma: float
    asymmetry: Size | None
    fokker_planck: Size | None
    verdict: Verdict
    loss: Size | None = None
    explained: Size | None = None
    floor: Size | None = None
    gaussian: Size | None = None
    bias: Size | None = None
    slope_x0: Size | None = None
    slope_z: Size | None = None
    calibration: Size | None = None
    gap: Size | None = None
    rejected: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------- readings


def losses(level: Level, h: Tensor) -> Tensor:
    """|z - h|^2 / d, (n,)."""
    return (level.z.flatten(1) - h).square().mean(dim=1)


class Training:
    """References from training examples: the Gaussian with their moments, and the loss of the score on them."""

    def __init__(
        self, score: Score, examined: Examined, train: Tensor, condition: Condition | None, seed: int, batch_size: int
    ):
        self.x = train.detach().to(examined.x0)
        moments = Moments.of(self.x)
        covariance = moments.covariance
        shape = self.x.shape[1:]
        covariance = covariance if covariance.ndim == 2 else covariance.clamp_min(1e-12).reshape(shape)
        self.gaussian = _gaussian(examined.process, moments.mean.reshape(shape), covariance)
        count = min(len(examined.x0), len(self.x))
        some = {name: value[:count] for name, value in (condition or {}).items()} or None
        # A seed of its own: the noise of example i would else be that of example i held out.
        times = [level.time for level in examined.levels]
        mine = Examined(score.bind(some), examined.process, self.x[:count], times, seed=seed + 1, batch_size=batch_size)
        self.losses = [losses(at, mine.noise(at.x, at.time, at.sigma)) for at in mine.levels]

    def excess(self, level: Level, h: Tensor) -> Tensor | None:
        """Loss of the score less that of the Gaussian, on the same examples, (n,)."""
        return None if self.gaussian is None else losses(level, h) - _oracle_losses(self.gaussian, level)


def _gaussian(process: Process, mean: Tensor, covariance: Tensor) -> Gaussian | None:
    """None for data whose covariance has no factor: fewer directions than numbers."""
    if covariance.ndim == 2 and covariance.shape != mean.shape:
        size = float(covariance.diagonal().mean())
        covariance = covariance + 1e-9 * max(size, 1e-12) * torch.eye(len(covariance)).to(covariance)
    try:
        return Gaussian(process, mean.cpu(), covariance.cpu())
    except ValueError:
        return None


def _oracle_losses(oracle: Score, level: Level) -> Tensor:
    """The loss of an exact score on noised examples, (n,), by its posterior mean."""
    t = torch.full((len(level.x),), level.time, dtype=torch.float64)
    x = level.x.cpu()
    parts = [oracle.denoised(a, s) for a, s in zip(x.split(256), t.split(256), strict=True)]
    return losses(level, level.noise_of(torch.cat(parts).to(level.x)))


@dataclass(frozen=True)
class Reading:
    """Measurements at a level, before the verdict."""

    level: Level
    loss: Tensor
    explained: Estimate
    identities: tuple[Identity, ...]
    asymmetry: Estimate | None
    turned: Tensor | None
    fokker_planck: Estimate | None
    gaussian: Tensor | None
    floor: Tensor | None
    train: Tensor | None

    @classmethod
    def of(cls, examined: Examined, level: Level, h: Tensor, known: Training | None, exact: Score | None) -> Reading:
        loss = losses(level, h)
        jacobian = probed(examined, level)
        identities = of_the_mean(level, h)
        if jacobian is not None:
            identities = (*identities, calibration(level, h, jacobian.divergence))
        around = (examined.x0 - examined.x0.mean(dim=0)).flatten(1).square().mean(dim=1)
        unexplained = ratio_of(loss * (level.sigma / level.alpha) ** 2, around)
        return cls(
            level=level,
            loss=loss,
            explained=Estimate(1.0 - unexplained.value, unexplained.error),
            identities=identities,
            asymmetry=None if jacobian is None else jacobian.asymmetry,
            turned=None if jacobian is None else jacobian.turned,
            fokker_planck=fokker_planck(examined, level),
            gaussian=None if known is None else known.excess(level, h),
            floor=None if exact is None else loss - _oracle_losses(exact, level),
            train=None if known is None else known.losses[level.index],
        )

    def gap(self) -> Estimate | None:
        """1 - loss of training examples / loss of others."""
        if self.train is None:
            return None
        mine, theirs = mean_of(self.loss), mean_of(self.train)
        if mine.value == 0.0:
            return Estimate(0.0, 0.0)
        ratio = theirs.value / mine.value
        error = ((theirs.error / mine.value) ** 2 + (ratio * mine.error / mine.value) ** 2) ** 0.5
        return Estimate(1.0 - ratio, error)


# ---------------------------------------------------------------------------------------------------- verdicts


def size_of(estimate: Estimate | None) -> Size | None:
    """The number with its interval."""
    return None if estimate is None else Size.of(estimate)


def rows_of(readings: Sequence[Reading], named: Diagnosis | None, significance: float) -> tuple[Row, ...]:
    """Every level as it is reported."""
    tests = sum(len(reading.identities) for reading in readings)
    rows = []
    for reading in readings:
        found = {i.name: i for i in reading.identities}
        failed = [i for i in reading.identities if i.p_value * tests < significance]
        verdict: Verdict = "suspect" if any(counts(i) for i in failed) else "healthy"
        if poor(reading, readings, significance):
            verdict = "faulty"
        if named is not None and reading.level.index in named.levels:
            verdict = worst((verdict, named.verdict))
        calibrated = found.get("calibration")
        rows.append(
            Row(
                time=reading.level.time,
                alpha=reading.level.alpha,
                sigma=reading.level.sigma,
                loss=Size.of(mean_of(reading.loss)),
                explained=Size.of(reading.explained),
                floor=None if reading.floor is None else Size.of(ratio_of(reading.floor, reading.loss)),
                gaussian=None if reading.gaussian is None else Size.of(ratio_of(reading.gaussian, reading.loss)),
                bias=Size.of(found["bias"].estimate),
                slope_x0=Size.of(found["slope of x0"].estimate),
                slope_z=Size.of(found["slope of z"].estimate),
                calibration=None if calibrated is None else Size.of(calibrated.estimate),
                asymmetry=size_of(reading.asymmetry),
                fokker_planck=size_of(reading.fokker_planck),
                gap=size_of(reading.gap()),
                rejected=tuple(i.name for i in failed),
                verdict=verdict,
            )
        )
    return tuple(rows)


def counts(identity: Identity) -> bool:
    """Whether a departure is large enough to matter."""
    return identity.costs > (SLACK if identity.name == "calibration" else MARGIN)


def poor(reading: Reading, readings: Sequence[Reading], significance: float) -> bool:
    """Whether a Gaussian of the data's moments does better, by more than a margin of the loss."""
    if reading.gaussian is None:
        return False
    least = MARGIN * max(float(reading.loss.mean()), LITTLE)
    return upper_tail(reading.gaussian, least) * len(readings) < significance
