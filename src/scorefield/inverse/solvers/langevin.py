"""Annealed Langevin dynamics on p_t(x) p(y | x): no Jacobian of the network, and exact in a limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, unexpanded
from scorefield._random import StepNoise
from scorefield._typing import Condition
from scorefield.inverse.observation import Observation
from scorefield.inverse.operators.operator import LinearOperator
from scorefield.inverse.operators.spectrum import Spectrum
from scorefield.inverse.solvers.solver import Solver, take_observed
from scorefield.process.general import GeneralSDE
from scorefield.process.grids import Grid
from scorefield.process.process import Process
from scorefield.sampling.langevin import Langevin
from scorefield.sampling.named import annealed_langevin
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Hold, Repeat, Step, StepResult
from scorefield.score.score import BoundScore, Score


@record
class PosteriorLangevin(Solver):
    """Langevin steps at falling noise levels, the likelihood being taken at x / alpha with more noise than y has.

    At the level t the target is p_t(x) p(y | x / alpha)^l, with the ratio r = sigma / alpha of noise to data and

        l = v / (v + e_t^2),    e_t = c |A| sqrt(r_t^2 - r_end^2),

    v the mean variance of an entry of y, |A| the largest singular value (1 for functions that are not linear). Normal
    noise thus has the variance std^2 + e_t^2, for so far may A(x / alpha) lie from A(x_0) (Jalal et al. 2021 let it
    fall likewise). At the last level e is 0: the target there is exactly the posterior of data smoothed by the noise
    r_end, and the chain's distribution tends to it as its steps become small and many; `settling` of them are added
    there. How far r_end is from 0 is all that is left, and the steps that it takes grow as (width of the data /
    r_end)^2.

    Where A is linear every step has a size of its own along each singular vector, that of the sampler's rule over
    1 + r^2 s^2 / (v + e_t^2): the curvature of the likelihood may be far above that of the prior
    (SNIPS, Kawar et al. 2021, has such steps). A positive constant matrix before gradient and noise leaves the
    distribution.

    The final denoising is that of the prior alone: given x_t, y says no more of x_0 where y is measured from x_t.

    Args:
        inflation: c, the strength of the additional noise; 0 has the final likelihood at every level.
        settling: Additional rounds of steps at the last level.
        preconditioned: Whether steps take their sizes from the singular values, or the sampler's as they are, as a step
            with an acceptance test does (`Repeat(MALA(...), n)`) where the prior has a density.

    Raises:
        ValueError: A negative inflation or number of rounds.

    Reference: Jalal, Arvinte, Daras, Price, Dimakis and Tamir, "Robust compressed sensing MRI with deep generative
    priors", 2021, section 3.
    """

    inflation: float = 1.0
    settling: int = 100
    preconditioned: bool = True

    name: ClassVar[str] = "langevin"
    exact: ClassVar[str] = "for data smoothed at the last level, as steps -> 0 and their number -> infinity there"
    steps: ClassVar[tuple[type[Step], ...] | None] = (Hold,)

    def __post_init__(self) -> None:
        if not (0.0 <= self.inflation < float("inf") and self.settling >= 0):
            raise ValueError(
                f"inflation={self.inflation} and settling={self.settling} must not be negative; 1 and 100 are usual"
            )

    def default_sampler(self, score: Score) -> Sampler:
        """Five Langevin steps at each level of a ladder, or at 232 levels."""
        return annealed_langevin(score.process)

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The score of the targets; the sampler with sizes of steps for them and more rounds at its last level."""
        process: Process = sampler.process or score.process
        times = sampler.times(score.process)
        ratios = noise_to_data(process, times)
        target = Measured(score, observation, self.inflation, float(ratios[ratios > 0.0].min()))
        step = _resized(sampler.step, target) if self.preconditioned else sampler.step
        return target, replace(sampler, step=step, grid=Settling(sampler.grid, self.settling))

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """Reasons to refuse: those of every solver, and a sampler without a corrector."""
        if isinstance(score.process, GeneralSDE):
            return ["langevin needs alpha and sigma, and a GeneralSDE has a drift and a diffusion only"]
        why = super().refusals(score, sampler, observation)
        if not any(not part.moves for part in sampler.step.parts()):
            why.append("langevin needs a corrector, which moves x at one level: Chain((Hold(), Repeat(Langevin(), 5)))")
        return why


@record
class Settling(Grid):
    """A grid that stays at its last noise level for some more steps.

    Args:
        grid: The grid.
        rounds: Number of rounds.
    """

    grid: Grid
    rounds: int

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """The times with the last noisy one repeated."""
        times = self.grid.times(process)
        assert isinstance(process, Process)
        last = int((process.sigma(times) > 0.0).sum())
        return torch.cat([times[:last], times[last - 1].expand(self.rounds), times[last:]])


