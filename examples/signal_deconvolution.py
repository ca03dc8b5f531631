"""Deconvolution of one-dimensional pulses measured by a blurring instrument, with a model that this example trains."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from report import arguments, report, save
from torch import Tensor

import scorefield as sf
from scorefield.data import DataSource, open_data
from scorefield.inverse import Convolution, GaussianNoise, Observation, PiGDM, Posterior
from scorefield.models.experiment import Training
from scorefield.models.model import Model
from scorefield.recipes.small import digits_mlp
from scorefield.sampling.named import with_steps
from scorefield.training.trainer import train

LENGTH = 64


def pulses(count: int, seed: int) -> Tensor:
    """Draw signals of one to four rectangular pulses of 0.5 to 2 volts, (count, 1, LENGTH)."""
    draw = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 4, 1, generator=draw) * LENGTH
    width = 3.0 + 9.0 * torch.rand(count, 4, 1, generator=draw)
    height = 0.5 + 1.5 * torch.rand(count, 4, 1, generator=draw)
    present = torch.rand(count, 4, 1, generator=draw) < torch.tensor([1.0, 0.7, 0.5, 0.3])[:, None]
    time = torch.arange(LENGTH)
    inside = (time >= start) & (time < start + width) & present
    return (height * inside).sum(1, keepdim=True)


def train_model(steps: int, folder: Path) -> Model:
    """Train the perceptron of the recipe `digits-mlp`, which takes only seconds for signals this short."""
    experiment = replace(
        digits_mlp(),
        name="pulses",
        spec=None,
        data=DataSource(layout="channels_first", units="volts"),
        training=Training(steps=steps, batch_size=128, log_every=500, validate_every=steps, checkpoint_every=steps),
    )
    data = open_data(experiment.data, pulses(20_000, seed=0).numpy())
    return sf.load(train(experiment, folder, data=data))


def main() -> None:
    """Train a model, deconvolve new pulses, and report the calibration of the posterior samples."""
    options = arguments(__doc__ or "").parse_args()
    problems, samples = (4, 2) if options.fast else (24, 12)
    with tempfile.TemporaryDirectory() as folder:
        model = train_model(10 if options.fast else 2500, Path(folder) / "run")
    truth = pulses(problems, seed=1)
    instrument = Convolution.gaussian(3.0, (1, LENGTH), "zero")
    noise = GaussianNoise(0.05)
    z = torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))
    observation = Observation(instrument, instrument(truth) + noise.std * z, noise)
    solver = PiGDM()
    sampler = with_steps(model.posterior_sampler(solver), 5 if options.fast else 50)
    found = model.posterior(observation, samples, solver=solver, sampler=sampler, seed=0)
    report("deconvolution", truth, found, observation, "volts")
    draw(truth, observation, found, options.out / "signals.png")


def draw(truth: Tensor, observation: Observation, found: Posterior, path: Path) -> None:
    """Draw truth, measurement, and the posterior mean with two deviations on either side."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    for k, ax in enumerate(figure.subplots(2, 2).flat):
        mean, std = found.mean[k, 0], found.std[k, 0]
        ax.fill_between(range(LENGTH), mean - 2 * std, mean + 2 * std, color="tab:blue", alpha=0.25, linewidth=0)
        ax.plot(mean, color="tab:blue", linewidth=1.2, label="mean and two deviations")
        ax.plot(observation.observed[k, 0], ".", color="0.5", markersize=3, label="measured")
        ax.plot(truth[k, 0], color="black", linewidth=0.8, label="truth")
        ax.set_ylabel("volts", fontsize=8)
        ax.tick_params(labelsize=7)
    figure.axes[0].legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    main()
