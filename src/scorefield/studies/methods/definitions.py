"""The compared methods as experiments on one data set, each with its own path, parametrisation, objective and sampler.

What distinguishes a method is as published: noise levels, the network's noise-level input and the meaning of its
output, EMA, and sampler. What would decide the comparison by itself is equal for all: data and model units, network
(for energies the number of parameters), batch size, learning rate, training time, and network evaluations per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.models.experiment import Adam, Adversary, Averaging, Experiment, Training
from scorefield.nets.critics.mlp_critic import MLPCritic
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
from scorefield.studies.methods.sizes import Architecture, energy_network, score_network

SIGMA_MIN = 0.01
"""Smallest noise level, model units; NCSN and MDSM use their own, 0.02 and 0.1 (0.01 and 0.05 for pixels in [0, 1])."""

SIGMA_0 = 0.2
"""Reference level of energies, model units: 0.1 for pixels in [0, 1]."""

NCSN_ETA = 0.1
"""NCSN's Langevin step over sigma^2: epsilon = 2e-5 at sigma = 0.01, and the update uses epsilon / 2."""

SNR = 0.16
"""Signal-to-noise ratio of the corrector under VE (Song et al. 2021)."""


@dataclass(frozen=True)
class SharedSettings:
    """Settings that all methods of a comparison share.

    Args:
        data: Source of the data.
        spec: Shape and units of the data.
        largest_distance: Largest distance between two examples, model units.
        architecture: Architecture of every network.
        minutes: Training time of each run.
        calls: Largest number of network evaluations per sample.
        batch_size: Batch size of training.

    Raises:
        ValueError: `calls` is below 20.
    """

    data: DataSource
    spec: DataSpec
    largest_distance: float
    architecture: Architecture
    minutes: float
    calls: int
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.calls < 20:
            raise ValueError(
                f"--calls {self.calls} is too small: samplers that go through a ladder of noise levels need 20 or more"
                " network evaluations per sample"
            )

    @property
    def levels(self) -> int:
        """Levels of NCSNv2's ladder: neighbours share half of their mass (Technique 2), but at most `calls` - 1."""
        found, _ = overlap_ladder(self.largest_distance, SIGMA_MIN, self.spec.dimension)
        return min(found, self.calls - 1)

    @property
    def dense_levels(self) -> int:
        """Levels of the discrete VE model, one for each pair of a predictor and a corrector step."""
        return self.calls // 2


@dataclass(frozen=True)
class Sampling:
    """A sampler of a method.

    Args:
        name: Short name in tables.
        sampler: The sampler.
        raw: Whether the samples are also measured before the final denoising.
    """

    name: str
    sampler: Sampler
    raw: bool = False


@dataclass(frozen=True)
class Method:
    """A method of the comparison.

    Args:
        name: Name on the command line.
        title: Name in tables.
        source: The paper that published it.
        build: Function from the shared settings to the method's experiment, without sampler and seed.
        samplings: Function from the shared settings to the method's samplers; the first is the published one.
    """

    name: str
    title: str
    source: str
    build: Callable[[SharedSettings], Experiment]
    samplings: Callable[[SharedSettings], tuple[Sampling, ...]]

    def experiment(self, shared: SharedSettings, seed: int) -> Experiment:
        """Return the experiment of one run.

        Args:
            shared: Settings of the comparison.
            seed: Seed of the training.
        """
        built = self.build(shared)
        return replace(
            built,
            name=f"{self.name}-{seed}",
            source=self.source,
            sampler=self.samplings(shared)[0].sampler,
            training=replace(built.training, seed=seed),
        )


def _experiment(
    shared: SharedSettings,
    process: Process,
    form: Parametrisation,
    time_input: TimeInput,
    *,
    levels: Tabulated | None = None,
    average: bool = True,
) -> Experiment:
    """Return an experiment with the parts that all methods share.

    Args:
        shared: Settings of the comparison.
        process: Noise process.
        form: Parametrisation of the score.
        time_input: The network's noise-level input.
        levels: Discrete levels on which a continuous process is trained; None trains on all of the process.
        average: Whether an EMA of the weights is kept.
    """
    embedding: Literal["fourier", "positional"] = "fourier" if isinstance(time_input, LogSigma) else "positional"
    return Experiment(
        name="",
        data=shared.data,
        process=process,
        network=score_network(shared.architecture, shared.spec, embedding),
        form=form,
        time_input=time_input,
        levels=levels,
        objective=DenoisingScoreMatching(stratified=True, levels=levels),
        optimiser=Adam(learning_rate=1e-3, warmup=100),
        averaging=Averaging((0.995,) if average else ()),
        training=Training(
            steps=100_000_000,  # never reached: training ends after `max_minutes`
            max_minutes=shared.minutes,
            batch_size=shared.batch_size,
            log_every=100,
            validate_every=0,
            checkpoint_every=500,
            keep=0,
        ),
    )


# ------------------------------------------------------------------------------------------------ levels


def _ncsn(shared: SharedSettings) -> Experiment:
    return _experiment(
        shared, ladder(0.02, 2.0, 10, "geometric"), ScoreForm(), LevelLabel(descending=True), average=False
    )


