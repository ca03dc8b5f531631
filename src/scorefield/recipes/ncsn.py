"""The configurations of NCSN (Song and Ermon 2019) and NCSNv2 (Song and Ermon 2020).

Networks, ladders, objectives, optimisers and averages are the published ones, in images of [0, 1]; so are the samplers,
annealed Langevin dynamics from uniform noise, but for the state that they return: the true last one, where the release
of NCSN drops its last update. NCSNv2's ends with one denoising call, as published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from scorefield.data import DataSource
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.models.experiment import Adam, Averaging, Experiment
from scorefield.nets.network import NetworkConfig
from scorefield.nets.refinenets.ncsn import NCSN
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.recipes.ladders import annealed_langevin, as_recipe, images_or_logits, ladder, training
from scorefield.score.parametrisation import Form, LevelLabel, ScaledScoreForm, ScaledTime, ScoreForm, TimeInput


@dataclass(frozen=True)
class Settings:
    """Fields of the configurations of both releases.

    Args:
        network: NCSN or NCSNv2, with its fields.
        shape: (C, H, W).
        sigma_max: Largest noise level, model units.
        sigma_min: Smallest noise level.
        levels: Number of levels.
        spacing: Spacing of the levels.
        step_size: Step size of Langevin dynamics at the last level, in the code's convention.
        repeats: Langevin steps per level.
        final: Whether the last state is denoised.
        low: Lower end of the uniform noise, up to 1, that sampling starts from.
        steps: Optimiser steps.
        batch_size: Examples per step.
        optimiser: Adam.
        decay: Decay of the average of the weights, None for no average.
        dequantise: Train on dequantised grey levels.
        model_range: Values of black and white in model units; None for data of logits.
        flip: Random flips.
    """

    network: NetworkConfig
    shape: tuple[int, int, int]
    sigma_max: float
    levels: int
    step_size: float
    repeats: int
    sigma_min: float = 0.01
    spacing: Literal["geometric", "linear"] = "geometric"
    final: Literal["denoise", "none"] = "denoise"
    low: float = 0.0
    steps: int = 200_001
    batch_size: int = 128
    optimiser: Adam = Adam(learning_rate=1e-4, warmup=0, clip=None)
    decay: float | None = 0.999
    dequantise: bool = False
    model_range: tuple[float, float] | None = (0.0, 1.0)
    flip: bool = True


def experiment(
    name: str, settings: Settings, *, data: DataSource, source: str, paper: dict[str, float] | None = None
) -> Experiment:
    """The experiment of a configuration; `data` says where the images are and how they are cut."""
    s = settings
    labels = isinstance(s.network, NCSN) and s.network.levels is not None
    form: Form = ScoreForm() if isinstance(s.network, NCSN) else ScaledScoreForm()
    time: TimeInput = LevelLabel(descending=True) if labels else ScaledTime(0.0)
    process = ladder(s.sigma_min, s.sigma_max, s.levels, s.spacing)
    return Experiment(
        name=name,
        data=data,
        spec=images_or_logits(s.shape, s.model_range),
        process=process,
        network=s.network,
        form=form,
        time_input=time,
        objective=DenoisingScoreMatching(reduce="half_sum"),
        sampler=annealed_langevin(s.sigma_min, s.step_size, s.repeats, final=s.final, low=s.low),
        optimiser=s.optimiser,
        averaging=Averaging(() if s.decay is None else (s.decay,), warmup=False),
        training=training(s.steps, s.batch_size, dequantise=s.dequantise),
        source=source,
        paper=paper,
    )


def _faces(size: int) -> DataSource:
    return DataSource(crop=(140, 140), size=size, resample="bilinear", flip=True, model_range=(0.0, 1.0))


def _rooms(size: int) -> DataSource:
    return DataSource(size=size, resample="bilinear", flip=True, model_range=(0.0, 1.0))


_V1 = Adam(learning_rate=1e-3, warmup=0, clip=None)
_UNIT = (0.0, 1.0)


def _v1(channels: int, shape: tuple[int, int, int], flip: bool, levels: int | None = 10) -> Settings:
    one = levels is None
    return Settings(
        NCSN(channels, levels=levels),
        shape,
        sigma_max=0.01 if one else 1.0,
        levels=1 if levels is None else levels,
        step_size=2e-5,
        repeats=1000 if one else 100,
        final="none",
        optimiser=_V1,
        decay=None,
        dequantise=True,
        flip=flip,
    )


def _v2(
    size: int,
    sigma_max: float,
    levels: int,
    repeats: int,
    step_size: float,
    steps: int,
    *,
    depth: Literal["base", "deeper", "deepest"] = "base",
    batch_size: int = 128,
    eps: float = 1e-8,
) -> Settings:
    optimiser = Adam(learning_rate=1e-4, eps=eps, warmup=0, clip=None)
    shape = (3, size, size)
    return Settings(
        NCSNv2(depth=depth),
        shape,
        sigma_max,
        levels,
        step_size,
        repeats,
        steps=steps,
        batch_size=batch_size,
        optimiser=optimiser,
    )


_SOURCE_1 = "Song and Ermon 2019, arXiv:1907.05600, configuration anneal.yml"
_SOURCE_2 = "Song and Ermon 2020, arXiv:2006.09011, configuration {}.yml"
_CIFAR = DataSource(flip=True, model_range=_UNIT)

Row = tuple[Settings, DataSource, str, dict[str, float] | None]
ROWS: dict[str, Row] = {
    "ncsn-mnist": (_v1(64, (1, 28, 28), False), DataSource(model_range=_UNIT), _SOURCE_1, None),
    "ncsn-celeba": (_v1(128, (3, 32, 32), True), _faces(32), _SOURCE_1, None),
    "ncsn-cifar10": (_v1(128, (3, 32, 32), True), _CIFAR, _SOURCE_1, {"inception_score": 8.87, "fid": 25.32}),
    "ncsn-baseline-cifar10": (
        _v1(128, (3, 32, 32), True, levels=None),
        _CIFAR,
        "Song and Ermon 2019, arXiv:1907.05600, the baseline with the single noise level 0.01",
        None,
    ),
    "ncsnv2-cifar10": (
        _v2(32, 50.0, 232, 5, 6.2e-6, 300_001),
        _CIFAR,
        _SOURCE_2.format("cifar10"),
        {"inception_score": 8.40, "fid": 10.87, "fid_not_denoised": 31.75},
    ),
    "ncsnv2-celeba": (
        _v2(64, 90.0, 500, 5, 3.3e-6, 210_001),
        _faces(64),
        _SOURCE_2.format("celeba"),
        {"fid": 10.23, "fid_not_denoised": 28.86},
    ),
    # The file says 64 pixels; the paper, and the ladder (technique 1 and 2), belong to 96.
    "ncsnv2-church": (
        _v2(96, 140.0, 788, 4, 4.9e-6, 200_001, depth="deeper"),
        _rooms(96),
        _SOURCE_2.format("church") + " (at the paper's 96 pixels)",
        None,
    ),
    "ncsnv2-bedroom": (
        _v2(128, 190.0, 1086, 3, 1.8e-6, 150_001, depth="deeper"),
        _rooms(128),
        _SOURCE_2.format("bedroom"),
        None,
    ),
    "ncsnv2-tower": (
        _v2(128, 190.0, 1086, 3, 1.8e-6, 150_001, depth="deeper"),
        _rooms(128),
        _SOURCE_2.format("tower"),
        None,
    ),
    # The release chooses the network by the name of the data, so that this file trains NCSNv2's and not NCSN's.
    "ncsnv2-ncsn-original": (
        replace(_v2(32, 1.0, 10, 100, 2e-5, 300_001), final="none", optimiser=_V1, decay=None, dequantise=True),
        _CIFAR,
        _SOURCE_2.format("ncsn_original"),
        None,
    ),
    "ncsnv2-ffhq": (
        _v2(256, 348.0, 2311, 3, 9e-7, 80_001, depth="deepest", batch_size=32, eps=1e-3),
        DataSource(size=256, held_out=0.1, flip=True, model_range=_UNIT),
        _SOURCE_2.format("ffhq"),
        None,
    ),
}
"""Name -> (settings, data, source, published numbers)."""


def _recipe(name: str, row: Row) -> Callable[[], Experiment]:
    settings, data, source, paper = row
    what = f"{source.split(',')[0]}: {name.split('-', 1)[1]}, {settings.shape[-1]} pixels."
    return as_recipe(name, what, lambda: experiment(name, settings, data=data, source=source, paper=paper))


RECIPES = {name: _recipe(name, row) for name, row in ROWS.items()}
"""Name -> function, one per configuration."""
