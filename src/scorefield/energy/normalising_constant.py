"""log Z of an energy with an interval and a verdict, and what follows from it: log densities, bits per dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.energy.annealed_importance import AISSettings, Base, OnStep, Path, Schedule, Work, pilot, work
from scorefield.energy.bridge_sampling import LARGEST_GAP, LEAST_EFFECTIVE, LEAST_OVERLAP, VERDICTS, Bridge, bridge
from scorefield.energy.posterior import misfit
from scorefield.energy.transition import check_temperature, pilot_noise
from scorefield.inverse.observation import Observation
from scorefield.score.energy import Confined, Energy, EnergyLike

REVERSE = 2**40
"""Index of the first reverse chain in the noise; forward ones have indices below."""


@dataclass(frozen=True)
class LogZ:
    """log of the integral of exp(-E / T), or of a ratio of two such, nats.

    Args:
        value: Bennett's estimate; None where the verdict is unusable.
        interval: 95 percent; where the verdict is not ok it holds the forward and the reverse estimate too, and where
            it is unusable it is their range and no confidence is attached to it.
        standard_error: Of the estimate.
        forward: From forward chains alone.
        reverse: From reverse chains alone. It is an upper bound in expectation only from exact starts.
        ess_forward: Effective forward chains.
        ess_reverse: Effective reverse chains.
        overlap: Of the two ends.
        verdict: "ok", "wide" or "unusable".
        reasons: Why it is not ok, in words.
        of: Which integral it is.
        temperature: T.
        noise: The noise level that T stands for, or None.
        acceptance: Least and greatest acceptance along the schedule.
        schedule: Frozen, from the pilot.
        gradients: Evaluations of the gradient by each chain.
        border: Mean share near the border of a confined energy, of the reverse starts (see `Confined.border`).
        work_forward: Log weights of the forward chains, float64.
        work_reverse: And of the reverse ones.
    """

    value: float | None
    interval: tuple[float, float]
    standard_error: float
    forward: float
    reverse: float
    ess_forward: float
    ess_reverse: float
    overlap: float
    verdict: str
    reasons: tuple[str, ...]
    of: str
    temperature: float
    noise: float | None
    acceptance: tuple[float, float]
    schedule: Schedule
    gradients: int
    border: float | None
    work_forward: Tensor
    work_reverse: Tensor

    def record(self) -> dict[str, Any]:
        """All of it but the schedule's rungs, for JSON; work values as lists."""
        plain = {k: v for k, v in vars(self).items() if not isinstance(v, Tensor | Schedule)}
        lists = {k: v.tolist() for k, v in vars(self).items() if isinstance(v, Tensor)}
        return {**plain, "rungs": self.schedule.rungs, "length": self.schedule.length, **lists}


