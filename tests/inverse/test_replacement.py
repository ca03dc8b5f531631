"""Replacement: the known part at the noise of every step, the unknown part as the step left it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inverse.stepping import (
    EVENT,
    F64,
    FAMILIES,
    GREY,
    MASK,
    OPERATORS,
    Recorded,
    fast,
    image,
    independent,
    p_of_variance,
    seen,
    states,
)
from sampling.doubles import Generated
from scorefield._random import IndexedNoise, StepNoise
from scorefield.inverse import Function, GaussianNoise, Matrix, Observation
from scorefield.inverse.solvers.replacement import Carried, Imposing, Replaced, Replacement
from scorefield.inverse.solvers.solver import OBSERVED, Unobserving
from scorefield.process import VE, GeometricSigmas, Tabulated
from scorefield.process.grids import LogSNR, Uniform
from scorefield.sampling import (
    Ancestral,
    EulerMaruyama,
    FlowEuler,
    Sampler,
    StepResult,
    TemperatureLangevin,
    TemperatureSchedule,
)
from scorefield.sampling.named import named
from scorefield.score.oracles import Gaussian
from tolerance import FLOAT32, FLOAT64, SIGNIFICANCE

VARIANTS = {
    "score-sde": Replacement("fresh", "after"),
    "NCSN": Replacement("level", "after"),
    "NCSNv2": Replacement("fresh", "before"),
    "both": Replacement("fresh", "both"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_independent_of_y_is_sampled_as_without_y(family: str) -> None:
    """Bit by bit, in every process and sampler; and the known part is y."""
    process, name, steps = FAMILIES[family]
    law, sampler = independent(process), named(name, process, steps)
    observation = seen(MASK, image())
    free = sampler.run(law, EVENT, indices=range(3), seed=5, dtype=F64)
    known = MASK.known.expand(3, *EVENT)
    for label, solver in VARIANTS.items():
        run = solver.run(law, observation, sampler, indices=range(3), seed=5, dtype=F64)
        assert torch.equal(run.x[~known], free.x[~known]), label
        assert torch.equal(MASK(run.x), observation.y(run.x)), label
        assert torch.equal(run.calls, free.calls), label
        assert not torch.equal(run.raw[known], free.raw[known])


def test_the_basis_of_an_operator_is_a_mask_in_other_coordinates() -> None:
    """Grey of colours whose law is the same in every direction: the other directions are sampled as without y."""
    process = VE(0.01, 10.0)
    law, sampler = Gaussian(process, torch.zeros(EVENT, dtype=F64), 0.7), named("pc", process, 20)
    observation = seen(GREY, image())
    run = Replacement().run(law, observation, sampler, indices=range(3), dtype=F64)
    free = sampler.run(law, EVENT, indices=range(3), dtype=F64)
    torch.testing.assert_close(GREY(run.x), observation.y(run.x), rtol=10 * FLOAT64, atol=10 * FLOAT64)
    rest = [x - x.mean(dim=1, keepdim=True) for x in (run.x, free.x)]
    torch.testing.assert_close(*rest, rtol=100 * FLOAT64, atol=100 * FLOAT64)


class CleanStart(Imposing):
    """As the release: what is known starts without noise."""

    def noisy(self, x: Tensor, t: Tensor) -> Tensor:
        return self.mean(x, t) if float(t[0]) == 1.0 else super().noisy(x, t)


@pytest.mark.parametrize("std", [0.0, 0.4])
def test_the_known_part_has_the_noise_of_every_level(std: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network looks, w_t - alpha w_0 has the variance sigma_t^2, the noise of y being part of it."""
    process, n = VE(0.3, 10.0), 400
    truth = image(1, n)
    y = MASK(truth) + std * torch.randn(n, 6, generator=torch.Generator().manual_seed(2), dtype=F64)
    observation = Observation(MASK, y, GaussianNoise(std))
    score = Recorded(independent(process))
    sampler = named("pc", process, 8)
    fast(Replacement(), score, observation, sampler, n)

    def deviations() -> list[tuple[float, Tensor]]:
        return [(float(process.sigma(torch.tensor([t], dtype=F64))), MASK(x - truth)) for t, x in score.asked]

    told = [(sigma, d) for sigma, d in deviations()[:-1] if sigma >= std]
    # A corrector leaves the known part where it put it; what a predictor hands over is at the next level.
    assert len(told) >= 12
    assert min(p_of_variance(d, sigma**2) for sigma, d in told) > SIGNIFICANCE
    if std:  # forgetting that y has noise of its own is noticed
        sigma = min(sigma for sigma, _ in told)
        assert p_of_variance(dict(told)[sigma], sigma**2 + std**2) < SIGNIFICANCE
        return
    monkeypatch.setattr("scorefield.inverse.solvers.replacement.Imposing", CleanStart)
    score.asked.clear()
    fast(Replacement(), score, observation, sampler, n)
    sigma, d = deviations()[0]
    assert p_of_variance(d, sigma**2) < SIGNIFICANCE


