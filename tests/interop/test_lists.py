"""Checkpoints of NCSN, NCSNv2, ACSM and MDSM: imported, they give the numbers of the reference implementations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import scorefield as sf
from sampling.doubles import GivenNoise
from scorefield.data_spec import DataSpec
from scorefield.interop import IMPORTERS, CheckpointError, Hints, import_checkpoint
from scorefield.losses import DenoisingScoreMatching
from scorefield.losses.denoising import Draw
from scorefield.models.model import Model
from scorefield.nets import NCSN, ACSMUNet, EnergyResNet, NCSNv2, NetworkConfig
from scorefield.process import Levels, Tabulated
from scorefield.process.grids import EveryLevel
from scorefield.sampling import Chain, Consistent, Hold, LadderScaled, Langevin, Repeat, Sampler
from scorefield.score import EnergyForm, ScaledTime, network_score
from tolerance import GOLDEN_SCORE

GOLDEN = Path(__file__).parents[1] / "golden"
LISTS = ("ncsn/cifar_style", "ncsn/mnist_style_28", "ncsnv2/cifar_style", "acsm/ncsnv2", "acsm/unet")
ENERGIES = ("mdsm/res12_gray", "mdsm/res18_rgb")


def levels_of(sigmas: Tensor) -> Levels:
    return Levels(tuple(float(s) for s in sigmas.double()))


def imported(name: str, out: Path, **options: Any) -> Model:
    folder = GOLDEN / name
    options = {"config": folder / "config.json", **options}
    import_checkpoint(name.split("/")[0], folder / "checkpoint.pth", out / "model", **options)
    return sf.load(out / "model")


def recorded(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / name / "io.safetensors")


def agrees(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= GOLDEN_SCORE * expected.abs().max())


def in_order(noise: Tensor) -> GivenNoise:
    """The recorded noise, draw by draw; zero after its end, as the releases draw none there."""
    return GivenNoise(lambda like, k: noise[k] if k < len(noise) else torch.zeros_like(like))


def run(model: Model, sampler: Sampler, io: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    noise = in_order(io[f"{prefix}_noise"])
    start = io[f"{prefix}_init"]
    event = tuple(start.shape[1:])
    found = sampler.run(model.as_score(), event, indices=range(len(start)), latent=start, noise=noise)
    return found.raw, found.x


def times(model: Model, labels: Tensor) -> Tensor:
    assert isinstance(model.process, Tabulated)
    return 1.0 - labels.double() / (model.process.levels - 1)


# ------------------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("name", LISTS)
def test_score_loss_and_posterior_mean(name: str, tmp_path: Path) -> None:
    model, io = imported(name, tmp_path), recorded(name)
    t = times(model, io["labels"])
    assert isinstance(model.process, Tabulated)
    torch.testing.assert_close(model.process.ladder.table()[1].flip(0).float(), io["sigmas"], rtol=1e-6, atol=0)
    score = model.score(io["xt"], t)
    assert agrees(score, io["score"])
    assert not agrees(model.score(io["xt"], t.flip(0)), io["score"]), "the noise level must matter"
    if "denoised" in io:
        assert agrees(model.denoise(io["xt"], t), io["denoised"])
    if "loss_per_example" in io:
        with torch.no_grad():
            loss = DenoisingScoreMatching(reduce="half_sum")(model.as_score(), io["x0"], Draw(t, io["z"]))
        assert agrees(loss, io["loss_per_example"])


@pytest.mark.parametrize("name", LISTS)
def test_without_a_configuration_it_is_the_same_network(name: str, tmp_path: Path) -> None:
    io = recorded(name)
    acsm = name.startswith("acsm")
    hints = Hints(size=io["xt"].shape[-1], sigma_max=50.0 if acsm else None, levels=24 if acsm else None)
    model = imported(name, tmp_path, config=None, hints=hints)
    assert agrees(model.score(io["xt"], times(model, io["labels"])), io["score"])
    with_config = imported(name, tmp_path / "with")
    assert model.experiment.network == with_config.experiment.network
    assert model.process == with_config.process


@pytest.mark.parametrize("name", ENERGIES)
def test_energy_gradient_loss_and_jump(name: str, tmp_path: Path) -> None:
    model, io = imported(name, tmp_path), recorded(name)
    t = torch.full((len(io["x0"]),), 0.5)
    assert agrees(model.energy(io["x_noisy"], t), io["energy"])
    assert agrees(model.denoise(io["x_noisy"], t), io["denoised"])
    sigma = model.process.sigma(t.double())[:, None, None, None].float()
    gradient = -((sigma / 0.1) ** 2) * model.score(io["x_noisy"], t)
    assert agrees(gradient, io["grad_energy"])
    # At the recorded levels the published raw loss is 2 / sigma_0^4 times ours.
    at_levels = Tabulated(levels_of(io["sigmas"]))
    score = network_score(model.network, at_levels, EnergyForm(0.1), ScaledTime(0.0))
    draw = Draw(at_levels.time(torch.arange(4)), io["z"])
    loss = DenoisingScoreMatching(reduce="half_sum")(score, io["x0"], draw)
    assert agrees(2.0 * loss / 0.1**4, io["loss_per_example"])


# ---------------------------------------------------------------------------------------------------- samplers


def langevin(epsilon: float, repeats: int, **options: Any) -> Chain:
    return Chain((Repeat(Langevin(LadderScaled(epsilon, 0.01), **options), repeats), Hold()))


@pytest.mark.parametrize("name", [pytest.param("ncsn/cifar_style", marks=pytest.mark.slow), "ncsn/mnist_style_28"])
def test_annealed_langevin_of_ncsn(name: str, tmp_path: Path) -> None:
    model, io = imported(name, tmp_path), recorded(name)
    raw, _ = run(model, Sampler(langevin(2e-5, 2), EveryLevel(), final="none"), io, "ald")
    assert agrees(raw, io["ald_final"])
    other, _ = run(model, Sampler(langevin(1e-5, 2), EveryLevel(), final="none"), io, "ald")
    assert not agrees(other, io["ald_final"]), "the papers' convention must be told from the code's"


def test_annealed_langevin_of_ncsnv2_ends_denoised(tmp_path: Path) -> None:
    model, io = imported("ncsnv2/cifar_style", tmp_path), recorded("ncsnv2/cifar_style")
    _, clean = run(model, Sampler(langevin(6.2e-6, 2), EveryLevel()), io, "ald")
    assert agrees(clean, io["ald_final_denoised"])


@pytest.mark.parametrize("name", ["acsm/ncsnv2", pytest.param("acsm/unet", marks=pytest.mark.slow)])
def test_consistent_and_noise_first_sampling_of_acsm(name: str, tmp_path: Path) -> None:
    model, io = imported(name, tmp_path), recorded(name)
    for refine in (1, 2):
        raw, clean = run(
            model, Sampler(Consistent(0.6), EveryLevel(refine=refine), final="expected"), io, f"cas{refine}"
        )
        assert agrees(raw, io[f"cas{refine}_final"]) and agrees(clean, io[f"cas{refine}_final_denoised"])
    sampler = Sampler(langevin(5e-6, 2, noise="first"), EveryLevel(), final="expected")
    raw, clean = run(model, sampler, io, "ald")
    assert agrees(raw, io["ald_final"]) and agrees(clean, io["ald_final_denoised"])


@pytest.mark.parametrize("name", ENERGIES)
def test_annealed_temperature_langevin_of_mdsm(name: str, tmp_path: Path) -> None:
    """The recorded temperatures as a ladder sigma = 0.1 sqrt(T): the published step is Langevin's along it."""
    model, io = imported(name, tmp_path), recorded(name)
    sigmas = 0.1 * io["ald_temperature"].double().sqrt().flip(0)
    score = network_score(model.network, Tabulated(levels_of(sigmas)), EnergyForm(0.1), ScaledTime(0.0))
    sampler = Sampler(Chain((Langevin(LadderScaled(0.5 * 0.02**2, 0.1)), Hold())), EveryLevel(), final="none")
    event = tuple(io["ald_init"].shape[1:])
    found = sampler.run(score, event, indices=range(4), latent=io["ald_init"], noise=in_order(io["ald_noise"]))
    assert agrees(found.x, io["ald_final"])


