"""Checkpoints of the SDE framework's JAX release: the same weights as in a PyTorch file give the same network.

The trees are written here, by the naming rules of Flax, from the release's list of modules and not from our networks.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scorefield as sf
from goldens import SCORE_SDE, golden
from interop.sde_files import configured, made, published_state
from nets import published_nets as published
from scorefield.interop import CheckpointError, Hints, import_checkpoint, score_sde
from scorefield.interop.flax_tree import flax_order
from scorefield.interop.score_sde_config import configuration
from scorefield.nets import NCSNpp, UNet
from tolerance import GOLDEN_SCORE

msgpack = pytest.importorskip("msgpack")

# ---------------------------------------------------------------------------------------------- a small encoder


def packed_array(array: np.ndarray, name: str | None = None) -> Any:
    inner = msgpack.packb((array.shape, name or array.dtype.name, array.tobytes("C")), use_bin_type=True)
    return msgpack.ExtType(1, inner)


def packed_scalar(number: np.generic) -> Any:
    inner = msgpack.packb(((), number.dtype.name, number.tobytes()), use_bin_type=True)
    return msgpack.ExtType(3, inner)


def chunked(array: np.ndarray, size: int) -> dict[str, Any]:
    """As Flax splits arrays that are too large for one message."""
    flat = array.ravel()
    pieces = [flat[i : i + size] for i in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(array.shape)},
        "chunks": {str(i): packed_array(piece) for i, piece in enumerate(pieces)},
    }


def flax_state(params: dict[str, Any], raw: dict[str, Any] | None = None) -> dict[str, Any]:
    """The training state around a tree of averaged parameters."""
    moments = {"step": 5, "param_states": {"w": {"grad_ema": packed_array(np.zeros(3, np.float32))}}}
    return {
        "step": 400_005,
        "optimizer": {"target": params if raw is None else raw, "state": moments},
        "lr": packed_scalar(np.float32(2e-4)),
        "model_state": {},
        "ema_rate": packed_scalar(np.float64(0.999)),
        "params_ema": params,
        "rng": packed_array(np.array([1, 2], np.uint32)),
    }


def flax_file(folder: Path, state: dict[str, Any]) -> Path:
    path = folder / "checkpoint_8"
    path.write_bytes(msgpack.packb(state, strict_types=True))
    return path


# ---------------------------------------------------------------------------------------------- names and layouts


def class_of(leaves: dict[str, Tensor], biggan: bool, plain: bool) -> str:
    """The Flax class of a module of the release's list, from its tensors; "resampler" goes either way."""
    if set(leaves) == {"W"}:
        return "GaussianFourierProjection"
    if "NIN_3.W" in leaves:
        return "AttnBlock" if plain else "AttnBlockpp"
    if "GroupNorm_1.weight" in leaves:
        return "ResnetBlockBigGANpp" if biggan else "ResnetBlockDDPM" if plain else "ResnetBlockDDPMpp"
    if "Conv2d_0.weight" in leaves:
        return "Downsample"  # the filtered ones of the published networks are those of the input's pyramid
    if "Conv_0.weight" in leaves:
        return "Combine" if leaves["Conv_0.weight"].shape[-1] == 1 else "resampler"
    return {1: "GroupNorm", 2: "Dense", 4: "Conv"}[leaves["weight"].ndim]


def flax_leaf(name: str, value: Tensor) -> tuple[str, np.ndarray]:
    """A tensor of PyTorch as Flax names it and lays it out."""
    scope, _, leaf = name.rpartition(".")
    array = value.detach().numpy()
    if leaf == "weight" and array.ndim == 4:
        return f"{scope}/{'weight' if scope == 'Conv2d_0' else 'kernel'}", array.transpose(2, 3, 1, 0)
    if leaf == "weight" and array.ndim == 2:
        return f"{scope}/kernel", array.T
    return f"{scope}/{'scale' if leaf == 'weight' else leaf}", array


