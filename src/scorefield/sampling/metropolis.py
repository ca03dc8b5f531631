"""Metropolis-Hastings correctors: they leave p_t exactly invariant where the density is known up to a constant.

Acceptance probabilities need differences of log p_t, which a score alone does not give. Energies and closed-form scores
provide log p_t up to a constant that depends on t (`Score.with_density`); with it the Metropolis test makes Langevin
and Hamiltonian dynamics leave p_t exactly invariant at any step size. For any other score the difference can be
approximated by the line integral of the scores along the trajectory (acceptance="line integral").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, sum_event
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.langevin import LadderScaled, NoiseScaled, StepSize, require_noise, require_stable
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore


@dataclass(frozen=True)
class MetropolisMemory:
    """The score and density at the current state, kept so that a repeated step evaluates one gradient instead of two.

    Args:
        x: The state, (B, *event). The memory is valid for this tensor only.
        t: Its times, (B,).
        log_density: log p_t(x) up to a constant, (B,); None where it is not known.
        score: The score at x, shape of x.
        accepted: Number of accepted proposals of each example at this noise level, (B,).
        proposed: Number of proposals at this noise level.
    """

    x: Tensor
    t: Tensor
    log_density: Tensor | None
    score: Tensor
    accepted: Tensor
    proposed: int


@dataclass(frozen=True)
class Trajectory:
    """The end of a sequence of leapfrog steps.

    Args:
        x: The end point, (B, *event).
        momentum: The momentum at x, shape of x.
        slope: Gradient of the log density at x, shape of x.
        found: The second value that the field returned at x.
        line_integral: Change of the log density along the trajectory by the trapezoidal rule, (B,).
    """

    x: Tensor
    momentum: Tensor
    slope: Tensor
    found: Any
    line_integral: Tensor


def leapfrog(
    field: Callable[[Tensor, bool], tuple[Tensor, Any]],
    x: Tensor,
    momentum: Tensor,
    slope: Tensor,
    h: Tensor,
    steps: int,
) -> Trajectory:
    """Leapfrog steps: p <- p + (h / 2) slope; x <- x + h p; p <- p + (h / 2) slope. Reversible and volume-preserving.

    Args:
        field: Called with a point and whether it is the last one; returns the gradient of the log density there and any
            further value, of which that at the last point is returned.
        x: Initial point, (B, *event).
        momentum: p at x, shape of x.
        slope: Gradient of the log density at x, shape of x; with it `steps` steps make exactly `steps` calls of the
            field.
        h: Step length, broadcasting with x.
        steps: Number of steps, at least 1.
    """
    gained, found = torch.zeros(len(x), dtype=x.dtype, device=x.device), None
    for k in range(steps):
        momentum = momentum + 0.5 * h * slope
        new = x + h * momentum
        new_slope, found = field(new, k + 1 == steps)
        momentum = momentum + 0.5 * h * new_slope
        gained = gained + 0.5 * sum_event((slope + new_slope) * (new - x))
        x, slope = new, new_slope
    return Trajectory(x, momentum, slope, found, gained)


def kinetic_difference(before: Tensor, after: Tensor) -> Tensor:
    """(|p|^2 - |p'|^2) / 2, (B,), without the cancellation of two sums of D terms."""
    return 0.5 * sum_event((before - after) * (before + after))


def accepts(log_ratio: Tensor, uniform: Tensor) -> Tensor:
    """The Metropolis test, (B,): true with probability min(1, exp(log_ratio)), and false where the ratio is NaN."""
    return uniform.clamp_min(torch.finfo(uniform.dtype).tiny).log() < log_ratio


@record
class HMC(Step):
    """Hamiltonian Monte Carlo at level t: `leapfrog` steps of length h = sqrt(2 e), then the Metropolis test.

    Momenta are drawn as p ~ N(0, I), and p <- p + (h / 2) score(x); x <- x + h p; p <- p + (h / 2) score(x) is
    repeated. The end (x', p') is accepted with probability
    min(1, p_t(x') exp(-|p'|^2 / 2) / (p_t(x) exp(-|p|^2 / 2))) (Duane et al. 1987; Neal 2011, figure 2). With one
    leapfrog step this is the Metropolis-adjusted Langevin algorithm with the proposal x + e score + sqrt(2 e) z
    (`MALA`).

    Args:
        size: The rule for e: NoiseScaled or LadderScaled. A rule that depends on the state would make the proposal
            irreversible.
        leapfrog: Number of leapfrog steps of a proposal.
        acceptance: "energy" is exact and needs a score that knows its density up to a constant. "line integral" is
            approximate and works for any score: the difference of log p_t is computed by the trapezoidal rule from the
            scores of the trajectory, without further evaluations and with an error of order h^3.

    Raises:
        ValueError: There is no leapfrog step, or the rule for the size depends on the state.
    """

    size: StepSize = NoiseScaled()
    leapfrog: int = 10
    acceptance: Literal["energy", "line integral"] = "energy"

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "p_t exactly (acceptance='energy'); p_t up to O(h^3) per step (acceptance='line integral')"
    )
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.leapfrog < 1:
            raise ValueError(
                f"leapfrog={self.leapfrog} must be at least 1: a proposal is the end of at least one leapfrog step, and"
                " 1 is MALA"
            )
        if not isinstance(self.size, NoiseScaled | LadderScaled):
            raise ValueError(
                f"{type(self.size).__name__} computes the step size from the state, which makes the proposal"
                " irreversible; use NoiseScaled(snr) or LadderScaled(epsilon, sigma_end)"
            )
        require_stable(self.size)

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`.

        Raises:
            TypeError: acceptance="energy", and the score does not know its density.
            ValueError: There is no noise at t and therefore no score.
        """
        require_noise(t)
        here = self._at(score, x, t, memory)
        p = noise(x)
        h = over_event((2.0 * self.size(process, t, s, here.score, p)).sqrt(), x)
        exact = self.acceptance == "energy"

        def field(place: Tensor, last: bool) -> tuple[Tensor, Tensor | None]:
            if exact and last:
                density, slope = score.with_density(place, t)
                return slope, density
            return score(place, t), None

        end = leapfrog(field, x, p, here.score, h, self.leapfrog)
        gained = end.line_integral
        if exact:
            assert end.found is not None and here.log_density is not None
            gained = end.found - here.log_density
        log_ratio = gained + kinetic_difference(p, end.momentum)
        accept = accepts(log_ratio, noise.uniform(x.new_empty(len(x), 1))[:, 0])
        accept_event = accept.reshape(-1, *(1,) * (x.ndim - 1))
        new = torch.where(accept_event, end.x, x)
        gradient = torch.where(accept_event, end.slope, here.score)
        return StepResult(new, new, self._updated(here, new, t, gradient, end.found, accept))

    def _at(self, score: BoundScore, x: Tensor, t: Tensor, memory: Any) -> MetropolisMemory:
        """Score and density at x: from memory where the previous step ended there, else by one evaluation."""
        if isinstance(memory, MetropolisMemory) and memory.x is x and torch.equal(memory.t, t):
            return memory
        none = torch.zeros(len(x), dtype=torch.long)
        if self.acceptance == "energy":
            return MetropolisMemory(x, t, *score.with_density(x, t), none, 0)
        return MetropolisMemory(x, t, None, score(x, t), none, 0)

    def _updated(
        self, here: MetropolisMemory, x: Tensor, t: Tensor, score: Tensor, log_density: Tensor | None, accept: Tensor
    ) -> MetropolisMemory:
        """The memory after the test: the new state x, its score, and the density of the proposal where accepted."""
        if log_density is not None and here.log_density is not None:
            log_density = torch.where(accept, log_density, here.log_density)
        return MetropolisMemory(x, t, log_density, score, here.accepted + accept.cpu(), here.proposed + 1)

    def calls_per_step(self) -> int | None:
        """One evaluation per leapfrog step where the step is repeated; the first step at a level makes one more."""
        return self.leapfrog


@record
class MALA(HMC):
    """The Metropolis-adjusted Langevin algorithm: propose x + e score + sqrt(2 e) z, then accept or reject.

    `HMC` with one leapfrog step (Roberts and Tweedie 1996).
    """

    leapfrog: int = 1
