"""Checkpoints of the SDE framework's PyTorch release as models, and what is said of files that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import scorefield as sf
from goldens import SCORE_SDE, golden
from interop.sde_files import GOLDEN, PUBLISHED, configured, made, published_state, release_file, table, written
from nets import published_nets as published
from scorefield.interop import CheckpointError, Hints, import_checkpoint, score_sde
from scorefield.interop.score_sde_config import configuration, data_source, experiment_name
from scorefield.interop.score_sde_shapes import network_of
from scorefield.losses import DenoisingScoreMatching, Likelihood
from scorefield.models.experiment import Experiment
from scorefield.nets import DDPM, NCSN, NCSNpp, NCSNv2, Network, NetworkConfig, load_published, published_order
from scorefield.recipes import recipe
from scorefield.sampling import (
    AdaptiveFlow,
    Ancestral,
    Chain,
    EulerMaruyama,
    FlowEuler,
    Langevin,
    NoiseScaled,
    NormRatio,
    Repeat,
    ReverseDiffusion,
)
from scorefield.score import LevelLabel, LogScaledTime, LogSigma, NoiseForm, ScaledScoreForm, ScaledTime, ScoreForm
from tolerance import GOLDEN_SCORE

SMALL = {"model__nf": 8, "model__ch_mult": [1, 2], "model__num_res_blocks": 1, "data__image_size": 8}


def experiment(**changes: Any) -> Experiment:
    config = configured(**changes)
    run = configuration(config)
    return run.experiment(experiment_name(run, "cifar10"), data=data_source(config))


def objective(**changes: Any) -> DenoisingScoreMatching:
    found = experiment(**changes).objective
    assert isinstance(found, DenoisingScoreMatching)
    return found


# ---------------------------------------------------------------------------------------------- goldens


def hints(config: dict[str, Any]) -> Hints:
    """What the tensors of a golden do not tell."""
    process = config["training"]["sde"].removesuffix("sde")
    discrete = not config["training"]["continuous"]
    return Hints(size=config["data"]["image_size"], process=process, discrete=discrete)


@pytest.mark.parametrize("with_config", [True, False], ids=["configured", "inferred"])
@pytest.mark.parametrize("name", SCORE_SDE)
def test_goldens(name: str, with_config: bool, tmp_path: Path) -> None:
    g = golden(name)
    import_checkpoint(
        "score-sde",
        g.folder / "checkpoint.pth",
        tmp_path / "model",
        config=g.folder / "config.json" if with_config else None,
        hints=Hints() if with_config else hints(g.config),
    )
    model = sf.load(tmp_path / "model")
    found = model.score(g.io["xt"], g.io["t"])
    assert (found - g.io["score"]).abs().max() <= GOLDEN_SCORE * g.io["score"].abs().max()

    made = model.experiment
    ve, continuous = g.config["training"]["sde"] == "vesde", g.config["training"]["continuous"]
    assert made.process == g.process
    assert made.network == published.network_of_release(g.config).config or isinstance(made.network, DDPM)
    assert made.form == (ScaledScoreForm() if ve else NoiseForm())
    label = LevelLabel(descending=ve, between="linear")
    assert made.time_input == ((LogSigma() if ve else ScaledTime(999.0)) if continuous else label)
    assert model.data.model_range == ((0.0, 1.0) if ve else (-1.0, 1.0))
    assert (model.data.low, model.data.high, model.data.levels, model.data.shape) == (0, 255, 256, (3, 16, 16))
    predictor = {"ve": ReverseDiffusion(), "vp": EulerMaruyama() if continuous else Ancestral(variance="forward")}
    assert made.sampler.step.parts()[-1] == predictor.get(g.config["training"]["sde"][:2], EulerMaruyama())
    assert model.weights == f"ema:{g.config['model']['ema_rate']:g}" and model.step == 1234
    assert "SHA-256" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("name", SCORE_SDE)
def test_what_is_told_without_a_configuration_is_what_the_configuration_says(name: str) -> None:
    g = golden(name)
    checkpoint = g.folder / "checkpoint.pth"
    told = score_sde.read(checkpoint, None, None, hints(g.config)).experiment
    said = score_sde.read(checkpoint, g.folder / "config.json", None, Hints()).experiment
    assert told.network == said.network
    assert (told.process, told.levels, told.form, told.time_input) == (
        said.process,
        said.levels,
        said.form,
        said.time_input,
    )
    assert (told.spec, told.objective, told.averaging) == (
        said.spec,
        DenoisingScoreMatching(
            reduce="half_sum" if g.config["training"]["sde"] == "vesde" else "mean", levels=said.levels
        ),
        said.averaging,
    )


def test_raw_weights(tmp_path: Path) -> None:
    g = golden("ncsnpp_ve_continuous")
    found = score_sde.read(g.folder / "checkpoint.pth", g.folder / "config.json", "raw", Hints())
    content = torch.load(g.folder / "checkpoint.pth", weights_only=True)
    net = published.network_of_release(g.config)
    load_published(net, [value for name, value in content["model"].items() if not name.endswith("sigmas")])
    assert found.weights == "raw"
    for name, value in net.state_dict().items():
        assert torch.equal(found.tensors[name], value)
    ema = score_sde.read(g.folder / "checkpoint.pth", g.folder / "config.json", None, Hints())
    assert not torch.equal(ema.tensors["conv_in.weight"], found.tensors["conv_in.weight"])
    assert torch.equal(ema.tensors["time.fourier.W"], found.tensors["time.fourier.W"])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_bare_state_dictionary_is_raw(prefix: str, tmp_path: Path) -> None:
    """As conversions for other libraries keep it: no table of noise levels, no prefix."""
    config = configured(**SMALL)
    net = made(configuration(config).network, 8)
    state = {f"{prefix}{name}": value for name, value in published_state(net).items()}
    checkpoint, file = written(tmp_path, state, config)
    found = score_sde.read(checkpoint, file, None, Hints())
    assert found.weights == "raw" and found.step is None
    assert all(torch.equal(found.tensors[name], value) for name, value in net.state_dict().items())
    with pytest.raises(CheckpointError, match="--weights raw"):
        score_sde.read(checkpoint, file, "ema", Hints())
    flags = Hints(size=8, sigma_min=0.01, sigma_max=50.0, levels=1000)
    assert score_sde.read(checkpoint, None, None, flags).experiment.network == found.experiment.network
    with pytest.raises(CheckpointError, match=r"--size VALUE --sigma-min VALUE --sigma-max VALUE --levels VALUE"):
        score_sde.read(checkpoint, None, None, Hints())


def test_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors are views of the file, transposed ones among them."""
    g = golden("ncsnpp_ve_continuous")
    content = torch.load(g.folder / "checkpoint.pth", weights_only=True, mmap=True)
    monkeypatch.setattr(score_sde, "read_torch", lambda path: content)
    found = score_sde.read(g.folder / "checkpoint.pth", g.folder / "config.json", None, Hints())
    held = {v.untyped_storage().data_ptr() for v in [*content["model"].values(), *content["ema"]["shadow_params"]]}
    assert {value.untyped_storage().data_ptr() for value in found.tensors.values()} <= held
    assert any(not value.is_contiguous() for value in found.tensors.values())


