"""The methods of the lineage as experiments on one data set: each its own path, parametrisation, objective and sampler.

What is one method's own is as published: levels, what the network is told and what its output means, averaging,
sampler. What would decide the comparison by itself is equal for all: data and model units, network (of energies, its
number of parameters), batch, learning rate, time of training, and network calls of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.models.experiment import Adam, Adversary, Averaging, Experiment, Training
from scorefield.nets.critic_mlp import MLPCritic
from scorefield.process.families import VE, VP, SubVP
from scorefield.process.grids import EveryLevel, Uniform
from scorefield.process.levels import langevin_step, overlap_ladder
from scorefield.process.process import Process
from scorefield.process.tabulated import GeometricSigmas, LinearBetas, Tabulated
from scorefield.recipes.ladders import annealed_langevin, consistent, ladder
from scorefield.recipes.mdsm import annealed
from scorefield.sampling.langevin import Langevin, NoiseScaled
from scorefield.sampling.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from scorefield.sampling.sampler import PriorStart, Sampler
from scorefield.sampling.step import Chain
from scorefield.sampling.temperature import NormalStart, TemperatureSchedule
from scorefield.score.energy import EnergyForm
from scorefield.score.network import Parametrisation
from scorefield.score.parametrisation import (
    LevelLabel,
    LogSigma,
    NoiseForm,
    ScaledScoreForm,
    ScaledTime,
    ScoreForm,
    TimeInput,
)
from scorefield.studies.methods.sizes import Body, energy_network, score_network

SIGMA_MIN = 0.01
"""Smallest noise level, model units; NCSN's and MDSM's own are 0.02 and 0.1 (0.01 and 0.05 for pixels in [0, 1])."""

SIGMA_0 = 0.2
"""Reference level of energies, model units: 0.1 for pixels in [0, 1]."""

NCSN_ETA = 0.1
"""NCSN's Langevin step over sigma^2: epsilon = 2e-5 at sigma = 0.01, halved in the update."""

SNR = 0.16


@dataclass(frozen=True)
class Terms:
    """What the methods of a comparison have in common.

    Args:
        data: Where the data are.
        spec: What they are.
        farthest: The largest distance between two examples, model units.
        body: Of every network.
        minutes: Training time of each.
        calls: Network calls of a sample, at most.
        batch_size: Of training.
    """

    data: DataSource
    spec: DataSpec
    farthest: float
    body: Body
    minutes: float
    calls: int
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.calls < 20:
            raise ValueError(f"calls={self.calls}: annealed Langevin dynamics and its relatives need 20 and more")

    @property
    def levels(self) -> int:
        """Of NCSNv2's ladder: neighbours share half of their mass (technique 2), no more than calls allow."""
        found, _ = overlap_ladder(self.farthest, SIGMA_MIN, self.spec.dimension)
        return min(found, self.calls - 1)

    @property
    def dense_levels(self) -> int:
        """Of discrete VE models: one for each step of predictor and corrector."""
        return self.calls // 2


@dataclass(frozen=True)
class Sampling:
    """A way in which a trained model is sampled.

    Args:
        name: Short.
        sampler: Itself.
        raw: Whether the samples are also measured before their last denoising.
    """

    name: str
    sampler: Sampler
    raw: bool = False


@dataclass(frozen=True)
class Method:
    """One line of the comparison.

    Args:
        name: On the command line.
        title: In tables.
        source: Whose method.
        build: Its experiment on given terms, untrained.
        samplings: How its models are sampled; the first is its own way.
    """

    name: str
    title: str
    source: str
    build: Callable[[Terms], Experiment]
    samplings: Callable[[Terms], tuple[Sampling, ...]]

    def experiment(self, terms: Terms, seed: int) -> Experiment:
        """The experiment of one run."""
        made = self.build(terms)
        return replace(
            made,
            name=f"{self.name}-{seed}",
            source=self.source,
            sampler=self.samplings(terms)[0].sampler,
            training=replace(made.training, seed=seed),
        )


