"""scorefield energy: scores in files, denoising, restoration that keeps what is known, outliers, log Z, refusals."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.models.model import load
from scorefield.nets.energies.energy_mlp import EnergyMLP
from scorefield.nets.energies.energy_resnet import EnergyResNet
from scorefield.recipes import recipe
from scorefield.training.trainer import train
from training.tiny import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of a narrow energy on the digits."""
    made = recipe("digits-energy")
    training = replace(made.training, steps=4, batch_size=16, checkpoint_every=4, validate_every=0)
    made = replace(made, network=EnergyResNet(4, 6), training=training)
    return train(made, tmp_path_factory.mktemp("energy") / "narrow")


def run(model: object, action: str, *words: object) -> int:
    return main(["energy", action, str(model), *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], model: object, action: str, *words: object) -> str:
    assert run(model, action, *words) == 2
    return capsys.readouterr().err


def test_scores_are_written_per_example_and_resumed(model: Path, tmp_path: Path) -> None:
    assert run(model, "score", "-n", 12, "--batch-size", 5, "--draws", 2, "--out", tmp_path) == 0
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == 12 and {"energy", "gradient norm", "denoising residual"} <= set(rows[0])
    with np.load(tmp_path / "scores.npz") as found:
        first = {key: found[key] for key in found}
        assert float(rows[3]["energy"]) == pytest.approx(float(first["energy"][3]), rel=1e-6)
    (tmp_path / "batches" / "score_00000005.npz").unlink()
    assert run(model, "score", "-n", 12, "--batch-size", 5, "--draws", 2, "--out", tmp_path) == 0
    with np.load(tmp_path / "scores.npz") as found:
        assert all(np.array_equal(found[key], first[key]) for key in first)


def test_another_computation_in_the_folder_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, "score", "-n", 4, "--draws", 1, "--out", tmp_path) == 0
    assert "other seed" in refused(capsys, model, "score", "-n", 4, "--draws", 1, "--seed", 1, "--out", tmp_path)


def test_one_denoising_is_the_jump(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "denoise", "-n", 4, "--noise", 0.3, "--out", tmp_path) == 0
    assert "after one denoising" in capsys.readouterr().out and (tmp_path / "denoised.png").is_file()
    loaded = load(model)
    with np.load(tmp_path / "denoised.npz") as found:
        noisy = loaded.data.to_model(torch.from_numpy(found["noisy"]))
        jump = noisy - 0.01 * loaded.as_score().gradient(noisy, torch.ones(4)).detach()  # type: ignore[attr-defined]
        torch.testing.assert_close(
            loaded.data.to_model(torch.from_numpy(found["denoised"])), jump, rtol=1e-5, atol=1e-5
        )


def test_restoration_keeps_what_is_known(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3:] = 1
    np.save(tmp_path / "mask.npy", mask)
    words = ("-n", 2, "--samples", 2, "--steps", 20, "--mask", tmp_path / "mask.npy", "--out", tmp_path / "out")
    assert run(model, "restore", *words) == 0
    from scorefield.data import open_data
    from scorefield.evaluation import examples

    data = open_data(load(model).experiment.data)
    assert data.held_out is not None
    x = examples(data.held_out, 2)[0].numpy()
    with np.load(tmp_path / "out" / "restored.npz") as found:
        restored = found["restored"]
        assert restored.shape == (2, 2, 1, 8, 8) and np.isfinite(restored).all()
        known = ~np.broadcast_to(mask.astype(bool), restored.shape)
        assert np.array_equal(restored[known], np.broadcast_to(x[:, None], restored.shape)[known])
        assert not np.array_equal(restored[:, 0], restored[:, 1])
    answers = []
    for other in (x, np.where(mask, 16 - x, x)):
        monkeypatch.setattr(
            "scorefield.cli.energy.examples.examples", lambda *a, x=other, **k: (torch.from_numpy(x), None)
        )
        assert run(model, "restore", *words) == 0
        with np.load(tmp_path / "out" / "restored.npz") as found:
            answers.append(found["restored"])
    assert np.array_equal(*answers), "what is unknown stands in the image, and may not be looked at"


