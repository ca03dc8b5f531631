"""`scorefield compare-methods`: the methods of the lineage on one data set."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from scorefield.cli.console.arguments import Count, Flag, Out, Whole

if TYPE_CHECKING:
    from scorefield.data import Data
    from scorefield.models.model import Model
    from scorefield.studies.methods import EvaluationSettings, Loss, Method, MethodRun, SharedSettings
    from scorefield.studies.methods.page import ResultRow
    from scorefield.studies.papers.entry import Claim


@dataclass(frozen=True)
class CompareMethods:
    """Train every method of the lineage on the same data for the same time and compare them; or models by their loss.

    Writes one table with intervals and provenance, a page, and which of the papers' claims held. Every run is kept in
    OUT: the same command continues an interrupted one, and seeds or methods can be added to a finished comparison.
    """

    models: Positional[
        Annotated[
            tuple[str, ...], arg(metavar="MODEL", help="With --by objective: models to compare; none is trained.")
        ]
    ] = ()
    data: Annotated[str, arg(metavar="DATA")] = "digits"
    """Training data, as for `train`."""
    budget: Annotated[str, arg(metavar="TIME")] = "5m"
    """Training time for each method and seed, for example 60s, 5m, 1h."""
    seeds: Whole = 3
    """Trainings of each method."""
    methods: Annotated[str | None, arg(metavar="NAME,NAME,...")] = None
    """Only these of ncsn, ncsnv2, mdsm, adversarial, ve-discrete, ve, vp-discrete, vp, sub-vp. Default: all."""
    network: Literal["auto", "mlp", "unet"] = "auto"
    """Network that all score models share; auto is a U-Net for signals and images, and an MLP otherwise."""
    n: Count = 512
    """Number of samples of each sampler."""
    calls: Whole = 500
    """Largest number of network calls per sample."""
    density: Whole = 64
    """Held-out examples whose density is measured, where the method has one; 0 for none."""
    by: Literal["samples", "objective"] = "samples"
    """Compare by samples; or by the held-out loss, of models with the same weighting and noise levels."""
    dry_run: Flag = False
    """Print the plan with its time, and write nothing."""
    out: Out = None
    """Output folder. Default: runs/compare-DATA."""


def run(command: CompareMethods) -> None:
    """Carry out the command.

    Raises:
        ValueError: A number that cannot be, a method that is none or does not fit the data, models that do not compare,
            or a folder with another comparison.
    """
    from scorefield.cli.console.batches import claim
    from scorefield.models.model import load
    from scorefield.studies import methods
    from scorefield.studies.methods import METHODS, run_folder

    if command.models:
        if command.by != "objective":
            raise ValueError(
                "models are compared by their objective: compare-methods MODEL MODEL --by objective; without models,"
                " compare-methods trains every method on --data"
            )
        _of_models(command)
        return
    shared, data = _terms(command)
    names = tuple(METHODS) if command.methods is None else tuple(name.strip() for name in command.methods.split(","))
    chosen = methods.select_methods(shared, names)
    out = command.out or Path("runs") / f"compare-{Path(shared.data.path or 'data').stem}"
    print("\n".join(_plan(chosen, shared, data, command, out)), flush=True)
    if command.dry_run:
        print("nothing was written")
        return
    evaluation = methods.evaluation_settings(data, command.n, command.density)
    claim(out / "terms.json", _identity(shared, data, evaluation))
    runs = _run_all(chosen, command.seeds, shared, data, evaluation, out)
    if command.by == "objective":
        models = [(f"{r.method}, seed {r.seed}", load(run_folder(out, r.method, r.seed))) for r in runs]
        _objectives(models, data, out)
        return
    page, claims = methods.write_comparison(out, runs, shared, evaluation)
    print("\n".join(["", *_words(methods.result_rows(runs), shared, evaluation), "", *methods.notes(runs), ""]))
    print("\n".join(_said(claims)))
    print(f"{out / methods.page.RESULTS}\n{page}")


# ------------------------------------------------------------------------------------------------ the plan


def _terms(command: CompareMethods) -> tuple[SharedSettings, Data]:
    from scorefield.data import DataSource, open_data
    from scorefield.studies import methods
    from scorefield.studies.methods import SharedSettings

    if command.seeds < 1:
        raise ValueError(f"--seeds {command.seeds}: train each method at least once")
    if command.n < methods.running.LEAST or command.density < 0:
        raise ValueError(
            f"-n {command.n} and --density {command.density}: distances need {methods.running.LEAST} samples, and a"
            " number of examples is not negative"
        )
    seconds = seconds_of(command.budget)
    source = DataSource(command.data)
    data = open_data(source)
    body = methods.choose_architecture(data.spec, command.network)
    return SharedSettings(
        source, data.spec, methods.largest_data_distance(data), body, seconds / 60.0, command.calls
    ), data


def seconds_of(budget: str) -> float:
    """Seconds of a budget such as 90s, 5m, 1.5h; a plain number is seconds.

    Raises:
        ValueError: Something else, or no time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", budget.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"--budget {budget!r} is no time such as 60s, 5m or 1h")
    return seconds


