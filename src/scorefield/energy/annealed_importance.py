"""Annealed importance sampling in both directions along one frozen schedule (Neal 2001; Crooks 2000).

The path is exp(-sum_k w_k(beta) U_k(x)) with weights linear in beta. A forward chain starts from the distribution at
beta = 0. At every rung it adds -sum_k (w_k' - w_k) U_k(x) to its work, where w' are the weights of the next rung,
*before* it moves under these weights. A reverse chain does the same from beta = 1 down, through the same distributions
and with the same kernels. The schedule and the step sizes come from pilot chains and are fixed afterwards, so the mean
of exp(work) has the exact expectation even where the chains mix badly.
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
    """N(mean, std^2) with independent coordinates, from which forward chains start.

    Args:
        mean: Mean, one number or event shape, model units.
        std: Standard deviation, one number or event shape, model units.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def matched(cls, x: Tensor, widen: float = 1.0) -> GaussianBase:
        """The base with the mean of each coordinate of x, (n, *event), and its standard deviation times `widen`."""
        x = x.double()
        floor = 1e-3 * x.std()
        return cls(x.mean(dim=0), widen * x.std(dim=0).clamp_min(floor))

    @property
    def energy(self) -> Energy:
        """-log density as an energy, including the normalising constant."""

        def density(x: Tensor) -> tuple[Tensor, Tensor]:
            std = self.std.to(x).expand(x.shape[1:])
            z = (x - self.mean.to(x)) / std
            constant = float(std.double().log().sum()) + 0.5 * std.numel() * LOG_2PI
            return 0.5 * sum_event(z.double() ** 2) + constant, z / std

        return Energy(lambda x: density(x)[0], with_gradient=density)

    def draw(self, noise: Noise, like: Tensor) -> Tensor:
        """One draw for each example of `like`, shape of `like`."""
        return self.mean.to(like) + self.std.to(like) * noise.normal(like, PRIOR_STEP, 0)


@dataclass(frozen=True)
class BoxBase:
    """The uniform distribution on a box, for energies that are confined to this box.

    Args:
        low: Lower end of every coordinate, model units.
        high: Upper end of every coordinate, model units.
    """

    low: float
    high: float

    @property
    def energy(self) -> Energy:
        """-log density as an energy: D log(high - low) inside the box and infinite outside."""

        def density(x: Tensor) -> tuple[Tensor, Tensor]:
            volume = math.prod(x.shape[1:]) * math.log(self.high - self.low)
            outside = ((x < self.low) | (x > self.high)).flatten(1).any(dim=1)
            return torch.where(outside, torch.inf, volume).double(), torch.zeros_like(x)

        return Energy(lambda x: density(x)[0], with_gradient=density)

    def draw(self, noise: Noise, like: Tensor) -> Tensor:
        """One draw for each example of `like`, shape of `like`."""
        return self.low + (self.high - self.low) * noise.uniform(like, PRIOR_STEP, 0)


Base = GaussianBase | BoxBase


