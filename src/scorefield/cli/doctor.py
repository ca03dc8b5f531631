"""`scorefield doctor`: diagnosis of a score model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from scorefield.cli.console.arguments import Count, Flag, ModelOrOracle, Out, Seed, Weights, Whole

if TYPE_CHECKING:
    from scorefield.data import Data, Split
    from scorefield.diagnostics import Checkup, Examples
    from scorefield.models.model import Model
    from scorefield.reports.page import Section


@dataclass(frozen=True)
class Doctor:
    """Diagnose a score model on data: test what exact scores satisfy at each noise level, and name what is wrong.

    Prints a table and the findings (healthy, suspect, faulty), and writes doctor.json and report.html. The exit status
    is 0 whatever is found; with --strict it is 1 where the verdict is faulty.
    """

    model: ModelOrOracle
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """Data that the model was not trained on. Default: the model's held-out data."""
    n: Count = 256
    """Largest number of examples; at least 32."""
    levels: Whole = 12
    """Number of noise levels, in equal steps of log(alpha^2 / sigma^2) or of the model's ladder."""
    seed: Seed = 0
    weights: Weights = None
    batch_size: Annotated[int, arg(metavar="N")] = 128
    """Examples per network call."""
    strict: Flag = False
    """Exit with status 1 where the verdict is faulty."""
    out: Out = None
    """Output folder. Default: doctor/MODEL."""


MOST = 5000
"""Training examples used at most."""


def run(command: Doctor) -> int:
    """Carry out the command; 1 if it is strict and the verdict faulty.

    Raises:
        ValueError: A number that cannot be, an unknown oracle, or too few examples.
    """
    from scorefield.cli.console.progress import sampling_display
    from scorefield.diagnostics import Settings, examine_model, examine_oracle
    from scorefield.evaluation.calibration import oracle_subject
    from scorefield.models.model import load

    if command.levels < 2 or command.batch_size < 1 or command.seed < 0:
        raise ValueError(
            f"--levels {command.levels} must be at least 2, --batch-size {command.batch_size} at least 1 and --seed"
            f" {command.seed} not negative"
        )
    settings = Settings(command.n, command.levels, command.seed, command.batch_size)
    kind, _, name = command.model.partition(":")
    model = None
    with sampling_display(100, "percent") as display:

        def tell(share: float) -> None:
            display.finished(0, round(100 * share))

        if kind == "oracle":
            if command.data is not None or command.weights is not None:
                raise ValueError("an oracle has no weights, and its data are its own samples; leave both out")
            oracle = oracle_subject(name).oracle
            assert oracle is not None
            checkup = examine_oracle(command.model, oracle, settings, tell)
        else:
            model = load(command.model, weights=command.weights)
            data, train = read_examples(command, model)
            checkup = examine_model(model, data, train, settings, tell)
    return _report(command, checkup, model)


def read_examples(command: Doctor, model: Model) -> tuple[Examples | None, Examples | None]:
    """Examples that the model has not seen, and some that it has."""
    from scorefield.cli.console.reference_data import real_data

    source = model.experiment.data
    own = real_data(source, None, model.data) if source.path is not None else None
    other = own if command.data is None else real_data(source, command.data, model.data)
    if other is None:
        print(f"{model.name} does not say where its data are: only what needs none is examined; --data PATH gives some")
        return None, None
    seen = None if own is None else _some(own, own.train, MOST, "train")
    if command.data is None and other.held_out is None:
        print(f"{model.name} has no held-out data: it is examined on training examples, and memorisation is not")
        return _some(other, other.train, command.n, "train"), None
    split = other.held_out or other.train
    return _some(other, split, command.n, "held-out" if command.data is None else "given"), seen


def _some(data: Data, split: Split, count: int, what: str) -> Examples:
    from scorefield.diagnostics import Examples
    from scorefield.evaluation import examples

    x, labels = examples(split, count)
    return Examples(x, labels, data.name, what)


def _report(command: Doctor, checkup: Checkup, model: Model | None) -> int:
    from scorefield import _codec
    from scorefield._files import write_text
    from scorefield.cli.calibrate import lines_of
    from scorefield.diagnostics.page import levels, lines, sections
    from scorefield.models.run_folder import environment_lines
    from scorefield.reports.report import write_report

    receipt, found = checkup.receipt, checkup.examination
    out = command.out or Path("doctor") / receipt.model.replace(":", "-")
    print("\n".join([*lines_of(*levels(found, brief=True)), "", *lines(found), "", f"verdict: {found.verdict}"]))
    write_text(out / "doctor.json", _codec.dumps(checkup))
    facts = dict(receipt.environment)
    page = write_report(
        out / "report.html",
        [*sections(checkup), _paper(checkup, model)],
        title=f"Score doctor: {receipt.model}",
        subtitle=found.verdict + (f": {found.named.name}" if found.named is not None else ""),
        command=facts["command"],
        environment=environment_lines(facts),
    )
    print(f"{out / 'doctor.json'}\n{page}")
    return 1 if command.strict and found.verdict == "faulty" else 0


def _paper(checkup: Checkup, model: Model | None) -> Section:
    from scorefield.reports.methods_paragraph import paper_section

    found = checkup.examination
    said = (
        f"The score was examined by the identities of exact scores on {found.count:,} examples at {len(found.rows)}"
        f" noise levels, and found {found.verdict}{f' ({found.named.name})' if found.named is not None else ''}."
    )
    if model is None:
        return paper_section(None, parts=["doctor"], more=said)
    return paper_section(model.experiment, step=model.step, parts=["doctor"], more=said)
