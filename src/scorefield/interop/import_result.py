"""The result of reading a checkpoint: its check against the network it describes, and its model folder."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from scorefield import _codec
from scorefield._files import NoSpaceError, replacing_folder, write_json, write_text
from scorefield.models.experiment import Experiment
from scorefield.models.model_card import fact_table
from scorefield.models.networks import meta_network
from scorefield.models.run_folder import environment
from scorefield.models.weights import differences, ema_name, save_tensors
from scorefield.process.families import VP, SubVP
from scorefield.process.general import GeneralSDE
from scorefield.process.tabulated import Tabulated

Weights = Literal["ema", "raw"]

CARD = """# {name}

A score-based generative model imported from a release's checkpoint by scorefield.

{table}

{notes}

```python
import scorefield as sf

model = sf.load("path/to/this/folder")
x = model.sample(16).x  # data units
```
"""


class CheckpointError(ValueError):
    """A checkpoint that cannot be imported as asked; the message says what it is and which command might fit."""


@dataclass(frozen=True)
class Hints:
    """Settings that the tensors do not determine, given by the user if there is no configuration file.

    Args:
        size: Height and width of the images in pixels.
        sigma_min: Smallest noise level, model units.
        sigma_max: Largest noise level, model units.
        levels: Number of noise levels.
        process: Family of the process.
        discrete: Trained on a ladder of levels, not in continuous time.

    Raises:
        CheckpointError: A number is not positive.
    """

    size: int | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    levels: int | None = None
    process: Literal["ve", "vp", "subvp"] | None = None
    discrete: bool | None = None

    def __post_init__(self) -> None:
        for name in ("size", "sigma_min", "sigma_max", "levels"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise CheckpointError(f"--{name.replace('_', '-')} must be a positive number; got {value}")


@dataclass(frozen=True)
class Imported:
    """A checkpoint as a scorefield model.

    Args:
        experiment: The experiment, with `spec` and `source` filled in.
        weights: Name of the weights: "raw", "ema", or "ema:DECAY" where the decay is known (`average_name`).
        tensors: Every entry of the network's state dictionary by our names; memory-mapped views are welcome.
        step: Training step of the checkpoint, where it says so.
        notes: Sentences for the user and the model card: what was inferred, which choice of ours differs.
    """

    experiment: Experiment
    weights: str
    tensors: Mapping[str, Tensor]
    step: int | None = None
    notes: tuple[str, ...] = ()


def average_name(decay: float | None) -> str:
    """How an imported average is called: by its decay where that is known."""
    return "ema" if decay is None else ema_name(decay)


def check(imported: Imported, checkpoint: Path) -> None:
    """Compare every tensor with the network that the experiment describes, without making that network.

    Raises:
        CheckpointError: Names or shapes differ; the differences are listed tensor by tensor.
    """
    spec = imported.experiment.spec
    assert spec is not None
    own = meta_network(imported.experiment, spec).state_dict()
    lines = differences(own, imported.tensors, theirs="checkpoint")
    if lines:
        shown = lines[:12] + ([f"  ... and {len(lines) - 12} more"] if len(lines) > 12 else [])
        raise CheckpointError(
            f"the tensors of {checkpoint} are not those of the network that its configuration describes"
            f" ({type(imported.experiment.network).__name__}, {len(own)} tensors); {len(lines)} differences:\n"
            + "\n".join(shown)
            + "\nThe configuration belongs to another checkpoint: give the right one with --config"
        )
    if odd := [name for name, value in imported.tensors.items() if not value.is_floating_point()]:
        raise CheckpointError(f"{checkpoint} holds numbers of the type {imported.tensors[odd[0]].dtype} in {odd[0]}")
    if bad := [name for name, value in imported.tensors.items() if not bool(value.isfinite().all())]:
        raise CheckpointError(
            f"{checkpoint} holds numbers that are not finite in {bad[0]} and {len(bad) - 1} more tensors"
        )


def write(imported: Imported, checkpoint: Path, layout: str, out: Path) -> None:
    """Write a model folder: model.safetensors, experiment.json, environment.json and the model card README.md.

    Args:
        imported: The checked result of a reader.
        checkpoint: The file or folder it came from; its hash goes into the card.
        layout: Name of the layout.
        out: The folder; all of it appears at once or not at all.

    Raises:
        CheckpointError: The folder exists and holds something, or cannot be written.
        NoSpaceError: The disk is full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists already; choose another --out, or remove it first")
    sha = file_hash(checkpoint)
    origin = {"layout": layout, "file": checkpoint.name, "sha256": sha, "weights": imported.weights}
    fixed_names = frozen_names(imported.experiment)
    fixed = {name: value for name, value in imported.tensors.items() if name in fixed_names}
    trained = {name: value for name, value in imported.tensors.items() if name not in fixed_names}
    metadata = {f"source_{key}": value for key, value in origin.items()}
    if imported.step is not None:
        metadata["step"] = str(imported.step)
    try:
        with replacing_folder(out) as folder:
            write_text(folder / "experiment.json", _codec.dumps(imported.experiment))
            write_json(folder / "environment.json", {**environment(), "imported": origin})
            write_text(folder / "README.md", card(imported, origin))
            save_tensors(folder / "model.safetensors", {"fixed": fixed, imported.weights: trained}, metadata)
    except NoSpaceError:
        raise  # which says what is intact
    except OSError as error:
        raise CheckpointError(f"the folder {out} cannot be written ({error.strerror}); choose another --out") from None