@dataclass(frozen=True)
class AnnealingPath:
    """The annealing path exp(-sum_k w_k(beta) U_k) with w(beta) = (1 - beta) start + beta end.

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
    """The rungs beta_0 = 0 < ... < beta_K = 1 of an annealing path and the step sizes at those in between.

    Args:
        betas: The K + 1 values of beta.
        sizes: e of `transition` at beta_1 ... beta_(K-1).
        leapfrog: Number of leapfrog steps of a transition; 1 is MALA.
        length: Thermodynamic length of the path, measured by the pilot. With K rungs and perfectly mixing transitions
            the variance of the work would be length^2 / K.

    Raises:
        ValueError: The betas do not increase from 0 to 1, or the number of sizes does not fit.
    """

    betas: tuple[float, ...]
    sizes: tuple[float, ...]
    leapfrog: int
    length: float

    def __post_init__(self) -> None:
        b = self.betas
        if len(b) < 2 or b[0] != 0.0 or b[-1] != 1.0 or any(x >= y for x, y in zip(b, b[1:], strict=False)):
            raise ValueError(
                f"betas={b[:3]}... must increase from 0 to 1; pilot_schedule(...) computes such a schedule"
            )
        if len(self.sizes) != len(b) - 2:
            raise ValueError(
                f"a schedule of {len(b)} betas needs {len(b) - 2} step sizes, and {len(self.sizes)} were given"
            )

    @property
    def rungs(self) -> int:
        """K, the number of changes of beta."""
        return len(self.betas) - 1


@record
class AISSettings:
    """Settings of the pilot that computes a schedule.

    Args:
        leapfrog: Number of leapfrog steps of a transition; 1 is MALA.
        rungs: K; None for as many as are needed to reduce the variance of the pilot's work to `work_variance`.
        most_rungs: Largest number of rungs in that case.
        work_variance: Variance of the work of a chain to aim at, in both directions; at 0.7 half of the chains are
            effective.
        pilot: Number of pilot chains.

    Raises:
        ValueError: A number is out of its range.
    """

    leapfrog: int = 1
    rungs: int | None = None
    most_rungs: int = 4000
    work_variance: float = 0.7
    pilot: int = 64

    def __post_init__(self) -> None:
        if self.leapfrog < 1 or self.pilot < 8 or self.most_rungs < 2 or (self.rungs is not None and self.rungs < 1):
            raise ValueError(
                f"{self} cannot be run: leapfrog and rungs must be at least 1, most_rungs at least 2 and pilot at least"
                " 8"
            )
        if not self.work_variance > 0:
            raise ValueError(f"work_variance={self.work_variance} must be positive, for example 0.7")


@dataclass(frozen=True)
class Work:
    """The work that chains collected along a schedule.

    Args:
        log_weight: Work of each chain, the log of its importance weight, (n,) float64; -inf for a chain with an energy
            that is not finite.
        acceptance: Mean acceptance probability at each rung between the two ends, (K - 1,).
        not_finite: Number of proposals of each chain whose energy or gradient was not finite, (n,).
        broken: Whether the energy of the chain was not finite at its start, or its work is NaN, (n,).
    """

    log_weight: Tensor
    acceptance: Tensor
    not_finite: Tensor
    broken: Tensor


def collect_work(
    path: AnnealingPath,
    schedule: Schedule,
    x: Tensor,
    noise: Noise,
    *,
    reverse: bool = False,
    on_step: OnStep | None = None,
) -> Work:
    """Run chains along the schedule and collect their log weights.

    Args:
        path: The annealing path.
        schedule: The rungs and step sizes.
        x: Initial states, (n, *event): draws of the distribution at beta = 0, or at beta = 1 if `reverse`.
        noise: Source of the noise of the chains.
        reverse: Whether to run from beta = 1 to 0.
        on_step: Called after each rung with the number of rungs done and the total.
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
            outcome = transition(path.terms, weights, state, sizes[k], schedule.leapfrog, StepNoise(noise, k))
            state, not_finite = outcome.state, not_finite + outcome.not_finite
            shares.append(outcome.acceptance_probability.mean().cpu())
        if on_step is not None:
            on_step(k + 1, schedule.rungs)
    broken = broken | log_weight.isnan()
    log_weight = torch.where(broken, -torch.inf, log_weight)
    acceptance = torch.stack(shares) if shares else torch.zeros(0, dtype=torch.float64)
    return Work(log_weight.cpu(), acceptance, not_finite.cpu(), broken.cpu())


