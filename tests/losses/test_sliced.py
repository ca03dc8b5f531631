"""Score matching without a kernel in closed form: values, expectations, minima and orders.

Defects of loss functions known from published code are reproduced here as mutants, and each is rejected:

    the sign of the score: learns -E (a published denoising loss)                             `Flipped`, `OtherSign`
    the trace divided by D: learns the precision 1 / D (another published code)               `TraceOverD`
    |s|^2 without its half, |s| without its square                                            `NoHalf`, `NoSquare`
    parameters collect gradients while x is differentiated (published energy samplers)        `test_evaluation_...`
    a loss that is not finite replaced by a constant                                          `test_not_finite_...`
    levels of a multi-scale batch off by a level or without an end                            ../test_defects.py
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from losses.cases import CONTINUOUS, PROCESSES, normal_quadrature
from scorefield._codec import dumps, loads
from scorefield._random import IndexedNoise
from scorefield._typing import Condition
from scorefield.losses import (
    Custom,
    DenoisingScoreMatching,
    Draw,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    Likelihood,
    Objective,
    SlicedScoreMatching,
)
from scorefield.process import VE, VP, GeneralSDE, GeometricSigmas, LinearSigmas, Process, Tabulated
from scorefield.score import EnergyForm, EnergyScore, FunctionScore, NetworkEnergy, Score, oracles
from tolerance import FLOAT64, LOSS_CLOSED_FORM, ORDER, QUADRATURE, SIGNIFICANCE

F64 = torch.float64
OBJECTIVES = {
    "implicit": ImplicitScoreMatching(),
    "sliced": SlicedScoreMatching(variance_reduced=False),
    "sliced-vr": SlicedScoreMatching(),
    "differences": FiniteDifferenceScoreMatching(variance_reduced=False),
    "differences-vr": FiniteDifferenceScoreMatching(),
}


def elapsed(process, t: Tensor) -> Tensor:
    """lambda = t."""
    return t


def energy_of(x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
    """A smooth energy that is no sum over coordinates and depends on t, events of 3 numbers."""
    x = x.flatten(1)
    a, b, c = x.unbind(1)
    return (a * b).sin() + 0.1 * (b - c) ** 4 + (a + c).cos() * t.to(x) + 0.5 * (x**2).sum(1)


def field_of(x: Tensor, t: Tensor) -> Tensor:
    """-grad energy_of, by hand."""
    a, b, c = x.flatten(1).unbind(1)
    u = t.to(x)
    da = b * (a * b).cos() - (a + c).sin() * u + a
    db = a * (a * b).cos() + 0.4 * (b - c) ** 3 + b
    dc = -0.4 * (b - c) ** 3 - (a + c).sin() * u + c
    return -torch.stack([da, db, dc], dim=1).reshape(x.shape)


def draw_of(objective: Objective, process, *event: int, batch: int = 5) -> tuple[Tensor, Draw]:
    generator = torch.Generator().manual_seed(3)
    x0 = torch.randn(batch, *event, generator=generator, dtype=F64)
    return x0, objective.draw(process, x0, generator)


# ---------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("name", ["VP", "sigmas"])
@pytest.mark.parametrize("kind", ["implicit", "sliced", "sliced-vr"])
def test_values_are_those_of_the_jacobian(kind: str, name: str) -> None:
    """Any event shape, several directions, half sums and means, weight sigma^2, for a field and for its energy."""
    process = PROCESSES[name]
    objective = replace(OBJECTIVES[kind], reduce="half_sum")
    objective = objective if kind == "implicit" else replace(objective, projections=4)
    x0, draw = draw_of(objective, process, 3, 1)
    x = process.perturb(x0, draw.t, draw.z)
    s = field_of(x, draw.t).flatten(1)
    whole = torch.autograd.functional.jacobian(lambda v: field_of(v, draw.t).sum(0).flatten(), x)
    assert isinstance(whole, Tensor)
    jacobian = whole.flatten(2).transpose(0, 1)
    trace, square = jacobian.diagonal(dim1=1, dim2=2).sum(1), s.square().sum(1)
    if draw.probes is not None:
        v = draw.probes.flatten(2)
        trace = torch.einsum("bpi,bij,bpj->bp", v, jacobian, v).mean(1)
        if kind == "sliced":
            square = torch.einsum("bpi,bi->bp", v, s).square().mean(1)
    expected = process.sigma(draw.t) ** 2 * (trace + 0.5 * square)
    for score in (FunctionScore(field_of, process), EnergyScore(energy_of, process)):
        torch.testing.assert_close(objective(score, x0, draw).detach(), expected, rtol=FLOAT64, atol=FLOAT64)
        mean = replace(objective, reduce="mean")(score, x0, draw).detach()
        torch.testing.assert_close(mean, 2.0 / 3.0 * expected, rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_the_mean_over_orthonormal_directions_is_the_implicit_loss(variance_reduced: bool) -> None:
    objective = SlicedScoreMatching(variance_reduced=variance_reduced)
    x0, draw = draw_of(objective, VP(), 3)
    turned, _ = torch.linalg.qr(torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=F64))
    score = FunctionScore(field_of, VP())
    sliced = objective(score, x0, Draw(draw.t, draw.z, math.sqrt(3.0) * turned))
    torch.testing.assert_close(sliced, ImplicitScoreMatching()(score, x0, draw), rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("variance_reduced", [True, False])
@pytest.mark.parametrize("energy", [True, False])
def test_differences_become_derivatives_at_second_order(energy: bool, variance_reduced: bool) -> None:
    """The error is of order h^2; for an energy without variance reduction only values of E are used."""
    process = VP()
    score: Score = EnergyScore(energy_of, process) if energy else FunctionScore(field_of, process)
    x0, draw = draw_of(SlicedScoreMatching(projections=2), process, 3)
    limit = SlicedScoreMatching(variance_reduced=variance_reduced)(score, x0, draw)
    steps = (0.02, 0.01)
    errors = [
        (FiniteDifferenceScoreMatching(variance_reduced=variance_reduced, step=h)(score, x0, draw) - limit).detach()
        for h in steps
    ]
    order = (errors[0].norm() / errors[1].norm()).log2()
    assert abs(float(order) - 2.0) <= ORDER


def test_values_of_an_energy_need_no_gradient() -> None:
    """Two values per direction and one shared value at x are evaluated, and no derivative with respect to x."""
    calls = []

    def energy(x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        calls.append(x.requires_grad)
        return energy_of(x, t)

    objective = FiniteDifferenceScoreMatching(variance_reduced=False, projections=3)
    x0, draw = draw_of(objective, VP(), 3)
    objective(EnergyScore(energy, VP()), x0, draw)
    assert calls == [False] * 7


@pytest.mark.parametrize("temperature", [False, True])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_energies_and_fields_have_the_same_slopes(kind: str, temperature: bool) -> None:
    """E = a |x|^2 / 2 at temperature T is the score -a x / T: value and gradient with respect to a, per example."""
    process, a = VE(0.5, 2.0), torch.tensor(0.7, dtype=F64, requires_grad=True)
    cool = (lambda t: 4.0 * process.sigma(t) ** 2) if temperature else None
    energy = EnergyScore(lambda x, t, c: 0.5 * a * (x**2).flatten(1).sum(1), process, cool)
    over = (lambda t: cool(t)[:, None, None]) if cool else (lambda t: 1.0)
    field = FunctionScore(lambda x, t: -a * x / over(t), process)
    objective = replace(OBJECTIVES[kind], weighting=Custom(elapsed))
    x0, draw = draw_of(objective, process, 2, 2)
    weights = torch.arange(1.0, 6.0, dtype=F64)
    found = [objective(score, x0, draw) for score in (energy, field)]
    slopes = [torch.autograd.grad((weights * loss).sum(), a)[0] for loss in found]
    torch.testing.assert_close(found[0], found[1], rtol=QUADRATURE, atol=QUADRATURE)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=QUADRATURE, atol=0.0)


# ---------------------------------------------------------------------------------------------------- directions


def test_directions_have_the_identity_as_second_moment() -> None:
    """Norms and signs are checked exactly, components by their distribution; another scale is rejected."""
    for kind in ("gaussian", "rademacher", "sphere"):
        objective = SlicedScoreMatching(directions=kind, projections=3)
        like = torch.empty(4000, 2, 2)
        draw = objective.draw(VP(), like, torch.Generator().manual_seed(1))
        v = draw.probes
        assert v is not None and v.shape == (4000, 3, 2, 2) and v.dtype == torch.float32
        rows = v.double().reshape(-1, 4)
        if kind == "rademacher":
            assert set(rows.unique().tolist()) == {-1.0, 1.0}
            assert stats.binomtest(int((rows > 0).sum()), rows.numel()).pvalue > SIGNIFICANCE
            continue
        if kind == "sphere":
            torch.testing.assert_close(rows.norm(dim=1), torch.full((12000,), 2.0, dtype=F64), rtol=1e-6, atol=0.0)
            # The first of four coordinates of a uniform direction: its square over 4 is Beta(1/2, 3/2).
            distribution, values = stats.beta(0.5, 1.5).cdf, rows[:, 0] ** 2 / 4.0
        else:
            distribution, values = stats.norm.cdf, rows[:, 0]
        assert stats.kstest(values.numpy(), distribution).pvalue > SIGNIFICANCE
        assert stats.kstest((values * 1.1).numpy(), distribution).pvalue < SIGNIFICANCE


def test_draws_follow_the_generator_and_split_by_rows() -> None:
    objective = SlicedScoreMatching(projections=2)
    first, again = (objective.draw(VP(), torch.empty(6, 3), torch.Generator().manual_seed(7)) for _ in range(2))
    assert first.probes is not None and again.probes is not None and torch.equal(first.probes, again.probes)
    plain = DenoisingScoreMatching().draw(VP(), torch.empty(6, 3), torch.Generator().manual_seed(7))
    assert torch.equal(first.t, plain.t) and torch.equal(first.z, plain.z)  # one place draws times and noise
    x0, score = torch.linspace(-1, 1, 18).reshape(6, 3), FunctionScore(field_of, VP())
    part = objective(score, x0[2:5], first.rows(slice(2, 5)))
    torch.testing.assert_close(part, objective(score, x0, first)[2:5])


# ---------------------------------------------------------------------------------------------------- minima


def expected(objective: Objective, score: Score, t: float, points: Tensor, weights: Tensor) -> Tensor:
    """E of the loss at one time over points (K, D) with weights, noise by quadrature and all directions of signs."""
    D = points.shape[1]
    z, w = normal_quadrature(60 if D == 1 else 3)
    noise = torch.tensor(list(itertools.product(z.tolist(), repeat=D)), dtype=F64)
    mass = torch.tensor([math.prod(m) for m in itertools.product(w.tolist(), repeat=D)], dtype=F64)
    signs = torch.tensor(list(itertools.product([1.0, -1.0], repeat=D)), dtype=F64)
    x0, z = points.repeat_interleave(len(noise), 0), noise.repeat(len(points), 1)
    probes = signs.expand(len(x0), -1, -1)
    losses = objective(score, x0, Draw(torch.full((len(x0),), t, dtype=F64), z, probes))
    return torch.outer(weights, mass).reshape(-1) @ losses


class Linear(Score):
    """score = -(A x - b), or that of the energy x' A x / 2 - b x, with A symmetric: coefficients (a, c, d, b1, b2)."""

    def __init__(self, process: Process, coefficients: Tensor):
        self.process, self.coefficients = process, coefficients

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        a, c, d, *b = self.coefficients
        return torch.stack(b) - x @ torch.stack([torch.stack([a, c]), torch.stack([c, d])])

    def energy(self) -> EnergyScore:
        def function(x: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
            a, c, d, *b = self.coefficients
            return 0.5 * (a * x[:, 0] ** 2 + d * x[:, 1] ** 2) + c * x[:, 0] * x[:, 1] - x @ torch.stack(b)

        return EnergyScore(function, self.process)


COVARIANCE = torch.tensor([[0.8, 0.3], [0.3, 0.4]], dtype=F64)
CENTRE = torch.tensor([0.7, -1.2], dtype=F64)


def loss_of(objective: Objective, energy: bool = False, wrong=lambda score: score):
    """The expected loss of a linear score, as a function of its coefficients."""
    process, t = VE(0.1, 2.0), 0.5
    nodes, w = normal_quadrature(3)
    grid = torch.tensor(list(itertools.product(nodes.tolist(), repeat=2)), dtype=F64)
    weights = torch.tensor([math.prod(m) for m in itertools.product(w.tolist(), repeat=2)], dtype=F64)
    points = CENTRE + grid @ torch.linalg.cholesky(COVARIANCE).T

    def loss(coefficients: Tensor) -> Tensor:
        score = Linear(process, coefficients)
        return expected(objective, wrong(score.energy() if energy else score), t, points, weights)

    return loss


def learned(objective: Objective, energy: bool, wrong=lambda score: score) -> Tensor:
    """The linear score that minimises the expected loss: one Newton step, as the loss is quadratic in it."""
    loss = loss_of(objective, energy, wrong)
    start = torch.tensor([0.5, 0.1, 0.8, 0.2, -0.1], dtype=F64)
    gradient = torch.autograd.functional.jacobian(loss, start)
    return start - torch.linalg.solve(torch.autograd.functional.hessian(loss, start), gradient)  # type: ignore[arg-type]


def truth() -> Tensor:
    sigma = float(VE(0.1, 2.0).sigma(torch.tensor([0.5], dtype=F64)))
    A = torch.linalg.inv(COVARIANCE + sigma**2 * torch.eye(2, dtype=F64))
    return torch.cat([torch.stack([A[0, 0], A[0, 1], A[1, 1]]), A @ CENTRE])


@pytest.mark.parametrize("energy", [False, True])
@pytest.mark.parametrize("kind", [*OBJECTIVES, "denoising"])
def test_the_best_linear_score_is_that_of_gaussian_data(kind: str, energy: bool) -> None:
    """Off centre and correlated, D = 2; differences are exact on it, so this holds at any step."""
    found = learned({**OBJECTIVES, "denoising": DenoisingScoreMatching()}[kind], energy)
    torch.testing.assert_close(found, truth(), rtol=1e3 * QUADRATURE, atol=0.0)


class Flipped(Score):
    """The defect of a loss that takes the score with the other sign."""

    def __init__(self, score: Score):
        self.score, self.process = score, score.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        return -self.score(x, t, condition)


@pytest.mark.parametrize("kind", [*OBJECTIVES, "denoising"])
def test_sign(kind: str) -> None:
    """The learned energy is higher far out than at the centre; the mutant that flips the score learns -E."""
    objective = {**OBJECTIVES, "denoising": DenoisingScoreMatching()}[kind]
    a, c, d, *b = learned(objective, energy=True).tolist()
    out, centre = (CENTRE + 3.0).tolist(), CENTRE.tolist()

    def energy(x: list[float]) -> float:
        return 0.5 * (a * x[0] ** 2 + d * x[1] ** 2) + c * x[0] * x[1] - b[0] * x[0] - b[1] * x[1]

    assert energy(out) > energy(centre) + 1.0
    if kind != "differences":  # it does not call the score of an energy
        mutant = learned(objective, energy=True, wrong=Flipped)
        torch.testing.assert_close(mutant, -truth(), rtol=1e3 * QUADRATURE, atol=0.0)


@dataclass(frozen=True)
class TraceOverD(SlicedScoreMatching):
    def combine(self, trace: Tensor, square: Tensor, dimension: int) -> Tensor:
        return super().combine(trace / dimension, square, dimension)


@dataclass(frozen=True)
class NoHalf(SlicedScoreMatching):
    def combine(self, trace: Tensor, square: Tensor, dimension: int) -> Tensor:
        return super().combine(trace, 2.0 * square, dimension)


@dataclass(frozen=True)
class NoSquare(SlicedScoreMatching):
    def combine(self, trace: Tensor, square: Tensor, dimension: int) -> Tensor:
        return super().combine(trace, (square + 1e-6).sqrt(), dimension)  # smooth where the score is 0


@dataclass(frozen=True)
class OtherSign(SlicedScoreMatching):
    def combine(self, trace: Tensor, square: Tensor, dimension: int) -> Tensor:
        return super().combine(-trace, square, dimension)


@pytest.mark.parametrize(("mutant", "factor"), [(TraceOverD, 0.5), (NoHalf, 0.5), (OtherSign, -1.0)])
def test_defects_are_rejected(mutant: type, factor: float) -> None:
    """Each mutant learns a precision that is wrong by a known factor (1 / D at D = 2)."""
    found, true = learned(mutant(), energy=False), truth()
    torch.testing.assert_close(found, factor * true, rtol=1e3 * QUADRATURE, atol=0.0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found, true, rtol=1e3 * QUADRATURE, atol=0.0)


def test_a_missing_square_moves_the_minimum() -> None:
    slopes = [torch.autograd.functional.jacobian(loss_of(o), truth()) for o in (SlicedScoreMatching(), NoSquare())]
    right, wrong = (float(torch.as_tensor(slope).abs().max()) for slope in slopes)
    assert right <= 1e3 * QUADRATURE < 1e-2 < wrong


class Bent(Score):
    """An exact score with c_1 sin x + c_2 tanh(x / 2) + c_3 exp(-x^2) added."""

    def __init__(self, exact: Score, coefficients: Tensor):
        self.process, self.exact, self.coefficients = exact.process, exact, coefficients

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        a, b, c = self.coefficients
        return self.exact(x, t) + a * x.sin() + b * (0.5 * x).tanh() + c * (-x * x).exp()


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("kind", ["implicit", "sliced", "sliced-vr"])
def test_no_change_of_the_score_of_an_asymmetric_mixture_lowers_the_loss(kind: str, name: str) -> None:
    process = PROCESSES[name]
    t = float(process.time_at_sigma(torch.tensor([0.6], dtype=F64)))
    points, weights = torch.tensor([[-1.0], [0.4], [1.1]], dtype=F64), torch.tensor([0.5, 0.2, 0.3], dtype=F64)
    still = torch.zeros(3, dtype=F64)

    def slope(exact: Score) -> Tensor:
        c = still.clone().requires_grad_(True)
        return torch.autograd.grad(expected(OBJECTIVES[kind], Bent(exact, c), t, points, weights), c)[0]

    assert slope(oracles.Points(process, points, weights)).abs().max() <= 1e3 * QUADRATURE
    assert slope(oracles.Points(process, points, weights.flip(0))).abs().max() > 1e6 * QUADRATURE


@pytest.mark.parametrize("name", CONTINUOUS)
def test_denoising_exceeds_implicit_score_matching_by_one(name: str) -> None:
    """E denoising - E implicit = lambda E |z / sigma|^2 / D = 1 for any score, here a wrong one."""
    process = PROCESSES[name]
    t = float(process.time_at_sigma(torch.tensor([0.6], dtype=F64)))
    points, weights = torch.tensor([[-1.0], [0.4], [1.1]], dtype=F64), torch.tensor([0.5, 0.2, 0.3], dtype=F64)
    wrong = FunctionScore(lambda x, u: (1.3 * x).sin() - 0.2, process)
    values = [expected(o, wrong, t, points, weights) for o in (DenoisingScoreMatching(), ImplicitScoreMatching())]
    torch.testing.assert_close(values[0] - values[1], torch.ones((), dtype=F64), rtol=LOSS_CLOSED_FORM, atol=0.0)


# ---------------------------------------------------------------------------------------------------- MDSM


class Quadratic(nn.Module):
    """E = a |x|^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(1.0, dtype=F64))

    def forward(self, x: Tensor, c: Tensor, condition: Condition | None = None) -> Tensor:
        return 0.5 * self.a * (x**2).sum(1)


LEVELS = {
    "linear": (LinearSigmas(0.05, 1.2, 128), torch.linspace(0.05, 1.2, 128, dtype=F64), 37.913, 31.043),
    "geometric": (GeometricSigmas(0.1, 3.0, 128), torch.logspace(-1, math.log10(3), 128, dtype=F64), 42.612, 28.694),
}


@pytest.mark.parametrize("spacing", LEVELS)
def test_closed_form_of_the_multi_scale_loss_of_an_energy(spacing: str) -> None:
    """Data N(0, tau^2 I), E = a |x|^2 / 2, s = 1 / mean(1 / sigma^2): a* = s / (sigma_0^2 (s + tau^2)), and there the
    loss is D tau^2 / (tau^2 + s).

    Expectations over data and noise are exact at two nodes each; the levels are those of one stratified batch.
    """
    table, sigmas, slope, least = LEVELS[spacing]
    D, tau, ladder = 50, 0.3, Tabulated(table)
    objective = DenoisingScoreMatching(reduce="half_sum", stratified=True)
    t = objective.draw(ladder, torch.empty(128, D), torch.Generator().manual_seed(0)).t.repeat_interleave(4)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=F64).repeat(128, 1)
    x0, z = (tau * corners[:, :1]).expand(-1, D), corners[:, 1:].expand(-1, D)
    net = Quadratic()

    def loss(a: float, weight=None) -> Tensor:
        nn.init.constant_(net.a, a)
        o = objective if weight is None else replace(objective, weighting=Custom(weight))
        return 2.0 * o(NetworkEnergy(net, ladder, EnergyForm(0.1)), x0, Draw(t, z)).mean()

    low, middle, high = (loss(a).item() for a in (0.0, 50.0, 100.0))
    curved = (high - 2.0 * middle + low) / 2.0
    best = 50.0 * (1.0 - (high - low) / (4.0 * curved))
    assert low == pytest.approx(D, rel=QUADRATURE)  # the loss of a constant energy is D
    assert best == pytest.approx(slope, abs=6e-4) and loss(best).item() == pytest.approx(least, abs=6e-4)
    (gradient,) = torch.autograd.grad(loss(best), net.a)  # the double backward agrees that this is the minimum
    assert abs(float(gradient)) <= 1e3 * QUADRATURE
    # Any other l(sigma) |x0 - x + sigma_0^2 grad E|^2 is lambda = l sigma^4; with l = 1 the large levels dominate.
    other = loss(10.0, unweighted)
    expected = D * ((0.1**2 * 10.0 - 1.0) ** 2 * sigmas**2 + (0.1**2 * 10.0 * tau) ** 2).mean()
    assert other.item() == pytest.approx(float(expected), rel=QUADRATURE)


def unweighted(process, t: Tensor) -> Tensor:
    """lambda of l(sigma) = 1."""
    return process.sigma(t) ** 4


# ---------------------------------------------------------------------------------------------------- any process


def cubic(x: Tensor, t: Tensor) -> Tensor:
    return -(x**3)


def matrix(x: Tensor, t: Tensor) -> Tensor:
    """Two values driven by three noises, one of them multiplied by x."""
    first = torch.stack([1.0 + 0.1 * x[:, 0], 0.0 * t, t], dim=1)
    return torch.stack([first, torch.stack([0.3 + 0.0 * t, 0.5 + t, 0.0 * t], dim=1)], dim=1)


CURVED = GeneralSDE(cubic, matrix, "matrix")


def test_simulation_to_one_time_is_the_simulation() -> None:
    """Each example takes steps of its own length; examples with a common time agree with `simulate`."""
    noise, x0 = IndexedNoise(0, range(4)), torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    z = torch.stack([noise.normal(torch.empty(4, 3, dtype=F64), k, 0) for k in range(8)], dim=1)
    whole = CURVED.simulate(x0, torch.linspace(0.0, 0.6, 9, dtype=F64), noise)[-1]
    t = torch.tensor([0.6, 0.6, 0.2, 0.6], dtype=F64)
    found = CURVED.simulate_to(x0, t, z)
    torch.testing.assert_close(found[[0, 1, 3]], whole[[0, 1, 3]], rtol=FLOAT64, atol=FLOAT64)
    assert not torch.allclose(found[2], whole[2])
    torch.testing.assert_close(CURVED.simulate_to(x0[2:3], t[2:3], z[2:3]), found[2:3], rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_process_without_a_kernel_is_simulated(kind: str) -> None:
    """x_t is simulated with the noise of the draw, and the loss is that of the closed form at x_t."""
    objective = replace(OBJECTIVES[kind], weighting=Custom(elapsed), simulation=6, reduce="half_sum")
    score = FunctionScore(lambda x, t: x.sin(), CURVED)  # type: ignore[arg-type]
    x0, draw = draw_of(objective, CURVED, 2)
    assert draw.z.shape == (5, 6, 3) and float(draw.t.min()) >= 1e-3
    x = CURVED.simulate_to(x0, draw.t, draw.z)
    found = objective(score, x0, draw) / draw.t
    if kind == "implicit":
        torch.testing.assert_close(found, x.cos().sum(1) + 0.5 * (x.sin() ** 2).sum(1), rtol=FLOAT64, atol=FLOAT64)
    assert found.shape == (5,) and bool(found.isfinite().all())
    with pytest.raises(ValueError, match=r"NoiseVariance.*Custom"):
        replace(objective, weighting=DenoisingScoreMatching().weighting)(score, x0, draw)


def vp_drift(x: Tensor, t: Tensor) -> Tensor:
    return VP().drift(x, t)


def vp_diffusion(x: Tensor, t: Tensor) -> Tensor:
    return VP().diffusion(t)


def test_an_affine_general_process_has_its_kernel() -> None:
    general = GeneralSDE(vp_drift, vp_diffusion, affine=True, state_dependent=False)
    objective = ImplicitScoreMatching(Custom(elapsed))
    x0, draw = draw_of(objective, general, 2)
    assert draw.z.shape == (5, 2)
    found = objective(FunctionScore(cubic, general), x0, draw)  # type: ignore[arg-type]
    torch.testing.assert_close(found, objective(FunctionScore(cubic, VP()), x0, draw), rtol=1e3 * QUADRATURE, atol=0.0)


# ------------------------------------------------------------------------------------------------ gradients, errors


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_evaluation_keeps_no_graph_and_leaves_no_gradient(kind: str) -> None:
    """Under no_grad, as in validation, the values are the same and no parameter accumulates a gradient."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    score = EnergyScore(lambda x, t, c: net(x)[:, 0], VP())
    x0, draw = draw_of(OBJECTIVES[kind], VP(), 3)
    loss = OBJECTIVES[kind](score, x0, draw)
    with torch.no_grad():
        evaluated = OBJECTIVES[kind](score, x0, draw)
    assert not evaluated.requires_grad and all(p.grad is None for p in net.parameters())
    torch.testing.assert_close(evaluated, loss.detach(), rtol=FLOAT64, atol=0.0)
    loss.sum().backward()
    slope = next(net.parameters()).grad
    assert slope is not None and float(slope.abs().sum()) > 0.0


def test_not_finite_losses_stay_so_in_their_own_example() -> None:
    """A loss that is not finite is not replaced by a constant, and the losses of other examples are unchanged."""
    for kind, objective in OBJECTIVES.items():
        x0, draw = draw_of(objective, VP(), 3)
        x0[2] = math.inf
        loss = objective(FunctionScore(field_of, VP()), x0, draw)
        assert loss.isfinite().tolist() == [True, True, False, True, True], kind


def test_a_score_that_ignores_x_has_no_trace() -> None:
    for objective in (ImplicitScoreMatching(reduce="half_sum"), SlicedScoreMatching(reduce="half_sum")):
        x0, draw = draw_of(objective, VP(), 2)
        loss = objective(FunctionScore(lambda x, t: torch.full_like(x, 2.0), VP()), x0, draw)
        torch.testing.assert_close(loss, 4.0 * VP().sigma(draw.t) ** 2, rtol=FLOAT64, atol=0.0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="projections=0"):
        SlicedScoreMatching(projections=0)
    with pytest.raises(ValueError, match="'cube'"):
        SlicedScoreMatching(directions="cube")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="simulation=0"):
        ImplicitScoreMatching(simulation=0)
    with pytest.raises(ValueError, match="step"):
        FiniteDifferenceScoreMatching(step=0.0)
    x0, draw = draw_of(DenoisingScoreMatching(), VP(), 2)
    with pytest.raises(ValueError, match="directions"):
        SlicedScoreMatching()(FunctionScore(cubic, VP()), x0, draw)
    with pytest.raises(ValueError, match="levels"):
        ladder = Tabulated(GeometricSigmas(0.1, 1.0, 3))
        ImplicitScoreMatching(Likelihood())(FunctionScore(cubic, ladder), *draw_of(ImplicitScoreMatching(), ladder, 2))


@pytest.mark.parametrize("objective", OBJECTIVES.values())
def test_round_trip(objective: Objective) -> None:
    assert loads(dumps(objective), Objective) == objective
