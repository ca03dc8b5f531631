"""The CIFAR-10 configurations of Song et al. (2021) at full size, row by row of their tables.

`sde_configuration` makes experiments of them, and says where their samplers are not the release's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from scorefield.models.experiment import Experiment
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.recipes.ladders import as_recipe
from scorefield.recipes.sde_configuration import PAPER, Configuration


class Row(NamedTuple):
    """One published configuration.

    Args:
        process: "ve", "vp" or "subvp".
        network: "ddpm", "ddpmpp" (DDPM++) or "ncsnpp" (NCSN++).
        continuous: Trained with continuous times.
        deep: Eight blocks per level in place of four.
        paper: Published numbers.
    """

    process: Literal["ve", "vp", "subvp"]
    network: Literal["ddpm", "ddpmpp", "ncsnpp"]
    continuous: bool
    deep: bool
    paper: dict[str, float] | None

    @property
    def name(self) -> str:
        """Name of the recipe, after the release's configuration file."""
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


def _network(row: Row) -> NCSNpp | DDPM:
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


def _configuration(row: Row) -> Configuration:
    """Content of the release's configuration file of a row."""
    ve = row.process == "ve"
    if ve:
        predictor, corrector = "reverse_diffusion", "langevin"
    elif row.continuous:
        predictor, corrector = "euler_maruyama", "none"
    else:
        predictor, corrector = "reverse_diffusion" if row.network == "ncsnpp" else "ancestral_sampling", "none"
    return Configuration(
        process=row.process,
        network=_network(row),
        continuous=row.continuous,
        divided=ve,
        predictor=predictor,
        corrector=corrector,
        reduce="half_sum" if ve else "mean",
        ema=0.999 if ve else 0.9999,
        steps=950_001 if row.deep else 1_300_001,
    )


def _build(row: Row) -> Experiment:
    file = row.name.split("-", 1)[1].replace("-", "_")
    if row.process == "vp" and row.network == "ddpm":  # the release keeps its DDPM runs in a folder of their own
        file = "ddpm/" + file.replace("cifar10_ddpm", "cifar10")
    source = f"{PAPER}, configuration {row.process}/{file}"
    return _configuration(row).experiment(row.name, source=source, paper=row.paper)


def _recipe(row: Row) -> Callable[[], Experiment]:
    process = {"ve": "VE", "vp": "VP", "subvp": "sub-VP"}[row.process]
    network = {"ddpm": "DDPM", "ddpmpp": "DDPM++", "ncsnpp": "NCSN++"}[row.network] + (" (deep)" if row.deep else "")
    kind = f"{network} under {process}, {'continuous' if row.continuous else 'discrete'} times"
    return as_recipe(row.name, f"Song et al. (2021), CIFAR-10: {kind}.", lambda: _build(row))


RECIPES = {row.name: _recipe(row) for row in ROWS}
"""Name -> function, one per row."""
