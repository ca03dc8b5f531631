"""log Z of an energy with an interval and a verdict, and the evidence, log densities and bits per dimension from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.energy.annealed_importance import (
    AISSettings,
    AnnealingPath,
    Base,
    OnStep,
    Schedule,
    Work,
    collect_work,
    pilot_schedule,
)
from scorefield.energy.bridge_sampling import LARGEST_GAP, LEAST_EFFECTIVE, LEAST_OVERLAP, VERDICTS, Bridge, bridge
from scorefield.energy.posterior import misfit
from scorefield.energy.transition import check_temperature, pilot_noise
from scorefield.inverse.observation import Observation
from scorefield.score.energy import Confined, Energy, EnergyLike

REVERSE = 2**40
"""Noise index of the first reverse chain; forward chains have smaller indices."""


@dataclass(frozen=True)
class LogZ:
    """The log of the integral of exp(-E / T), or of a ratio of two such integrals, in nats.

    Args:
        value: Bennett's estimate; None where the verdict is unusable.
        interval: The 95 percent interval. Where the verdict is not ok it contains the forward and the reverse estimate
            too; where it is unusable it is only their range, without a confidence level.
        standard_error: Standard error of the estimate.
        forward: Estimate from the forward chains alone.
        reverse: Estimate from the reverse chains alone; an upper bound in expectation only if their starts are exact.
        ess_forward: Number of effective forward chains.
        ess_reverse: Number of effective reverse chains.
        overlap: Overlap of the two ends.
        verdict: "ok", "wide" or "unusable".
        reasons: Why the verdict is not ok, in words.
        of: Description of the integral.
        temperature: T.
        noise: The noise level that corresponds to T, or None.
        acceptance: Smallest and largest mean acceptance along the schedule.
        schedule: The schedule of the chains.
        gradients: Number of gradient evaluations of each chain.
        border: For a confined energy, the mean of `Confined.border` over the reverse starts; else None.
        work_forward: Log weights of the forward chains, float64.
        work_reverse: Log weights of the reverse chains, float64.
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
        """All fields for JSON, with work values as lists; of the schedule only its number of rungs and its length."""
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
        energy: E, for which the integral is finite; a network whose energy is unbounded below must be given as a
            `Confined` energy.
        base: The distribution from which forward chains start. It should be wider than p_T; for an energy confined to a
            box it is the `BoxBase` of that box.
        reverse: Initial states of the reverse chains, (n, *event): independent draws of p_T from long chains
            (`Chains.last`), or data with the noise of T. Modes that these states miss cannot be detected here; see
            `same_modes`.
        temperature: T.
        chains: Number of forward chains; by default that of the reverse chains.
        settings: Settings of the pilot that computes the schedule.
        schedule: Schedule of an earlier result for the same energy and base, used instead of a pilot.
        seed: Seed of every random draw; a chain depends on (seed, index).
        on_step: Called after each rung with the number of rungs done and the total, over both directions.

    Raises:
        ValueError: A reverse start has no finite energy, or there are fewer than two chains in a direction.
    """
    target, settings = Energy.of(energy), settings or AISSettings()
    path = path_to(target, base, temperature)
    count = chains or len(reverse)
    if schedule is None:
        like = reverse.new_empty((settings.pilot, *reverse.shape[1:]))
        schedule = pilot_schedule(path, base.draw(pilot_noise(seed, settings.pilot), like), settings, seed=seed)
    noise = IndexedNoise(seed, range(count))
    start = base.draw(noise, reverse.new_empty((count, *reverse.shape[1:])))
    forward_work, reverse_work = _forward_and_reverse(path, schedule, start, reverse, seed, on_step)
    return log_z_of_work(target, schedule, forward_work, reverse_work, reverse, temperature=temperature, seed=seed)


def path_to(energy: EnergyLike, base: Base, temperature: float = 1.0) -> AnnealingPath:
    """The path exp(-(1 - beta) U_0 - beta E / T) from the base to p_T, for `pilot_schedule` and `collect_work`."""
    check_temperature(temperature)
    return AnnealingPath((base.energy, Energy.of(energy)), (1.0, 0.0), (0.0, 1.0 / temperature))


def log_z_of_work(
    energy: EnergyLike,
    schedule: Schedule,
    forward_work: Work,
    reverse_work: Work,
    reverse: Tensor,
    *,
    temperature: float = 1.0,
    seed: int = 0,
) -> LogZ:
    """The result of `log_z` from work that `collect_work` collected along `path_to(energy, base, temperature)`.

    It allows the chains to be run in batches.

    Args:
        energy: E.
        schedule: The schedule of the chains.
        forward_work: Work of the forward chains.
        reverse_work: Work of the reverse chains.
        reverse: Initial states of the reverse chains, (n, *event).
        temperature: T.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: A reverse start has no finite energy, or there are fewer than two chains in a direction.
    """
    target = Energy.of(energy)
    what = f"log Z of exp(-E / {temperature:g})"
    border = None
    if isinstance(target, Confined):
        what += f", E {target.describe()}"
        border = float(target.border(reverse).mean())
    return _log_z_result(schedule, forward_work, reverse_work, what, temperature, target, border, seed)


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
    """The log evidence, log p(y) = log of the mean of p(y | x) over the prior p_T.

    The normalising constant of the prior is not needed. The path leads from the prior to the posterior by increasing
    the weight of the observation. Draws of both come from chains, `run_chains(energy, ...)` and
    `run_chains(posterior_energy(energy, observation, T), ...)`.

    Args:
        prior: E.
        observation: y = A(x) + noise, in model units.
        prior_draws: Independent draws of p_T, (n, *event).
        posterior_draws: Independent draws of the posterior, (n, *event).
        temperature: T of the prior.
        settings: Settings of the pilot that computes the schedule.
        schedule: Schedule of an earlier result, used instead of a pilot.
        seed: Seed of every random draw.
        on_step: Called after each rung with the number of rungs done and the total, over both directions.

    Raises:
        ValueError: A posterior draw has no finite energy, or there are fewer than two draws of either.
    """
    check_temperature(temperature)
    target, settings = Energy.of(prior), settings or AISSettings()
    path = AnnealingPath((target, misfit(observation)), (1.0 / temperature, 0.0), (1.0 / temperature, 1.0))
    if schedule is None:
        schedule = pilot_schedule(path, prior_draws[: settings.pilot], settings, seed=seed)
    what = f"log p(y) under the prior exp(-E / {temperature:g})"
    forward_work, reverse_work = _forward_and_reverse(path, schedule, prior_draws, posterior_draws, seed, on_step)
    return _log_z_result(schedule, forward_work, reverse_work, what, temperature, target, None, seed)


def _forward_and_reverse(
    path: AnnealingPath, schedule: Schedule, start: Tensor, reverse: Tensor, seed: int, on_step: OnStep | None
) -> tuple[Work, Work]:
    """The work of forward chains from `start` and of reverse chains from `reverse`."""

    def reported(offset: int) -> OnStep | None:
        if on_step is None:
            return None
        call = on_step
        return lambda done, rungs: call(offset + done, 2 * rungs)

    forward_work = collect_work(path, schedule, start, IndexedNoise(seed, range(len(start))), on_step=reported(0))
    numbers = IndexedNoise(seed, range(REVERSE, REVERSE + len(reverse)))
    return forward_work, collect_work(path, schedule, reverse, numbers, reverse=True, on_step=reported(schedule.rungs))


def _log_z_result(
    schedule: Schedule,
    forward_work: Work,
    reverse_work: Work,
    what: str,
    temperature: float,
    energy: Energy,
    border: float | None,
    seed: int,
) -> LogZ:
    """Bennett's estimate from the work of both directions, with its verdict and the reasons for it."""
    if bool(reverse_work.broken.any()):
        lost = reverse_work.broken.nonzero().flatten().tolist()
        raise ValueError(
            f"{len(lost)} of {len(reverse_work.broken)} reverse starts have no finite energy (the first: {lost[:5]}),"
            " so they are not draws of this distribution. Start from chains of the same energy, with the same"
            " confinement"
        )
    found = bridge(forward_work.log_weight, reverse_work.log_weight, seed=seed)
    reasons = _reasons(found, forward_work)
    lost_forward = bool(forward_work.broken.any())
    verdict = "unusable" if lost_forward else VERDICTS[int(found.verdict)]
    shares = torch.cat([forward_work.acceptance, reverse_work.acceptance])
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
        work_forward=forward_work.log_weight,
        work_reverse=reverse_work.log_weight,
    )


