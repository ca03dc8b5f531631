"""Every recipe resolves, is saved and read back, and has the published sizes."""

from __future__ import annotations

from typing import Any

import pytest

from scorefield._codec import dumps, loads
from scorefield.data import DataSource
from scorefield.models.description import describe_experiment
from scorefield.models.experiment import Adam, Experiment
from scorefield.models.networks import meta_network
from scorefield.process import VE, VP, GeometricSigmas, LinearSigmas, Process, SubVP, Tabulated
from scorefield.recipes import RECIPES, recipe
from scorefield.sampling import (
    Chain,
    Consistent,
    LadderScaled,
    Langevin,
    NoiseScaled,
    NormalStart,
    NormRatio,
    Repeat,
    Step,
    TemperatureLangevin,
)

PARAMETERS = {
    "ve-cifar10-ddpm": 35_218_947,
    "vp-cifar10-ddpm": 35_218_947,
    "vp-cifar10-ddpm-continuous": 35_218_947,
    "subvp-cifar10-ddpm-continuous": 35_218_947,
    "ve-cifar10-ncsnpp": 62_693_251,
    "ve-cifar10-ncsnpp-continuous": 62_758_915,
    "ve-cifar10-ncsnpp-deep-continuous": 107_587_075,
    "vp-cifar10-ddpmpp": 61_804_419,
    "vp-cifar10-ddpmpp-continuous": 61_804_419,
    "vp-cifar10-ddpmpp-deep-continuous": 106_632_579,
    "vp-cifar10-ncsnpp": 62_693_251,
    "vp-cifar10-ncsnpp-continuous": 62_693_251,
    "vp-cifar10-ncsnpp-deep-continuous": 107_521_411,
    "subvp-cifar10-ddpmpp-continuous": 61_804_419,
    "subvp-cifar10-ddpmpp-deep-continuous": 106_632_579,
    "subvp-cifar10-ncsnpp-continuous": 62_693_251,
    "subvp-cifar10-ncsnpp-deep-continuous": 107_521_411,
    "ve-celeba-ncsnpp": 62_693_251,
    "ve-bedroom-ncsnpp-continuous": 65_574_549,
    "ve-church-ncsnpp-continuous": 65_574_549,
    "ve-ffhq256-ncsnpp-continuous": 65_574_549,
    "ve-celebahq256-ncsnpp-continuous": 65_574_549,
    "ve-ffhq-ncsnpp-continuous": 105_785_896,
    "ve-celebahq-ncsnpp-continuous": 105_785_896,
    "vp-bedroom-ddpm": 111_569_923,
    "vp-church-ddpm": 111_569_923,
    "vp-celebahq256-ddpm": 111_569_923,
    "ve-cifar10-ncsn": 30_117_635,
    "ve-cifar10-ncsn-5": 30_117_635,
    "ve-cifar10-ncsnv2": 29_694_083,
    "ve-celeba-ncsnv2": 29_694_083,
    "ve-bedroom-ncsnv2": 83_445_379,
    "ncsn-mnist": 7_638_657,
    "ncsn-celeba": 30_117_635,
    "ncsn-cifar10": 30_117_635,
    "ncsn-baseline-cifar10": 29_727_107,
    "ncsnv2-cifar10": 29_694_083,
    "ncsnv2-celeba": 29_694_083,
    "ncsnv2-church": 83_445_379,
    "ncsnv2-bedroom": 83_445_379,
    "ncsnv2-tower": 83_445_379,
    "ncsnv2-ffhq": 94_132_611,
    "ncsnv2-ncsn-original": 29_694_083,
    "acsm-cifar10": 29_694_083,
    "acsm-cifar10-unet": 33_185_411,
    "acsm-church": 83_445_379,
    "acsm-celeba": 29_694_083,
    "acsm-tower": 83_445_379,
    "acsm-ffhq": 94_132_611,
    "acsm-stackedmnist": 29_694_083,
    "acsm-stackedmnist-9999": 29_694_083,
    "acsm-cifar10-adversarial": 29_694_083,
    "acsm-cifar10-unet-adversarial": 33_185_411,
    "acsm-church-adversarial": 83_445_379,
    "acsm-stackedmnist-adversarial": 29_694_083,
    "mdsm-cifar10": 62_339_075,
    "mdsm-celeba": 62_339_075,
    "mdsm-fashion-mnist": 9_060_483,
    "mdsm-mnist": 9_060_483,
}
"""Printed by the releases' own networks."""

OPEN = {
    "digits",
    "digits-mlp",
    "stacked-digits",
    "stacked-digits-adversarial",
    "points-2d",
    "vectors",
    "signals",
    "images",
    "fashion-mnist",
    "cifar10",
    "digits-adversarial",
    "digits-energy",
    "fashion-mnist-energy",
}
"""Ours, of no published size."""

