"""`scorefield selftest`: the claims of the library on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

if TYPE_CHECKING:
    from scorefield.selftest import Bench, CheckGroup, CheckResult


PackageName = Literal["process", "score", "losses", "nets", "sampling", "likelihood", "posteriors", "metrics", "data"]
"""The keys of `selftest.GROUPS`; a test compares the two."""


@dataclass(frozen=True)
class Selftest:
    """Test on this machine what the library claims: every part against closed forms, in about a minute.

    Schedules, scores, losses, orders of convergence of every sampler, likelihoods, posteriors, metrics and units, each
    with the measured number, the number it must be and the allowed error. Prints a certificate and writes it to OUT as
    certificate.json and report.html. The exit status is 1 if any check fails.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device of the states; auto is CUDA, else MPS, else the CPU. Arithmetic is float64; MPS, which lacks it, uses
    float32 with wider allowed errors, and the CPU for what float32 cannot decide."""
    only: tuple[PackageName, ...] = ()
    """Only the checks of these packages."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/selftest")
    """Output folder for certificate.json and report.html."""


def run(command: Selftest) -> int:
    """Carry out the command; 1 if any check failed.

    Raises:
        ValueError: There is no such device.
        KeyboardInterrupt: The run was stopped; finished checks have been printed.
    """
    import torch

    from scorefield._files import write_json
    from scorefield.models.run_folder import environment_lines
    from scorefield.reports.report import write_report
    from scorefield.selftest import bench_for, certify
    from scorefield.selftest.page import sections
    from scorefield.selftest.running import groups_named

    bench, groups, began = bench_for(command.device), groups_named(command.only), time.perf_counter()
    rows: list[CheckResult] = []
    threads = torch.get_num_threads()
    # Tensors are small: a second thread would not help, and on a busy machine the two wait for each other.
    torch.set_num_threads(1)
    try:
        for group in groups:
            print(_run_group(group, bench, rows), flush=True)
        certificate = certify(rows, bench, time.perf_counter() - began)
    except KeyboardInterrupt:
        print("\n" + certify(rows, bench, time.perf_counter() - began).text())
        raise KeyboardInterrupt(f"stopped after {len(rows)} checks; no certificate was written") from None
    finally:
        torch.set_num_threads(threads)
    print("\n" + certificate.text())
    write_json(command.out / "certificate.json", certificate.record())
    page = write_report(
        command.out / "report.html",
        sections(certificate),
        title="Selftest certificate",
        subtitle=certificate.verdict,
        command=certificate.host["command"],
        environment={**certificate.facts(), **environment_lines(certificate.host)},
    )
    print(f"{command.out / 'certificate.json'}\n{page}")
    return 1 if certificate.failed else 0


def _run_group(group: CheckGroup, bench: Bench, rows: list[CheckResult]) -> str:
    """Run the checks of a group, which go to `rows`; a line about them."""
    from scorefield.cli.console.progress import bar
    from scorefield.selftest import run as run_checks
    from scorefield.selftest.running import checks_of

    with bar() as progress:
        task = progress.add_task(group.name, total=len(checks_of(group, bench)))

        def one_more(row: CheckResult) -> None:
            rows.append(row)
            progress.advance(task)

        done = run_checks([group], bench, one_more)
    bad = sum(not row.passed for row in done)
    verdict = f"{bad} FAILED" if bad else "passed"
    return f"{group.name:10}  {len(done):3} checks  {sum(row.seconds for row in done):6.1f} s  {verdict}"
