"""The twisted filter: without bias for the prior that its own steps make, whatever the guess."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inverse.guiding import EVENT, F64, MATRIX, PROCESSES, STD, Y, anisotropic, numbers, observed
from scorefield.inverse import Function, GaussianNoise, LaplaceNoise, Matrix, Observation
from scorefield.inverse.solvers.pseudo_inverse import MomentMatched, PiGDM
from scorefield.inverse.solvers.reconstruction import DPS
from scorefield.inverse.solvers.twisted_particles import FilterRun, TwistedParticles, _Filter
from scorefield.process import VP
from scorefield.process.grids import EveryLevel, LogSNR
from scorefield.sampling import Ancestral, Chain, FlowEuler, Langevin, Sampler
from scorefield.score import Score
from scorefield.score.oracles import Gaussian, Oracle, skewed_mixture
from tolerance import ONE_STEP, SIGNIFICANCE

STEPS = Sampler(Ancestral(), LogSNR(16))
PRIOR = Gaussian(VP(), torch.tensor([0.4, -0.3], dtype=F64), torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64))
ROW = torch.tensor([[1.0, -0.6]], dtype=F64)
SEEN = Observation(Matrix(ROW, (2,)), torch.tensor([1.1], dtype=F64), GaussianNoise(0.5))


def made_by(sampler: Sampler, prior: Oracle) -> Gaussian:
    """The law of D(x_end) for Gaussian data, by pushing mean and covariance through the sampler's own few steps."""
    process, d = prior.process, prior.dimension
    times = sampler.times(process)
    times = times[process.sigma(times) > 0.0]

    def line(t: Tensor) -> tuple[Tensor, Tensor]:
        origin = prior.denoised(torch.zeros(1, d, dtype=F64), t)[0]
        return origin, (prior.denoised(torch.eye(d, dtype=F64), t.expand(d)) - origin).T

    mean, covariance = torch.zeros(d, dtype=F64), process.prior_std**2 * torch.eye(d, dtype=F64)
    for t, s in zip(times[:-1].split(1), times[1:].split(1), strict=True):
        c_t, c_0, std = process.posterior(s, t)
        if sampler.step == Ancestral("forward"):
            std = process.kernel(s, t)[1]
        origin, G = line(t)
        M = c_t * torch.eye(d, dtype=F64) + c_0 * G
        mean = M @ mean + c_0 * origin
        covariance = M @ covariance @ M.T + std**2 * torch.eye(d, dtype=F64)
    origin, G = line(times[-1:])
    return Gaussian(process, origin + G @ mean, G @ covariance @ G.T)


def surprise(values: Tensor, expected: float) -> float:
    """Two-sided p-value of a mean."""
    z = float((values.mean() - expected).abs()) / (float(values.std()) / len(values) ** 0.5)
    return math.erfc(z / math.sqrt(2.0))


def check(run: FilterRun, law: Gaussian) -> tuple[float, float]:
    """p-values of the evidence, and of the posterior mean of x_0 . (0.8, 0.6): all that the filters weigh is used."""
    assert run.log_evidence is not None and run.particles is not None and run.log_weights is not None
    evidence = (run.log_evidence - law.log_evidence(ROW, SEEN.observed, 0.5)).exp()
    exact, _ = law.posterior(ROW, SEEN.observed, 0.5).data_moments()
    way = torch.tensor([0.8, 0.6], dtype=F64)
    inside = (run.log_weights.exp()[..., None] * run.particles).sum(1) @ way
    return surprise(evidence, 1.0), surprise(evidence * (inside - exact @ way), 0.0)