NO_COUNT = {
    "vp-cifar10-ddpm-unconditional",
    "ve-cifar10-ncsn-124",
    "ve-cifar10-ncsn-1245",
    "ve-celeba-ncsn",
    "ve-celeba-ncsn-5",
    "ve-celeba-ncsn-124",
    "ve-celeba-ncsn-1245",
}
"""Published configurations whose number of parameters is printed nowhere."""


def test_every_recipe_is_in_a_table() -> None:
    assert set(RECIPES) == {*PARAMETERS, *OPEN, *NO_COUNT}


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_saved_and_read_back(name: str) -> None:
    found = recipe(name)
    assert found.name == name
    assert loads(dumps(found), Experiment) == found
    assert (RECIPES[name].__doc__ or "").strip()
    assert name in OPEN or (found.source and "arXiv" in found.source and found.spec is not None)


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name: str) -> None:
    found = recipe(name)
    assert found.spec is not None
    assert sum(p.numel() for p in meta_network(found, found.spec).parameters()) == PARAMETERS[name]


def test_describe_shows_parameters_source_and_published_numbers() -> None:
    lines = "\n".join(describe_experiment(recipe("ncsnv2-cifar10")))
    assert "29,694,083 parameters" in lines
    assert "source = Song and Ermon 2020, arXiv:2006.09011, configuration cifar10.yml" in lines
    assert "'fid': 10.87" in lines


# ---------------------------------------------------------------------------------------- rows, field by field


def parts(step: Step) -> dict[str, Any]:
    """The first corrector of a chain, and how often it is repeated."""
    assert isinstance(step, Chain)
    inner = step.steps[0]
    times = inner.times if isinstance(inner, Repeat) else 1
    langevin = inner.step if isinstance(inner, Repeat) else inner
    assert isinstance(langevin, Langevin)
    return {"times": times, "size": langevin.size, "noise": langevin.noise}


LADDERS = {  # name: sigma_max, levels, steps per level, step size, optimiser steps, batch, eps, decay
    "ncsn-mnist": (1.0, 10, 100, 2e-5, 200_001, 128, 1e-8, None),
    "ncsn-cifar10": (1.0, 10, 100, 2e-5, 200_001, 128, 1e-8, None),
    "ncsnv2-cifar10": (50.0, 232, 5, 6.2e-6, 300_001, 128, 1e-8, 0.999),
    "ncsnv2-celeba": (90.0, 500, 5, 3.3e-6, 210_001, 128, 1e-8, 0.999),
    "ncsnv2-church": (140.0, 788, 4, 4.9e-6, 200_001, 128, 1e-8, 0.999),
    "ncsnv2-bedroom": (190.0, 1086, 3, 1.8e-6, 150_001, 128, 1e-8, 0.999),
    "ncsnv2-tower": (190.0, 1086, 3, 1.8e-6, 150_001, 128, 1e-8, 0.999),
    "ncsnv2-ffhq": (348.0, 2311, 3, 9e-7, 80_001, 32, 1e-3, 0.999),
    "acsm-cifar10-unet": (50.0, 232, 5, 6.2e-6, 300_001, 128, 1e-8, 0.9999),
    "acsm-church": (140.0, 788, 4, 4.9e-6, 200_001, 128, 1e-8, 0.999),
    "acsm-ffhq": (348.0, 2311, 3, 9e-7, 80_001, 32, 1e-3, 0.999),
    "acsm-stackedmnist": (50.0, 200, 4, 4.9e-6, 200_001, 128, 1e-8, 0.999),
}


@pytest.mark.parametrize("name", LADDERS)
def test_ladders_and_their_samplers(name: str) -> None:
    sigma_max, levels, repeats, size, steps, batch, eps, decay = LADDERS[name]
    found = recipe(name)
    assert found.process == Tabulated(GeometricSigmas(0.01, sigma_max, levels))
    expected = {"times": repeats, "size": LadderScaled(size, 0.01), "noise": "last" if "ncsn" in name else "first"}
    assert parts(found.sampler.step) == expected
    assert (found.training.steps, found.training.batch_size) == (steps, batch)
    rate = 1e-3 if name.startswith("ncsn-") else 1e-4
    assert found.optimiser == Adam(learning_rate=rate, eps=eps, warmup=0, clip=None)
    assert found.averaging.decays == (() if decay is None else (decay,)) and not found.averaging.warmup
    assert found.training.dequantise == name.startswith("ncsn-")
    assert found.spec is not None and found.spec.model_range == (0.0, 1.0)


def test_the_one_configuration_with_consistent_sampling() -> None:
    sampler = recipe("acsm-cifar10").sampler
    assert sampler.step == Consistent(1.1e-6 / 0.01**2) and sampler.final == "expected"
    process = recipe("acsm-cifar10").process
    assert isinstance(process, Process)
    times = sampler.times(process)
    assert len(times) == 231 * 5 + 2


