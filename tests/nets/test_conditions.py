"""Class, vector and image conditions: unknown values, drop-out, and networks for data without conditions."""

from __future__ import annotations

import pytest
import torch

from nets.small_nets import TINY, batch, build
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets import MLP, NCSNpp, Network, NetworkConfig, UNet, published_order
from tolerance import FLOAT64_NETWORK

LABEL = ConditionSpec("label", "class", 4)
POSE = ConditionSpec("pose", "vector", 3)
MASK = ConditionSpec("mask", "image", 2)
ALL = (LABEL, POSE, MASK)
NAN = float("nan")

CONFIGS: dict[str, tuple[NetworkConfig, tuple[int, ...]]] = {
    "image": (NCSNpp(**TINY, centered=True), (3, 8, 8)),
    "image, not centred": (NCSNpp(**TINY, progressive_input="input_skip"), (1, 4, 8)),
    "image, early": (NCSNpp(**TINY, conditions_enter="features"), (1, 4, 8)),
    "image, early, positional": (NCSNpp(**TINY, conditions_enter="features", embedding="positional"), (1, 4, 8)),
    "image, no time": (NCSNpp(**TINY, time_conditional=False), (1, 4, 8)),
    "signal": (NCSNpp(**TINY), (2, 8)),
    "points": (MLP(width=16, depth=1), (3,)),
    "small image": (MLP(width=16, depth=1), (1, 4, 4)),
}
EACH = pytest.mark.parametrize("name", CONFIGS)


def made(name: str) -> tuple[Network, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """A network conditioned on all kinds of conditions, and four examples."""
    config, shape = CONFIGS[name]
    data = DataSpec(shape, conditions=ALL)
    net = build(config, data).double()
    x, c = batch(data, 4, torch.float64)
    generator = torch.Generator().manual_seed(8)
    condition = {
        "label": torch.tensor([0, 3, 1, 2]),
        "pose": torch.randn(4, 3, dtype=torch.float64, generator=generator),
        "mask": torch.randn(4, 2, *shape[1:], dtype=torch.float64, generator=generator),
    }
    return net, x, c, condition


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= FLOAT64_NETWORK * b.abs().max())


@EACH
def test_each_condition_changes_its_own_example_only(name: str) -> None:
    net, x, c, condition = made(name)
    with torch.no_grad():
        known = net(x, c, condition)
        for key, other in (("label", torch.tensor(2)), ("pose", torch.ones(3)), ("mask", torch.zeros(()))):
            changed = dict(condition)
            changed[key] = condition[key].clone()
            changed[key][1] = other.to(changed[key].dtype)
            y = net(x, c, changed)
            assert close(y[[0, 2, 3]], known[[0, 2, 3]])
            assert not close(y[1], known[1]), key


@EACH
def test_missing_none_and_unknown_are_the_same(name: str) -> None:
    net, x, c, condition = made(name)
    unknown = {
        "label": torch.full((4,), -1),
        "pose": torch.full((4, 3), NAN, dtype=torch.float64),
        "mask": torch.full_like(condition["mask"], NAN),
    }
    with torch.no_grad():
        nothing = net(x, c)
        assert close(net(x, c, unknown), nothing)
        assert close(net(x, c, {}), nothing)
        for key in condition:
            partly = {**condition, key: unknown[key]}
            without = {k: v for k, v in condition.items() if k != key}
            assert close(net(x, c, partly), net(x, c, without))
            assert not close(net(x, c, without), net(x, c, condition)), key


@EACH
def test_drop_out_of_one_example(name: str) -> None:
    """Row 2 unknown: it equals the unconditional output there and leaves the others; one NaN makes the row unknown."""
    net, x, c, condition = made(name)
    dropped = {key: value.clone() for key, value in condition.items()}
    dropped["label"][2] = -1
    dropped["pose"][2, 1] = NAN
    dropped["mask"][2, 0] = NAN
    with torch.no_grad():
        y, known, nothing = net(x, c, dropped), net(x, c, condition), net(x, c)
    assert close(y[[0, 1, 3]], known[[0, 1, 3]])
    assert close(y[2], nothing[2])


