"""Inpainting and deblurring of 8 x 8 digits with the bundled model."""

from __future__ import annotations

import torch
from report import arguments, pictures, report

import scorefield as sf
from scorefield.data import DataSource, open_data
from scorefield.evaluation import examples
from scorefield.inverse import Convolution, GaussianNoise, Mask, Observation, PiGDM
from scorefield.sampling.named import with_steps


def main() -> None:
    """Inpaint and deblur held-out digits."""
    options = arguments(__doc__ or "").parse_args()
    problems, samples = (4, 2) if options.fast else (16, 12)
    model = sf.load("digits")
    held_out = open_data(DataSource("digits")).held_out
    assert held_out is not None
    truth = examples(held_out, problems)[0].float()
    noise = GaussianNoise(0.5)  # in grey values, 0 to 16
    z = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))

    known = torch.ones(8, 8, dtype=torch.bool)
    known[:, 4:] = False
    mask = Mask(known, model.data.shape)
    halves = Observation(mask, mask(truth) + noise.std * mask(z), noise)
    blur = Convolution.gaussian(1.2, model.data.shape, "zero")
    blurred = Observation(blur, blur(truth) + noise.std * z, noise)

    solver = PiGDM()
    sampler = with_steps(model.posterior_sampler(solver), 5 if options.fast else 50)
    columns = [("digit", truth[:6, 0])]
    for task, observation in (("inpainting of the right half", halves), ("deblurring", blurred)):
        found = model.posterior(observation, samples, solver=solver, sampler=sampler, seed=0)
        report(task, truth, found, observation, "grey values")
        measured = mask.adjoint(observation.observed) if observation is halves else observation.observed
        columns += [("measured", measured[:6, 0]), ("mean", found.mean[:6, 0]), ("deviation", found.std[:6, 0])]
        columns += [(f"sample {k + 1}", found.x[:6, k, 0]) for k in range(2)]
    pictures(columns, options.out / "digits.png", [None if title == "deviation" else (0, 16) for title, _ in columns])


if __name__ == "__main__":
    main()
