"""Time of a training step of an energy (double backward) against the same network trained as a field of vectors.

    python benchmarks/energy_step.py                  # table on the screen, benchmarks/results/energy_step.json
    python benchmarks/energy_step.py --passes 9 --channels 64 --batch 16

"energy" is the multi-scale denoising loss of an `EnergyResNet` (12 convolutions, 1 x 32 x 32): a forward pass, its
gradient with respect to x, and one backward pass through both. "field" is what the same features cost without the
double backward: the same forward pass, its scalar regressed, one backward pass. "values" trains the same energy from
its values alone (finite-difference sliced score matching, three forward passes and one backward). Memory layouts
"contiguous" and "channels last" are compared. Process time of one thread; the variants alternate within each pass, and
ratios are medians over passes.
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
    """Name -> the loss whose backward pass is one step, on one network in one layout."""
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
    """Process time of one step."""
    began = time.process_time()
    loss().mean().backward()
    return time.process_time() - began


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    kinds = {
        f"{name}, {'channels last' if last else 'contiguous'}": loss
        for last in (False, True)
        for name, loss in steps(settings.channels, settings.batch, last).items()
    }
    for loss in kinds.values():
        seconds(loss)
    times = {name: [] for name in kinds}
    for _ in range(settings.passes):
        for name, loss in kinds.items():
            times[name].append(seconds(loss))
    base = times["field, contiguous"]
    rows = {
        name: {
            "seconds": statistics.median(seen),
            "ratio": statistics.median(a / b for a, b in zip(seen, base, strict=True)),
        }
        for name, seen in times.items()
    }
    for name, row in rows.items():
        print(f"{name:24s} {1e3 * row['seconds']:8.1f} ms   {row['ratio']:.2f} of field, contiguous")
    head = {
        "channels": settings.channels,
        "batch": settings.batch,
        "passes": settings.passes,
        "torch": torch.__version__,
    }
    settings.out.write_text(json.dumps(head | {"steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
