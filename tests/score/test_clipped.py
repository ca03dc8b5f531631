"""Scores whose posterior mean stays in the range of the data."""

from __future__ import annotations

import pytest
import torch

from scorefield.process import VE, VP, SubVP
from scorefield.score import Clipped, FunctionScore, tweedie
from scorefield.score.oracles import Points
from tolerance import FLOAT64


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()])
def test_an_exact_score_of_bounded_data_stays_as_it_is(process: VE | VP | SubVP) -> None:
    points = torch.tensor([[-1.0, 0.3], [1.0, -0.2], [0.1, 1.0]], dtype=torch.float64)
    oracle = Points(process, points)
    t = torch.tensor([0.01, 0.5, 1.0], dtype=torch.float64)
    x = oracle.sample(3, t, seed=1)
    clipped = Clipped(oracle, -1.0, 1.0)
    rounding = FLOAT64 / float(process.sigma(t).min()) ** 2
    torch.testing.assert_close(clipped(x, t), oracle(x, t), rtol=FLOAT64, atol=rounding)
    assert torch.equal(clipped.denoised(x, t), oracle.denoised(x, t))


def test_a_score_that_is_off_is_moved_to_where_its_posterior_mean_is_in_the_range() -> None:
    process = VP()
    wrong = FunctionScore(lambda x, t: -0.98 * x, process)
    x = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.ones(16, dtype=torch.float64)
    outside = wrong.denoised(x, t)
    clipped = Clipped(wrong, -1.0, 1.0)
    assert float(outside.abs().max()) > 3.0
    assert torch.equal(clipped.denoised(x, t), outside.clamp(-1.0, 1.0))
    mean = tweedie(process, x, t, clipped(x, t))
    torch.testing.assert_close(mean, outside.clamp(-1.0, 1.0), rtol=1e3 * FLOAT64, atol=1e3 * FLOAT64)
    with pytest.raises(ValueError, match="from low to high"):
        Clipped(wrong, 1.0, -1.0)
