"""Where a sampler puts its N steps: N + 1 times from t = 1 down to the process's sampling limit."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated


class Grid(ABC):
    """A rule that places times."""

    @abstractmethod
    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Strictly decreasing float64 times, shape (N + 1,), from 1 to the process's `t_min.sampling`."""


class _Steps(Grid):
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a grid needs at least one step; got steps={self.steps}")

    def _fractions(self) -> Tensor:
        return torch.linspace(0.0, 1.0, self.steps + 1, dtype=torch.float64)

    def _clocked(self, process: Process | GeneralSDE) -> Process:
        """Refuse a process without one noise level per time."""
        if isinstance(process, GeneralSDE):
            raise ValueError(
                f"{type(self).__name__} places steps by the noise level, and a GeneralSDE has a covariance instead; use"
                " Uniform or Quadratic, which place them by t"
            )
        return process

    def _pinned(self, times: Tensor, process: Process | GeneralSDE) -> Tensor:
        """The end points exactly, whatever rounding the inversion made."""
        times = times.clone()
        times[0], times[-1] = 1.0, process.t_min.sampling
        if process.t_min.sampling >= 1.0:
            raise ValueError(
                f"{type(self).__name__} places steps between t = 1 and t_min.sampling, here also 1: there is no room; a"
                " ladder of one level is stepped by EveryLevel(clean=True)"
            )
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{type(self).__name__} with {self.steps} steps puts two of them at one time under {process}; use fewer"
                " steps, and between='linear' on a ladder"
            )
        return times


@record
class Uniform(_Steps):
    """Equal steps in t.

    Args:
        steps: N.
    """

    steps: int = 1000

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """linspace(1, t_min, N + 1)."""
        return self._pinned(1.0 + self._fractions() * (process.t_min.sampling - 1.0), process)


@record
class Quadratic(_Steps):
    """Equal steps in sqrt(t): t = (1 + u (sqrt(t_min) - 1))^2 (Song, Meng and Ermon 2021, DDIM).

    Args:
        steps: N.
    """

    steps: int = 100

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Squares of equally spaced square roots."""
        return self._pinned((1.0 + self._fractions() * (process.t_min.sampling**0.5 - 1.0)) ** 2, process)


@record
class LogSNR(_Steps):
    """Equal steps in log(alpha^2 / sigma^2) (Lu et al. 2022, DPM-Solver).

    Args:
        steps: N.
    """

    steps: int = 100

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times of equally spaced log-SNR."""
        process = self._clocked(process)
        ends = process.log_snr(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64))
        return self._pinned(process.time_at_log_snr(ends[0] + self._fractions() * (ends[1] - ends[0])), process)


@record
class GeometricSigma(_Steps):
    """Equal steps in log sigma: the ladder of NCSN, on any process.

    Args:
        steps: N.
    """

    steps: int = 100

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times of geometric sigma."""
        process = self._clocked(process)
        ends = process.sigma(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64)).log()
        return self._pinned(process.time_at_sigma((ends[0] + self._fractions() * (ends[1] - ends[0])).exp()), process)


@record
class PowerSigma(_Steps):
    """sigma^(1/rho) in equal steps (Karras et al. 2022, eq. 5).

    Args:
        steps: N.
        rho: 7 is the paper's choice; 1 is uniform in sigma; large rho tends to the geometric grid.
    """

    steps: int = 100
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rho < float("inf"):
            raise ValueError(f"the power grid needs a finite rho > 0; got {self.rho}")

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times of the power grid, in the ratio sigma / alpha so that it means the same for every process."""
        process = self._clocked(process)
        ends = (-0.5 * process.log_snr(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64))).exp()
        roots = ends ** (1.0 / self.rho)
        ratio = (roots[0] + self._fractions() * (roots[1] - roots[0])) ** self.rho
        return self._pinned(process.time_at_log_snr(-2.0 * ratio.log()), process)


@record
class Focused(_Steps):
    """Steps that are shortest at one ratio of noise to data, and longer the further from it.

    log r = log centre + width sinh(v) with r = sigma / alpha and v in equal steps. The posterior mean changes most
    where the noise is about as large as the data's own spread, and hardly at all far above it.

    Args:
        steps: N.
        centre: r at which the steps are shortest; the data's standard deviation in model units is a good choice.
        width: In e-foldings of r, over which they stay short; where it is large the grid tends to `LogSNR`.
        on_levels: On a ladder, move each time to the nearest level and leave out those that meet, as networks trained
            at the levels alone need; there may then be fewer steps.
    """

    steps: int = 30
    centre: float = 0.5
    width: float = 2.0
    on_levels: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0.0 < self.centre < float("inf") and 0.0 < self.width < float("inf")):
            raise ValueError(f"a focused grid needs centre > 0 and width > 0; got {self.centre} and {self.width}")

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times of equally spaced arsinh(log(r / centre) / width)."""
        process = self._clocked(process)
        ends = -0.5 * process.log_snr(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64))
        middle = torch.tensor(self.centre, dtype=torch.float64).log()
        v = torch.asinh((ends - middle) / self.width)
        log_ratio = middle + self.width * torch.sinh(v[0] + self._fractions() * (v[1] - v[0]))
        if not self.on_levels or (isinstance(process, Tabulated) and process.levels == 1):
            return self._pinned(process.time_at_log_snr(-2.0 * log_ratio), process)
        if not isinstance(process, Tabulated):
            raise ValueError(
                f"on_levels=True is for ladders, and this process is {type(process).__name__}; leave it out"
            )
        levels = process.time(torch.arange(process.levels))
        distance = -0.5 * process.log_snr(levels) - log_ratio[:, None]
        return levels[distance.abs().argmin(1).unique().flip(0)]


@record
class EveryLevel(Grid):
    """The levels of a tabulated process, one step each.

    Args:
        clean: End below level 0, where there is no noise (the release's sigma_{-1} = 0), so that the last step starts
            at level 0.
        refine: Steps from each level to the next; above 1 the times between are evenly spaced, so that the noise of a
            geometric ladder stays geometric, with (N - 1) refine + 1 levels (n_sigma of Jolicoeur-Martineau et al.
            2021).
    """

    clean: bool = True
    refine: int = 1

    def __post_init__(self) -> None:
        if self.refine < 1:
            raise ValueError(f"refine={self.refine} steps per level; it must be at least 1")

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """t_{N-1}, ..., t_0, and below level 0 if `clean`."""
        if not isinstance(process, Tabulated):
            raise ValueError(
                f"only a Tabulated process has levels, this one is {type(process).__name__}; use Uniform(steps=1000) or"
                " give the sampler process=Tabulated(...)"
            )
        if self.refine > 1 and process.between == "floor":
            raise ValueError("a ladder with between='floor' has nothing between its levels; use between='linear'")
        steps = (process.levels - 1) * self.refine
        times = process.time(torch.arange(steps, -1, -1, dtype=torch.float64) / self.refine)
        return torch.cat([times, process.time(torch.tensor([-1]))]) if self.clean else times
