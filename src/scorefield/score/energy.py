"""Scores that are gradients of energies: p_t(x) proportional to exp(-E(x, t) / T(t)), lower energy = more likely."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._math import over_event
from scorefield._typing import Condition
from scorefield.process.process import Process
from scorefield.score.score import Score

EnergyFunction = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""E(x, t, condition) of shape (B,); example i depends on example i alone."""


class EnergyScore(Score):
    """score(x, t) = -grad_x E(x, t) / T(t) by automatic differentiation, conservative by construction.

    The gradient is differentiable once more where gradients are enabled (training), and detached otherwise.

    Args:
        function: The energy E(x, t, condition), shape (B,), of one arbitrary additive constant.
        process: Whose marginals exp(-E / T) are meant to be.
        temperature: T(t), shape (B,) -> (B,); None for T = 1. MDSM energies have T = sigma(t)^2 / sigma_0^2 (Li et al.
            2019).
    """

    def __init__(
        self, function: EnergyFunction, process: Process, temperature: Callable[[Tensor], Tensor] | None = None
    ):
        self.function, self.process, self.temperature = function, process, temperature

    def energy(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The raw E, shape (B,); a density only through exp(-E / T(t))."""
        return self.function(x, t, condition)

    def gradient(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """grad_x E, shape of x."""
        return self._energy_and_gradient(x, t, condition)[1]

    def _energy_and_gradient(self, x: Tensor, t: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            point = x if x.requires_grad else x.detach().requires_grad_(True)
            energy = self.function(point, t, condition)
            (gradient,) = torch.autograd.grad(energy.sum(), point, create_graph=training)
        return energy if training else energy.detach(), gradient

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(-E / T, -grad E / T) by one evaluation of the energy."""
        self.process.check_time(t)
        energy, gradient = self._energy_and_gradient(x, t, condition)
        if self.temperature is None:
            return -energy, -gradient
        temperature = self.temperature(t)
        return -energy / temperature.to(energy), -gradient / over_event(temperature, x)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """-grad E / T; see `Score`."""
        self.process.check_time(t)
        gradient = self.gradient(x, t, condition)
        return -gradient if self.temperature is None else -gradient / over_event(self.temperature(t), x)


@record
class EnergyForm:
    """The network's output is the energy E(x) itself, one for every noise level (Li et al. 2019, MDSM).

    The network knows no noise level. exp(-E / T) at the temperature T(t) = sigma(t)^2 / sigma_0^2 stands for p_t, so

        score = -(sigma_0^2 / sigma^2) grad E,        D = x - sigma_0^2 grad E,

    and one curvature bound, 1 / sigma_0^2, holds at every level.

    Args:
        sigma_0: The reference level, whose temperature is 1; model units.
    """

    sigma_0: float = 0.1

    def __post_init__(self) -> None:
        if not self.sigma_0 > 0:
            raise ValueError(f"sigma_0={self.sigma_0} is a noise level and must be positive; 0.1 in all published runs")


class NetworkEnergy(EnergyScore):
    """A trained energy network as a Score, by an `EnergyForm`.

    Args:
        network: Maps (x, c, condition) to one number per example; c is 0.
        process: Whose marginals the energy stands for, alpha = 1.
        form: For sigma_0.
    """

    def __init__(self, network: nn.Module, process: Process, form: EnergyForm):
        super().__init__(self._evaluate, process, lambda t: (process.sigma(t) / form.sigma_0) ** 2)
        self.network, self.form = network, form

    def _evaluate(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        dtype = next((p.dtype for p in self.network.parameters()), x.dtype)
        c = torch.zeros(x.shape[0], dtype=dtype, device=x.device)
        return self.network(x.to(dtype), c, condition).to(x.dtype)

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x - sigma_0^2 grad E, which stays finite where there is no noise."""
        self.process.check_time(t)
        return x - self.form.sigma_0**2 * self.gradient(x, t, condition)
