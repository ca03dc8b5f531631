"""Map-style datasets (`__len__`, `__getitem__`), by import path or as objects; items of images, arrays or tensors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from scorefield._codec import near
from scorefield.data.readers.content import Arrays, Content, Images
from scorefield.data.readers.labels import class_numbers
from scorefield.data.source import DataError, DataSource


def import_dataset(path: str) -> Any:
    """The dataset at module:attribute, calling it if it is a function or class without required arguments.

    Raises:
        DataError: The data set cannot be imported, or making it fails.
    """
    module, _, name = path.partition(":")
    try:
        target: Any = importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{path}: the module {module!r} cannot be imported ({error})") from error
    for part in name.split("."):
        if not hasattr(target, part):
            raise DataError(
                f"{path}: {target!r} has no attribute {part!r}.{near(part, [n for n in dir(target) if n[0] != '_'])}"
            )
        target = getattr(target, part)
    if isinstance(target, type) or (callable(target) and not hasattr(target, "__getitem__")):
        try:
            return target()
        except TypeError as error:
            raise DataError(
                f"{path} was called without arguments: {error}; write a function that makes the dataset"
            ) from error
    return target


def read_object(dataset: Any, name: str, source: DataSource) -> dict[str, Content]:
    """A dataset, an array, or a mapping of split names to either.

    Items may be an image, array or tensor; a tuple (item, label, ...); or a mapping, read by `key` and `label_key`.

    Raises:
        DataError: The data set has no length or index access, no items, or items of another kind.
    """
    if isinstance(dataset, Mapping):
        return {str(split): _content(part, f"{name} {split}", source) for split, part in dataset.items()}
    return {"all": _content(dataset, name, source)}


def _content(dataset: Any, name: str, source: DataSource) -> Content:
    if isinstance(dataset, torch.Tensor):
        dataset = dataset.detach().cpu().numpy()
    if isinstance(dataset, (Images, Arrays)):
        return dataset
    if isinstance(dataset, np.ndarray):
        return Arrays(dataset, name)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"{name} is a {type(dataset).__name__} without __len__ and __getitem__; only map-style datasets have the"
            " random access that a resumable order needs"
        )
    items = _Items(dataset, name, source)
    count = len(dataset)
    if count == 0:
        raise DataError(f"{name} holds no examples")
    labels, names = items.labels()
    first = items.value(0)
    if isinstance(first, Image.Image):
        return Images(count, items.image, lambda i: f"{name}[{i}]", labels, names)
    return Arrays(items, name, labels, names)


class _Items:
    """Items of a dataset as rows of an array."""

    def __init__(self, dataset: Any, name: str, source: DataSource):
        self._dataset, self._name, self._source = dataset, name, source
        first = self.value(0) if len(dataset) else np.zeros(0)
        first = np.zeros(0) if isinstance(first, Image.Image) else _as_array(first, name)
        self.shape = (len(dataset), *first.shape)
        self.dtype = first.dtype

    def _part(self, index: int, key: str | None, place: int) -> Any:
        item = self._dataset[index]
        if isinstance(item, Mapping):
            if key is None:
                key = next((k for k in (("image", "img", "x"), ("label", "labels", "y"))[place] if k in item), None)
            if key is None or key not in item:
                if place == 1 and key is None:
                    return None
                field = ("data.key", "data.label_key")[place]
                raise DataError(
                    f"{self._name}: items are mappings of {sorted(item)}; say which entry to use with {field}"
                )
            return item[key]
        if isinstance(item, tuple):
            return item[place] if place < len(item) else None
        return item if place == 0 else None

    def value(self, index: int) -> Any:
        """The data of item i."""
        return self._part(index, self._source.key, 0)

    def image(self, index: int) -> Image.Image:
        """A copy of image i, so that closing it leaves the dataset's own alone."""
        return self.value(index).copy()

    def labels(self) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Labels of all items: from `targets` where the dataset has them, else item by item if they are needed."""
        targets = getattr(self._dataset, "targets", None)
        if targets is None and self._source.conditional:
            targets = [self._part(i, self._source.label_key, 1) for i in range(len(self._dataset))]
            if any(t is None for t in targets):
                raise DataError(f"{self._name}: data.conditional=true, and its items have no labels")
        if targets is None:
            return None, None
        numbers, names = class_numbers(np.asarray(targets), len(self._dataset), f"of {self._name}")
        classes = getattr(self._dataset, "classes", None)
        return numbers, names or (tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else None)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for row, i in enumerate(indices):
            x = _as_array(self.value(int(i)), f"{self._name}[{int(i)}]")
            if x.shape != self.shape[1:]:
                raise DataError(f"{self._name}[{int(i)}] has shape {x.shape} where item 0 has {self.shape[1:]}")
            out[row] = x
        return out


def _as_array(value: Any, name: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        return np.asarray(value)
    raise DataError(
        f"{name} is a {type(value).__name__}; items must be images, arrays or tensors, or tuples that begin so"
    )
