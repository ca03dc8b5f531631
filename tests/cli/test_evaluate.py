"""scorefield evaluate and scorefield compare: resumed, shared, swept, compared, refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.evaluation import OfModel
from scorefield.models.model import load
from scorefield.training.trainer import train
from training.tiny import _free_port, _spawn, tiny

HERE = Path(__file__).parent
QUICK = ["--steps", "3", "--sampler", "em", "--features", "raw", "--batch-size", "32"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with three checkpoints."""
    return train(tiny(steps=30, checkpoint_every=10, keep=5), tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Run a command that must fail; returns its message."""

    def command(*words: str | Path) -> str:
        try:
            status = main([str(w) for w in words])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        assert status == 2, f"exit status {status}\n{out}\n{err}"
        assert "Traceback" not in err + out
        return " ".join((err + out).split())

    return command


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def numbers(folder: Path) -> dict[str, float]:
    return {r["receipt"]["metric"]: r["value"]["number"] for r in record(folder)["samples"]}


def test_a_stopped_evaluation_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run), "-n", "100", *QUICK, "--metrics", "fid,kid,sliced-wasserstein", "--early", "32"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    out = capsys.readouterr().out
    assert "first 32 samples" in out and "will be about" in out and "at N = 100" in out
    kept = record(tmp_path / "whole")
    assert [r["receipt"]["count"] for r in kept["early"]] == [32] * 3 and kept["early outlook"]["N"] == 100
    source = kept["samples"][0]["receipt"]["source"]
    assert source["nfe"] == 4 and source["settings"]["device"] and source["settings"]["training step"] == 30

    real, drawn = OfModel.draw, []

    def draw(self: OfModel, first: int, count: int) -> dict[str, torch.Tensor]:
        drawn.append(first)
        if drawn == [0, 32, 64]:
            raise KeyboardInterrupt
        return real(self, first, count)

    monkeypatch.setattr(OfModel, "draw", draw)
    assert main([*words, "--out", str(tmp_path / "part")]) == 130
    assert "64 of 100 samples are done" in capsys.readouterr().err
    drawn.clear()
    assert main([*words, "--out", str(tmp_path / "part")]) == 0
    assert drawn == [64, 96] and numbers(tmp_path / "part") == numbers(tmp_path / "whole")
    capsys.readouterr()
    assert main([*words, "--seed", "1", "--out", str(tmp_path / "part")]) == 0
    assert "parts of other settings (seed: 0 there, 1 here)" in capsys.readouterr().out
    assert numbers(tmp_path / "part") != numbers(tmp_path / "whole")

    (mine,) = (tmp_path / "whole").glob("parts/*/samples_00000000.npz")
    theirs = next(
        p for p in (tmp_path / "part").glob("parts/*/samples_00000000.npz") if p.parent.name != mine.parent.name
    )
    theirs.write_bytes(mine.read_bytes())
    assert main([*words, "--seed", "1", "--out", str(tmp_path / "part")]) == 2
    assert "part of another computation" in capsys.readouterr().err


def test_samples_are_those_of_the_model(run: Path, tmp_path: Path) -> None:
    from scorefield.metrics.receipt import data_hash

    assert main(["evaluate", str(run), "-n", "40", *QUICK, "--metrics", "kid", "--out", str(tmp_path)]) == 0
    model = load(run)
    x = model.sample(40, sampler=model.sampler("em", 3), batch_size=32).x
    assert record(tmp_path)["samples"][0]["receipt"]["samples_hash"] == data_hash(x)


def test_a_checkpoint_is_chosen_on_one_half_and_reported_on_the_other(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run), "-n", "40", *QUICK, "--metrics", "kid,sliced-wasserstein", "--out", str(tmp_path)]
    assert main([*words, "--checkpoints", "last:2", "--select", "sliced-wasserstein"]) == 0
    out = capsys.readouterr().out
    found = record(tmp_path)
    selection = found["selection"]
    assert [c["step"] for c in selection["checkpoints"]] == [20, 30] and selection["metric"] == "sliced-wasserstein"
    values = [c["result"]["value"]["number"] for c in selection["checkpoints"]]
    assert selection["chosen"] == [20, 30][int(np.argmin(values))] and f"step {selection['chosen']} is reported" in out
    differences = [c["difference"] for c in selection["checkpoints"]]
    other = next(d for d in differences if d is not None)
    assert differences.count(None) == 1 and other["number"] == pytest.approx(max(values) - min(values))
    assert other["std_error"] < other["std_error_unshared"]
    chosen, reported = (r["receipt"] for r in (selection["checkpoints"][0]["result"], found["samples"][0]))
    assert chosen["source"]["start"] == 0 and reported["source"]["start"] == 40
    assert chosen["reference"]["split"] == "held-out, selecting half" and chosen["reference"]["count"] == 180
    assert reported["reference"]["split"] == "held-out, reporting half"
    assert reported["source"]["settings"]["training step"] == selection["chosen"]
    assert chosen["reference"]["hash"] != reported["reference"]["hash"]
    hashes = {c["result"]["receipt"]["source"]["model_hash"] for c in selection["checkpoints"]}
    assert len(hashes) == 2 and reported["source"]["model_hash"] in hashes


def test_weights_of_a_checkpoint(run: Path) -> None:
    raw, average = load(run, weights="raw", checkpoint=20), load(run, weights="ema:0.99", checkpoint=20)
    assert raw.hash != average.hash != load(run, checkpoint=30).hash and raw.step == 20
    assert load(run, checkpoint=30).hash == load(run).hash
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 25; it has 10, 20, 30"):
        load(run, checkpoint=25)


def test_comparisons(run: Path, tmp_path: Path, refused, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["evaluate", str(run), *QUICK, "--metrics", "fid,kid"]
    a, b, c = (tmp_path / name for name in "abc")
    assert main([*common, "-n", "80", "--out", str(a)]) == 0
    assert main([*common, "-n", "80", "--seed", "1", "--weights", "raw", "--out", str(b)]) == 0
    capsys.readouterr()
    fewer = record(a)
    for found in fewer["samples"]:
        found["receipt"]["count"] = 70
    c.mkdir()
    (c / "metrics.json").write_text(json.dumps(fewer))
    assert main(["compare", str(a), str(b / "metrics.json"), "--out", str(tmp_path / "c.json")]) == 0
    out = capsys.readouterr().out
    assert "kernel distance" in out and "source.seed: A 0, B 1" in out and "source.weights" in out
    stored = json.loads((tmp_path / "c.json").read_text())["comparisons"][0]
    assert stored["overridden"] is None and stored["results"][0]["interval"][0] < stored["results"][0]["difference"]

    message = refused("compare", a, c)
    assert "count is 80 and 70. scorefield evaluate tiny -n 80" in message and "--override" in message
    assert main(["compare", str(a), str(b), str(c), "--override", "--out", str(tmp_path / "o.json")]) == 0
    assert "OVERRIDDEN: these receipts are not alike (they differ in count)" in capsys.readouterr().out
    stored = json.loads((tmp_path / "o.json").read_text())["comparisons"]
    assert stored[0]["overridden"] is None
    assert stored[1]["overridden"]["kernel distance"] == [{"field": "count", "a": 80, "b": 70}]
    assert "not alike" in stored[1]["results"][0]["verdict"]

    assert "takes two or more" in refused("compare", a)
    assert "does not exist" in refused("compare", a, tmp_path / "nothing")
    (tmp_path / "wrong.json").write_text("{}")
    assert "holds no results" in refused("compare", a, tmp_path / "wrong.json")


def test_samples_of_any_origin(tmp_path: Path, refused) -> None:
    """Images of another library against images: equal laws have no distance; another size is refused."""
    generator = np.random.default_rng(0)
    for name, side in (("a", 4), ("b", 4), ("c", 5)):
        np.save(tmp_path / f"{name}.npy", generator.integers(0, 256, (90, 1, side, side), dtype=np.uint8))
    a, b, c = (str(tmp_path / f"{name}.npy") for name in "abc")
    words = ["evaluate", a, "--features", "raw", "--metrics", "kid,fid", "--out", str(tmp_path / "e")]
    assert main([*words, "--reference", b]) == 0
    found = record(tmp_path / "e")["samples"][1]
    low, high = found["value"]["interval"]
    assert low < 0 < high and found["receipt"]["count"] == 90 and "not known" in found["receipt"]["source"]["sampler"]
    assert "(1, 5, 5)" in refused(*words, "--reference", c)
    assert "not a run or model folder" in refused("evaluate", tmp_path)


# ---------------------------------------------------------------------------------------------------- bad input


def nan_features(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(len(x), -1) * torch.nan


def test_refusals_before_anything_is_drawn(run: Path, tmp_path: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: OfModel, first: int, count: int) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(OfModel, "draw", never)
    monkeypatch.syspath_prepend(str(HERE))
    words = ["evaluate", run, "-n", "40", "--out", tmp_path / "e", "--steps", "3", "--sampler", "em"]
    assert "Did you mean fid" in refused(*words, "--metrics", "fdi")
    assert "needs a classifier" in refused(*words, "--metrics", "inception-score", "--features", "raw")
    assert "returned NaN or infinity" in refused(*words, "--features", "test_evaluate:nan_features")
    assert "gray" in refused(*words, "--features", "inception")
    assert "use raw, inception" in refused(*words, "--features", "incepton")
    np.save(tmp_path / "field.npy", np.random.default_rng(0).standard_normal((30, 1, 8, 8)).astype(np.float32) * 99)
    assert "outside data.low=0 to data.high=16" in refused(*words, "--reference", tmp_path / "field.npy")
    np.save(tmp_path / "large.npy", np.zeros((30, 1, 9, 9), np.float32))
    assert "(1, 9, 9)" in refused(*words, "--reference", tmp_path / "large.npy")
    assert "no checkpoint of step 7; it has 10, 20, 30" in refused(*words, "--checkpoints", "7")
    assert "invalid choice" in refused(*words, "--checkpoints", "all", "--select", "memorisation")
    assert "no checkpoints to choose from" in refused("evaluate", tmp_path, "--checkpoints", "all")
    assert "must be at least 1" in refused(*words, "--batch-size", "0")


def test_fewer_samples_than_features_are_flagged(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "-n", "40", *QUICK, "--metrics", "fid", "--out", str(tmp_path)]) == 0
    (found,) = record(tmp_path)["samples"]
    assert found["value"]["status"] == "singular" and found["value"]["interval"] is None
    assert "only 40 samples for 64 features" in capsys.readouterr().out


def test_statistics_stand_for_the_reference(run: Path, tmp_path: Path, refused) -> None:
    x = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    np.savez(tmp_path / "mu.npz", mu=x.mean(0).astype(np.float64), sigma=np.cov(x.T))
    np.savez(tmp_path / "rows.npz", pool_3=x)
    words = ["evaluate", str(run), "-n", "80", *QUICK]
    assert main([*words, "--reference", str(tmp_path / "mu.npz"), "--out", str(tmp_path / "m")]) == 0
    assert set(numbers(tmp_path / "m")) == {"Frechet distance", "Frechet distance, N to infinity"}
    assert main([*words, "--reference", str(tmp_path / "rows.npz"), "--out", str(tmp_path / "r")]) == 0
    of_moments, of_rows = (numbers(tmp_path / name)["Frechet distance"] for name in "mr")
    assert of_moments == pytest.approx(of_rows, rel=1e-4) and "kernel distance" in numbers(tmp_path / "r")
    assert "mean and covariance" in refused(*words, "--reference", tmp_path / "mu.npz", "--metrics", "kid")
    assert "say which they are" in refused("evaluate", run, "--reference", tmp_path / "mu.npz")
    np.savez(tmp_path / "ten.npz", pool_3=x[:, :10])
    assert "statistics of 10 features and 'raw values' has 64" in refused(*words, "--reference", tmp_path / "ten.npz")
    assert "names statistics" in refused(*words, "--reference", tmp_path / "mu.npz", "--metrics", "bits-per-dim")


# ---------------------------------------------------------------------------------------------------- processes


def together(words: list[str], world: int) -> list[tuple[int, str]]:
    """Exit status and output of processes that work together."""
    port, processes = _free_port(), []
    for rank in range(world):
        of_rank = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        environment = {
            **os.environ,
            **of_rank,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
        }
        processes.append(_spawn([sys.executable, "-m", "scorefield.cli", *words], environment))
    found = []
    for process in processes:
        output, _ = process.communicate(timeout=120)
        found.append((process.returncode, output.decode()))
    return found


class Broken(torch.nn.Module):
    """Features that one process cannot compute."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.environ.get("RANK") == "1":
            raise ValueError("this process is broken")
        return x.reshape(len(x), -1)


broken_in_one_process = Broken()


@pytest.mark.slow
def test_processes_share_the_parts_and_give_the_same_digits(run: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(run), "-n", "150", *QUICK, "--early", "32", "--metrics", "fid,kid,energy-distance"]
    ((status, output),) = together([*words, "--out", str(tmp_path / "one")], 1)
    assert status == 0, output
    for status, output in together([*words, "--out", str(tmp_path / "two")], 2):
        assert status == 0, output
    one, two = (record(tmp_path / name) for name in ("one", "two"))
    assert one["samples"] == two["samples"] and one["second real split"] == two["second real split"]
    assert one["early"] == two["early"]


@pytest.mark.slow
def test_processes_choose_the_same_checkpoint(run: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(run), "-n", "70", *QUICK, "--metrics", "kid", "--checkpoints", "all", "--select", "kid"]
    for world in (1, 2):
        for status, output in together([*words, "--out", str(tmp_path / str(world))], world):
            assert status == 0, output
    one, two = (record(tmp_path / name) for name in "12")
    assert one["selection"] == two["selection"] and one["samples"] == two["samples"]


@pytest.mark.slow
def test_a_process_that_fails_stops_the_others(run: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(run), "-n", "150", "--steps", "3", "--sampler", "em", "--batch-size", "32"]
    words += ["--features", "test_evaluate:broken_in_one_process", "--metrics", "kid", "--out", str(tmp_path)]
    first, second = together(words, 2)
    assert second[0] == 2 and "this process is broken" in second[1]
    assert first[0] == 2 and "another process stopped before its part was done" in first[1], first[1]
