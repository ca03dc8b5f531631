"""Paths between latents, temperature, and the agreement of two encodings."""

from __future__ import annotations

import math

import pytest
import torch

from likelihood.cases import TIGHT
from scorefield.likelihood.latents import agreement, interpolate, tempered
from scorefield.likelihood.probability_flow import transport
from scorefield.process import VE, VP
from scorefield.score.oracles import Gaussian
from tolerance import FLOAT64, FLOW_DENSITY

F64 = torch.float64
WEIGHTS = torch.linspace(0.0, 1.0, 7, dtype=F64)


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", ["spherical", "linear"])
def test_both_ends_are_the_latents(path: str) -> None:
    first, second = draws(0, 3, 2, 4), draws(1, 3, 2, 4)
    between = interpolate(first, second, WEIGHTS, path)  # type: ignore[arg-type]
    assert between.shape == (3, 7, 2, 4)
    torch.testing.assert_close(between[:, 0], first, rtol=FLOAT64, atol=FLOAT64)
    torch.testing.assert_close(between[:, -1], second, rtol=FLOAT64, atol=FLOAT64)


def test_the_arc_keeps_the_norm_and_turns_evenly_and_the_line_does_not() -> None:
    first, second = draws(2, 5, 30), draws(3, 5, 30)
    second = second / second.norm(dim=1, keepdim=True) * first.norm(dim=1, keepdim=True)
    arc, line = interpolate(first, second, WEIGHTS), interpolate(first, second, WEIGHTS, "linear")
    norms = first.norm(dim=1)[:, None].expand(5, 7)
    torch.testing.assert_close(arc.norm(dim=2), norms, rtol=FLOAT64, atol=0)
    assert bool((line.norm(dim=2)[:, 3] < 0.9 * norms[:, 3]).all())
    units = arc / arc.norm(dim=2, keepdim=True)
    turns = torch.arccos((units[:, 1:] * units[:, :-1]).sum(dim=2))
    torch.testing.assert_close(turns, turns[:, :1].expand(5, 6), rtol=1e4 * FLOAT64, atol=0)
    torch.testing.assert_close(line, torch.lerp(first[:, None], second[:, None], WEIGHTS[:, None]))


def test_equal_latents_stay_and_opposite_ones_are_refused() -> None:
    z = draws(4, 2, 6)
    torch.testing.assert_close(interpolate(z, z, WEIGHTS), z[:, None].expand(2, 7, 6), rtol=FLOAT64, atol=0)
    torch.testing.assert_close(interpolate(z, 2 * z, WEIGHTS)[:, 3], 1.5 * z, rtol=FLOAT64, atol=0)
    with pytest.raises(ValueError, match="opposite directions"):
        interpolate(z, -z, WEIGHTS)
    with pytest.raises(ValueError, match="give equally many latents"):
        interpolate(z, z[:1], WEIGHTS)
    with pytest.raises(ValueError, match="must be 'spherical' or 'linear'"):
        interpolate(z, z, WEIGHTS, "straight")  # type: ignore[arg-type]


def test_temperature_scales_the_decoded_variance() -> None:
    """Latents of temperature T decoded by the exact flow of a Gaussian have T times the variance of the data."""
    process = VP()
    data = Gaussian(process, torch.tensor([0.4, -1.0], dtype=F64), 0.3)
    z, s = draws(5, 4, 2), process.t_min.sampling
    plain = transport(data.bind(None), z, 1.0, s, TIGHT).latent
    cool = transport(data.bind(None), tempered(z, 0.25), 1.0, s, TIGHT).latent
    origin = transport(data.bind(None), torch.zeros(1, 2, dtype=F64), 1.0, s, TIGHT).latent
    torch.testing.assert_close(cool - origin, 0.5 * (plain - origin), rtol=FLOW_DENSITY, atol=FLOW_DENSITY)
    assert torch.equal(tempered(z, 1.0), z)
    for bad in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="positive"):
            tempered(z, bad)


def test_two_scores_of_one_law_encode_alike_and_of_another_law_do_not() -> None:
    process = VE(0.01, 5.0)
    mean = torch.linspace(-1.0, 1.0, 6, dtype=F64)
    truth = Gaussian(process, mean, 0.5)
    x, s = truth.sample(16, process.t_min.likelihood, seed=0), process.t_min.likelihood
    again = Gaussian(process, mean, 0.5 * (1 + 1e-3))  # a second model that learned the same, but for a little
    mixing = torch.linalg.qr(draws(6, 6, 6))[0]

    def encoded(score: Gaussian) -> torch.Tensor:
        return transport(score.bind(None), x, s, 1.0, TIGHT).latent

    same = agreement(encoded(truth), encoded(again))
    assert same.mean > 0.999 and same.z_score > 6 and same.difference < 0.01 < same.shuffled_difference
    assert same.correlation.shape == (6,) and abs(same.shuffled) < 0.3
    other = agreement(encoded(truth), encoded(again) @ mixing)
    assert other.mean < 0.9, "rotated latents must be noticed"


def test_what_says_nothing_is_refused() -> None:
    z = draws(7, 2, 3)
    with pytest.raises(ValueError, match="at least 3"):
        agreement(z, z)
    with pytest.raises(ValueError, match="same examples"):
        agreement(draws(7, 4, 3), draws(8, 4, 2))
