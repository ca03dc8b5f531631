"""What holds for every network: shapes, precision, independence of examples, gradients, round trips, clear refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nets.small_nets import CASES, IMAGE, NCSNPP, batch, build, naive_module
from scorefield._codec import dumps, loads, record_types
from scorefield.data_spec import DataSpec
from scorefield.nets import DDPM, MLP, EnergyNetwork, NCSNpp, NetworkConfig, UNet, load_published, published_order
from tolerance import AUTOCAST_BFLOAT16, FINITE_DIFFERENCE, FLOAT32_NETWORK, FLOAT64_NETWORK

ALL_CASES = pytest.mark.parametrize("name", CASES)
# A kink of relu within the step spoils a central difference.
SMOOTH = [name for name, (config, _) in CASES.items() if not getattr(config, "activation", "").endswith("relu")]
SMOOTH_CASES = pytest.mark.parametrize("name", SMOOTH)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the largest entry."""
    return float((a - b).abs().max() / b.abs().max())


@ALL_CASES
def test_examples_do_not_see_each_other(name: str) -> None:
    config, data = CASES[name]
    net, (x, c) = build(config, data).double(), batch(data, 4, torch.float64)
    with torch.no_grad():
        whole = net(x, c)
        order = torch.tensor([2, 0, 3, 1])
        assert relative(net(x[order], c[order]), whole[order]) <= FLOAT64_NETWORK
        alone = torch.cat([net(x[i : i + 1], c[i : i + 1]) for i in range(4)])
    assert relative(alone, whole) <= FLOAT64_NETWORK
    assert whole.shape == (x.shape[:1] if isinstance(net, EnergyNetwork) else x.shape) and whole.is_contiguous()


@ALL_CASES
def test_precision_follows_the_network(name: str) -> None:
    config, data = CASES[name]
    net, (x, c) = build(config, data), batch(data)
    with torch.no_grad():
        y = net(x, c)
        exact = copy.deepcopy(net).double()(x.double(), c.double())
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x, c)
    assert (y.dtype, exact.dtype, half.dtype) == (torch.float32, torch.float64, torch.float32)
    assert relative(y.double(), exact) <= FLOAT32_NETWORK
    assert relative(half, y) <= AUTOCAST_BFLOAT16


@SMOOTH_CASES
def test_gradient_of_the_input_is_the_slope(name: str) -> None:
    config, data = CASES[name]
    net, (x, c) = build(config, data).double(), batch(data, 2, torch.float64)
    direction, weight = (batch(data, 2, torch.float64, seed)[0] for seed in (5, 6))
    if isinstance(net, EnergyNetwork):
        weight = weight.flatten(1)[:, 0]
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad((net(x, c) * weight).sum(), x)
    h = 1e-5
    with torch.no_grad():
        slope = ((net(x + h * direction, c) - net(x - h * direction, c)) * weight).sum() / (2 * h)
    scale = float(gradient.norm() * direction.norm())
    assert abs(float((gradient * direction).sum() - slope)) <= FINITE_DIFFERENCE * scale


@ALL_CASES
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    config, data = CASES[name]
    net, (x, c) = build(config, data).train(), batch(data)
    (net(x, c) ** 2).mean().backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), key


@ALL_CASES
def test_weights_and_configuration_round_trip(name: str) -> None:
    config, data = CASES[name]
    read = loads(dumps(config), NetworkConfig)
    assert read == config
    net, (x, c) = build(config, data), batch(data)
    other = build(read, data, seed=7)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(other(x, c), net(x, c))


@pytest.mark.parametrize("name", NCSNPP)
def test_naive_form_is_the_same_function(name: str) -> None:
    """Every choice of NCSN++ against a second implementation that shares no layer with the first."""
    net, (x, c) = build(NCSNPP[name], IMAGE).double(), batch(IMAGE, 2, torch.float64)
    naive = naive_module().naive_copy(net).eval()
    with torch.no_grad():
        assert relative(net(x, c), naive(x, c)) <= FLOAT64_NETWORK
    loss = (net(x, c) ** 2).mean()
    ours = torch.autograd.grad(loss, [p.parameter for p in published_order(net) if p.trainable])
    theirs = torch.autograd.grad((naive(x, c) ** 2).mean(), [p for p in naive.parameters() if p.requires_grad])
    largest = max(float(g.abs().max()) for g in theirs)
    for a, b, p in zip(ours, theirs, [p for p in published_order(net) if p.trainable], strict=True):
        assert float((a - (b.T if p.transposed else b)).abs().max()) <= FLOAT64_NETWORK * largest, p.name


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 3, 4]))
def test_any_size_that_is_a_multiple(levels: int, rows: int, columns: int, channels: int) -> None:
    multiple = 2 ** (levels - 1)
    data = DataSpec((channels, rows * multiple, columns * multiple))
    config = NCSNpp(channels=4, channel_multipliers=(1,) * levels, blocks=1, attention_sizes=(max(rows, columns),))
    net, (x, c) = build(config, data), batch(data, 2)
    assert net.multiple == (multiple, multiple)
    with torch.no_grad():
        assert net(x, c).shape == x.shape


