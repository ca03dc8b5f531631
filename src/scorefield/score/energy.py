"""Scores that are gradients of energies: p_t(x) proportional to exp(-E(x, t) / T(t)), lower energy = more likely."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._math import mean_event, norm_event, over_event
from scorefield._typing import Condition
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.score.score import Score

EnergyFunction = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""E(x, t, condition) of shape (B,); example i depends on example i alone."""


def one_each(energy: Tensor, x: Tensor) -> Tensor:
    """The energy as it is, one number per example.

    Raises:
        ValueError: The tensor has another shape.
    """
    if energy.shape != x.shape[:1]:
        raise ValueError(
            f"the energy of {tuple(x.shape)} has shape {tuple(energy.shape)}; an energy is one number per example,"
            f" shape ({len(x)},). A network with several outputs is no energy: sum them, or use a scalar head"
        )
    return energy


class EnergyScore(Score):
    """score(x, t) = -grad_x E(x, t) / T(t) by automatic differentiation, conservative by construction.

    The gradient is differentiable once more where gradients are enabled (training), and detached otherwise.

    Args:
        function: The energy E(x, t, condition), shape (B,), of one arbitrary additive constant.
        process: The process whose marginals are modelled by exp(-E / T).
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

    def log_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """-E / T, shape (B,): log p_t up to a constant of t, without its gradient."""
        self.process.check_time(t)
        energy = self.function(x, t, condition)
        return -energy if self.temperature is None else -energy / self.temperature(t).to(energy)

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


_END = torch.ones(1, dtype=torch.float64)


class NetworkEnergy(EnergyScore):
    """A trained energy network as a Score, by an `EnergyForm`.

    Args:
        network: Maps (x, c, condition) to one number per example; c is 0.
        process: The process whose marginals the energy models; alpha = 1.
        form: The energy form, which holds sigma_0.

    Raises:
        ValueError: The process scales the data or has no noise level; one energy cannot stand for its marginals.
    """

    def __init__(self, network: nn.Module, process: Process | GeneralSDE, form: EnergyForm):
        if isinstance(process, GeneralSDE) or float(process.alpha(_END)) != 1.0:
            raise ValueError(
                "one energy stands for the marginals of every noise level only where noise is added and the data are"
                f" not scaled, alpha = 1; {type(process).__name__} does otherwise. Use VE(sigma_min, sigma_max) or"
                " Tabulated(LinearSigmas(0.05, 1.2, 128))"
            )
        super().__init__(self._evaluate, process, lambda t: (process.sigma(t) / form.sigma_0) ** 2)
        self.network, self.form = network, form

    def _evaluate(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        dtype = next((p.dtype for p in self.network.parameters()), x.dtype)
        c = torch.zeros(x.shape[0], dtype=dtype, device=x.device)
        return one_each(self.network(x.to(dtype), c, condition), x).to(x.dtype)

    def _energy_and_gradient(self, x: Tensor, t: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        energy, gradient = super()._energy_and_gradient(x, t, condition)
        if torch.is_grad_enabled() and isinstance(self.network, nn.parallel.DistributedDataParallel):
            # An additive constant of E is a parameter of the output and not of its slope. Processes that work together
            # would wait for its gradient for ever; this makes it zero.
            gradient = gradient + over_event(0.0 * energy, gradient)
        return energy, gradient

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x - sigma_0^2 grad E, which stays finite where there is no noise."""
        self.process.check_time(t)
        return x - self.form.sigma_0**2 * self.gradient(x, t, condition)


