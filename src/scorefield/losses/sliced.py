"""Score matching without a transition kernel: implicit, sliced and finite-difference.

Integration by parts removes the unknown score from E |s - grad log p_t|^2 / 2 and leaves, up to a constant,

    J = E [ tr(ds/dx) + |s|^2 / 2 ]  at x_t                                              (Hyvarinen 2005),

which asks for samples of p_t and for nothing about how they arose. Directions v with E v v' = I make it cheap: the mean
of v' (ds/dx) v is the trace, and that of (v's)^2 is |s|^2 (Song, Garg et al. 2019). For a score that is the gradient of
an energy the same numbers come from second derivatives of E. Denoising score matching has the same minimiser where a
kernel is known, for one backward pass less.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event, sum_event
from scorefield._typing import Condition
from scorefield.losses.denoising import AtLevels, Draw, normal_like
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.score.energy import EnergyScore
from scorefield.score.score import Score

Directions = Literal["gaussian", "rademacher", "sphere"]


@dataclass(frozen=True)
class _WithoutKernel(AtLevels):
    """Objectives made of tr(ds/dx) and |s|^2 at samples of p_t.

    Args:
        simulation: Euler-Maruyama steps from 0 to t under a `GeneralSDE` without a transition law.
    """

    simulation: int = 100

    def __post_init__(self) -> None:
        if self.simulation < 1:
            raise ValueError(f"simulation={self.simulation} is a number of steps and must be at least 1, such as 100")

    def draw(self, process: Process | GeneralSDE, like: Tensor, generator: torch.Generator) -> Draw:
        """See `Objective`."""
        t = self.draw_times(process, like.shape[0], generator)
        shape = tuple(like.shape)
        if isinstance(process, GeneralSDE) and not process.affine:
            driving = process.noise_like(torch.zeros_like(like), torch.ones_like(t)).shape[1:]
            shape = (shape[0], self.simulation, *driving)
        z = normal_like(like, shape, generator)
        return Draw(t, z, self._probes(like, generator))

    def _probes(self, like: Tensor, generator: torch.Generator) -> Tensor | None:
        """The directions of a draw; None where they are not random."""
        return None

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`.

        Raises:
            ValueError: The weighting is not defined for this process, or the draw has no directions.
        """
        process = self.ladder(score.process) or score.process
        weight = self.weighting.value(process, draw.t)
        training = torch.is_grad_enabled()
        with torch.no_grad():
            if isinstance(process, GeneralSDE) and not process.affine:
                x_t = process.simulate_to(x0, draw.t, draw.z)
            else:
                x_t = process.perturb(x0, draw.t, draw.z)
        trace, square = self.terms(score, x_t, draw, condition, training)
        loss = weight.to(trace) * self.combine(trace, square, math.prod(x0.shape[1:]))
        return loss if training else loss.detach()

    @abstractmethod
    def terms(
        self, score: Score, x: Tensor, draw: Draw, condition: Condition | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """tr(ds/dx) and |s|^2, or what has them as mean, each (B,); differentiable where training."""

    def combine(self, trace: Tensor, square: Tensor, dimension: int) -> Tensor:
        """J = trace + square / 2, or 2 J / D."""
        value = trace + 0.5 * square
        return value if self.reduce == "half_sum" else value * (2.0 / dimension)


@record
class ImplicitScoreMatching(_WithoutKernel):
    """lambda(t) (tr(ds/dx) + |s|^2 / 2) at x_t, the trace exact (Hyvarinen 2005, theorem 1).

    D backward passes an evaluation: for vectors of some tens of numbers, and to test the others. With `reduce="mean"`
    it is 2 / D times as much, and then differs in expectation from `DenoisingScoreMatching` by a number that does not
    depend on the score: by -1 at the weight sigma^2.

    Arguments as for `AtLevels`, with `simulation`: Euler-Maruyama steps from 0 to t under a `GeneralSDE` whose drift is
    not affine. Under a `GeneralSDE` the weighting must be `Custom`.
    """

    def terms(
        self, score: Score, x: Tensor, draw: Draw, condition: Condition | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """tr(ds/dx) from D vector-Jacobian products, and |s|^2."""
        basis = torch.eye(math.prod(x.shape[1:]), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])
        with torch.enable_grad():
            x = x.requires_grad_(True)
            s = score(x, draw.t, condition)
            trace = sum_of([_curvature(s, x, e.expand(x.shape), training) for e in basis])
            return trace, sum_event(s * s)


@dataclass(frozen=True)
class _Sliced(_WithoutKernel):
    """The random directions of sliced objectives.

    Args:
        directions: "gaussian", "rademacher" (signs) or "sphere" (uniform of norm sqrt(D)); all have E v v' = I.
        projections: Directions per example.
        variance_reduced: |s|^2 in place of its estimate, the mean of (v's)^2.
    """

    directions: Directions = "gaussian"
    projections: int = 1
    variance_reduced: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions not in ("gaussian", "rademacher", "sphere"):
            raise ValueError(f"directions must be 'gaussian', 'rademacher' or 'sphere'; got {self.directions!r}")
        if self.projections < 1:
            raise ValueError(f"projections={self.projections} must be at least 1: the trace is seen along directions")

    def _probes(self, like: Tensor, generator: torch.Generator) -> Tensor:
        v = normal_like(like, (like.shape[0], self.projections, *like.shape[1:]), generator)
        if self.directions == "gaussian":
            return v
        if self.directions == "rademacher":
            return torch.where(v < 0, -1.0, 1.0).to(v)
        flat = v.flatten(2)
        return (flat * (math.sqrt(flat.shape[2]) / flat.norm(dim=2, keepdim=True))).reshape(v.shape)

    @staticmethod
    def _each(draw: Draw) -> Tensor:
        """The directions, (P, B, *event)."""
        if draw.probes is None:
            raise ValueError("this draw has no directions; a sliced objective needs its own: objective.draw(...)")
        return draw.probes.transpose(0, 1)


@record
class SlicedScoreMatching(_Sliced):
    """lambda(t) mean over v of [ v' (ds/dx) v + (v's)^2 / 2 ] at x_t, or |s|^2 / 2 (Song, Garg et al. 2019).

    NCSN's annealed sliced score matching is the default on its ladder, with `reduce="half_sum"` (Song and Ermon 2019).
    One forward and P backward passes, differentiated once more; the score must be differentiable twice (an energy three
    times), so piecewise linear activations such as ReLU lose the slope of an energy's trace.

    Arguments as for `AtLevels` and `ImplicitScoreMatching`, with `directions`: "gaussian", "rademacher" (signs) or
    "sphere" (uniform of norm sqrt(D)), all with E v v' = I; `projections`: directions per example; `variance_reduced`:
    |s|^2 in place of its estimate, the mean of (v's)^2.
    """

    def terms(
        self, score: Score, x: Tensor, draw: Draw, condition: Condition | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Means over the directions of v' (ds/dx) v, and of (v's)^2 or |s|^2."""
        probes = self._each(draw)
        with torch.enable_grad():
            x = x.requires_grad_(True)
            s = score(x, draw.t, condition)
            trace = sum_of([_curvature(s, x, v, training) for v in probes]) / len(probes)
            if self.variance_reduced:
                return trace, sum_event(s * s)
            return trace, sum_of([sum_event(v * s) ** 2 for v in probes]) / len(probes)


@record
class FiniteDifferenceScoreMatching(_Sliced):
    """Sliced score matching with differences for derivatives, h -> 0 its limit (Pang et al. 2020).

    With x+ = x + h v and x- = x - h v the directional terms are

        v' (s(x+) - s(x-)) / (2 h)  and  |s(x+) + s(x-)|^2 / 4, or (v' (s(x+) + s(x-)))^2 / 4,

    and for an energy, whose log density is l = -E / T, with `variance_reduced=False`

        (l(x+) - 2 l(x) + l(x-)) / h^2  and  ((l(x+) - l(x-)) / (2 h))^2:

    values of E alone, no gradient with respect to x, one backward pass. The error is of order h^2; rounding adds about
    1e-7 |l| / h^2 in float32.

    Arguments as for `SlicedScoreMatching`, with `step`: h in units of sigma(t); in model units under a `GeneralSDE`.
    """

    step: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < math.inf:
            raise ValueError(f"step={self.step} is a distance in noise levels and must be positive, such as 0.1")

    def terms(
        self, score: Score, x: Tensor, draw: Draw, condition: Condition | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Differences in place of the derivatives of `SlicedScoreMatching`."""
        process = self.ladder(score.process) or score.process
        h = torch.full_like(draw.t, self.step)
        if not isinstance(process, GeneralSDE):
            h = h * process.sigma(draw.t)
        h = h.to(x)
        probes = self._each(draw)
        if isinstance(score, EnergyScore) and not self.variance_reduced:
            pairs = _from_energies(score, x, draw.t, condition, h, probes)
        else:
            pairs = [self._from_scores(score, x, draw.t, condition, h, v) for v in probes]
        traces, squares = zip(*pairs, strict=True)
        return sum_of(traces) / len(probes), sum_of(squares) / len(probes)

    def _from_scores(
        self, score: Score, x: Tensor, t: Tensor, condition: Condition | None, h: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        away = over_event(h, x) * v
        up, down = (score(x + k * away, t, condition) for k in (1, -1))
        middle = 0.5 * (up + down)
        square = sum_event(middle * middle) if self.variance_reduced else sum_event(v * middle) ** 2
        return sum_event(v * (up - down)) / (2.0 * h), square


def _from_energies(
    score: EnergyScore, x: Tensor, t: Tensor, condition: Condition | None, h: Tensor, probes: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Second and first differences of the log density along each direction; the value at x is shared."""
    here, pairs = score.log_density(x, t, condition), []
    for v in probes:
        away = over_event(h, x) * v
        up, down = (score.log_density(x + k * away, t, condition) for k in (1, -1))
        pairs.append(((up - 2.0 * here + down) / h**2, ((up - down) / (2.0 * h)) ** 2))
    return pairs


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return torch.stack(list(parts)).sum(dim=0)


def _curvature(s: Tensor, x: Tensor, v: Tensor, training: bool) -> Tensor:
    """v' (ds/dx) v, (B,); zero for a score that does not depend on x."""
    if not s.requires_grad:
        return torch.zeros(x.shape[0], dtype=s.dtype, device=s.device)
    (row,) = torch.autograd.grad(
        s, x, v.to(s), create_graph=training, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return sum_event(row * v)
