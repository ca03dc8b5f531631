"""Import of EDM checkpoints against its networks computed anew, and files that must be refused unexecuted."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from interop.edm_files import CLASSES, DDPMPP, NCSNPP, Persistent, denoised, dumps, preconditioned, snapshot
from scorefield.interop import CheckpointError, Hints, checkpoint_files, edm, import_checkpoint, restricted_pickle
from scorefield.models.model import Model, load
from scorefield.nets import NCSNpp
from scorefield.process import VE, VP
from scorefield.sampling.sampler import Sampler
from scorefield.score.oracles import Gaussian
from scorefield.score.parametrisation import KarrasForm, LogRatio, LogSigma, NoiseForm, ScaledScoreForm, ScaledTime
from tolerance import FLOAT32_NETWORK, NETWORK_OF_SIGMA, TWO_INTEGRATORS

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "DDPM++": ("EDMPrecond", {**DDPMPP, "augment_dim": 9}),
    "NCSN++": ("EDMPrecond", {**NCSNPP, "augment_dim": 9}),
    "DDPM++ as VP": ("VPPrecond", DDPMPP),
    "NCSN++ as VE": ("VEPrecond", NCSNPP),
    "NCSN++ of classes": ("EDMPrecond", {**NCSNPP, **CLASSES}),
    "DDPM++ of classes as VP": ("VPPrecond", {**DDPMPP, **CLASSES}),
    "skips": ("VEPrecond", {**NCSNPP, "encoder_type": "skip", "decoder_type": "skip"}),
    "skips by means": ("EDMPrecond", {**DDPMPP, "encoder_type": "skip", "decoder_type": "skip"}),
    "residual by means": ("EDMPrecond", {**DDPMPP, "encoder_type": "residual", "num_blocks": 2}),
    "no attention in levels": ("EDMPrecond", {**DDPMPP, "attn_resolutions": [], "channel_mult": [2, 2]}),
}
SIGMA = torch.tensor([0.05, 0.7, 20.0], dtype=torch.float64)
PROCESSES = {"EDMPrecond": VE(0.002, 80.0), "VPPrecond": VP(0.1, 20.0), "VEPrecond": VE(0.01, 50.0)}
FORMS = {
    "EDMPrecond": (KarrasForm(0.5), LogRatio()),
    "VPPrecond": (NoiseForm(), ScaledTime(999.0)),
    "VEPrecond": (ScaledScoreForm(), LogSigma()),
}


def imported(tmp_path: Path, kind: str, **given: Any) -> tuple[Persistent, Model]:
    """A random network of EDM, and the model that was read from its file; both in float64."""
    torch.manual_seed(0)
    outer = preconditioned(kind, **given)
    import_checkpoint("edm", snapshot(tmp_path / "network-snapshot-001000.pkl", outer), tmp_path / "ours")
    model = load(tmp_path / "ours", device="cpu")
    model.network.double()
    return outer.double(), model


def ours(model: Model, x: torch.Tensor, sigma: torch.Tensor, condition: Any = None) -> torch.Tensor:
    """Our denoiser in EDM's terms: images in [-1, 1] with noise of deviation sigma."""
    low = model.data.model_range[0]
    half = 0.5 if low == 0.0 else 1.0  # units of [0, 1] are twice as long
    t = model.process.time_at_log_snr(-2.0 * (half * sigma).log())
    state = model.process.alpha(t).reshape(-1, 1, 1, 1) * (half * x + (1.0 - half))
    return (model.denoise(state, t, condition) - (1.0 - half)) / half


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = NETWORK_OF_SIGMA) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


# ---------------------------------------------------------------------------------------------- the same function