def frozen_names(experiment: Experiment) -> set[str]:
    """State entries that training leaves alone: buffers and frozen parameters."""
    assert experiment.spec is not None
    network = meta_network(experiment, experiment.spec)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    return set(network.state_dict()) - trained


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def card(imported: Imported, origin: Mapping[str, str]) -> str:
    """A short description of an imported model, in Markdown."""
    experiment = imported.experiment
    step = "not recorded" if imported.step is None else f"{imported.step:,}"
    rows = [
        ("layout", f"`{origin['layout']}`"),
        ("file", f"`{origin['file']}`, SHA-256 `{origin['sha256']}`"),
        *fact_table(experiment, sum(v.numel() for v in imported.tensors.values())),
        ("weights", f"`{imported.weights}`"),
        ("training step", step),
    ]
    table = "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])
    notes = "\n".join(f"* {note}" for note in imported.notes)
    return CARD.format(name=experiment.name, table=table, notes=notes)


def with_hints(hints: Hints, layout: str, *, config: bool = True, **needed: str) -> dict[str, Any]:
    """The hints by name; an error that names the flags that are missing.

    Args:
        hints: Hints given by the user.
        layout: Name of the layout, for the message.
        config: Whether this layout has configuration files, and one would do.
        needed: Name of a hint -> why the tensors do not determine it.

    Raises:
        CheckpointError: A needed hint was not given.
    """
    given = {f.name: getattr(hints, f.name) for f in dataclasses.fields(hints)}
    missing = {name: why for name, why in needed.items() if given[name] is None}
    if missing:
        flags = " ".join(f"--{name.replace('_', '-')} VALUE" for name in missing)
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        file, instead = ("without the release's configuration file ", "--config FILE, or ") if config else ("", "")
        raise CheckpointError(
            f"{file}the tensors of a {layout} checkpoint do not tell everything ({reasons}). Give {instead}{flags}"
        )
    return given


def choose_weights(
    raw: Mapping[str, Tensor],
    average: Mapping[str, Tensor] | None,
    wanted: Weights | None,
    decay: float | None,
    experiment: Experiment,
    checkpoint: Path,
    *,
    expected: bool,
) -> tuple[str, dict[str, Tensor]]:
    """The weights asked for, by default the average: (name of the set, tensors by name).

    An average holds parameters only; buffers of the network come from the raw state.

    Args:
        raw: State dictionary of the network.
        average: Averaged parameters by name; None or empty where the checkpoint holds none.
        wanted: "ema", "raw" or None.
        decay: Decay of the average, where known.
        experiment: The experiment, for the names of the network's buffers.
        checkpoint: Path of the checkpoint, for messages.
        expected: Whether such a run keeps an average, so that the trained weights are not taken in its place unasked.

    Raises:
        CheckpointError: An average is requested or expected, and there is none.
    """
    if not average:
        if wanted == "ema" or (expected and wanted is None):
            raise CheckpointError(
                f"{checkpoint} holds no average of the weights; import the trained ones, --weights raw"
            )
        return "raw", dict(raw)
    if wanted == "raw":
        return "raw", dict(raw)
    assert experiment.spec is not None
    buffers = {name for name, _ in meta_network(experiment, experiment.spec).named_buffers()}
    return average_name(decay), {**{n: v for n, v in raw.items() if n in buffers}, **average}


def settled(hints: Hints, name: str, known: Any) -> Any:
    """What the checkpoint or its configuration says of a hint's subject, else the hint; None where neither does.

    Raises:
        CheckpointError: Both do, and they differ.
    """
    hint = getattr(hints, name)
    if hint is None or known is None:
        return hint if known is None else known
    same = math.isclose(hint, known, rel_tol=1e-6) if isinstance(known, float) else hint == known
    if not same:
        flag = name.replace("_", "-")
        raise CheckpointError(f"--{flag} {hint} contradicts the checkpoint or its configuration, which says {known}")
    return known


def check_hints(hints: Hints, experiment: Experiment) -> None:
    """Refuse hints that the finished experiment contradicts, so that no hint is ignored without an error.

    Raises:
        CheckpointError: A hint says otherwise than the experiment, or says something of a process of another family.
    """
    assert experiment.spec is not None
    sizes, process = set(experiment.spec.shape[1:]), experiment.process
    assert not isinstance(process, GeneralSDE)  # no release has one
    table = experiment.levels if experiment.levels is not None else process
    family = {VP: "vp", SubVP: "subvp"}.get(type(process), "ve")
    settled(hints, "size", sizes.pop() if len(sizes) == 1 else experiment.spec.shape[1:])
    settled(hints, "process", family)
    settled(hints, "discrete", isinstance(table, Tabulated))
    if isinstance(table, Tabulated):
        settled(hints, "levels", table.levels)
    if family == "ve":
        ends = (process.ladder.table()[1][[0, -1]] if isinstance(process, Tabulated) else process.sigma(ENDS)).tolist()
        settled(hints, "sigma_min", ends[0])
        settled(hints, "sigma_max", ends[1])
    elif hints.sigma_min is not None or hints.sigma_max is not None:
        raise CheckpointError(
            f"--sigma-min and --sigma-max are of VE models, and this is a {family} model; leave them out"
        )


ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
"""The times of the least and of the most noise."""


def image_size(configured: object, hints: Hints, layout: str) -> int:
    """Height and width of the images: those of the configuration, else the hint.

    Raises:
        CheckpointError: Neither is there; or both, and they differ.
    """
    size = settled(hints, "size", None if configured is None else int(str(configured)))
    if size is None:
        with_hints(hints, layout, size="convolutions take any size")
    assert size is not None
    return size
