"""`scorefield latents`: latents of the probability flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from scorefield.cli.console.arguments import Count, Data, ModelName, Out, Rtol, Seed, Weights, Whole

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.likelihood.probability_flow import FlowSettings
    from scorefield.models.model import Model


@dataclass(frozen=True)
class Latents:
    """Latents of the probability flow: encode, interpolate, change the temperature, compare two models."""

    action: Positional[
        Annotated[Literal["encode", "interpolate", "temperature", "compare"], arg(help="What to do with the latents.")]
    ]
    model: ModelName
    other: Annotated[str | None, arg(metavar="MODEL")] = None
    """compare: second model, trained separately on the same data."""
    data: Data = None
    n: Count = 16
    """Number of examples (interpolate: in pairs) or of latents (temperature)."""
    points: Whole = 9
    """Points on each path, or temperatures."""
    path: Literal["spherical", "linear"] = "spherical"
    """interpolate: along the sphere of the prior, or along a straight line."""
    rtol: Rtol = 1e-4
    seed: Seed = 0
    weights: Weights = None
    out: Out = None
    """Output folder. Default: latents/MODEL."""


def run(command: Latents) -> None:
    """Carry out the command.

    Raises:
        ValueError: A number that cannot be, or a second model that is missing or of other data.
    """
    from scorefield.likelihood.probability_flow import FlowSettings
    from scorefield.models.model import load

    if command.n < 1 or command.points < 2:
        raise ValueError(f"n={command.n} must be at least 1 and points={command.points} at least 2")
    if command.seed < 0:
        raise ValueError(f"seed={command.seed} must not be negative")
    if (command.other is None) == (command.action == "compare"):
        raise ValueError(
            "compare takes two models, scorefield latents compare MODEL --other MODEL; the other actions take one"
        )
    model = load(command.model, weights=command.weights)
    settings = FlowSettings(command.rtol, command.rtol)
    out = command.out or Path("latents") / model.name
    if command.action == "compare":
        _compare(command, model, settings)
    elif command.action == "encode":
        x, z = _encoded(command, model, settings)
        save(out / "latents.npz", x=x, latents=z)
        print(f"{len(z)} latents of {model.name} (model units, prior deviation {model.process.prior_std:g}) in {out}")
    elif command.action == "interpolate":
        _interpolate(command, model, settings, out)
    else:
        _temperature(command, model, settings, out)


def _encoded(command: Latents, model: Model, settings: FlowSettings) -> tuple[Tensor, Tensor]:
    """n held-out examples, data units, and their latents."""
    from scorefield.cli.console.reference_data import real_data
    from scorefield.evaluation import examples

    data = real_data(model.experiment.data, command.data, model.data)
    x, _ = examples(data.held_out or data.train, command.n)
    if len(x) < command.n:
        raise ValueError(f"there are {len(x)} examples and -n {command.n} were asked for")
    return x, model.encode(x, settings=settings)


def _interpolate(command: Latents, model: Model, settings: FlowSettings, out: Path) -> None:
    """Rows from one real example to the next, through the latents of both."""
    import torch

    from scorefield.likelihood.latents import interpolate

    if command.n % 2:
        raise ValueError(f"-n {command.n} examples make no pairs; give an even number")
    x, z = _encoded(command, model, settings)
    weights = torch.linspace(0.0, 1.0, command.points)
    between = interpolate(z[0::2], z[1::2], weights, command.path).flatten(0, 1)
    decoded = model.decode(between, settings=settings)
    save(out / "interpolation.npz", x=decoded, latents=between, ends=x, weights=weights)
    _picture(decoded, model, command.points, out / "interpolation.png")
    print(f"{command.n // 2} {command.path} paths of {command.points} points in {out}")


def _temperature(command: Latents, model: Model, settings: FlowSettings, out: Path) -> None:
    """Rows of one latent each at rising temperatures, T = 1 in the middle."""
    import torch

    from scorefield._random import PRIOR_STEP, IndexedNoise, StepNoise
    from scorefield.likelihood.latents import tempered

    like = torch.empty(command.n, *model.data.shape)
    z = model.process.prior_sample(StepNoise(IndexedNoise(command.seed, range(command.n)), PRIOR_STEP)(like))
    scales = torch.logspace(-0.6, 0.3, command.points)
    scaled = torch.stack([tempered(z, float(t)) for t in scales], dim=1).flatten(0, 1)
    decoded = model.decode(scaled, settings=settings)
    save(out / "temperature.npz", x=decoded, latents=scaled, temperatures=scales)
    _picture(decoded, model, command.points, out / "temperature.png")
    shown = ", ".join(f"{float(t):.2f}" for t in scales)
    print(f"{command.n} latents at the temperatures {shown} in {out}")


def _compare(command: Latents, model: Model, settings: FlowSettings) -> None:
    """How alike two models encode the same data."""
    from scorefield.likelihood.latents import agreement
    from scorefield.models.model import load

    other = load(str(command.other))
    if other.data.shape != model.data.shape:
        raise ValueError(
            f"{other.name} is of examples of shape {other.data.shape} and {model.name} of {model.data.shape}; only"
            " models of the same data encode alike"
        )
    x, z = _encoded(command, model, settings)
    theirs = other.encode(x, settings=settings) / other.process.prior_std
    found = agreement(z / model.process.prior_std, theirs, seed=command.seed)
    print(f"{len(x)} examples encoded by {model.name} and {other.name}, {z[0].numel()} dimensions")
    print(f"correlation per dimension: {found.mean:.4f}; of shuffled examples {found.shuffled:.4f}")
    print(f"  {found.z_score:.1f} standard deviations ({found.shuffled_deviation:.4f}) above the shuffled")
    print(f"relative difference: {found.difference:.4f}; of shuffled examples {found.shuffled_difference:.4f}")


def save(path: Path, **arrays: Tensor) -> None:
    """Write arrays to an .npz, atomically."""
    import numpy as np

    from scorefield._files import replacing

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: value.cpu().numpy() for name, value in arrays.items()})


def _picture(x: Tensor, model: Model, columns: int, path: Path) -> None:
    from scorefield.plot.pictures import image_grid, save_png

    if len(model.data.shape) == 3:
        save_png(image_grid(x, model.data, columns=columns), path)
        print(f"  {path}")
