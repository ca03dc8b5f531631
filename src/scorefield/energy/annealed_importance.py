"""Annealed importance sampling in both directions along one frozen schedule (Neal 2001; Crooks 2000).

The path is exp(-sum_k w_k(beta) U_k(x)) with weights linear in beta. A forward chain starts in the law at beta = 0 and
collects -sum_k (w_k' - w_k) U_k(x) at every rung *before* it moves under the new law; a reverse chain does the same
from beta = 1 down, through the same laws with the same moves. The schedule and the step lengths come from a pilot and
do not change afterwards, so the averages of exp(work) are exact however badly the chains mix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import LOG_2PI, sum_event
from scorefield._random import PRIOR_STEP, Noise, StepNoise, philox
from scorefield.energy.transition import PILOT, Kernel, State, Weights, pilot_noise, transition, tuned_size
from scorefield.score.energy import Energy

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class GaussianBase:
    """N(mean, std^2) with independent coordinates, where forward chains start.

    Args:
        mean: One number or event shape, model units.
        std: One number or event shape.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def matched(cls, x: Tensor, widen: float = 1.0) -> GaussianBase:
        """With the mean of each coordinate of x, (n, *event), and its standard deviation times `widen`."""
        x = x.double()
        floor = 1e-3 * x.std()
        return cls(x.mean(dim=0), widen * x.std(dim=0).clamp_min(floor))

    @property
    def energy(self) -> Energy:
        """-log density, normalised."""

        def density(x: Tensor) -> tuple[Tensor, Tensor]:
            std = self.std.to(x).expand(x.shape[1:])
            z = (x - self.mean.to(x)) / std
            constant = float(std.double().log().sum()) + 0.5 * std.numel() * LOG_2PI
            return 0.5 * sum_event(z.double() ** 2) + constant, z / std

        return Energy(lambda x: density(x)[0], with_gradient=density)

    def draw(self, noise: Noise, like: Tensor) -> Tensor:
        """One point per example of `like`."""
        return self.mean.to(like) + self.std.to(like) * noise.normal(like, PRIOR_STEP, 0)


@dataclass(frozen=True)
class BoxBase:
    """Uniform on a box, for energies that are confined to it.

    Args:
        low: Lower end of every coordinate, model units.
        high: Upper end.
    """

    low: float
    high: float

    @property
    def energy(self) -> Energy:
        """D log(high - low) inside and infinite outside, normalised."""

        def density(x: Tensor) -> tuple[Tensor, Tensor]:
            volume = math.prod(x.shape[1:]) * math.log(self.high - self.low)
            outside = ((x < self.low) | (x > self.high)).flatten(1).any(dim=1)
            return torch.where(outside, torch.inf, volume).double(), torch.zeros_like(x)

        return Energy(lambda x: density(x)[0], with_gradient=density)

    def draw(self, noise: Noise, like: Tensor) -> Tensor:
        """One point per example of `like`."""
        return self.low + (self.high - self.low) * noise.uniform(like, PRIOR_STEP, 0)


Base = GaussianBase | BoxBase


@dataclass(frozen=True)
class Path:
    """exp(-sum_k w_k(beta) U_k), w(beta) = (1 - beta) start + beta end.

    Args:
        terms: The U_k.
        start: Weights at beta = 0.
        end: Weights at beta = 1.
    """

    terms: Sequence[Energy]
    start: Weights
    end: Weights

    def weights(self, beta: float) -> Weights:
        """w(beta)."""
        return tuple((1.0 - beta) * a + beta * b for a, b in zip(self.start, self.end, strict=True))

    @property
    def direction(self) -> Weights:
        """dw / dbeta."""
        return tuple(b - a for a, b in zip(self.start, self.end, strict=True))


