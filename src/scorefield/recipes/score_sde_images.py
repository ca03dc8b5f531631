"""The configurations of Song et al. (2021) beyond CIFAR-10's tables: faces, rooms and churches, and NCSN in their code.

`sde_configuration` makes experiments of them, and says where their samplers are not the release's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from scorefield.data import DataSource
from scorefield.models.experiment import Adam, Experiment
from scorefield.nets.refinenets.ncsn import NCSN
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.recipes.ladders import as_recipe
from scorefield.recipes.sde_configuration import PAPER, Configuration


class Row(NamedTuple):
    """One published configuration.

    Args:
        file: The release's configuration file.
        configuration: What it says.
        data: The images and their cropping.
        paper: Published numbers.
    """

    file: str
    configuration: Configuration
    data: DataSource
    paper: dict[str, float] | None = None


CIFAR10 = DataSource(flip=True)
CELEBA = DataSource(crop=(140, 140), size=64, resample="bilinear", flip=True)
LSUN_256 = DataSource(crop="center", size=256, resample="bicubic", flip=True)
LSUN_128 = DataSource(size=128, resample="bilinear", flip=True)


def _records(size: int) -> DataSource:
    """FFHQ and CelebA-HQ TFRecords; the release trains and evaluates on all of them."""
    return DataSource(size=size, held_out=0, flip=True)


def _ve(
    size: int, sigma_max: float, network: NCSNpp, *, snr: float, ema: float, batch_size: int, mean: bool = False
) -> Configuration:
    return Configuration(
        process="ve",
        network=network,
        continuous=True,
        shape=(3, size, size),
        divided=True,
        sigma_max=sigma_max,
        levels=2000,
        predictor="reverse_diffusion",
        corrector="langevin",
        snr=snr,
        reduce="mean" if mean else "half_sum",
        ema=ema,
        steps=2_400_001,
        batch_size=batch_size,
        checkpoint_every=5000,
    )


def _ncsnpp(channels: int, multipliers: tuple[int, ...], blocks: int) -> NCSNpp:
    return NCSNpp(channels, multipliers, blocks, dropout=0.0, progressive="output_skip", progressive_input="input_skip")


_NCSNPP_256 = _ncsnpp(128, (1, 1, 2, 2, 2, 2, 2), 2)
_NCSNPP_1024 = _ncsnpp(16, (1, 2, 4, 8, 16, 32, 32, 32), 1)


def _ve_256(sigma_max: float) -> Configuration:
    return _ve(256, sigma_max, _NCSNPP_256, snr=0.075, ema=0.999, batch_size=64)


def _ve_1024(mean: bool) -> Configuration:
    return _ve(1024, 1348.0, _NCSNPP_1024, snr=0.15, ema=0.9999, batch_size=8, mean=mean)


def _ddpm(size: int, network: DDPM, rate: float, steps: int, batch_size: int) -> Configuration:
    return Configuration(
        process="vp",
        network=network,
        continuous=False,
        shape=(3, size, size),
        divided=False,
        predictor="ancestral_sampling",
        corrector="none",
        reduce="mean",
        optimiser=Adam(learning_rate=rate),
        ema=0.9999,
        steps=steps,
        batch_size=batch_size,
    )


_DDPM_256 = _ddpm(256, DDPM(128, (1, 1, 2, 2, 4, 4), dropout=0.0), 2e-5, 2_400_001, 64)


def _refine(
    network: NCSN | NCSNv2,
    size: int,
    sigma_max: float,
    levels: int,
    corrections: int,
    snr: float,
    ema: float,
    steps: int = 1_300_001,
) -> Configuration:
    """NCSN and NCSNv2 as baselines: the ladder, annealed Langevin dynamics alone, no warm-up and no clipping."""
    first = isinstance(network, NCSN)
    return Configuration(
        process="ve",
        network=network,
        continuous=False,
        shape=(3, size, size),
        divided=not first,
        sigma_max=sigma_max,
        levels=levels,
        predictor="none",
        corrector="ald",
        corrections=corrections,
        snr=snr,
        reduce="half_sum",
        optimiser=Adam(learning_rate=1e-3 if first else 1e-4, warmup=0, clip=None),
        ema=ema,
        steps=steps,
    )


def _techniques(data: Literal["cifar10", "celeba"]) -> dict[str, Row]:
    """NCSN with some of NCSNv2's techniques: 5 is the average of the weights, 1, 2 and 4 ladder and sampler."""
    size, source = (32, CIFAR10) if data == "cifar10" else (64, CELEBA)
    ends = (50.0, 232, 5, 0.176) if data == "cifar10" else (90.0, 500, 5, 0.128)
    first = (1.0, 10, 100, 0.316)
    rows = {
        "": _refine(NCSN(levels=10), size, *first, 0.0),
        "_5": _refine(NCSN(levels=10), size, *first, 0.999),
        "_124": _refine(NCSN(levels=ends[1]), size, *ends, 0.0),
        "_1245": _refine(NCSN(levels=ends[1]), size, *ends, 0.999),
    }
    return {
        f"ve-{data}-ncsn{suffix.replace('_', '-')}": Row(f"ve/ncsn/{data}{suffix}", made, source)
        for suffix, made in rows.items()
    }


