"""Reading releases' files: nothing is executed, damage and strange files are explained."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorefield.interop.checkpoint_files import LAYOUTS, layout_of, read_config, read_torch, recognise
from scorefield.interop.import_result import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden"


class Bomb:
    """Makes a file when it is unpickled by the book."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_nothing_runs(zipped: bool, tmp_path: Path) -> None:
    path, target = tmp_path / "bomb.pth", tmp_path / "exploded"
    torch.save([Bomb(target)], path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.mkdir.*Nothing was executed"):
        read_torch(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_with_code_is_refused_in_every_protocol(protocol: int, tmp_path: Path) -> None:
    path, target = tmp_path / "bomb.pth", tmp_path / "exploded"
    path.write_bytes(pickle.dumps({"model": {"w": 1.0}, "ema": Bomb(target)}, protocol))
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.mkdir.*Nothing was executed"):
        read_torch(path)
    assert not target.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_newer_protocols_are_named(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(2)}, path, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="newer protocol.*save it again"):
        read_torch(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_scalars_are_read(zipped: bool, tmp_path: Path) -> None:
    """The releases' optimiser states hold learning rates computed by NumPy."""
    path = tmp_path / "x.pth"
    torch.save(
        {"lr": np.float64(2e-4), "n": np.int64(3), "w": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped
    )
    found = read_torch(path)
    assert found["lr"] == 2e-4 and found["n"] == 3 and torch.equal(found["w"], torch.ones(2))


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.99])
def test_a_truncated_file(kept: float, tmp_path: Path) -> None:
    whole = (GOLDEN / "ncsn/cifar_style/checkpoint.pth").read_bytes()
    path = tmp_path / "x.pth"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match="truncated or damaged|is empty"):
        read_torch(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"model:\n  ngf: 8\n", "a text file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x85\xa4step\x01", "msgpack.*looks like score-sde"),
        ((100).to_bytes(8, "little") + b'{"a": 1}', "a safetensors file.*looks like diffusers"),
        (b"\x1f\x8b\x08\x00", "an archive; unpack it"),
        (bytes(range(200, 220)), "of no kind that is known"),
    ],
)
def test_other_kinds_of_files_are_named(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=what):
        read_torch(path)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        read_torch(tmp_path / "nothing.pth")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is a folder.*looks like diffusers"):
        read_torch(tmp_path)


def test_every_golden_is_recognised() -> None:
    for folder in GOLDEN.glob("*/*/"):
        assert recognise(folder / "checkpoint.pth") == folder.parent.name.replace("_", "-")
    assert {p.name.replace("_", "-") for p in GOLDEN.iterdir() if p.is_dir()} <= set(LAYOUTS)
    assert layout_of([]) is None and layout_of(3) is None and layout_of({"a": 1}) is None


# ---------------------------------------------------------------------------------------------- configurations

NAMESPACES = """!!python/object:argparse.Namespace
data: !!python/object:argparse.Namespace
  channels: 3
  image_size: 32
  logit_transform: false
model: !!python/object:argparse.Namespace
  sigma_begin: 1
  sigma_end: 0.01
  betas: !!python/tuple [0.9, 0.999]
"""


def test_yaml_of_namespaces_is_read_without_making_any(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(NAMESPACES)
    assert read_config(path) == {
        "data": {"channels": 3, "image_size": 32, "logit_transform": False},
        "model": {"sigma_begin": 1, "sigma_end": 0.01, "betas": [0.9, 0.999]},
    }
    assert read_config(None) is None


def test_yaml_of_ml_collections(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "!!python/object:ml_collections.config_dict.config_dict.ConfigDict\n_convert_dict: true\n_fields:\n"
        "  model: !!python/object:ml_collections.config_dict.config_dict.ConfigDict\n    _fields:\n      nf: 128\n"
        "    _locked: true\n"
    )
    assert read_config(path) == {"model": {"nf": 128}}


def test_code_in_a_configuration_is_text(tmp_path: Path) -> None:
    path, target = tmp_path / "config.yml", tmp_path / "exploded"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{target}']\ndata: {{channels: 3}}\n")
    assert read_config(path) == {"model": [str(target)], "data": {"channels": 3}}
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "suffix"), [("{", ".json"), ("a: [1", ".yml"), ("- 1", ".yml"), ("just words", ".yml"), ("a: 1", ".yml")]
)
def test_no_configuration(text: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"c{suffix}"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="neither JSON nor YAML|no sections"):
        read_config(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_config(tmp_path / "nothing.yml")
