"""What the experiments measure with, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scorefield.studies.papers.energy_levels import PublishedHead
from scorefield.studies.papers.low_density import mixture, regions, thresholds
from scorefield.studies.papers.on_digits import Judge
from scorefield.studies.papers.shells import crossing, measured_overlap, overlap, relative_width
from scorefield.studies.papers.tiny_noise import NOISE, Curve, running_median
from tolerance import FLOAT64


def test_overlap_of_shells_in_two_dimensions():
    # |x|^2 / 2 has the exponential law: all is elementary.
    a, b = 0.3, 0.6
    square = crossing(a, b, 2)
    assert abs(square - 2 * math.log(4.0) / (1 / a**2 - 1 / b**2)) < FLOAT64
    exact = math.exp(-square / (2 * a**2)) + 1 - math.exp(-square / (2 * b**2))
    assert abs(overlap(a, b, 2) - exact) < FLOAT64
    assert overlap(a, a, 5) == 1.0
    assert abs(relative_width(2) - math.sqrt(4 / math.pi - 1)) < FLOAT64


def test_overlap_of_shells_by_counting():
    count, d = 4000, 64
    misses, draws = measured_overlap(1.0, 1.1, d, count, 0)
    p = overlap(1.0, 1.1, d) / 2
    assert draws == 2 * count
    deviation = math.sqrt(p * (1 - p) / draws)
    assert abs(misses / draws - p) < 4.9 * deviation  # significance 1e-6
    assert abs(misses / draws - overlap(1.0, 1.1, 2 * d) / 2) > 4.9 * deviation  # another dimension is told apart


def test_fluctuation_is_about_the_trend_and_not_the_trend():
    steps = np.arange(400.0)
    falling = -100.0 - steps
    assert Curve(NOISE, 0, falling, 400).fluctuation < 0.01
    wild = falling * (1 + 0.8 * (steps % 3 - 1))  # deviations -0.8, 0 and 0.8 in turn
    assert abs(Curve(NOISE, 0, wild, 400).fluctuation - 0.8 * math.sqrt(2 / 3)) < 0.05
    assert Curve(NOISE, 0, falling[:100], 400).fluctuation == math.inf  # it ended with a loss that is not finite
    assert running_median(np.array([1.0, 9.0, 2.0]), 3).tolist() == [5.0, 2.0, 5.5]


def test_classes_of_density_hold_their_share_of_the_mass():
    truth = mixture()
    t = torch.ones(4000, dtype=torch.float64)
    log_p = truth.log_prob(truth.sample(4000, 1.0, seed=7), t)
    shares = [float(chosen.double().mean()) for chosen in regions(log_p, thresholds(truth, 0)).values()]
    assert sum(shares) == 1.0
    for found, expected in zip(shares, (0.5, 0.4, 0.09, 0.01), strict=True):
        assert abs(found - expected) < 5 * math.sqrt(expected / 4000)


def test_the_judge_knows_digits_from_noise():
    judge = Judge()
    real, noise = judge.real(200, 0), judge.noise(200, 0)
    assert real.near == 1.0 and noise.near == 0.0 and noise.distance > 1.0 > 0.1 > abs(real.distance)
    held_out = judge(judge.held_out)
    assert held_out.near == pytest.approx(0.95, abs=0.01)
    broken = judge.train[:100].clone()
    broken[:98] = torch.nan
    assert judge(broken).finite == 0.02 and judge(broken).distance == math.inf


def test_the_published_head_is_quadratic_in_its_features():
    torch.manual_seed(0)
    head, seen = PublishedHead(3), []
    head.layers[2].register_forward_hook(lambda module, given, h: seen.append(h))
    with torch.no_grad():
        energy = head(torch.ones(1, 3), torch.zeros(1))
        (h,) = seen
        assert torch.equal(energy, (head.ln1(h) * head.ln2(h) + head.lq(h * h))[:, 0])