def flax_params(state: dict[str, Tensor], *, biggan: bool, plain: bool) -> dict[str, Any]:
    """A release's state dictionary as the tree of its JAX twin."""
    grouped: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        _, index, leaf = name.split(".", 2)
        grouped.setdefault(int(index), {})[leaf] = value
    counts, tree = Counter[str](), {}
    kinds = [class_of(leaves, biggan, plain) for _, leaves in sorted(grouped.items())]
    for (_, leaves), kind in zip(sorted(grouped.items()), kinds, strict=True):
        if kind == "resampler":  # as many go down as up
            kind = "Downsample" if counts["Downsample"] < kinds.count("resampler") // 2 else "Upsample"
        module = tree.setdefault(f"{kind}_{counts[kind]}", {})
        counts[kind] += 1
        for leaf, value in leaves.items():
            path, array = flax_leaf(leaf, value)
            *scopes, last = [part for part in path.split("/") if part]
            at = module
            for scope in scopes:
                at = at.setdefault(scope, {})
            at[last] = packed_array(np.ascontiguousarray(array))
    return tree


# ---------------------------------------------------------------------------------------------- imports


@pytest.mark.parametrize("name", SCORE_SDE)
def test_goldens_as_jax_checkpoints(name: str, tmp_path: Path) -> None:
    g = golden(name)
    content = torch.load(g.folder / "checkpoint.pth", weights_only=True)
    state = {k.removeprefix("module."): v for k, v in content["model"].items() if not k.endswith("sigmas")}
    shadow = iter(content["ema"]["shadow_params"])
    state = {k: v if k == "all_modules.0.W" else next(shadow) for k, v in state.items()}
    plain = g.config["model"]["name"] == "ddpm"
    checkpoint = flax_file(tmp_path, flax_state(flax_params(state, biggan=not plain, plain=plain)))
    import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=g.folder / "config.json")
    model = sf.load(tmp_path / "model")
    found = model.score(g.io["xt"], g.io["t"])
    assert (found - g.io["score"]).abs().max() <= GOLDEN_SCORE * g.io["score"].abs().max()
    assert model.step == 400_005 and model.weights == "ema:0.999"
    assert not model.experiment.averaging.warmup  # the JAX release has none


SMALL = {"model__nf": 8, "model__ch_mult": [1, 2], "model__num_res_blocks": 1, "data__image_size": 8}


def small(tmp_path: Path) -> tuple[UNet, dict[str, Any], Path]:
    config = configured(**SMALL)
    (tmp_path / "config.json").write_text(json.dumps(config))
    net = made(configuration(config).network, 8)
    assert isinstance(net, UNet)
    return net, flax_params(published_state(net), biggan=True, plain=False), tmp_path / "config.json"


def test_raw_weights_and_an_outer_collection(tmp_path: Path) -> None:
    net, params, config = small(tmp_path)
    other = {"params": {"Dense_0": {"bias": packed_array(np.zeros(1, np.float32))}}}
    checkpoint = flax_file(tmp_path, flax_state(other, raw={"params": params}))
    found = score_sde.read(checkpoint, config, "raw", Hints())
    assert found.weights == "raw"
    assert all(torch.equal(found.tensors[name], value) for name, value in net.state_dict().items())


def test_arrays_in_pieces_and_in_half_precision(tmp_path: Path) -> None:
    net, params, config = small(tmp_path)
    kernel = net.get_parameter("time.second.weight").detach()
    params["Dense_1"]["kernel"] = chunked(np.ascontiguousarray(kernel.T.numpy()), 100)
    bias = net.get_parameter("time.second.bias").detach().bfloat16()
    params["Dense_1"]["bias"] = packed_array(bias.view(torch.int16).numpy(), "bfloat16")
    found = score_sde.read(flax_file(tmp_path, flax_state(params)), config, None, Hints())
    assert torch.equal(found.tensors["time.second.weight"], kernel)
    assert torch.equal(found.tensors["time.second.bias"], bias)


