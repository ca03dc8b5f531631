"""Checks of training objectives: their values, floors and minima where the distribution of the data is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from scorefield._math import over_event, sum_event
from scorefield._typing import Condition
from scorefield.losses import (
    DenoisingScoreMatching,
    Draw,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    Likelihood,
    Objective,
    SlicedScoreMatching,
)
from scorefield.process import VE, VP, Process
from scorefield.score import EnergyScore, FunctionScore, Score
from scorefield.score.oracles import Gaussian
from scorefield.selftest.check import (
    Bench,
    CheckGroup,
    Measurement,
    farthest,
    largest,
    relative,
    rotational_field,
    times,
)
from scorefield.selftest.process import PROCESSES

GROUP = CheckGroup("losses", "values at the exact score, floors, minima, and relations between objectives")

MEAN, VARIANCE = 0.7, 0.25
"""Mean and variance of the one-dimensional Gaussian data."""

TIMES = (0.02, 0.3, 0.8)
_QUADRATURE = "Gauss-Hermite nodes are exact for these polynomials; float64 rounding over noise levels down to 0.02"


def quadrature(nodes: int) -> tuple[Tensor, Tensor]:
    """Return Gauss-Hermite nodes and weights of N(0, 1).

    sum_i w_i h(z_i) = E h(z), exactly for polynomials h of degree below 2 `nodes`.
    """
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(z), torch.from_numpy(w / math.sqrt(2.0 * math.pi))


def expected(
    bench: Bench, objective: Objective, score: Score, t: float, probes: Tensor | None = None, nodes: int = 8
) -> Tensor:
    """Return the expectation of a loss at one time over Gaussian data and noise, by quadrature over both.

    Args:
        bench: Device and dtype.
        objective: The objective.
        score: A score of one-dimensional data.
        t: The time.
        probes: Directions of sliced objectives, (K, 1), the same for every node.
        nodes: Nodes for each of data and noise.
    """
    u, w = quadrature(nodes)
    x0 = (MEAN + VARIANCE**0.5 * u).repeat_interleave(nodes)[:, None]
    z = u.repeat(nodes)[:, None]
    draw = Draw(
        torch.full((len(x0),), t, dtype=torch.float64),
        bench.to(z),
        None if probes is None else probes.expand(len(x0), *probes.shape),
    )
    losses = objective(score, bench.to(x0), draw)
    return torch.outer(w, w).reshape(-1).to(losses) @ losses


class _LinearScore(Score):
    """The score (a x + b) / sigma with coefficients (a, b)."""

    def __init__(self, process: Process, coefficients: Tensor):
        self.process, self.coefficients = process, coefficients

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        a, b = self.coefficients.to(x)
        return (a * x + b) / over_event(self.process.sigma(t), x)


def _scales(process: Process, t: float) -> tuple[float, float]:
    return float(process.alpha(times(t))), float(process.sigma(times(t)))


def _quadratic_minimum(loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the minimum of a loss that is quadratic in two coefficients, by one Newton step."""
    start = times(0.2, -0.5).requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(start), start, create_graph=True)
    rows = [torch.autograd.grad(part, start, retain_graph=True)[0] for part in gradient]
    return (start - torch.linalg.solve(torch.stack(rows), gradient)).detach()


def _minimum_error(process: Process, t: float, loss: Callable[[Tensor], Tensor]) -> float:
    """Return the error of the minimising coefficients (a, b) of a linear score against the exact score's."""
    alpha, sigma = _scales(process, t)
    v = alpha**2 * VARIANCE + sigma**2
    return relative(_quadratic_minimum(loss), times(-sigma / v, alpha * MEAN * sigma / v))


@GROUP.check(
    "DSM value",
    claim="denoising score matching at the exact score has its closed-form value for every draw",
    by="sigma s + z = alpha r (alpha r z - sigma w) / (alpha^2 r^2 + sigma^2) for data m + r w (Vincent 2011)",
    allowed=1e-9,
    why="sigma s + z cancels where the noise is small",
    single=1e-3,
)
def _value(bench: Bench) -> Measurement:
    errors, spread = {}, bench.to(times(0.5, 1.0, 0.2))
    w, z = bench.normal(len(TIMES), 3, seed=1), bench.normal(len(TIMES), 3, seed=2)
    t, mean = times(*TIMES), times(0.7, -0.4, 2.0)
    for name, process in PROCESSES.items():
        oracle = Gaussian(process, mean, torch.diag(spread.cpu().double() ** 2))
        scaled, sigma = over_event(process.alpha(t), w) * spread, over_event(process.sigma(t), w)
        square = (scaled * (scaled * z - sigma * w) / (scaled**2 + sigma**2)).square()
        x0, draw = bench.to(mean) + spread * w, Draw(t, z)
        errors[name] = max(
            relative(DenoisingScoreMatching()(oracle, x0, draw), square.mean(1)),
            relative(DenoisingScoreMatching(reduce="half_sum")(oracle, x0, draw), 0.5 * square.sum(1)),
        )
        if "ladder" not in name:
            weight = (process.diffusion(t) / process.sigma(t)) ** 2
            weighted = DenoisingScoreMatching(Likelihood())(oracle, x0, draw)
            errors[f"{name}, likelihood weight"] = relative(weighted, weight.to(square) * square.mean(1))
    return largest(errors)


