"""The training loop: one for every objective, and for one or two trained modules, resumable bit for bit at any instant.

Step k of a run is a function of the state after step k - 1 and of (seed, k, process): its examples (`data.order`), its
times and noise, and dropout all follow from those numbers. A checkpoint therefore holds weights, optimiser, averages
of each module and the step, and a run killed at any instant repeats what it lost exactly.

A step is one update of the run's own module, the score. With a critic that is updated n times for each of these a step
takes n batches; a checkpoint always lies between steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from scorefield import _codec, _plugins
from scorefield.data import Batches, Data, Loader, open_data
from scorefield.models.checkpoint_folder import latest_checkpoint
from scorefield.models.experiment import AnyExperiment, Experiment, Training
from scorefield.models.model import Model
from scorefield.models.model_card import write_model
from scorefield.models.networks import build_any
from scorefield.models.run_folder import MetricsLog, read_any, write_experiment
from scorefield.models.samples import grid_conditions, grid_sampler
from scorefield.models.weights import ema_name
from scorefield.score.score import Score
from scorefield.training import checkpoints, distributed
from scorefield.training.interruption import stop_signals
from scorefield.training.loss_sums import LossSums
from scorefield.training.observer import Observer, Silent
from scorefield.training.optimiser_step import OptimiserStep, in_model_units, step_seed
from scorefield.training.trainable import TrainingError, trainable_modules

VALIDATION_SEED = 20_110_713
FREE = (
    "steps max_minutes log_every validate_every validation_examples sample_every samples sample_steps checkpoint_every"
    " keep trackers"
).split()
"""Fields of `Training` that may change when a run resumes, since no number of the training depends on them."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and the state was saved; the message names the checkpoint."""


def train(
    experiment: AnyExperiment,
    out: str | Path,
    *,
    resume: Literal["no", "auto"] = "no",
    observer: Observer | None = None,
    data: Data | None = None,
) -> Path:
    """Train an experiment into a run folder.

    Args:
        experiment: The experiment.
        out: The run folder.
        resume: "auto" goes on from the newest checkpoint in `out` if there is one; "no" refuses a folder that holds a
            run.
        observer: Receives progress.
        data: Opened data, in place of experiment.data.

    Returns:
        The run folder, which is a model folder too.

    Raises:
        TrainingError: The folder holds another run, or the loss is not finite.
        Interrupted: SIGINT or SIGTERM; the state was saved.
    """
    run = Path(out)
    _plugins.allow(_codec.import_paths(experiment))  # the user named them, so this process may read them back
    checkpoint = latest_checkpoint(run)
    if resume == "no" and (checkpoint is not None or (run / "metrics.jsonl").exists()):
        at = f"at {checkpoint.name}" if checkpoint else "without a checkpoint"
        raise TrainingError(
            f"{run} already holds a run ({at}); continue it with --resume auto, or choose another --out"
        )
    data = data or open_data(experiment.data)
    if experiment.spec is not None and experiment.spec.shape != data.train.spec.shape:
        raise TrainingError(
            f"{experiment.name} is for examples of shape {experiment.spec.shape} and {data.name} has"
            f" {data.train.spec.shape}; resize or convert"
            " them (--set data.size=..., data.channels=...), or use a recipe for any shape (images, signals, vectors)"
        )
    experiment = replace(experiment, spec=data.train.spec)
    if checkpoint is not None:
        _refuse_changes(read_any(run), experiment)
    return _Trainer(experiment, run, data, observer or Silent(), checkpoint).run()


def _refuse_changes(old: AnyExperiment, new: AnyExperiment) -> None:
    """Fields on which the numbers of a run depend must be those it began with."""
    comparable = replace(new, training=replace(new.training, **{name: getattr(old.training, name) for name in FREE}))
    if isinstance(old, Experiment) and isinstance(comparable, Experiment):
        comparable = replace(comparable, sampler=old.sampler)
    changed = list(_differences(_codec.encode(old), _codec.encode(comparable), ""))
    if changed:
        raise TrainingError(
            "this run was begun with other settings and cannot go on with these:\n  "
            + "\n  ".join(changed[:10])
            + "\nresume it with its own, or train into another --out"
        )


