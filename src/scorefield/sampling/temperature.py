"""Annealed-temperature Langevin dynamics on an energy without noise conditioning, and its inpainting (Li et al. 2019).

exp(-E / T) at the temperature T = sigma^2 / sigma_0^2 approximates the density of data with noise sigma. The step size
is constant and only the temperature of the noise is lowered:

    x - eta grad E + sqrt(2 eta T) z,        eta = step^2 / 2.

Since x - sigma_0^2 grad E = D is the posterior mean, this equals x + a (D - x) + sqrt(2 a) sigma z with
a = eta / sigma_0^2. Nothing is divided by sigma, so the step is defined at T = 0 too.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.sampler import Start
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore

ROUNDING = 1e-6
"""Tolerance in steps within which a position in the schedule is rounded to a whole step."""


@record
class TemperatureSchedule:
    """The temperature T of every step: `burn_in` steps at `high`, `anneal` down to `low`, `quench` linearly to 0.

    Args:
        high: The first temperature; T = 100 corresponds to the noise 10 sigma_0.
        low: The temperature at which the quench begins; T = 1 corresponds to the noise sigma_0.
        burn_in: Number of steps at `high`.
        anneal: Number of steps from `high` towards `low`: T_k = high (low / high)^(k / anneal) with
            k = 0, ..., anneal - 1, or linear in k.
        quench: Number of steps from `low` to 0, including both.
        spacing: "geometric", the published default, or "linear".

    Raises:
        ValueError: The temperatures do not decrease, or a phase has too few steps.

    Reference: Li et al., "Learning energy-based models in high-dimensional spaces with multi-scale denoising score
    matching", 2019, section 4.
    """

    high: float = 100.0
    low: float = 1.0
    burn_in: int = 500
    anneal: int = 2000
    quench: int = 200
    spacing: Literal["geometric", "linear"] = "geometric"

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high < math.inf:
            raise ValueError(
                f"the temperatures must decrease, high > low > 0, with high finite; got high={self.high} and"
                f" low={self.low}"
            )
        if self.burn_in < 0 or self.anneal < 1 or self.quench < 2:
            raise ValueError(
                f"need burn_in >= 0, anneal >= 1 and quench >= 2 (the quench includes both of its ends); got"
                f" burn_in={self.burn_in}, anneal={self.anneal} and quench={self.quench}"
            )

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return self.burn_in + self.anneal + self.quench

    def temperature(self, position: Tensor) -> Tensor:
        """T at positions k in [0, steps), float64; the formulas also hold at fractional positions between two steps."""
        k = position.to(torch.float64)
        fallen = ((k - self.burn_in) / self.anneal).clamp(0.0, 1.0)
        if self.spacing == "geometric":
            annealed = self.high * (self.low / self.high) ** fallen
        else:
            annealed = self.high + (self.low - self.high) * fallen
        quenched = self.low * (1.0 - (k - self.burn_in - self.anneal) / (self.quench - 1)).clamp(0.0, 1.0)
        return torch.where(k < self.burn_in + self.anneal, annealed, quenched)

    def temperatures(self) -> Tensor:
        """T of every step, (steps,) float64."""
        return self.temperature(torch.arange(self.steps))


@record
class TemperatureLangevin(Step):
    """One step of annealed-temperature Langevin dynamics, x - eta grad E + sqrt(2 eta T) z with eta = step^2 / 2.

    The temperature at time t is that of the schedule after the fraction 1 - t of its steps. `Uniform(schedule.steps)`
    therefore takes every step of the schedule once, and a grid of fewer steps passes through the same temperatures
    faster. Where the curvature of E is 1 / sigma_0^2, the largest of an ideal energy, the stationary variance is
    T sigma_0^2 / (1 - a / 2) with a = eta / sigma_0^2, which is 1 percent too large at the published step.

    The posterior mean is evaluated at the time at which the score's own process has the noise sigma_0 sqrt(T), or the
    nearest noise it has. For an energy without noise conditioning the time has no effect.

    Args:
        schedule: The temperatures.
        step: Standard deviation of the noise of a step at T = 1, model units.
        sigma_0: The reference noise level of the energy, model units.

    Raises:
        ValueError: `step` or `sigma_0` is not positive, or the step is too long to be stable.
    """

    schedule: TemperatureSchedule = TemperatureSchedule()
    step: float = 0.02
    sigma_0: float = 0.1

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "exp(-E / T) as the step -> 0; at curvature 1 / sigma_0^2 the variance T sigma_0^2 / (1 - a / 2)"
    )
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "scales"

    def __post_init__(self) -> None:
        if not (self.step > 0.0 and self.sigma_0 > 0.0):
            raise ValueError(f"step and sigma_0 must be positive; got step={self.step}, sigma_0={self.sigma_0}")
        if self.step >= 2.0 * self.sigma_0:
            raise ValueError(
                f"step={self.step} is too long: where the energy has curvature 1 / sigma_0^2, the chain diverges for"
                f" steps of 2 sigma_0 = {2.0 * self.sigma_0:g} or more; the published step is 0.2 sigma_0"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`.

        Raises:
            ValueError: The process scales its data, so a temperature does not correspond to one of its noise levels.
        """
        sigma, times = self.sigma(process, t), self.score_times(score.process) if memory is None else memory
        denoised = score.denoised(x, times[self._position(process, t).long()])
        mean = x + self._fraction * (denoised - x)
        return StepResult(mean + self._noise_std(sigma, x) * noise(x), mean, times, denoised=denoised)

    def sigma(self, process: Process, t: Tensor) -> Tensor:
        """sigma_0 sqrt(T) at the chain's times t, (B,) float64."""
        return self.sigma_0 * self.schedule.temperature(self._position(process, t)).sqrt()

    def score_times(self, process: Process) -> Tensor:
        """Times at which the score's own process has the noise of each step, or the nearest it has, (steps,).

        Raises:
            ValueError: The process scales its data.
        """
        ends = torch.tensor([process.t_min.sampling, 1.0], dtype=torch.float64)
        if bool((process.alpha(ends) != 1.0).any()):
            raise ValueError(
                "a temperature corresponds to a noise level only where data are not scaled, alpha = 1, and"
                f" {type(process).__name__} scales them. Use a sampler of that process, such as --sampler pc"
            )
        least, most = process.sigma(ends).tolist()
        sigma = (self.sigma_0 * self.schedule.temperatures().sqrt()).clamp(least, most)
        return process.time_at_sigma(sigma) if least < most else torch.ones_like(sigma)

    def _position(self, process: Process, t: Tensor) -> Tensor:
        """Position of times of the chain in the schedule, in steps, (B,) float64."""
        low = process.t_min.sampling
        done = (1.0 - t.to(torch.float64)) / (1.0 - low) if low < 1.0 else torch.zeros_like(t)
        # Times of a grid have rounding errors, which must not move the first step of the quench into the anneal.
        position = done * self.schedule.steps
        nearest = position.round()
        position = torch.where((position - nearest).abs() < ROUNDING, nearest, position)
        return position.clamp(0, self.schedule.steps - 1)

    @property
    def _fraction(self) -> float:
        """a = eta / sigma_0^2, the fraction of the way to the posterior mean that a step moves."""
        return 0.5 * (self.step / self.sigma_0) ** 2

    def _noise_std(self, sigma: Tensor, x: Tensor) -> Tensor:
        """sqrt(2 eta T) = sigma step / sigma_0, broadcasting with x."""
        return over_event(sigma * (self.step / self.sigma_0), x)


