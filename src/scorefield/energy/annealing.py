"""Chains led through falling temperatures, each move exact at the temperature of its own."""

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
    """Some steps at one temperature.

    Args:
        temperature: T; 0 descends and accepts what lowers E.
        steps: How many.
        epsilon: Step length of a kernel, y = x - (epsilon^2 / 2) grad E + epsilon sqrt(T) z.
    """

    temperature: float
    steps: int
    epsilon: float | None


@record
class Ladder:
    """Temperatures in equal ratios, as many steps at each; `tune_ladder` sets the step lengths.

    Args:
        highest: First T; sigma_0 sqrt(T) is the noise that the starts should have.
        lowest: Last T; the draws are of it.
        rungs: Number of temperatures.
        steps: Steps at each.
        epsilons: Step length at each; None until tuned.
        leapfrog: 1 is MALA, more are HMC.
        jump: Whether the draws are denoised at the end, x - sigma_0^2 grad E.

    Raises:
        ValueError: A ladder that does not fall, or another number of step lengths than of rungs.
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
            raise ValueError(f"{self} is no ladder: highest >= lowest > 0, and a rung, a step and a leapfrog at least")
        if self.epsilons is not None and len(self.epsilons) != self.rungs:
            raise ValueError(f"{len(self.epsilons)} step lengths for {self.rungs} rungs; tune_ladder sets them")

    def stages(self) -> tuple[Stage, ...]:
        """From the highest temperature to the lowest."""
        ratio = math.log(self.lowest / self.highest) / max(self.rungs - 1, 1)
        epsilons = self.epsilons or (None,) * self.rungs
        return tuple(
            Stage(self.highest * math.exp(k * ratio), self.steps, epsilon) for k, epsilon in enumerate(epsilons)
        )


@record
class PublishedAnneal:
    """The schedule of Li et al. 2019: 500 steps at T = 100, 2000 down to T = 1, 200 to T = 0, one jump.

    The release never tests a move; here every one is tested at its temperature, which at the published step rejects
    five of a hundred.

    Args:
        schedule: The temperatures.
        epsilon: Step length, the same at every temperature.
    """

    schedule: TemperatureSchedule = TemperatureSchedule()
    epsilon: float = 0.02

    @property
    def leapfrog(self) -> int:
        """1: Langevin steps."""
        return 1

    @property
    def jump(self) -> bool:
        """The draws are denoised at the end, x - sigma_0^2 grad E."""
        return True

    def temperatures(self) -> tuple[float, ...]:
        """All of the schedule, 2700 as published."""
        return tuple(self.schedule.temperatures().tolist())

    def stages(self) -> tuple[Stage, ...]:
        """The steps at the highest temperature, and then a stage for every step."""
        hot, temperatures = self.schedule.burn_in, self.temperatures()
        first = (Stage(self.schedule.high, hot, self.epsilon),) if hot else ()
        return first + tuple(Stage(T, 1, self.epsilon) for T in temperatures[hot:])


Schedules = Ladder | PublishedAnneal


@dataclass(frozen=True)
class Rung:
    """What chains did at one temperature.

    Args:
        temperature: T.
        noise: sigma_0 sqrt(T), or None.
        epsilon: Step length.
        acceptance: Share of accepted moves of each chain, (chain,).
        not_finite: Proposals that were not finite, of each chain.
        energy: E after every step, float64, (chain, step).
        ess: Effective sample size of the energies at this temperature; None for fewer than four steps.
        r_hat: Split R-hat of them; None likewise.
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
    """The end of an annealed run.

    Args:
        x: Ends of the chains, after the jump where the schedule has one, (chain, *event).
        raw: Before the jump.
        rungs: Temperature by temperature.
        broken: Chains that started where the energy or its gradient is not finite, (chain,).
        gradients: Evaluations by each chain.
    """

    x: Tensor
    raw: Tensor
    rungs: tuple[Rung, ...]
    broken: Tensor
    gradients: int

    @property
    def not_finite(self) -> Tensor:
        """Proposals that were not finite, of each chain, (chain,)."""
        return torch.stack([rung.not_finite for rung in self.rungs]).sum(dim=0)

    @property
    def finite(self) -> float:
        """Share of chains that never met an energy or a gradient that is not finite."""
        return float(((self.not_finite == 0) & ~self.broken).double().mean())

    @property
    def energies(self) -> Tensor:
        """E along the whole run, (chain, step)."""
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
    """Lead one chain from each start through the temperatures; every move leaves its own exp(-E / T) invariant.

    Energy and gradient are kept from one temperature to the next, so that a Langevin step costs one gradient
    throughout. Draws follow the last temperature as far as the chains mixed on the way; the rungs say how far.

    Args:
        energy: E; anything that `Energy.of` takes.
        start: (chain, *event), with noise of about sigma_0 sqrt(T) of the first temperature.
        schedule: A tuned `Ladder` or `PublishedAnneal`.
        seed: Of the noise.
        first: Index of the first chain; chain k is a function of its start, the schedule and (seed, first + k).
        noise: In place of (seed, first).
        on_step: Called with the number of steps done and of all.

    Raises:
        ValueError: A ladder that was not tuned, or a jump of an energy without sigma_0.
    """
    energy, stages = Energy.of(energy), schedule.stages()
    if schedule.jump and energy.sigma_0 is None:
        raise ValueError(
            "the final jump is x - sigma_0^2 grad E and this energy has no sigma_0; Energy(f, sigma_0=0.1)"
        )
    source = noise or IndexedNoise(seed, range(first, first + len(start)))
    state = State.at((energy,), start.detach())
    broken, rungs, done, total = broken_at(state), [], 0, sum(stage.steps for stage in stages)
    for stage in stages:
        if stage.epsilon is None:
            raise ValueError("this ladder has no step lengths: ladder = tune_ladder(energy, pilot, ladder) sets them")
        accepted = not_finite = torch.zeros_like(broken, dtype=torch.long)
        energies = []
        for _ in range(stage.steps):
            state, kept, bad = _step(energy, state, stage, schedule.leapfrog, StepNoise(source, done))
            accepted, not_finite, done = accepted + kept, not_finite + bad, done + 1
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
    assert stage.epsilon is not None
    if stage.temperature > 0:
        size = 0.5 * stage.temperature * stage.epsilon**2
        tried = transition((energy,), (1.0 / stage.temperature,), state, size, leapfrog, noise)
        return tried.state, tried.accepted, tried.not_finite
    # T -> 0 of the Metropolis test: what does not raise the energy is accepted.
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
    """The ladder with a step length for each rung, from pilot chains led down it, never to change again.

    Args:
        energy: E.
        pilot: Where the pilot's chains start, (P, *event); a set of its own.
        ladder: Its temperatures and its leapfrog steps.
        steps: Proposals of the pilot at each rung.
        seed: Of the pilot.
    """
    energy, kernel = Energy.of(energy), Kernel(ladder.leapfrog)
    noise, state, found = pilot_noise(seed, len(pilot)), State.at((energy,), pilot), []
    size = None
    for k, stage in enumerate(ladder.stages()):
        check_temperature(stage.temperature)
        weights = (1.0 / stage.temperature,)
        size, state = tuned_size((energy,), weights, state, kernel, noise, steps=steps, first_step=k * steps, size=size)
        found.append(math.sqrt(2.0 * size / stage.temperature))
    return replace(ladder, epsilons=tuple(found))
