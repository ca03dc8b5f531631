"""From arguments to an exit status: 0 done, 1 a mistake of ours, 2 one of the user's, 130 stopped by Ctrl-C."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from scorefield.cli import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Errors are one message on stderr and exit status 2; --debug, anywhere, shows the traceback as well.

    Args:
        arguments: In place of sys.argv[1:].
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    if words == ["--version"]:
        from scorefield._version import __version__

        print(f"scorefield {__version__}")
        return 0
    command: Any = tyro.cli(
        commands.Command,  # type: ignore[arg-type]
        prog="scorefield",
        description="Score-based generative models: train, sample, score, report. --debug shows tracebacks.",
        args=words or ["--help"],
    )
    try:
        return _action(command)(command) or 0
    except KeyboardInterrupt as stop:
        # What was saved, and how to go on, is in the message of those who could save.
        print(f"\n{str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if debug:
            raise
        from scorefield.training.trainer import TrainingError

        known = (ValueError, ImportError, TrainingError)
        files = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
        mine = isinstance(error, (*known, *files)) or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        )
        text = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror and error.filename is None:
            text = error.strerror
        print(f"error: {text}", file=sys.stderr)
        if not mine:
            print(f"({type(error).__name__}: this may be a defect of scorefield; --debug shows where)", file=sys.stderr)
        return 2 if mine else 1
    finally:
        _leave_processes()


def _leave_processes() -> None:
    """Part from other processes, if there are any; a command that needed no torch has none."""
    if (ranks := sys.modules.get("scorefield.training.distributed")) is not None:
        ranks.leave()


def _action(command: Any) -> Callable[[Any], int | None]:
    """The function that carries out a command; torch is imported here and not before."""
    if isinstance(command, commands.Demo):
        from scorefield.cli.demo import demo

        return demo
    if isinstance(command, commands.Train):
        from scorefield.cli.train import train

        return train
    if isinstance(command, commands.TrainGuide):
        from scorefield.cli.train_guide import train_a_guide

        return train_a_guide
    if isinstance(command, commands.Sample):
        from scorefield.cli.sample import sample

        return sample
    if isinstance(command, commands.Evaluate):
        if command.checkpoints is not None:
            from scorefield.cli.evaluate_checkpoints import sweep

            return sweep
        from scorefield.cli.evaluate import evaluate

        return evaluate
    if isinstance(command, commands.Compare):
        from scorefield.cli.compare import compare

        return compare
    if isinstance(command, commands.CompareSamplers | commands.Tune):
        from scorefield.cli import compare_samplers

        return (
            compare_samplers.compare_samplers
            if isinstance(command, commands.CompareSamplers)
            else compare_samplers.tune_sampler
        )
    if isinstance(command, commands.CompareMethods):
        from scorefield.cli.compare_methods import compare_methods

        return compare_methods
    if isinstance(command, commands.Likelihood):
        from scorefield.cli.likelihood import likelihood

        return likelihood
    if isinstance(command, commands.Latents):
        from scorefield.cli.latents import latents

        return latents
    if isinstance(command, commands.Edit):
        from scorefield.cli.edit import edit

        return edit
    if isinstance(command, commands.Energy):
        from scorefield.cli.energy import energy

        return energy
    if isinstance(command, commands.Calibrate):
        from scorefield.cli.calibrate import calibrate

        return calibrate
    if isinstance(command, commands.Doctor):
        from scorefield.cli.doctor import examine

        return examine
    if isinstance(command, commands.Import | commands.Export):
        from scorefield.cli import import_

        return import_.import_model if isinstance(command, commands.Import) else import_.export_model
    if isinstance(command, commands.Reproduce):
        from scorefield.cli.reproduce import reproduce

        return reproduce
    if isinstance(command, commands.Selftest):
        from scorefield.cli.selftest import selftest

        return selftest
    from scorefield.cli import describe

    if isinstance(command, commands.Describe):
        return describe.describe
    if isinstance(command, commands.DataCommand):
        return describe.inspect_data
    return describe.list_recipes