class InpaintingLangevin(Step):
    """Inpainting: annealed-temperature Langevin dynamics of the unknown part of an example, given the known part.

    The gradient is evaluated at the example whose known part has the noise of the temperature, drawn anew at every
    step, so that the whole example has one noise level. Only the unknown part is updated:

        x - eta m grad E(x + c z' (1 - m)) + sqrt(2 eta T) m z,        c = sigma_0 sqrt(T).

    Args:
        langevin: The schedule and the step.
        unknown: m, true where the example is not known, broadcast over the batch.
        noise_scale: "matched" is c = sigma_0 sqrt(T); "published" is c = sigma_0 T^(1/4) of the published code, a third
            of the matched noise at T = 100.

    Raises:
        ValueError: Nothing or everything is known.

    Reference: Li et al., "Learning energy-based models in high-dimensional spaces with multi-scale denoising score
    matching", 2019, appendix.
    """

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = "near exp(-E / T) of the unknown part given the known part"

    def __init__(
        self,
        langevin: TemperatureLangevin,
        unknown: Tensor,
        noise_scale: Literal["matched", "published"] = "matched",
    ):
        self.langevin, self.unknown, self.noise_scale = langevin, unknown.to(torch.bool), noise_scale
        if bool(self.unknown.all()) or not bool(self.unknown.any()):
            every = "unknown, so sample instead" if bool(self.unknown.all()) else "known, so nothing is to be restored"
            raise ValueError(
                f"the mask is true where a value is unknown, and in this one every value is {every}; give a mask with"
                " both"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`; known values are returned bit-identical."""
        langevin, m = self.langevin, self.unknown.to(x.device)
        sigma, times = langevin.sigma(process, t), langevin.score_times(score.process) if memory is None else memory
        c = sigma if self.noise_scale == "matched" else langevin.sigma_0 * (sigma / langevin.sigma_0).sqrt()
        z, fresh = noise(x), noise(x)
        noisy = torch.where(m, x, x + over_event(c, x) * fresh)
        denoised = score.denoised(noisy, times[langevin._position(process, t).long()])
        mean = torch.where(m, x + langevin._fraction * (denoised - noisy), x)
        end = torch.where(m, mean + langevin._noise_std(sigma, x) * z, x)
        return StepResult(end, mean, times, denoised=torch.where(m, denoised, x))


@record
class NormalStart(Start):
    """Start from normal noise around one value, whatever the process; MDSM starts from 0.5 + N(0, 1).

    Args:
        mean: Mean of every coordinate, model units.
        std: Standard deviation, model units.
    """

    mean: float = 0.5
    std: float = 1.0

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """A draw of mean + std z."""
        return self.mean + self.std * noise(like)
