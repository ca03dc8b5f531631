"""A solver that samples an oracle's exact posterior, and solvers that do so with one fault each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._random import IndexedNoise
from scorefield.inverse import GaussianNoise, LinearOperator, Observation, PosteriorRun, Solver
from scorefield.process import VP
from scorefield.process.grids import Uniform
from scorefield.sampling import DDIM, EulerMaruyama, Sampler
from scorefield.score.oracles import Oracle, skewed_gaussian

PRIOR = skewed_gaussian(VP(), 4)
NOISE = GaussianNoise(0.3)


class Seen(LinearOperator):
    """A matrix."""

    def __init__(self, matrix: Tensor, event: tuple[int, ...] = (4,)):
        super().__init__(event, (len(matrix),))
        self.A = matrix.double()

    def apply(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.A.to(x).T


OPERATOR = Seen(torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, -1.0, 0.3], [0.2, 0.0, 0.0, 1.0]]))


@record
class Exact(Solver):
    """x from p(x | y): `widen` scales it about its mean, `shift` adds to it, `deaf` takes the prior in its place, and
    `broken` samples are not finite."""

    widen: float = 1.0
    shift: float = 0.0
    deaf: bool = False
    broken: tuple[int, ...] = ()

    name: ClassVar[str] = "exact"
    exact: ClassVar[str] = "always"
    linear: ClassVar[bool] = True
    gaussian: ClassVar[bool] = True
    steps: ClassVar[Any] = (EulerMaruyama, DDIM)

    def prepare(self, score: Any, sampler: Any, observation: Any) -> Any:
        raise AssertionError("it does not follow a score")

    def default_sampler(self, score: Any) -> Sampler:
        return Sampler(EulerMaruyama(), Uniform(1))

    def run(
        self, score: Any, observation: Observation, sampler: Any = None, *, indices: Sequence[int], seed: int = 0,
        dtype: torch.dtype = torch.float32, **_: Any,
    ) -> PosteriorRun:  # fmt: skip
        assert isinstance(score, Oracle) and isinstance(observation.operator, LinearOperator)
        assert isinstance(observation.noise, GaussianNoise)
        A, std, y = observation.operator.matrix(), observation.noise.std, observation.y(torch.zeros(len(indices), 1))
        rows, laws = [], {}
        for row, index in zip(y, indices, strict=True):
            key = tuple(row.tolist())
            if key not in laws:
                laws[key] = score if self.deaf else score.posterior(A, row, std)
            law = laws[key]
            x = law.sample(1, noise=IndexedNoise(seed, [index]))
            x = self.shift + law.data_moments()[0] + self.widen * (x - law.data_moments()[0])
            rows.append(x * (float("nan") if index in self.broken else 1.0))
        x = torch.cat(rows).to(dtype)
        calls = torch.full((len(x),), 3)
        log_evidence = torch.tensor([score.log_evidence(A, row, std) for row in y])
        return PosteriorRun(x, x, torch.zeros(len(x), dtype=torch.long), calls, log_evidence)


def problems(count: int, prior: Oracle = PRIOR, operator: LinearOperator = OPERATOR) -> tuple[Tensor, Observation]:
    """Truths from a prior and their measurements."""
    truth = prior.sample(count, seed=11)
    noise = torch.randn(count, *operator.observed, generator=torch.Generator().manual_seed(5), dtype=truth.dtype)
    return truth, Observation(operator, operator(truth) + NOISE.std * noise, NOISE)


FAULTS = {
    "too narrow": Exact(widen=0.8),
    "biased": Exact(shift=0.15),
    "ignoring y": Exact(deaf=True),
}
"""Each must be rejected by what it is aimed at."""


def with_faults(**changes: Any) -> Exact:
    """The exact solver, changed."""
    return replace(Exact(), **changes)
