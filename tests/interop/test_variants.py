"""Checkpoints and configurations that are no goldens: other ladders, ranges and sizes, and files that say nonsense."""

from __future__ import annotations

import errno
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import scorefield as sf
from interop.sde_files import configured, made, published_state, release_file, written
from scorefield._files import NoSpaceError
from scorefield.data_spec import DataSpec
from scorefield.interop import IMPORTERS, CheckpointError, Hints, Imported, import_checkpoint, import_result
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import check_hints
from scorefield.interop.noise_table import ladder_of, take_table
from scorefield.interop.score_sde_config import configuration
from scorefield.nets import ACSMUNet, NCSNv2, NetworkConfig
from scorefield.nets.refinenets.blocks import MeanPooledConv, RefineStyle, max_pool
from scorefield.process import GeometricSigmas, LinearSigmas, Tabulated
from scorefield.recipes import recipe
from scorefield.sampling import Consistent, LadderScaled, Langevin
from scorefield.sampling.sampler import UniformStart
from tolerance import GOLDEN_SCORE

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = {
    "ncsn": "ncsn/cifar_style",
    "ncsnv2": "ncsnv2/cifar_style",
    "acsm": "acsm/ncsnv2",
    "mdsm": "mdsm/res12_gray",
    "score-sde": "score_sde/ncsnpp_ve_continuous",
}


def content_of(layout: str) -> Any:
    return torch.load(GOLDEN / FOLDERS[layout] / "checkpoint.pth", weights_only=True)


def config_of(layout: str) -> dict[str, Any]:
    return json.loads((GOLDEN / FOLDERS[layout] / "config.json").read_text())


def state_of(layout: str, content: Any) -> dict[str, Any]:
    return content if layout == "mdsm" else content["model"] if layout == "score-sde" else content[0]


def read(
    layout: str,
    folder: Path,
    *,
    content: Any = None,
    config: dict[str, Any] | None = None,
    hints: Hints | None = None,
    weights: Any = None,
) -> Imported:
    path, file = GOLDEN / FOLDERS[layout] / "checkpoint.pth", None
    if content is not None:
        path = folder / "checkpoint.pth"
        torch.save(content, path)
    if config is not None:
        file = folder / "config.json"
        file.write_text(json.dumps(config))
    return IMPORTERS[layout](path, file, weights, hints or Hints())


def changed(layout: str, path: str, value: Any) -> dict[str, Any]:
    config = config_of(layout)
    section = config
    *above, name = path.split(".")
    for part in above:
        section = section[part]
    section[name] = value
    return config


# ---------------------------------------------------------------------------------------------- ladders


def released(begin: float, end: float, levels: int, spacing: str) -> Tensor:
    """The table as the release makes it: NumPy in float64, kept in float32."""
    if spacing == "uniform":
        return torch.tensor(np.linspace(begin, end, levels)).float()
    return torch.tensor(np.exp(np.linspace(np.log(begin), np.log(end), levels))).float()


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize(
    ("begin", "end", "levels", "spacing"),
    [
        (50.123456789, 0.0123456789, 7, "geometric"),
        (50.0, 0.01, 2, "uniform"),
        (7.0, 1e-4, 500, "uniform"),
        (348.0, 0.01, 2311, "geometric"),
        (2.0, 0.01, 1, "geometric"),
    ],
)
def test_ladders_of_ncsnv2(begin, end, levels, spacing, with_config: bool, tmp_path: Path) -> None:
    content, config = content_of("ncsnv2"), config_of("ncsnv2")
    content[0]["module.sigmas"] = released(begin, end, levels, spacing)
    config["model"] |= {"sigma_begin": begin, "sigma_end": end, "num_classes": levels, "sigma_dist": spacing}
    found = read("ncsnv2", tmp_path, content=content, config=config if with_config else None, hints=Hints(size=16))
    process = found.experiment.process
    assert isinstance(process, Tabulated) and process.levels == levels
    table = process.ladder.table()[1].flip(0)
    torch.testing.assert_close(table.float(), content[0]["module.sigmas"], rtol=GOLDEN_SCORE, atol=0)
    step = found.experiment.sampler.step.parts()[0]
    assert isinstance(step, Langevin) and isinstance(step.size, LadderScaled)
    assert (
        step.size.sigma_end == pytest.approx(float(table[-1]))
        and 0.0 < step.size.epsilon < 2.0 * step.size.sigma_end**2
    )
    config["model"]["sigma_begin"] = 1.01 * begin
    with pytest.raises(CheckpointError, match="belongs to another checkpoint"):
        read("ncsnv2", tmp_path, content=content, config=config)