def _reasons(found: Bridge, forward_work: Work) -> tuple[str, ...]:
    """The reasons why the verdict is not ok, each with a remedy where there is one."""
    lines = []
    if bool(forward_work.broken.any()):
        lines.append(
            f"{int(forward_work.broken.sum())} of {len(forward_work.broken)} forward chains had an energy that is not"
            " finite; confine the energy with Confined(energy, box=...)"
        )
    for name, ess in (("forward", float(found.ess_forward)), ("reverse", float(found.ess_reverse))):
        if ess < LEAST_EFFECTIVE:
            lines.append(
                f"only {ess:.1f} {name} chains are effective, fewer than {LEAST_EFFECTIVE:g}; use more rungs or more"
                " chains"
            )
    if float(found.overlap) < LEAST_OVERLAP:
        lines.append(
            f"the overlap of the two ends is {float(found.overlap):.2g}, less than {LEAST_OVERLAP}; use more rungs"
        )
    if float(found.gap) > LARGEST_GAP:
        lines.append(
            f"the forward and the reverse estimate are {float(found.gap):.1f} standard errors apart, more than"
            f" {LARGEST_GAP:g}: the reverse starts are not draws of this distribution, or the chains have not crossed"
            " between its modes"
        )
    if int(found.verdict) == 1:
        lines.append(
            "few chains are effective, so the interval is extended to contain the forward and the reverse estimate"
        )
    return tuple(lines)


