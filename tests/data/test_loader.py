"""The loader: step order, errors that reach the loop, threads that end."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest
import torch

from data.files import held
from scorefield.data import Batches, DataError, DataSource, Loader, open_data


class Squares:
    """A map-style dataset whose example i holds i; `broken` cannot be read."""

    def __init__(self, n: int = 40, broken: int | None = None):
        self.n, self.broken = n, broken

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        if i == self.broken and self.armed:
            raise DataError(f"example {i} is broken")
        return np.full((1, 4, 4), i, np.uint8), i % 4

    armed = False


def opened(dataset: Squares, **fields):
    return open_data(DataSource(held_out=0, conditional=True, **fields), dataset).train


def alive() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "scorefield-loader"]


def test_batches_come_in_step_order_and_stop():
    split, batches = opened(Squares()), Batches(40, 16, seed=2)
    with Loader(split, batches, start=3, stop=9, prefetch=3) as loader:
        steps = list(loader)
    assert len(steps) == 6 and loader.step == 9
    for step, (x, condition) in enumerate(steps, start=3):
        chosen = batches.at(step).indices
        assert x[:, 0, 0, 0].tolist() == chosen.tolist()
        assert condition["class"].tolist() == (chosen % 4).tolist()
    assert not alive()


def test_resuming_continues_the_same_sequence():
    split, batches = opened(Squares()), Batches(40, 16)
    with Loader(split, batches, stop=8) as loader:
        whole = [x for x, _ in loader]
    with Loader(split, batches, start=5, stop=8) as loader:
        rest = [x for x, _ in loader]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))


def test_only_a_split_that_asks_is_flipped():
    pictures = np.arange(2 * 3 * 2 * 4, dtype=np.uint8).reshape(2, 3, 2, 4)
    data = open_data(DataSource(held_out=0, flip=True), {"train": pictures, "test": pictures})
    batches = Batches(2, 2)
    assert data.train.flip and not held(data).flip
    with Loader(data.train, batches, stop=20) as loader, Loader(held(data), batches, stop=20) as straight:
        for step, ((x, _), (y, _)) in enumerate(zip(loader, straight, strict=True)):
            chosen = batches.at(step)
            expected = torch.from_numpy(pictures[chosen.indices])
            assert torch.equal(y, expected)
            mirrored = torch.from_numpy(chosen.flips)[:, None, None, None]
            assert torch.equal(x, torch.where(mirrored, expected.flip(-1), expected))


def test_an_error_is_raised_at_its_step_and_again():
    dataset = Squares(broken=int(Batches(40, 8).at(2).indices[3]))
    split = opened(dataset)
    dataset.armed = True
    with Loader(split, Batches(40, 8)) as loader:
        next(loader)
        next(loader)
        for _ in range(2):
            with pytest.raises(DataError, match="is broken"):
                next(loader)
        assert loader.step == 2
    assert not alive()


def test_closing_is_prompt_idempotent_and_final():
    loader = Loader(opened(Squares()), Batches(40, 8))
    next(loader)
    assert alive()
    loader.close()
    loader.close()
    assert not alive()
    with pytest.raises(RuntimeError, match="start=loader.step"):
        next(loader)


def test_a_dropped_loader_ends_its_thread():
    loader = Loader(opened(Squares()), Batches(40, 8))
    next(loader)
    (thread,) = alive()
    del loader
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_slow_reader_is_waited_for():
    class Slow(Squares):
        def __getitem__(self, i):
            time.sleep(0.002)
            return super().__getitem__(i)

    with Loader(opened(Slow(8)), Batches(8, 8), stop=2) as loader:
        assert [sorted(x[:, 0, 0, 0].tolist()) for x, _ in loader] == [list(range(8))] * 2


def test_mismatched_arguments():
    with pytest.raises(ValueError, match="39 examples"):
        Loader(opened(Squares()), Batches(39, 8))
    with pytest.raises(ValueError, match="prefetch"):
        Loader(opened(Squares()), Batches(40, 8), prefetch=0)
