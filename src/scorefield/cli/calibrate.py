"""`scorefield calibrate`: calibration of posterior solvers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from scorefield.cli.console.arguments import Count, ModelOrOracle, Noise, Out, Seed, Weights, Whole

if TYPE_CHECKING:
    from scorefield.cli.console.batches import Arrays
    from scorefield.evaluation.calibration import Problems, SolverRow, Subject
    from scorefield.inverse.operators.operator import Operator
    from scorefield.inverse.solvers.solver import Solver
    from scorefield.sampling.sampler import Sampler


@dataclass(frozen=True)
class Calibrate:
    """Test the calibration of posterior solvers on simulated problems whose true examples are known.

    True examples are drawn and measured, y = A(x) + noise; each solver samples the posterior of every y. The ranks of
    the truth among the samples, the coverage of intervals, TARP and residuals show which solvers are calibrated. Every
    finished batch of problems is kept in OUT, and the same command continues an interrupted one.
    """

    subject: ModelOrOracle
    operator: Annotated[str | None, arg(metavar="OPERATOR")] = None
    """Measurement operator in data units: blur:sigma=1, mask:right, downsample:2, ... Default: random mixtures of all
    entries, half as many as there are."""
    noise: Noise = None
    """Standard deviation of the measurement noise, in units of y. Default: a tenth of the deviation of A(x)."""
    solvers: Annotated[str, arg(metavar="all|NAME,...")] = "all"
    """Some of ddrm, diffpir, dps, langevin, moment-matched, pigdm, repaint, replacement, twisted, separated by commas;
    or all that admit the operator."""
    n: Count = 64
    """Number of problems; intervals shrink with its square root."""
    samples: Whole = 32
    """Posterior samples of each problem."""
    steps: Annotated[int | None, arg(metavar="N")] = None
    """Number of steps of every solver's sampler. Default: the solver's own."""
    truth: Literal["model", "data"] = "model"
    """For a model: true examples are its own samples, which tests the solvers alone, or held-out data, which tests the
    solvers and the model."""
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """With --truth data: other data than the model's held-out data."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Examples per network call."""
    out: Out = None
    """Output folder. Default: calibration/SUBJECT."""


LEAST = 16
"""Problems, without which nothing can be said."""


@dataclass(frozen=True)
class _Asked:
    """A solver to be measured."""

    name: str
    solver: Solver
    sampler: Sampler


def run(command: Calibrate) -> None:
    """Carry out the command.

    Raises:
        ValueError: A number that cannot be, an unknown name, a solver that cannot be used so, or a folder with other
            results.
    """
    from scorefield._files import write_json
    from scorefield.evaluation import calibration
    from scorefield.evaluation.calibration.page import sections, summary, tests
    from scorefield.models.run_folder import environment, environment_lines
    from scorefield.reports.methods_paragraph import paper_section
    from scorefield.reports.report import write_report

    _check(command)
    subject = _subject(command)
    operator, named = _operator(command.operator, subject)
    problems = calibration.simulate(subject, operator, command.n, noise=command.noise, seed=command.seed)
    asked, refused = _asked(command, problems)
    out = command.out or Path("calibration") / subject.name.replace(":", "-")
    told = (
        f"{command.n} problems of {subject.name} ({_of(command, subject)}): {named}, noise of deviation"
        f" {problems.noise_std:.4g}; {command.samples} answers of each solver to each."
    )
    print(told)
    for name, why in refused:
        print(f"left out: {why if why.startswith(name) else f'{name}: {why}'}")
    rows = _measure(command, problems, asked, out)
    print("\n".join([*lines_of(*summary(rows)), "", *lines_of(*tests(rows))]))
    facts = environment()
    record = {
        "problem": told,
        "subject": subject.name,
        "operator": named,
        "noise": problems.noise_std,
        "rows": [row.record() for row in rows],
        "left out": dict(refused),
        "environment": facts,
    }
    write_json(out / "calibration.json", _strict(record))
    page = write_report(
        out / "report.html",
        [
            *sections(rows, refused, told),
            paper_section(None, parts=["calibrate", *(one.solver for one in asked)], more=told),
        ],
        title=f"Calibration of posterior samples: {subject.name}",
        command=facts["command"],
        environment=environment_lines(facts),
    )
    print(f"{out / 'calibration.json'}\n{page}")


def _check(command: Calibrate) -> None:
    if command.n < LEAST or command.samples < 2:
        raise ValueError(
            f"-n {command.n} problems of --samples {command.samples} each: at least {LEAST} of 2 are needed to say"
            " anything"
        )
    if command.seed < 0 or command.batch_size < 1:
        raise ValueError(
            f"--seed {command.seed} must not be negative and --batch-size {command.batch_size} must be at least 1"
        )
    if command.steps is not None and command.steps < 1:
        raise ValueError(f"--steps {command.steps} must be at least 1")
    if command.data is not None and command.truth != "data":
        raise ValueError("--data gives truths, which are the model's own samples unless --truth data is given too")


