"""What was not observed cannot reach an answer: neither its values nor its gradients, for every solver there is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inverse.cases import F64, numbers
from scorefield import inverse as inv
from scorefield.process import VE
from scorefield.sampling.named import with_steps
from scorefield.score import Score
from scorefield.score.oracles import Gaussian, skewed_gaussian
from tolerance import FLOAT64

EVENT = (2, 2, 3)
KNOWN = torch.tensor([[[1, 1, 0], [1, 0, 0]], [[0, 1, 0], [1, 1, 1]]], dtype=torch.bool)
MASK = inv.Mask(KNOWN, EVENT)
NOISE = inv.GaussianNoise(0.1)
IMAGE = numbers(*EVENT)
HIDDEN_NAN = torch.where(KNOWN, IMAGE, torch.full_like(IMAGE, math.nan))
INDEPENDENT = Gaussian(VE(0.02, 5.0), numbers(*EVENT, seed=1), torch.diag(numbers(12, seed=2).square() + 0.1))
COUPLED = skewed_gaussian(VE(0.02, 5.0), EVENT)

CHOOSING = {"twisted": "its particles are whole examples, and y chooses among them"}
"""Solvers whose answers hear of y in every entry, whatever the prior."""

QUICK = {"langevin": {"settling": 2}, "repaint": {"jump": 2, "resamplings": 2}, "twisted": {"particles": 4}}
"""Settings that cost less."""


def answers(name: str, score: Score, image: Tensor, mask: inv.Mask = MASK) -> Tensor:
    """Three samples in few steps of the solver's own sampler."""
    solver = replace(inv.solver_named(name), **QUICK.get(name, {}))  # type: ignore[type-var]
    sampler = with_steps(solver.default_sampler(score), 8)
    observation = inv.Observation(mask, mask.observe(image), NOISE)
    return solver.run(score, observation, sampler, indices=range(3), dtype=F64).x


@pytest.mark.parametrize("name", inv.all_solvers())
def test_values_that_are_hidden_reach_no_answer(name: str) -> None:
    """Whatever stands in the hidden entries of the image of which y is taken, NaN among them."""
    x = answers(name, COUPLED, IMAGE)
    assert bool(torch.isfinite(x).all())
    assert torch.equal(x, answers(name, COUPLED, HIDDEN_NAN))
    assert not torch.equal(x, answers(name, COUPLED, IMAGE + 1.0)), "the seen ones do"


@pytest.mark.parametrize("name", inv.all_solvers())
def test_answers_hear_of_y_where_it_was_seen_alone(name: str) -> None:
    """Under a law of independent entries the hidden ones are those of any other y, to the bit."""
    x, other = (answers(name, INDEPENDENT, IMAGE + shift) for shift in (0.0, 0.3))
    assert bool((x[:, KNOWN] != other[:, KNOWN]).all())
    assert torch.equal(x[:, ~KNOWN], other[:, ~KNOWN]) == (name not in CHOOSING)
    if name not in CHOOSING:
        x, other = (answers(name, COUPLED, IMAGE + shift) for shift in (0.0, 0.3))
        assert not torch.equal(x[:, ~KNOWN], other[:, ~KNOWN]), "a law that couples them tells them of each other"


@pytest.mark.parametrize("noise", [NOISE, inv.LaplaceNoise(0.1), inv.StudentNoise(0.1, 3.0)])
def test_no_gradient_reaches_what_is_hidden(noise: inv.MeasurementNoise) -> None:
    """Of the likelihood in the example, and of y in the image it is taken of; exactly zero."""
    image = IMAGE.clone().requires_grad_(True)
    x = numbers(3, *EVENT, seed=3).requires_grad_(True)
    observation = inv.Observation(MASK, MASK.observe(image), noise)
    by_example, by_image = torch.autograd.grad(observation.log_likelihood(x).sum(), (x, image))
    for slope, known in ((by_example, KNOWN.expand(3, *EVENT)), (by_image, KNOWN)):
        assert bool((slope[known] != 0).all()) and not bool(slope[~known].any())
    assert observation.observed.shape == (int(KNOWN.sum()),), "there is no place for the others"


def test_frequencies_that_were_not_measured_reach_nothing() -> None:
    operator = inv.FourierMask(torch.tensor([[1, 1, 0], [1, 0, 0]]), EVENT)
    f = torch.fft.fftn(IMAGE, dim=(1, 2), norm="ortho")
    spoilt = torch.where(operator.measured, f, torch.full_like(f, complex(math.nan, 1.0)))
    y = operator.observe(spoilt)
    torch.testing.assert_close(y, operator(IMAGE[None])[0])
    z = numbers(1, *EVENT, seed=4).requires_grad_(True)
    (slope,) = torch.autograd.grad(inv.Observation(operator, y, NOISE).log_likelihood(z).sum(), z)
    coordinates = operator.spectrum().right(slope)[0]
    assert float(coordinates[~operator.spectrum().seen].abs().max()) < FLOAT64 * float(slope.abs().max())
