"""The RefineNets of NCSN and NCSNv2, ResScore and the toy perceptron: normalisations, blocks, labels, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from nets.small_nets import IMAGE, REFINE_NETS, batch, build
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets import NCSN, NCSNv2, NetworkConfig, ResScore, ToyMLP
from scorefield.nets.refinenets.blocks import (
    EncoderBlock,
    Fusion,
    MeanPooledConv,
    RefineStyle,
    SpectralConv2d,
    max_pool,
    mean_pool,
)
from scorefield.nets.refinenets.instance_norm import (
    ConditionalInstanceNorm,
    ConditionalInstanceNormPlus,
    InstanceNormPlus,
    VarianceNorm,
)
from scorefield.nets.refinenets.refinenet import RefineNet
from tolerance import (
    FINITE_DIFFERENCE,
    FLOAT32,
    FLOAT64,
    FLOAT64_NETWORK,
    GOLDEN_SCORE,
    INITIAL_SCALE,
    LARGE_NORM,
    POWER_ITERATION,
)

PLAIN = RefineStyle(norm=InstanceNormPlus, norm_in_refinement=False, act=functional.elu, pool=max_pool)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    """Random numbers, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def largest(difference: torch.Tensor) -> float:
    """The largest size of an entry."""
    return float(difference.detach().abs().max())


