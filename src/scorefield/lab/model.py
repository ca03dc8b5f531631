"""A trained model: a distribution that can be scored, sampled, evaluated and encoded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorefield._codec import near
from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise
from scorefield._typing import Condition
from scorefield.data_spec import DataSpec
from scorefield.inference.budget import Moments
from scorefield.inference.flow import FlowSettings, require_flow, transport
from scorefield.inference.likelihood import LogProb, flow_log_prob, flow_samples
from scorefield.lab.averages import name_of
from scorefield.lab.checkpoints import latest
from scorefield.lab.choosing.files import read_tuned
from scorefield.lab.experiment import Experiment
from scorefield.lab.run_folder import read_experiment
from scorefield.lab.weights import choose, fill, load_tensors
from scorefield.metrics import module_hash
from scorefield.process.process import Process
from scorefield.sampling.adaptive import AdaptiveFlow
from scorefield.sampling.named import named
from scorefield.sampling.sampler import Callback, PriorStart, Sampler
from scorefield.score.energy import NetworkEnergy
from scorefield.score.network import NetworkScore, network_score
from scorefield.score.parametrisation import LevelLabel, ScaledTime
from scorefield.score.score import Score, as_times

ConditionLike = Mapping[str, Any]
"""name -> one value for all examples, or one per example along the leading axis."""


@dataclass(frozen=True)
class Samples:
    """What `Model.sample` returns.

    Args:
        x: Samples in data units, (n, *shape), not clipped.
        raw: The same before the final denoising.
        nfe: Network evaluations per sample, (n,).
        seconds: Wall time.
        status: 0, or a code of `sampling.adaptive.STATUS`, (n,).
        sampler: What made them, with all settings.
        log_prob: Of x, where asked for.
        seed: Of the noise.
        start: Index of the first sample.
    """

    x: Tensor
    raw: Tensor
    nfe: Tensor
    seconds: float
    status: Tensor
    sampler: Sampler
    log_prob: LogProb | None
    seed: int
    start: int


def build_score(experiment: Experiment, network: nn.Module) -> NetworkScore | NetworkEnergy:
    """The score of an experiment's network, which may be a distributed or compiled wrapper."""
    return network_score(network, experiment.process, experiment.form, experiment.time_input, experiment.levels)


def continuous(experiment: Experiment) -> Experiment:
    """The experiment as the probability flow sees it.

    A VP network trained on DDPM's ladder takes labels between its levels, and then the process's own sigma belongs to
    it: c = (N - 1) t, the paper's linear interpolation (Song et al. 2021, table 2). Any other experiment is returned
        as it is.
    """
    label, levels = experiment.time_input, experiment.levels
    if levels is None or not isinstance(label, LevelLabel) or label.between != "linear" or label.descending:
        return experiment
    return replace(experiment, levels=None, time_input=ScaledTime(levels.levels - 1.0))


