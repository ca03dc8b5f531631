"""Tests of the selftest: it passes, its certificate is complete, and each defect is caught by the right checks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from scorefield.cli import main
from scorefield.cli.selftest import PackageName
from scorefield.sampling import Step
from scorefield.selftest import GROUPS, Bench, Check, Measurement, bench_for, certify, run, run_check
from scorefield.selftest.page import sections
from selftest.selftest_mutants import MUTANTS, failing

CPU = Bench(torch.device("cpu"))
EVERY = [check for group in GROUPS.values() for check in group.checks]


def artificial(value: Any, target: float = 0.0, allowed: float = 1.0, single: float | None = None) -> Check:
    """Return a check whose measurement is a value, or a function of the bench."""

    def measure(bench: Bench) -> Measurement:
        number: float = value(bench) if callable(value) else value  # pyright: ignore[reportAssignmentType]
        return Measurement(number, {"a part": 2.0})

    return Check("data", "artificial", "a claim", "an equation", measure, "units", target, allowed, "because", single)


# ------------------------------------------------------------------------------------------------ the list of checks


def test_the_command_names_the_groups() -> None:
    assert get_args(PackageName) == tuple(GROUPS)


def test_checks_have_unique_names_and_explanations() -> None:
    assert len({check.key for check in EVERY}) == len(EVERY) > 100
    for check in EVERY:
        assert all((check.claim, check.by, check.why, check.unit)), check.key
        assert check.allowed >= 0.0 and (check.single is None or check.single >= check.allowed), check.key


def test_every_step_with_an_order_is_measured() -> None:
    """Every concrete step of the package `sampling` that declares an order has a check with its name."""
    found = {check.name for check in GROUPS["sampling"].checks}
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
    row = run_check(artificial(value, target=1.0, allowed=1.0), CPU)
    assert row.passed == passed
    json.dumps(row.record(), allow_nan=False)


def test_a_check_that_raises_an_error_has_failed_and_the_others_run() -> None:
    def broken(bench: Bench) -> float:
        raise RuntimeError("no such kernel")

    rows = [run_check(check, CPU) for check in (artificial(broken), artificial(0.5))]
    assert [row.passed for row in rows] == [False, True]
    certificate = certify(rows, CPU, 1.0)
    record = certificate.record()
    assert record["passed"] is False and record["failed"] == ["data: artificial"]
    assert record["rows"][0]["problem"] == "RuntimeError: no such kernel" and record["rows"][0]["measured"] is None
    text = certificate.text()
    assert "FAIL artificial" in text and "no such kernel" in text
    assert text.endswith("FAILED: 1 of 2 checks: data: artificial")
    html = "".join(block.html for section in sections(certificate) for block in section.blocks)
    assert "FAILED" in html and "no such kernel" in html and "a part" in html


def test_what_float32_cannot_decide_runs_on_the_cpu() -> None:
    single = Bench(torch.device("cpu"), torch.float32)
    dtypes = []
    for check in (
        artificial(lambda b: dtypes.append(b.dtype) or 5.0, single=10.0),
        artificial(lambda b: dtypes.append(b.dtype) or 0.5),
    ):
        row = run_check(check, single)
        assert row.passed and row.record()["dtype"] == str(dtypes[-1]).removeprefix("torch.")
    assert dtypes == [torch.float32, torch.float64]
    assert "no float64" in certify([], single, 0.0).facts()["device"]


def test_float32_passes_with_its_wider_allowed_errors() -> None:
    rows = run([GROUPS[name] for name in ("losses", "data")], Bench(torch.device("cpu"), torch.float32))
    assert not [row.check.key for row in rows if not row.passed]
    assert sum(row.record()["dtype"] == "float32" for row in rows) >= 7


# ------------------------------------------------------------------------------------------------ the command


def test_certificate_of_two_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--device", "cpu", "--only", "data", "process", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "certificate.json").read_text())
    assert record["passed"] and record["failed"] == [] and record["checks"] == len(record["rows"]) == 14
    assert "sampling" in record["rooms left out"] and "not tested: score" in out
    assert [row["room"] for row in record["rows"]] == ["process"] * 9 + ["data"] * 5, "in the order of the groups"
    assert len(record["code"]["sha256"]) == 64 and record["code"]["version"] and record["host"]["packages"]["torch"]
    assert record["device"] == "cpu" and record["dtype"] == "float64"
    row = next(row for row in record["rows"] if row["name"] == "rates")
    assert row["passed"] and row["error"] <= row["allowed"] == 1e-7 and "VP, drift" in row["details"]
    page = (tmp_path / "report.html").read_text()
    assert "Fokker" not in page and "drift and diffusion follow from" in page and "<svg" in page


def test_a_defect_makes_the_command_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS["log-Jacobian without dequantisation"].patch(monkeypatch)
    assert main(["selftest", "--device", "cpu", "--only", "data", "--out", str(tmp_path)]) == 1
    assert "FAILED: 2 of 5 checks: data: Jacobians; data: bits" in capsys.readouterr().out
    assert json.loads((tmp_path / "certificate.json").read_text())["failed"] == ["data: Jacobians", "data: bits"]


def test_ctrl_c_prints_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(bench: Bench) -> Measurement:
        raise KeyboardInterrupt

    checks = [GROUPS["data"].checks[0], artificial(stop)]
    object.__setattr__(checks[1], "measure", stop)
    monkeypatch.setattr(GROUPS["data"], "checks", checks)
    assert main(["selftest", "--device", "cpu", "--only", "data", "--out", str(tmp_path)]) == 130
    found = capsys.readouterr()
    assert "stopped: 1 checks passed, 1 of the same groups were not run" in found.out
    assert "ok   round trips" in found.out and "stopped after 1 checks; no certificate was written" in found.err
    assert not list(tmp_path.iterdir())


def test_a_device_that_does_not_exist_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["selftest", "--device", "cuda"]) == 2
    assert "there is no device 'cuda' here" in capsys.readouterr().err
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert bench_for().device.type == "mps" and not bench_for().double


# ------------------------------------------------------------------------------------------------ defects


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if m.slow else []) for n, m in MUTANTS.items()]
)
def test_a_defect_is_caught_by_exactly_its_checks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    mutant.patch(monkeypatch)
    assert failing(mutant.among) == mutant.caught_by


@pytest.mark.slow
def test_every_check_passes() -> None:
    rows = run(GROUPS.values(), CPU)
    assert len(rows) == len([check for check in EVERY if not check.accelerator])
    assert not certify(rows, CPU, 0.0).failed, certify(rows, CPU, 0.0).text()
