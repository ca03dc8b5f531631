"""Flows and likelihoods of the published models against the reference implementation's."""

from __future__ import annotations

import pytest
import torch

from goldens import CONTINUOUS, golden
from likelihood.cases import GivenNoise
from scorefield.data_spec import DataSpec
from scorefield.likelihood.probability_flow import FlowSettings, log_density, transport
from tolerance import GOLDEN_BITS, GOLDEN_FLOW, GOLDEN_LATENT, GOLDEN_SCORE


@pytest.mark.parametrize("name", CONTINUOUS)
def test_flow_drift(name: str) -> None:
    case = golden(name)
    x, t = case.io["xt"], case.io["t"].double()
    with torch.no_grad():
        drift = case.process.flow_drift(x, t, case.score()(x, t))
    expected = case.io["flow_drift"]
    assert (drift - expected).abs().max() <= GOLDEN_SCORE * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTINUOUS)
def test_sample_of_a_latent(name: str) -> None:
    case = golden(name)
    settings = FlowSettings(case.meta["rtol_ode"], case.meta["atol_ode"])
    found = transport(case.score().bind(None), case.io["latent"], 1.0, case.meta["eps_sampling"], settings)
    expected = case.io["ode_sample"]
    assert not found.status.any()
    assert (found.latent - expected).abs().max() <= GOLDEN_FLOW * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTINUOUS)
def test_bits_with_the_recorded_probe(name: str) -> None:
    """Only the first example, as each has its own steps; the units contain the published constant."""
    case = golden(name)
    model_range = (-1.0, 1.0) if case.config["data"]["centered"] else (0.0, 1.0)
    data = DataSpec((3, 16, 16), 0.0, 255.0, 256, model_range=model_range)
    settings = FlowSettings(
        case.meta["rtol_likelihood"],
        case.meta["atol_likelihood"],
        max_steps=3000,  # random weights make stiff flows
        start=case.meta["eps_likelihood"],
    )
    noise = GivenNoise(case.io["probe"][None, :1])
    found = log_density(case.score().bind(None), case.io["x0"][:1], noise, settings)
    bits = data.bits_per_dim(found.nats + data.log_jacobian(dequantised=True))
    assert found.status.tolist() == [0]
    torch.testing.assert_close(bits, case.io["bpd"][:1].double(), rtol=0.0, atol=GOLDEN_BITS)
    latent = case.io["bpd_latent"][:1]
    assert (found.latent - latent).norm() <= GOLDEN_LATENT * latent.norm()
