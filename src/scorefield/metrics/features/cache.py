"""Features kept on disk: a file each for one set of examples, in order, through one feature function."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scorefield._files import replacing
from scorefield.metrics.features.feature import Features

FORMAT = 1
"""Version of the file format, part of the key, so that files of older formats are not found."""
HEADER = "scorefield features"


class FeatureCache:
    """A folder of features, each file named by a hash of all that its rows depend on.

    That is the examples (shape, dtype and bytes, in order), the feature function (name and hash) and the version of
    torch. Features without a hash are computed and never kept. A file is written atomically, and read only where its
    header says what its name says and its checksum holds: any other is refused and named, not used and not replaced.

    Args:
        folder: Folder of the files; made when the first is written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def rows(self, x: Tensor, features: Features, compute: Callable[[], Tensor]) -> Tensor:
        """Features of examples, from the folder where it has them.

        Args:
            x: The examples, (N, *event).
            features: The feature function.
            compute: Gives the features where the folder has none, (N, F).

        Raises:
            ValueError: The file of these features is damaged or holds others; the message says which to delete.
        """
        if features.hash is None:
            return compute()
        key = _key(x, features)
        path = self.folder / f"features-{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        if path.exists():
            return _read(path, key, len(x))
        rows = compute().detach().cpu().contiguous()
        header = {HEADER: key, "checksum": _checksum(rows), "name": features.name}
        with replacing(path) as temporary:
            save_file({"rows": rows}, str(temporary), metadata=header)
        return rows


def _key(x: Tensor, features: Features) -> str:
    values = x.detach().cpu().contiguous()
    digest = hashlib.sha256()
    for block in values.reshape(len(values), -1).split(4096):
        digest.update(block.view(torch.uint8).numpy().tobytes())
    facts = {
        "format": FORMAT,
        "examples": [str(x.dtype), list(x.shape), digest.hexdigest()],
        "features": [features.name, features.hash],
        "torch": torch.__version__.split("+")[0],
    }
    return json.dumps(facts, sort_keys=True)


def _checksum(rows: Tensor) -> str:
    head = f"{rows.dtype} {tuple(rows.shape)}".encode()
    return hashlib.sha256(head + rows.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def _read(path: Path, key: str, count: int) -> Tensor:
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            rows = file.get_tensor("rows") if "rows" in file.keys() else torch.empty(0)
    except (SafetensorError, OSError) as error:
        raise _refused(path, f"it cannot be read ({error})") from None
    if header.get(HEADER) != key:
        raise _refused(path, "its header is of other examples or features than its name")
    if len(rows) != count or header.get("checksum") != _checksum(rows):
        raise _refused(path, "its rows are not those that were written")
    return rows


def _refused(path: Path, why: str) -> ValueError:
    return ValueError(f"the feature cache {path} is not used: {why}; delete that file, and the features are computed")