def test_attention_levels_count_the_larger_padded_size() -> None:
    config = NCSNpp(channels=4, channel_multipliers=(1, 1, 1), blocks=1, attention_sizes=(16,))

    def levels(*shape: int) -> list[bool]:
        net = config.build(DataSpec(shape))
        assert isinstance(net, UNet)
        return [level.stages[0].attention is not None for level in net.down]  # type: ignore[index,union-attr]

    assert levels(1, 32, 8) == [False, True, False]
    assert levels(1, 29, 29) == [False, True, False]  # padded to 32
    assert levels(1, 28, 28) == [False, False, False]
    assert levels(2, 64) == [False, False, True]


def test_dropout_only_in_training() -> None:
    net, (x, c) = build(NCSNpp(channels=8, channel_multipliers=(1, 2), blocks=1, dropout=0.5), IMAGE), batch(IMAGE)
    assert torch.equal(net(x, c), net(x, c))
    net.train()
    assert not torch.equal(net(x, c), net(x, c))


def test_input_is_centred_before_anything_else() -> None:
    x, c = batch(IMAGE)
    off = build(NCSNpp(channels=8, channel_multipliers=(1, 2), blocks=1, centered=False), IMAGE)
    on = build(NCSNpp(channels=8, channel_multipliers=(1, 2), blocks=1, centered=True), IMAGE)
    with torch.no_grad():
        assert relative(off(x, c), on(2 * x - 1, c)) <= FLOAT32_NETWORK


def test_every_configuration_is_known_to_the_codec() -> None:
    known = {tag for tag, cls in record_types(NetworkConfig).items() if cls.__module__.startswith("scorefield.")}
    assert known - {"Module"} == {type(config).__name__ for config, _ in CASES.values()}  # Module wraps any class
    assert loads('{"schema": 1, "value": "DDPM"}', NetworkConfig) == DDPM()


# ---------------------------------------------------------------------------------------------------- refusals


def test_refuses_a_size_that_is_no_multiple() -> None:
    net = build(NCSNpp(channels=4, channel_multipliers=(1, 1, 1), blocks=1), DataSpec((1, 28, 28)))
    with pytest.raises(ValueError, match=r"multiples of \(4, 4\); got \(28, 30\).*Pad to \(28, 32\)"):
        net(torch.zeros(1, 1, 28, 30), torch.zeros(1))


def test_refuses_other_shapes() -> None:
    net = build(MLP(width=4, depth=1), DataSpec((2,)))
    with pytest.raises(ValueError, match=r"built for examples of shape \(2,\)"):
        net(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ValueError, match=r"c must have shape \(4,\)"):
        net(torch.zeros(4, 2), torch.zeros(1))
    with pytest.raises(ValueError, match=r"use MLP\(\)"):
        NCSNpp().build(DataSpec((2,)))
    with pytest.raises(ValueError, match=r"signals \(C, L\) and images"):
        DDPM().build(DataSpec((1, 4, 4, 4)))


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (NCSNpp, {"channels": 0}, "positive"),
        (NCSNpp, {"channel_multipliers": ()}, "positive"),
        (DDPM, {"blocks": 0}, "at least 1"),
        (DDPM, {"dropout": 1.0}, "below 1"),
        (NCSNpp, {"fir_kernel": (1,)}, r"\(1, 3, 3, 1\)"),
        (NCSNpp, {"init_scale": -1.0}, "variance"),
        (MLP, {"width": 0}, "positive"),
        (MLP, {"depth": 0}, "positive"),
        (MLP, {"dropout": -0.1}, "below 1"),
    ],
)
def test_refuses_fields_out_of_range(config: type, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_refuses_tensors_of_another_configuration() -> None:
    net = build(NCSNPP["ncsnpp"], IMAGE)
    tensors = [p.parameter.detach().T if p.transposed else p.parameter.detach() for p in published_order(net)]
    with pytest.raises(ValueError, match="belongs to another configuration"):
        load_published(net, tensors[1:])  # the frozen Fourier frequencies are missing
    with pytest.raises(ValueError, match=r"tensor 1 has shape \(7, 7\); time.first.weight"):
        load_published(net, [tensors[0], torch.zeros(7, 7), *tensors[2:]])
    before = build(NCSNPP["ncsnpp"], IMAGE, seed=3)
    load_published(before, tensors[1:], tensors[:1])
    x, c = batch(IMAGE)
    with torch.no_grad():
        assert torch.equal(before(x, c), net(x, c))
