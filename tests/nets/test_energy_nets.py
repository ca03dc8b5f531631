"""The energies of multi-scale denoising score matching: counts, checkpoints, double backward, padding, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call

from nets.small_nets import batch, build
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets.energies.energy_resnet import EnergyResNet, ResidualEnergy
from tolerance import FINITE_DIFFERENCE, FLOAT64, FLOAT64_NETWORK, GOLDEN_LOSS, GOLDEN_SCORE, INITIAL_LOSS

GOLDEN = Path(__file__).parents[1] / "golden" / "mdsm"
PUBLISHED = {
    "res18_rgb": (EnergyResNet(4), DataSpec((3, 32, 32))),
    "res12_gray": (EnergyResNet(4, 12), DataSpec((1, 32, 32))),
}
SMALL = EnergyResNet(3, 6)


def gradient(net: ResidualEnergy, x: Tensor, *, create_graph: bool = False) -> Tensor:
    """dE/dx of each example."""
    x = x.detach().requires_grad_(True)
    energy = net(x, torch.zeros(len(x), dtype=x.dtype))
    return torch.autograd.grad(energy.sum(), x, create_graph=create_graph)[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints(name: str) -> None:
    config, data = PUBLISHED[name]
    assert json.loads((GOLDEN / name / "config.json").read_text())["network"] == f"Res{config.depth}_Quadratic"
    weights = torch.load(GOLDEN / name / "checkpoint.pth", weights_only=True)
    weights = {key.removeprefix("module."): value for key, value in weights.items() if ".bn" not in key}
    net = config.build(data).eval()
    assert list(net.state_dict()) == list(weights)
    net.load_state_dict(weights)
    io = load_file(GOLDEN / name / "io.safetensors")
    x, sigmas = io["x_noisy"], io["sigmas"].reshape(-1, 1, 1, 1)
    energy, g = net(x, torch.zeros(len(x))).detach(), gradient(net, x)
    assert (energy - io["energy"]).abs().max() <= GOLDEN_SCORE * io["energy"].abs().max()
    assert (g - io["grad_energy"]).abs().max() <= GOLDEN_SCORE * io["grad_energy"].abs().max()
    loss = ((g - (x - io["x0"]) / 0.1**2) / sigmas).square().flatten(1).sum(1)
    torch.testing.assert_close(loss, io["loss_per_example"], rtol=GOLDEN_LOSS, atol=0)


def test_other_activation_is_another_energy() -> None:
    """The golden numbers notice a wrong choice: they are not met by any function of the right shape."""
    io = load_file(GOLDEN / "res12_gray" / "io.safetensors")
    weights = torch.load(GOLDEN / "res12_gray" / "checkpoint.pth", weights_only=True)
    net = EnergyResNet(4, 12, activation="swish").build(DataSpec((1, 32, 32)))
    net.load_state_dict({key.removeprefix("module."): value for key, value in weights.items() if ".bn" not in key})
    with torch.no_grad():
        energy = net(io["x_noisy"], torch.zeros(4))
    assert (energy - io["energy"]).abs().max() > 10 * GOLDEN_SCORE * io["energy"].abs().max()


@pytest.mark.parametrize("config", [SMALL, EnergyResNet(2, 6, "linear"), EnergyResNet(2, 34, activation="swish")])
def test_double_backward_is_the_slope_of_the_loss(config: EnergyResNet) -> None:
    """Along a direction of the parameters: the loss contains dE/dx, so its gradient needs a second derivative."""
    data = DataSpec((1, 16, 16))
    net, (x, _) = build(config, data).double(), batch(data, 2, torch.float64)
    assert isinstance(net, ResidualEnergy)
    parameters = dict(net.named_parameters())
    generator = torch.Generator().manual_seed(3)
    direction = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in parameters.items()}

    def loss(step: float) -> Tensor:
        def moved(x: Tensor) -> Tensor:
            weights = {k: p + step * direction[k] for k, p in parameters.items()}
            return functional_call(net, weights, (x, torch.zeros(len(x), dtype=x.dtype)))

        leaf = x.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(moved(leaf).sum(), leaf, create_graph=True)
        return g.square().sum()

    gradients = torch.autograd.grad(loss(0.0), list(parameters.values()), allow_unused=True)
    h = 1e-5
    slope = float((loss(h) - loss(-h)).detach()) / (2 * h)
    parts = [float((g * d).sum()) for g, d in zip(gradients, direction.values(), strict=True) if g is not None]
    scale = sum(float(g.norm() * d.norm()) for g, d in zip(gradients, direction.values(), strict=True) if g is not None)
    assert abs(sum(parts) - slope) <= FINITE_DIFFERENCE * scale
    constant = {"lq.bias"} if config.head == "quadratic" else {"ln.bias"}
    assert {k for k, g in zip(parameters, gradients, strict=True) if g is None} == constant


def test_quadratic_head_is_the_stated_polynomial() -> None:
    data = DataSpec((1, 8, 8))
    net, (x, c) = build(SMALL, data).double(), batch(data, 3, torch.float64)
    h: list[Tensor] = []
    net.get_submodule("rb3").register_forward_hook(lambda module, args, output: h.append(output.flatten(1)))
    with torch.no_grad():
        energy = net(x, c)
        w = {name: net.get_parameter(f"{name}.weight")[0] for name in ("ln1", "ln2", "lq")}
        b = {name: net.get_parameter(f"{name}.bias")[0] for name in ("ln1", "ln2", "lq")}
    expected = (h[0] @ w["ln1"] + b["ln1"]) * (h[0] @ w["ln2"] + b["ln2"]) + h[0] ** 2 @ w["lq"] + b["lq"]
    torch.testing.assert_close(energy, expected, rtol=FLOAT64, atol=FLOAT64)


def test_sizes_that_cannot_be_halved_are_padded_with_zeros_on_both_sides() -> None:
    small, large = DataSpec((2, 12, 15)), DataSpec((2, 16, 16))
    net, wide = build(SMALL, small).double(), build(SMALL, large).double()
    wide.load_state_dict(net.state_dict())
    x, c = batch(small, 3, torch.float64)
    with torch.no_grad():
        padded = torch.nn.functional.pad(x, (0, 1, 2, 2))
        assert (net(x, c) - wide(padded, c)).abs().max() <= FLOAT64_NETWORK * net(x, c).abs().max()
    assert net.multiple == (1, 1)


def test_no_level_and_no_constant() -> None:
    data = DataSpec((1, 8, 8))
    net, (x, c) = build(SMALL, data).double(), batch(data, 3, torch.float64)
    with torch.no_grad():
        before = net(x, c)
        assert torch.equal(net(x, c + 7), before) and before.shape == (3,)
        net.get_parameter("lq.bias").add_(2.5)
        assert (net(x, c) - before - 2.5).abs().max() <= FLOAT64_NETWORK * before.abs().max()


def test_first_loss_is_the_dimension() -> None:
    """At first dE/dx is nearly zero, and sigma^-2 |x - x_t + sigma_0^2 dE/dx|^2 is |z|^2, whose mean is D."""
    torch.manual_seed(0)
    data = DataSpec((3, 32, 32))
    net = EnergyResNet(32).build(data)
    sigmas = torch.linspace(0.05, 1.2, 8).reshape(-1, 1, 1, 1)
    z = torch.randn(8, *data.shape)
    x = torch.rand(8, *data.shape)
    loss = ((-sigmas * z + 0.01 * gradient(net, x + sigmas * z)) / sigmas).square().flatten(1).sum(1).mean()
    assert abs(float(loss) / data.dimension - 1) <= INITIAL_LOSS


def test_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="one of 6, 12, 18, 34; got 20"):
        EnergyResNet(depth=20)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='"quadratic" or "linear"'):
        EnergyResNet(head="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive, for example 128"):
        EnergyResNet(channels=0)
    with pytest.raises(ValueError, match=r"signals \(C, L\) and images"):
        SMALL.build(DataSpec((2,)))
    with pytest.raises(ValueError, match="EnergyResNet cannot be conditioned, and the data have the conditions 'pose'"):
        SMALL.build(DataSpec((1, 8, 8), conditions=(ConditionSpec("pose", "vector", 2),)))
    net = SMALL.build(DataSpec((1, 8, 8)))
    with pytest.raises(
        ValueError, match=r"built for examples of shape \(1, 8, 8\); got a batch of shape \(2, 1, 16, 8"
    ):
        net(torch.zeros(2, 1, 16, 8), torch.zeros(2))
    with pytest.raises(ValueError, match=r"built for examples of shape \(1, 8, 8\)"):
        net(torch.zeros(2, 3, 8, 8), torch.zeros(2))
    with pytest.raises(ValueError, match=r"c must have shape \(2,\)"):
        net(torch.zeros(2, 1, 8, 8), torch.zeros(()))
    with pytest.raises(ValueError, match="takes no condition 'pose'"):
        net(torch.zeros(2, 1, 8, 8), torch.zeros(2), {"pose": torch.zeros(2, 2)})
