"""Recipes: functions that return an `Experiment`, by name.

small              experiments for a laptop, and starting points for your own data
points             point sets in the plane
stacked            three digits stacked as channels, 1000 modes
score_sde          Song et al. 2021 on CIFAR-10
score_sde_images   Song et al. 2021 on larger images (faces, bedrooms, churches), and NCSN in their code
sde_configuration  from a configuration of that release to an `Experiment`; checkpoint import uses it too
ncsn               NCSN and NCSNv2
acsm               adversarial score matching, with and without the discriminator
mdsm               multi-scale denoising score matching of energies
ladders            the noise levels and samplers that NCSN, ACSM and MDSM share
"""

from __future__ import annotations

from collections.abc import Callable

from scorefield._codec import near
from scorefield._plugins import Table
from scorefield.models.experiment import Experiment
from scorefield.recipes import (
    acsm,
    ladders,
    mdsm,
    ncsn,
    points,
    score_sde,
    score_sde_images,
    sde_configuration,
    small,
    stacked,
)

RECIPES: Table[Callable[[], Experiment]] = Table(
    "recipe",
    {
        "digits": small.digits,
        "digits-mlp": small.digits_mlp,
        "points-2d": small.points_2d,
        "vectors": small.vectors,
        "signals": small.signals,
        "images": small.images,
        "fashion-mnist": small.fashion_mnist,
        "cifar10": small.cifar10,
        **stacked.RECIPES,
        **score_sde.RECIPES,
        **score_sde_images.RECIPES,
        **ncsn.RECIPES,
        **acsm.RECIPES,
        **mdsm.RECIPES,
    },
)
"""Name -> function without arguments. A plugin adds one with the decorator `RECIPES.add(name)`."""


def recipe(name: str) -> Experiment:
    """The experiment of a recipe.

    Raises:
        ValueError: No recipe of that name; near matches are shown.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}.{near(name, RECIPES)}")
    return RECIPES[name]()


def summaries() -> dict[str, str]:
    """Name -> first line of the description, of every recipe that is known now."""
    return {name: (function.__doc__ or "").strip().split("\n")[0] for name, function in RECIPES.items()}


__all__ = [
    "RECIPES",
    "acsm",
    "ladders",
    "mdsm",
    "ncsn",
    "points",
    "recipe",
    "score_sde",
    "score_sde_images",
    "sde_configuration",
    "small",
    "stacked",
    "summaries",
]