_CELEBA_NCSNPP = Configuration(
    process="ve",
    network=NCSNpp(embedding="positional"),
    continuous=False,
    shape=(3, 64, 64),
    divided=True,
    sigma_max=90.0,
    predictor="reverse_diffusion",
    corrector="langevin",
    snr=0.17,
    reduce="half_sum",
    ema=0.999,
)

ROWS: dict[str, Row] = {
    "vp-cifar10-ddpm-unconditional": Row(
        "vp/ddpm/cifar10_unconditional", _ddpm(32, DDPM(time_conditional=False), 2e-4, 1_300_001, 128), CIFAR10
    ),
    "ve-celeba-ncsnpp": Row("ve/celeba_ncsnpp", _CELEBA_NCSNPP, CELEBA),
    "ve-bedroom-ncsnpp-continuous": Row("ve/bedroom_ncsnpp_continuous", _ve_256(378.0), LSUN_256),
    "ve-church-ncsnpp-continuous": Row("ve/church_ncsnpp_continuous", _ve_256(380.0), LSUN_256),
    "ve-ffhq256-ncsnpp-continuous": Row("ve/ffhq_256_ncsnpp_continuous", _ve_256(348.0), _records(256)),
    "ve-celebahq256-ncsnpp-continuous": Row("ve/celebahq_256_ncsnpp_continuous", _ve_256(348.0), _records(256)),
    "ve-ffhq-ncsnpp-continuous": Row("ve/ffhq_ncsnpp_continuous", _ve_1024(True), _records(1024)),
    "ve-celebahq-ncsnpp-continuous": Row("ve/celebahq_ncsnpp_continuous", _ve_1024(False), _records(1024)),
    "vp-bedroom-ddpm": Row("vp/ddpm/bedroom", _DDPM_256, LSUN_256),
    "vp-church-ddpm": Row("vp/ddpm/church", _DDPM_256, LSUN_256),
    "vp-celebahq256-ddpm": Row("vp/ddpm/celebahq", _DDPM_256, _records(256)),
    **_techniques("cifar10"),
    **_techniques("celeba"),
    "ve-cifar10-ncsnv2": Row("ve/ncsnv2/cifar10", _refine(NCSNv2(), 32, 50.0, 232, 5, 0.176, 0.999), CIFAR10),
    "ve-celeba-ncsnv2": Row("ve/ncsnv2/celeba", _refine(NCSNv2(), 64, 90.0, 500, 5, 0.128, 0.999), CELEBA),
    "ve-bedroom-ncsnv2": Row(
        "ve/ncsnv2/bedroom",
        _refine(NCSNv2(depth="deeper"), 128, 190.0, 1086, 3, 0.095, 0.9999, steps=2_400_001),
        LSUN_128,
    ),
}
"""Name -> row."""


def _recipe(name: str, row: Row) -> Callable[[], Experiment]:
    what = f"Song et al. (2021): configuration {row.file}, {row.configuration.shape[-1]} pixels."
    source = f"{PAPER}, configuration {row.file}"
    return as_recipe(
        name, what, lambda: row.configuration.experiment(name, data=row.data, source=source, paper=row.paper)
    )


RECIPES = {name: _recipe(name, row) for name, row in ROWS.items()}
"""Name -> function, one per row."""
