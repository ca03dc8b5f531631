"""A process whose coefficients are computed once for all times of a sampler's grid."""

from __future__ import annotations

from torch import Tensor

from scorefield._math import unexpanded
from scorefield.process.process import Process, TimeLimits


def on_grid(process: Process, times: Tensor) -> Process:
    """The same process with alpha, sigma, rates and transition kernels cached at the times of a grid.

    At a time of the grid that all examples share, each coefficient is returned as a single number, shape (1,) on the
    CPU, which a step multiplies with the state without a copy to the accelerator. At all other times the coefficients
    are computed by the process itself.

    Args:
        process: Any process.
        times: Decreasing times of the grid, shape (N + 1,), float64.
    """
    return _OnGrid(process, times)


class _OnGrid(Process):
    def __init__(self, process: Process, times: Tensor):
        self.process, self.times = process, times
        self._indices = {t: k for k, t in enumerate(times.tolist())}
        self._noisy = int((process.sigma(times) > 0.0).sum())  # rates are not defined below level 0 of a ladder
        self._cache: dict[str, Tensor] = {}
        self._kernels: tuple[Tensor, Tensor] | None = None

    def _index(self, t: Tensor) -> int | None:
        """Index of a time in the grid; None for other times, and where examples have different times."""
        t = unexpanded(t)
        return self._indices.get(t.item()) if len(t) == 1 and t.dtype == self.times.dtype else None

    def _at(self, name: str, t: Tensor, count: int) -> Tensor:
        """The coefficient `name` at t, from the cache of the first `count` times of the grid where t is one of them."""
        k = self._index(t)
        if k is None or k >= count:
            return getattr(self.process, name)(t)
        if name not in self._cache:
            self._cache[name] = getattr(self.process, name)(self.times[:count])
        return self._cache[name][k : k + 1]

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
        k, following = self._index(t), self._index(s)
        if k is None or following != k + 1:  # not one step of the grid
            return self.process.kernel(s, t)
        if self._kernels is None:
            self._kernels = self.process.kernel(self.times[1:], self.times[:-1])
        a, b = self._kernels
        return a[k:following], b[k:following]

    def log_snr(self, t: Tensor) -> Tensor:
        return self.process.log_snr(t)

    def time_at_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.process.time_at_log_snr(log_snr)

    def time_at_sigma(self, sigma: Tensor) -> Tensor:
        return self.process.time_at_sigma(sigma)

    def check_time(self, t: Tensor) -> None:
        self.process.check_time(t)
