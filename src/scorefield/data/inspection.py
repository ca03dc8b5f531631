"""Inspection of a data set before training: `inspect` reads it, counts and suggests the next command."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from scorefield.data.images import DECODE_ERRORS, NATIVE, convert, read_header
from scorefield.data.opening import choose_splits, open_data, read_contents
from scorefield.data.readers.content import Arrays, Content, Images
from scorefield.data.rows import ArrayRows, chunks, evenly
from scorefield.data.source import DataError, DataSource
from scorefield.data.survey import Moments
from scorefield.data_spec import DataSpec

INSPECTED = 100_000
"""Examples read: all of a split up to this size, so many evenly spaced ones of a larger one."""


@dataclasses.dataclass
class Inspection:
    """Result of `inspect`. Statistics are in data units, per channel, over the examples without NaN.

    Attributes:
        path: What was inspected.
        splits: Number of examples of each split.
        split: The split that the rest is about (the training split).
        looked_at: Number of its examples that were read.
        shape: Shape of one example as stored, None if they differ.
        dtype: Type as stored.
        sizes: (height, width) of image files and how often each occurs.
        modes: Colour modes of image files.
        mean: Per channel.
        deviation: Per channel.
        low: Smallest value seen, per channel.
        high: Largest value seen, per channel.
        grey_levels: Number of values and their distance if values are equally spaced, None for continuous data.
        bad: Names of the examples with NaN or infinity.
        corrupt: (name, reason) of the images that cannot be decoded.
        duplicates: Pairs of names of an example and an earlier one that is exactly equal; the first few.
        duplicate_count: Number of examples that are equal to an earlier one.
        shared: Number of examples of the held-out split that are exactly equal to one of this split.
        labels: Examples per class.
        settings: Fields to set before the data can be used.
        problem: Why they cannot be used even so.
        spec: The DataSpec that training would use, with those settings.
        command: The command to train on them.
    """

    path: str
    splits: dict[str, int]
    split: str
    looked_at: int = 0
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    sizes: Counter[tuple[int, int]] = dataclasses.field(default_factory=Counter)
    modes: Counter[str] = dataclasses.field(default_factory=Counter)
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    grey_levels: tuple[int, float] | None = None
    bad: tuple[str, ...] = ()
    corrupt: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()
    duplicate_count: int = 0
    shared: int | None = None
    labels: dict[str, int] | None = None
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    problem: str | None = None
    spec: DataSpec | None = None
    command: str = ""

    def lines(self) -> list[str]:
        """The report as text, one fact a line."""
        return [f"{name:<12} {text}" for name, text in _facts(self)]


def suggest_recipe(spec: DataSpec) -> str:
    """The recipe for data of a shape: "points-2d", "vectors", "signals" or "images"."""
    if len(spec.shape) == 1:
        return "points-2d" if spec.shape == (2,) else "vectors"
    return "signals" if len(spec.shape) == 2 else "images"


def inspect(source: DataSource, dataset: Any = None) -> Inspection:
    """Read a source and report on it. Examples that cannot be read are reported too.

    Args:
        source: What to read and how, as for `open_data`; fields that are set are used.
        dataset: A data set in place of `source.path`, as for `open_data`.

    Raises:
        DataError: There is nothing to inspect: no such path, no reader for it, a file that cannot be opened at all.
    """
    contents = read_contents(source, dataset)
    main, other = choose_splits(contents, source)
    content = contents[main]
    found = Inspection(
        path=source.path or type(dataset).__name__,
        splits={s: contents[s].count for s in sorted(contents, key=lambda s: s != main)},
        split=main,
    )
    if content.labels is not None:
        counts = Counter(content.labels.tolist())
        found.labels = {_class_name(content, k): n for k, n in sorted(counts.items())}
    if isinstance(content, Images):
        seen = _inspect_images(content, source, found)
        found.shared = None if other is None else _shared(_image_hashes(contents[other]), seen)
    else:
        seen = _inspect_array(content, source, found)
        if other is not None and seen:
            tuned = _with_settings(source, found.settings)
            found.shared = _shared((h for _, h in _array_hashes(contents[other], tuned, None)), seen)
    try:
        found.spec = open_data(_with_settings(source, found.settings), dataset).spec
    except DataError as error:
        found.problem = str(error)
    found.command = _command(source, found)
    return found


def _class_name(content: Content, number: int) -> str:
    if number < 0:
        return "unknown"
    names = content.class_names
    return names[number] if names is not None and number < len(names) else str(number)


def _hash(x: np.ndarray) -> bytes:
    return hashlib.blake2b(repr((x.shape, x.dtype.str)).encode() + x.tobytes(), digest_size=16).digest()


def _shared(hashes: Any, seen: dict[bytes, int]) -> int:
    return sum(h in seen for h in hashes)


def _count_duplicates(found: Inspection, seen: dict[bytes, int], name: Any, index: int, digest: bytes) -> None:
    first = seen.setdefault(digest, index)
    if first != index:
        found.duplicate_count += 1
        if len(found.duplicates) < 5:
            found.duplicates += ((name(index), name(first)),)


# ------------------------------------------------------------------------------------------------------ images


def _look(images: Images, index: int) -> tuple[Any, bytes, np.ndarray] | Exception:
    """Header, hash of the pixels, and a histogram of 256 values per channel: statistics without keeping the image."""
    try:
        with images.open(index) as image:
            header = read_header(image)
            image.load()
            values = np.asarray(image if image.mode in NATIVE else convert(image, 3))
    except DECODE_ERRORS as error:
        return error
    planes = values.reshape(-1, values.shape[2]).T if values.ndim == 3 else values.reshape(1, -1)
    return header, _hash(values), np.stack([np.bincount(plane, minlength=256) for plane in planes])


def _looks(images: Images) -> Any:
    """(index, look) of the images that are inspected, in order, read by a few threads."""
    chosen = evenly(images.count, INSPECTED)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for part in np.array_split(chosen, 1 + len(chosen) // 1024):
            looked = pool.map(lambda i: _look(images, int(i)), part, chunksize=64)
            yield from zip(part.tolist(), looked, strict=True)


def _image_hashes(content: Content) -> Any:
    assert isinstance(content, Images)
    return (look[1] for _, look in _looks(content) if not isinstance(look, Exception))


def _inspect_images(images: Images, source: DataSource, found: Inspection) -> dict[bytes, int]:
    seen: dict[bytes, int] = {}
    histograms: dict[int, np.ndarray] = {}
    found.dtype = "uint8"
    for index, look in _looks(images):
        found.looked_at += 1
        if isinstance(look, Exception):
            found.corrupt += ((images.name(index), str(look).split(" <")[0]),)
            continue
        header, digest, histogram = look
        found.modes[header.mode] += 1
        found.sizes[header.size] += 1
        histograms[len(histogram)] = histograms.get(len(histogram), 0) + histogram
        _count_duplicates(found, seen, images.name, index, digest)
    if not seen:
        return seen
    channels, histogram = max(histograms.items(), key=lambda item: item[1].sum())
    if len(found.sizes) == 1 and len(found.modes) == 1:
        found.shape = (channels, *next(iter(found.sizes)))
    _histogram_statistics(found, histogram)
    _image_settings(found, source)
    return seen


def _histogram_statistics(found: Inspection, histogram: np.ndarray) -> None:
    values = np.arange(256.0)
    weight = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weight @ values
    present = histogram > 0
    found.mean = tuple(mean.tolist())
    found.deviation = tuple(np.sqrt((weight * (values - mean[:, None]) ** 2).sum(axis=1)).tolist())
    found.low = tuple(float(np.flatnonzero(p)[0]) for p in present)
    found.high = tuple(float(np.flatnonzero(p)[-1]) for p in present)
    found.grey_levels = equal_steps(np.flatnonzero(present.any(axis=0)).astype(np.float64))


def _image_settings(found: Inspection, source: DataSource) -> None:
    if found.corrupt and not source.skip_bad:
        found.settings["skip_bad"] = "true"
    if source.channels is None and (len(found.modes) > 1 or next(iter(found.modes)) not in NATIVE):
        grey = all(mode.split(" ")[0] in ("L", "LA", "1", "I;16") for mode in found.modes)
        found.settings["channels"] = "1" if grey else "3"
    if source.size is None and source.crop is None and len(found.sizes) > 1:
        found.settings["size"] = str(min(min(size) for size in found.sizes))


# ------------------------------------------------------------------------------------------------------ arrays


def _inspect_array(content: Arrays, source: DataSource, found: Inspection) -> dict[bytes, int]:
    found.dtype = str(content.array.dtype)
    found.settings.update(_layout_setting(content, source))
    tuned = _with_settings(source, found.settings)
    try:
        rows = ArrayRows(content, dataclasses.replace(tuned, crop=None, size=None, pad=0, stack=1, channels=None))
    except DataError:
        found.shape = tuple(content.array.shape[1:])
        return {}
    found.shape = rows.shape
    moments = Moments(rows.shape[0])
    seen: dict[bytes, int] = {}
    for index, digest in _array_hashes(content, tuned, (moments, found)):
        _count_duplicates(found, seen, rows.describe, index, digest)
    found.mean, found.deviation = tuple(moments.mean.tolist()), tuple(moments.deviation.tolist())
    found.low, found.high = tuple(moments.low.tolist()), tuple(moments.high.tolist())
    sample = rows.read(evenly(len(rows), max(1, 2**20 // max(1, int(np.prod(rows.shape))))))
    found.grey_levels = equal_steps(np.unique(sample[np.isfinite(sample)]).astype(np.float64), sample.size)
    whole = content.array.dtype.kind in "iu" and content.array.dtype != np.uint8
    if whole and source.low is None and content.grey is None:
        found.settings.update(low=f"{min(found.low):g}", high=f"{max(found.high):g}")
    if found.bad and not source.skip_bad:
        found.settings["skip_bad"] = "true"
    return seen


def _array_hashes(content: Content, source: DataSource, into: tuple[Moments, Inspection] | None) -> Any:
    """(index, hash) of the rows that are inspected, taking their statistics on the way."""
    assert isinstance(content, Arrays)
    rows = ArrayRows(content, dataclasses.replace(source, crop=None, size=None, pad=0, stack=1, channels=None))
    for part, x in chunks(rows, evenly(len(rows), INSPECTED)):
        if into is not None:
            moments, found = into
            found.looked_at += len(part)
            found.bad += tuple(rows.describe(i) for i in part[moments.add(x)])
        yield from ((int(i), _hash(row)) for i, row in zip(part, x, strict=True))


def _layout_setting(content: Arrays, source: DataSource) -> dict[str, str]:
    """A guess at the layout of an array whose axes could mean several things: offered, never applied in training."""
    shape = tuple(content.array.shape)
    if source.layout is not None or content.layout is not None or content.array.dtype == np.uint8 and len(shape) == 3:
        return {}
    if len(shape) == 4 and shape[3] <= 4 < shape[1]:
        return {"layout": "channels_last"}
    if len(shape) != 3:
        return {}
    if shape[1] > 4 and shape[2] > 4 and max(shape[1:]) <= 4 * min(shape[1:]):
        return {"layout": "grey"}
    return {"layout": "channels_first" if shape[1] <= shape[2] else "channels_last"}


def equal_steps(values: np.ndarray, seen: int | None = None) -> tuple[int, float] | None:
    """(levels, step) if sorted distinct values are equally spaced, some possibly missing, else None.

    Args:
        values: Distinct values, ascending.
        seen: Number of values among which they were found: quantised data repeat their values.
    """
    if len(values) < 2 or len(values) > 65536 or (seen is not None and seen < 8 * len(values)):
        return None
    gaps = np.diff(values)
    # Float rounding splits one level into neighbours closer than a millionth of the range; they count as one.
    step = float(gaps[gaps > 1e-6 * (values[-1] - values[0])].min())
    levels = round((values[-1] - values[0]) / step) + 1
    step = float((values[-1] - values[0]) / (levels - 1))
    unit = (values - values[0]) / step
    return (levels, step) if np.abs(unit - np.rint(unit)).max() < 0.02 and levels <= 65536 else None


# ------------------------------------------------------------------------------------------------------ report


def _with_settings(source: DataSource, settings: dict[str, str]) -> DataSource:
    readers: dict[str, Any] = {"low": float, "high": float, "size": int, "channels": int}
    values = {
        name: text == "true" if name == "skip_bad" else readers.get(name, str)(text) for name, text in settings.items()
    }
    return dataclasses.replace(source, **values)


def _command(source: DataSource, found: Inspection) -> str:
    recipe = "digits" if source.path == "digits" else "RECIPE" if found.spec is None else suggest_recipe(found.spec)
    given = {
        f.name: getattr(source, f.name)
        for f in dataclasses.fields(source)
        if f.name != "path" and getattr(source, f.name) != f.default
    }
    texts = {name: _setting_text(value) for name, value in given.items()} | found.settings
    words = ["scorefield", "train", recipe, "--data", found.path]
    if texts.pop("skip_bad", None) == "true":
        words.append("--skip-bad")
    for name, text in texts.items():
        words += ["--set", f"data.{name}={text}"]
    return shlex.join(words)


def _setting_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ",".join(f'"{v}"' if isinstance(v, str) else str(v) for v in value) + "]"
    return str(value)


def _facts(found: Inspection) -> list[tuple[str, str]]:
    total = found.splits[found.split]
    facts = [
        ("path", found.path),
        ("examples", ", ".join(f"{n} {split}" if split != "all" else str(n) for split, n in found.splits.items())),
    ]
    if found.looked_at < total:
        facts.append(("looked at", f"{found.looked_at} evenly spaced examples of {total}"))
    facts.append(("shape", "differs" if found.shape is None else " x ".join(map(str, found.shape))))
    if found.spec is not None and found.spec.shape != found.shape:
        facts.append(("trained as", " x ".join(map(str, found.spec.shape))))
    facts.append(("type", found.dtype))
    if found.modes:
        facts.append(("colour", ", ".join(f"{mode} ({n})" for mode, n in found.modes.most_common(6))))
    if len(found.sizes) > 1:
        listed = ", ".join(f"{h} x {w} ({n})" for (h, w), n in found.sizes.most_common(6))
        facts.append(("sizes", f"{len(found.sizes)} different, height x width: {listed}"))
    facts += _value_facts(found)
    if found.labels is not None:
        listed = ", ".join(f"{name} {n}" for name, n in list(found.labels.items())[:20])
        more = f" and {len(found.labels) - 20} more" if len(found.labels) > 20 else ""
        facts.append(("labels", f"{len(found.labels)} classes: {listed}{more}; data.conditional=true trains on them"))
    names = "; ".join(f"{a} = {b}" for a, b in found.duplicates[:3])
    facts.append(("duplicates", f"{found.duplicate_count} ({names})" if found.duplicate_count else "none"))
    if found.shared is not None:
        facts.append(("shared", f"{found.shared} held-out examples are exactly equal to a training example"))
    if found.corrupt:
        listed = "; ".join(f"{name} ({reason})" for name, reason in found.corrupt[:5])
        facts.append(("corrupt", f"{len(found.corrupt)}: {listed}"))
    if found.settings:
        listed = ", ".join(f"data.{name}={text}" for name, text in found.settings.items())
        guess = " (the layout is a guess: check the shape above)" if "layout" in found.settings else ""
        facts.append(("needs", listed + guess))
    if found.problem is not None:
        facts.append(("problem", found.problem))
    return [*facts, ("train", found.command)]


def _value_facts(found: Inspection) -> list[tuple[str, str]]:
    facts = []
    if found.low:
        facts.append(("range", f"{min(found.low):g} to {max(found.high):g}"))
    if found.grey_levels is not None:
        levels, step = found.grey_levels
        text = f"{levels}, {step:g} apart"
        if found.dtype.startswith("float"):
            low, high = min(found.low), max(found.high)
            text += f"; to use them: data.low={low:g} data.high={high:g} data.levels={levels}"
        facts.append(("grey levels", text))
    elif found.low:
        facts.append(("grey levels", "none found: continuous"))
    shown = range(min(len(found.mean), 8))
    facts += [
        (
            f"channel {c}",
            f"mean {found.mean[c]:.6g}, deviation {found.deviation[c]:.6g}, {found.low[c]:g} to {found.high[c]:g}",
        )
        for c in shown
    ]
    if len(found.mean) > 8:
        facts.append(("", f"and {len(found.mean) - 8} more channels"))
    facts.append(("NaN, inf", f"{len(found.bad)} examples: {', '.join(found.bad[:5])}" if found.bad else "none"))
    return facts