@pytest.mark.parametrize("spacing", ["uniform", "geometric"])
@pytest.mark.parametrize("levels", [1, 40])
def test_consistent_sampling_without_a_sampler_section_is_admissible(levels: int, spacing: str, tmp_path: Path) -> None:
    config = config_of("acsm")
    config["model"] |= {"sigma_begin": 9.0, "num_classes": levels, "sigma_dist": spacing}
    found = read("acsm", tmp_path, config=config).experiment
    assert isinstance(found.process, Tabulated)
    sigmas = found.process.ladder.table()[1]
    ratio = float((sigmas[:-1] / sigmas[1:]).min()) if levels > 1 else 0.0
    assert isinstance(found.sampler.step, Consistent) and abs(1.0 - found.sampler.step.eta) <= ratio


@pytest.mark.parametrize(
    "table",
    [
        torch.tensor([1.0, 2.0]),
        torch.tensor([2.0, 0.0]),
        torch.tensor([float("nan"), 1.0]),
        torch.zeros(0),
        torch.ones(2, 2),
        torch.tensor(1.0),
        torch.tensor([2, 1]),
    ],
)
def test_tables_that_are_no_noise_levels(table: Tensor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be a list of positive numbers that falls"):
        take_table({"sigmas": table}, tmp_path)


@pytest.mark.parametrize("layout", ["ncsnv2", "score-sde"])
def test_checkpoints_with_tables_that_are_no_noise_levels(layout: str, tmp_path: Path) -> None:
    content = content_of(layout)
    state_of(layout, content)["module.sigmas"] = torch.tensor(1.0)
    with pytest.raises(CheckpointError, match="it is a tensor of shape"):
        read(layout, tmp_path, content=content, hints=Hints(size=16))


def test_a_table_tells_its_ladder(tmp_path: Path) -> None:
    assert ladder_of(released(90.0, 0.01, 500, "geometric"), tmp_path) == GeometricSigmas(0.01, 90.0, 500)
    assert ladder_of(released(90.0, 0.01, 500, "uniform"), tmp_path) == LinearSigmas(0.01, 90.0, 500)
    with pytest.raises(CheckpointError, match="neither geometric nor equally spaced: \\[4"):
        ladder_of(torch.tensor([4.0, 3.0, 1.0]), tmp_path)


# ---------------------------------------------------------------------------------------------- ranges and sizes


@pytest.mark.parametrize("layout", ["ncsn", "ncsnv2", "acsm"])
def test_logits_have_no_bounds(layout: str, tmp_path: Path) -> None:
    found = read(layout, tmp_path, config=changed(layout, "data.logit_transform", True))
    assert found.experiment.spec == DataSpec((3, 16, 16)) and found.experiment.network.centered  # type: ignore[attr-defined]
    assert any("sigmoid of a sample" in note for note in found.notes)


@pytest.mark.parametrize("layout", ["ncsnv2", "acsm"])
def test_rescaled_images_start_from_rescaled_noise(layout: str, tmp_path: Path) -> None:
    found = read(layout, tmp_path, config=changed(layout, "data.rescaled", True)).experiment
    assert found.spec is not None and found.spec.model_range == (-1.0, 1.0)
    assert found.sampler.start == UniformStart(-1.0, 1.0) and found.network.centered  # type: ignore[attr-defined]
    plain = read(layout, tmp_path, config=config_of(layout)).experiment
    assert plain.sampler.start == UniformStart(0.0, 1.0) and not plain.network.centered  # type: ignore[attr-defined]


def test_odd_sizes_are_halved_as_in_the_release(tmp_path: Path) -> None:
    """Only adversarial score matching without dilation at 28 pixels has them: zeros above and on the left."""
    style = RefineStyle(lambda n: torch.nn.Identity(), False, functional.elu, max_pool)
    torch.manual_seed(3)
    x = torch.randn(2, 3, 7, 7)
    for size in (1, 3):
        pooled = MeanPooledConv(style, 3, 4, size, odd=True)
        conv = pooled.get_submodule("conv.1")
        y = conv(functional.pad(x, (1, 0, 1, 0)))
        phases = sum(y[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
        torch.testing.assert_close(pooled(x), phases)

    net = NCSNv2(8, dilation=False).build(DataSpec((3, 28, 28)))
    state = net.state_dict()
    assert net.multiple == (4, 4) and net(torch.rand(2, 3, 28, 28), torch.zeros(2)).shape == (2, 3, 28, 28)
    assert {"res4.0.conv2.conv.1.weight", "res4.0.shortcut.conv.1.weight", "res3.0.conv2.conv.weight"} <= set(state)
    torch.save([{f"module.{name}": v for name, v in state.items()}, {}, 1, 2, state], tmp_path / "checkpoint.pth")
    hints = Hints(size=28, sigma_max=20.0, levels=7)
    import_checkpoint("acsm", tmp_path / "checkpoint.pth", tmp_path / "model", hints=hints)
    model, x = sf.load(tmp_path / "model"), torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        expected = net.eval()(x, torch.zeros(2)) / 20.0
    torch.testing.assert_close(model.score(x, 1.0), expected, rtol=GOLDEN_SCORE, atol=GOLDEN_SCORE)


def test_the_dequantisation_of_ncsn_is_that_of_its_release(tmp_path: Path) -> None:
    """Always, unless a configuration of NCSNv2's code says otherwise."""
    assert read("ncsn", tmp_path, config=config_of("ncsn")).experiment.training.dequantise
    said = changed("ncsn", "data.uniform_dequantization", False)
    assert not read("ncsn", tmp_path, config=said).experiment.training.dequantise


# ---------------------------------------------------------------------------------------------- the SDE framework


@pytest.mark.parametrize(
    ("changes", "predictor", "corrector"),
    [
        ({}, "reverse_diffusion", "langevin"),
        ({"training__sde": "vpsde"}, "euler_maruyama", "none"),
        ({"training__sde": "vpsde", "training__continuous": False}, "reverse_diffusion", "none"),
        ({"training__sde": "vpsde", "training__continuous": False, "model__fir": False}, "ancestral_sampling", "none"),
    ],
)
def test_a_configuration_without_a_sampler_has_the_published_one(changes, predictor: str, corrector: str) -> None:
    if changes:
        changes = changes | {"model__scale_by_sigma": False, "model__embedding_type": "positional"}
    config = configured(**changes)
    del config["sampling"]
    found = configuration(config)
    assert (found.predictor, found.corrector) == (predictor, corrector)


def test_a_configuration_of_three_sections_is_enough(tmp_path: Path) -> None:
    config = configured(model__nf=8, model__ch_mult=[1, 2], model__num_res_blocks=1, data__image_size=8)
    for section in ("sampling", "optim", "eval", "seed"):
        del config[section]
    net = made(configuration(config).network, 8)
    checkpoint, file = written(tmp_path, release_file(published_state(net), config), config)
    found = import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=file)
    assert any("No sampler is configured" in note for note in found.notes)
    assert all(torch.equal(found.tensors[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("average", [["text"], {"a": 1}, 3])
def test_an_average_that_is_no_list_of_tensors(average: Any, tmp_path: Path) -> None:
    content = content_of("score-sde")
    content["ema"]["shadow_params"] = average
    with pytest.raises(CheckpointError, match="is no list of tensors"):
        read("score-sde", tmp_path, content=content, config=config_of("score-sde"))


@pytest.mark.parametrize(
    ("step", "expected"), [(torch.tensor(7), 7), (np.int64(7), 7), ("many", None), (float("nan"), None)]
)
def test_the_step_is_a_number_or_is_not_recorded(step: Any, expected: int | None, tmp_path: Path) -> None:
    content = content_of("score-sde")
    content["step"] = step
    assert read("score-sde", tmp_path, content=content, config=config_of("score-sde")).step == expected


# ---------------------------------------------------------------------------------------------- nonsense


@pytest.mark.parametrize(
    ("layout", "path", "said"),
    [
        ("ncsn", "data.channels", "data.channels must be a number"),
        ("ncsn", "model.sigma_begin", "model.sigma_begin must be a number"),
        ("ncsnv2", "model.num_classes", "model.num_classes must be a number"),
        ("ncsnv2", "data.random_flip", "data.random_flip must be true or false"),
        ("ncsnv2", "model.nonlinearity", "model.nonlinearity is"),
        ("acsm", "data.image_size", "data.image_size must be a number"),
        ("acsm", "model.sigma_dist", "model.sigma_dist is"),
        ("mdsm", "activation", "activation is"),
        ("mdsm", "dim", "dim must be a number"),
        ("score-sde", "data.uniform_dequantization", "must be true or false"),
    ],
)
@pytest.mark.parametrize("value", ["nonsense", []])
def test_fields_of_another_kind_are_named(layout: str, path: str, said: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        read(layout, tmp_path, config=changed(layout, path, value))


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("number", True),
        ("number", math.nan),
        ("whole", 1.5),
        ("whole", 2**40),
        ("count", 0),
        ("flag", 1),
        ("text", 3),
        ("numbers", [1, "2"]),
        ("numbers", [True]),
    ],
)
def test_kinds_of_fields(method: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match="the configuration's a.b must be"):
        getattr(Fields({"a": {"b": value}}), method)("a.b")


def test_fields_that_are_missing_or_null() -> None:
    fields = Fields({"a": {"b": None, "c": "1e-8"}})
    assert fields.number("a.b", 3.0) == 3.0 and fields.number("a.c") == 1e-8 and not fields.has("a.b")
    assert fields.word("x", ("Swish",), "swish") == "Swish"
    assert fields.given and not Fields(None).given
    for path in ("a.b", "a.d", "a.c.d", "x"):
        with pytest.raises(CheckpointError, match=f"no field {path}"):
            fields.number(path)


@pytest.mark.parametrize("layout", ["ncsn", "ncsnv2", "acsm", "mdsm"])
def test_the_configuration_of_another_release_is_refused(layout: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no field model.|none of MDSM's fields"):
        read(layout, tmp_path, config=config_of("score-sde") if layout != "mdsm" else {"model": {"nf": 3}})


@pytest.mark.parametrize("flag", ["size", "sigma_min", "sigma_max", "levels"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_flags_must_be_positive(flag: str, value: float) -> None:
    with pytest.raises(CheckpointError, match=f"--{flag.replace('_', '-')} must be a positive number"):
        Hints(**{flag: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "hints",
    [
        Hints(process="vp"),
        Hints(discrete=False),
        Hints(size=17),
        Hints(levels=3),
        Hints(sigma_min=0.02, sigma_max=9.0),
    ],
)
@pytest.mark.parametrize("layout", ["ncsn", "ncsnv2", "acsm"])
def test_flags_that_contradict_are_refused(layout: str, hints: Hints, tmp_path: Path) -> None:
    folder = GOLDEN / FOLDERS[layout]
    with pytest.raises(CheckpointError, match="contradicts the checkpoint"):
        options = {"config": folder / "config.json", "hints": hints}
        import_checkpoint(layout, folder / "checkpoint.pth", tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_hints_are_compared_with_the_finished_experiment() -> None:
    """Whatever the layout: here experiments of recipes, which nobody imported."""
    continuous, labels, tables = (
        recipe(name) for name in ("ve-cifar10-ncsnpp-continuous", "vp-cifar10-ddpm", "ncsnv2-celeba")
    )
    for experiment in (continuous, labels, tables):
        check_hints(Hints(), experiment)
    check_hints(Hints(size=32, process="ve", discrete=False, sigma_min=0.01, sigma_max=50.0, levels=7), continuous)
    check_hints(Hints(size=32, process="vp", discrete=True, levels=1000), labels)
    check_hints(Hints(size=64, process="ve", discrete=True, levels=500, sigma_max=90.0), tables)
    for experiment, hints in (
        (continuous, Hints(size=64)),
        (continuous, Hints(process="vp")),
        (continuous, Hints(discrete=True)),
        (continuous, Hints(sigma_max=51.0)),
        (labels, Hints(levels=999)),
        (labels, Hints(process="subvp")),
        (labels, Hints(sigma_min=0.01)),
        (tables, Hints(sigma_min=0.02)),
        (tables, Hints(discrete=False)),
    ):
        with pytest.raises(CheckpointError, match="contradicts|are of VE models"):
            check_hints(hints, experiment)


def test_energies_that_normalise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="says normalize"):
        read("mdsm", tmp_path, config=changed("mdsm", "normalize", True))


def test_the_other_network_of_adversarial_score_matching(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a RefineNet and the configuration's model.unet is true"):
        read("acsm", tmp_path, config=changed("acsm", "model.unet", True))


SIZES = {
    "ncsn": "begin_conv.weight",
    "ncsnv2": "begin_conv.weight",
    "acsm": "begin_conv.weight",
    "mdsm": "ln1.weight",
}
NONSENSE: dict[str, Callable[[dict[str, Any], str], None]] = {
    "missing": lambda state, name: state.pop(name),
    "text": lambda state, name: state.update({name: "text"}),
    "another shape": lambda state, name: state.update({name: torch.zeros(3)}),
}


@pytest.mark.parametrize("layout", SIZES)
@pytest.mark.parametrize("how", NONSENSE)
def test_tensors_that_sizes_are_read_from(layout: str, how: str, tmp_path: Path) -> None:
    content = content_of(layout)
    NONSENSE[how](state_of(layout, content), f"module.{SIZES[layout]}")
    said = {"missing": "has no ", "text": "which is no tensor", "another shape": r"has the shape \(3,\)"}[how]
    with pytest.raises(CheckpointError, match=said):
        read(layout, tmp_path, content=content, config=config_of(layout))


@functools.cache
def unet_state() -> dict[str, Tensor]:
    config: NetworkConfig = ACSMUNet(32, (1, 2), 1, 1)
    return {f"module.{name}": v for name, v in config.build(DataSpec((3, 8, 8))).state_dict().items()}


@pytest.mark.parametrize(
    "name", ["downblocks.0.weight", "downblocks.1.conv1.weight", "downblocks.2.weight", "downblocks.4.Q.weights"]
)
def test_u_nets_with_a_hole(name: str, tmp_path: Path) -> None:
    """Each is told by its name, whatever it was needed for."""
    state = unet_state().copy()
    torch.save([state, {}, 1, 2], tmp_path / "checkpoint.pth")
    hints, out = Hints(size=8, sigma_max=9.0, levels=5), tmp_path / "model"
    whole = IMPORTERS["acsm"](tmp_path / "checkpoint.pth", None, "raw", hints)
    assert whole.experiment.network == ACSMUNet(32, (1, 2), 1, 1)
    del state[f"module.{name}"]
    torch.save([state, {}, 1, 2], tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=name):
        import_checkpoint("acsm", tmp_path / "checkpoint.pth", out, weights="raw", hints=hints)
    assert not out.exists()


@pytest.mark.parametrize("kind", [torch.complex64, torch.int64])
def test_numbers_of_another_type(kind: torch.dtype, tmp_path: Path) -> None:
    content = content_of("ncsn")
    content[0]["module.end_conv.bias"] = torch.zeros(3, dtype=kind)
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match="in end_conv.bias"):
        import_checkpoint("ncsn", tmp_path / "checkpoint.pth", tmp_path / "model", hints=Hints(size=16))


# ---------------------------------------------------------------------------------------------- what is left behind


@pytest.mark.parametrize("kept", [2, 40])
def test_the_first_bytes_of_an_archive_are_a_truncated_file(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes((GOLDEN / FOLDERS["ncsn"] / "checkpoint.pth").read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{kept} bytes. is truncated or damaged"):
        IMPORTERS["ncsn"](path, None, None, Hints(size=16))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(import_result, "save_tensors", full)
    out = tmp_path / "a" / "b" / "model"
    with pytest.raises(NoSpaceError, match=f"no space left to write {out} .* is intact"):
        import_checkpoint("ncsn", GOLDEN / FOLDERS["ncsn"] / "checkpoint.pth", out, hints=Hints(size=16))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "model"
    with pytest.raises(CheckpointError, match=f"the folder {out} cannot be written .* another --out"):
        import_checkpoint("ncsn", GOLDEN / FOLDERS["ncsn"] / "checkpoint.pth", out, hints=Hints(size=16))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
