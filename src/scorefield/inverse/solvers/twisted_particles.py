"""A particle filter for the posterior: guided proposals, with weights that correct the error of the guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scorefield._codec import record
from scorefield._math import norm_event, over_event, sum_event
from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.inverse.observation import Observation
from scorefield.inverse.solvers.pseudo_inverse import MomentMatched, PiGDM
from scorefield.inverse.solvers.reconstruction import DPS
from scorefield.inverse.solvers.solver import OBSERVED, PosteriorRun, Solver, Unobserving
from scorefield.inverse.solvers.tilted_score import Tilted, TiltingSolver
from scorefield.process.process import Process
from scorefield.sampling.adaptive import NOT_FINITE
from scorefield.sampling.named import ddim
from scorefield.sampling.predictors import Ancestral
from scorefield.sampling.sampler import Callback, Progress, Sampler
from scorefield.sampling.step import Step
from scorefield.score.score import Score


@dataclass(frozen=True)
class FilterRun(PosteriorRun):
    """Posterior samples, and all particles that they were drawn from.

    Args:
        particles: Estimates of x_0, (B, K, *event).
        log_weights: Normalised log weights of the particles, (B, K).
    """

    particles: Tensor | None = None
    log_weights: Tensor | None = None


@record
class TwistedParticles(Solver):
    """The twisted diffusion sampler: sequential Monte Carlo whose targets are p_t(x) p~(y | x).

    The prior is the distribution of x_0 = D(x_end), x going down the grid by reverse steps N(m(x), d^2 I). Each
    particle moves by the same step with the score tilted to y, and is weighed by

        w = N(x_s; m(x_t), d^2) p~(y | x_s) / (N(x_s; m~(x_t), d^2) p~(y | x_t)),
        at the end p(y | x_0) / p~(y | x_end),

    so that the guess p~ is divided out again: for any p~, as K -> infinity, the samples have the distribution of x_0
    given y under that prior, and the evidence is without bias for every K. A good guess keeps the weights alike. Where
    the effective number of particles, (sum w)^2 / sum w^2, falls below a share of K they are resampled
    (systematically).

    Every sample has a filter of its own, of K particles, and is one of them, drawn by weight: samples are independent,
    not of the other samples of the batch, and cost K evaluations a step; their distribution has an error O(1 / K). The
    particles of a filter are kept in the run: as a weighted sample they give the posterior's moments at the cost of one
    sample.

    Args:
        particles: K.
        proposal: "guided", or "prior": the prior's own steps, the weights alone knowing y.
        resample_below: Share of K.
        twist: p~; None takes `PiGDM()` for linear A and normal noise, else `DPS()`.

    Raises:
        ValueError: Fewer than 2 particles, a share outside [0, 1], or a twist that is not a density of y.

    Reference: Wu, Trippe, Naesseth, Blei and Cunningham, "Practical and asymptotically exact conditional sampling in
    diffusion models", 2023, algorithm 1.
    """

    particles: int = 32
    proposal: Literal["guided", "prior"] = "guided"
    resample_below: float = 0.5
    twist: TiltingSolver | None = None

    name: ClassVar[str] = "twisted"
    exact: ClassVar[str] = "as particles -> infinity and steps -> 0"
    steps: ClassVar[tuple[type[Step], ...] | None] = (Ancestral,)

    def __post_init__(self) -> None:
        if self.particles < 2 or not 0.0 <= self.resample_below <= 1.0:
            raise ValueError(
                f"a filter has 2 particles or more and resamples below a share of them in [0, 1]; got"
                f" particles={self.particles}, resample_below={self.resample_below}"
            )
        if self.proposal not in ("guided", "prior"):
            raise ValueError(f'proposal={self.proposal!r} must be "guided" or "prior"')
        norm = isinstance(self.twist, DPS) and self.twist.rule == "norm"
        if norm or (isinstance(self.twist, MomentMatched) and self.twist.iterations is not None):
            raise ValueError(f"{self.twist} has no density of y to weigh particles by; use PiGDM(), DPS() or None")

    def default_sampler(self, score: Score) -> Sampler:
        """Ancestral sampling in 100 steps, close together where the noise is like the data."""
        return replace(ddim(score.process, 100), step=Ancestral())

    def refusals(self, score: Score, sampler: Sampler, observation: Observation) -> list[str]:
        """Reasons to refuse: those of every solver, and what the twist refuses."""
        why = super().refusals(score, sampler, observation)
        if any(not part.moves for part in sampler.step.parts()):
            why.append("twisted weighs reverse steps alone, without correctors; use Sampler(Ancestral(), ...)")
        return why + [s for s in self._twist(observation).refusals(score, sampler, observation) if s not in why]

    def prepare(self, score: Score, sampler: Sampler, observation: Observation) -> tuple[Score, Sampler]:
        """The score of the proposals; `run` weighs them."""
        return self._twist(observation).tilted(score, sampler, observation), sampler

    def for_data(self, spec: DataSpec, observation: Observation) -> TwistedParticles:
        """This solver with its twist adapted to the data."""
        twist = self._twist(observation).for_data(spec, observation)
        assert isinstance(twist, TiltingSolver)
        return replace(self, twist=twist)

    def _twist(self, observation: Observation) -> TiltingSolver:
        return self.twist or (PiGDM() if observation.linear and observation.gaussian else DPS())

    def run(
        self,
        score: Score,
        observation: Observation,
        sampler: Sampler | None = None,
        *,
        indices: Sequence[int],
        seed: int = 0,
        condition: Condition | None = None,
        callbacks: Sequence[Callback] = (),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> FilterRun:
        """See `Solver`; particle k of sample i draws the noise of index i K + k.

        Callbacks see the heaviest particle of each sample. Calls are those of all particles.
        """
        sampler = self.default_sampler(score) if sampler is None else sampler
        if why := self.refusals(score, sampler, observation):
            raise ValueError("; ".join(why))
        n, K = len(indices), self.particles
        tilted, _ = self.prepare(Unobserving(score), sampler, observation)
        assert isinstance(tilted, Tilted)
        y = observation.y(torch.empty((n, *observation.operator.event), dtype=dtype, device=device))
        known: Condition = {**(condition or {}), OBSERVED: y}
        known = {name: given.repeat_interleave(K, 0) for name, given in known.items()}
        noise = IndexedNoise(seed, [i * K + k for i in indices for k in range(K)])
        draws = IndexedNoise(seed, [i * K for i in indices])
        like = torch.empty((n * K, *observation.operator.event), dtype=dtype, device=device)
        with torch.no_grad():
            filtered = _Filter(self, tilted, sampler, known, noise, draws, like)
            filtered.down(callbacks)
            x0, raw, chosen = filtered.finish(observation)
        status = torch.where(torch.isfinite(filtered.log_evidence), 0, NOT_FINITE).cpu()
        calls = torch.full((n,), K * filtered.evaluations * tilted.evaluations(known), dtype=torch.long)
        rows = torch.arange(n, device=x0.device) * K + chosen
        log_w = filtered.log_w.log_softmax(1)
        effective = (-(2.0 * log_w).logsumexp(1)).exp().cpu()
        particles = x0.reshape(n, K, *x0.shape[1:])
        return FilterRun(x0[rows], raw[rows], status, calls, filtered.log_evidence.cpu(), effective, particles, log_w)


class _Filter:
    """n filters of K particles side by side, (n K, *event); nothing crosses from one to another."""

    def __init__(
        self,
        solver: TwistedParticles,
        tilted: Tilted,
        sampler: Sampler,
        condition: Condition,
        noise: IndexedNoise,
        draws: IndexedNoise,
        like: Tensor,
    ):
        self.solver, self.tilted, self.condition = solver, tilted, condition
        self.noise, self.draws = noise, draws
        process: Process = sampler.process or tilted.process
        self.process, times = process, sampler.times(tilted.process)
        self.times = times[process.sigma(times) > 0.0]  # into a level without noise there is D and no step
        step = next(part for part in sampler.step.parts() if isinstance(part, Ancestral))
        self.forward = step.variance == "forward"
        start = self.times[:1].expand(len(like))
        self.x = sampler.start(process, start, like, StepNoise(noise, PRIOR_STEP), None)
        self.log_w = like.new_zeros(len(like) // solver.particles, solver.particles, dtype=torch.float64)
        self.log_evidence = self.log_w.new_zeros(len(self.log_w))
        self.evaluations = 0
        self._look(0)
        self._weigh(self.log_p)

    def _look(self, k: int) -> None:
        """D, log p~ and its gradient where the particles are."""
        t = self.times[k : k + 1].expand(len(self.x))
        self.D, self.log_p, self.slope = self.tilted.twisted(self.x, t, self.condition)
        self.evaluations += 1

    def _weigh(self, log_ratio: Tensor) -> None:
        """Multiply the weights; a particle that is not finite weighs nothing."""
        log_ratio = torch.where(torch.isfinite(log_ratio), log_ratio, -torch.inf)
        self.log_w = self.log_w + log_ratio.to(self.log_w).reshape(self.log_w.shape)

    def down(self, callbacks: Sequence[Callback]) -> None:
        """All steps of the grid."""
        for k in range(len(self.times) - 1):
            self._resample(self._uniform(k))
            mean, before = self._move(k, StepNoise(self.noise, k)), self.log_p
            self._look(k + 1)
            self._weigh(self.log_kernels + self.log_p - before)
            best = self._rows(self.log_w.argmax(1))
            for callback in callbacks:
                callback(Progress(k + 1, len(self.times) - 1, float(self.times[k + 1]), self.x[best], mean[best]))

    def _move(self, k: int, noise: StepNoise) -> Tensor:
        """One reverse step from t to s; its mean, and log N(x_s; m, d^2) - log N(x_s; m~, d^2) in `log_kernels`."""
        t, s = self.times[k : k + 1], self.times[k + 1 : k + 2]
        c_t, c_0, d = self.process.posterior(s, t)
        if self.forward:
            d = self.process.kernel(s, t)[1]
        mean = over_event(c_t, self.x) * self.x + over_event(c_0, self.x) * self.D
        z = noise(self.x)
        if self.solver.proposal == "prior":
            self.x, self.log_kernels = mean + over_event(d, mean) * z, torch.zeros_like(self.log_p)
            return mean
        # The tilted posterior mean is D + (sigma^2 / alpha) slope; q is how far it moves the step, in units of d.
        q = over_event(c_0 * self.process.sigma(t) ** 2 / self.process.alpha(t) / d, mean) * self.slope
        self.log_kernels = -(0.5 * norm_event(q) ** 2 + sum_event(q * z))
        mean = mean + over_event(d, mean) * q
        self.x = mean + over_event(d, mean) * z
        return mean

    def _uniform(self, k: int) -> Tensor:
        """A number for each filter, (n, 1), from the second draw of step k: the noise of its particles is the first."""
        return self.draws.uniform(self.log_w.new_empty(len(self.log_w), 1), k, 1)

    def _resample(self, u: Tensor) -> None:
        """Systematic resampling of the filters whose weights are too unlike; their evidence is taken along."""
        n, K = self.log_w.shape
        normal = self.log_w.log_softmax(1)
        few = (-(2.0 * normal).logsumexp(1)).exp() < self.solver.resample_below * K
        if not bool(few.any()):
            return
        places = (u + torch.arange(K).to(self.log_w)) / K
        chosen = torch.searchsorted(normal.exp().cumsum(1), places, right=True).clamp_max(K - 1)
        rows = self._rows(torch.where(few[:, None], chosen, torch.arange(K, device=few.device)))
        self.x, self.D, self.slope, self.log_p = (v[rows] for v in (self.x, self.D, self.slope, self.log_p))
        level = self.log_w.logsumexp(1) - torch.tensor(K).log()
        self.log_evidence = torch.where(few, self.log_evidence + level, self.log_evidence)
        self.log_w = torch.where(few[:, None], 0.0, self.log_w)

    def _rows(self, chosen: Tensor) -> Tensor:
        """Rows of particles given by their numbers within the filters, (n,) or (n, K)."""
        n, K = self.log_w.shape
        begin = torch.arange(n, device=chosen.device) * K
        return (begin[:, None] + chosen.reshape(n, -1)).reshape(-1)

    def finish(self, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """(x_0 of all particles, their states, the number of the chosen one of each filter); completes the evidence."""
        K = self.log_w.shape[1]
        self._weigh(observation.log_likelihood(self.D, self.condition[OBSERVED].to(self.D)) - self.log_p)
        self.log_evidence = self.log_evidence + self.log_w.logsumexp(1) - torch.tensor(K).log()
        cumulative, u = self.log_w.softmax(1).cumsum(1), self._uniform(len(self.times))
        return self.D, self.x, torch.searchsorted(cumulative, u, right=True).clamp_max(K - 1)[:, 0]