def _plan(
    chosen: tuple[Method, ...], shared: SharedSettings, data: Data, command: CompareMethods, out: Path
) -> list[str]:
    """The plan with estimated times; sampling is timed on one untrained network."""
    from scorefield.studies import methods

    held = len(data.held_out) if data.held_out is not None else 0
    lines = [
        f"{data.name}: {len(data.train):,} examples of shape {data.spec.shape} to train on, {held:,} held out; network"
        f" {shared.architecture}; into {out}"
    ]
    per_call, total = _seconds_per_call(shared), 0.0
    for method in chosen:
        network = method.experiment(shared, 0).network
        size = methods.sizes.count(network, shared.spec)
        samplings = method.samplings(shared)
        # An energy's call is a forward and a backward pass, three times the cost of a forward pass.
        calls = len(samplings) * shared.calls * (3 if method.name == "mdsm" else 1)
        seconds = 60.0 * shared.minutes + calls * command.n * per_call
        total += seconds
        lines.append(
            f"  {method.name:12} {size:>10,} parameters  {60 * shared.minutes:5.0f} s training, sampled by"
            f" {', '.join(s.name for s in samplings)} ({shared.calls} calls at most)  about {seconds:.0f} s a seed"
        )
    times = f"{command.seeds} seed{'s' * (command.seeds != 1)}"
    lines.append(
        f"{len(chosen)} methods, {times}: about {_duration(command.seeds * total)} in all, and densities of"
        f" {command.density} examples; finished runs are not repeated"
    )
    return lines


