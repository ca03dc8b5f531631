"""Reports: one self-contained, escaped, repeatable file; pictures with the right pixels."""

from __future__ import annotations

import base64
import inspect
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.metrics import FrechetDistance, RawFeatures, Reference, SampleSource, SlicedWasserstein, measure
from scorefield.plot import pictures
from scorefield.plot.pictures import image_grid, save_png, shrink_to_range, wide_columns
from scorefield.reports import page, report, training_curves
from scorefield.reports.report import (
    Block,
    Section,
    evolution,
    facts,
    loss_curves,
    metric_table,
    nearest_neighbours,
    sample_grid,
    table,
    text,
    write_report,
)
from tolerance import FLOAT32

GREY = DataSpec((1, 4, 4), low=0.0, high=16.0, levels=17)
KINDS = {
    "grey": GREY,
    "colour": DataSpec((3, 4, 5), low=0, high=255, levels=256),
    "two fields": DataSpec((2, 4, 6), channel_names=("u", "v"), units="m/s", offset=(1.0, 0.0), scale=(2.0, 1.0)),
    "five channels": DataSpec((5, 3, 3)),
    "volume": DataSpec((1, 3, 4, 4)),
    "signal": DataSpec((2, 15), low=-1.0, high=1.0, units="mV", channel_names=("I", "II")),
    "points": DataSpec((2,), scale=1.5),
    "numbers": DataSpec((1,)),
    "vectors": DataSpec((7,)),
}
every_kind = pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
VOID = {"meta", "img", "br", "path", "use", "rect", "image"}


def examples(spec: DataSpec, count: int = 4, seed: int = 0) -> Tensor:
    m = torch.randn(count, *spec.shape, generator=torch.Generator().manual_seed(seed))
    return spec.to_data(m)


