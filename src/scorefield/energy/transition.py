"""One Metropolis move under exp(-sum_k w_k U_k(x)), every U_k and its gradient remembered with the state.

A temperature, a step of an annealing path and an observation are all weights of such terms, so that a change of the
weights costs no evaluation, and a Langevin step costs one gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import sum_event
from scorefield._random import IndexedNoise, Noise, StepNoise
from scorefield.sampling.metropolis import accepts, kinetic_difference, leapfrog
from scorefield.score.energy import Energy, EnergyLike

Weights = tuple[float, ...]

JITTER = 0.5
"""Steps of a trajectory are as long as its size says times a number uniform on [1 - JITTER, 1 + JITTER]."""


@dataclass(frozen=True)
class State:
    """Places with all that was found there.

    Args:
        x: (B, *event).
        values: U_k(x), float64, (K, B).
        slopes: grad U_k(x), each shape of x.
    """

    x: Tensor
    values: Tensor
    slopes: tuple[Tensor, ...]

    @classmethod
    def at(cls, terms: Sequence[Energy], x: Tensor) -> State:
        """One evaluation of every term and of its gradient."""
        found = [term.with_gradient(x) for term in terms]
        return cls(x, torch.stack([value.double() for value, _ in found]), tuple(slope for _, slope in found))

    def potential(self, weights: Weights) -> Tensor:
        """sum_k w_k U_k, (B,); an infinite term of weight zero counts nothing."""
        return sum((w * u for w, u in zip(weights, self.values, strict=True) if w), torch.zeros_like(self.values[0]))

    def slope(self, weights: Weights) -> Tensor:
        """sum_k w_k grad U_k, shape of x."""
        return sum((w * g for w, g in zip(weights, self.slopes, strict=True) if w), torch.zeros_like(self.x))

    def where(self, keep: Tensor, other: State) -> State:
        """Of this state where `keep`, of the other elsewhere."""
        wide = keep.reshape(-1, *(1,) * (self.x.ndim - 1))
        slopes = tuple(torch.where(wide, a, b) for a, b in zip(self.slopes, other.slopes, strict=True))
        return State(torch.where(wide, self.x, other.x), torch.where(keep, self.values, other.values), slopes)

    def rows(self, keep: Tensor) -> State:
        """Of some examples."""
        return State(self.x[keep], self.values[:, keep], tuple(slope[keep] for slope in self.slopes))


@dataclass(frozen=True)
class Tried:
    """Outcome of a proposal.

    Args:
        state: Where the chains are now.
        accepted: (B,).
        chance: Probability of acceptance, (B,), float64.
        not_finite: The proposal had an energy of NaN or -inf, or no finite gradient; it was rejected, (B,).
    """

    state: State
    accepted: Tensor
    chance: Tensor
    not_finite: Tensor


def transition(
    terms: Sequence[Energy], weights: Weights, state: State, size: float, steps: int, noise: StepNoise
) -> Tried:
    """Propose by `steps` leapfrog steps of length about sqrt(2 size), accept or stay: exp(-sum w U) is left invariant.

    With one step this is MALA at the temperature of the weights, y = x - e grad U + sqrt(2 e) z, U = sum w U_k,
    e = size (Roberts and Tweedie 1996). A proposal of infinite energy is outside the support and is rejected.

    With several, all steps of a trajectory are sqrt(2 e) times one number, uniform on [1 - JITTER, 1 + JITTER] and new
    for every chain and transition. A trajectory of a fixed length that is a period of some direction returns to where
    it began and that direction never mixes; the number does not depend on the state, so the law is left invariant as
    before (Neal 2011, section 5.4.2.2).

    Args:
        terms: The U_k.
        weights: The w_k.
        state: Where the chains are.
        size: e, the same for all, whatever their states.
        steps: Gradients of a proposal.
        noise: Momenta, then uniform numbers for the test, then for the lengths.
    """
    x = state.x
    p, h = noise(x), x.new_tensor(math.sqrt(2.0 * size))
    uniform = noise.uniform(x.new_empty(len(x), 1))[:, 0]
    if steps > 1:
        stretch = 1.0 + JITTER * (2.0 * noise.uniform(x.new_empty(len(x), 1))[:, 0] - 1.0)
        h = h * stretch.reshape(-1, *(1,) * (x.ndim - 1))

    def field(place: Tensor, last: bool) -> tuple[Tensor, State]:
        found = State.at(terms, place)
        return -found.slope(weights), found

    end = leapfrog(field, x, p, -state.slope(weights), h, steps)
    new: State = end.found
    before, after = state.potential(weights), new.potential(weights)
    log_ratio = before - after + kinetic_difference(p, end.momentum).double()
    sound = ~(after.isnan() | torch.isneginf(after)) & (torch.isposinf(after) | sum_event(end.slope).isfinite())
    log_ratio = torch.where(sound & after.isfinite(), log_ratio, -torch.inf)
    accepted = accepts(log_ratio, uniform.double())
    return Tried(new.where(accepted, state), accepted, log_ratio.clamp_max(0.0).exp().nan_to_num(0.0), ~sound)


@record
class Kernel:
    """How chains move at a temperature T: y = x - (epsilon^2 / 2) grad E + epsilon sqrt(T) z, then the Metropolis test.

    Args:
        leapfrog: 1 is the Metropolis-adjusted Langevin algorithm; more are Hamiltonian trajectories of as many leapfrog
            steps of length epsilon (in the clock in which momenta have variance T), each trajectory stretched by a
            random factor between 0.5 and 1.5.
        epsilon: The published step length (0.02 for energies with sigma_0 = 0.1); None until `tune` has set it.
        acceptance: What `tune` aims at; by default 0.574 for one step and 0.8 for trajectories, near which the speed
            of mixing is greatest (Roberts and Rosenthal 1998; Betancourt et al. 2014).

    Raises:
        ValueError: A number that no chain can use.
    """

    leapfrog: int = 1
    epsilon: float | None = None
    acceptance: float | None = None

    def __post_init__(self) -> None:
        if self.leapfrog < 1:
            raise ValueError(f"leapfrog={self.leapfrog} steps propose nothing; 1 is MALA, more are HMC")
        if self.epsilon is not None and not 0.0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon={self.epsilon} must be positive; 0.02 is published for sigma_0 = 0.1")
        if self.acceptance is not None and not 0.0 < self.acceptance < 1.0:
            raise ValueError(f"acceptance={self.acceptance} is a share between 0 and 1, for example 0.574")

    @property
    def aim(self) -> float:
        """The acceptance that tuning aims at."""
        return self.acceptance or (0.574 if self.leapfrog == 1 else 0.8)

    def size(self, temperature: float) -> float:
        """e = T epsilon^2 / 2 of `transition`.

        Raises:
            ValueError: epsilon is not set.
        """
        if self.epsilon is None:
            raise ValueError(
                "this kernel has no step length: tune(energy, pilot, kernel=kernel) sets it, or epsilon=0.02"
            )
        return 0.5 * temperature * self.epsilon**2


def tuned_size(
    terms: Sequence[Energy],
    weights: Weights,
    state: State,
    kernel: Kernel,
    noise: Noise,
    *,
    steps: int,
    first_step: int = 0,
    size: float | None = None,
) -> tuple[float, State]:
    """The step at which the chains of a pilot accept as often as the kernel aims at, and where they end.

    Doubling or halving until the acceptance crosses the aim, then stochastic approximation of log e (Robbins and Monro
    1951), averaged over its second half. The pilot's chains are used for nothing else.

    Args:
        terms: The U_k.
        weights: Their weights.
        state: Where the pilot's chains are.
        kernel: For its number of leapfrog steps and its aim.
        noise: Of the pilot's chains.
        steps: How many proposals, at least 2.
        first_step: Number of the first in the noise.
        size: First guess; by default from the gradients, D over their mean square.
    """
    log_size, met, direction, trail = math.log(size or _first_guess(state.slope(weights))), 0, 0.0, []
    for k in range(steps):
        tried = transition(terms, weights, state, math.exp(log_size), kernel.leapfrog, StepNoise(noise, first_step + k))
        state, gap = tried.state, float(tried.chance.mean()) - kernel.aim
        if met == 0 and k < steps // 2 and direction * gap >= 0.0:
            direction = math.copysign(1.0, gap)
            log_size += math.copysign(math.log(2.0), gap)
            continue
        met += 1
        log_size += 2.0 * gap / met**0.6
        trail.append(log_size)
    late = trail[len(trail) // 2 :] or [log_size]
    return math.exp(sum(late) / len(late)), state


def _first_guess(slope: Tensor) -> float:
    """D^(2/3) / |grad U|^2: the variance of a Gaussian at which D / |grad U|^2 is it, times D^(-1/3)."""
    squares = sum_event(slope.double() ** 2)
    squares = squares[squares.isfinite() & (squares > 0)]
    return slope[0].numel() ** (2.0 / 3.0) / (float(squares.mean()) if len(squares) else 1.0)


def tune(
    energy: EnergyLike,
    pilot: Tensor,
    *,
    temperature: float = 1.0,
    kernel: Kernel | None = None,
    steps: int = 100,
    seed: int = 0,
) -> Kernel:
    """The kernel with its step length set from pilot chains, never to change again.

    The pilot is a set of its own: chains run with the result do not depend on each other through it.

    Args:
        energy: E.
        pilot: Where the pilot's chains start, (P, *event), typical points of p_T; 32 or more.
        temperature: T.
        kernel: For its leapfrog steps and its aim.
        steps: Proposals of each pilot chain.
        seed: Of the pilot; its noise is never that of chains.
    """
    kernel, energy = kernel or Kernel(), Energy.of(energy)
    check_temperature(temperature)
    weights, terms = (1.0 / temperature,), (energy,)
    noise = pilot_noise(seed, len(pilot))
    size, _ = tuned_size(terms, weights, State.at(terms, pilot), kernel, noise, steps=steps)
    return replace(kernel, epsilon=math.sqrt(2.0 * size / temperature))


PILOT = 2**48
"""Index of the first pilot chain; chains proper have indices below."""


def pilot_noise(seed: int, count: int) -> Noise:
    """Noise that no chain proper sees."""
    return IndexedNoise(seed, range(PILOT, PILOT + count))


def check_temperature(temperature: float) -> None:
    """Refuse what is no temperature of a law."""
    if not 0.0 < temperature < math.inf:
        raise ValueError(
            f"temperature={temperature} must be positive: p is proportional to exp(-E / T). Descending at T = 0 is the"
            " quench of an annealing schedule"
        )
