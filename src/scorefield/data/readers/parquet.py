"""Image parquet in the Hugging Face layout: a column of structs (bytes, path) or of bytes, and a column of labels."""

from __future__ import annotations

import bisect
import collections
import io
import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scorefield._codec import near
from scorefield.data.readers.content import Content, Images
from scorefield.data.readers.labels import SPLIT_NAMES, class_numbers
from scorefield.data.source import DataError, DataSource


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError("reading parquet needs pyarrow: pip install scorefield[data]") from None
    return pyarrow


def read_parquet(path: Path, source: DataSource) -> dict[str, Content]:
    """A file, or all parquet files of a folder by split (the word before the first dash or dot of their names).

    Raises:
        DataError: No parquet file, damaged ones, or no column of images.
    """
    if path.is_file():
        return {"all": _read_split([path], source)}
    found: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")):
        # Hubs write train-00000-of-00002.parquet, or a folder per split with 0000.parquet in it.
        words = (re.split(r"[-_.]", file.name.lower())[0], file.parent.name.lower() if file.parent != path else "")
        split = next((SPLIT_NAMES[w] for w in words if w in SPLIT_NAMES), "all")
        found.setdefault(split, []).append(file)
    if not found:
        raise DataError(f"{path} holds no parquet files")
    return {split: _read_split(files, source) for split, files in found.items()}


def _read_split(files: list[Path], source: DataSource) -> Images:
    groups = _RowGroups(files, int(source.memory_gib * 2**30))
    features = _features(groups.schema)
    groups.column = _image_column(groups.schema, features, source.key, files[0])
    label = _label_column(groups.schema, features, source, files[0])
    labels = names = None
    if label is not None:
        labels, names = class_numbers(groups.whole(label), groups.count, label)
        names = _names(features.get(label)) or names
    return Images(groups.count, groups.open, groups.name, labels, names)


# ---------------------------------------------------------------------------------------------------- columns


def _features(schema: Any) -> dict[str, Any]:
    """Columns according to the Hugging Face metadata; empty for other files."""
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}


def _names(feature: Any) -> tuple[str, ...] | None:
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _is_image(field: Any) -> bool:
    pa = _pyarrow()
    if pa.types.is_struct(field.type):
        return "bytes" in [field.type.field(i).name for i in range(field.type.num_fields)]
    return pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)


def _image_column(schema: Any, features: dict[str, Any], key: str | None, file: Path) -> str:
    known = [f.name for f in schema if _is_image(f)]
    columns = ", ".join(f"{f.name} ({f.type})" for f in schema)
    if key is not None:
        if key not in schema.names:
            raise DataError(f"{file} has no column {key!r} (data.key).{near(key, schema.names)}")
        if key not in known:
            raise DataError(f"{file}: the column {key!r} holds no encoded images; columns: {columns}")
        return key
    if len(known) > 1:
        known = [n for n in known if isinstance(features.get(n), dict) and features[n].get("_type") == "Image"] or known
    if not known:
        raise DataError(f"{file} has no column of encoded images (bytes, or a struct with bytes); columns: {columns}")
    if len(known) > 1:
        raise DataError(f"{file} has several columns of images ({', '.join(known)}): choose one with data.key")
    return known[0]


def _label_column(schema: Any, features: dict[str, Any], source: DataSource, file: Path) -> str | None:
    if source.label_key is not None:
        if source.label_key not in schema.names:
            raise DataError(
                f"{file} has no column {source.label_key!r} (data.label_key).{near(source.label_key, schema.names)}"
            )
        return source.label_key
    declared = [n for n, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"]
    known = [n for n in declared if n in schema.names] or [n for n in ("label", "labels") if n in schema.names]
    if len(known) > 1 and source.conditional:
        raise DataError(f"{file} has several columns of labels ({', '.join(known)}): choose one with data.label_key")
    return known[0] if len(known) == 1 else None


# ----------------------------------------------------------------------------------------------------- rows


class _RowGroups:
    """Rows of several parquet files, read by row groups; the latest groups are kept, up to a number of bytes."""

    def __init__(self, files: list[Path], memory: int):
        pa = _pyarrow()
        self._files, self._memory = files, memory
        self.column = ""
        self._groups: list[tuple[int, int]] = []  # (file, group within it)
        self._starts: list[int] = []  # first row of each group
        self.count = 0
        schemas = []
        for number, file in enumerate(files):
            try:
                with pa.parquet.ParquetFile(file) as opened:
                    schemas.append(opened.schema_arrow)
                    for group in range(opened.num_row_groups):
                        self._groups.append((number, group))
                        self._starts.append(self.count)
                        self.count += opened.metadata.row_group(group).num_rows
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file} is not a whole parquet file ({str(error).splitlines()[0][:150]})") from None
            if schemas[-1].names != schemas[0].names:
                raise DataError(f"{file} has the columns {schemas[-1].names}, {files[0]} has {schemas[0].names}")
        self.schema = schemas[0]
        self._held: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def whole(self, column: str) -> np.ndarray:
        """One small column of all rows."""
        pa = _pyarrow()
        values = []
        for file in self._files:
            try:
                values += pa.parquet.read_table(file, columns=[column])[column].to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file} cannot be read ({str(error).splitlines()[0][:150]})") from None
        return np.array([-1 if v is None else v for v in values]) if values else np.zeros(0, np.int64)

    def name(self, index: int) -> str:
        """File and row."""
        group = bisect.bisect_right(self._starts, index) - 1
        number, _ = self._groups[group]
        first = next(s for s, (n, _) in zip(self._starts, self._groups, strict=True) if n == number)
        return f"{self._files[number]} row {index - first}"

    def open(self, index: int) -> Image.Image:
        """Open the image of a row."""
        group = bisect.bisect_right(self._starts, index) - 1
        value = self._read(group)[index - self._starts[group]].as_py()
        path = None
        if isinstance(value, dict):
            value, path = value["bytes"], value.get("path")
        if value is None and path is not None:
            return Image.open(self._files[self._groups[group][0]].parent / path)
        if value is None:
            raise DataError("the image is missing (null)")
        return Image.open(io.BytesIO(value))

    def _read(self, group: int) -> Any:
        pa = _pyarrow()
        with self._lock:
            if group in self._held:
                self._held.move_to_end(group)
                return self._held[group]
            number, within = self._groups[group]
            try:
                with pa.parquet.ParquetFile(self._files[number]) as opened:
                    column = opened.read_row_group(within, columns=[self.column])[self.column].combine_chunks()
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self._files[number]} cannot be read ({str(error).splitlines()[0][:150]})") from None
            self._held[group] = column
            self._held_bytes += column.nbytes
            while self._held_bytes > self._memory and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._held_bytes -= dropped.nbytes
            return column
