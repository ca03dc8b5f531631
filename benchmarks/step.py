"""Time and memory of one training step and one evaluation of NCSN++, against a straightforward implementation.

    python benchmarks/step.py                         # table on the screen, benchmarks/results/step.json
    python benchmarks/step.py --passes 15 --out other.json

The network is NCSN++ for CIFAR-10 at a quarter of its width (32 channels, 4 blocks per level, attention at 16x16,
3.94 million weights), batch 16 of 3x32x32, with denoising score matching, gradient clipping, Adam and an EMA of the
weights. "naive" is the implementation of `naive.py`, "ours" that of the package. Both have the same weights, and the
run stops if their outputs or gradients differ.

How to read the numbers. All variants run in one process, one step of each per pass, and every ratio is of two steps of
the same pass; the median over passes is given with the smallest and largest. "cpu, 1 thread" is process time, which
other load hardly changes; "wall, 2 threads" is reliable only on an otherwise idle machine. Peak memory is measured in a
separate process for each variant, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from naive import naive_copy
from torch import Tensor, nn

from scorefield.data_spec import DataSpec
from scorefield.models.experiment import Averaging
from scorefield.nets import NCSNpp, UNet
from scorefield.training.ema import Averages

HERE = Path(__file__).parent
CONFIG = NCSNpp(channels=32)
SIZE, BATCH = 32, 16
SIGMA_MIN, SIGMA_MAX = 0.01, 50.0
DECAY, CLIP, RATE, WARM_UP = 0.999, 1.0, 2e-4, 5000
TARGETS = {"train fp32": 1.9, "train bf16": 2.2, "infer fp32": 1.6, "infer bf16": 1.9, "memory": 0.85}


@dataclass
class Variant:
    """An implementation that is measured: a network, its update, and whether it runs under bfloat16 autocast."""

    name: str
    net: nn.Module
    optimizer: torch.optim.Optimizer
    average: Callable[[], None]
    bfloat16: bool
    steps: int = 0

    def train(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Take one step of denoising score matching, mean |net(x + sigma z, ln sigma) + z|^2."""
        x, z, log_sigma = batch
        self.net.train()
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(self.steps / WARM_UP, 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        noisy = x + log_sigma.exp()[:, None, None, None] * z
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            output = self.net(noisy, log_sigma)
        (output.float() + z).square().mean().backward()
        nn.utils.clip_grad_norm_([p for p in self.net.parameters() if p.requires_grad], CLIP)
        self.optimizer.step()
        self.average()

    def infer(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Evaluate the network once without gradients."""
        x, z, log_sigma = batch
        self.net.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            self.net(x + log_sigma.exp()[:, None, None, None] * z, log_sigma)


def trainable(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.requires_grad]


def loop_average(net: nn.Module) -> Callable[[], None]:
    """Return the update of an EMA of the weights, one parameter after the other."""
    shadows = [p.detach().clone() for p in trainable(net)]

    def update() -> None:
        with torch.no_grad():
            for shadow, p in zip(shadows, trainable(net), strict=True):
                shadow.sub_((1 - DECAY) * (shadow - p))

    return update


def make_ours(bfloat16: bool, config: NCSNpp = CONFIG) -> Variant:
    """Return the package's network with the memory layout, optimiser and EMA of its trainer."""
    net = seeded_network(config)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(trainable(net), lr=RATE, fused=True)
    averages = Averages(net, Averaging(decays=(DECAY,), warmup=False))
    return Variant(f"ours {'bf16' if bfloat16 else 'fp32'}", net, optimizer, averages.update, bfloat16)


def make_naive(bfloat16: bool, config: NCSNpp = CONFIG) -> Variant:
    """Return the straightforward implementation with default settings."""
    net = naive_copy(seeded_network(config))
    name = f"naive {'bf16' if bfloat16 else 'fp32'}"
    return Variant(name, net, torch.optim.Adam(trainable(net), lr=RATE), loop_average(net), bfloat16)


def seeded_network(config: NCSNpp) -> UNet:
    """Return a network with the same weights in every call, changed so that last layers are not zero."""
    torch.manual_seed(0)
    net = config.build(DataSpec((3, SIZE, SIZE), 0.0, 1.0, 256))
    with torch.no_grad():
        for p in trainable(net):
            p.add_(0.02 * torch.randn(p.shape))
    return net


def draw_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return x in [0, 1], z and ln sigma."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator)
    z = torch.randn(x.shape, generator=generator)
    low, high = torch.tensor([SIGMA_MIN, SIGMA_MAX]).log()
    return x, z, low + (high - low) * torch.rand(BATCH, generator=generator)


def check_equal(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Return the largest difference of output and gradients, relative to the largest entry, without dropout.

    Raises:
        SystemExit: The two networks are not the same function.
    """
    x, z, log_sigma = batch
    results = []
    for variant in (make_naive(False), make_ours(False)):
        variant.net.eval()
        output = variant.net(x + log_sigma.exp()[:, None, None, None] * z, log_sigma)
        gradients = torch.autograd.grad((output + z).square().mean(), trainable(variant.net))
        results.append((output.detach(), torch.cat([sorted_entries(g) for g in gradients])))
    (y, g), (y_ours, g_ours) = results
    differences = {
        "output": float((y - y_ours).abs().max() / y.abs().max()),
        "gradient": float((g - g_ours).abs().max() / g.abs().max()),
    }
    if differences["output"] > 1e-4 or differences["gradient"] > 1e-3:
        raise SystemExit(f"the two networks differ: {differences}")
    return differences


def sorted_entries(gradient: Tensor) -> Tensor:
    """Return the entries sorted, because some parameters of the two networks are transposed."""
    return gradient.flatten().sort().values


def measure(
    variants: list[Variant], kind: str, threads: int, passes: int, batch: tuple[Tensor, Tensor, Tensor]
) -> dict[str, list[float]]:
    """Return the milliseconds of every call by variant; variants alternate.

    Args:
        variants: What is measured.
        kind: Method that is timed, "train" or "infer".
        threads: torch threads; with one thread process time is measured, else wall-clock time.
        passes: Calls of each variant.
        batch: Input.
    """
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {v.name: [] for v in variants}
    for index in range(passes + 1):
        for variant in variants:
            start = clock()
            getattr(variant, kind)(batch)
            if index:  # the first pass warms up
                times[variant.name].append(1e3 * (clock() - start))
    return times


def ratios(times: dict[str, list[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Return the median time of each variant, and median and range over passes of baseline time / variant time."""
    table = {}
    for name, own in times.items():
        paired = [a / b for a, b in zip(times[baseline], own, strict=True)]
        table[name] = {
            "milliseconds": statistics.median(own),
            "ratio": statistics.median(paired),
            "lowest": min(paired),
            "highest": max(paired),
        }
    return table


def peak_memory(name: str) -> float:
    """Return the peak resident memory, megabytes, of a new process that trains a variant for four steps."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def child(name: str) -> None:
    """Train a variant for four steps with two threads and print the peak memory of this process."""
    torch.set_num_threads(2)
    make = make_ours if name.startswith("ours") else make_naive
    variant = make(name.endswith("bf16"))
    batch = draw_batch()
    for _ in range(4):
        variant.train(batch)
    print(peak_resident())


def peak_resident() -> float:
    """Return the peak resident memory of this process, megabytes.

    /proc/self/status is preferred: getrusage's number includes that of the parent process before the exec.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    scale = 1024 if platform.system() == "Darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / scale


def run(passes: int, skip_memory: bool = False) -> dict:
    """Run all measurements; the result is written as JSON."""
    batch = draw_batch()
    torch.set_num_threads(1)
    result: dict = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "load": list(os.getloadavg()),
        },
        "network": {"channels": CONFIG.channels, "blocks": CONFIG.blocks, "size": SIZE, "batch": BATCH},
        "difference": check_equal(batch),
        "passes": passes,
    }
    variants = [make_naive(False), make_ours(False), make_ours(True), make_naive(True)]
    for threads, label in ((1, "cpu, 1 thread"), (2, "wall, 2 threads")):
        for kind in ("train", "infer"):
            times = measure(variants, kind, threads, passes, batch)
            result[f"{kind}, {label}"] = ratios(times, "naive fp32")
    if not skip_memory:
        memory = {v.name: peak_memory(v.name) for v in variants}
        result["peak memory"] = {
            name: {"megabytes": value, "ratio": value / memory["naive fp32"]} for name, value in memory.items()
        }
    return result


def report(result: dict) -> str:
    """Return the tables as text."""
    lines = [f"largest relative differences between ours and naive: {result['difference']}"]
    for title, table in result.items():
        if "thread" in title:
            lines.append(f"\n{title}: milliseconds, speed relative to naive fp32 [range of {result['passes']} passes]")
            for name, row in table.items():
                span = f"[{row['lowest']:.2f} .. {row['highest']:.2f}]"
                lines.append(f"  {name:12s} {row['milliseconds']:8.0f}  {row['ratio']:5.2f} {span}")
    if "peak memory" in result:
        lines.append("\npeak memory of a training process: megabytes, relative to naive fp32")
        lines += [f"  {name:12s} {r['megabytes']:8.0f}  {r['ratio']:5.2f}" for name, r in result["peak memory"].items()]
    lines.append(f"\ntargets: {TARGETS}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "step.json")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory of separate processes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    result = run(arguments.passes, arguments.no_memory)
    print(report(result))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
