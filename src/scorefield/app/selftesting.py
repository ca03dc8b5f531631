"""scorefield selftest: checks room by room, then the certificate as text, JSON and a page."""

from __future__ import annotations

import time

from scorefield.app.evaluation import flat
from scorefield.app.selftest_command import Selftest
from scorefield.lab.files import write_json
from scorefield.lab.report import write_report
from scorefield.lab.selftest import Row, bench_of, certify, run
from scorefield.lab.selftest.page import sections
from scorefield.lab.selftest.running import rooms_named


def selftest(command: Selftest) -> int:
    """Carry out the command; 1 if any check failed.

    Raises:
        ValueError: There is no such device.
        KeyboardInterrupt: It was stopped; what was done has been printed.
    """
    bench, rooms, began = bench_of(command.device), rooms_named(command.only), time.perf_counter()
    rows: list[Row] = []
    try:
        for room in rooms:
            done = run([room], bench, rows.append)
            bad = sum(not row.passed for row in done)
            seconds = sum(row.seconds for row in done)
            verdict = f"{bad} FAILED" if bad else "passed"
            print(f"{room.name:10}  {len(done):3} checks  {seconds:6.1f} s  {verdict}", flush=True)
    except KeyboardInterrupt:
        print("\n" + certify(rows, bench, time.perf_counter() - began).text())
        raise KeyboardInterrupt(f"stopped after {len(rows)} checks; no certificate was written") from None
    certificate = certify(rows, bench, time.perf_counter() - began)
    print("\n" + certificate.text())
    write_json(command.out / "certificate.json", certificate.record())
    page = write_report(
        command.out / "report.html",
        sections(certificate),
        title="Selftest certificate",
        subtitle=certificate.verdict,
        command=certificate.host["command"],
        environment={**certificate.facts(), **flat(certificate.host)},
    )
    print(f"{command.out / 'certificate.json'}\n{page}")
    return 1 if certificate.failed else 0
