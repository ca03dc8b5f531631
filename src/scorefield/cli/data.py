"""`scorefield data inspect`: data before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg


@dataclass(frozen=True)
class Data:
    """Inspect data before training: shape, range, grey levels, missing values, duplicates, and the command to train."""

    action: Positional[Annotated[Literal["inspect"], arg(help="What to do with the data.")]]
    path: Positional[
        Annotated[str, arg(metavar="DATA", help="Path of the data, or module:attribute; as for `train --data`.")]
    ]
    settings: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="FIELD=VALUE")] = ()
    """Change a field of the data source first, for example --set size=64; repeatable."""


def run(command: Data) -> None:
    """Carry out the command."""
    from scorefield._codec import CodecError, with_field
    from scorefield.data import DataSource, inspect

    source = DataSource(command.path)
    for setting in command.settings:
        field, equals, value = setting.removeprefix("data.").partition("=")
        if not equals:
            raise CodecError(f"--set {setting}", "is not FIELD=VALUE, for example --set size=64")
        source = with_field(source, field, value)
    print("\n".join(inspect(source).lines()))
