"""The parametrised score of networks in the published layout, against the reference implementation."""

from __future__ import annotations

import pytest
import torch

from goldens import SCORE_SDE, golden
from score.laws import over
from scorefield.process import VE
from scorefield.score import LogSigma, NetworkScore, NoiseForm, ScaledScoreForm, ScaledTime, Score
from tolerance import GOLDEN_SCORE

EACH_FOLDER = pytest.mark.parametrize("name", SCORE_SDE)


def _agrees(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= GOLDEN_SCORE * expected.abs().max())


@EACH_FOLDER
def test_score_and_posterior_mean(name: str) -> None:
    g = golden(name)
    score, x, t, expected = g.score(), g.io["xt"], g.io["t"], g.io["score"]
    assert _agrees(score(x, t), expected)
    assert _agrees(score(x.double(), t.double()), expected.double())
    clock = score.levels or score.process
    alpha, sigma = over(clock.alpha(t), x), over(clock.sigma(t), x)
    tweedie = (x + sigma**2 * expected) / alpha
    assert (score.denoised(x, t) - tweedie).abs().max() <= GOLDEN_SCORE * tweedie.abs().max()


@EACH_FOLDER
def test_another_parametrisation_is_noticed(name: str) -> None:
    g = golden(name)
    score, x, t, expected = g.score(), g.io["xt"], g.io["t"], g.io["score"]
    if isinstance(g.process, VE):
        mutants: list[Score] = [NetworkScore(score.network, g.process, NoiseForm(), LogSigma())]
    else:
        mutants = [
            NetworkScore(score.network, g.process, ScaledScoreForm(), score.time_input, levels=score.levels),
            NetworkScore(score.network, g.process, NoiseForm(), ScaledTime(1.0)),
        ]
    assert not any(_agrees(mutant(x, t), expected) for mutant in mutants)
