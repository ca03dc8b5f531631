"""DiffPIR: the posterior mean of the score, moved to fit y, then noised to the next level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, sum_event, unexpanded
from scorefield._random import StepNoise
from scorefield.inverse.noise import GaussianNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.operators.operator import LinearOperator
from scorefield.inverse.solvers.diagonal_measurement import Known
from scorefield.inverse.solvers.solver import Solver, take_observed
from scorefield.inverse.solvers.spectral import grid_alone, grid_refusals
from scorefield.process.process import Process
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Hold, Step, StepResult
from scorefield.score.score import BoundScore, Score

ENOUGH = 1e-10
"""Squared residual of the conjugate gradients, of the squared right-hand side, at which a row is finished."""

LENGTHS = (1.0, 0.5, 0.25, 0.125)
"""Shares of a Gauss-Newton move that are tried; the best of them, or none, is made."""


@dataclass(frozen=True)
class DataStep:
    """The x that fits y without going far from a guess D: argmin |y - A(x)|^2 + rho |x - D|^2.

    Linear operators with singular values have it in closed form, (s c + rho w) / (s^2 + rho) in each coordinate; other
    linear ones by conjugate gradients on (A' A + rho) d = A' (y - A D) from d = 0, which at rho = 0 is the nearest x
    that fits; functions by Gauss-Newton moves, each found so, and shortened where it would not help.

    Args:
        observation: A, and what y is where it is not given.
        iterations: Conjugate gradients at most.
        moves: Gauss-Newton.
    """

    observation: Observation
    iterations: int = 100
    moves: int = 5

    def __call__(self, guess: Tensor, y: Tensor, rho: float) -> Tensor:
        """The minimum for each row of D."""
        operator = self.observation.operator
        if not isinstance(operator, LinearOperator):
            return self._bent(guess, y, rho)
        try:
            spectrum = operator.spectrum()
        except ValueError:
            return guess + conjugate(
                operator.apply, operator.adjoint, y - operator(guess), rho, torch.zeros_like(guess), self.iterations
            )
        s, seen = spectrum.values.to(guess), spectrum.seen.to(guess.device)
        own = spectrum.right(guess)
        # (s U'y + rho w) / (s^2 + rho) = w + s (U'y - s w) / (s^2 + rho), which leaves what is not seen as it is.
        scale = torch.where(seen, s / (s**2 + rho), torch.zeros_like(s))
        found = own + scale * (spectrum.left(y) - s * own)
        found = torch.where(seen & (rho == 0.0), Known.of(self.observation, y).value, found)
        return spectrum.right_back(torch.where(seen, found, own))

    def _bent(self, guess: Tensor, y: Tensor, rho: float) -> Tensor:
        operator, x = self.observation.operator, guess

        def cost(place: Tensor) -> Tensor:
            return sum_event((y - operator(place)) ** 2) + rho * sum_event((place - guess) ** 2)

        best = cost(x)
        for _ in range(self.moves):
            seen, push, pull = linearised(operator.apply, x)
            # The quadratic that Gauss-Newton minimises is centred at the guess, not at x.
            d = conjugate(push, pull, y - seen, rho, guess - x, self.iterations)
            here = x
            for length in LENGTHS:
                tried = here + length * d
                value = cost(tried)
                better = value < best
                x, best = torch.where(over_event(better, x).bool(), tried, x), torch.where(better, value, best)
        return x


Product = Callable[[Tensor], Tensor]


def linearised(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Product, Product]:
    """(f(x), d -> J d, r -> J' r) with the Jacobian J of f at x.

    J d is the gradient in u of (J' u)' d, which is linear in u. `torch.func` has both products too, and imports torch's
    compiler first, which takes seconds.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        seen = function(point)
        u = torch.zeros_like(seen, requires_grad=True)
        known = seen.requires_grad  # else f does not depend on x
        back = torch.autograd.grad(seen, point, u, create_graph=True, materialize_grads=True)[0] if known else point

    def push(d: Tensor) -> Tensor:
        if not (known and back.requires_grad):
            return torch.zeros_like(seen).detach()
        return torch.autograd.grad(back, u, d, retain_graph=True, materialize_grads=True)[0]

    def pull(r: Tensor) -> Tensor:
        if not known:
            return torch.zeros_like(x)
        return torch.autograd.grad(seen, point, r, retain_graph=True, materialize_grads=True)[0]

    return seen.detach(), push, pull


def conjugate(
    push: Callable[[Tensor], Tensor], pull: Callable[[Tensor], Tensor], residual: Tensor, rho: float, towards: Tensor,
    iterations: int,
) -> Tensor:  # fmt: skip
    """argmin_d |residual - J d|^2 + rho |d - towards|^2 by conjugate gradients from d = 0, each row by itself.

    Args:
        push: d -> J d.
        pull: r -> J' r.
        residual: (B, *observed).
        rho: Not negative; 0 gives the shortest d that fits.
        towards: (B, *event).
        iterations: Largest number of iterations; a converged row is not changed further, so that rows are independent.
    """
    r = pull(residual) + rho * towards
    d, p, size = torch.zeros_like(r), r, sum_event(r * r)
    stop = ENOUGH * size
    for _ in range(iterations):
        going = size > stop
        if not bool(going.any()):
            break
        Jp = push(p)
        curvature = sum_event(Jp * Jp) + rho * sum_event(p * p)
        step = torch.where(going, size / curvature.clamp_min(torch.finfo(r.dtype).tiny), torch.zeros_like(size))
        d = d + over_event(step, d) * p
        r = r - over_event(step, r) * (pull(Jp) + rho * p)
        after = sum_event(r * r)
        p = torch.where(over_event(going, p).bool(), r + over_event(after / size, p) * p, p)
        size = torch.where(going, after, size)
    return d


class Proximal(Step):
    """The step of `DiffPIR`.

    Args:
        observation: y, for scores whose condition does not carry it.
        lam: See `DiffPIR`.
        zeta: See `DiffPIR`.
    """

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "p_s of a point mass; an unseen Gaussian coordinate has (1 + sqrt(1 - zeta)) / 2 of its variance in fine steps"
    )

    def __init__(self, observation: Observation, lam: float, zeta: float):
        self.observation, self.lam, self.zeta = observation, lam, zeta
        self.fit = DataStep(observation)

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        _, y = take_observed(score.condition, self.observation, x)
        alpha_t, sigma_t = (float(f(unexpanded(t))[0]) for f in (process.alpha, process.sigma))
        alpha_s, sigma_s = (float(f(unexpanded(s))[0]) for f in (process.alpha, process.sigma))
        law = self.observation.noise
        assert isinstance(law, GaussianNoise)
        rho = self.lam * (law.std * alpha_t / sigma_t) ** 2
        fitted = self.fit(score.denoised(x, t), y, rho)
        e = (x - alpha_t * fitted) / sigma_t
        mean = alpha_s * fitted + sigma_s * (1.0 - self.zeta) ** 0.5 * e
        return StepResult(mean + sigma_s * self.zeta**0.5 * noise(x), mean, denoised=fitted)


@record
class DiffPIR(Solver):
    """Plug-and-play restoration with a score as its denoiser (Zhu et al. 2023, algorithm 1), for any process.

    At a level of noise r = sigma / alpha, with D the posterior mean,

        x_0 = argmin |y - A(x)|^2 / (2 sigma_y^2) + lam |x - D|^2 / (2 r^2),        e = (x_t - alpha_t x_0) / sigma_t,
        x_s = alpha_s x_0 + sigma_s (sqrt(1 - zeta) e + sqrt(zeta) z).

    lam = 1 takes D for a normal distribution of deviation r, which is wider than the one it is the mean of; larger lam
    trusts D more. One call a step; the operator may be any differentiable function. It is a step itself and takes a
    grid alone: a sampler with the step `Hold()`.

    Args:
        lam: Weight of the denoised example; the paper's are from 1 to 25, most often 7.
        zeta: Share of the noise drawn afresh; the paper's are from 0.1 to 1.

    Raises:
        ValueError: lam is not positive, or zeta outside [0, 1].
    """

    lam: float = 7.0
    zeta: float = 0.5

    name: ClassVar[str] = "diffpir"
    exact: ClassVar[str] = "no: it fits y at each level by one x, not by a distribution of x"
    gaussian: ClassVar[bool] = True
    noisy: ClassVar[bool] = False
    steps: ClassVar[tuple[type[Step], ...] | None] = (Hold,)

    def __post_init__(self) -> None:
        if not (0.0 < self.lam < float("inf") and 0.0 <= self.zeta <= 1.0):
            raise ValueError(f"lam={self.lam} must be positive and zeta={self.zeta}, a share, must lie in [0, 1]")

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The score itself, and the sampler's grid with this step."""
        return score, replace(sampler, step=Proximal(observation, self.lam, self.zeta))

    def default_sampler(self, score: Score) -> Sampler:
        """Fifty steps, shortest where noise and data are alike."""
        return grid_alone(score.process, 50)

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """See `Solver`; also steps other than Hold(), and processes without alpha and sigma."""
        return grid_refusals(self, super().refusals(score, sampler, observation), score, sampler)

    def finish(self, x: Tensor, observation: Observation) -> Tensor:
        """The clean sample, moved to fit a y without noise."""
        exact = observation.gaussian and getattr(observation.noise, "std", None) == 0.0
        return DataStep(observation)(x, observation.y(x), 0.0) if exact else x
