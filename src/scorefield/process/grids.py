"""Time grids: the N + 1 times between which a sampler takes N steps, from t = 1 to `t_min.sampling` of the process."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield.process.general import GeneralSDE
from scorefield.process.process import Process
from scorefield.process.tabulated import Tabulated


class Grid(ABC):
    """A rule that places the times of a sampler."""

    @abstractmethod
    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Strictly decreasing float64 times, shape (N + 1,), from 1 to the process's `t_min.sampling`."""


class _FixedSteps(Grid):
    """A grid with a given number of steps."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a grid needs at least one step; got steps={self.steps}")

    def _fractions(self) -> Tensor:
        """Equally spaced numbers from 0 to 1, shape (N + 1,)."""
        return torch.linspace(0.0, 1.0, self.steps + 1, dtype=torch.float64)

    def _with_noise_level(self, process: Process | GeneralSDE) -> Process:
        """The process; a `GeneralSDE`, which has no single noise level per time, is refused."""
        if isinstance(process, GeneralSDE):
            raise ValueError(
                f"{type(self).__name__} places steps by the noise level, and a GeneralSDE has a covariance instead; use"
                " Uniform or Quadratic, which place them by t"
            )
        return process

    def _with_exact_ends(self, times: Tensor, process: Process | GeneralSDE) -> Tensor:
        """The times with the end points set to 1 and t_min, free of rounding errors; equal times are refused."""
        times = times.clone()
        times[0], times[-1] = 1.0, process.t_min.sampling
        if process.t_min.sampling >= 1.0:
            raise ValueError(
                f"{type(self).__name__} places steps between t = 1 and t_min.sampling, which is also 1 for this"
                " process. For a ladder of one level use EveryLevel(clean=True)"
            )
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{type(self).__name__} with {self.steps} steps gives two equal times under {process}; use fewer steps,"
                " and between='linear' on a ladder"
            )
        return times


@record
class Uniform(_FixedSteps):
    """Equal steps in t.

    Args:
        steps: Number of steps, N.
    """

    steps: int = 1000

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """t = linspace(1, t_min, N + 1)."""
        return self._with_exact_ends(1.0 + self._fractions() * (process.t_min.sampling - 1.0), process)


@record
class Quadratic(_FixedSteps):
    """Equal steps in sqrt(t): t = (1 + u (sqrt(t_min) - 1))^2, u from 0 to 1 (Song, Meng and Ermon 2021, DDIM).

    Args:
        steps: Number of steps, N.
    """

    steps: int = 100

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Squares of equally spaced square roots."""
        return self._with_exact_ends((1.0 + self._fractions() * (process.t_min.sampling**0.5 - 1.0)) ** 2, process)


@record
class LogSNR(_FixedSteps):
    """Equal steps in log(alpha^2 / sigma^2) (Lu et al. 2022, DPM-Solver).

    Args:
        steps: Number of steps, N.
    """

    steps: int = 100

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times at which log(alpha^2 / sigma^2) is equally spaced."""
        process = self._with_noise_level(process)
        ends = process.log_snr(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64))
        return self._with_exact_ends(
            process.time_at_log_snr(ends[0] + self._fractions() * (ends[1] - ends[0])), process
        )


@record
class GeometricSigma(_FixedSteps):
    """Equal steps in log sigma, which are the levels of NCSN, for any process.

    Args:
        steps: Number of steps, N.
    """

    steps: int = 100

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times at which sigma is geometrically spaced."""
        process = self._with_noise_level(process)
        ends = process.sigma(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64)).log()
        return self._with_exact_ends(
            process.time_at_sigma((ends[0] + self._fractions() * (ends[1] - ends[0])).exp()), process
        )


