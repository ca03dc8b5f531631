"""Train the `digits` model that ships with the package: `.venv/bin/python tools/bundle_digits.py`.

The recipe `digits` is trained to its end, and the EMA of its weights is written, without the raw weights and the state
of the optimiser, to src/scorefield/models/bundled/digits.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from scorefield.cli.console.progress import training_display
from scorefield.models.weights import choose, load_tensors, save_tensors
from scorefield.recipes import recipe
from scorefield.training.trainer import train

RUN = Path("runs/bundled-digits")
TARGET = Path(__file__).parent.parent / "src/scorefield/models/bundled/digits"
LIMIT_MIB = 4.0
"""Largest size of the bundled file."""


def main() -> None:
    """Train the model, or resume its training, and copy it into the package."""
    experiment = recipe("digits")
    with training_display(experiment.training.steps) as display:
        train(experiment, RUN, resume="auto", observer=display)
    sets, metadata = load_tensors(RUN / "model.safetensors")
    name = choose(sets, None, RUN)
    TARGET.mkdir(parents=True, exist_ok=True)
    save_tensors(TARGET / "model.safetensors", {"fixed": sets["fixed"], name: sets[name]}, metadata)
    for file in ("experiment.json", "README.md"):
        shutil.copy(RUN / file, TARGET / file)
    size = (TARGET / "model.safetensors").stat().st_size / 2**20
    assert size < LIMIT_MIB, f"{size:.1f} MiB is too large to ship"


if __name__ == "__main__":
    main()
