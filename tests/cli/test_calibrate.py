"""scorefield calibrate: the table, what is kept, what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from scorefield.cli import calibrate as calibrate_command
from scorefield.cli import main
from scorefield.cli.console import arguments
from scorefield.evaluation import calibration
from scorefield.evaluation.calibration import ORACLES, default_operator, exact_answers, judge, oracle_subject, simulate
from scorefield.evaluation.calibration.page import sections, summary
from scorefield.inverse import all_solvers
from tolerance import SIGNIFICANCE

SMALL = ("-n", "16", "--samples", "3", "--steps", "4")


def test_help_names_every_solver_and_oracle() -> None:
    text, shared = (Path(str(m.__file__)).read_text() for m in (calibrate_command, arguments))
    told = text[text.index('"""Some of ddrm') :].split(", separated")[0].replace('"""Some of', "")
    assert {name.strip() for name in told.split(",")} == set(all_solvers())
    assert set(re.findall(r"oracle:([a-z0-9-]+)", shared)) == set(ORACLES)
    assert "subject" in {field.name for field in fields(calibrate_command.Calibrate)}


def test_table_page_and_going_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    words = ["calibrate", "oracle:mixture-2d", *SMALL, "--solvers", "pigdm,ddrm", "--out", str(tmp_path)]
    assert main([*words, "--batch-size", "12"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if "rejected" in line] == ["exact", "pigdm", "ddrm"]
    record = json.loads((tmp_path / "calibration.json").read_text())
    row = next(row for row in record["rows"] if row["solver"] == "pigdm")
    assert row["problems"] == 16 and row["answers"] == 3 and row["settings"]["sampler"]["grid"]["steps"] == 4
    page = (tmp_path / "report.html").read_text()
    assert "moment" not in page and "pigdm" in page and page.count("<svg") == 4
    assert len(list((tmp_path / "batches").glob("pigdm_*.npz"))) == 4

    monkeypatch.setattr(calibration, "answers", lambda *a, **k: pytest.fail("finished batches are not computed again"))
    assert main([*words, "--batch-size", "12"]) == 0
    again = json.loads((tmp_path / "calibration.json").read_text())
    assert again["rows"] == record["rows"]
    assert main([*words, "--batch-size", "12", "--noise", "0.3"]) == 2
    assert "another computation (other problems)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("oracle:mixture",), "there is no oracle 'mixture'"),
        (("oracle:mixture-2d", "-n", "8"), "at least 16"),
        (("oracle:mixture-2d", "--solvers", "pigmd"), "there is no solver 'pigmd'"),
        (("oracle:mixture-2d", "--solvers", ","), "names no solver"),
        (("oracle:mixture-2d", "--truth", "data"), "an oracle has no data"),
        (("oracle:mixture-2d", "--noise", "-1"), "must not be negative"),
        (("oracle:mixture-2d", "--noise", "0", "--solvers", "dps"), "divides by the noise of y, which is 0"),
        (("oracle:field", "--operator", "blurr:sigma=1"), "no operator is called 'blurr'"),
    ],
)
def test_refusals(words: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *words, "--out", str(tmp_path / "none")]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["gaussian-8d", "mixture-8d"])
def test_exact_answers_of_an_oracle_are_not_rejected(name: str) -> None:
    """Through all of what the command does but the solver; answers of another problem's posterior are rejected."""
    subject = oracle_subject(name)
    problems = simulate(subject, default_operator(subject.shape), 64, seed=2)
    found = exact_answers(problems, 16, seed=2, rows=slice(0, 64))
    row = judge("exact", problems, found, exact=found)
    assert row.verdict == "not rejected" and row.width is not None and abs(row.width.value - 1) < 0.1
    assert min(p for p in (row.ranks, row.misfit, row.tarp, row.residual) if p is not None) > SIGNIFICANCE
    swapped = {**found, "x": found["x"].roll(1, dims=0)}
    wrong = judge("swapped", problems, swapped, exact=found)
    assert wrong.misfit is not None and wrong.misfit < SIGNIFICANCE and "misfit" in wrong.verdict
    parts = sections([row, wrong], [("dps", "why not")], "told")
    assert [part.title for part in parts] == ["In short", "Coverage", "Ranks", "Tests", "Left out"]
    assert [cells[0] for cells in summary([row, wrong])[1]] == ["exact", "swapped"]


def test_truths_and_answers_share_no_noise() -> None:
    """Measurements of the same seed are independent of the truths' own draws, batch by batch."""
    subject = oracle_subject("gaussian-8d")
    problems = simulate(subject, default_operator((8,)), 400, noise=1.0, seed=0)
    e = problems.observation.residual(problems.truth)
    centred = problems.truth - problems.truth.mean(0)
    correlation = torch.corrcoef(torch.cat([e, centred], dim=1).T)[:4, 4:]
    assert float(correlation.abs().max()) < 5.5 / 20 and float(e.std()) == pytest.approx(1.0, abs=0.1)