class Energy:
    """E(x) alone, shape (B,): what Metropolis chains and normalisers are handed. p_T(x) is exp(-E(x) / T) / Z(T).

    Lower energy is more likely, at every temperature T > 0. An energy of the multi-scale objective stands, at the
    temperature T, for data with the noise sigma_0 sqrt(T), which `noise` gives.

    Args:
        function: E(x), shape (B,), of one arbitrary additive constant; example i depends on example i alone.
        sigma_0: The noise level that T = 1 stands for, model units; None where temperatures stand for no noise.
        with_gradient: (E, grad E) by a closed form; None for automatic differentiation.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        sigma_0: float | None = None,
        with_gradient: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    ):
        self.function, self.sigma_0, self._closed = function, sigma_0, with_gradient

    @classmethod
    def of(
        cls, source: Energy | Score | Callable[[Tensor], Tensor], *, t: float = 0.0, condition: Condition | None = None
    ) -> Energy:
        """The energy of a plain function x -> (B,), an energy network, or a score that knows its density.

        Args:
            source: A `NetworkEnergy` gives its raw E and its sigma_0, whatever t. Any other score gives -log p_t (a
                closed form is normalised then, and T = 1 is p_t).
            t: The time of a score.
            condition: What is known; entries of leading axis 1 hold for every x.
        """
        if isinstance(source, Energy):
            return source
        if not isinstance(source, Score):
            return cls(source)
        score = source

        def spread(x: Tensor) -> tuple[Tensor, Condition | None]:
            times = torch.full((len(x),), t, dtype=torch.float64)
            if condition is None:
                return times, None
            return times, {k: v.expand(len(x), *v.shape[1:]) if len(v) == 1 else v for k, v in condition.items()}

        if isinstance(score, NetworkEnergy):
            return cls(lambda x: score.energy(x, *spread(x)), sigma_0=score.form.sigma_0)

        def density(x: Tensor) -> tuple[Tensor, Tensor]:
            log_p, slope = score.with_density(x, *spread(x))
            return -log_p, -slope

        return cls(lambda x: density(x)[0], with_gradient=density)

    def __call__(self, x: Tensor) -> Tensor:
        """E(x), shape (B,).

        Raises:
            ValueError: The function does not return one number per example.
        """
        return one_each(self.function(x), x)

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(E(x), grad E(x)) by one evaluation, detached."""
        if self._closed is not None:
            energy, gradient = self._closed(x)
            return energy.detach(), gradient.detach()
        with torch.enable_grad():
            point = x.detach().requires_grad_(True)
            energy = self(point)
            (gradient,) = torch.autograd.grad(energy.sum(), point)
        return energy.detach(), gradient

    def noise(self, temperature: float) -> float | None:
        """sigma_0 sqrt(T), the noise level that a temperature stands for; None where it stands for none."""
        return None if self.sigma_0 is None else self.sigma_0 * math.sqrt(temperature)

    def temperature(self, noise: float) -> float:
        """(noise / sigma_0)^2, the temperature that stands for a noise level.

        Raises:
            ValueError: This energy has no sigma_0.
        """
        if self.sigma_0 is None:
            raise ValueError(
                "this energy has no sigma_0, so no temperature stands for a noise level; Energy(f, sigma_0=)"
            )
        return (noise / self.sigma_0) ** 2


EnergyLike = Energy | Score | Callable[[Tensor], Tensor]
"""Arguments of `Energy.of`."""


class Confined(Energy):
    """An energy with the confinement that belongs to it, so that exp(-E / T) can be normalised.

    The published quadratic head is unbounded below, and exp(-E) then has no integral. Either E is infinite outside a
    box, or a wall rises outside a ball,

        E(x) + strength (max(0, |x - centre| - radius))^2,

    which confines if it grows faster than E falls: E may not fall below -strength |x|^2.

    Args:
        energy: What to confine.
        box: Lower and upper end of every coordinate, model units.
        ball: Centre (of every coordinate) and radius, model units.
        strength: Strength of the wall around the ball, energy per squared model unit.

    Raises:
        ValueError: Both or neither confinement, or an empty one.
    """

    def __init__(
        self,
        energy: Energy | Score | Callable[[Tensor], Tensor],
        *,
        box: tuple[float, float] | None = None,
        ball: tuple[float, float] | None = None,
        strength: float = 100.0,
    ):
        if (box is None) == (ball is None):
            raise ValueError("give either box=(low, high) or ball=(centre, radius), with strength; not both, nor none")
        if (box and not box[0] < box[1]) or (ball and not (ball[1] > 0 and strength > 0)):
            raise ValueError(
                f"box={box}, ball={ball}, strength={strength} hold nothing; low < high, radius and strength > 0"
            )
        self.inner, self.box, self.ball, self.strength = Energy.of(energy), box, ball, strength
        super().__init__(self._confined, sigma_0=self.inner.sigma_0, with_gradient=self._slope)

    def _outside(self, x: Tensor) -> Tensor:
        """(B,): true outside the box."""
        assert self.box is not None
        return ((x < self.box[0]) | (x > self.box[1])).flatten(1).any(dim=1)

    def _wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert self.ball is not None
        away = x - self.ball[0]
        distance = norm_event(away)
        beyond = (distance - self.ball[1]).clamp_min(0.0)
        slope = over_event(2.0 * self.strength * beyond / distance.clamp_min(self.ball[1]), x) * away
        return self.strength * beyond**2, slope

    def _confined(self, x: Tensor) -> Tensor:
        energy = self.inner(x)
        if self.box is not None:
            return torch.where(self._outside(x), torch.inf, energy)
        return energy + self._wall(x)[0]

    def _slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy, gradient = self.inner.with_gradient(x)
        if self.box is not None:
            return torch.where(self._outside(x), torch.inf, energy), gradient
        wall, slope = self._wall(x)
        return energy + wall, gradient + slope

    def border(self, x: Tensor, margin: float = 0.02) -> Tensor:
        """How near the border each example is, (B,).

        In a box, the share of its coordinates within `margin` of the box's width from an end (a uniform distribution
        has 2 margin); with a ball, 1 beyond the radius and 0 within.
        """
        if self.box is not None:
            low, high = self.box
            edge = margin * (high - low)
            return mean_event(((x < low + edge) | (x > high - edge)).double())
        assert self.ball is not None
        return (norm_event(x - self.ball[0]) > self.ball[1]).double()

    def describe(self) -> str:
        """Description of the confinement."""
        if self.box is not None:
            return f"on the box [{self.box[0]:g}, {self.box[1]:g}]"
        assert self.ball is not None
        return f"with a wall of strength {self.strength:g} beyond {self.ball[1]:g} from {self.ball[0]:g}"
