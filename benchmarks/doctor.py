"""What the score doctor says of laws that are known exactly, of trained models, and of each planted fault.

    python benchmarks/doctor.py [--models digits runs/x ...] [-n 180] [--no-oracles] [--out FILE]

Prints two tables in Markdown, as docs/doctor.md holds them. Faults are planted in the exact score of a mixture of 8
dimensions under VE, VP and a ladder, and in the first model, whose initial weights stand for an average that was never
updated.
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
OF_ORACLES = 512
"""Examples of a law, and as many to train on."""

FEW, LEVELS = 64, 5
"""Examples and levels of a model with a planted fault."""


@dataclass(frozen=True)
class Case:
    """One examination."""

    score: str
    planted: str
    found: Examination
    seconds: float

    def said(self) -> str:
        """Every finding that is not healthy, in words."""
        bad = [f for f in self.found.findings if f.verdict != "healthy"]
        return "; ".join(f"**{f.name}**: {f.says}" for f in bad).replace("|", "\\|") or "nothing"

    def named(self) -> str:
        """The verdict, and by which name, with what its remedy takes."""
        fault = self.found.named
        return self.found.verdict if fault is None else f"{fault.verdict}: {fault.name}, {fault.fall}"


def main() -> None:
    """Print both tables; lines on stderr as they are found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["digits"])
    parser.add_argument("-n", type=int, default=180)
    parser.add_argument("--no-oracles", action="store_true", help="models alone")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cases = []
    for case in itertools.chain(() if given.no_oracles else oracles(), models(given.models, given.n)):
        print(f"{case.score}, {case.planted}: {case.named()} ({case.seconds:.0f} s)", file=sys.stderr, flush=True)
        cases.append(case)
    text = tables(cases)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


def tables(cases: list[Case]) -> str:
    """What was said of scores as they are, and of planted faults, one column a score."""
    sound = [c for c in cases if not c.planted]
    out = ["| score | verdict | what it said |", "| --- | --- | --- |"]
    out += [f"| {c.score} | {c.found.verdict} | {c.said()} |" for c in sound]
    planted = {(c.planted, c.score): c for c in cases if c.planted}
    scores = list(dict.fromkeys(score for _, score in planted))
    out += ["", f"| planted | {' | '.join(scores)} |", "| --- " * (len(scores) + 1) + "|"]
    for fault in dict.fromkeys(fault for fault, _ in planted):
        cells = [planted[fault, score].named() if (fault, score) in planted else "" for score in scores]
        out.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(out)


def oracles() -> Iterator[Case]:
    """Exact scores, and faults planted in one."""
    for name, process in PROCESSES.items():
        for make, what in ((skewed_gaussian, "Gaussian"), (skewed_mixture, "mixture")):
            law = make(process, 8)
            x, train = law.sample(OF_ORACLES), law.sample(OF_ORACLES, start=OF_ORACLES)
            began = time.perf_counter()
            found = diagnostics.examine(law, x, train=train, exact=law)
            yield Case(f"{what}, {name}", "", found, time.perf_counter() - began)
    for name in ("VE", "VP", "a ladder of 30 sigmas"):
        law = skewed_mixture(PROCESSES[name], 8)
        x = law.sample(OF_ORACLES)
        for plant in plants(PROCESSES[name], diagnostics.default_times(PROCESSES[name])[5]):
            began = time.perf_counter()
            found = diagnostics.examine(plant.into(law), x)
            yield Case(f"mixture, {name}", plant.how, found, time.perf_counter() - began)


def models(names: list[str], n: int) -> Iterator[Case]:
    """Trained models, and faults planted in the first."""
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
            model.data.to_model(data.x[:FEW]),
            model.as_score(),
            diagnostics.default_times(process, LEVELS),
        )
        for plant in plants(process, times[LEVELS // 2]):
            began = time.perf_counter()
            found = diagnostics.examine(plant.into(score), x, process=process, times=times)
            yield Case(f"model {model.name}", plant.how, found, time.perf_counter() - began)
        began = time.perf_counter()
        found = diagnostics.examine(stale(model), x, process=process, times=times, others={"raw": score})
        yield Case(f"model {model.name}", "initial weights in place of the average", found, time.perf_counter() - began)


def stale(model: Model) -> Score:
    """The score of a model's initial weights."""
    torch.manual_seed(model.experiment.training.seed)
    network = build_network(model.experiment).eval()
    return build_score(model.experiment, network.requires_grad_(False))


if __name__ == "__main__":
    main()
