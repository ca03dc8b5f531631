"""Energies: scores -grad E / T of p_t(x) proportional to exp(-E(x, t) / T(t)), and energies E(x) without a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._math import mean_event, norm_event, over_event, value_and_gradient
from scorefield._typing import Condition
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.score.score import Score, network_dtype

EnergyFunction = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""E(x, t, condition), shape (B,); the energy of example i depends on example i alone."""


def one_per_example(energy: Tensor, x: Tensor) -> Tensor:
    """The energy unchanged, if it is one number per example of x.

    Raises:
        ValueError: The tensor has another shape.
    """
    if energy.shape != x.shape[:1]:
        raise ValueError(
            f"the energy of a batch of shape {tuple(x.shape)} has shape {tuple(energy.shape)}; an energy is one number"
            f" per example, shape ({len(x)},). For a network with several outputs, sum them, or use a scalar head"
        )
    return energy


class EnergyScore(Score):
    """score(x, t) = -grad_x E(x, t) / T(t) by automatic differentiation, so that the field is conservative.

    The gradient can be differentiated again where gradients are enabled, as in training, and is detached otherwise.

    Args:
        function: The energy E(x, t, condition), shape (B,), defined up to an additive constant.
        process: The process whose marginals are modelled by exp(-E / T).
        temperature: T(t), shape (B,) -> (B,); None for T = 1. MDSM energies have T = sigma(t)^2 / sigma_0^2 (Li et al.
            2019).
    """

    def __init__(
        self, function: EnergyFunction, process: Process, temperature: Callable[[Tensor], Tensor] | None = None
    ):
        self.function, self.process, self.temperature = function, process, temperature

    def energy(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The energy E, shape (B,), not divided by the temperature: the density is proportional to exp(-E / T(t))."""
        return self.function(x, t, condition)

    def log_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """-E / T, shape (B,): log p_t up to a constant that depends on t, without its gradient."""
        self.process.check_time(t)
        energy = self.function(x, t, condition)
        return -energy if self.temperature is None else -energy / self.temperature(t).to(energy)

    def gradient(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """grad_x E, shape of x."""
        return self._energy_and_gradient(x, t, condition)[1]

    def _energy_and_gradient(self, x: Tensor, t: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        return value_and_gradient(lambda point: self.function(point, t, condition), x)

    def with_density(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor]:
        """(-E / T, -grad E / T) from one evaluation of the energy."""
        self.process.check_time(t)
        energy, gradient = self._energy_and_gradient(x, t, condition)
        if self.temperature is None:
            return -energy, -gradient
        temperature = self.temperature(t)
        return -energy / temperature.to(energy), -gradient / over_event(temperature, x)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The score -grad E / T; see `Score`."""
        self.process.check_time(t)
        gradient = self.gradient(x, t, condition)
        return -gradient if self.temperature is None else -gradient / over_event(self.temperature(t), x)


@record
class EnergyForm:
    """The network's output is an energy E(x), the same for every noise level (MDSM; Li et al. 2019).

    The network is not conditioned on the noise level. p_t is proportional to exp(-E / T) at the temperature
    T(t) = sigma(t)^2 / sigma_0^2, so that

        score = -(sigma_0^2 / sigma^2) grad E,        D = x - sigma_0^2 grad E,

    and the curvature of E has the same bound, 1 / sigma_0^2, at every level.

    Args:
        sigma_0: The noise level whose temperature is 1, in model units.

    Raises:
        ValueError: sigma_0 is not positive.
    """

    sigma_0: float = 0.1

    def __post_init__(self) -> None:
        if not self.sigma_0 > 0:
            raise ValueError(
                f"sigma_0 is a noise level and must be positive; got {self.sigma_0}. All published runs have 0.1"
            )


_END = torch.ones(1, dtype=torch.float64)


class NetworkEnergy(EnergyScore):
    """A trained energy network as a Score, by an `EnergyForm`.

    Args:
        network: Maps (x, c, condition) to one number per example; it is called with c = 0.
        process: The process whose marginals the energy models; it must have alpha = 1.
        form: The energy form, which defines sigma_0.

    Raises:
        ValueError: The process scales the data or has no sigma, so one energy cannot model its marginals.
    """

    def __init__(self, network: nn.Module, process: Process | GeneralSDE, form: EnergyForm):
        if isinstance(process, GeneralSDE) or float(process.alpha(_END)) != 1.0:
            raise ValueError(
                "one energy models the marginals of every noise level only under a process that adds noise without"
                f" scaling the data, alpha = 1; {type(process).__name__} is not such a process. Use"
                " VE(sigma_min, sigma_max) or Tabulated(LinearSigmas(0.05, 1.2, 128))"
            )
        super().__init__(self._evaluate, process, lambda t: (process.sigma(t) / form.sigma_0) ** 2)
        self.network, self.form = network, form

    def _evaluate(self, x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        dtype = network_dtype(self.network, x)
        c = torch.zeros(x.shape[0], dtype=dtype, device=x.device)
        return one_per_example(self.network(x.to(dtype), c, condition), x).to(x.dtype)

    def _energy_and_gradient(self, x: Tensor, t: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        energy, gradient = super()._energy_and_gradient(x, t, condition)
        if torch.is_grad_enabled() and isinstance(self.network, nn.parallel.DistributedDataParallel):
            # The gradient of E does not depend on a bias of E's last layer, and distributed training would wait forever
            # for the derivative with respect to it. Adding 0 E makes that derivative zero.
            gradient = gradient + over_event(0.0 * energy, gradient)
        return energy, gradient

    def denoised(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """D = x - sigma_0^2 grad E, which is finite without noise too."""
        self.process.check_time(t)
        return x - self.form.sigma_0**2 * self.gradient(x, t, condition)


class Energy:
    """An energy E(x) without a time, as Markov chains and estimators of log Z take it: p_T(x) = exp(-E(x) / T) / Z(T).

    An energy trained by multi-scale denoising score matching models, at the temperature T, data with noise of standard
    deviation sigma_0 sqrt(T), which `noise` returns.

    Args:
        function: E(x), shape (B,), defined up to an additive constant; the energy of example i depends on example i
            alone.
        sigma_0: The noise level that corresponds to T = 1, model units; None if temperatures correspond to no noise.
        with_gradient: (E, grad E) in closed form; None for automatic differentiation.
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
        """The energy of a plain function x -> (B,), of an energy network, or of a score with a known density.

        Args:
            source: A `NetworkEnergy` gives its E(x) and its sigma_0, for any t. Any other score gives -log p_t, which
                is normalised for a closed form, so that T = 1 is p_t.
            t: The time of a score.
            condition: Conditions by name; entries with leading axis 1 are used for every x.
        """
        if isinstance(source, Energy):
            return source
        if not isinstance(source, Score):
            return cls(source)
        score = source

        def repeated(x: Tensor) -> tuple[Tensor, Condition | None]:
            """t and the condition for every example of x."""
            times = torch.full((len(x),), t, dtype=torch.float64)
            if condition is None:
                return times, None
            return times, {k: v.expand(len(x), *v.shape[1:]) if len(v) == 1 else v for k, v in condition.items()}

        if isinstance(score, NetworkEnergy):
            return cls(lambda x: score.energy(x, *repeated(x)), sigma_0=score.form.sigma_0)

        def energy_and_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
            log_p, gradient = score.with_density(x, *repeated(x))
            return -log_p, -gradient

        return cls(lambda x: energy_and_gradient(x)[0], with_gradient=energy_and_gradient)

    def __call__(self, x: Tensor) -> Tensor:
        """E(x), shape (B,).

        Raises:
            ValueError: The function does not return one number per example.
        """
        return one_per_example(self.function(x), x)

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(E(x), grad E(x)) from one evaluation, detached."""
        if self._closed is not None:
            energy, gradient = self._closed(x)
            return energy.detach(), gradient.detach()
        with torch.no_grad():  # so that the results are detached
            return value_and_gradient(self, x)

    def noise(self, temperature: float) -> float | None:
        """sigma_0 sqrt(T), the noise level (model units) of a temperature; None for an energy without sigma_0."""
        return None if self.sigma_0 is None else self.sigma_0 * math.sqrt(temperature)

    def temperature(self, noise: float) -> float:
        """(noise / sigma_0)^2, the temperature of a noise level in model units.

        Raises:
            ValueError: This energy has no sigma_0.
        """
        if self.sigma_0 is None:
            raise ValueError(
                "this energy has no sigma_0, so a noise level has no temperature; make it with Energy(f, sigma_0=0.1)"
                " or another sigma_0"
            )
        return (noise / self.sigma_0) ** 2


EnergyLike = Energy | Score | Callable[[Tensor], Tensor]
"""Anything that `Energy.of` accepts: an energy, a score with a known density, or a plain function x -> (B,)."""


class Confined(Energy):
    """An energy confined to a box or a ball, so that exp(-E / T) can be normalised.

    The published quadratic head is not bounded below, in which case exp(-E) has no finite integral. With a box, the
    energy is infinite outside it. With a ball, a quadratic wall is added outside it,

        E(x) + strength (max(0, |x - centre| - radius))^2,

    which makes the integral finite if it grows faster than E falls, that is, if E does not fall like -strength |x|^2 or
    faster.

    Args:
        energy: The energy to confine.
        box: Lower and upper end of every coordinate, model units.
        ball: Centre (the same number for every coordinate) and radius, model units.
        strength: Strength of the wall around the ball, energy per squared model unit.

    Raises:
        ValueError: Both a box and a ball are given, or neither, or one that is empty.
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
            raise ValueError(
                f"give either box=(low, high) or ball=(centre, radius), not both and not neither; got box={box} and"
                f" ball={ball}"
            )
        if (box and not box[0] < box[1]) or (ball and not (ball[1] > 0 and strength > 0)):
            raise ValueError(
                "a box needs low < high, a ball needs radius > 0 and strength > 0; got"
                f" box={box}, ball={ball} and strength={strength}"
            )
        self.inner, self.box, self.ball, self.strength = Energy.of(energy), box, ball, strength
        super().__init__(self._confined, sigma_0=self.inner.sigma_0, with_gradient=self._confined_with_gradient)

    def _outside(self, x: Tensor) -> Tensor:
        """Whether each example is outside the box, shape (B,)."""
        assert self.box is not None
        return ((x < self.box[0]) | (x > self.box[1])).flatten(1).any(dim=1)

    def _wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of the wall, shape (B,), and its gradient, shape of x."""
        assert self.ball is not None
        from_centre = x - self.ball[0]
        distance = norm_event(from_centre)
        beyond = (distance - self.ball[1]).clamp_min(0.0)
        gradient = over_event(2.0 * self.strength * beyond / distance.clamp_min(self.ball[1]), x) * from_centre
        return self.strength * beyond**2, gradient

    def _confined(self, x: Tensor) -> Tensor:
        energy = self.inner(x)
        if self.box is not None:
            return torch.where(self._outside(x), torch.inf, energy)
        return energy + self._wall(x)[0]

    def _confined_with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy, gradient = self.inner.with_gradient(x)
        if self.box is not None:
            return torch.where(self._outside(x), torch.inf, energy), gradient
        wall, wall_gradient = self._wall(x)
        return energy + wall, gradient + wall_gradient

    def border(self, x: Tensor, margin: float = 0.02) -> Tensor:
        """A measure of how much the confinement affects each example, shape (B,).

        With a box, it is the fraction of coordinates whose distance from an end is below `margin` times the width of
        the box; its mean is 2 margin for a uniform distribution. With a ball, it is 1 outside the ball and 0 inside.
        """
        if self.box is not None:
            low, high = self.box
            edge = margin * (high - low)
            return mean_event(((x < low + edge) | (x > high - edge)).double())
        assert self.ball is not None
        return (norm_event(x - self.ball[0]) > self.ball[1]).double()

    def describe(self) -> str:
        """The confinement in words, for reports."""
        if self.box is not None:
            return f"on the box [{self.box[0]:g}, {self.box[1]:g}]"
        assert self.ball is not None
        return f"with a wall of strength {self.strength:g} beyond {self.ball[1]:g} from {self.ball[0]:g}"
