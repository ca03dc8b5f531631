"""Correctors that accept or reject: exactly invariant where the density is known up to a constant.

A score alone proposes and cannot weigh. Energies and closed forms know log p_t up to a constant of t
(`Score.with_density`), and then the Metropolis test makes Langevin and Hamiltonian dynamics leave p_t exactly invariant
at any step size. For any other score the difference of log p_t along the way can be integrated from the scores met on
it; that is an approximation and is named one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, sum_event
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.langevin import LadderScaled, NoiseScaled, StepSize
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
        place, momentum, slope = x, p, here.score
        gained = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        log_density = here.log_density
        for k in range(self.leapfrog):
            momentum = momentum + 0.5 * h * slope
            new = place + h * momentum
            last = k + 1 == self.leapfrog
            if self.acceptance == "energy" and last:
                log_density, new_slope = score.with_density(new, t)
            else:
                new_slope = score(new, t)
            momentum = momentum + 0.5 * h * new_slope
            gained = gained + 0.5 * sum_event((slope + new_slope) * (new - place))
            place, slope = new, new_slope
        if self.acceptance == "energy":
            assert log_density is not None and here.log_density is not None
            gained = log_density - here.log_density
        log_ratio = gained + 0.5 * (sum_event(p**2) - sum_event(momentum**2))
        u = noise.uniform(x.new_empty(len(x), 1))[:, 0]
        # A proposal that is not finite compares false and is rejected.
        accept = u.clamp_min(torch.finfo(u.dtype).tiny).log() < log_ratio
        kept = accept.reshape(-1, *(1,) * (x.ndim - 1))
        end = torch.where(kept, place, x)
        return Moved(end, end, self._remember(here, end, t, torch.where(kept, slope, here.score), log_density, accept))

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