@record
class Schedule:
    """Rungs beta_0 = 0 < ... < beta_K = 1 and the moves at those between, frozen.

    Args:
        betas: K + 1 numbers.
        sizes: e of `transition` at beta_1 ... beta_(K-1).
        leapfrog: Leapfrog steps of a move; 1 is MALA.
        length: Thermodynamic length of the path as the pilot measured it: the work variance of K rungs with perfect
            moves is length^2 / K.
    """

    betas: tuple[float, ...]
    sizes: tuple[float, ...]
    leapfrog: int
    length: float

    def __post_init__(self) -> None:
        b = self.betas
        if len(b) < 2 or b[0] != 0.0 or b[-1] != 1.0 or any(x >= y for x, y in zip(b, b[1:], strict=False)):
            raise ValueError(f"betas={b[:3]}... must rise from 0 to 1; `pilot` finds them")
        if len(self.sizes) != len(b) - 2:
            raise ValueError(f"{len(self.sizes)} sizes for {len(b) - 2} moves between {len(b)} rungs")

    @property
    def rungs(self) -> int:
        """K, the number of changes of beta."""
        return len(self.betas) - 1


@record
class AISSettings:
    """How a pilot chooses a schedule.

    Args:
        leapfrog: Leapfrog steps of a move: 1 is MALA.
        rungs: K; None: as many as bring the variance of the pilot's work down to `work_variance`.
        most_rungs: Of those.
        work_variance: Aimed at for the work of one chain, in either direction; half the chains are effective at 0.7.
        pilot: Pilot chains.
    """

    leapfrog: int = 1
    rungs: int | None = None
    most_rungs: int = 4000
    work_variance: float = 0.7
    pilot: int = 64

    def __post_init__(self) -> None:
        if self.leapfrog < 1 or self.pilot < 8 or self.most_rungs < 2 or (self.rungs is not None and self.rungs < 1):
            raise ValueError(f"{self} cannot be run: leapfrog and rungs at least 1, most_rungs 2, pilot 8")
        if not self.work_variance > 0:
            raise ValueError(f"work_variance={self.work_variance} must be positive, for example 0.7")


@dataclass(frozen=True)
class Work:
    """What chains collected along a schedule.

    Args:
        log_weight: (n,), float64; -inf for a chain that met energies that are not finite or has no density.
        acceptance: Mean acceptance at each rung between, (K - 1,).
        not_finite: Proposals that were not finite, per chain, (n,).
        broken: Chains whose start was not finite, (n,).
    """

    log_weight: Tensor
    acceptance: Tensor
    not_finite: Tensor
    broken: Tensor


def work(
    path: Path,
    schedule: Schedule,
    x: Tensor,
    noise: Noise,
    *,
    reverse: bool = False,
    on_step: OnStep | None = None,
) -> Work:
    """Run chains along the schedule and collect their log weights.

    Args:
        path: The laws.
        schedule: Frozen.
        x: Starts: draws of the law at beta = 0, or at beta = 1 in reverse.
        noise: Of the chains.
        reverse: From beta = 1 to 0.
        on_step: Called with the rungs done and of all.
    """
    betas = schedule.betas[::-1] if reverse else schedule.betas
    sizes = schedule.sizes[::-1] if reverse else schedule.sizes
    state = State.at(path.terms, x)
    broken = state.potential(path.weights(betas[0])).isfinite().logical_not()
    log_weight = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    not_finite, shares = torch.zeros_like(broken, dtype=torch.long), []
    for k in range(schedule.rungs):
        step = betas[k + 1] - betas[k]
        log_weight = log_weight - state.potential(tuple(step * d for d in path.direction))
        if k + 1 < schedule.rungs:
            weights = path.weights(betas[k + 1])
            tried = transition(path.terms, weights, state, sizes[k], schedule.leapfrog, StepNoise(noise, k))
            state, not_finite = tried.state, not_finite + tried.not_finite
            shares.append(tried.chance.mean().cpu())
        if on_step is not None:
            on_step(k + 1, schedule.rungs)
    broken = broken | log_weight.isnan()
    log_weight = torch.where(broken, -torch.inf, log_weight)
    acceptance = torch.stack(shares) if shares else torch.zeros(0, dtype=torch.float64)
    return Work(log_weight.cpu(), acceptance, not_finite.cpu(), broken.cpu())


