"""Shared parts of NCSN, NCSNv2, adversarial score matching and MDSM: data, noise levels, samplers along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from scorefield.data_spec import DataSpec
from scorefield.models.experiment import Experiment, Training
from scorefield.process.grids import EveryLevel
from scorefield.process.tabulated import GeometricSigmas, LinearSigmas, Tabulated
from scorefield.sampling.consistent import Consistent
from scorefield.sampling.langevin import LadderScaled, Langevin
from scorefield.sampling.sampler import Sampler, UniformStart
from scorefield.sampling.step import Chain, Hold, Repeat


def ladder(sigma_min: float, sigma_max: float, levels: int, spacing: Literal["geometric", "linear"]) -> Tabulated:
    """alpha = 1 and `levels` noise levels, geometric or equally spaced."""
    made = GeometricSigmas if spacing == "geometric" or levels == 1 else LinearSigmas
    return Tabulated(made(sigma_min, sigma_max, levels))


def annealed_langevin(
    sigma_min: float,
    step_size: float,
    repeats: int,
    *,
    noise: Literal["last", "first"] = "last",
    final: Literal["denoise", "expected", "none"] = "denoise",
    low: float = 0.0,
) -> Sampler:
    """Annealed Langevin dynamics as the releases run it, from uniform noise on [low, 1].

    `repeats` steps x + e score + sqrt(2 e) z at each level with e = step_size (sigma / sigma_min)^2: the convention of
    the code, whose step_size is half the epsilon of the papers (Song and Ermon 2019, algorithm 1).
    """
    stay = Repeat(Langevin(LadderScaled(step_size, sigma_min), noise=noise), repeats)
    return Sampler(Chain((stay, Hold())), EveryLevel(), start=UniformStart(low, 1.0), final=final)


def consistent(sigma_min: float, step_size: float, refine: int, *, low: float = 0.0) -> Sampler:
    """Consistent annealed sampling with eta = step_size / sigma_min^2 (Jolicoeur-Martineau et al. 2021).

    From uniform noise on [low, 1]; `refine` steps from each level to the next.
    """
    eta = step_size / sigma_min**2
    return Sampler(Consistent(eta), EveryLevel(refine=refine), start=UniformStart(low, 1.0), final="expected")


def images_or_logits(shape: tuple[int, int, int], model_range: tuple[float, float] | None) -> DataSpec:
    """The `DataSpec`: grey levels, black and white at the ends of `model_range`, or logits where that is None."""
    return DataSpec(shape) if model_range is None else DataSpec(shape, 0, 255, 256, model_range=model_range)


def training(steps: int, batch_size: int, *, dequantise: bool = False, seed: int = 1234) -> Training:
    """A run with the releases' rhythm: a checkpoint and samples every 5,000 steps."""
    return Training(
        steps=steps,
        batch_size=batch_size,
        dequantise=dequantise,
        validate_every=1000,
        checkpoint_every=5000,
        sample_every=5000,
        sample_steps=None,
        seed=seed,
    )


def as_recipe(name: str, what: str, build: Callable[[], Experiment]) -> Callable[[], Experiment]:
    """A function of the recipe's name that says what it is, for the table of recipes."""

    def recipe() -> Experiment:
        return build()

    recipe.__name__ = name.replace("-", "_")
    recipe.__doc__ = what
    return recipe
