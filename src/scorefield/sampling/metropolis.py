"""Correctors that accept or reject: exactly invariant where the density is known up to a constant.

A score alone proposes and cannot weigh. Energies and closed forms know log p_t up to a constant of t
(`Score.with_density`), and then the Metropolis test makes Langevin and Hamiltonian dynamics leave p_t exactly invariant
at any step size. For any other score the difference of log p_t along the way can be integrated from the scores met on
it; that is an approximation and is named one.
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
from scorefield.sampling.langevin import LadderScaled, NoiseScaled, StepSize, require_stable
from scorefield.sampling.step import Moved, Step
from scorefield.score.score import BoundScore


@dataclass(frozen=True)
class Visited:
    """What an accepting step remembers of the state it left: one gradient a step, not two.

    Args:
        x: The state; another one finds nothing here.
        t: Its times.
        log_density: log p_t(x) up to a constant, (B,); None where it is not known.
        score: The score there.
        accepted: Number of accepted proposals of each example since the chain came to this level, (B,).
        proposed: Number of proposals.
    """

    x: Tensor
    t: Tensor
    log_density: Tensor | None
    score: Tensor
    accepted: Tensor
    proposed: int


@dataclass(frozen=True)
class Trajectory:
    """Where leapfrog steps end.

    Args:
        x: The proposal, (B, *event).
        momentum: There, shape of x.
        slope: Gradient of the log density there, shape of x.
        found: What the field found there besides.
        line_integral: Trapezoidal rule for the gain of log density on the way, (B,).
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
    """Kick, drift, kick: p <- p + (h / 2) slope; x <- x + h p; p <- p + (h / 2) slope. Reversible, of volume one.

    Args:
        field: Maps a place, and whether it is the last, to the gradient of the log density there and anything else.
        x: Start, (B, *event).
        momentum: p there.
        slope: Gradient of the log density there, so that `steps` steps call the field as often and no more.
        h: Length of a step, broadcasting with x.
        steps: At least 1.
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
    """The Metropolis test, (B,): true with probability min(1, exp(log_ratio)); what is not a number is refused."""
    return uniform.clamp_min(torch.finfo(uniform.dtype).tiny).log() < log_ratio


@record
class HMC(Step):
    """Hamiltonian Monte Carlo at level t: `leapfrog` steps of length h = sqrt(2 e), then the Metropolis test.

    p ~ N(0, I); p <- p + (h / 2) score(x); x <- x + h p; p <- p + (h / 2) score(x), repeated; the end is accepted with
    probability min(1, p_t(x') exp(-|p'|^2 / 2) / (p_t(x) exp(-|p|^2 / 2))) (Duane et al. 1987; Neal 2011, figure 2).
    With one leapfrog step it is the Metropolis-adjusted Langevin algorithm, x + e score + sqrt(2 e) z (`MALA`).

    Args:
        size: The rule for e. It must not depend on the state, or the proposal is not reversible: NoiseScaled or
            LadderScaled.
        leapfrog: Leapfrog steps of a proposal.
        acceptance: "energy" is exact, and for scores that know their density up to a constant alone; "line integral"
            is approximate, and for any score: the difference of log p_t is the trapezoidal rule over the scores of the
            trajectory, at no further call, with an error of order h^3.

    Raises:
        ValueError: No leapfrog step, or a size that depends on the state.
    """

    size: StepSize = NoiseScaled()
    leapfrog: int = 10
    acceptance: Literal["energy", "line integral"] = "energy"

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = (
        "p_t exactly (acceptance='energy'); p_t up to O(h^3) a step (acceptance='line integral')"
    )
    moves: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.leapfrog < 1:
            raise ValueError(f"leapfrog={self.leapfrog} steps propose nothing; take 1 (MALA) or more")
        if not isinstance(self.size, NoiseScaled | LadderScaled):
            raise ValueError(
                f"{type(self.size).__name__} sets the step by the state, and a proposal that does is not reversible;"
                " use NoiseScaled(snr) or LadderScaled(epsilon, sigma_end)"
            )
        require_stable(self.size)

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`.

        Raises:
            TypeError: acceptance="energy" and a score that does not know its density.
            ValueError: There is no noise at t, so no score to follow.
        """
        if bool((t < 0.0).any()):
            raise ValueError(
                "a corrector has no score to follow below level 0, where there is no noise; put it before the predictor"
                " in the Chain, or end at level 0 with EveryLevel(clean=False)"
            )
        here = self._visit(score, x, t, memory)
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
        kept = accept.reshape(-1, *(1,) * (x.ndim - 1))
        new = torch.where(kept, end.x, x)
        return Moved(
            new, new, self._remember(here, new, t, torch.where(kept, end.slope, here.score), end.found, accept)
        )

    def _visit(self, score: BoundScore, x: Tensor, t: Tensor, memory: Any) -> Visited:
        if isinstance(memory, Visited) and memory.x is x and torch.equal(memory.t, t):
            return memory
        none = torch.zeros(len(x), dtype=torch.long)
        if self.acceptance == "energy":
            return Visited(x, t, *score.with_density(x, t), none, 0)
        return Visited(x, t, None, score(x, t), none, 0)

    def _remember(
        self, here: Visited, x: Tensor, t: Tensor, score: Tensor, log_density: Tensor | None, accept: Tensor
    ) -> Visited:
        if log_density is not None and here.log_density is not None:
            log_density = torch.where(accept, log_density, here.log_density)
        return Visited(x, t, log_density, score, here.accepted + accept.cpu(), here.proposed + 1)

    def calls_per_step(self) -> int | None:
        """One per leapfrog step where the step is repeated; the first at a level makes one more."""
        return self.leapfrog


@record
class MALA(HMC):
    """The Metropolis-adjusted Langevin algorithm: propose x + e score + sqrt(2 e) z, accept or stay.

    `HMC` with one leapfrog step (Roberts and Tweedie 1996).
    """

    leapfrog: int = 1
