"""The noise-conditional classifier: against a second form written as the release's, first values, laws, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scorefield._codec import dumps, loads, record_types
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets.guidance import GuideConfig, GuideNetwork
from scorefield.nets.guidance.wide_resnet import CIFAR10_DEVIATION, CIFAR10_MEAN, NoisyWideResNet, WideResNet
from tolerance import AUTOCAST_BFLOAT16, FINITE_DIFFERENCE, FLOAT32_NETWORK, FLOAT64, FLOAT64_NETWORK, INITIAL_SCALE

TINY = {"embedding_size": 4, "embedding_features": 8, "fourier_scale": 0.5}
CASES: dict[str, tuple[WideResNet, DataSpec]] = {
    "image": (WideResNet(10, 2, CIFAR10_MEAN, CIFAR10_DEVIATION, **TINY), DataSpec((3, 8, 12))),
    "one channel, odd sizes": (WideResNet(16, 1, 0.5, 0.3, **TINY), DataSpec((1, 7, 9))),
    "signal": (WideResNet(10, 1, **TINY), DataSpec((2, 13))),
}
EACH = pytest.mark.parametrize("name", CASES)


def made(name: str, classes: int = 5) -> tuple[NoisyWideResNet, Tensor, Tensor]:
    """A classifier whose every parameter matters, and three examples, in float64."""
    torch.manual_seed(0)
    config, data = CASES[name]
    net = config.build(data, classes).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1 and parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    x = torch.rand(3, *data.shape, dtype=torch.float64)
    return net, x, torch.tensor([-2.0, 0.3, 1.7], dtype=torch.float64)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


# ------------------------------------------------------------------------------------ the release's form, channels last


def flax_parameters(net: NoisyWideResNet) -> dict[str, Tensor]:
    """Our parameters under the release's scopes and in its layouts, as the docstring of the network says."""
    renamed: dict[str, Tensor] = {}
    for name, value in net.state_dict().items():
        scope, leaf = name.replace(".", "/").rsplit("/", 1)
        if leaf == "weight":
            leaf = "scale" if value.ndim == 1 else "kernel"
            value = value if value.ndim == 1 else value.movedim((0, 1), (-1, -2))
        renamed[f"{scope}/{leaf}"] = value
    return renamed


