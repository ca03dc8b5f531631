"""Tests of the quantities that the experiments measure, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scorefield.studies.papers.digits_setup import DigitsEvaluator
from scorefield.studies.papers.energy_noise_levels import PublishedHead
from scorefield.studies.papers.low_density import mixture, regions, thresholds
from scorefield.studies.papers.noise_shell_overlap import crossing, measured_overlap, overlap, relative_width
from scorefield.studies.papers.tiny_noise import NOISE, Curve, running_median
from tolerance import FLOAT64


def test_overlap_of_shells_in_two_dimensions():
    # In two dimensions |z|^2 / 2 has the exponential distribution, so that the overlap is elementary.
    a, b = 0.3, 0.6
    square = crossing(a, b, 2)
    assert abs(square - 2 * math.log(4.0) / (1 / a**2 - 1 / b**2)) < FLOAT64
    exact = math.exp(-square / (2 * a**2)) + 1 - math.exp(-square / (2 * b**2))
    assert abs(overlap(a, b, 2) - exact) < FLOAT64
    assert overlap(a, a, 5) == 1.0
    assert abs(relative_width(2) - math.sqrt(4 / math.pi - 1)) < FLOAT64


def test_overlap_of_shells_by_monte_carlo():
    count, d = 4000, 64
    misses, draws = measured_overlap(1.0, 1.1, d, count, 0)
    p = overlap(1.0, 1.1, d) / 2
    assert draws == 2 * count
    deviation = math.sqrt(p * (1 - p) / draws)
    assert abs(misses / draws - p) < 4.9 * deviation  # significance 1e-6
    assert abs(misses / draws - overlap(1.0, 1.1, 2 * d) / 2) > 4.9 * deviation  # the test has power


def test_fluctuation_is_measured_about_the_trend():
    steps = np.arange(400.0)
    falling = -100.0 - steps
    assert Curve(NOISE, 0, falling, 400).fluctuation < 0.01
    unstable = falling * (1 + 0.8 * (steps % 3 - 1))  # relative deviations -0.8, 0 and 0.8 in turn
    assert abs(Curve(NOISE, 0, unstable, 400).fluctuation - 0.8 * math.sqrt(2 / 3)) < 0.05
    # A curve that is shorter than planned ended with a loss that is not finite.
    assert Curve(NOISE, 0, falling[:100], 400).fluctuation == math.inf
    assert running_median(np.array([1.0, 9.0, 2.0]), 3).tolist() == [5.0, 2.0, 5.5]


def test_classes_of_density_contain_their_share_of_the_mass():
    truth = mixture()
    t = torch.ones(4000, dtype=torch.float64)
    log_p = truth.log_prob(truth.sample(4000, 1.0, seed=7), t)
    shares = [float(chosen.double().mean()) for chosen in regions(log_p, thresholds(truth, 0)).values()]
    assert sum(shares) == 1.0
    for found, expected in zip(shares, (0.5, 0.4, 0.09, 0.01), strict=True):
        assert abs(found - expected) < 5 * math.sqrt(expected / 4000)


def test_the_evaluator_separates_digits_from_noise():
    evaluator = DigitsEvaluator()
    real, noise = evaluator.training_digits(200, 0), evaluator.uniform_noise(200, 0)
    assert real.recognisable == 1.0 and noise.recognisable == 0.0
    assert noise.distance > 1.0 > 0.1 > abs(real.distance)
    held_out = evaluator(evaluator.held_out)
    assert held_out.recognisable == pytest.approx(0.95, abs=0.01)
    broken = evaluator.train[:100].clone()
    broken[:98] = torch.nan
    assert evaluator(broken).finite == 0.02 and evaluator(broken).distance == math.inf


def test_the_published_head_is_quadratic_in_its_features():
    torch.manual_seed(0)
    head, features = PublishedHead(3), []
    head.layers[2].register_forward_hook(lambda module, inputs, h: features.append(h))
    with torch.no_grad():
        energy = head(torch.ones(1, 3), torch.zeros(1))
        (h,) = features
        assert torch.equal(energy, (head.ln1(h) * head.ln2(h) + head.lq(h * h))[:, 0])
