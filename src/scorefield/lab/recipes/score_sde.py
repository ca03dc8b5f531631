"""The CIFAR-10 configurations of Song et al. (2021) at full size, row by row of their tables.

Networks, processes, objectives, optimisers and averages are the published ones. The samplers differ where the
published code ties an example to its batch mates or to a grid artefact: Langevin steps use each example's own norms
(`NormRatio(norm="batch")` is theirs), continuous models take 1000 steps that end at t_min and are denoised there
(theirs step by 1/N and take the last mean), discrete VP models have whole labels (theirs drift by up to 1), and the
first learning rate is 1/warmup of the full one (theirs is 0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from scorefield.data_spec import DataSpec
from scorefield.lab.data import DataSource
from scorefield.lab.experiment import Adam, Averaging, Experiment, Training
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.nets.ddpm import DDPM
from scorefield.nets.ncsnpp import NCSNpp
from scorefield.nets.network import NetworkConfig
from scorefield.process.families import VE, VP, SubVP
from scorefield.process.grids import EveryLevel, Uniform
from scorefield.process.process import Process
from scorefield.process.tabulated import GeometricSigmas, LinearBetas, Tabulated
from scorefield.sampling.langevin import Langevin, NormRatio
from scorefield.sampling.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Step
from scorefield.score.parametrisation import LevelLabel, LogSigma, NoiseForm, ScaledScoreForm, ScaledTime, TimeInput

N = 1000


class Row(NamedTuple):
    """One published configuration.

    Args:
        process: "ve", "vp" or "subvp".
        network: "ddpm", "ddpmpp" (DDPM++) or "ncsnpp" (NCSN++).
        continuous: Trained with continuous times.
        deep: Eight blocks per level in place of four.
        paper: Published numbers.
    """

    process: str
    network: str
    continuous: bool
    deep: bool
    paper: dict[str, float] | None

    @property
    def name(self) -> str:
        """Of the recipe, after the release's configuration file."""
        tail = ("-deep" if self.deep else "") + ("-continuous" if self.continuous else "")
        return f"{self.process}-cifar10-{self.network}{tail}"


def _fid(**numbers: float) -> dict[str, float]:
    return numbers


ROWS = (
    Row("ve", "ddpm", False, False, _fid(fid=3.60)),
    Row("ve", "ncsnpp", False, False, _fid(fid=2.45, inception_score=9.73)),
    Row("ve", "ncsnpp", True, False, _fid(fid=2.38, inception_score=9.83)),
    Row("ve", "ncsnpp", True, True, _fid(fid=2.20, inception_score=9.89)),
    Row("vp", "ddpm", False, False, _fid(fid=3.24, fid_ode=3.37, bits_per_dim=3.28)),
    Row("vp", "ddpm", True, False, _fid(fid_ode=3.69, bits_per_dim=3.21)),
    Row("vp", "ddpmpp", False, False, _fid(fid=2.78, inception_score=9.64)),
    Row("vp", "ddpmpp", True, False, _fid(fid=2.55, inception_score=9.58, fid_ode=3.93, bits_per_dim=3.16)),
    Row("vp", "ddpmpp", True, True, _fid(fid=2.41, inception_score=9.68, fid_ode=3.08, bits_per_dim=3.13)),
    Row("vp", "ncsnpp", False, False, None),
    Row("vp", "ncsnpp", True, False, None),
    Row("vp", "ncsnpp", True, True, None),
    Row("subvp", "ddpm", True, False, _fid(fid_ode=3.56, bits_per_dim=3.05)),
    Row("subvp", "ddpmpp", True, False, _fid(fid=2.61, inception_score=9.56, fid_ode=3.16, bits_per_dim=3.02)),
    Row("subvp", "ddpmpp", True, True, _fid(fid=2.41, inception_score=9.57, fid_ode=2.92, bits_per_dim=2.99)),
    Row("subvp", "ncsnpp", True, False, None),
    Row("subvp", "ncsnpp", True, True, None),
)


