"""What a report holds for a paper: works cited by what was used, and a methods paragraph of its constants."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import scorefield
from scorefield.metrics import FeatureFacts, MetricResult, Receipt, ReferenceFacts, Value
from scorefield.process import VE, VP
from scorefield.recipes import recipe
from scorefield.reports.bibliography import PAPERS, bibliography, cited
from scorefield.reports.methods_paragraph import of_metrics, of_model, of_process, of_samples, paper_section
from scorefield.sampling import DDIM, Chain, Langevin, NoiseScaled, ReverseDiffusion, Sampler

ROOT = Path(__file__).parents[2]
COMMANDS = {"calibrate", "compare-samplers", "doctor", "latents", "likelihood", "logz", "outliers", "tune"}


def _classes() -> dict[str, list[type]]:
    """Every class of the rooms below the command line, by name."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(scorefield.__path__, "scorefield."):
        if not module.name.startswith("scorefield.cli"):
            inside = vars(importlib.import_module(module.name))
            for name, thing in inside.items():
                if inspect.isclass(thing) and thing.__module__ == module.name:
                    found.setdefault(name, []).append(thing)
    return found


KNOWN = _classes()


def test_every_paper_names_parts_that_exist() -> None:
    assert not {name for paper in PAPERS for name in paper.of} - set(KNOWN) - COMMANDS
    assert len({paper.key for paper in PAPERS}) == len(PAPERS)


def test_the_reference_of_a_docstring_is_cited_by_its_class() -> None:
    missing = []
    for name, cls in ((name, cls) for name, classes in KNOWN.items() for cls in classes):
        stated = re.search(r"References?:(.*)", inspect.getdoc(cls) or "", re.S) if "__doc__" in vars(cls) else None
        if stated is None:
            continue
        first = re.search(r'"([^"]+)"', " ".join(stated[1].split()))
        assert first is not None, f"{name} has a reference without a title"
        titles = {paper.title.lower() for paper in PAPERS if name in paper.of}
        if first[1].lower() not in titles:
            missing.append((name, first[1]))
    assert not missing


def test_the_four_papers_of_the_lineage_are_those_of_the_citation_file() -> None:
    stated = re.findall(r"^    title: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert len(stated) == 4
    assert {title.lower() for title in stated} <= {paper.title.lower() for paper in PAPERS}


def test_entries_are_whole() -> None:
    text = bibliography([paper.of[0] for paper in PAPERS])
    assert text.count("{") == text.count("}")
    assert text.count("@") == len(PAPERS) + 1
    assert "@article{vincent2011," in text and "@inproceedings{song2021sde," in text


def test_what_is_used_is_cited_and_nothing_else() -> None:
    sampler = Sampler(Chain((Langevin(NoiseScaled(0.16)), ReverseDiffusion())))
    assert [paper.key for paper in cited([sampler])] == ["song2021sde"]
    assert [paper.key for paper in cited([Sampler(DDIM())])] == ["song2021ddim"]
    assert {paper.key for paper in cited([recipe("digits-adversarial")])} >= {"jolicoeur2021acsm", "kingma2015adam"}
    assert "li2019mdsm" not in {paper.key for paper in cited([recipe("digits")])}


def test_the_paragraph_holds_the_constants() -> None:
    experiment = dataclasses.replace(recipe("digits"), process=VE(0.02, 7.0))
    model = " ".join(of_model(experiment, 1234, 500))
    for words in ("sigma from 0.02 to 7", "1,234 parameters", "500 steps of 64 examples", "learning rate 0.002"):
        assert words in model
    assert "trained" not in " ".join(of_model(experiment, None, None))
    assert of_process(VP(0.1, 20.0)) == "the variance-preserving process, beta from 0.1 to 20"
    assert "99 network evaluations" in of_samples(experiment, experiment.sampler, "ema:0.9", 99.0)


@pytest.mark.parametrize("number, status", [(1.25, "ok"), (0.5, "singular")])
def test_metrics_are_stated_with_their_interval_and_number(number: float, status: str) -> None:
    receipt = Receipt("Frechet distance", {}, 40, "0" * 64, ReferenceFacts("d", "held-out", 70, "1" * 64),
                      FeatureFacts("raw values", None))  # fmt: skip
    result = MetricResult(Value(number, (0.25, 2.5), status=status), receipt)  # type: ignore[arg-type]
    words = of_metrics([result])
    assert f"Frechet distance (features raw values) {number}" in words and "0.25 to 2.5" in words
    assert "70 examples of d, held-out" in words and "40 samples" in words
    assert ("singular" in words) is (status == "singular")
    section = paper_section(None, results=[result])
    assert "heusel2017fid" in section.blocks[1].html and "&lt;" not in section.blocks[0].html