@EACH
def test_unknown_conditions_give_finite_gradients_everywhere(name: str) -> None:
    net, x, c, condition = made(name)
    condition["pose"][0], condition["mask"][1], condition["label"][2] = NAN, NAN, -1
    x.requires_grad_(True)
    (net(x, c, condition) ** 2).mean().backward()
    for key, tensor in [("x", x), *net.named_parameters()]:
        if tensor.requires_grad:
            assert tensor.grad is not None and bool(torch.isfinite(tensor.grad).all()), key


def test_an_image_of_zeros_is_not_an_unknown_image() -> None:
    net, x, c, condition = made("image")
    zeros = {**condition, "mask": torch.zeros_like(condition["mask"])}
    without = {"label": condition["label"], "pose": condition["pose"]}
    with torch.no_grad():
        assert not close(net(x, c, zeros), net(x, c, without))


@EACH
def test_without_conditions_nothing_is_added(name: str) -> None:
    config, shape = CONFIGS[name]
    bare, rich = DataSpec(shape), DataSpec(shape, conditions=ALL)
    with torch.device("meta"):
        plain, full = config.build(bare), config.build(rich)
    assert not any(key.startswith("conditioning") for key, _ in plain.named_parameters())
    if isinstance(plain, UNet):
        assert len(published_order(plain)) == len(list(plain.parameters()))
    first_names = [{key.split(".")[0] for key, _ in net.named_parameters()} for net in (plain, full)]
    assert first_names[1] - first_names[0] == {"conditioning"}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"labl": torch.zeros(4, dtype=torch.int64)}, "no condition 'labl'. Did you mean label"),
        ({"label": torch.tensor([0, 1, 2, 4])}, r"labels from 0 to 4; give a class in 0..3, or -1"),
        ({"label": torch.zeros(4)}, "integer labels"),
        ({"label": torch.zeros(3, dtype=torch.int64)}, r"shape \(4,\)"),
        ({"pose": torch.zeros(4, 2)}, r"shape \(4, 3\); got \(4, 2\)"),
        ({"mask": torch.zeros(4, 2, 7, 8)}, r"shape \(4, 2, 8, 8\), on the same \(padded\) grid"),
    ],
)
def test_refuses_conditions_it_cannot_use(condition: dict[str, torch.Tensor], message: str) -> None:
    net, x, c, _ = made("image")
    with pytest.raises(ValueError, match=message):
        net(x, c, condition)


def test_data_without_conditions_refuse_any() -> None:
    config, shape = CONFIGS["points"]
    net = build(config, DataSpec(shape))
    x, c = batch(DataSpec(shape))
    with pytest.raises(ValueError, match="have no conditions"):
        net(x, c, {"label": torch.zeros(3, dtype=torch.int64)})


def test_early_conditions_are_added_to_the_features_of_c() -> None:
    """A class whose row is the difference of two times' features makes the one time look like the other."""
    data = DataSpec((1, 4, 8), conditions=(LABEL,))
    net = build(NCSNpp(**TINY, conditions_enter="features"), data).double()
    assert isinstance(net, UNet) and net.time is not None and net.time.fourier is not None
    x, c = batch(data, 2, torch.float64)
    other = c + 0.3
    table = net.conditioning.embeddings[0].get_parameter("table.weight")
    with torch.no_grad():
        table.zero_()
        expected = net(x, other, {"label": torch.tensor([0, 1])})
        table[:2] = net.time.fourier(other) - net.time.fourier(c)
        assert close(net(x, c, {"label": torch.tensor([0, 1])}), expected)
        assert not close(net(x, c), expected)
    with pytest.raises(ValueError, match="time_conditional=False has none"):
        NCSNpp(conditions_enter="features", time_conditional=False)
