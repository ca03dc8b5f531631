"""The classifier behind the modes: trained once, used again where it belongs to the data, never half written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.data import DataError, DataSource
from scorefield.evaluation import stacked_examples
from scorefield.evaluation.stacked_examples import FACTS, WEIGHTS, stacked_classifier
from scorefield.metrics import ClassifierFeatures, StackedClassifier

SOURCE = DataSource("digits", stack=3, stack_passes=2, model_range=(0.0, 1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier of few steps."""
    path = tmp_path_factory.mktemp("classifier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked_examples, "STEPS", 3)
        stacked_classifier(SOURCE, path)
    return path


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts trainings, and makes them short."""
    calls: list[int] = []
    real = ClassifierFeatures.fit.__func__  # type: ignore[attr-defined]

    def counted(cls: type, *args, **settings) -> ClassifierFeatures:
        calls.append(1)
        return real(cls, *args, **{**settings, "steps": 1})

    monkeypatch.setattr(ClassifierFeatures, "fit", classmethod(counted))
    return calls


def test_used_again_whatever_is_stacked_of_the_same_examples(folder: Path, fits: list[int]) -> None:
    stored = (folder / FACTS).read_bytes()
    first = stacked_classifier(SOURCE, folder)
    again = stacked_classifier(replace(SOURCE, stack=2, stack_passes=1), folder)
    assert not fits and (folder / FACTS).read_bytes() == stored
    assert first.parts == 3 and again.parts == 2 and first.single.hash == again.single.hash
    assert isinstance(first, StackedClassifier) and torch.equal(first.confusion, again.confusion)
    assert sorted(p.name for p in folder.iterdir()) == sorted([FACTS, WEIGHTS])  # nothing half written is left


@pytest.mark.parametrize("spoil", ["other data", "other weights", "no facts"])
def test_replaced_where_it_does_not_belong(folder: Path, fits: list[int], tmp_path: Path, spoil: str) -> None:
    for name in (FACTS, WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    facts = tmp_path / FACTS
    if spoil == "no facts":
        facts.unlink()
    else:
        field = {"other data": "train_hash", "other weights": "weights_hash"}[spoil]
        lines = facts.read_text().splitlines()
        facts.write_text("\n".join(f'  "{field}": "0",' if f'"{field}"' in line else line for line in lines))
    made = stacked_classifier(SOURCE, tmp_path)
    assert fits == [1]
    stored = stacked_classifier(SOURCE, tmp_path)
    assert fits == [1] and stored.single.hash == made.single.hash


def test_a_training_that_is_killed_leaves_the_old_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[int]
) -> None:
    """While the new weights are being written."""
    for name in (FACTS, WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    facts = tmp_path / FACTS
    facts.write_text(facts.read_text().replace('"train_hash": "', '"train_hash": "0'))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def killed(self: ClassifierFeatures, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassifierFeatures, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        stacked_classifier(SOURCE, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="classes, not modes"):
        stacked_classifier(replace(SOURCE, stack=1, stack_passes=1), tmp_path)
    np.save(tmp_path / "unlabelled.npy", np.zeros((40, 1, 8, 8), dtype=np.uint8))
    with pytest.raises(DataError, match="no labels"):
        stacked_classifier(DataSource(str(tmp_path / "unlabelled.npy"), stack=3), tmp_path)