@GROUP.check(
    "DSM floor",
    claim="the expected loss at the exact score is the variance of the noise given x_t, and at the score 0 it is one",
    by="E |sigma s + z|^2 = alpha^2 v / (alpha^2 v + sigma^2) per dimension at the exact score, 1 at the score 0",
    allowed=1e-9,
    why=_QUADRATURE,
    single=1e-3,
)
def _floor(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        oracle = Gaussian(process, times(MEAN), VARIANCE)
        for t in TIMES:
            alpha, sigma = _scales(process, t)
            floor = alpha**2 * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
            errors[f"{name}, t = {t:g}"] = abs(
                float(expected(bench, DenoisingScoreMatching(), oracle, t)) / floor - 1.0
            )
        zero = FunctionScore(lambda x, t: torch.zeros_like(x), process)
        errors[f"{name}, score 0"] = abs(float(expected(bench, DenoisingScoreMatching(), zero, 0.3)) - 1.0)
    return largest(errors)


@GROUP.check(
    "DSM minimum",
    claim="of all scores linear in x, the exact one has the smallest denoising loss, under every weighting",
    by="one Newton step on the expected loss of (a x + b) / sigma gives -(x - alpha m) / (alpha^2 v + sigma^2)",
    allowed=1e-8,
    why=_QUADRATURE + ", and the solution of two equations",
)
def _minimum(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        for objective in (DenoisingScoreMatching(), DenoisingScoreMatching(Likelihood())):
            if "ladder" in name and isinstance(objective.weighting, Likelihood):
                continue  # this weighting, g^2, is a rate of continuous time and is refused on ladders
            errors[f"{name}, {type(objective.weighting).__name__}"] = _minimum_error(
                process, 0.3, lambda c, o=objective, p=process: expected(bench, o, _LinearScore(p, c), 0.3)
            )
    return largest(errors)


@GROUP.check(
    "implicit and denoising",
    claim="implicit and denoising score matching differ by a number that does not depend on the score",
    by="E sigma^2 (2 tr ds/dx + |s|^2) = E |sigma s + z|^2 - 1 per dimension (Hyvarinen 2005; Vincent 2011)",
    allowed=1e-9,
    why=_QUADRATURE,
    single=1e-3,
)
def _implicit(bench: Bench) -> Measurement:
    errors = {}
    for name, process in PROCESSES.items():
        for k, (a, b) in enumerate(((-1.3, 0.2), (0.4, -0.8))):
            score = _LinearScore(process, times(a, b))
            implicit = expected(bench, ImplicitScoreMatching(), score, 0.3).detach()
            denoising = expected(bench, DenoisingScoreMatching(), score, 0.3).detach()
            errors[f"{name}, score {k + 1}"] = float((implicit - denoising + 1.0).abs())
    return largest(errors)


@GROUP.check(
    "sliced minimum",
    claim="sliced score matching has the exact score as its minimum, with and without variance reduction",
    by="one Newton step, as for DSM, on E [v' (ds/dx) v + |s|^2 / 2] and with (v's)^2 / 2 in place of |s|^2 / 2, along"
    " a unit direction (Song, Garg et al. 2019)",
    allowed=1e-8,
    why=_QUADRATURE + ", and the solution of two equations",
)
def _sliced_minimum(bench: Bench) -> Measurement:
    errors, probes = {}, bench.to(torch.tensor([[1.0]]))
    objectives = {
        "sliced": SlicedScoreMatching(variance_reduced=False),
        "sliced, variance reduced": SlicedScoreMatching(),
        "differences": FiniteDifferenceScoreMatching(),
    }
    for name, objective in objectives.items():
        process = PROCESSES["VP"]
        errors[name] = _minimum_error(
            process, 0.3, lambda c, o=objective, p=process: expected(bench, o, _LinearScore(p, c), 0.3, probes)
        )
    return largest(errors)


@GROUP.check(
    "sliced and implicit",
    claim="the mean of the sliced loss over orthonormal directions is the implicit loss",
    by="mean over v = sqrt(D) u_k of v' J v is the trace, and of (v's)^2 is |s|^2",
    allowed=1e-11,
    why="float64 rounding of a few products",
    single=1e-4,
)
def _directions(bench: Bench) -> Measurement:
    process, errors = VP(), {}
    x0, z = bench.normal(5, 3, seed=3), bench.normal(5, 3, seed=4)
    directions, _ = torch.linalg.qr(bench.normal(5, 3, 3, seed=5).cpu())
    draw = Draw(torch.linspace(0.1, 0.9, 5, dtype=torch.float64), z, bench.to(math.sqrt(3.0) * directions))
    score = FunctionScore(lambda x, t: rotational_field(x), process)
    implicit = ImplicitScoreMatching()(score, x0, draw)
    for reduced in (True, False):
        sliced = SlicedScoreMatching(variance_reduced=reduced)(score, x0, draw)
        errors["variance reduced" if reduced else "estimated"] = relative(sliced, implicit)
    return largest(errors)


@GROUP.check(
    "finite differences",
    claim="finite-difference score matching tends to sliced score matching at second order in its step",
    by="log2 of the ratio of errors at h = 0.02 and 0.01 (Pang et al. 2020)",
    target=2.0,
    allowed=0.15,
    unit="order",
    why="the term of the next order, h^4, is a few percent at these steps",
)
def _differences(bench: Bench) -> Measurement:
    process, orders = VP(), {}
    x0, z = bench.normal(6, 3, seed=6), bench.normal(6, 3, seed=7)
    draw = Draw(torch.linspace(0.2, 0.9, 6, dtype=torch.float64), z, bench.normal(6, 2, 3, seed=8))
    field = FunctionScore(lambda x, t: rotational_field(x), process)
    energy = EnergyScore(lambda x, t, c: (x[:, 0] * x[:, 1]).sin() + 0.1 * sum_event(x**4), process)
    for name, score, reduced in (
        ("score", field, True),
        ("score, estimated", field, False),
        ("energy", energy, False),
    ):
        limit = SlicedScoreMatching(variance_reduced=reduced)(score, x0, draw)
        coarse, fine = (
            (FiniteDifferenceScoreMatching(variance_reduced=reduced, step=h)(score, x0, draw) - limit).detach().norm()
            for h in (0.02, 0.01)
        )
        orders[name] = float((coarse / fine).log2())
    return farthest(orders, 2.0)


@GROUP.check(
    "MDSM",
    claim="the multi-scale loss of an energy is the published one, and its minimum has the right curvature",
    by="|x_0 - x_t + sigma_0^2 grad E|^2 / sigma^2 (Li et al. 2019), which is smallest for"
    " E = |x - m|^2 sigma^2 / (2 sigma_0^2 (v + sigma^2))",
    allowed=1e-8,
    why=_QUADRATURE + ", and the solution of two equations",
)
def _multiscale(bench: Bench) -> Measurement:
    process, sigma_0, t = VE(0.05, 1.2), 0.2, 0.5
    sigma = _scales(process, t)[1]

    def energy(coefficients: Tensor) -> EnergyScore:
        def value(x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
            a, b = coefficients.to(x)
            return sum_event(0.5 * a * x**2 - b * x) / sigma_0**2

        return EnergyScore(value, process, lambda u: (process.sigma(u) / sigma_0) ** 2)

    found = _quadratic_minimum(lambda c: expected(bench, DenoisingScoreMatching(), energy(c), t))
    curvature = sigma**2 / (VARIANCE + sigma**2)
    x0, z = bench.normal(6, 2, seed=9), bench.normal(6, 2, seed=10)
    x_t = x0 + sigma * z
    published = (x0 - x_t + 0.6 * x_t + 0.1).square().mean(1) / sigma**2
    draw = Draw(torch.full((6,), t, dtype=torch.float64), z)
    loss = DenoisingScoreMatching()(energy(times(0.6, -0.1)), x0, draw)
    return largest({"minimum": relative(found, times(curvature, curvature * MEAN)), "value": relative(loss, published)})


@GROUP.check(
    "stratified times",
    claim="stratified draws put one time into each of B equal parts, and draw every level of a ladder equally often",
    by="number of parts of [t_min, 1), and of the 200 levels, that do not have their share of B = 400 draws",
    allowed=0.0,
    why="counts are exact",
    unit="count",
)
def _stratified(bench: Bench) -> Measurement:
    B, objective = 400, DenoisingScoreMatching(stratified=True)

    def drawn(name: str) -> Tensor:
        return objective.draw_times(PROCESSES[name], B, torch.Generator().manual_seed(3))

    low = PROCESSES["VP"].t_min.training
    parts = torch.bincount(((drawn("VP") - low) / (1.0 - low) * B).long(), minlength=B)
    levels = torch.bincount((drawn("VP ladder") * 199).round().long(), minlength=200)
    return largest({"parts": float((parts != 1).sum()), "levels": float((levels != 2).sum())})