def _experiment(
    terms: Terms,
    process: Process,
    form: Parametrisation,
    time_input: TimeInput,
    *,
    levels: Tabulated | None = None,
    average: bool = True,
) -> Experiment:
    """What every method shares; training stops by time."""
    embedding: Literal["fourier", "positional"] = "fourier" if isinstance(time_input, LogSigma) else "positional"
    return Experiment(
        name="",
        data=terms.data,
        process=process,
        network=score_network(terms.body, terms.spec, embedding),
        form=form,
        time_input=time_input,
        levels=levels,
        objective=DenoisingScoreMatching(stratified=True, levels=levels),
        optimiser=Adam(learning_rate=1e-3, warmup=100),
        averaging=Averaging((0.995,) if average else ()),
        training=Training(
            steps=100_000_000,
            max_minutes=terms.minutes,
            batch_size=terms.batch_size,
            log_every=100,
            validate_every=0,
            checkpoint_every=500,
            keep=0,
        ),
    )


# ------------------------------------------------------------------------------------------------ levels


def _ncsn(terms: Terms) -> Experiment:
    return _experiment(
        terms, ladder(0.02, 2.0, 10, "geometric"), ScoreForm(), LevelLabel(descending=True), average=False
    )


def _ncsn_samplings(terms: Terms) -> tuple[Sampling, ...]:
    repeats = max(1, terms.calls // 10)
    sampler = annealed_langevin(0.02, NCSN_ETA * 0.02**2, repeats, final="none", low=-1.0)
    return (Sampling("ALS", _started(terms, sampler)),)


def _overlapping(terms: Terms) -> Tabulated:
    return ladder(SIGMA_MIN, terms.farthest, terms.levels, "geometric")


def _ncsnv2(terms: Terms) -> Experiment:
    return _experiment(terms, _overlapping(terms), ScaledScoreForm(), ScaledTime(0.0))


def _als(terms: Terms) -> Sampling:
    """Annealed Langevin dynamics with the step of technique 4, one call left to denoise."""
    repeats = max(1, (terms.calls - 1) // terms.levels)
    step = langevin_step(GeometricSigmas(SIGMA_MIN, terms.farthest, terms.levels).table()[1], repeats).step
    return Sampling("ALS", _started(terms, annealed_langevin(SIGMA_MIN, step, repeats, low=-1.0)), raw=True)


def _cas(terms: Terms) -> Sampling:
    """Consistent annealing, eta twice the least that its levels admit (published: 1.5 times)."""
    refine = max(1, (terms.calls - 1) // terms.levels)
    ratio = (terms.farthest / SIGMA_MIN) ** (1.0 / ((terms.levels - 1) * refine))
    eta = min(1.0, 2.0 * (1.0 - 1.0 / ratio))
    return Sampling("CAS", _started(terms, consistent(SIGMA_MIN, eta * SIGMA_MIN**2, refine, low=-1.0)), raw=True)


def _started(terms: Terms, sampler: Sampler) -> Sampler:
    """From uniform noise in the range of the data as published; unbounded data have none, and begin at the prior."""
    return sampler if terms.spec.bounded else replace(sampler, start=PriorStart())


def _adversarial(terms: Terms) -> Experiment:
    found = _ncsnv2(terms)
    critic = Adam(learning_rate=2e-4, beta1=-0.5, beta2=0.9, warmup=0, clip=None)
    return replace(
        found,
        optimiser=replace(found.optimiser, beta1=0.0, beta2=0.9),
        adversary=Adversary(
            critic=MLPCritic(width=256, depth=2),
            optimiser=critic,
            weight=0.2 / terms.spec.dimension,  # 0.1 where losses are half sums over pixels
            clamp=terms.spec.bounded,
        ),
    )


def _mdsm(terms: Terms) -> Experiment:
    found = _experiment(terms, ladder(0.1, 3.0, 64, "geometric"), EnergyForm(SIGMA_0), ScaledTime(0.0))
    return replace(found, network=energy_network(terms.body, terms.spec))


def _mdsm_samplings(terms: Terms) -> tuple[Sampling, ...]:
    """The published anneal, 500 + 2000 + 200 steps, in as many as there are calls."""
    burn_in, quench = max(1, terms.calls * 5 // 27), max(2, terms.calls * 2 // 27)
    schedule = TemperatureSchedule(burn_in=burn_in, anneal=terms.calls - 1 - burn_in - quench, quench=quench)
    sampler = annealed(SIGMA_0, schedule)
    start = NormalStart(0.0, SIGMA_0 * schedule.high**0.5)
    return (Sampling("annealed temperature", replace(sampler, start=start)),)


# ------------------------------------------------------------------------------------------------ processes


def _ve(terms: Terms) -> VE:
    return VE(SIGMA_MIN, terms.farthest)


def _ve_continuous(terms: Terms) -> Experiment:
    return _experiment(terms, _ve(terms), ScaledScoreForm(), LogSigma())


def _ve_discrete(terms: Terms) -> Experiment:
    table = Tabulated(GeometricSigmas(SIGMA_MIN, terms.farthest, terms.dense_levels), between="floor")
    return _experiment(terms, _ve(terms), ScaledScoreForm(), LevelLabel(descending=True), levels=table)


def _corrected() -> Chain:
    return Chain((Langevin(NoiseScaled(SNR)), ReverseDiffusion()))


def _ve_continuous_samplings(terms: Terms) -> tuple[Sampling, ...]:
    return (
        Sampling("PC", Sampler(_corrected(), Uniform((terms.calls - 1) // 2))),
        Sampling("predictor", Sampler(ReverseDiffusion(), Uniform(terms.calls - 1))),
    )


def _ve_discrete_samplings(terms: Terms) -> tuple[Sampling, ...]:
    table = _ve_discrete(terms).levels
    return (Sampling("PC", Sampler(_corrected(), EveryLevel(), final="mean", process=table)),)


def _vp_continuous(terms: Terms) -> Experiment:
    return _experiment(terms, VP(), NoiseForm(), ScaledTime(999.0))


def _vp_discrete(terms: Terms) -> Experiment:
    table = Tabulated(LinearBetas(levels=terms.calls), between="floor")
    return _experiment(terms, VP(), NoiseForm(), LevelLabel(between="linear"), levels=table)


def _vp_discrete_samplings(terms: Terms) -> tuple[Sampling, ...]:
    table = _vp_discrete(terms).levels
    return (Sampling("ancestral", Sampler(Ancestral(), EveryLevel(), final="mean", process=table)),)


def _subvp(terms: Terms) -> Experiment:
    return _experiment(terms, SubVP(), NoiseForm(), ScaledTime(999.0))


def _reverse_sde(terms: Terms) -> tuple[Sampling, ...]:
    return (Sampling("Euler-Maruyama", Sampler(EulerMaruyama(), Uniform(terms.calls - 1))),)


_SDE = "Song et al. 2021"
METHODS: Mapping[str, Method] = {
    m.name: m
    for m in (
        Method("ncsn", "NCSN", "Song and Ermon 2019", _ncsn, _ncsn_samplings),
        Method("ncsnv2", "NCSNv2", "Song and Ermon 2020", _ncsnv2, lambda t: (_als(t), _cas(t))),
        Method("mdsm", "MDSM, an energy", "Li et al. 2019", _mdsm, _mdsm_samplings),
        Method(
            "adversarial", "adversarial", "Jolicoeur-Martineau et al. 2021", _adversarial, lambda t: (_cas(t), _als(t))
        ),
        Method("ve-discrete", "VE, levels", _SDE, _ve_discrete, _ve_discrete_samplings),
        Method("ve", "VE, continuous", _SDE, _ve_continuous, _ve_continuous_samplings),
        Method("vp-discrete", "VP, levels", _SDE, _vp_discrete, _vp_discrete_samplings),
        Method("vp", "VP, continuous", _SDE, _vp_continuous, _reverse_sde),
        Method("sub-vp", "sub-VP", _SDE, _subvp, _reverse_sde),
    )
}
"""Name -> method, in the order of the lineage."""
