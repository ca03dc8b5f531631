"""Annealed-temperature Langevin dynamics on an energy that knows no noise level, and its inpainting (Li et al. 2019).

exp(-E / T) at the temperature T = sigma^2 / sigma_0^2 stands for data with the noise sigma. The step size stays, only
the temperature of the noise falls:

    x - eta grad E + sqrt(2 eta T) z,        eta = step^2 / 2,

and since x - sigma_0^2 grad E = D is the posterior mean, this is x + a (D - x) + sqrt(2 a) sigma z with
a = eta / sigma_0^2: nothing is divided by sigma, and T = 0 is a temperature like any other.
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
from scorefield.sampling.step import Moved, Step
from scorefield.score.score import BoundScore

ROUNDING = 1e-6
"""Of a position in the schedule, in steps."""


@record
class TemperatureSchedule:
    """T of every step: `burn_in` steps at `high`, `anneal` steps down to `low`, `quench` steps linearly to 0.

    Args:
        high: T at first; 100 is the noise 10 sigma_0.
        low: T at which the quench begins; 1 is the noise sigma_0.
        burn_in: Steps at `high`.
        anneal: Steps of the fall, T_k = high (low / high)^(k / anneal) with k = 0, ..., anneal - 1, or linear in k.
        quench: Steps from `low` to 0, both among them.
        spacing: "geometric", the published default, or "linear".

    Raises:
        ValueError: Temperatures that do not fall, or phases without steps.

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
            raise ValueError(f"temperatures must fall, high > low > 0; got high={self.high}, low={self.low}")
        if self.burn_in < 0 or self.anneal < 1 or self.quench < 2:
            raise ValueError(
                f"an anneal takes at least 1 step and a quench 2, its ends; got burn_in={self.burn_in},"
                f" anneal={self.anneal}, quench={self.quench}"
            )

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.burn_in + self.anneal + self.quench

    def temperature(self, position: Tensor) -> Tensor:
        """T at positions k in [0, steps), float64; between two steps the same formulas hold."""
        k = position.to(torch.float64)
        fallen = ((k - self.burn_in) / self.anneal).clamp(0.0, 1.0)
        if self.spacing == "geometric":
            annealed = self.high * (self.low / self.high) ** fallen
        else:
            annealed = self.high + (self.low - self.high) * fallen
        quenched = self.low * (1.0 - (k - self.burn_in - self.anneal) / (self.quench - 1)).clamp(0.0, 1.0)
        return torch.where(k < self.burn_in + self.anneal, annealed, quenched)

    def temperatures(self) -> Tensor:
        """All of them, (steps,) float64."""
        return self.temperature(torch.arange(self.steps))