# ---------------------------------------------------------------------------------------------- networks by shape

LAYOUTS: dict[str, tuple[NCSNpp | DDPM, int]] = {
    "a": (published.DDPM_CIFAR10, 32),
    "a, VE": (published.DDPM_CIFAR10_VE, 32),
    "b": (published.DDPM_CHURCH, 256),
    "c": (published.VE_CIFAR10, 32),
    "d": (published.VE_CIFAR10_DEEP, 32),
    "e": (published.VP_CIFAR10_NCSNPP, 32),
    "e, VE": (published.VE_CIFAR10_DISCRETE, 32),
    "f": (published.DDPMPP, 32),
    "g": (published.DDPMPP_DEEP, 32),
    "h": (published.CHURCH, 256),
    "i": (published.FFHQ, 1024),
}


def shapes(config: NetworkConfig, size: int, colours: int = 3) -> dict[str, tuple[int, ...]]:
    data = replace(published.images(size), shape=(colours, size, size))
    with torch.device("meta"):
        net = config.build(data)
    return {p.release: p.shape for p in published_order(net)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_networks_are_told_by_their_tensors(layout: str) -> None:
    """But for dropout, which has none."""
    config, size = LAYOUTS[layout]
    found = network_of(shapes(config, size), size, centered=config.centered)
    assert replace(found.network, dropout=config.dropout) == config and found.colours == 3


CHOICES: tuple[tuple[Literal["fourier", "positional"], bool, bool], ...] = (
    ("fourier", True, True),
    ("positional", False, False),
)


@pytest.mark.parametrize("block", ["biggan", "ddpm"])
@pytest.mark.parametrize("progressive", ["none", "output_skip", "residual"])
@pytest.mark.parametrize("progressive_input", ["none", "input_skip", "residual"])
def test_other_flags_are_told_by_their_tensors(block, progressive, progressive_input) -> None:
    """Up to what tensors do not show: the network told has the same ones."""
    for embedding, fir, learned in CHOICES:
        config = NCSNpp(
            channels=8,
            channel_multipliers=(2, 1, 2),
            blocks=1,
            attention_sizes=(32, 8),
            dropout=0.0,
            block=block,
            progressive=progressive,
            progressive_input=progressive_input,
            progressive_combine="cat" if fir else "sum",
            embedding=embedding,
            fir=fir,
            resample_with_conv=learned,
        )
        theirs = shapes(config, 32, colours=1)
        found = network_of(theirs, 32, centered=False)
        assert shapes(found.network, 32, colours=1) == theirs and found.colours == 1
        if isinstance(found.network, NCSNpp):
            shown = ("block", "progressive", "progressive_input", "embedding", "attention_sizes")
            assert all(getattr(found.network, name) == getattr(config, name) for name in shown)


def test_an_unconditional_network_keeps_frequencies_that_nothing_reads(tmp_path: Path) -> None:
    config = configured(**SMALL, model__conditional=False)
    net = made(configuration(config).network, 8)
    state = {"all_modules.0.W": torch.randn(8)} | published_state(net)
    checkpoint, file = written(tmp_path, release_file(state, config), config)
    found = import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=file)
    assert all(torch.equal(found.tensors[name], value) for name, value in net.state_dict().items())
    assert "time.fourier.W" not in found.tensors
    told = score_sde.read(checkpoint, None, None, Hints(size=8)).experiment.network
    assert told == replace(configuration(config).network, dropout=0.0)


