"""`scorefield selftest` as data, like `commands`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RoomName = Literal["process", "score", "losses", "nets", "sampling", "likelihood", "posteriors", "metrics", "data"]
"""The keys of `lab.selftest.ROOMS`; a test compares the two."""


@dataclass(frozen=True)
class Selftest:
    """Prove, on this machine, what the library claims: every part against closed forms, in about a minute.

    Schedules, scores, losses, orders of convergence of every sampler, likelihoods, posteriors, metrics and units, each
    with its measured number, what it must be and how far it may be off. Prints a certificate and writes it to OUT as
    certificate.json and report.html. The exit status is 1 if any check fails.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where states are; auto is CUDA, else MPS, else the CPU. In float64, which MPS has not: there in float32, with
    wider allowed errors, and on the CPU what float32 cannot decide."""
    only: tuple[RoomName, ...] = ()
    """Some rooms alone."""
    out: Path = Path("runs/selftest")
    """Folder of certificate.json and report.html."""
