"""The selftest: it passes here, says so in full, and each defect is caught by the checks that are about it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from scorefield.cli import main
from scorefield.cli.selftest_command import RoomName
from scorefield.sampling import Step
from scorefield.selftest import ROOMS, Bench, Check, Found, bench_of, certify, run, run_check
from scorefield.selftest.page import sections
from selftest.selftest_mutants import MUTANTS, failing

CPU = Bench(torch.device("cpu"))
EVERY = [check for room in ROOMS.values() for check in room.checks]


def made(value: Any, target: float = 0.0, allowed: float = 1.0, single: float | None = None) -> Check:
    def measure(bench: Bench) -> Found:
        number: float = value(bench) if callable(value) else value  # pyright: ignore[reportAssignmentType]
        return Found(number, {"a part": 2.0})

    return Check("data", "made", "a claim", "an equation", measure, "units", target, allowed, "because", single)


# ------------------------------------------------------------------------------------------------ what is there


def test_the_command_names_the_rooms() -> None:
    assert get_args(RoomName) == tuple(ROOMS)


def test_checks_are_told_apart_and_explained() -> None:
    assert len({check.key for check in EVERY}) == len(EVERY) > 100
    for check in EVERY:
        assert all((check.claim, check.by, check.why, check.unit)), check.key
        assert check.allowed >= 0.0 and (check.single is None or check.single >= check.allowed), check.key


def test_every_step_with_an_order_is_measured() -> None:
    """Those of the sampling room, by name."""
    found = {check.name for check in ROOMS["sampling"].checks}
    fresh: list[type[Step]] = [Step]
    while fresh:
        for cls in fresh:
            inside = cls.__module__.startswith("scorefield.sampling.") and not cls.__abstractmethods__
            if inside and cls.order is not None:
                assert any(name.startswith(f"order of {cls.__name__}") for name in found), cls.__name__
        fresh = [sub for cls in fresh for sub in cls.__subclasses__()]


# ------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("value", "passed"), [(1.9, True), (2.1, False), (-0.1, False), (math.nan, False), (math.inf, False)]
)
def test_a_number_passes_within_what_is_allowed(value: float, passed: bool) -> None:
    row = run_check(made(value, target=1.0, allowed=1.0), CPU)
    assert row.passed == passed
    json.dumps(row.record(), allow_nan=False)


def test_a_check_that_breaks_has_failed_and_the_others_go_on() -> None:
    def broken(bench: Bench) -> float:
        raise RuntimeError("no such kernel")

    rows = [run_check(check, CPU) for check in (made(broken), made(0.5))]
    assert [row.passed for row in rows] == [False, True]
    certificate = certify(rows, CPU, 1.0)
    record = certificate.record()
    assert record["passed"] is False and record["failed"] == ["data: made"]
    assert record["rows"][0]["problem"] == "RuntimeError: no such kernel" and record["rows"][0]["measured"] is None
    text = certificate.text()
    assert "FAIL made" in text and "no such kernel" in text and text.endswith("FAILED: 1 of 2 checks: data: made")
    html = "".join(block.html for section in sections(certificate) for block in section.blocks)
    assert "FAILED" in html and "no such kernel" in html and "a part" in html


def test_what_float32_cannot_decide_runs_on_the_cpu() -> None:
    single = Bench(torch.device("cpu"), torch.float32)
    seen = []
    for check in (
        made(lambda b: seen.append(b.dtype) or 5.0, single=10.0),
        made(lambda b: seen.append(b.dtype) or 0.5),
    ):
        row = run_check(check, single)
        assert row.passed and row.record()["dtype"] == str(seen[-1]).removeprefix("torch.")
    assert seen == [torch.float32, torch.float64]
    assert "no float64" in certify([], single, 0.0).facts()["device"]


def test_float32_passes_with_its_wider_errors() -> None:
    rows = run([ROOMS[name] for name in ("losses", "data")], Bench(torch.device("cpu"), torch.float32))
    assert not [row.check.key for row in rows if not row.passed]
    assert sum(row.record()["dtype"] == "float32" for row in rows) >= 7


# ------------------------------------------------------------------------------------------------ the command


def test_certificate_of_two_rooms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--device", "cpu", "--only", "data", "process", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "certificate.json").read_text())
    assert record["passed"] and record["failed"] == [] and record["checks"] == len(record["rows"]) == 14
    assert "sampling" in record["rooms left out"] and "not tested: score" in out
    assert [row["room"] for row in record["rows"]] == ["process"] * 9 + ["data"] * 5, "in the order of the rooms"
    assert len(record["code"]["sha256"]) == 64 and record["code"]["version"] and record["host"]["packages"]["torch"]
    assert record["device"] == "cpu" and record["dtype"] == "float64"
    row = next(row for row in record["rows"] if row["name"] == "rates")
    assert row["passed"] and row["error"] <= row["allowed"] == 1e-7 and "VP, drift" in row["details"]
    page = (tmp_path / "report.html").read_text()
    assert "Fokker" not in page and "drift and diffusion are what" in page and "<svg" in page


def test_a_defect_makes_the_command_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS["Jacobian that forgets the bins"].patch(monkeypatch)
    assert main(["selftest", "--device", "cpu", "--only", "data", "--out", str(tmp_path)]) == 1
    assert "FAILED: 2 of 5 checks: data: Jacobians; data: bits" in capsys.readouterr().out
    assert json.loads((tmp_path / "certificate.json").read_text())["failed"] == ["data: Jacobians", "data: bits"]


def test_ctrl_c_prints_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(bench: Bench) -> Found:
        raise KeyboardInterrupt

    checks = [ROOMS["data"].checks[0], made(stop)]
    object.__setattr__(checks[1], "measure", stop)
    monkeypatch.setattr(ROOMS["data"], "checks", checks)
    assert main(["selftest", "--device", "cpu", "--only", "data", "--out", str(tmp_path)]) == 130
    found = capsys.readouterr()
    assert "stopped: 1 checks passed, 1 of the same rooms were not run" in found.out
    assert "ok   round trips" in found.out and "stopped after 1 checks; no certificate was written" in found.err
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["selftest", "--device", "cuda"]) == 2
    assert "there is no device 'cuda' here" in capsys.readouterr().err
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert bench_of().device.type == "mps" and not bench_of().double


# ------------------------------------------------------------------------------------------------ proof that it proves


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if m.slow else []) for n, m in MUTANTS.items()]
)
def test_a_defect_is_caught_by_its_checks_and_no_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    mutant.patch(monkeypatch)
    assert failing(mutant.among) == mutant.caught_by


@pytest.mark.slow
def test_everything_passes_here() -> None:
    rows = run(ROOMS.values(), CPU)
    assert len(rows) == len([check for check in EVERY if not check.accelerator])
    assert not certify(rows, CPU, 0.0).failed, certify(rows, CPU, 0.0).text()