# ---------------------------------------------------------------------------------------------- configurations


def test_the_published_configuration_is_the_recipe() -> None:
    full = {"model__nf": 128, "model__ch_mult": [1, 2, 2, 2], "model__num_res_blocks": 4, "model__dropout": 0.1}
    found = experiment(**full, model__attn_resolutions=[16], data__image_size=32)
    known = recipe("ve-cifar10-ncsnpp-continuous")
    assert replace(found, source=known.source, paper=known.paper) == known


VP = {"training__sde": "vpsde", "data__centered": True, "model__scale_by_sigma": False, "sampling__corrector": "none"}
VP |= {"model__embedding_type": "positional", "sampling__predictor": "euler_maruyama", "training__reduce_mean": True}
DISCRETE = {"training__continuous": False, "model__embedding_type": "positional"}


def test_samplers() -> None:
    chain = experiment(sampling__n_steps_each=3, sampling__corrector="ald").sampler.step
    assert chain == Chain((Repeat(Langevin(NoiseScaled(0.16)), 3), ReverseDiffusion()))
    assert experiment(sampling__snr=0.3).sampler.step == Chain((Langevin(NormRatio(0.3)), ReverseDiffusion()))
    assert experiment(**VP, sampling__probability_flow=True).sampler.step == FlowEuler()
    flow = {**VP, "sampling__probability_flow": True, "sampling__predictor": "reverse_diffusion"}
    assert experiment(**flow).sampler.step == ReverseDiffusion(flow=True)
    assert experiment(**VP, sampling__noise_removal=False).sampler.final == "none"
    assert experiment(**VP, sampling__method="ode").sampler.step == AdaptiveFlow()
    discrete = experiment(**{**VP, **DISCRETE, "sampling__predictor": "ancestral_sampling"})
    assert discrete.sampler.step == Ancestral(variance="forward") and discrete.sampler.process == discrete.levels
    assert experiment(**DISCRETE, sampling__predictor="ancestral_sampling").sampler.step == Chain(
        (Langevin(NormRatio(0.16)), Ancestral())
    )