class Measured(Score):
    """The gradient of log p_t(x) + l log p(y | x / alpha), with l = v / (v + e_t^2).

    Args:
        score: Score of x, the prior.
        observation: The observation, in model units.
        inflation: c of e_t = c |A| sqrt(r_t^2 - end^2).
        end: The smallest ratio r of noise to data, from which on l is 1.
    """

    def __init__(self, score: Score, observation: Observation, inflation: float, end: float):
        self.score, self.process, self.observation, self.end = score, score.process, observation, end
        self.spectrum = spectrum_of(observation)
        self.norm = 1.0 if self.spectrum is None else float(self.spectrum.values.max())
        self._inflation = inflation * self.norm

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score of the target at t."""
        known, y = take_observed(condition, self.observation, x)
        return self.score(x, t, known) + self._likelihood(x, t, y)[1]

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """E[x_0 | x_t = x] of the prior: given x_t, y says no more."""
        return self.score.denoised(x, t, take_observed(condition, self.observation, x)[0])

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(log of the target up to a constant of t, its score), where the prior has a density."""
        known, y = take_observed(condition, self.observation, x)
        log_p, slope = self.score.with_density(x, t, known)
        more, pull = self._likelihood(x, t, y)
        return log_p + more, slope + pull

    def evaluations(self, condition: Condition | None = None) -> int:
        """See `Score`."""
        return self.score.evaluations(condition)

    def variances(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(v, e_t^2), both (B,): the mean variance of a measurement, and what is added to it at t."""
        v = self.observation.noise.variance(y).flatten(1).mean(1)
        added = self._inflation**2 * (noise_to_data(self.process, t) ** 2 - self.end**2)
        return v, added.clamp_min(0.0).to(v).expand(len(v))

    def _likelihood(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        v, added = self.variances(t, y)
        # Noise without a variance is not made any wider, nor is any at the last level.
        weight = torch.where((added > 0.0) & torch.isfinite(v), v / (v + added), 1.0)
        with torch.enable_grad():
            point = x.detach().requires_grad_(True)
            log_p = weight * self.observation.log_likelihood(
                point / over_event(self.process.alpha(unexpanded(t)), x), y
            )
            (slope,) = torch.autograd.grad(log_p.sum(), point)
        return log_p.detach(), slope


def spectrum_of(observation: Observation) -> Spectrum | None:
    """The singular values of A; None where it is not linear or too large for them."""
    if not isinstance(observation.operator, LinearOperator):
        return None
    try:
        return observation.operator.spectrum()
    except ValueError:
        return None


class ConditionedLangevin(Step):
    """A Langevin step whose size along each singular vector of A is that of a rule over 1 + its share of curvature.

    x + P g + sqrt(2 P) z with P = V diag(e / (1 + k)) V' and k = sigma_t^2 s^2 / (alpha^2 (v + e_t^2)).

    Args:
        langevin: The rule for e, and its convention.
        target: The score that is followed.
    """

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = "that of the score as e -> 0"
    moves: ClassVar[bool] = False
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "scales"

    def __init__(self, langevin: Langevin, target: Measured):
        assert target.spectrum is not None
        self.langevin, self.target, self.spectrum = langevin, target, target.spectrum

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`."""
        gradient, z = score(x, t), noise(x)
        e = self.langevin.size(process, t, s, gradient, z)
        e = 0.5 * e if self.langevin.convention == "half" else e
        size = e.to(x).reshape(-1, 1) / (1.0 + self._curvature(score, x, t))
        mean = x + self.spectrum.right_back(size * self.spectrum.right(gradient))
        # Standard normal noise is as standard in the basis of the singular vectors.
        return StepResult(mean + self.spectrum.right_back((2.0 * size).sqrt() * z.flatten(1)), mean)

    def _curvature(self, score: BoundScore, x: Tensor, t: Tensor) -> Tensor:
        """k, (B, D)."""
        _, y = take_observed(score.condition, self.target.observation, x)
        v, added = self.target.variances(t, y)
        squared = (noise_to_data(self.target.process, t).to(x) ** 2)[:, None] * self.spectrum.values.to(x) ** 2
        return squared / (v + added)[:, None]


def noise_to_data(process: Process, t: Tensor) -> Tensor:
    """sigma / alpha, (B,) or (1,)."""
    return process.sigma(unexpanded(t)) / process.alpha(unexpanded(t))


def _resized(step: Step, target: Measured) -> Step:
    """This composition with preconditioned Langevin steps, where singular values are available."""
    if target.spectrum is None:
        return step
    if isinstance(step, Chain):
        return Chain(tuple(_resized(part, target) for part in step.steps))
    if isinstance(step, Repeat):
        return Repeat(_resized(step.step, target), step.times)
    return ConditionedLangevin(step, target) if isinstance(step, Langevin) else step