def pilot_schedule(path: AnnealingPath, start: Tensor, settings: AISSettings, *, seed: int = 0) -> Schedule:
    """A schedule with about equal work variance at each rung and tuned step sizes, from separate pilot chains.

    Sequential Monte Carlo follows the path with rungs at which the work has standard deviation 1/2, and measures the
    standard deviation of dU / dbeta and the step size along it. The rungs are then placed at equal steps of the
    integral of that standard deviation, and their number is increased until trial runs in both directions have the
    work variance of the settings.

    Args:
        path: The annealing path.
        start: Draws of the distribution at beta = 0, used for the pilot only, (P, *event).
        settings: Settings of the pilot.
        seed: Seed of the pilot's noise.

    Raises:
        ValueError: On the way fewer than four pilot chains have a finite energy.
    """
    noise, kernel = pilot_noise(seed, len(start)), Kernel(settings.leapfrog)
    betas, spreads, sizes, end = _pilot_run(path, start, kernel, noise, seed)
    length = np.concatenate([[0.0], np.cumsum(0.5 * (spreads[1:] + spreads[:-1]) * np.diff(betas))])

    def schedule_of(K: int) -> Schedule:
        even = np.linspace(0.0, length[-1], K + 1)
        rungs = np.interp(even, length, betas) if length[-1] > 0 else np.linspace(0.0, 1.0, K + 1)
        rungs[0], rungs[-1] = 0.0, 1.0
        moves = np.exp(np.interp(rungs[1:-1], betas, np.log(sizes)))
        return Schedule(tuple(map(float, rungs)), tuple(map(float, moves)), settings.leapfrog, float(length[-1]))

    if settings.rungs is not None:
        return schedule_of(settings.rungs)
    K = min(settings.most_rungs, max(4, math.ceil(float(length[-1]) ** 2 / settings.work_variance)))
    while True:
        schedule = schedule_of(K)
        fresh = pilot_noise(seed + 1 + K, len(start))
        trials = (collect_work(path, schedule, start, fresh), collect_work(path, schedule, end, fresh, reverse=True))
        variance = max(_variance(trial.log_weight) for trial in trials)
        if variance <= settings.work_variance or settings.most_rungs == K:
            return schedule
        K = min(settings.most_rungs, math.ceil(K * min(4.0, max(1.3, variance / settings.work_variance))))


def _variance(log_weight: Tensor) -> float:
    """Variance of the finite work values; infinite for fewer than three."""
    finite = log_weight[log_weight.isfinite()]
    return float(finite.var()) if len(finite) > 2 else math.inf


def _pilot_run(
    path: AnnealingPath, start: Tensor, kernel: Kernel, noise: Noise, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """The betas of the pilot, the standard deviation of dU / dbeta and the step size at each, and its final states."""
    state, generator, step = State.at(path.terms, start), philox(seed, PILOT + 2**20), 0
    size, state = tuned_size(path.terms, path.weights(0.0), state, kernel, noise, steps=30)
    beta, step, betas, spreads, sizes = 0.0, 30, [0.0], [], [size]
    while True:
        slope = state.potential(path.direction)
        finite = slope.isfinite()
        if int(finite.sum()) < 4:
            raise ValueError(
                f"only {int(finite.sum())} of {len(start)} pilot chains have a finite energy at beta = {beta:.3g};"
                " choose a base that lies where the energy is finite (inside its box, or near its training data)"
            )
        spread = float(slope[finite].std())
        spreads.append(spread)
        if beta >= 1.0:
            return np.array(betas), np.array(spreads), np.array(sizes), state.x
        gain = min(1.0 - beta, max(0.5 / spread, 1e-9) if spread > 0 else 1.0)
        state = state.rows(_resampled(torch.where(finite, -gain * slope, -torch.inf), generator))
        beta = 1.0 if beta + gain > 1.0 - 1e-9 else beta + gain
        for _ in range(6):  # moves under the new weights, each of which also adapts the step size
            outcome = transition(path.terms, path.weights(beta), state, size, kernel.leapfrog, StepNoise(noise, step))
            state, step = outcome.state, step + 1
            size *= math.exp(0.5 * (float(outcome.acceptance_probability.mean()) - kernel.aim))
        betas.append(beta)
        sizes.append(size)


def _resampled(log_weight: Tensor, generator: np.random.Generator) -> Tensor:
    """Systematic resampling: row indices drawn in proportion to the weights, (n,)."""
    n = len(log_weight)
    total = torch.softmax(log_weight, dim=0).cumsum(0).cpu()
    places = (torch.arange(n, dtype=torch.float64) + generator.random()) / n
    return torch.searchsorted(total, places * total[-1]).clamp_max(n - 1).to(log_weight.device)
