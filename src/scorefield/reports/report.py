"""A run's report: one HTML file that needs nothing else, from curves, samples and metrics.

    write_report(
        "runs/digits/report.html",
        [
            Section("Training", [loss_curves(rows)]),
            Section("Samples", [sample_grid(x, spec), evolution(frames, spec, labels)]),
            Section("Metrics", [metric_table({"samples": results, "second real split": real})]),
        ],
        title="digits",
        command="scorefield demo",
        environment={"torch": "2.13.0"},
    )

The file is a function of these arguments alone: the same ones give the same bytes. It asks nothing of the network (its
content policy forbids it), runs no script, follows the reader's light or dark mode and fits a phone. Pictures are
embedded PNG, curves are inline SVG. All text is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from scorefield._files import write_text
from scorefield.data_spec import DataSpec
from scorefield.metrics import MetricResult, Value
from scorefield.metrics.by_name import title as called
from scorefield.plot.pictures import (
    PAGE,
    caption_of,
    image_grid,
    kind,
    png_bytes,
    scatter_figure,
    shrink_to_range,
    signal_figure,
    to_svg,
    wide_columns,
)
from scorefield.reports.page import Block, Section, caption_of_figure, definitions, facts, number, page, table, text
from scorefield.reports.training_curves import loss_curves

__all__ = [
    "Block",
    "Section",
    "evolution",
    "facts",
    "loss_curves",
    "metric_table",
    "nearest_neighbours",
    "sample_grid",
    "table",
    "text",
    "write_report",
]

_CLEAR = (0, 0, 0, 0)


# ---------------------------------------------------------------------------------------------------- the file


def write_report(
    path: str | Path,
    sections: Sequence[Section],
    *,
    title: str,
    subtitle: str | None = None,
    command: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Write a report; a reader sees the old file or the new one, never half of one.

    Args:
        path: Path of the file; folders are made.
        sections: Its parts, in order.
        title: What was run.
        subtitle: One line under the title.
        command: The exact command that made it.
        environment: Facts of the machine and the software, by name.

    Returns:
        The path.
    """
    head = f"<h1>{escape(title)}</h1>"
    if subtitle:
        head += f'<p class="subtitle">{escape(subtitle)}</p>'
    if command:
        head += f"<pre><code>{escape(command)}</code></pre>"
    if environment:
        head += f"<details><summary>Environment</summary>{definitions(list(environment.items()))}</details>"
    body = "".join(
        f"<section><h2>{escape(s.title)}</h2>{''.join(block.html for block in s.blocks)}</section>" for s in sections
    )
    write_text(path, page(title, f"<header>{head}</header><main>{body}</main>"))
    return Path(path)


# ---------------------------------------------------------------------------------------------------- samples


def sample_grid(x: Tensor, spec: DataSpec, *, columns: int | None = None, caption: str | None = None) -> Block:
    """Examples side by side.

    Args:
        x: Examples in data units, shape (N, *event).
        spec: What they are.
        columns: Examples per row.
        caption: First words of the caption; what the greys or axes mean is added.
    """
    words = _join(caption or f"{len(x)} samples.", caption_of(spec))
    if kind(spec) == "vector":
        figure = scatter_figure(x, spec, PAGE)
        svg = to_svg(figure, words)
        return Block(f'<figure><div class="chart {_width(figure)}">{svg}</div>{caption_of_figure(words)}</figure>')
    if kind(spec) == "signal":
        svg = to_svg(signal_figure(x, spec, PAGE, columns), words)
        return Block(f'<figure><div class="chart wide">{svg}</div>{caption_of_figure(words)}</figure>')
    image = image_grid(x, spec, columns or wide_columns(len(x), spec), background=_CLEAR)
    return Block(f"<figure>{embedded(image, words)}{caption_of_figure(words)}</figure>")


