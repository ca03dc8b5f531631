"""The certificate: every claim with its number, the machine it was measured on and the code it is of."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from scorefield._version import __version__
from scorefield.models.run_folder import environment
from scorefield.selftest.check import Bench
from scorefield.selftest.running import ROOMS, Row, checks_of

SCHEMA = 1
"""Of certificate.json."""


@dataclass(frozen=True)
class Certificate:
    """What the selftest found.

    Args:
        rows: One for each check.
        bench: The device and dtype that were asked for.
        seconds: Wall time of all.
        date: UTC.
        code: Version and hash of the package, and the commit where it is a git checkout.
        host: Python, torch and other versions, platform, threads, command.
    """

    rows: Sequence[Row]
    bench: Bench
    seconds: float
    date: str
    code: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> list[Row]:
        """The rows that did not pass."""
        return [row for row in self.rows if not row.passed]

    @property
    def left_out(self) -> list[str]:
        """Rooms without a row."""
        return [name for name in ROOMS if name not in {row.check.room for row in self.rows}]

    @property
    def not_run(self) -> list[str]:
        """Checks without a row of rooms that have some: the selftest was stopped."""
        done = {row.check.key for row in self.rows}
        rooms = [room for name, room in ROOMS.items() if name not in self.left_out]
        return [check.key for room in rooms for check in checks_of(room, self.bench) if check.key not in done]

    @property
    def verdict(self) -> str:
        """One line."""
        n, bad = len(self.rows), self.failed
        if bad:
            return f"FAILED: {len(bad)} of {n} checks: {'; '.join(row.check.key for row in bad)}"
        if self.not_run:
            return f"stopped: {n} checks passed, {len(self.not_run)} of the same rooms were not run"
        rest = f"; not tested: {', '.join(self.left_out)}" if self.left_out else ""
        return f"passed: all {n} checks{rest}"

    def record(self) -> dict[str, Any]:
        """As strict JSON."""
        return {
            "schema": SCHEMA,
            "passed": not self.failed and not self.not_run,
            "verdict": self.verdict,
            "checks": len(self.rows),
            "failed": [row.check.key for row in self.failed],
            "rooms left out": self.left_out,
            "device": str(self.bench.device),
            "dtype": str(self.bench.dtype).removeprefix("torch."),
            "seconds": self.seconds,
            "date": self.date,
            "code": self.code,
            "host": self.host,
            "rows": [row.record() for row in self.rows],
        }

    def facts(self) -> dict[str, str]:
        """Of the code and the machine, in words."""
        commit = self.code.get("commit")
        state = "" if not commit else f", commit {commit}{' with changes' if self.code.get('changed') else ''}"
        packages = ", ".join(f"{k} {v}" for k, v in self.host.get("packages", {}).items() if v and k != "scorefield")
        dtype = str(self.bench.dtype).removeprefix("torch.")
        note = "" if self.bench.double else " (which has no float64; checks that need it were run on the CPU)"
        return {
            "code": f"scorefield {self.code.get('version')}{state}",
            "source": f"sha256 {self.code.get('sha256')} of {self.code.get('files')} files",
            "device": f"{self.bench.device}, {dtype}{note}: {self.host.get('device')}",
            "software": f"Python {self.host.get('python')}, {packages}",
            "host": f"{self.host.get('platform')}, {self.host.get('cores')} cores, {self.host.get('threads')} threads",
            "date": f"{self.date}, {self.seconds:.0f} s",
        }

    def text(self) -> str:
        """For a terminal."""
        lines = ["scorefield selftest: certificate", ""]
        lines += [f"{name:9} {value}" for name, value in self.facts().items()]
        width = max((len(row.check.name) for row in self.rows), default=0)
        for room, rows in groupby(self.rows, key=lambda row: row.check.room):
            lines += ["", f"{room}: {ROOMS[room].about}"]
            lines += [_line(row, width) for row in rows]
        return "\n".join([*lines, "", self.verdict])


def _line(row: Row, width: int) -> str:
    mark = "  ok  " if row.passed else "  FAIL"
    if row.found is None:
        return f"{mark} {row.check.name:{width}}  {row.problem}"
    within = f"+- {row.allowed:.3g}" if row.allowed else "exactly"
    number = f"{row.found.value:<9.4g}  must be {row.check.target:g} {within}"
    line = f"{mark} {row.check.name:{width}}  {number}  ({row.check.unit})"
    return line if row.passed else f"{line}\n{'':6} {row.check.claim} ({row.check.by})"


def certify(rows: Sequence[Row], bench: Bench, seconds: float) -> Certificate:
    """The certificate of finished rows, of this code and this machine."""
    host = {**environment(), "cores": os.cpu_count()}
    if bench.device.type != "cuda":  # `environment` names the first CUDA card where there is one
        host["device"] = "Apple GPU" if bench.device.type == "mps" else _processor() or host["device"]
    elif torch.cuda.is_available():
        host["device"] = torch.cuda.get_device_name(bench.device)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Certificate(tuple(rows), bench, round(seconds, 2), date, code_facts(), host)


def _processor() -> str | None:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def code_facts() -> dict[str, Any]:
    """Version of the package, the hash of its source, and the commit where the source is under git."""
    package = Path(__file__).parents[2]
    digest, count = hashlib.sha256(), 0
    for path in sorted(package.rglob("*.py"), key=lambda p: p.relative_to(package).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
        count += 1
    return {"version": __version__, "sha256": digest.hexdigest(), "files": count, **_git(package)}


def _git(package: Path) -> dict[str, Any]:
    """Commit, and whether the package differs from it; nothing where its files are not under git."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(package), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "_version.py")
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return {}
