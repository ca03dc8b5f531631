"""Evaluation as a stream of parts: the same numbers however it was made, and nothing of another computation in it."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.evaluation import Given, Measures, SampleStream, StalePartError, held_out_density, others
from scorefield.metrics import (
    FeatureFacts,
    FrechetDistance,
    FrechetInfinity,
    KernelDistance,
    Metric,
    ModuleFeatures,
    RawFeatures,
    Reference,
    measure,
)
from scorefield.metrics.by_name import (
    BITS,
    DEFAULT,
    NAMED,
    SELECTING,
    Ingredients,
    asked,
    functions_of,
    possible,
    title,
)
from tolerance import FLOAT64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Counted:
    """Features that count how many examples went through them."""

    name, hash = "halves", "halves"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x.reshape(len(x), -1)[:, :3] * 0.5


class Draws:
    """Sample i is row i of a fixed table; counts draws, and stops where it is told to."""

    name, kept = "samples", False

    def __init__(self, seed: int = 0, stop: int | None = None, error: BaseException | None = None):
        self.table, self.seed, self.stop, self.error = normal(seed, 100, 4), seed, stop, error
        self.identity: Mapping[str, Any] = {"model": "table", "seed": seed}
        self.drawn: list[int] = []

    def draw(self, first: int, count: int) -> dict[str, Tensor]:
        if first == self.stop:
            raise self.error or KeyboardInterrupt
        self.drawn.append(first)
        return {"x": self.table[first : first + count], "nfe": torch.full((count,), 7), "status": torch.zeros(count)}


REAL = Reference(normal(9, 60, 4), name="toy", split="held-out")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*.npz"))}


# ---------------------------------------------------------------------------------------------------- names


def subclasses(cls: type) -> set[type]:
    return {s for c in cls.__subclasses__() for s in {c, *subclasses(c)} if not inspect.isabstract(s)}


def test_every_metric_has_a_name() -> None:
    room = {cls for cls in subclasses(Metric) if cls.__module__.startswith("scorefield.metrics")}
    assert room == {entry.metric for entry in NAMED.values()}
    assert len({entry.metric for entry in NAMED.values()}) == len(NAMED)
    assert set(DEFAULT) <= set(NAMED) and "density" not in SELECTING and "fid" in SELECTING


def test_names_are_read_and_unknown_ones_listed() -> None:
    assert asked("kid, fid") == ("fid", "kid") and asked("all") == (*NAMED, BITS)
    with pytest.raises(ValueError, match="'fdi'. Did you mean fid.*bits-per-dim"):
        asked("fid,fdi")
    with pytest.raises(ValueError, match="names none"):
        asked(",")


def test_what_the_data_do_not_allow_is_said() -> None:
    plain = Ingredients(RawFeatures(), REAL)
    names, left = possible("all", plain)
    assert "fid" in names and "inception-score" not in names and "memorisation" not in names
    assert any("inception-score needs a classifier" in line for line in left)
    assert possible("default", plain) == (("fid", "fid-infinity", "kid", "sliced-wasserstein"), ())
    with pytest.raises(ValueError, match="--features classifier"):
        possible("inception-score", plain)
    assert possible("memorisation", Ingredients(RawFeatures(), REAL, train=REAL))[0] == ("memorisation",)


def test_only_the_inception_of_the_papers_is_called_fid() -> None:
    import dataclasses

    result = measure(FrechetDistance(RawFeatures(), REAL), normal(1, 20, 4))
    assert title(result) == "Frechet distance (features raw values)"

    def through(name: str, note: str) -> str:
        facts = FeatureFacts(name, "h", note)
        return title(dataclasses.replace(result, receipt=dataclasses.replace(result.receipt, features=facts)))

    name = "Inception 2015, pool 3, 8 bits by rounding"
    assert through(name, "weights a.pth, the published weights") == f"FID ({name})"
    assert "FID" not in through(name, "weights a.pth, not the published weights")
    assert "FID" not in through("Inception 2015, 64 features, x", "the published weights")


# ---------------------------------------------------------------------------------------------------- the stream


def test_overlapped_shared_resumed_and_plain_give_the_same_numbers(tmp_path: Path) -> None:
    """Three processes, a stopped run, and no stream at all: equal to the last digit, files included."""
    plain = Counted()
    expected = [measure(cls(plain, REAL), Draws().table[:50]) for cls in (FrechetDistance, KernelDistance)]

    def numbers(folder: Path) -> tuple[list[float], Counted]:
        functions = Counted()
        ingredients = Ingredients(functions, REAL)
        measures = Measures(["fid", "kid"], ingredients)
        stream = SampleStream(Draws(), functions_of(["fid", "kid"], ingredients), folder, 8)
        before = functions.seen
        results = measures.measure(lambda: stream.parts(50), None)
        assert functions.seen == before, "rows on the disk are not computed again"
        assert [r.receipt.samples_hash for r in results] == [e.receipt.samples_hash for e in expected]
        return [float(r) for r in results], functions

    whole = Counted()
    SampleStream(Draws(), [whole], tmp_path / "whole", 8).run(50)
    assert whole.seen == 50
    found, _ = numbers(tmp_path / "whole")
    assert found == [float(e) for e in expected]

    for rank in (2, 0, 1):
        SampleStream(Draws(), [Counted()], tmp_path / "shared", 8).run(50, rank=rank, world=3)
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt, match=r"24 of 50 samples are done.*the same command goes on"):
        SampleStream(Draws(stop=24), [Counted()], tmp_path / "resumed", 8).run(50)
    assert len(list((tmp_path / "resumed").rglob("samples_*.npz"))) == 3, "what was drawn is kept"
    again = Draws()
    stream = SampleStream(again, [Counted()], tmp_path / "resumed", 8)
    assert not stream.whole(50)
    stream.run(50)
    assert again.drawn == [24, 32, 40, 48] and stream.whole(50)
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")
    assert stream.column("nfe", 50).tolist() == [7] * 50


def test_more_samples_go_on_from_fewer(tmp_path: Path) -> None:
    SampleStream(Draws(), [Counted()], tmp_path, 8).run(20)
    draws = Draws()
    stream = SampleStream(draws, [Counted()], tmp_path, 8)
    stream.run(40)
    assert draws.drawn == [16, 24, 32]  # the last part was not whole
    assert torch.equal(torch.cat([p.x for p in stream.parts(40)]), draws.table[:40])


def test_other_features_use_the_samples_that_are_there(tmp_path: Path) -> None:
    SampleStream(Draws(), [Counted()], tmp_path, 8).run(20)
    draws, other = Draws(), ModuleFeatures(lambda x: x * 2, name="twice", hash="twice")
    SampleStream(draws, [other], tmp_path, 8).run(20)
    assert draws.drawn == []


def test_parts_of_other_settings_are_never_mixed_in(tmp_path: Path) -> None:
    first = SampleStream(Draws(seed=0), [Counted()], tmp_path, 8)
    first.run(20)
    draws = Draws(seed=1)
    second = SampleStream(draws, [Counted()], tmp_path, 8)
    (line,) = others(tmp_path, second.samples)
    assert "3 parts of other settings (seed: 0 there, 1 here)" in line
    second.run(16)
    assert draws.drawn == [0, 8] and second.samples.folder != first.samples.folder
    second.samples.path(8).write_bytes(first.samples.path(8).read_bytes())
    for stream in (second, SampleStream(Draws(seed=1), [Counted()], tmp_path, 8)):
        with pytest.raises(StalePartError, match="part of another computation"):
            stream.run(16)
        with pytest.raises(StalePartError, match="part of another computation"):
            list(stream.parts(16))


def test_rows_of_other_samples_and_damaged_parts_are_computed_again(tmp_path: Path) -> None:
    stream = SampleStream(Draws(), [Counted()], tmp_path, 8)
    stream.run(16)
    kept = contents(tmp_path)
    rows = sorted(stream.samples.folder.glob("features-*_*.npz"))
    rows[1].write_bytes(rows[0].read_bytes())  # the rows of part 0 in the place of those of part 1
    stream.samples.path(0).write_bytes(stream.samples.path(0).read_bytes()[:100])
    draws = Draws()
    SampleStream(draws, [Counted()], tmp_path, 8).run(16)
    assert draws.drawn == [0] and contents(tmp_path) == kept


def test_a_full_disk_is_told_and_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = np.savez, []

    def full(file: Any, **arrays: Any) -> None:
        calls.append(threading.current_thread().name)
        if len(calls) > 3:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left to write .*what was there before is intact"):
        SampleStream(Draws(), [Counted()], tmp_path, 8).run(100)
    assert set(calls) == {"features"}, "parts are finished beside the drawing"
    monkeypatch.undo()
    assert all(np.load(p)["header"] for p in tmp_path.rglob("*.npz"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_errors_of_either_side_come_out(tmp_path: Path) -> None:
    def nan(x: Tensor) -> Tensor:
        return x * torch.nan

    with pytest.raises(ValueError, match="returned NaN or infinity for finite samples"):
        SampleStream(Draws(), [ModuleFeatures(nan, name="nan", hash="nan")], tmp_path, 8).run(100)
    with pytest.raises(RuntimeError, match="the network is broken"):
        SampleStream(Draws(stop=16, error=RuntimeError("the network is broken")), [Counted()], tmp_path, 8).run(100)
    draws = Draws(seed=3)
    draws.table[19, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 of 8 examples \(first: \[19\]\)"):
        SampleStream(draws, [Counted()], tmp_path, 8).run(40)
    with pytest.raises(FileNotFoundError, match="must see one and the same --out"):
        list(SampleStream(Draws(seed=4), [], tmp_path, 8).parts(8))


def test_samples_on_a_disk_are_not_written_twice(tmp_path: Path) -> None:
    x = normal(2, 30, 4)
    functions = Counted()
    stream = SampleStream(Given(x), [functions], tmp_path, 8)
    stream.run(30)
    assert not list(tmp_path.rglob("samples_*.npz")) and len(list(tmp_path.rglob("features-*.npz"))) == 4
    stream.run(30)
    assert functions.seen == 30
    described = json.loads(next(tmp_path.rglob("features-*.json")).read_text())
    assert described == {"features": "halves", "hash": "halves"}


def test_features_without_a_hash_are_not_kept(tmp_path: Path) -> None:
    unhashed = ModuleFeatures(lambda x: x, name="unknown")
    ingredients = Ingredients(unhashed, REAL)
    measures = Measures(["fid"], ingredients)
    stream = SampleStream(Draws(), [unhashed], tmp_path, 8)
    stream.run(40)
    assert not list(tmp_path.rglob("features-*"))
    direct = measure(FrechetDistance(RawFeatures(), REAL), Draws().table[:40])
    (found,) = measures.measure(lambda: stream.parts(40), None)
    assert float(found) == float(direct)


# ---------------------------------------------------------------------------------------------------- early


def test_the_outlook_is_the_line_through_now_and_infinity() -> None:
    x = normal(5, 48, 4)
    measures = Measures(["fid"], Ingredients(RawFeatures(), REAL))
    parts = measures.in_memory(x)
    (now,) = measures.measure(parts, None)
    end = measure(FrechetInfinity(RawFeatures(), REAL, reference_is="population"), x)
    same, later = (measures.outlook(parts, now, n) for n in (48, 480))
    assert same["number"] == pytest.approx(float(now), rel=FLOAT64)
    assert later["as N grows"] == pytest.approx(float(end), rel=FLOAT64)
    assert later["number"] == pytest.approx(float(end) + (float(now) - float(end)) / 10, rel=FLOAT64)
    width = end.value.interval
    assert width is not None and later["interval"][1] - later["interval"][0] == pytest.approx(width[1] - width[0])


# ---------------------------------------------------------------------------------------------------- bits per dim


def test_bits_per_dim_are_those_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from scorefield.data import open_data
    from scorefield.evaluation import Densities, bits_per_dim
    from scorefield.likelihood.probability_flow import FlowSettings
    from scorefield.metrics import ReferenceFacts
    from scorefield.models.model import Model
    from scorefield.models.networks import build_network
    from training.tiny import tiny

    experiment = tiny()
    data = open_data(experiment.data)
    experiment = dataclasses.replace(experiment, spec=data.spec)
    torch.manual_seed(0)
    model = Model(experiment, build_network(experiment).eval().requires_grad_(False))
    monkeypatch.setattr(held_out_density, "SETTINGS", FlowSettings(rtol=1e-2, atol=1e-2))
    x, _ = data.train.batch(range(3))
    densities = Densities(model, x, seed=2, size=2)
    stream = SampleStream(densities, (), tmp_path, 2)
    stream.run(3)
    result = bits_per_dim(densities, stream, ReferenceFacts("digits", "held-out", 3, "", None))
    known = {"settings": held_out_density.SETTINGS, "seed": 2}
    parts = [model.log_prob(x[:2], **known), model.log_prob(x[2:], start=2, **known)]
    bits = torch.cat([p.bits_per_dim for p in parts]).double()  # type: ignore[misc]
    assert float(result) == float(bits.mean())
    low, high = result.value.interval or (0.0, 0.0)
    assert high - low == pytest.approx(2 * 1.959963984540054 * float(bits.std()) / 3**0.5, rel=FLOAT64)
    assert (
        result.receipt.settings["flow"] == held_out_density.SETTINGS and result.receipt.source.model_hash == model.hash
    )
    continuous = Model(dataclasses.replace(experiment, spec=DataSpec((1, 8, 8))), model.network)
    with pytest.raises(ValueError, match="continuous; their density in nats is `scorefield likelihood"):
        Densities(continuous, x)
