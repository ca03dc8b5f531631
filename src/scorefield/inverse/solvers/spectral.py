"""DDRM: one noise level at a time in the basis in which the operator is diagonal, each coordinate by its own rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, unexpanded
from scorefield._random import StepNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.solvers.diagonal_measurement import Known, cleaned
from scorefield.inverse.solvers.replacement import without_scales
from scorefield.inverse.solvers.solver import Solver, take_observed
from scorefield.process.grids import Focused
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Hold, Step, StepResult
from scorefield.score.score import BoundScore, Score


class Diagonal(Step):
    """The step of `DDRM`.

    Args:
        observation: y, for scores whose condition does not carry it.
        eta: See `DDRM`.
        eta_b: See `DDRM`.
    """

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "p_s of a point mass; an unseen Gaussian coordinate has (1 + sqrt(1 - eta^2)) / 2 of its variance in fine steps"
    )

    def __init__(self, observation: Observation, eta: float, eta_b: float):
        self.observation, self.eta, self.eta_b = observation, eta, eta_b

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`; with w = V' x / alpha, r = sigma / alpha, and D the posterior mean."""
        _, y = take_observed(score.condition, self.observation, x)
        known = Known.of(self.observation, y)
        alpha_t, alpha_s = process.alpha(unexpanded(t)), process.alpha(unexpanded(s))
        r_t, r_s = (float(process.sigma(unexpanded(u))[0] / a[0]) for u, a in ((t, alpha_t), (s, alpha_s)))
        if memory is None:
            x = self._begun(known, x, alpha_t, r_t, noise)
        denoised = score.denoised(x, t)
        D, w = known.spectrum.right(denoised), known.spectrum.right(x) / over_event(alpha_t, known.value)
        mean, std = self._next(known, D, w, r_t, r_s)
        then = over_event(alpha_s, mean)
        z = mean + std.to(mean) * known.spectrum.right(noise(x))
        back = known.spectrum.right_back
        return StepResult(back(then * z), back(then * mean), memory=True, denoised=known.cleaned(denoised))

    def _begun(self, known: Known, x: Tensor, alpha: Tensor, r: float, noise: StepNoise) -> Tensor:
        """The start with what is known in it: c + sqrt(r^2 - rho^2) z where r >= rho."""
        left = r**2 - known.std**2
        told = known.value + left.clamp_min(0.0).sqrt().to(known.value) * known.spectrum.right(noise(x))
        return known.put(x, over_event(alpha, told) * told, left >= 0.0)

    def _next(self, known: Known, D: Tensor, w: Tensor, r_t: float, r_s: float) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the coordinates at s (Kawar et al. 2022, eq. 7 and 8)."""
        rho = known.std.to(D)
        keep = (1.0 - self.eta**2) ** 0.5 * r_s
        unseen = D + keep / r_t * (w - D)
        # Where y has more noise than the level, it takes the place of the state: its noise is rho.
        noisier = D + keep * (known.value - D) / torch.where(rho > 0.0, rho, torch.ones_like(rho))
        surer = (1.0 - self.eta_b) * D + self.eta_b * known.value
        is_surer = known.std <= r_s
        where = is_surer.to(D.device)
        mean = torch.where(where, surer, torch.where(torch.isfinite(rho), noisier, unseen))
        spread = (r_s**2 - (self.eta_b * known.std) ** 2).clamp_min(0.0).sqrt()
        return mean, torch.where(is_surer, spread, torch.full_like(spread, self.eta * r_s))

    def parts(self) -> tuple[Step, ...]:
        """Itself."""
        return (self,)


@record
class DDRM(Solver):
    """Denoising diffusion restoration models (Kawar et al. 2022) for any process, in the variables x / alpha.

    In the basis of the operator's singular vectors, w_0 = c + rho e is what y says of a coordinate, D the posterior
    mean and r = sigma / alpha. From r_t to r_s a coordinate goes to a normal distribution with

        not seen      mean D + sqrt(1 - eta^2) (r_s / r_t) (w_t - D)       deviation eta r_s
        rho > r_s     mean D + sqrt(1 - eta^2) (r_s / rho) (c - D)         deviation eta r_s
        rho <= r_s    mean (1 - eta_b) D + eta_b c                         deviation sqrt(r_s^2 - eta_b^2 rho^2)

    One call a step. It is a step itself and takes a grid alone: a sampler with the step `Hold()`.

    Args:
        eta: Share of the noise drawn afresh; 0.85 is the paper's.
        eta_b: Weight of y against the posterior mean where y is surer; 1 is the paper's.

    Raises:
        ValueError: Either is outside [0, 1].
    """

    eta: float = 0.85
    eta_b: float = 1.0

    name: ClassVar[str] = "ddrm"
    exact: ClassVar[str] = "no: the unseen coordinates depend on y through the posterior mean alone"
    linear: ClassVar[bool] = True
    spectrum: ClassVar[bool] = True
    gaussian: ClassVar[bool] = True
    noisy: ClassVar[bool] = False
    steps: ClassVar[tuple[type[Step], ...] | None] = (Hold,)

    def __post_init__(self) -> None:
        if not (0.0 <= self.eta <= 1.0 and 0.0 <= self.eta_b <= 1.0):
            raise ValueError(f"eta={self.eta} and eta_b={self.eta_b} are shares and must lie in [0, 1]")

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The score itself, and the sampler's grid with this step."""
        return score, replace(sampler, step=Diagonal(observation, self.eta, self.eta_b))

    def default_sampler(self, score: Score) -> Sampler:
        """Fifty steps, shortest where noise and data are alike."""
        return grid_alone(score.process, 50)

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """See `Solver`; also steps other than Hold(), and processes without alpha and sigma."""
        return grid_refusals(self, super().refusals(score, sampler, observation), score, sampler)

    def finish(self, x: Tensor, observation: Observation) -> Tensor:
        """The clean sample with what is known exactly in its place."""
        return cleaned(x, observation)


def grid_alone(process: Process, steps: int) -> Sampler:
    """A sampler that says where the steps lie, for solvers that are steps themselves."""
    return Sampler(Hold(), Focused(steps, on_levels=isinstance(process, Tabulated)))


def grid_refusals(solver: Solver, why: list[str], score: Score, sampler: Sampler) -> list[str]:
    """Why a solver that is a step itself cannot be used so."""
    names = [type(part).__name__ for part in sampler.step.parts()]
    if names != ["Hold"]:
        why = [reason for reason in why if "goes with the steps" not in reason]
        why.append(
            f"{solver.name} is a step itself and takes the place of {', '.join(names)}; leave the sampler out, or give"
            " its grid alone: Sampler(Hold(), Focused(50))"
        )
    return [*why, *without_scales(solver, score, sampler)]
