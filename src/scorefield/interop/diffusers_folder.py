"""Folders of diffusers: a UNet2DModel of the NCSN++ family with a ScoreSdeVeScheduler, in and out.

    folder/model_index.json                    which parts there are
    folder/scheduler/scheduler_config.json     ScoreSdeVeScheduler: sigma_min, sigma_max, the sampler's settings
    folder/unet/config.json                    UNet2DModel
    folder/unet/diffusion_pytorch_model.safetensors, or .bin

or the `unet` folder alone. Only JSON and tensors are read and written; diffusers need not be installed. The network
returns F / sigma, the score. Its images are [0, 1], and so are the model units here: sigma_min and sigma_max are the
same numbers on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scorefield._files import replacing, replacing_folder, write_json, write_text
from scorefield.data import DataSource
from scorefield.data_spec import DataSpec
from scorefield.interop.checkpoint_files import read_torch
from scorefield.interop.diffusers_unet import MODEL, fields_of, module_names, network_of, our_name, unet_fields
from scorefield.interop.import_result import CheckpointError, Hints, Imported, Weights, with_hints
from scorefield.losses.denoising import DenoisingScoreMatching
from scorefield.models.experiment import Experiment
from scorefield.models.model import Model, load
from scorefield.models.model_card import units
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.process.families import VE
from scorefield.process.grids import Uniform
from scorefield.sampling.langevin import Langevin, NoiseScaled, NormRatio
from scorefield.sampling.predictors import ReverseDiffusion
from scorefield.sampling.sampler import Sampler
from scorefield.sampling.step import Chain, Repeat, Step
from scorefield.score.parametrisation import LogSigma, ScaledScoreForm

SCHEDULER = "ScoreSdeVeScheduler"
PIPELINE = "ScoreSdeVePipeline"
WEIGHTS = "diffusion_pytorch_model"
SCHEDULER_DEFAULTS: dict[str, Any] = {
    "_class_name": SCHEDULER,
    "num_train_timesteps": 2000,
    "snr": 0.15,
    "sigma_min": 0.01,
    "sigma_max": 1348.0,
    "sampling_eps": 1e-5,
    "correct_steps": 1,
}
"""Defaults in diffusers of the fields of scheduler_config.json."""

CARD = """# {name}

A score-based generative model in the layout of diffusers, written by scorefield from its weights `{weights}`.

```python
from diffusers import ScoreSdeVePipeline

pipeline = ScoreSdeVePipeline.from_pretrained("path/to/this/folder")
image = pipeline().images[0]
```

