"""What the score doctor says of laws that are known exactly, of trained models, and of each planted fault.

    python benchmarks/doctor.py [--models digits runs/x ...] [-n 180] [--no-oracles] [--out FILE]

Prints a table in Markdown: docs/doctor.md holds one. Faults are planted in the exact score of a mixture of 8 dimensions
under VE, VP and a ladder, and in the first model, whose initial weights stand for an average that was never updated.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from scorefield.app.doctor_command import Doctor
from scorefield.app.doctoring import read_examples
from scorefield.inference import doctor
from scorefield.inference.doctor import Examination
from scorefield.lab.doctor import Checkup, Settings, examine_model
from scorefield.lab.doctor.planted import plants
from scorefield.lab.model import Model, build_score, load
from scorefield.lab.opening import build_network
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


def main() -> None:
    """Print the table as it is made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["digits"])
    parser.add_argument("-n", type=int, default=180)
    parser.add_argument("--no-oracles", action="store_true", help="models alone")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = ["| score | wrong with it | verdict | what it said | seconds |", "| --- | --- | --- | --- | --- |"]
    print("\n".join(out), flush=True)
    for row in itertools.chain(() if given.no_oracles else oracles(), models(given.models, given.n)):
        out.append("| " + " | ".join(row) + " |")
        print(out[-1], flush=True)
    if given.out is not None:
        given.out.write_text("\n".join(out) + "\n", encoding="utf-8")


def oracles() -> Iterator[tuple[str, ...]]:
    """Exact scores, and faults planted in one."""
    for name, process in PROCESSES.items():
        for make, what in ((skewed_gaussian, "Gaussian"), (skewed_mixture, "mixture")):
            law = make(process, 8)
            x, train = law.sample(OF_ORACLES), law.sample(OF_ORACLES, start=OF_ORACLES)
            began = time.perf_counter()
            found = doctor.examine(law, x, train=train, exact=law)
            yield row(f"{what}, {name}", "nothing", found, time.perf_counter() - began)
    for name in ("VE", "VP", "a ladder of 30 sigmas"):
        law = skewed_mixture(PROCESSES[name], 8)
        x = law.sample(OF_ORACLES)
        for plant in plants(PROCESSES[name], doctor.default_times(PROCESSES[name])[5]):
            began = time.perf_counter()
            found = doctor.examine(plant.into(law), x)
            yield row(f"mixture, {name}", f"{plant.name}: {plant.how}", found, time.perf_counter() - began)


def models(names: list[str], n: int) -> Iterator[tuple[str, ...]]:
    """Trained models, and faults planted in the first."""
    for k, name in enumerate(names):
        model = load(name)
        data, train = read_examples(Doctor(name, n=n), model)
        assert data is not None
        began = time.perf_counter()
        found = examine_model(model, data, train, Settings(count=n))
        yield row(f"model {model.name}", "nothing known", found, time.perf_counter() - began)
        if k:
            continue
        process = model.experiment.levels or model.process
        x, score, times = model.data.to_model(data.x[:FEW]), model.as_score(), doctor.default_times(process, LEVELS)
        for plant in plants(process, times[LEVELS // 2]):
            began = time.perf_counter()
            found = doctor.examine(plant.into(score), x, process=process, times=times)
            yield row(f"model {model.name}", f"{plant.name}: {plant.how}", found, time.perf_counter() - began)
        began = time.perf_counter()
        found = doctor.examine(stale(model), x, process=process, times=times, others={"raw": score})
        yield row(f"model {model.name}", "EMA never updated: initial weights", found, time.perf_counter() - began)


def stale(model: Model) -> Score:
    """The score of a model's initial weights."""
    torch.manual_seed(model.experiment.training.seed)
    network = build_network(model.experiment).eval()
    return build_score(model.experiment, network.requires_grad_(False))


def row(score: str, wrong: str, found: Examination | Checkup, seconds: float) -> tuple[str, ...]:
    """A line of the table: every finding that is not healthy, the worst in full."""
    examination = found.examination if isinstance(found, Checkup) else found
    bad = [f for f in examination.findings if f.verdict != "healthy"]
    said = "nothing" if not bad else f"**{bad[0].name}**: {bad[0].says}"
    said += "".join(f"; also {f.name}" for f in bad[1:])
    return score, wrong, examination.verdict, said.replace("|", "\\|"), f"{seconds:.0f}"


if __name__ == "__main__":
    main()
