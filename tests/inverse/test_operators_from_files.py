"""Operators by name: every form, files, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield import inverse as inv
from scorefield.inverse.operators.by_name import OPERATORS, SIDES
from scorefield.inverse.operators.from_files import operator_of, read_array, read_part

IMAGE = (3, 4, 6)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    hole = np.zeros((4, 6), np.uint8)
    hole[1, 2:4] = 255
    Image.fromarray(hole).save("hole.png")
    np.save("hole.npy", hole > 0)
    np.save("line.npy", np.array([[1.0, 2.0, 1.0]], ">f4"))
    np.save("rows.npy", np.arange(144).reshape(2, 72))
    np.save("words.npy", np.array(["a"]))
    np.save("small.npy", np.ones((2, 2)))
    Image.fromarray(hole // np.array([1, 2, 1, 1], np.uint8)[:, None] + np.eye(4, 6, dtype=np.uint8)).save("soft.png")
    (tmp_path / "note.txt").write_text("no image")
    return tmp_path


FORMS: dict[str, type[inv.Operator]] = {
    "mask:right": inv.Mask,
    "mask:hole.png": inv.Mask,
    "mask:unknown=centre": inv.Mask,
    "blur:sigma=2": inv.Convolution,
    "blur:sigma=1.5,boundary=zero": inv.Convolution,
    "convolution:kernel=line.npy,boundary=reflect": inv.Convolution,
    "downsample:factor=2": inv.Downsample,
    "grey": inv.Channels,
    "fourier:share=0.3, seed=1": inv.FourierMask,
    "projections:angles=5": inv.Projections,
    "matrix:rows.npy": inv.Matrix,
    "sums:axis=0": inv.Sums,
}


def test_every_form(files: Path) -> None:
    assert {form.partition(":")[0] for form in FORMS} == set(OPERATORS)
    x = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = {form: operator_of(form, IMAGE) for form in FORMS}
    for form, kind in FORMS.items():
        assert isinstance(made[form], kind) and made[form].event == IMAGE
        made[form](x)
    same = {
        "blur:sigma=1.5,boundary=zero": inv.Convolution.gaussian(1.5, IMAGE, "zero"),
        "convolution:kernel=line.npy,boundary=reflect": inv.Convolution(torch.tensor([[1.0, 2, 1]]), IMAGE, "reflect"),
        "fourier:share=0.3, seed=1": inv.FourierMask.share(0.3, IMAGE, seed=1),
        "matrix:rows.npy": inv.Matrix(torch.arange(144).reshape(2, 72), IMAGE),
        "mask:right": inv.Mask(torch.tensor([1, 1, 1, 0, 0, 0]).expand(4, 6), IMAGE),
    }
    for form, expected in same.items():
        assert torch.equal(made[form](x), expected(x)), form
    hole = made["mask:hole.png"]
    assert isinstance(hole, inv.Mask) and hole.observed == (3 * 22,) and not hole.known[:, 1, 2:4].any()


def test_parts(files: Path) -> None:
    for side in SIDES:
        assert read_part(side, IMAGE).shape == (4, 6) and 0 < int(read_part(side, IMAGE).sum()) < 24
    assert read_part("right", IMAGE).tolist() == [[False] * 3 + [True] * 3] * 4
    assert int(read_part("centre", IMAGE).sum()) == 2 * 4
    assert int((read_part("top", IMAGE) ^ read_part("bottom", IMAGE)).sum()) == 24
    assert read_part("left", (4,)).tolist() == [True, True, False, False]
    assert torch.equal(read_part("hole.npy", IMAGE), read_part("hole.png", IMAGE))
    assert read_array("line.npy").dtype == torch.float32


@pytest.mark.parametrize(
    "text, message",
    [
        ("blurr:sigma=2", "no operator is called 'blurr'. Did you mean blur.*Operators are written: mask:left"),
        ("blur", "'blur' lacks sigma. It is written blur:sigma=PIXELS"),
        ("blur:sigm=2", "'sigm' is unknown. Did you mean sigma.*written blur"),
        ("blur:sigma=2,sigma=3", "'sigma' is said twice"),
        ("blur:sigma=", "'sigma' is without value"),
        ("blur:sigma=two", "sigma=two is not a number"),
        ("blur:sigma=-1", "sigma=-1.0 must be a positive number"),
        ("blur:sigma=1,boundary=mirror", "must be one of periodic, zero, reflect"),
        ("downsample:factor=1.5", "factor=1.5 is not a whole number"),
        ("downsample:factor=5", "multiple of the factor"),
        ("grey:1", "'1' is unknown. It is written grey"),
        ("mask:middle", "mask middle: neither a file nor one of left, right"),
        ("mask:small.npy", r"mask small.npy has shape \(2, 2\); examples of shape \(3, 4, 6\) need \(4, 6\)"),
        ("mask:soft.png", "soft.png has the values 0, 1, .*; a mask has two, one of them 0"),
        ("mask:note.txt", "neither an .npy file nor an image"),
        ("matrix:words.npy", "not real numbers"),
        ("sums:axis=7", "axes 0 "),
    ],
)
def test_refusals(files: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        operator_of(text, IMAGE)


def test_parts_and_files_that_are_not_there(files: Path) -> None:
    with pytest.raises(ValueError, match="neither a file"):
        read_part("top", (4,))
    with pytest.raises(FileNotFoundError, match="no file rows"):
        operator_of("matrix:rows", IMAGE)
