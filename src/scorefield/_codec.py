"""Frozen dataclasses to strict JSON and back, with a stable tag per type and errors that name the field.

`@record` makes a class a frozen, keyword-friendly dataclass and registers its tag (the class name unless given). A record is
written as {"type": tag, field: value, ...}; tuples as lists; callables by import path, "module:name". Numbers that
JSON lacks (inf, nan) are the strings "inf", "-inf", "nan". Nothing is ever evaluated or unpickled.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import json
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

SCHEMA = 1
"""Raised whenever a record changes in a way that old files cannot be read by the defaults of new fields."""

T = TypeVar("T")
_TYPES: dict[str, type] = {}


class CodecError(ValueError):
    """A value that cannot be written or read; the message begins with the path of the field."""


@dataclass_transform(frozen_default=True, kw_only_default=False)
def record(cls: type[T] | None = None, *, tag: str | None = None) -> Any:
    """Class decorator: a frozen dataclass that the codec knows by a stable tag."""
    if cls is None:
        return functools.partial(record, tag=tag)
    made = dataclasses.dataclass(frozen=True)(cls)
    name = tag or cls.__name__
    known = _TYPES.get(name)
    if known is not None and f"{known.__module__}.{known.__qualname__}" != f"{cls.__module__}.{cls.__qualname__}":
        raise ValueError(f"two record types share the tag {name!r}: {known} and {cls}; give one of them tag=...")
    _TYPES[name] = made
    made.__record_tag__ = name  # type: ignore[attr-defined]
    return made


def record_types(of: type | None = None) -> dict[str, type]:
    """Tag -> class for every registered concrete record type, optionally only the subclasses of `of`."""
    return {
        tag: cls
        for tag, cls in _TYPES.items()
        if (of is None or issubclass(cls, of)) and not getattr(cls, "__abstractmethods__", None)
    }


def near(name: str, known: Any) -> str:
    """' Did you mean ...?' with the near matches of a misspelt name, or the list of what exists."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else f" Known: {', '.join(known)}."


# ---------------------------------------------------------------------------------------------------- writing


def encode(value: Any, path: str = "") -> Any:
    """The JSON form of a value built of records, tuples, mappings, numbers, strings, None and importable callables.

    Raises:
        CodecError: The value, or something inside it, has no JSON form.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (tuple, list)):
        return [encode(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        if bad := [k for k in value if not isinstance(k, str)]:
            raise CodecError(f"{path or 'value'}: the keys of a mapping must be strings, got {bad[0]!r}")
        return {k: encode(v, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
    if tag := getattr(type(value), "__record_tag__", None):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"type": tag, **{k: encode(v, f"{path}.{k}".lstrip(".")) for k, v in fields.items()}}
    if callable(value):
        return _callable_path(value, path)
    raise CodecError(
        f"{path or 'value'}: a {type(value).__name__} cannot be saved; use a record, a number, a string, a tuple or a"
        " function that can be imported by name"
    )


def _callable_path(function: Any, path: str) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    text = f"{module}:{name}"
    if not module or module == "__main__" or "<" in name:
        raise CodecError(
            f"{path or 'value'}: {function!r} cannot be saved because it cannot be imported by name; define it at the top"
            " level of a module"
        )
    return text


def dumps(value: Any) -> str:
    """Strict JSON text of a record, with the schema number."""
    return json.dumps({"schema": SCHEMA, "value": encode(value)}, indent=1, allow_nan=False) + "\n"


# ---------------------------------------------------------------------------------------------------- reading


def loads(text: str, expected: type[T]) -> T:
    """Read what `dumps` wrote.

    Raises:
        CodecError: The text is not JSON, of a newer schema, or does not describe an `expected`.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise CodecError(f"not JSON: {error}") from None
    if not isinstance(data, dict) or "schema" not in data or "value" not in data:
        raise CodecError("not a file of scorefield: the fields 'schema' and 'value' are missing")
    if data["schema"] > SCHEMA:
        raise CodecError(f"written with schema {data['schema']}, this version reads up to {SCHEMA}; upgrade scorefield")
    return decode(data["value"], expected)


def decode(data: Any, expected: Any, path: str = "") -> Any:
    """Build a value of the expected type from its JSON form; every error starts with the path of the field."""
    where = path or "value"
    if expected is Any:
        return _decode_any(data, path)
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return _decode_union(data, arguments, path)
    if origin is Literal:
        if data not in arguments:
            raise CodecError(f"{where}: {data!r} is not one of the choices.{near(str(data), arguments)}")
        return data
    if origin in (tuple, list):
        return _decode_sequence(data, origin, arguments, path)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise CodecError(f"{where}: expected a mapping, got {data!r}")
        return {k: decode(v, arguments[1], f"{path}.{k}".lstrip(".")) for k, v in data.items()}
    if origin is Callable or origin is getattr(types, "FunctionType", None) or expected is Callable:
        return _decode_callable(data, where)
    if _is_callable_type(expected, origin):
        return _decode_callable(data, where)
    if isinstance(expected, type):
        return _decode_class(data, expected, path)
    raise CodecError(f"{where}: fields of type {expected} cannot be read")


def _is_callable_type(expected: Any, origin: Any) -> bool:
    import collections.abc

    return expected is collections.abc.Callable or origin is collections.abc.Callable


