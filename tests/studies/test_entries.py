"""Tests of the list of experiments, of the files written for one, and of its intervals and noise."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from scorefield.cli.main import _parsed
from scorefield.cli.train import Train
from scorefield.plot.pictures import Theme, grid_of_axes
from scorefield.recipes import RECIPES
from scorefield.studies.papers import ENTRIES, PAPERS, Claim, Drawing, Entry, Findings, Job, Table, find, write_findings
from scorefield.studies.papers.entry import BatchNoise, mean_interval, wilson
from scorefield.training.observer import Silent
from tolerance import FLOAT64


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_an_entry_either_runs_here_or_names_commands(entry: Entry):
    assert entry.paper in PAPERS
    runs = entry.state == "runs here"
    assert runs == (entry.run is not None) == (entry.minutes is not None) == (entry.memory is not None)
    assert runs != bool(entry.instead)


@pytest.mark.parametrize("line", [line for e in ENTRIES.values() for line in e.instead])
def test_commands_named_instead_can_be_typed(line: str):
    words = shlex.split(line)
    assert words[0] == "scorefield"
    command = _parsed(words[1:])
    if isinstance(command, Train):
        assert command.recipe in RECIPES


def test_an_unknown_name_is_refused_with_similar_names():
    with pytest.raises(ValueError, match="Did you mean ncsn-figure-3"):
        find("ncsn-figure3")


def test_findings_are_written_as_json_pictures_and_a_page(tmp_path: Path):
    entry = Entry("a", "NCSN", "figure 0", "A title", "Something.", minutes=1, memory=1, run=lambda job: findings)

    def draw(theme: Theme):
        figure, (ax,) = grid_of_axes(theme, 1, 1, (2.0, 1.0))
        ax.plot([0, 1], [0, 1], color=theme.series[0])
        return figure

    findings = Findings(
        (Claim("x <y>", "z", True), Claim("b", "c", None)),
        (Table(("n", "value"), ((1, 0.5), (2, math.inf)), "numbers"),),
        (
            Drawing("line", "A line <b>", "words", draw),
            Drawing("grid", "A grid", "words", lambda theme: Image.new("RGB", (8, 8))),
        ),
        {"seed": 3},
    )
    page = write_findings(entry, findings, tmp_path / "out", 1.5).read_text()
    assert "x &lt;y&gt;" in page and "A line &lt;b&gt;" in page and "<svg" in page and "data:image/png" in page
    sizes = {}
    for name in ("line", "grid"):
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            sizes[name] = image.size
    assert sizes["line"][0] > 100 and sizes["grid"] == (8, 8)
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert [claim["verdict"] for claim in found["claims"]] == ["held", "undecided"]
    assert found["tables"][0]["rows"] == [[1, 0.5], [2, "inf"]]
    assert found["settings"] == {"seed": "3"} and found["seconds"] == 1.5


def test_intervals_of_proportions_and_means():
    low, high = wilson(1, 10)  # Brown, Cai and DasGupta 2001: [0.0179, 0.4042]
    assert (round(low, 4), round(high, 4)) == (0.0179, 0.4042)
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and abs(half - 1.959964 / 3**0.5) < FLOAT64
    assert mean_interval([1.0])[1] == float("inf")


def test_batch_noise_depends_on_seed_step_and_draw():
    like = torch.empty(4000, 2)
    z = BatchNoise(1).normal(like, 2, 0)
    assert torch.equal(z, BatchNoise(1).normal(like, 2, 0))
    for other in (BatchNoise(2).normal(like, 2, 0), BatchNoise(1).normal(like, 3, 0), BatchNoise(1).normal(like, 2, 1)):
        assert abs(float(torch.corrcoef(torch.stack([z.flatten(), other.flatten()]))[0, 1])) < 6 / z.numel() ** 0.5
    u = BatchNoise(1).uniform(like, 0, 0)
    assert 0.0 <= float(u.min()) and float(u.max()) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES.values() if e.run], ids=[e.name for e in ENTRIES.values() if e.run]
)
def test_every_experiment_runs(entry: Entry, tmp_path: Path):
    assert entry.run is not None
    findings = entry.run(Job(tmp_path, 0, 0.01, Silent()))
    assert findings.claims and findings.tables and findings.drawings
    write_findings(entry, findings, tmp_path / "out", 0.0)
