"""Import and export of the checkpoints of other projects; nothing in a file is executed.

There is one module for each layout of files. Each has a function

    read(checkpoint, config, weights, hints) -> Imported

that takes the configuration from the release's own file where there is one, and otherwise from the shapes and names of
the tensors, and returns an `Experiment` and its tensors under the names of this library. `import_checkpoint` checks
every tensor against the network that the experiment describes, and writes a model folder, which `load` opens.

    score_sde         Song et al. 2021: PyTorch checkpoints, and msgpack files of the JAX release
    ncsn              Song and Ermon 2019
    ncsnv2            Song and Ermon 2020
    acsm              Jolicoeur-Martineau et al. 2021
    mdsm              Li et al. 2019
    edm               Karras et al. 2022: SongUNet in its DDPM++ and NCSN++ variants
    diffusers_folder  UNet2DModel with ScoreSdeVeScheduler, import and export

Shared parts:

    import_result     the result of reading, its check against the network, and the model folder
    checkpoint_files  reading tensors and configurations, and recognising unknown files
    restricted_pickle pickles of EDM as plain data
    flax_tree         training states of Flax as tensors
    list_checkpoints  checkpoints that are Python lists: NCSN, NCSNv2, ACSM
    config_fields     fields of configuration files, checked for their types
    noise_table       the table of sigmas that releases store beside the weights
    score_sde_config  configuration files of Song et al. 2021
    score_sde_shapes  the U-Net of a Song et al. checkpoint from its tensors alone
    diffusers_unet    UNet2DModel as an NCSNpp
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
from scorefield.interop.import_result import CheckpointError, Hints, Imported, Weights, check, check_hints, write
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
    check_hints(hints, found.experiment)
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
