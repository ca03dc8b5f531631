"""The command line. The only room that prints.

commands   what can be typed, as dataclasses without torch
run        from arguments to exit status
progress   rich bars on a terminal, plain lines in a log
training, sampling, evaluation, describing, demo   what the commands do
"""

from scorefield.cli.main import main

__all__ = ["main"]
