"""The certificate: every claim with its measurement, the machine it was made on, and the version of the code."""

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
from scorefield.selftest.running import GROUPS, CheckResult, checks_of

SCHEMA = 1
"""Version of the fields of certificate.json."""


@dataclass(frozen=True)
class Certificate:
    """Results of the selftest.

    Args:
        rows: Result of each check.
        bench: The requested device and dtype.
        seconds: Wall-clock time of all checks.
        date: Date and time, UTC.
        code: Version and hash of the package, and the commit where the package is a git checkout.
        host: Versions of Python, torch and other packages, platform, threads, command.
    """

    rows: Sequence[CheckResult]
    bench: Bench
    seconds: float
    date: str
    code: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> list[CheckResult]:
        """Results that did not pass."""
        return [row for row in self.rows if not row.passed]

    @property
    def left_out(self) -> list[str]:
        """Names of the groups of which no check was run."""
        return [name for name in GROUPS if name not in {row.check.group for row in self.rows}]

    @property
    def not_run(self) -> list[str]:
        """Checks that were not run, of groups of which some were: the selftest was interrupted."""
        done = {row.check.key for row in self.rows}
        groups = [group for name, group in GROUPS.items() if name not in self.left_out]
        return [check.key for group in groups for check in checks_of(group, self.bench) if check.key not in done]

    @property
    def verdict(self) -> str:
        """The result in one line."""
        n, failed = len(self.rows), self.failed
        if failed:
            return f"FAILED: {len(failed)} of {n} checks: {'; '.join(row.check.key for row in failed)}"
        if self.not_run:
            return f"stopped: {n} checks passed, {len(self.not_run)} of the same groups were not run"
        rest = f"; not tested: {', '.join(self.left_out)}" if self.left_out else ""
        return f"passed: all {n} checks{rest}"

    def record(self) -> dict[str, Any]:
        """Return the certificate as strict JSON."""
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
        """Return facts about the code and the machine, in words."""
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
        """Return the certificate as text for a terminal."""
        lines = ["scorefield selftest: certificate", ""]
        lines += [f"{name:9} {value}" for name, value in self.facts().items()]
        width = max((len(row.check.name) for row in self.rows), default=0)
        for group, rows in groupby(self.rows, key=lambda row: row.check.group):
            lines += ["", f"{group}: {GROUPS[group].about}"]
            lines += [_line(row, width) for row in rows]
        return "\n".join([*lines, "", self.verdict])


def _line(row: CheckResult, width: int) -> str:
    mark = "  ok  " if row.passed else "  FAIL"
    if row.found is None:
        return f"{mark} {row.check.name:{width}}  {row.problem}"
    within = f"+- {row.allowed:.3g}" if row.allowed else "exactly"
    number = f"{row.found.value:<9.4g}  must be {row.check.target:g} {within}"
    line = f"{mark} {row.check.name:{width}}  {number}  ({row.check.unit})"
    return line if row.passed else f"{line}\n{'':6} {row.check.claim} ({row.check.by})"


def certify(rows: Sequence[CheckResult], bench: Bench, seconds: float) -> Certificate:
    """Return the certificate of some results, with the facts of this code and this machine.

    Args:
        rows: Finished results.
        bench: The requested device and dtype.
        seconds: Wall-clock time of all checks.
    """
    host = {**environment(), "cores": os.cpu_count()}
    if bench.device.type != "cuda":  # `environment` names the first CUDA card where there is one
        host["device"] = "Apple GPU" if bench.device.type == "mps" else _processor() or host["device"]
    elif torch.cuda.is_available():
        host["device"] = torch.cuda.get_device_name(bench.device)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Certificate(tuple(rows), bench, round(seconds, 2), date, code_facts(), host)


def _processor() -> str | None:
    """Return the name of the processor, or None where the system does not give it in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def code_facts() -> dict[str, Any]:
    """Return the version of the package, the hash of its source files, and the commit if the source is under git."""
    package = Path(__file__).parents[2]
    digest, count = hashlib.sha256(), 0
    for path in sorted(package.rglob("*.py"), key=lambda p: p.relative_to(package).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
        count += 1
    return {"version": __version__, "sha256": digest.hexdigest(), "files": count, **_git(package)}


def _git(package: Path) -> dict[str, Any]:
    """Return the commit and whether the package differs from it; nothing where its files are not under git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # Fails in a package that is installed inside another project's checkout, whose commit would be misleading.
        git("ls-files", "--error-unmatch", "_version.py")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return {}
