"""`scorefield sample`: draw samples into a folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from scorefield.cli.console.arguments import (
    BatchSize,
    Compile,
    Count,
    Flag,
    ModelName,
    Number,
    Out,
    Precision,
    SamplerName,
    Seed,
    Steps,
    Weights,
    Whole,
)

if TYPE_CHECKING:
    from scorefield.models.model import Model, Samples


@dataclass(frozen=True)
class Sample:
    """Draw samples from a model into a folder: samples.npz (data units), a picture, and their provenance."""

    model: ModelName
    n: Count = 64
    """Number of samples."""
    sampler: SamplerName = None
    """Sampler by name; tuned is the one that `scorefield tune` found. Default: the model's own."""
    steps: Steps = None
    budget: Annotated[str | None, arg(metavar="nfe=N|seconds=S|error=E")] = None
    """Choose sampler, order, grid and steps for a budget: network calls per sample, seconds for all samples, or a root
    mean square error in model units. The choice uses the table of `compare-samplers`, or a quick measurement."""
    seed: Seed = 0
    start: Whole = 0
    """Index of the first sample."""
    condition: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=VALUE")] = ()
    """Condition to sample under, for example class=3; repeatable."""
    guide: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Guidance model of `train-guide` that guides the samples to the condition."""
    scale: Number = 1.0
    """Guidance scale: 0 ignores the condition, 1 samples the conditional distribution, larger values strengthen the
    condition. Without --guide, other scales than 1 are classifier-free guidance of a model trained with condition
    drop-out."""
    weights: Weights = None
    batch_size: BatchSize = None
    precision: Annotated[Literal["fp32", "bf16"], Precision] = "fp32"
    compile: Compile = False
    out: Out = None
    """Output folder. Default: samples/MODEL."""
    images: Flag = False
    """Also write each sample as a PNG file."""


def conditions_of(texts: tuple[str, ...], model: Model) -> dict[str, Any]:
    """NAME=VALUE pairs as conditions: a class by number or name, a vector as comma-separated numbers.

    Raises:
        ValueError: Not NAME=VALUE, or a class that does not exist.
    """
    out: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--condition {text!r} is not NAME=VALUE, for example class=3")
        spec = next((c for c in model.data.conditions if c.name == name), None)
        if spec is not None and spec.class_names and value in spec.class_names:
            out[name] = spec.class_names.index(value)
            continue
        try:
            numbers = [float(v) for v in value.split(",")]
        except ValueError:
            names = f"; its classes are {', '.join(spec.class_names)}" if spec is not None and spec.class_names else ""
            raise ValueError(f"--condition {text!r}: {value!r} is neither a number nor a class{names}") from None
        is_class = spec is None or spec.kind == "class"
        if is_class and (len(numbers) != 1 or numbers[0] != int(numbers[0])):
            raise ValueError(f"--condition {text!r}: a class is one whole number; draw classes one at a time")
        out[name] = int(numbers[0]) if is_class else numbers
    return out


def run(command: Sample) -> None:
    """Carry out the command; under torchrun the processes share the indices, and the first one writes."""
    from scorefield.cli.console.progress import sampling_display
    from scorefield.cli.console.sampler_choice import chosen_sampler, require_numbers, sampler_within
    from scorefield.models.guidance import load_guide
    from scorefield.models.model import find, join, load
    from scorefield.models.sample_folder import write_samples
    from scorefield.training import distributed

    require_numbers(command.n, command.seed, command.batch_size, command.start)
    rank, world = distributed.start()
    model = load(command.model, weights=command.weights, precision=command.precision, compile=command.compile)
    if command.guide is not None or command.scale != 1.0:
        guide = None if command.guide is None else load_guide(command.guide, device=model.device)
        model = model.guided(guide, command.scale)
    out = command.out or Path("samples") / model.name
    if command.budget is not None:
        if world > 1:
            raise ValueError(
                "--budget measures and chooses in one process; choose there, then give --sampler and --steps"
            )
        if command.sampler is not None or command.steps is not None:
            raise ValueError("--budget chooses the sampler and its steps; leave out --sampler and --steps, or --budget")
        sampler = sampler_within(command.budget, model, find(command.model), command.n, command.batch_size)
    else:
        sampler = chosen_sampler(model, command.sampler, command.steps)
    condition = conditions_of(command.condition, model)
    if command.n < world:
        raise ValueError(f"-n {command.n} leaves some of {world} processes without a sample; draw at least {world}")
    mine = distributed.share(command.n, rank, world)
    done: list[Samples] = []
    with sampling_display(len(mine)) as display:

        def finished(first: int, part: Samples) -> None:
            done.append(part)
            display.finished(first, part)

        try:
            model.sample(
                len(mine),
                sampler=sampler,
                seed=command.seed,
                start=command.start + mine.start,
                batch_size=command.batch_size,
                condition=condition,
                callbacks=(display.within,),
                on_batch=finished,
            )
        except KeyboardInterrupt:
            if not done or world > 1:
                raise KeyboardInterrupt("stopped; nothing was written") from None
            kept = join(done)
            write_samples(out, model, kept, condition, images=command.images)
            raise KeyboardInterrupt(
                f"stopped: {len(kept.x)} of {command.n} samples are in {out}; draw the rest into another folder with"
                f" --start"
                f" {command.start + len(kept.x)} -n {command.n - len(kept.x)}"
            ) from None
    samples = distributed.gather(join(done), join)  # seconds add up over batches and processes: compute time
    if samples is None:
        return
    picture = write_samples(out, model, samples, condition, images=command.images)
    failed = int((samples.status != 0).sum())
    print(
        f"{len(samples.x)} samples of {model.name} ({model.weights}, {type(sampler.step).__name__},"
        f" {samples.nfe.double().mean():.0f} network"
        f" calls each, {samples.seconds:.1f} s) in {out}\n  {picture}"
    )
    if failed:
        print(f"warning: {failed} samples did not succeed; see `status` in {out / 'samples.npz'}", file=sys.stderr)
