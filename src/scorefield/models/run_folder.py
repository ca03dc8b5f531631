"""The files of a run folder besides its checkpoints: experiment, environment, metrics, and the model it is."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from scorefield import _codec
from scorefield._files import replacing, write_json, write_text
from scorefield.models.experiment import AnyExperiment, Experiment, GuideExperiment

METRICS = "metrics.jsonl"


def environment() -> dict[str, Any]:
    """Versions, machine and command, for environment.json and receipts."""
    packages = {}
    for name in ("scorefield", "torch", "numpy", "safetensors", "accelerate", "pillow"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def environment_lines(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of `environment` as lines of a report, without the command, which is shown separately."""
    rest = {key: str(value) for key, value in facts.items() if key not in ("packages", "command")}
    return rest | {name: str(value) for name, value in facts["packages"].items()}


def write_experiment(run: Path, experiment: AnyExperiment) -> None:
    """experiment.json and environment.json."""
    write_text(run / "experiment.json", _codec.dumps(experiment))
    write_json(run / "environment.json", environment())


def read_any(folder: Path, trust: Collection[str] = ()) -> AnyExperiment:
    """The experiment of a run or model folder, of a score model or a guidance model.

    Raises:
        FileNotFoundError: The folder holds none.
        CodecError: The file cannot be read; the message names the field.
    """
    path = folder / "experiment.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a run or model folder: it has no experiment.json")
    return _codec.loads(path.read_text(encoding="utf-8"), AnyExperiment, trust)  # type: ignore[arg-type]


def read_experiment(folder: Path, trust: Collection[str] = ()) -> Experiment:
    """The experiment of a model.

    Raises:
        ValueError: The folder is that of a guidance model.
    """
    experiment = read_any(folder, trust)
    if isinstance(experiment, GuideExperiment):
        raise ValueError(
            f"{folder} is a guidance model, which draws no samples by itself; use it with a model:"
            f" scorefield edit class {experiment.model or 'MODEL'} --guide {folder}, or"
            f" sf.load(MODEL).guided(sf.load_guide({str(folder)!r}))"
        )
    return experiment


class MetricsLog:
    """metrics.jsonl: one JSON object a line, whole lines only, cut back to a step when a run resumes.

    Args:
        run: The run folder.
        step: Rows of later steps, written after the checkpoint that is being resumed, are removed; None keeps nothing.
    """

    def __init__(self, run: Path, step: int | None):
        self.path = run / METRICS
        rows = read_metrics(run) if step is not None else []
        kept = [row for row in rows if row["step"] <= (step or 0)]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(_line(row) for row in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row and flush it."""
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """All whole rows of a run's metrics.jsonl; a last line cut short by a crash is left out."""
    path = Path(run) / METRICS
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
