"""RePaint: blocks of steps gone through several times, with the noise of the block put back in between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inverse.stepping import EVENT, F64, MASK, Recorded, fast, image, independent, p_of_variance, seen, states
from sampling.doubles import Generated
from scorefield.inverse import GaussianNoise, Matrix, Observation, RePaint, Replacement
from scorefield.process import VE, VP, GeometricSigmas, Process, Tabulated
from scorefield.process.grids import EveryLevel, LogSNR, Uniform
from scorefield.sampling import Ancestral, Sampler
from scorefield.sampling.named import named
from scorefield.score.oracles import Gaussian
from tolerance import SIGNIFICANCE

PROCESSES = {"VE": VE(0.05, 5.0), "VP": VP(), "ladder": Tabulated(GeometricSigmas(0.05, 5.0, 8), between="floor")}


def test_resampling_mends_what_replacement_leaves_too_vague() -> None:
    """Two correlated coordinates, one known: the error of mean and variance of the other falls with the rounds."""
    process = VE(0.01, 20.0)
    law = Gaussian(process, torch.zeros(2, dtype=F64), torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64))
    A, y = torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([1.5], dtype=F64)
    mean, covariance = law.posterior(A, y, 0.0).data_moments()
    observation, sampler = Observation(Matrix(A, (2,)), y, GaussianNoise(0.0)), Sampler(Ancestral(), LogSNR(30))
    off, ratio = [], []
    for rounds in (1, 3, 9):
        x = fast(RePaint(1, rounds), law, observation, sampler, 1000).x[:, 1]
        off.append(abs(float(x.mean() - mean[1])))
        ratio.append(float(x.var() / covariance[1, 1]))
    # Standard errors: 0.014 of a mean, 4.5 percent of a variance.
    assert off[0] > 0.3 and off[1] < off[0] / 2 and off[2] < off[1] / 2
    assert ratio[0] > 1.25 and abs(ratio[2] - 1) < abs(ratio[0] - 1) and 0.7 < ratio[2] < 1.15


@pytest.mark.parametrize("family", PROCESSES)
def test_every_step_is_taken_as_often_as_asked(family: str) -> None:
    """Calls are counted; steps start from the times of the grid, block by block; y is kept."""
    process = PROCESSES[family]
    sampler = Sampler(Ancestral(), EveryLevel() if family == "ladder" else Uniform(8))
    score = Recorded(independent(process))
    run = RePaint(jump=3, resamplings=2).run(score, seen(MASK, image()), sampler, indices=[0, 1], dtype=F64)
    times = sampler.times(process).tolist()
    order = [0, 1, 2] * 2 + [3, 4, 5] * 2 + [6, 7] * 2
    assert [t for t, _ in score.asked[:16]] == [times[k] for k in order]
    assert run.calls.tolist() == [len(score.asked)] * 2
    assert torch.equal(MASK(run.x), image()[:, MASK.known].expand(2, 6))


def test_one_round_is_replacement() -> None:
    process = VE(0.05, 5.0)
    law, observation, sampler = independent(process), seen(MASK, image()), named("pc", process, 7)
    runs = [fast(s, law, observation, sampler, 2) for s in (RePaint(1, 1), Replacement())]
    assert torch.equal(runs[0].x, runs[1].x)


@pytest.mark.parametrize("family", ["VE", "VP"])
def test_the_state_keeps_the_noise_of_its_level(family: str) -> None:
    """On data at one point x_t = alpha x_0 + sigma z after every round; adding a whole level's noise is noticed."""
    process, n = PROCESSES[family], 300
    law = Gaussian(process, torch.zeros(EVENT, dtype=F64), 0.0)
    observation, sampler = seen(MASK, torch.zeros(1, *EVENT, dtype=F64)), Sampler(Ancestral(), Uniform(4))

    def least(process: Process) -> float:
        score = Recorded(law)
        score.process = process
        fast(RePaint(2, 2), score, observation, sampler, n)
        hidden = ~MASK.known
        return min(
            p_of_variance(x[:, hidden], float(PROCESSES[family].sigma(torch.tensor([t], dtype=F64))) ** 2)
            for t, x in score.asked[:-1]
        )

    class Louder(type(process)):  # type: ignore[misc]
        def kernel(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            a, b = super().kernel(s, t)
            return a, 1.2 * b

    loud = object.__new__(Louder)
    loud.__dict__.update(process.__dict__)
    assert least(process) > SIGNIFICANCE > least(loud)


def test_nothing_leaks() -> None:
    process = VE(0.05, 5.0)
    given = image(batch=2).requires_grad_(True)
    start = process.prior_sample(Generated(0).normal(given, 0, 0))
    observation = seen(MASK, given.detach())
    end = states(RePaint(2, 2), independent(process), observation, named("ancestral", process, 4), start, MASK(given))
    (gradient,) = torch.autograd.grad((end**2).sum(), given)
    known = MASK.known.expand_as(gradient)
    assert not bool(gradient[~known].any()) and float(gradient[known].abs().max()) > 0.1


def test_rows_do_not_meet() -> None:
    process = VE(0.05, 5.0)
    law, x, sampler = independent(process), image(batch=3), named("ancestral", process, 4)
    whole = RePaint(2, 2).run(law, seen(MASK, x), sampler, indices=range(3), dtype=F64)
    alone = RePaint(2, 2).run(law, seen(MASK, x[1:2]), sampler, indices=[1], dtype=F64)
    assert torch.equal(whole.x[1:2], alone.x)


def test_refusals() -> None:
    process = VE(0.05, 5.0)
    with pytest.raises(ValueError, match=r"jump=0 .* at least 1"):
        RePaint(jump=0)
    for name in ("ald", "dpm", "ode"):
        with pytest.raises(ValueError, match="repaint goes with the steps EulerMaruyama"):
            RePaint().run(independent(process), seen(MASK, image()), named(name, process), indices=[0])
