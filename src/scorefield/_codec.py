"""Frozen dataclasses to strict JSON and back, with a stable tag per type and errors that name the field.

`@record` makes a class a frozen dataclass and registers its tag, the class name unless one is given. A record is
written as {"type": tag, field: value, ...}, a tuple as a list, a callable by its import path "module:name". Numbers
that JSON lacks are the strings "inf", "-inf" and "nan" (a field of type Any reads them back as strings). Where a record
is read, and a string is not, a bare tag stands for the record with every field at its default.

Nothing is evaluated or unpickled. Reading a callable imports the module that it names, which is done only for modules
of scorefield, of plugins in use and of those that the user allows (`_plugins.is_trusted`). A record of a class outside
scorefield is written like any other; the file says beside its value which module defines it.
"""

from __future__ import annotations

import collections.abc
import contextlib
import contextvars
import dataclasses
import difflib
import functools
import json
import math
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from scorefield import _plugins

SCHEMA = 1
"""Raised whenever a record changes in a way that old files cannot be read by the defaults of new fields."""

T = TypeVar("T")
_TYPES: dict[str, type] = {}
_TAG = "__record_tag__"
_NOT_JSON = ("inf", "-inf", "nan")
_trust: contextvars.ContextVar[Collection[str] | None] = contextvars.ContextVar("_trust", default=())
"""Names outside scorefield that the file being read may import; None allows every name, for the user's own values."""
_modules: contextvars.ContextVar[Mapping[str, str] | None] = contextvars.ContextVar("_modules", default=None)
"""Tag -> module of the types outside scorefield in the file that is being read, for messages."""
MOVED = {"scorefield.lab.recipes.points": "scorefield.recipes.points"}
"""Modules whose names stand in older files -> where they are now."""
_SCALARS = (bool, int, float, str, types.NoneType)


class CodecError(ValueError):
    """A value that cannot be written or read; the message begins with the path of the field.

    Args:
        path: Dotted path of the field, "" for the whole value.
        problem: What was found there and why it cannot be taken.
    """

    def __init__(self, path: str, problem: str):
        super().__init__(f"{path or 'value'}: {problem}")
        self.path = path


@dataclass_transform(frozen_default=True, kw_only_default=False)
def record(cls: type[T] | None = None, *, tag: str | None = None) -> Any:
    """Class decorator: a frozen dataclass that the codec knows by a stable tag."""
    if cls is None:
        return functools.partial(record, tag=tag)
    made = dataclasses.dataclass(frozen=True)(cls)
    name = tag or cls.__name__
    known = _TYPES.get(name)
    # A class of a script or notebook may be defined again: by the same cell, or by importing the script as a module.
    again = known is not None and known.__qualname__ == cls.__qualname__
    again = again and (known.__module__ == cls.__module__ or "__main__" in (known.__module__, cls.__module__))
    if known is not None and not again:
        raise ValueError(f"two record types share the tag {name!r}: {known} and {cls}; give one of them tag=...")
    if "type" in _fields(made):
        raise ValueError(f"{cls} has a field named 'type', which is where the tag is written; give it another name")
    _TYPES[name] = made
    setattr(made, _TAG, name)
    return made


def record_types(of: type | None = None) -> dict[str, type]:
    """Tag -> class for every registered concrete record type, optionally only the subclasses of `of`."""
    return {
        tag: cls
        for tag, cls in _TYPES.items()
        if (of is None or issubclass(cls, of)) and not getattr(cls, "__abstractmethods__", None)
    }


