"""Posterior samples of partly known examples, in files and pictures; the actions inpaint, colorize and restore."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._codec import encode
from scorefield._files import replacing, write_json
from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise
from scorefield.cli.console.batches import Arrays, in_batches
from scorefield.cli.console.reference_data import real_data
from scorefield.cli.edit import Colorize, Inpaint, PosteriorSamples, Restore
from scorefield.data_spec import DataSpec
from scorefield.evaluation import examples
from scorefield.inverse import (
    Channels,
    Choice,
    GaussianNoise,
    LinearOperator,
    Mask,
    Observation,
    Operator,
    Replacement,
    choose,
    solver_named,
)
from scorefield.inverse.operators.from_files import operator_of, read_array
from scorefield.inverse.solvers.diagonal_measurement import Known
from scorefield.inverse.solvers.table import require
from scorefield.models.model import Model, load
from scorefield.plot.pictures import display_range, kind, save_png
from scorefield.plot.tables import example_table
from scorefield.sampling.named import with_steps
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import STATUS
from scorefield.score.energy import NetworkEnergy

NAMES = {Inpaint: "inpaint", Colorize: "colorize", Restore: "restore"}

MEASURING_STEP = PRIOR_STEP + 3
"""The step number of the noise of measurements that are made here, which no sampler draws from."""

SHOWN = 4
"""Samples of an example in the picture."""

ROWS = 16
"""Examples in the picture."""


def edit(action: PosteriorSamples) -> None:
    """Carry out the action."""
    if min(action.n, action.samples, action.batch_size) < 1 or action.seed < 0 or not 0.0 <= action.noise < np.inf:
        raise ValueError(
            f"-n {action.n}, --samples {action.samples} and --batch-size {action.batch_size} must be at least 1;"
            f" --seed {action.seed} and --noise {action.noise} not negative"
        )
    model = load(action.model, weights=action.weights)
    out = action.out or Path("edit") / model.name / NAMES[type(action)]
    task = _task(action, model)
    choice, sampler = _solver(action, model, task.observation)
    arrays = _answered(action, model, task, choice, sampler, out)
    answers, good = arrays["x"], arrays["status"] == 0
    kept = torch.where(good.reshape(*good.shape, *(1,) * len(model.data.shape)), answers, torch.nan)
    mean = kept.nanmean(dim=1)
    count = good.sum(dim=1).reshape(-1, *(1,) * len(model.data.shape))
    std = ((kept - mean[:, None]).square().nansum(dim=1) / (count - 1).clamp_min(0)).sqrt()  # 0 / 0 of one answer
    for name, value in (("answers", answers), ("mean", mean), ("std", std), ("observed", task.observation.observed)):
        with replacing(out / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, value.cpu().numpy(), allow_pickle=False)
    numbers = _numbers(action, task, arrays, mean, std, choice, sampler)
    write_json(out / "numbers.json", numbers)
    _say(action, numbers, model.data)
    _picture(task, answers, mean, std, model.data, out / "answers.png")
    print(out / "answers.npy")


@dataclass(frozen=True)
class Task:
    """An observation in data units, how it is written, and what it was made of, where that is known."""

    observation: Observation
    written: str
    truth: Tensor | None


def _task(action: PosteriorSamples, model: Model) -> Task:
    shape = model.data.shape
    if isinstance(action, Inpaint):
        written = f"mask:{action.mask}"
        operator = operator_of(written, shape)
    elif isinstance(action, Colorize):
        if len(shape) != 3 or shape[0] != 3:
            raise ValueError(
                f"colours are given to images of 3 channels, red, green and blue; {model.name} has examples of shape"
                f" {shape}"
            )
        written, operator = "grey", Channels.grey(shape)
    else:
        assert isinstance(action, Restore)
        written, operator = action.operator, operator_of(action.operator, shape)
        if action.measured is not None:
            return Task(Observation(operator, _given(action, operator), GaussianNoise(action.noise)), written, None)
    data = real_data(model.experiment.data, action.data, model.data)
    truth, _ = examples(data.held_out or data.train, action.n)
    y = operator(truth.double())
    if action.noise:
        y = y + action.noise * StepNoise(IndexedNoise(action.seed, range(len(y))), MEASURING_STEP)(y)
    return Task(Observation(operator, y, GaussianNoise(action.noise)), written, truth)


def _given(action: Restore, operator: Operator) -> Tensor:
    """Measurements from a file, at most -n of them."""
    path = Path(str(action.measured))
    if not path.is_file() or path.suffix != ".npy":
        raise ValueError(f"--measured {path}: not an .npy file of measurements, one for each example")
    y = read_array(str(path))
    if tuple(y.shape[1:]) != operator.observed or not len(y):
        raise ValueError(
            f"{path} has shape {tuple(y.shape)}; {action.operator} gives (n, {', '.join(map(str, operator.observed))})"
        )
    return y[: action.n].double()


def _solver(action: PosteriorSamples, model: Model, observation: Observation) -> tuple[Choice, Sampler]:
    """The solver, why it, and what it goes along with."""
    score, inside = model.prior(), observation.in_model_units(model.data)
    named = None if action.sampler is None else model.sampler(action.sampler, action.steps)
    if action.solver != "auto":
        choice = Choice(solver_named(action.solver), "as asked")
    elif isinstance(model.as_score(), NetworkEnergy) and isinstance(inside.operator, LinearOperator) and named is None:
        choice = Choice(Replacement(), "replacement: the model is an energy, sampled at falling temperatures")
    else:
        choice = choose(score, inside, named)
    if named is None:
        named = model.posterior_sampler(choice.solver)
        named = named if action.steps is None else with_steps(named, action.steps)
    require(choice.solver, score, inside, None if action.sampler is None else named)
    return choice, named


def _answered(
    action: PosteriorSamples, model: Model, task: Task, choice: Choice, sampler: Sampler, out: Path
) -> Arrays:
    """Samples and what is known of them, example by example, in files as they are finished."""
    observation, written = task.observation, task.written
    y, k = observation.observed, action.samples

    def compute(rows: slice) -> Arrays:
        found = model.posterior(
            observation.rows(rows), k, solver=choice.solver, sampler=sampler, seed=action.seed, start=rows.start * k,
            batch_size=action.batch_size,
        )  # fmt: skip
        count, x, rms = rows.stop - rows.start, found.x, found.residual.rms
        if isinstance(observation.operator, Mask) and action.noise == 0.0:
            # Rounding through the model's units, or a solver that keeps y nearly, must not change what was given.
            x[:, :, observation.operator.known] = y[rows].to(x)[:, None]
            rms = torch.zeros_like(rms)
        arrays = {
            "x": x,
            "status": torch.where(found.good, found.status, found.status.clamp_min(STATUS.index("not finite"))),
            "calls": found.nfe,
            "rms": rms,
            "seconds": torch.full((count,), found.seconds / count, dtype=torch.float64),
        }
        if found.residual.combined is not None:
            arrays["p"] = found.residual.combined
        return arrays

    identity = {
        "weights": model.hash,
        "what is known": _digest(y),
        "operator": [written, _digest(observation.operator(_probe(model.data)))],
        "noise": action.noise,
        "answers": k,
        "solver": encode(choice.solver),
        "sampler": encode(sampler),
        "seed": action.seed,
        "batch size": action.batch_size,
    }
    return in_batches(compute, len(y), max(1, action.batch_size // k), out / "batches", "answers", identity)


def _probe(spec: DataSpec) -> Tensor:
    """An example at random: what an operator makes of it tells it from others of the same words, as of other files."""
    return torch.randn(1, *spec.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().contiguous().cpu().numpy().tobytes()).hexdigest()


def _numbers(
    action: PosteriorSamples, task: Task, arrays: Arrays, mean: Tensor, std: Tensor, choice: Choice, sampler: Sampler
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operator": task.written,
        "noise": action.noise,
        "examples": len(mean),
        "answers": action.samples,
        "solver": encode(choice.solver),
        "why": choice.why,
        "sampler": encode(sampler),
        "seed": action.seed,
        "calls per answer": float(arrays["calls"].double().mean()),
        "seconds": float(arrays["seconds"].sum()),
        "seconds per answer": float(arrays["seconds"].sum()) / arrays["status"].numel(),
        "failures": int((arrays["status"] != 0).sum()),
        "residual": _number(arrays["rms"].nanmean()),
        "residual p-values": [_number(p) for p in arrays["p"]] if "p" in arrays else None,
        "deviation": _number(std.nanmean()) if action.samples > 1 else None,
    }
    if task.truth is not None:
        found["error of the mean"] = _number((mean - task.truth.to(mean)).square().nanmean().sqrt())
    return found


def _number(value: Tensor) -> float | None:
    """A number, or nothing where no answer has one."""
    return float(value) if bool(torch.isfinite(value)) else None


def _say(action: PosteriorSamples, numbers: dict[str, Any], spec: DataSpec) -> None:
    units = spec.units or "data units"
    print(f"{numbers['examples']} examples, {numbers['answers']} samples each, given {numbers['operator']}")
    print(f"  {numbers['why']}")
    calls, seconds = numbers["calls per answer"], numbers["seconds per answer"]
    print(f"  {calls:.0f} network calls and {seconds:.3g} s per sample")
    if numbers["failures"]:
        which = "every sample" if numbers["residual"] is None else f"{numbers['failures']} samples"
        print(
            f"  {which} failed: not finite, or too many steps; they are in the file as they are and not in the mean."
            " More --steps, or another --solver, may help"
        )
    if numbers["residual"] is None:
        return
    print(f"  y - A(x) is {numbers['residual']:.4g} (root mean square) where the noise is {action.noise:g}")
    p_values = [p for p in numbers["residual p-values"] or [] if p is not None]
    if p_values:
        low = min(p_values)
        far = "consistent with the noise" if low > 1e-3 else "not consistent with the noise: do not trust these samples"
        print(f"  {far} (smallest p-value {low:.3g} of {numbers['examples']})")
    if numbers["deviation"] is not None:
        print(f"  samples for the same y have the standard deviation {numbers['deviation']:.4g} {units}")
    if numbers.get("error of the mean") is not None:
        print(f"  their mean is {numbers['error of the mean']:.4g} {units} from the truth (root mean square)")


# ------------------------------------------------------------------------------------- pictures


def _picture(task: Task, answers: Tensor, mean: Tensor, std: Tensor, spec: DataSpec, path: Path) -> None:
    """One row per example: truth, what is known, samples, their mean, their standard deviation."""
    if kind(spec) == "vector":
        return
    columns = {"truth": task.truth} if task.truth is not None else {}
    columns |= {"known": _shown(task.observation, spec)}
    columns |= {f"sample {j + 1}": answers[:, j] for j in range(min(SHOWN, answers.shape[1]))}
    columns |= {"mean": mean}
    scale = ""
    if answers.shape[1] > 1:
        columns["std"] = _on_scale(std, spec)
        units = f" {spec.units}" if spec.units else ""
        scale = f"std: black is 0, white {float(std.nan_to_num(0.0).max()):.3g}{units}."
    save_png(example_table(columns, spec, rows=ROWS, caption=scale), path)
    print(f"{path}: {', '.join(columns)}")


def _shown(observation: Observation, spec: DataSpec) -> Tensor:
    """The observation as an example: y itself, or the minimum-norm x with A(x) = y; grey where a mask hides values."""
    operator, y = observation.operator, observation.observed
    if operator.observed == operator.event:
        return y
    middle = sum(spec.model_range) / 2 if spec.bounded else 0.0
    grey = spec.to_data(torch.full((len(y), *spec.shape), middle)).to(y)
    if isinstance(operator, Mask):
        return torch.where(operator.known, operator.adjoint(y), grey)
    if isinstance(operator, LinearOperator):
        try:
            known = Known.of(observation, y)
        except ValueError:
            return grey
        return known.spectrum.right_back(known.value)
    return grey


def _on_scale(std: Tensor, spec: DataSpec) -> Tensor:
    """Standard deviations as examples: 0 is drawn black and the largest white."""
    low, high = (v.reshape(-1, *(1,) * (len(spec.shape) - 1)).to(std) for v in display_range(spec))
    top = std.nan_to_num(0.0).amax().clamp_min(torch.finfo(std.dtype).tiny)
    return low + (high - low) * std.nan_to_num(0.0) / top