def same_convolution(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """TensorFlow's SAME padding, taps summed one by one: x (B, H, W, in), kernel (h, w, in, out)."""
    height, width = (-(-n // stride) for n in x.shape[1:3])
    before = [max((m - 1) * stride + 3 - n, 0) // 2 for m, n in zip((height, width), x.shape[1:3], strict=True)]
    canvas = x.new_zeros(x.shape[0], height * stride + 3, width * stride + 3, x.shape[3])
    canvas[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]] = x
    return sum(  # type: ignore[return-value]
        canvas[:, i : i + height * stride : stride, j : j + width * stride : stride] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def activated(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """relu(group norm), min(C // 4, 32) groups, eps 1e-5, variance as E x^2 - (E x)^2."""
    groups = x.reshape(x.shape[0], -1, min(x.shape[3] // 4, 32), x.shape[3] // min(x.shape[3] // 4, 32))
    mean = groups.mean((1, 3), keepdim=True)
    variance = (groups**2).mean((1, 3), keepdim=True) - mean**2
    return (((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape) * scale + bias).clamp(min=0)


def released_form(p: dict[str, Tensor], x: Tensor, c: Tensor, config: WideResNet) -> Tensor:
    """The classifier for images (B, C, H, W) of even size, in the layout of the release."""
    mean, deviation = (torch.tensor(v, dtype=x.dtype) for v in (config.mean, config.deviation))
    h = (x.permute(0, 2, 3, 1) - mean) / deviation
    spread = h.flatten(1).std(1, correction=0).clamp(min=h[0].numel() ** -0.5)
    h = (h - h.flatten(1).mean(1).reshape(-1, 1, 1, 1)) / spread.reshape(-1, 1, 1, 1)
    phase = c[:, None] * p["GaussianFourierProjection_0/W"] * 2 * math.pi
    e = torch.cat([phase.sin(), phase.cos()], 1) @ p["Dense_0/kernel"] + p["Dense_0/bias"]
    e = (e * e.sigmoid()) @ p["Dense_1/kernel"] + p["Dense_1/bias"]
    h = same_convolution(h, p["init_conv/kernel"], 1)
    for group in range(3):
        for index in range((config.depth - 4) // 6):
            scope, stride = f"WideResnetGroup_{group}/WideResnetBlock_{index}", 2 if group and not index else 1
            q = {key.removeprefix(scope + "/"): value for key, value in p.items() if key.startswith(scope + "/")}
            a = activated(h, q["init_bn/scale"], q["init_bn/bias"])
            residual = a if group == index == 0 else h
            y = same_convolution(a, q["conv1/kernel"], stride)
            y = y + ((e * e.sigmoid()) @ q["Dense_0/kernel"] + q["Dense_0/bias"])[:, None, None]
            y = same_convolution(activated(y, q["bn_2/scale"], q["bn_2/bias"]), q["conv2/kernel"], 1)
            if y.shape[3] != residual.shape[3]:
                B, H, W, C = residual.shape
                residual = residual.reshape(B, H // stride, stride, W // stride, stride, C).mean((2, 4))
                residual = torch.cat([residual, residual.new_zeros(*residual.shape[:3], y.shape[3] - C)], 3)
            h = y + residual
    h = activated(h, p["pre-pool-bn/scale"], p["pre-pool-bn/bias"]).mean((1, 2))
    return h @ p["Dense_2/kernel"] + p["Dense_2/bias"]


def test_second_form_is_the_same_function() -> None:
    net, x, c = made("image")
    with torch.no_grad():
        y = net(x, c)
        assert relative(y, released_form(flax_parameters(net), x, c, net.config)) <= FLOAT64_NETWORK
        other = WideResNet(10, 2, CIFAR10_MEAN, CIFAR10_MEAN)  # the comparison notices another constant
        assert relative(y, released_form(flax_parameters(net), x, c, other)) > FLOAT32_NETWORK


def test_published_size() -> None:
    data = DataSpec((3, 32, 32), 0.0, 1.0, 256)
    config = WideResNet(mean=CIFAR10_MEAN, deviation=CIFAR10_DEVIATION)
    with torch.device("meta"):
        net = config.build(data, 10)
    shapes = {key: tuple(value.shape) for key, value in flax_parameters(net).items()}
    expected: dict[str, tuple[int, ...]] = {
        "GaussianFourierProjection_0/W": (128,),
        "init_conv/kernel": (3, 3, 3, 16),
        "pre-pool-bn/scale": (640,),
        "pre-pool-bn/bias": (640,),
    }
    for name, (a, b) in {"Dense_0": (256, 512), "Dense_1": (512, 512), "Dense_2": (640, 10)}.items():
        expected |= {f"{name}/kernel": (a, b), f"{name}/bias": (b,)}
    for group, (a, b) in enumerate([(16, 160), (160, 320), (320, 640)]):
        for index in range(4):
            scope, inputs = f"WideResnetGroup_{group}/WideResnetBlock_{index}", b if index else a
            expected |= {f"{scope}/init_bn/{leaf}": (inputs,) for leaf in ("scale", "bias")}
            expected |= {f"{scope}/bn_2/{leaf}": (b,) for leaf in ("scale", "bias")}
            expected |= {f"{scope}/conv1/kernel": (3, 3, inputs, b), f"{scope}/conv2/kernel": (3, 3, b, b)}
            expected |= {f"{scope}/Dense_0/kernel": (512, b), f"{scope}/Dense_0/bias": (b,)}
    assert shapes == expected


def test_first_values() -> None:
    torch.manual_seed(1)
    net = WideResNet(10, 4).build(DataSpec((3, 8, 8)), 10)
    convolution = net.get_parameter("WideResnetGroup_2.WideResnetBlock_0.conv2.weight").detach()
    assert abs(float(convolution.std()) / math.sqrt(2 / (256 * 9)) - 1) <= INITIAL_SCALE  # 589824 draws
    dense = net.get_parameter("Dense_1.weight").detach()
    assert abs(float(dense.std()) * math.sqrt(512) - 1) <= INITIAL_SCALE
    assert float(dense.abs().max()) * math.sqrt(512) <= 2 / 0.8796 and not net.Dense_1.bias.detach().any()
    last = float(net.Dense_2.weight.detach().abs().max())
    assert last == pytest.approx(1 / math.sqrt(10), rel=INITIAL_SCALE)
    frequencies = net.GaussianFourierProjection_0.W
    assert not frequencies.requires_grad and 10 < float(frequencies.std()) < 22


def test_input_is_standardised_example_by_example() -> None:
    net, x, c = made("image")
    with torch.no_grad():
        h = net.standardised(x)
        assert float(h.flatten(1).mean(1).abs().max()) <= FLOAT64
        assert relative(h.flatten(1).std(1, correction=0), torch.ones(3, dtype=torch.float64)) <= FLOAT64
        assert relative(net(3 * x - 1.5, c), net(x, c)) > FLOAT32_NETWORK  # fixed numbers do not commute with channels
        gray, x, c = made("one channel, odd sizes")
        assert relative(gray(3 * x - 1.5, c), gray(x, c)) <= FLOAT64_NETWORK
        # The least deviation is 1 / sqrt(D): an image that is nearly constant is not blown up to noise.
        faint = torch.full_like(x, 0.4)
        faint[:, 0, 0, 0] += 0.003
        h = gray.standardised(faint)
    assert float(h.max() - h.min()) == pytest.approx(0.003 / 0.3 * math.sqrt(63), rel=FLOAT64)


# ------------------------------------------------------------------------------------------------------------- laws


@EACH
def test_examples_do_not_see_each_other(name: str) -> None:
    net, x, c = made(name)
    with torch.no_grad():
        whole = net(x, c)
        alone = torch.cat([net(x[i : i + 1], c[i : i + 1]) for i in range(3)])
        assert relative(net(x, c + 0.5), whole) > FLOAT32_NETWORK  # the noise level is heard
        assert torch.equal(net.train()(x, c), whole)
    assert whole.shape == (3, 5) and relative(alone, whole) <= FLOAT64_NETWORK


@EACH
def test_precision_follows_the_network(name: str) -> None:
    net, x, c = made(name)
    with torch.no_grad():
        exact = net(x, c)
        single = net.float()(x.float(), c)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x.float(), c)
    assert (exact.dtype, single.dtype, half.dtype) == (torch.float64, torch.float32, torch.float32)
    assert relative(single.double(), exact) <= FLOAT32_NETWORK
    assert relative(half.double(), exact) <= AUTOCAST_BFLOAT16


def test_gradients_of_guidance_and_of_training() -> None:
    net, x, c = made("image")
    labels = torch.tensor([0, 4, 2])
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def likelihood(x: Tensor) -> Tensor:
        return net(x, c).log_softmax(1)[torch.arange(3), labels].sum()

    x.requires_grad_(True)
    value = likelihood(x)
    (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
    # Next to a kink of relu a central difference over a wider step is wrong by more than rounding.
    h = 1e-6
    with torch.no_grad():
        slope = float(likelihood(x + h * direction) - likelihood(x - h * direction)) / (2 * h)
    scale = float(gradient.norm() * direction.norm())
    assert abs(float((gradient * direction).sum()) - slope) <= FINITE_DIFFERENCE * scale
    value.backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


@EACH
def test_weights_and_configuration_round_trip(name: str) -> None:
    config, data = CASES[name]
    assert loads(dumps(config), GuideConfig) == config
    net, x, c = made(name)
    other = config.build(data, 5).double()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(other(x, c), net(x, c))


def test_classes_among_the_conditions_play_no_role() -> None:
    label = (ConditionSpec("label", "class", 10),)
    torch.manual_seed(3)
    bare = WideResNet(10, 1, **TINY).build(DataSpec((1, 8, 8)), 10)
    torch.manual_seed(3)
    rich = WideResNet(10, 1, **TINY).build(DataSpec((1, 8, 8), conditions=label), 10)
    x, c = torch.rand(2, 1, 8, 8), torch.zeros(2)
    assert isinstance(rich, GuideNetwork) and torch.equal(rich(x, c), bare(x, c))


def test_every_configuration_is_known_to_the_codec() -> None:
    assert set(record_types(GuideConfig)) == {"WideResNet", "GuideMLP", "GuideConvolutions"}


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 27}, r"6 n \+ 4 with n >= 1, such as 10, 16, 22 or 28; got 27"),
        ({"depth": 4}, "got 4"),
        ({"widen": 0}, "positive"),
        ({"deviation": 0.0}, "deviation divides x and must be positive"),
        ({"deviation": (0.2, -0.1, 0.2)}, "must be positive"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WideResNet(**fields)


def test_refuses_data_and_arguments_it_cannot_take() -> None:
    with pytest.raises(ValueError, match="one output or more; got outputs=0"):
        WideResNet(10, 1).build(DataSpec((3, 8, 8)), 0)
    with pytest.raises(ValueError, match=r"signals \(C, L\) and images \(C, H, W\); got data .*\(2,\). GuideMLP"):
        WideResNet(10, 1).build(DataSpec((2,)), 10)
    with pytest.raises(ValueError, match=r"has 3 numbers for data of shape \(1, 8, 8\); give one number, or 1"):
        WideResNet(10, 1, CIFAR10_MEAN).build(DataSpec((1, 8, 8)), 10)
    net = WideResNet(10, 1).build(DataSpec((1, 8, 8)), 10)
    with pytest.raises(ValueError, match=r"of shape \(1, 8, 8\); got a batch of shape \(2, 1, 8, 9\)"):
        net(torch.zeros(2, 1, 8, 9), torch.zeros(2))
    with pytest.raises(ValueError, match=r"c must have shape \(2,\)"):
        net(torch.zeros(2, 1, 8, 8), torch.zeros(3))