def _decode_any(data: Any, path: str) -> Any:
    if isinstance(data, dict) and "type" in data:
        return _decode_class(data, object, path)
    if isinstance(data, list):
        return tuple(_decode_any(v, f"{path}[{i}]") for i, v in enumerate(data))
    return data


def _decode_union(data: Any, choices: tuple[Any, ...], path: str) -> Any:
    if data is None and type(None) in choices:
        return None
    errors = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return decode(data, choice, path)
        except CodecError as error:
            errors.append(error)
    # The error from deepest inside tells the user most: it comes from the choice that matched furthest.
    raise max(errors, key=lambda e: str(e).split(":")[0].count("."))


def _decode_sequence(data: Any, origin: type, arguments: tuple[Any, ...], path: str) -> Any:
    if not isinstance(data, (list, tuple)):
        raise CodecError(f"{path or 'value'}: expected a list, got {data!r}")
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(arguments) != len(data):
            raise CodecError(f"{path or 'value'}: expected {len(arguments)} values, got {len(data)}")
        return tuple(decode(v, a, f"{path}[{i}]") for i, (v, a) in enumerate(zip(data, arguments, strict=True)))
    return origin(decode(v, arguments[0], f"{path}[{i}]") for i, v in enumerate(data))


def _decode_callable(data: Any, where: str) -> Any:
    if callable(data):
        return data
    if not isinstance(data, str) or data.count(":") != 1:
        raise CodecError(f"{where}: expected a function as 'module:name', got {data!r}")
    module, name = data.split(":")
    try:
        target: Any = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise CodecError(f"{where}: {data!r} cannot be imported ({error})") from None
    if not callable(target):
        raise CodecError(f"{where}: {data!r} is not callable")
    return target


def _decode_class(data: Any, expected: type, path: str) -> Any:
    where = path or "value"
    if isinstance(data, dict) and (isinstance(data.get("type"), str)):
        return _decode_record(data, expected, path)
    if hasattr(expected, "__record_tag__") or expected not in (bool, int, float, str, object):
        if isinstance(data, str) and data in record_types(expected):  # a bare tag means all defaults
            return _decode_record({"type": data}, expected, path)
        raise CodecError(
            f"{where}: expected a {expected.__name__}, got {data!r}.{near(str(data), record_types(expected))}"
        )
    if expected is bool and isinstance(data, bool):
        return data
    if expected is int and isinstance(data, (int, float)) and not isinstance(data, bool) and data == int(data):
        return int(data)
    if expected is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        return float(data)
    if expected is float and data in ("inf", "-inf", "nan"):
        return float(data)
    if expected is str and isinstance(data, str):
        return data
    raise CodecError(f"{where}: expected {expected.__name__}, got {data!r}")


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _decode_record(data: dict[str, Any], expected: type, path: str) -> Any:
    where = path or "value"
    tag = data["type"]
    cls = _TYPES.get(tag)
    if cls is None or not issubclass(cls, expected):
        raise CodecError(f"{where}: {tag!r} is not a {expected.__name__}.{near(tag, record_types(expected))}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    values = {}
    for name, value in data.items():
        if name == "type":
            continue
        if name not in fields:
            raise CodecError(f"{f'{path}.{name}'.lstrip('.')}: {tag} has no such field.{near(name, fields)}")
        values[name] = decode(value, _hints(cls)[name], f"{path}.{name}".lstrip("."))
    missing = [
        n
        for n, f in fields.items()
        if n not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise CodecError(f"{where}: {tag} needs the field {missing[0]!r}")
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise CodecError(f"{where}: {error}") from error


# ---------------------------------------------------------------------------------------------------- editing


def with_field(value: T, path: str, new: Any, _done: str = "") -> T:
    """A copy of a record with the field at a dotted path replaced by a JSON value or its text.

    `with_field(e, "net.channels", "64")` reads the text as JSON where that is what the field's type wants, else as a string.

    Raises:
        CodecError: No such field (near matches are shown), or the value does not fit its type.
    """
    name, _, rest = path.partition(".")
    where = f"{_done}.{name}".lstrip(".")
    if isinstance(value, tuple):
        if not name.isdigit() or int(name) >= len(value):
            raise CodecError(f"{where}: expected an index below {len(value)}")
        i = int(name)
        changed = with_field(value[i], rest, new, where) if rest else decode(_from_text(new), type(value[i]), where)
        return (*value[:i], changed, *value[i + 1 :])  # type: ignore[return-value]
    if not dataclasses.is_dataclass(value):
        raise CodecError(f"{_done or 'value'}: is {value!r} and has no field {name!r}")
    fields = {f.name for f in dataclasses.fields(value) if f.init}
    if name not in fields:
        raise CodecError(f"{where}: {type(value).__name__} has no such field.{near(name, fields)}")
    if rest:
        changed = with_field(getattr(value, name), rest, new, where)
    else:
        changed = _decode_text(new, _hints(type(value))[name], where)
    try:
        return dataclasses.replace(value, **{name: changed})  # type: ignore[type-var]
    except (ValueError, TypeError) as error:
        raise CodecError(f"{where}: {error}") from error


def _from_text(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except json.JSONDecodeError:
        return text


def _decode_text(new: Any, expected: Any, where: str) -> Any:
    """A command-line value: its JSON meaning where the field's type takes that, else the text itself."""
    try:
        return decode(_from_text(new), expected, where)
    except CodecError:
        if isinstance(new, str) and _from_text(new) != new:
            try:
                return decode(new, expected, where)
            except CodecError:
                pass
        raise
