"""Arrays in .npy, .npz and .pt files, memory-mapped where the format allows; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorefield._codec import near
from scorefield.data.readers.content import Arrays, Content
from scorefield.data.readers.labels import class_numbers, real_numbers
from scorefield.data.source import DataError, DataSource

SUFFIXES = (".npy", ".npz", ".pt", ".pth")

_PICKLED = "holds Python objects, which are never unpickled; save it again as plain numbers (array.astype('float32'))"


def read_array(path: Path, source: DataSource) -> dict[str, Content]:
    """The array of a file, with labels where `source.label_key` says.

    Raises:
        DataError: Damaged or pickled files, several arrays and no `key`, labels that do not fit.
    """
    if path.suffix == ".npy":
        array, labels = _npy(path), None
        if source.label_key is not None:
            beside = path.parent / source.label_key
            if not beside.is_file():
                raise DataError(f"data.label_key={source.label_key}: there is no file {beside}")
            labels = _npy(beside)
    else:
        members = _npz(path) if path.suffix == ".npz" else _torch(path)
        array = members[_key(path, members, source.key, "data.key", skip=source.label_key)]
        labels = None
        if source.label_key is not None:
            labels = members[_key(path, members, source.label_key, "data.label_key")]
    if array.ndim == 0:
        raise DataError(f"{path} holds a single number, not examples")
    if labels is not None and labels.dtype.kind == "f":
        return {"all": Arrays(array, str(path), numbers=real_numbers(labels, len(array), str(source.label_key)))}
    classes, names = (None, None) if labels is None else class_numbers(labels, len(array), str(source.label_key))
    return {"all": Arrays(array, str(path), classes, names)}


class _Members(dict):
    """Name -> function that loads the array; loads on access, describes itself without loading."""

    def __init__(self, loaders: dict[str, Any], summary: dict[str, str]):
        super().__init__(loaders)
        self.summary = summary

    def __getitem__(self, name: str) -> np.ndarray:
        return super().__getitem__(name)()


def _key(path: Path, members: _Members, key: str | None, field: str, skip: str | None = None) -> str:
    if key is not None:
        if key not in members:
            raise DataError(f"{path} has no array {key!r} ({field}).{near(key, members)}")
        return key
    candidates = [name for name in members if name != skip]
    if len(candidates) == 1:
        return candidates[0]
    found = "; ".join(f"{name}: {members.summary[name]}" for name in candidates[:12])
    if not candidates:
        raise DataError(f"{path} holds no array besides its labels")
    raise DataError(
        f"{path} holds {len(candidates)} arrays ({found}): name the data with data.key and labels with data.label_key"
    )


# ----------------------------------------------------------------------------------------------------- numpy


def _npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        text = str(error)
        if "object" in text.lower() or "pickle" in text.lower():
            raise DataError(f"{path} {_PICKLED}") from None
        raise DataError(f"{path} is not a whole .npy file ({text})") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None


def _npz(path: Path) -> _Members:
    loaders: dict[str, Any] = {}
    summary: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                name = info.filename[: -len(".npy")]
                with archive.open(info) as member:
                    shape, order, dtype = _header(member)
                    start = member.tell()
                summary[name] = "Python objects" if dtype.hasobject else f"{dtype} {shape}"
                loaders[name] = _loader(path, info, shape, order, dtype, start)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a whole .npz file ({error})") from None
    if not loaders:
        raise DataError(f"{path} holds no arrays")
    return _Members(loaders, summary)


def _header(member: Any) -> tuple[tuple[int, ...], str, np.dtype]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    return shape, "F" if fortran else "C", dtype


def _loader(path: Path, info: zipfile.ZipInfo, shape: tuple[int, ...], order: Any, dtype: np.dtype, start: int) -> Any:
    def load() -> np.ndarray:
        if dtype.hasobject:
            raise DataError(f"{path}: the array {info.filename[:-4]!r} {_PICKLED}")
        if info.compress_type == zipfile.ZIP_STORED and 0 not in shape:
            # A stored member lies in the file as it is: behind its local header of 30 bytes, name and extra field.
            with open(path, "rb") as file:
                file.seek(info.header_offset + 26)
                lengths = np.frombuffer(file.read(4), "<u2")
            offset = info.header_offset + 30 + int(lengths.sum()) + start
            return np.memmap(path, dtype, "r", offset, shape, order)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return archive[info.filename[: -len(".npy")]]
        except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise DataError(f"{path}: the array {info.filename[:-4]!r} is damaged ({error})") from None

    return load


# ----------------------------------------------------------------------------------------------------- torch


def _torch(path: Path) -> _Members:
    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            loaded = torch.load(path, map_location="cpu", weights_only=True)  # written before torch 1.6
    except Exception as error:  # torch raises a different type for every kind of damage
        if type(error).__name__ == "UnpicklingError" or "weights_only" in str(error).lower():
            raise DataError(
                f"{path} {_PICKLED.split(';')[0]}; save a tensor or a dictionary of tensors with torch.save"
            ) from None
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0][:200]})") from None
    if isinstance(loaded, torch.Tensor):
        loaded = {"tensor": loaded}
    elif isinstance(loaded, (tuple, list)):
        loaded = {str(i): value for i, value in enumerate(loaded)}
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)} if isinstance(loaded, dict) else {}
    if not tensors:
        raise DataError(f"{path} holds no tensor; save a tensor or a dictionary of tensors with torch.save")
    return _Members(
        {name: lambda tensor=tensor: _numpy(tensor) for name, tensor in tensors.items()},
        {name: f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for name, t in tensors.items()},
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor.resolve_conj().resolve_neg()).numpy()
