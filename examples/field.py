"""Fields of temperature and wind on 16 x 24 points, inferred from measurements by a user-defined instrument model.

Values are floats without bounds, in kelvin and metres per second. A satellite measures temperature as means over 4 x 4
points. Cup anemometers at every fourth point measure the wind; they hardly turn below 6 m/s, so that the observation is
not linear. The distribution of the fields is known, a stationary Gaussian, so that nothing is trained; with a trained
model, use `model.posterior` in place of `posterior`.
"""

from __future__ import annotations

import torch
from report import arguments, pictures, report
from torch import Tensor
from torch.nn.functional import avg_pool2d, softplus

import scorefield as sf
from scorefield.inverse import Function, Observation, PosteriorLangevin, posterior
from scorefield.sampling.named import annealed_langevin
from scorefield.score.oracles import GaussianField

SHAPE = (2, 16, 24)
SPEC = sf.DataSpec(
    SHAPE,
    channel_names=("temperature", "wind"),
    units="K and m/s",
    offset=(288.0, 9.0),
    scale=(8.0, 3.0),
)


def instruments(x: Tensor) -> Tensor:
    """Return the noiseless readings, (B, 48), of fields in K and m/s, (B, 2, 16, 24).

    The first 24 are mean temperatures in K, the others readings of cup anemometers in m/s.
    """
    temperature = avg_pool2d(x[:, :1], 4)
    cups = softplus(x[:, 1, 2::4, 2::4] - 6.0)
    return torch.cat([temperature.flatten(1), cups.flatten(1)], dim=1)


def main() -> None:
    """Draw fields, simulate their measurements, and draw posterior samples from the measurements."""
    options = arguments((__doc__ or "").splitlines()[0]).parse_args()
    problems, samples = (4, 2) if options.fast else (12, 12)
    channel_covariance = torch.tensor([[1.0, -0.6], [-0.6, 1.0]])  # winds are stronger where it is colder
    score = GaussianField(sf.VP(), SHAPE, correlation_length=(3.0, 5.0), channel_covariance=channel_covariance)
    truth = SPEC.to_data(score.sample(problems, seed=1)).float()
    std = torch.cat([torch.full((24,), 2.0), torch.full((24,), 1.0)])  # K and m/s
    z = torch.randn(problems, 48, generator=torch.Generator().manual_seed(2))
    A = Function(instruments, SHAPE)
    observation = Observation.whitened(A, A(truth) + std * z, std)

    # Annealed Langevin dynamics samples the exact posterior for any A, if there are enough steps at each level: with 5
    # steps instead of 30, the residual test shows that the samples do not fit y.
    solver = PosteriorLangevin(inflation=0.3, settling=2 if options.fast else 100)
    sampler = annealed_langevin(score.process, *((4, 5) if options.fast else (60, 30)))
    observation_in_model_units = observation.in_model_units(SPEC)
    found = posterior(score, observation_in_model_units, samples, solver=solver, sampler=sampler, seed=0)
    found = found.in_data_units(SPEC)
    report("temperature and wind", truth, found, observation, SPEC.units or "")
    columns = []
    for c, (name, measurement) in enumerate((("temperature", "block means"), ("wind", "cups"))):
        y = A(truth)[:4, 24 * c : 24 * (c + 1)].reshape(-1, 4, 6)
        columns += [(name, truth[:4, c]), (measurement, y), ("mean", found.mean[:4, c])]
        columns += [("deviation", found.std[:4, c]), ("a sample", found.x[:4, 0, c])]
    pictures(columns, options.out / "field.png", [None] * len(columns))


if __name__ == "__main__":
    main()