def evolution(
    frames: Tensor, spec: DataSpec, labels: Sequence[str], *, what: str = "t", caption: str | None = None
) -> Block:
    """Evolution from noise to samples: one row per example, one column per recorded step.

    Noise can be far outside the data's range; each column is drawn towards the middle of the range by the factor shown
    above it.

    Args:
        frames: States in data units, shape (S, N, *event), noisiest first.
        spec: What they are.
        labels: One per column, for example the times.
        what: What the labels are.
        caption: First words of the caption.

    Raises:
        ValueError: Another number of labels than of columns.
    """
    if len(labels) != len(frames):
        raise ValueError(f"{len(labels)} labels were given for {len(frames)} recorded steps; give one per step")
    shrunk, factors = zip(*(shrink_to_range(frame, spec) for frame in frames), strict=True)
    steps, examples = len(frames), frames.shape[1]
    unlike = any(f > 1 for f in factors)
    heads = [f"{label}{f' (÷ {f:.3g})' if f > 1 else ''}" for label, f in zip(labels, factors, strict=True)]
    place = "" if kind(spec) == "vector" else " (one per row)"
    words = _join(
        caption or f"{steps} steps of {examples} examples{place}; above each: {what}.",
        "A division such as ÷ 12 means that this step is drawn at 1/12 of its distance from the middle of the range."
        if unlike
        else None,
        caption_of(spec),
    )
    if kind(spec) == "vector":
        svg = to_svg(scatter_figure(torch.stack(shrunk), spec, PAGE, [f"{what} = {h}" for h in heads]), words)
        return Block(f'<figure><div class="chart wide">{svg}</div>{caption_of_figure(words)}</figure>')
    by_example = torch.stack(shrunk, dim=1).reshape(-1, *frames.shape[2:])
    if kind(spec) == "signal":
        svg = to_svg(signal_figure(by_example, spec, PAGE, steps, heads), words)
        return Block(
            f'<figure><div class="scroll"><div class="chart wide">{svg}</div></div>{caption_of_figure(words)}</figure>'
        )
    image = image_grid(by_example, spec, steps, background=_CLEAR)
    cells = "".join(
        f"<span>{escape(label)}{f'<i>÷ {f:.3g}</i>' if f > 1 else ''}</span>"
        for label, f in zip(labels, factors, strict=True)
    )
    least = f"min-width:{steps * 44}px;max-width:{image.width}px"
    return Block(
        f'<figure><div class="scroll"><div class="steps" style="{least}">'
        f'<div class="labels" style="grid-template-columns:repeat({steps},1fr)">{cells}</div>'
        f"{embedded(image, words)}</div></div>{caption_of_figure(words)}</figure>"
    )


def nearest_neighbours(
    samples: Tensor,
    neighbours: Tensor,
    distances: Tensor,
    spec: DataSpec,
    *,
    unit: str | None = None,
    caption: str | None = None,
) -> Block:
    """Samples beside their nearest training examples.

    Args:
        samples: Samples in data units, shape (N, *event).
        neighbours: Training examples, nearest first, shape (N, K, *event).
        distances: Shape (N, K).
        spec: What they are.
        unit: Unit of the distances.
        caption: First words of the caption.

    Raises:
        ValueError: The shapes do not belong together.
    """
    n, k = neighbours.shape[:2]
    if len(samples) != n or tuple(distances.shape) != (n, k):
        raise ValueError(
            f"{len(samples)} samples, neighbours of {n} and distances of shape {tuple(distances.shape)} do not belong"
            f" together; wanted ({len(samples)}, K, *event) and ({len(samples)}, K)"
        )
    words = _join(
        caption or f"Each sample (left) with its {k} nearest training examples.",
        f"Numbers are distances{f' ({unit})' if unit else ''}.",
        None if kind(spec) == "vector" else caption_of(spec),
    )
    if kind(spec) == "vector":
        rows = [[i, *(float(d) for d in distances[i])] for i in range(n)]
        return table(["sample", *(f"distance to neighbour {j + 1}" for j in range(k))], rows, words)
    cards, wide = [], 110.0 * (k + 1)
    for i in range(n):
        if kind(spec) == "signal":
            strip = torch.cat([samples[i : i + 1], neighbours[i]])
            svg = to_svg(signal_figure(strip, spec, PAGE, k + 1), "a sample and its nearest training examples")
            below = _distances(distances[i], f"margin-left:{100 / (k + 1):.4g}%;")
            picture = f'<div class="chart">{svg}</div>{below}'
        else:
            own = image_grid(samples[i : i + 1], spec, 1, background=_CLEAR)
            near = image_grid(neighbours[i], spec, k, background=_CLEAR)
            wide = 0.9 * (own.width + near.width)
            picture = (
                f'<div class="pair" style="grid-template-columns:{own.width}fr {near.width}fr;'
                f'max-width:{own.width + near.width + 12}px">{embedded(own, f"sample {i}")}'
                f"<div>{embedded(near, f'its {k} nearest training examples')}{_distances(distances[i])}</div></div>"
            )
        cards.append(f"<div>{picture}</div>")
    grid = f'<div class="cards" style="--card:{min(520, round(wide))}px">{"".join(cards)}</div>'
    return Block(f"<figure>{grid}{caption_of_figure(words)}</figure>")


