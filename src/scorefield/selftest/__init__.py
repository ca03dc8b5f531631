"""The selftest: what the library claims, measured against closed forms on the machine and device at hand.

A check is one claim with the number that it must give, how far that may be off, and why so far:

    @ROOM.check("kernels", claim=..., by=..., allowed=1e-9, why=...)
    def _kernels(bench: Bench) -> Found: ...

The decorator is the one place where a check is added. Most need no random numbers: coefficients are compared with the
published formulas, scores with gradients of densities, expected losses with their closed forms by quadrature, and on
Gaussian data a chain of steps is an affine map, x_N = c + A x_0 + sum_k B_k z_k, which unit inputs read off, so that
orders of convergence are measured in float64. What is random has fixed seeds and the significance 1e-6.

    check         Check, Room, Bench and what a check gives
    running       all checks of some rooms, one after the other
    certificate   what was found, on which machine, by which code; as text and JSON
    page          the same as report.html
    orders        order of convergence of every step, without Monte Carlo
    process, score, losses, nets, sampling, inference, posteriors, metrics, data: the checks, room by room
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
from scorefield.selftest.check import Bench, Check, Found, Room
from scorefield.selftest.running import ROOMS, Row, bench_of, run, run_check

__all__ = [
    "ROOMS",
    "Bench",
    "Certificate",
    "Check",
    "Found",
    "Room",
    "Row",
    "bench_of",
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
