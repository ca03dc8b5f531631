"""A network in bf16, and a compiled one: what changes, what does not, and what is refused."""

from __future__ import annotations

import pytest
import torch

import scorefield as sf
from scorefield.models.loading import run_in
from scorefield.models.model import Model, load
from scorefield.models.sample_folder import source_of
from scorefield.score.energy import EnergyForm
from tolerance import BF16_SAMPLES


@pytest.fixture(scope="module")
def bf16() -> Model:
    return sf.load("digits", device="cpu", precision="bf16")


def test_bf16_changes_samples_by_its_digits_and_no_type(bf16: Model) -> None:
    exact = load("digits", device="cpu")
    ours, theirs = (m.sample(4, sampler="dpm", seed=2) for m in (bf16, exact))
    assert ours.x.dtype == ours.raw.dtype == torch.float32
    scale = theirs.x.square().mean().sqrt()
    assert 0.0 < float((ours.x - theirs.x).square().mean().sqrt() / scale) < BF16_SAMPLES
    for dtype in (torch.float32, torch.float64):
        x = torch.zeros(2, *bf16.data.shape, dtype=dtype)
        assert bf16.score(x, 0.5).dtype == bf16.denoise(x, 0.5).dtype == dtype
    assert bf16.hash == exact.hash
    assert source_of(bf16, ours).settings["precision"] == "bf16"
    assert source_of(exact, theirs).settings["precision"] == "fp32"


def test_what_is_solved_to_a_tolerance_is_refused_in_bf16(bf16: Model) -> None:
    x = torch.zeros(1, *bf16.data.shape)
    for solve in (
        lambda: bf16.log_prob(x),
        lambda: bf16.encode(x),
        lambda: bf16.decode(x),
        lambda: bf16.sample(1, sampler="ode"),
        lambda: bf16.sample(1, sampler="ddim", return_log_prob=True),
    ):
        with pytest.raises(ValueError, match="load it with precision='fp32'"):
            solve()
    with pytest.raises(ValueError, match="precision='fp16'"):
        load("digits", device="cpu", precision="fp16")  # type: ignore[arg-type]
    energy = sf.load("digits", device="cpu").experiment
    object.__setattr__(energy, "form", EnergyForm(1.0))
    with pytest.raises(ValueError, match="bf16"):
        run_in(energy, bf16.network, "bf16", False)


def test_compiling_waits_for_the_first_call_and_keeps_the_names() -> None:
    model, plain = (load("digits", device="cpu", compile=compiled) for compiled in (True, False))
    assert model.network._compiled_call_impl is not None and plain.network._compiled_call_impl is None
    assert model.hash == plain.hash and model.compiled and not plain.compiled


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_samples() -> None:
    models = (load("digits", device="cpu", compile=flag) for flag in (True, False))
    compiled, plain = (model.sample(2, sampler="ddim", seed=1) for model in models)
    assert torch.allclose(compiled.x, plain.x, rtol=0, atol=BF16_SAMPLES)