def test_objectives_forms_and_labels() -> None:
    likelihood = objective(**VP, training__likelihood_weighting=True)
    assert likelihood.weighting == Likelihood() and likelihood.reduce == "mean"
    assert experiment(model__scale_by_sigma=False).form == ScoreForm()
    assert experiment(**DISCRETE).time_input == LevelLabel(descending=True)
    assert experiment(**DISCRETE).levels == objective(**DISCRETE).levels is not None
    assert experiment(**{**VP, "model__embedding_type": "fourier"}).time_input == LogScaledTime(999.0)
    optim = experiment(optim__grad_clip=-1, optim__warmup=0, optim__lr=1e-3).optimiser
    assert (optim.clip, optim.warmup, optim.learning_rate) == (None, 0, 1e-3)
    training = experiment(training__n_iters=7, training__batch_size=3, model__ema_rate=0.5)
    assert (training.training.steps, training.training.batch_size, training.averaging.decays) == (7, 3, (0.5,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampling__predictor": "ancestral"}, "Did you mean ancestral_sampling"),
        ({"sampling__corrector": "mala"}, "sampling.corrector is 'mala'"),
        ({"training__sde": "edm"}, "training.sde is 'edm'"),
        ({"model__name": "ncsn++"}, "Did you mean .*ncsnpp"),
        ({"model__nf": "many"}, "model.nf must be a number"),
        ({"model__nf": 8.5}, "model.nf must be a whole number"),
        ({"model__fir": "yes"}, "model.fir must be true or false"),
        ({"model__ch_mult": "1222"}, "model.ch_mult must be a list of numbers"),
        ({"optim__optimizer": "SGD"}, "optim.optimizer is 'SGD'"),
        ({"training__continuous": False}, "Fourier embeddings take a noise level"),
        ({"model__embedding_type": "positional"}, "only a Fourier embedding takes the sigma"),
        ({**VP, "model__scale_by_sigma": True}, "predict the noise itself"),
        ({**VP, "training__sde": "subvpsde", "training__continuous": False}, "sub-VP has no discrete levels"),
        ({**VP, **DISCRETE, "training__likelihood_weighting": True}, "likelihood weighting is for continuous"),
        ({"sampling__predictor": "none", "sampling__probability_flow": True}, "no probability flow of"),
    ],
)
def test_configurations_that_mean_nothing(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        experiment(**changes)


def test_a_configuration_without_a_field_names_it() -> None:
    config = configured()
    del config["model"]["num_scales"]
    with pytest.raises(CheckpointError, match="no field model.num_scales"):
        configuration(config)


@pytest.mark.parametrize(
    ("dataset", "size", "said"),
    [
        ("CELEBA", 64, {"crop": (140, 140), "size": 64, "resample": "bilinear"}),
        ("LSUN", 256, {"crop": "center", "size": 256, "resample": "bicubic"}),
        ("LSUN", 128, {"crop": None, "size": 128, "resample": "bilinear"}),
        ("FFHQ", 1024, {"size": 1024, "held_out": 0}),
        ("CIFAR10", 32, {"size": None, "flip": True}),
    ],
)
def test_data_are_prepared_as_in_the_release(dataset: str, size: int, said: dict[str, Any]) -> None:
    source = data_source(configured(data__dataset=dataset, data__image_size=size))
    assert {name: getattr(source, name) for name in said} == said


SAMPLED: dict[str, dict[str, Any]] = {
    "ve": {},
    "ve, ald": {"sampling__predictor": "none", "sampling__corrector": "ald", "sampling__n_steps_each": 2},
    "ve, discrete": DISCRETE,
    "ve, discrete, ald": {**DISCRETE, "sampling__predictor": "none", "sampling__corrector": "ald"},
    "ve, discrete, em": {**DISCRETE, "sampling__predictor": "euler_maruyama"},
    "ve, not divided": {**DISCRETE, "model__scale_by_sigma": False},
    "vp": VP,
    "vp, fourier": {**VP, "model__embedding_type": "fourier"},
    "vp, discrete": {**VP, **DISCRETE, "sampling__predictor": "ancestral_sampling"},
    "vp, discrete, em": {**VP, **DISCRETE},
    "vp, discrete, ode": {**VP, **DISCRETE, "sampling__method": "ode"},
    "vp, discrete, langevin": {**VP, **DISCRETE, "sampling__corrector": "langevin"},
    "subvp, langevin": {**VP, "training__sde": "subvpsde", "sampling__corrector": "langevin"},
}


SLOW = {"ve, ald", "ve, discrete, em", "vp, discrete, ode", "vp, discrete, langevin", "vp, fourier", "ve, not divided"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in SAMPLED])
def test_every_sampler_runs(case: str, tmp_path: Path) -> None:
    """Imported from a file, by the sampler that its configuration names."""
    config = configured(
        **{**SMALL, "model__beta_max": 2, "model__sigma_max": 2, "model__num_scales": 4, **SAMPLED[case]}
    )
    net = made(configuration(config).network, 8)
    checkpoint, file = written(tmp_path, release_file(published_state(net), config), config)
    import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=file)
    samples = sf.load(tmp_path / "model").sample(1)
    assert bool(samples.x.isfinite().all()) and int(samples.status.max()) == 0