def _ncsn_samplings(shared: SharedSettings) -> tuple[Sampling, ...]:
    repeats = max(1, shared.calls // 10)
    sampler = annealed_langevin(0.02, NCSN_ETA * 0.02**2, repeats, final="none", low=-1.0)
    return (Sampling("ALS", _started(shared, sampler)),)


def _ncsnv2_ladder(shared: SharedSettings) -> Tabulated:
    return ladder(SIGMA_MIN, shared.largest_distance, shared.levels, "geometric")


def _ncsnv2(shared: SharedSettings) -> Experiment:
    return _experiment(shared, _ncsnv2_ladder(shared), ScaledScoreForm(), ScaledTime(0.0))


def _als(shared: SharedSettings) -> Sampling:
    """Return annealed Langevin sampling with the step of Technique 4 and one evaluation for the final denoising."""
    repeats = max(1, (shared.calls - 1) // shared.levels)
    step = langevin_step(GeometricSigmas(SIGMA_MIN, shared.largest_distance, shared.levels).table()[1], repeats).step
    return Sampling("ALS", _started(shared, annealed_langevin(SIGMA_MIN, step, repeats, low=-1.0)), raw=True)


def _cas(shared: SharedSettings) -> Sampling:
    """Return consistent annealed sampling; eta is twice the smallest that its levels admit (published: 1.5 times)."""
    refine = max(1, (shared.calls - 1) // shared.levels)
    ratio = (shared.largest_distance / SIGMA_MIN) ** (1.0 / ((shared.levels - 1) * refine))
    eta = min(1.0, 2.0 * (1.0 - 1.0 / ratio))
    return Sampling("CAS", _started(shared, consistent(SIGMA_MIN, eta * SIGMA_MIN**2, refine, low=-1.0)), raw=True)


def _started(shared: SharedSettings, sampler: Sampler) -> Sampler:
    """Return a sampler that starts as published, uniformly in the range of the data, or at the prior if unbounded."""
    return sampler if shared.spec.bounded else replace(sampler, start=PriorStart())


def _adversarial(shared: SharedSettings) -> Experiment:
    ncsnv2 = _ncsnv2(shared)
    critic = Adam(learning_rate=2e-4, beta1=-0.5, beta2=0.9, warmup=0, clip=None)
    return replace(
        ncsnv2,
        optimiser=replace(ncsnv2.optimiser, beta1=0.0, beta2=0.9),
        adversary=Adversary(
            critic=MLPCritic(width=256, depth=2),
            optimiser=critic,
            # The published 0.1 belongs to losses that are half sums over pixels; here they are means.
            weight=0.2 / shared.spec.dimension,
            clamp=shared.spec.bounded,
        ),
    )


def _mdsm(shared: SharedSettings) -> Experiment:
    built = _experiment(shared, ladder(0.1, 3.0, 64, "geometric"), EnergyForm(SIGMA_0), ScaledTime(0.0))
    return replace(built, network=energy_network(shared.architecture, shared.spec))


def _mdsm_samplings(shared: SharedSettings) -> tuple[Sampling, ...]:
    """Return the published temperature schedule of 500 + 2000 + 200 steps, shortened in proportion to `calls`."""
    burn_in, quench = max(1, shared.calls * 5 // 27), max(2, shared.calls * 2 // 27)
    schedule = TemperatureSchedule(burn_in=burn_in, anneal=shared.calls - 1 - burn_in - quench, quench=quench)
    sampler = annealed(SIGMA_0, schedule)
    start = NormalStart(0.0, SIGMA_0 * schedule.high**0.5)
    return (Sampling("annealed temperature", replace(sampler, start=start)),)


# ------------------------------------------------------------------------------------------------ processes


def _ve(shared: SharedSettings) -> VE:
    return VE(SIGMA_MIN, shared.largest_distance)


def _ve_continuous(shared: SharedSettings) -> Experiment:
    return _experiment(shared, _ve(shared), ScaledScoreForm(), LogSigma())


def _ve_discrete(shared: SharedSettings) -> Experiment:
    table = Tabulated(GeometricSigmas(SIGMA_MIN, shared.largest_distance, shared.dense_levels), between="floor")
    return _experiment(shared, _ve(shared), ScaledScoreForm(), LevelLabel(descending=True), levels=table)


def _corrected() -> Chain:
    return Chain((Langevin(NoiseScaled(SNR)), ReverseDiffusion()))


def _ve_continuous_samplings(shared: SharedSettings) -> tuple[Sampling, ...]:
    return (
        Sampling("PC", Sampler(_corrected(), Uniform((shared.calls - 1) // 2))),
        Sampling("predictor", Sampler(ReverseDiffusion(), Uniform(shared.calls - 1))),
    )


def _ve_discrete_samplings(shared: SharedSettings) -> tuple[Sampling, ...]:
    table = _ve_discrete(shared).levels
    return (Sampling("PC", Sampler(_corrected(), EveryLevel(), final="mean", process=table)),)


def _vp_continuous(shared: SharedSettings) -> Experiment:
    return _experiment(shared, VP(), NoiseForm(), ScaledTime(999.0))


def _vp_discrete(shared: SharedSettings) -> Experiment:
    table = Tabulated(LinearBetas(levels=shared.calls), between="floor")
    return _experiment(shared, VP(), NoiseForm(), LevelLabel(between="linear"), levels=table)


def _vp_discrete_samplings(shared: SharedSettings) -> tuple[Sampling, ...]:
    table = _vp_discrete(shared).levels
    return (Sampling("ancestral", Sampler(Ancestral(), EveryLevel(), final="mean", process=table)),)


def _subvp(shared: SharedSettings) -> Experiment:
    return _experiment(shared, SubVP(), NoiseForm(), ScaledTime(999.0))


def _reverse_sde(shared: SharedSettings) -> tuple[Sampling, ...]:
    return (Sampling("Euler-Maruyama", Sampler(EulerMaruyama(), Uniform(shared.calls - 1))),)


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
"""Name -> method, in the order of publication."""
