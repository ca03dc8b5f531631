"""Markov chains of an energy at one temperature, exact by the Metropolis test."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield._random import IndexedNoise, Noise, StepNoise
from scorefield.energy.convergence import Diagnostics
from scorefield.energy.transition import Kernel, State, check_temperature, transition
from scorefield.score.energy import Energy, EnergyLike


@dataclass(frozen=True)
class Chains:
    """Draws of p_T, proportional to exp(-E / T).

    Args:
        x: Draws, model units, on the CPU, (chain, draw, *event).
        energy: E of each draw, float64, (chain, draw).
        acceptance: Fraction of accepted proposals of each chain after the warm-up, (chain,).
        not_finite: Number of proposals of each chain whose energy or gradient was not finite; they were rejected,
            (chain,).
        broken: Whether the chain started where E or its gradient is not finite, and therefore never moved, (chain,).
        first: Noise index of the first chain.
        temperature: T.
        noise: sigma_0 sqrt(T), the noise level that corresponds to T; None for an energy without sigma_0.
        kernel: The transition kernel.
        gradients: Number of gradient evaluations of each chain.
    """

    x: Tensor
    energy: Tensor
    acceptance: Tensor
    not_finite: Tensor
    broken: Tensor
    first: int
    temperature: float
    noise: float | None
    kernel: Kernel
    gradients: int

    @property
    def last(self) -> Tensor:
        """The last draw of each chain, (chain, *event); they are independent, as each comes from another chain."""
        return self.x[:, -1]

    @property
    def finite(self) -> float:
        """Fraction of chains in which every energy and gradient was finite."""
        return float(((self.not_finite == 0) & ~self.broken).double().mean())

    def failures(self) -> tuple[str, ...]:
        """One line for each chain in which an energy or a gradient was not finite."""
        lines = []
        for k in range(len(self.x)):
            name = f"chain {self.first + k}"
            if self.broken[k]:
                lines.append(f"{name} started where the energy or its gradient is not finite, and never moved")
            elif self.not_finite[k]:
                lines.append(
                    f"{name} rejected {int(self.not_finite[k])} proposals whose energy or gradient is not finite"
                )
        return tuple(lines)

    def diagnostics(self) -> Diagnostics:
        """Split R-hat and effective sample sizes of every coordinate and of the energy."""
        return Diagnostics.of(self.x, self.energy)

    def export(self, path: str | Path) -> None:
        """Write draws as (chain, draw, dim) with their energies to an .npz without pickles, for ArviZ and others."""
        path = Path(path)
        # Written beside and renamed, so that an interrupted export leaves no incomplete file under this name.
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                x=self.x.flatten(2).numpy(),
                energy=self.energy.numpy(),
                acceptance=self.acceptance.numpy(),
                not_finite=self.not_finite.numpy(),
                broken=self.broken.numpy(),
                temperature=np.float64(self.temperature),
                noise=np.float64(np.nan if self.noise is None else self.noise),
                epsilon=np.float64(np.nan if self.kernel.epsilon is None else self.kernel.epsilon),
                shape=np.array(self.x.shape[2:], np.int64),
            )
        os.replace(partial, path)


def run_chains(
    energy: EnergyLike,
    start: Tensor,
    *,
    draws: int,
    kernel: Kernel,
    temperature: float = 1.0,
    warmup: int = 0,
    thin: int = 1,
    seed: int = 0,
    first: int = 0,
    noise: Noise | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Chains:
    """Run one chain from each start with a fixed kernel, which leaves exp(-E / T) exactly invariant.

    Chain k depends on its start, the kernel and (seed, first + k), and not on the other chains.

    Args:
        energy: E; anything that `Energy.of` accepts.
        start: Initial states, (chain, *event), model units.
        draws: Number of draws kept of each chain.
        kernel: The transition kernel with a step length, from `tune` or given.
        temperature: T.
        warmup: Number of steps before the first draw.
        thin: Number of steps per draw.
        seed: Seed of every random draw.
        first: Noise index of the first chain.
        noise: Source of noise used instead of that of (seed, first).
        on_step: Called after each step with the number of steps done and the total.

    Raises:
        ValueError: The kernel has no step length, the temperature is not positive, or a count is out of range.
    """
    energy = Energy.of(energy)
    check_temperature(temperature)
    if draws < 1 or thin < 1 or warmup < 0:
        raise ValueError(f"draws={draws} and thin={thin} must be at least 1, and warmup={warmup} must not be negative")
    size, total = kernel.size(temperature), warmup + draws * thin
    source = noise or IndexedNoise(seed, range(first, first + len(start)))
    terms, weights = (energy,), (1.0 / temperature,)
    state = State.at(terms, start.detach())
    broken = broken_at(state)
    accepted = not_finite = torch.zeros_like(broken, dtype=torch.long)
    kept: list[Tensor] = []
    energies: list[Tensor] = []
    for k in range(total):
        outcome = transition(terms, weights, state, size, kernel.leapfrog, StepNoise(source, k))
        state = outcome.state
        not_finite = not_finite + outcome.not_finite
        if k >= warmup:
            accepted = accepted + outcome.accepted
            if (k - warmup + 1) % thin == 0:
                kept.append(state.x.cpu())
                energies.append(state.values[0].cpu())
        if on_step is not None:
            on_step(k + 1, total)
    return Chains(
        x=torch.stack(kept, dim=1),
        energy=torch.stack(energies, dim=1),
        acceptance=accepted.double().cpu() / (total - warmup),
        not_finite=not_finite.cpu(),
        broken=broken.cpu(),
        first=first,
        temperature=temperature,
        noise=energy.noise(temperature),
        kernel=kernel,
        gradients=1 + total * kernel.leapfrog,
    )


def broken_at(state: State) -> Tensor:
    """Whether the energy or its gradient is not finite, so that no chain can start there, (B,)."""
    slopes = torch.stack([slope.flatten(1).isfinite().all(dim=1) for slope in state.slopes]).all(dim=0)
    return ~(state.values.isfinite().all(dim=0) & slopes)
