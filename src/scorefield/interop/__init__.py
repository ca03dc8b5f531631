"""Import and export of the checkpoints of other projects.

One file a layout. Each has a function

    read(checkpoint, config, weights, hints) -> Imported

that reads a release's file without executing anything in it, takes its configuration from the release's own file where
there is one and from the tensors' shapes and names where there is none, and returns an `Experiment` with every tensor
under our names. `import_checkpoint` checks each tensor against the network that the experiment describes and writes a
model folder, which `load` opens like any other.

score_sde         Song et al. 2021: PyTorch checkpoints, and the JAX release's msgpack files
ncsn              Song and Ermon 2019
ncsnv2            Song and Ermon 2020
acsm              Jolicoeur-Martineau et al. 2021
mdsm              Li et al. 2019
edm               Karras et al. 2022, SongUNet in its DDPM++ and NCSN++ variants
diffusers_folder  UNet2DModel with ScoreSdeVeScheduler, both ways
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scorefield._codec import near
from scorefield.interop import (
    acsm,
    checkpoint_files,
    config_fields,
    diffusers_folder,
    diffusers_unet,
    edm,
    flax_tree,
    import_result,
    list_checkpoints,
    mdsm,
    ncsn,
    ncsnv2,
    noise_table,
    restricted_pickle,
    score_sde,
    score_sde_config,
    score_sde_shapes,
)
from scorefield.interop.import_result import CheckpointError, Hints, Imported, Weights, check, heard, write
from scorefield.models.model import Model

Reader = Callable[[Path, Path | None, Weights | None, Hints], Imported]
Writer = Callable[[Model | Path, Path], tuple[str, ...]]

IMPORTERS: dict[str, Reader] = {
    "score-sde": score_sde.read,
    "ncsn": ncsn.read,
    "ncsnv2": ncsnv2.read,
    "acsm": acsm.read,
    "mdsm": mdsm.read,
    "edm": edm.read,
    "diffusers": diffusers_folder.read,
}
"""Layout -> reader: (checkpoint, configuration file, "ema" or "raw" or the layout's own choice, hints)."""

EXPORTS: dict[str, Writer] = {"diffusers": diffusers_folder.export}
"""Layout -> writer: (model or its folder, folder to write), which returns what the layout does not say."""


def import_checkpoint(
    layout: str,
    checkpoint: Path,
    out: Path,
    *,
    config: Path | None = None,
    weights: Weights | None = None,
    hints: Hints | None = None,
) -> Imported:
    """Read a release's checkpoint, check it tensor by tensor and write it as a model folder.

    Args:
        layout: A key of `IMPORTERS`.
        checkpoint: File or folder.
        out: The model folder to write.
        config: The release's configuration file.
        weights: "ema" or "raw"; by default the average where the layout has one.
        hints: What the tensors cannot tell where there is no configuration; what they do tell may be repeated.

    Raises:
        CheckpointError: The checkpoint cannot be imported; nothing was written.
    """
    if layout not in IMPORTERS:
        raise CheckpointError(f"there is no layout {layout!r}.{near(layout, IMPORTERS)}")
    hints = hints or Hints()
    found = IMPORTERS[layout](checkpoint, config, weights, hints)
    heard(hints, found.experiment)
    check(found, checkpoint)
    write(found, checkpoint, layout, out)
    return found


__all__ = [
    "IMPORTERS",
    "EXPORTS",
    "CheckpointError",
    "Hints",
    "Imported",
    "Weights",
    "acsm",
    "diffusers_folder",
    "diffusers_unet",
    "edm",
    "config_fields",
    "flax_tree",
    "import_checkpoint",
    "import_result",
    "list_checkpoints",
    "mdsm",
    "ncsn",
    "ncsnv2",
    "noise_table",
    "checkpoint_files",
    "restricted_pickle",
    "score_sde",
    "score_sde_config",
    "score_sde_shapes",
]
