"""One Metropolis step under exp(-sum_k w_k U_k(x)), and the tuning of its step length.

Every U_k and its gradient are stored with the state. A temperature, a point of an annealing path and the weight of an
observation are all weights w_k, so a change of the weights needs no evaluation, and a Langevin step needs one gradient.
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
"""The step length of a trajectory is multiplied by a number uniform on [1 - JITTER, 1 + JITTER]."""


@dataclass(frozen=True)
class State:
    """Positions of the chains with the terms and their gradients there.

    Args:
        x: Positions, (B, *event).
        values: U_k(x), float64, (K, B).
        slopes: grad U_k(x) for each k, each shape of x.
    """

    x: Tensor
    values: Tensor
    slopes: tuple[Tensor, ...]

    @classmethod
    def at(cls, terms: Sequence[Energy], x: Tensor) -> State:
        """Evaluate every term and its gradient at x."""
        found = [term.with_gradient(x) for term in terms]
        return cls(x, torch.stack([value.double() for value, _ in found]), tuple(slope for _, slope in found))

    def potential(self, weights: Weights) -> Tensor:
        """sum_k w_k U_k, (B,); a term of weight 0 contributes nothing, even where it is infinite."""
        return sum((w * u for w, u in zip(weights, self.values, strict=True) if w), torch.zeros_like(self.values[0]))

    def slope(self, weights: Weights) -> Tensor:
        """sum_k w_k grad U_k, shape of x."""
        return sum((w * g for w, g in zip(weights, self.slopes, strict=True) if w), torch.zeros_like(self.x))

    def where(self, keep: Tensor, other: State) -> State:
        """The rows of this state where `keep` is true, and those of the other state elsewhere."""
        wide = keep.reshape(-1, *(1,) * (self.x.ndim - 1))
        slopes = tuple(torch.where(wide, a, b) for a, b in zip(self.slopes, other.slopes, strict=True))
        return State(torch.where(wide, self.x, other.x), torch.where(keep, self.values, other.values), slopes)

    def rows(self, keep: Tensor) -> State:
        """The state of some of the chains."""
        return State(self.x[keep], self.values[:, keep], tuple(slope[keep] for slope in self.slopes))


@dataclass(frozen=True)
class Transition:
    """The outcome of one Metropolis step.

    Args:
        state: The new state of the chains.
        accepted: Whether the proposal was accepted, (B,).
        acceptance_probability: Its acceptance probability, float64, (B,).
        not_finite: Whether the proposal was rejected because its energy was NaN or -inf or its gradient was not finite,
            (B,).
    """

    state: State
    accepted: Tensor
    acceptance_probability: Tensor
    not_finite: Tensor


def transition(
    terms: Sequence[Energy], weights: Weights, state: State, size: float, steps: int, noise: StepNoise
) -> Transition:
    """One Metropolis step that leaves exp(-U) invariant, with U = sum_k w_k U_k.

    The proposal is the end of `steps` leapfrog steps. With one step this is MALA, with the proposal
    y = x - e grad U + sqrt(2 e) z, e = size (Roberts and Tweedie 1996). A proposal of infinite energy lies outside the
    support and is rejected.

    With several steps, the step length of a trajectory is sqrt(2 e) multiplied by a number uniform on
    [1 - JITTER, 1 + JITTER], drawn for every chain and transition. A trajectory of fixed length may be a period of the
    dynamics in some direction; it would then end where it began, and that direction would not mix. The number does not
    depend on the state, so that exp(-U) is still left invariant (Neal 2011, section 5.4.2.2).

    Args:
        terms: The U_k.
        weights: The w_k.
        state: The state of the chains.
        size: e, which must not depend on the state.
        steps: Number of leapfrog steps, each of which evaluates one gradient.
        noise: Source of the momenta and of the uniform numbers for the test and for the step lengths.
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
    return Transition(new.where(accepted, state), accepted, log_ratio.clamp_max(0.0).exp().nan_to_num(0.0), ~sound)