@pytest.mark.parametrize("name", CASES)
def test_denoiser_equals_edm(tmp_path: Path, name: str) -> None:
    kind, given = CASES[name]
    theirs, model = imported(tmp_path, kind, **given)
    assert model.process == PROCESSES[kind]
    assert (model.experiment.form, model.experiment.time_input) == FORMS[kind]
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64) * (1.0 + SIGMA.reshape(-1, 1, 1, 1))
    with torch.no_grad():
        # D is nearly x where sigma is small: compare what the network adds.
        assert close(ours(model, x, SIGMA) - x, denoised(theirs, x, SIGMA) - x)
        if "label_dim" in given:
            labels = torch.tensor([2, 0, 1])
            known = denoised(theirs, x, SIGMA, torch.eye(3, dtype=torch.float64)[labels])
            # W onehot sqrt(3) + b is one row of our table, rounded to float32 once.
            assert close(ours(model, x, SIGMA, {"class": labels}) - x, known - x, FLOAT32_NETWORK)
            assert not close(known - x, denoised(theirs, x, SIGMA) - x)


def test_what_is_recorded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = snapshot(
        tmp_path / "network-snapshot-001000.pkl", preconditioned("EDMPrecond", **NCSNPP, **CLASSES, augment_dim=9)
    )
    assert checkpoint_files.recognise(path) == "edm"
    found = edm.read(path, None, None, Hints(sigma_min=0.01, sigma_max=40.0))
    experiment = found.experiment
    assert experiment.process == VE(0.01, 40.0) and found.weights == "ema"
    assert isinstance(experiment.network, NCSNpp) and experiment.network.dropout == 0.13
    assert experiment.training.condition_dropout == 0.1
    assert experiment.spec is not None and experiment.spec.model_range == (-1.0, 1.0)
    assert [c.size for c in experiment.spec.conditions] == [3]
    notes = " ".join(found.notes)
    assert "map_augment" in notes and "1000 thousand" in notes and "sigma = 0" in notes


def test_imported_model_samples(tmp_path: Path) -> None:
    _, model = imported(tmp_path, "EDMPrecond", **DDPMPP)
    model.network.float()
    samples = model.sample(2, sampler=model.sampler(None, 5), seed=3)
    assert bool(samples.x.isfinite().all()) and samples.nfe.tolist() == [11, 11]


def test_default_sampler_makes_the_eighteen_steps_of_edm(tmp_path: Path) -> None:
    """EDM's are Heun's in sigma, and Euler's to 0; its smallest level lies a 1e-4 of itself below ours."""
    torch.manual_seed(0)
    path = snapshot(tmp_path / "a.pkl", preconditioned("EDMPrecond", **DDPMPP))
    sampler: Sampler = edm.read(path, None, None, Hints()).experiment.sampler
    process = VE(0.002, 80.0)
    for v in (0.25, 0.01, 1e-4):
        latent = torch.ones(1, 1, dtype=torch.float64)
        run = sampler.run(Gaussian(process, torch.zeros(1), v), (1,), indices=[0], latent=latent, dtype=torch.float64)
        assert float(run.x) == pytest.approx(_edm_sampler(v, 18), rel=TWO_INTEGRATORS)
        assert float(run.x) != pytest.approx(_edm_sampler(v, 19), rel=TWO_INTEGRATORS)
        assert run.calls.tolist() == [35]


def _edm_sampler(v: float, steps: int) -> float:
    ends = (80.0 ** (1 / 7), 0.002 ** (1 / 7))
    grid = [(ends[0] + i / (steps - 1) * (ends[1] - ends[0])) ** 7 for i in range(steps)]
    x = 1.0
    for a, b in zip(grid, [*grid[1:], 0.0], strict=True):
        slope = x * a / (a * a + v)
        guess = x + (b - a) * slope
        x = x + (b - a) / 2 * (slope + guess * b / (b * b + v)) if b else guess
    return x