def near(name: str, known: Iterable[Any]) -> str:
    """' Did you mean ...?' with the near matches of a misspelt name, else the list of what exists, if anything does."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(close)}?"
    return f" Known: {', '.join(names)}." if names else ""


def _fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(cls) if f.init}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


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
        if bad := [k for k in value if not isinstance(k, str) or k == "type"]:
            raise CodecError(path, f"the keys of a mapping must be strings other than 'type', got {bad[0]!r}")
        return {k: encode(v, _join(path, k)) for k, v in value.items()}
    if tag := type(value).__dict__.get(_TAG):
        return {"type": tag, **{name: encode(getattr(value, name), _join(path, name)) for name in _fields(type(value))}}
    if hasattr(type(value), _TAG):
        raise CodecError(
            path, f"{type(value).__name__} derives from a record without being one; decorate it with @record"
        )
    if callable(value):
        return _import_path(value, path)
    raise CodecError(
        path,
        f"a {type(value).__name__} cannot be saved; use a record, a number, a string, a tuple or a function that can be"
        " imported by name",
    )


def _import_path(function: Any, path: str) -> str:
    module, name = _plugins.module_of(function), getattr(function, "__qualname__", None)
    if module and name and _imported(module, name) is function:
        return f"{module}:{name}"
    what = repr(function) if hasattr(function, "__qualname__") else f"an instance of {type(function).__name__}"
    raise CodecError(
        path, f"{what} cannot be saved because it cannot be imported by name; define it at the top level of a module"
    )


def moved(path: str) -> str:
    """An import path "module:name" of an older file, with the name that its module has now."""
    module, colon, name = path.partition(":")
    return f"{MOVED.get(module, module)}{colon}{name}"


def _imported(module: str, name: str) -> Any:
    """The object called `name` in a module, or None."""
    try:
        target: Any = _plugins.find_module(module)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return target


def dumps(value: Any) -> str:
    """Strict JSON text of a record, with the schema number and the modules of types outside scorefield, by tag."""
    written = encode(value)
    found = {tag: _plugins.module_of(_TYPES[tag]) for tag in sorted(_tags_in(written)) if tag in _TYPES}
    plugins = {tag: module for tag, module in found.items() if not _plugins.is_own(module)}
    file = {"schema": SCHEMA, **({"plugins": plugins} if plugins else {}), "value": written}
    return json.dumps(file, indent=1, allow_nan=False) + "\n"


def _tags_in(data: Any) -> set[str]:
    """The tags of all records in JSON data."""
    if isinstance(data, dict):
        own = {data["type"]} if isinstance(data.get("type"), str) else set()
        return own.union(*map(_tags_in, data.values()))
    return set().union(*map(_tags_in, data)) if isinstance(data, list) else set()


def import_paths(value: Any) -> set[str]:
    """Every "module:name" in the JSON form of a value."""
    return set(_paths_in(encode(value)))


def _paths_in(data: Any) -> Iterator[str]:
    if isinstance(data, str) and _plugins.is_import_path(data):
        yield data
    elif isinstance(data, (dict, list)):
        for part in data.values() if isinstance(data, dict) else data:
            yield from _paths_in(part)


@contextlib.contextmanager
def _reading(trust: Collection[str] | None, modules: Mapping[str, str]) -> Iterator[None]:
    """Inside the block values are read with this trust."""
    tokens = _trust.set(trust), _modules.set(modules)
    try:
        yield
    finally:
        _trust.reset(tokens[0])
        _modules.reset(tokens[1])


# ---------------------------------------------------------------------------------------------------- reading


def loads(text: str, expected: type[T], trust: Collection[str] = ()) -> T:
    """Read what `dumps` wrote.

    Args:
        text: The file.
        expected: A record type, or a union of some.
        trust: Modules ("mypackage.nets") or objects ("mypackage.nets:MyNet") outside scorefield and the plugins in use
            that the file may name.

    Raises:
        CodecError: The text is not strict JSON, of a newer schema, does not describe an `expected`, or names code that
            is not trusted.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise CodecError("", f"not JSON: {error}") from None
    if not isinstance(data, dict) or "value" not in data or not isinstance(data.get("schema"), int):
        raise CodecError("", "not a file of scorefield: it has no number 'schema' and no 'value'")
    if data["schema"] > SCHEMA:
        raise CodecError(
            "", f"written with schema {data['schema']}, this version reads up to {SCHEMA}; upgrade scorefield"
        )
    plugins = data.get("plugins")
    with _reading(trust, plugins if isinstance(plugins, dict) else {}):
        return decode(data["value"], expected)


def _refuse_constant(name: str) -> Any:
    raise CodecError("", f"not JSON: the bare number {name}; it is written as a string")


