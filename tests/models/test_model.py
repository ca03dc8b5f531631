"""What a model offers: samplers by name, samples by index, densities and latents in data units."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scorefield.data_spec import DataSpec
from scorefield.likelihood.probability_flow import FlowSettings
from scorefield.models.experiment import Experiment
from scorefield.models.model import Model
from scorefield.nets.mlp import MLP
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.process.tabulated import Tabulated
from scorefield.recipes import recipe
from scorefield.sampling.named import NAMED
from tolerance import FLOAT32, FLOW_FLOAT32, SAMPLES_OF_ANOTHER_BATCH


def made(experiment: Experiment, spec: DataSpec) -> Model:
    """A model with random weights that are large enough to matter."""
    torch.manual_seed(0)
    network = experiment.network.build(spec).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.3 / parameter[0].numel() ** 0.5)
    return Model(replace(experiment, spec=spec), network)


SPEC = DataSpec((1, 4, 4), 0, 16, 17)


@pytest.fixture(scope="module")
def model() -> Model:
    return made(replace(recipe("digits-mlp"), network=MLP(width=16, depth=1, embedding="positional")), SPEC)


@pytest.mark.parametrize("name", ["vp-cifar10-ddpmpp", "ve-cifar10-ncsnpp", "vp-cifar10-ddpmpp-continuous"])
@pytest.mark.parametrize("sampler", [None, "pc", "ancestral", "em", pytest.param("ald", marks=pytest.mark.slow)])
def test_published_configurations_sample(name: str, sampler: str | None) -> None:
    """Discrete models step along their ladder, by name and by default."""
    experiment = recipe(name)
    small = NCSNpp(channels=8, channel_multipliers=(1,), blocks=1, attention_sizes=(), dropout=0.0, fir=False,
                   progressive_input="none", embedding=experiment.network.embedding)  # type: ignore[attr-defined]  # fmt: skip
    levels = None
    if experiment.levels is not None:
        levels = replace(experiment.levels, ladder=replace(experiment.levels.ladder, levels=24))  # type: ignore[type-var]
    own = experiment.sampler
    grid = own.grid if levels is not None else replace(own.grid, steps=24)  # type: ignore[type-var]
    experiment = replace(experiment, network=small, levels=levels, sampler=replace(own, process=levels, grid=grid))
    built = made(experiment, replace(SPEC, model_range=experiment.data.model_range))
    chosen = built.sampler(sampler, None if levels is not None or sampler is None else 24)
    assert (chosen.process is not None) == (levels is not None)
    assert levels is None or isinstance(chosen.process, Tabulated)
    samples = built.sample(2, sampler=chosen)
    assert samples.x.shape == (2, *SPEC.shape) and bool((samples.status == 0).all())


@pytest.mark.parametrize("name", sorted(NAMED))
def test_sample_i_is_sample_i(model: Model, name: str) -> None:
    sampler = model.sampler(name, None if name == "ode" else 5)
    whole = model.sample(7, sampler=sampler, seed=3, start=10).x
    allowed = SAMPLES_OF_ANOTHER_BATCH * max(
        16.0, float(whole.abs().max())
    )  # few steps of an untrained network run far
    for size in (1, 3):
        parts = model.sample(7, sampler=sampler, seed=3, start=10, batch_size=size).x
        torch.testing.assert_close(parts, whole, rtol=0, atol=allowed)
    alone = model.sample(1, sampler=sampler, seed=3, start=14).x
    torch.testing.assert_close(alone, whole[4:5], rtol=0, atol=allowed)
    assert not torch.equal(model.sample(7, sampler=sampler, seed=4, start=10).x, whole)


def test_encode_and_decode_are_inverse(model: Model) -> None:
    x = torch.linspace(0, 16, 48).reshape(3, 1, 4, 4)
    settings = FlowSettings(rtol=1e-7, atol=1e-7)
    z = model.encode(x, settings=settings)
    torch.testing.assert_close(model.decode(z, settings=settings), x, rtol=0, atol=16 * 100 * FLOAT32)


def test_log_prob_in_data_units(model: Model) -> None:
    """The same points in other units: nats differ by the log-Jacobian alone, bits not at all."""
    x = torch.arange(48).reshape(3, 1, 4, 4) % 17
    here = model.log_prob(x, seed=1)
    spec = replace(SPEC, high=1600)
    there = Model(replace(model.experiment, spec=spec), model.network).log_prob(100 * x, seed=1)
    assert here.bits_per_dim is not None and there.bits_per_dim is not None
    torch.testing.assert_close(here.bits_per_dim, there.bits_per_dim, rtol=FLOAT32, atol=0)
    expected = here.nats - 16 * torch.log(torch.tensor(100.0, dtype=torch.float64))
    torch.testing.assert_close(there.nats, expected, rtol=FLOAT32, atol=0)


def test_samples_with_their_density(model: Model) -> None:
    samples = model.sample(3, sampler="ode", return_log_prob=True)
    assert samples.log_prob is not None and samples.log_prob.bits_per_dim is None
    again = model.log_prob(samples.x, dequantise="none")
    torch.testing.assert_close(samples.log_prob.nats, again.nats, rtol=FLOW_FLOAT32, atol=0)


def test_a_score_network_has_no_energy(model: Model) -> None:
    with pytest.raises(TypeError, match="has no energy"):
        model.energy(torch.zeros(1, 1, 4, 4), 0.5)


def test_wrong_shapes_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        model.score(torch.zeros(2, 3, 4, 4), 0.5)
    with pytest.raises(ValueError, match="range|outside|between"):
        model.log_prob(torch.full((1, 1, 4, 4), 99.0))
    with pytest.raises(ValueError, match="at least 1"):
        model.sample(0)
