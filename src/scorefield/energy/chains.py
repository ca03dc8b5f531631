"""Metropolis-exact chains of an energy at a temperature."""

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
        energy: E of each, float64, (chain, draw).
        acceptance: Share of accepted proposals of each chain after the warm-up, (chain,).
        not_finite: Number of proposals of each chain whose energy or gradient was not finite; they were rejected and
            the chain stayed where it was, (chain,).
        broken: Chains that started where E or its gradient is not finite, and never moved, (chain,).
        first: Index of the first chain in the noise.
        temperature: T.
        noise: sigma_0 sqrt(T), the noise level that T stands for; None where it stands for none.
        kernel: What moved them.
        gradients: Evaluations of the gradient by each chain.
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
        """The last draw of each chain, (chain, *event): independent of each other."""
        return self.x[:, -1]

    @property
    def finite(self) -> float:
        """Share of chains that never met an energy or a gradient that is not finite."""
        return float(((self.not_finite == 0) & ~self.broken).double().mean())

    def failures(self) -> tuple[str, ...]:
        """A line for each chain that met energies or gradients that are not finite."""
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
        """Write draws as (chain, draw, dim) with energies, for ArviZ and its like: an .npz without pickles."""
        path = Path(path)
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
    """Run one chain from each start, all with the same frozen kernel, which leaves exp(-E / T) exactly invariant.

    Chain k is a function of its start, of the kernel and of (seed, first + k): its batch mates do not matter.

    Args:
        energy: E; anything that `Energy.of` takes.
        start: (chain, *event), model units.
        draws: Draws kept of each chain.
        kernel: With a step length, by `tune` or given.
        temperature: T.
        warmup: Steps before the first draw.
        thin: Steps per draw.
        seed: Of the noise.
        first: Index of the first chain.
        noise: In place of (seed, first).
        on_step: Called with the number of steps done and of all.

    Raises:
        ValueError: A kernel without a step length, a temperature that is not positive, or counts that keep nothing.
    """
    energy = Energy.of(energy)
    check_temperature(temperature)
    if draws < 1 or thin < 1 or warmup < 0:
        raise ValueError(f"draws={draws}, thin={thin}, warmup={warmup} keep nothing; draws and thin are at least 1")
    size, total = kernel.size(temperature), warmup + draws * thin
    source = noise or IndexedNoise(seed, range(first, first + len(start)))
    terms, weights = (energy,), (1.0 / temperature,)
    state = State.at(terms, start.detach())
    broken = broken_at(state)
    accepted = not_finite = torch.zeros_like(broken, dtype=torch.long)
    kept: list[Tensor] = []
    energies: list[Tensor] = []
    for k in range(total):
        tried = transition(terms, weights, state, size, kernel.leapfrog, StepNoise(source, k))
        state = tried.state
        not_finite = not_finite + tried.not_finite
        if k >= warmup:
            accepted = accepted + tried.accepted
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
    """Where no chain can start: an energy or a gradient that is not finite, (B,)."""
    slopes = torch.stack([slope.flatten(1).isfinite().all(dim=1) for slope in state.slopes]).all(dim=0)
    return ~(state.values.isfinite().all(dim=0) & slopes)
