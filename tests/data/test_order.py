"""Order is arithmetic: permutations, slices of the stream, ranks, flips; frozen, so that old runs resume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import tolerance
from scorefield.data import Batches, epoch_order
from scorefield.data.order import flips, hash64, pick

Z = float(stats.norm.isf(tolerance.SIGNIFICANCE / 2))


def test_hash_is_splitmix64():
    # First output of splitmix64 seeded with 0, as published with the generator.
    assert int(hash64(0)[0]) == 0xE220A8397B1DCDAF


def test_order_never_changes_between_versions():
    assert epoch_order(8, 0, 0).tolist() == [1, 6, 5, 4, 3, 7, 2, 0]
    assert pick(10, 3, 0).tolist() == [3, 5, 6]
    assert flips(0, np.zeros(8, np.int64), np.arange(8)).astype(int).tolist() == [1, 0, 0, 0, 1, 0, 0, 1]


@given(n=st.integers(1, 300), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_epoch_is_a_permutation(n, seed, epoch):
    assert sorted(epoch_order(n, seed, epoch)) == list(range(n))


@settings(max_examples=40)
@given(n=st.integers(1, 40), size=st.integers(3, 50), step=st.integers(0, 60), seed=st.integers(0, 9))
def test_ranks_share_one_stream(n, size, step, seed):
    whole = Batches(n, size, seed).at(step)
    stream = np.concatenate([epoch_order(n, seed, e) for e in range(((step + 1) * size) // n + 1)])
    np.testing.assert_array_equal(whole.indices, stream[step * size : (step + 1) * size])
    np.testing.assert_array_equal(whole.positions, np.arange(step * size, (step + 1) * size))
    for world in (2, 3):
        parts = [Batches(n, size, seed, rank, world).at(step) for rank in range(world)]
        assert max(len(p.indices) for p in parts) - min(len(p.indices) for p in parts) <= 1
        for field, expected in whole._asdict().items():
            np.testing.assert_array_equal(np.concatenate([getattr(p, field) for p in parts]), expected)


def test_position_is_the_step_number_alone():
    batches = Batches(37, 8, seed=3)
    forward = [batches.at(step) for step in range(30)]
    for step in (29, 0, 17, 3):
        for a, b in zip(Batches(37, 8, seed=3).at(step), forward[step], strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(batches.at(step), forward[step], strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_epoch_visits_everything_once_and_then_differently():
    batches = Batches(40, 8)
    epochs = [np.concatenate([batches.at(step).indices for step in range(e * 5, e * 5 + 5)]) for e in range(2)]
    assert all(sorted(e) == list(range(40)) for e in epochs)
    assert (epochs[0] != epochs[1]).any()
    assert batches.epoch_of(10) == 2.0


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation in units of its standard deviation for independent permutations."""
    return float(np.corrcoef(a, b)[0, 1]) * np.sqrt(len(a) - 1)


def test_orders_are_unrelated_to_the_index_and_to_each_other():
    n = 20_000
    first, second, other = epoch_order(n, 0, 0), epoch_order(n, 0, 1), epoch_order(n, 1, 0)
    for a, b in ((first, np.arange(n)), (first, second), (first, other), (first[1:], first[:-1])):
        assert abs(correlation(a, b)) < Z
    # The mutant shuffles within windows only, as a reader with a shuffle buffer does.
    windowed = np.arange(n) + first % (n // 4)
    assert abs(correlation(np.argsort(windowed), np.arange(n))) > Z


def coin(flipped: np.ndarray) -> float:
    return float(2 * flipped.mean() - 1) * np.sqrt(flipped.size)


def test_flips_are_fair_coins_of_seed_epoch_and_index():
    n = 20_000
    index = np.arange(n)
    epochs = [flips(5, np.full(n, e), index) for e in range(3)]
    other = flips(6, np.zeros(n, np.int64), index)
    for flipped in (*epochs, epochs[0] ^ epochs[1], epochs[1] ^ epochs[2], epochs[0] ^ other):
        assert abs(coin(flipped)) < Z
    # Mutants: flips that forget the epoch, and a coin that is 5 percent off.
    assert abs(coin(epochs[0] ^ flips(5, np.zeros(n, np.int64), index))) > Z
    assert abs(coin(np.where(hash64(9, index) < np.uint64(int(0.05 * 2**64)), True, epochs[0]))) > Z


def test_a_held_out_fraction_stays_when_data_are_appended():
    before, after = pick(1000, 0.1, 4), pick(1500, 0.1, 4)
    np.testing.assert_array_equal(before, after[after < 1000])
    assert abs(len(before) - 100) < Z * np.sqrt(90)
    assert len(pick(1000, 7, 4)) == 7 and len(pick(3, 0.01, 0)) == 1 and len(pick(5, 0, 0)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 4), "no examples"), ((5, 1, 0, 0, 2), "2 ranks without an example"), ((5, 4, 0, 2, 2), "rank=2")],
)
def test_impossible_batches(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(*arguments)
    with pytest.raises(ValueError, match="negative"):
        Batches(5, 4).at(-1)
