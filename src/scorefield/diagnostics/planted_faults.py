"""Known faults put into any score, for seeing that the doctor names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield._math import over_event
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.score.score import Score

Wrong = Callable[[Score, Tensor, Tensor, Condition | None], Tensor]
"""(score, x, t, condition) -> what is given for the score."""


class Planted(Score):
    """A score with a fault.

    Args:
        score: The score.
        wrong: What is given for it.
    """

    def __init__(self, score: Score, wrong: Wrong):
        self.score, self.process, self.wrong = score, score.process, wrong

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The faulty score."""
        return self.wrong(self.score, x, t, condition)


@dataclass(frozen=True)
class Plant:
    """A fault to be put in.

    Attributes:
        name: What the doctor should say.
        how: What is wrong, in a few words.
        wrong: See `Wrong`.
    """

    name: str
    how: str
    wrong: Wrong

    def into(self, score: Score) -> Planted:
        """A score with it."""
        return Planted(score, self.wrong)


def plants(process: Process, frozen: float, *, shift: float = 0.01) -> tuple[Plant, ...]:
    """One or more of each known fault.

    Args:
        process: Process of the levels at which the score is trained.
        frozen: Time of the level that is frozen.
        shift: Shift of continuous times; ladders are shifted by one level.
    """
    ladder = isinstance(process, Tabulated)
    step = 1.0 / (process.levels - 1) if ladder else shift
    by = "one level" if ladder else f"{shift:g}"
    scale, swapped = "wrong sigma scale", "noise and score swapped"
    out = [
        Plant(scale, "1.5 times the score", _power(process, 1.5, 0.0)),
        Plant(scale, "0.9 times the score", _power(process, 0.9, 0.0)),
        Plant(swapped, "the noise in place of the score", _power(process, -1.0, 1.0)),
        Plant(swapped, "sigma times the score", _power(process, 1.0, 1.0)),
        Plant(swapped, "the score divided by -sigma", _power(process, -1.0, -1.0)),
        Plant("wrong sign", "the score with its sign changed", _power(process, -1.0, 0.0)),
        Plant("frozen level", "one level answers as the last does", _frozen(process, frozen, dead=False)),
        Plant("frozen level", "one level answers 0", _frozen(process, frozen, dead=True)),
        Plant("off-by-one time", f"called {by} too late", _later(process, step)),
        Plant("off-by-one time", f"called {by} too early", _later(process, -step)),
        Plant("added curl", "a rotation, 0.3 of the noise", _rotated(process, 0.3)),
    ]
    if not ladder:
        out.append(Plant(scale, "called at twice the sigma", _relabelled(process, 2.0)))
    return tuple(out)


def _power(process: Process, factor: float, power: float) -> Wrong:
    return lambda score, x, t, condition: score(x, t, condition) * over_event(factor * process.sigma(t) ** power, x)


def _frozen(process: Process, time: float, *, dead: bool) -> Wrong:
    def wrong(score: Score, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        there = (t - time).abs() < 1e-6
        s = score(x, torch.where(there, torch.ones_like(t), t), condition)
        return s * over_event(1.0 - there.double(), x) if dead else s

    return wrong


def _later(process: Process, step: float) -> Wrong:
    low = process.t_min.smallest
    return lambda score, x, t, condition: score(x, (t + step).clamp(low, 1.0), condition)


def _relabelled(process: Process, factor: float) -> Wrong:
    shift = 2.0 * torch.tensor(factor, dtype=torch.float64).log()
    return lambda score, x, t, condition: score(x, process.time_at_log_snr(process.log_snr(t) - shift), condition)


def _rotated(process: Process, amount: float) -> Wrong:
    """A x with A = -A' added, of `amount` deviations of the noise: neighbouring values are turned by a right angle."""

    def wrong(score: Score, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        flat = x.flatten(1)
        even = flat.shape[1] // 2 * 2
        a, b = flat[:, :even:2], flat[:, 1:even:2]
        turned = torch.cat([torch.stack([b, -a], dim=2).flatten(1), torch.zeros_like(flat[:, even:])], dim=1)
        sigma, alpha = process.sigma(t), process.alpha(t)
        scale = amount / (sigma * (alpha**2 + sigma**2).sqrt())
        return score(x, t, condition) + over_event(scale, x) * turned.reshape(x.shape)

    return wrong
