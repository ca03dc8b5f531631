"""Time of a training step of an energy, which needs a double backward pass, relative to a step without one.

    python benchmarks/energy_step.py                  # table on the screen, benchmarks/results/energy_step.json
    python benchmarks/energy_step.py --passes 9 --channels 64 --batch 16

"energy" is the multi-scale denoising loss of an `EnergyResNet` (12 convolutions, 1 x 32 x 32): a forward pass, its
gradient with respect to x, and one backward pass through both. "field" is the cost of the same network without the
double backward pass: one forward pass whose scalar output is regressed, and one backward pass. "values" trains the same
energy from its values only (finite-difference sliced score matching, three forward passes and one backward pass). Each
is measured in the memory layouts "contiguous" and "channels last". Times are process time of one thread; the variants
alternate within each pass, and ratios are medians over passes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.losses import DenoisingScoreMatching, FiniteDifferenceScoreMatching
from scorefield.nets import EnergyResNet
from scorefield.process import LinearSigmas, Tabulated
from scorefield.score import EnergyForm, NetworkEnergy

RESULTS = Path(__file__).parent / "results" / "energy_step.json"
PROCESS = Tabulated(LinearSigmas(0.05, 1.2, 128))


def steps(channels: int, batch: int, last: bool) -> dict[str, Callable[[], Tensor]]:
    """Return the losses by name; evaluating one and its backward pass is one step.

    Args:
        channels: Width of the network.
        batch: Batch size.
        last: Whether the memory layout is channels last.
    """
    torch.manual_seed(0)
    network = EnergyResNet(channels=channels, depth=12).build(DataSpec((1, 32, 32), 0, 255, 256))
    x0 = torch.rand(batch, 1, 32, 32)
    if last:
        network, x0 = network.to(memory_format=torch.channels_last), x0.contiguous(memory_format=torch.channels_last)  # type: ignore[call-overload]
    score = NetworkEnergy(network, PROCESS, EnergyForm(0.1))
    denoising = DenoisingScoreMatching(reduce="half_sum", stratified=True)
    values = FiniteDifferenceScoreMatching(variance_reduced=False, stratified=True)
    generator = torch.Generator().manual_seed(1)
    c = torch.zeros(batch)

    def field() -> Tensor:
        draw = denoising.draw(PROCESS, x0, generator)
        return (network(PROCESS.perturb(x0, draw.t, draw.z), c, None) - 1.0) ** 2

    return {
        "energy": lambda: denoising(score, x0, denoising.draw(PROCESS, x0, generator)),
        "field": field,
        "values": lambda: values(score, x0, values.draw(PROCESS, x0, generator)),
    }


def seconds(loss: Callable[[], Tensor]) -> float:
    """Return the process time of one step."""
    began = time.process_time()
    loss().mean().backward()
    return time.process_time() - began


def main() -> None:
    """Measure all variants, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    variants = {
        f"{name}, {'channels last' if last else 'contiguous'}": loss
        for last in (False, True)
        for name, loss in steps(settings.channels, settings.batch, last).items()
    }
    for loss in variants.values():
        seconds(loss)  # warms up
    times = {name: [] for name in variants}
    for _ in range(settings.passes):
        for name, loss in variants.items():
            times[name].append(seconds(loss))
    base = times["field, contiguous"]
    rows = {
        name: {
            "seconds": statistics.median(own),
            "ratio": statistics.median(a / b for a, b in zip(own, base, strict=True)),
        }
        for name, own in times.items()
    }
    for name, row in rows.items():
        print(f"{name:24s} {1e3 * row['seconds']:8.1f} ms   {row['ratio']:.2f} times field, contiguous")
    head = {
        "channels": settings.channels,
        "batch": settings.batch,
        "passes": settings.passes,
        "torch": torch.__version__,
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(head | {"steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
