"""Provenance of a metric's value: every number is stored with the receipt that makes it comparable.

Two values may be compared when their receipts agree in everything but what is being compared: a Frechet distance of
1,000 samples is not that of 50,000, and neither is one over other features. Data are identified by an order-free
hash,

    H(x_1 .. x_N) = sha256(N, sum_i sha256(shape, x_i) mod 2^256)   (x_i in data units, float32, little endian),

the additive multiset hash of Bellare and Micciancio ("A new paradigm for collision-free hashing", 1997): it can be
accumulated batch by batch and merged across processes, and does not depend on how the examples were divided among them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from scorefield._codec import record
from scorefield._version import __version__

_MODULUS = 2**256


@record(tag="ReferenceFacts")
class ReferenceFacts:
    """Which data a metric compared with.

    Args:
        name: What the data are called, for example "digits".
        split: Name of the split, for example "train" or "held-out"; None when the data have no parts.
        count: Number of examples N; None where only their statistics are known, which do not say.
        hash: Order-free hash of the examples in data units; of the file, where statistics were read from one.
        units: Unit of the values.
        note: What a reader should know of them, for example that only their statistics were given.
    """

    name: str
    split: str | None
    count: int | None
    hash: str
    units: str | None = None
    note: str | None = None


@record(tag="FeatureFacts")
class FeatureFacts:
    """Which feature function a metric looked through.

    Args:
        name: The feature function's name.
        hash: Hash of its weights, None when it has none that can be hashed (then equality cannot be shown).
        note: What a reader should know of it, for example its held-out accuracy.
    """

    name: str
    hash: str | None
    note: str | None = None


@record(tag="SampleSource")
class SampleSource:
    """How the measured samples were made; None where a fact is not known.

    Args:
        sampler: Description of the sampler.
        settings: Its settings, any JSON values.
        nfe: Network evaluations per sample; the mean where samples differ.
        weights: Name of the weights that drew them, for example "ema:0.999".
        seed: The sampling seed.
        start: Index of the first sample.
        model: Name or folder of the model.
        model_hash: Hash of the model's weights.
    """

    sampler: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    nfe: float | None = None
    weights: str | None = None
    seed: int | None = None
    start: int | None = None
    model: str | None = None
    model_hash: str | None = None


@record(tag="MetricValue")
class Value:
    """A number about samples, with its uncertainty and what is wrong with it.

    Args:
        number: The value.
        interval: 95 % interval (low, high), None where none was computed.
        unit: Unit of the number, None for a pure number.
        better: Direction of better values; "near 1" for ratios whose ideal is 1; None where neither is.
        status: "ok", or "singular" when the number of examples does not determine it.
        warnings: What a reader must know before using the number.
        details: Further numbers that belong to it.
    """

    number: float
    interval: tuple[float, float] | None = None
    unit: str | None = None
    better: Literal["lower", "higher", "near 1"] | None = None
    status: Literal["ok", "singular"] = "ok"
    warnings: tuple[str, ...] = ()
    details: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __float__(self) -> float:
        """The number alone."""
        return self.number


@record(tag="Receipt")
class Receipt:
    """Everything that a metric's value depends on.

    Args:
        metric: Name of the metric.
        settings: The metric's own settings (projections, order, neighbours).
        count: Number of samples measured, N.
        samples_hash: Order-free hash of the samples in data units.
        reference: The data compared with.
        features: The feature function looked through.
        source: Provenance of the samples.
        versions: Software versions by package name.
    """

    metric: str
    settings: Mapping[str, Any]
    count: int
    samples_hash: str
    reference: ReferenceFacts
    features: FeatureFacts
    source: SampleSource = SampleSource()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def lines(self) -> tuple[tuple[str, str], ...]:
        """(what, text) for every known fact, in reading order, hashes shortened to 12 digits."""
        source, reference, features = self.source, self.reference, self.features
        facts = [
            ("metric", self.metric),
            ("settings", _pairs(self.settings)),
            ("samples", f"{self.count:,}, hash {short(self.samples_hash)}"),
            (
                "reference",
                f"{reference.name}{f', {reference.split}' if reference.split else ''},"
                f" {'an unknown number of' if reference.count is None else f'{reference.count:,}'} examples,"
                f" hash {short(reference.hash)}",
            ),
            ("about the reference", reference.note),
            ("features", f"{features.name}, {f'hash {short(features.hash)}' if features.hash else 'not hashed'}"),
            ("about the features", features.note),
            ("model", source.model),
            ("model hash", short(source.model_hash) if source.model_hash else None),
            ("weights", source.weights),
            ("sampler", source.sampler),
            ("sampler settings", _pairs(source.settings)),
            ("network evaluations per sample", None if source.nfe is None else f"{source.nfe:,g}"),
            ("seed", None if source.seed is None else str(source.seed)),
            ("first index", None if source.start is None else str(source.start)),
            ("software", _pairs(self.versions)),
        ]
        return tuple((what, text) for what, text in facts if text)


@record(tag="MetricResult")
class MetricResult:
    """A metric's value and its receipt; write it with `scorefield._codec.dumps`, read it with `loads`.

    Args:
        value: The number, its interval and its warnings.
        receipt: What it depends on.
    """

    value: Value
    receipt: Receipt

    def __float__(self) -> float:
        """The number alone."""
        return self.value.number


def short(text: str) -> str:
    """The first 12 digits of a hash, enough to tell two apart by eye."""
    return text[:12]


def _pairs(mapping: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in mapping.items())


@functools.cache
def software_versions() -> Mapping[str, str]:
    """Versions of the packages that a metric's value can depend on."""
    return {
        "scorefield": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


# ---------------------------------------------------------------------------------------------------- hashes


def example_hashes(x: Tensor) -> list[int]:
    """sha256(shape, values) of every example of a batch (B, *event), as integers below 2^256."""
    values = np.ascontiguousarray(x.detach().to("cpu", torch.float32).numpy(), dtype="<f4") + np.float32(0)  # -0 to 0
    head = repr(tuple(x.shape[1:])).encode()
    return [int.from_bytes(hashlib.sha256(head + row.tobytes()).digest(), "big") for row in values]


def sum_hashes(hashes: Iterable[int]) -> int:
    """Sum of the hashes of examples, modulo 2^256."""
    return sum(hashes) % _MODULUS


def add_hash_sums(a: int, b: int) -> int:
    """The hash sum of two disjoint collections."""
    return (a + b) % _MODULUS


def finish_hash(count: int, total: int) -> str:
    """The hash of a collection, 64 hexadecimal digits, from its number of examples and its hash sum."""
    return hashlib.sha256(count.to_bytes(8, "big") + total.to_bytes(32, "big")).hexdigest()


def data_hash(x: Tensor) -> str:
    """Order-free hash of examples in data units, (N, *event): 64 hexadecimal digits."""
    return finish_hash(len(x), sum_hashes(example_hashes(x)))


def module_hash(module: nn.Module) -> str:
    """Hash of a module's structure and of its parameters and buffers by name, 64 hexadecimal digits."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
