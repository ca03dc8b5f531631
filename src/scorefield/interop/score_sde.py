"""Checkpoints of the SDE framework (Song et al. 2021), PyTorch and JAX.

PyTorch: a dictionary of `model` (the state dictionary behind "module."), `ema` (decay, num_updates and
`shadow_params`, a list without names), `step` and `optimizer`; or a bare state dictionary of `all_modules.*`, as
conversions of these files have. The list of averages has the model's trained parameters in the model's own order, so
it is named by it; our network then finds every tensor by its name. What is not trained, the Fourier frequencies, comes
from `model`. The table `sigmas` is compared with the configuration and never used.

JAX: see `flax_tree`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield.data import DataSource
from scorefield.interop import flax_tree
from scorefield.interop.checkpoint_files import expect, file_kind, plain_number, read_config, read_torch, without_prefix
from scorefield.interop.config_fields import Fields
from scorefield.interop.import_result import CheckpointError, Hints, Imported, Weights, average_name, settled
from scorefield.interop.noise_table import check_table, take_table
from scorefield.interop.score_sde_config import configuration, data_source, experiment_name
from scorefield.interop.score_sde_shapes import configuration_of, contradictions
from scorefield.models.experiment import Averaging, Experiment
from scorefield.models.networks import meta_network
from scorefield.models.weights import differences
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.unets.ncsnpp import UNet
from scorefield.nets.unets.release_order import published_order
from scorefield.process.tabulated import GeometricSigmas
from scorefield.recipes.sde_configuration import PAPER, Configuration

LAYOUT = "score-sde"
FREQUENCIES = "all_modules.0.W"
SAMPLER = "No sampler is configured: it is the one published for such models."


@dataclass(frozen=True)
class Stored:
    """Content of a PyTorch checkpoint.

    Args:
        model: The network's parameters by the release's names, in the release's order.
        sigmas: The table of noise levels that lies beside them, most noise first.
        average: The unnamed averages; None where there are none.
        decay: Decay of the average.
        step: Training step of the run.
        bare: Whether the file is a state dictionary and nothing else.
    """

    model: dict[str, Tensor]
    sigmas: Tensor | None
    average: Sequence[Tensor] | None
    decay: float | None
    step: int | None
    bare: bool


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """Read a checkpoint of the release; see `scorefield.interop`.

    Args:
        checkpoint: A file of the PyTorch release, a bare state dictionary, or a msgpack file of the JAX release.
        config: The release's configuration as JSON or YAML; without it (PyTorch only) the network is told from the
            tensors, and the rest from the hints and the published defaults.
        weights: "ema" or "raw"; the average by default, where there is one.
        hints: Size, process, discreteness and, where there is no table, noise levels.

    Raises:
        CheckpointError: The file is no such checkpoint, or does not fit the configuration.
    """
    fields = read_config(config)
    if checkpoint.is_file() and file_kind(checkpoint) == "msgpack":
        return _read_flax(checkpoint, config, fields, weights, hints)
    stored = _stored(read_torch(checkpoint), checkpoint)
    if fields is None:
        shapes = {name: tuple(value.shape) for name, value in stored.model.items()}
        run, notes = configuration_of(shapes, stored.sigmas, hints)
        run = run if stored.decay is None else replace(run, ema=stored.decay)
    else:
        run, notes = _configured(fields, hints), () if Fields(fields).has("sampling.predictor") else (SAMPLER,)
    if stored.sigmas is not None:  # models of other processes do not read them
        ladder = GeometricSigmas(run.sigma_min, run.sigma_max, run.levels)
        check_table(stored.sigmas, ladder, checkpoint, read=run.process == "ve")
    experiment = _experiment(run, config, fields)
    chosen, tensors = _choose(stored, weights, checkpoint)
    return Imported(
        experiment=experiment,
        weights=chosen,
        tensors=_ours(tensors, experiment, run, checkpoint),
        step=stored.step,
        notes=(*notes, *run.departures()),
    )


def _configured(fields: Mapping[str, Any], hints: Hints) -> Configuration:
    """The configuration; flags may repeat its values, and an error is raised if they contradict them."""
    run = configuration(fields, hints.process)
    settled(hints, "levels", run.levels)  # also of a continuous model, whose sampler takes as many steps
    return run


def _experiment(run: Configuration, config: Path | None, fields: Mapping[str, Any] | None) -> Experiment:
    if config is None or fields is None:
        return run.experiment(experiment_name(run, "images"), data=DataSource(flip=True), source=PAPER)
    known = Fields(fields)
    dataset = known.text("data.dataset", "images").lower()
    source = f"{PAPER}, configuration file {config.name}"
    made = run.experiment(experiment_name(run, dataset), data=data_source(fields), source=source)
    dequantise = known.flag("data.uniform_dequantization", False)
    return replace(made, training=replace(made.training, dequantise=dequantise))


# ---------------------------------------------------------------------------------------------- PyTorch files


def _stored(content: Any, checkpoint: Path) -> Stored:
    """Take a checkpoint apart.

    Raises:
        CheckpointError: The file is of another layout.
    """
    whole = isinstance(content, Mapping) and isinstance(content.get("model"), Mapping)
    if not whole:
        expect(content, LAYOUT, checkpoint)
    state = content["model"] if whole else content
    model = without_prefix(state, checkpoint)
    sigmas = take_table(model, checkpoint)
    if not any(name.startswith(("all_modules.", "begin_conv.")) for name in model):
        shown = ", ".join(list(model)[:4])
        raise CheckpointError(
            f"the model in {checkpoint} is no network of the score-sde release: it holds {shown}, ..."
        )
    ema = content.get("ema") if whole else None
    ema = ema if isinstance(ema, Mapping) else {}
    average = ema.get("shadow_params") or None
    if average is not None and not (isinstance(average, list | tuple) and all(isinstance(v, Tensor) for v in average)):
        raise CheckpointError(f"the average in {checkpoint} (`ema`, `shadow_params`) is no list of tensors")
    return Stored(
        model=model,
        sigmas=sigmas,
        average=average,
        decay=plain_number(ema.get("decay")),
        step=None if (step := plain_number(content.get("step") if whole else None)) is None else int(step),
        bare=not whole,
    )


def _choose(stored: Stored, wanted: Weights | None, checkpoint: Path) -> tuple[str, dict[str, Tensor]]:
    """The weights asked for, by the release's names.

    Raises:
        CheckpointError: There is no such set, or the average does not fit the model beside it.
    """
    if wanted == "raw" or (wanted is None and stored.bare):
        return "raw", stored.model
    if stored.bare:
        raise CheckpointError(
            f"{checkpoint} is one state dictionary, without an average beside it; import it with --weights raw (a"
            " conversion may hold the averaged weights under these names: its author says which)"
        )
    if stored.average is None:
        raise CheckpointError(
            f"{checkpoint} holds no averaged weights (`ema` is missing or empty); import the trained ones with"
            " --weights raw"
        )
    names = [name for name in stored.model if name != FREQUENCIES]
    if len(stored.average) != len(names):
        raise CheckpointError(
            f"the average in {checkpoint} is a list of {len(stored.average)} tensors without names, and the model"
            f" beside it trains {len(names)}: they cannot be matched. Import the trained weights with --weights raw"
        )
    average = dict(zip(names, stored.average, strict=True))
    wrong = [name for name in names if average[name].shape != stored.model[name].shape]
    if wrong:
        lines = [f"  {n}: average {tuple(average[n].shape)}, model {tuple(stored.model[n].shape)}" for n in wrong[:12]]
        raise CheckpointError(
            f"the average in {checkpoint} is in another order than the model beside it; {len(wrong)} shapes differ,"
            " in the order of the list:\n" + "\n".join(lines) + "\nImport the trained weights with --weights raw"
        )
    frozen = {name: value for name, value in stored.model.items() if name == FREQUENCIES}
    return average_name(stored.decay), {**frozen, **average}


def _ours(
    tensors: Mapping[str, Tensor], experiment: Experiment, run: Configuration, checkpoint: Path
) -> dict[str, Tensor]:
    """The tensors by our names, views of the release's.

    Raises:
        CheckpointError: Names or shapes differ from those of the network described, said in the release's names.
    """
    assert experiment.spec is not None
    net = meta_network(experiment, experiment.spec)
    if not isinstance(net, UNet):  # the RefineNets keep the release's names
        return dict(tensors)
    order = published_order(net)
    own = {p.release: p.parameter.T if p.transposed else p.parameter for p in order}
    if net.config.embedding == "fourier" and net.time is None:
        tensors = {name: value for name, value in tensors.items() if name != FREQUENCIES}  # nothing reads them
    if lines := differences(own, tensors, theirs="checkpoint"):
        shown = lines[:12] + ([f"  ... and {len(lines) - 12} more"] if len(lines) > 12 else [])
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        contradicted = contradictions(shapes, run)
        listed = "\nThe tensors contradict the configuration in\n" + "\n".join(contradicted) if contradicted else ""
        raise CheckpointError(
            f"the tensors of {checkpoint} are not those of the network that the configuration describes"
            f" ({type(run.network).__name__}, {len(own)} tensors); {len(lines)} differences, in the release's names:\n"
            + "\n".join(shown)
            + listed
            + "\nThe configuration belongs to another checkpoint: give the right one with --config"
        )
    return {p.name: tensors[p.release].T if p.transposed else tensors[p.release] for p in order}


# ---------------------------------------------------------------------------------------------- JAX files


def _read_flax(
    checkpoint: Path, config: Path | None, fields: Mapping[str, Any] | None, weights: Weights | None, hints: Hints
) -> Imported:
    if fields is None:
        raise CheckpointError(
            f"{checkpoint} is a checkpoint of the JAX release; give its configuration with --config FILE (its"
            " ml_collections dictionary as JSON, config.to_json())"
        )
    run = _configured(fields, hints)
    experiment = _experiment(run, config, fields)
    experiment = replace(experiment, averaging=Averaging((run.ema,), warmup=False))
    assert experiment.spec is not None
    net = meta_network(experiment, experiment.spec)
    if not isinstance(net, UNet):
        raise CheckpointError(
            f"{type(run.network).__name__} of the JAX release resizes images in its refinement blocks by another rule"
            " than all others (half-pixel centres) and cannot be imported; NCSN and NCSNv2 of their own releases can"
        )
    state = flax_tree.read_state(checkpoint, "raw" if weights == "raw" else "ema")
    notes = ["A checkpoint of the JAX release: its average has a constant decay from the first step."]
    if run.corrector == "langevin":
        notes.append("On several devices the JAX release averages the norms of the Langevin corrector over them too.")
    return Imported(
        experiment=experiment,
        weights="raw" if weights == "raw" else average_name(state.decay or run.ema),
        tensors=flax_tree.tensors(net, state.params, checkpoint, plain=isinstance(run.network, DDPM)),
        step=state.step,
        notes=(*notes, *run.departures()),
    )