def decode(data: Any, expected: Any, path: str = "") -> Any:
    """Build a value of the expected type from its JSON form.

    Args:
        data: What `json.loads` returned.
        expected: A record type or a base class of some, bool, int, float, str, None, Any, Literal[...], Callable, or a
            tuple, list, Mapping or union of these.
        path: Where the value stands, for messages.

    Raises:
        CodecError: The data do not describe an `expected`.
    """
    if isinstance(data, dict) and isinstance(tag := data.get("type"), str):
        _require_type(tag, path)
    origin, arguments = get_origin(expected) or expected, get_args(expected)
    if expected is Any:
        return _decode_any(data, path)
    if origin in (Union, types.UnionType):
        return _decode_union(data, arguments, path)
    if origin is Literal:
        if not any(data == choice and type(data) is type(choice) for choice in arguments):
            raise CodecError(path, f"{data!r} is not one of the choices.{near(str(data), arguments)}")
        return data
    if origin is collections.abc.Callable:
        return _decode_callable(data, path)
    if origin in (tuple, list):
        return _decode_sequence(data, origin, arguments, path)
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(data, dict):
            raise CodecError(path, f"expected a mapping, got {data!r}")
        return {k: decode(v, arguments[1] if arguments else Any, _join(path, k)) for k, v in data.items()}
    if expected in _SCALARS:
        return _decode_scalar(data, expected, path)
    if isinstance(expected, type):
        return _decode_record(data, expected, path)
    raise CodecError(path, f"fields of type {expected} cannot be read")


def _require_type(tag: str, path: str) -> None:
    """Import what installed packages announce where a tag is unknown, and name the module of one that stays so."""
    if tag not in _TYPES:
        _plugins.load_announced()
    module = (_modules.get() or {}).get(tag)
    if tag not in _TYPES and module is not None:
        what = f"made with {tag} of {module}"
        raise CodecError(path, f"{what}: add --plugin {module}, or in Python `import {module}` before reading it")


def _decode_any(data: Any, path: str) -> Any:
    if isinstance(data, dict):
        if "type" in data:
            return _decode_record(data, object, path)
        return {k: _decode_any(v, _join(path, k)) for k, v in data.items()}
    if isinstance(data, list):
        return tuple(_decode_any(v, f"{path}[{i}]") for i, v in enumerate(data))
    return data


def _decode_union(data: Any, choices: tuple[Any, ...], path: str) -> Any:
    if isinstance(data, str) and str in choices:
        choices = tuple(c for c in choices if not _tags(c))  # the string is itself, not a bare tag
    elif tagged := tuple(c for c in choices if _name_in(data) in _tags(c)):
        choices = tagged  # so that what is wrong inside the record meant is what the user reads
    errors = []
    for choice in choices:
        try:
            return decode(data, choice, path)
        except CodecError as error:
            errors.append(error)
    inside = [error for error in errors if error.path != path]
    if inside or len(errors) == 1:
        raise (inside or errors)[0]
    names = " or ".join(str(c) if get_args(c) else c.__name__ for c in choices).replace("NoneType", "None")
    known = [tag for c in choices for tag in _tags(c)]
    raise CodecError(path, f"expected {names}, got {data!r}.{near(_name_in(data), known)}")


def _decode_sequence(data: Any, origin: type, arguments: tuple[Any, ...], path: str) -> Any:
    if not isinstance(data, list):
        raise CodecError(path, f"expected a list, got {data!r}")
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(data):
            raise CodecError(path, f"expected {len(arguments)} values, got {len(data)}")
        items = arguments
    else:
        items = (arguments[0] if arguments else Any,) * len(data)
    return origin(decode(v, item, f"{path}[{i}]") for i, (v, item) in enumerate(zip(data, items, strict=True)))


def _decode_callable(data: Any, path: str) -> Any:
    if not isinstance(data, str) or data.count(":") != 1:
        raise CodecError(path, f"expected a function as 'module:name', got {data!r}")
    require_trusted(moved(data), path)
    target = _imported(*moved(data).split(":"))
    if not callable(target):
        raise CodecError(path, f"{data!r} is not a function that can be imported")
    return target


def require_trusted(target: str, path: str = "") -> None:
    """Refuse to import what a file names, unless it is scorefield's, a plugin's or allowed; see `_plugins`.

    Args:
        target: "module:name".
        path: Of the field, for the message.

    Raises:
        CodecError: It is not trusted; the message says how to allow it.
    """
    trust = _trust.get()
    if trust is None:
        return
    if not _plugins.is_trusted(target, trust):
        _plugins.load_announced()
    code = target
    if _plugins.is_trusted(target, trust):
        if _plugins.is_named(target, trust):
            return
        # A trusted module also holds what it imported: "mymodule:os.abort" is code of os.
        found = _imported(*target.split(":")) if target.count(":") == 1 else None
        if not callable(found) or _plugins.is_trusted(code := f"{_plugins.module_of(found)}:", trust):
            return
    module = code.partition(":")[0]
    if module == "__main__":
        raise CodecError(
            path,
            f"the file names {target!r}, which the notebook that wrote it defined; define it in a module, mymodule.py,"
            " and train with that one to load it anywhere else",
        )
    raise CodecError(
        path,
        f"the file names {target!r}, which is code outside scorefield ({module}) and would be run. If you trust it,"
        f" allow it: --trust {target}, or --plugin {module} for a module of yours; in Python"
        f" sf.load(..., trust=[{target!r}])",
    )


