"""Feature functions: names, hashes, refusals, and the classifier trained on the data at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scorefield.data_spec import DataSpec
from scorefield.metrics import (
    ClassifierFeatures,
    Features,
    FrechetDistance,
    ModuleFeatures,
    RawFeatures,
    Reference,
    measure,
    module_hash,
)
from tolerance import CLEARLY_WORSE, DIGITS_ACCURACY, FLOAT32, TOY_ACCURACY


def toy(shape: tuple[int, ...], count: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes about three far patterns, in [0, 4]."""
    generator = torch.Generator().manual_seed(seed)
    patterns = 4 * torch.rand(3, *shape, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % 3
    return (patterns[labels] + 0.3 * torch.randn(count, *shape, generator=generator)).clamp(0, 4), labels


def test_raw_features_are_the_values() -> None:
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert isinstance(RawFeatures(), Features)
    assert RawFeatures()(x).tolist() == [list(range(6)), list(range(6, 12))]


def test_a_module_is_hashed_by_structure_and_weights() -> None:
    linear = nn.Linear(6, 4)
    module = nn.Sequential(nn.Flatten(), linear, nn.Dropout(0.5))
    features = ModuleFeatures(module, name="linear")
    assert isinstance(features, Features)
    x = torch.ones(3, 2, 3)
    assert torch.equal(features(x), features(x)) and features(x).shape == (3, 4)  # evaluation mode: no dropout
    before = module_hash(module)
    assert features.hash == before
    with torch.no_grad():
        linear.weight[0, 0] += 1
    assert module_hash(module) != before
    assert module_hash(nn.Linear(2, 2, bias=False)) != module_hash(nn.Linear(2, 2))


def test_a_plain_function_has_the_hash_it_is_given() -> None:
    assert ModuleFeatures(lambda x: x.reshape(len(x), -1), name="f").hash is None
    assert ModuleFeatures(lambda x: x.reshape(len(x), -1), name="f", hash="v1").hash == "v1"
    with pytest.raises(TypeError, match="must be a module or a function"):
        ModuleFeatures(3, name="f")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="returned .*wanted a tensor"):
        ModuleFeatures(lambda x: x.sum(), name="f")(torch.ones(3, 2))
    broken = ModuleFeatures(lambda x: torch.log(x), name="log")
    with pytest.raises(ValueError, match="'log' returned NaN or infinity for finite samples"):
        FrechetDistance(broken, Reference(torch.tensor([[-1.0], [1.0]]), name="r"))


@pytest.mark.parametrize("shape", [(5,), (2, 20), (1, 6, 9), (2, 4, 4, 5)], ids=["vector", "signal", "image", "volume"])
def test_the_classifier_takes_any_shape_and_tells_its_accuracy(shape: tuple[int, ...]) -> None:
    x, labels = toy(shape)
    spec = DataSpec(shape, low=0.0, high=4.0)
    features = ClassifierFeatures.fit(x, labels, spec, width=12, steps=15, seed=1)
    assert isinstance(features, Features)
    rows = features(x[:7])
    assert rows.shape == (7, 12) and not rows.requires_grad
    assert features.facts.accuracy >= TOY_ACCURACY and features.facts.held_out == 60
    assert f"held-out accuracy {100 * features.facts.accuracy:.1f} %" in features.note
    assert torch.allclose(features(x[3:4])[0], rows[3], atol=FLOAT32)  # no batch statistics
    with pytest.raises(ValueError, match="event shape"):
        features(torch.zeros(2, 3))


def test_the_classifier_is_a_function_of_data_and_seed_and_leaves_the_global_state(tmp_path: Path) -> None:
    x, labels = toy((1, 5, 5))
    spec = DataSpec((1, 5, 5), low=0.0, high=4.0)
    state = torch.random.get_rng_state()
    a, b, c = (ClassifierFeatures.fit(x, labels, spec, width=8, steps=12, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert a.hash == b.hash != c.hash
    assert torch.equal(a(x[:4]), b(x[:4]))
    a.save(tmp_path / "features.safetensors")
    again = ClassifierFeatures.load(tmp_path / "features.safetensors")
    assert again.hash == a.hash and again.facts == a.facts and torch.equal(again(x[:4]), a(x[:4]))


def test_unknown_labels_are_left_out_and_useless_ones_refused() -> None:
    x, labels = toy((4,))
    spec = DataSpec((4,), low=0.0, high=4.0)
    some = labels.clone()
    some[::2] = -1
    assert ClassifierFeatures.fit(x, some, spec, width=4, steps=5).facts.held_out == 30
    for bad, message in (
        (labels[:-1], "labels must be integers of shape"),
        (labels.double(), "labels must be integers of shape"),
        (torch.full_like(labels, -1), "two classes or more"),
        (torch.zeros_like(labels), "two classes or more"),
    ):
        with pytest.raises(ValueError, match=message):
            ClassifierFeatures.fit(x, bad, spec, steps=5)


def test_another_file_is_no_classifier(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds no feature classifier"):
        ClassifierFeatures.load(tmp_path / "x.safetensors")


def test_on_digits_it_classifies_and_its_distance_tells_noise_from_digits() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x, labels = torch.tensor(digits.images, dtype=torch.float32)[order, None], torch.tensor(digits.target)[order]
    spec = DataSpec((1, 8, 8), low=0, high=16, levels=17)
    held_out = (x[1000:], labels[1000:])
    features = ClassifierFeatures.fit(x[:1000], labels[:1000], spec, held_out=held_out, steps=60)
    assert features.facts.accuracy >= DIGITS_ACCURACY
    metric = FrechetDistance(features, Reference(x[1000:1400], name="digits", split="held-out"))
    real, sharp = float(measure(metric, x[1400:])), float(measure(metric, x[:397]))
    noisy = float(measure(metric, x[:397] + 4 * torch.randn(397, 1, 8, 8, generator=torch.Generator().manual_seed(1))))
    only_ones = float(measure(metric, x[labels == 1]))
    assert min(noisy, only_ones) > CLEARLY_WORSE * max(real, sharp)
