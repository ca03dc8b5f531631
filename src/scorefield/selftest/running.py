"""Runs checks group by group; a check that raises an error has failed, and the others still run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scorefield._codec import near
from scorefield.selftest import data, likelihood, losses, metrics, nets, posteriors, process, sampling, score
from scorefield.selftest.check import Bench, Check, CheckGroup, Measurement

GROUPS: dict[str, CheckGroup] = {
    module.GROUP.name: module.GROUP
    for module in (process, score, losses, nets, sampling, likelihood, posteriors, metrics, data)
}
"""Groups by the name that `--only` takes, in the order in which they run."""


@dataclass(frozen=True)
class CheckResult:
    """Result of a check.

    Args:
        check: The check.
        bench: Device and dtype on which it ran.
        found: Its measurement; None where it raised an error.
        problem: The error.
        seconds: Wall-clock time.
    """

    check: Check
    bench: Bench
    found: Measurement | None
    problem: str | None
    seconds: float

    @property
    def error(self) -> float:
        """Distance of the measurement from its target; infinite where it is NaN or the check raised an error."""
        error = math.inf if self.found is None else abs(self.found.value - self.check.target)
        return math.inf if math.isnan(error) else error

    @property
    def allowed(self) -> float:
        """Largest error with which the check passes."""
        return self.check.tolerance(self.bench)

    @property
    def passed(self) -> bool:
        """Whether the error is at most the allowed one."""
        return self.error <= self.allowed

    def record(self) -> dict[str, Any]:
        """Return the result as strict JSON; numbers that are not finite become null."""
        check, found = self.check, self.found
        return {
            "room": check.group,  # the name of this field in certificates since schema 1
            "name": check.name,
            "claim": check.claim,
            "by": check.by,
            "measured": None if found is None else _finite(found.value),
            "unit": check.unit,
            "must be": check.target,
            "error": _finite(self.error),
            "allowed": self.allowed,
            "why": check.why,
            "passed": self.passed,
            "problem": self.problem,
            "device": str(self.bench.device),
            "dtype": str(self.bench.dtype).removeprefix("torch."),
            "seconds": self.seconds,
            "details": {} if found is None else {name: _finite(value) for name, value in found.details.items()},
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def bench_for(device: str = "auto") -> Bench:
    """Return the bench of a device, in float64 where the device has it.

    Args:
        device: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1, ... or mps.

    Raises:
        ValueError: There is no such device on this machine.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    kind, _, number = device.partition(":")
    missing = not available.get(kind, False) or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count())
    if missing:
        usable = ", ".join(name for name, is_available in available.items() if is_available)
        raise ValueError(
            f"there is no device {device!r} here: torch {torch.__version__} finds {usable}. Use one of these or 'auto',"
            " or install a build of torch for that device"
        )
    return Bench(torch.device(device), torch.float32 if kind == "mps" else torch.float64)


def groups_named(names: Sequence[str] | None) -> list[CheckGroup]:
    """Return the named groups in the order in which they run; all groups if there are no names.

    Raises:
        ValueError: There is no group of that name.
    """
    for name in names or ():
        if name not in GROUPS:
            raise ValueError(
                f"there is no group of checks {name!r}.{near(name, GROUPS)} The groups are {', '.join(GROUPS)}"
            )
    return [group for name, group in GROUPS.items() if not names or name in names]


def checks_of(group: CheckGroup, bench: Bench) -> list[Check]:
    """Return the checks of a group that run on a bench; comparisons with the CPU run only on accelerators."""
    return [check for check in group.checks if not check.accelerator or bench.device.type != "cpu"]


def run_check(check: Check, bench: Bench) -> CheckResult:
    """Run one check on a bench, or on the CPU where float32 is not sufficient."""
    used, began = check.bench(bench), time.perf_counter()
    found, problem = None, None
    try:
        found = check.measure(used)
    except Exception as error:  # an error of one part must not keep the other claims from being checked
        problem = f"{type(error).__name__}: {error}"
    return CheckResult(check, used, found, problem, time.perf_counter() - began)


def run(
    groups: Iterable[CheckGroup], bench: Bench, on_result: Callable[[CheckResult], None] | None = None
) -> list[CheckResult]:
    """Run every check of some groups.

    Args:
        groups: The groups.
        bench: Device and dtype; checks for which float32 is not sufficient run on the CPU.
        on_result: Called with each result as it is finished.
    """
    results = []
    for group in groups:
        for check in checks_of(group, bench):
            results.append(run_check(check, bench))
            if on_result is not None:
                on_result(results[-1])
    return results