@pytest.mark.parametrize(
    ("network", "name", "path"),
    [
        # Samplers of the image pyramids have no parameters, and are counted.
        (NCSNpp(block="ddpm", progressive_input="input_skip"), "down.1.resample.conv.weight", "Downsample_2"),
        (NCSNpp(block="ddpm", progressive="output_skip"), "up.1.resample.conv.weight", "Upsample_2"),
        (NCSNpp(block="ddpm"), "down.1.resample.conv.weight", "Downsample_2"),
        (NCSNpp(block="ddpm"), "down.1.pyramid.conv.weight", "Downsample_3"),
        (NCSNpp(block="ddpm", progressive_input="none"), "down.1.resample.conv.weight", "Downsample_1"),
        (NCSNpp(block="ddpm", resample_with_conv=False), "down.1.pyramid.conv.weight", "Downsample_3"),
        (NCSNpp(), "down.1.pyramid.conv.weight", "Downsample_1"),
        (NCSNpp(), "down.1.resample.conv_0.weight", "ResnetBlockBigGANpp_9"),
        (NCSNpp(progressive="output_skip"), "up.1.pyramid.conv.weight", "Conv_2"),
        (published.DDPM_CIFAR10, "middle.0.attention.query.weight", "AttnBlock_2"),
        (published.DDPM_CIFAR10, "head.norm.weight", "GroupNorm_0"),
    ],
)
def test_names_count_the_calls_of_each_class(network: NCSNpp, name: str, path: str) -> None:
    data = published.images(32)
    with torch.device("meta"):
        net = network.build(data)
    found = {f.name: f.path for f in flax_order(net, plain=network is published.DDPM_CIFAR10)}
    assert found[name].split("/")[0] == path
    assert list(found) == [key for key, _ in net.named_parameters()]


# ---------------------------------------------------------------------------------------------- bad input


def test_a_configuration_is_needed(tmp_path: Path) -> None:
    _, params, _ = small(tmp_path)
    with pytest.raises(CheckpointError, match="JAX release; give its configuration with --config"):
        score_sde.read(flax_file(tmp_path, flax_state(params)), None, None, Hints(size=8))


def test_differences_are_told_in_the_names_of_the_release(tmp_path: Path) -> None:
    _, params, config = small(tmp_path)
    del params["Downsample_0"]["Conv2d_0"]["bias"]
    params["Dense_0"]["bias"] = packed_array(np.zeros(5, np.float32))
    with pytest.raises(CheckpointError) as caught:
        score_sde.read(flax_file(tmp_path, flax_state(params)), config, None, Hints())
    assert "missing in the checkpoint: Downsample_0/Conv2d_0/bias" in str(caught.value)
    assert "shape of Dense_0/bias: checkpoint (5,), network (32,)" in str(caught.value)


def test_a_missing_average(tmp_path: Path) -> None:
    _, params, config = small(tmp_path)
    state = flax_state(params)
    del state["params_ema"]
    with pytest.raises(CheckpointError, match="holds no params_ema.*--weights raw"):
        score_sde.read(flax_file(tmp_path, state), config, None, Hints())
    assert score_sde.read(flax_file(tmp_path, state), config, "raw", Hints()).weights == "raw"


def test_damaged_files(tmp_path: Path) -> None:
    _, params, config = small(tmp_path)
    whole = flax_file(tmp_path, flax_state(params)).read_bytes()
    odd = msgpack.packb({"params_ema": {"Dense_0": msgpack.ExtType(9, b"x")}})
    objects = msgpack.packb({"params_ema": {"a": packed_array(np.zeros(2, np.float32), "object")}})
    short = msgpack.packb({"params_ema": {"a": msgpack.ExtType(1, msgpack.packb(((7,), "float32", b"1234")))}})
    for content in (whole[:-10], whole[: len(whole) // 2], odd, objects, short, b"\x82\xc1"):
        (tmp_path / "checkpoint_8").write_bytes(content)
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            score_sde.read(tmp_path / "checkpoint_8", config, None, Hints())


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, params, config = small(tmp_path)
    checkpoint = flax_file(tmp_path, flax_state(params))
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(CheckpointError, match=r"scorefield\[interop\]"):
        score_sde.read(checkpoint, config, None, Hints())


def test_refine_nets_are_refused(tmp_path: Path) -> None:
    _, params, _ = small(tmp_path)
    changes = {"model__name": "ncsnv2_64", "training__continuous": False, "sampling__corrector": "ald"}
    (tmp_path / "other.json").write_text(json.dumps(configured(**SMALL, **changes)))
    with pytest.raises(CheckpointError, match="half-pixel centres"):
        score_sde.read(flax_file(tmp_path, flax_state(params)), tmp_path / "other.json", None, Hints())