{notes}"""


def read(checkpoint: Path, config: Path | None, weights: Weights | None, hints: Hints) -> Imported:
    """Read a pipeline's folder, or that of its UNet2DModel with the noise levels given as hints.

    Args:
        checkpoint: The folder.
        config: None: the folder holds its own.
        weights: What to call the one set of weights there is; by default "raw", for the folder does not say.
        hints: sigma_min and sigma_max of a bare network; size where `sample_size` is null.

    Raises:
        CheckpointError: Something is missing, damaged, or cannot be said with NCSNpp; the field is named.
    """
    if config is not None:
        raise CheckpointError(f"a folder of diffusers holds its own configuration; leave --config {config} out")
    unet = _unet_folder(checkpoint)
    fields, notes = unet_fields(_read_json(unet / "config.json"))
    spec = DataSpec(_shape(fields, hints), 0, 255, 256, model_range=(0.0, 1.0))
    network = network_of(fields, spec)
    process, sampler, more = _process_and_sampler(checkpoint, unet, hints)
    tensors, halved = _tensors(unet, network)
    if halved:
        more.append("the tensors were stored in half precision and are float32 here")
    if weights is None:
        more.append("the folder does not say whether its weights are an average; they are called raw here")
    experiment = Experiment(
        name=(unet.parent if unet.name == "unet" else unet).resolve().name,
        data=DataSource(model_range=(0.0, 1.0)),
        spec=spec,
        process=process,
        network=network,
        form=ScaledScoreForm(),
        time_input=LogSigma(),
        objective=DenoisingScoreMatching(reduce="half_sum"),
        sampler=sampler,
        source=f"diffusers, {MODEL} with {SCHEDULER}",
    )
    return Imported(experiment, weights or "raw", tensors, notes=(*notes, *more))


# ---------------------------------------------------------------------------------------------- the files


def _unet_folder(checkpoint: Path) -> Path:
    if checkpoint.is_file():
        raise CheckpointError(f"{checkpoint} is a file; diffusers' layout is a folder, give the one that holds it")
    if not checkpoint.is_dir():
        raise CheckpointError(f"there is no folder {checkpoint}")
    found = checkpoint / "unet" if (checkpoint / "unet").is_dir() else checkpoint
    if not (found / "config.json").is_file():
        raise CheckpointError(
            f"{checkpoint} is no folder of diffusers with a {MODEL}: it has neither unet/config.json nor config.json"
            f" (it holds {_listing(checkpoint)})"
        )
    return found


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "nothing"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not an object of named fields")
    return found


def _tensors(unet: Path, network: NCSNpp) -> tuple[dict[str, Tensor], bool]:
    """The tensors by our names in float32, and whether some had half precision."""
    safe, pickled = unet / f"{WEIGHTS}.safetensors", unet / f"{WEIGHTS}.bin"
    if safe.is_file():
        try:
            found: Any = load_file(safe)
        except (SafetensorError, OSError) as error:
            size = safe.stat().st_size
            raise CheckpointError(f"{safe} ({size} bytes) is truncated or damaged: {error}. Copy it again") from None
    elif pickled.is_file():
        found = read_torch(pickled)
    else:
        raise CheckpointError(
            f"{unet} has neither {safe.name} nor {pickled.name} (it holds {_listing(unet)}). A variant such as fp16, or"
            f" a file in shards, is written as one by {MODEL}.from_pretrained(...).save_pretrained(...)"
        )
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{pickled} holds something else than a dictionary of tensors")
    table = module_names(len(network.channel_multipliers), network.blocks)
    tensors = {our_name(name, table): value for name, value in _modern(found, unet).items()}
    halved = any(value.dtype in (torch.float16, torch.bfloat16) for value in tensors.values())
    return {name: value.float() for name, value in tensors.items()}, halved


def _modern(found: Mapping[str, Tensor], unet: Path) -> dict[str, Tensor]:
    """Names as diffusers writes them today: attention was called otherwise, and W was written twice."""
    later = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    tensors = {}
    for name, value in found.items():
        owner, _, leaf = name.rpartition(".")
        block, _, last = owner.rpartition(".")
        new = f"{block}.{later[last]}.{leaf}" if last in later and ".attentions." in block else name
        new = "time_proj.weight" if name == "time_proj.W" else new
        if new in tensors and not torch.equal(tensors[new], value):
            raise CheckpointError(f"{unet} holds two different tensors for {new}, which diffusers never writes")
        tensors[new] = value
    return tensors


def _shape(fields: Mapping[str, Any], hints: Hints) -> tuple[int, int, int]:
    size = fields["sample_size"] if fields["sample_size"] is not None else hints.size
    if size is None:
        raise CheckpointError("the config.json has sample_size = null; give the images' size with --size PIXELS")
    height, width = (size, size) if isinstance(size, int) else size
    return fields["in_channels"], height, width


# ---------------------------------------------------------------------------------------------- process and sampler


def _process_and_sampler(checkpoint: Path, unet: Path, hints: Hints) -> tuple[VE, Sampler, list[str]]:
    path = checkpoint / "scheduler" / "scheduler_config.json"
    if path.is_file():
        config = {**SCHEDULER_DEFAULTS, **_read_json(path)}
    elif unet != checkpoint or (checkpoint / "model_index.json").is_file():
        raise CheckpointError(
            f"{checkpoint} has no scheduler/scheduler_config.json, which holds the noise levels. To import its network"
            f" alone: scorefield import diffusers {unet} --sigma-min VALUE --sigma-max VALUE --out DIR"
        )
    else:
        why = "a noise level is no tensor"
        given = with_hints(hints, "bare diffusers network", config=False, sigma_min=why, sigma_max=why)
        steps = {} if hints.levels is None else {"num_train_timesteps": hints.levels}
        config = {**SCHEDULER_DEFAULTS, **steps, "sigma_min": given["sigma_min"], "sigma_max": given["sigma_max"]}
    if (name := config["_class_name"]) != SCHEDULER:
        raise CheckpointError(
            f"{path} is of the class {name!r}; only {SCHEDULER}, whose networks return the score at a noise level, can"
            " be imported"
        )
    notes = []
    if config["sampling_eps"] != 1e-5:
        notes.append(f"the scheduler's sampling_eps = {config['sampling_eps']!r} is 1e-5 here, as for every VE process")
    try:
        sampler = _sampler(config["snr"], config["correct_steps"], config["num_train_timesteps"])
        return VE(config["sigma_min"], config["sigma_max"]), sampler, notes
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the scheduler of {checkpoint} has settings that make no sampler: {error}") from None


def _sampler(snr: float, correct_steps: int, steps: int) -> Sampler:
    """Corrector, then predictor, as the pipeline has them; norms are each example's own, not the batch's."""
    if not correct_steps:
        return Sampler(ReverseDiffusion(), Uniform(steps))
    corrector: Step = Langevin(NormRatio(snr, norm="example"))
    if correct_steps > 1:
        corrector = Repeat(corrector, correct_steps)
    return Sampler(Chain((corrector, ReverseDiffusion())), Uniform(steps))


# ---------------------------------------------------------------------------------------------- and back


def export(model: Model | Path, out: Path) -> tuple[str, ...]:
    """Write a model as a folder that `ScoreSdeVePipeline.from_pretrained` and `UNet2DModel.from_pretrained` open.

    Args:
        model: A model, with the weights to write, or its folder: then its first average.
        out: The folder to write.

    Returns:
        What the folder does not say, or says otherwise.

    Raises:
        CheckpointError: Something of the model has no word there, and is named; nothing was written.
    """
    if isinstance(model, Path):
        model = load(model, device="cpu")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists already; choose another --out, or remove it first")
    experiment, spec = model.experiment, model.data
    _check_expressible(experiment, spec)
    assert isinstance(experiment.network, NCSNpp) and isinstance(experiment.process, VE)
    fields = fields_of(experiment.network, spec)
    scheduler, notes = _scheduler(experiment.process, experiment.sampler)
    if (spec.low, spec.high, spec.levels) != (0, 255, 256):
        notes.append(f"data units ({units(spec)}) are not written: diffusers takes [0, 1] for 8-bit images")
    table = module_names(len(fields["block_out_channels"]), fields["layers_per_block"])
    names = {ours: theirs for theirs, ours in table.items()}
    tensors = {}
    for name, value in model.network.state_dict().items():
        module, _, leaf = name.rpartition(".")
        theirs = "time_proj.weight" if name == "time.fourier.W" else f"{names[module]}.{leaf}"
        tensors[theirs] = value.detach().cpu().contiguous()
    index = {"_class_name": PIPELINE, "scheduler": ["diffusers", SCHEDULER], "unet": ["diffusers", MODEL]}
    with replacing_folder(out) as folder:
        (folder / "unet").mkdir()
        (folder / "scheduler").mkdir()
        write_json(folder / "model_index.json", index)
        write_json(folder / "unet" / "config.json", {"_class_name": MODEL, **fields})
        write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
        with replacing(folder / "unet" / f"{WEIGHTS}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        notes_text = "".join(f"* {note}\n" for note in notes)
        write_text(folder / "README.md", CARD.format(name=model.name, weights=model.weights, notes=notes_text))
    return tuple(notes)


def _check_expressible(experiment: Experiment, spec: DataSpec) -> None:
    """Refuse whatever a UNet2DModel with ScoreSdeVeScheduler cannot say, field by field."""
    kinds = {"process": VE, "network": NCSNpp, "form": ScaledScoreForm, "time_input": LogSigma}
    for name, kind in kinds.items():
        if not isinstance(value := getattr(experiment, name), kind):
            raise CheckpointError(
                f"{name} = {value} cannot be exported: {MODEL} with {SCHEDULER} is an {kind.__name__} model there"
            )
    if experiment.levels is not None:
        raise CheckpointError(
            "a model of a discrete ladder (levels) cannot be exported: the scheduler's time is continuous"
        )
    if spec.conditions:
        raise CheckpointError(f"the condition {spec.conditions[0].name!r} cannot be exported: {PIPELINE} has none")
    if len(spec.shape) != 3 or spec.shape[1] != spec.shape[2]:
        raise CheckpointError(f"data of shape {spec.shape} cannot be exported: {PIPELINE} makes square images")
    if not spec.bounded or spec.model_range != (0.0, 1.0):
        given = f"model_range {spec.model_range}" if spec.bounded else "unbounded data"
        raise CheckpointError(
            f"{given} cannot be exported: {PIPELINE} makes images in [0, 1], in the units of its noise"
        )


def _scheduler(process: VE, sampler: Sampler) -> tuple[dict[str, Any], list[str]]:
    """The scheduler's fields, with the sampler's settings where they are a predictor-corrector's."""
    fields = {**SCHEDULER_DEFAULTS, "sigma_min": process.sigma_min, "sigma_max": process.sigma_max}
    if isinstance(sampler.grid, Uniform):
        fields["num_train_timesteps"] = sampler.grid.steps
    match sampler.step:
        case ReverseDiffusion(flow=False):
            return {**fields, "correct_steps": 0}, []
        case Chain(steps=(Langevin() as corrector, ReverseDiffusion(flow=False))):
            times = 1
        case Chain(steps=(Repeat(step=Langevin() as corrector, times=times), ReverseDiffusion(flow=False))):
            pass
        case other:
            return fields, [f"the scheduler's predictor-corrector is not this model's sampler, {type(other).__name__}"]
    note = "the scheduler's Langevin steps use norms over the batch, so that an example depends on others of its batch"
    if not isinstance(corrector.size, NormRatio | NoiseScaled):
        return fields, [note]
    return {**fields, "correct_steps": times, "snr": corrector.size.snr}, [note]
