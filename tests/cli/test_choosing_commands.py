"""compare-samplers, tune and sample --budget: what they write, promise and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from scorefield._codec import dumps, loads
from scorefield.cli import main
from scorefield.cli.console import sampler_choice
from scorefield.models.model import bundled, load
from scorefield.models.sample_folder import read_samples
from scorefield.models.sampler_records import SamplerTable, TunedSampler
from scorefield.sampling.named import NAMED
from scorefield.training.trainer import train
from training.tiny import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model folder with a measured table of a few samplers."""
    folder = train(tiny(steps=10, checkpoint_every=10), tmp_path_factory.mktemp("model") / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scorefield.evaluation.samplers.candidates.NAMED", few())
        patch.setattr(sampler_choice, "TOLERANCE", 1e-3)
        assert main(["compare-samplers", str(folder), "-n", "8", "--calls", "4,9,16"]) == 0
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small measurements."""
    monkeypatch.setattr("scorefield.evaluation.samplers.candidates.NAMED", few())
    monkeypatch.setattr(sampler_choice, "QUICK_NAMES", ("dpm",))
    monkeypatch.setattr(sampler_choice, "QUICK", 8)
    monkeypatch.setattr(sampler_choice, "QUICK_CALLS", (4, 9))
    monkeypatch.setattr(sampler_choice, "QUICK_TOLERANCE", 1e-2)


def few() -> dict:
    return {name: NAMED[name] for name in ("em", "dpm")}


def read(folder: Path) -> SamplerTable:
    return loads((folder / "samplers.json").read_text(), SamplerTable)


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    try:
        status = main([str(w) for w in words])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert status == 2, out + err
    assert "Traceback" not in err
    return err + out


def test_the_table_and_its_page(trained: Path) -> None:
    table = read(trained)
    assert {r.name for r in table.rows} == {"em", "dpm", "the model's own"}
    receipt = table.receipt
    assert (receipt.count, receipt.seed, receipt.model_hash) == (8, 0, load(trained).hash)
    assert receipt.data is not None and receipt.data.split == "held-out" and receipt.environment["packages"]["torch"]
    assert receipt.reference_error is not None and receipt.seconds_per_call > 0.0
    assert all((r.error is not None) == r.deterministic for r in table.rows)
    assert "Best for their cost" in (trained / "samplers.html").read_text()


def test_a_budget_takes_the_table(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s"
    assert main(["sample", str(model), "-n", "3", "--budget", "nfe=12", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "measuring" not in text and "expected error" in text and "dpm, 12 network calls" in text
    samples = read_samples(out)
    assert samples.source.nfe == 12
    grid = samples.source.settings["sampler"].grid
    assert grid.steps == 11 and torch.isfinite(samples.x).all()
    assert main(["sample", str(model), "-n", "3", "--budget", "seconds=60", "--out", str(out)]) == 0


def test_without_a_table_it_is_measured_quickly_and_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    (model / "samplers.json").unlink()
    words = ["sample", str(model), "-n", "2", "--budget", "nfe=9", "--out", str(tmp_path / "s")]
    assert main(words) == 0
    assert "measuring quickly with 8 samples" in capsys.readouterr().out
    assert read(model).receipt.count == 8 and all(r.deterministic for r in read(model).rows)
    assert main(words) == 0
    assert "measuring" not in capsys.readouterr().out


def test_a_table_of_other_weights_is_not_used(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    words = ["sample", str(model), "-n", "2", "--budget", "nfe=9", "--out", str(tmp_path / "s")]
    assert main([*words, "--weights", "raw"]) == 0
    text = capsys.readouterr().out
    assert "measured with other weights (ema:0.9" in text and "measuring again" in text
    assert read(model).receipt.weights == "raw"


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system"), OSError(28, "No space left")],
    ids=["mode", "read-only", "full"],
)
def test_a_folder_that_cannot_be_written_to_is_no_obstacle(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quick: None,
    error: OSError,
) -> None:  # fmt: skip
    (model / "samplers.json").unlink()

    def denied(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("scorefield.evaluation.samplers.write_record", denied)
    assert main(["sample", str(model), "-n", "2", "--budget", "nfe=9", "--out", str(tmp_path / "s")]) == 0
    assert "not saved" in capsys.readouterr().out
    assert read_samples(tmp_path / "s").source.nfe in (4, 9)


@pytest.mark.parametrize(
    ("words", "work"), [("compare-samplers", "measure"), ("tune --sampler cas --calls 12", "tune")]
)
def test_a_measurement_that_is_stopped_says_that_nothing_is_left(
    words: str, work: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"scorefield.evaluation.samplers.{work}", stopped)
    monkeypatch.setattr("scorefield.evaluation.samplers.candidates.NAMED", few())
    before = sorted(model.iterdir())
    command, *rest = words.split()
    assert main([command, str(model), "-n", "8", *rest]) == 130
    assert "stopped; nothing was written" in capsys.readouterr().err
    assert sorted(model.iterdir()) == before


def test_bundled_models_stay_as_they_are(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    folder = bundled()["digits"]
    before = sorted(p.name for p in folder.iterdir())
    assert sampler_choice.keep(folder, read(trained)) is None
    assert "bundled model" in capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == before


def test_budgets_that_cannot_be_kept(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "leave out --sampler" in refused(capsys, "sample", model, "--budget", "nfe=9", "--sampler", "em")
    assert "leave out --sampler" in refused(capsys, "sample", model, "--budget", "nfe=9", "--steps", "4")
    assert "Did you mean nfe" in refused(capsys, "sample", model, "--budget", "nef=9")
    assert "--budget nfe=4" in refused(capsys, "sample", model, "--budget", "nfe=2")
    assert "use --budget error=" in refused(capsys, "sample", model, "--budget", "error=1e-12")


def test_bad_numbers(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "whole numbers" in refused(capsys, "compare-samplers", model, "--calls", "10,many")
    assert "at least 1" in refused(capsys, "compare-samplers", model, "--calls", "0")
    assert "too few" in refused(capsys, "compare-samplers", model, "-n", "4")
    assert "too few" in refused(capsys, "tune", model, "-n", "2", "--calls", "5")
    assert "at least 1" in refused(capsys, "tune", model, "--calls", "-3")
    assert "its own steps" in refused(capsys, "tune", model, "--sampler", "ode", "--calls", "9", "-n", "8")
    assert "no tuned sampler; scorefield tune" in refused(capsys, "sample", model, "--sampler", "tuned")


def test_tuning_writes_a_sampler_that_is_used_by_name(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(model), "--sampler", "cas", "--calls", "12", "-n", "8"]) == 0
    text = capsys.readouterr().out
    assert "eta: best of" in text and "--sampler tuned" in text
    found = loads((model / "sampler.json").read_text(), TunedSampler)
    assert found.receipt.model_hash == load(model).hash and len(found.tried) >= 6
    assert main(["sample", str(model), "-n", "2", "--sampler", "tuned", "--out", str(tmp_path / "s")]) == 0
    assert read_samples(tmp_path / "s").source.settings["sampler"] == found.sampler
    assert load(model).sampler() == load(model).experiment.sampler  # only by name
    capsys.readouterr()
    assert main(["describe", str(model)]) == 0
    shown = capsys.readouterr().out
    assert "tuned sampler (--sampler tuned)" in shown and "samplers measured" in shown
    assert "tune again" in refused(capsys, "sample", model, "--sampler", "tuned", "--weights", "raw")


def test_a_table_that_is_damaged_says_which_field(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(dumps(read(model)))
    data["value"]["rows"][0]["calls"] = "many"
    (model / "samplers.json").write_text(json.dumps(data))
    assert "rows[0].calls" in refused(capsys, "sample", model, "--budget", "nfe=9")


def test_some_samplers_alone_do_not_replace_the_table(trained: Path, tmp_path: Path) -> None:
    before, out = (trained / "samplers.json").read_bytes(), tmp_path / "some"
    words = ["compare-samplers", str(trained), "-n", "8", "--calls", "5", "--out", str(out)]
    assert main([*words, "--samplers", "dpm"]) == 0
    assert {r.name for r in read(out).rows} == {"dpm"} and (out / "samplers.html").is_file()
    assert (trained / "samplers.json").read_bytes() == before
    assert main([*words, "--samplers", "dpn"]) == 2
