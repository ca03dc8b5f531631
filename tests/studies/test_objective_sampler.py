"""Tests of the experiment of every objective with every sampler: a few cheap cells, and all in the slow lane."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scorefield.losses import Objective
from scorefield.sampling.named import NAMED
from scorefield.score.oracles.examples import skewed_mixture
from scorefield.studies.papers import objective_sampler
from scorefield.studies.papers.entry import BatchNoise, Job
from scorefield.studies.papers.objective_sampler import (
    BOUND,
    OBJECTIVES,
    PROCESS,
    SAMPLERS,
    SPREAD,
    Kind,
    ReferenceSamples,
    cell,
    matrix,
    train,
    untrained,
)
from scorefield.training.observer import Silent
from tolerance import FLOAT32


@pytest.fixture(scope="module")
def truth() -> ReferenceSamples:
    return ReferenceSamples(1500, 0)


def test_every_named_sampler_and_every_objective_is_included():
    assert set(NAMED) < set(SAMPLERS)
    names = {type(objective).__name__ for objective in OBJECTIVES.values()}
    classes = {cls.__name__ for cls in _concrete(Objective)}
    others = {"AdversarialScoreMatching", "CriticObjective", "ConditionLikelihood"}  # they train a critic, or a guide
    assert names == {name for name in classes - others if not name.startswith("_")}


def _concrete(cls: type) -> set[type]:
    found = {c for sub in cls.__subclasses__() for c in (sub, *_concrete(sub))}
    return {c for c in found if not getattr(c, "__abstractmethods__", None) and c.__module__.startswith("scorefield.")}


@pytest.mark.parametrize("kind", ["score", "energy"])
def test_untrained_models_are_gaussian(kind: Kind):
    """Where the network is zero, the score is -x / (sigma^2 + s^2), for the energy by its gradient."""
    score, network = untrained(kind, 0)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.tensor([[0.5, -2.0], [3.0, 1.0]])
    t = torch.tensor([0.1, 0.8], dtype=torch.float64)
    expected = -x / (PROCESS.sigma(t) ** 2 + SPREAD**2)[:, None].float()
    torch.testing.assert_close(score(x, t).detach(), expected, rtol=FLOAT32, atol=0)


def test_the_distance_separates_the_mixture_from_a_gaussian_of_its_moments(truth: ReferenceSamples):
    own = truth.distance(skewed_mixture(PROCESS).sample(400, noise=BatchNoise(5)))
    x = skewed_mixture(PROCESS).sample(3000, noise=BatchNoise(6))
    z = torch.randn(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    like = z @ torch.linalg.cholesky(torch.cov(x.T)).T + x.mean(dim=0)
    assert own.number + 1.96 * own.std_error < BOUND < truth.distance(like).number


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "objective"), [("score", "SSM-VR"), ("energy", "DSM")])
def test_some_cells(kind: Kind, objective: str, truth: ReferenceSamples):
    score = train(kind, OBJECTIVES[objective], 200, 0)
    for name in ("dpm", "reverse-diffusion"):
        found = cell("", score, name, truth, 300, 0)
        assert found.distance is not None and found.distance.number < BOUND


def test_a_pair_that_is_not_admissible_has_a_reason(truth: ReferenceSamples):
    score, _ = untrained("score", 0)
    found = cell("", score, "pc, MALA", truth, 20, 0)
    assert found.distance is None and found.reason is not None and "densit" in found.reason


@pytest.mark.slow
def test_every_cell_is_near_the_mixture(tmp_path: Path):
    findings = matrix(Job(tmp_path, 0, 1.0, Silent()))
    (claim,) = findings.claims
    assert claim.held, claim.found
    refused = findings.tables[1].rows
    assert {row[1] for row in refused} == {"pc, MALA", "pc, HMC"}
    assert all(row[0].endswith(", score") for row in refused)
    assert objective_sampler.ENTRIES[0].minutes is not None
