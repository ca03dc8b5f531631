"""A process on a sampler's times: what steps ask of it is computed for the whole grid at once."""

from __future__ import annotations

from torch import Tensor

from scorefield._math import once
from scorefield.process.process import Process, TimeLimits


def on_grid(process: Process, times: Tensor) -> Process:
    """The same process, with alpha, sigma, rates and transitions at the times of a grid computed before they are used.

    At a time of the grid that all examples share, these come back as one number for all, shape (1,) on the CPU: it goes
    into the arithmetic of a step as a number, and nothing is copied to an accelerator. At other times the process
    itself answers.

    Args:
        process: Any.
        times: Decreasing, shape (N + 1,), float64.
    """
    return _OnGrid(process, times)


class _OnGrid(Process):
    def __init__(self, process: Process, times: Tensor):
        self.process, self.times = process, times
        self._place = {t: k for k, t in enumerate(times.tolist())}
        self._noisy = int((process.sigma(times) > 0.0).sum())  # below a ladder there are no rates
        self._known: dict[str, Tensor] = {}
        self._steps: tuple[Tensor, Tensor] | None = None

    def _row(self, t: Tensor) -> int | None:
        """The number of a time in the grid; None for other times, and for times of each example's own."""
        t = once(t)
        return self._place.get(t.item()) if len(t) == 1 and t.dtype == self.times.dtype else None

    def _at(self, name: str, t: Tensor, rows: int) -> Tensor:
        row = self._row(t)
        if row is None or row >= rows:
            return getattr(self.process, name)(t)
        if name not in self._known:
            self._known[name] = getattr(self.process, name)(self.times[:rows])
        return self._known[name][row : row + 1]

    @property
    def t_min(self) -> TimeLimits:
        return self.process.t_min

    @property
    def prior_std(self) -> float:
        return self.process.prior_std

    def alpha(self, t: Tensor) -> Tensor:
        return self._at("alpha", t, len(self.times))

    def sigma(self, t: Tensor) -> Tensor:
        return self._at("sigma", t, len(self.times))

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        return self._at("log_alpha_rate", t, self._noisy)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return self._at("diffusion_squared", t, self._noisy)

    def diffusion(self, t: Tensor) -> Tensor:
        return self._at("diffusion", t, self._noisy)

    def kernel(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        later, row = self._row(t), self._row(s)
        if later is None or row != later + 1:
            return self.process.kernel(s, t)
        if self._steps is None:
            self._steps = self.process.kernel(self.times[1:], self.times[:-1])
        a, b = self._steps
        return a[later:row], b[later:row]

    def log_snr(self, t: Tensor) -> Tensor:
        return self.process.log_snr(t)

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.process.time_at_log_snr(log_snr)

    def time_at_sigma(self, sigma: Tensor) -> Tensor:
        return self.process.time_at_sigma(sigma)

    def check_time(self, t: Tensor) -> None:
        self.process.check_time(t)
