"""Samples on disk: samples.npz in data units, a record of how they were made, pictures for the eye."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield import _codec
from scorefield._files import replacing, write_json
from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.metrics import SampleSource
from scorefield.models.model import Model, Samples
from scorefield.models.run_folder import environment
from scorefield.models.weights import WeightsError
from scorefield.plot.pictures import image_grid, save_png

ARRAYS = "samples.npz"
RECORD = "samples.json"
SHOWN = 100
"""Samples in the picture."""


@dataclass(frozen=True)
class SampleFolder:
    """Result of `read_samples`: samples in data units, their spec, how they were made, and the data of the model."""

    x: Tensor
    spec: DataSpec
    source: SampleSource
    data: DataSource


def source_of(model: Model, samples: Samples) -> SampleSource:
    """How samples were made, for receipts."""
    return SampleSource(
        sampler=type(samples.sampler.step).__name__,
        settings={
            "sampler": samples.sampler,
            "precision": model.precision,
            "compiled": model.compiled,
            "device": model.device.type,
            **({"training step": model.step} if model.step is not None else {}),
            **({"guidance": model.guidance} if model.guidance else {}),
        },
        nfe=float(samples.nfe.double().mean()),
        weights=model.weights,
        seed=samples.seed,
        start=samples.start,
        model=model.name,
        model_hash=model.hash,
    )


def write_samples(
    folder: str | Path, model: Model, samples: Samples, condition: dict[str, Any] | None = None, *, images: bool = False
) -> Path:
    """Write samples into a folder; each file appears whole or not at all.

    Args:
        folder: Output folder, made where it is missing.
        model: The model that drew the samples.
        samples: The samples.
        condition: The condition that they were drawn under.
        images: Also one PNG per sample, for image data of 1, 3 or 4 channels.

    Returns:
        The picture of the first samples.
    """
    folder = Path(folder)
    arrays = {"x": samples.x, "raw": samples.raw, "nfe": samples.nfe, "status": samples.status}
    if samples.log_prob is not None:
        arrays["nats"] = samples.log_prob.nats
    with replacing(folder / ARRAYS) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: value.numpy() for name, value in arrays.items()})
    record = {
        "source": _codec.encode(source_of(model, samples)),
        "spec": _codec.encode(model.data),
        "data": _codec.encode(model.experiment.data),
        "count": len(samples.x),
        "condition": condition or {},
        "seconds": round(samples.seconds, 3),
        "failed": int((samples.status != 0).sum()),
        "environment": environment(),
    }
    write_json(folder / RECORD, record)
    picture = save_png(image_grid(samples.x[:SHOWN], model.data), folder / "grid.png")
    if images and len(model.data.shape) == 3:
        for i, x in enumerate(samples.x):
            save_png(image_grid(x[None], model.data, 1), folder / "images" / f"{samples.start + i:06d}.png")
    return picture


def read_samples(path: str | Path) -> SampleFolder:
    """Read what `write_samples` wrote.

    Raises:
        WeightsError: The folder holds no samples.
    """
    import json

    folder = Path(path)
    if not (folder / ARRAYS).is_file() or not (folder / RECORD).is_file():
        raise WeightsError(
            f"{folder} holds no samples ({ARRAYS} and {RECORD}); `scorefield sample MODEL --out {folder}` writes them"
        )
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        x = torch.from_numpy(arrays["x"])
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    spec = _codec.decode(record["spec"], DataSpec)
    data = _codec.decode(record["data"], DataSource)
    return SampleFolder(x, spec, _codec.decode(record["source"], SampleSource), data)
