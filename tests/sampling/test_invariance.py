"""A sample depends on (seed, index) and not on the batch size, the order or the first index of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from scorefield._random import IndexedNoise
from scorefield.data_spec import DataSpec
from scorefield.nets import MLP, NCSNpp
from scorefield.process import VE, VP, LinearBetas, Process, SubVP, Tabulated
from scorefield.process.grids import Uniform
from scorefield.sampling import Chain, Langevin, NormRatio, ReverseDiffusion, Sampler
from scorefield.sampling.named import NAMED, named
from scorefield.score import KarrasForm, LogSigma, NetworkScore, Score
from tolerance import SAMPLES_EQUAL, SAMPLES_EQUAL_ADAPTIVE

STEPS = {"ald": 1, "flow-heun": 2}  # few: every step is taken 64 times over, one example at a time
COUNT = 64


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that make a bounded, oscillating score (untrained networks end in a layer of zeros)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 10
            p.copy_(torch.randn(p.shape, generator=generator) / fan_in**0.5)
    return network.eval().requires_grad_(False)


def perceptron(process: Process) -> Score:
    network = randomised(MLP(width=32, depth=1).build(DataSpec(shape=(3,))))
    return NetworkScore(network, process, KarrasForm(), LogSigma())


def u_net(process: Process) -> Score:
    config = NCSNpp(
        channels=8, channel_multipliers=(1, 2), blocks=1, attention_sizes=(4,), dropout=0.0, fourier_scale=1.0
    )
    return NetworkScore(randomised(config.build(DataSpec(shape=(1, 8, 8)))), process, KarrasForm(), LogSigma())


Draw = Callable[[Sequence[int]], Tensor]


def drawing(sampler: Sampler, score: Score, event: tuple[int, ...]) -> Draw:
    """indices -> samples of one batch."""
    return lambda indices: sampler.run(score, event, indices=indices, seed=11).x


def largest_difference(draw: Draw, count: int, every: int = 1) -> float:
    """Largest relative difference between one batch and batches of one, a shuffled batch, and one that starts later.

    `every` thins the batches of one.
    """
    together = draw(range(count))
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    late = range(count - count // 3, count)
    pairs = [
        (torch.cat([draw([i]) for i in range(0, count, every)]), together[::every]),
        (draw(shuffled), together[shuffled]),
        (draw(late), together[list(late)]),
    ]
    return max(float((a - b).abs().max()) for a, b in pairs) / float(together.abs().max())


def test_noise_is_bit_equal() -> None:
    like = torch.empty(COUNT, 2, 3)
    together = IndexedNoise(5, range(COUNT)).normal(like, 7, 2)
    alone = torch.cat([IndexedNoise(5, [i]).normal(like[:1], 7, 2) for i in range(COUNT)])
    assert torch.equal(together, alone)
    assert torch.equal(IndexedNoise(5, [63, 0, 17]).normal(like[:3], 7, 2), together[[63, 0, 17]])
    assert torch.equal(IndexedNoise(5, range(COUNT)).normal(like.double(), 7, 2), together.double())


@pytest.mark.parametrize("name", NAMED)
def test_every_named_sampler(name: str) -> None:
    process = VP()
    sampler = named(name, process, None if name == "ode" else STEPS.get(name, 3))
    draw = drawing(sampler, perceptron(process), (3,))
    if name == "ode":
        assert largest_difference(draw, COUNT, every=8) <= SAMPLES_EQUAL_ADAPTIVE
    else:
        assert largest_difference(draw, COUNT) <= SAMPLES_EQUAL


@pytest.mark.parametrize(
    "process", [VE(0.01, 10.0), SubVP(), Tabulated(LinearBetas(levels=40))], ids=lambda p: type(p).__name__
)
def test_other_processes(process: Process) -> None:
    sampler = named("pc", process, 4)
    assert largest_difference(drawing(sampler, perceptron(process), (3,)), 16) <= SAMPLES_EQUAL


@pytest.mark.parametrize("name", ["pc", "flow-heun"])
def test_a_convolutional_network(name: str) -> None:
    process = VE(0.01, 10.0)
    sampler = named(name, process, 3)
    assert largest_difference(drawing(sampler, u_net(process), (1, 8, 8)), 8) <= SAMPLES_EQUAL


def test_norms_per_example_keep_it_and_norms_of_the_batch_break_it() -> None:
    process = VP()
    for norm, holds in (("example", True), ("batch", False)):
        step = Chain((Langevin(NormRatio(norm=norm)), ReverseDiffusion()))  # type: ignore[arg-type]
        difference = largest_difference(drawing(Sampler(step, Uniform(4)), perceptron(process), (3,)), 12)
        assert (difference <= SAMPLES_EQUAL) == holds


def test_seed_and_index_matter() -> None:
    """Different seeds and indices give different samples, so the equalities above are not those of a constant."""
    process = VP()
    sampler, score = named("pc", process, 4), perceptron(process)
    x = sampler.run(score, (3,), indices=range(4), seed=11).x
    assert not torch.allclose(x[0], x[1], atol=0.01)
    assert not torch.allclose(x, sampler.run(score, (3,), indices=range(4), seed=12).x, atol=0.01)
