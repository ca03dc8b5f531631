"""`scorefield demo`: the whole workflow on the bundled digits."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from scorefield.cli.console.arguments import Number, Seed

if TYPE_CHECKING:
    import torch

    from scorefield.models.model import Model
    from scorefield.sampling.sampler import Progress


@dataclass(frozen=True)
class Demo:
    """Train, sample, score and report on the bundled 8x8 digits: about four minutes on two cores."""

    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/demo")
    """Output folder, a run folder; the report is OUT/report.html."""
    minutes: Number = 2.2
    """Longest training time in minutes."""
    seed: Seed = 0


SAMPLES = 256
SCORED = 120
SHOWN = 8


def run(command: Demo) -> None:
    """Carry out the command."""
    from scorefield import _codec
    from scorefield._files import write_json
    from scorefield.cli.console.progress import sampling_display, training_display
    from scorefield.cli.console.reference_data import neighbour_sections
    from scorefield.data import open_data
    from scorefield.evaluation import choose_features, compare, examples, summary
    from scorefield.likelihood.probability_flow import FlowSettings
    from scorefield.models.model import load
    from scorefield.models.run_folder import environment, environment_lines, read_metrics
    from scorefield.models.sample_folder import source_of, write_samples
    from scorefield.recipes import recipe
    from scorefield.reports.methods_paragraph import paper_section
    from scorefield.reports.page import facts
    from scorefield.reports.report import Section, evolution, loss_curves, metric_table, sample_grid, write_report
    from scorefield.training.trainer import train

    began = time.perf_counter()
    experiment = recipe("digits")
    training = replace(experiment.training, max_minutes=command.minutes, seed=command.seed)
    experiment = replace(experiment, training=training)
    data = open_data(experiment.data)
    assert data.held_out is not None
    print(f"1/4 training {experiment.name} for {command.minutes:g} minutes at most, into {command.out}")
    with training_display(training.steps) as display:
        train(experiment, command.out, resume="auto", observer=display, data=data)
    model = load(command.out)

    print(f"2/4 drawing {SAMPLES} samples with the predictor-corrector sampler")
    with sampling_display(SAMPLES) as shown:
        samples = model.sample(SAMPLES, seed=command.seed, callbacks=(shown.within,), on_batch=shown.finished)
    write_samples(command.out / "samples", model, samples)
    frames, labels = _frames(model, command.seed)

    print("3/4 comparing them with held-out digits")
    found = compare(
        samples.x,
        source_of(model, samples),
        data.train,
        data.held_out,
        choose_features("auto", data.train, data.held_out),
    )
    for line in summary(found.samples, "samples") + summary(found.real, "second real split"):
        print(line)

    print(f"4/4 bits per dimension of {SCORED} held-out digits")
    held, _ = examples(data.held_out, SCORED)
    log_prob = model.log_prob(held, settings=FlowSettings(rtol=1e-3, atol=1e-3, loosened=None))
    assert log_prob.bits_per_dim is not None
    good = log_prob.bits_per_dim[log_prob.status == 0]
    bits, error = float(good.mean()), float(good.std() / len(good) ** 0.5)
    print(f"{bits:.3f} +- {error:.3f} bits/dim ({log_prob.of})")

    environment_facts = environment()
    sections = [
        Section("In short", [facts(_headlines(found.samples, found.real, bits, error))]),
        Section("Samples", [sample_grid(samples.x[:60], model.data), evolution(frames, model.data, labels)]),
        Section("Training", [loss_curves(read_metrics(command.out))]),
        *neighbour_sections(found, samples.x, model.data, SHOWN),
        Section(
            "Metrics",
            [
                metric_table({"samples": found.samples, "second real split": found.real}),
                _likelihood_text(log_prob.of, bits, error, len(good)),
            ],
        ),
        paper_section(
            model.experiment,
            parameters=sum(p.numel() for p in model.network.parameters()),
            step=model.step,
            weights=model.weights,
            sampler=samples.sampler,
            nfe=float(samples.nfe.double().mean()),
            results=found.samples,
            parts=["likelihood"],
        ),
    ]
    record = {
        "samples": [_codec.encode(r) for r in found.samples],
        "second real split": [_codec.encode(r) for r in found.real],
    }
    write_json(
        command.out / "metrics.json",
        {
            **record,
            "environment": environment_facts,
            "bits_per_dim": {"mean": bits, "standard error": error, "count": len(good)},
        },
    )
    report = write_report(
        command.out / "report.html",
        sections,
        title="Digits, end to end",
        subtitle=f"A score model of 8x8 digits after {model.step:,} training steps.",
        command=environment_facts["command"],
        environment=environment_lines(environment_facts),
    )
    print(f"done in {time.perf_counter() - began:.0f} s. Look at {report}\n  scorefield sample {command.out}")


def _frames(model: Model, seed: int) -> tuple[torch.Tensor, list[str]]:
    """The first samples at ten times between noise and data, in data units."""
    import torch

    times, states = [], []
    sampler = model.sampler()
    count = len(sampler.times(model.process)) - 1
    wanted = {round(count * k / 9) for k in range(1, 10)} | {1}

    def keep(event: Progress) -> None:
        if event.step in wanted:
            times.append(event.t)
            states.append(model.data.to_data(event.x.cpu()))

    end = model.sample(SHOWN, seed=seed, sampler=sampler, callbacks=(keep,))
    return torch.stack([*states, end.x]), [*(f"{t:.2g}" for t in times), "denoised"]


def _headlines(samples: list, real: list, bits: float, error: float) -> dict[str, str]:
    named = {r.receipt.metric: float(r) for r in samples}
    of_real = {r.receipt.metric: float(r) for r in real}
    lines = {"bits per dimension, held-out digits": f"{bits:.2f} ± {error:.2f}"}
    for name, value in named.items():
        beside = f" (real digits: {of_real[name]:.3g})" if name in of_real else ""
        lines[f"{name}{beside}"] = f"{value:.3g}"
    return lines


def _likelihood_text(of: str, bits: float, error: float, count: int):
    from scorefield.reports.report import text

    return text(
        f"Bits per dimension of held-out digits: {bits:.3f} ± {error:.3f} (mean and standard error over {count}"
        f" digits), by the probability flow,"
        f" one Hutchinson probe, tolerance 1e-3; the density is of {of}. An upper bound on the code length of"
        f" the 17 grey levels."
    )