@record
class PowerSigma(_FixedSteps):
    """Equal steps in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5).

    Args:
        steps: Number of steps, N.
        rho: Exponent; 7 in the paper. 1 gives equal steps in sigma / alpha, and large rho the geometric grid.

    Raises:
        ValueError: rho is not positive and finite, or there is no step.
    """

    steps: int = 100
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rho < float("inf"):
            raise ValueError(f"rho must be positive and finite, for example 7; got {self.rho}")

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times at which (sigma / alpha)^(1 / rho) is equally spaced."""
        # In the ratio, so that the grid has the same noise-to-data ratios for every process.
        process = self._with_noise_level(process)
        ends = (-0.5 * process.log_snr(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64))).exp()
        roots = ends ** (1.0 / self.rho)
        ratio = (roots[0] + self._fractions() * (roots[1] - roots[0])) ** self.rho
        return self._with_exact_ends(process.time_at_log_snr(-2.0 * ratio.log()), process)


@record
class Focused(_FixedSteps):
    """Steps that are shortest at one noise-to-data ratio r = sigma / alpha and grow with the distance from it.

    log r = log centre + width sinh(v), with v in equal steps. The posterior mean changes most where the noise is about
    as large as the standard deviation of the data, and very little where the noise is much larger.

    Args:
        steps: Number of steps, N.
        centre: The ratio r at which the steps are shortest. The standard deviation of the data in model units is a good
            value.
        width: Range of log r on each side of the centre over which the steps stay short. For a large width the grid
            approaches `LogSNR`.
        on_levels: Whether each time of a ladder is moved to the nearest level, as networks trained only at the levels
            need. Times that coincide are merged, so there may be fewer than N steps.

    Raises:
        ValueError: centre or width is not positive and finite, or there is no step.
    """

    steps: int = 30
    centre: float = 0.5
    width: float = 2.0
    on_levels: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0.0 < self.centre < float("inf") and 0.0 < self.width < float("inf")):
            raise ValueError(f"centre and width must be positive and finite; got {self.centre} and {self.width}")

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """Times at which arsinh(log(r / centre) / width) is equally spaced."""
        process = self._with_noise_level(process)
        ends = -0.5 * process.log_snr(torch.tensor([1.0, process.t_min.sampling], dtype=torch.float64))
        middle = torch.tensor(self.centre, dtype=torch.float64).log()
        v = torch.asinh((ends - middle) / self.width)
        log_ratio = middle + self.width * torch.sinh(v[0] + self._fractions() * (v[1] - v[0]))
        if not self.on_levels or (isinstance(process, Tabulated) and process.levels == 1):
            return self._with_exact_ends(process.time_at_log_snr(-2.0 * log_ratio), process)
        if not isinstance(process, Tabulated):
            raise ValueError(
                f"on_levels=True moves times to the levels of a Tabulated process, and this process is"
                f" {type(process).__name__}; use on_levels=False"
            )
        levels = process.time(torch.arange(process.levels))
        distance = -0.5 * process.log_snr(levels) - log_ratio[:, None]
        return levels[distance.abs().argmin(1).unique().flip(0)]


@record
class EveryLevel(Grid):
    """The levels of a tabulated process, with one step from each level to the next.

    Args:
        clean: Whether the grid ends below level 0, where there is no noise (sigma_{-1} = 0 in the release), so that the
            last step starts at level 0.
        refine: Number of steps from each level to the next. Above 1, the additional times are evenly spaced between the
            levels, so that a geometric ladder stays geometric, with (N - 1) refine + 1 levels (n_sigma of
            Jolicoeur-Martineau et al. 2021).

    Raises:
        ValueError: refine is below 1.
    """

    clean: bool = True
    refine: int = 1

    def __post_init__(self) -> None:
        if self.refine < 1:
            raise ValueError(f"refine is the number of steps per level and must be at least 1; got {self.refine}")

    def times(self, process: Process | GeneralSDE) -> Tensor:
        """t_{N-1}, ..., t_0, and the time below level 0 if `clean`."""
        if not isinstance(process, Tabulated):
            raise ValueError(
                f"EveryLevel steps through the levels of a Tabulated process, and this one is {type(process).__name__};"
                " use Uniform(steps=1000), or give the sampler process=Tabulated(...)"
            )
        if self.refine > 1 and process.between == "floor":
            raise ValueError(
                f"refine={self.refine} adds times between the levels, where a ladder with between='floor' is constant;"
                " use between='linear', or refine=1"
            )
        steps = (process.levels - 1) * self.refine
        times = process.time(torch.arange(steps, -1, -1, dtype=torch.float64) / self.refine)
        return torch.cat([times, process.time(torch.tensor([-1]))]) if self.clean else times