def _decode_scalar(data: Any, expected: type, path: str) -> Any:
    number = isinstance(data, (int, float)) and not isinstance(data, bool)
    if expected is float and (number or data in _NOT_JSON):
        return float(data)
    if expected is int and number and (isinstance(data, int) or data.is_integer()):
        return int(data)
    if expected in (bool, str, types.NoneType) and isinstance(data, expected):
        return data
    raise CodecError(path, f"expected {'None' if expected is types.NoneType else expected.__name__}, got {data!r}")


def _tags(of: Any) -> list[str]:
    """The tags of the records that a class stands for; none for what is not a class of records."""
    return list(record_types(of)) if isinstance(of, type) and get_origin(of) is None and of not in _SCALARS else []


def _name_in(data: Any) -> str:
    return str(data.get("type", "")) if isinstance(data, dict) else str(data)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _decode_record(data: Any, expected: type, path: str) -> Any:
    if isinstance(data, str):
        data = {"type": data}
    known, name = record_types(expected), "record" if expected is object else expected.__name__
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise CodecError(path, f"expected a {name} as {{'type': tag, ...}}, got {data!r}.{near('', known)}")
    tag = data["type"]
    if tag not in known:
        raise CodecError(path, f"{tag!r} is not a {name}.{near(tag, known)}")
    cls = known[tag]
    fields = _fields(cls)
    values = {}
    for name, value in data.items():
        if name == "type":
            continue
        if name not in fields:
            raise CodecError(_join(path, name), f"{tag} has no such field.{near(name, fields)}")
        values[name] = decode(value, _hints(cls)[name], _join(path, name))
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not optional:
            raise CodecError(path, f"{tag} needs the field {name!r}")
    try:
        value = cls(**values)
    except (ValueError, TypeError) as error:
        raise CodecError(path, str(error)) from error
    for name, target in getattr(value, "imports", dict)().items():
        require_trusted(target, _join(path, name))
    return value


# ---------------------------------------------------------------------------------------------------- editing


def with_field(value: T, path: str, new: Any) -> T:
    """A copy of a record with the field at a dotted path replaced.

    `with_field(e, "net.channels", "64")` reads the text as JSON where that is what the field's type wants, else as a
    string. Elements of tuples are numbered, "steps.0.snr". A bare tag puts that record, with its defaults, there.

    Args:
        value: A record.
        path: Names of fields, joined by dots.
        new: A value, or its text from a command line.

    Raises:
        CodecError: No such field (near matches are shown), or the value does not fit its type.
    """
    texts = [_json_meaning(new), new] if isinstance(new, str) else [encode(new, path)]
    errors = []
    for text in texts:
        data = encode(value)
        _put(data, path.split("."), text)
        try:
            with _reading(None, {}):  # the value was read before, and what is new was typed by the user
                return decode(data, type(value))
        except CodecError as error:
            errors.append(error)
    raise errors[0]


def _json_meaning(text: str) -> Any:
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except json.JSONDecodeError:
        return text


def _put(data: Any, names: list[str], new: Any) -> None:
    """Set data[names[0]][names[1]]... in JSON data, complaining with the path of the name that is not there."""
    for depth, name in enumerate(names):
        where = ".".join(names[: depth + 1])
        if isinstance(data, list):
            if not name.isdigit() or int(name) >= len(data):
                raise CodecError(where, f"expected an index below {len(data)}")
            key: Any = int(name)
        elif isinstance(data, dict):
            key = name
            if "type" in data and (name == "type" or name not in data):
                raise CodecError(where, f"{data['type']} has no such field.{near(name, data.keys() - {'type'})}")
        else:
            raise CodecError(".".join(names[:depth]), f"is {data!r} and has no field {name!r}")
        if depth + 1 == len(names):
            data[key] = new
        else:
            data = data[key]
