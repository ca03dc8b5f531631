"""General diffusions: any drift f(x, t), any diffusion matrix G(x, t), and exact Gaussian laws where the drift is affine.

    dx = f(x, t) dt + G(x, t) dw        (Ito), t from 0 (data) to 1 (prior).

Reversed in time it is dx = [f - div(G G') - G G' score] dt + G dw, and the probability flow has half of the last two terms
(Anderson 1982; Song et al. 2021, appendix A). `Process` is the case f = f(t) x, G = g(t) I, with faster code.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import LOG_2PI, over_event
from scorefield._random import Noise
from scorefield.process.process import TimeLimits, check_time


@record
class NormalPrior:
    """N(mean, covariance) over the flattened event: where samplers start.

    Args:
        mean: One number, or one per component.
        covariance: A variance, one variance per component, or a matrix.
    """

    mean: float | tuple[float, ...] = 0.0
    covariance: float | tuple[float, ...] | tuple[tuple[float, ...], ...] = 1.0

    def _law(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (D,) and lower Cholesky factor (D, D), for an event of the size of one x."""
        dimension = x[0].numel()
        mean = torch.tensor(self.mean, dtype=torch.float64).expand(dimension)
        covariance = torch.tensor(self.covariance, dtype=torch.float64)
        if covariance.ndim < 2:
            covariance = torch.diag(covariance.expand(dimension))
        return mean.to(x), torch.linalg.cholesky(covariance).to(x)

    def sample(self, z: Tensor) -> Tensor:
        """mean + L z with L L' the covariance; shape of z."""
        mean, factor = self._law(z)
        return (mean + z.reshape(z.shape[0], -1) @ factor.T).reshape(z.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats and model units, (B, *event) -> (B,)."""
        mean, factor = self._law(x)
        whitened = torch.linalg.solve_triangular(factor, (x.reshape(x.shape[0], -1) - mean).T, upper=False)
        return -0.5 * (len(mean) * LOG_2PI + (whitened**2).sum(dim=0)) - factor.diagonal().log().sum()


class Moments(NamedTuple):
    """x_t given x_s is N(transition x_s + offset, covariance), over the flattened event, float64.

    Attributes:
        transition: Phi, shape (B, D, D).
        offset: m, shape (B, D).
        covariance: P, shape (B, D, D).
    """

    transition: Tensor
    offset: Tensor
    covariance: Tensor

    def after(self, first: Moments) -> Moments:
        """The law of going by `first` and then by this."""
        phi = self.transition
        return Moments(
            phi @ first.transition,
            (phi @ first.offset[..., None])[..., 0] + self.offset,
            phi @ first.covariance @ phi.mT + self.covariance,
        )


@record
class GeneralSDE:
    """dx = f(x, t) dt + G(x, t) dw, Ito, on 0 <= t <= 1.

    Functions are given by name so that an experiment with one can be saved; they act on each example alone.

    Args:
        drift: f(x, t) with x of shape (B, *event), t of shape (B,), returns the shape of x.
        diffusion: G(x, t): shape (B,) if noise is "scalar"; the shape of x if "diagonal"; (B, D, M) if "matrix", acting on M
            independent noises, D the number of values of one example.
        noise: The form of G.
        prior: The law at t = 1 that samplers start from.
        affine: f(x, t) = A(t) x + b(t). Then x_t given x_0 is normal, and `moments`, `marginal`, `kernel`, `perturb` and
            `score_target` exist; without it the process is simulated, and trained by sliced score matching.
        state_dependent: Whether G depends on x. False spares the divergence of G G'; affine needs it.
        t_min: The smallest times of use.

    Raises:
        ValueError: `affine` with a state-dependent G, whose transition law is not normal.
    """

    drift: Callable[[Tensor, Tensor], Tensor]
    diffusion: Callable[[Tensor, Tensor], Tensor]
    noise: Literal["scalar", "diagonal", "matrix"] = "scalar"
    prior: NormalPrior = NormalPrior()  # noqa: RUF009 (frozen)
    affine: bool = False
    state_dependent: bool = True
    t_min: TimeLimits = TimeLimits(1e-3, 1e-3, 1e-3)  # noqa: RUF009 (frozen)

    simulation_weak_order: ClassVar[int] = 1
    """Of Euler-Maruyama: expectations of smooth functions err by O(step)."""

    def __post_init__(self) -> None:
        if self.noise not in ("scalar", "diagonal", "matrix"):
            raise ValueError(f"noise must be 'scalar', 'diagonal' or 'matrix'; got {self.noise!r}")
        if self.affine and self.state_dependent:
            raise ValueError(
                "affine=True needs a diffusion that does not depend on x (state_dependent=False): with G(x, t) the law of x_t"
                " given x_0 is not normal; leave affine=False and simulate"
            )

    # ---------------------------------------------------------------------------------------- coefficients

    def _diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        """G(x, t), its shape checked."""
        g = self.diffusion(x, t)
        wanted = {"scalar": tuple(t.shape), "diagonal": tuple(x.shape), "matrix": (x.shape[0], x[0].numel(), -1)}[self.noise]
        if g.ndim != len(wanted) or any(have != want for have, want in zip(g.shape, wanted, strict=True) if want >= 0):
            raise ValueError(
                f"diffusion(x, t) has shape {tuple(g.shape)}, but noise={self.noise!r} and x of shape {tuple(x.shape)} need"
                f" {str(wanted).replace('-1', 'M')}; noise='scalar' is (B,), 'diagonal' the shape of x, 'matrix' (B, D, M)"
            )
        return g.to(x.dtype)

    def apply_diffusion(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """G(x, t) z, shape of x; z has the shape of x, or (B, M) if noise is "matrix"."""
        g = self._diffusion(x, t)
        if self.noise == "matrix":
            return (g @ z[..., None])[..., 0].reshape(x.shape)
        return over_event(g, x) * z

    def _squared(self, x: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """G G' v, shape of x."""
        g = self._diffusion(x, t)
        if self.noise == "matrix":
            return (g @ (g.mT @ v.reshape(x.shape[0], -1, 1))).reshape(x.shape)
        return over_event(g * g, x) * v

    def diffusion_divergence(self, x: Tensor, t: Tensor) -> Tensor:
        """div(G G')_i = sum_j d (G G')_ij / dx_j, shape of x; zero where G does not depend on x.

        One reverse pass for scalar G; D forward passes otherwise.
        """
        if not self.state_dependent:
            return torch.zeros_like(x)
        x = x.detach()
        if self.noise == "scalar":
            with torch.enable_grad():
                u = x.requires_grad_(True)
                squared = self._diffusion(u, t) ** 2
                if not squared.requires_grad:
                    return torch.zeros_like(x)
                return torch.autograd.grad(squared.sum(), u)[0]
        total = torch.zeros_like(x).reshape(x.shape[0], -1)
        for j in range(total.shape[1]):
            unit = torch.zeros_like(total)
            unit[:, j] = 1.0
            unit = unit.reshape(x.shape)
            # Column j of G G' is G G' e_j; its derivative along x_j is one Jacobian-vector product.
            _, rate = torch.func.jvp(lambda u, e=unit: self._squared(u, t, e), (x,), (unit,))
            total = total + rate.reshape(total.shape)
        return total.reshape(x.shape)

    def reverse_drift(self, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """f - div(G G') - G G' score, shape of x."""
        return self.drift(x, t) - self.diffusion_divergence(x, t) - self._squared(x, t, score)

    def flow_drift(self, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """f - div(G G') / 2 - G G' score / 2, shape of x: same marginals, no noise (Song et al. 2021, eq. 37)."""
        return self.drift(x, t) - 0.5 * (self.diffusion_divergence(x, t) + self._squared(x, t, score))

    def check_time(self, t: Tensor) -> None:
        """Refuse times outside [t_min, 1] (see `Process.check_time`)."""
        check_time(t, self.t_min, type(self).__name__)

    # ---------------------------------------------------------------------------------------- prior, simulation

    def prior_sample(self, z: Tensor) -> Tensor:
        """A sample of the prior from standard normal noise z, shape of z."""
        return self.prior.sample(z)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log density of the prior in nats and model units, (B, *event) -> (B,)."""
        return self.prior.log_prob(x)

    def simulate(self, x0: Tensor, times: Tensor, noise: Noise) -> Tensor:
        """Forward Euler-Maruyama, x_{k+1} = x_k + f dt + G sqrt(dt) z_k, of weak order 1 (Kloeden and Platen 1992, section 14.1).

        Args:
            x0: States at times[0], shape (B, *event).
            times: Increasing times in [0, 1], shape (N + 1,).
            noise: Step k reads `noise.normal(like, step=k, draw=0)`.

        Returns:
            The states at every time, shape (N + 1, B, *event).

        Raises:
            ValueError: The times do not increase.
        """
        times = times.to(device="cpu", dtype=torch.float64)
        if times.ndim != 1 or len(times) < 2 or bool((times.diff() <= 0).any()):
            raise ValueError("simulate runs forward: times must be two or more increasing numbers, shape (N + 1,)")
        path = [x0]
        for k, dt in enumerate(times.diff().tolist()):
            x, t = path[-1], times[k].to(x0).expand(x0.shape[0])
            like = x
            if self.noise == "matrix":
                like = x.new_empty(x.shape[0], self._diffusion(x, t).shape[-1])
            z = noise.normal(like, k, 0)
            path.append(x + dt * self.drift(x, t) + math.sqrt(dt) * self.apply_diffusion(x, t, z))
        return torch.stack(path)

    # ---------------------------------------------------------------------------------------- affine laws

    def _need_affine(self) -> None:
        if not self.affine:
            raise ValueError(
                "the law of x_t given x_0 is known only for an affine drift; if f(x, t) = A(t) x + b(t) and G does not depend"
                " on x, pass affine=True, state_dependent=False, else use simulate and sliced score matching"
            )

    def moments(self, t: Tensor, event: tuple[int, ...]) -> Moments:
        """The law of x_t given x_0 from dPhi/dt = A Phi, dm/dt = A m + b, dP/dt = A P + P A' + G G' (Sarkka and Solin 2019, 6.2).

        Fourth-order Runge-Kutta in float64, from a table of laws at equally spaced times that is made once per event shape.

        Args:
            t: Times, shape (B,).
            event: Shape of one example, D values in all; the cost grows as D^3.

        Raises:
            ValueError: The drift is not affine, or varies too fast in time.
        """
        self._need_affine()
        table = _table(self, tuple(event))
        t = t.detach().to(device="cpu", dtype=torch.float64)
        knot = (t * table.knots).floor().clamp(0, table.knots - 1).long()
        start = knot / table.knots
        rest = _integrate(self, start, t - start, event, table.steps)
        return rest.after(Moments(*(part[knot] for part in table.laws)))

    def kernel(self, s: Tensor, t: Tensor, event: tuple[int, ...]) -> Moments:
        """The law of x_t given x_s, for s <= t, both of shape (B,)."""
        self._need_affine()
        table = _table(self, tuple(event))
        s, t = (u.detach().to(device="cpu", dtype=torch.float64) for u in (s, t))
        intervals = max(1, math.ceil(table.knots * float((t - s).max())))
        return _integrate(self, s, t - s, event, table.steps * intervals)

    def marginal(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean Phi x_0 + m, shape of x0, and lower Cholesky factor L of P, (B, D, D), of x_t given x_0, in the dtype of x0.

        Raises:
            ValueError: P is singular at a t: the noise does not reach every component.
        """
        law = self.moments(t, tuple(x0.shape[1:]))
        mean = (law.transition.to(x0) @ x0.reshape(x0.shape[0], -1, 1))[..., 0] + law.offset.to(x0)
        return mean.reshape(x0.shape), _factor(law.covariance, t).to(x0)

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_t = Phi x_0 + m + L z, for z of the shape of x0."""
        mean, factor = self.marginal(x0, t)
        return mean + (factor @ z.reshape(z.shape[0], -1, 1)).reshape(z.shape)

    def score_target(self, t: Tensor, z: Tensor) -> Tensor:
        """grad log p(x_t | x_0) = -L'^{-1} z at x_t = perturb(x_0, t, z), shape of z: what denoising score matching regresses on."""
        factor = _factor(self.moments(t, tuple(z.shape[1:])).covariance, t).to(z)
        target = torch.linalg.solve_triangular(factor.mT, -z.reshape(z.shape[0], -1, 1), upper=True)
        return target.reshape(z.shape)

    def weighted_residual(self, score: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """L' score + z, shape of z: zero at the target and of unit size at every t, the matrix form of sigma score + z."""
        factor = _factor(self.moments(t, tuple(z.shape[1:])).covariance, t).to(z)
        return (factor.mT @ score.reshape(z.shape[0], -1, 1)).reshape(z.shape) + z


# ---------------------------------------------------------------------------------------------------- moment equations


class _Table(NamedTuple):
    """Laws of x_t given x_0 at t = k / knots, and the Runge-Kutta steps that one interval needs."""

    laws: Moments
    knots: int
    steps: int


KNOTS = 64
MOST_STEPS = 256
MOMENT_TOLERANCE = 1e-9
"""Change of the moments, relative to their own scale, when the number of Runge-Kutta steps doubles."""


def _coefficients(sde: GeneralSDE, t: Tensor, event: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """A (K, D, D), b (K, D) and G G' (K, D, D) at times of shape (K,), read off the drift at 0 and at the unit vectors."""
    dimension = math.prod(event)
    corners = torch.cat([torch.zeros(1, dimension, dtype=torch.float64), torch.eye(dimension, dtype=torch.float64)])
    x = corners.repeat(len(t), 1).reshape(-1, *event)
    with torch.no_grad():
        f = sde.drift(x, t.repeat_interleave(dimension + 1)).reshape(len(t), dimension + 1, dimension)
        g = sde._diffusion(torch.zeros(len(t), *event, dtype=torch.float64), t)
    if sde.noise == "scalar":
        squared = (g * g)[:, None, None] * torch.eye(dimension, dtype=torch.float64)
    elif sde.noise == "diagonal":
        squared = torch.diag_embed((g * g).reshape(len(t), -1))
    else:
        squared = g @ g.mT
    return (f[:, 1:] - f[:, :1]).mT, f[:, 0], squared


def _integrate(sde: GeneralSDE, start: Tensor, length: Tensor, event: tuple[int, ...], steps: int) -> Moments:
    """The laws of going from `start` to `start + length`, both (K,), in so many Runge-Kutta steps each."""
    dimension = math.prod(event)
    h = length / steps

    def rate(offset: float, y: Moments) -> Moments:
        a, b, squared = _coefficients(sde, start + offset * h, event)
        spread = a @ y.covariance
        return Moments(a @ y.transition, (a @ y.offset[..., None])[..., 0] + b, spread + spread.mT + squared)

    def moved(y: Moments, by: float, k: Moments) -> Moments:
        return Moments(*(v + by * over_event(h, v) * r for v, r in zip(y, k, strict=True)))

    zeros = torch.zeros(len(start), dimension, dimension, dtype=torch.float64)
    y = Moments(zeros + torch.eye(dimension, dtype=torch.float64), zeros[:, 0], zeros)
    for n in range(steps):
        k1 = rate(n, y)
        k2 = rate(n + 0.5, moved(y, 0.5, k1))
        k3 = rate(n + 0.5, moved(y, 0.5, k2))
        k4 = rate(n + 1.0, moved(y, 1.0, k3))
        y = moved(moved(moved(moved(y, 1 / 6, k1), 1 / 3, k2), 1 / 3, k3), 1 / 6, k4)
    return y


@functools.lru_cache(maxsize=16)
def _table(sde: GeneralSDE, event: tuple[int, ...]) -> _Table:
    """Laws at the knots, with the number of steps doubled until they no longer change."""
    _check_affine(sde, event)
    start = torch.arange(KNOTS, dtype=torch.float64) / KNOTS
    length = torch.full_like(start, 1.0 / KNOTS)
    steps, laws = 2, _chained(_integrate(sde, start, length, event, 2))
    while steps < MOST_STEPS:
        finer = _chained(_integrate(sde, start, length, event, 2 * steps))
        if _change(laws, finer) <= MOMENT_TOLERANCE:
            return _Table(finer, KNOTS, 2 * steps)
        steps, laws = 2 * steps, finer
    raise ValueError(
        f"the moment equations do not converge with {KNOTS * MOST_STEPS} Runge-Kutta steps; the coefficients jump or are larger"
        f" than about {KNOTS * MOST_STEPS}: smooth or rescale the drift and diffusion"
    )


def _chained(intervals: Moments) -> Moments:
    """Laws from time 0 to every knot, first the law of standing still, from the laws of the intervals between knots."""
    dimension = intervals.offset.shape[1]
    zeros = torch.zeros(dimension, dimension, dtype=torch.float64)
    laws = [Moments(torch.eye(dimension, dtype=torch.float64), zeros[0], zeros)]
    for k in range(len(intervals.offset)):
        laws.append(Moments(*(part[k] for part in intervals)).after(laws[-1]))
    return Moments(*(torch.stack(parts) for parts in zip(*laws, strict=True)))


def _change(coarse: Moments, fine: Moments) -> float:
    """Largest change: of P in units of its own standard deviations, of Phi and m in units of their largest entry (at least 1)."""
    deviation = fine.covariance.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    scale = (deviation[:, :, None] * deviation[:, None, :]).clamp_min(1e-300)
    changes = [((coarse.covariance - fine.covariance).abs() / scale)[1:].max()]
    changes += [(c - f).abs().max() / f.abs().max().clamp_min(1.0) for c, f in zip(coarse[:2], fine[:2], strict=True)]
    worst = float(torch.stack(changes).max())
    return worst if math.isfinite(worst) else math.inf


def _check_affine(sde: GeneralSDE, event: tuple[int, ...]) -> None:
    """Refuse a drift declared affine that is not, and a diffusion declared free of the state that is not.

    Raises:
        ValueError: As above.
    """
    t = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    x = torch.linspace(-1.7, 2.3, math.prod(event), dtype=torch.float64).reshape(1, *event).repeat(3, *(1 for _ in event))
    a, b, _ = _coefficients(sde, t, event)
    with torch.no_grad():
        f = sde.drift(x, t).reshape(3, -1)
        unchanged = torch.allclose(sde._diffusion(x, t), sde._diffusion(torch.zeros_like(x), t), rtol=1e-9, atol=1e-12)
    if not torch.allclose((a @ x.reshape(3, -1, 1))[..., 0] + b, f, rtol=1e-6, atol=1e-9):
        raise ValueError(
            "affine=True, but drift(x, t) is not A(t) x + b(t) (checked at t = 0.25, 0.5, 1); pass affine=False and simulate"
        )
    if not unchanged:
        raise ValueError("state_dependent=False, but diffusion(x, t) changes with x; pass state_dependent=True")


def _factor(covariance: Tensor, t: Tensor) -> Tensor:
    """Lower Cholesky factor of covariances (B, D, D), scaled by their deviations first, so that small ones keep their digits."""
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
    scale = deviation.clamp_min(1e-300)
    factor, info = torch.linalg.cholesky_ex(covariance / scale[:, :, None] / scale[:, None, :])
    if bool((info > 0).any()):
        bad = float(t.detach().reshape(-1).cpu()[int((info > 0).nonzero()[0])])
        raise ValueError(
            f"the covariance of x_t given x_0 is singular at t = {bad:g}: noise has not reached every component there, so there is"
            " no score; use t > 0, and a diffusion that drives every component directly or through the drift"
        )
    return scale[:, :, None] * factor