@record
class TemperatureLangevin(Step):
    """One step of annealed-temperature Langevin dynamics, x - eta grad E + sqrt(2 eta T) z with eta = step^2 / 2.

    The temperature is that of the share 1 - t of the chain that is done, so `Uniform(schedule.steps)` takes every step
    of the schedule once, and a grid of fewer steps goes through the same temperatures faster. On curvature
    1 / sigma_0^2, the largest that an ideal energy has, the stationary variance is T sigma_0^2 / (1 - a / 2) with
    a = eta / sigma_0^2: 1 percent too large at the published step.

    The score is asked for its posterior mean at its own time of the noise sigma_0 sqrt(T), the nearest it has; an
    energy without a noise level answers alike at all.

    Args:
        schedule: The temperatures.
        step: Standard deviation of the noise of a step at T = 1, model units.
        sigma_0: The energy's reference level, model units.

    Raises:
        ValueError: A step or reference level that is not positive, or too long a step to be stable.
    """

    schedule: TemperatureSchedule = TemperatureSchedule()
    step: float = 0.02
    sigma_0: float = 0.1

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = (
        "exp(-E / T) as the step -> 0; on curvature 1 / sigma_0^2 the variance T sigma_0^2 / (1 - a / 2)"
    )
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "scales"

    def __post_init__(self) -> None:
        if not (self.step > 0.0 and self.sigma_0 > 0.0):
            raise ValueError(f"step and sigma_0 must be positive; got step={self.step}, sigma_0={self.sigma_0}")
        if self.step >= 2.0 * self.sigma_0:
            raise ValueError(
                f"step={self.step} is too long: the chain runs away on curvature 1 / sigma_0^2 from 2 sigma_0 ="
                f" {2.0 * self.sigma_0:g} on; 0.2 sigma_0 is the published size"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`.

        Raises:
            ValueError: The process scales its data, so that a temperature stands for no noise level of it.
        """
        sigma, times = self.sigma(process, t), self.score_times(score.process) if memory is None else memory
        denoised = score.denoised(x, times[self._position(process, t).long()])
        mean = x + self._share * (denoised - x)
        return Moved(mean + self._spread(sigma, x) * noise(x), mean, times, denoised=denoised)

    def sigma(self, process: Process, t: Tensor) -> Tensor:
        """sigma_0 sqrt(T) at the chain's times t, (B,) float64."""
        return self.sigma_0 * self.schedule.temperature(self._position(process, t)).sqrt()

    def score_times(self, process: Process) -> Tensor:
        """Times of a score's own process with the noise of every step of the schedule, or the nearest it has.

        Raises:
            ValueError: The process scales its data.
        """
        ends = torch.tensor([process.t_min.sampling, 1.0], dtype=torch.float64)
        if bool((process.alpha(ends) != 1.0).any()):
            raise ValueError(
                f"a temperature stands for a noise level where data are not scaled, alpha = 1; {type(process).__name__}"
                " scales them. Use a sampler of that process, such as --sampler pc"
            )
        least, most = process.sigma(ends).tolist()
        sigma = (self.sigma_0 * self.schedule.temperatures().sqrt()).clamp(least, most)
        return process.time_at_sigma(sigma) if least < most else torch.ones_like(sigma)

    def _position(self, process: Process, t: Tensor) -> Tensor:
        """Where in the schedule a time of the chain is, in steps."""
        low = process.t_min.sampling
        done = (1.0 - t.to(torch.float64)) / (1.0 - low) if low < 1.0 else torch.zeros_like(t)
        # Grids are rounded; a step that belongs to the quench must not be counted to the anneal.
        position = done * self.schedule.steps
        nearest = position.round()
        position = torch.where((position - nearest).abs() < ROUNDING, nearest, position)
        return position.clamp(0, self.schedule.steps - 1)

    @property
    def _share(self) -> float:
        """a = eta / sigma_0^2, the share of the way to the posterior mean."""
        return 0.5 * (self.step / self.sigma_0) ** 2

    def _spread(self, sigma: Tensor, x: Tensor) -> Tensor:
        return over_event(sigma * (self.step / self.sigma_0), x)


class InpaintingLangevin(Step):
    """Annealed-temperature Langevin dynamics of the unknown part of an example, the rest being known.

    The gradient is taken where the known part has the noise of the temperature, drawn afresh at every step, so that the
    whole example looks like one noise level; only the unknown part moves:

        x - eta m grad E(x + c z' (1 - m)) + sqrt(2 eta T) m z,        c = sigma_0 sqrt(T).

    Args:
        langevin: Schedule and step.
        unknown: m, true where the example is not known, broadcast over the batch.
        noise_scale: "matched", c = sigma_0 sqrt(T); "published", the release's c = sigma_0 T^(1/4), a third of it at
            T = 100.

    Raises:
        ValueError: Nothing or everything is known.

    Reference: Li et al., "Learning energy-based models in high-dimensional spaces with multi-scale denoising score
    matching", 2019, appendix.
    """

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = "near exp(-E / T) of the unknown part given the known part"

    def __init__(
        self,
        langevin: TemperatureLangevin,
        unknown: Tensor,
        noise_scale: Literal["matched", "published"] = "matched",
    ):
        self.langevin, self.unknown, self.noise_scale = langevin, unknown.to(torch.bool), noise_scale
        if bool(self.unknown.all()) or not bool(self.unknown.any()):
            every = "no value is known: sample instead" if bool(self.unknown.all()) else "every value is known"
            raise ValueError(f"nothing to restore, {every}; the mask is true where a value is unknown")

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`; known values come out bit-identical."""
        walk, m = self.langevin, self.unknown.to(x.device)
        sigma, times = walk.sigma(process, t), walk.score_times(score.process) if memory is None else memory
        c = sigma if self.noise_scale == "matched" else walk.sigma_0 * (sigma / walk.sigma_0).sqrt()
        z, fresh = noise(x), noise(x)
        seen = torch.where(m, x, x + over_event(c, x) * fresh)
        denoised = score.denoised(seen, times[walk._position(process, t).long()])
        mean = torch.where(m, x + walk._share * (denoised - seen), x)
        end = torch.where(m, mean + walk._spread(sigma, x) * z, x)
        return Moved(end, mean, times, denoised=torch.where(m, denoised, x))


@record
class NormalStart(Start):
    """Normal noise about one value in every coordinate, whatever the process: the start of MDSM, 0.5 + N(0, 1).

    Args:
        mean: Model units.
        std: Model units.
    """

    mean: float = 0.5
    std: float = 1.0

    def __call__(self, process: Process, t: Tensor, like: Tensor, noise: StepNoise, data: Tensor | None) -> Tensor:
        """mean + std z."""
        return self.mean + self.std * noise(like)
