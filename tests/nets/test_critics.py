"""Critics: published vectors, spectral normalisation, attention, layers of the small ones, laws, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nets.sine_rule import agree, fill_with_sines, sine_input
from scorefield._codec import dumps, loads, record_types
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets.critics import BigGANCritic, Critic, CriticConfig, DCGANCritic
from scorefield.nets.critics.biggan import CriticAttention, SpectralConv, SpectralLinear
from scorefield.nets.critics.mlp_critic import MLPCritic
from tolerance import AUTOCAST_BFLOAT16, FLOAT32_NETWORK, FLOAT64, FLOAT64_NETWORK, INITIAL_SCALE

ROWS = {32: (-342.30154, -342.30303), 64: (7.4175624, 7.4175624), 128: (-68.367972, -68.367972)}
CASES: dict[str, tuple[CriticConfig, DataSpec]] = {
    "biggan 28": (BigGANCritic(channels=4), DataSpec((1, 28, 28))),
    "biggan 32, attention": (BigGANCritic(channels=4, attention_size=8, init="ortho"), DataSpec((3, 32, 32))),
    "biggan 64": (BigGANCritic(channels=2, attention_size=None, power_iterations=3), DataSpec((2, 64, 64))),
    "sngan": (DCGANCritic(channels=4), DataSpec((3, 9, 20))),
    "sngan, no norm": (DCGANCritic(channels=4, batch_norm=False), DataSpec((1, 16, 16))),
    "dcgan": (DCGANCritic(channels=4, style="dcgan"), DataSpec((2, 32, 32))),
    "dcgan, no norm": (DCGANCritic(channels=4, style="dcgan", batch_norm=False), DataSpec((3, 8, 8))),
    "perceptron": (MLPCritic(width=6), DataSpec((2, 3))),
}
EACH = pytest.mark.parametrize("name", CASES)


def made(name: str) -> tuple[Critic, Tensor]:
    """A critic in eval mode, every parameter large enough to matter, and four examples in float64."""
    torch.manual_seed(0)
    config, data = CASES[name]
    critic = config.build(data).double().eval()
    with torch.no_grad():
        for parameter in critic.parameters():
            spread = 0.3 if parameter.ndim < 2 else 1.0 / float(parameter[0].numel()) ** 0.5
            parameter.add_(spread * torch.randn(parameter.shape, dtype=torch.float64))
    return critic, torch.rand(4, *data.shape, dtype=torch.float64)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


# ---------------------------------------------------------------------------------------------------- BigGAN


@pytest.mark.parametrize("size", ROWS)
def test_whole_critic_against_the_reference(size: int) -> None:
    critic = BigGANCritic(channels=8).build(DataSpec((3, size, size))).double().eval()
    fill_with_sines(critic)
    for key, buffer in critic.named_buffers():
        if key.endswith("u0"):
            buffer.copy_(1 + torch.arange(buffer.numel()).reshape(buffer.shape) % 3)
    with torch.no_grad():
        y = critic(sine_input(2, 3, size, size))
    assert agree(tuple(y.tolist()), ROWS[size])


def test_attention_stands_where_features_have_its_size() -> None:
    def places(size: int, attention_size: int | None) -> list[int]:
        critic = BigGANCritic(channels=8, attention_size=attention_size).build(DataSpec((3, size, size)))
        return [
            i for i, block in enumerate(critic.get_submodule("blocks").children()) if len(list(block.children())) > 1
        ]

    assert [places(size, 64) for size in (32, 64, 128, 256)] == [[], [], [0], [1]]
    assert places(32, 16) == [0] and places(32, 8) == [1, 2, 3] and places(28, 14) == [0] and places(128, None) == []


def test_keys_are_those_of_the_release() -> None:
    keys = set(BigGANCritic(channels=8).build(DataSpec((3, 128, 128))).state_dict())
    layers = {"conv1", "conv2", "conv_sc"}
    expected = {f"linear.{leaf}" for leaf in ("weight", "bias", "u0", "sv0")} | {"blocks.0.1.gamma"}
    expected |= {
        f"blocks.0.1.{layer}.{leaf}" for layer in ("theta", "phi", "g", "o") for leaf in ("weight", "u0", "sv0")
    }
    for i in range(6):
        for layer in layers - ({"conv_sc"} if i == 5 else set()):
            expected |= {f"blocks.{i}.0.{layer}.{leaf}" for leaf in ("weight", "bias", "u0", "sv0")}
    assert keys == expected


def test_power_iteration_finds_the_largest_singular_value() -> None:
    torch.manual_seed(1)
    layer = SpectralConv(BigGANCritic(power_iterations=500), 3, 5, 3).double().train()
    W = layer.weight.detach().flatten(1)
    largest = float(torch.linalg.matrix_norm(W, 2))
    assert float(torch.linalg.matrix_norm(layer.normalised().detach().flatten(1), 2)) == pytest.approx(1.0, rel=FLOAT64)
    assert float(layer.sv0) == pytest.approx(largest, rel=FLOAT64)
    assert float((layer.u0 @ W).norm()) == pytest.approx(largest, rel=FLOAT64)


def test_estimates_move_in_training_only() -> None:
    torch.manual_seed(2)
    layer = SpectralLinear(BigGANCritic(), 6, 4).double()
    u = layer.u0.clone()
    W = layer.weight.detach()
    v = functional.normalize(u @ W)
    improved = functional.normalize(v @ W.T)
    layer.eval()
    once = layer.normalised().detach()
    assert torch.equal(layer.u0, u) and torch.equal(layer.sv0, torch.ones(1, dtype=torch.float64))
    assert relative(once, W / (v @ W.T @ improved.T)) <= FLOAT64
    layer.train()
    assert torch.equal(layer.normalised().detach(), once)
    assert relative(layer.u0, improved) <= FLOAT64
    assert relative(layer.sv0, (v @ W.T @ improved.T)[0]) <= FLOAT64
    assert not torch.equal(layer.normalised().detach(), once)


def test_gradient_goes_through_the_weight_and_not_the_vectors() -> None:
    """W / sigma with sigma = u W v': the gradient of <G, W / sigma> is G / sigma - <G, W> / sigma^2 u' v."""
    torch.manual_seed(3)
    layer = SpectralLinear(BigGANCritic(), 6, 4).double().eval()
    G, W = torch.randn(4, 6, dtype=torch.float64), layer.weight.detach()
    (G * layer.normalised()).sum().backward()
    v = functional.normalize(layer.u0 @ W)
    u = functional.normalize(v @ W.T)
    sigma = (u @ W @ v.T).squeeze()
    assert layer.weight.grad is not None
    assert relative(layer.weight.grad, G / sigma - (G * W).sum() / sigma**2 * u.T @ v) <= FLOAT64


def test_attention_is_the_stated_sum() -> None:
    torch.manual_seed(4)
    attention = CriticAttention(BigGANCritic(), 16).double().eval()
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(attention(x), x)  # gamma starts at 0
        attention.gamma.fill_(0.7)
        y = attention(x)

        def mapped(layer: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(layer, SpectralConv)
            return torch.einsum("oi,bihw->bohw", layer.normalised()[:, :, 0, 0], x)

        def pooled(x: Tensor) -> Tensor:
            return x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)).flatten(2)

        theta, phi, g = mapped(attention.theta, x), pooled(mapped(attention.phi, x)), pooled(mapped(attention.g, x))
        assert (theta.shape[1], phi.shape[1], g.shape[1]) == (2, 2, 8)
        weights = torch.einsum("bchw,bcm->bhwm", theta, phi).softmax(-1)
        h = torch.einsum("bhwm,bcm->bchw", weights, g)
        assert relative(y, x + 0.7 * mapped(attention.o, h)) <= FLOAT64_NETWORK


def test_first_weights() -> None:
    torch.manual_seed(5)

    def first(init: str) -> Tensor:
        layer = SpectralConv(BigGANCritic(init=init), 32, 64, 3)  # type: ignore[arg-type]
        assert 0.8 / math.sqrt(288) < float(layer.bias.detach().abs().max()) <= 1 / math.sqrt(288)  # type: ignore[union-attr]
        return layer.weight.detach().double()

    xavier, ortho, normal = first("xavier"), first("ortho").flatten(1), first("N02")
    assert float(xavier.abs().max()) == pytest.approx(math.sqrt(6 / (288 + 576)), rel=INITIAL_SCALE)
    assert float((ortho @ ortho.T - torch.eye(64)).abs().max()) <= FLOAT32_NETWORK
    assert abs(float(normal.std()) / 0.02 - 1) <= 5 * INITIAL_SCALE  # 18432 draws


# ---------------------------------------------------------------------------------------------------- DCGAN


def test_layers_of_the_small_critics() -> None:
    def layers(config: DCGANCritic) -> list[tuple]:
        model = config.build(DataSpec((3, 32, 32))).get_submodule("model")
        found: list[tuple] = []
        for m in model.children():
            if isinstance(m, nn.Conv2d):
                found.append(
                    (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0], m.bias is not None)
                )
            elif isinstance(m, nn.LeakyReLU):
                found.append(("slope", m.negative_slope))
            elif isinstance(m, nn.BatchNorm2d):
                found.append(("norm", m.num_features))
            elif isinstance(m, nn.Linear):
                found.append(("linear", m.in_features, m.out_features))
        return found

    slope, norm = ("slope", 0.1), "norm"
    assert layers(DCGANCritic()) == [
        *[(3, 64, 3, 1, 1, True), (norm, 64), slope, (64, 64, 4, 2, 1, True), (norm, 64), slope],
        *[(64, 128, 3, 1, 1, True), (norm, 128), slope, (128, 128, 4, 2, 1, True), (norm, 128), slope],
        *[(128, 256, 3, 1, 1, True), (norm, 256), slope, (256, 256, 4, 2, 1, True), (norm, 256), slope],
        *[(256, 512, 3, 1, 1, True), slope, ("linear", 8192, 1)],
    ]
    slope = ("slope", 0.02)
    assert layers(DCGANCritic(channels=16, style="dcgan")) == [
        *[(3, 16, 4, 2, 1, False), slope, (16, 32, 4, 2, 1, False), (norm, 32), slope],
        *[(32, 64, 4, 2, 1, False), (norm, 64), slope, (64, 1, 4, 1, 0, False)],
    ]
    assert not any(layer[0] == norm for layer in layers(DCGANCritic(batch_norm=False)))


@pytest.mark.parametrize("style", ["sngan", "dcgan"])
def test_first_weights_of_the_small_critics(style: str) -> None:
    torch.manual_seed(6)
    critic = DCGANCritic(style=style).build(DataSpec((3, 32, 32)))  # type: ignore[arg-type]
    convolutions = [m for m in critic.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 50_000]
    norms = [m for m in critic.modules() if isinstance(m, nn.BatchNorm2d)]
    assert convolutions and norms
    for m in convolutions:
        assert abs(float(m.weight.detach().std()) / 0.02 - 1) <= 5 * INITIAL_SCALE  # 65536 draws or more
    scales = torch.cat([m.weight.detach() for m in norms])
    assert 0.01 < float(scales.std()) < 0.03 and abs(float(scales.mean()) - 1) < 0.01
    assert all(not m.bias.detach().any() for m in norms)


# ---------------------------------------------------------------------------------------------------- laws


@EACH
def test_examples_do_not_see_each_other(name: str) -> None:
    critic, x = made(name)
    with torch.no_grad():
        whole = critic(x)
        alone = torch.cat([critic(x[i : i + 1]) for i in range(4)])
    assert whole.shape == (4,) and whole.dtype == torch.float64
    assert relative(alone, whole) <= FLOAT64_NETWORK
    assert float((whole[0] - whole[1]).abs()) > FLOAT32_NETWORK * float(whole.abs().max())


@EACH
def test_precision_follows_the_critic(name: str) -> None:
    critic, x = made(name)
    with torch.no_grad():
        exact = critic(x)
        single = critic.float()(x.float())
        with torch.autocast("cpu", torch.bfloat16):
            half = critic(x.float())
    assert single.dtype == half.dtype == torch.float32
    assert relative(single.double(), exact) <= FLOAT32_NETWORK
    assert relative(half.double(), exact) <= AUTOCAST_BFLOAT16


@EACH
def test_two_calls_in_training_then_backward(name: str) -> None:
    """As in a step of the critic: real and fake in turn, although the first call moved the estimates of the second."""
    critic, x = made(name)
    critic.train()
    (critic(x).sum() - critic(1 - x).square().sum()).backward()
    for key, parameter in critic.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), key


@EACH
def test_weights_and_configuration_round_trip(name: str) -> None:
    config, data = CASES[name]
    assert loads(dumps(config), CriticConfig) == config
    critic, x = made(name)
    other = config.build(data).double().eval()
    other.load_state_dict(critic.state_dict())
    with torch.no_grad():
        assert torch.equal(other(x), critic(x))


def test_every_configuration_is_known_to_the_codec() -> None:
    assert set(record_types(CriticConfig)) == {type(config).__name__ for config, _ in CASES.values()}


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (
            BigGANCritic(),
            (3, 48, 48),
            r"square images with a side of 28, 32, 64, 128, 256 pixels; got data of shape \(3, 48, 48\)",
        ),
        (BigGANCritic(), (3, 32, 64), r'DCGANCritic\(style="sngan"\) takes images of any size'),
        (BigGANCritic(channels=4), (3, 128, 128), "channels=8 or more, or attention_size=None"),
        (BigGANCritic(), (2,), r"BigGANCritic takes images \(C, H, W\); got data of shape \(2,\)"),
        (DCGANCritic(), (3, 32), r"DCGANCritic takes images"),
        (DCGANCritic(), (3, 7, 32), "at least 8 pixels"),
        (DCGANCritic(style="dcgan"), (1, 28, 28), r"a side of 8, 16, 32, 64, .*style=\"sngan\" takes any"),
        (DCGANCritic(style="dcgan"), (1, 4, 4), "a side of 8"),
        (DCGANCritic(style="dcgan"), (1, 16, 32), "square images"),
    ],
)
def test_refuses_data_it_cannot_take(config: CriticConfig, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.build(DataSpec(shape))


def test_refuses_conditions_and_other_shapes() -> None:
    label = (ConditionSpec("label", "class", 10),)
    for config in (BigGANCritic(channels=4), DCGANCritic(channels=4)):
        with pytest.raises(ValueError, match=r"cannot be conditioned, .* the conditions 'label'.*conditions=\(\)"):
            config.build(DataSpec((3, 32, 32), conditions=label))
        critic = config.build(DataSpec((3, 32, 32)))
        with pytest.raises(ValueError, match=r"of shape \(3, 32, 32\); got a batch of shape \(2, 1, 32, 32\)"):
            critic(torch.zeros(2, 1, 32, 32))


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (BigGANCritic, {"channels": 0}, "at least 1"),
        (BigGANCritic, {"power_iterations": 0}, "at least 1"),
        (BigGANCritic, {"attention_size": 1}, "side in pixels"),
        (BigGANCritic, {"init": "zeros"}, "'xavier', 'ortho', 'N02'; got 'zeros'"),
        (DCGANCritic, {"channels": 0}, "positive"),
        (DCGANCritic, {"style": "gan"}, '"dcgan" or "sngan"'),
    ],
)
def test_refuses_fields_out_of_range(config: type, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)
