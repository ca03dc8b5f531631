"""Samples and densities from one integration, against the density integrated upward and closed forms."""

from __future__ import annotations

import pytest
import torch

import scorefield as sf
from likelihood.cases import PROCESSES, TIGHT, NoNoise
from scorefield._random import IndexedNoise
from scorefield.likelihood.probability_flow import FlowSettings, decoded_density, log_density, transport
from scorefield.process.grids import Uniform
from scorefield.sampling import AdaptiveFlow, Sampler
from scorefield.score import oracles
from tolerance import FLOW_DENSITY

F64 = torch.float64


@pytest.mark.parametrize("name", PROCESSES)
def test_it_is_the_density_of_where_it_ends(name: str) -> None:
    process = PROCESSES[name]
    target = oracles.skewed_gaussian(process, 3)
    z = process.prior_sample(torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0)))
    down = decoded_density(target.bind(None), z, NoNoise(), TIGHT)
    assert not down.status.any()
    start = process.t_min.likelihood
    torch.testing.assert_close(
        down.latent, transport(target.bind(None), z, 1.0, start, TIGHT).latent, rtol=FLOW_DENSITY, atol=FLOW_DENSITY
    )
    up = log_density(target.bind(None), down.latent, NoNoise(), TIGHT)
    torch.testing.assert_close(down.nats, up.nats, rtol=0, atol=10 * FLOW_DENSITY)
    torch.testing.assert_close(up.latent, z, rtol=10 * FLOW_DENSITY, atol=10 * FLOW_DENSITY)


def test_probes_are_averaged_in_the_same_sense_both_ways() -> None:
    process = PROCESSES["VP"]
    target = oracles.skewed_mixture(process)
    z = torch.randn(3, *target.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    settings = FlowSettings(1e-6, 1e-6, divergence="hutchinson", probes=3)
    noise = IndexedNoise(0, range(3))
    down = decoded_density(target.bind(None), z, noise, settings)
    up = log_density(target.bind(None), down.latent, noise, settings)
    torch.testing.assert_close(down.per_probe, up.per_probe, rtol=0, atol=1e-3)
    assert bool((down.std_error > 0).any())


def test_a_model_samples_with_density_in_one_integration() -> None:
    model = sf.load("digits", device="cpu")
    loose = Sampler(AdaptiveFlow(2e-3, 2e-3), Uniform(1))
    samples = model.sample(3, sampler=loose, return_log_prob=True, batch_size=2, seed=3)
    assert samples.log_prob is not None and samples.log_prob.nats.shape == (3,)
    assert torch.equal(samples.x, samples.raw) and torch.equal(samples.nfe, samples.log_prob.nfe)
    alone = model.sample(1, sampler=loose, return_log_prob=True, seed=3, start=2)
    assert alone.log_prob is not None
    torch.testing.assert_close(alone.x, samples.x[2:], rtol=0, atol=1e-2)
    plain = model.sample(3, sampler=loose, seed=3)
    # Grey values of 0 to 16; the steps are chosen by the density too.
    torch.testing.assert_close(plain.raw, samples.x, rtol=0, atol=2.0)
