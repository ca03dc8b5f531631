"""Running checks: room by room, each on its bench; a check that breaks has failed, and the others go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scorefield._codec import near
from scorefield.selftest import data, likelihood, losses, metrics, nets, posteriors, process, sampling, score
from scorefield.selftest.check import Bench, Check, Found, Room

ROOMS: dict[str, Room] = {
    module.ROOM.name: module.ROOM
    for module in (process, score, losses, nets, sampling, likelihood, posteriors, metrics, data)
}
"""What `--only` can name, in the order in which they are run."""


@dataclass(frozen=True)
class Row:
    """A check and what came out.

    Args:
        check: What was asked.
        bench: Where it was run.
        found: What was measured; None where it broke.
        problem: Why it broke.
        seconds: Wall time.
    """

    check: Check
    bench: Bench
    found: Found | None
    problem: str | None
    seconds: float

    @property
    def error(self) -> float:
        """Distance from what it must be; infinite where it broke or is not a number."""
        error = math.inf if self.found is None else abs(self.found.value - self.check.target)
        return math.inf if math.isnan(error) else error

    @property
    def allowed(self) -> float:
        """How large the error may be."""
        return self.check.tolerance(self.bench)

    @property
    def passed(self) -> bool:
        """Whether it is at most that."""
        return self.error <= self.allowed

    def record(self) -> dict[str, Any]:
        """As strict JSON; what is not finite is null."""
        check, found = self.check, self.found
        return {
            "room": check.room,
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


def bench_of(device: str = "auto") -> Bench:
    """The bench of a device, in float64 where it has it.

    Args:
        device: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:1, ... or mps.

    Raises:
        ValueError: There is no such device here.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind, _, number = device.partition(":")
    missing = not there.get(kind, False) or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count())
    if missing:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ValueError(
            f"there is no device {device!r} here: torch {torch.__version__} finds {found}. Use one of these or 'auto',"
            " or install a build of torch for that device"
        )
    return Bench(torch.device(device), torch.float32 if kind == "mps" else torch.float64)


def rooms_named(names: Sequence[str] | None) -> list[Room]:
    """Those rooms, in the order in which they are run; all for None.

    Raises:
        ValueError: There is no room of that name.
    """
    for name in names or ():
        if name not in ROOMS:
            raise ValueError(f"there is no room {name!r} to test.{near(name, ROOMS)}")
    return [room for name, room in ROOMS.items() if not names or name in names]


def checks_of(room: Room, bench: Bench) -> list[Check]:
    """The checks of a room that are run there: those that compare with the CPU are for accelerators."""
    return [check for check in room.checks if not check.accelerator or bench.device.type != "cpu"]


def run_check(check: Check, bench: Bench) -> Row:
    """Measure one claim."""
    where, began = check.bench(bench), time.perf_counter()
    found, problem = None, None
    try:
        found = check.measure(where)
    except Exception as error:  # whatever a broken part does, the other claims are still to be tested
        problem = f"{type(error).__name__}: {error}"
    return Row(check, where, found, problem, time.perf_counter() - began)


def run(rooms: Iterable[Room], bench: Bench, on_row: Callable[[Row], None] | None = None) -> list[Row]:
    """Measure every claim of some rooms.

    Args:
        rooms: Which.
        bench: Where; checks that float32 cannot decide are run on the CPU.
        on_row: Called with every row as it is done.
    """
    rows = []
    for room in rooms:
        for check in checks_of(room, bench):
            rows.append(run_check(check, bench))
            if on_row is not None:
                on_row(rows[-1])
    return rows