class Reader(HTMLParser):
    """Collects what a page refers to, its ids, its text, and whether its elements close in order."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action")]
        self.ids += [v or "" for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def training_rows(count: int = 60) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for i in range(count):
        rows.append(
            {
                "step": 10 * i,
                "seconds": 0.5 * i,
                "loss": 1 / (i + 1),
                "loss_bins": [1.0, None, 0.1 + 1 / (i + 1), "nan"],
                "bin_edges": [0, 0.25, 0.5, 0.75, 1.0],
                "lr": 1e-4,
                "grad_norm": 1.0 + i % 3,
            }
        )
        if i % 10 == 0:
            rows[-1]["validation"] = 0.5
    return rows


def results() -> dict[str, list]:
    x = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    reference = Reference(x, name="toy <data>", split="held-out")
    source = SampleSource(sampler="pc & co", nfe=1000, weights="ema:0.999", seed=5)
    metrics = [FrechetDistance(RawFeatures(), reference), SlicedWasserstein(reference, projections=4)]
    return {
        "samples": [measure(m, x[:10] + 1, source=source) for m in metrics],
        "second real split": [measure(metrics[1], x[10:])],
    }


def write_everything(path: Path, kinds: tuple[str, ...]) -> str:
    sections = [
        Section("Words", [text("First <b>.\n\nSecond."), facts({"steps": 12000, "loss": 0.25}), table(["a"], [[1]])]),
        Section("Curves", [loss_curves(training_rows())]),
        Section("Metrics", [metric_table(results(), "Compare at equal N.")]),
    ]
    for name in kinds:
        spec = KINDS[name]
        x = examples(spec, 2)
        frames = torch.stack([40 * x, x])
        near = torch.stack([x, x], dim=1)
        sections.append(
            Section(
                name,
                [
                    sample_grid(x, spec),
                    evolution(frames, spec, ["1", "0"]),
                    nearest_neighbours(x, near, torch.rand(2, 2, generator=torch.Generator().manual_seed(1)), spec),
                ],
            )
        )
    environment = {"torch": "2.13.0", "<script>": "&"}
    write_report(path, sections, title="run <1>", subtitle="a & b", command="scorefield demo", environment=environment)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    kinds = ("grey", "two fields", "signal", "points")
    return write_everything(tmp_path_factory.mktemp("report") / "new folder" / "report.html", kinds)


# ---------------------------------------------------------------------------------------------------- the file


def test_the_page_is_whole_and_refers_to_nothing_outside(html: str) -> None:
    reader = Reader(html)
    assert reader.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert "default-src 'none'" in html and "width=device-width" in html and "prefers-color-scheme: dark" in html
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert "http://" not in without_names and "https://" not in without_names and "@import" not in html


def test_ids_of_different_figures_do_not_meet(html: str) -> None:
    figures_ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    assert len(figures_ids) > 8
    for i, ids in enumerate(figures_ids):
        assert all(not ids & other for other in figures_ids[i + 1 :] if ids != other)


def test_everything_from_outside_is_escaped(html: str) -> None:
    words = Reader(html).words
    for text_from_outside in ("run <1>", "a & b", "First <b>.", "<script>", "toy <data>", "pc & co"):
        assert text_from_outside in words
    assert "<script>" not in html and "toy <data>" not in html


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    kinds = ("grey", "signal")
    assert write_everything(tmp_path / "a.html", kinds) == write_everything(tmp_path / "b.html", kinds)


def test_figures_take_the_pages_colours(html: str) -> None:
    assert "#01020" not in html
    assert "currentColor" in html and "var(--series-1)" in html


def test_pyplot_is_never_touched() -> None:
    for module in (pictures, training_curves, page, report):
        assert "pyplot as" not in inspect.getsource(module) and not hasattr(module, "plt")


def test_receipts_are_on_the_page(html: str) -> None:
    words = Reader(html).words
    for fact in ("Frechet distance", "sliced Wasserstein", "held-out", "ema:0.999", "1,000", "not computed", "N = 10"):
        assert fact in words
    assert "singular" in words and "only 10 samples for 16 features" in words


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(tmp_path / "report.html", [], title="old")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="[Nn]o space left"):
        write_report(path, [], title="new")
    with pytest.raises(OSError, match="[Nn]o space left"):
        save_png(Image.new("RGB", (2, 2)), tmp_path / "grid.png")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# ---------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [{"step": 1}],
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": None}],
        [{"step": i, "loss": 10.0**-i, "validation": None} for i in range(5)],
        [{"step": 1, "loss_bins": [1.0, 2.0]}],
        [{"step": 1, "loss_bins": [None, None], "bin_edges": [0, 0.5, 1]}],
        [{"step": 1, "loss_bins": [1.0], "bin_edges": [0, 1]}, {"step": 2, "loss_bins": [1.0, 2.0], "bin_edges": None}],
        [{"step": 3, "lr": 0.0, "grad_norm": "inf"}, {"step": 4, "lr": 1e-3, "grad_norm": 0.0}],
    ],
)
def test_rows_with_missing_keys_are_drawn_as_far_as_they_go(rows: list[dict[str, object]]) -> None:
    assert Reader(loss_curves(rows).html).open == []


def test_curves_name_units_bins_and_last_values() -> None:
    rows = training_rows()
    words = Reader(loss_curves(rows, loss_unit="nats", bin_unit="level").html).words
    for part in ("nats", "level from", "0.5 to 0.75", "validation", "To step 590", "30 s", "0.01667", "Learning rate"):
        assert part in words
    assert "0.25 to 0.5" not in words  # a bin that never saw an example
    assert "No training rows" in loss_curves([]).html


def test_long_runs_are_thinned_and_keep_their_ends() -> None:
    rows = [{"step": i, "loss": 1.0 + (i == 4_999)} for i in range(5_000)]
    block = loss_curves(rows)
    assert len(block.html) < 60_000


# ---------------------------------------------------------------------------------------------------- pictures


def test_grey_levels_are_exact_and_clipped_only_in_the_picture() -> None:
    spec = DataSpec((1, 2, 2), low=0.0, high=255.0, levels=256)
    x = torch.tensor([[[[-50.0, 0.0], [128.0, 999.0]]]])
    before = x.clone()
    pixels = np.asarray(image_grid(x, spec, tile=2).convert("L"))
    assert pixels[1:3, 1:3].tolist() == [[0, 0], [128, 255]]
    assert torch.equal(x, before)


def test_three_channels_are_red_green_blue_unless_named_otherwise() -> None:
    x = torch.tensor([255.0, 0.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    colour = image_grid(x, DataSpec((3, 2, 2), low=0, high=255), tile=2)
    assert colour.size == (4, 4) and colour.getpixel((1, 1)) == (255, 0, 0)
    named = image_grid(x, DataSpec((3, 2, 2), low=0, high=255, channel_names=("u", "v", "w")), tile=2)
    assert named.width > colour.width
    assert [named.getpixel((x, 1)) for x in (1, 4, 7)] == [(255,) * 3, (0,) * 3, (0,) * 3]
    rgb = DataSpec((3, 2, 2), low=0, high=255, channel_names=("Red", "Green", "Blue"))
    assert image_grid(x, rgb, tile=2).size == colour.size


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_grids_have_a_panel_for_each_channel_and_room_for_all(channels: int) -> None:
    spec = DataSpec((channels, 6, 4), low=0, high=1)
    x = torch.ones(7, channels, 6, 4)
    image = np.asarray(image_grid(x, spec, 3, tile=6, background=(0, 0, 0, 0)))
    assert (image[..., 3] > 0).sum() == 7 * 6 * 4 * (1 if channels == 3 else channels)
    assert image.shape[1] == 3 * (4 if channels in (1, 3) else 4 * channels + channels - 1) + 4


def test_small_images_are_enlarged_by_whole_pixels() -> None:
    x = examples(GREY, 1)
    small, large = image_grid(x, GREY, tile=4).convert("L"), image_grid(x, GREY, tile=64).convert("L")
    core = np.asarray(large)[4:-4, 4:-4]
    assert core.shape == (64, 64)
    assert (core[::16, ::16] == np.asarray(small)[1:-1, 1:-1]).all()
    assert (core == core[::16, ::16].repeat(16, 0).repeat(16, 1)).all()


@every_kind
def test_every_kind_of_data_makes_a_picture(spec: DataSpec, tmp_path: Path) -> None:
    path = save_png(image_grid(examples(spec, 5), spec), tmp_path / "grids" / "x.png")
    with Image.open(path) as image:
        assert image.mode == "RGB" and min(image.size) > 20
        assert len(set(image.convert("L").get_flattened_data() if hasattr(image, "get_flattened_data") else [0, 1])) > 1
    block = sample_grid(examples(spec, 5), spec, caption="Five.")
    assert isinstance(block, Block) and Reader(block.html).words.strip().startswith("Five.") or "<svg" in block.html
    if spec.units:
        assert spec.units in Reader(block.html).words


def test_embedded_pictures_are_png_with_clear_gaps() -> None:
    (data,) = re.findall(r"base64,([^\"]+)", sample_grid(examples(GREY, 9), GREY).html)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "PNG" and image.mode == "RGBA"
        assert image.getpixel((0, 0)) == (0, 0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 5, 16, 17, 60, 64, 100])
def test_rows_are_full_where_that_is_possible(count: int) -> None:
    columns = wide_columns(count, GREY)
    assert 1 <= columns <= count
    if count in (16, 60, 64, 100):
        assert count % columns == 0
    assert columns <= 2 * math.sqrt(count)


def test_noise_is_shrunk_to_the_range_and_data_are_left_alone() -> None:
    x = 16 * torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    same, factor = shrink_to_range(x, GREY)
    assert factor == 1.0 and torch.allclose(same, x)
    shrunk, factor = shrink_to_range(8 + 100 * (x - 8), GREY)
    assert factor > 50
    assert torch.allclose(shrunk, 8 + (100 / factor) * (x - 8))
    inside = (shrunk >= -FLOAT32) & (shrunk <= 16 + FLOAT32)
    assert int(inside.sum()) >= math.ceil(0.98 * shrunk.numel())


def test_evolution_shows_labels_and_factors() -> None:
    x = examples(GREY, 2).clamp(0, 16)
    block = evolution(torch.stack([8 + 100 * (x - 8), x]), GREY, ["50", "0.01"], what="noise level in model units")
    words = Reader(block.html).words
    assert "50" in words and "0.01" in words and words.count("÷") == 2 and "noise level in model units" in words
    with pytest.raises(ValueError, match="1 labels were given for 2 recorded steps"):
        evolution(torch.stack([x, x]), GREY, ["1"])


def test_neighbours_show_their_distances() -> None:
    x = examples(GREY, 2)
    distances = torch.tensor([[1.25, 2.5], [0.0, 4.125]])
    words = Reader(nearest_neighbours(x, torch.stack([x, x], 1), distances, GREY, unit="mV").html).words
    assert all(d in words for d in ("1.250", "2.500", "4.125", "mV"))
    with pytest.raises(ValueError, match="do not belong together"):
        nearest_neighbours(x, x[:1, None], distances, GREY)


def test_tables_align_numbers_and_refuse_ragged_rows() -> None:
    block = table(["sampler", "NFE", "seconds"], [["pc", 12000, 1.5], ["ode", 80, 0.000012]], "Cost.")
    words = Reader(block.html).words
    assert "12,000" in words and "1.500" in words and "1.200e-05" in words and "Cost." in words
    assert block.html.count('<td class="number">') == 4
    with pytest.raises(ValueError, match="a row of 1 cells cannot stand in a table of 2 columns"):
        table(["a", "b"], [[1]])


def test_examples_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="event shape"):
        image_grid(torch.zeros(2, 3, 4, 4), GREY)
    with pytest.raises(ValueError, match="no examples to draw"):
        image_grid(torch.zeros(0, 1, 4, 4), GREY)
    with pytest.raises(ValueError, match="pictures are made for 1 to 4"):
        sample_grid(torch.zeros(1, 1, 2, 2, 2, 2), DataSpec((1, 2, 2, 2, 2)))
