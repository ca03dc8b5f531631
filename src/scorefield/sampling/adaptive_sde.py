"""The reverse SDE with a step size, an error estimate and a status for each example, on a fixed Brownian path.

In the time variable w = (alpha / sigma)^2 and with y = (alpha / sigma^2) x, the reverse SDE is dy = D dw + dW, where D
is the posterior mean and W a Brownian motion in w (Ito's formula; Xue et al. 2023 integrate the same form). Its noise
is additive, so a Heun step has second weak order. Steps are dyadic parts of the interval, and W is a Brownian tree over
them: its increments are keyed by their position and not by the attempt. A rejected step is therefore split and not
drawn anew, which would favour small noise, and runs with different tolerances follow the same path.
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
from scorefield.sampling.step import Step, StepResult
from scorefield.score.score import BoundScore

DyadicStep = tuple[int, int]
"""(index, depth) of a dyadic step, which goes from u = index / 2^depth to u = (index + 1) / 2^depth."""


class BrownianTree:
    """Brownian motion at the dyadic points of [0, 1], W(0) = 0, for every example of a batch.

    Between two known points W is a Brownian bridge (Levy's construction): given W(a) and W(b), W(m) is normal with the
    mean interpolated linearly in w and the variance (w_m - w_a) (w_b - w_m) / (w_b - w_a). The value at a point depends
    only on the point, the example and the noise.

    Args:
        w: w(u), increasing for u in [0, 1].
        noise: Source of the noise of the sampler step that uses this path.
        like: The batch, (B, *event).
    """

    def __init__(self, w: Callable[[float], float], noise: StepNoise, like: Tensor):
        self._w, self._noise, self._like = w, noise, like
        self._start = w(0.0)

    def value(self, index: int, depth: int, rows: Sequence[int]) -> Tensor:
        """W at u = index / 2^depth for some examples, (len(rows), *event)."""
        zero = torch.zeros_like(self._like[list(rows)])
        if index == 0:
            return zero
        left, right = (0.0, zero), (1.0, self._draw(0, math.sqrt(self._w(1.0) - self._start), rows))
        target, node = index / 2**depth, 1
        while target != right[0]:
            middle = 0.5 * (left[0] + right[0])
            low, mid, high = (self._w(u) for u in (left[0], middle, right[0]))
            share = (mid - low) / (high - low)
            spread = math.sqrt((mid - low) * (high - mid) / (high - low))
            point = (middle, torch.lerp(left[1], right[1], share) + self._draw(node, spread, rows))
            if target <= middle:
                right, node = point, 2 * node
            else:
                left, node = point, 2 * node + 1
        return right[1]

    def _draw(self, node: int, deviation: float, rows: Sequence[int]) -> Tensor:
        """Normal noise of a node of the tree, scaled by `deviation`, (len(rows), *event)."""
        return deviation * self._noise.keyed(self._like, node, rows)


@record
class AdaptiveSDE(Step):
    """The reverse SDE from t to s by Heun steps on a Brownian tree, each example with its own steps.

    A step is accepted where the root mean square of |Heun - Euler| / (atol + rtol |x|) is at most 1, and halved
    otherwise. After a step with an error of a quarter of that or less, the next one is doubled where the dyadic grid
    allows it. The adaptive solver of Jolicoeur-Martineau et al. (2021, "Gotta go fast") compares the same two results,
    with steps in t and without a tree.

    Args:
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance, model units.
        depth: The shortest step is 2^-depth of the interval in log(alpha / sigma); an example that needs a shorter one
            stops with status 2.
        longest: The longest step, and the first attempt, is 2^-longest of the interval. A limit is needed because the
            error estimate compares D at the two ends of a step only. Over a step that skips the levels at which D
            changes, Euler's and Heun's results can agree although both are wrong.
        max_steps: Number of attempted steps after which an example stops with status 1.

    Raises:
        ValueError: Tolerances that are negative or both 0, or depths or a number of steps out of range.
    """

    rtol: float = 0.02
    atol: float = 0.02
    depth: int = 16
    longest: int = 5
    max_steps: int = 2000

    order: ClassVar[int | None] = None
    invariant: ClassVar[str | None] = (
        "the marginals of the reverse SDE as the tolerances -> 0; steps of second weak order"
    )
    needs: ClassVar[Literal["rates", "scales", "nothing"]] = "scales"

    def __post_init__(self) -> None:
        if min(self.rtol, self.atol) < 0 or max(self.rtol, self.atol) == 0:
            raise ValueError(f"rtol={self.rtol} and atol={self.atol} must not be negative, and one must be positive")
        if not 0 <= self.longest <= self.depth <= 40 or self.max_steps < 1:
            raise ValueError(
                f"need 0 <= longest <= depth <= 40 and max_steps >= 1; got longest={self.longest}, depth={self.depth}"
                f" and max_steps={self.max_steps}"
            )

    def __call__(
        self, score: BoundScore, process: Process, x: Tensor, t: Tensor, s: Tensor, noise: StepNoise, memory: Any = None
    ) -> StepResult:
        """See `Step`.

        Raises:
            ValueError: There is no noise at s, where w is infinite; denoise from t_min instead.
        """
        path = _LogSNRPath(process, float(t[0]), float(s[0]))
        tree = BrownianTree(path.w, noise, x)
        batch = len(x)
        x, status = x.clone(), torch.full((batch,), TOO_MANY_STEPS)
        calls = torch.zeros(batch, dtype=torch.long)
        position: list[DyadicStep] = [(0, self.longest)] * batch
        active = list(range(batch))
        for _ in range(self.max_steps):
            if not active:
                break
            new, norm = self._attempt(score, path, tree, x, position, active)
            calls[active] += 2
            still = []
            for row, candidate, error in zip(active, new, norm.tolist(), strict=True):
                index, depth = position[row]
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
                position[row] = index, depth
                still.append(row)
            active = still
        return StepResult(x, x, None, status, calls)

    def _attempt(
        self,
        score: BoundScore,
        path: _LogSNRPath,
        tree: BrownianTree,
        x: Tensor,
        position: list[tuple[int, int]],
        rows: list[int],
    ) -> tuple[Tensor, Tensor]:
        """One attempted step of the given examples: the new states and the error norms, inf where not finite."""
        u = torch.tensor([position[row][0] / 2 ** position[row][1] for row in rows], dtype=torch.float64)
        v = torch.tensor([(position[row][0] + 1) / 2 ** position[row][1] for row in rows], dtype=torch.float64)
        start, end = path.at(u), path.at(v)
        part = score if len(rows) == len(x) else score.rows(torch.tensor(rows))
        here = x[rows]
        increment = torch.empty_like(here)
        # Examples with the same dyadic step are evaluated together: the tree is walked once per group.
        groups: dict[DyadicStep, list[int]] = {}
        for k, row in enumerate(rows):
            groups.setdefault(position[row], []).append(k)
        for (index, depth), members in groups.items():
            of = [rows[k] for k in members]
            increment[members] = tree.value(index + 1, depth, of) - tree.value(index, depth, of)
        h = end.w - start.w
        first = part.denoised(here, start.t)
        y = over_event(start.scale, here) * here
        euler = (y + over_event(h, here) * first + increment) / over_event(end.scale, here)
        second = part.denoised(euler, end.t)
        correction = over_event(0.5 * h / end.scale, here) * (second - first)
        new = euler + correction
        scaled = correction / (self.atol + self.rtol * torch.maximum(here.abs(), new.abs()))
        norm = scaled.double().reshape(len(rows), -1).square().mean(dim=1).sqrt().cpu()
        return new, torch.where(torch.isfinite(norm), norm, torch.inf)

    def calls_per_step(self) -> int | None:
        """None: the number depends on the state and the tolerances."""
        return None


class _Coefficients:
    """t, w = (alpha / sigma)^2 and the factor alpha / sigma^2 of y at points of the interval, each (b,) float64."""

    def __init__(self, t: Tensor, alpha: Tensor, sigma: Tensor):
        self.t, self.w, self.scale = t, (alpha / sigma) ** 2, alpha / sigma**2


class _LogSNRPath:
    """The interval from t to s, parametrised by u in [0, 1] linearly in log(alpha / sigma)."""

    def __init__(self, process: Process, t: float, s: float):
        ends = torch.tensor([t, s], dtype=torch.float64)
        if float(process.sigma(ends[1:])) == 0.0:
            raise ValueError(
                "the grid ends at a level without noise, where the signal-to-noise ratio is infinite and AdaptiveSDE"
                ' cannot step; end at a level with noise, EveryLevel(clean=False), and use final="denoise"'
            )
        self._process, self._ends = process, ends
        self._log_snr = process.log_snr(ends)

    def at(self, u: Tensor) -> _Coefficients:
        """Coefficients at u, (b,); at u = 0 and u = 1 the times are exactly t and s."""
        log_snr = self._log_snr[0] + u * (self._log_snr[1] - self._log_snr[0])
        t = self._process.time_at_log_snr(log_snr)
        t = torch.where(u == 0.0, self._ends[0], torch.where(u == 1.0, self._ends[1], t))
        return _Coefficients(t, self._process.alpha(t), self._process.sigma(t))

    def w(self, u: float) -> float:
        """w at u."""
        return math.exp(float(self._log_snr[0] + u * (self._log_snr[1] - self._log_snr[0])))
