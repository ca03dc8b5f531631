"""Checks of noise processes: alpha(t) and sigma(t), and everything that is derived from them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield._math import over_event
from scorefield.process import VE, VP, GeneralSDE, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from scorefield.selftest.check import Bench, CheckGroup, Measurement, derivative, largest, relative, times

GROUP = CheckGroup("process", "schedules, kernels, rates, times of noise levels, and priors")

PROCESSES: dict[str, Process] = {
    "VE": VE(0.01, 50.0),
    "VP": VP(),
    "sub-VP": SubVP(),
    "VE ladder": Tabulated(GeometricSigmas(0.01, 50.0, 40)),
    "VP ladder": Tabulated(LinearBetas(levels=200)),
}
"""Processes with the published ranges, over all of which the checks go."""

TIMES = times(0.0327, 0.217, 0.486, 0.731, 0.94)
"""Times between the levels of both ladders, because rates jump at the levels."""

_ROUNDING = "float64 rounding, 1e-16, times a cancellation of up to 1e3"


def _integral(t: Tensor) -> Tensor:
    """Return B(t), the integral of beta from 0.1 to 20."""
    return 0.1 * t + 9.95 * t**2


def _ladder(values: Callable[[int], float], levels: int) -> Callable[[Tensor], Tensor]:
    """Return a function of t that has the given values at the levels and is log-linear between them."""

    def at(t: Tensor) -> Tensor:
        out = []
        for p in (t * (levels - 1)).tolist():
            i = min(int(p), levels - 2)
            out.append(values(i) ** (1.0 - (p - i)) * values(i + 1) ** (p - i))
        return times(*out)

    return at


def _ddpm_alpha(i: int) -> float:
    return math.prod(1.0 - (0.1 + 19.9 * j / 199) / 200 for j in range(i + 1)) ** 0.5


PUBLISHED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "VE": (torch.ones_like, lambda t: 0.01 * 5000.0**t),
    "VP": (lambda t: (-0.5 * _integral(t)).exp(), lambda t: (1.0 - (-_integral(t)).exp()).sqrt()),
    "sub-VP": (lambda t: (-0.5 * _integral(t)).exp(), lambda t: 1.0 - (-_integral(t)).exp()),
    "VE ladder": (torch.ones_like, _ladder(lambda i: 0.01 * 5000.0 ** (i / 39), 40)),
    "VP ladder": (_ladder(_ddpm_alpha, 200), _ladder(lambda i: (1.0 - _ddpm_alpha(i) ** 2) ** 0.5, 200)),
}
"""alpha(t) and sigma(t) as published, written out independently of the library."""


@GROUP.check(
    "schedules",
    claim="x_t = alpha x_0 + sigma z has the published alpha(t) and sigma(t)",
    by="Song et al. 2021, eq. 29 to 34; Ho et al. 2020; Song and Ermon 2019",
    allowed=1e-11,
    why=_ROUNDING,
    single=1e-5,
)
def _schedules(bench: Bench) -> Measurement:
    errors = {}
    x0, z = bench.normal(len(TIMES), 3, seed=1), bench.normal(len(TIMES), 3, seed=2)
    for name, process in PROCESSES.items():
        alpha, sigma = (function(TIMES) for function in PUBLISHED[name])
        errors[name] = relative(process.perturb(x0, TIMES, z), over_event(alpha, x0) * x0 + over_event(sigma, x0) * z)
        mean, std = process.marginal(x0, TIMES)
        errors[name] = max(errors[name], relative(mean, over_event(alpha, x0) * x0), relative(std, sigma))
    return largest(errors)


@GROUP.check(
    "rates",
    claim="drift and diffusion follow from the derivatives of alpha and sigma",
    by="f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2, derivatives by differences of fourth order",
    allowed=1e-7,
    why="differences with a step of 1e-4: rounding is 1e-12, truncation 1e-9 where sigma grows 5000-fold",
)
def _rates(bench: Bench) -> Measurement:
    x, errors = bench.normal(len(TIMES), 3, seed=3), {}
    for name, process in PROCESSES.items():
        f = derivative(lambda t, p=process: p.alpha(t).log(), TIMES)
        g_squared = derivative(lambda t, p=process: p.sigma(t) ** 2, TIMES) - 2.0 * f * process.sigma(TIMES) ** 2
        drift = (
            relative(process.drift(x, TIMES), over_event(f, x) * x)
            if bool(f.any())
            else float(process.drift(x, TIMES).abs().max())
        )
        errors[f"{name}, drift"] = drift
        errors[f"{name}, diffusion"] = float((process.diffusion(TIMES) / g_squared.sqrt() - 1.0).abs().max())
    return largest(errors)


@GROUP.check(
    "reverse drifts",
    claim="the reverse SDE and the probability flow have the published drifts",
    by="f x - g^2 score and f x - g^2 score / 2 (Anderson 1982; Song et al. 2021, eq. 6 and 13)",
    allowed=1e-11,
    why=_ROUNDING,
    single=1e-5,
)
def _reverse(bench: Bench) -> Measurement:
    x, s, errors = bench.normal(len(TIMES), 3, seed=4), bench.normal(len(TIMES), 3, seed=5), {}
    for name, process in PROCESSES.items():
        forward, g = process.drift(x, TIMES), over_event(process.diffusion(TIMES), x)
        for equation, factor, found in (
            ("SDE", 1.0, process.reverse_drift(x, TIMES, s)),
            ("flow", 0.5, process.flow_drift(x, TIMES, s)),
        ):
            errors[f"{name}, {equation}"] = relative(found, forward - factor * g**2 * s)
    return largest(errors)


@GROUP.check(
    "kernels",
    claim="transition kernels compose, and carry the marginal at s to that at t",
    by="x_t = a x_s + b z: a(r, t) = a(s, t) a(r, s), b(r, t)^2 = b(s, t)^2 + a(s, t)^2 b(r, s)^2; Chapman-Kolmogorov",
    allowed=1e-9,
    why="variances of neighbouring levels are subtracted, which loses up to six digits at small noise",
)
def _kernels(bench: Bench) -> Measurement:
    r, s, t, errors = times(0.03, 0.1), times(0.25, 0.4), times(0.6, 0.97), {}
    for name, process in PROCESSES.items():
        (a1, b1), (a2, b2), (a, b) = process.kernel(r, s), process.kernel(s, t), process.kernel(r, t)
        worst = max(relative(a1 * a2, a), relative(b2**2 + (a2 * b1) ** 2, b**2))
        variance = (a * process.sigma(r)) ** 2 + b**2
        errors[name] = max(
            worst, relative(a * process.alpha(r), process.alpha(t)), relative(variance, process.sigma(t) ** 2)
        )
    return largest(errors)


@GROUP.check(
    "posterior of a step",
    claim="x_s given x_t and x_0 has the mean and variance that Bayes' rule gives",
    by="precisions add: 1 / d^2 = 1 / sigma_s^2 + a^2 / b^2, mean = d^2 (alpha_s x_0 / sigma_s^2 + a x_t / b^2)",
    allowed=1e-9,
    why="variances of neighbouring levels are subtracted, as for kernels",
)
def _posterior(bench: Bench) -> Measurement:
    s, t, errors = times(0.05, 0.3, 0.6), times(0.2, 0.31, 0.98), {}
    for name, process in PROCESSES.items():
        (a, b), sigma_s = process.kernel(s, t), process.sigma(s)
        d_squared = 1.0 / (1.0 / sigma_s**2 + (a / b) ** 2)
        c_t, c_0, d = process.posterior(s, t)
        errors[name] = max(
            relative(d**2, d_squared),
            relative(c_t, d_squared * a / b**2),
            relative(c_0, d_squared * process.alpha(s) / sigma_s**2),
        )
    return largest(errors)


@GROUP.check(
    "sub-VP is below VP",
    claim="the noise of sub-VP never exceeds that of VP",
    by="1 - exp(-B) <= sqrt(1 - exp(-B)) (Song et al. 2021, section 3.4); the largest excess at 4000 times",
    allowed=0.0,
    why="the inequality also holds for the rounded numbers",
    unit="excess",
)
def _below(bench: Bench) -> Measurement:
    t = torch.linspace(0.0, 1.0, 4000, dtype=torch.float64)
    excess = {
        f"beta {low:g} to {high:g}": float((SubVP(low, high).sigma(t) - VP(low, high).sigma(t)).max().clamp_min(0.0))
        for low, high in ((0.1, 20.0), (0.1, 2.0), (5.0, 5.0))
    }
    return largest(excess)


@GROUP.check(
    "times of noise levels",
    claim="the time returned for a noise level or a log-SNR is the time at which the process has it",
    by="sigma(time_at_sigma(s)) = s and log_snr(time_at_log_snr(l)) = l",
    allowed=1e-8,
    why="times are found by bisection to 1e-16, where sigma and log-SNR have slopes up to 1e3",
)
def _times_of_levels(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        sigma, log_snr = process.sigma(TIMES), process.log_snr(TIMES)
        at_sigma = (process.sigma(process.time_at_sigma(sigma)) / sigma - 1.0).abs().max()
        at_snr = (process.log_snr(process.time_at_log_snr(log_snr)) - log_snr).abs().max()
        errors[name] = float(torch.maximum(at_sigma, at_snr))
    return largest(errors)


@GROUP.check(
    "priors",
    claim="samples and density of the prior are those of one normal distribution, with the deviation of the noise at"
    " t = 1",
    by="N(0, sigma(1)^2 I) in nats; its deviation is that of x_1 to within exp(-B(1)), and 1 as published for VP",
    allowed=1e-4,
    why="VP and sub-VP state the prior N(0, I) and reach sqrt(1 - exp(-10)) and 1 - exp(-10), as published",
)
def _priors(bench: Bench) -> Measurement:
    z, errors = bench.normal(6, 3, seed=6), {}
    for name, process in PROCESSES.items():
        x, std = process.prior_sample(z), process.prior_std
        exact = torch.distributions.Normal(times(0.0), times(std)).log_prob(x.cpu().double()).sum(1)
        at_one = float(process.sigma(times(1.0))) / std - 1.0
        errors[name] = max(relative(x, std * z), relative(process.prior_log_prob(x), exact), abs(at_one))
    return largest(errors)


def _vp_drift(x: Tensor, t: Tensor) -> Tensor:
    return -0.5 * over_event(0.1 + 19.9 * t, x) * x


def _vp_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return (0.1 + 19.9 * t).sqrt()


@GROUP.check(
    "general SDEs",
    claim="an SDE given only by drift and diffusion has the transition distribution of the closed form",
    by="moment equations dm/dt = A m, dP/dt = A P + P A' + g^2 I by Magnus steps, against VP's alpha and sigma",
    allowed=1e-7,
    why="steps are halved until the moments change by less than 1e-8",
)
def _general(bench: Bench) -> Measurement:
    general = GeneralSDE(_vp_drift, _vp_diffusion, affine=True, state_dependent=False)
    x0, z, exact = bench.normal(len(TIMES), 3, seed=7), bench.normal(len(TIMES), 3, seed=8), VP()
    return largest({"x_t": relative(general.perturb(x0, TIMES, z), exact.perturb(x0, TIMES, z))})
