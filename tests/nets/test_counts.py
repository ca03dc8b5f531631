"""Tensor and parameter counts of the published configurations, on the meta device."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from nets import published_nets as published
from scorefield.data_spec import DataSpec
from scorefield.nets import (
    MLP,
    NCSN,
    ACSMUNet,
    BigGANCritic,
    EnergyResNet,
    NCSNpp,
    NCSNv2,
    NetworkConfig,
    ResScore,
    published_order,
)

COUNTS = {
    "ddpm cifar10": (published.DDPM_CIFAR10, 32, 308, 308, 35_218_947),
    "ddpm church": (published.DDPM_CHURCH, 256, 430, 430, 111_569_923),
    "ncsnpp cifar10 continuous": (published.VE_CIFAR10, 32, 571, 570, 62_758_915),
    "ncsnpp cifar10 deep continuous": (published.VE_CIFAR10_DEEP, 32, 963, 962, 107_587_075),
    "ncsnpp cifar10 positional": (published.VP_CIFAR10_NCSNPP, 32, 570, 570, 62_693_251),
    "ncsnpp cifar10 positional, deep": (
        type(published.VE_CIFAR10)(embedding="positional", blocks=8),
        32,
        962,
        962,
        107_521_411,
    ),
    "ddpmpp": (published.DDPMPP, 32, 564, 564, 61_804_419),
    "ddpmpp deep": (published.DDPMPP_DEEP, 32, 956, 956, 106_632_579),
    "ncsnpp church 256": (published.CHURCH, 256, 645, 644, 65_574_549),
    "ncsnpp ffhq 1024": (published.FFHQ, 1024, 553, 552, 105_785_896),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name: str) -> None:
    config, size, tensors, trainable, parameters = COUNTS[name]
    assert isinstance(config, NetworkConfig)
    data = published.images(size)
    with torch.device("meta"):
        net = config.build(data)
    order = published_order(net)
    assert len(order) == len(list(net.parameters())) == tensors
    assert sum(p.trainable for p in order) == trainable
    assert sum(p.parameter.numel() for p in order) == parameters


CHOICES: tuple[tuple[Literal["fourier", "positional"], bool, bool], ...] = (
    ("fourier", True, True),
    ("positional", False, True),
    ("fourier", False, False),
)


@pytest.mark.parametrize("block", ["biggan", "ddpm"])
@pytest.mark.parametrize("progressive", ["none", "output_skip", "residual"])
@pytest.mark.parametrize("progressive_input", ["none", "input_skip", "residual"])
@pytest.mark.parametrize("fir", [True, False])
def test_every_flag_keeps_the_published_order(block, progressive, progressive_input, fir) -> None:
    data = published.images(32)
    for embedding, told, learned in CHOICES:
        config = NCSNpp(
            channels=8,
            channel_multipliers=(1, 2, 2),
            blocks=1,
            block=block,
            progressive=progressive,
            progressive_input=progressive_input,
            progressive_combine="cat" if fir else "sum",
            fir=fir,
            embedding=embedding,
            time_conditional=told,
            resample_with_conv=learned,
        )
        with torch.device("meta"):
            net = config.build(data)
        order = published_order(net)
        assert [p.name for p in order] == [name for name, _ in net.named_parameters()]
        assert len({p.release for p in order}) == len(order)


def test_names_of_the_release() -> None:
    """Against the table of the published NCSN++ for 256 pixels."""
    data = published.images(256)
    with torch.device("meta"):
        order = {p.release: p for p in published_order(published.CHURCH.build(data))}
    for name, shape in {
        "all_modules.0.W": (128,),
        "all_modules.7.Conv_0.weight": (128, 3, 1, 1),
        "all_modules.21.NIN_0.W": (256, 256),
        "all_modules.52.weight": (3, 256, 3, 3),
        "all_modules.66.Conv_2.weight": (128, 384, 1, 1),
        "all_modules.76.bias": (3,),
    }.items():
        assert order[name].shape == shape
    assert order["all_modules.21.NIN_0.W"].name == "down.4.stages.0.attention.query.weight"
    assert order["all_modules.21.NIN_0.W"].transposed


def test_fourier_frequencies_come_first_and_are_not_trained() -> None:
    data = published.images(32)
    with torch.device("meta"):
        order = published_order(published.VE_CIFAR10.build(data))
    assert order[0].name == "time.fourier.W" and not order[0].trainable
    assert tuple(order[1].parameter.shape) == (512, 256)
    assert tuple(order[5].parameter.shape) == (128, 3, 3, 3)


def test_other_networks_have_no_published_order() -> None:
    with pytest.raises(TypeError, match="NCSNpp or DDPM"):
        published_order(MLP().build(published.images(4)))


DEEPER = (1, 2, 2, 2, 4, 4)
BY_NAME = {
    "ncsn mnist": (NCSN(channels=64), 1, 28, 173, 7_638_657),
    "ncsn": (NCSN(), 3, 32, 173, 30_117_635),
    "ncsn deeper, 2019": (NCSN(deeper=True, norm="instance"), 3, 64, 217, 83_931_651),
    "ncsn deeper, 2020": (NCSN(deeper=True), 3, 64, 217, 84_183_811),
    "one noise level, mnist": (NCSN(channels=64, levels=None), 1, 28, 315, 7_443_393),
    "one noise level": (NCSN(levels=None), 3, 32, 315, 29_727_107),
    "ncsnv2": (NCSNv2(), 3, 32, 153, 29_694_083),
    "ncsnv2 deeper": (NCSNv2(depth="deeper"), 3, 128, 191, 83_445_379),
    "ncsnv2 deepest": (NCSNv2(depth="deepest"), 3, 256, 229, 94_132_611),
    "resscore": (ResScore(), 3, 32, 92, 1_379_651),
    "acsm unet": (ACSMUNet(), 3, 32, 284, 33_185_411),
    "acsm unet, deeper": (ACSMUNet(channel_multipliers=DEEPER), 3, 64, 386, 111_547_267),
    "mdsm cifar10": (EnergyResNet(), 3, 32, 53, 62_339_075),
    "mdsm fashion-mnist": (EnergyResNet(64, 12), 1, 32, 38, 9_060_483),
    "mdsm 12, wide": (EnergyResNet(128, 12), 3, 32, 38, 36_186_627),
    "mdsm 6": (EnergyResNet(64, 6), 1, 32, 23, 2_521_475),
    "mdsm 6, narrow": (EnergyResNet(32, 6), 1, 32, 23, 637_123),
    "mdsm 34": (EnergyResNet(128, 34), 3, 32, 88, 316_875_779),
    "mdsm 18, linear": (EnergyResNet(head="linear"), 3, 32, 49, 62_306_305),
}
"""Releases that name their tensors; those of MDSM without four unused ones for each block."""


@pytest.mark.parametrize("name", BY_NAME)
def test_counts_of_named_tensors(name: str) -> None:
    config, channels, size, tensors, parameters = BY_NAME[name]
    data = DataSpec((channels, size, size), 0.0, 1.0, 256)
    with torch.device("meta"):
        net = config.build(data)
    assert len(net.state_dict()) == len(list(net.parameters())) == tensors
    assert sum(p.numel() for p in net.parameters()) == parameters


CRITICS = {
    28: (22, 4_204_801),
    32: (22, 4_204_801),
    64: (32, 19_542_721),
    128: (41, 38_424_258),
    256: (47, 43_421_890),
}


@pytest.mark.parametrize("size", CRITICS)
def test_counts_of_critics(size: int) -> None:
    data = published.images(size)
    with torch.device("meta"):
        critic = BigGANCritic().build(data)
    parameters = list(critic.parameters())
    assert (len(parameters), sum(p.numel() for p in parameters)) == CRITICS[size]
