"""Samples of x given y, with their mean, standard deviation, residual test, cost and failures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.inverse.observation import Observation
from scorefield.inverse.residual import ResidualTest, residual_test
from scorefield.inverse.solvers.solver import Solver
from scorefield.inverse.solvers.table import choose, require, solver_named
from scorefield.sampling.named import named
from scorefield.sampling.sampler import Callback, Sampler
from scorefield.sampling.step import STATUS
from scorefield.score.score import Score


@dataclass(frozen=True)
class Posterior:
    """Samples of x given y.

    The leading axes are (n,) for one y and (B, n) for B of them. A sample that is not finite, or whose solver gave up,
    stays where it is with its status; it is left out of `mean` and `std`, and `failures` names it.

    Args:
        x: Samples, (n, *event) or (B, n, *event), in model units from `posterior` and data units from a `Model`.
        raw: The samples before the final denoising.
        status: 0, or a code of `sampling.step.STATUS`, per sample.
        nfe: Network evaluations per sample, all that the solver made.
        residual: The test of y - A(x).
        solver: The solver with all settings.
        sampler: The sampler that the solver was used with.
        why: The reason for the solver, where it was chosen by `auto`; else "as asked".
        seconds: Wall time of all.
        seed: Seed of the noise.
        start: Index of the first sample.
        log_evidences: The solver's estimate of log p(y) from each sample's own particles, where it makes one.
        effective: Effective number of particles of each sample, (sum w)^2 / sum w^2, for solvers with weighted
            particles.
    """

    x: Tensor
    raw: Tensor
    status: Tensor
    nfe: Tensor
    residual: ResidualTest
    solver: Solver
    sampler: Sampler
    why: str
    seconds: float
    seed: int
    start: int
    log_evidences: Tensor | None = None
    effective: Tensor | None = None

    def __repr__(self) -> str:
        """Two lines: the samples with spread and residual, and how they were made."""
        lead = self.status.ndim
        each = f" for each of {len(self.status)} observations" if lead > 1 else ""
        count = f"{self.status.shape[-1]} samples{each}"
        failed = int((~self.good).sum())
        spread = float(self.std.nanmean()) if self.status.shape[-1] > 1 else math.nan
        tested = self.residual.combined
        p_value = "" if tested is None else f", p-value of the residuals {float(tested.nanmean()):.2g}"
        return (
            f"Posterior: {count} of shape {tuple(self.x.shape[lead:])}, mean standard deviation {spread:.3g},"
            f" residual {float(self.residual.rms.nanmean()):.3g} (units of y){p_value}, {failed} failed\n"
            f"  {self.solver} ({self.why}), {float(self.nfe.double().mean()):.4g} network evaluations each,"
            f" {self.seconds:.3g} s"
        )

    @property
    def good(self) -> Tensor:
        """Which samples count: finite, of status 0; shape of `status`."""
        lead = self.status.ndim
        return (self.status == 0) & torch.isfinite(self.x).flatten(lead).all(dim=-1)

    @property
    def mean(self) -> Tensor:
        """Mean of the good samples, (*event) or (B, *event); NaN where there is none."""
        return self._moment(self.x)

    @property
    def std(self) -> Tensor:
        """Their standard deviation with the divisor n - 1, shape of `mean`; NaN where there are fewer than two."""
        axis = self.status.ndim - 1
        count = self._over(self.good).sum(axis)
        spread = self._moment((self.x - self.mean.unsqueeze(axis)) ** 2)
        return (spread * count / (count - 1)).sqrt()

    @property
    def log_evidence(self) -> Tensor | None:
        """log of the mean of exp(log_evidences) over good samples, () or (B,): p(y) itself is what is unbiased."""
        if self.log_evidences is None:
            return None
        kept = self.log_evidences.masked_fill(~self.good, -math.inf)
        return torch.logsumexp(kept, dim=-1) - self.good.sum(dim=-1).log()

    def failures(self) -> tuple[str, ...]:
        """A line for each sample that does not count: which, by its index, and why."""
        bad = (~self.good).flatten().nonzero().flatten().tolist()
        codes, n = self.status.flatten(), self.status.shape[-1]
        where = [f" (observation {i // n}, answer {i % n})" if self.status.ndim == 2 else "" for i in bad]
        words = [STATUS[int(codes[i]) or STATUS.index("not finite")] for i in bad]
        return tuple(f"sample {self.start + i}{w}: {s}" for i, w, s in zip(bad, where, words, strict=True))

    def in_data_units(self, spec: DataSpec) -> Posterior:
        """These samples in data units; the residual is in the units of y already."""
        lead = self.status.ndim
        x, raw = (spec.to_data(m.flatten(0, lead - 1)).reshape(m.shape) for m in (self.x, self.raw))
        return replace(self, x=x, raw=raw)

    def _over(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape, *(1,) * (self.x.ndim - values.ndim))

    def _moment(self, values: Tensor) -> Tensor:
        axis, kept = self.status.ndim - 1, self._over(self.good)
        return torch.where(kept, values, torch.zeros_like(values)).sum(axis) / kept.sum(axis)


def posterior(
    score: Score,
    observation: Observation,
    n: int,
    *,
    solver: Solver | str = "auto",
    sampler: Sampler | str | None = None,
    seed: int = 0,
    start: int = 0,
    batch_size: int | None = None,
    condition: Condition | None = None,
    callbacks: Sequence[Callback] = (),
    on_batch: Callable[[int, int], None] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Posterior:
    """n samples of x given y, for one y or for each of B.

    Sample j of observation b draws the noise of index start + b n + j, whatever the batch size and the other samples of
    the batch.

    Args:
        score: Score of x, not conditioned on y: of a network, an energy or an oracle.
        observation: The observation, in model units (`Observation.in_model_units`).
        n: Samples for each y.
        solver: A solver with its settings, a name for one with its defaults, or "auto", which states its reason in the
            result.
        sampler: The sampler to use, or its name; None for the solver's own.
        seed: Seed of every random draw.
        start: Index of the first sample.
        batch_size: Samples at a time; default at most 128.
        condition: What else is known, one entry for each y.
        callbacks: Called after each step of each batch with a `Progress`.
        on_batch: Called with the offset and the number of samples of each finished batch.
        dtype: Type of the state.
        device: Device of the state.

    Raises:
        ValueError: A number that cannot be, an unknown name, a condition of another length, or a solver that cannot go
            with the observation or the sampler; the message lists those that can.
    """
    if n < 1 or start < 0 or seed < 0:
        raise ValueError(f"n must be at least 1, seed and start not negative; got n={n}, seed={seed}, start={start}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    B = observation.batch or 1
    for name, given in (condition or {}).items():
        if len(given) != B:
            raise ValueError(f"condition {name!r} has {len(given)} entries for {B} observations; give one each")
    if isinstance(sampler, str):
        sampler = named(sampler, score.process)
    why = "as asked"
    if solver == "auto":
        solver, why = (chosen := choose(score, observation, sampler)).solver, chosen.why
    elif isinstance(solver, str):
        solver = solver_named(solver)
    require(solver, score, observation, sampler)
    used = solver.default_sampler(score) if sampler is None else sampler
    began, runs, tests = time.perf_counter(), [], []
    size = batch_size or min(B * n, 128)
    for first in range(0, B * n, size):
        rows = range(first, min(first + size, B * n))
        of = [row // n for row in rows]
        indices, local = range(start + rows.start, start + rows.stop), observation.rows(of)
        known = None if condition is None else {k: v[of] for k, v in condition.items()}
        run = solver.run(
            score, local, used, indices=indices, seed=seed, condition=known, callbacks=callbacks, dtype=dtype,
            device=device,
        )  # fmt: skip
        with torch.no_grad():
            tests.append(residual_test(run.x, local, seed=seed, indices=indices))
        runs.append(run)
        if on_batch is not None:
            on_batch(first, len(rows))
    seconds = time.perf_counter() - began
    lead = (n,) if observation.batch is None else (B, n)

    def whole(parts: Sequence[Tensor | None]) -> Tensor | None:
        if any(part is None for part in parts):
            return None
        joined = torch.cat([part.cpu() for part in parts if part is not None])
        return joined.reshape(*lead, *joined.shape[1:])

    test = ResidualTest(
        _given(whole([t.rms for t in tests])),
        whole([t.statistic for t in tests]),
        tests[0].freedom,
        whole([t.p_value for t in tests]),
    )
    return Posterior(
        x=_given(whole([run.x for run in runs])),
        raw=_given(whole([run.raw for run in runs])),
        status=_given(whole([run.status for run in runs])),
        nfe=_given(whole([run.calls for run in runs])),
        residual=test,
        solver=solver,
        sampler=used,
        why=why,
        seconds=seconds,
        seed=seed,
        start=start,
        log_evidences=whole([run.log_evidence for run in runs]),
        effective=whole([run.effective for run in runs]),
    )


def _given(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
