"""Score matching without a transition kernel: implicit, sliced and finite-difference score matching.

Integration by parts removes the unknown score from E |s - grad log p_t|^2 / 2 and leaves, up to a constant,

    J = E [ tr(ds/dx) + |s|^2 / 2 ]  at x_t                                              (Hyvarinen 2005),

which needs samples of p_t but not the distribution of x_t given x_0. Random directions v with E v v' = I make J cheap:
the mean of v' (ds/dx) v is the trace, and the mean of (v's)^2 is |s|^2 (Song, Garg et al. 2019). For a score that is
the gradient of an energy E, the same terms are second derivatives of E. Where a kernel is known, denoising score
matching has the same minimiser and needs one backward pass less.
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
    """The common base of objectives computed from tr(ds/dx) and |s|^2 at samples of p_t.

    Args:
        simulation: Number of Euler-Maruyama steps from 0 to t under a `GeneralSDE` whose drift is not affine, which has
            no closed-form transition kernel.
    """

    simulation: int = 100

    def __post_init__(self) -> None:
        if self.simulation < 1:
            raise ValueError(
                f"simulation={self.simulation} is the number of simulation steps and must be at least 1, for example"
                " 100"
            )

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
        """The projection directions of a draw; None for an objective that uses none."""
        return None

    def __call__(self, score: Score, x0: Tensor, draw: Draw, condition: Condition | None = None) -> Tensor:
        """See `Objective`.

        Raises:
            ValueError: The weighting is not defined for this process, or the draw has no directions.
        """
        process = self.ladder(score.process) or score.process
        weight = self.weighting.value(process, draw.t)
        # The derivative in x needs autograd even under no_grad; second derivatives are kept only for training.
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
        """tr(ds/dx) and |s|^2, or unbiased estimates of them, each (B,).

        Args:
            score: The score s.
            x: x_t, (B, *event).
            draw: Times and directions.
            condition: The variables that the score is conditioned on.
            training: Whether the result must be differentiable with respect to the parameters.
        """

    def combine(self, trace: Tensor, square: Tensor, dimension: int) -> Tensor:
        """J = trace + square / 2 for reduce="half_sum", or 2 J / D for reduce="mean"."""
        value = trace + 0.5 * square
        return value if self.reduce == "half_sum" else value * (2.0 / dimension)


@record
class ImplicitScoreMatching(_WithoutKernel):
    """Implicit score matching (Hyvarinen 2005, theorem 1): lambda(t) (tr(ds/dx) + |s|^2 / 2), with the exact trace.

    An evaluation takes D backward passes, so this objective is for events of a few tens of numbers and for testing the
    other objectives. With `reduce="mean"` the value is multiplied by 2 / D; its expectation then differs from that of
    `DenoisingScoreMatching` by a constant that does not depend on the score, which is -1 for the weight sigma^2.

    The arguments are those of `AtLevels`, and `simulation`: the number of Euler-Maruyama steps from 0 to t under a
    `GeneralSDE` whose drift is not affine. Under a `GeneralSDE` the weighting must be `Custom`.
    """

    def terms(
        self, score: Score, x: Tensor, draw: Draw, condition: Condition | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """tr(ds/dx), computed by D vector-Jacobian products, and |s|^2."""
        basis = torch.eye(math.prod(x.shape[1:]), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])
        with torch.enable_grad():
            x = x.requires_grad_(True)
            s = score(x, draw.t, condition)
            trace = sum_of([_curvature(s, x, e.expand(x.shape), training) for e in basis])
            return trace, sum_event(s * s)


@dataclass(frozen=True)
class _Sliced(_WithoutKernel):
    """The common base of objectives that use random projection directions.

    Args:
        directions: "gaussian", "rademacher" (signs) or "sphere" (uniform of norm sqrt(D)); all have E v v' = I.
        projections: Number of directions per example, P.
        variance_reduced: Whether to use |s|^2 itself instead of its estimate, the mean of (v's)^2.
    """

    directions: Directions = "gaussian"
    projections: int = 1
    variance_reduced: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions not in ("gaussian", "rademacher", "sphere"):
            raise ValueError(f"directions must be 'gaussian', 'rademacher' or 'sphere'; got {self.directions!r}")
        if self.projections < 1:
            raise ValueError(
                f"projections={self.projections} must be at least 1: the trace is estimated from random directions"
            )

    def _probes(self, like: Tensor, generator: torch.Generator) -> Tensor:
        v = normal_like(like, (like.shape[0], self.projections, *like.shape[1:]), generator)
        if self.directions == "gaussian":
            return v
        if self.directions == "rademacher":
            return torch.where(v < 0, -1.0, 1.0).to(v)
        flat = v.flatten(2)
        return (flat * (math.sqrt(flat.shape[2]) / flat.norm(dim=2, keepdim=True))).reshape(v.shape)

    @staticmethod
    def _directions_first(draw: Draw) -> Tensor:
        """The directions with their own axis first, (P, B, *event)."""
        if draw.probes is None:
            raise ValueError(
                "this draw has no projection directions, which a sliced objective needs; make the draw with"
                " objective.draw(...) of the same objective"
            )
        return draw.probes.transpose(0, 1)


@record
class SlicedScoreMatching(_Sliced):
    """Sliced score matching, lambda(t) times the mean over v of v' (ds/dx) v + (v's)^2 / 2 at x_t.

    With `variance_reduced`, the last term is |s|^2 / 2 (Song, Garg et al. 2019). The annealed sliced score matching of
    NCSN (Song and Ermon 2019) is this objective with `reduce="half_sum"` and otherwise the defaults, on NCSN's ladder.
    An evaluation takes one forward and P backward passes, which are differentiated once more for training. The score
    must therefore be twice differentiable, and an energy three times: with piecewise linear activations such as ReLU
    the derivative of an energy's trace term is lost.

    The arguments are those of `AtLevels` and `ImplicitScoreMatching`, and `directions`: "gaussian", "rademacher"
    (signs) or "sphere" (uniform of norm sqrt(D)), all with E v v' = I; `projections`: number of directions per example;
    `variance_reduced`: whether to use |s|^2 itself instead of its estimate, the mean of (v's)^2.
    """

    def terms(
        self, score: Score, x: Tensor, draw: Draw, condition: Condition | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """The mean over the directions of v' (ds/dx) v, and |s|^2 or the mean of (v's)^2."""
        probes = self._directions_first(draw)
        with torch.enable_grad():
            x = x.requires_grad_(True)
            s = score(x, draw.t, condition)
            trace = sum_of([_curvature(s, x, v, training) for v in probes]) / len(probes)
            if self.variance_reduced:
                return trace, sum_event(s * s)
            return trace, sum_of([sum_event(v * s) ** 2 for v in probes]) / len(probes)


@record
class FiniteDifferenceScoreMatching(_Sliced):
    """Sliced score matching with finite differences instead of derivatives (Pang et al. 2020).

    As h -> 0 it becomes `SlicedScoreMatching`. With x+ = x + h v and x- = x - h v the directional terms are

        v' (s(x+) - s(x-)) / (2 h)  and  |s(x+) + s(x-)|^2 / 4, or (v' (s(x+) + s(x-)))^2 / 4,

    and for an energy, whose log density is l = -E / T, with `variance_reduced=False`

        (l(x+) - 2 l(x) + l(x-)) / h^2  and  ((l(x+) - l(x-)) / (2 h))^2:

    so that only values of E are needed, no gradient with respect to x, and training takes one backward pass. The error
    is of order h^2; rounding adds about 1e-7 |l| / h^2 in float32.

    The arguments are those of `SlicedScoreMatching`, and `step`: h in units of sigma(t), or in model units under a
    `GeneralSDE`.
    """

    step: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step < math.inf:
            raise ValueError(
                f"step={self.step} is a distance in units of the noise level and must be positive and finite, for"
                " example 0.1"
            )

    def terms(
        self, score: Score, x: Tensor, draw: Draw, condition: Condition | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Finite-difference estimates of the terms of `SlicedScoreMatching`."""
        process = self.ladder(score.process) or score.process
        h = torch.full_like(draw.t, self.step)
        if not isinstance(process, GeneralSDE):
            h = h * process.sigma(draw.t)
        h = h.to(x)
        probes = self._directions_first(draw)
        if isinstance(score, EnergyScore) and not self.variance_reduced:
            pairs = _differences_of_energies(score, x, draw.t, condition, h, probes)
        else:
            pairs = [self._differences_of_scores(score, x, draw.t, condition, h, v) for v in probes]
        traces, squares = zip(*pairs, strict=True)
        return sum_of(traces) / len(probes), sum_of(squares) / len(probes)

    def _differences_of_scores(
        self, score: Score, x: Tensor, t: Tensor, condition: Condition | None, h: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The trace and square terms along one direction v, from the scores at x + h v and x - h v."""
        away = over_event(h, x) * v
        up, down = (score(x + k * away, t, condition) for k in (1, -1))
        middle = 0.5 * (up + down)
        square = sum_event(middle * middle) if self.variance_reduced else sum_event(v * middle) ** 2
        return sum_event(v * (up - down)) / (2.0 * h), square


def _differences_of_energies(
    score: EnergyScore, x: Tensor, t: Tensor, condition: Condition | None, h: Tensor, probes: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """The trace and square terms along each direction, from log densities; the value at x is evaluated once."""
    here, pairs = score.log_density(x, t, condition), []
    for v in probes:
        away = over_event(h, x) * v
        up, down = (score.log_density(x + k * away, t, condition) for k in (1, -1))
        pairs.append(((up - 2.0 * here + down) / h**2, ((up - down) / (2.0 * h)) ** 2))
    return pairs


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """Sum of tensors of equal shape."""
    return torch.stack(list(parts)).sum(dim=0)


def _curvature(s: Tensor, x: Tensor, v: Tensor, training: bool) -> Tensor:
    """v' (ds/dx) v, (B,), by one vector-Jacobian product; zero for a score that does not depend on x."""
    if not s.requires_grad:
        return torch.zeros(x.shape[0], dtype=s.dtype, device=s.device)
    (row,) = torch.autograd.grad(
        s, x, v.to(s), create_graph=training, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return sum_event(row * v)
