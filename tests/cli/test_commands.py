"""The command line: what it prints, writes and refuses. One message, exit status 2, no traceback."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield.recipes
from scorefield._codec import dumps
from scorefield.cli import main
from scorefield.cli.console.arguments import SAMPLERS
from scorefield.cli.console.old_spellings import ACTIONS, FLAGS, translated
from scorefield.cli.main import ALONE, VERBS, _flags
from scorefield.models.sample_folder import read_samples
from scorefield.recipes import RECIPES, recipe, summaries
from scorefield.sampling.named import NAMED
from scorefield.training.trainer import train
from training.tiny import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model folder."""
    return train(tiny(steps=10, checkpoint_every=10), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Run a command that must fail; returns its message."""

    def run(*words: str | Path) -> str:
        try:
            status = main([str(w) for w in words])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        assert status == 2, f"exit status {status}\n{out}\n{err}"
        assert "Traceback" not in err + out
        return err + out

    return run


# ------------------------------------------------------------------------------------------------ the front


@pytest.mark.parametrize("words", [["--help"], ["recipes"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_and_the_list_of_recipes_need_no_torch(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        f"import sys\nfrom scorefield.cli import main\ntry:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in ('torch', 'numpy', 'matplotlib') if m in sys.modules]\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


def test_choices_are_what_the_packages_hold() -> None:
    assert set(SAMPLERS.split("|")) == set(NAMED)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_flags_and_an_action(verb: str) -> None:
    """And a help text for every flag, which stands alone."""
    flags = _flags(verb)
    module = sys.modules[flags.__module__]
    assert callable(module.run) and (flags.__doc__ or "").strip().endswith(".")
    actions = get_args(get_type_hints(flags)["action"]) if verb in ACTIONS else (flags,)
    for action in actions:
        text = _help([verb, *([_name_of(verb, action)] if verb in ACTIONS else []), "--help"])
        assert " STR" not in text and "As for `" not in text, text


def _name_of(verb: str, action: type) -> str:
    hints = get_type_hints(_flags(verb), include_extras=True)["action"]
    union = get_args(hints)[0]
    (name,) = (get_args(part)[1].name for part in get_args(union) if get_args(part)[0] is action)
    return name


def _help(words: list[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)
    return out.getvalue()


@pytest.mark.parametrize("verb", sorted(set(VERBS) - set(ALONE)))
def test_a_verb_without_arguments_shows_its_help(verb: str) -> None:
    assert f"usage: scorefield {verb}" in _help([verb])


def test_an_action_without_a_model_shows_its_help() -> None:
    assert "usage: scorefield energy logz" in _help(["energy", "logz"])


@pytest.mark.parametrize("words", [["sampel"], ["sampel", "--help"], ["sampel", "digits", "-n", "4"]], ids=" ".join)
def test_an_unknown_verb_is_an_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "there is no command 'sampel'. Did you mean sample" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_shells(shell: str) -> None:
    text = _help(["--completion", shell])
    assert "compare-samplers" in text and "--batch-size" in text


@pytest.mark.parametrize("words", ["--help", "recipes", "sample --help", "describe digits"])
def test_a_reader_that_leaves_early_is_no_error(words: str) -> None:
    """`scorefield recipes | head -1`, with a pipe whose reading end is closed at once."""
    code = f"import sys; from scorefield.cli import main; sys.exit(main({words.split()!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr as stream:
        assert stream.read() == b""
    assert process.wait() == 0


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "scorefield", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("scorefield ")


# ------------------------------------------------------------------------------------------------ words of version 0.1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("energy runs/e logz --most-rungs 9", "energy logz runs/e --max-rungs 9"),
        ("edit digits inpaint --answers=3", "edit inpaint digits --samples=3"),
        ("edit digits class --label 3", "edit class digits --label 3"),
        (
            "energy runs/e outliers --out uniform --in x.npy --report r",
            "energy outliers runs/e --outliers uniform --data x.npy --out r",
        ),
        ("compare-samplers digits --data x.npy", "compare-samplers digits --reference x.npy"),
        ("tune digits --data x.npy", "tune digits --reference x.npy"),
        ("likelihood digits --way both", "likelihood digits --method both"),
        ("calibrate digits --answers 8", "calibrate digits --samples 8"),
    ],
)
def test_old_spellings_are_translated_with_a_warning(old: str, new: str) -> None:
    words, warnings = translated(old.split())
    assert words == new.split() and warnings
    assert translated(words) == (words, [])


def test_present_spellings_are_left_alone() -> None:
    for words in ("energy outliers m --outliers uniform --out r", "evaluate digits --out x", "train r --data d", ""):
        assert translated(words.split()) == (words.split(), [])


def test_every_new_flag_of_the_table_exists() -> None:
    for (verb, _), flag in FLAGS.items():
        names = ACTIONS.get(verb, ("",))
        assert any(f"{flag} " in _help([verb, *([name] if name else []), "--help"]) for name in names), (verb, flag)


def test_an_old_spelling_still_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["edit", "digits", "inpaint", "-n", "1", "--answers", "2", "--steps", "3", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "warning: `edit MODEL inpaint` is now `scorefield edit inpaint digits`" in captured.err
    assert "warning: --answers is now --samples" in captured.err


# ------------------------------------------------------------------------------------------------ plugins


def test_plugins_and_trust_are_taken_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adds_a_recipe.py").write_text(
        "from scorefield.recipes import RECIPES, recipe\n"
        "@RECIPES.add('added')\ndef added():\n    'One more recipe.'\n    return recipe('digits-mlp')\n"
    )
    plugin = str(tmp_path / "adds_a_recipe.py")
    try:
        assert main(["recipes", "--plugin", plugin]) == 0
        assert "One more recipe." in capsys.readouterr().out
        assert main([f"--plugin={plugin}", "describe", "added"]) == 0
        assert main(["describe", "digits", "--trust", "not a name"]) == 2
        assert "--trust 'not a name' names neither" in capsys.readouterr().err
        assert main(["recipes", "--plugin"]) == 2
        assert main(["recipes", "--plugin", "no_such_plugin"]) == 2
        assert "no plugin module 'no_such_plugin'" in capsys.readouterr().err
    finally:
        RECIPES.pop("added", None)


def test_the_list_of_recipes_is_that_of_the_package() -> None:
    """Written by tools/list_recipes.py."""
    package = Path(str(scorefield.recipes.__file__))
    assert json.loads(package.with_name("summaries.json").read_text()) == summaries()


def test_recipes_and_describe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in RECIPES)
    assert main(["describe", "ve-cifar10-ncsnpp-continuous", "--set", "network.channels=64"]) == 0
    text = capsys.readouterr().out
    assert "channels = 64" in text and "arXiv:2011.13456" in text and "parameters" in text


def test_describe_counts_the_published_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    main(["describe", "vp-cifar10-ddpmpp-deep-continuous"])
    assert "106,632,579 parameters" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ the job


def test_train_sample_evaluate_likelihood(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path) -> None:
    out = tmp_path / "samples"
    assert (
        main(
            [
                "sample",
                str(model),
                "-n",
                "80",
                "--steps",
                "6",
                "--sampler",
                "em",
                "--out",
                str(out),
                "--batch-size",
                "33",
            ]
        )
        == 0
    )
    folder = read_samples(out)
    assert folder.x.shape == (80, 1, 8, 8) and (out / "grid.png").is_file()
    assert folder.source.nfe == 7 and folder.source.weights == "ema:0.9" and folder.source.seed == 0
    assert main(["evaluate", str(out), "--reference", "digits", "--features", "raw", "--out", str(tmp_path / "e")]) == 0
    record = json.loads((tmp_path / "e" / "metrics.json").read_text())
    receipt = record["samples"][0]["receipt"]
    assert receipt["count"] == 80 and receipt["source"]["weights"] == "ema:0.9" and receipt["reference"]["hash"]
    assert "Frechet" in (tmp_path / "e" / "report.html").read_text()
    assert main(["likelihood", str(model), "-n", "3", "--rtol", "1e-2", "--out", str(tmp_path / "l")]) == 0
    with np.load(tmp_path / "l" / "likelihood.npz") as arrays:
        assert arrays["nats"].shape == (3,) and np.isfinite(arrays["bits_per_dim"]).all()
    assert "bits per dim" in capsys.readouterr().out


def test_samples_are_those_of_the_library(tmp_path: Path, model: Path) -> None:
    from scorefield.models.model import load

    main(
        [
            "sample",
            str(model),
            "-n",
            "5",
            "--start",
            "3",
            "--steps",
            "4",
            "--sampler",
            "em",
            "--seed",
            "9",
            "--out",
            str(tmp_path),
        ]
    )
    expected = load(model).sample(5, start=3, sampler=load(model).sampler("em", 4), seed=9).x
    assert torch.equal(read_samples(tmp_path).x, expected)


def test_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("cube.npy", np.random.default_rng(0).standard_normal((40, 2, 12, 20)).astype(np.float32))
    assert main(["train", "images", "--data", "cube.npy", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "(2, 12, 20)" in text and "35 examples to train on, 5 held out" in text
    assert [p.name for p in tmp_path.iterdir()] == ["cube.npy"]


@pytest.mark.parametrize("shape", [(50, 3), (40, 2, 24), (24, 1, 9, 13), (24, 5, 8, 8)], ids=str)
def test_any_shape_trains_and_samples(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Vectors, signals, odd and multi-channel fields, through the recipe that data inspect suggests."""
    path = tmp_path / "data.npy"
    np.save(path, (3.0 + np.random.default_rng(1).standard_normal(shape)).astype(np.float32))
    recipe = {2: "vectors", 3: "signals", 4: "images"}[len(shape)]
    small = ["training.steps=2", "training.batch_size=8", "training.sample_every=0", "training.validate_every=0"]
    small += ["network.width=8"] if recipe == "vectors" else ["network.channels=8", "network.blocks=1"]
    if len(shape) == 3:
        small.append("data.layout=channels_first")
    words = ["train", recipe, "--data", str(path), "--out", str(tmp_path / "run")]
    for setting in small:
        words += ["--set", setting]
    assert main(words) == 0
    assert (
        main(
            [
                "sample",
                str(tmp_path / "run"),
                "-n",
                "3",
                "--sampler",
                "em",
                "--steps",
                "3",
                "--out",
                str(tmp_path / "s"),
            ]
        )
        == 0
    )
    assert read_samples(tmp_path / "s").x.shape == (3, *shape[1:])


def test_dry_run_of_a_published_recipe_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "subvp-cifar10-ddpmpp-continuous", "--dry-run"]) == 0
    assert "--data PATH" in capsys.readouterr().out