class ToTheEnd(Imposing):
    """A mutant that puts y in at levels below its own noise too."""

    def _mean(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std, _ = super()._mean(t)
        return mean, std, torch.isfinite(self.known.std)


def test_noisy_y_of_an_independent_coordinate_gives_its_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    process, n, v, std = VE(0.01, 20.0), 3000, 0.5, 0.6
    law = Gaussian(process, torch.tensor([0.2, -0.5], dtype=F64), torch.tensor([v, 1.0], dtype=F64))
    A = torch.tensor([[1.2, 0.0]], dtype=F64)
    y = torch.tensor([1.0], dtype=F64)
    observation = Observation(Matrix(A, (2,)), y, GaussianNoise(std))
    exact = law.posterior(A, y, std)
    mean, covariance = exact.data_moments()
    sampler = Sampler(Ancestral(), LogSNR(150))

    def p_values() -> list[float]:
        x = fast(Replacement(), law, observation, sampler, n).x - mean
        return [p_of_variance(x[:, i], float(covariance[i, i])) for i in range(2)]

    assert min(p_values()) > SIGNIFICANCE
    monkeypatch.setattr("scorefield.inverse.solvers.replacement.Imposing", ToTheEnd)
    assert p_values()[0] < SIGNIFICANCE


def test_the_mean_of_a_step_has_no_noise_of_it() -> None:
    """The release takes it from the noisy state: its generated part keeps the last step's noise."""
    process = VE(0.1, 5.0)
    law, observation, x = independent(process), seen(MASK, image()), image(3, 4)
    t, s = (torch.full((4,), v, dtype=F64) for v in (0.6, 0.4))
    y = observation.y(x)

    def moved(step: EulerMaruyama | Replaced) -> StepResult:
        bound = Unobserving(law).bind({OBSERVED: y})
        return step(bound, process, x, t, s, StepNoise(IndexedNoise(0, range(4)), 0), Carried(None, {}))

    bare, observed = moved(EulerMaruyama()), moved(Replaced(EulerMaruyama(), observation))
    known = MASK.known.expand_as(x)
    assert torch.equal(observed.mean[~known], bare.mean[~known])
    assert torch.equal(observed.x[~known], bare.x[~known])
    assert torch.equal(MASK(observed.mean), y)
    assert not torch.equal(MASK(observed.x), y)


def test_published_ways_to_draw_the_noise_of_what_is_known() -> None:
    process = Tabulated(GeometricSigmas(0.05, 5.0, 4), between="floor")
    observation, sampler = seen(MASK, image()), named("ald", process)

    def inputs(solver: Replacement) -> dict[float, Tensor]:
        score = Recorded(independent(process))
        run = solver.run(score, observation, sampler, indices=[0], dtype=F64)
        levels: dict[float, list[Tensor]] = {}
        for t, x in score.asked[: 4 * 5]:
            levels.setdefault(t, []).append(MASK(x)[0])
        inputs.last = MASK(run.raw)[0]  # type: ignore[attr-defined]
        return {t: torch.stack(rows) for t, rows in levels.items()}

    one = inputs(VARIANTS["NCSN"])
    assert all(torch.equal(rows, rows[:1].expand_as(rows)) for rows in one.values())
    z = torch.stack(
        [(rows[0] - observation.observed) / process.sigma(torch.tensor([t], dtype=F64)) for t, rows in one.items()]
    )
    assert len(z.unique()) == z.numel() == 24, "one noise for each level"
    fresh = inputs(VARIANTS["NCSNv2"])
    assert all(len(rows.unique(dim=0)) == 5 for rows in fresh.values())
    # Nothing is put in after the last update, which has moved the known part on from where the network saw it.
    assert not torch.equal(inputs.last, fresh[0.0][-1])  # type: ignore[attr-defined]
    assert all(len(rows.unique(dim=0)) == 5 for rows in inputs(VARIANTS["score-sde"]).values())


def test_an_energy_at_a_temperature_sees_the_known_part_at_its_noise() -> None:
    process, n = VE(0.1, 2.0), 300
    score = Recorded(independent(process))
    walk = TemperatureLangevin(TemperatureSchedule(100.0, 1.0, 2, 4, 3), sigma_0=0.1)
    observation = seen(MASK, image())
    run = fast(Replacement(), score, observation, Sampler(walk, Uniform(9), final="none"), n)
    for k, (_, x) in enumerate(score.asked):
        variance = float(walk.schedule.temperature(torch.tensor([float(k)]))) * 0.01
        d = MASK(x) - observation.y(x)
        assert p_of_variance(d, variance) > SIGNIFICANCE if variance else torch.equal(d, torch.zeros_like(d))
    assert torch.equal(MASK(run.x), observation.y(run.x))


@pytest.mark.parametrize("name", OPERATORS)
def test_nothing_leaks_from_what_is_not_observed(name: str) -> None:
    """Values: another image in the unobserved part changes no bit. Gradients: none reaches it."""
    process, operator = VE(0.05, 5.0), OPERATORS[name]
    law, x = independent(process), image()
    project = operator.spectrum()  # type: ignore[attr-defined]
    hidden = torch.where(project.seen, 0.0, 1.0)
    other = x + project.right_back(hidden * 9.0 * project.right(image(4)))
    sampler = named("pc", process, 6)
    if name == "mask":
        runs = [Replacement().run(law, seen(operator, v), sampler, indices=[0, 1]).x for v in (x, other)]
        assert torch.equal(*runs)
    given = image(batch=2).requires_grad_(True)
    start = process.prior_sample(Generated(0).normal(given, 0, 0))
    end = states(Replacement(), law, seen(operator, given.detach()), sampler, start, operator(given))
    (gradient,) = torch.autograd.grad((end**2).sum(), given)
    modes = project.right(gradient)
    assert float((modes * hidden).abs().max()) < FLOAT32 * float(modes.abs().max()), "float32 V of a fixed matrix"
    assert float(modes.abs().max()) > 0.1


def test_rows_have_their_own_y_and_do_not_meet() -> None:
    process = VE(0.05, 5.0)
    law, x, sampler = independent(process), image(batch=4), named("pc", process, 6)
    whole = Replacement().run(law, seen(MASK, x), sampler, indices=range(4), dtype=F64)
    alone = Replacement().run(law, seen(MASK, x[2:3]), sampler, indices=[2], dtype=F64)
    torch.testing.assert_close(whole.x[2:3], alone.x, rtol=FLOAT64, atol=FLOAT64)
    assert torch.equal(MASK(whole.x), MASK(x))


@pytest.mark.parametrize("name", ["ode", "dpm", "sde-dpm"])
def test_steps_with_a_history_are_refused(name: str) -> None:
    process = VE(0.05, 5.0)
    with pytest.raises(ValueError, match=r"replacement goes with the steps EulerMaruyama, .*, not with "):
        Replacement().run(independent(process), seen(MASK, image()), named(name, process), indices=[0])


def test_what_replacement_needs_of_an_observation() -> None:
    process = VE(0.05, 5.0)
    bent = Observation(Function(lambda x: x**2, EVENT), torch.ones(EVENT), GaussianNoise(0.1))
    with pytest.raises(ValueError, match="needs a linear operator"):
        Replacement().run(independent(process), bent, named("pc", process, 5), indices=[0])


def test_flow_steps_go_with_it() -> None:
    """The known part is noised even where the step has no noise of its own."""
    process = VE(0.05, 5.0)
    run = Replacement().run(
        independent(process), seen(MASK, image()), Sampler(FlowEuler(), Uniform(5)), indices=[0], dtype=F64
    )
    assert torch.isfinite(run.x).all() and not torch.equal(run.raw, run.x)
