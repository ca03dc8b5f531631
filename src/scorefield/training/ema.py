"""Exponential moving averages of weights, keyed by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from scorefield.models.experiment import Averaging
from scorefield.models.weights import ema_name, trained

# All parameters in one call: five times as fast as a loop on a CPU.
lerp = getattr(torch, "_foreach_lerp_")  # noqa: B009 (private to the type checker)


def share_of_start(settings: Averaging, decay: float, updates: int) -> float:
    """Share of the initial weights that an average still holds after so many updates, in [0, 1]: the product of its d.

    Args:
        settings: Whether it warms up.
        decay: Decay of the average.
        updates: Number of updates.
    """
    share = 1.0
    for n in range(1, updates + 1):
        share *= min(decay, (1 + n) / (10 + n)) if settings.warmup else decay
        if share < 1e-6:
            return 0.0
    return share


class Averages:
    """Several averages of one network's trained parameters.

    After the n-th optimiser step, average <- average + (1 - d)(parameter - average) with d the decay, or with warm-up
    d = min(decay, (1 + n) / (10 + n)).

    Args:
        network: The network whose parameters are averaged; the averages start as copies.
        settings: Decays and warm-up.
    """

    def __init__(self, network: nn.Module, settings: Averaging):
        self.settings = settings
        self.updates = 0
        self._parameters = trained(network)
        self.values: dict[str, dict[str, Tensor]] = {
            ema_name(decay): {name: p.detach().clone() for name, p in self._parameters.items()}
            for decay in settings.decays
        }

    @torch.no_grad()
    def update(self) -> None:
        """Follow one optimiser step."""
        self.updates += 1
        for decay, average in zip(self.settings.decays, self.values.values(), strict=True):
            d = min(decay, (1 + self.updates) / (10 + self.updates)) if self.settings.warmup else decay
            lerp(list(average.values()), [p.data for p in self._parameters.values()], 1.0 - d)

    def age(self, decay: float) -> float:
        """Share of the initial weights that an average still holds; see `share_of_start`."""
        return share_of_start(self.settings, decay, self.updates)

    @contextlib.contextmanager
    def swapped(self, name: str | None) -> Iterator[None]:
        """Inside the block the network holds the named average, after it its own weights; None changes nothing."""
        if name is None:
            yield
            return
        average = self.values[name]
        self._swap(average)
        try:
            yield
        finally:
            self._swap(average)

    def _swap(self, average: dict[str, Tensor]) -> None:
        for key, parameter in self._parameters.items():
            parameter.data, average[key] = average[key], parameter.data

    def restore(self, values: Mapping[str, Mapping[str, Tensor]], updates: int) -> None:
        """Take the averages of a checkpoint, in place.

        Raises:
            KeyError: An average or a parameter is missing in it.
        """
        self.updates = updates
        for name, average in self.values.items():
            for key, value in average.items():
                value.copy_(values[name][key])
