"""Command-line entry point. Exit status: 0 success, 1 internal error, 2 invalid input, 130 interrupted."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any

import tyro

from scorefield._codec import near
from scorefield.cli.console.old_spellings import translated

VERBS = {
    "demo": "demo:Demo",
    "train": "train:Train",
    "train-guide": "train_guide:TrainGuide",
    "sample": "sample:Sample",
    "evaluate": "evaluate:Evaluate",
    "compare": "compare:Compare",
    "compare-samplers": "compare_samplers:CompareSamplers",
    "compare-methods": "compare_methods:CompareMethods",
    "tune": "tune:Tune",
    "likelihood": "likelihood:Likelihood",
    "latents": "latents:Latents",
    "edit": "edit:Edit",
    "energy": "energy:Energy",
    "calibrate": "calibrate:Calibrate",
    "doctor": "doctor:Doctor",
    "describe": "describe:Describe",
    "data": "data:Data",
    "import": "import_:Import",
    "export": "export:Export",
    "reproduce": "reproduce:Reproduce",
    "selftest": "selftest:Selftest",
    "recipes": "recipes:Recipes",
}
"""Verb -> the module of its command and the dataclass of its flags; `run` of that module carries it out."""

ALONE = ("demo", "compare-methods", "selftest", "recipes")
"""Verbs that do something without arguments; the others then show their help."""

DESCRIPTION = """Score-based generative models: train, sample, score, report.

scorefield VERB [ACTION] MODEL --flags; scorefield VERB --help shows the flags.

Anywhere in a command: --plugin MODULE imports a module or a .py file with parts of your own (repeatable), --trust NAME
lets a model folder name code outside scorefield, --debug shows tracebacks. --version prints the version, and
--completion bash|zsh|fish prints a completion script for that shell."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Errors are one message on stderr and exit status 2; --debug, anywhere, shows the traceback as well.

    Args:
        arguments: Words of the command line, in place of sys.argv[1:].
    """
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        return 0
    finally:
        _leave_pipes()


def _main(words: list[str]) -> int:
    if words == ["--version"]:
        from scorefield._version import __version__

        print(f"scorefield {__version__}")
        return 0
    words, debug = [word for word in words if word != "--debug"], "--debug" in words
    try:
        words, plugins = _taken(words, "--plugin")
        words, trusted = _taken(words, "--trust")
        words, warnings = translated(words)
        _require_verb(words)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    command = _parsed(words)
    module = importlib.import_module(type(command).__module__)
    return _run(module, command, plugins, trusted, debug)


def _taken(words: list[str], flag: str) -> tuple[list[str], list[str]]:
    """The words without a global flag and its values, and the values."""
    rest, values, queue = [], [], iter(words)
    for word in queue:
        if word == flag:
            value = next(queue, None)
            if value is None:
                raise ValueError(f"{flag} needs a value, for example {flag} mymodule")
            values.append(value)
        elif word.startswith(f"{flag}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, values


def _require_verb(words: list[str]) -> None:
    """Refuse a verb that does not exist, also with --help behind it."""
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise ValueError(f"there is no command {words[0]!r}.{near(words[0], VERBS)} scorefield --help lists all")


def _parsed(words: list[str]) -> Any:
    """The command of these words; shows help or errors, and exits, where they are none."""
    if len(words) == 2 and words[0] == "--completion":
        words = ["--tyro-print-completion", words[1]]
    actions = {"edit", "energy"}
    if not words or (len(words) == 1 and words[0] in VERBS and words[0] not in ALONE):
        words = [*words, "--help"]
    elif len(words) == 2 and words[0] in actions and not words[1].startswith("-"):
        words = [*words, "--help"]  # an action without its model
    listing = words[0] in ("-h", "--help")  # of the verbs, with the first line of each
    commands: Any = None
    for verb in VERBS:
        flags = _flags(verb)
        line = (flags.__doc__ or "").split("\n")[0] if listing else None
        command = Annotated[flags, tyro.conf.subcommand(verb, description=line)]
        commands = command if commands is None else commands | command
    return tyro.cli(
        commands,
        prog="scorefield",
        description=DESCRIPTION,
        args=words,
    )


def _flags(verb: str) -> type:
    """The dataclass of a verb's flags; importing its module imports no torch."""
    module, _, name = VERBS[verb].partition(":")
    return getattr(importlib.import_module(f"scorefield.cli.{module}"), name)


def _run(module: ModuleType, command: Any, plugins: list[str], trusted: list[str], debug: bool) -> int:
    """Carry out a command and turn what it raises into a message and an exit status."""
    from scorefield import _plugins

    try:
        _plugins.allow(trusted)
        _plugins.use(plugins)
        return module.run(command) or 0
    except KeyboardInterrupt as stop:
        # What was saved, and how to continue, is in the message of those who could save.
        print(f"\n{str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        invalid = _is_invalid_input(error)
        text = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror and error.filename is None:
            text = error.strerror
        print(f"error: {text}", file=sys.stderr)
        if not invalid:
            print(f"({type(error).__name__}: this may be a defect of scorefield; --debug shows where)", file=sys.stderr)
        return 2 if invalid else 1
    finally:
        _leave_processes()


def _is_invalid_input(error: Exception) -> bool:
    """Whether an error is one of the user's input or machine, and not of scorefield."""
    training = sys.modules.get("scorefield.training.trainable")
    known = (ValueError, ImportError, *((training.TrainingError,) if training is not None else ()))
    files = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, (*known, *files)) or full


def _leave_processes() -> None:
    """Leave the process group, if there is one; a command that needed no torch has none."""
    if (distributed := sys.modules.get("scorefield.training.distributed")) is not None:
        distributed.leave()


def _leave_pipes() -> None:
    """Flush the output; where its reader has gone (`| head -1`), drop the rest so that the interpreter ends quietly."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except ValueError:
            pass  # closed by the caller
