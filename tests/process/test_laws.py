"""Properties that hold for every process, found by walking the subclasses of Process."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as limit
from hypothesis import strategies as st

from process.examples import PROCESSES, concrete, times
from scorefield._codec import dumps, loads
from scorefield.process import VE, VP, LinearBetas, Process, SubVP, Tabulated, TimeLimits
from tolerance import BISECTION, FINITE_DIFFERENCE, FLOAT32, FLOAT64, KERNEL, QUADRATURE, SMALL_TIME_FLOAT32

ANY = st.one_of(*PROCESSES.values())
INSIDE = st.floats(0.0, 1.0)
CLASSES = pytest.mark.parametrize("cls", [VE, VP, SubVP, Tabulated])


def close(have: Any, want: Any, tolerance: float) -> None:
    torch.testing.assert_close(have, want, rtol=tolerance, atol=tolerance * 1e-3)


def test_every_process_is_here() -> None:
    assert concrete(Process) == set(PROCESSES)


# ---------------------------------------------------------------------------------------------------- overrides


def arguments(process: Process, method: Any, u: float) -> dict[str, torch.Tensor]:
    """Values for the arguments of any method of Process, at two times."""
    t = times(process, 0.3 + 0.6 * u, 0.9)
    x = torch.linspace(-2, 3, 6, dtype=torch.float64).reshape(2, 3)
    known = {"t": t, "s": times(process, 0.1, 0.2 * u), "x": x, "x0": 0.5 * x, "z": x.flip(0), "score": -x.flip(1)}
    known |= {"sigma": process.sigma(t), "log_snr": process.log_snr(t)}
    return {name: known[name] for name in inspect.signature(method).parameters if name != "self"}


DERIVED = [
    name
    for name, value in vars(Process).items()
    if inspect.isfunction(value) and not name.startswith("_") and name not in Process.__abstractmethods__
]


@CLASSES
@limit(max_examples=15)
@given(data=st.data(), u=INSIDE)
def test_overrides_equal_the_derivation(cls: type[Process], data: st.DataObject, u: float) -> None:
    process = data.draw(PROCESSES[cls])
    overridden = [name for name in DERIVED if getattr(cls, name) is not getattr(Process, name)]
    for name in overridden:
        derived = getattr(Process, name)
        values = arguments(process, derived, u)
        close(getattr(process, name)(**values), derived(process, **values), BISECTION if "time_at" in name else KERNEL)


def test_the_walk_finds_the_overrides() -> None:
    """The comparison above would be empty if the walk found no closed forms."""
    assert {"log_alpha_rate", "diffusion_squared", "time_at_sigma", "time_at_log_snr"} <= set(DERIVED)
    assert all(getattr(SubVP, name) is not getattr(Process, name) for name in ("time_at_sigma", "time_at_log_snr"))


@limit(max_examples=15)
@given(process=ANY, u=st.floats(0.05, 0.95))
def test_rates_are_derivatives(process: Process, u: float) -> None:
    t, h = times(process, u), 1e-5
    if isinstance(process, Tabulated):  # away from the kinks at the levels
        t = (process.position(t).floor().clamp(0, process.levels - 2) + 0.5) / (process.levels - 1)
    log_alpha = (process.alpha(t + h).log() - process.alpha(t - h).log()) / (2 * h)
    variance = (process.sigma(t + h) ** 2 - process.sigma(t - h) ** 2) / (2 * h)
    f = process.log_alpha_rate(t)
    scale = FINITE_DIFFERENCE * max(1.0, math.log(process.prior_std / float(process.sigma(times(process, 0.0)))) ** 3)
    torch.testing.assert_close(f, log_alpha, rtol=scale, atol=scale)
    torch.testing.assert_close(
        process.diffusion_squared(t), variance - 2 * f * process.sigma(t) ** 2, rtol=scale, atol=scale
    )


# ---------------------------------------------------------------------------------------------------- kernels


@limit(max_examples=25)
@given(process=ANY, u=st.lists(INSIDE, min_size=3, max_size=3).map(sorted))
def test_kernels_compose(process: Process, u: list[float]) -> None:
    r, s, t = times(process, *u).split(1)
    (a, b), (a_1, b_1), (a_2, b_2) = process.kernel(r, t), process.kernel(r, s), process.kernel(s, t)
    close(a, a_1 * a_2, FLOAT64)
    scale = float(process.sigma(t)) ** 2
    close(b**2 / scale, (a_2**2 * b_1**2 + b_2**2) / scale, KERNEL)
    close(process.alpha(t), a * process.alpha(r), FLOAT64)
    close(process.sigma(t) ** 2 / scale, (a**2 * process.sigma(r) ** 2 + b**2) / scale, KERNEL)


@limit(max_examples=15)
@given(process=ANY, u=INSIDE)
def test_kernel_of_no_time_stands_still(process: Process, u: float) -> None:
    t = times(process, u)
    a, b = process.kernel(t, t)
    assert float(a) == 1.0
    assert float(b) == 0.0


@limit(max_examples=15)
@given(process=ANY, u=st.floats(0.0, 0.9), width=st.floats(0.02, 0.1))
def test_kernel_variance_is_the_integral_of_the_diffusion(process: Process, u: float, width: float) -> None:
    """b^2 = int_s^t (alpha_t / alpha_r)^2 g(r)^2 dr, by Gauss-Legendre quadrature."""
    s, t = times(process, u), times(process, u + width)
    if isinstance(process, Tabulated):  # within one interval, where the rates are smooth
        level = process.position(s).floor().clamp(max=process.levels - 2)
        s, t = (level + 0.1) / (process.levels - 1), (level + 0.9) / (process.levels - 1)
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(40))
    r = s + (t - s) * (nodes + 1) / 2
    rate = (process.alpha(t) / process.alpha(r)) ** 2 * process.diffusion_squared(r)
    b = process.kernel(s, t)[1]
    close((0.5 * (t - s) * (weights * rate).sum()).reshape(1), b**2, QUADRATURE)


@limit(max_examples=25)
@given(process=ANY, u=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=2, unique=True).map(sorted))
def test_posterior_is_bayes(process: Process, u: list[float]) -> None:
    """Precision 1 / sigma_s^2 + a^2 / b^2, mean by precisions; and averaging it over x_t gives back x_s."""
    s, t = times(process, *u).split(1)
    a, b = process.kernel(s, t)
    assume(float(b / process.sigma(t)) > 1e-4)
    c_t, c_0, d = process.posterior(s, t)
    alpha, sigma = process.alpha(s), process.sigma(s)
    variance = 1.0 / (1.0 / sigma**2 + a**2 / b**2)
    close(d**2, variance, KERNEL)
    close(c_t, variance * a / b**2, KERNEL)
    close(c_0, variance * alpha / sigma**2, KERNEL)
    close(c_t * process.alpha(t) + c_0, alpha, KERNEL)
    close(d**2 + (c_t * process.sigma(t)) ** 2, sigma**2, KERNEL)


# ---------------------------------------------------------------------------------------------------- drifts


@limit(max_examples=15)
@given(process=ANY, u=st.floats(0.02, 0.98), mean=st.floats(-2, 2), deviation=st.floats(0.0, 2.0))
def test_flow_carries_quantiles_of_gaussian_data(process: Process, u: float, mean: float, deviation: float) -> None:
    """x_t = alpha m + k sqrt(alpha^2 v + sigma^2) solves the flow for every k: drift and half of g^2 both enter."""
    t = times(process, u, u).requires_grad_(True)
    k = torch.tensor([[-1.5], [0.7]], dtype=torch.float64)
    alpha, variance = process.alpha(t)[:, None], (process.alpha(t) * deviation)[:, None] ** 2
    variance = variance + process.sigma(t)[:, None] ** 2
    x = alpha * mean + k * variance.sqrt()
    (rate,) = torch.autograd.grad(x.sum(), t)
    score = -(x - alpha * mean) / variance
    close(process.flow_drift(x, t, score).detach()[:, 0], rate, KERNEL)


@limit(max_examples=15)
@given(process=ANY, u=INSIDE)
def test_reverse_and_flow_drift_differ_by_half_of_the_score_term(process: Process, u: float) -> None:
    t = times(process, u, 0.5 * u)
    x = torch.linspace(-1, 2, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    score = x.flip(0) - 0.3
    forward, reverse, flow = process.drift(x, t), process.reverse_drift(x, t, score), process.flow_drift(x, t, score)
    close(flow, 0.5 * (forward + reverse), FLOAT64)
    close(forward - reverse, process.apply_diffusion(x, t, process.apply_diffusion(x, t, score)), KERNEL)
    assert process.noise_like(x, t).shape == x.shape


@limit(max_examples=15)
@given(process=ANY, u=st.lists(INSIDE, min_size=2, max_size=8, unique=True).map(sorted))
def test_noise_grows(process: Process, u: list[float]) -> None:
    t = times(process, *u)
    assert bool((process.sigma(t).diff() >= 0).all())
    assert bool((process.alpha(t).diff() <= 0).all())
    assert bool((process.log_snr(t).diff() <= 0).all())
    assert bool((process.diffusion_squared(t) >= 0).all())


# ---------------------------------------------------------------------------------------------------- clocks


@limit(max_examples=25)
@given(process=ANY, u=INSIDE)
def test_clocks_invert(process: Process, u: float) -> None:
    t = times(process, u)
    close(process.sigma(process.time_at_sigma(process.sigma(t))), process.sigma(t), BISECTION)
    log_snr = process.log_snr(t)
    torch.testing.assert_close(
        process.log_snr(process.time_at_log_snr(log_snr)), log_snr, rtol=BISECTION, atol=BISECTION
    )


@CLASSES
def test_beyond_the_ends_the_clocks_give_the_ends(cls: type[Process]) -> None:
    process = cls()
    far = torch.tensor([0.0, 1e9, math.inf, 1.0 - 1e-16], dtype=torch.float64)
    low = process.t_min.smallest
    t = process.time_at_sigma(far)
    assert t[:3].tolist() == pytest.approx([low, 1.0, 1.0])
    assert low <= float(t[3]) <= 1.0
    assert process.time_at_log_snr(torch.tensor([math.inf, -math.inf, -1e6, 1e6])).tolist() == pytest.approx(
        [low, 1.0, 1.0, low]
    )


def test_a_vp_process_never_reaches_a_noise_above_one() -> None:
    for process in (VP(), SubVP()):
        assert process.time_at_sigma(torch.tensor([1.0, 1.5, 1e30])).tolist() == pytest.approx([1.0, 1.0, 1.0])


# ---------------------------------------------------------------------------------------------------- the rest


@limit(max_examples=15)
@given(process=ANY, x=st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_prior(process: Process, x: list[float]) -> None:
    """A sample is the noise scaled, the density that of independent normals; sigma(1) is missed by alpha(1)^2."""
    state = torch.tensor(x, dtype=torch.float64).reshape(2, 2)
    std = process.prior_std
    close(process.prior_sample(state), std * state, FLOAT64)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), std)
    close(process.prior_log_prob(state), normal.log_prob(state).sum(dim=1), FLOAT64)
    one = torch.ones(1, dtype=torch.float64)
    mismatch = abs(std**2 - float(process.sigma(one)) ** 2)
    published = (
        isinstance(process, VP | SubVP) or isinstance(process, Tabulated) and isinstance(process.ladder, LinearBetas)
    )
    assert mismatch <= (2.0 * float(process.alpha(one)) ** 2 if published else FLOAT64 * std**2)


@limit(max_examples=15)
@given(process=ANY, u=INSIDE)
def test_perturb_is_the_marginal(process: Process, u: float) -> None:
    t = times(process, u, 0.3)
    x0 = torch.linspace(0, 1, 12, dtype=torch.float64).reshape(2, 2, 3)
    z = x0.flip(0) - 0.4
    mean, std = process.marginal(x0, t)
    assert torch.equal(process.perturb(x0, t, z), mean + std[:, None, None] * z)
    a, b = process.kernel(times(process, 0.0, 0.0), t)
    first = process.alpha(times(process, 0.0))
    close(mean, (a * first)[:, None, None] * x0, FLOAT64)
    assert bool((b <= std * (1 + FLOAT64)).all())


@limit(max_examples=15)
@given(process=ANY)
def test_codec_round_trip(process: Process) -> None:
    assert loads(dumps(process), Process) == process


@limit(max_examples=15)
@given(process=ANY, u=INSIDE)
def test_float32_agrees_with_float64(process: Process, u: float) -> None:
    t32 = times(process, u, 1.0, 0.0).float()
    t64 = t32.double()
    for name in ("alpha", "sigma", "log_alpha_rate", "diffusion_squared", "diffusion", "log_snr"):
        have, want = getattr(process, name)(t32), getattr(process, name)(t64)
        assert have.dtype == torch.float32
        assert want.dtype == torch.float64
        tolerance = SMALL_TIME_FLOAT32 if name == "log_snr" else FLOAT32
        torch.testing.assert_close(have.double(), want, rtol=tolerance, atol=tolerance)


@limit(max_examples=15)
@given(b=st.tuples(st.floats(0.01, 5.0), st.floats(0.0, 20.0)), t=st.floats(1e-5, 1.0))
def test_sub_vp_never_has_more_noise_than_vp(b: tuple[float, float], t: float) -> None:
    vp, sub = VP(b[0], sum(b)), SubVP(b[0], sum(b))
    at = torch.tensor([t], dtype=torch.float64)
    assert float(sub.sigma(at)) <= float(vp.sigma(at))
    assert float(sub.diffusion(at)) <= float(vp.diffusion(at))
    close(sub.sigma(at), vp.sigma(at) ** 2, FLOAT64)
    close(vp.sigma(at) ** 2 + vp.alpha(at) ** 2, torch.ones_like(at), FLOAT64)


def test_constant_beta() -> None:
    """beta_min = beta_max: alpha = exp(-beta t / 2), and times of noise levels without division by the slope 0."""
    t = torch.tensor([1e-5, 0.1, 0.7, 1.0], dtype=torch.float64)
    for process in (VP(3.0, 3.0), SubVP(3.0, 3.0)):
        close(process.alpha(t), (-1.5 * t).exp(), FLOAT64)
        close(process.time_at_sigma(process.sigma(t)), t, BISECTION)
        close(process.time_at_log_snr(process.log_snr(t)), t, BISECTION)


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VE(0.0, 1.0), "0 < sigma_min < sigma_max"),
        (lambda: VE(2.0, 1.0), "got 2.0 and 1.0"),
        (lambda: VE(0.01, math.inf), "sigma_max"),
        (lambda: VE(math.nan, 1.0), "nan"),
        (lambda: VP(0.0, 1.0), "VP needs 0 < beta_min"),
        (lambda: SubVP(2.0, 1.0), "SubVP needs"),
    ],
)
def test_bad_parameters(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@CLASSES
def test_times_outside_are_refused(cls: type[Process]) -> None:
    process = cls()
    low = process.t_min.smallest
    process.check_time(torch.tensor([low, 0.5, 1.0]))
    process.check_time(torch.tensor([low, 1.0], dtype=torch.float64))
    process.check_time(torch.empty(0))
    for bad in (low / 2 - 1e-6, 1.01, math.nan):
        with pytest.raises(ValueError, match=f"{cls.__name__} is defined.*t_min"):
            process.check_time(torch.tensor([0.5, bad]))
    with pytest.raises(ValueError, match="t = 1.2 is outside"):
        process.check_time(torch.tensor([0.5, 1.2]))


def test_the_smallest_time_of_any_use() -> None:
    assert TimeLimits(1e-5, 1e-3, 1e-4).smallest == 1e-5
    assert VP().t_min == TimeLimits(training=1e-5, sampling=1e-3, likelihood=1e-5)
    assert VE().t_min == TimeLimits(training=1e-5, sampling=1e-5, likelihood=1e-5)
