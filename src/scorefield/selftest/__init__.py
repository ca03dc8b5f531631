"""Selftest: what the library claims, measured against closed forms on the user's machine and device.

A check is one claim with the number it measures, the value that number must have, the allowed error and its reason:

    @GROUP.check("kernels", claim=..., by=..., allowed=1e-9, why=...)
    def _kernels(bench: Bench) -> Measurement: ...

Most checks need no random numbers. Coefficients are compared with the published formulas, scores with gradients of log
densities, and expected losses with closed forms by Gauss-Hermite quadrature. On Gaussian data the exact score is affine
in x, so that a chain of steps is an affine map of its start and its noise,

    x_N = c + A x_0 + sum_k B_k z_k,

whose c, A and B_k are read off with unit inputs; mean and covariance of x_N follow in float64, and the slope of their
error between two grids is the order of convergence. Statistical checks have fixed seeds and significance 1e-6.

    check        a check, a group of checks, the device and dtype they run on, and error measures
    running      runs the checks of some groups
    certificate  the results with the machine and the code they are of, as text and JSON
    page         the certificate as an HTML report
    orders       order of convergence of every step, without Monte Carlo
    process, score, losses, nets, sampling, likelihood, posteriors, metrics, data
                 the checks, one module for each group; likelihood includes latents and normalising constants, and
                 posteriors is about the package `inverse`
"""

from scorefield.selftest import (
    certificate,
    check,
    data,
    likelihood,
    losses,
    metrics,
    nets,
    orders,
    page,
    posteriors,
    process,
    running,
    sampling,
    score,
)
from scorefield.selftest.certificate import Certificate, certify
from scorefield.selftest.check import Bench, Check, CheckGroup, Measurement
from scorefield.selftest.running import GROUPS, CheckResult, bench_for, run, run_check

__all__ = [
    "GROUPS",
    "Bench",
    "Certificate",
    "Check",
    "CheckGroup",
    "CheckResult",
    "Measurement",
    "bench_for",
    "certificate",
    "certify",
    "check",
    "data",
    "likelihood",
    "losses",
    "metrics",
    "nets",
    "orders",
    "page",
    "posteriors",
    "process",
    "run",
    "run_check",
    "running",
    "sampling",
    "score",
]