def test_energies() -> None:
    cifar, fashion = recipe("mdsm-cifar10"), recipe("mdsm-fashion-mnist")
    assert cifar.process == Tabulated(LinearSigmas(0.05, 1.2, 128))
    assert fashion.process == Tabulated(GeometricSigmas(0.1, 3.0, 128))
    assert fashion.spec is not None and fashion.spec.shape == (1, 32, 32) and fashion.data.pad == 2
    assert cifar.optimiser.rate(0) == 5e-5 and cifar.optimiser.rate(150_000) == pytest.approx(2.55e-5)
    assert cifar.optimiser.rate(300_000) == 1e-6 == cifar.optimiser.rate(10**6)
    assert cifar.training.batch_size == 128 and cifar.optimiser.beta2 == 0.95
    assert cifar.averaging.decays == ()
    for found in (cifar, fashion, recipe("mdsm-celeba")):
        walk = found.sampler.step
        assert isinstance(walk, TemperatureLangevin) and (walk.step, walk.sigma_0) == (pytest.approx(0.02), 0.1)
        assert (walk.schedule.burn_in, walk.schedule.anneal, walk.schedule.quench) == (500, 2000, 200)
        assert found.sampler.start == NormalStart(0.5, 1.0) and found.sampler.final == "denoise"


IMAGES = {  # name: sigma_max, levels, snr, decay, batch, reduce, crop, size
    "ve-celeba-ncsnpp": (90.0, 1000, 0.17, 0.999, 128, "half_sum", (140, 140), 64),
    "ve-bedroom-ncsnpp-continuous": (378.0, 2000, 0.075, 0.999, 64, "half_sum", "center", 256),
    "ve-church-ncsnpp-continuous": (380.0, 2000, 0.075, 0.999, 64, "half_sum", "center", 256),
    "ve-ffhq256-ncsnpp-continuous": (348.0, 2000, 0.075, 0.999, 64, "half_sum", None, 256),
    "ve-celebahq256-ncsnpp-continuous": (348.0, 2000, 0.075, 0.999, 64, "half_sum", None, 256),
    "ve-ffhq-ncsnpp-continuous": (1348.0, 2000, 0.15, 0.9999, 8, "mean", None, 1024),
    "ve-celebahq-ncsnpp-continuous": (1348.0, 2000, 0.15, 0.9999, 8, "half_sum", None, 1024),
}


@pytest.mark.parametrize("name", IMAGES)
def test_large_images_of_the_sde_framework(name: str) -> None:
    sigma_max, levels, snr, decay, batch, reduce, crop, size = IMAGES[name]
    found = recipe(name)
    assert isinstance(found.process, VE) and found.process == VE(0.01, sigma_max)
    assert parts(found.sampler.step)["size"] == NormRatio(snr, norm="example")
    ladder = found.levels
    assert (ladder.levels if ladder else len(found.sampler.times(found.process)) - 1) == levels
    assert found.averaging.decays == (decay,) and found.training.batch_size == batch
    assert found.objective.reduce == reduce  # type: ignore[attr-defined]
    assert (found.data.crop, found.data.size) == (crop, size)
    assert found.training.steps == (1_300_001 if name == "ve-celeba-ncsnpp" else 2_400_001)


def test_ddpm_at_256_pixels() -> None:
    found = recipe("vp-church-ddpm")
    assert found.process == VP() and found.optimiser.learning_rate == 2e-5 and found.training.batch_size == 64
    assert found.data == DataSource(crop="center", size=256, resample="bicubic", flip=True)
    assert found.network.dropout == 0.0  # type: ignore[attr-defined]
    assert recipe("subvp-cifar10-ddpm-continuous").process == SubVP()


def test_baselines_of_the_sde_framework() -> None:
    rows = {  # name: sigma_max, levels, corrections, snr, decay
        "ve-cifar10-ncsn": (1.0, 10, 100, 0.316, 0.0),
        "ve-cifar10-ncsn-1245": (50.0, 232, 5, 0.176, 0.999),
        "ve-celeba-ncsn-124": (90.0, 500, 5, 0.128, 0.0),
        "ve-bedroom-ncsnv2": (190.0, 1086, 3, 0.095, 0.9999),
    }
    for name, (sigma_max, levels, corrections, snr, decay) in rows.items():
        found = recipe(name)
        assert found.process == VE(0.01, sigma_max) and found.levels is not None and found.levels.levels == levels
        step = parts(found.sampler.step)
        assert step == {"times": corrections, "size": NoiseScaled(snr), "noise": "last"}
        assert found.averaging.decays == (decay,) and found.optimiser.warmup == 0