# ---------------------------------------------------------------------------------------------- refused


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def refusal(path: Path, **given: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        edm.read(path, given.get("config"), given.get("weights"), Hints())
    return str(caught.value)


def test_code_is_refused_and_not_executed(tmp_path: Path) -> None:
    witness, path = tmp_path / "executed", tmp_path / "evil.pkl"
    command = f"touch {witness}"
    net = preconditioned("EDMPrecond", **DDPMPP)
    evil = {
        os.system.__module__ + ".system": Call(os.system, command),
        "builtins.eval": Call(eval, f"__import__('pathlib').Path({str(witness)!r}).touch()"),
        "builtins.getattr": Call(getattr, "", "upper"),
    }
    for name, call in evil.items():
        # The file does run it when it is unpickled the usual way, so that the test can fail.
        witness.unlink(missing_ok=True)
        pickle.loads(pickle.dumps(call))
        assert witness.exists() or name == "builtins.getattr"
        witness.unlink(missing_ok=True)
        for content in ({"ema": call}, {"ema": net, "loss_fn": call}, call):
            path.write_bytes(dumps(content))
            assert f"asks for {name}. " in refusal(path) and "Nothing was executed" in refusal(path)
            assert not witness.exists()


def test_source_text_in_the_file_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = tmp_path / "executed"
    monkeypatch.setattr(Persistent, "source", f"open({str(witness)!r}, 'w')")
    torch.manual_seed(0)
    content = snapshot(tmp_path / "a.pkl", preconditioned("EDMPrecond", **DDPMPP))
    assert str(witness).encode() in content.read_bytes()
    edm.read(content, None, None, Hints())
    assert not witness.exists()


def test_code_inside_the_bytes_of_a_tensor_is_refused(tmp_path: Path) -> None:
    witness, file = tmp_path / "executed", io.BytesIO()
    torch.save(Call(os.system, f"touch {witness}"), file, _use_new_zipfile_serialization=False)
    storage = Call(torch.storage._load_from_bytes, file.getvalue())
    (tmp_path / "a.pkl").write_bytes(dumps({"ema": storage}))
    assert "cannot be read" in refusal(tmp_path / "a.pkl")
    assert not witness.exists()


def test_instructions_that_reach_around_the_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    programs = {
        # an attribute of an allowed name, which pickle would look up from protocol 4 on
        b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.__init_subclass__\x93.": "OrderedDict.__init_subclass__",
        b"\x80\x02cbuiltins\neval\n.": "asks for builtins.eval",
        b"\x80\x02(ios\nsystem\n.": "instruction INST",
        b"\x80\x02\x82\x01.": "instruction EXT1",
        b"\x80\x02]Pevil\n.": "instruction PERSID",
        b"\x80\x02ccollections\nOrderedDict\n}b.": "sets attributes of a _Name",
        b"\x80\x02ccollections\nOrderedDict\nK\x01a.": "adds entries to a _Name",
        b"\x80\x02K\x01)R.": "calls something that is no name",
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.": "numbers of the type 'O8'",
    }
    for program, why in programs.items():
        path.write_bytes(program)
        with pytest.raises(CheckpointError) as caught:
            restricted_pickle.read_pickle(path)
        assert why in str(caught.value), program


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = snapshot(tmp_path / "a.pkl", preconditioned("EDMPrecond", **DDPMPP))
    content = path.read_bytes()
    for length in (100, 5000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "truncated or damaged" in refusal(path), length
    for program in (b"\x80\x04.", b"\x80\x04K\x01", b"\x80\x04h\x09.", b"\x80\x04t.", b"\x80\x04}]K\x01s."):
        path.write_bytes(program)
        assert "truncated or damaged" in refusal(path)
    path.write_bytes(b"")
    assert "'empty'" in refusal(path)
    torch.save({"model": {}, "ema": {}}, path)
    assert "looks like score-sde" in refusal(path)
    assert "there is no file" in refusal(tmp_path / "b.pkl")
    assert "leave --config" in refusal(path, config=Path("c"))
    assert "--weights ema" in refusal(path, weights="raw")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    rebuild, (numbers, *_) = torch.zeros(4).__reduce_ex__(4)
    call = Call(rebuild, numbers, 0, (100,), (1,), False, {})
    (tmp_path / "a.pkl").write_bytes(dumps({"ema": call}))
    assert "cannot be read" in refusal(tmp_path / "a.pkl")


def changed(tmp_path: Path, change: Any, kind: str = "EDMPrecond", **given: Any) -> str:
    """The refusal of a network after a change."""
    torch.manual_seed(0)
    outer = preconditioned(kind, **{**DDPMPP, **given})
    change(outer)
    return refusal(snapshot(tmp_path / "a.pkl", outer))


def test_other_networks_are_refused_by_name(tmp_path: Path) -> None:
    def set_kind(of: str, kind: str) -> Any:
        return lambda outer: setattr(outer.model if of == "model" else outer, "kind", kind)

    assert "DhariwalUNet, that of ADM" in changed(tmp_path, set_kind("model", "DhariwalUNet"))
    assert "MyUNet, and only SongUNet" in changed(tmp_path, set_kind("model", "MyUNet"))
    assert "is a iDDPMPrecond" in changed(tmp_path, set_kind("outer", "iDDPMPrecond"))
    assert "argument 'my_option'" in changed(tmp_path, lambda o: o.model._init_kwargs.update(my_option=1))
    assert "by name" in changed(tmp_path, lambda o: setattr(o.model, "_init_args", (16,)))
    assert "no network `model`" in changed(tmp_path, lambda o: o._modules.pop("model"))
    assert "make no process" in changed(tmp_path, lambda o: setattr(o, "sigma_data", "big"))
    assert "not laid out" in changed(tmp_path, lambda o: o.model._init_kwargs.pop("img_resolution"))
    (tmp_path / "b.pkl").write_bytes(dumps({"net": 1}))
    assert "no entry `ema`" in refusal(tmp_path / "b.pkl")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"channel_mult_noise": 2}, "channel_mult_noise = 2"),
        ({**NCSNPP, "channel_mult_noise": 1}, "channel_mult_noise = 1"),
        ({"channel_mult_emb": 2}, "channel_mult_emb = 2"),
        ({"resample_filter": [1, 2, 1]}, "resample_filter = (1.0, 2.0, 1.0)"),
        ({"resample_filter": [1, 2, 3, 4]}, "resample_filter"),
        ({"encoder_type": "wavelet"}, "encoder_type = 'wavelet'"),
        ({"img_resolution": 15}, "halves 15 pixels"),
        ({"out_channels": 6}, "out_channels = 6"),
        ({"dropout": 2.0}, "dropout"),
    ],
)
def test_arguments_without_a_word_here_are_refused(tmp_path: Path, given: dict[str, Any], named: str) -> None:
    def change(outer: Any) -> None:
        outer.model._init_kwargs.update(given)

    assert named in changed(tmp_path, change)


