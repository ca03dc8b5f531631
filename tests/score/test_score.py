"""The type Score: bound conditions, counted calls, plain functions."""

from __future__ import annotations

import pytest
import torch

from score.laws import ORACLES, concrete
from scorefield.process import VE
from scorefield.score import (
    BoundScore,
    ClassifierFree,
    Clipped,
    EnergyScore,
    FunctionScore,
    Guided,
    NetworkEnergy,
    NetworkGuide,
    NetworkScore,
    Score,
    oracles,
)
from scorefield.score.score import as_times


def test_every_score_is_tested_somewhere() -> None:
    """Every kind of score is listed here; a new kind must be added."""
    known = {EnergyScore, FunctionScore, NetworkEnergy, NetworkScore, *concrete(BoundScore), *oracles.EXAMPLES}
    known |= {ClassifierFree, Clipped, Guided, NetworkGuide}
    ours = {cls for cls in concrete(Score) if cls.__module__.startswith("scorefield.score")}
    assert ours == known


@pytest.mark.parametrize("make", ORACLES.values(), ids=ORACLES)
def test_bound_scores_count_batches(make) -> None:
    oracle = make(VE())
    bound = oracle.bind(None)
    t = torch.full((4,), 0.5, dtype=torch.float64)
    x = oracle.sample(4, 0.5)
    assert bound.process is oracle.process
    assert torch.equal(bound(x, t), oracle(x, t)) and torch.equal(bound.denoised(x, t), oracle.denoised(x, t))
    assert bound.calls == 2


def test_rows_take_their_conditions_and_count_for_the_whole() -> None:
    oracle = oracles.skewed_mixture(VE())
    labels = torch.tensor([0, 1, 1, 0])
    bound = oracle.bind({"class": labels})
    t = torch.full((4,), 0.5, dtype=torch.float64)
    x = oracle.sample(4, 0.5)
    whole, clean = bound(x, t), bound.denoised(x, t)
    assert bound.calls == 2
    for keep in (torch.tensor([True, False, True, True]), torch.tensor([0, 2, 3])):
        part = bound.rows(keep)
        before = bound.calls
        assert torch.allclose(part(x[keep], t[keep]), whole[keep])
        assert torch.allclose(part.denoised(x[keep], t[keep]), clean[keep])
        assert (part.calls, bound.calls) == (2, before + 2)
    nested = bound.rows(torch.tensor([1, 2, 3])).rows(torch.tensor([0, 2]))
    before = bound.calls
    assert torch.allclose(nested(x[[1, 3]], t[:2]), whole[[1, 3]])
    assert bound.calls == before + 1


def test_a_given_condition_wins_over_the_bound_one() -> None:
    oracle = oracles.skewed_mixture(VE())
    bound = oracle.bind({"class": torch.zeros(2, dtype=torch.int64)})
    x, t = torch.ones(2, 2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    ones = {"class": torch.ones(2, dtype=torch.int64)}
    assert torch.equal(bound(x, t, ones), oracle(x, t, ones))
    assert not torch.allclose(bound(x, t), oracle(x, t, ones))


def test_function_scores() -> None:
    score = FunctionScore(lambda x, t: -x, VE())
    x, t = torch.ones(2, 3), torch.full((2,), 0.5)
    assert torch.equal(score(x, t), -x)
    sigma = VE().sigma(t)[:, None]
    assert torch.allclose(score.denoised(x, t), x - sigma**2 * x)
    with pytest.raises(ValueError, match=r"takes no condition; got \['class'\]"):
        score(x, t, {"class": torch.zeros(2)})
    with pytest.raises(ValueError, match="outside"):
        score(x, torch.zeros(2))


def test_times_from_numbers_and_tensors() -> None:
    x = torch.zeros(3, 2)
    assert as_times(0.5, x).tolist() == [0.5] * 3 and as_times(0.5, x).dtype == torch.float64
    assert as_times(torch.tensor([0.25, 0.5, 1.0]), x).tolist() == [0.25, 0.5, 1.0]
    with pytest.raises(ValueError, match=r"shape \(2,\); give one time per example, shape \(3,\)"):
        as_times(torch.ones(2), x)