def _seconds_per_call(shared: SharedSettings) -> float:
    """Seconds of one network call of one sample, in batches of 128, on a quiet machine."""
    import torch

    from scorefield.studies import methods

    network = methods.sizes.score_network(shared.architecture, shared.spec, "positional").build(shared.spec).eval()
    x, c = torch.zeros(128, *shared.spec.shape), torch.zeros(128)
    if not all(n % m == 0 for n, m in zip(shared.spec.shape[1:], network.multiple, strict=True)):
        sides = [-(-n // m) * m for n, m in zip(shared.spec.shape[1:], network.multiple, strict=True)]
        x = torch.zeros(128, shared.spec.shape[0], *sides)
    times = []
    with torch.no_grad():
        network(x, c)
        for _ in range(5):
            began = time.perf_counter()
            network(x, c)
            times.append(time.perf_counter() - began)
    return min(times) / 128


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _identity(shared: SharedSettings, data: Data, evaluation: EvaluationSettings) -> dict[str, Any]:
    """Everything that the runs of one folder share; methods and seeds may be added to it."""
    from scorefield.metrics.receipt import short

    return {
        "data": f"{data.name} {data.train.fingerprint}",
        "held out": short(evaluation.reference.facts.hash),
        "network": shared.architecture,
        "budget": shared.minutes,
        "calls": shared.calls,
        "n": evaluation.n,
        "density": evaluation.density,
    }


# ------------------------------------------------------------------------------------------------ the work


def _run_all(
    chosen: tuple[Method, ...],
    seeds: int,
    shared: SharedSettings,
    data: Data,
    evaluation: EvaluationSettings,
    out: Path,
) -> list[MethodRun]:
    """Seed by seed, so that a first table of all methods comes early; what is finished is written after every run.

    Raises:
        KeyboardInterrupt: Stopped; the message says how to go on.
    """
    from scorefield.studies import methods
    from scorefield.studies.methods import run_folder
    from scorefield.training.trainer import Interrupted

    runs: list[MethodRun] = []
    for seed in range(seeds):
        for method in chosen:
            folder = run_folder(out, method.name, seed)
            new = methods.read_run(folder) is None
            try:
                with _display(f"{method.name}, seed {seed}", 60 * shared.minutes) as observer:
                    run = methods.run_method(method, seed, shared, data, evaluation, folder, observer)
            except (Interrupted, KeyboardInterrupt):
                raise KeyboardInterrupt(
                    f"stopped in {method.name}, seed {seed}; {len(runs)} runs are finished, in {out}. The same command"
                    " goes on where this one was"
                ) from None
            runs.append(run)
            if new:
                methods.write_comparison(out, runs, shared, evaluation)
            print(_line(run), flush=True)
    return runs


def _line(run: MethodRun) -> str:
    own = run.samples[0]
    energy = "not finite" if own.energy is None else f"{own.energy.value.number:.4g}"
    frechet = "not finite" if own.frechet is None else f"{own.frechet.value.number:.4g}"
    density = "" if run.density is None else f", density {run.density.number:.3f} +- {run.density.std_error:.3f}"
    failed = f", {own.failed} samples not finite" if own.failed else ""
    return (
        f"{run.method:12} seed {run.seed}: {run.steps:>6} steps in {run.seconds:.0f} s, {own.name}: energy distance"
        f" {energy}, Frechet distance {frechet}{density}{failed}"
    )


class _Display:
    """A bar of seconds while a run trains; messages as lines."""

    def __init__(self, progress: Any, what: str, seconds: float):
        self._progress, self._began = progress, time.perf_counter()
        self._task = progress.add_task(what, total=round(seconds))

    def message(self, text: str) -> None:
        """A line."""
        from scorefield.cli.console.progress import on_terminal

        if on_terminal():
            self._progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=round(time.perf_counter() - self._began))

    def row(self, row: dict[str, Any]) -> None:
        """Nothing: the run folder has it."""


@contextmanager
def _display(what: str, seconds: float) -> Iterator[_Display]:
    from scorefield.cli.console.progress import bar

    with bar() as progress:
        yield _Display(progress, what, seconds)


# ---------------------------------------------------------------------------------------------------- text


def _words(lines: list[ResultRow], shared: SharedSettings, evaluation: EvaluationSettings) -> list[str]:
    """The table as aligned text."""
    from scorefield.studies import methods

    found = methods.results_table(lines, shared, evaluation)
    texts = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in found.rows]
    rows = [list(found.columns), *texts]
    widths = [max(len(row[k]) for row in rows) for k in range(len(found.columns))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _said(claims: list[Claim]) -> list[str]:
    from scorefield.studies.papers.writing import VERDICT

    return [f"{VERDICT[c.held]:>12}: {c.statement}\n              {c.found}" for c in claims]


# ------------------------------------------------------------------------------------------------ by objective


def _of_models(command: CompareMethods) -> None:
    """Models of one objective on the held-out data of the first, or on --data."""
    from scorefield.cli.console.reference_data import real_data
    from scorefield.models.model import load
    from scorefield.studies import methods

    models = [(name, load(name)) for name in command.models]
    path = None if command.data == "digits" else command.data
    (_, first), *_ = models
    data = real_data(first.experiment.data, path, first.data)
    _show(methods.compare_objectives(models, data.held_out or data.train), (data.held_out or data.train).name)


def _objectives(models: list[tuple[str, Model]], data: Data, out: Path) -> None:
    """Every group of models that compare.

    Raises:
        ValueError: None do.
    """
    from scorefield._files import write_json
    from scorefield.studies import methods

    groups = methods.comparable_groups(models)
    if not groups:
        raise ValueError(
            "no two of these methods have one weighting and one set of levels; ncsnv2 and adversarial do, and so do two"
            " seeds of one method"
        )
    assert data.held_out is not None
    record = []
    for group in groups:
        found = methods.compare_objectives(group, data.held_out)
        _show(found, data.held_out.name)
        record.append([vars(loss) for loss in found])
    write_json(out / "objectives.json", record)
    print(out / "objectives.json")


def _show(found: list[Loss], data: str) -> None:
    print(f"held-out denoising loss, mean over dimensions, on the same (x, level, z) of {data}; 95 %")
    width = max(len(loss.name) for loss in found)
    for k, loss in enumerate(found):
        beyond = f"  above the least by {loss.beyond:.5f} +- {loss.beyond_half:.5f}" if k else ""
        verdict = "" if not k else "" if loss.worse else ", undecided"
        print(f"  {loss.name:{width}}  {loss.number:.5f} +- {loss.half:.5f}{beyond}{verdict}")