def log_z(
    energy: EnergyLike,
    base: Base,
    reverse: Tensor,
    *,
    temperature: float = 1.0,
    chains: int | None = None,
    settings: AISSettings | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> LogZ:
    """log Z(T) of exp(-E(x) / T) by annealed importance sampling in both directions and Bennett's acceptance ratio.

    Args:
        energy: E, proper: a head that is unbounded below must come as a `Confined` energy.
        base: Where forward chains start; wider than p_T, a `BoxBase` for an energy confined to that box.
        reverse: Where reverse chains start: independent draws of p_T, (n, *event), from long chains (`Chains.last`) or
            data of that noise. Nothing here can see what these starts leave out: see `same_modes`.
        temperature: T.
        chains: Forward chains; by default as many as reverse ones.
        settings: Of the pilot that finds the schedule.
        schedule: Instead of a pilot's: an earlier result's, for the same energy and base.
        seed: Of the noise; chains are functions of (seed, index).
        on_step: Called with the rungs done and of all, both directions.

    Raises:
        ValueError: Reverse starts without a finite energy, or fewer than two.
    """
    target, settings = Energy.of(energy), settings or AISSettings()
    path = path_to(target, base, temperature)
    count = chains or len(reverse)
    if schedule is None:
        like = reverse.new_empty((settings.pilot, *reverse.shape[1:]))
        schedule = pilot(path, base.draw(pilot_noise(seed, settings.pilot), like), settings, seed=seed)
    noise = IndexedNoise(seed, range(count))
    start = base.draw(noise, reverse.new_empty((count, *reverse.shape[1:])))
    there, back = _both(path, schedule, start, reverse, seed, on_step)
    return log_z_of_work(target, schedule, there, back, reverse, temperature=temperature, seed=seed)


def path_to(energy: EnergyLike, base: Base, temperature: float = 1.0) -> Path:
    """The laws exp(-(1 - beta) U_0 - beta E / T) from the base to p_T, for `pilot` and `work`."""
    check_temperature(temperature)
    return Path((base.energy, Energy.of(energy)), (1.0, 0.0), (0.0, 1.0 / temperature))


def log_z_of_work(
    energy: EnergyLike,
    schedule: Schedule,
    there: Work,
    back: Work,
    reverse: Tensor,
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> LogZ:
    """What `log_z` says of chains that `work` ran along `path_to(energy, base, temperature)`, in batches, say.

    Args:
        energy: E.
        schedule: That they ran along.
        there: Forward chains.
        back: Reverse chains.
        reverse: Where those started.
        temperature: T.
        seed: Of the bootstrap.

    Raises:
        ValueError: Reverse starts without a finite energy, or fewer than two.
    """
    target = Energy.of(energy)
    what = f"log Z of exp(-E / {temperature:g})"
    border = None
    if isinstance(target, Confined):
        what += f", E {target.describe()}"
        border = float(target.border(reverse).mean())
    return _found(schedule, there, back, what, temperature, target, border, seed)


def log_evidence(
    prior: EnergyLike,
    observation: Observation,
    prior_draws: Tensor,
    posterior_draws: Tensor,
    *,
    temperature: float = 1.0,
    settings: AISSettings | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> LogZ:
    """log p(y) = log of the mean of p(y | x) over p_T, the prior: no normaliser of the prior is needed.

    The path leads from the prior to the posterior by the weight of the observation. Draws of both come from chains:
    `run_chains(energy, ...)` and `run_chains(posterior_energy(energy, observation, T), ...)`.

    Args:
        prior: E.
        observation: y = A(x) + noise, in model units.
        prior_draws: Independent draws of p_T, (n, *event).
        posterior_draws: Independent draws of the posterior.
        temperature: T of the prior.
        settings: Of the pilot.
        schedule: Instead of a pilot's.
        seed: Of the noise.
        on_step: As in `log_z`.
    """
    check_temperature(temperature)
    target, settings = Energy.of(prior), settings or AISSettings()
    path = Path((target, misfit(observation)), (1.0 / temperature, 0.0), (1.0 / temperature, 1.0))
    if schedule is None:
        schedule = pilot(path, prior_draws[: settings.pilot], settings, seed=seed)
    what = f"log p(y) under the prior exp(-E / {temperature:g})"
    there, back = _both(path, schedule, prior_draws, posterior_draws, seed, on_step)
    return _found(schedule, there, back, what, temperature, target, None, seed)


def _both(
    path: Path, schedule: Schedule, start: Tensor, reverse: Tensor, seed: int, on_step: OnStep | None
) -> tuple[Work, Work]:
    """Forward and reverse chains."""

    def reported(offset: int) -> OnStep | None:
        if on_step is None:
            return None
        call = on_step
        return lambda done, rungs: call(offset + done, 2 * rungs)

    there = work(path, schedule, start, IndexedNoise(seed, range(len(start))), on_step=reported(0))
    numbers = IndexedNoise(seed, range(REVERSE, REVERSE + len(reverse)))
    return there, work(path, schedule, reverse, numbers, reverse=True, on_step=reported(schedule.rungs))


def _found(
    schedule: Schedule,
    there: Work,
    back: Work,
    what: str,
    temperature: float,
    energy: Energy,
    border: float | None,
    seed: int,
) -> LogZ:
    if bool(back.broken.any()):
        lost = back.broken.nonzero().flatten().tolist()
        raise ValueError(
            f"{len(lost)} of {len(back.broken)} reverse starts have no finite energy (the first: {lost[:5]}): they are"
            " no draws of this law. Start from chains of the same energy, with the same confinement"
        )
    found = bridge(there.log_weight, back.log_weight, seed=seed)
    reasons = _reasons(found, there)
    lost_forward = bool(there.broken.any())
    verdict = "unusable" if lost_forward else VERDICTS[int(found.verdict)]
    shares = torch.cat([there.acceptance, back.acceptance])
    return LogZ(
        value=None if verdict == "unusable" else float(found.value),
        interval=(float(found.low), float(found.high)),
        standard_error=float(found.standard_error),
        forward=float(found.forward),
        reverse=float(found.reverse),
        ess_forward=float(found.ess_forward),
        ess_reverse=float(found.ess_reverse),
        overlap=float(found.overlap),
        verdict=verdict,
        reasons=reasons,
        of=what,
        temperature=temperature,
        noise=energy.noise(temperature),
        acceptance=(float(shares.min()), float(shares.max())) if len(shares) else (1.0, 1.0),
        schedule=schedule,
        gradients=1 + (schedule.rungs - 1) * schedule.leapfrog,
        border=border,
        work_forward=there.log_weight,
        work_reverse=back.log_weight,
    )


def _reasons(found: Bridge, there: Work) -> tuple[str, ...]:
    """What stands against the estimate, and what would help."""
    lines = []
    if bool(there.broken.any()):
        lines.append(
            f"{int(there.broken.sum())} of {len(there.broken)} forward chains met an energy that is not finite: confine"
            " the energy, Confined(energy, box=...)"
        )
    for name, ess in (("forward", float(found.ess_forward)), ("reverse", float(found.ess_reverse))):
        if ess < LEAST_EFFECTIVE:
            lines.append(
                f"{ess:.1f} {name} chains are effective, fewer than {LEAST_EFFECTIVE:g}: more rungs, or chains"
            )
    if float(found.overlap) < LEAST_OVERLAP:
        lines.append(f"the ends overlap by {float(found.overlap):.2g}, less than {LEAST_OVERLAP}: more rungs")
    if float(found.gap) > LARGEST_GAP:
        lines.append(
            f"forward and reverse are {float(found.gap):.1f} standard errors apart, more than {LARGEST_GAP:g}: the"
            " reverse starts are no draws of this law, or chains have not crossed between its modes"
        )
    if int(found.verdict) == 1:
        lines.append("few chains are effective: the interval holds the forward and the reverse estimate")
    return tuple(lines)


# ------------------------------------------------------------------------------------------------ what follows


@dataclass(frozen=True)
class EnergyLogProb:
    """Log density of each example by a normalised energy.

    Args:
        nats: -E(x) / T - log Z in data units (in model units without a DataSpec), (B,).
        interval: 95 percent, from log Z alone, the same shift for all examples, (B, 2).
        bits_per_dim: For data with grey levels, (B,); else None.
        bits_interval: Of their mean, from log Z alone; else None.
        of: Which density it is.
    """

    nats: Tensor
    interval: Tensor
    bits_per_dim: Tensor | None
    bits_interval: tuple[float, float] | None
    of: str


def energy_log_prob(
    energy: EnergyLike, normaliser: LogZ | None, x: Tensor, data: DataSpec | None = None
) -> EnergyLogProb:
    """log p_T(x) = -E(x) / T - log Z(T), with the interval of log Z.

    An energy of the multi-scale objective at T stands for data with the noise sigma_0 sqrt(T), at T = 1 sigma_0: bits
    per dimension are then of smoothed data, which a discrete likelihood is not comparable with, and cannot be fewer
    than those of the noise.

    Args:
        energy: E, the one that was normalised.
        normaliser: Its log Z.
        x: Data units if `data` is given, else model units, (B, *event).
        data: The DataSpec.

    Raises:
        ValueError: No log Z, or one without an estimate.
    """
    if normaliser is None:
        raise ValueError(
            "an energy without log Z has no density and no bits/dim: normaliser = log_z(energy, base, draws) gives it"
            " with an interval (scorefield energy logz MODEL)"
        )
    if normaliser.value is None:
        raise ValueError(
            f"the verdict on log Z is {normaliser.verdict}, so there is no density: {'; '.join(normaliser.reasons)}"
        )
    target, T = Energy.of(energy), normaliser.temperature
    point = x if data is None else data.to_model(x)
    with torch.no_grad():
        raw = -target(point).double().cpu() / T
    low, high = (end - normaliser.value for end in normaliser.interval)
    nats = raw - normaliser.value
    if data is not None:
        nats = nats + data.log_jacobian(dequantised=False)
    of = f"exp(-E / {T:g}) / Z"
    if normaliser.noise is not None:
        of += f", which stands for data smoothed by noise of {normaliser.noise:.3g} (model units)"
    bits = bits_interval = None
    if data is not None and data.levels is not None:
        per_level = nats - data.log_jacobian(dequantised=False) + data.log_jacobian(dequantised=True)
        bits = data.bits_per_dim(per_level)
        width = data.dimension * math.log(2.0)
        bits_interval = (float(bits.mean()) + low / width, float(bits.mean()) + high / width)
    return EnergyLogProb(nats, torch.stack([nats - high, nats - low], dim=1), bits, bits_interval, of)


@dataclass(frozen=True)
class ModeCheck:
    """Whether reverse chains from two sources tell the same log Z.

    Args:
        agree: They do, within 4 standard errors, and at least ten chains of each are effective.
        gap: Difference of their reverse estimates, nats.
        standard_error: Of the difference.
        message: In words.
    """

    agree: bool
    gap: float
    standard_error: float
    message: str


def same_modes(from_data: LogZ, from_chains: LogZ) -> ModeCheck:
    """Compare reverse runs along one schedule from data and from annealed chains: where they differ, one misses modes.

    A reverse run sees only the modes that its starts are in. Starts in a mode of mass m give a log Z that is too low
    by up to -log m, with a small standard error; no run alone can tell.

    Raises:
        ValueError: They ran along different schedules.
    """
    if from_data.schedule != from_chains.schedule:
        raise ValueError("the two ran along different schedules; give log_z(..., schedule=first.schedule) the first's")
    gap = from_data.reverse - from_chains.reverse
    variance = 0.0
    for run in (from_data, from_chains):
        variance += max(1.0 / run.ess_reverse - 1.0 / len(run.work_reverse), 0.0)
    error = math.sqrt(variance) + 1e-9
    fewest = min(from_data.ess_reverse, from_chains.ess_reverse)
    agree = abs(gap) <= 4.0 * error and fewest >= LEAST_EFFECTIVE
    said = "they agree"
    if fewest < LEAST_EFFECTIVE:
        said = f"of {fewest:.1f} effective chains, too few to compare; more rungs, or chains"
    elif not agree:
        said = "they disagree: one set of starts misses modes of the energy, and its log Z is not to be used"
    return ModeCheck(agree, gap, error, f"reverse from data and from chains differ by {gap:.3g} +- {error:.2g}: {said}")