class Model:
    """A network with the experiment that made it.

    Args:
        experiment: With `spec` filled in.
        network: In the state to use; put into evaluation mode by `load`.
        weights: Which weights the network holds, for receipts.
        name: Of the folder or bundled model it came from.
        step: Training step of the weights.
        folder: Where it came from; its tuned sampler is there.
    """

    def __init__(
        self,
        experiment: Experiment,
        network: nn.Module,
        *,
        weights: str = "raw",
        name: str | None = None,
        step: int | None = None,
        folder: Path | None = None,
    ):
        if experiment.spec is None:
            raise ValueError("a Model needs an experiment whose `spec` is filled in; open its data first")
        self.experiment, self.network, self.weights = experiment, network, weights
        self.name, self.step, self.folder = name or experiment.name, step, folder
        self.data: DataSpec = experiment.spec
        self.process: Process = experiment.process
        self._score = build_score(experiment, network)
        self._flow = build_score(continuous(experiment), network)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def hash(self) -> str:
        """Hash of the weights in use, for receipts."""
        return module_hash(self.network)

    def as_score(self) -> Score:
        """The Score itself, for samplers and likelihoods called by hand."""
        return self._score

    # ---------------------------------------------------------------------------------------- pointwise

    def score(self, x: Tensor, t: float | Tensor, condition: ConditionLike | None = None) -> Tensor:
        """grad log p_t(x) in model units.

        Args:
            x: Points in model units, (B, *shape).
            t: One time, or one per example.
            condition: What is known.
        """
        self.data.check(x, name="x", values=False)
        with torch.no_grad():
            return self._score(x.to(self.device), as_times(t, x), self.condition(condition, len(x))).to(x.device)

    def denoise(self, x: Tensor, t: float | Tensor, condition: ConditionLike | None = None) -> Tensor:
        """Posterior mean of x_0 given x_t = x (Tweedie), both in model units."""
        self.data.check(x, name="x", values=False)
        with torch.no_grad():
            return self._score.denoised(x.to(self.device), as_times(t, x), self.condition(condition, len(x))).to(
                x.device
            )

    def energy(self, x: Tensor, t: float | Tensor) -> Tensor:
        """The raw energy E(x), shape (B,), where the model is one; p_t is proportional to exp(-E / T(t)).

        It has one arbitrary additive constant, and does not depend on t.

        Raises:
            TypeError: This model is a score network; it has a gradient and no energy.
        """
        self.data.check(x, name="x", values=False)
        if isinstance(self._score, NetworkEnergy):
            with torch.no_grad():
                return self._score.energy(x.to(self.device), as_times(t, x)).to(x.device)
        raise TypeError(
            f"{self.name} is a score network, which has no energy; its log density is model.log_prob(x), its gradient"
            f" model.score(x, t)"
        )

    # ---------------------------------------------------------------------------------------- sampling

    def sampler(self, sampler: Sampler | str | None = None, steps: int | None = None) -> Sampler:
        """A sampler for this model: the given one, one by name ("tuned" is what tuning found), or its own."""
        if sampler == "tuned":
            sampler = read_tuned(self.folder, self.name, self.hash).sampler
        if isinstance(sampler, str):
            levels = self.experiment.levels
            found = named(sampler, self.process if sampler == "ode" else levels or self.process, steps)
            if levels is None:
                return found
            if isinstance(found.step, AdaptiveFlow):
                return found
            # Steps go along the ladder the network was trained on; some need rates, which a ladder of jumps has not.
            return replace(found, process=replace(levels, between="linear"))
        chosen = sampler or self.experiment.sampler
        if steps is not None:
            from scorefield.sampling.named import with_steps

            return with_steps(chosen, steps)
        return chosen

    def sample(
        self,
        n: int,
        *,
        sampler: Sampler | str | None = None,
        seed: int = 0,
        start: int = 0,
        batch_size: int | None = None,
        condition: ConditionLike | None = None,
        return_log_prob: bool = False,
        data: Tensor | None = None,
        callbacks: Sequence[Callback] = (),
        on_batch: Callable[[int, Samples], None] | None = None,
    ) -> Samples:
        """Draw samples start, ..., start + n - 1 of the stream of `seed`.

        A sample depends on the seed and its index alone: not on n, the batch size, or the machine's number of
        processes (to the tolerance of the network's own arithmetic at another batch size).

        Args:
            n: How many.
            sampler: A Sampler, a name such as "pc", "em", "ode", or None for the experiment's own.
            seed: Of all noise.
            start: Index of the first.
            batch_size: Samples at a time; default at most 128.
            condition: What is known: per name one value for all, or n values.
            return_log_prob: Also give the flow's log density at the samples. With an adaptive flow ("ode") samples and
                density come from one integration, and the samples are those at t_min, not denoised, whose density it
                is; after any other sampler the flow is followed back up.
            data: For starts from data, n examples in data units.
            callbacks: Called after each step of each batch with a `Progress`.
            on_batch: Called with the offset and the samples of each finished batch.

        Raises:
            ValueError: An unknown sampler or condition, or a data start without data.
        """
        if n < 1 or start < 0 or seed < 0:
            raise ValueError(
                f"n must be at least 1, seed and start not negative; got n={n}, seed={seed}, start={start}"
            )
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if self.data.conditions and not condition and self.experiment.training.condition_dropout == 0.0:
            names = ", ".join(f"{c.name}=..." for c in self.data.conditions)
            raise ValueError(
                f"{self.name} was trained with every condition known, so it has no unconditional samples; give"
                f" condition {names}"
                " (or train with training.condition_dropout above 0)"
            )
        chosen = self.sampler(sampler)
        if data is not None:
            self.data.check(data, name="data")
        known, began, parts = self.condition(condition, n), time.perf_counter(), []
        size = batch_size or min(n, 128)
        score = self._score
        if isinstance(chosen.step, AdaptiveFlow):
            score = self._flow
            require_flow(score)
        at_once = return_log_prob and isinstance(chosen.step, AdaptiveFlow) and chosen.start == PriorStart()
        for first in range(0, n, size):
            rows = slice(first, min(first + size, n))
            indices = range(start + rows.start, start + rows.stop)
            local = None if known is None else {k: v[rows] for k, v in known.items()}
            if at_once:
                part = self._flow_samples(chosen, indices, seed, local)
            else:
                ticked = time.perf_counter()
                run = chosen.run(
                    score,
                    self.data.shape,
                    indices=indices,
                    seed=seed,
                    condition=local,
                    data=None if data is None else self.data.to_model(data[rows]),
                    callbacks=callbacks,
                    device=self.device,
                )
                x, raw = (self.data.to_data(m.cpu()) for m in (run.x, run.raw))
                seconds = time.perf_counter() - ticked
                part = Samples(x, raw, run.calls, seconds, run.status, chosen, None, seed, indices.start)
            parts.append(part)
            if on_batch is not None:
                on_batch(rows.start, part)
        joined = join(parts)
        log_prob = joined.log_prob
        if return_log_prob and not at_once:
            log_prob = self.log_prob(
                joined.x, seed=seed, start=start, batch_size=size, condition=condition, dequantise="none"
            )
        return replace(joined, seconds=time.perf_counter() - began, log_prob=log_prob)

    def _flow_samples(self, sampler: Sampler, indices: range, seed: int, condition: Condition | None) -> Samples:
        """One batch of an adaptive flow with its density, from one integration."""
        ticked, noise = time.perf_counter(), IndexedNoise(seed, indices)
        step = sampler.step
        assert isinstance(step, AdaptiveFlow)
        like = torch.empty((len(indices), *self.data.shape), device=self.device)
        latent = self.process.prior_sample(StepNoise(noise, PRIOR_STEP)(like))
        settings = FlowSettings(
            step.rtol, step.atol, max_steps=step.max_steps, start=float(sampler.times(self.process)[-1])
        )
        end, density = flow_samples(self._flow, latent, self.data, noise, condition=condition, settings=settings)
        x = self.data.to_data(end.cpu())
        seconds = time.perf_counter() - ticked
        return Samples(x, x, density.nfe, seconds, density.status, sampler, density, seed, indices.start)

    # ---------------------------------------------------------------------------------------- likelihood and latents

    def log_prob(
        self,
        x: Tensor,
        *,
        condition: ConditionLike | None = None,
        settings: FlowSettings | None = None,
        dequantise: str | None = None,
        draws: int = 1,
        moments: Moments | None = None,
        seed: int = 0,
        start: int = 0,
        batch_size: int | None = None,
    ) -> LogProb:
        """Log density of data by the probability flow, with its error budget; see `inference.flow_log_prob`.

        Args:
            x: Data units, (B, *shape).
            condition: What is known.
            settings: Tolerances, divergence, probes.
            dequantise: "uniform", "variational" or "none"; by default uniform for data with grey levels.
            draws: Dequantisation draws; from two on the gap of their bound is known.
            moments: Of the data in model units, for the prior's part.
            seed: Of probes and dequantisation.
            start: Index of the first example in that noise.
            batch_size: Examples at a time; default at most 128.

        Raises:
            ValueError: No example, a negative seed or start, or what `flow_log_prob` refuses.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if not len(x):
            raise ValueError("x holds no example; give at least one, shape (n, *shape)")
        if seed < 0 or start < 0:
            raise ValueError(f"seed and start must not be negative; got seed={seed}, start={start}")
        known, parts = self.condition(condition, len(x)), []
        size = batch_size or min(len(x), 128)
        for first in range(0, len(x), size):
            rows = slice(first, min(first + size, len(x)))
            noise = IndexedNoise(seed, range(start + rows.start, start + rows.stop))
            local = None if known is None else {k: v[rows] for k, v in known.items()}
            parts.append(
                flow_log_prob(
                    self._flow,
                    x[rows].to(self.device),
                    self.data,
                    noise,
                    condition=local,
                    dequantise=dequantise,  # type: ignore[arg-type]
                    draws=draws,
                    moments=moments,
                    settings=settings,
                )
            )
        return join(parts)

    def encode(
        self, x: Tensor, *, condition: ConditionLike | None = None, settings: FlowSettings | None = None
    ) -> Tensor:
        """Latents of data: the probability flow from t_min to the prior at t = 1 (Song et al. 2021, D.3).

        Args:
            x: Data units, (B, *shape).
            condition: What is known.
            settings: Tolerances.

        Returns:
            Latents in model units, shape of x.
        """
        require_flow(self._flow)
        self.data.check(x, name="x")
        bound = self._flow.bind(self.condition(condition, len(x)))
        model_x = self.data.to_model(x).to(self.device)
        end = transport(bound, model_x, self.process.t_min.likelihood, 1.0, settings or FlowSettings())
        return end.latent.cpu()

    def decode(
        self, z: Tensor, *, condition: ConditionLike | None = None, settings: FlowSettings | None = None
    ) -> Tensor:
        """Data units of latents: the inverse of `encode`."""
        require_flow(self._flow)
        self.data.check(z, name="z", values=False)
        bound = self._flow.bind(self.condition(condition, len(z)))
        end = transport(bound, z.to(self.device), 1.0, self.process.t_min.likelihood, settings or FlowSettings())
        return self.data.to_data(end.latent.cpu())

    # ---------------------------------------------------------------------------------------- conditions

    def condition(self, given: ConditionLike | None, n: int) -> Condition | None:
        """Conditions as tensors with leading axis n on the model's device.

        Raises:
            ValueError: An unknown name, a class outside the classes, or a shape that fits neither one value nor n.
        """
        if not given:
            return None
        specs = {spec.name: spec for spec in self.data.conditions}
        out = {}
        for name, value in given.items():
            if name not in specs:
                known = near(name, specs) if specs else " It takes no conditions."
                raise ValueError(f"{self.name} was not trained with a condition {name!r}.{known}")
            spec = specs[name]
            tensor = torch.as_tensor(value)
            event = {"class": (), "vector": (spec.size,), "image": (spec.size, *self.data.shape[1:])}[spec.kind]
            if tuple(tensor.shape) == event:
                tensor = tensor.expand(n, *event)
            if tuple(tensor.shape) != (n, *event):
                raise ValueError(
                    f"condition {name!r} has shape {tuple(tensor.shape)}; give {event} for all or {(n, *event)}"
                )
            if spec.kind == "class":
                if tensor.is_floating_point():
                    raise ValueError(f"condition {name!r} is a class and must be a whole number; got {value}")
                tensor = tensor.long()
                if bool(((tensor < -1) | (tensor >= spec.size)).any()):
                    raise ValueError(
                        f"condition {name!r} must be one of 0..{spec.size - 1} (or -1, unknown); got {value}"
                    )
            out[name] = tensor.to(self.device)
        return out


def join(parts: Sequence[Any]) -> Any:
    """Concatenate results along their examples; times add up, what is equal in all stays."""
    first, values = parts[0], {}
    for name in first.__dataclass_fields__:
        entries = [getattr(part, name) for part in parts]
        if isinstance(entries[0], Tensor):
            values[name] = torch.cat(entries)
        elif name == "seconds":
            values[name] = sum(entries)
        elif isinstance(entries[0], LogProb):
            values[name] = join(entries)
        else:
            values[name] = entries[0]
    return type(first)(**values)


def bundled() -> dict[str, Path]:
    """The models that ship with the package, by name."""
    root = Path(str(files("scorefield.lab"))) / "bundled" / "models"
    return {p.name: p for p in sorted(root.iterdir()) if (p / "experiment.json").is_file()} if root.is_dir() else {}


def find(model: str | Path) -> Path:
    """The folder of a model given as a path or the name of a bundled one.

    Raises:
        FileNotFoundError: Neither exists; near matches are shown.
    """
    path = Path(model)
    if (path / "experiment.json").is_file():
        return path
    if path.exists():
        raise FileNotFoundError(f"{model} is not a run or model folder: it has no experiment.json")
    if str(model) in bundled():
        return bundled()[str(model)]
    raise FileNotFoundError(
        f"there is no model folder {str(model)!r} and no bundled model of that name.{near(str(model), bundled())}"
    )


def load(model: str | Path, *, weights: str | None = None, device: str | torch.device | None = None) -> Model:
    """Load a model folder written by training or import, or a bundled model.

    Args:
        model: Run or model folder, or the name of a bundled model.
        weights: "raw", "ema", "ema:0.999", ...; by default the first average.
        device: Default: the first accelerator, else the CPU.

    Raises:
        FileNotFoundError: No such model.
        WeightsError: Weights missing, truncated, or of another architecture.
    """
    folder = find(model)
    experiment = read_experiment(folder)
    path = folder / "model.safetensors"
    if not path.is_file():
        newest = latest(folder)
        if newest is None:
            raise FileNotFoundError(
                f"{folder} holds no weights yet (no model.safetensors and no checkpoint); train it first"
            )
        path = newest / "score.safetensors"
    sets, metadata = load_tensors(path)
    decays = experiment.averaging.decays
    if weights in (None, "ema") and decays and name_of(decays[0]) in sets:
        weights = name_of(decays[0])  # the average that training validated
    name = choose(sets, weights, path)
    if experiment.spec is None:
        raise ValueError(f"{folder / 'experiment.json'} has no `spec`, which says what the data are")
    network = experiment.network.build(experiment.spec)
    fill(network, {**sets.get("fixed", {}), **sets[name]}, str(path))
    target = torch.device(device) if device is not None else _default_device()
    network = network.to(target).eval()
    if len(experiment.spec.shape) == 3:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    step = int(metadata["step"]) if "step" in metadata else None
    return Model(experiment, network, weights=name, name=folder.resolve().name, step=step, folder=folder)


def _default_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