# ---------------------------------------------------------------------------------------------- RefineNets

NCSN_RUN = {
    "training__continuous": False,
    "sampling__predictor": "none",
    "sampling__corrector": "ald",
    "model__nf": 8,
    "model__nonlinearity": "elu",
    "model__num_scales": 10,
    "data__image_size": 8,
}


@pytest.mark.parametrize(
    ("name", "network", "form"),
    [
        ("ncsnv2_64", NCSNv2(8), ScaledScoreForm()),
        pytest.param("ncsnv2_128", NCSNv2(8, "deeper"), ScaledScoreForm(), marks=pytest.mark.slow),
        pytest.param("ncsnv2_256", NCSNv2(8, "deepest"), ScaledScoreForm(), marks=pytest.mark.slow),
        ("ncsn", NCSN(8, levels=10), ScoreForm()),
    ],
)
def test_refine_nets_of_this_release(name: str, network: NetworkConfig, form: Any, tmp_path: Path) -> None:
    config = configured(**NCSN_RUN, model__name=name, model__scale_by_sigma=name != "ncsn")
    net = made(network, 8)
    checkpoint, file = written(tmp_path, release_file(dict(net.state_dict()), config), config)
    import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=file)
    model = sf.load(tmp_path / "model")
    assert model.experiment.network == network and model.experiment.form == form
    x, label = torch.rand(2, 3, 8, 8), torch.tensor([9.0, 2.0])
    sigma = table(config)[label.long()].float()[:, None, None, None] if name != "ncsn" else 1.0
    with torch.no_grad():
        expected = net(x, label) / sigma
    for found, known in zip(model.score(x, 1.0 - label / 9.0), expected, strict=True):
        assert (found - known).abs().max() <= GOLDEN_SCORE * known.abs().max()
    with pytest.raises(CheckpointError, match="give their configuration with"):
        score_sde.read(checkpoint, None, None, Hints(size=8))


# ---------------------------------------------------------------------------------------------- bad input


def small() -> tuple[Network, dict[str, Any], dict[str, Any]]:
    config = configured(**SMALL)
    net = made(configuration(config).network, 8)
    return net, release_file(published_state(net), config), config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__num_res_blocks": 2}, ["blocks: configuration 2, checkpoint 1", "all_modules."]),
        ({"model__nf": 16}, ["shape of all_modules.1.weight: checkpoint (32, 16), network (64, 32)", "channels:"]),
        ({"model__attn_resolutions": [4]}, ["attention_sizes: configuration (4,), checkpoint (8,)"]),
        ({"model__progressive_input": "none"}, ["progressive_input: configuration none, checkpoint residual"]),
        ({"model__resblock_type": "ddpm"}, ["block: configuration ddpm, checkpoint biggan"]),
        ({"model__name": "ddpm", **DISCRETE}, ["embedding: configuration positional, checkpoint fourier"]),
        ({"data__num_channels": 1}, ["channels of an image: configuration 1, checkpoint 3"]),
        ({"model__sigma_max": 90}, ["1000 from 0.01 to 50", "1000 from 0.01 to 90"]),
        ({"model__num_scales": 2000}, ["1000 from 0.01 to 50", "2000 from 0.01 to 50"]),
    ],
)
def test_a_wrong_configuration_is_told_tensor_by_tensor(changes: dict, said: list[str], tmp_path: Path) -> None:
    _, content, config = small()
    for path, value in changes.items():
        section, _, name = path.partition("__")
        config[section][name] = value
    checkpoint, file = written(tmp_path, content, config)
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=file)
    assert all(part in str(caught.value) for part in said), str(caught.value)
    assert not (tmp_path / "model").exists()


def _drop_average(content: dict[str, Any]) -> None:
    del content["ema"]


def _empty_average(content: dict[str, Any]) -> None:
    content["ema"]["shadow_params"] = []


def _short_average(content: dict[str, Any]) -> None:
    content["ema"]["shadow_params"].pop()


def _disordered_average(content: dict[str, Any]) -> None:
    content["ema"]["shadow_params"].reverse()


def _odd_model(content: dict[str, Any]) -> None:
    content["model"]["module.all_modules.3.bias"] = 7


def _other_model(content: dict[str, Any]) -> None:
    content["model"] = {"module.layer.weight": torch.zeros(2)}


def _missing_tensor(content: dict[str, Any]) -> None:
    del content["model"]["module.all_modules.3.bias"]
    del content["ema"]["shadow_params"][5]


