"""`scorefield export`: a model in another library's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from scorefield.cli.console.arguments import ModelName


@dataclass(frozen=True)
class Export:
    """Write a model in the layout of another library."""

    layout: Positional[Annotated[Literal["diffusers"], arg(help="The library whose layout is written.")]]
    model: ModelName
    out: Annotated[Path, arg(metavar="FOLDER")]
    """Output folder."""


def run(command: Export) -> None:
    """Carry out the command."""
    from scorefield.interop import EXPORTS
    from scorefield.models.model import find

    for note in EXPORTS[command.layout](find(command.model), command.out):
        print(f"note: {note}")
    print(f"written: {command.out}")
