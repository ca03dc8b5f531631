"""General diffusions: any drift f(x, t) and matrix G(x, t), with exact normal distributions where the drift is affine.

    dx = f(x, t) dt + G(x, t) dw        (Ito), t from 0 (data) to 1 (prior).

The reverse-time SDE is dx = [f - div(G G') - G G' score] dt + G dw, and the probability flow has half of the last two
terms and no noise (Anderson 1982; Song et al. 2021, appendix A). `Process` is the case f = f(t) x, G = g(t) I, with
faster code.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import normal_log_prob, over_event
from scorefield._random import Noise
from scorefield.process.affine import AffineTransitions, cholesky_factor
from scorefield.process.process import TimeLimits, check_time


@record
class NormalPrior:
    """N(mean, covariance) over the flattened event, from which samplers start; in model units.

    Args:
        mean: One number, or one per component.
        covariance: One variance, one variance per component, or a covariance matrix.

    Raises:
        ValueError: A variance is not positive, or the matrix is not symmetric and positive definite.
    """

    mean: float | tuple[float, ...] = 0.0
    covariance: float | tuple[float, ...] | tuple[tuple[float, ...], ...] = 1.0

    def __post_init__(self) -> None:
        covariance = torch.tensor(self.covariance, dtype=torch.float64)
        if covariance.ndim < 2:
            positive = bool((covariance > 0).all())
        else:
            positive = torch.equal(covariance, covariance.mT) and not int(torch.linalg.cholesky_ex(covariance)[1])
        if not positive:
            raise ValueError(
                "the prior's covariance must be a positive variance, one per component, or a symmetric positive"
                f" definite matrix; got {self.covariance}"
            )

    def _mean_and_root(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (D,), and the deviations (D,) or the lower Cholesky factor (D, D), for events of the shape of x."""
        D = math.prod(x.shape[1:])
        mean = torch.tensor(self.mean, dtype=torch.float64)
        covariance = torch.tensor(self.covariance, dtype=torch.float64)
        for name, part in (("mean", mean), ("covariance", covariance)):
            if part.ndim and len(part) != D:
                raise ValueError(
                    f"the prior's {name} has {len(part)} components, and x of shape {tuple(x.shape)} has {D}; give one"
                    " number, or one per component"
                )
        deviations = torch.linalg.cholesky(covariance) if covariance.ndim == 2 else covariance.sqrt().expand(D)
        return mean.expand(D).to(x), deviations.to(x)

    def sample(self, z: Tensor) -> Tensor:
        """mean + L z, with L L' the covariance; shape of z."""
        mean, L = self._mean_and_root(z)
        flat = z.reshape(z.shape[0], -1)
        return (mean + (flat @ L.T if L.ndim == 2 else flat * L)).reshape(z.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats and model units, (B, *event) -> (B,)."""
        mean, L = self._mean_and_root(x)
        flat = x.reshape(x.shape[0], -1) - mean
        if L.ndim == 2:
            return normal_log_prob(torch.linalg.solve_triangular(L, flat.T, upper=False).T, 1.0) - L.diag().log().sum()
        return normal_log_prob(flat / L, 1.0) - L.log().sum()


@record
class GeneralSDE:
    """The Ito SDE dx = f(x, t) dt + G(x, t) dw on 0 <= t <= 1.

    f and G must be functions that can be imported by name, so that an experiment with them can be saved. Their value
    for one example must not depend on the other examples of the batch.

    Args:
        drift: f(x, t), with x of shape (B, *event) and t of shape (B,); returns the shape of x.
        diffusion: G(x, t). Its shape is (B,) if `noise` is "scalar", that of x if "diagonal", and (B, D, M) if
            "matrix", with D the number of values of one example and M the number of independent noises.
        noise: The form of G: "scalar", "diagonal" or "matrix".
        prior: The distribution at t = 1 from which samplers start.
        affine: Whether f(x, t) = A(t) x + b(t). In that case x_t given x_0 is normal, and `transitions`, `marginal`,
            `perturb`, `score_target` and `weighted_residual` can be used. Otherwise x_t is simulated, and training uses
            sliced score matching.
        state_dependent: Whether G depends on x. With False, the divergence of G G' is not computed; `affine` needs
            False.
        t_min: The smallest times at which the process is used.

    Raises:
        ValueError: `affine` is given with a state-dependent G, for which x_t given x_0 is not normal.
    """

    drift: Callable[[Tensor, Tensor], Tensor]
    diffusion: Callable[[Tensor, Tensor], Tensor]
    noise: Literal["scalar", "diagonal", "matrix"] = "scalar"
    prior: NormalPrior = NormalPrior()
    affine: bool = False
    state_dependent: bool = True
    t_min: TimeLimits = TimeLimits(1e-3, 1e-3, 1e-3)

    simulation_weak_order: ClassVar[int] = 1
    """Weak order of Euler-Maruyama: expectations of smooth functions have an error of O(step)."""

    def __post_init__(self) -> None:
        if self.noise not in ("scalar", "diagonal", "matrix"):
            raise ValueError(f"noise must be 'scalar', 'diagonal' or 'matrix'; got {self.noise!r}")
        if self.affine and self.state_dependent:
            raise ValueError(
                "affine=True needs a diffusion that does not depend on x (state_dependent=False): with G(x, t) the"
                " distribution of x_t given x_0 is not normal. Use affine=False, which simulates x_t"
            )

    # ---------------------------------------------------------------------------------------- coefficients

    def _drift(self, x: Tensor, t: Tensor) -> Tensor:
        """f(x, t), with its shape checked; t, which may be float64 on the CPU, takes the device and dtype of x."""
        f = self.drift(x, t.to(x))
        if f.shape != x.shape:
            raise ValueError(f"drift(x, t) has shape {tuple(f.shape)}; it must be that of x, {tuple(x.shape)}")
        return f.to(x.dtype)

    def _diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        """G(x, t), with its shape checked."""
        g = self.diffusion(x, t.to(x))
        D = math.prod(x.shape[1:])
        wanted = {"scalar": (len(t),), "diagonal": tuple(x.shape), "matrix": (len(t), D, -1)}[self.noise]
        if g.ndim != len(wanted) or any(have != want for have, want in zip(g.shape, wanted, strict=True) if want >= 0):
            raise ValueError(
                f"diffusion(x, t) has shape {tuple(g.shape)}; noise={self.noise!r} and x of shape {tuple(x.shape)} need"
                f" {str(wanted).replace('-1', 'M')}. Scalar G is (B,), diagonal has the shape of x, matrix is (B, D, M)"
            )
        return g.to(x.dtype)

    def noise_like(self, x: Tensor, t: Tensor) -> Tensor:
        """A tensor with the shape of the noise z in G z: x itself, or one of shape (B, M) if `noise` is "matrix"."""
        return x if self.noise != "matrix" else x.new_empty(x.shape[0], self._diffusion(x, t).shape[-1])

    def apply_diffusion(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """G(x, t) z, shape of x, for z of the shape of `noise_like(x, t)`."""
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

        Scalar G needs one backward pass. Otherwise the divergence is computed as the gradient of div(G G' w) with
        respect to w, in which G G' w is linear; this needs D backward passes, and one through them. The result is
        detached from x.
        """
        if not self.state_dependent:
            return torch.zeros_like(x)
        with torch.enable_grad():
            u = x.detach().requires_grad_(True)
            if self.noise == "scalar":
                total, towards = (self._diffusion(u, t) ** 2).sum(), u
            else:
                towards = torch.ones_like(x).requires_grad_(True)
                total = _linear_divergence(self._squared(u, t, towards), u)
            if not total.requires_grad:  # G does not depend on x, although state_dependent is True
                return torch.zeros_like(x)
            return torch.autograd.grad(total, towards, allow_unused=True, materialize_grads=True)[0]

    def reverse_drift(self, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Drift of the reverse-time SDE, f - div(G G') - G G' score, shape of x."""
        return self._drift(x, t) - self.diffusion_divergence(x, t) - self._squared(x, t, score)

    def flow_drift(self, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """Drift of the probability flow, f - div(G G') / 2 - G G' score / 2, shape of x (Song et al. 2021, eq. 37)."""
        return self._drift(x, t) - 0.5 * (self.diffusion_divergence(x, t) + self._squared(x, t, score))

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
        """Simulate forward in time by Euler-Maruyama, x_{k+1} = x_k + f dt + G sqrt(dt) z_k, of weak order 1.

        Reference: Kloeden and Platen 1992, section 14.1.

        Args:
            x0: States at times[0], shape (B, *event).
            times: Increasing times in [0, 1], shape (N + 1,).
            noise: Source of the normal noise; step k uses `noise.normal(like, step=k, draw=0)`.

        Returns:
            The states at every time, shape (N + 1, B, *event).

        Raises:
            ValueError: There are fewer than two times, or they do not increase.
        """
        times = times.to(device="cpu", dtype=torch.float64)
        if times.ndim != 1 or len(times) < 2 or bool((times.diff() <= 0).any()):
            raise ValueError(
                "simulate runs forward in time and needs two or more increasing times, shape (N + 1,); got"
                f" {times.tolist()}"
            )
        path = [x0]
        for k, dt in enumerate(times.diff().tolist()):
            x, t = path[-1], times[k].expand(x0.shape[0])
            z = noise.normal(self.noise_like(x, t), k, 0)
            path.append(x + dt * self._drift(x, t) + math.sqrt(dt) * self.apply_diffusion(x, t, z))
        return torch.stack(path)

    def simulate_to(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Simulate each example from 0 to its own time t by Euler-Maruyama, in N equal steps of size t / N.

        Args:
            x0: States at time 0, shape (B, *event).
            t: End times, shape (B,).
            z: Standard normal noise, shape (B, N, *event), or (B, N, M) if `noise` is "matrix".

        Returns:
            The states x_t, shape of x0; the error of their distribution is O(t / N).
        """
        steps = z.shape[1]
        t = t.to(torch.float64)
        dt = over_event(t / steps, x0)
        x = x0
        for k in range(steps):
            now = t * (k / steps)
            x = x + dt * self._drift(x, now) + dt.sqrt() * self.apply_diffusion(x, now, z[:, k])
        return x

    # ---------------------------------------------------------------------------------------- affine distributions

    def transitions(self, event: tuple[int, ...]) -> AffineTransitions:
        """The normal distributions of x_t given x_s over events of this shape.

        They are computed once per shape, at a cost of O(D^3).

        Raises:
            ValueError: The process is not affine, its drift or diffusion contradicts the declaration, or it varies too
                fast in time.
        """
        if not self.affine:
            raise ValueError(
                "the distribution of x_t given x_0 is known only for an affine drift. If f(x, t) = A(t) x + b(t) and G"
                " does not depend on x, pass affine=True, state_dependent=False; otherwise use simulate and sliced"
                " score matching"
            )
        event = tuple(event)
        if event not in self._transitions:
            self._check_affine(event)
            self._transitions[event] = AffineTransitions(functools.partial(self._coefficients, event=event))
        return self._transitions[event]

    @functools.cached_property
    def _transitions(self) -> dict[tuple[int, ...], AffineTransitions]:
        return {}

    def marginal(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean Phi x_0 + m, shape of x0, and lower Cholesky factor L of P, (B, D, D), of x_t given x_0; dtype of x0.

        Raises:
            ValueError: P is singular at a time, because the noise does not reach every component.
        """
        moments = self.transitions(tuple(x0.shape[1:])).moments(t)
        mean = (moments.transition.to(x0) @ x0.reshape(x0.shape[0], -1, 1))[..., 0] + moments.offset.to(x0)
        return mean.reshape(x0.shape), cholesky_factor(moments.covariance, t).to(x0)

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_t = Phi x_0 + m + L z, for z of the shape of x0."""
        mean, L = self.marginal(x0, t)
        return mean + (L @ z.reshape(z.shape[0], -1, 1)).reshape(z.shape)

    def score_target(self, t: Tensor, z: Tensor) -> Tensor:
        """The regression target of denoising score matching, grad log p(x_t | x_0) = -L'^{-1} z.

        x_t is perturb(x_0, t, z). The target is computed in float64 and returned with the shape and dtype of z.
        """
        L = self._root(t, z).to(z.device)
        target = torch.linalg.solve_triangular(L.mT, -z.reshape(z.shape[0], -1, 1).to(L), upper=True)
        return target.reshape(z.shape).to(z)

    def weighted_residual(self, score: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """L' score + z, shape of z: the matrix form of sigma score + z.

        It is zero where the score equals `score_target`, and of order one at every t where the score is zero.
        """
        L = self._root(t, z).to(z)
        return (L.mT @ score.reshape(z.shape[0], -1, 1)).reshape(z.shape) + z

    def _root(self, t: Tensor, z: Tensor) -> Tensor:
        """L with L L' = P, the covariance of x_t given x_0 for events of the shape of z; float64 on the CPU."""
        return cholesky_factor(self.transitions(tuple(z.shape[1:])).moments(t).covariance, t)

    def _coefficients(self, t: Tensor, event: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """A, b and G G' at times (K,), from the drift at 0 and at the unit vectors."""
        D = math.prod(event)
        corners = torch.cat([torch.zeros(1, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)])
        x = corners.repeat(len(t), 1).reshape(-1, *event)
        with torch.no_grad():
            f = self._drift(x, t.repeat_interleave(D + 1)).reshape(len(t), D + 1, D)
            g = self._diffusion(x[:: D + 1], t)
        if self.noise == "scalar":
            squared = torch.diag_embed((g * g)[:, None].expand(-1, D))
        elif self.noise == "diagonal":
            squared = torch.diag_embed((g * g).reshape(len(t), -1))
        else:
            squared = g @ g.mT
        return (f[:, 1:] - f[:, :1]).mT, f[:, 0], squared

    def _check_affine(self, event: tuple[int, ...]) -> None:
        """Refuse a drift that is declared affine and is not, and a diffusion declared independent of x that is not.

        Raises:
            ValueError: The drift is not affine in x at one of three times, or the diffusion depends on x.
        """
        t = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
        x = torch.linspace(-1.7, 2.3, 3 * math.prod(event), dtype=torch.float64).reshape(3, *event)
        A, b, _ = self._coefficients(t, event)
        with torch.no_grad():
            f = self._drift(x, t).reshape(3, -1)
            g, g_zero = self._diffusion(x, t), self._diffusion(torch.zeros_like(x), t)
        if not torch.allclose((A @ x.reshape(3, -1, 1))[..., 0] + b, f, rtol=1e-5, atol=1e-7):
            raise ValueError(
                "affine=True, but drift(x, t) is not A(t) x + b(t) (checked at t = 0.25, 0.5 and 1); pass affine=False,"
                " which simulates x_t"
            )
        if not torch.allclose(g, g_zero, rtol=1e-5, atol=1e-9):
            raise ValueError("state_dependent=False, but diffusion(x, t) changes with x; pass state_dependent=True")


def _linear_divergence(field: Tensor, x: Tensor) -> Tensor:
    """Sum over the batch of the divergence of field(x), with its graph, so that it can be differentiated again."""
    flat = field.reshape(field.shape[0], -1)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for j in range(flat.shape[1]):
        column = flat[:, j].sum()
        (row,) = torch.autograd.grad(column, x, create_graph=True, allow_unused=True, materialize_grads=True)
        total = total + row.reshape(flat.shape)[:, j].sum()
    return total
