"""Diagnoses of the score doctor for exact scores, trained models, and scores with planted faults.

    python benchmarks/doctor.py [--models digits runs/x ...] [-n 180] [--no-oracles] [--out FILE]

Prints the two tables of docs/doctor.md in Markdown. Faults are planted in the exact score of a mixture in 8 dimensions
under VE, VP and a ladder, and in the first model; the fault of an EMA that was never updated is made with the model's
initial weights.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from scorefield import diagnostics
from scorefield.cli.doctor import Doctor, read_examples
from scorefield.diagnostics import Examination, Settings, examine_model
from scorefield.diagnostics.planted_faults import plants
from scorefield.models.model import Model, build_score, load
from scorefield.models.networks import build_network
from scorefield.process import VE, VP, GeometricSigmas, LinearBetas, Process, SubVP, Tabulated
from scorefield.score import Score
from scorefield.score.oracles import skewed_gaussian, skewed_mixture

PROCESSES: dict[str, Process] = {
    "VE": VE(0.05, 10.0),
    "VP": VP(),
    "sub-VP": SubVP(),
    "a ladder of 30 sigmas": Tabulated(GeometricSigmas(0.05, 10.0, 30)),
    "a ladder of 100 betas": Tabulated(LinearBetas(0.1, 10.0, 100)),
}
ORACLE_EXAMPLES = 512
"""Held-out examples of an exact distribution; as many serve as training data."""

FAULT_EXAMPLES, FAULT_LEVELS = 64, 5
"""Examples and noise levels in the examination of a model with a planted fault."""


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        score: The score that was examined.
        planted: The planted fault; empty for none.
        found: Result of the doctor.
        seconds: Wall-clock time.
    """

    score: str
    planted: str
    found: Examination
    seconds: float

    def problems(self) -> str:
        """Return every finding that is not healthy, in words."""
        bad = [f for f in self.found.findings if f.verdict != "healthy"]
        return "; ".join(f"**{f.name}**: {f.says}" for f in bad).replace("|", "\\|") or "nothing"

    def diagnosis(self) -> str:
        """Return the verdict with the name of the fault and the effect of its remedy."""
        fault = self.found.named
        return self.found.verdict if fault is None else f"{fault.verdict}: {fault.name}, {fault.fall}"


def main() -> None:
    """Print both tables, and each diagnosis on stderr as it is made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["digits"])
    parser.add_argument("-n", type=int, default=180)
    parser.add_argument("--no-oracles", action="store_true", help="examine models only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cases = []
    for case in itertools.chain(() if options.no_oracles else oracles(), models(options.models, options.n)):
        print(f"{case.score}, {case.planted}: {case.diagnosis()} ({case.seconds:.0f} s)", file=sys.stderr, flush=True)
        cases.append(case)
    text = tables(cases)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


def tables(cases: list[Case]) -> str:
    """Return the table of scores without planted faults, and that of planted faults with a column for each score."""
    unchanged = [c for c in cases if not c.planted]
    out = ["| score | verdict | findings that are not healthy |", "| --- | --- | --- |"]
    out += [f"| {c.score} | {c.found.verdict} | {c.problems()} |" for c in unchanged]
    planted = {(c.planted, c.score): c for c in cases if c.planted}
    scores = list(dict.fromkeys(score for _, score in planted))
    out += ["", f"| planted | {' | '.join(scores)} |", "| --- " * (len(scores) + 1) + "|"]
    for fault in dict.fromkeys(fault for fault, _ in planted):
        cells = [planted[fault, score].diagnosis() if (fault, score) in planted else "" for score in scores]
        out.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(out)


def oracles() -> Iterator[Case]:
    """Examine exact scores, and one of them with planted faults."""
    for name, process in PROCESSES.items():
        for make, what in ((skewed_gaussian, "Gaussian"), (skewed_mixture, "mixture")):
            oracle = make(process, 8)
            x, train = oracle.sample(ORACLE_EXAMPLES), oracle.sample(ORACLE_EXAMPLES, start=ORACLE_EXAMPLES)
            began = time.perf_counter()
            found = diagnostics.examine(oracle, x, train=train, exact=oracle)
            yield Case(f"{what}, {name}", "", found, time.perf_counter() - began)
    for name in ("VE", "VP", "a ladder of 30 sigmas"):
        oracle = skewed_mixture(PROCESSES[name], 8)
        x = oracle.sample(ORACLE_EXAMPLES)
        for plant in plants(PROCESSES[name], diagnostics.default_times(PROCESSES[name])[5]):
            began = time.perf_counter()
            found = diagnostics.examine(plant.into(oracle), x)
            yield Case(f"mixture, {name}", plant.how, found, time.perf_counter() - began)


def models(names: list[str], n: int) -> Iterator[Case]:
    """Examine trained models, and the first of them with planted faults."""
    for k, name in enumerate(names):
        model = load(name)
        data, train = read_examples(Doctor(name, n=n), model)
        assert data is not None
        began = time.perf_counter()
        found = examine_model(model, data, train, Settings(count=n)).examination
        yield Case(f"model {model.name}", "", found, time.perf_counter() - began)
        if k:
            continue
        process = model.experiment.levels or model.process
        x, score, times = (
            model.data.to_model(data.x[:FAULT_EXAMPLES]),
            model.as_score(),
            diagnostics.default_times(process, FAULT_LEVELS),
        )
        for plant in plants(process, times[FAULT_LEVELS // 2]):
            began = time.perf_counter()
            found = diagnostics.examine(plant.into(score), x, process=process, times=times)
            yield Case(f"model {model.name}", plant.how, found, time.perf_counter() - began)
        began = time.perf_counter()
        found = diagnostics.examine(initial_score(model), x, process=process, times=times, others={"raw": score})
        yield Case(f"model {model.name}", "initial weights in place of the average", found, time.perf_counter() - began)


def initial_score(model: Model) -> Score:
    """Return the score of a model's initial weights."""
    torch.manual_seed(model.experiment.training.seed)
    network = build_network(model.experiment).eval()
    return build_score(model.experiment, network.requires_grad_(False))


if __name__ == "__main__":
    main()