def pilot(path: Path, start: Tensor, settings: AISSettings, *, seed: int = 0) -> Schedule:
    """A schedule of about equal work variance at each rung, with tuned moves, from chains used for nothing else.

    Sequential Monte Carlo walks the path with rungs of standard deviation 1/2 and measures on the way the spread of
    dU / dbeta and the step length; rungs are then placed at equal steps of the integral of that spread. Their number
    is raised until trial runs in both directions have the work variance asked for.

    Args:
        path: The laws.
        start: Draws at beta = 0, for the pilot alone, (P, *event).
        settings: How.
        seed: Of the pilot's noise.

    Raises:
        ValueError: The laws fall apart on the way: no chain has a finite energy.
    """
    noise, kernel = pilot_noise(seed, len(start)), Kernel(settings.leapfrog)
    betas, spreads, sizes, end = _walk(path, start, kernel, noise, seed)
    length = np.concatenate([[0.0], np.cumsum(0.5 * (spreads[1:] + spreads[:-1]) * np.diff(betas))])

    def placed(K: int) -> Schedule:
        even = np.linspace(0.0, length[-1], K + 1)
        rungs = np.interp(even, length, betas) if length[-1] > 0 else np.linspace(0.0, 1.0, K + 1)
        rungs[0], rungs[-1] = 0.0, 1.0
        moves = np.exp(np.interp(rungs[1:-1], betas, np.log(sizes)))
        return Schedule(tuple(map(float, rungs)), tuple(map(float, moves)), settings.leapfrog, float(length[-1]))

    if settings.rungs is not None:
        return placed(settings.rungs)
    K = min(settings.most_rungs, max(4, math.ceil(float(length[-1]) ** 2 / settings.work_variance)))
    while True:
        schedule = placed(K)
        fresh = pilot_noise(seed + 1 + K, len(start))
        trials = (work(path, schedule, start, fresh), work(path, schedule, end, fresh, reverse=True))
        variance = max(_variance(trial.log_weight) for trial in trials)
        if variance <= settings.work_variance or settings.most_rungs == K:
            return schedule
        K = min(settings.most_rungs, math.ceil(K * min(4.0, max(1.3, variance / settings.work_variance))))


def _variance(log_weight: Tensor) -> float:
    finite = log_weight[log_weight.isfinite()]
    return float(finite.var()) if len(finite) > 2 else math.inf


def _walk(
    path: Path, start: Tensor, kernel: Kernel, noise: Noise, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """The pilot's betas, spreads of dU / dbeta and step lengths, and where its chains end."""
    state, picker, step = State.at(path.terms, start), philox(seed, PILOT + 2**20), 0
    size, state = tuned_size(path.terms, path.weights(0.0), state, kernel, noise, steps=30)
    beta, step, betas, spreads, sizes = 0.0, 30, [0.0], [], [size]
    while True:
        slope = state.potential(path.direction)
        finite = slope.isfinite()
        if int(finite.sum()) < 4:
            raise ValueError(
                f"{int(finite.sum())} of {len(start)} pilot chains have a finite energy at beta = {beta:.3g}; choose a"
                " base that lies where the energy is finite (its confinement, its training data)"
            )
        spread = float(slope[finite].std())
        spreads.append(spread)
        if beta >= 1.0:
            return np.array(betas), np.array(spreads), np.array(sizes), state.x
        gain = min(1.0 - beta, max(0.5 / spread, 1e-9) if spread > 0 else 1.0)
        state = state.rows(_resampled(torch.where(finite, -gain * slope, -torch.inf), picker))
        beta = 1.0 if beta + gain > 1.0 - 1e-9 else beta + gain
        for _ in range(6):
            tried = transition(path.terms, path.weights(beta), state, size, kernel.leapfrog, StepNoise(noise, step))
            state, step = tried.state, step + 1
            size *= math.exp(0.5 * (float(tried.chance.mean()) - kernel.aim))
        betas.append(beta)
        sizes.append(size)


def _resampled(log_weight: Tensor, generator: np.random.Generator) -> Tensor:
    """Systematic resampling: row numbers in proportion to the weights."""
    n = len(log_weight)
    total = torch.softmax(log_weight, dim=0).cumsum(0).cpu()
    places = (torch.arange(n, dtype=torch.float64) + generator.random()) / n
    return torch.searchsorted(total, places * total[-1]).clamp_max(n - 1).to(log_weight.device)
