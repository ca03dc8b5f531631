"""Log densities in data units, with the terms of an error budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import near
from scorefield._random import Noise
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.inference.flow import FlowSettings, log_density, start_time
from scorefield.process.process import Process
from scorefield.score.score import Score

DEQUANTISE_STEP = 2**61 + 1
"""The step number of dequantisation noise."""


@dataclass(frozen=True)
class LogProb:
    """Log density of each example, one entry per example; what was not computed is None.

    Args:
        nats: Natural log of the density in data units. For quantised data that were dequantised it is a lower bound (in
            expectation over the dequantisation noise) on the log probability of the grey levels, per quantisation step.
        bits_per_dim: -log2 of that probability per dimension, for dequantised data; else None.
        nfe: Network evaluations of each example.
        status: 0, or a code of `sampling.adaptive.STATUS`; nats are NaN where it is not 0.
        of: Which density it is, in words.
        interval: Lower and upper ends of an interval for nats, (B, 2).
        std_error: Standard error over divergence probes.
        solver_error: Error of the integration.
        truncation: Effect of stopping at t_min.
        prior_mismatch: Effect of the prior not being p_1.
        dequantisation: Gap of the dequantisation bound.
    """

    nats: Tensor
    bits_per_dim: Tensor | None
    nfe: Tensor
    status: Tensor
    of: str
    interval: Tensor | None = None
    std_error: Tensor | None = None
    solver_error: Tensor | None = None
    truncation: Tensor | None = None
    prior_mismatch: Tensor | None = None
    dequantisation: Tensor | None = None


def flow_log_prob(
    score: Score,
    x: Tensor,
    data: DataSpec,
    noise: Noise,
    *,
    condition: Condition | None = None,
    dequantise: Literal["uniform", "none"] | None = None,
    settings: FlowSettings | None = None,
    dtype: torch.dtype = torch.float32,
) -> LogProb:
    """Log density of data by the probability flow.

    Args:
        score: The score.
        x: Data in data units, (B, *shape).
        data: Their spec; its log-Jacobian brings nats from model to data units.
        noise: Where dequantisation noise and probes come from.
        condition: What is known of each example.
        dequantise: "uniform" adds noise inside each grey level's bin (the default for quantised data: the density of a
            discrete variable is infinite, and a model can win nats without limit by learning the grid; Theis et al.
            2016), "none" takes x as it is (the default for continuous data).
        settings: Of the flow.
        dtype: In which the score is evaluated.

    Raises:
        ValueError: x is not of this spec, the score has no flow, or continuous data were to be dequantised.
    """
    if dequantise not in (None, "uniform", "none"):
        raise ValueError(f"dequantise={dequantise!r} is no way to dequantise.{near(dequantise, ('uniform', 'none'))}")
    # A density exists outside the data's range too, where an unclipped sample may lie; whoever says "none" knows.
    data.check(x, name="x", values=dequantise != "none")
    settings = settings or FlowSettings()
    uniform = dequantise == "uniform" or (dequantise is None and data.levels is not None)
    # float64 through the units, so that nats of the same example do not depend on the units it is given in.
    if uniform:
        model_x = data.dequantise(x.double(), noise.uniform(x.to(torch.float32), DEQUANTISE_STEP, 0).double())
    else:
        model_x = data.to_model(x.double())
    flow = log_density(score.bind(condition), model_x.to(dtype), noise, settings)
    nats = flow.nats + data.log_jacobian(dequantised=uniform)
    bits = data.bits_per_dim(nats) if uniform else None
    return LogProb(nats, bits, flow.calls, flow.status, _of(score, start_time(score, settings), uniform))


def _of(score: Score, start: float, dequantised: bool) -> str:
    """Which density it is."""
    of = f"x_t at t = {start:g}"
    if isinstance(score.process, Process):
        sigma = float(score.process.sigma(torch.tensor([start], dtype=torch.float64)))
        of += f" (noise {sigma:.3g} in model units)"
    return of + ", uniformly dequantised" if dequantised else of
