"""Scores that are gradients of energies: p_t(x) proportional to exp(-E(x, t) / T(t)), lower energy = more likely."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            point = x if x.requires_grad else x.detach().requires_grad_(True)
            total = self.function(point, t, condition).sum()
            (gradient,) = torch.autograd.grad(total, point, create_graph=training)
        return gradient

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """-grad E / T; see `Score`."""
        self.process.check_time(t)
        gradient = self.gradient(x, t, condition)
        return -gradient if self.temperature is None else -gradient / over_event(self.temperature(t), x)