@record
class Kernel:
    """The transition kernel of chains at a temperature T.

    The proposal is y = x - (epsilon^2 / 2) grad E + epsilon sqrt(T) z, followed by the Metropolis test.

    Args:
        leapfrog: 1 is the Metropolis-adjusted Langevin algorithm. A larger number gives Hamiltonian trajectories of as
            many leapfrog steps of length epsilon, for momenta of variance T; the step length of each trajectory is
            multiplied by a random factor between 0.5 and 1.5.
        epsilon: The step length in the convention above, 0.02 in the paper for energies with sigma_0 = 0.1; None until
            `tune` has set it.
        acceptance: Acceptance probability that `tune` aims at. By default 0.574 for one step and 0.8 for trajectories,
            near which chains mix fastest (Roberts and Rosenthal 1998; Betancourt et al. 2014).

    Raises:
        ValueError: A number is out of its range.
    """

    leapfrog: int = 1
    epsilon: float | None = None
    acceptance: float | None = None

    def __post_init__(self) -> None:
        if self.leapfrog < 1:
            raise ValueError(
                f"leapfrog={self.leapfrog} must be at least 1: 1 is MALA, and more steps are Hamiltonian Monte Carlo"
            )
        if self.epsilon is not None and not 0.0 < self.epsilon < math.inf:
            raise ValueError(
                f"epsilon={self.epsilon} must be positive and finite; the published value for sigma_0 = 0.1 is 0.02"
            )
        if self.acceptance is not None and not 0.0 < self.acceptance < 1.0:
            raise ValueError(
                f"acceptance={self.acceptance} is a probability and must lie between 0 and 1, for example 0.574"
            )

    @property
    def aim(self) -> float:
        """The acceptance probability that tuning aims at."""
        return self.acceptance or (0.574 if self.leapfrog == 1 else 0.8)

    def size(self, temperature: float) -> float:
        """e = T epsilon^2 / 2 of `transition`.

        Raises:
            ValueError: epsilon is not set.
        """
        if self.epsilon is None:
            raise ValueError(
                "this kernel has no step length yet; set it with tune(energy, pilot, kernel=kernel), or give one, such"
                " as Kernel(epsilon=0.02)"
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
    """Tune the step size e on pilot chains to the acceptance probability that the kernel aims at.

    e is doubled or halved until the acceptance crosses the aim; then log e is found by stochastic approximation
    (Robbins and Monro 1951) and averaged over the second half of its values. Pilot chains are used for nothing else.

    Args:
        terms: The U_k.
        weights: The w_k.
        state: The state of the pilot chains.
        kernel: Its number of leapfrog steps and its aim are used.
        noise: Source of the noise of the pilot chains.
        steps: Number of proposals, at least 2.
        first_step: Step number of the first proposal in the noise.
        size: First guess of e; by default it is computed from the gradients (see `_first_guess`).

    Returns:
        The tuned size e, and the final state of the pilot chains.
    """
    log_size, iteration, direction, values = math.log(size or _first_guess(state.slope(weights))), 0, 0.0, []
    for k in range(steps):
        outcome = transition(
            terms, weights, state, math.exp(log_size), kernel.leapfrog, StepNoise(noise, first_step + k)
        )
        state, gap = outcome.state, float(outcome.acceptance_probability.mean()) - kernel.aim
        if iteration == 0 and k < steps // 2 and direction * gap >= 0.0:
            direction = math.copysign(1.0, gap)
            log_size += math.copysign(math.log(2.0), gap)
            continue
        iteration += 1
        log_size += 2.0 * gap / iteration**0.6
        values.append(log_size)
    late = values[len(values) // 2 :] or [log_size]
    return math.exp(sum(late) / len(late)), state


def _first_guess(slope: Tensor) -> float:
    """D^(2/3) / |grad U|^2.

    D / |grad U|^2 is the variance if U is Gaussian, and the best step size of MALA scales as D^(-1/3).
    """
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
    """The kernel with its step length tuned on pilot chains and then fixed.

    Pilot chains are a separate set with separate noise, so chains that are run with the result stay independent.

    Args:
        energy: E.
        pilot: Initial states of the pilot chains, (P, *event): typical points of p_T, 32 or more.
        temperature: T.
        kernel: Its number of leapfrog steps and its aim are used; by default `Kernel()`.
        steps: Number of proposals of each pilot chain.
        seed: Seed of the pilot's noise, which differs from the noise of other chains with the same seed.
    """
    kernel, energy = kernel or Kernel(), Energy.of(energy)
    check_temperature(temperature)
    weights, terms = (1.0 / temperature,), (energy,)
    noise = pilot_noise(seed, len(pilot))
    size, _ = tuned_size(terms, weights, State.at(terms, pilot), kernel, noise, steps=steps)
    return replace(kernel, epsilon=math.sqrt(2.0 * size / temperature))


PILOT = 2**48
"""Noise index of the first pilot chain; all other chains have smaller indices."""


def pilot_noise(seed: int, count: int) -> Noise:
    """The noise of pilot chains, which no other chain uses."""
    return IndexedNoise(seed, range(PILOT, PILOT + count))


def check_temperature(temperature: float) -> None:
    """Refuse a temperature T that is not positive and finite."""
    if not 0.0 < temperature < math.inf:
        raise ValueError(
            f"temperature={temperature} must be positive and finite, because p is proportional to exp(-E / T); to"
            " descend at T = 0 use the quench of an annealing schedule (PublishedAnneal)"
        )