def _differences(a: Any, b: Any, path: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    elif a != b:
        yield f"{path}: {a!r} in the run, {b!r} now"


class _Trainer:
    """The state of a run between steps."""

    def __init__(self, experiment: AnyExperiment, run: Path, data: Data, observer: Observer, checkpoint: Path | None):
        self.experiment, self.run_folder, self.data, self.observer = experiment, run, data, observer
        self.settings: Training = experiment.training
        self.accelerator = Accelerator(
            # Without `cpu` each of several CPU processes starts as if it were the only one.
            cpu=not torch.accelerator.is_available(),
            log_with=list(self.settings.trackers) or None,
            project_dir=run,
            kwargs_handlers=[_ddp_settings()],
        )
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        if self.settings.batch_size // self.settings.accumulate < self.world:
            raise TrainingError(
                f"batch_size={self.settings.batch_size} in {self.settings.accumulate} micro-batches leaves some of"
                f" {self.world} processes"
                " without an example; raise batch_size"
            )
        self.modules = trainable_modules(experiment, self.accelerator)
        self.optimiser_step = OptimiserStep(experiment, self.accelerator, run, self.modules)
        self.module = self.modules[0]  # whose model the run is
        self.every = self.module.every
        self.step, self.seconds, self.sums = 0, 0.0, self._new_sums()
        if checkpoint is not None:
            self._restore(checkpoint)
        self._checked_step = self.step if checkpoint is not None else None

    # ---------------------------------------------------------------------------------------- set-up

    def _shown_weights(self) -> str:
        decays = self.experiment.averaging.decays
        return ema_name(decays[0]) if decays else "raw"

    def _new_sums(self) -> dict[str, LossSums]:
        return {module.name: LossSums() for module in self.modules}

    def _restore(self, checkpoint: Path) -> None:
        state = checkpoints.restore(checkpoint, self.modules)
        self.step, self.seconds = state["step"], state["seconds"]
        self.sums = {p.name: LossSums.restored(state["sums"][p.name], self.rank, self.world) for p in self.modules}
        if self.rank == 0:
            self.observer.message(f"resumed at step {self.step} from {checkpoint}")

    # ---------------------------------------------------------------------------------------- the loop

    def run(self) -> Path:
        """Train to the end."""
        main = self.accelerator.is_main_process
        self._log = None
        if main:
            self.run_folder.mkdir(parents=True, exist_ok=True)
            write_experiment(self.run_folder, self.experiment)
            self._log = MetricsLog(self.run_folder, self._checked_step)
        self.accelerator.init_trackers("scorefield") if self.settings.trackers else None
        batches = Batches(len(self.data.train), self.settings.batch_size, self.settings.seed, self.rank, self.world)
        self._resumed_seconds, self._began = self.seconds, time.perf_counter()
        self._tick = (self._began, self.step)
        try:
            first, stop = self.step * self.every, self.settings.steps * self.every
            with stop_signals() as stopped, Loader(self.data.train, batches, first, stop) as loader:
                for module in self.modules:
                    module.wrapped.train()
                finished = self.step >= self.settings.steps or self._out_of_time()
                for batch, (x, condition) in enumerate(() if finished else loader, first):
                    loss = self._update_modules(batch, x, condition)
                    if loss is None:
                        continue
                    self.seconds = self._resumed_seconds + time.perf_counter() - self._began
                    if main:
                        self.observer.step(self.step, self.settings.steps, loss)
                    self._after_step()
                    if self._agreed_to_stop(stopped):
                        break
                self._save()
        finally:
            if self._log is not None:
                self._log.close()
            if self.settings.trackers:
                self.accelerator.end_training()
        if self.interrupted:
            raise Interrupted(
                f"stopped at step {self.step} of {self.settings.steps}; the state is in {self.run_folder}, go on with"
                f" --resume auto"
            )
        return self.run_folder

    interrupted = False

    def _out_of_time(self) -> bool:
        limit = self.settings.max_minutes
        return limit is not None and self.seconds >= 60.0 * limit

    def _agreed_to_stop(self, stopped: threading.Event) -> bool:
        """Whether to stop after this step; every process must leave the loop at the same one."""
        flags = distributed.all_sum(
            torch.tensor([float(stopped.is_set()), float(self._out_of_time())], dtype=torch.float64)
        )
        self.interrupted = bool(flags[0] > 0) and self.step < self.settings.steps
        return bool(flags.sum() > 0)

    def _update_modules(self, batch: int, x: Tensor, condition: dict[str, Tensor]) -> float | None:
        """Update every module due at a batch, a critic first; the loss of the score, or None if it was not due."""
        loss = None
        for number, module in reversed(list(enumerate(self.modules))):  # the run's own is the last
            update, waiting = divmod(batch + 1, module.every)
            loss = None if waiting else self.optimiser_step(number, update - 1, x, condition, self.sums[module.name])
        self.step += loss is not None
        return loss

    # ---------------------------------------------------------------------------------------- between steps

    def _after_step(self) -> None:
        s, step = self.settings, self.step
        row: dict[str, Any] = {}
        if step % s.log_every == 0 or step == s.steps:
            row.update(self._train_row())
        if s.validate_every and (step % s.validate_every == 0 or step == s.steps):
            row.update(self._validation_row())
        if row and self._log is not None:
            row = {
                "step": step,
                "epoch": step * self.every * s.batch_size / len(self.data.train),
                "seconds": round(self.seconds, 3),
                **row,
            }
            self._log.write(row)
            self.observer.row(row)
            if s.trackers:
                self.accelerator.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=step)
        if s.sample_every and step % s.sample_every == 0 and self.accelerator.is_main_process:
            self._sample_grid()
        if step % s.checkpoint_every == 0 and step < s.steps:
            self._save()

    def _train_row(self) -> dict[str, Any]:
        """Means since the last row: the run's own module's, and those of others under their names."""
        row: dict[str, Any] = {}
        for module in self.modules:
            own = self.sums[module.name].reduced().row()
            own["lr"] = module.rule.rate(self.step * self.every // module.every - 1)
            if module is not self.module:
                own = {f"{module.name}_{key}": value for key, value in own.items() if key != "bin_edges"}
            row.update(own)
        now, done = time.perf_counter(), self.step
        examples = (done - self._tick[1]) * self.every * self.settings.batch_size
        row["examples_per_second"] = round(examples / max(now - self._tick[0], 1e-9), 2)
        self._tick, self.sums = (now, done), self._new_sums()
        return row

    def _validation_row(self) -> dict[str, Any]:
        """Mean loss of held-out examples under the first average, at the same times and noise every time.

        The score's own loss, without an adversary's part, so that runs with and without one compare.
        """
        split = self.data.held_out
        if split is None or len(split) == 0:
            return {}
        n = min(self.settings.validation_examples, len(split))
        sums, size = LossSums(), 64
        with self._evaluating() as score:
            for first in range(0, n, size):
                if (first // size) % self.world != self.rank:
                    continue
                x, condition = split.batch(range(first, min(first + size, n)))
                generator = torch.Generator().manual_seed(step_seed(VALIDATION_SEED, first, 0, 0))
                x0 = in_model_units(self.experiment, x, generator).to(self.accelerator.device)
                draw = self.experiment.objective.draw(self.experiment.process, x0, generator)
                moved = {k: v.to(x0.device) for k, v in condition.items()}
                sums.add(self.experiment.objective(score, x0, draw, moved or None), draw.t)
        row = sums.reduced().row()
        return {"validation": row["loss"], "validation_bins": row["loss_bins"]}

    @contextmanager
    def _evaluating(self) -> Iterator[Score]:
        """The bare network in evaluation mode with the shown average's weights, without gradients."""
        network = self.module.network
        name = self._shown_weights()
        with torch.no_grad(), self.module.averages.swapped(None if name == "raw" else name):
            network.eval()
            try:
                yield build_any(self.experiment, network)
            finally:
                network.train()

    def _sample_grid(self) -> None:
        from scorefield.plot.pictures import image_grid, save_png

        assert isinstance(self.experiment, Experiment)
        model = Model(self.experiment, self.module.network, weights=self._shown_weights())
        with self._evaluating():
            n = self.settings.samples
            condition = grid_conditions(model.data, self.data.train, n)
            samples = model.sample(n, sampler=grid_sampler(self.experiment), condition=condition)
        target = self.run_folder / "samples" / f"step_{self.step}.png"
        save_png(image_grid(samples.x, model.data), target)
        self.observer.message(f"samples of step {self.step}: {target}")

    def _save(self) -> None:
        """A checkpoint and the model files, by the first process."""
        if self.step == self._checked_step:
            return
        sums = {name: sums_of.state(self.rank, self.world) for name, sums_of in self.sums.items()}
        if self.accelerator.is_main_process:
            state = {"seconds": self.seconds, "world_size": self.world, "sums": sums}
            checkpoints.save(self.run_folder, self.step, self.modules, state, self.settings.keep)
            parameters = sum(p.numel() for p in self.module.network.parameters())
            write_model(self.run_folder, self.experiment, self.module.sets(), parameters, self.step)
        self._checked_step = self.step
        self.accelerator.wait_for_everyone()


def _ddp_settings() -> Any:
    """Look for unused parameters: otherwise buckets are rebuilt after a step, and a resumed run rounds differently."""
    from accelerate import DistributedDataParallelKwargs

    return DistributedDataParallelKwargs(find_unused_parameters=True)