def _network(row: Row) -> NetworkConfig:
    centered = row.process != "ve"
    if row.network == "ddpm":
        return DDPM(
            channels=128,
            channel_multipliers=(1, 2, 2, 2),
            blocks=2,
            attention_sizes=(16,),
            dropout=0.1,
            centered=centered,
        )
    plus = row.network == "ddpmpp"
    return NCSNpp(
        channels=128,
        channel_multipliers=(1, 2, 2, 2),
        blocks=8 if row.deep else 4,
        attention_sizes=(16,),
        dropout=0.1,
        fir=not plus,
        progressive_input="none" if plus else "residual",
        embedding="fourier" if row.process == "ve" and row.continuous else "positional",
        fourier_scale=16.0,
        init_scale=0.0,
        centered=centered,
    )


def _table(row: Row) -> Tabulated | None:
    if row.continuous:
        return None
    # The conversion of F uses the level's own sigma, whatever the (possibly fractional) label says.
    return Tabulated(
        GeometricSigmas(0.01, 50.0, N) if row.process == "ve" else LinearBetas(0.1, 20.0, N), between="floor"
    )


def _time_input(row: Row) -> TimeInput:
    if row.continuous:
        return LogSigma() if row.process == "ve" else ScaledTime(999.0)
    return LevelLabel(descending=row.process == "ve", between="refuse" if row.process == "ve" else "linear")


def _sampler(row: Row, table: Tabulated | None) -> Sampler:
    step: Step
    if row.process == "ve":
        step = Chain((Langevin(NormRatio(0.16, norm="example")), ReverseDiffusion()))
    elif row.continuous:
        step = EulerMaruyama()
    else:
        step = ReverseDiffusion() if row.network == "ncsnpp" else Ancestral(variance="forward")
    if table is None:
        return Sampler(step, Uniform(N))
    return Sampler(step, EveryLevel(), final="mean", process=table)


def _build(row: Row) -> Experiment:
    processes: dict[str, Process] = {"ve": VE(0.01, 50.0), "vp": VP(), "subvp": SubVP()}
    table, ve = _table(row), row.process == "ve"
    file = row.name.split("-", 1)[1].replace("-", "_")
    if row.process == "vp" and row.network == "ddpm":  # the release keeps its DDPM runs in a folder of their own
        file = "ddpm/" + file.replace("cifar10_ddpm", "cifar10")
    return Experiment(
        name=row.name,
        data=DataSource(flip=True, model_range=(0.0, 1.0) if ve else (-1.0, 1.0)),
        spec=DataSpec((3, 32, 32), 0, 255, 256, model_range=(0.0, 1.0) if ve else (-1.0, 1.0)),
        process=processes[row.process],
        network=_network(row),
        form=ScaledScoreForm() if ve else NoiseForm(),
        time_input=_time_input(row),
        levels=table,
        objective=DenoisingScoreMatching(reduce="half_sum" if ve else "mean", levels=table),
        sampler=_sampler(row, table),
        optimiser=Adam(learning_rate=2e-4, warmup=5000, clip=1.0),
        averaging=Averaging((0.999 if ve else 0.9999,)),
        training=Training(
            steps=950_001 if row.deep else 1_300_001,
            batch_size=128,
            validate_every=5000,
            checkpoint_every=10_000,
            sample_every=50_000,
            sample_steps=None,
            seed=42,
        ),
        source=f"Song et al. 2021, arXiv:2011.13456, configuration {row.process}/{file}",
        paper=row.paper,
    )


def _recipe(row: Row) -> Callable[[], Experiment]:
    def recipe() -> Experiment:
        return _build(row)

    recipe.__name__ = row.name.replace("-", "_")
    recipe.__doc__ = f"Song et al. (2021), CIFAR-10: {row.process} {row.network}{' deep' if row.deep else ''}, " + (
        "continuous." if row.continuous else "discrete."
    )
    return recipe


RECIPES = {row.name: _recipe(row) for row in ROWS}
"""Name -> function, one per row."""
