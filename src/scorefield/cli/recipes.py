"""`scorefield recipes`: the list of recipes."""

from __future__ import annotations

from dataclasses import dataclass

from scorefield.cli.console.arguments import Flag


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""

    names_only: Flag = False
    """Print the names without descriptions."""


def run(command: Recipes) -> None:
    """Carry out the command, without importing torch unless plugins may have added recipes."""
    import json
    from importlib.util import find_spec
    from pathlib import Path

    from scorefield import _plugins

    if _plugins.any_in_use():
        from scorefield.recipes import summaries

        found = summaries()
    else:
        package = find_spec("scorefield.recipes")
        assert package is not None and package.origin is not None
        # Written by tools/list_recipes.py; a test compares it with the recipes.
        found = json.loads(Path(package.origin).with_name("summaries.json").read_text(encoding="utf-8"))
    width = max(map(len, found))
    for name, summary in found.items():
        print(name if command.names_only else f"{name:<{width}}  {summary}")