def _not_finite(content: dict[str, Any]) -> None:
    content["ema"]["shadow_params"][5] = torch.full_like(content["ema"]["shadow_params"][5], float("nan"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_drop_average, "holds no averaged weights .* --weights raw"),
        (_empty_average, "holds no averaged weights .* --weights raw"),
        (_short_average, r"list of \d+ tensors without names, and the model beside it trains \d+"),
        (_disordered_average, r"shapes differ, in the order of the list:\n  all_modules.1.weight: average \(3,\)"),
        (_odd_model, "holds module.all_modules.3.bias, which is no tensor"),
        (_other_model, "is no network of the score-sde release"),
        (_missing_tensor, "missing in the checkpoint: all_modules.3.bias"),
        (_not_finite, "not finite in conv_in.bias"),
    ],
)
def test_bad_checkpoints(spoil, said: str, tmp_path: Path) -> None:
    _, content, config = small()
    spoil(content)
    checkpoint, file = written(tmp_path, content, config)
    with pytest.raises(CheckpointError, match=said):
        import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=file)
    assert not (tmp_path / "model").exists()


def test_without_an_average_the_raw_weights_remain(tmp_path: Path) -> None:
    _, content, config = small()
    _drop_average(content)
    checkpoint, file = written(tmp_path, content, config)
    found = score_sde.read(checkpoint, file, "raw", Hints())
    assert torch.equal(found.tensors["conv_in.bias"], content["model"]["module.all_modules.3.bias"])


def test_truncated(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pth"
    checkpoint.write_bytes((GOLDEN / "ncsnpp_ve_continuous" / "checkpoint.pth").read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        score_sde.read(checkpoint, None, None, Hints())


def test_another_layout(tmp_path: Path) -> None:
    content = [{"module.refine1.adapt_convs.0.1_1_conv.weight": torch.zeros(2)}, {}]
    checkpoint, _ = written(tmp_path, content)
    with pytest.raises(CheckpointError, match="scorefield import ncsn CHECKPOINT"):
        score_sde.read(checkpoint, None, None, Hints())


def test_flags_may_repeat_the_configuration_but_not_contradict_it(tmp_path: Path) -> None:
    _, content, config = small()
    checkpoint, file = written(tmp_path, content, config)
    same = Hints(size=8, process="ve", discrete=False, levels=1000, sigma_max=50.0)
    import_checkpoint("score-sde", checkpoint, tmp_path / "model", config=file, hints=same)
    for wrong in (Hints(size=16), Hints(process="vp"), Hints(discrete=True), Hints(levels=10), Hints(sigma_max=5.0)):
        with pytest.raises(CheckpointError, match="contradicts"):
            import_checkpoint("score-sde", checkpoint, tmp_path / "out", config=file, hints=wrong)
    with pytest.raises(CheckpointError, match="belongs to another checkpoint"):
        score_sde.read(checkpoint, None, None, Hints(size=8, sigma_max=5.0))


def test_a_file_without_the_sde_takes_the_flag() -> None:
    """The published ve/ncsn/celeba sets no training.sde."""
    config = configured()
    del config["training"]["sde"]
    assert configuration(config, "ve").process == "ve"
    with pytest.raises(CheckpointError, match="no field training.sde"):
        configuration(config)


def test_a_list_that_is_no_u_net() -> None:
    with pytest.raises(CheckpointError, match="at 1 stands norm where conv should"):
        network_of({"all_modules.0.W": (4,), "all_modules.1.weight": (4,)}, 8, centered=False)
    with pytest.raises(CheckpointError, match="module 0 of the checkpoint's list holds odd"):
        network_of({"all_modules.0.odd": (4,)}, 8, centered=False)


def test_yaml_configurations(tmp_path: Path) -> None:
    """As ml_collections writes them, with tuples; numbers like 1e-8 are text to YAML."""
    import yaml

    g = golden("ncsnpp_ve_continuous")
    config = {**PUBLISHED, "model": {**PUBLISHED["model"], "ch_mult": (1, 2)}}
    text = yaml.dump(config).replace("eps: 1.0e-08", "eps: 1e-8")
    assert "!!python/tuple" in text and "1e-8" in text
    (tmp_path / "config.yml").write_text(text)
    found = score_sde.read(g.folder / "checkpoint.pth", tmp_path / "config.yml", None, Hints()).experiment
    known = score_sde.read(g.folder / "checkpoint.pth", g.folder / "config.json", None, Hints()).experiment
    assert replace(found, source=None) == replace(known, source=None)
