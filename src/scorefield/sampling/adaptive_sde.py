"""The reverse SDE with a step size, an error and a status for each example, on a Brownian path that does not move.

In the clock w = (alpha / sigma)^2 and with y = (alpha / sigma^2) x the reverse SDE is dy = D dw + dW, D the posterior
mean and W a Brownian motion of w (Ito's formula; Xue et al. 2023 integrate the same form). Its noise is additive, so
that a Heun step is of second weak order. Steps are dyadic parts of the way, and W is a Brownian tree over them: its
increments are keyed by where they lie, not by attempts, so a rejected step is split, not drawn anew (which would prefer
noise that happens to be small), and two tolerances follow the same path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import over_event
from scorefield._random import StepNoise
from scorefield.process.process import Process
from scorefield.sampling.adaptive import NOT_FINITE, OK, TOO_MANY_STEPS, UNDERFLOW
from scorefield.sampling.step import Moved, Step
from scorefield.score.score import BoundScore

Place = tuple[int, int]
"""(index, depth) of a dyadic step: from index / 2^depth of the way to (index + 1) / 2^depth."""


class BrownianTree:
    """Brownian motion at the dyadic points of [0, 1], W(0) = 0, for every example of a batch.

    Between two points W is bridged (Levy's construction): W(m) is normal with the mean interpolated in the clock and
    the variance (w_m - w_a) (w_b - w_m) / (w_b - w_a). The draw of a point depends on the point and the example alone.

    Args:
        clock: w(u), increasing, for u in [0, 1].
        noise: Of the step this path belongs to.
        like: The batch.
    """

    def __init__(self, clock: Callable[[float], float], noise: StepNoise, like: Tensor):
        self._clock, self._noise, self._like = clock, noise, like
        self._start = clock(0.0)

    def value(self, index: int, depth: int, rows: Sequence[int]) -> Tensor:
        """W at u = index / 2^depth for some examples, (len(rows), *event)."""
        zero = torch.zeros_like(self._like[list(rows)])
        if index == 0:
            return zero
        left, right = (0.0, zero), (1.0, self._draw(0, math.sqrt(self._clock(1.0) - self._start), rows))
        target, node = index / 2**depth, 1
        while target != right[0]:
            middle = 0.5 * (left[0] + right[0])
            low, mid, high = (self._clock(u) for u in (left[0], middle, right[0]))
            share = (mid - low) / (high - low)
            spread = math.sqrt((mid - low) * (high - mid) / (high - low))
            point = (middle, torch.lerp(left[1], right[1], share) + self._draw(node, spread, rows))
            if target <= middle:
                right, node = point, 2 * node
            else:
                left, node = point, 2 * node + 1
        return right[1]

    def _draw(self, node: int, deviation: float, rows: Sequence[int]) -> Tensor:
        return deviation * self._noise.keyed(self._like, node, rows)


@record
class AdaptiveSDE(Step):
    """The reverse SDE from t to s by Heun steps on a Brownian tree, each example with steps of its own.

    A step is accepted where the root mean square of |Heun - Euler| / (atol + rtol |x|) is at most 1; else it is halved.
    After an easy step (a quarter of that or less) the next is doubled where the dyadic grid allows it. The adaptive
    solver of Jolicoeur-Martineau et al. (2021, "Gotta go fast") compares the same two ends, in t and without a tree.

    Args:
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance, model units.
        depth: The shortest step is 2^-depth of the way in log(alpha / sigma); an example that asks for a shorter one
            stops with status 2.
        longest: The longest step, and the first attempt, is 2^-longest of the way. Over a step that spans the levels at
            which D settles, Euler's and Heun's ends agree on a sample that never met them, and no estimate from the
            two ends can tell.
        max_steps: Attempts after which an example gives up with status 1.

    Raises:
        ValueError: A tolerance or a number of steps that is not positive.
    """

    rtol: float = 0.02
    atol: float = 0.02
    depth: int = 16
    longest: int = 5
    max_steps: int = 2000

    order: ClassVar[int | None] = None
    law: ClassVar[str | None] = "that of the reverse SDE as the tolerances -> 0; steps of second weak order"
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "scales"

    def __post_init__(self) -> None:
        if min(self.rtol, self.atol) < 0 or max(self.rtol, self.atol) == 0:
            raise ValueError(f"rtol={self.rtol} and atol={self.atol} must not be negative, nor both 0")
        if not 0 <= self.longest <= self.depth <= 40 or self.max_steps < 1:
            raise ValueError(
                f"need 0 <= longest <= depth <= 40 and max_steps >= 1; got {self.longest}, {self.depth} and"
                f" {self.max_steps}"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> Moved:
        """See `Step`.

        Raises:
            ValueError: There is no noise at s, where the clock ends; denoise from t_min instead.
        """
        path = _Path(process, float(t[0]), float(s[0]))
        tree = BrownianTree(path.clock, noise, x)
        batch = len(x)
        x, status = x.clone(), torch.full((batch,), TOO_MANY_STEPS)
        calls = torch.zeros(batch, dtype=torch.long)
        place: list[Place] = [(0, self.longest)] * batch
        active = list(range(batch))
        for _ in range(self.max_steps):
            if not active:
                break
            new, norm = self._attempt(score, path, tree, x, place, active)
            calls[active] += 2
            still = []
            for row, candidate, error in zip(active, new, norm.tolist(), strict=True):
                index, depth = place[row]
                if error <= 1.0:
                    x[row] = candidate
                    index += 1
                    if index == 2**depth:
                        status[row] = OK
                        continue
                    if index % 2 == 0 and depth > self.longest and error <= 0.25:
                        index, depth = index // 2, depth - 1
                elif depth == self.depth:
                    status[row] = UNDERFLOW if math.isfinite(error) else NOT_FINITE
                    continue
                else:
                    index, depth = 2 * index, depth + 1
                place[row] = index, depth
                still.append(row)
            active = still
        return Moved(x, x, None, status, calls)

    def _attempt(
        self,
        score: BoundScore,
        path: _Path,
        tree: BrownianTree,
        x: Tensor,
        place: list[tuple[int, int]],
        rows: list[int],
    ) -> tuple[Tensor, Tensor]:
        """One step of the given examples: (states, error norms)."""
        u = torch.tensor([place[row][0] / 2 ** place[row][1] for row in rows], dtype=torch.float64)
        v = torch.tensor([(place[row][0] + 1) / 2 ** place[row][1] for row in rows], dtype=torch.float64)
        start, end = path.at(u), path.at(v)
        part = score if len(rows) == len(x) else score.rows(torch.tensor(rows))
        here = x[rows]
        increment = torch.empty_like(here)
        groups: dict[Place, list[int]] = {}
        for k, row in enumerate(rows):
            groups.setdefault(place[row], []).append(k)
        for (index, depth), members in groups.items():
            of = [rows[k] for k in members]
            increment[members] = tree.value(index + 1, depth, of) - tree.value(index, depth, of)
        h = end.w - start.w
        first = part.denoised(here, start.t)
        y = over_event(start.scale, here) * here
        euler = (y + over_event(h, here) * first + increment) / over_event(end.scale, here)
        second = part.denoised(euler, end.t)
        bend = over_event(0.5 * h / end.scale, here) * (second - first)
        new = euler + bend
        scaled = bend / (self.atol + self.rtol * torch.maximum(here.abs(), new.abs()))
        norm = scaled.double().reshape(len(rows), -1).square().mean(dim=1).sqrt().cpu()
        return new, torch.where(torch.isfinite(norm), norm, torch.inf)

    def calls_per_step(self) -> int | None:
        """Depends on the state."""
        return None


class _At:
    """Times and coefficients at some places of the way, (b,) float64: t, w = (alpha / sigma)^2, alpha / sigma^2."""

    def __init__(self, t: Tensor, alpha: Tensor, sigma: Tensor):
        self.t, self.w, self.scale = t, (alpha / sigma) ** 2, alpha / sigma**2


class _Path:
    """The way from t to s, u in [0, 1] evenly in log(alpha / sigma)."""

    def __init__(self, process: Process, t: float, s: float):
        ends = torch.tensor([t, s], dtype=torch.float64)
        if float(process.sigma(ends[1:])) == 0.0:
            raise ValueError(
                "there is no noise at the end of this step, and the clock of AdaptiveSDE does not reach it; end at a"
                " level with noise (EveryLevel(clean=False)) and let the sampler denoise"
            )
        self._process, self._ends = process, ends
        self._log_snr = process.log_snr(ends)

    def at(self, u: Tensor) -> _At:
        """Coefficients; both ends are met exactly."""
        log_snr = self._log_snr[0] + u * (self._log_snr[1] - self._log_snr[0])
        t = self._process.time_at_log_snr(log_snr)
        t = torch.where(u == 0.0, self._ends[0], torch.where(u == 1.0, self._ends[1], t))
        return _At(t, self._process.alpha(t), self._process.sigma(t))

    def clock(self, u: float) -> float:
        """w."""
        return math.exp(float(self._log_snr[0] + u * (self._log_snr[1] - self._log_snr[0])))
