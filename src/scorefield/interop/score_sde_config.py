"""The configuration files of the SDE framework's release, PyTorch and JAX, as a `Configuration`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast

from scorefield.data import DataSource
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import CheckpointError
from scorefield.models.experiment import Adam
from scorefield.nets.network import NetworkConfig
from scorefield.nets.refinenets.ncsn import NCSN
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.recipes.sde_configuration import Configuration

_PROCESSES = {"vesde": "ve", "vpsde": "vp", "subvpsde": "subvp"}
_REFINE = {"ncsnv2_64": "base", "ncsnv2_128": "deeper", "ncsnv2_256": "deepest"}
_NAMES = ("ncsnpp", "ddpm", "ncsn", *_REFINE)


def configuration(config: Mapping[str, Any], process: Literal["ve", "vp", "subvp"] | None = None) -> Configuration:
    """Content of a configuration file of the release.

    Args:
        config: The configuration that `read_config` returns: sections training, sampling, data, model and optim.
        process: Family of the process, for files without `training.sde`.

    Raises:
        CheckpointError: A field is missing or means nothing, or the release has no such configuration.
    """
    fields = Fields(config)
    process = _process(fields, process)
    size = fields.count("data.image_size")
    colours = fields.count("data.num_channels", fields.count("data.channels", 3))
    network = _network(fields)
    usual = published_sampler(process, network, size, _continuous(fields))
    words, numbers = ((), ()) if usual is None else ((usual.predictor, usual.corrector), (usual.snr,))
    discrete_ve = process == "ve" and not _continuous(fields)
    method = fields.word("sampling.method", ("pc", "ode"), "pc")
    try:
        return Configuration(
            process=process,
            network=network,
            continuous=_continuous(fields),
            shape=(colours, size, size),
            divided=fields.flag("model.scale_by_sigma"),
            sigma_min=fields.number("model.sigma_min", 0.01),
            sigma_max=fields.number("model.sigma_max", 50.0),
            beta_min=fields.number("model.beta_min", 0.1),
            beta_max=fields.number("model.beta_max", 20.0),
            levels=fields.count("model.num_scales"),
            method="ode" if method == "ode" and not discrete_ve else "pc",
            predictor=cast(Any, fields.word("sampling.predictor", _PREDICTORS, *words[:1])),
            corrector=cast(Any, fields.word("sampling.corrector", ("langevin", "ald", "none"), *words[1:])),
            snr=fields.number("sampling.snr", *numbers),
            corrections=fields.whole("sampling.n_steps_each", 1),
            denoise=fields.flag("sampling.noise_removal", True),
            flow=fields.flag("sampling.probability_flow", False),
            reduce="mean" if fields.flag("training.reduce_mean", False) else "half_sum",
            likelihood_weighting=fields.flag("training.likelihood_weighting", False),
            optimiser=_optimiser(fields),
            ema=fields.number("model.ema_rate", 0.999),
            steps=fields.whole("training.n_iters", 1_300_001),
            batch_size=fields.whole("training.batch_size", 128),
            seed=fields.whole("seed", 42),
            checkpoint_every=fields.whole("training.snapshot_freq_for_preemption", 10_000),
            sample_every=fields.whole("training.snapshot_freq", 50_000),
        )
    except CheckpointError:
        raise  # which field, in the file's own words
    except ValueError as error:
        raise CheckpointError(f"this configuration cannot be imported: {error}") from None


_PREDICTORS = ("reverse_diffusion", "euler_maruyama", "ancestral_sampling", "none")
_SNR = ((32, 0.16), (64, 0.17), (256, 0.075))
"""Published signal-to-noise ratios of the corrector: images up to a size -> r."""


class PublishedSampler(NamedTuple):
    """Predictor, corrector and its r."""

    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral_sampling"]
    corrector: Literal["langevin", "none"]
    snr: float


def published_sampler(
    process: Literal["ve", "vp", "subvp"], network: NetworkConfig, size: int, continuous: bool
) -> PublishedSampler | None:
    """How U-Nets of that kind are sampled in the published configurations; None for other networks.

    Args:
        process: Family of the SDE.
        network: Configuration of the network.
        size: Height and width of its images.
        continuous: Trained with continuous times.
    """
    if not isinstance(network, NCSNpp | DDPM):
        return None
    snr = next((r for limit, r in _SNR if size <= limit), 0.15)
    if process == "ve":
        return PublishedSampler("reverse_diffusion", "langevin", snr)
    if continuous:
        return PublishedSampler("euler_maruyama", "none", snr)
    filtered = isinstance(network, NCSNpp) and network.fir
    return PublishedSampler("reverse_diffusion" if filtered else "ancestral_sampling", "none", snr)


def _process(fields: Fields, hint: Literal["ve", "vp", "subvp"] | None) -> Literal["ve", "vp", "subvp"]:
    if hint is not None and not fields.has("training.sde"):
        return hint
    return cast(Any, _PROCESSES[fields.word("training.sde", tuple(_PROCESSES))])


def _continuous(fields: Fields) -> bool:
    # The published configuration ve/ncsnv2/bedroom sets it under a misspelt name.
    return fields.flag("training.continuous", True) and fields.flag("training.continuouse", True)


def _optimiser(fields: Fields) -> Adam:
    fields.word("optim.optimizer", ("adam",), "adam")
    clip = fields.number("optim.grad_clip", 1.0)
    return Adam(
        learning_rate=fields.number("optim.lr", 2e-4),
        beta1=fields.number("optim.beta1", 0.9),
        eps=fields.number("optim.eps", 1e-8),
        weight_decay=fields.number("optim.weight_decay", 0.0),
        warmup=fields.whole("optim.warmup", 5000),
        clip=clip if clip >= 0 else None,
    )


def _network(fields: Fields) -> NCSNpp | DDPM | NCSN | NCSNv2:
    name = fields.word("model.name", _NAMES)
    activation = cast(Any, fields.word("model.nonlinearity", ("swish", "elu", "relu", "lrelu"), "swish"))
    centered, channels = fields.flag("data.centered"), fields.count("model.nf")
    if name in _REFINE:
        return NCSNv2(channels, cast(Any, _REFINE[name]), activation=activation, centered=centered)
    if name == "ncsn":
        return NCSN(channels, fields.count("model.num_scales"), activation=activation, centered=centered)
    plain = DDPM(
        channels=channels,
        channel_multipliers=tuple(int(m) for m in fields.numbers("model.ch_mult")),
        blocks=fields.count("model.num_res_blocks"),
        attention_sizes=tuple(int(n) for n in fields.numbers("model.attn_resolutions")),
        dropout=fields.number("model.dropout"),
        resample_with_conv=fields.flag("model.resamp_with_conv"),
        time_conditional=fields.flag("model.conditional"),
        activation=activation,
        centered=centered,
    )
    if name == "ddpm":
        return plain
    return NCSNpp(
        **vars(plain),  # NCSN++ has every choice of DDPM, and more
        fir=fields.flag("model.fir"),
        fir_kernel=fields.numbers("model.fir_kernel", (1.0, 3.0, 3.0, 1.0)),
        skip_rescale=fields.flag("model.skip_rescale"),
        block=cast(Any, fields.word("model.resblock_type", ("biggan", "ddpm"))),
        progressive=cast(Any, fields.word("model.progressive", ("none", "output_skip", "residual"))),
        progressive_input=cast(Any, fields.word("model.progressive_input", ("none", "input_skip", "residual"))),
        progressive_combine=cast(Any, fields.word("model.progressive_combine", ("sum", "cat"), "sum")),
        embedding=cast(Any, fields.word("model.embedding_type", ("fourier", "positional"))),
        fourier_scale=fields.number("model.fourier_scale", 16.0),
        init_scale=fields.number("model.init_scale", 0.0),
    )


def data_source(config: Mapping[str, Any]) -> DataSource:
    """Where the release's images are to be found and how it prepares them; the path is the user's to give."""
    fields = Fields(config)
    dataset, size = fields.text("data.dataset", "").lower(), fields.whole("data.image_size")
    source = DataSource(flip=fields.flag("data.random_flip", True))
    if dataset == "celeba":
        return replace(source, crop=(140, 140), size=size, resample="bilinear")
    if dataset == "lsun" and size != 128:
        return replace(source, crop="center", size=size, resample="bicubic")
    if dataset in ("ffhq", "celebahq"):  # trained and evaluated on all images
        return replace(source, size=size, held_out=0)
    return source if size == 32 else replace(source, size=size, resample="bilinear")


def experiment_name(run: Configuration, dataset: str) -> str:
    """After the release's configuration files, as the recipes: process, data, network, continuous."""
    network = type(run.network).__name__.lower()
    if isinstance(run.network, NCSNpp):
        plain = not run.network.fir and run.network.progressive_input == "none"
        network = "ddpmpp" if plain else "ncsnpp"
    return f"{run.process}-{dataset}-{network}{'-continuous' if run.continuous else ''}"
