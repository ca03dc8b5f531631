"""Import from and export to diffusers against diffusers itself: outputs, names, round trips and refusals."""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.interop import CheckpointError, Hints, diffusers_folder, diffusers_unet, import_checkpoint
from scorefield.models.experiment import Experiment
from scorefield.models.model import Model, load
from scorefield.models.networks import meta_network
from scorefield.nets import MLP, NCSNpp
from scorefield.process import VE, VP
from scorefield.process.grids import Uniform
from scorefield.process.tabulated import GeometricSigmas, Tabulated
from scorefield.sampling.langevin import Langevin, NormRatio
from scorefield.sampling.predictors import FlowHeun, ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Repeat
from scorefield.score.parametrisation import LogSigma, NoiseForm, ScaledScoreForm, ScaledTime
from tolerance import FLOAT32_NETWORK, FLOAT64_NETWORK

SMALL = {
    "sample_size": 16,
    "center_input_sample": True,
    "time_embedding_type": "fourier",
    "block_out_channels": (32, 128),
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "layers_per_block": 1,
    "mid_block_scale_factor": 2**0.5,
    "attention_head_dim": None,
    "norm_num_groups": None,
    "norm_eps": 1e-6,
}
"""The fields of UNet2DModel that make it NCSN++, at a small size."""

LAYOUTS = {
    "attention below": {},
    "3 levels, attention in the middle only": {
        "block_out_channels": (32, 64, 32),
        "down_block_types": ("SkipDownBlock2D",) * 3,
        "up_block_types": ("SkipUpBlock2D",) * 3,
        "layers_per_block": 2,
        "center_input_sample": False,
    },
    "attention everywhere": {
        "block_out_channels": (128, 128),
        "down_block_types": ("AttnSkipDownBlock2D",) * 2,
        "up_block_types": ("AttnSkipUpBlock2D",) * 2,
        "attention_head_dim": 128,
        "norm_num_groups": 32,
    },
}

PUBLISHED = {
    "256 pixels": {
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 256, 256, 256),
        "down_block_types": ("SkipDownBlock2D",) * 4 + ("AttnSkipDownBlock2D",) + ("SkipDownBlock2D",) * 2,
        "up_block_types": ("SkipUpBlock2D",) * 2 + ("AttnSkipUpBlock2D",) + ("SkipUpBlock2D",) * 4,
        "layers_per_block": 2,
    },
    "1024 pixels": {
        "sample_size": 1024,
        "block_out_channels": (16, 32, 64, 128, 256, 512, 512, 512),
        "down_block_types": ("SkipDownBlock2D",) * 6 + ("AttnSkipDownBlock2D", "SkipDownBlock2D"),
        "up_block_types": ("SkipUpBlock2D", "AttnSkipUpBlock2D") + ("SkipUpBlock2D",) * 6,
        "layers_per_block": 1,
    },
}
"""As google/ncsnpp-{church,bedroom,ffhq,celebahq}-256 and ncsnpp-ffhq-1024 describe themselves."""