def test_data_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", "digits"]) == 0
    text = capsys.readouterr().out
    assert "1437" in text.replace(",", "") and "scorefield train" in text


# ------------------------------------------------------------------------------------------------ bad input


def test_unknown_names_show_near_ones(refused) -> None:
    assert "Did you mean digits" in refused("train", "digist")
    assert "fashion-mnist" in refused("describe", "fashon-mnist")
    assert "no bundled model" in refused("sample", "nothing-here")


def test_unknown_sampler_shows_the_choices(refused, model: Path) -> None:
    assert "ancestral" in refused("sample", model, "--sampler", "ancestrl")


def test_wrong_types(refused, model: Path) -> None:
    assert "many" in refused("sample", model, "-n", "many")
    assert "training.steps" in refused("train", "digits", "--set", "training.steps=many")
    assert "batch_size" in refused("train", "digits", "--set", "training.bach_size=3")
    assert "FIELD=VALUE" in refused("train", "digits", "--set", "training.steps")
    assert "at least 1" in refused("train", "digits", "--set", "training.steps=0")
    refused("trian", "digits")


def test_recipe_without_data(refused) -> None:
    assert "--data PATH" in refused("train", "images")


def test_empty_folder(refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("train", "images", "--data", tmp_path / "empty")
    assert "nowhere" in refused("train", "images", "--data", tmp_path / "nowhere")


def photos(folder: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for i, (width, height) in enumerate(sizes):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i:02d}.png")
    return folder


def test_a_corrupt_image_is_named_and_skipped_only_on_request(
    refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(tmp_path / "photos", [(8, 8)] * 12)
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:60])
    words = ["--data", str(folder), "--out", str(tmp_path / "run")]
    for setting in (
        "training.steps=2",
        "training.batch_size=8",
        "network.channels=8",
        "network.blocks=1",
        "training.sample_every=0",
    ):
        words += ["--set", setting]
    message = refused("train", "images", *words)
    assert "05.png" in message and "skip" in message
    assert main(["train", "images", *words, "--skip-bad", "--resume", "auto"]) == 0
    assert "05.png" in capsys.readouterr().err


