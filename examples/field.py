"""A field of temperature and wind on 16 x 24 points from a model of one's own of the instruments.

Values are floats without bounds, in kelvin and metres per second. A satellite sees temperature as means over 4 x 4
points; cup anemometers at every fourth point see the wind, and hardly turn below 6 m/s, which is not linear. The law of
the fields is known here, a stationary Gaussian one, so that nothing is trained; `model.posterior` takes the place of
`posterior` where it is.
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
    """(B, 2, 16, 24) in K and m/s -> (B, 48): 24 mean temperatures in K, 24 readings of cups in m/s."""
    temperature = avg_pool2d(x[:, :1], 4)
    turning = softplus(x[:, 1, 2::4, 2::4] - 6.0)
    return torch.cat([temperature.flatten(1), turning.flatten(1)], dim=1)


def main() -> None:
    """Fields drawn here, measured, and drawn again from the measurements."""
    options = arguments((__doc__ or "").splitlines()[0]).parse_args()
    problems, answers = (4, 2) if options.fast else (12, 12)
    colder_is_windier = torch.tensor([[1.0, -0.6], [-0.6, 1.0]])
    score = GaussianField(sf.VP(), SHAPE, correlation_length=(3.0, 5.0), channel_covariance=colder_is_windier)
    truth = SPEC.to_data(score.sample(problems, seed=1)).float()
    std = torch.cat([torch.full((24,), 2.0), torch.full((24,), 1.0)])  # K and m/s
    z = torch.randn(problems, 48, generator=torch.Generator().manual_seed(2))
    A = Function(instruments, SHAPE)
    observation = Observation.whitened(A, A(truth) + std * z, std)

    # Of all solvers the one that samples the posterior itself, whatever A is: Langevin steps at falling noise. There
    # must be many at each level: with 5, not 30, the residual test says that the answers do not reach y.
    solver = PosteriorLangevin(inflation=0.3, settling=2 if options.fast else 100)
    sampler = annealed_langevin(score.process, *((4, 5) if options.fast else (60, 30)))
    inside = observation.in_model_units(SPEC)
    found = posterior(score, inside, answers, solver=solver, sampler=sampler, seed=0).in_data_units(SPEC)
    report("temperature and wind", truth, found, observation, SPEC.units or "")
    shown = []
    for c, (name, given) in enumerate((("temperature", "block means"), ("wind", "cups"))):
        y = A(truth)[:4, 24 * c : 24 * (c + 1)].reshape(-1, 4, 6)
        shown += [(name, truth[:4, c]), (given, y), ("mean", found.mean[:4, c])]
        shown += [("deviation", found.std[:4, c]), ("a sample", found.x[:4, 0, c])]
    pictures(shown, options.out / "field.png", [None] * len(shown))


if __name__ == "__main__":
    main()