# ------------------------------------------------------------------------------------------------ what is written


def test_the_folder_says_what_it_is(tmp_path: Path) -> None:
    model = imported("ncsnv2/cifar_style", tmp_path)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "0 to 255, 256 grey levels; 0 to 1 in model units" in card
    assert "SHA-256" in card and "`ncsnv2`" in card and "ema:0.999" in card
    assert model.weights.startswith("ema:0.999") and model.step == 1234
    origin = json.loads((tmp_path / "model" / "environment.json").read_text())["imported"]
    assert origin["layout"] == "ncsnv2" and len(origin["sha256"]) == 64
    x = model.sample(2, sampler="ald", seed=1).x
    assert x.shape == (2, 3, 16, 16) and bool(x.isfinite().all())


def test_raw_weights_are_the_networks_own(tmp_path: Path) -> None:
    raw = imported("ncsnv2/cifar_style", tmp_path, weights="raw")
    average = imported("ncsnv2/cifar_style", tmp_path / "average")
    stored = torch.load(GOLDEN / "ncsnv2/cifar_style/checkpoint.pth", weights_only=True)
    for model, tensors in ((raw, stored[0]), (average, stored[-1])):
        for name, value in tensors.items():
            if not name.endswith("sigmas"):
                assert torch.equal(model.network.state_dict()[name.removeprefix("module.")], value)


