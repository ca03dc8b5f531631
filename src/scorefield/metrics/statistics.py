"""References without their data: features, or the mean and covariance of features, that others computed.

Reference statistics are handed round as .npz files, of real data that need not be at hand (score_sde's `pool_3` of all
training images, the `mu` and `sigma` of TTUR, pytorch-fid, clean-fid, EDM and guided-diffusion). Such a file does not
say through which network, resize and quantisation its numbers went: that is whoever gives it to say, and the receipt
records it as that.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.metrics.features.feature import Features
from scorefield.metrics.receipt import ReferenceFacts, example_hashes
from scorefield.metrics.reference import FeatureRows, Reference, compact, example_keys

ROWS = ("pool_3", "pool3", "feats", "features", "activations")
"""Keys of activations, (N, F), first found first taken: score_sde's, its variants', clean-fid's."""
MOMENTS = (("mu", "sigma"), ("mean", "cov"), ("mean", "covariance"), ("mu", "cov"))
"""Keys of a mean (F,) and a covariance (F, F): TTUR's and their variants."""


class Statistics(Reference):
    """A reference whose examples are not at hand: samples of any shape may be compared with it."""

    def __init__(self, facts: ReferenceFacts, width: int):
        self.facts = facts
        self.width = width
        """Number of features F."""

    @property
    def event(self) -> tuple[int, ...]:
        """Not known.

        Raises:
            ValueError: Always.
        """
        raise self._no_examples()

    def check(self, x: Tensor) -> None:
        """Refuse samples that are no batch; which events these statistics are of is not known."""
        if x.ndim < 2:
            raise ValueError(f"samples have shape {tuple(x.shape)}; give a batch of shape (B, *event)")

    def batches(self, size: int) -> Iterator[Tensor]:
        """There are none.

        Raises:
            ValueError: Always.
        """
        raise self._no_examples()

    def _no_examples(self) -> ValueError:
        return ValueError(
            f"the reference {self.facts.name!r} holds statistics of features and no examples, which this metric needs;"
            " give the data"
        )


class ReferenceRows(Statistics):
    """Features of real data that someone computed, one row for each example; every metric of features takes it.

    Args:
        rows: Features, (N, F).
        facts: What the receipt says of them.
    """

    def __init__(self, rows: Tensor, facts: ReferenceFacts):
        super().__init__(facts, rows.shape[1])
        self._rows = FeatureRows(compact(rows), example_keys(example_hashes(rows)))

    def __len__(self) -> int:
        return len(self._rows.rows)

    def features(self, features: Features, batch_size: int = 256) -> FeatureRows:
        """The rows, whatever the features: that these made them is for whoever gives the rows to say."""
        return self._rows


class ReferenceMoments(Statistics):
    """Mean and covariance of features of real data that someone computed; a Frechet distance takes it.

    Args:
        mean: (F,).
        covariance: Symmetric and positive semi-definite, (F, F).
        facts: What the receipt says of them.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, facts: ReferenceFacts):
        super().__init__(facts, len(mean))
        self.mean = mean
        self.covariance = covariance
        self.count = facts.count

    def __len__(self) -> int:
        raise self._no_rows()

    def features(self, features: Features, batch_size: int = 256) -> FeatureRows:
        """Not known.

        Raises:
            ValueError: Always.
        """
        raise self._no_rows()

    def _no_rows(self) -> ValueError:
        return ValueError(
            f"the reference {self.facts.name!r} holds the mean and covariance of features, and this metric needs those"
            f" of every example; give the data, or a file of activations ({', '.join(ROWS)}). A mean and covariance"
            " serve FrechetDistance and FrechetInfinity(reference_is='population')"
        )


def read_statistics(path: str | Path, *, name: str | None = None, split: str | None = None) -> Reference:
    """Reference statistics of a .npz file, without the data they are of.

    Activations (`pool_3` of score_sde, `feats` of clean-fid, ...) serve every metric of features; a mean and covariance
    (`mu` and `sigma` of TTUR, pytorch-fid, clean-fid, EDM and guided-diffusion, ...) a Frechet distance. Where a file
    has both, the activations are taken. Nothing is unpickled.

    Args:
        path: The file.
        name: What the data are called, for the receipt; the file's name unless given.
        split: Name of the split that the statistics are of, where it is known.

    Returns:
        `ReferenceRows` or `ReferenceMoments`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no .npz of a known layout, or its numbers are no features; the message says what it
            holds.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} of reference statistics")
    names, arrays = _read(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def facts(count: int | None, what: str) -> ReferenceFacts:
        note = f"{what} of features from {path.name}; that the features of the samples are the same is the user's word"
        return ReferenceFacts(name or path.stem, split, count, digest, note=note)

    for key in ROWS:
        if key in arrays:
            rows = _tensor(path, key, arrays[key], 2)
            return ReferenceRows(rows, facts(len(rows), key))
    for keys in MOMENTS:
        if set(keys) <= set(arrays):
            mean, covariance = _moments(path, keys, arrays)
            return ReferenceMoments(mean, covariance, facts(None, "mean and covariance"))
    images = "; arr_0 is how images are stored: give the file as data" if "arr_0" in names else ""
    pairs = ", ".join(" and ".join(keys) for keys in MOMENTS)
    raise ValueError(
        f"{path} holds {', '.join(names) or 'nothing'}{images}; reference statistics are activations under one of"
        f" {', '.join(ROWS)}, or {pairs}"
    )


def _read(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of all arrays, and those that are understood: a file may carry the images too."""
    wanted = {*ROWS, *(key for keys in MOMENTS for key in keys)}
    try:
        # Opened here: np.load leaves a file that it cannot read open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is a single array; write it with np.savez(path, pool_3=activations)")
            with file:
                return list(file.files), {key: file[key] for key in file.files if key in wanted}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no .npz of reference statistics: {error}") from None


def _tensor(path: Path, key: str, array: np.ndarray, ndim: int) -> Tensor:
    if array.ndim != ndim or array.size == 0 or array.dtype.kind != "f" or not np.isfinite(array).all():
        wanted = "(N, F)" if ndim == 2 else "(F,)"
        raise ValueError(
            f"{key} in {path} is {array.dtype} of shape {array.shape}; wanted finite floating-point numbers of shape"
            f" {wanted}"
        )
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32 if array.dtype.itemsize < 8 else np.float64)))


def _moments(path: Path, keys: tuple[str, str], arrays: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    mean = _tensor(path, keys[0], arrays[keys[0]], 1).to(torch.float64)
    covariance = _tensor(path, keys[1], arrays[keys[1]], 2).to(torch.float64)
    square = (len(mean), len(mean))
    if tuple(covariance.shape) != square:
        raise ValueError(
            f"{keys[1]} in {path} has shape {tuple(covariance.shape)}; with {keys[0]} of {square[:1]} it must"
            f" be {square}"
        )
    skew = float((covariance - covariance.mT).abs().max())
    if skew > 1e-5 * float(covariance.abs().max()):
        raise ValueError(f"{keys[1]} in {path} is not symmetric (by {skew:g}), so it is no covariance")
    return mean, covariance
