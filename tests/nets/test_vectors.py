"""Whole published networks with hashed weights, against outputs of the reference implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nets import published_nets as published
from scorefield.nets import NetworkConfig
from tolerance import NETWORK_VECTOR, PRINTED_LAYER

# configuration, size, labels (sigma for the VE networks that divide by it), divide by label, then the reference's
# mean, standard deviation, L2 norm, o[0,0,0,0], o[0,1,H/2,3], o[B-1,2,H-1,H-1], o[B-1,0,5,H-2]
SIGMAS = (0.05, 7.5)
LABELS = (99.9, 729.27)
SMALL = {
    "ncsnpp ve continuous": (
        published.VE_CIFAR10,
        SIGMAS,
        (-0.363398, 7.27745, 571.1438, -1.3555, -19.3067, 0.0540305, -0.0197223),
    ),
    "ncsnpp ve deep": (
        published.VE_CIFAR10_DEEP,
        SIGMAS,
        (-0.0129329, 7.77601, 609.513, 13.3906, 20.4587, -0.0264824, 0.0208456),
    ),
    "ddpmpp vp": (
        published.DDPMPP,
        LABELS,
        (-0.155255, 0.563816, 45.83888, -0.221026, -0.122759, -0.30408, -1.03279),
    ),
    "ncsnpp subvp": (
        published.VP_CIFAR10_NCSNPP,
        LABELS,
        (-0.377074, 0.549354, 52.22812, 0.121759, -1.16744, -0.36042, -0.172413),
    ),
    "ddpm vp": (
        published.DDPM_CIFAR10,
        LABELS,
        (0.0309049, 0.594275, 46.64441, -0.320295, 0.713477, 0.598319, -0.048589),
    ),
}
DISCRETE = {
    "ncsnpp ve": (
        published.VE_CIFAR10_DISCRETE,
        (-0.344066, 0.638046, 56.82052, 0.00682012, -0.0249335, -0.688647, -0.418029),
    ),
    "ddpm ve": (
        published.DDPM_CIFAR10_VE,
        (0.0568599, 0.511489, 40.33936, -0.00957401, 0.0182627, 1.05207, -0.243451),
    ),
}
LARGE = {
    "ddpm church": (
        published.DDPM_CHURCH,
        256,
        729.27,
        (-0.0117652, 0.544379, 241.4367, -0.490658, 0.24951, -0.131404, 0.412429),
    ),
    "ncsnpp church": (
        published.CHURCH,
        256,
        7.5,
        (0.0501586, 0.272554, 122.8814, 0.0061558, -0.0293791, 0.038949, -0.213598),
    ),
    "ncsnpp ffhq": (
        published.FFHQ,
        1024,
        7.5,
        (-0.0142642, 0.189691, 337.3898, 0.022058, -0.106845, -0.00210332, 0.0127545),
    ),
}


def statistics(config: NetworkConfig, size: int, c: torch.Tensor, divide_by: torch.Tensor) -> list[float]:
    """The seven numbers of a row."""
    net = config.build(published.images(size)).eval()
    published.fill_with_hash(net)
    batch = len(c)
    with torch.no_grad():
        o = net(published.hashed_input(batch, 3, size, size), c) / divide_by.reshape(-1, 1, 1, 1)
    picks = [o[0, 0, 0, 0], o[0, 1, size // 2, 3], o[-1, 2, -1, -1], o[-1, 0, 5, -2]]
    return [float(o.mean()), float(o.std(correction=0)), float(o.norm()), *map(float, picks)]


def check(found: list[float], expected: tuple[float, ...]) -> None:
    """Compare, a single entry relative to the spread of all of them."""
    spread = expected[1]
    for value, reference in zip(found, expected, strict=True):
        assert math.isclose(value, reference, rel_tol=NETWORK_VECTOR, abs_tol=NETWORK_VECTOR * spread)


def test_hash_is_the_published_one() -> None:
    first, image = published.hashed_uniform(3, 0), published.hashed_uniform(3, 1000003)
    np.testing.assert_allclose(first, [-0.06187369185, -0.4759951681, -0.4808168761], rtol=0, atol=1e-3 * PRINTED_LAYER)
    np.testing.assert_allclose(image, [0.2169809164, -0.05591905955, 0.0001053733], rtol=0, atol=1e-3 * PRINTED_LAYER)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_continuous_32_pixels(name: str) -> None:
    config, labels, expected = SMALL[name]
    label = torch.tensor(labels)
    sigma = labels is SIGMAS
    c = label.log() if sigma else label
    check(statistics(config, 32, c, label if sigma else torch.ones(2)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_levels_32_pixels(name: str) -> None:
    config, expected = DISCRETE[name]
    levels = torch.tensor([3, 500])
    sigmas = torch.linspace(math.log(50.0), math.log(0.01), 1000, dtype=torch.float64).exp().float()
    check(statistics(config, 32, levels, sigmas[levels]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_images(name: str) -> None:
    config, size, label, expected = LARGE[name]
    sigma = label == 7.5
    labels = torch.tensor([label])
    check(statistics(config, size, labels.log() if sigma else labels, labels if sigma else torch.ones(1)), expected)
