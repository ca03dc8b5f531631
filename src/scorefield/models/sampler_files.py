"""The measured table and the tuned sampler in a model folder."""

from __future__ import annotations

from pathlib import Path

from scorefield._codec import dumps, loads
from scorefield._files import write_text
from scorefield.metrics.receipt import short
from scorefield.models.sampler_records import TABLE, TUNED, MeasureReceipt, SamplerTable, TunedSampler


class StaleError(ValueError):
    """A measurement was made with other weights than those in use."""


def write_record(folder: Path, value: SamplerTable | TunedSampler) -> Path:
    """Write a table or a tuned sampler; a reader sees the old file or the new one.

    Raises:
        OSError: The folder cannot be written to.
    """
    path = folder / (TABLE if isinstance(value, SamplerTable) else TUNED)
    write_text(path, dumps(value))
    return path


def read_table(folder: Path, model_hash: str | None) -> SamplerTable | None:
    """The table of a model folder; None where there is none.

    Args:
        folder: Folder of the model.
        model_hash: Hash of the weights in use.

    Raises:
        StaleError: The table was measured with other weights.
        CodecError: The file cannot be read.
    """
    path = folder / TABLE
    if not path.is_file():
        return None
    found = loads(path.read_text(encoding="utf-8"), SamplerTable)
    _require_current(found.receipt, model_hash, path, "compare-samplers")
    return found


def read_tuned(folder: Path | None, name: str, model_hash: str | None) -> TunedSampler:
    """The tuned sampler of a model folder.

    Args:
        folder: The model's, None for a model that was not loaded from one.
        name: The model's, for messages.
        model_hash: Hash of the weights in use; None to skip the check.

    Raises:
        ValueError: There is none.
        StaleError: The sampler was tuned with other weights.
        CodecError: The file cannot be read.
    """
    path = None if folder is None else folder / TUNED
    if path is None or not path.is_file():
        raise ValueError(f"{name} has no tuned sampler; scorefield tune {folder or 'MODEL'} finds one")
    found = loads(path.read_text(encoding="utf-8"), TunedSampler)
    if model_hash is not None:
        _require_current(found.receipt, model_hash, path, "tune")
    return found


def _require_current(receipt: MeasureReceipt, model_hash: str | None, path: Path, command: str) -> None:
    if receipt.model_hash != model_hash:
        raise StaleError(
            f"{path} was measured with other weights ({receipt.weights}, hash {short(receipt.model_hash or 'none')};"
            f" those in use have {short(model_hash or 'none')}); run scorefield {command} again"
        )