def _subject(command: Calibrate) -> Subject:
    from scorefield.cli.console.reference_data import real_data
    from scorefield.evaluation import calibration, examples
    from scorefield.models.model import load

    kind, _, name = command.subject.partition(":")
    if kind == "oracle":
        if command.truth == "data":
            raise ValueError("--truth data: an oracle has no data; its truths are exact samples")
        return calibration.oracle_subject(name)
    model = load(command.subject, weights=command.weights)
    if command.truth == "model":
        return calibration.model_subject(model)
    data = real_data(model.experiment.data, command.data, model.data)
    return calibration.model_subject(model, examples(data.held_out or data.train, command.n)[0])


def _of(command: Calibrate, subject: Subject) -> str:
    if subject.oracle is not None:
        return "truths are exact samples"
    if command.truth == "data":
        return "truths are held-out data: model and solver are tested together"
    return "truths are the model's own samples: the solver alone is tested"


def _operator(text: str | None, subject: Subject) -> tuple[Operator, str]:
    from scorefield.evaluation import calibration
    from scorefield.inverse.operators.from_files import operator_of

    if text is None:
        return calibration.default_operator(subject.shape), "random mixtures of all entries, half as many"
    return operator_of(text, subject.shape), text


def _asked(command: Calibrate, problems: Problems) -> tuple[list[_Asked], list[tuple[str, str]]]:
    """The solvers to measure, and those left out with the reason."""
    from scorefield.evaluation.calibration.measurement import has_exact
    from scorefield.inverse.solvers.table import all_solvers, refusals, require, solver_named

    subject, observation = problems.subject, problems.observation
    everyone = command.solvers.strip() == "all"
    names = list(all_solvers()) if everyone else [part.strip() for part in command.solvers.split(",") if part.strip()]
    if not names:
        raise ValueError(
            f"--solvers {command.solvers!r} names no solver; give all, or some of {', '.join(all_solvers())}"
        )
    asked, refused = [], []
    for name in dict.fromkeys(names):
        solver = subject.fitted(solver_named(name), observation)
        try:
            sampler = subject.sampler(solver, command.steps)
            why = refusals(solver, subject.score, observation, sampler)
        except ValueError as error:
            sampler, why = None, [str(error)]
        if sampler is not None and not why:
            asked.append(_Asked(name, solver, sampler))
        elif everyone:
            refused.append((name, "; ".join(why)))
        elif sampler is None:
            raise ValueError(f"{name}: {why[0]}")
        else:
            require(solver, subject.score, observation)  # says which solvers would do, each with its own sampler
            require(solver, subject.score, observation, sampler)
    if not asked and not has_exact(problems):
        raise ValueError("no solver takes this observation; " + "; ".join(why for _, why in refused))
    return asked, refused


def _measure(command: Calibrate, problems: Problems, asked: list[_Asked], out: Path) -> list[SolverRow]:
    """A row for each solver, after that of the exact posterior where it is known."""
    from scorefield import _codec
    from scorefield.cli.console.batches import in_batches
    from scorefield.evaluation import calibration
    from scorefield.evaluation.calibration.measurement import has_exact

    size = max(1, command.batch_size // command.samples)
    identity: dict[str, Any] = {
        "subject": problems.subject.identity,
        "problems": _digest(problems),
        "answers": command.samples,
        "seed": command.seed,
        "batch size": size,
    }
    rows, exact = [], None
    if has_exact(problems):
        exact = calibration.exact_answers(problems, command.samples, seed=command.seed, rows=slice(0, command.n))
        rows.append(calibration.judge("exact", problems, exact, exact=exact, seed=command.seed))
    for one in asked:

        def answered(rows: slice, one: _Asked = one) -> Arrays:
            return calibration.answers(problems, one.solver, one.sampler, command.samples, seed=command.seed, rows=rows)

        settings = {"solver": _codec.encode(one.solver), "sampler": _codec.encode(one.sampler)}
        arrays = in_batches(answered, command.n, size, out / "batches", one.name, {**identity, **settings})
        rows.append(
            calibration.judge(
                one.name, problems, arrays, exact=exact, solver=one.solver, sampler=one.sampler, seed=command.seed
            )
        )
    return rows


def _digest(problems: Problems) -> str:
    """Hash of true examples and measurements."""
    import torch

    parts = (problems.truth.double(), problems.observation.observed.double())
    numbers = torch.cat([part.reshape(-1).cpu() for part in parts])
    return hashlib.sha256(numbers.numpy().tobytes()).hexdigest()


def _strict(value: Any) -> Any:
    """JSON without numbers that are not finite."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def lines_of(headings: tuple[str, ...], cells: list[tuple[str, ...]]) -> list[str]:
    """A table as aligned text."""
    rows = [headings, *cells]
    widths = [max(len(row[k]) for row in rows) for k in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