def test_mixed_sizes_and_modes(refused, tmp_path: Path) -> None:
    assert "size" in refused("train", "images", "--data", photos(tmp_path / "a", [(8, 8), (9, 8)]), "--dry-run")
    folder = photos(tmp_path / "b", [(8, 8)] * 3)
    Image.new("L", (8, 8)).save(folder / "grey.png")
    assert "channels" in refused("train", "images", "--data", folder, "--dry-run")


def test_nan_in_an_array(refused, tmp_path: Path) -> None:
    x = np.zeros((20, 4), np.float32)
    x[7, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    assert "NaN" in refused("train", "vectors", "--data", tmp_path / "x.npy", "--dry-run")


def test_data_of_another_shape_than_the_models(refused, tmp_path: Path, model: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 17, (30, 3, 8, 8)).astype(np.float32))
    assert "(3, 8, 8)" in refused("likelihood", model, "--data", tmp_path / "x.npy")
    assert "(1, 8, 8)" in refused(
        "evaluate", model, "--reference", tmp_path / "x.npy", "-n", "4", "--steps", "2", "--sampler", "em"
    )


def test_a_truncated_model(refused, tmp_path: Path, model: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:500])
    assert "truncated" in refused("sample", broken)
    text = (broken / "experiment.json").read_text()
    (broken / "experiment.json").write_text(text.replace('"MLP"', '"MPL"'))
    assert "Did you mean MLP" in refused("sample", broken)