# ------------------------------------------------------------------------------------------------ log densities


@dataclass(frozen=True)
class EnergyLogProb:
    """Log density of each example under a normalised energy.

    Args:
        nats: -E(x) / T - log Z in data units (in model units without a DataSpec), (B,).
        interval: 95 percent interval from the uncertainty of log Z alone, which shifts all examples equally, (B, 2).
        bits_per_dim: Bits per dimension for data with grey levels, (B,); else None.
        bits_interval: Interval of their mean from the uncertainty of log Z alone; else None.
        of: Description of the density.
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

    An energy of the multi-scale objective at temperature T approximates the density of data with the noise
    sigma_0 sqrt(T), which is sigma_0 at T = 1. Bits per dimension are then those of smoothed data. They are not
    comparable with a discrete likelihood and cannot be smaller than those of the noise.

    Args:
        energy: E, the energy that was normalised.
        normaliser: Its log Z.
        x: Examples in data units if `data` is given, else in model units, (B, *event).
        data: The spec of the data.

    Raises:
        ValueError: There is no log Z, or its verdict is unusable.
    """
    if normaliser is None:
        raise ValueError(
            "an energy without log Z has no density and no bits per dimension; compute log Z with an interval by"
            " normaliser = log_z(energy, base, draws), or by scorefield energy logz MODEL"
        )
    if normaliser.value is None:
        raise ValueError(
            f"the verdict on log Z is {normaliser.verdict}, so no density can be computed:"
            f" {'; '.join(normaliser.reasons)}"
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
        of += f", the density of data smoothed by noise of {normaliser.noise:.3g} (model units)"
    bits = bits_interval = None
    if data is not None and data.levels is not None:
        per_level = nats - data.log_jacobian(dequantised=False) + data.log_jacobian(dequantised=True)
        bits = data.bits_per_dim(per_level)
        width = data.dimension * math.log(2.0)
        bits_interval = (float(bits.mean()) + low / width, float(bits.mean()) + high / width)
    return EnergyLogProb(nats, torch.stack([nats - high, nats - low], dim=1), bits, bits_interval, of)


@dataclass(frozen=True)
class ModeCheck:
    """Whether reverse chains from two sets of initial states give the same log Z.

    Args:
        agree: Whether they agree within 4 standard errors with at least ten effective chains of each.
        gap: Difference of their reverse estimates, nats.
        standard_error: Standard error of the difference.
        message: The result in words.
    """

    agree: bool
    gap: float
    standard_error: float
    message: str


def same_modes(from_data: LogZ, from_chains: LogZ) -> ModeCheck:
    """Compare reverse runs along one schedule from data and from annealed chains; if they differ, one misses modes.

    A reverse run covers only the modes that contain its starts. Starts within a single mode of mass m give a log Z that
    is too low by up to -log m with a small standard error, which cannot be detected from that run alone.

    Raises:
        ValueError: The two runs have different schedules.
    """
    if from_data.schedule != from_chains.schedule:
        raise ValueError(
            "the two runs have different schedules and cannot be compared; pass that of the first to the second,"
            " log_z(..., schedule=first.schedule)"
        )
    gap = from_data.reverse - from_chains.reverse
    variance = 0.0
    for run in (from_data, from_chains):
        variance += max(1.0 / run.ess_reverse - 1.0 / len(run.work_reverse), 0.0)
    error = math.sqrt(variance) + 1e-9
    fewest = min(from_data.ess_reverse, from_chains.ess_reverse)
    agree = abs(gap) <= 4.0 * error and fewest >= LEAST_EFFECTIVE
    conclusion = "they agree"
    if fewest < LEAST_EFFECTIVE:
        conclusion = f"only {fewest:.1f} chains are effective, too few to compare; use more rungs or more chains"
    elif not agree:
        conclusion = "they disagree: one set of starts misses modes of the energy, and log Z must not be used"
    message = f"reverse from data and from chains differ by {gap:.3g} +- {error:.2g}: {conclusion}"
    return ModeCheck(agree, gap, error, message)
