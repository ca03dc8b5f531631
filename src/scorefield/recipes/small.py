"""Experiments for a laptop, and starting points for one's own data."""

from __future__ import annotations

from dataclasses import replace

from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.models.experiment import Adam, Averaging, Experiment, Training
from scorefield.nets.mlp import MLP
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.process.families import VE, VP
from scorefield.process.grids import Uniform
from scorefield.sampling.langevin import Langevin, NoiseScaled
from scorefield.sampling.predictors import EulerMaruyama, ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain
from scorefield.score.parametrisation import KarrasForm, LogSigma, NoiseForm, ScaledTime


def _predictor_corrector(steps: int, snr: float = 0.16) -> Sampler:
    return Sampler(Chain((Langevin(NoiseScaled(snr)), ReverseDiffusion())), Uniform(steps))


def digits() -> Experiment:
    """A small NCSN++ on the bundled 8x8 digits under VE: recognisable in about two minutes on two cores."""
    return Experiment(
        name="digits",
        data=DataSource("digits"),
        spec=DataSpec((1, 8, 8), 0, 16, 17),
        # 11 is about the largest distance between two digits in model units (NCSNv2's technique 1).
        process=VE(0.01, 11.0),
        network=NCSNpp(
            channels=32,
            channel_multipliers=(1, 2),
            blocks=1,
            attention_sizes=(4,),
            dropout=0.05,
            embedding="fourier",
            fourier_scale=2.0,
            progressive_input="residual",
            centered=True,
        ),
        form=KarrasForm(sigma_data=0.7),
        time_input=LogSigma(),
        objective=DenoisingScoreMatching(stratified=True),
        sampler=_predictor_corrector(100),
        optimiser=Adam(learning_rate=2e-3, warmup=100),
        averaging=Averaging((0.995,)),
        training=Training(steps=2000, batch_size=64, log_every=50, validate_every=250, checkpoint_every=500),
    )


def digits_mlp() -> Experiment:
    """The bundled digits with an MLP under VP: trains in seconds, for tests and teaching."""
    return Experiment(
        name="digits-mlp",
        data=DataSource("digits"),
        spec=DataSpec((1, 8, 8), 0, 16, 17),
        process=VP(),
        network=MLP(embedding="positional"),
        form=NoiseForm(),
        time_input=ScaledTime(999.0),
        objective=DenoisingScoreMatching(stratified=True),
        sampler=Sampler(EulerMaruyama(), Uniform(200)),
        optimiser=Adam(learning_rate=1e-3, warmup=100),
        training=Training(steps=3000, batch_size=128, validate_every=250, checkpoint_every=500),
    )


def vectors() -> Experiment:
    """Any table of numbers (N, D), standardised: an MLP under VP."""
    return Experiment(
        name="vectors",
        data=DataSource(),
        process=VP(),
        network=MLP(embedding="positional"),
        form=NoiseForm(),
        time_input=ScaledTime(999.0),
        objective=DenoisingScoreMatching(stratified=True),
        sampler=Sampler(EulerMaruyama(), Uniform(500)),
        optimiser=Adam(learning_rate=1e-3, warmup=100),
        training=Training(steps=10_000, batch_size=256, validate_every=500, checkpoint_every=1000),
    )


def points_2d() -> Experiment:
    """Points of a noisy spiral in the plane: the first thing to plot."""
    return replace(
        vectors(),
        name="points-2d",
        data=DataSource("scorefield.recipes.points:spiral"),
        training=Training(steps=3000, batch_size=256, validate_every=250, checkpoint_every=500),
    )


def signals() -> Experiment:
    """Any signals (N, C, L): a one-dimensional DDPM++ under VP."""
    return replace(images(), name="signals")


def images() -> Experiment:
    """Any images or fields (N, C, H, W) in a CPU size: a DDPM++ of three levels under VP."""
    return Experiment(
        name="images",
        data=DataSource(),
        process=VP(),
        network=NCSNpp(
            channels=32,
            channel_multipliers=(1, 2, 2),
            blocks=2,
            attention_sizes=(7, 8),
            fir=False,
            progressive_input="none",
            embedding="positional",
        ),
        form=NoiseForm(),
        time_input=ScaledTime(999.0),
        objective=DenoisingScoreMatching(stratified=True),
        sampler=_predictor_corrector(500),
        optimiser=Adam(learning_rate=4e-4, warmup=200),
        averaging=Averaging((0.999,)),
        training=Training(steps=20_000, batch_size=64, validate_every=500, checkpoint_every=500, sample_every=1000),
    )


def fashion_mnist() -> Experiment:
    """Fashion-MNIST at 28 x 28; give the folder of its IDX files with --data."""
    return replace(images(), name="fashion-mnist", data=DataSource(), spec=DataSpec((1, 28, 28), 0, 255, 256))


def cifar10() -> Experiment:
    """CIFAR-10 in a CPU size; give its parquet folder, or any other form of it, with --data."""
    return replace(images(), name="cifar10", data=DataSource(flip=True), spec=DataSpec((3, 32, 32), 0, 255, 256))