@pytest.fixture(scope="module")
def diffusers() -> Any:
    """The library, whose own warnings while it is imported are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("diffusers")
        _ = library.UNet2DModel, library.ScoreSdeVeScheduler, library.ScoreSdeVePipeline
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def saved(library: Any, folder: Path, fields: dict[str, Any], *, pickled: bool = False) -> Any:
    """A random network with a scheduler, written by diffusers; returns the network."""
    torch.manual_seed(0)
    net = library.UNet2DModel(**{**SMALL, **fields}).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # biases and gains too
            parameter.add_(0.05 * torch.randn(parameter.shape))
    scheduler = library.ScoreSdeVeScheduler(num_train_timesteps=7, snr=0.075, sigma_min=0.02, sigma_max=30.0)
    net.save_pretrained(folder / "unet", safe_serialization=not pickled)
    scheduler.save_pretrained(folder / "scheduler")
    return net


def described(folder: Path, fields: dict[str, Any] | None = None, scheduler: dict[str, Any] | None = None) -> Path:
    """A folder with the right JSON files and no weights, without diffusers."""
    (folder / "unet").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    config = {"_class_name": "UNet2DModel", **SMALL, **(fields or {})}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    noise = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 30.0, **(scheduler or {})}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(noise))
    (folder / "model_index.json").write_text("{}")
    return folder


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


# ---------------------------------------------------------------------------------------------- import


@pytest.mark.parametrize("name", LAYOUTS)
def test_imported_score_equals_diffusers(diffusers: Any, tmp_path: Path, name: str) -> None:
    net = saved(diffusers, tmp_path / "theirs", LAYOUTS[name])
    found = import_checkpoint("diffusers", tmp_path / "theirs", tmp_path / "ours")
    model = load(tmp_path / "ours", device="cpu")
    assert model.process == VE(0.02, 30.0) and model.data.model_range == (0.0, 1.0)
    assert found.experiment.sampler.grid == Uniform(7) and found.weights == "raw"
    side, times = net.config.sample_size, torch.tensor([0.15, 0.5, 0.9], dtype=torch.float64)
    sigma = model.process.sigma(times)
    x = torch.rand(3, 3, side, side) + sigma.float().reshape(3, 1, 1, 1) * torch.randn(3, 3, side, side)
    with torch.no_grad():
        assert relative(model.score(x, times), net(x, sigma.float()).sample) < FLOAT32_NETWORK
        model.network.double()
        net.double()
        # In float64 nothing is left that rounding could explain.
        assert relative(model.score(x.double(), times), net(x.double(), sigma).sample) < FLOAT64_NETWORK


def test_pickled_weights_with_the_names_of_2022(diffusers: Any, tmp_path: Path) -> None:
    net = saved(diffusers, tmp_path / "theirs", {}, pickled=True)
    path = tmp_path / "theirs" / "unet" / "diffusion_pytorch_model.bin"
    later = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in net.state_dict().items():
        for new, was in later.items():
            name = name.replace(f".{new}.", f".{was}.")
        old[name] = value
    assert any("proj_attn" in name for name in old)
    old["time_proj.W"] = old["time_proj.weight"].clone()
    torch.save(old, path)
    found = diffusers_folder.read(tmp_path / "theirs", None, "ema", Hints())
    assert found.weights == "ema"
    assert torch.equal(found.tensors["time.fourier.W"], net.time_proj.weight)
    assert torch.equal(found.tensors["middle.0.attention.project.weight"], net.mid_block.attentions[0].to_out[0].weight)
    assert set(found.tensors) == set(meta_network(found.experiment, spec_of(found.experiment)).state_dict())
    old["time_proj.W"] += 1
    torch.save(old, path)
    with pytest.raises(CheckpointError, match="two different tensors for time_proj.weight"):
        diffusers_folder.read(tmp_path / "theirs", None, None, Hints())


def spec_of(experiment: Experiment) -> DataSpec:
    assert experiment.spec is not None
    return experiment.spec


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts_have_our_names_and_shapes(diffusers: Any, name: str) -> None:
    given = {**SMALL, **PUBLISHED[name]}
    with torch.device("meta"):
        theirs = diffusers.UNet2DModel(**given).state_dict()
    fields, notes = diffusers_unet.unet_fields(given)
    side = given["sample_size"]
    spec = DataSpec((3, side, side), 0, 255, 256, model_range=(0.0, 1.0))
    network = diffusers_unet.network_of(fields, spec)
    with torch.device("meta"):
        ours = network.build(spec).state_dict()
    table = diffusers_unet.module_names(len(network.channel_multipliers), network.blocks)
    shapes = {diffusers_unet.our_name(key, table): value.shape for key, value in theirs.items()}
    assert shapes == {key: value.shape for key, value in ours.items()} and not notes
    assert network.attention_sizes == (16,)


def test_half_precision_becomes_float32(diffusers: Any, tmp_path: Path) -> None:
    saved(diffusers, tmp_path, {})
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    found = diffusers_folder.read(tmp_path, None, None, Hints())
    assert {value.dtype for value in found.tensors.values()} == {torch.float32}
    assert any("half precision" in note for note in found.notes)


def test_network_alone_takes_its_noise_levels_from_the_user(diffusers: Any, tmp_path: Path) -> None:
    saved(diffusers, tmp_path, {"sample_size": None})
    bare = tmp_path / "unet"
    with pytest.raises(CheckpointError, match="--size PIXELS"):
        diffusers_folder.read(bare, None, None, Hints(sigma_min=0.1, sigma_max=9.0))
    with pytest.raises(CheckpointError, match="--sigma-min VALUE --sigma-max VALUE"):
        diffusers_folder.read(bare, None, None, Hints(size=16))
    hints = Hints(size=16, sigma_min=0.1, sigma_max=9.0, levels=5)
    found = import_checkpoint("diffusers", bare, tmp_path / "ours", hints=hints)
    assert found.experiment.process == VE(0.1, 9.0) and found.experiment.sampler.grid == Uniform(5)
    # Beside a model_index.json the missing scheduler is a fault, and the way round it is named.
    shutil.rmtree(tmp_path / "scheduler")
    with pytest.raises(CheckpointError, match="no scheduler/scheduler_config.json.*--sigma-min"):
        diffusers_folder.read(tmp_path, None, None, hints)


# ---------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("down_block_types", ["DownBlock2D", "AttnDownBlock2D"]),
        ("down_block_types", ["SkipDownBlock2D", "MyBlock"]),
        ("up_block_types", ["SkipUpBlock2D"]),
        ("up_block_types", ["SkipUpBlock2D", "AttnSkipUpBlock2D"]),
        ("up_block_types", ["AttnUpBlock2D", "UpBlock2D"]),
        ("block_out_channels", [32, 48]),
        ("block_out_channels", [0, 32]),
        ("block_out_channels", [132, 264]),  # no number of groups that diffusers could make
        ("sample_size", 15),
        ("sample_size", "big"),
        ("time_embedding_type", "positional"),
        ("time_embedding_dim", 77),
        ("mid_block_type", None),
        ("mid_block_scale_factor", 1),
        ("norm_eps", 1e-5),
        ("norm_num_groups", 16),
        ("attn_norm_num_groups", 8),
        ("attention_head_dim", 8),
        ("act_fn", "mish"),
        ("resnet_time_scale_shift", "scale_shift"),
        ("add_attention", False),
        ("class_embed_type", "timestep"),
        ("num_class_embeds", 10),
        ("in_channels", 1),
        ("out_channels", 6),
        ("dropout", 1.5),
        ("layers_per_block", "2"),
    ],
)
def test_inexpressible_fields_are_named(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"has {field} = ") as caught:
        diffusers_folder.read(described(tmp_path / "a", {field: value}), None, None, Hints())
    shown = str(caught.value)
    assert any(str(part) in shown for part in (value if isinstance(value, list) else [value])), shown


def test_attention_with_other_groups_is_refused(tmp_path: Path) -> None:
    message = "down_block_types = .*attention.norm over 64 channels has 32 groups in diffusers and 16 here"
    with pytest.raises(CheckpointError, match=message):
        diffusers_folder.read(described(tmp_path / "a", {"block_out_channels": [32, 64]}), None, None, Hints())


def test_what_a_config_leaves_out_is_what_diffusers_takes(diffusers: Any) -> None:
    signature = inspect.signature(diffusers.UNet2DModel.__init__)
    theirs = {name: p.default for name, p in signature.parameters.items() if name not in ("self", "args", "kwargs")}
    ours = diffusers_unet.DEFAULTS
    assert set(theirs) == set(ours) | diffusers_unet.UNREAD
    assert all(theirs[name] == value for name, value in ours.items())
    signature = inspect.signature(diffusers.ScoreSdeVeScheduler.__init__)
    theirs = {name: p.default for name, p in signature.parameters.items() if name != "self"}
    assert {"_class_name": "ScoreSdeVeScheduler", **theirs} == diffusers_folder.SCHEDULER_DEFAULTS


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    def refusal(path: Path, **kwargs: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            diffusers_folder.read(path, kwargs.get("config"), None, Hints())
        return str(caught.value)

    assert "there is no folder" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "it holds nothing" in refusal(tmp_path / "empty")
    folder = described(tmp_path / "a")
    assert "leave --config" in refusal(folder, config=Path("c.yml"))
    assert "is a file" in refusal(folder / "model_index.json")
    assert "neither diffusion_pytorch_model.safetensors" in refusal(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    assert "truncated or damaged" in refusal(folder)
    (folder / "unet" / "config.json").write_text("{")
    assert "cannot be read as JSON" in refusal(folder)
    (folder / "unet" / "config.json").write_text("[]")
    assert "holds a list" in refusal(folder)
    assert "_class_name is 'UNet1DModel'" in refusal(described(tmp_path / "b", {"_class_name": "UNet1DModel"}))
    other = described(tmp_path / "c", scheduler={"_class_name": "DDPMScheduler"})
    assert "'DDPMScheduler'; only ScoreSdeVeScheduler" in refusal(other)
    assert "make no sampler" in refusal(described(tmp_path / "d", scheduler={"sigma_max": 0.001}))
    assert "make no sampler" in refusal(described(tmp_path / "e", scheduler={"num_train_timesteps": "many"}))


def test_tensors_of_another_network_are_refused(diffusers: Any, tmp_path: Path) -> None:
    saved(diffusers, tmp_path / "a", {})
    path = tmp_path / "a" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    moved = tensors.pop("up_blocks.0.skip_norm.weight")
    save_file({**tensors, "up_blocks.0.skip_norm.gain": moved}, path)
    with pytest.raises(CheckpointError, match="2 differences") as caught:
        import_checkpoint("diffusers", tmp_path / "a", tmp_path / "out")
    assert "up.0.pyramid.norm.gain" in str(caught.value) and "up.0.pyramid.norm.weight" in str(caught.value)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------- export


def ours(*, weightless: bool = False, **changes: Any) -> Model:
    """A small random model of the family."""
    network = NCSNpp(
        channels=32,
        channel_multipliers=(1, 4),
        blocks=1,
        attention_sizes=(8, 3),
        dropout=0.1,
        progressive="output_skip",
        progressive_input="input_skip",
    )
    experiment = Experiment(
        name="small",
        data=None,  # type: ignore[arg-type]
        process=VE(0.02, 30.0),
        network=network,
        form=ScaledScoreForm(),
        time_input=LogSigma(),
        spec=DataSpec((3, 16, 16), 0, 255, 256, model_range=(0.0, 1.0)),
    )
    experiment = replace(experiment, **changes)
    if weightless:
        return Model(experiment, meta_network(experiment, spec_of(experiment)))
    torch.manual_seed(1)
    net = experiment.network.build(spec_of(experiment)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return Model(experiment, net)


def test_exported_model_is_loaded_by_diffusers_and_comes_back_bit_equal(diffusers: Any, tmp_path: Path) -> None:
    model = ours()
    diffusers_folder.export(model, tmp_path / "out")
    pipeline = diffusers.ScoreSdeVePipeline.from_pretrained(tmp_path / "out")
    net = pipeline.unet.eval()
    times = torch.tensor([0.2, 0.7], dtype=torch.float64)
    sigma, x = model.process.sigma(times), 3 * torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert relative(net(x, sigma.float()).sample, model.score(x, times)) < FLOAT32_NETWORK
    assert (pipeline.scheduler.config.sigma_min, pipeline.scheduler.config.sigma_max) == (0.02, 30.0)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 16, 16, 3)
    back = diffusers_folder.read(tmp_path / "out", None, None, Hints())
    own = model.network.state_dict()
    assert set(back.tensors) == set(own) and all(torch.equal(back.tensors[name], own[name]) for name in own)
    expected = replace(model.experiment.network, attention_sizes=(8,))  # type: ignore[type-var]
    assert back.experiment.network == expected
    assert back.experiment.process == model.process and back.experiment.spec == model.data


def scheduler_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())


def test_model_folders_are_exported_too_and_nothing_is_overwritten(diffusers: Any, tmp_path: Path) -> None:
    saved(diffusers, tmp_path / "theirs", {})
    import_checkpoint("diffusers", tmp_path / "theirs", tmp_path / "ours")
    diffusers_folder.export(tmp_path / "ours", tmp_path / "out")
    name = "diffusion_pytorch_model.safetensors"
    first, second = (load_file(tmp_path / f / "unet" / name) for f in ("theirs", "out"))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    theirs, again = (scheduler_of(tmp_path / folder) for folder in ("theirs", "out"))
    theirs.pop("_diffusers_version")
    assert theirs == again
    with pytest.raises(CheckpointError, match="exists already"):
        diffusers_folder.export(tmp_path / "ours", tmp_path / "out")


def test_sampler_settings_travel(tmp_path: Path) -> None:
    twice = Chain((Repeat(Langevin(NormRatio(0.3)), 2), ReverseDiffusion()))
    cases = {
        "twice": (twice, {"snr": 0.3, "correct_steps": 2}),
        "once": (Chain((Langevin(NormRatio(0.3)), ReverseDiffusion())), {"snr": 0.3, "correct_steps": 1}),
        "never": (ReverseDiffusion(), {"correct_steps": 0}),
    }
    for name, (step, expected) in cases.items():
        model = ours(sampler=Sampler(step, Uniform(9)))
        diffusers_folder.export(model, tmp_path / name)
        written = scheduler_of(tmp_path / name)
        assert {**written, **expected, "num_train_timesteps": 9} == written
        assert diffusers_folder.read(tmp_path / name, None, None, Hints()).experiment.sampler.step == step
    notes = diffusers_folder.export(ours(sampler=Sampler(FlowHeun(), Uniform(9))), tmp_path / "flow")
    assert any("FlowHeun" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "network", "named"),
    [
        ({"process": VP()}, {}, "process"),
        ({"form": NoiseForm()}, {}, "form"),
        ({"time_input": ScaledTime()}, {}, "time_input"),
        ({"network": MLP(), "spec": DataSpec((3,))}, {}, "network"),
        ({"levels": Tabulated(GeometricSigmas(0.02, 30.0, 10))}, {}, "levels"),
        ({"spec": DataSpec((3, 16, 32), 0, 255, 256, model_range=(0.0, 1.0))}, {}, "square"),
        ({"spec": DataSpec((3, 15, 15), 0, 255, 256, model_range=(0.0, 1.0))}, {}, "sample_size"),
        ({"spec": DataSpec((1, 16, 16), 0, 255, 256, model_range=(0.0, 1.0))}, {}, "in_channels = 1"),
        ({"spec": DataSpec((3, 16, 16), 0, 255, 256)}, {}, "model_range"),
        ({"spec": DataSpec((3, 16, 16))}, {}, "unbounded"),
        (
            {"spec": DataSpec((3, 16, 16), 0, 1, model_range=(0.0, 1.0), conditions=(ConditionSpec("y", "class", 2),))},
            {},
            "condition 'y'",
        ),
        ({}, {"progressive": "none"}, "network.progressive = 'none'"),
        ({}, {"progressive_input": "residual"}, "network.progressive_input"),
        ({}, {"progressive_combine": "cat"}, "network.progressive_combine"),
        ({}, {"fir": False}, "network.fir = False"),
        ({}, {"fir_kernel": (1.0, 1.0)}, "network.fir_kernel"),
        ({}, {"skip_rescale": False}, "network.skip_rescale"),
        ({}, {"block": "ddpm"}, "network.block"),
        ({}, {"embedding": "positional"}, "network.embedding"),
        ({}, {"activation": "elu"}, "network.activation"),
        ({}, {"time_conditional": False}, "network.time_conditional"),
        ({}, {"channel_multipliers": (1, 2)}, "has 32 groups in diffusers and 16 here"),
        ({}, {"channels": 36, "attention_sizes": ()}, "groups in diffusers"),
    ],
)
def test_what_diffusers_cannot_say_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], network: dict[str, Any], named: str
) -> None:
    if network:
        changes = {"network": replace(ours(weightless=True).experiment.network, **network)}  # type: ignore[type-var]
    with pytest.raises(CheckpointError) as caught:
        diffusers_folder.export(ours(weightless=True, **changes), tmp_path / "out")
    assert named in str(caught.value)
    assert not (tmp_path / "out").exists()
