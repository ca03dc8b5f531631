"""A trained model: a distribution that can be scored, sampled, evaluated and encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise
from scorefield._typing import Condition
from scorefield.data import Data
from scorefield.data_spec import DataSpec
from scorefield.likelihood.error_budget import Moments
from scorefield.likelihood.log_prob import LogProb, flow_log_prob, flow_samples
from scorefield.likelihood.probability_flow import FlowSettings, require_flow, transport
from scorefield.metrics import module_hash
from scorefield.models.conditions import ConditionLike as ConditionLike
from scorefield.models.conditions import as_condition, require_known
from scorefield.models.experiment import Experiment
from scorefield.models.guidance import CanBeGuided
from scorefield.models.loading import Precision, find, open_network, run_in
from scorefield.models.loading import bundled as bundled
from scorefield.models.model_card import units
from scorefield.models.networks import build_score as build_score
from scorefield.models.networks import continuous
from scorefield.models.posterior import HasPosterior
from scorefield.models.run_folder import read_experiment
from scorefield.models.sampler_files import read_tuned
from scorefield.models.samples import Samples as Samples
from scorefield.models.samples import check_counts, sampler_by_name
from scorefield.models.samples import join as join
from scorefield.process.process import Process
from scorefield.sampling.adaptive import AdaptiveFlow
from scorefield.sampling.adaptive_sde import AdaptiveSDE
from scorefield.sampling.named import with_steps
from scorefield.sampling.sampler import Callback, PriorStart, Sampler
from scorefield.score.energy import NetworkEnergy
from scorefield.score.score import Score, as_times


class Model(CanBeGuided, HasPosterior):
    """A network with the experiment that made it.

    Args:
        experiment: The experiment, with `spec` filled in.
        network: The network with the weights to use; `load` puts it into evaluation mode.
        weights: Name of the weights that the network holds, for receipts.
        name: Name of the folder or bundled model that it was loaded from.
        step: Training step of the weights.
        folder: The folder that it was loaded from, which also holds its tuned sampler.
        precision: Arithmetic of the network, as set by `load`.
        compiled: Whether `load` compiled the network.
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
        precision: Precision = "fp32",
        compiled: bool = False,
    ):
        if experiment.spec is None:
            raise ValueError("a Model needs an experiment whose `spec` is filled in; open its data first")
        self.experiment, self.network, self.weights = experiment, network, weights
        self.name, self.step, self.folder = name or experiment.name, step, folder
        self.precision, self.compiled = precision, compiled
        self.splits: Data | None = None  # of a model fitted to data in memory, which its experiment cannot name
        self.data: DataSpec = experiment.spec
        self.process: Process = experiment.process  # type: ignore[assignment]  # as of a Score
        self._score: Score = build_score(experiment, network)
        self._flow: Score = build_score(continuous(experiment), network)

    def __repr__(self) -> str:
        """Two lines: process and data, network and weights."""
        parameters = sum(p.numel() for p in self.network.parameters())
        step = "" if self.step is None else f" of step {self.step:,}"
        return (
            f"Model {self.name}: {self.process}, examples of shape {self.data.shape}, {units(self.data)}\n"
            f"  {type(self.experiment.network).__name__} with {parameters:,} parameters, weights {self.weights}{step},"
            f" on {self.device}"
        )

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    @property
    def hash(self) -> str:
        """Hash of the weights in use, for receipts."""
        return module_hash(self.network)

    def as_score(self) -> Score:
        """The Score itself, for samplers and likelihoods called by hand."""
        return self._score

    def as_flow(self) -> Score:
        """The Score whose probability flow `encode`, `decode` and `log_prob` follow; see `networks.continuous`."""
        return self._flow

    def condition(self, given: ConditionLike | None, n: int) -> Condition | None:
        """Conditions as tensors with leading axis n on the model's device; see `as_condition`."""
        return as_condition(given, n, self.data, self.name, self.device)

    def _exactly(self, what: str) -> None:
        """Refuse a network with fewer digits than a tolerance asks for."""
        if self.precision != "fp32":
            raise ValueError(
                f"{what} solves the flow to a tolerance, and this model's network computes in {self.precision}, with"
                f" two to three digits; load it with precision='fp32', or sample by steps on a grid (sampler='dpm')"
            )

    # ---------------------------------------------------------------------------------------- pointwise

    def score(self, x: Tensor, t: float | Tensor, condition: ConditionLike | None = None) -> Tensor:
        """grad log p_t(x) in model units.

        Args:
            x: Points in model units, (B, *shape).
            t: One time, or one per example.
            condition: Known conditions by name.
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
            return sampler_by_name(sampler, self.experiment, steps)
        chosen = sampler or self.experiment.sampler
        if steps is not None:
            return with_steps(chosen, steps)
        return chosen

    def sample(
        self,
        n: int,
        *,
        sampler: Sampler | str | None = None,
        steps: int | None = None,
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
            n: Number of samples.
            sampler: A Sampler, a name such as "pc", "em", "ode", or None for the experiment's own.
            steps: Number of steps of the sampler; None for its own.
            seed: Seed of every random draw; sample i depends only on the seed and i.
            start: Index of the first.
            batch_size: Samples per network call; by default up to 128.
            condition: Known conditions by name: one value for all samples, or n values.
            return_log_prob: Also give the flow's log density at the samples. With an adaptive flow ("ode") samples and
                density come from one integration, and the samples are those at t_min, not denoised, whose density it
                is; after any other sampler the flow is followed back up.
            data: n examples in data units, for samplers that start from data.
            callbacks: Called after each step of each batch with a `Progress`.
            on_batch: Called with the offset and the samples of each finished batch.

        Raises:
            ValueError: An unknown sampler or condition, or a data start without data.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1; got n={n}")
        check_counts(seed, start, batch_size)
        if not self.unconditional:
            require_known(condition, self.data, self.name)
        chosen = self.sampler(sampler, steps)
        if isinstance(chosen.step, AdaptiveFlow | AdaptiveSDE):
            self._exactly(type(chosen.step).__name__)
        elif return_log_prob:
            self._exactly("return_log_prob")
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
                part = Samples(x, raw, run.calls, seconds, run.status, chosen, None, seed, indices.start, self.data)
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
        return Samples(x, x, density.nfe, seconds, density.status, sampler, density, seed, indices.start, self.data)

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
            condition: Known conditions by name.
            settings: Tolerances, divergence, probes.
            dequantise: "uniform", "variational" or "none"; by default uniform for data with grey levels.
            draws: Dequantisation draws; from two on the gap of their bound is known.
            moments: Moments of the data in model units, for the prior mismatch.
            seed: Seed of probes and dequantisation noise.
            start: Index of the first example in that noise.
            batch_size: Examples per network call; by default up to 128.

        Raises:
            ValueError: No example, a negative seed or start, or what `flow_log_prob` refuses.
        """
        self._exactly("log_prob")
        if not len(x):
            raise ValueError("x holds no example; give at least one, shape (n, *shape)")
        check_counts(seed, start, batch_size)
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
            condition: Known conditions by name.
            settings: Tolerances.

        Returns:
            Latents in model units, shape of x.
        """
        self._exactly("encode")
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
        self._exactly("decode")
        require_flow(self._flow)
        self.data.check(z, name="z", values=False)
        bound = self._flow.bind(self.condition(condition, len(z)))
        end = transport(bound, z.to(self.device), 1.0, self.process.t_min.likelihood, settings or FlowSettings())
        return self.data.to_data(end.latent.cpu())


def load(
    model: str | Path,
    *,
    weights: str | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    compile: bool = False,
    checkpoint: int | None = None,
    trust: Collection[str] = (),
) -> Model:
    """Load a model folder written by training or import, or a bundled model.

    Args:
        model: Run or model folder, or the name of a bundled model.
        weights: "raw", "ema", "ema:0.999", ...; by default the first average.
        device: Default: the first accelerator, else the CPU.
        precision: "bf16" runs the network under autocast; states, coefficients and the score stay float32 or float64.
            What is solved to a tolerance (likelihoods, latents, adaptive flows) is then refused.
        compile: Compile the network by torch.compile at its first call, which takes minutes on CPUs; worth it on
            accelerators.
        checkpoint: The step of one of a run's checkpoints; by default what the model is now.
        trust: Code outside scorefield and the plugins in use that the folder may name: modules ("mypackage.nets") or
            objects ("mypackage.nets:MyNet"). Everything else is refused before it is imported.

    Raises:
        ValueError: bf16 for an energy.
        CodecError: experiment.json cannot be read, or names code that is not trusted.
        FileNotFoundError: No such model, or no such checkpoint.
        WeightsError: Weights missing, truncated, or of another architecture.
    """
    folder = find(model)
    experiment = read_experiment(folder, trust)
    network, name, step = open_network(folder, experiment, weights, device, checkpoint)
    run_in(experiment, network, precision, compile)
    return Model(
        experiment,
        network,
        weights=name,
        name=folder.resolve().name,
        step=step,
        folder=folder,
        precision=precision,
        compiled=compile,
    )
