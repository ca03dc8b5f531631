"""A run that takes a second: a perceptron with dropout on the bundled digits, and ways to look at what it wrote."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scorefield.models.experiment import Adam, Adversary, Averaging, Experiment
from scorefield.nets.critics.mlp_critic import MLPCritic
from scorefield.nets.mlp import MLP
from scorefield.recipes import recipe
from scorefield.training.observer import Silent

TRAIN = "from scorefield.cli import main; raise SystemExit(main())"
SETTINGS = (
    "network.width=16",
    "network.depth=1",
    "network.dropout=0.1",
    "averaging.decays=[0.9, 0.99]",
    "training.batch_size=24",
    "training.accumulate=2",
    "training.log_every=7",
    "training.validate_every=20",
    "training.validation_examples=40",
    "training.checkpoint_every=10",
)


def tiny(**training: Any) -> Experiment:
    """The experiment in process."""
    base = recipe("digits-mlp")
    settings = {
        "steps": 30, "batch_size": 24, "accumulate": 2, "log_every": 7, "validate_every": 20, "validation_examples": 40,
        "checkpoint_every": 10, "keep": 2,
    }  # fmt: skip
    return replace(
        base,
        network=MLP(width=16, depth=1, dropout=0.1, embedding="positional"),
        optimiser=Adam(learning_rate=1e-3, warmup=5),
        averaging=Averaging((0.9, 0.99)),
        training=replace(base.training, **{**settings, **training}),
    )


def two_players(turns: int = 2, **training: Any) -> Experiment:
    """The same with a critic, updated twice for each update of the score."""
    adversary = Adversary(critic=MLPCritic(width=16, depth=1), optimiser=Adam(1e-3, -0.5, 0.9, warmup=5), steps=turns)
    return replace(tiny(**training), adversary=adversary)


def fingerprint(run: Path) -> dict[str, Any]:
    """Everything a run computed: hashes of weights, averages and optimiser, and the rows without their clocks."""
    newest = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    files = [*sorted(newest.glob("*.safetensors")), run / "model.safetensors"]
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    return {"step": newest.name, **hashes, "rows": rows_of(run)}


def rows_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without wall times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in rows]


TWO_PLAYERS = (
    "adversary=Adversary",
    "adversary.critic=MLPCritic",
    "adversary.critic.width=16",
    "adversary.critic.depth=1",
    "adversary.steps=2",
)


def start(
    out: Path, steps: int, world: int = 1, torchrun: bool = False, more: Sequence[str] = ()
) -> list[subprocess.Popen[bytes]]:
    """The command line in processes of its own, `world` of them working together, with `more` settings."""
    words = ["train", "digits-mlp", "--out", str(out), "--resume", "auto", "--set", f"training.steps={steps}"]
    for setting in (*SETTINGS, *more):
        words += ["--set", setting]
    base = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if torchrun:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
        script = out.parent / "launch.py"
        script.write_text(TRAIN)
        return [_spawn([*launch, str(script), *words], base)]
    port = _free_port()
    processes = []
    for rank in range(world):
        together = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
        processes.append(_spawn([sys.executable, "-c", TRAIN, *words], {**base, **(together if world > 1 else {})}))
    return processes


def _spawn(words: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def finish(processes: list[subprocess.Popen[bytes]], timeout: float = 240.0) -> int:
    """Wait for all; the first exit status that is not 0, with its output on failure."""
    for process in processes:
        output, _ = process.communicate(timeout=timeout)
        if process.returncode not in (0, 130):
            raise AssertionError(f"exit status {process.returncode}:\n{output.decode()}")
    return max(p.returncode for p in processes)


def kill_at(processes: list[subprocess.Popen[bytes]], run: Path, step: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to all once the run has logged a step at or beyond `step`."""
    deadline = time.monotonic() + 240.0
    while time.monotonic() < deadline:
        if any(p.poll() is not None for p in processes):
            raise AssertionError(
                f"a process ended by itself before step {step}:\n{processes[0].communicate()[0].decode()}"
            )
        log = run / "metrics.jsonl"
        if log.exists() and any(f'"step": {k},' in log.read_text() for k in range(step, step + 8)):
            break
        time.sleep(0.002)
    for process in processes:
        process.send_signal(number)
    if number == signal.SIGKILL:
        for process in processes:
            process.communicate(timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class CrashError(Exception):
    """Stands for a power cut: nothing after it runs."""


class CrashAt(Silent):
    """An observer that pulls the plug after a step."""

    def __init__(self, at: int):
        self.at = at

    def step(self, step: int, steps: int, loss: float) -> None:
        if step == self.at:
            raise CrashError