def test_changed_layers_are_refused(tmp_path: Path) -> None:
    def change(path: str, name: str, value: Any) -> Any:
        return lambda outer: setattr(outer.model.get_submodule(path), name, value)

    assert "enc.8x8_block0.norm0 has eps = 1e-05" in changed(tmp_path, change("enc.8x8_block0.norm0", "eps", 1e-5))
    assert "norm2 has num_groups = 2" in changed(tmp_path, change("dec.8x8_in0.norm2", "num_groups", 2))
    assert "skip_scale = 1.0" in changed(tmp_path, change("dec.8x8_in1", "skip_scale", 1.0))
    assert "adaptive_scale = True" in changed(tmp_path, change("dec.8x8_in1", "adaptive_scale", True))
    assert "num_heads = 4" in changed(tmp_path, change("dec.8x8_in0", "num_heads", 4))
    message = changed(tmp_path, change("enc.8x8_down.conv0", "resample_filter", torch.ones(1, 1, 4, 4)))
    assert "the filter of enc.8x8_down.conv0" in message


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    outer = preconditioned("EDMPrecond", **DDPMPP)
    outer.model._init_kwargs["num_blocks"] = 2
    path = snapshot(tmp_path / "a.pkl", outer)
    with pytest.raises(CheckpointError, match="differences"):
        import_checkpoint("edm", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
