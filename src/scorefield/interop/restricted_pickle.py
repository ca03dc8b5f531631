"""Pickles of EDM as plain data, read without executing anything.

A pickle is a program for a stack machine that may name any function and call it. This is another such machine, which
knows only how to build containers and numbers: a name that the file asks for must be in the table `MAKERS`, whose
entries are functions of this module that return data, and no attribute of anything is ever looked up or set. An object
of a class becomes an `Inert`: its class's name and its state. The source text that EDM stores beside its classes is a
string like any other.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.interop.import_result import CheckpointError


@dataclass
class Inert:
    """An object of a pickle as the name of its class and its attributes.

    Args:
        kind: Name of the class.
        state: Its attributes.
    """

    kind: str
    state: dict[str, Any] = field(default_factory=dict)


class RefusedError(Exception):
    """The pickle asks for something that is not data."""


class _Name(NamedTuple):
    """A function or class that the pickle names."""

    path: str


class _Mark:
    """Where a container on the stack begins."""


def read_pickle(path: Path) -> Any:
    """The content of a pickle: containers, numbers, strings, tensors and `Inert` objects.

    Raises:
        CheckpointError: The file is truncated or no pickle, or names something outside `MAKERS`; nothing was executed.
    """
    try:
        with path.open("rb") as file:
            return _Machine().run(file)
    except RefusedError as error:
        raise CheckpointError(
            f"{path} {error}. Only plain data and the classes of EDM's networks are read, as data. Nothing was executed"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    except Exception as error:  # a damaged program fails in any of its instructions
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or damaged and cannot be read"
            f" ({type(error).__name__}: {str(error)[:160]}). Copy it again"
        ) from None


# ---------------------------------------------------------------------------------------------- what may be made


def _persistent(meta: dict[str, Any]) -> Inert:
    """An object of a class whose source text is stored with it; the text is dropped."""
    if meta["type"] != "class":
        raise RefusedError(f"holds a persistent object of the type {meta['type']!r}")
    return Inert(str(meta["class_name"]), dict(meta["state"]))


def _storage(content: bytes) -> torch.TypedStorage:
    """The numbers of tensors, which are a file of torch inside the pickle."""
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(found, torch.TypedStorage):
        raise RefusedError(f"holds a {type(found).__name__} where the numbers of a tensor belong")
    return found


def _tensor(storage: torch.TypedStorage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    whole = torch.empty(0, dtype=storage.dtype).set_(storage)  # type: ignore[call-overload]
    return whole.as_strided(tuple(size), tuple(stride), offset)  # checks that it lies within the storage


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _mapping(pairs: Sequence[tuple[Any, Any]] = ()) -> dict[Any, Any]:
    return dict(pairs)


def _dtype(code: str, *_: Any) -> Inert:
    if not re.fullmatch(r"[bifu][1248]", code):
        raise RefusedError(f"holds numbers of the type {code!r}")
    return Inert("numpy.dtype", {"code": code})


def _scalar(dtype: Inert, content: bytes) -> float | int | bool:
    return np.frombuffer(content, np.dtype("<" + dtype.state["code"]), count=1)[0].item()


MAKERS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.nn.modules.container.ModuleDict": lambda: Inert("ModuleDict"),
    "torch.nn.modules.container.ModuleList": lambda: Inert("ModuleList"),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _storage,
    "collections.OrderedDict": _mapping,
    "dnnlib.util.EasyDict": _mapping,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
"""Names that a pickle may contain -> function that turns the arguments into data."""


# ---------------------------------------------------------------------------------------------- the machine


class _Machine:
    """A stack, a memory, and one method per kind of instruction."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, file: Any) -> Any:
        """Follow the instructions to the last and return what is left."""
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name == "STOP":
                return self.stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise RefusedError(f"uses the pickle instruction {name}")
        raise EOFError("the pickle has no end")

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        at = max(i for i, value in enumerate(self.stack) if value is _Mark)
        taken = self.stack[at + 1 :]
        del self.stack[at:]
        return taken

    def take(self, count: int) -> tuple[Any, ...]:
        """Take the uppermost `count` values."""
        if len(self.stack) < count:
            raise IndexError("the pickle takes more from its stack than is there")
        taken = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return taken

    def container(self, kind: type) -> Any:
        """The uppermost value, which must be a container of that kind."""
        if type(found := self.stack[-1]) is not kind:
            raise RefusedError(f"adds entries to a {type(found).__name__}")
        return found

    def make(self, _: Any) -> None:
        """REDUCE and NEWOBJ: a name and its arguments become data."""
        name, arguments = self.take(2)
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise RefusedError("calls something that is no name")
        self.stack.append(MAKERS[name.path](*arguments))

    def build(self, _: Any) -> None:
        """BUILD: attributes of an inert object."""
        (state,) = self.take(1)
        made = self.stack[-1]
        if not isinstance(made, Inert):
            raise RefusedError(f"sets attributes of a {type(made).__name__}")
        if made.kind != "numpy.dtype":
            made.state.update(state)
        elif state[1] == ">":
            raise RefusedError("holds numbers whose bytes are in big-endian order")

    def name(self, path: str) -> None:
        """GLOBAL and STACK_GLOBAL: a name, if it is one of ours."""
        if path not in MAKERS:
            raise RefusedError(f"asks for {path}")
        self.stack.append(_Name(path))

    def set_items(self, flat: Sequence[Any]) -> None:
        """Alternating keys and values into the dictionary below them."""
        self.container(dict).update(zip(flat[::2], flat[1::2], strict=True))


def _wrap(kind: type, count: int | None) -> Callable[[_Machine, Any], None]:
    """An instruction that makes a container of the uppermost values, or of those above the mark."""

    def step(machine: _Machine, _: Any) -> None:
        machine.stack.append(kind(machine.since_mark() if count is None else machine.take(count)))

    return step


def _remember(machine: _Machine, key: int | None) -> None:
    machine.memory[len(machine.memory) if key is None else key] = machine.stack[-1]


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _Mark}
_LITERALS = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES"
    " BINBYTES8".split()
)
_EMPTY: dict[str, type] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "TUPLE": _wrap(tuple, None),
    "TUPLE1": _wrap(tuple, 1),
    "TUPLE2": _wrap(tuple, 2),
    "TUPLE3": _wrap(tuple, 3),
    "LIST": _wrap(list, None),
    "FROZENSET": _wrap(frozenset, None),
    "POP": lambda m, _: m.take(1),
    "POP_MARK": lambda m, _: m.since_mark(),
    "MEMOIZE": lambda m, _: _remember(m, None),
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "BINGET": lambda m, key: m.stack.append(m.memory[key]),
    "LONG_BINGET": lambda m, key: m.stack.append(m.memory[key]),
    "APPEND": lambda m, _: _append(m, m.take(1)),
    "APPENDS": lambda m, _: _append(m, m.since_mark()),
    "ADDITEMS": lambda m, _: _add(m, m.since_mark()),
    "SETITEM": lambda m, _: m.set_items(m.take(2)),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "GLOBAL": lambda m, names: m.name(names.replace(" ", ".")),
    "STACK_GLOBAL": lambda m, _: m.name(".".join(map(str, m.take(2)))),
    "REDUCE": _Machine.make,
    "NEWOBJ": _Machine.make,
    "BUILD": _Machine.build,
}


def _append(machine: _Machine, values: Sequence[Any]) -> None:
    machine.container(list).extend(values)


def _add(machine: _Machine, values: Sequence[Any]) -> None:
    machine.container(set).update(values)
