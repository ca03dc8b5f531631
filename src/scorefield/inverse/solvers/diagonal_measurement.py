"""The observation y by coordinates of the basis in which a linear operator is diagonal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.inverse.noise import GaussianNoise
from scorefield.inverse.observation import Observation
from scorefield.inverse.operators.operator import LinearOperator
from scorefield.inverse.operators.spectrum import Spectrum


@dataclass(frozen=True)
class Known:
    """w_i = c_i + rho_i e_i wherever s_i > 0, in the coordinates w = V' x of A = U diag(s) V'.

    That is what y = A x + sigma_y n says, with c = (U' y) / s and rho = sigma_y / s, and e standard normal, independent
    from coordinate to coordinate.

    Args:
        spectrum: Singular values and vectors of A.
        value: c, (B, D), zero where nothing is seen.
        std: rho, (D,) float64, infinite where nothing is seen.
    """

    spectrum: Spectrum
    value: Tensor
    std: Tensor

    @classmethod
    def of(cls, observation: Observation, y: Tensor) -> Known:
        """The coordinates that y, (B, *observed), determines, with their noise."""
        operator, noise = observation.operator, observation.noise
        assert isinstance(operator, LinearOperator) and isinstance(noise, GaussianNoise)
        spectrum = operator.spectrum()
        s = torch.where(spectrum.seen, spectrum.values, torch.ones_like(spectrum.values)).double().cpu()
        seen = spectrum.seen.cpu()
        std = torch.where(seen, noise.std / s, torch.full_like(s, torch.inf))
        value = torch.where(seen.to(y.device), spectrum.left(y) / s.to(y), torch.zeros((), dtype=y.dtype).to(y))
        return cls(spectrum, value, std)

    @property
    def exact(self) -> bool:
        """Whether what is seen is known without noise."""
        return bool((self.std[torch.isfinite(self.std)] == 0.0).all())

    def put(self, x: Tensor, coordinates: Tensor, where: Tensor) -> Tensor:
        """x with some coordinates, (B, D), in place of its own; bit by bit itself where V only renumbers."""
        if not bool(where.any()):
            return x
        own = self.spectrum.right(x)
        return self.spectrum.right_back(torch.where(where.to(x.device), coordinates.to(x), own))

    def cleaned(self, x_0: Tensor) -> Tensor:
        """A clean example with c in its seen coordinates where they are known exactly; else as it is."""
        return self.put(x_0, self.value, torch.isfinite(self.std)) if self.exact else x_0


def cleaned(x_0: Tensor, observation: Observation) -> Tensor:
    """`Known.cleaned` for the observation's own y."""
    return Known.of(observation, observation.y(x_0)).cleaned(x_0)
