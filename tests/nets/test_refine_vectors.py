"""The RefineNets and ResScore against outputs of the reference implementations, and their small checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nets.published_nets import hashed_input, hashed_uniform
from nets.sine_rule import agree, fill_with_sines, numbers, sine_input
from scorefield._math import over_event
from scorefield.data_spec import DataSpec
from scorefield.nets import NCSN, NCSNv2, Network, NetworkConfig, ResScore
from scorefield.nets.refinenets.instance_norm import ConditionalInstanceNormPlus
from tolerance import GOLDEN_SCORE, NETWORK_VECTOR

GOLDEN = Path(__file__).parents[1] / "golden"
LABELS = torch.tensor([1, 3])

# Configuration, event, parameters and tensors, then mean, deviation, largest size, first, middle and last entry.
ROWS: dict[str, tuple[NetworkConfig, tuple[int, int, int], tuple[int, int], tuple[float, ...]]] = {
    "ncsn": (
        NCSN(channels=8),
        (3, 32, 32),
        (143_795, 173),
        (0.5718017, 0.97662892, 5.9638375, 0.58211413, 0.49767635, 0.58525203),
    ),
    "ncsn, 28 pixels": (
        NCSN(channels=8),
        (1, 28, 28),
        (143_505, 173),
        (0.21991386, 0.94457292, 5.050017, 0.59357586, 0.31433287, 0.39429296),
    ),
    "ncsn, deeper": (
        NCSN(channels=8, deeper=True, norm="instance"),
        (3, 32, 32),
        (358_371, 217),
        (0.59142086, 0.6156951, 3.3739981, 0.32661646, 0.66335824, 0.60482203),
    ),
    "ncsn, one noise level": (
        NCSN(channels=8, levels=None),
        (3, 32, 32),
        (119_387, 315),
        (0.62001895, 0.75252726, 4.356609, 0.5466381, 0.64777752, 0.62520759),
    ),
    "resscore": (
        ResScore(channels=8),
        (3, 32, 32),
        (87_443, 92),
        (0.89735017, 3.7266087, 20.413848, 1.7999136, -1.1294835, 2.9292538),
    ),
    "ncsnv2": (
        NCSNv2(channels=8),
        (3, 32, 32),
        (117_323, 153),
        (0.53463955, 0.36681299, 2.0503769, 0.20014914, 0.81782209, 0.61201916),
    ),
    "ncsnv2, deeper": (
        NCSNv2(channels=8, depth="deeper"),
        (3, 32, 32),
        (327_979, 191),
        (0.53028491, 0.49689158, 2.0852768, 0.62325044, 0.5434849, 0.59967133),
    ),
    "ncsnv2, deepest": (
        NCSNv2(channels=8, depth="deepest"),
        (3, 64, 64),
        (370_011, 229),
        (0.5204127, 0.62533952, 6.8236311, 0.58228884, 0.58100357, 0.3094242),
    ),
}


def test_normalisation_against_the_reference() -> None:
    norm = ConditionalInstanceNormPlus(3, 10).double()
    fill_with_sines(norm)
    with torch.no_grad():
        y = norm(sine_input(2, 3, 4, 4), LABELS)
    assert sum(p.numel() for p in norm.parameters()) == 90
    assert agree(numbers(y), (0.46508972, 0.25443174, 0.74292849, -0.49529731, 0.087448328, 0.72155641))


@pytest.mark.parametrize("name", ROWS)
def test_whole_network_against_the_reference(name: str) -> None:
    config, shape, counts, printed = ROWS[name]
    net = config.build(DataSpec(shape)).double().eval()
    fill_with_sines(net)
    parameters = list(net.parameters())
    assert (sum(p.numel() for p in parameters), len(parameters)) == counts
    with torch.no_grad():
        y = net(sine_input(2, *shape), LABELS.double())
    assert agree(numbers(y), printed)


@pytest.mark.slow
def test_full_size_with_hashed_weights() -> None:
    """NCSNv2 at 64 pixels and below as the SDE framework's repository has it."""
    net = NCSNv2().build(DataSpec((3, 32, 32))).eval()
    with torch.no_grad():
        for k, parameter in enumerate(net.parameters()):
            u = torch.from_numpy(hashed_uniform(parameter.numel(), k)).reshape(parameter.shape)
            fan = parameter[0].numel()
            parameter.copy_(u * 2 * math.sqrt(3 / fan) if parameter.ndim > 1 else 0.2 * u)
        labels = torch.tensor([3, 100])
        sigma = torch.linspace(math.log(50.0), math.log(0.01), 232, dtype=torch.float64).exp()[labels].float()
        o = net(hashed_input(2, 3, 32, 32), labels.float()) / over_event(sigma, torch.empty(2, 3, 32, 32))
    found = [float(v) for v in (o.mean(), o.std(correction=0), o.norm(), o[0, 0, 0, 0], o[1, 2, -1, -1])]
    printed = (0.0168411, 0.0344095, 3.002859, -0.00393122, 0.102735)
    for value, reference in zip(found, printed, strict=True):
        assert math.isclose(value, reference, rel_tol=NETWORK_VECTOR, abs_tol=NETWORK_VECTOR * printed[1])


