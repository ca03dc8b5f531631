"""A methods paragraph that can be pasted into a paper, and the works that it cites."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from scorefield._version import __version__
from scorefield.metrics import Metric, MetricResult
from scorefield.metrics.by_name import title as called
from scorefield.models.experiment import Experiment
from scorefield.models.model_card import units
from scorefield.process import VE, VP, GeneralSDE, Process, SubVP, Tabulated
from scorefield.reports.bibliography import bibliography, cited
from scorefield.reports.page import Section, code, text
from scorefield.sampling import Chain, Sampler, Step
from scorefield.score.parametrisation import DataForm, KarrasForm, NoiseForm, ScaledScoreForm, ScoreForm, VelocityForm

OUTPUTS = {
    NoiseForm: "the noise",
    ScoreForm: "the score",
    ScaledScoreForm: "the score times the noise level",
    DataForm: "the posterior mean of the data",
    VelocityForm: "the velocity",
    KarrasForm: "the preconditioned posterior mean of the data",
}


def paper_section(
    experiment: Experiment | None,
    *,
    parameters: int | None = None,
    step: int | None = None,
    weights: str | None = None,
    sampler: Sampler | None = None,
    nfe: float | None = None,
    results: Sequence[MetricResult] = (),
    parts: Sequence[Any] = (),
    more: str = "",
) -> Section:
    """The part of a report that is meant to be copied into a paper.

    Args:
        experiment: The experiment of the model; None where only samples are known.
        parameters: Number of parameters of its network.
        step: Training steps it has had.
        weights: Name of the weights that were used.
        sampler: The sampler of the samples.
        nfe: Network evaluations of each.
        results: Metrics that the report states.
        parts: What else was used: records, and names of classes or of commands; see `bibliography`.
        more: A sentence that only the caller can say.
    """
    used = [experiment, sampler, *parts, *(result.receipt.settings for result in results), *_metrics(results)]
    sentences = [
        *([] if experiment is None else of_model(experiment, parameters, step)),
        "" if sampler is None else of_samples(experiment, sampler, weights, nfe),
        of_metrics(results),
        more,
    ]
    used = [part for part in used if part is not None]
    keys = ", ".join(paper.key for paper in cited(used))
    words = " ".join([*filter(None, sentences), f"All was done with scorefield {__version__}."])
    summary = f"BibTeX of what was used: {keys or 'the software'}"
    return Section("For a paper", [text(words), code(bibliography(used), summary)])


def of_model(experiment: Experiment, parameters: int | None, step: int | None) -> list[str]:
    """Sentences on data, process, network, objective and training."""
    spec, training, adam = experiment.spec, experiment.training, experiment.optimiser
    found = []
    if spec is not None:
        found.append(f"Examples have shape {spec.shape}: {units(spec)}.")
    size = "" if parameters is None else f" with {parameters:,} parameters"
    output = OUTPUTS.get(type(experiment.form))
    does = f"predicts {output}" if output else f"gives {_plain(experiment.form)}"
    found.append(
        f"They are perturbed by {of_process(experiment.process)}. A network ({type(experiment.network).__name__}{size})"
        f" {does}; it minimises {_plain(experiment.objective)}."
    )
    if (adversary := experiment.adversary) is not None:
        found.append(f"A critic ({_plain(adversary.critic)}) is its adversary, by {_plain(adversary.loss)}.")
    if step:
        averages = ", ".join(f"{decay:g}" for decay in experiment.averaging.decays)
        kept = f"; weights are averaged exponentially with decay {averages}" if averages else ""
        warm = f", warmed up over {adam.warmup:,} steps" if adam.warmup else ""
        clip = f", gradients clipped at norm {adam.clip:g}" if adam.clip else ""
        found.append(
            f"It was trained for {step:,} steps of {training.batch_size} examples with Adam (learning rate"
            f" {adam.learning_rate:g}{warm}, beta {adam.beta1:g} and {adam.beta2:g}{clip}){kept}."
        )
    return found


def of_process(process: Process | GeneralSDE) -> str:
    """Description of a process with its constants."""
    if isinstance(process, VE):
        return (
            f"the variance-exploding process, sigma from {process.sigma_min:g} to {process.sigma_max:g} in model units"
        )
    if isinstance(process, (VP, SubVP)):
        name = "variance-preserving" if isinstance(process, VP) else "sub-variance-preserving"
        return f"the {name} process, beta from {process.beta_min:g} to {process.beta_max:g}"
    if isinstance(process, Tabulated):
        return f"a ladder of noise levels, {_plain(process.ladder)}"
    return f"the process {_plain(process)}"


def of_samples(experiment: Experiment | None, sampler: Sampler, weights: str | None, nfe: float | None) -> str:
    """One sentence on a sampler."""
    of = "" if weights is None else f" of the weights {weights}"
    calls = "" if nfe is None else f", {nfe:,.6g} network evaluations each"
    end = {"denoise": ", and denoised once at the end", "none": ""}.get(sampler.final, f", ended by {sampler.final!r}")
    process = sampler.process or (None if experiment is None else experiment.process)
    steps = f"{len(sampler.times(process)) - 1:,} steps of " if isinstance(process, Process) else ""
    return f"Samples{of} are drawn by {steps}{of_step(sampler.step)} on {_plain(sampler.grid)}{end}{calls}."


def of_step(step: Step) -> str:
    """The names of a step and of those it is made of."""
    if isinstance(step, Chain):
        return " + ".join(of_step(part) for part in step.steps)
    return _plain(step)


def of_metrics(results: Sequence[MetricResult]) -> str:
    """One sentence that names every metric with N, interval, features and reference."""
    if not results:
        return ""
    first, stated = results[0].receipt, []
    for result in results:
        value, interval = result.value, result.value.interval
        between = "" if interval is None else f" (95 % interval {interval[0]:.4g} to {interval[1]:.4g})"
        doubtful = "" if value.status == "ok" else f", {value.status}"
        other = "" if result.receipt.count == first.count else f", of {result.receipt.count:,} examples"
        stated.append(f"{called(result)} {value.number:.4g}{between}{doubtful}{other}")
    reference = f"{first.reference.name}{f', {first.reference.split}' if first.reference.split else ''}"
    number = "statistics" if first.reference.count is None else f"{first.reference.count:,} examples"
    return f"Against {number} of {reference}, {first.count:,} samples have: {'; '.join(stated)}."


def _metrics(results: Sequence[MetricResult]) -> list[str]:
    """Class names of the metrics that made some results, for the bibliography."""
    kinds: list[type[Metric]] = [Metric]
    for kind in kinds:
        kinds += kind.__subclasses__()
    named: Mapping[str, str] = {getattr(kind, "name", ""): kind.__name__ for kind in kinds}
    return [named[name] for result in results for name in named if name and result.receipt.metric.startswith(name)]


def _plain(record: Any) -> str:
    """A record by its name, its numbers, and what of the rest is not as it is by default."""
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        return str(record)
    shown = []
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            shown.append(f"{field.name} {value:g}")
        elif dataclasses.is_dataclass(value):
            shown.append(_plain(value))
        elif value != field.default and value is not None:
            shown.append(f"{field.name} {value}")
    return type(record).__name__ + (f" ({', '.join(shown)})" if shown else "")