def test_an_existing_run_is_not_overwritten(refused, model: Path) -> None:
    before = (model / "metrics.jsonl").read_bytes()
    assert "--resume auto" in refused("train", "digits-mlp", "--out", model)
    assert (model / "metrics.jsonl").read_bytes() == before


def test_conditions(refused, model: Path) -> None:
    assert "no conditions" in refused("sample", model, "--condition", "class=3")
    assert "NAME=VALUE" in refused("sample", model, "--condition", "class")


def test_no_space(refused, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert "no space left" in refused(
        "sample", model, "-n", "2", "--steps", "2", "--sampler", "em", "--out", tmp_path / "s"
    )
    assert not (tmp_path / "s" / "samples.npz").exists()


def test_ctrl_c_while_sampling_keeps_what_is_done(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scorefield.cli.console.progress import SamplingDisplay

    real = SamplingDisplay.finished

    def stop(self: SamplingDisplay, first: int, part: object) -> None:
        real(self, first, part)
        if first == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(SamplingDisplay, "finished", stop)
    words = ["sample", str(model), "-n", "20", "--batch-size", "4", "--steps", "2", "--sampler", "em"]
    assert main([*words, "--out", str(tmp_path / "part")]) == 130
    assert "--start 8 -n 12" in capsys.readouterr().err
    monkeypatch.undo()
    main([*words, "--out", str(tmp_path / "whole")])
    main([*words, "--start", "8", "-n", "12", "--out", str(tmp_path / "rest")])
    parts = [read_samples(tmp_path / name).x for name in ("part", "rest")]
    torch.testing.assert_close(torch.cat(parts), read_samples(tmp_path / "whole").x, rtol=0, atol=0)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recipe"):
        main(["train", "digist", "--debug"])


def test_two_processes_draw_the_same_samples(tmp_path: Path, model: Path) -> None:
    """Samples do not depend on the number of processes: equal to the rounding of another batch size."""
    from tolerance import SAMPLES_OF_ANOTHER_BATCH
    from training.tiny import _free_port, _spawn

    words = ["sample", str(model), "-n", "13", "--steps", "20", "--sampler", "pc"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    import os

    port, processes = _free_port(), []
    for rank in range(2):
        together = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        launch = [sys.executable, "-m", "scorefield.cli", *words, "--out", str(tmp_path / "two")]
        processes.append(_spawn(launch, {**os.environ, **together, "OMP_NUM_THREADS": "1"}))
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output.decode()
    one, two = (read_samples(tmp_path / name) for name in ("one", "two"))
    torch.testing.assert_close(one.x, two.x, rtol=SAMPLES_OF_ANOTHER_BATCH, atol=16 * SAMPLES_OF_ANOTHER_BATCH)


def test_data_in_the_place_of_a_recipe_is_named_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mine.npy", np.zeros((4, 3), np.float32))
    for target, what in ((tmp_path / "mine.npy", "neither a recipe nor an experiment.json"), (tmp_path, "is a folder")):
        assert main(["train", str(target)]) == 2
        said = capsys.readouterr().err
        assert what in said and f"scorefield train RECIPE --data {target}" in said
    as_data = tmp_path / "settings"  # an experiment may have any name
    as_data.write_text(dumps(recipe("points-2d")), encoding="utf-8")
    assert main(["describe", str(as_data)]) == 0