# ------------------------------------------------------------------------------------------------ checkpoints


def loaded(config: NetworkConfig, size: tuple[int, int, int], weights: dict[str, torch.Tensor]) -> Network:
    """The network with weights copied by name, every name used and none missing."""
    net = config.build(DataSpec(size)).eval()
    net.load_state_dict(weights)
    return net


def stripped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without the prefix of data parallelism, without the ladder."""
    return {key.removeprefix("module."): value for key, value in weights.items() if key != "module.sigmas"}


@pytest.mark.parametrize(("name", "shape"), [("cifar_style", (3, 16, 16)), ("mnist_style_28", (1, 28, 28))])
def test_score_of_a_published_ncsn(name: str, shape: tuple[int, int, int]) -> None:
    checkpoint = torch.load(GOLDEN / "ncsn" / name / "checkpoint.pth", weights_only=True)
    io = load_file(GOLDEN / "ncsn" / name / "io.safetensors")
    weights = stripped(checkpoint[0])
    net = loaded(NCSN(channels=8), shape, weights)
    assert list(net.state_dict()) == list(weights)
    with torch.no_grad():
        score = net(io["xt"], io["labels"])
        other = net(io["xt"], (io["labels"] + 1) % 10)
    largest = io["score"].abs().max()
    assert (score - io["score"]).abs().max() <= GOLDEN_SCORE * largest
    assert (other - io["score"]).abs().max() > 10 * GOLDEN_SCORE * largest


def test_score_of_a_published_ncsnv2() -> None:
    checkpoint = torch.load(GOLDEN / "ncsnv2" / "cifar_style" / "checkpoint.pth", weights_only=True)
    io = load_file(GOLDEN / "ncsnv2" / "cifar_style" / "io.safetensors")
    sigma = over_event(io["sigmas"][io["labels"].long()], io["xt"])
    errors = []
    for weights in (checkpoint[-1], stripped(checkpoint[0])):
        net = loaded(NCSNv2(channels=8), (3, 16, 16), weights)
        assert list(net.state_dict()) == list(weights)
        with torch.no_grad():
            score = net(io["xt"], io["labels"]) / sigma
        errors.append(float((score - io["score"]).abs().max() / io["score"].abs().max()))
    averaged, raw = errors
    assert averaged <= GOLDEN_SCORE
    assert raw > 10 * GOLDEN_SCORE


def test_output_of_a_published_ncsnv2_of_adversarial_training() -> None:
    """The same network without a ladder, registered in another order; its output is sigma times the score."""
    checkpoint = torch.load(GOLDEN / "acsm" / "ncsnv2" / "checkpoint.pth", weights_only=True)
    io = load_file(GOLDEN / "acsm" / "ncsnv2" / "io.safetensors")
    net = loaded(NCSNv2(channels=8), (3, 16, 16), checkpoint[-1])
    with torch.no_grad():
        output = net(io["xt"], io["labels"].float())
    largest = io["network_output"].abs().max()
    assert (output - io["network_output"]).abs().max() <= GOLDEN_SCORE * largest