SETTINGS = {
    "pseudo-inverse": (TwistedParticles(8), STEPS),
    "prior's steps": (TwistedParticles(8, "prior"), STEPS),
    "reconstruction": (TwistedParticles(8, twist=DPS(0.3)), STEPS),
    "always resampled": (TwistedParticles(8, resample_below=1.0, twist=MomentMatched()), STEPS),
    "forward variance": (TwistedParticles(8), Sampler(Ancestral("forward"), LogSNR(16))),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_evidence_and_posterior_have_no_bias(name: str) -> None:
    """Of the law that sixteen steps make, not of the data: evidence and evidence-weighted means, 250 filters."""
    solver, sampler = SETTINGS[name]
    law = made_by(sampler, PRIOR)
    run = solver.run(PRIOR, SEEN, sampler, indices=range(250), dtype=F64)
    assert min(check(run, law)) > SIGNIFICANCE
    assert run.calls.tolist() == [17 * solver.particles] * 250 and run.status.tolist() == [0] * 250


def test_filters_that_forget_the_kernels_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    move = _Filter._move

    def careless(self: _Filter, k: int, noise: object) -> Tensor:
        mean = move(self, k, noise)  # pyright: ignore[reportArgumentType]
        self.log_kernels = torch.zeros_like(self.log_kernels)
        return mean

    monkeypatch.setattr(_Filter, "_move", careless)
    run = TwistedParticles(8).run(PRIOR, SEEN, STEPS, indices=range(250), dtype=F64)
    assert min(check(run, made_by(STEPS, PRIOR))) < SIGNIFICANCE


def test_an_exact_twist_leaves_nothing_to_weigh() -> None:
    """Gaussian data and their own covariance: as steps shrink weights become equal and one particle says log p(y)."""
    solver, truth = TwistedParticles(4, twist=MomentMatched()), PRIOR.log_evidence(ROW, SEEN.observed, 0.5)
    spread = []
    for steps in (10, 160):
        run = solver.run(PRIOR, SEEN, Sampler(Ancestral(), LogSNR(steps)), indices=range(20), dtype=F64)
        assert run.log_evidence is not None and run.effective is not None
        spread.append(float((run.log_evidence - truth).square().mean().sqrt()))
        assert float(run.effective.min()) > 1.5
    assert spread[1] < 0.4 * spread[0], "the error of a step is of order sqrt(h) at worst"


def test_each_row_has_its_y_and_no_mates() -> None:
    """Rows of a batch, with their own y and filters, are what they are alone; ladders end in D of their last level."""
    ladder = PROCESSES["ladder"]
    prior, ys = skewed_mixture(ladder, EVENT), numbers(3, 4, seed=6)
    sampler, solver = Sampler(Ancestral(), EveryLevel()), TwistedParticles(4, resample_below=1.0)
    together = solver.run(prior, observed(y=ys), sampler, indices=[1, 2, 3], dtype=F64)
    alone = solver.run(prior, observed(y=ys[1]), sampler, indices=[2], dtype=F64)
    torch.testing.assert_close(together.x[1:2], alone.x, rtol=ONE_STEP, atol=ONE_STEP)
    torch.testing.assert_close(together.log_evidence[1:2], alone.log_evidence, rtol=ONE_STEP, atol=ONE_STEP)  # type: ignore[index]
    last = ladder.time(torch.zeros(3, dtype=torch.long))  # type: ignore[attr-defined]
    torch.testing.assert_close(together.x, prior.denoised(together.raw, last), rtol=ONE_STEP, atol=ONE_STEP)
    assert together.calls.tolist() == [4 * 30] * 3


def test_functions_that_are_not_linear() -> None:
    """y = x^2 with Laplace noise has two answers; the posterior's share of either, and |x|, by quadrature."""
    prior = Gaussian(VP(), torch.tensor([0.3], dtype=F64), 0.8)
    noise, y = LaplaceNoise(0.2), torch.tensor([0.9], dtype=F64)
    observation = Observation(Function(lambda x: x**2, (1,)), y, noise)
    law = made_by(STEPS, prior)
    grid = torch.linspace(-6.0, 6.0, 24001, dtype=F64)[:, None]
    density = (law.log_prob(grid) + noise.log_prob(y.expand(len(grid), 1), grid**2)).exp()
    evidence = float(density.sum()) * 12.0 / 24000
    right = float(density[grid[:, 0] > 0].sum() / density.sum())
    run = TwistedParticles(16, twist=DPS(0.1)).run(prior, observation, STEPS, indices=range(400), dtype=F64)
    assert run.log_evidence is not None and run.particles is not None and run.log_weights is not None
    shares = run.log_evidence.exp() / evidence
    assert surprise(shares, 1.0) > SIGNIFICANCE
    positive = (run.log_weights.exp() * (run.particles[..., 0] > 0)).sum(1)
    assert surprise(shares * (positive - right), 0.0) > SIGNIFICANCE
    assert surprise(shares * (positive - 0.5), 0.0) < SIGNIFICANCE, "not the mirror image"


def test_callbacks_see_one_particle_of_each() -> None:
    seen = []
    TwistedParticles(4).run(PRIOR, SEEN, STEPS, indices=[0, 1], callbacks=[lambda p: seen.append((p.step, p.x.shape))])
    assert seen == [(k, (2, 2)) for k in range(1, 17)]


def test_a_state_that_is_not_finite_has_a_status() -> None:
    class Torn(Score):
        process = VP()

        def __call__(self, x: Tensor, t: Tensor, condition: object = None) -> Tensor:
            return torch.where(x[:, :1] > 0.5, torch.nan, -x)

    observation = Observation(Matrix(ROW, (2,)), torch.tensor([1.1]), GaussianNoise(0.5))
    run = TwistedParticles(2).run(Torn(), observation, STEPS, indices=range(40))
    assert 0 < int((run.status == 3).sum()) < 40 and run.log_evidence is not None
    assert bool(torch.isfinite(run.x[run.status == 0]).all())


def test_refusals() -> None:
    prior = anisotropic(PROCESSES["VP"])
    for step, why in ((FlowEuler(), "goes with the steps Ancestral"), (Chain((Langevin(), Ancestral())), "alone")):
        with pytest.raises(ValueError, match=why):
            TwistedParticles().run(prior, observed(), Sampler(step, LogSNR(3)), indices=[0])
    with pytest.raises(ValueError, match="divides by the noise"):
        TwistedParticles().run(prior, observed(std=0.0), indices=[0])
    bent = Observation(Function(torch.sin, EVENT), torch.zeros(EVENT), GaussianNoise(STD))
    with pytest.raises(ValueError, match="pigdm needs a linear operator"):
        TwistedParticles(twist=PiGDM()).run(prior, bent, indices=[0])
    for wrong in (
        lambda: TwistedParticles(1),
        lambda: TwistedParticles(resample_below=2.0),
        lambda: TwistedParticles(twist=DPS(rule="norm")),
        lambda: TwistedParticles(twist=MomentMatched(iterations=3)),
    ):
        with pytest.raises(ValueError, match="particles|no density"):
            wrong()
    assert MATRIX.shape[0] == len(Y)
