"""One optimiser step of one trained module: noise, loss, gradient, clipping, update, moving averages."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scorefield.data.order import hash64
from scorefield.losses.denoising import Draw
from scorefield.models.experiment import AnyExperiment
from scorefield.models.weights import save_tensors, trained
from scorefield.process.general import GeneralSDE
from scorefield.training import distributed
from scorefield.training.checkpoints import TrainableModule
from scorefield.training.loss_sums import LossSums
from scorefield.training.trainable import TrainingError


class OptimiserStep:
    """Takes the optimiser steps of an experiment's modules; a step depends on its arguments and the weights alone.

    Args:
        experiment: The experiment, with `spec` filled in.
        accelerator: Device and processes.
        run_folder: Folder for a batch whose loss is not finite.
        modules: All of them, whose weights are written with it.
    """

    def __init__(
        self,
        experiment: AnyExperiment,
        accelerator: Accelerator,
        run_folder: Path,
        modules: tuple[TrainableModule, ...],
    ):
        self.experiment, self.accelerator, self.run_folder, self.modules = experiment, accelerator, run_folder, modules
        self.settings, self.rank = experiment.training, accelerator.process_index

    def __call__(self, number: int, update: int, x: Tensor, condition: dict[str, Tensor], sums: LossSums) -> float:
        """One optimiser step of a module.

        Args:
            number: Index of the module; with `update` it determines every random draw.
            update: Number of optimiser steps that the module has taken before.
            x: This process's part of the batch, data units.
            condition: Conditions of the batch.
            sums: Accumulates the losses and the gradient norm of this step.

        Returns:
            This process's mean loss.

        Raises:
            TrainingError: The loss or its gradient is not finite, in any process.
        """
        module, device = self.modules[number], self.accelerator.device
        generator = torch.Generator().manual_seed(step_seed(self.settings.seed, update, self.rank, 2 * number))
        torch.manual_seed(step_seed(self.settings.seed, update, self.rank, 2 * number + 1))  # dropout
        x0 = in_model_units(self.experiment, x, generator).to(device)
        if x0.ndim == 4:
            x0 = x0.contiguous(memory_format=torch.channels_last)
        condition = _dropped(condition, self.settings.condition_dropout, generator)
        condition = {name: value.to(device) for name, value in condition.items()}
        draw = module.objective.draw(self.experiment.process, x0, generator)
        losses = self._backward(module, x0, draw, condition)
        self._refuse_non_finite(module, update, losses, draw, x0)
        sums.norm += _update(module, update)
        sums.steps += 1
        sums.add(losses, draw.t)
        return float(losses.mean())

    def _backward(self, module: TrainableModule, x0: Tensor, draw: Draw, condition: dict[str, Tensor]) -> Tensor:
        """The losses of the examples, (B,); gradients are left in the module's parameters."""
        parts, values = self.settings.accumulate, []
        # Dividing by the global batch and multiplying by the number of processes makes the average over processes the
        # exact mean.
        scale = self.accelerator.num_processes / self.settings.batch_size
        for k in range(parts):
            rows = slice(k * len(x0) // parts, (k + 1) * len(x0) // parts)
            local = {name: value[rows] for name, value in condition.items()}
            last = k + 1 == parts
            with nullcontext() if last else self.accelerator.no_sync(module.wrapped), self._autocast():
                loss = module.objective(module.score, x0[rows], draw.rows(rows), local or None)
                (loss.sum() * scale).backward()
            values.append(loss.detach())
        return torch.cat(values)

    def _autocast(self) -> torch.autocast:
        # Not accelerate's: that patches the network's own forward, and evaluation is to run in float32.
        half = self.settings.precision == "bf16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=half)

    def _refuse_non_finite(self, module: TrainableModule, update: int, losses: Tensor, draw: Draw, x0: Tensor) -> None:
        bad = ~torch.isfinite(losses).cpu()
        gradients = [p.grad for p in trained(module.network).values() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        any_bad = distributed.all_sum(torch.tensor([float(bad.any() or not math.isfinite(norm))], dtype=torch.float64))
        if not bool(any_bad > 0):
            return
        whose = "" if module is self.modules[0] else f"_{module.name}"
        bundle = self.run_folder / f"non_finite{whose}_step_{update}_process_{self.rank}.safetensors"
        batch = {"x0": x0.contiguous(), "t": draw.t, "z": draw.z.contiguous(), "loss": losses}
        weights = {
            name if p is self.modules[0] else f"{p.name}:{name}": tensors
            for p in self.modules
            for name, tensors in p.sets().items()
        }
        save_tensors(bundle, {"batch": batch, **weights}, {"step": str(update)})
        first = int(bad.nonzero()[0]) if bad.any() else None
        where = "the gradient is not finite though every loss is"
        if first is not None:
            t = draw.t[first : first + 1]
            where = f"example {first} of the batch at t = {float(t):.4g}"
            if not isinstance(process := self.experiment.process, GeneralSDE):
                where += f", noise level sigma = {float(process.sigma(t)):.4g} (model units)"
        of = "" if module is self.modules[0] else f" of the {module.name}"
        raise TrainingError(
            f"the loss{of} is not finite at step {update}: {where}. The batch, its noise and all weights are in"
            f" {bundle}."
            " The last checkpoint is intact; a smaller learning rate, clipping, or fp32 in place of bf16 may help"
        )


def _update(module: TrainableModule, update: int) -> float:
    """Clip, step, average; returns the norm of the gradient."""
    clip = module.rule.clip
    norm = nn.utils.clip_grad_norm_(list(trained(module.network).values()), math.inf if clip is None else clip)
    for group in module.optimiser.param_groups:
        group["lr"] = module.rule.rate(update)
    module.optimiser.step()
    module.optimiser.zero_grad(set_to_none=True)
    module.averages.update()
    return float(norm)


def step_seed(seed: int, step: int, rank: int, use: int) -> int:
    """One 63-bit seed per (seed, step, process, use)."""
    return int(hash64(seed, step, rank, use)[0] >> 1)


def in_model_units(experiment: AnyExperiment, x: Tensor, generator: torch.Generator) -> Tensor:
    """A batch of data in model units, dequantised where the experiment says so."""
    spec = experiment.spec
    assert spec is not None
    if not experiment.training.dequantise:
        return spec.to_model(x)
    return spec.dequantise(x, torch.rand(x.shape, generator=generator, dtype=torch.float32))


def _dropped(condition: dict[str, Tensor], probability: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Make all conditions of some examples unknown: labels -1, numbers NaN."""
    if not condition or probability == 0.0:
        return condition
    size = len(next(iter(condition.values())))
    lost = torch.rand(size, generator=generator) < probability
    out = {}
    for name, value in condition.items():
        unknown: float = -1 if not value.is_floating_point() else math.nan
        out[name] = torch.where(lost.reshape(-1, *(1,) * (value.ndim - 1)), torch.full_like(value, unknown), value)
    return out
