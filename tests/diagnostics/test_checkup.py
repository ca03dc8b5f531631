"""Checkups of models: receipts, the age of averages, what is said without data, the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from scorefield import _codec, diagnostics
from scorefield.cli import main
from scorefield.data import open_data
from scorefield.diagnostics import AverageAge, Checkup, Examples, Settings, average_age, examine_model
from scorefield.diagnostics.page import levels, lines, remedies, sections, shown
from scorefield.evaluation import examples
from scorefield.models.experiment import Averaging
from scorefield.models.model import Model, load
from scorefield.reports.report import write_report
from scorefield.training.ema import Averages, share_of_start
from scorefield.training.trainer import train
from training.tiny import tiny

SETTINGS = Settings(count=32, levels=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, with an average that warms up and one that hardly moves."""
    folder = tmp_path_factory.mktemp("doctor") / "run"
    averaging = Averaging(decays=(0.5, 0.99999), warmup=False)
    train(replace(tiny(), averaging=averaging, training=replace(tiny().training, steps=20)), folder)
    return folder


def some(model: Model) -> tuple[Examples, Examples]:
    data = open_data(model.experiment.data)
    assert data.held_out is not None
    return tuple(Examples(*examples(s, 40), data.name, s.name) for s in (data.held_out, data.train))  # type: ignore[return-value]


def test_checkup_of_a_model_round_trips_and_says_what_it_depends_on(run: Path, tmp_path: Path) -> None:
    model = load(run)
    checkup = examine_model(model, *some(model), SETTINGS)
    assert _codec.loads(_codec.dumps(checkup), Checkup) == checkup
    receipt, found = checkup.receipt, checkup.examination
    assert receipt.model_hash == model.hash and receipt.data is not None and receipt.train is not None
    assert receipt.data.hash != receipt.train.hash and dict(receipt.lines())["weights"] == "ema:0.5"
    assert len(found.rows) == 3 and {"schedule: sampler", "EMA age"} <= {f.name for f in found.findings}

    heading, cells = levels(found)
    assert heading[0] == "t" and heading[-1] == "verdict" and len(cells) == 3
    assert all(len(row) == len(heading) for row in cells)
    assert any(line.startswith("not examined: excess of the loss") for line in lines(found))
    assert {row[0] for row in remedies(found)[1]} >= {"wrong sigma scale", "EMA never updated", "added curl"}
    html = write_report(tmp_path / "r.html", sections(checkup), title="a < b").read_text()
    assert html.count("<svg") == 7 and "a &lt; b" in html and "In short" in html


def test_age_of_averages_is_measured_from_the_weights(run: Path) -> None:
    young, old = (average_age(load(run, weights=f"ema:{d}")) for d in ("0.5", "0.99999"))
    assert young is not None and old is not None and young.measured is not None and old.measured is not None
    assert young.updates == old.updates == 20
    assert young.expected == pytest.approx(0.5**20, abs=1e-6) and old.expected == pytest.approx(0.99999**20)
    assert old.measured.value == pytest.approx(1.0, abs=1e-3)  # it still is the initial weights
    assert old.finding().name == "EMA never updated" and old.finding().verdict == "faulty"
    assert young.measured.value < 0.3 and young.finding().verdict == "healthy"
    assert average_age(load(run, weights="raw")) is None
    suspect = AverageAge("ema:0.999", 700, 0.31, None, None).finding()
    assert suspect.verdict == "suspect" and "still holds 0.31 of the initial weights after 700 updates" in suspect.says


def test_share_of_start_is_what_an_average_holds() -> None:
    """Of a weight that jumps from 1 to 0 before the first update, the average is the share itself."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    settings = Averaging(decays=(0.9, 0.99), warmup=True)
    averages = Averages(network, settings)
    with torch.no_grad():
        network.weight.zero_()
    for _ in range(6):
        averages.update()
    for decay in settings.decays:
        held = float(averages.values[f"ema:{decay:g}"]["weight"].detach())
        assert share_of_start(settings, decay, 6) == averages.age(decay) == pytest.approx(held, rel=1e-4)
    assert share_of_start(Averaging((0.9,), warmup=False), 0.9, 6) == pytest.approx(0.9**6)
    assert share_of_start(settings, 0.9, 1000) == 0.0


def test_model_without_data_is_examined_for_what_needs_none(run: Path) -> None:
    model = load(run)
    found = examine_model(model, None, None, replace(SETTINGS, levels=2)).examination
    assert "there are no data" in found.not_examined[0] and found.named is None
    assert all(row.loss is None for row in found.rows)
    assert "loss" not in levels(found)[0] and "asymmetry" in levels(found)[0]


def test_command_writes_a_record_and_a_page_and_is_strict_when_asked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", str(run), "-n", "32", "--levels", "2", "--weights", "ema:0.99999", "--out", str(tmp_path)]
    assert main([*words, "--strict"]) == 1
    told = capsys.readouterr().out
    assert "faulty   EMA never updated: the average ema:0.99999 still holds 1 of" in told and "verdict: faulty" in told
    checkup = _codec.loads((tmp_path / "doctor.json").read_text(), Checkup)
    assert checkup.examination.verdict == "faulty" and checkup.receipt.weights == "ema:0.99999"
    assert "EMA never updated" in (tmp_path / "report.html").read_text()
    assert main(["doctor", "oracle:gaussian-8d", "-n", "32", "--levels", "2", "--out", str(tmp_path), "--strict"]) == 0
    assert "verdict: healthy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["oracle:gaussian-8d", "-n", "8"], "at least 32"),
        (["oracle:gaussian-8d", "--levels", "1"], "must be at least 2"),
        (["oracle:gaussian-9d"], "Did you mean"),
        (["oracle:gaussian-8d", "--data", "x"], "its data are its own samples"),
    ],
)
def test_command_refuses_what_cannot_be(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err


def test_numbers_are_shown_with_half_of_their_interval() -> None:
    assert shown(diagnostics.Size(0.5, 0.25, 0.75)) == "0.5\u00a0±0.2"
    assert (
        shown(diagnostics.Size(1e-16, 0.0, 2e-16)) == "0"
        and shown(None) == ""
        and shown(diagnostics.Size(2.0, 2.0, 2.0)) == "2"
    )


@pytest.mark.slow
def test_bundled_model_is_not_called_faulty() -> None:
    model = load("digits")
    data, seen = some(model)
    settings = Settings(count=40, levels=6)
    found = examine_model(model, data, seen, settings).examination
    assert found.verdict != "faulty" and found.named is None
    assert all(row.asymmetry is not None and row.asymmetry.value < 0.3 for row in found.rows)
