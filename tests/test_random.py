"""Noise is a function of (seed, index, step, draw): the bits, their independence and their distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import scorefield._random as module
from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise, philox
from tolerance import SIGNIFICANCE

WORD = 2**64 - 1
words = st.integers(0, WORD)
addresses = st.tuples(words, words, words, words)


# ------------------------------------------------------------------------------------------------ the bits


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x64 with ten rounds, from Salmon et al. 2011, section 3.3."""
    c, k = list(counter), list(key)
    for _ in range(10):
        product_0, product_1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(product_1 >> 64) ^ c[1] ^ k[0], product_1 & WORD, (product_0 >> 64) ^ c[3] ^ k[1], product_0 & WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
    return c


def test_the_reference_gives_the_known_answer():
    known = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox4x64([0, 0, 0, 0], [0, 0]) == known


@given(addresses)
def test_bits_are_philox_of_the_four_numbers(address: tuple[int, int, int, int]):
    seed, index, step, draw = address
    expected = [w for block in (1, 2) for w in philox4x64([block, 0, draw, step], [seed, index])]
    assert philox(seed, index, step, draw).bit_generator.random_raw(8).tolist() == expected


def test_normal_numbers_have_not_changed():
    # Made by NumPy's float32 ziggurat on the bits above. If this fails, samples of old seeds have changed.
    z = IndexedNoise(7, [3]).normal(torch.empty(1, 4), step=2, draw=1)
    golden = ["0x1.44170e0000000p+0", "0x1.8b51520000000p-1", "0x1.f231d20000000p-4", "0x1.3917700000000p-1"]
    assert [v.hex() for v in z[0].tolist()] == golden


def test_the_counter_stays_inside_its_draw():
    generator = philox(1, 2, 3, 4)
    generator.standard_normal(100_000, dtype=np.float32)
    state = generator.bit_generator.state["state"]
    assert state["counter"].tolist()[1:] == [0, 4, 3]
    assert state["key"].tolist() == [1, 2]


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("word", [-1, 2**64])
def test_numbers_outside_the_words_are_refused(position: int, word: int):
    address = [0, 0, 0, 0]
    address[position] = word
    with pytest.raises(ValueError, match=f"{('seed', 'index', 'step', 'draw')[position]} must lie in .*got {word}"):
        philox(*address)


# ------------------------------------------------------------------------------------------------ invariance

EVENTS = [(), (5,), (2, 3), (3, 4, 5)]


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("event", EVENTS)
def test_noise_of_an_example_ignores_batch_size_and_order(kind: str, event: tuple[int, ...]):
    indices = [5, 0, 2**40, 3, 11]
    whole = getattr(IndexedNoise(1, indices), kind)(torch.empty(5, *event), step=4, draw=2)
    assert torch.isfinite(whole).all()
    for order in ([3, 1, 4, 0, 2], [2], [4, 0]):
        part = getattr(IndexedNoise(1, [indices[i] for i in order]), kind)(torch.empty(len(order), *event), 4, 2)
        assert torch.equal(part, whole[order])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_dtype_sees_the_same_noise(dtype: torch.dtype):
    noise = IndexedNoise(1, [0, 1])
    single = noise.normal(torch.empty(2, 6), 0, 0)
    assert torch.equal(noise.normal(torch.empty(2, 6, dtype=dtype), 0, 0), single.to(dtype))


def test_a_number_per_example_is_the_first_of_its_stream():
    noise = IndexedNoise(1, [8, 9])
    assert torch.equal(noise.uniform(torch.empty(2), 0, 0), noise.uniform(torch.empty(2, 3), 0, 0)[:, 0])


def test_an_empty_batch_gets_empty_noise():
    assert IndexedNoise(0, []).normal(torch.empty(0, 3, 2), 0, 0).shape == (0, 3, 2)


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="indices of 2 examples, and a batch of 3 was given"):
        IndexedNoise(0, [0, 1]).normal(torch.empty(3, 1), 0, 0)


def test_a_step_uses_no_draw_twice():
    source, like = IndexedNoise(0, [0, 1]), torch.empty(2, 3)
    noise = StepNoise(source, 6)
    seen = [noise(like), noise.uniform(like), noise(like)]
    assert torch.equal(seen[0], source.normal(like, 6, 0))
    assert torch.equal(seen[1], source.uniform(like, 6, 1))
    assert torch.equal(seen[2], source.normal(like, 6, 2))


# ------------------------------------------------------------------------------------------------ statistics


@given(addresses, addresses)
def test_different_numbers_share_no_word(a: tuple[int, int, int, int], b: tuple[int, int, int, int]):
    if a != b:
        assert not set(philox(*a).bit_generator.random_raw(16)) & set(philox(*b).bit_generator.random_raw(16))


NEIGHBOURS = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, PRIOR_STEP, 0)]


def streams_look_independent(size: int = 20_000, lags: int = 40) -> bool:
    """No pair of neighbouring streams correlates at any lag within a few blocks of eight numbers."""
    u = np.stack([module.philox(*a).random(size, dtype=np.float32) for a in NEIGHBOURS]).astype(np.float64) - 0.5
    smallest, tests = 1.0, 0
    for i in range(len(u)):
        for j in range(len(u)):
            for lag in range(lags + 1):
                if i != j or lag:
                    # The mean of products of two independent uniforms has standard deviation 1/12 / sqrt(size).
                    z = (u[i, : size - lag] * u[j, lag:]).mean() * 12 * np.sqrt(size - lag)
                    smallest, tests = min(smallest, 2 * stats.norm.sf(abs(z))), tests + 1
    return bool(smallest * tests > SIGNIFICANCE)


def test_neighbouring_streams_are_independent():
    assert streams_look_independent()


@pytest.mark.parametrize(
    "counter",
    [
        lambda step, draw: [draw, 0, 0, step],  # draws one block apart: each is the last one, shifted
        lambda step, draw: [0, 0, 0, step],  # the draw is forgotten
    ],
)
def test_overlapping_streams_are_noticed(counter, monkeypatch: pytest.MonkeyPatch):
    def mutant(seed: int, index: int, step: int = 0, draw: int = 0) -> np.random.Generator:
        words, key = np.array(counter(step, draw), np.uint64), np.array([seed, index], np.uint64)
        return np.random.Generator(np.random.Philox(counter=words, key=key))

    monkeypatch.setattr(module, "philox", mutant)
    assert not streams_look_independent()


def looks_normal(z: np.ndarray) -> bool:
    return bool(stats.kstest(z, "norm").pvalue > SIGNIFICANCE)


def test_noise_is_standard_normal_and_uniform():
    # Across indices, steps and draws at once, a few numbers from each stream, as samplers use them.
    noise, like = IndexedNoise(12, range(500)), torch.empty(500, 10)
    calls = [(step, draw) for step in range(10) for draw in range(4)]
    z = torch.stack([noise.normal(like, *call) for call in calls]).flatten().double().numpy()
    assert looks_normal(z)
    assert not looks_normal(1.05 * z)
    assert not looks_normal(z + 0.02)

    u = torch.stack([noise.uniform(like, *call) for call in calls]).flatten().double().numpy()
    assert 0 <= u.min() and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > SIGNIFICANCE
    assert stats.kstest(u**1.05, "uniform").pvalue < SIGNIFICANCE
