"""scorefield train-guide and edit class: what they write, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

from scorefield.cli import main
from scorefield.cli.train_guide import TrainGuide
from scorefield.models.guidance import load_guide
from scorefield.models.model import load
from scorefield.models.sample_folder import read_samples
from scorefield.training import guidance
from scorefield.training.trainer import train
from training.tiny import tiny

SMALL = (
    "network=GuideMLP", "network.width=8", "network.depth=1", "training.steps=4", "training.batch_size=16",
    "training.validate_every=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model folder."""
    return train(tiny(steps=4), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def guide(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guide folder, by the command."""
    out = tmp_path_factory.mktemp("guide") / "tiny-guide"
    words = ["train-guide", str(model), "--out", str(out)]
    assert main([*words, *(w for setting in SMALL for w in ("--set", setting))]) == 0
    return out


def test_choices_are_those_of_the_library() -> None:
    assert get_type_hints(TrainGuide)["kind"] == guidance.Kind and len(get_args(guidance.Kind)) == 2


def test_train_and_sample(model: Path, guide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (guide / guidance.FILE).is_file() and load_guide(guide).experiment.training.steps == 4
    words = ["edit", "class", str(model), "--guide", str(guide), "--label", "7", "--scale", "2", "-n", "3"]
    out = tmp_path / "sevens"
    assert main([*words, "--sampler", "em", "--steps", "3", "--seed", "5", "--out", str(out)]) == 0
    assert "3 samples of tiny" in capsys.readouterr().out
    loaded = load(model)
    guided = loaded.guided(load_guide(guide), 2.0)
    expected = guided.sample(3, sampler=loaded.sampler("em", 3), seed=5, condition={"class": 7})
    assert torch.equal(read_samples(out).x, expected.x)
    record = json.loads((out / "samples.json").read_text())
    assert record["condition"] == {"class": 7} and record["source"]["nfe"] == 8
    (applied,) = record["source"]["settings"]["guidance"]
    assert applied["scale"] == 2.0 and applied["guide_hash"] == load_guide(guide).hash
    again = tmp_path / "again"  # the same by `sample`
    words = ["sample", str(model), "--guide", str(guide), "--condition", "class=7", "--scale", "2", "-n", "3"]
    assert main([*words, "--sampler", "em", "--steps", "3", "--seed", "5", "--out", str(again)]) == 0
    assert torch.equal(read_samples(again).x, expected.x)


def test_classifier_free(tmp_path: Path) -> None:
    base = tiny(steps=4, condition_dropout=0.2)
    free = train(replace(base, data=replace(base.data, conditional=True)), tmp_path / "free")
    out = tmp_path / "threes"
    words = ["edit", "class", str(free), "--label", "3", "--scale", "1.5", "-n", "2", "--sampler", "em", "--steps", "2"]
    assert main([*words, "--out", str(out)]) == 0
    loaded = load(free)
    samples = loaded.guided(scale=1.5).sample(2, sampler=loaded.sampler("em", 2), condition={"class": 3})
    assert torch.equal(read_samples(out).x, samples.x) and samples.nfe.tolist() == [6, 6]


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([str(w) for w in words]) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return err


def test_refusals(model: Path, guide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit = ("edit", "class", model, "--out", tmp_path / "none")
    assert "either --label CLASS or --y" in refused(capsys, *edit, "--guide", guide)
    assert "must be one of 0..9" in refused(capsys, *edit, "--guide", guide, "--label", "12")
    assert "neither a number nor a class" in refused(capsys, *edit, "--guide", guide, "--label", "cat")
    assert "finite number, not negative" in refused(capsys, *edit, "--guide", guide, "--label", "1", "--scale", "-1")
    assert "knows no vector, but 'class'; give --label" in refused(capsys, *edit, "--guide", guide, "--y", "1,2")
    told = refused(capsys, *edit, "--label", "1")
    assert "trained without labels" in told and f"train-guide {model} --kind classifier" in told
    other = ("edit", "class", "digits", "--guide", guide, "--label", "1", "--out", tmp_path / "none")
    assert "under the process VP" in refused(capsys, *other)  # the bundled digits are of VE
    assert "is a model and no guidance model" in refused(capsys, *edit, "--guide", model, "--label", "1")
    assert "is a guidance model, which draws no samples" in refused(capsys, "sample", guide)
    train_guide = ("train-guide", model, "--out", guide)
    assert "already holds a run" in refused(capsys, *train_guide)
    assert "begun with other settings" in refused(capsys, *train_guide, "--resume", "auto")
    assert "are classes; use --kind classifier" in refused(capsys, *train_guide, "--kind", "likelihood")
    assert not (tmp_path / "none").exists()
