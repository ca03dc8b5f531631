"""The numbers of the published implementation: its functions of time, its tables, its checkpoints' settings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goldens import SCORE_SDE, golden
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from tolerance import GOLDEN_PROCESS, ROUNDED_ONE, SEVEN_DIGITS, SIX_DIGITS

T = (1e-5, 1e-3, 0.1, 0.25, 0.5, 0.75, 1.0)
VE_50, VE_348 = VE(0.01, 50.0), VE(0.01, 348.0)

SIGMA = {
    VE_50: (0.010000852, 0.010085536, 0.023436729, 0.084089642, 0.70710678, 5.9460356, 50),
    VE_348: (0.010001046, 0.010105122, 0.028454956, 0.13658242, 1.8654758, 25.479121, 348),
    VP(): (0.0010004971, 0.010485416, 0.32205254, 0.6901596, 0.9596542, 0.99827781, 0.99997841),
    SubVP(): (1.0009945e-06, 0.00010994396, 0.10371784, 0.47632028, 0.92093619, 0.99655859, 0.99995681),
}
G = {
    VE_50: (0.04127625, 0.041625764, 0.096729791, 0.34706095, 2.9184231, 24.540915, 206.36367),
    VP(): (0.31654226, 0.34626579, 1.4456832, 2.2527761, 3.1701735, 3.8762095, 4.472136),
    SubVP(): (0.00044788078, 0.005134502, 0.64113775, 1.9191742, 3.1602494, 3.8761865, 4.472136),
}
ALPHA = (0.9999995, 0.99994503, 0.9467218, 0.72365719, 0.28118288, 0.058663503, 0.0065715865)
DRIFT = (-0.0500995, -0.05995, -1.045, -2.5375, -5.025, -7.5125, -10)

G_STEP = {
    Tabulated(GeometricSigmas(0.01, 50.0, 1000)): (0.01, 0.01, 0.00302409, 0.0108643, 0.0915516, 0.771492, 6.5013),
    Tabulated(GeometricSigmas(0.01, 348.0, 2000)): (0.01, 0.00102555, 0.00288931, 0.0138795, 0.18982, 2.59602, 35.5032),
    Tabulated(LinearBetas(0.1, 20.0, 1000)): (0.01, 0.01, 0.04552, 0.0711341, 0.1002, 0.122556, 0.141421),
}
F_STEP = (-5.00083e-05, -5.00083e-05, -0.00103658, -0.00253326, -0.00503272, -0.00753844, -0.0100505)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def t(request: pytest.FixtureRequest) -> Tensor:
    return torch.tensor(T, dtype=request.param)


def close(have: Tensor, want: tuple[float, ...], tolerance: float) -> None:
    torch.testing.assert_close(have.double(), torch.tensor(want, dtype=torch.float64), rtol=tolerance, atol=0.0)


@pytest.mark.parametrize("process", SIGMA, ids=str)
def test_sigma(process: Process, t: Tensor) -> None:
    close(process.sigma(t), SIGMA[process], SEVEN_DIGITS)


@pytest.mark.parametrize("process", G, ids=str)
def test_diffusion(process: Process, t: Tensor) -> None:
    close(process.diffusion(t), G[process], SEVEN_DIGITS)


@pytest.mark.parametrize("process", [VP(), SubVP()], ids=str)
def test_scale_and_drift(process: Process, t: Tensor) -> None:
    close(process.alpha(t), ALPHA, SEVEN_DIGITS)
    close(process.drift(torch.ones_like(t)[:, None], t)[:, 0], DRIFT, SEVEN_DIGITS)


def test_ve_has_neither(t: Tensor) -> None:
    assert torch.equal(VE_50.alpha(t), torch.ones_like(t))
    assert torch.equal(VE_50.drift(t[:, None], t), torch.zeros_like(t)[:, None])


@pytest.mark.parametrize("process", G_STEP, ids=str)
def test_step_of_the_table(process: Tabulated, t: Tensor) -> None:
    """G_i: the noise of going from level k - 1 to the level k of t; below level 0 there is none."""
    k = process.level(t)
    a, b = process.kernel(process.time(k - 1), process.time(k))
    close(b, G_STEP[process], SIX_DIGITS)
    if isinstance(process.ladder, LinearBetas):
        torch.testing.assert_close(
            a - 1.0, torch.tensor(F_STEP, dtype=torch.float64), rtol=SIX_DIGITS, atol=ROUNDED_ONE
        )
    else:
        close(a, (1.0,) * len(T), SIX_DIGITS)


def test_tables() -> None:
    alphas, sigmas = LinearBetas(0.1, 20.0, 1000).table()
    before = torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1] ** 2])
    betas = 1.0 - alphas**2 / before
    close(betas[[0, 1, 500, 999]], (1e-4, 1.1991992e-4, 0.010059959, 0.02), SEVEN_DIGITS)
    close(alphas[[0, 1, 500, 999]] ** 2, (0.9999, 0.99978006, 0.077796653, 4.03583e-05), SEVEN_DIGITS)
    torch.testing.assert_close(alphas**2 + sigmas**2, torch.ones_like(sigmas), rtol=0, atol=SEVEN_DIGITS)
    ve = GeometricSigmas(0.01, 50.0, 1000).table()[1]
    close(ve[[0, 1, 500, 998, 999]], (0.01, 0.010085623, 0.71012753, 49.575535, 50), SEVEN_DIGITS)
    ncsn = (1, 0.599484, 0.359381, 0.215443, 0.129155, 0.077426, 0.046416, 0.027826, 0.016681, 0.01)
    close(GeometricSigmas(0.01, 1.0, 10).table()[1].flip(0), ncsn, SIX_DIGITS)


@pytest.mark.parametrize("name", SCORE_SDE)
def test_checkpoints(name: str) -> None:
    """Mean, deviation, drift, diffusion, prior density and the chain's step, as the release computed them."""
    release = golden(name)
    process, io = release.process, release.io
    t = io["t"]
    shape = (-1,) + (1,) * (io["x0"].ndim - 1)

    def near(have: Tensor, want: Tensor) -> None:
        torch.testing.assert_close(have, want.reshape(have.shape), rtol=GOLDEN_PROCESS, atol=GOLDEN_PROCESS * 1e-2)

    mean, std = process.marginal(io["x0"], t)
    near(mean, io["mean"])
    near(std, io["std"])
    near(process.perturb(io["x0"], t, io["z"]), io["xt"])
    near(process.drift(io["xt"], t), io["drift"])
    near(process.diffusion(t), io["diffusion"])
    near(process.prior_log_prob(io["z"]), io["prior_logp"])
    near(process.flow_drift(io["xt"], t, io["score"]), io["flow_drift"])
    model = release.config["model"]
    if isinstance(process, SubVP):
        return  # no table: its step is Euler-Maruyama's
    ladder = (
        GeometricSigmas(model["sigma_min"], model["sigma_max"], model["num_scales"])
        if isinstance(process, VE)
        else LinearBetas(model["beta_min"], model["beta_max"], model["num_scales"])
    )
    table = Tabulated(ladder)
    k = table.level(t)
    a, b = table.kernel(table.time(k - 1), table.time(k))
    near(b.float(), io["discrete_diffusion"])
    torch.testing.assert_close(
        ((a - 1.0).reshape(shape) * io["xt"]).float(),
        io["discrete_drift"],
        rtol=GOLDEN_PROCESS,
        atol=GOLDEN_PROCESS * 1e-2,
    )
