"""The configurations of adversarial score matching (Jolicoeur-Martineau et al. 2021), and a small one on the digits.

Each configuration file trains by denoising score matching alone; the four that were also trained with a critic have a
second recipe, "-adversarial". Each is sampled as its file says, by consistent annealed sampling or by annealed Langevin
dynamics, and samples are the denoised values of the last network evaluation. The release trains on 3-Stacked MNIST in
[-1, 1] and samples from and clamps to [0, 1]; here its data are in [0, 1] throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.models.experiment import Adam, Adversary, Averaging, Experiment, Training
from scorefield.nets.critics.mlp_critic import MLPCritic
from scorefield.nets.mlp import MLP
from scorefield.nets.network import NetworkConfig
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.nets.unets.acsm_unet import ACSMUNet
from scorefield.recipes.ladders import annealed_langevin, as_recipe, consistent, images_or_logits, ladder, training
from scorefield.score.parametrisation import KarrasForm, LogSigma, ScaledScoreForm, ScaledTime


@dataclass(frozen=True)
class Settings:
    """Fields of a configuration.

    Args:
        network: NCSNv2 or ACSMUNet, with its fields.
        shape: (C, H, W).
        sigma_max: Largest noise level, model units.
        levels: Number of levels.
        step_size: epsilon of the sampler.
        refine: n_sigma: steps per level.
        consistent: Consistent annealed sampling, else annealed Langevin dynamics.
        noise: Whether annealed Langevin dynamics adds its noise before the gradient step or after it.
        sigma_min: Smallest noise level.
        spacing: Spacing of the levels.
        decay: Decay of the average of the weights.
        steps: Optimiser steps.
        batch_size: Examples per step.
        learning_rate: Learning rate of Adam.
        eps: Epsilon of Adam.
        model_range: Values of black and white in model units; None for data of logits.
        low: Lower end of the uniform noise, up to 1, that sampling starts from.
    """

    network: NetworkConfig
    shape: tuple[int, int, int]
    sigma_max: float
    levels: int
    step_size: float
    refine: int
    consistent: bool
    noise: Literal["last", "first"] = "first"
    sigma_min: float = 0.01
    spacing: Literal["geometric", "linear"] = "geometric"
    decay: float | None = 0.999
    steps: int = 200_001
    batch_size: int = 128
    learning_rate: float = 1e-4
    eps: float = 1e-8
    model_range: tuple[float, float] | None = (0.0, 1.0)
    low: float = 0.0


def experiment(
    name: str, settings: Settings, *, data: DataSource, source: str, paper: dict[str, float] | None = None
) -> Experiment:
    """The experiment of a configuration; `data` says where the images are and how they are cut."""
    s = settings
    if s.consistent:
        sampler = consistent(s.sigma_min, s.step_size, s.refine, low=s.low)
    else:
        sampler = annealed_langevin(s.sigma_min, s.step_size, s.refine, noise=s.noise, final="expected", low=s.low)
    return Experiment(
        name=name,
        data=data,
        spec=images_or_logits(s.shape, s.model_range),
        process=ladder(s.sigma_min, s.sigma_max, s.levels, s.spacing),
        network=s.network,
        form=ScaledScoreForm(),
        time_input=ScaledTime(0.0),
        objective=DenoisingScoreMatching(reduce="half_sum"),
        sampler=sampler,
        optimiser=Adam(learning_rate=s.learning_rate, eps=s.eps, warmup=0, clip=None),
        averaging=Averaging(() if s.decay is None else (s.decay,), warmup=False),
        training=training(s.steps, s.batch_size),
        source=source,
        paper=paper,
    )


_UNIT = (0.0, 1.0)
_CIFAR = DataSource(flip=True, model_range=_UNIT)


def _rooms(size: int) -> DataSource:
    return DataSource(size=size, resample="bilinear", flip=True, model_range=_UNIT)


_SOURCE = "Jolicoeur-Martineau et al. 2021, arXiv:2009.05475, configuration {}.yml"
Row = tuple[str, Settings, DataSource, dict[str, float] | None]

# The one published number that is measured without the adversarial term on stored data: 5,000 samples of annealed
# Langevin dynamics with n_sigma = 1 and epsilon = 1.83e-5, denoised.
ROWS: dict[str, Row] = {
    "acsm-cifar10": (
        "cifar10_9999ema",
        Settings(NCSNv2(), (3, 32, 32), 50.0, 232, 1.1e-6, 5, True, decay=0.9999, steps=300_001),
        _CIFAR,
        {"fid_5000_samples_ald": 15.56},
    ),
    "acsm-cifar10-unet": (
        "cifar10_unet_9999_1e-4",
        Settings(ACSMUNet(), (3, 32, 32), 50.0, 232, 6.2e-6, 5, False, decay=0.9999, steps=300_001),
        _CIFAR,
        None,
    ),
    # 788 levels belong to 96 pixels; the release keeps them at 64.
    "acsm-church": (
        "church",
        Settings(NCSNv2(depth="deeper"), (3, 64, 64), 140.0, 788, 4.9e-6, 4, False),
        _rooms(64),
        None,
    ),
    "acsm-celeba": (
        "celeba",
        Settings(NCSNv2(), (3, 64, 64), 90.0, 500, 3.3e-6, 5, False, steps=210_001),
        DataSource(crop=(140, 140), size=64, resample="bilinear", flip=True, model_range=_UNIT),
        None,
    ),
    "acsm-tower": (
        "tower",
        Settings(NCSNv2(depth="deeper"), (3, 128, 128), 190.0, 1086, 1.8e-6, 3, False, steps=150_001),
        _rooms(128),
        None,
    ),
    "acsm-ffhq": (
        "ffhq",
        Settings(
            NCSNv2(depth="deepest"), (3, 256, 256), 348.0, 2311, 9e-7, 3, False, steps=80_001, batch_size=32, eps=1e-3
        ),
        DataSource(size=256, held_out=0.1, flip=True, model_range=_UNIT),
        None,
    ),
    "acsm-stackedmnist": (
        "stackedmnist",
        Settings(NCSNv2(), (3, 28, 28), 50.0, 200, 4.9e-6, 4, False),
        DataSource(stack=3, model_range=_UNIT),
        None,
    ),
    "acsm-stackedmnist-9999": (
        "stackedmnist_ema9999",
        Settings(NCSNv2(), (3, 28, 28), 50.0, 200, 4.9e-6, 4, False, decay=0.9999),
        DataSource(stack=3, model_range=_UNIT),
        None,
    ),
}
"""Name -> (configuration file, settings, data, published numbers)."""


ADVERSARIAL = {"acsm-cifar10": 1, "acsm-cifar10-unet": 2, "acsm-church": 1, "acsm-stackedmnist": 1}
"""Name -> updates of the critic for one of the score, for the configurations that were also trained with a critic."""


def with_critic(found: Experiment, steps: int) -> Experiment:
    """The experiment as trained with the published critic: its weights, LSGAN, Adam with beta_1 = -0.5.

    The score's own Adam has (0, 0.9) then. The release gives both by flags, also where a file says otherwise (church).
    """
    rule = found.optimiser
    return replace(
        found,
        name=f"{found.name}-adversarial",
        optimiser=replace(rule, beta1=0.0, beta2=0.9),
        adversary=Adversary(optimiser=replace(rule, beta1=-0.5, beta2=0.9), steps=steps),
        source=f"{found.source}, with --adversarial",
        paper=None,
    )


def digits_adversarial() -> Experiment:
    """The bundled digits with a critic, both networks MLPs, by consistent annealed sampling: some minutes on one core.

    `--set adversary=null` trains it without the critic.
    """
    spec = DataSpec((1, 8, 8), 0, 16, 17, model_range=_UNIT)
    return Experiment(
        name="digits-adversarial",
        data=DataSource("digits", model_range=_UNIT),
        spec=spec,
        # 5.5 is about the largest distance between two digits (NCSNv2's technique 1); by its technique 2, 20 levels do.
        process=ladder(0.01, 5.5, 40, "geometric"),
        network=MLP(),
        form=KarrasForm(sigma_data=0.35),
        time_input=LogSigma(),
        objective=DenoisingScoreMatching(reduce="half_sum"),
        sampler=consistent(0.01, 1.25e-5, 2),
        optimiser=Adam(learning_rate=1e-3, beta1=0.0, beta2=0.9, warmup=100),
        averaging=Averaging((0.999,)),
        training=Training(steps=5000, batch_size=128, log_every=100, validate_every=500, checkpoint_every=1000),
        adversary=Adversary(
            critic=MLPCritic(width=256, depth=2),
            optimiser=Adam(learning_rate=2e-4, beta1=-0.5, beta2=0.9, warmup=0, clip=None),
            weight=0.1,
        ),
    )


def _recipe(name: str, row: Row) -> Callable[[], Experiment]:
    file, settings, data, paper = row
    what, source = f"Jolicoeur-Martineau et al. (2021): {file}, {settings.shape[-1]} pixels.", _SOURCE.format(file)
    return as_recipe(name, what, lambda: experiment(name, settings, data=data, source=source, paper=paper))


def _adversarial(name: str, steps: int) -> Callable[[], Experiment]:
    what = f"{name} trained with the published critic (adversarial score matching)."
    return as_recipe(f"{name}-adversarial", what, lambda: with_critic(RECIPES[name](), steps))


RECIPES: dict[str, Callable[[], Experiment]] = {name: _recipe(name, row) for name, row in ROWS.items()}
RECIPES |= {f"{name}-adversarial": _adversarial(name, steps) for name, steps in ADVERSARIAL.items()}
RECIPES |= {"digits-adversarial": digits_adversarial}
"""Name -> function, one per configuration, with and without its critic."""