def test_the_outlier_table(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("-n", 60, "--draws", 1, "--resamples", 100, "--out", tmp_path)
    assert run(model, "outliers", "--outliers", "constant", *words) == 0
    text = capsys.readouterr().out
    for said in ("energy", "typicality", "noise levels", "compressed length (no model)", "base rate", "no likelihood"):
        assert said in text, said
    record = json.loads((tmp_path / "outliers.json").read_text())
    names = [row["score"] for row in record["rows"]]
    assert record["counts"] == {"data": 20, "outliers": 30} and names[:3] == [
        "energy", "gradient norm", "denoising residual",
    ]  # fmt: skip
    for row in record["rows"]:
        low, high = row["AUROC"]["interval"]
        assert 0 <= low <= row["AUROC"]["number"] <= high <= 1
        assert row["baseline"] == ("AUROC minus best baseline" not in row)
    variance = next(row for row in record["rows"] if row["score"] == "variance")
    assert variance["AUROC"]["number"] == 0.0, "constant images have no variance: the most usual by that score"
    assert (tmp_path / "outliers.html").is_file()


def test_other_data_must_fit_or_be_made_to(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "big.npy", np.random.default_rng(0).integers(0, 256, (40, 3, 12, 12), dtype=np.uint8))
    words = ("-n", 60, "--draws", 1, "--resamples", 100, "--out", tmp_path / "out", "--outliers", tmp_path / "big.npy")
    assert "--fit" in refused(capsys, model, "outliers", *words)
    assert run(model, "outliers", *words, "--fit") == 0
    text = capsys.readouterr().out
    assert "resized from (12, 12) to (8, 8)" in text and "mapped to [0" in text and "turned to grey" in text


@pytest.mark.slow
def test_log_z_has_a_verdict_and_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe("digits-energy")
    training = replace(made.training, steps=2, batch_size=16, checkpoint_every=2, validate_every=0)
    small = train(replace(made, network=EnergyMLP(8, 1), training=training), tmp_path / "small")
    words = ("--chains", 8, "--batch-size", 4, "--warmup", 4, "--max-rungs", 8, "--out", tmp_path / "out")
    assert run(small, "logz", *words) == 0
    text = capsys.readouterr().out
    assert "verdict: unusable" in text and "no density and no bits/dim" in text and "forward" in text
    assert "reverse starts from data: 8 chains" in text and "reverse from data and from chains differ" in text
    record = json.loads((tmp_path / "out" / "logz.json").read_text())
    assert record["value"] is None and record["modes"]["agree"] is False
    (tmp_path / "out" / "parts" / "reverse from noise_00000004.npz").unlink()
    monkeypatch.setattr("scorefield.cli.energy.logz.pilot", lambda *a, **k: pytest.fail("the schedule was kept"))
    assert run(small, "logz", *words) == 0
    assert json.loads((tmp_path / "out" / "logz.json").read_text())["work_reverse"] == record["work_reverse"]
    assert "other seed" in refused(capsys, small, "logz", *words, "--seed", 1)
    narrow = ("--confinement", "box", "--box", -0.01, 0.3, "--out", tmp_path / "narrow")
    assert "chains from data have a finite energy" in refused(capsys, small, "logz", "--chains", 8, *narrow)
    assert "a ball is placed" in refused(capsys, small, "logz", "--confinement", "ball", "--box", 0, 1)


def test_what_a_score_network_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = train(tiny(steps=2, checkpoint_every=2), tmp_path / "tiny")
    assert run(network, "score", "-n", 3, "--draws", 1, "--out", tmp_path / "s") == 0
    assert "no energy: tiny is a score network" in capsys.readouterr().out
    assert "scorefield likelihood" in refused(capsys, network, "logz")
    assert "score network" in refused(capsys, network, "restore")
    assert "noise levels" in refused(capsys, network, "score", "--noise", 1e6, "--out", tmp_path / "t")
