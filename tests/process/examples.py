"""Every process of the package with ranges of parameters, and drifts and diffusions that can be imported by name."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from scorefield.process import (
    VE,
    VP,
    GeneralSDE,
    GeometricSigmas,
    Levels,
    LinearBetas,
    LinearSigmas,
    Process,
    SubVP,
    Tabulated,
)

SMALL = st.floats(1e-3, 0.5)
BETAS = st.tuples(st.floats(0.01, 1.0), st.floats(0.0, 20.0)).map(lambda pair: (pair[0], sum(pair)))
"""beta_min and beta_max, equal ones included."""

LADDERS = st.one_of(
    st.builds(GeometricSigmas, SMALL, st.floats(0.6, 300.0), st.integers(2, 300)),
    st.builds(LinearSigmas, SMALL, st.floats(0.6, 300.0), st.integers(2, 300)),
    BETAS.flatmap(lambda b: st.builds(LinearBetas, st.just(b[0]), st.just(b[1]), st.integers(30, 1000))),
    st.just(Levels((0.1, 0.2, 0.5, 2.0))),
    st.just(Levels((0.1, 0.3, 0.6), (0.99, 0.9, 0.3))),
)

PROCESSES: dict[type[Process], st.SearchStrategy[Process]] = {
    VE: st.builds(VE, SMALL, st.floats(0.6, 300.0)),
    VP: BETAS.map(lambda b: VP(*b)),
    SubVP: BETAS.map(lambda b: SubVP(*b)),
    Tabulated: st.builds(Tabulated, LADDERS),
}


def concrete(of: type) -> set[type]:
    """Every class of the package below `of` that can be made."""
    found = set()
    for cls in of.__subclasses__():
        found |= concrete(cls)
        if not getattr(cls, "__abstractmethods__", None) and not cls.__name__.startswith("_"):
            found.add(cls)
    return {cls for cls in found if cls.__module__.startswith("scorefield.")}


def times(process: Process, *fractions: float) -> Tensor:
    """float64 times at fractions of the way from t_min to 1."""
    low = process.t_min.sampling
    return low + (1.0 - low) * torch.tensor(fractions, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------- general SDEs

OU_A = torch.tensor([[-1.0, 2.0, 0.0], [-0.5, -0.3, 1.0], [0.2, 0.0, -2.0]], dtype=torch.float64)
OU_B = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)
OU_G = torch.tensor([[1.0, 0.2], [0.0, 0.7], [0.3, -0.4]], dtype=torch.float64)


def ou_drift(x: Tensor, t: Tensor) -> Tensor:
    return x @ OU_A.T.to(x) + OU_B.to(x)


def ou_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return OU_G.to(x).expand(len(t), 3, 2)


MASS_INVERSE, FRICTION, RATE = 4.0, 1.0, 4.0
"""Critically damped Langevin of Dockhorn et al. (2022): Gamma^2 = 4 M with M = 1/4, Gamma = 1, and beta = 4."""


def langevin_drift(x: Tensor, t: Tensor) -> Tensor:
    q, v = x[:, 0], x[:, 1]
    return RATE * torch.stack([MASS_INVERSE * v, -q - FRICTION * MASS_INVERSE * v], dim=1)


def langevin_diffusion(x: Tensor, t: Tensor) -> Tensor:
    g = x.new_zeros(len(t), 2, 1)
    g[:, 1, 0] = (2.0 * FRICTION * RATE) ** 0.5
    return g


def swinging_drift(x: Tensor, t: Tensor) -> Tensor:
    """A(t) at different times does not commute."""
    p, q = x[:, 0], x[:, 1]
    return torch.stack([-t * p + 3.0 * (2 * t).cos() * q + t, -4.0 * t**2 * p - 0.5 * q - 1.0], dim=1)


def swinging_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return torch.stack([1.0 + t, (3.0 * t).sin() + 1.5], dim=1).to(x)


def vp_drift(x: Tensor, t: Tensor) -> Tensor:
    return (-0.5 * (0.1 + 19.9 * t)).reshape(-1, *(1 for _ in x.shape[1:])).to(x) * x


def vp_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return (0.1 + 19.9 * t).sqrt()


GROWTH, VOLATILITY = 0.3, 0.4


def brownian_drift(x: Tensor, t: Tensor) -> Tensor:
    return GROWTH * x


def brownian_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return VOLATILITY * x


def radial_scalar(x: Tensor, t: Tensor) -> Tensor:
    return 1.0 + t * (x * x).reshape(len(x), -1).sum(dim=1)


def mixed_diagonal(x: Tensor, t: Tensor) -> Tensor:
    return 1.0 + x * x.roll(1, dims=1) + t.reshape(-1, *(1 for _ in x.shape[1:]))


def curved_matrix(x: Tensor, t: Tensor) -> Tensor:
    """Rows and columns depend on different components; M = 2 noises drive D = 3 components."""
    a, b, c = x.reshape(len(x), 3).unbind(dim=1)
    rows = [torch.stack(row, dim=1) for row in ((1 + b * c, a.sin()), (t * a, 2 + b**2), (c.exp(), a * b))]
    return torch.stack(rows, dim=1)


OU = GeneralSDE(ou_drift, ou_diffusion, "matrix", affine=True, state_dependent=False)
LANGEVIN = GeneralSDE(langevin_drift, langevin_diffusion, "matrix", affine=True, state_dependent=False)
SWINGING = GeneralSDE(swinging_drift, swinging_diffusion, "diagonal", affine=True, state_dependent=False)
VP_AS_GENERAL = GeneralSDE(vp_drift, vp_diffusion, "scalar", affine=True, state_dependent=False)
BROWNIAN = GeneralSDE(brownian_drift, brownian_diffusion, "diagonal")
CURVED = {
    "scalar": GeneralSDE(brownian_drift, radial_scalar, "scalar"),
    "diagonal": GeneralSDE(brownian_drift, mixed_diagonal, "diagonal"),
    "matrix": GeneralSDE(brownian_drift, curved_matrix, "matrix"),
}
