"""The codec: what is written is read back equal, and every refusal names the field."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorefield import _plugins
from scorefield._codec import SCHEMA, CodecError, decode, dumps, encode, loads, near, record, record_types, with_field


class Shape(ABC):
    """An abstract slot that records fill."""

    @abstractmethod
    def area(self) -> float: ...


@record(tag="test-circle")
class Circle(Shape):
    radius: float = 1.0

    def area(self) -> float:
        return math.pi * self.radius**2

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ValueError(f"radius {self.radius} must be positive")


@record(tag="test-box")
class Box(Shape):
    sides: tuple[float, float]
    name: str | None = None

    def area(self) -> float:
        return self.sides[0] * self.sides[1]


@record(tag="test-drawing")
class Drawing:
    shapes: tuple[Shape, ...] = ()
    frame: Shape | None = None
    size: int = 3
    scale: float | tuple[float, ...] = 1.0
    closed: bool = False
    title: str = ""
    colour: Literal["red", "green", 3] = "red"
    transform: Callable[[float], float] = math.exp
    limits: Mapping[str, float] | None = None
    extra: Any = None


class Unregistered(Circle):
    """Derives from a record without being one."""


def module_function(x: float) -> float:
    return x


floats = st.floats(allow_nan=False)
shapes = st.one_of(
    st.builds(Circle, st.floats(min_value=1e-3, max_value=1e6) | st.just(math.inf)),
    st.builds(Box, st.tuples(floats, floats), st.none() | st.text()),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False) | shapes,
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text().filter(lambda k: k != "type"), inner),
    max_leaves=8,
)
drawings = st.builds(
    Drawing,
    shapes=st.lists(shapes, max_size=3).map(tuple),
    frame=st.none() | shapes,
    size=st.integers(),
    scale=floats | st.lists(floats, max_size=3).map(tuple),
    closed=st.booleans(),
    title=st.text(),
    colour=st.sampled_from(["red", "green", 3]),
    transform=st.sampled_from([math.exp, math.sin, module_function, Circle.area]),
    limits=st.none() | st.dictionaries(st.text().filter(lambda k: k != "type"), floats),
    extra=json_values,
)


# ------------------------------------------------------------------------------------------------ laws


@pytest.fixture(autouse=True, scope="module")
def functions_of_the_tests() -> Iterator[None]:
    """The files of these tests name functions of other modules, which their reader allows."""
    before = set(_plugins._allowed)
    _plugins.allow(["math", "no_such_module", __name__])
    yield
    _plugins._allowed.clear()
    _plugins._allowed.update(before)


@given(drawings)
def test_what_is_written_is_read_back_equal(drawing: Drawing):
    text = dumps(drawing)
    assert loads(text, Drawing) == drawing
    assert dumps(loads(text, Drawing)) == text


@given(drawings)
def test_the_text_is_strict_json(drawing: Drawing):
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(dumps(drawing), parse_constant=refuse)["schema"] == SCHEMA


def test_nan_survives():
    assert math.isnan(loads(dumps(Box((math.nan, 1.0))), Box).sides[0])


@given(drawings, st.floats(min_value=1e-3, max_value=1e6))
def test_editing_a_field_changes_that_field_alone(drawing: Drawing, radius: float):
    edited = with_field(drawing, "frame", Circle(radius))
    assert edited.frame == Circle(radius)
    assert with_field(edited, "frame", drawing.frame) == drawing
    assert with_field(edited, "frame.radius", repr(radius + 1)).frame == Circle(radius + 1)


@given(st.text())
def test_any_text_fits_a_field_of_text(text: str):
    assert with_field(Drawing(), "title", text).title == text


def test_records_are_frozen_and_tagged():
    with pytest.raises(FrozenInstanceError):
        Circle().radius = 2.0  # pyright: ignore[reportAttributeAccessIssue]
    assert record_types(Shape) == {"test-circle": Circle, "test-box": Box}
    assert encode(Circle(2.0)) == {"type": "test-circle", "radius": 2.0}


# ------------------------------------------------------------------------------------------------ registration


def test_two_types_cannot_share_a_tag():
    with pytest.raises(ValueError, match="share the tag 'test-circle'.*tag="):

        @record(tag="test-circle")
        class Another:
            pass


def test_no_field_may_be_called_type():
    with pytest.raises(ValueError, match="field named 'type'"):

        @record(tag="test-typed")
        class Typed:
            type: str = ""

    assert "test-typed" not in record_types()


def test_near_matches_before_the_list():
    assert near("langevn", ["langevin", "euler"]) == " Did you mean langevin?"
    assert near("zzz", ["b", "a"]) == " Known: a, b."
    assert near("zzz", []) == ""


# ------------------------------------------------------------------------------------------------ refusals


def lambda_free() -> Callable[[float], float]:
    def inner(x: float) -> float:
        return x

    return inner


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Drawing(shapes=(Circle(), Path("x"))), r"^shapes\[1\]: a PosixPath cannot be saved|WindowsPath"),
        (Drawing(transform=lambda x: x), r"^transform: .*lambda.* cannot be imported by name; define it at the top"),
        (Drawing(transform=lambda_free()), r"^transform: .*cannot be imported by name"),
        (Drawing(transform=Circle().area), r"^transform: .*cannot be imported by name"),
        (Drawing(frame=Unregistered()), r"^frame: Unregistered derives from a record.*@record"),
        (Drawing(extra={"a": {1: 2}}), r"^extra\.a: the keys of a mapping must be strings"),
        (Drawing(extra={"type": 2}), r"^extra: the keys of a mapping must be strings other than 'type'"),
        ({1, 2}, r"^value: a set cannot be saved"),
    ],
)
def test_what_cannot_be_written_is_named(value: Any, message: str):
    with pytest.raises(CodecError, match=message):
        encode(value)


CIRCLE = {"type": "test-circle"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sise": 1}, r"^sise: test-drawing has no such field\. Did you mean size\?"),
        ({"size": "4"}, r"^size: expected int, got '4'"),
        ({"size": 4.5}, r"^size: expected int, got 4.5"),
        ({"size": True}, r"^size: expected int, got True"),
        ({"size": "inf"}, r"^size: expected int, got 'inf'"),
        ({"closed": 1}, r"^closed: expected bool, got 1"),
        ({"title": None}, r"^title: expected str, got None"),
        ({"colour": "gren"}, r"^colour: 'gren' is not one of the choices\. Did you mean green"),
        ({"colour": 3.0}, r"^colour: 3.0 is not one of the choices"),
        ({"scale": "big"}, r"^scale: expected float or tuple\[float, \.\.\.\], got 'big'\.$"),
        ({"scale": [1.0, "big"]}, r"^scale\[1\]: expected float, got 'big'"),
        ({"shapes": CIRCLE}, r"^shapes: expected a list"),
        ({"shapes": [CIRCLE, {"type": "test-circl"}]}, r"^shapes\[1\]: 'test-circl' is not a Shape\. Did you mean"),
        (
            {"shapes": [{"type": "test-drawing"}]},
            r"^shapes\[0\]: 'test-drawing' is not a Shape\. Did you mean test-circle",
        ),
        ({"shapes": [{"type": "test-circle", "radius": -1}]}, r"^shapes\[0\]: radius -1.0 must be positive"),
        ({"shapes": [{"type": "test-box", "sides": [1]}]}, r"^shapes\[0\]\.sides: expected 2 values, got 1"),
        ({"shapes": [{}]}, r"^shapes\[0\]: expected a Shape as \{'type': tag, \.\.\.\}"),
        ({"frame": "test-box"}, r"^frame: test-box needs the field 'sides'"),
        ({"frame": {"type": "test-box"}}, r"^frame: test-box needs the field 'sides'"),
        ({"frame": {"type": "test-bax"}}, r"^frame: expected Shape or None, got .* Did you mean test-box"),
        ({"frame": {"type": "test-circle", "radius": "x"}}, r"^frame\.radius: expected float"),
        ({"limits": {"low": "x"}}, r"^limits\.low: expected float"),
        ({"transform": "math"}, r"^transform: expected a function as 'module:name'"),
        ({"transform": "math:pi"}, r"^transform: 'math:pi' is not a function that can be imported"),
        ({"transform": "no_such_module:f"}, r"^transform: 'no_such_module:f' is not a function"),
        ({"extra": [{"type": "test-circle", "radius": 0}]}, r"^extra\[0\]: radius 0.0 must be positive"),
    ],
)
def test_what_cannot_be_read_is_named(fields: dict[str, Any], message: str):
    with pytest.raises(CodecError, match=message):
        decode({"type": "test-drawing", **fields}, Drawing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "^value: not JSON"),
        ('{"schema": 1, "value": NaN}', "^value: not JSON: the bare number NaN"),
        ("[]", "^value: not a file of scorefield"),
        ('{"schema": "1", "value": 1}', "^value: not a file of scorefield"),
        (f'{{"schema": {SCHEMA + 1}, "value": 1}}', "upgrade scorefield"),
        ('{"schema": 1, "value": 1}', "^value: expected a Drawing as"),
    ],
)
def test_files_of_another_kind_are_refused(text: str, message: str):
    with pytest.raises(CodecError, match=message):
        loads(text, Drawing)


# ------------------------------------------------------------------------------------------------ spellings and edits


def test_a_bare_tag_is_the_record_with_its_defaults_but_not_where_text_is_meant():
    assert decode("test-circle", Shape) == Circle()
    assert decode(["test-circle"], tuple[Shape, ...]) == (Circle(),)
    assert decode("test-circle", Shape | str) == "test-circle"
    assert decode("test-circle", Shape | None) == Circle()


DRAWING = Drawing(shapes=(Circle(), Box((1.0, 2.0))), limits={"low": 0.0})


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("size", "64", {"size": 64}),
        ("size", "1e3", {"size": 1000}),
        ("closed", "True", {"closed": True}),
        ("closed", "false", {"closed": False}),
        ("title", "64", {"title": "64"}),
        ("title", "null", {"title": "null"}),
        ("scale", "[1, 2]", {"scale": (1.0, 2.0)}),
        ("scale", "inf", {"scale": math.inf}),
        ("colour", "green", {"colour": "green"}),
        ("frame", "test-circle", {"frame": Circle()}),
        ("frame", '{"type": "test-circle", "radius": 2}', {"frame": Circle(2.0)}),
        ("frame", "None", {"frame": None}),
        ("transform", "math:sin", {"transform": math.sin}),
        ("shapes.0.radius", "2.5", {"shapes": (Circle(2.5), Box((1.0, 2.0)))}),
        ("shapes.1.sides.0", "3", {"shapes": (Circle(), Box((3.0, 2.0)))}),
        ("shapes.1", "test-circle", {"shapes": (Circle(), Circle())}),
        ("limits.high", "1", {"limits": {"low": 0.0, "high": 1.0}}),
    ],
)
def test_command_line_text_becomes_what_the_field_wants(path: str, text: str, expected: dict[str, Any]):
    edited = with_field(DRAWING, path, text)
    assert {name: getattr(edited, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("sise", "4", r"^sise: test-drawing has no such field\. Did you mean size\?"),
        ("shapes.0.radus", "4", r"^shapes\.0\.radus: test-circle has no such field\. Did you mean radius\?"),
        ("shapes.2.radius", "4", r"^shapes\.2: expected an index below 2"),
        ("shapes.-1", "4", r"^shapes\.-1: expected an index below 2"),
        ("frame.radius", "4", r"^frame: is None and has no field 'radius'"),
        ("frame.type", "x", r"^frame: is None"),
        ("shapes.0.type", "test-box", r"^shapes\.0\.type: test-circle has no such field"),
        ("size", "many", r"^size: expected int, got 'many'"),
        ("shapes.0.radius", "-1", r"^shapes\[0\]: radius -1.0 must be positive"),
        ("frame", '{"type": "test-circle", "radius": -1}', r"^frame: radius -1.0 must be positive"),
    ],
)
def test_edits_that_do_not_fit_are_refused(path: str, text: str, message: str):
    with pytest.raises(CodecError, match=message):
        with_field(DRAWING, path, text)


def test_a_plain_dataclass_is_not_a_record():
    @dataclass(frozen=True)
    class Plain:
        x: int = 0

    with pytest.raises(CodecError, match="a Plain cannot be saved"):
        encode(Plain())
