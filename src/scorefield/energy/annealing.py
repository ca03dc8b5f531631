"""Annealing: chains at decreasing temperatures, in which every step is exact at its own temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import IndexedNoise, Noise, StepNoise
from scorefield.energy.chains import broken_at
from scorefield.energy.convergence import ess_bulk, r_hat
from scorefield.energy.transition import Kernel, State, check_temperature, pilot_noise, transition, tuned_size
from scorefield.sampling.temperature import TemperatureSchedule
from scorefield.score.energy import Energy, EnergyLike


@dataclass(frozen=True)
class Stage:
    """Consecutive steps at one temperature.

    Args:
        temperature: T; at 0 a step is a gradient step, which is accepted where it does not raise E.
        steps: Number of steps.
        epsilon: Step length of the proposal y = x - (epsilon^2 / 2) grad E + epsilon sqrt(T) z; None until tuned.
    """

    temperature: float
    steps: int
    epsilon: float | None


@record
class Ladder:
    """Temperatures in geometric sequence with equally many steps at each; `tune_ladder` sets the step lengths.

    Args:
        highest: The first temperature T; the initial states should have the noise sigma_0 sqrt(T).
        lowest: The last temperature, that of the draws.
        rungs: Number of temperatures.
        steps: Number of steps at each temperature.
        epsilons: Step length at each temperature; None until tuned.
        leapfrog: Number of leapfrog steps of a proposal; 1 is MALA, more are HMC.
        jump: Whether the draws are denoised at the end, x - sigma_0^2 grad E.

    Raises:
        ValueError: The temperatures do not decrease, a number is out of its range, or the number of step lengths is not
            that of the rungs.
    """

    highest: float = 100.0
    lowest: float = 1.0
    rungs: int = 20
    steps: int = 100
    epsilons: tuple[float, ...] | None = None
    leapfrog: int = 1
    jump: bool = False

    def __post_init__(self) -> None:
        if not self.highest >= self.lowest > 0 or self.rungs < 1 or self.steps < 1 or self.leapfrog < 1:
            raise ValueError(
                f"{self} is not a ladder of temperatures: it needs highest >= lowest > 0, and rungs, steps and leapfrog"
                " of at least 1"
            )
        if self.epsilons is not None and len(self.epsilons) != self.rungs:
            raise ValueError(
                f"{self.rungs} rungs need as many step lengths, and {len(self.epsilons)} were given; leave"
                " epsilons=None and let tune_ladder(energy, pilot, ladder) set them"
            )

    def stages(self) -> tuple[Stage, ...]:
        """One stage for each temperature, from the highest to the lowest."""
        ratio = math.log(self.lowest / self.highest) / max(self.rungs - 1, 1)
        epsilons = self.epsilons or (None,) * self.rungs
        return tuple(
            Stage(self.highest * math.exp(k * ratio), self.steps, epsilon) for k, epsilon in enumerate(epsilons)
        )


@record
class PublishedAnneal:
    """The schedule of Li et al. (2019): 500 steps at T = 100, 2000 down to T = 1, 200 to T = 0, and one jump.

    The published code has no Metropolis test. Here every step is tested at its temperature; at the published step
    length five of a hundred are rejected.

    Args:
        schedule: The temperatures.
        epsilon: Step length at every temperature.
    """

    schedule: TemperatureSchedule = TemperatureSchedule()
    epsilon: float = 0.02

    @property
    def leapfrog(self) -> int:
        """1: the steps are Langevin steps."""
        return 1

    @property
    def jump(self) -> bool:
        """True: the draws are denoised at the end, x - sigma_0^2 grad E."""
        return True

    def temperatures(self) -> tuple[float, ...]:
        """The temperature of every step, 2700 in the published schedule."""
        return tuple(self.schedule.temperatures().tolist())

    def stages(self) -> tuple[Stage, ...]:
        """One stage for the steps at the highest temperature, then one stage for each further step."""
        hot, temperatures = self.schedule.burn_in, self.temperatures()
        first = (Stage(self.schedule.high, hot, self.epsilon),) if hot else ()
        return first + tuple(Stage(T, 1, self.epsilon) for T in temperatures[hot:])


Schedules = Ladder | PublishedAnneal


@dataclass(frozen=True)
class Rung:
    """Statistics of the chains at one temperature.

    Args:
        temperature: T.
        noise: sigma_0 sqrt(T); None for an energy without sigma_0.
        epsilon: Step length.
        acceptance: Fraction of accepted proposals of each chain, (chain,).
        not_finite: Number of proposals of each chain whose energy or gradient was not finite, (chain,).
        energy: E after every step, float64, (chain, step).
        ess: Effective sample size of the energies at this temperature; None for fewer than four steps.
        r_hat: Split R-hat of the energies; None for fewer than four steps.
    """

    temperature: float
    noise: float | None
    epsilon: float
    acceptance: Tensor
    not_finite: Tensor
    energy: Tensor
    ess: float | None
    r_hat: float | None


@dataclass(frozen=True)
class Annealed:
    """The result of an annealed run.

    Args:
        x: Final states of the chains, after the jump where the schedule has one, (chain, *event).
        raw: Final states before the jump, (chain, *event).
        rungs: Statistics at each temperature.
        broken: Whether the chain started where the energy or its gradient is not finite, (chain,).
        gradients: Number of gradient evaluations of each chain.
    """

    x: Tensor
    raw: Tensor
    rungs: tuple[Rung, ...]
    broken: Tensor
    gradients: int

    @property
    def not_finite(self) -> Tensor:
        """Number of proposals of each chain whose energy or gradient was not finite, (chain,)."""
        return torch.stack([rung.not_finite for rung in self.rungs]).sum(dim=0)

    @property
    def finite(self) -> float:
        """Fraction of chains in which every energy and gradient was finite."""
        return float(((self.not_finite == 0) & ~self.broken).double().mean())

    @property
    def energies(self) -> Tensor:
        """E after every step of the whole run, (chain, step)."""
        return torch.cat([rung.energy for rung in self.rungs], dim=1)


def anneal(
    energy: EnergyLike,
    start: Tensor,
    schedule: Schedules,
    *,
    seed: int = 0,
    first: int = 0,
    noise: Noise | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Annealed:
    """Run one chain from each start through the temperatures; every step leaves exp(-E / T) of its T invariant.

    Energy and gradient are stored from one temperature to the next, so that every Langevin step evaluates one gradient.
    The final states have the distribution of the last temperature as far as the chains have mixed on the way, which the
    statistics of the rungs show.

    Args:
        energy: E; anything that `Energy.of` accepts.
        start: Initial states, (chain, *event), with about the noise sigma_0 sqrt(T) of the first temperature.
        schedule: A tuned `Ladder`, or `PublishedAnneal`.
        seed: Seed of every random draw.
        first: Noise index of the first chain; chain k depends on its start, the schedule and (seed, first + k).
        noise: Source of noise used instead of that of (seed, first).
        on_step: Called after each step with the number of steps done and the total.

    Raises:
        ValueError: The ladder was not tuned, or the schedule has a jump and the energy has no sigma_0.
    """
    energy, stages = Energy.of(energy), schedule.stages()
    if schedule.jump and energy.sigma_0 is None:
        raise ValueError(
            "the final jump is x - sigma_0^2 grad E, and this energy has no sigma_0; give it one, for example"
            " Energy(f, sigma_0=0.1), or use a Ladder with jump=False"
        )
    source = noise or IndexedNoise(seed, range(first, first + len(start)))
    state = State.at((energy,), start.detach())
    broken, rungs, done, total = broken_at(state), [], 0, sum(stage.steps for stage in stages)
    for stage in stages:
        if stage.epsilon is None:
            raise ValueError(
                "this ladder has no step lengths yet; set them with ladder = tune_ladder(energy, pilot, ladder)"
            )
        accepted = not_finite = torch.zeros_like(broken, dtype=torch.long)
        energies = []
        for _ in range(stage.steps):
            state, moved, bad = _step(energy, state, stage, schedule.leapfrog, StepNoise(source, done))
            accepted, not_finite, done = accepted + moved, not_finite + bad, done + 1
            energies.append(state.values[0].cpu())
            if on_step is not None:
                on_step(done, total)
        rungs.append(_rung(stage, energy, accepted, not_finite, torch.stack(energies, dim=1)))
    end = state.x
    if schedule.jump:
        assert energy.sigma_0 is not None
        end = end - energy.sigma_0**2 * state.slopes[0]
    return Annealed(end.cpu(), state.x.cpu(), tuple(rungs), broken.cpu(), 1 + total * schedule.leapfrog)


def _step(energy: Energy, state: State, stage: Stage, leapfrog: int, noise: StepNoise) -> tuple[State, Tensor, Tensor]:
    """One step: the new state, and for each chain whether it was accepted and whether it was not finite."""
    assert stage.epsilon is not None
    if stage.temperature > 0:
        size = 0.5 * stage.temperature * stage.epsilon**2
        outcome = transition((energy,), (1.0 / stage.temperature,), state, size, leapfrog, noise)
        return outcome.state, outcome.accepted, outcome.not_finite
    # The limit T -> 0 of the Metropolis test: a proposal that does not raise the energy is accepted.
    new = State.at((energy,), state.x - 0.5 * stage.epsilon**2 * state.slopes[0])
    accepted = new.values[0].isfinite() & (new.values[0] <= state.values[0])
    return new.where(accepted, state), accepted, broken_at(new)


def _rung(stage: Stage, energy: Energy, accepted: Tensor, not_finite: Tensor, energies: Tensor) -> Rung:
    assert stage.epsilon is not None
    long_enough = stage.steps >= 4
    return Rung(
        temperature=stage.temperature,
        noise=energy.noise(stage.temperature),
        epsilon=stage.epsilon,
        acceptance=accepted.double().cpu() / stage.steps,
        not_finite=not_finite.cpu(),
        energy=energies,
        ess=float(ess_bulk(energies)) if long_enough else None,
        r_hat=float(r_hat(energies)) if long_enough else None,
    )


def tune_ladder(energy: EnergyLike, pilot: Tensor, ladder: Ladder, *, steps: int = 60, seed: int = 0) -> Ladder:
    """The ladder with a step length for each temperature, tuned on pilot chains and then fixed.

    Args:
        energy: E.
        pilot: Initial states of the pilot chains, (P, *event), used for nothing else.
        ladder: The ladder; its temperatures and its number of leapfrog steps are used.
        steps: Number of proposals of each pilot chain at each temperature.
        seed: Seed of the pilot's noise.
    """
    energy, kernel = Energy.of(energy), Kernel(ladder.leapfrog)
    noise, state, epsilons = pilot_noise(seed, len(pilot)), State.at((energy,), pilot), []
    size = None
    for k, stage in enumerate(ladder.stages()):
        check_temperature(stage.temperature)
        weights = (1.0 / stage.temperature,)
        size, state = tuned_size((energy,), weights, state, kernel, noise, steps=steps, first_step=k * steps, size=size)
        epsilons.append(math.sqrt(2.0 * size / stage.temperature))
    return replace(ladder, epsilons=tuple(epsilons))
