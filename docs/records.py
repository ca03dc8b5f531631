"""How the reference reads the source: fields of records are arguments, and a name stands where it is defined."""

from __future__ import annotations

from typing import Any

import griffe


class Records(griffe.Extension):
    """Marks `@record` classes and named tuples as dataclasses; hides what a front page imports from its modules."""

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Called for every class as it is read, before griffe looks for dataclasses."""
        named = [decorator.value for decorator in cls.decorators] + list(cls.bases)
        paths = {value.canonical_path for value in named if isinstance(value, griffe.Expr)}
        if paths & {"scorefield._codec.record", "typing.NamedTuple"}:
            dataclass = griffe.ExprName("dataclasses.dataclass")
            cls.decorators.append(griffe.Decorator(dataclass, lineno=cls.lineno, endlineno=cls.lineno))

    def on_module(self, *, mod: griffe.Module, **kwargs: Any) -> None:
        """Called for every module once all are read."""
        if mod.exports is not None:
            mod.exports = [
                name for name in mod.exports if str(name) in mod.members and not mod.members[str(name)].is_alias
            ]
