"""Bits per dimension of held-out data under a model, as a metric with a receipt.

    b = mean_i -log2 p(x_i) / D,

p the probability of grey levels by the probability flow and the density's dequantisation bound. Its randomness is that
of the examples, of the probes and of the dequantisation, all of which the spread over examples shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scorefield import _codec
from scorefield.evaluation.sample_stream import SampleStream
from scorefield.likelihood.probability_flow import FlowSettings, require_flow
from scorefield.metrics import FeatureFacts, MetricResult, RawFeatures, Receipt, ReferenceFacts, SampleSource, Value
from scorefield.metrics.receipt import data_hash, software_versions
from scorefield.metrics.rows import mean_error, normal_interval
from scorefield.models.model import Model

NAME = "bits per dimension"
SETTINGS = FlowSettings(rtol=1e-4, atol=1e-4)
"""One probe an example: the mean over examples averages over probes too."""


def why_not(model: Model) -> str | None:
    """Why a model has no bits per dimension, None where it has."""
    if model.data.levels is None:
        return (
            f"bits per dimension are of grey levels, and the data of {model.name} are continuous; their density in"
            f" nats is `scorefield likelihood {model.name}`"
        )
    if model.precision != "fp32":
        return f"bits per dimension are solved to a tolerance, which {model.precision} cannot meet: --precision fp32"
    try:
        require_flow(model.as_flow())
    except ValueError as error:
        return f"bits per dimension need the probability flow: {error}"
    return None


class Densities:
    """Log densities of examples, part by part, for a `SampleStream` without feature functions.

    Args:
        model: A model of data with grey levels.
        x: Examples in data units, (N, *shape).
        labels: Their classes, for a class-conditional model.
        seed: Seed of probes and dequantisation.
        size: Examples in a part.

    Raises:
        ValueError: The model has no density of grey levels.
    """

    name, kept = "densities", False

    def __init__(self, model: Model, x: Tensor, labels: Tensor | None = None, *, seed: int = 0, size: int = 128):
        if (reason := why_not(model)) is not None:
            raise ValueError(reason)
        self.model, self.x, self.seed = model, x, seed
        self._labels = labels if model.data.conditions else None
        self.identity: Mapping[str, Any] = {
            "log density of": data_hash(x),
            "model": model.hash,
            "weights": model.weights,
            "settings": _codec.encode(SETTINGS),
            "seed": seed,
            "examples in a part": size,
        }

    def draw(self, first: int, count: int) -> dict[str, Tensor]:
        """Log densities of some."""
        rows = slice(first, first + count)
        found = self.model.log_prob(
            self.x[rows],
            condition=None if self._labels is None else {"class": self._labels[rows]},
            settings=SETTINGS,
            seed=self.seed,
            start=first,
            batch_size=count,
        )
        assert found.bits_per_dim is not None and found.solver_error is not None
        return {
            "x": self.x[rows],
            "bits": found.bits_per_dim,
            "solver": found.solver_error,
            "nfe": found.nfe,
            "status": found.status,
        }


def bits_per_dim(densities: Densities, stream: SampleStream, facts: ReferenceFacts) -> MetricResult:
    """The mean over examples with its 95 % interval and its receipt.

    Args:
        densities: What was computed.
        stream: Its parts, all there.
        facts: Provenance of the examples.

    Raises:
        ValueError: The flow of every example but one gave up.
    """
    n, model = len(densities.x), densities.model
    bits, solver, nfe, status = (stream.column(key, n) for key in ("bits", "solver", "nfe", "status"))
    ok = status == 0
    good, x = bits[ok].to(torch.float64), densities.x[ok]
    if len(good) < 2:
        raise ValueError(f"the flow gave up on {n - len(good)} of {n} examples; `scorefield likelihood` says why")
    number, error = float(good.mean()), mean_error(good)
    dimensions = x[0].numel()
    failed = n - len(good)
    value = Value(
        number,
        normal_interval(number, error),
        unit="bits/dim",
        better="lower",
        warnings=(f"{failed} of {n} examples are left out: the flow gave up on them",) if failed else (),
        details={
            "standard error": error,
            "solver error, mean": float(solver[ok].double().mean()) / (dimensions * float(torch.tensor(2.0).log())),
        },
    )
    source = SampleSource(
        sampler="none: log density by the probability flow",
        settings={"precision": model.precision, "device": model.device.type},
        nfe=float(nfe.double().mean()),
        weights=model.weights,
        seed=densities.seed,
        start=0,
        model=model.name,
        model_hash=model.hash,
    )
    receipt = Receipt(
        metric=NAME,
        settings={"flow": SETTINGS, "dequantised": "uniform", "draws": 1},
        count=len(good),
        samples_hash=data_hash(x),
        reference=ReferenceFacts(facts.name, facts.split, len(x), data_hash(x), facts.units),
        features=FeatureFacts("none: the values themselves", RawFeatures.hash),
        source=source,
        versions=dict(software_versions()),
    )
    return MetricResult(value, receipt)