def _distances(distances: Tensor, style: str = "") -> str:
    cells = "".join(f"<span>{escape(number(float(d)))}</span>" for d in distances)
    return f'<div class="distances" style="{style}grid-template-columns:repeat({len(distances)},1fr)">{cells}</div>'


def embedded(image: Image.Image, words: str) -> str:
    """The markup of a picture that the page carries in itself."""
    data = base64.b64encode(png_bytes(image)).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" width="{image.width}" height="{image.height}"'
        f' style="max-width:{image.width}px">'
    )


def _width(figure: Figure) -> str:
    return "wide" if figure.get_size_inches()[0] > 4.5 else "narrow"


def _join(*parts: str | None) -> str:
    return " ".join(p for p in parts if p)


# ---------------------------------------------------------------------------------------------------- metrics


def metric_table(columns: Mapping[str, Sequence[MetricResult]], caption: str | None = None) -> Block:
    """Metrics as rows, sets of samples as columns, and every value's receipt to open.

    Args:
        columns: Name of a set of samples -> its results; a metric may be missing from some.
        caption: Words under the table.
    """
    names = list(dict.fromkeys(called(r) for results in columns.values() for r in results))
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in columns)
    rows = []
    for name in names:
        found = {c: [r for r in results if called(r) == name] for c, results in columns.items()}
        value = next(r.value for results in found.values() for r in results)
        cells = "".join(f'<td class="number">{"<br>".join(map(_value, found[c]))}</td>' for c in columns)
        hint = ", ".join(filter(None, [value.unit, _better(value)]))
        rows.append(f"<tr><th>{escape(name)}<small>{escape(hint)}</small></th>{cells}</tr>")
    opened = "".join(
        f"<details><summary>Receipt: {escape(called(r))}, {escape(c)}</summary>{_receipt(r)}</details>"
        for c, results in columns.items()
        for r in results
    )
    return Block(
        '<figure><div class="scroll"><table>'
        f"<thead><tr><th>metric</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        f"</table></div>{caption_of_figure(caption)}{opened}</figure>"
    )


def _value(result: MetricResult) -> str:
    value = result.value
    shown = f"<strong>{escape(number(value.number))}</strong>"
    if value.interval is not None:
        shown += f" <small>{escape(number(value.interval[0]))} to {escape(number(value.interval[1]))}</small>"
    if value.status != "ok":
        shown += f' <mark title="{escape(" ".join(value.warnings))}">{escape(value.status)}</mark>'
    return f"{shown}<small>N = {result.receipt.count:,}</small>"


def _better(value: Value) -> str:
    return {"lower": "lower is better", "higher": "higher is better", "near 1": "near 1 is right"}.get(
        value.better or "", ""
    )


def _receipt(result: MetricResult) -> str:
    value = result.value
    low_high = "not computed" if value.interval is None else " to ".join(number(v) for v in value.interval)
    (metric, *others) = result.receipt.lines()
    items = [metric, ("value", number(value.number)), ("95 % interval", low_high)]
    items += [(name, number(v)) for name, v in value.details.items()]
    warnings = "".join(f'<p class="warning">{escape(w)}</p>' for w in value.warnings)
    return warnings + definitions([*items, *others])
