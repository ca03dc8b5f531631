"""The command line, the only package that prints.

One file per command, or one package where it has actions or is long: its flags as a dataclass that needs no torch, then
`run`, which imports what it needs. `main` finds the commands by the table `VERBS`; `console` holds what they share.
"""

from scorefield.cli.main import main

__all__ = ["main"]