# ---------------------------------------------------------------------------------------------------- bad input


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_every_layout_has_a_reader() -> None:
    from scorefield.interop.checkpoint_files import LAYOUTS

    assert set(IMPORTERS) == set(LAYOUTS)
    with pytest.raises(CheckpointError, match="Did you mean ncsnv2"):
        import_checkpoint("ncsnv3", Path("x"), Path("y"))


def test_another_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="looks like acsm"):
        imported_as("ncsnv2", "acsm/unet", tmp_path)
    with pytest.raises(CheckpointError, match="looks like mdsm"):
        imported_as("ncsn", "mdsm/res18_rgb", tmp_path)
    with pytest.raises(CheckpointError, match="Layouts that can be imported"):
        import_checkpoint("ncsn", save({"a": torch.zeros(1)}, tmp_path / "x.pth"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def imported_as(layout: str, name: str, out: Path) -> None:
    import_checkpoint(layout, GOLDEN / name / "checkpoint.pth", out / "out", config=GOLDEN / name / "config.json")


def test_a_wrong_configuration_is_told_tensor_by_tensor(tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "ncsnv2/cifar_style/config.json").read_text())
    config["model"]["ngf"] = 16
    (tmp_path / "wrong.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"shape of begin_conv.weight: checkpoint \(8, 3, 3, 3\), network \(16"):
        imported("ncsnv2/cifar_style", tmp_path, config=tmp_path / "wrong.json")
    config["model"] |= {"ngf": 8, "sigma_begin": 90}
    (tmp_path / "wrong.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="are 24 from 0.01 to 50; the configuration .* says 24 from 0.01 to 90"):
        imported("ncsnv2/cifar_style", tmp_path, config=tmp_path / "wrong.json")
    with pytest.raises(CheckpointError, match="Res18_Quadratic and its configuration names Res12"):
        imported("mdsm/res18_rgb", tmp_path, config=GOLDEN / "mdsm/res12_gray/config.json")


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--size VALUE"):
        imported("ncsn/cifar_style", tmp_path, config=None)
    with pytest.raises(CheckpointError, match="--sigma-max VALUE --levels VALUE"):
        imported("acsm/ncsnv2", tmp_path, config=None, hints=Hints(size=16))
    with pytest.raises(CheckpointError, match="--sigma-max 60.* contradicts"):
        imported("acsm/ncsnv2", tmp_path, hints=Hints(sigma_max=60.0))
    with pytest.raises(CheckpointError, match="--process vp contradicts"):
        imported("ncsnv2/cifar_style", tmp_path, hints=Hints(process="vp"))


def test_an_average_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--weights raw"):
        imported("ncsn/cifar_style", tmp_path, weights="ema")
    with pytest.raises(CheckpointError, match="no average"):
        imported("mdsm/res18_rgb", tmp_path, weights="ema")
    stored = torch.load(GOLDEN / "ncsnv2/cifar_style/checkpoint.pth", weights_only=True)
    path = save(stored[:4], tmp_path / "no_average.pth")
    out, config = tmp_path / "raw", GOLDEN / "ncsnv2/cifar_style/config.json"
    with pytest.raises(CheckpointError, match="--weights raw"):
        import_checkpoint("ncsnv2", path, out, config=config)
    made = import_checkpoint("ncsnv2", path, out, config=config, weights="raw")
    assert made.weights == "raw" and sf.load(out).weights == "raw"


def test_an_average_with_a_parameter_missing(tmp_path: Path) -> None:
    stored = torch.load(GOLDEN / "ncsnv2/cifar_style/checkpoint.pth", weights_only=True)
    del stored[-1]["end_conv.weight"]
    path = save(stored, tmp_path / "hole.pth")
    with pytest.raises(CheckpointError, match="missing in the checkpoint: end_conv.weight"):
        import_checkpoint("ncsnv2", path, tmp_path / "out", config=GOLDEN / "ncsnv2/cifar_style/config.json")


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    stored = torch.load(GOLDEN / "ncsn/cifar_style/checkpoint.pth", weights_only=True)
    stored[0]["module.begin_conv.weight"][0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite in begin_conv.weight"):
        import_checkpoint("ncsn", save(stored, tmp_path / "nan.pth"), tmp_path / "out", hints=Hints(size=16))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    imported("ncsn/cifar_style", tmp_path)
    with pytest.raises(CheckpointError, match="exists already"):
        imported("ncsn/cifar_style", tmp_path)


# ------------------------------------------------------------------------------------------------ other variants


CASES: dict[str, tuple[str, NetworkConfig]] = {
    "labels": ("ncsn", NCSN(8, 4)),
    "deeper, plain norm": ("ncsn", NCSN(8, 3, deeper=True, norm="instance")),
    "one level": ("ncsn", NCSN(6, None)),
    "deeper": ("acsm", NCSNv2(8, "deeper")),
    "deepest, no norm": ("acsm", NCSNv2(8, "deepest", "none")),
    "variance norm": ("acsm", NCSNv2(8, norm="variance")),
    "no dilation": ("acsm", NCSNv2(8, dilation=False)),
    "spectral": ("acsm", NCSNv2(8, "deeper", spectral_norm=True)),
    "small U-Net": ("acsm", ACSMUNet(32, (1, 2), 1, 0)),
    "six levels": ("acsm", ACSMUNet(32, (1, 2, 2, 2, 4, 4))),
    "Res6": ("mdsm", EnergyResNet(4, 6)),
    "Res34": ("mdsm", EnergyResNet(4, 34)),
    "linear head": ("mdsm", EnergyResNet(4, 12, "linear")),
}


@pytest.mark.parametrize("case", CASES)
def test_other_sizes_channels_and_flags(case: str, tmp_path: Path) -> None:
    """Random networks of configurations that are no goldens, in the published list, come back equal."""
    layout, config = CASES[case]
    data = DataSpec((2, 32, 32), 0, 255, 256, model_range=(0.0, 1.0))
    state = {f"module.{name}": v for name, v in config.build(data).state_dict().items()}
    content = state if layout == "mdsm" else [state, {}] if layout == "ncsn" else [state, {}, 1, 2]
    hints = Hints(size=32, sigma_max=20.0, levels=7) if layout == "acsm" else Hints(size=32)
    path = save(content, tmp_path / "checkpoint.pth")
    weights = None if layout == "mdsm" else "raw"
    made = import_checkpoint(layout, path, tmp_path / "out", weights=weights, hints=hints)
    assert made.experiment.network == config
    loaded = sf.load(tmp_path / "out").network.state_dict()
    assert all(torch.equal(loaded[name.removeprefix("module.")], v) for name, v in state.items())