def written_out(x: torch.Tensor, gamma: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """InstanceNorm++ of one example (C, H, W), channel by channel."""
    means = [float(x[c].mean()) for c in range(len(x))]
    m = sum(means) / len(means)
    v = sum((mean - m) ** 2 for mean in means) / (len(means) - 1)
    out = []
    for c, mean in enumerate(means):
        variance = float(((x[c] - mean) ** 2).mean())
        h = (x[c] - mean) / (variance + 1e-5) ** 0.5 + alpha[c] * (mean - m) / (v + 1e-5) ** 0.5
        out.append(gamma[c] * h + beta[c])
    return torch.stack(out)


# ------------------------------------------------------------------------------------------------ normalisation


def test_instance_norm_plus_is_its_definition() -> None:
    x, (gamma, alpha, beta) = 0.3 + 2 * normal(3, 5, 4, 6), normal(3, 5, seed=2)
    x[1, 2] = 0.7  # a constant channel
    norm = InstanceNormPlus(5).double()
    norm.load_state_dict({"gamma": gamma, "alpha": alpha, "beta": beta})
    expected = torch.stack([written_out(example, gamma, alpha, beta) for example in x])
    assert largest(norm(x) - expected) <= FLOAT64 * largest(expected)


def test_conditional_instance_norm_plus_reads_the_row_of_the_label() -> None:
    x, table, labels = 0.3 + 2 * normal(3, 5, 4, 6), normal(4, 15, seed=2), torch.tensor([2, 0, 2])
    norm = ConditionalInstanceNormPlus(5, 4).double()
    norm.load_state_dict({"embed.weight": table})
    rows = [table[label].reshape(3, 5) for label in labels]
    expected = torch.stack([written_out(example, *row) for example, row in zip(x, rows, strict=True)])
    assert largest(norm(x, labels) - expected) <= FLOAT64 * largest(expected)


def test_conditional_instance_norm_has_no_contrast() -> None:
    x, table, labels = normal(2, 5, 4, 6), normal(4, 10, seed=2), torch.tensor([3, 1])
    norm = ConditionalInstanceNorm(5, 4).double()
    norm.load_state_dict({"embed.weight": table})
    gamma, beta = table[labels][:, :, None, None].chunk(2, dim=1)
    expected = gamma * functional.instance_norm(x) + beta
    assert largest(norm(x, labels) - expected) <= FLOAT64 * largest(expected)
    assert largest(norm(x + 5 * torch.arange(5.0)[:, None, None], labels) - expected) <= FLOAT64 * 100


def test_variance_norm_keeps_the_mean() -> None:
    x = normal(2, 3, 4, 6) + 2
    norm = VarianceNorm(3).double()
    norm.load_state_dict({"alpha": torch.tensor([0.5, -1.0, 2.0])})
    deviation = (x.flatten(2).var(2, correction=1) + 1e-5).sqrt()[:, :, None, None]
    expected = torch.tensor([0.5, -1.0, 2.0])[:, None, None] * x / deviation
    assert largest(norm(x) - expected) <= FLOAT64 * largest(expected)


def test_float32_statistics_survive_a_large_mean() -> None:
    """Channels with a mean of four deviations, 256 x 256 positions, against float64."""
    x = 4 + normal(1, 2, 256, 256)
    norm = InstanceNormPlus(2)
    with torch.no_grad():
        assert largest(norm(x.float()).double() - copy.deepcopy(norm).double()(x)) <= LARGE_NORM


def test_initial_normalisations() -> None:
    torch.manual_seed(0)
    table = ConditionalInstanceNormPlus(256, 128).embed.weight.detach()
    gains = table[:, :512]
    assert abs(float(gains.mean()) - 1) <= INITIAL_SCALE
    assert abs(float(gains.std()) / 0.02 - 1) <= INITIAL_SCALE
    assert bool((table[:, 512:] == 0).all())
    uniform = ConditionalInstanceNorm(512, 128).embed.weight.detach()
    assert abs(float(uniform[:, :512].std()) * 12**0.5 - 1) <= INITIAL_SCALE
    assert float(uniform.min()) >= 0 and float(uniform.max()) < 1 and bool((uniform[:, 512:] == 0).all())
    plain = InstanceNormPlus(65536).state_dict()
    assert abs(float(plain["gamma"].std()) / 0.02 - 1) <= INITIAL_SCALE
    assert abs(float(plain["alpha"].std()) / 0.02 - 1) <= INITIAL_SCALE
    assert bool((plain["beta"] == 0).all()) and not torch.equal(plain["alpha"], plain["gamma"])


# ------------------------------------------------------------------------------------------------ blocks


def test_pools_look_at_five_by_five_positions() -> None:
    x = normal(2, 3, 7, 6) - 3  # all negative: zeros outside would show
    assert largest(mean_pool(x) - functional.avg_pool2d(x, 5, 1, 2, count_include_pad=True)) <= FLOAT64
    assert torch.equal(max_pool(x), functional.max_pool2d(x, 5, 1, 2))
    corner = mean_pool(torch.ones(1, 1, 8, 8, dtype=torch.float64))[0, 0, 0, 0]
    assert abs(float(corner) - 9 / 25) <= FLOAT64


@pytest.mark.parametrize("size", [1, 3])
def test_mean_pooled_convolution(size: int) -> None:
    layer, x = MeanPooledConv(PLAIN, 2, 3, size).double(), normal(2, 2, 6, 4)
    y = layer.conv(x)
    phases = (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 4
    assert largest(layer(x) - phases) <= FLOAT64


def test_first_dilated_block_keeps_the_size_and_has_a_dilated_shortcut() -> None:
    block = EncoderBlock(PLAIN, 4, 4, dilation=4, first=True)
    assert isinstance(block.shortcut, nn.Conv2d)
    for conv in (block.conv1, block.conv2, block.shortcut):
        assert isinstance(conv, nn.Conv2d)
        assert (conv.kernel_size, conv.dilation, conv.padding) == ((3, 3), (4, 4), (4, 4))
    assert block(torch.zeros(1, 4, 6, 6), None).shape == (1, 4, 6, 6)
    assert EncoderBlock(PLAIN, 4, 4, dilation=4, first=False).shortcut is None
    assert EncoderBlock(PLAIN, 4, 6, dilation=1, first=True)(torch.zeros(1, 4, 6, 6), None).shape == (1, 6, 3, 3)


def test_fusion_resizes_with_corners_on_corners() -> None:
    """A linear ramp stays linear, end to end; at its own size the release's interpolation changes nothing."""
    x = normal(2, 3, 6, 4)
    assert torch.equal(functional.interpolate(x, (6, 4), mode="bilinear", align_corners=True), x)
    fusion = Fusion(PLAIN, (1, 1), 1).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.zero_()
        for module in fusion.convs:
            assert isinstance(module, nn.Conv2d)
            module.weight[0, 0, 1, 1] = 1.0
    fine, ramp = torch.zeros(1, 1, 4, 7, dtype=torch.float64), torch.linspace(0, 1, 4, dtype=torch.float64)
    wide = fusion([fine, ramp.expand(1, 1, 2, 4)], None)
    assert largest(wide - torch.linspace(0, 1, 7, dtype=torch.float64)) <= FLOAT64


@pytest.mark.parametrize("bias", [True, False])
def test_spectral_convolution_is_that_of_torch(bias: bool) -> None:
    """Its state loads into ours, and outputs, gradients and power iterations agree in training and in evaluation."""
    torch.manual_seed(0)
    theirs = nn.utils.spectral_norm(nn.Conv2d(3, 5, 3, padding=2, dilation=2, bias=bias).double())
    ours = SpectralConv2d(3, 5, 3, padding=2, dilation=2, bias=bias).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    ours.load_state_dict(theirs.state_dict())
    x = normal(2, 3, 6, 6)
    for _ in range(3):
        gradients = []
        for conv in (ours, theirs):
            conv.zero_grad()
            (conv(x) ** 2).sum().backward()
            gradients.append([p.grad for p in conv.parameters()])
        for a, b in zip(*gradients, strict=True):
            assert largest(a - b) <= FLOAT64 * largest(b)
        for key, value in theirs.state_dict().items():
            assert largest(ours.state_dict()[key] - value) <= FLOAT64, key
    for conv in (ours, theirs):
        conv.eval()
    assert largest(ours(x) - theirs(x)) <= FLOAT64
    assert torch.equal(copy.deepcopy(ours)(x), ours(x))


def test_spectral_convolution_starts_near_norm_one() -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(8, 16, 3, padding=1, dilation=1, bias=True)
    matrix = conv.weight_orig.detach().flatten(1)
    estimate = float(conv.weight_u @ matrix @ conv.weight_v)
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert (1 - POWER_ITERATION) * exact <= estimate <= (1 + FLOAT32) * exact


# ------------------------------------------------------------------------------------------------ networks


def built(config: NetworkConfig, data: DataSpec = IMAGE) -> RefineNet:
    """A RefineNet."""
    net = build(config, data)
    assert isinstance(net, RefineNet)
    return net


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (NCSN(channels=4), (32, 16, 16, 16)),
        (NCSN(channels=4, deeper=True), (32, 16, 8, 8, 8)),
        (NCSNv2(channels=4), (32, 16, 16, 16)),
        (NCSNv2(channels=4, depth="deeper"), (32, 16, 8, 8, 8)),
        (NCSNv2(channels=4, depth="deepest"), (32, 16, 8, 4, 4, 4)),
        (NCSNv2(channels=4, dilation=False), (32, 16, 8, 4)),
        (NCSNv2(channels=4, depth="deeper", dilation=False), (32, 16, 8, 4, 2)),
        (NCSNv2(channels=4, depth="deepest", dilation=False), (32, 16, 8, 4, 2, 1)),
    ],
)
def test_stages_halve_the_size_unless_dilated(config: NetworkConfig, sizes: tuple[int, ...]) -> None:
    net, seen = built(config, DataSpec((1, 32, 32))), []
    for stage in net.stages:
        module = net.get_submodule(stage.name).get_submodule("1")
        module.register_forward_hook(lambda _, __, output: seen.append(output.shape[-1]))
    with torch.no_grad():
        net(torch.zeros(1, 1, 32, 32), torch.zeros(1))
    assert tuple(seen) == sizes
    assert net.multiple == (32 // sizes[-1],) * 2


def test_convolutions_without_dilation_have_the_names_of_pooled_ones() -> None:
    names = set(built(NCSNv2(channels=4, dilation=False)).state_dict())
    assert {"res4.0.conv2.conv.weight", "res4.0.shortcut.conv.weight"} <= names
    assert "res4.0.shortcut.weight" not in names


def test_the_published_28_pixels_need_no_padding() -> None:
    x = torch.zeros(1, 1, 28, 28)
    for config in (NCSN(channels=4), NCSNv2(channels=4)):
        with torch.no_grad():
            assert built(config, DataSpec((1, 28, 28)))(x, torch.zeros(1)).shape == x.shape


def test_label_chooses_the_normalisation_and_nothing_else() -> None:
    """Label 2 of one network is label 0 of another that has the rows of its tables in another order."""
    net = built(NCSN(channels=4, levels=5)).double()
    moved = copy.deepcopy(net)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name.endswith("embed.weight"):
                parameter.copy_(parameter.roll(-2, 0))
    x, c = batch(IMAGE, 3, torch.float64)
    with torch.no_grad():
        y = net(x, c)
        assert largest(moved(x, (c - 2) % 5) - y) <= FLOAT64_NETWORK * largest(y)
        assert largest(net(x, c + 1) - y) > 10 * GOLDEN_SCORE * largest(y)
        assert torch.equal(net(x, c + 4e-4), y)  # a label that was computed as 1 - l / (L - 1) and back


@pytest.mark.parametrize(
    ("c", "message"),
    [
        ([0.0, 5.0], r"integer in 0\.\.4 with 0 the most noise; got c = 5"),
        ([-1.0, 0.0], "got c = -1"),
        ([0.0, 1.5], "got c = 1.5"),
        ([0.0, float("nan")], "got c = nan"),
        ([0.0, float("inf")], "got c = inf"),
    ],
)
def test_refuses_what_is_no_label(c: list[float], message: str) -> None:
    net = built(NCSN(channels=4, levels=5))
    with pytest.raises(ValueError, match=message):
        net(torch.zeros(2, *IMAGE.shape), torch.tensor(c))


@pytest.mark.parametrize(
    "config", [NCSN(channels=4, levels=None), NCSNv2(channels=4), ResScore(channels=8), ToyMLP(width=8)]
)
def test_networks_without_noise_level_ignore_c(config: NetworkConfig) -> None:
    net, (x, c) = build(config, IMAGE), batch(IMAGE)
    with torch.no_grad():
        assert torch.equal(net(x, c), net(x, -2.7 * c))


@pytest.mark.parametrize("config", [NCSN, NCSNv2])
def test_input_is_centred_before_anything_else(config: type) -> None:
    x, c = batch(IMAGE, 2, torch.float64)
    with torch.no_grad():
        off = build(config(channels=4), IMAGE).double()(x, c)
        on = build(config(channels=4, centered=True), IMAGE).double()
        assert largest(off - on(2 * x - 1, c)) <= FLOAT64_NETWORK * largest(off)
        assert largest(off - on(x, c)) > 10 * GOLDEN_SCORE * largest(off)


def test_resscore_takes_images_between_zero_and_one() -> None:
    net, (x, c) = build(ResScore(channels=8), IMAGE).double(), batch(IMAGE, 2, torch.float64)
    with torch.no_grad():
        h = 2 * x - 1
        for layer in [*net.get_submodule("convs").children(), *net.get_submodule("deconvs").children()]:
            h = layer(h)
        assert largest(net(x, c) - h) <= FLOAT64_NETWORK * largest(h)


def test_toy_perceptron_is_its_formula() -> None:
    data = DataSpec((2,))
    net, (x, c) = build(ToyMLP(width=7), data).double(), batch(data, 4, torch.float64)
    state = net.state_dict()

    def affine(name: str, h: torch.Tensor) -> torch.Tensor:
        return h @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    expected = affine("third", affine("second", affine("first", x).exp().log1p()).exp().log1p())
    with torch.no_grad():
        assert largest(net(x, c) - expected) <= FLOAT64 * largest(expected)


SMOOTH: dict[str, tuple[NetworkConfig, DataSpec]] = {
    "ncsn": (NCSN(channels=4, levels=3, activation="swish"), IMAGE),
    "ncsnv2": (NCSNv2(channels=4, activation="swish"), IMAGE),
    "ncsnv2, variance": (NCSNv2(channels=4, norm="variance", activation="swish"), IMAGE),
    "ncsnv2, spectral": (NCSNv2(channels=4, activation="swish", spectral_norm=True), IMAGE),
    "resscore": (ResScore(channels=8, activation="swish"), IMAGE),
    "toy": (ToyMLP(width=8), DataSpec((3,))),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_sliced_term_has_the_gradient_of_its_slope(name: str) -> None:
    """d/d weights of v . d(v . net)/dx, two backward passes through the network, against a central difference."""
    config, data = SMOOTH[name]
    net, (x, c) = build(config, data).double(), batch(data, 2, torch.float64)
    v = batch(data, 2, torch.float64, seed=4)[0]
    x.requires_grad_(True)

    def term() -> torch.Tensor:
        (slope,) = torch.autograd.grad((net(x, c) * v).sum(), x, create_graph=True)
        return (slope * v).sum()

    parameters = list(net.parameters())
    gradients = torch.autograd.grad(term(), parameters, allow_unused=True)  # the last bias is not in the slope
    pairs = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    directions = [normal(*p.shape, seed=k) for k, (p, _) in enumerate(pairs)]
    h, sides = 1e-8, []  # the slope bends within 1e-6: a maximum moves to another position
    for move in (h, -2 * h):
        with torch.no_grad():
            for (p, _), d in zip(pairs, directions, strict=True):
                p.add_(move * d)
        sides.append(float(term().detach()))
    found = sum(float((g * d).sum()) for (_, g), d in zip(pairs, directions, strict=True))
    scale = sum(float(g.norm() * d.norm()) for (_, g), d in zip(pairs, directions, strict=True))
    assert len(pairs) >= len(parameters) - 1
    assert abs(found - (sides[0] - sides[1]) / (2 * h)) <= FINITE_DIFFERENCE * scale


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("config", [NCSN(channels=4), NCSNv2(channels=4), ResScore(channels=8)])
def test_refuses_data_that_are_no_images(config: NetworkConfig) -> None:
    for shape in ((2,), (3, 16), (1, 4, 4, 4)):
        with pytest.raises(ValueError, match=r"takes images \(C, H, W\).*For vectors use .*MLP\(\)"):
            config.build(DataSpec(shape))


@pytest.mark.parametrize("name", [*REFINE_NETS, "toy"])
def test_refuses_conditions(name: str) -> None:
    config, data = REFINE_NETS.get(name, (ToyMLP(width=4), DataSpec((2,))))
    label = ConditionSpec("label", "class", 4)
    with pytest.raises(ValueError, match=rf"{type(config).__name__} cannot be conditioned, .* conditions 'label'"):
        config.build(DataSpec(data.shape, conditions=(label,)))
    net, (x, c) = build(config, data), batch(data, 2)
    with pytest.raises(ValueError, match="takes no condition 'label'"):
        net(x, c, {"label": torch.zeros(2, dtype=torch.int64)})


def test_refuses_sizes_that_do_not_halve() -> None:
    with pytest.raises(ValueError, match=r"multiples of \(8, 8\); got \(8, 12\).*Pad to \(8, 16\)"):
        built(NCSNv2(channels=4, depth="deepest"))(torch.zeros(1, 3, 8, 12), torch.zeros(1))


def test_refuses_a_variance_of_one_position() -> None:
    config = NCSNv2(channels=4, depth="deepest", norm="variance")
    with pytest.raises(ValueError, match=r"images of 128 pixels or more; got data of shape \(1, 8, 5\)"):
        config.build(DataSpec((1, 8, 5)))
    assert bool(torch.isfinite(build(config, DataSpec((1, 8, 9)))(torch.ones(1, 1, 8, 16), torch.zeros(1))).all())


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (NCSN, {"channels": 1}, "at least 2, because InstanceNorm"),
        (NCSN, {"levels": 0}, "levels must be positive, or None"),
        (NCSN, {"levels": None, "norm": "instance"}, "conditional on the noise level and needs levels"),
        (NCSNv2, {"channels": 1}, "at least 2 with norm='instance"),
        (NCSNv2, {"channels": 0, "norm": "none"}, "at least 1"),
        (ResScore, {"channels": 0}, "positive"),
        (ToyMLP, {"width": 0}, "positive"),
    ],
)
def test_refuses_fields_out_of_range(config: type, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)
