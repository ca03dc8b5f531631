"""Losses of the published models against the reference implementation's."""

from __future__ import annotations

import pytest
import torch

from goldens import CONTINUOUS, golden
from scorefield.losses import DenoisingScoreMatching, Draw, Likelihood
from scorefield.score import FunctionScore
from tolerance import FLOAT32, GOLDEN_LOSS

KINDS = {
    "loss_per_example_mean": DenoisingScoreMatching(),
    "loss_per_example_halfsum": DenoisingScoreMatching(reduce="half_sum"),
    "loss_likelihood_weighted_mean": DenoisingScoreMatching(Likelihood()),
}


@pytest.mark.parametrize("field", KINDS)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_loss_of_the_recorded_score(name: str, field: str) -> None:
    case = golden(name)
    score = FunctionScore(lambda x, t: case.io["score"], case.process)
    loss = KINDS[field](score, case.io["x0"], Draw(case.io["t"].double(), case.io["z"]))
    torch.testing.assert_close(loss, case.io[field], rtol=FLOAT32, atol=0.0)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_loss_of_the_network(name: str) -> None:
    case = golden(name)
    score = case.score()
    for field, objective in KINDS.items():
        with torch.no_grad():
            loss = objective(score, case.io["x0"], Draw(case.io["t"].double(), case.io["z"]))
        torch.testing.assert_close(loss, case.io[field], rtol=GOLDEN_LOSS, atol=0.0)
