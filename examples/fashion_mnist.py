"""Inpainting of Fashion-MNIST images of half size with a small model that this example trains."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from report import arguments, pictures, report

import scorefield as sf
from scorefield.data import DataSource, open_data
from scorefield.evaluation import examples
from scorefield.inverse import GaussianNoise, Mask, Observation, PiGDM
from scorefield.models.experiment import Averaging, Training
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.recipes.small import images
from scorefield.sampling.named import with_steps
from scorefield.training.trainer import train

DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def main() -> None:
    """Train a model, hide the middle of held-out images, and draw posterior samples of the whole images."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER, help="folder of the IDX files")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(
            f"skipped: there is no folder {options.data}; give the folder of Fashion-MNIST's IDX files with --data"
        )
    problems, samples = (4, 2) if options.fast else (16, 8)
    steps = 5 if options.fast else 350
    network = NCSNpp(
        channels=16,
        channel_multipliers=(1, 2),
        blocks=1,
        attention_sizes=(7,),
        fir=False,
        progressive_input="none",
        embedding="positional",
    )
    experiment = replace(
        images(),
        name="fashion-14",
        data=DataSource(str(options.data), size=14),
        network=network,
        averaging=Averaging((0.99,)),
        training=Training(steps=steps, batch_size=64, log_every=100, validate_every=steps, checkpoint_every=steps),
    )
    experiment = replace(experiment, optimiser=replace(experiment.optimiser, learning_rate=2e-3))
    data = open_data(experiment.data)
    with tempfile.TemporaryDirectory() as folder:
        model = sf.load(train(experiment, Path(folder) / "run", data=data))
    assert data.held_out is not None
    truth = examples(data.held_out, problems)[0].float()

    known = torch.ones(14, 14, dtype=torch.bool)
    known[4:10, 4:10] = False
    mask, noise = Mask(known, model.data.shape), GaussianNoise(5.0)  # in grey values, 0 to 255
    z = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    observation = Observation(mask, mask(truth) + noise.std * mask(z), noise)
    solver = PiGDM()
    sampler = with_steps(model.posterior_sampler(solver), 5 if options.fast else 50)
    found = model.posterior(observation, samples, solver=solver, sampler=sampler, seed=0)
    report("inpainting of the middle", truth, found, observation, "grey values")
    columns = [("image", truth[:8, 0]), ("measured", mask.adjoint(observation.observed)[:8, 0])]
    columns += [(f"sample {k + 1}", found.x[:8, k, 0]) for k in range(2)]
    columns += [("mean", found.mean[:8, 0]), ("deviation", found.std[:8, 0])]
    pictures(columns, options.out / "fashion.png", [None if t == "deviation" else (0, 255) for t, _ in columns])


if __name__ == "__main__":
    main()
