"""The U-Net of adversarial score matching: published counts, vectors and checkpoints, first values, refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nets.sine_rule import agree, fill_with_sines, numbers, sine_input
from nets.small_nets import batch, build
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets.unets.acsm_unet import ACSMUNet
from tolerance import FLOAT64_NETWORK, GOLDEN_SCORE, INITIAL_SCALE

GOLDEN = Path(__file__).parents[1] / "golden" / "acsm" / "unet"
DEEPER = (1, 2, 2, 2, 4, 4)
ROWS = {
    "four levels": (
        ACSMUNet(channels=32),
        32,
        (0.93682746, 0.24963574, 2.2446205, 1.0176903, 0.86451078, 0.39049807),
    ),
    "six levels": (
        ACSMUNet(channels=32, channel_multipliers=DEEPER),
        64,
        (0.96413573, 0.24005783, 2.3552291, 0.76773118, 0.39969012, 0.99569395),
    ),
}
SMALL = ACSMUNet(channels=8, channel_multipliers=(1, 2), blocks=1)


@pytest.mark.parametrize("name", ROWS)
def test_whole_network_against_the_reference(name: str) -> None:
    config, size, printed = ROWS[name]
    net = config.build(DataSpec((3, size, size))).double().eval()
    fill_with_sines(net)
    with torch.no_grad():
        y = net(sine_input(2, 3, size, size), torch.zeros(2, dtype=torch.float64))
    assert agree(numbers(y), printed)


def test_published_checkpoint() -> None:
    checkpoint = torch.load(GOLDEN / "checkpoint.pth", weights_only=True)
    net = ACSMUNet(channels=32).build(DataSpec((3, 16, 16))).eval()
    # The averages were made in the order of the release's parameters: ours have it too.
    assert list(net.state_dict()) == list(checkpoint[-1])
    io = load_file(GOLDEN / "io.safetensors")

    def error(weights: dict[str, torch.Tensor]) -> float:
        net.load_state_dict(weights)
        with torch.no_grad():
            y = net(io["xt"], torch.zeros(len(io["xt"])))
        return float((y - io["network_output"]).abs().max() / io["network_output"].abs().max())

    assert error(checkpoint[-1]) <= GOLDEN_SCORE
    assert error({key.removeprefix("module."): value for key, value in checkpoint[0].items()}) > 10 * GOLDEN_SCORE


def test_first_values_are_those_of_the_release() -> None:
    torch.manual_seed(0)
    net = ACSMUNet(channels=32).build(DataSpec((3, 16, 16)))

    def largest(name: str) -> float:
        return float(net.get_parameter(name).detach().abs().max())

    xavier = {"downblocks.1.conv0": (288, 288), "downblocks.1.conv1": (288, 288), "downblocks.8": (576, 576)}
    for name, fans in xavier.items():
        assert largest(f"{name}.weight") == pytest.approx(math.sqrt(0.5 * 6 / sum(fans)), rel=INITIAL_SCALE), name
        assert largest(f"{name}.bias") == 0
    assert largest("temb_dense.2.weight") == pytest.approx(math.sqrt(0.5 * 6 / 256), rel=INITIAL_SCALE)
    for name, fan_in in {"middleblocks.0.conv0": 576, "upblocks.0.conv1": 576, "upblocks.3.conv": 576}.items():
        assert largest(f"{name}.weight") == pytest.approx(1 / math.sqrt(fan_in), rel=INITIAL_SCALE), name
        assert 0.8 / math.sqrt(fan_in) < largest(f"{name}.bias") <= 1 / math.sqrt(fan_in)
    assert largest("out.weight") == pytest.approx(1 / math.sqrt(288), rel=INITIAL_SCALE)
    assert largest("downblocks.5.Q.weights") == pytest.approx(math.sqrt(0.5 * 6 / 128), rel=INITIAL_SCALE)
    assert largest("downblocks.5.OUT.weights") == pytest.approx(math.sqrt(0.5e-10 * 6 / 128), rel=INITIAL_SCALE)
    assert largest("downblocks.5.OUT.bias") == 0


def test_the_noise_level_is_not_heard_and_the_input_not_rescaled() -> None:
    data = DataSpec((3, 8, 8))
    net, (x, c) = build(SMALL, data).double(), batch(data, 2, torch.float64)
    with torch.no_grad():
        assert torch.equal(net(x, c), net(x, c + 5))
        first = net.get_submodule("downblocks.0")
        seen: list[torch.Tensor] = []
        first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        net(x, c)
    assert torch.equal(seen[0], x)


def test_the_unused_time_layers_are_frozen() -> None:
    net = SMALL.build(DataSpec((3, 8, 8)))
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {f"temb_dense.{k}.{leaf}" for k in (0, 2) for leaf in ("weight", "bias")}


def test_attention_follows_every_block_of_its_level() -> None:
    data = DataSpec((1, 8, 8))

    def kinds(level: int) -> list[list[str]]:
        net = ACSMUNet(channels=8, channel_multipliers=(1, 1, 1), blocks=1, attention_level=level).build(data)
        return [[type(m).__name__[0] for m in blocks] for blocks in (net.downblocks, net.upblocks)]

    # C convolution, R residual block, A attention, U upsampling
    assert kinds(0) == [list("CRACRCR"), list("RRURRURARA")]
    assert kinds(1) == [list("CRCRACR"), list("RRURARAURR")]
    assert kinds(2) == [list("CRCRCRA"), list("RARAURRURR")]


def test_whole_channels_are_dropped_in_training_only() -> None:
    data = DataSpec((3, 8, 8))
    config = ACSMUNet(channels=8, channel_multipliers=(1, 2), blocks=1, dropout=0.5)
    net, (x, c) = build(config, data), batch(data)
    seen: list[torch.Tensor] = []
    net.get_submodule("downblocks.1.conv1").register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        assert torch.equal(net(x, c), net(x, c))
        net.train()
        net(x, c)
    kept, dropped = seen[0], seen[-1]
    zero = (dropped == 0).flatten(2)
    assert torch.equal(zero.all(2), zero.any(2)) and bool(zero.any()) and not bool(zero.all())
    alive = ~zero.all(2)
    assert float((dropped[alive] - 2 * kept[alive]).abs().max()) <= FLOAT64_NETWORK


def test_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"levels from 0 to 1; got 2"):
        ACSMUNet(channel_multipliers=(1, 2), attention_level=2)
    with pytest.raises(ValueError, match="must be positive"):
        ACSMUNet(channels=0)
    with pytest.raises(ValueError, match=r"got data of shape \(2,\). For vectors use MLP"):
        SMALL.build(DataSpec((2,)))
    with pytest.raises(ValueError, match=r"cannot be conditioned, .* the conditions 'label'.*conditions=\(\)"):
        SMALL.build(DataSpec((3, 8, 8), conditions=(ConditionSpec("label", "class", 10),)))
    net = ACSMUNet(channels=8).build(DataSpec((1, 28, 28)))
    assert net.multiple == (8, 8)
    with pytest.raises(ValueError, match=r"multiples of \(8, 8\); got \(28, 28\).*Pad to \(32, 32\)"):
        net(torch.zeros(1, 1, 28, 28), torch.zeros(1))
    with pytest.raises(ValueError, match="takes no condition 'label': it was built for data without"):
        net(torch.zeros(1, 1, 32, 32), torch.zeros(1), {"label": torch.zeros(1, dtype=torch.int64)})
