"""The U-Net of a checkpoint of the SDE framework, told from the names and shapes of its tensors alone.

The modules of the release's list are recognised by their tensors and read from first to last, as the network was
built: embedding, levels downwards, middle, levels upwards. Modules without parameters leave gaps in the numbering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor

from scorefield.interop.import_result import CheckpointError, Hints, with_hints
from scorefield.interop.noise_table import rounded
from scorefield.interop.score_sde_config import published_sampler
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.unets.ncsnpp import NCSNpp
from scorefield.recipes.sde_configuration import Configuration

Shape = Sequence[int]


class Found(NamedTuple):
    """A network told from its tensors.

    Attributes:
        network: Its configuration.
        colours: Channels of the images.
        notes: What the tensors do not tell and was assumed.
    """

    network: NCSNpp | DDPM
    colours: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Module:
    """One entry of the release's list.

    Args:
        kind: What it is; "sampler" and "fir" change the size by a convolution, without and with the filter; a "gap" has
            no parameters; a block that changes the size is "resampling".
        inputs: Channels in.
        outputs: Channels out.
    """

    kind: Literal[
        "fourier", "dense", "conv", "norm", "block", "resampling", "attention", "combine", "sampler", "fir", "gap"
    ]
    inputs: int = 0
    outputs: int = 0


def modules(shapes: Mapping[str, Shape]) -> list[Module]:
    """The release's list of modules, `all_modules.0` first.

    Raises:
        CheckpointError: A module is none of a U-Net of the release.
    """
    found: dict[int, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        _, index, leaf = name.split(".", 2)
        found.setdefault(int(index), {})[leaf] = shape
    return [_module(i, found.get(i, {})) for i in range(max(found) + 1)]


def _module(index: int, leaves: Mapping[str, Shape]) -> Module:
    if not leaves:
        return Module("gap")
    if "W" in leaves:
        return Module("fourier", 1, leaves["W"][0])
    if "NIN_3.W" in leaves:
        return Module("attention", *leaves["NIN_3.W"])
    if (first := leaves.get("Conv_0.weight")) is not None and "GroupNorm_1.weight" in leaves:
        outputs, inputs = first[:2]
        resamples = inputs == outputs and "Conv_2.weight" in leaves  # else only blocks that change width have it
        return Module("resampling" if resamples else "block", inputs, outputs)
    if (shape := leaves.get("Conv2d_0.weight")) is not None:
        return Module("fir", shape[1], shape[0])
    if (shape := leaves.get("Conv_0.weight")) is not None:
        return Module("combine" if tuple(shape[2:]) == (1, 1) else "sampler", shape[1], shape[0])
    if (shape := leaves.get("weight")) is not None and len(shape) in (1, 2, 4):
        kind = {1: "norm", 2: "dense", 4: "conv"}[len(shape)]
        return Module(cast(Any, kind), shape[-1] if len(shape) == 1 else shape[1], shape[0])
    raise CheckpointError(
        f"module {index} of the checkpoint's list holds {', '.join(leaves)}, which no network of the release does"
    )


_SAMPLERS = ("resampling", "sampler", "fir", "gap")
"""The layers between two resolutions."""


class _Reader:
    """The list of modules, read once from first to last."""

    def __init__(self, listed: list[Module]):
        self.rest = listed[::-1]
        self.count = len(listed)

    def peek(self) -> Module:
        return self.rest[-1] if self.rest else Module("gap")

    def take(self, *kinds: str) -> Module:
        """The next module, which must be one of these.

        Raises:
            CheckpointError: The tensors are of another network.
        """
        at = self.count - len(self.rest)
        if not self.rest or self.rest[-1].kind not in kinds:
            what = self.rest[-1].kind if self.rest else "the end"
            raise CheckpointError(
                f"the list of modules is that of no U-Net of the release: at {at} stands {what} where"
                f" {' or '.join(kinds)} should. Give the release's configuration with --config"
            )
        return self.rest.pop()

    def skip(self, *kinds: str) -> Module | None:
        """The next module if it is one of these."""
        return self.rest.pop() if self.rest and self.rest[-1].kind in kinds else None


def network_of(shapes: Mapping[str, Shape], size: int, *, centered: bool) -> Found:
    """The configuration of a U-Net from the tensors of the release's list.

    Args:
        shapes: Release's name -> shape, for every `all_modules.*` tensor.
        size: Height and width of the images, which say where attention is.
        centered: Whether the images are in [-1, 1].

    Raises:
        CheckpointError: The list is that of no U-Net of the release.
    """
    listed = modules(shapes)
    reader = _Reader(listed)
    fourier = reader.skip("fourier") is not None
    conditional = reader.skip("dense") is not None
    if conditional:
        reader.take("dense")
    conv = reader.take("conv")
    channels, colours = conv.outputs, conv.inputs
    biggan = any(name.endswith(".Conv_2.weight") for name in shapes)
    network = NCSNpp(
        channels=channels,
        dropout=0.0,
        time_conditional=conditional,
        block="biggan" if biggan else "ddpm",
        embedding="fourier" if fourier else "positional",
        centered=centered,
    )
    network = _way_down(reader, network, size)
    for kind in ("block", "attention", "block"):
        reader.take(kind)
    network = _way_up(reader, network, colours)
    if any(m.kind == "gap" for m in listed):
        network = replace(network, resample_with_conv=False)
    return _with_filter(listed, network, colours)


def _way_down(reader: _Reader, network: NCSNpp, size: int) -> NCSNpp:
    """Read the levels downwards: multipliers, blocks, attention and the input's pyramid."""
    per_level, multipliers, attends, level = max(_first_level(reader), 1), [], [], 0
    pyramid, combine = "none", "sum"
    while True:
        for j in range(per_level):
            block = reader.take("block")
            if j == 0 and pyramid == "input_skip" and block.inputs == 2 * network.channels * multipliers[-1]:
                combine = "cat"
            if reader.skip("attention") and j == 0:
                attends.append(size // 2**level)
        multipliers.append(block.outputs // network.channels)
        if not _resamples(reader):
            break
        reader.take(*_SAMPLERS)
        if reader.skip("combine"):
            pyramid = "input_skip"
        elif reader.skip("sampler", "fir"):
            pyramid = "residual"
        level += 1
    return replace(
        network,
        channel_multipliers=tuple(multipliers),
        blocks=per_level,
        attention_sizes=tuple(attends),
        progressive_input=pyramid,
        progressive_combine=combine,
    )


def _resamples(reader: _Reader) -> bool:
    return reader.peek().kind in _SAMPLERS


def _first_level(reader: _Reader) -> int:
    """Blocks per level: those before the first change of size; a network without one has 2 R + 3 of them."""
    count, blocks = 0, sum(m.kind == "block" for m in reader.rest)
    for module in reversed(reader.rest):
        if module.kind not in ("block", "attention"):
            break
        count += module.kind == "block"
    return (blocks - 3) // 2 if count == blocks else count


def _way_up(reader: _Reader, network: NCSNpp, colours: int) -> NCSNpp:
    """Read the levels upwards: the output's pyramid, and the last layers."""
    levels, pyramid = len(network.channel_multipliers), "none"
    for level in reversed(range(levels)):
        for _ in range(network.blocks + 1):
            reader.take("block")
        reader.skip("attention")
        if level == levels - 1 and level > 0 and reader.skip("norm"):
            pyramid = "output_skip" if reader.take("conv").outputs == colours else "residual"
        elif pyramid == "output_skip":
            reader.take("norm")
            reader.take("conv")
        elif pyramid == "residual":
            reader.take("sampler", "fir")
        if level:
            reader.take(*_SAMPLERS)
    if pyramid != "output_skip":
        reader.take("norm")
        reader.take("conv")
    if reader.rest:
        reader.take("the end")
    return replace(network, progressive=pyramid)


def _with_filter(listed: list[Module], network: NCSNpp, colours: int) -> Found:
    """Settle what tensors may not show: the filter, and which of two networks with the same tensors it is."""
    seen = any(m.kind == "fir" for m in listed)
    pyramids = network.progressive != "none" or network.progressive_input != "none"
    plain = network.block == "ddpm" and network.embedding == "positional" and not pyramids and not seen
    assumed = ["swish", "attention where it is at that image size", "no dropout (it acts in training only)"]
    if plain:
        assumed.insert(0, "the plain DDPM U-Net with 32 groups")
        return _found(DDPM(**{f.name: getattr(network, f.name) for f in fields(DDPM)}), colours, assumed)
    if any(m.kind in ("sampler", "fir") for m in listed):
        fir = seen
    else:  # the published networks with pyramids or Fourier features have the filter, DDPM++ has not
        fir = pyramids or network.embedding == "fourier"
        assumed.insert(0, f"{'FIR filters' if fir else 'means and repetition'} for resampling")
    assumed.insert(0, "sums over sqrt(2)")
    return _found(replace(network, fir=fir), colours, assumed)


def _found(network: NCSNpp | DDPM, colours: int, assumed: list[str]) -> Found:
    note = f"Told from the shapes of the tensors: the network. Assumed, as published: {', '.join(assumed)}."
    return Found(network, colours, (note,))


# ---------------------------------------------------------------------------------------------- configuration


def configuration_of(
    shapes: Mapping[str, Shape], sigmas: Tensor | None, hints: Hints
) -> tuple[Configuration, tuple[str, ...]]:
    """A configuration from tensors, hints and what is published, and sentences that say which is which.

    Args:
        shapes: Release's name -> shape of the model's tensors.
        sigmas: The table of noise levels beside them, most noise first, if there is one.
        hints: Hints given by the user.

    Raises:
        CheckpointError: The tensors are not those of a U-Net, or a hint is missing.
    """
    if not all(name.startswith("all_modules.") for name in shapes):
        raise CheckpointError(
            "NCSN and NCSNv2 of the score-sde release cannot be identified from their tensors; give their"
            " configuration with"
            " --config FILE"
        )
    fourier = "all_modules.0.W" in shapes
    needed: dict[str, Any] = {"size": "convolutions take any size"}
    if not fourier and hints.process is None:
        needed["process"] = "all have the same tensors"
    if not fourier and hints.discrete is None and hints.process != "subvp":
        needed["discrete"] = "labels of levels and continuous times enter the same layer"
    process = hints.process or "ve"
    if process == "ve" and sigmas is None:
        needed |= dict.fromkeys(("sigma_min", "sigma_max", "levels"), "this file has no table of sigmas")
    given = with_hints(hints, "score-sde", **needed)
    continuous = not bool(hints.discrete)
    size = int(cast(int, given["size"]))
    found = network_of(shapes, size, centered=process != "ve")
    run = _published_run(process, found, size, continuous)
    numbers = {k: given[k] for k in ("sigma_min", "sigma_max", "levels") if given[k] is not None}
    if sigmas is not None:
        numbers = {
            "sigma_min": rounded(sigmas[-1]),
            "sigma_max": rounded(sigmas[0]),
            "levels": len(sigmas),
        } | numbers
    try:
        run = replace(run, **cast(Any, numbers))
    except ValueError as error:
        raise CheckpointError(f"the flags do not fit this checkpoint: {error}") from None
    kind = {"ve": "VE", "vp": "VP", "subvp": "sub-VP"}[process]
    told = "" if hints.process else " (the release has Fourier features only there)"
    rest = f"No configuration was given. {kind}, {'continuous' if continuous else 'discrete'}{told}"
    betas = "" if process == "ve" else f", beta from {run.beta_min:g} to {run.beta_max:g}"
    return run, (f"{rest}{betas}; sampler and training are those published for such models.", *found.notes)


def _published_run(process: Literal["ve", "vp", "subvp"], found: Found, size: int, continuous: bool) -> Configuration:
    ve, sampler = process == "ve", published_sampler(process, found.network, size, continuous)
    assert sampler is not None
    try:
        return Configuration(
            process=process,
            network=found.network,
            continuous=continuous,
            shape=(found.colours, size, size),
            divided=ve,
            predictor=sampler.predictor,
            corrector=sampler.corrector,
            snr=sampler.snr,
            reduce="half_sum" if ve else "mean",
            ema=0.999 if ve else 0.9999,
        )
    except ValueError as error:
        raise CheckpointError(f"the flags do not fit this checkpoint: {error}") from None


def contradictions(shapes: Mapping[str, Shape], run: Configuration) -> list[str]:
    """Fields of a configuration that the tensors contradict, one line each; none where they tell no U-Net."""
    size, network = run.shape[1], run.network
    if isinstance(network, DDPM):
        network = NCSNpp(**vars(network), block="ddpm", fir=False, progressive_input="none", embedding="positional")
    try:
        found = network_of(shapes, size, centered=run.network.centered)
    except (CheckpointError, ValueError):
        return []
    theirs = found.network
    if isinstance(theirs, DDPM):
        theirs = NCSNpp(**vars(theirs), block="ddpm", fir=False, progressive_input="none", embedding="positional")
    if not isinstance(network, NCSNpp):
        return [f"  the network: configuration {type(network).__name__}, checkpoint {type(found.network).__name__}"]
    lines = []
    sizes = {size // 2**level for level in range(len(network.channel_multipliers))}
    for name in _TOLD:
        ours, told = getattr(network, name), getattr(theirs, name)
        if name == "attention_sizes":
            ours = tuple(sorted(set(ours) & sizes, reverse=True))
        if ours != told:
            lines.append(f"  {name}: configuration {ours}, checkpoint {told}")
    if found.colours != run.shape[0]:
        lines.append(f"  channels of an image: configuration {run.shape[0]}, checkpoint {found.colours}")
    return lines


_TOLD = (
    "channels",
    "channel_multipliers",
    "blocks",
    "attention_sizes",
    "time_conditional",
    "block",
    "progressive",
    "progressive_input",
    "progressive_combine",
    "embedding",
)
"""Fields that tensors tell for certain."""
