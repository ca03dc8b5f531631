"""Time and memory of the 1024-pixel NCSN++ of FFHQ: import of its checkpoint, one optimiser step, one sampling step.

    python benchmarks/import_large.py                          # importing only
    python benchmarks/import_large.py --parts import train sample
    python benchmarks/import_large.py --folder /big/disk --out other.json

The checkpoint is written first: the published layout at full size (model, optimiser state and EMA of 105,785,896 random
weights, 1.7 GB) with the published configuration. Each part then runs in a separate process, whose peak resident memory
includes the interpreter, the libraries (the row "libraries" is a process that only imports them) and the mapped pages
of the checkpoint, which the system may drop at any time. The import should stay below twice the size of the file.
`import` runs the command as a user does; `train` is one optimiser step at batch size 1 with checkpointed activations
and the EMA update; `sample` is one step of the corrector and the predictor.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# torch is imported inside the parts only, because the measured peak of a process includes that of its parent.

HERE = Path(__file__).parent
CONFIG = HERE.parent / "tests" / "golden" / "score_sde" / "ncsnpp_ve_1024_style" / "config.json"
LIMIT = 2.0
"""Largest peak memory of the import over the size of the file."""


def configuration() -> dict[str, Any]:
    """Return the published configuration ve/ffhq_ncsnpp_continuous, from that of a small test checkpoint."""
    config = json.loads(CONFIG.read_text())
    config["data"] |= {"dataset": "FFHQ", "image_size": 1024}
    config["model"] |= {
        "nf": 16,
        "ch_mult": [1, 2, 4, 8, 16, 32, 32, 32],
        "num_res_blocks": 1,
        "attn_resolutions": [16],
        "sigma_max": 1348,
        "num_scales": 2000,
    }
    return config


def write(folder: Path) -> dict[str, Any]:
    """Write the checkpoint and its configuration; return the file's size and the number of weights."""
    import torch

    from scorefield.data_spec import DataSpec
    from scorefield.interop.score_sde_config import configuration as read
    from scorefield.nets import published_order
    from scorefield.process import GeometricSigmas

    config = configuration()
    run = read(config)
    order = published_order(run.network.build(DataSpec(run.shape, 0, 255, 256)))
    weights = {p.release: p.parameter.detach().T.contiguous() if p.transposed else p.parameter.detach() for p in order}
    trained = [p.release for p in order if p.trainable]
    sigmas = GeometricSigmas(run.sigma_min, run.sigma_max, run.levels).table()[1].flip(0)
    moments = {
        i: {"step": 3_000_000, "exp_avg": weights[p.release] * 1e-3, "exp_avg_sq": weights[p.release] ** 2}
        for i, p in enumerate(order)
        if p.trainable
    }
    content = {
        "optimizer": {"state": moments, "param_groups": [{"lr": 2e-4, "params": list(range(len(order)))}]},
        "model": {"module.sigmas": sigmas} | {f"module.{name}": value for name, value in weights.items()},
        "ema": {"decay": run.ema, "num_updates": 9, "shadow_params": [weights[name] * 0.99 for name in trained]},
        "step": 3_000_000,
    }
    torch.save(content, folder / "checkpoint_60.pth")
    (folder / "config.json").write_text(json.dumps(config))
    return {"bytes": (folder / "checkpoint_60.pth").stat().st_size, "weights": sum(v.numel() for v in weights.values())}


def libraries(folder: Path) -> dict[str, Any]:
    """Import the libraries and do nothing else."""
    import scorefield.interop  # noqa: F401

    return {}


def importing(folder: Path) -> dict[str, Any]:
    """Run `scorefield import` and time it from the arguments to the last file."""
    from scorefield.cli import main

    begin = time.perf_counter()
    arguments = [str(folder / "checkpoint_60.pth"), "--config", str(folder / "config.json")]
    main(["import", "score-sde", *arguments, "--out", str(folder / "model")])
    return {"seconds": time.perf_counter() - begin}


def training(folder: Path) -> dict[str, Any]:
    """Take one optimiser step at batch size 1."""
    import torch

    import scorefield as sf
    from scorefield.models.model import build_score
    from scorefield.training.ema import Averages

    model = sf.load(folder / "model")
    net = model.network.train()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name != "time.fourier.W")
    net.checkpoint_activations = True  # type: ignore[assignment]
    experiment = model.experiment
    optimiser = torch.optim.Adam((p for p in net.parameters() if p.requires_grad), experiment.optimiser.learning_rate)
    averages = Averages(net, experiment.averaging)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, *model.data.shape, generator=generator)
    begin = time.perf_counter()
    draw = experiment.objective.draw(experiment.process, x, generator)
    loss = experiment.objective(build_score(experiment, net), x, draw).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), experiment.optimiser.clip or 1.0)
    optimiser.step()
    averages.update()
    return {"seconds": time.perf_counter() - begin, "loss": float(loss.detach())}


def sampling(folder: Path) -> dict[str, Any]:
    """Take one step of the corrector and the predictor for one image."""
    import torch

    import scorefield as sf
    from scorefield._random import IndexedNoise
    from scorefield.sampling import drive

    model = sf.load(folder / "model")
    noise = IndexedNoise(0, [0])
    x = model.process.sigma(torch.ones(1)) * torch.randn(1, *model.data.shape)
    times = model.experiment.sampler.times(model.process)[:2]
    begin = time.perf_counter()
    with torch.no_grad():
        end = drive(model.as_score().bind(None), model.process, model.experiment.sampler.step, times, x, noise)
    return {"seconds": time.perf_counter() - begin, "finite": bool(end.x.isfinite().all())}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "write": write,
    "libraries": libraries,
    "import": importing,
    "train": training,
    "sample": sampling,
}


def child(part: str, folder: Path) -> None:
    """Run one part in this process; the last line printed is its result."""
    result = PARTS[part](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"part": part, **result, "peak_bytes": peak}))


def run(part: str, folder: Path) -> dict[str, Any]:
    """Run one part in a separate process and return its result."""
    command = [sys.executable, __file__, "--child", part, "--folder", str(folder)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["import"], choices=["import", "train", "sample"])
    parser.add_argument("--folder", type=Path, help="folder of the files; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "import_large.json")
    parser.add_argument("--child", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder)
        return
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "model", ignore_errors=True)
    try:
        rows = [run(part, folder) for part in dict.fromkeys(("write", "libraries", "import", *options.parts))]
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    report(rows, options.out)


def report(rows: list[dict[str, Any]], out: Path) -> None:
    """Print the table and write it as JSON."""
    size = rows[0]["bytes"]
    print(f"checkpoint: {size / 2**30:.2f} GiB, {rows[0]['weights']:,} weights")
    for row in rows[1:]:
        seconds = f"{row['seconds']:8.1f} s" if "seconds" in row else " " * 10
        print(
            f"{row['part']:>10} {seconds}  peak {row['peak_bytes'] / 2**30:6.2f} GiB, {row['peak_bytes'] / size:.2f} x"
        )
    imported = next(row for row in rows if row["part"] == "import")
    verdict = "met" if imported["peak_bytes"] <= LIMIT * size else "missed"
    print(f"target, peak memory of the import below {LIMIT:g} times the file's size: {verdict}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
