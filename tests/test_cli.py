"""The command line: the output of each command, and the errors of invalid input."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli, Install
from PIL import Image
from safetensors.torch import load_file, save_file

import zoo
import zoo.cli
import zoo.hub
from zoo.cli import find_command
from zoo.data.files import GAP
from zoo.inspect.palettes import NOTHING, RAIN
from zoo.plugins import names

DATA = {"name": "mmnist", "size": (64, 64), "input_frames": 3, "horizon": 2}

RECIPE = """
[model]
name = "ms-convlstm"
hidden = 4
layers = 2
patch = 8

[data]
name = "mmnist"
input_frames = 2
horizon = 2

[train]
steps = 2
batch_size = 2
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run commands in an empty folder, without data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_DATA", raising=False)
    return tmp_path


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One tiny built-in model."""
    folder = tmp_path_factory.mktemp("cards")
    torch.manual_seed(0)
    zoo.save(zoo.create("mslstm", hidden=4, layers=2, patch=8, data=DATA), folder / "mslstm-tiny")
    monkeypatch.setattr(zoo.hub, "builtin_folder", lambda: folder)
    return folder


@pytest.fixture
def model(place: Path) -> Path:
    return place / "mslstm-tiny"


@pytest.fixture
def clip(here: Path) -> Path:
    path = here / "clip.npy"
    np.save(path, np.random.default_rng(0).random((5, 1, 16, 24), dtype=np.float32))
    return path


class TidyCli(Cli):
    """The command line, which writes nothing if it fails."""

    def fail(self, *arguments: object) -> str:
        before = sorted(Path().rglob("*"))
        message = super().fail(*arguments)
        assert sorted(Path().rglob("*")) == before
        return message


@pytest.fixture
def cli() -> Cli:
    return TidyCli()


def test_help_imports_nothing_heavy(cli: Cli) -> None:
    """Nothing heavy is imported before a command needs it, so --help answers at once."""
    script = """
import sys
from contextlib import suppress
import zoo, zoo.cli
with suppress(SystemExit):
    zoo.cli.zoo(["--help"])
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "timm", "accelerate", "huggingface_hub"} & set(ran.stderr.split())
    for name in ("list", "info", "pull", "predict", "eval", "train", "demo", "plugins"):
        assert f"\n  {name} " in ran.stdout


@pytest.mark.parametrize("name", names("commands"))
def test_every_command_has_help(cli: Cli, name: str) -> None:
    assert find_command(name)[0].help
    assert cli.succeed(name, "--help").startswith(f"Usage: zoo {name}")


def test_waiting_threads_of_commands_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.setenv("OMP_WAIT_POLICY", value or "")
        if value is None:
            monkeypatch.delenv("OMP_WAIT_POLICY")
        monkeypatch.setattr(sys, "argv", ["zoo", "--version"])
        with pytest.raises(SystemExit):
            zoo.cli.main()
        assert os.environ["OMP_WAIT_POLICY"] == expected


def test_version_is_printed(cli: Cli) -> None:
    assert cli.succeed("--version").startswith("zoo, version 0.")


def test_list_shows_architectures_and_models(cli: Cli, place: Path) -> None:
    rows = {row["name"]: row for row in json.loads(cli.succeed("list", "--json"))}
    assert {"convlstm", "ms-convlstm", "ms-mklstm", "mslstm-tiny"} <= rows.keys()
    assert rows["ms-mklstm"]["aliases"] == ["mslstm", "ms-lstm"]
    assert rows["mslstm-tiny"] == {
        "name": "mslstm-tiny",
        "aliases": [],
        "architecture": "ms-mklstm",
        "pretrained": True,
        "data": "mmnist",
        "hub": str(place),
        "published": None,
    }
    assert "trained on mmnist" in cli.succeed("list")


def test_list_by_pattern(cli: Cli, place: Path) -> None:
    names = [row["name"] for row in json.loads(cli.succeed("list", "ms-co*", "--json"))]
    assert names == ["ms-convlstm"]
    rows = json.loads(cli.succeed("list", "--pretrained", "--json"))
    assert [row["name"] for row in rows if not row["published"]] == ["mslstm-tiny"]
    result = cli("list", "nothing*")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing*" in result.stderr
    assert json.loads(cli.succeed("list", "nothing*", "--json")) == []


def test_info_of_architectures_and_models(cli: Cli, place: Path, model: Path) -> None:
    facts = json.loads(cli.succeed("info", "mslstm", "--json"))
    assert facts["name"] == "ms-mklstm"
    assert facts["pretrained"] == ["mslstm-tiny"]
    assert facts["config"]["hidden"] == 32
    by_name = json.loads(cli.succeed("info", "mslstm-tiny", "--json"))
    assert (by_name["name"], by_name["folder"]) == ("mslstm-tiny", str(model))
    assert by_name["config"]["hidden"] == 4
    assert by_name == json.loads(cli.succeed("info", f"local-dir:{model}", "--json"))
    assert f"{by_name['parameters']:,}" in cli.succeed("info", "mslstm-tiny")


def test_pull_by_any_name_prints_the_folder(cli: Cli, model: Path) -> None:
    for ref in ("mslstm-tiny", "mslstm", "ms-mklstm-tiny", f"local-dir:{model}"):
        assert cli.succeed("pull", ref).strip() == str(model)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".gif", ".mp4", ".png"])
def test_predict_writes_the_format_of_the_extension(
    cli: Cli, model: Path, clip: Path, ending: str
) -> None:
    output = clip.with_name(f"future{ending}")
    said = json.loads(
        cli.succeed("predict", "mslstm", clip, "-o", output, "--horizon", 4, "--json")
    )
    assert said == {"output": str(output), "input": [5, 1, 16, 24], "forecast": [4, 1, 16, 24]}
    assert output.stat().st_size > 0
    if ending == ".npy":
        expected = zoo.load("mslstm").predict(np.load(clip), 4)
        assert np.array_equal(np.load(output), expected)


def test_predict_draws_rain_in_its_colors(cli: Cli, here: Path) -> None:
    meaning = {"variable": "rain_rate", "unit": "mm/h", "reflectivity": {}, "time_step": 300}
    zoo.save(zoo.create("convlstm", hidden=4, layers=2, patch=2, data=meaning), "rain")
    np.save("rain.npy", np.random.default_rng(0).gamma(1, 5, (3, 8, 10)).astype("float32"))
    few = ("predict", "local-dir:rain", "rain.npy", "--horizon", 2, "--unit", "mm/h")
    for name in ("rain.png", "values.npy"):
        cli.succeed(*few, "--time-step", "5min", "-o", name)
    values, picture = np.load("values.npy"), np.asarray(Image.open("rain.png"))
    assert picture.shape == (8, 10 + GAP + 10, 3)
    levels = [*RAIN]
    expected = np.array([NOTHING, *RAIN.values()])[np.digitize(values[0, 0], levels)]
    assert np.array_equal(picture[:, :10], expected)


def test_predict_from_a_folder_of_pictures(cli: Cli, model: Path, here: Path) -> None:
    (here / "frames").mkdir()
    for number in range(12):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(here / "frames" / f"{number}.png")
    cli.succeed("predict", "mslstm", "frames", "-o", "future.npy", "--size", "16x24")
    future = np.load("future.npy")
    assert (future.shape, future.dtype) == ((2, 1, 16, 24), np.uint8)
    cli.succeed(
        "predict", "mslstm", "frames", "-o", "few.npy", "--size", "16x24", "--input-frames", 2
    )
    assert not np.array_equal(np.load("few.npy"), future)


def test_demo_writes_pictures(cli: Cli, model: Path, here: Path) -> None:
    said = json.loads(cli.succeed("demo", "mslstm", "--json"))
    assert said["forecast"]["model"].keys() >= {"mse", "mae", "ssim", "psnr"}
    for ending in ("gif", "png"):
        with Image.open(here / "zoo-demo" / f"demo.{ending}") as picture:
            assert min(picture.size) > 64
    assert "persistence" in cli.succeed("demo", "mslstm", "-o", "elsewhere")


def test_eval_saves_its_report(cli: Cli, model: Path, noise_root: Path) -> None:
    few = ("--sequences", 3, "--data-dir", noise_root)
    report = json.loads(cli.succeed("eval", "mslstm", *few, "--save", "--json"))
    assert report["model"] == "mslstm-tiny"
    assert report["data"]["sequences"] == 3
    assert len(report["per_frame"]["model"]["mse"]) == 4
    saved = json.loads((model / "metrics.json").read_text())
    assert saved == {key: value for key, value in report.items() if key != "model"}
    again = json.loads(cli.succeed("eval", f"local-dir:{model}", *few, "--batch-size", 1, "--json"))
    assert again["forecast"]["model"] == pytest.approx(report["forecast"]["model"], rel=1e-4)
    table = cli.succeed("eval", "mslstm", *few)
    assert "all-steps" in table
    assert "persistence" in table
    assert f"{report['forecast']['model']['mse']:.2f}" in cli.succeed("info", "mslstm-tiny")


def test_train_stops_and_resumes(cli: Cli, noise_root: Path, here: Path) -> None:
    (here / "tiny").mkdir()
    (here / "tiny" / "recipe.toml").write_text(RECIPE)
    arguments = ("train", "tiny/recipe.toml", "--data-dir", noise_root, "--json")
    said = json.loads(cli.succeed(*arguments, "--max-minutes", 0))
    assert (said["run"], said["step"], said["finished"]) == ("runs/tiny", 1, False)
    said = json.loads(cli.succeed(*arguments, "--resume"))
    assert (said["step"], said["finished"]) == (2, True)
    facts = json.loads(cli.succeed("info", "local-dir:runs/tiny", "--json"))
    assert facts["metrics"]["training"]["sequences"] == 4


def test_plugins_lists_what_each_provides(cli: Cli) -> None:
    rows = {row["name"]: row for row in json.loads(cli.succeed("plugins", "--json"))}
    assert rows["convlstm"]["cells"] == ["convlstm"]
    assert rows["convlstm"]["distribution"] == "spatiotemporal-zoo"
    assert rows["convlstm"]["error"] is None
    assert "zoo 0." in cli.succeed("plugins")


@pytest.mark.parametrize("verb", ["info", "pull", "demo", "eval", "cost"])
def test_unknown_model_is_an_error(cli: Cli, model: Path, verb: str) -> None:
    assert "mslstm-tiny" in cli.fail(verb, "mslstm-tyni")
    assert "nowhere" in cli.fail(verb, "local-dir:nowhere")
    assert "a" * 300 in cli.fail(verb, "a" * 300)


@pytest.mark.parametrize("verb", ["info", "pull", "cost"])
def test_wrong_checksums_and_missing_hubs_are_errors(
    cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    model.with_name("SHA256SUMS").write_text(f"{'0' * 64}  mslstm-tiny/model.safetensors\n")
    message = cli.fail(verb, "mslstm-tiny")
    assert "mslstm-tiny" in message
    assert "000000000000" in message
    monkeypatch.setenv("ZOO_HUB", "nowhere")
    assert "nowhere" in cli.fail(verb, "theirs")


@pytest.mark.parametrize("verb", ["info", "cost", "pull"])
def test_folder_given_as_a_name_suggests_local_dir(
    cli: Cli, model: Path, here: Path, verb: str
) -> None:
    shutil.copytree(model, here / "mine")
    assert "local-dir:./mine" in cli.fail(verb, "./mine")
    cli.succeed(verb, "local-dir:./mine")


def test_unknown_architecture_suggests_similar_names(cli: Cli, place: Path) -> None:
    assert "ms-convlstm" in cli.fail("info", "ms-convlsm")
    assert "nowhere" in cli.fail("pull", "local-dir:nowhere")
    assert "hf-hub:not a name" in cli.fail("pull", "hf-hub:not a name")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 3, 16, 16), "3 channels"),
        ((0, 1, 16, 16), ""),
        ((16, 16), "(T, H, W)"),
    ],
)
def test_frames_of_a_wrong_shape_are_an_error(
    cli: Cli, model: Path, shape: tuple[int, ...], message: str
) -> None:
    np.save("wrong.npy", np.zeros(shape, dtype=np.float32))
    assert message in cli.fail("predict", "mslstm", "wrong.npy", "-o", "future.gif")


def test_too_few_frames_are_an_error(cli: Cli, model: Path, clip: Path) -> None:
    message = cli.fail("predict", "mslstm", clip, "-o", "future.gif", "--input-frames", 6)
    assert "5" in message
    assert "--input-frames" in message
    assert "6" in message


def test_frames_with_nan_are_an_error(cli: Cli, model: Path, clip: Path) -> None:
    frames = np.load(clip)
    frames[3, 0, 2, 2] = np.nan
    np.save(clip, frames)
    message = cli.fail("predict", "mslstm", clip, "-o", "future.gif")
    assert "NaN" in message
    assert "frame 3" in message


def test_frames_out_of_range_are_an_error(cli: Cli, model: Path, clip: Path) -> None:
    np.save(clip, np.load(clip) * 255)
    assert "255" in cli.fail("predict", "mslstm", clip, "-o", "future.gif")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/future.gif", "mkdir -p nowhere"),
        ("clip.npy/future.gif", "clip.npy"),
        ("future.xyz", ".xyz"),
        ("folder.gif", "folder.gif"),
    ],
)
def test_unwritable_output_is_an_error(
    cli: Cli, model: Path, clip: Path, here: Path, output: str, message: str
) -> None:
    (here / "folder.gif").mkdir()
    assert message in cli.fail("predict", "mslstm", clip, "-o", output)


def test_folder_below_a_file_is_an_error(
    cli: Cli, model: Path, clip: Path, noise_root: Path
) -> None:
    assert str(clip) in cli.fail("demo", "mslstm", "-o", clip)
    Path("recipe.toml").write_text(RECIPE)
    arguments = ("--data-dir", noise_root, "-o", clip / "run")
    assert str(clip / "run") in cli.fail("train", "recipe.toml", *arguments)


LONG = "a" * 300  # longer than a name of a file may be


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", f"local-dir:{LONG}"],
        ["list", "--hub", LONG],
        ["card", LONG],
        ["train", LONG],
        ["runs", "--folder", LONG],
        ["data", "check", "mmnist", LONG],
        ["convert", "openstl", LONG, "--arch", "predrnn", "-o", "there"],
        ["new", "zoo-mine", "-o", f"{LONG}/mine"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_path_that_is_too_long_is_an_error(cli: Cli, arguments: list[str]) -> None:
    assert LONG in cli.fail(*arguments)


@pytest.mark.skipif(os.geteuid() == 0, reason="no folder is locked for the superuser")
@pytest.mark.parametrize("arguments", [["info", "local-dir:locked"], ["info", "locked/it"]])
def test_unreadable_folder_is_an_error(
    cli: Cli, place: Path, here: Path, arguments: list[str]
) -> None:
    (here / "locked").mkdir(mode=0)
    assert "locked" in cli.fail(*arguments)


def test_unreadable_input_is_an_error(cli: Cli, model: Path, here: Path) -> None:
    (here / "text.npy").write_text("no array")
    (here / "empty").mkdir()
    arguments = ("-o", "future.gif")
    assert "absent.npy" in cli.fail("predict", "mslstm", "absent.npy", *arguments)
    assert "text.npy" in cli.fail("predict", "mslstm", "text.npy", *arguments)
    assert "empty" in cli.fail("predict", "mslstm", "empty", *arguments)


def rename(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("head.bias", "foot.bias"): value for name, value in tensors.items()}


def reshape(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"head.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (rename, ["head.bias", "foot.bias"]),
        (reshape, ["head.bias", "3", "64"]),
    ],
)
def test_weights_that_do_not_fit_are_an_error(
    cli: Cli, model: Path, change: Callable, messages: list[str]
) -> None:
    path = model / "model.safetensors"
    save_file(change(load_file(path)), path)
    error = cli.fail("demo", "mslstm")
    assert all(message in error for message in messages)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a foreign file", b"\xff" * 100, None], ids=str
)
def test_corrupt_weights_are_an_error(cli: Cli, model: Path, content: bytes | None) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    assert "model.safetensors" in cli.fail("demo", "mslstm")


FOREIGN = "[/x] [red]\x1b]0;owned\x07 \u202e"
SHOWN = "[/x] [red]]0;owned"


def test_foreign_text_is_shown_without_markup_and_control_characters(cli: Cli, model: Path) -> None:
    """They are no markup, and no control characters reach the terminal."""
    path = model / "config.json"
    config = json.loads(path.read_text())
    config["data"] |= {"name": FOREIGN, "unit": "mm\n"}
    path.write_text(json.dumps(config))
    means = {"mse": 1.0, f"csi@{FOREIGN}": 0.5}
    scores = dict.fromkeys(("model", "persistence", FOREIGN), means)
    (model / "metrics.json").write_text(json.dumps({"forecast": scores}))
    for arguments in (["list"], ["info", "mslstm-tiny"], ["search", "--hub", model.parent]):
        shown = cli.succeed(*arguments)
        assert SHOWN in shown
        assert shown.replace("\n", "").isprintable()
    message = cli.fail("pull", f"local-dir:{FOREIGN}")
    assert SHOWN in message
    assert message.isprintable()


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"hidden": 4}'])
def test_corrupt_json_is_an_error(
    cli: Cli, model: Path, here: Path, name: str, content: str
) -> None:
    shutil.copytree(model, here / "copy")
    (here / "copy" / name).write_text(content)
    if name == "metrics.json" and content == '{"hidden": 4}':
        cli.succeed("info", "local-dir:copy")
    else:
        assert f"copy/{name}" in cli.fail("info", "local-dir:copy")


def test_unknown_device_is_an_error(cli: Cli, model: Path) -> None:
    assert "'cuda:9'" in cli.fail("demo", "mslstm", "--device", "cuda:9")
    assert "'gpu'" in cli.fail("demo", "mslstm", "--device", "gpu")


def test_missing_data_is_an_error(cli: Cli, model: Path) -> None:
    Path("recipe.toml").write_text(RECIPE)
    for message in (cli.fail("eval", "mslstm"), cli.fail("train", "recipe.toml")):
        assert "data/mnist" in message
        assert "ZOO_DATA" in message
    assert "'nmist'" in cli.fail("eval", "mslstm", "--data", "nmist")


CLAIM = """
import zoo

class Mine(zoo.RecurrentCell):
    pass

@zoo.hookimpl
def zoo_cells():
    return {"convlstm": Mine}
"""


def test_plugin_that_claims_an_own_name_is_reported_as_shadowed(
    cli: Cli, install_plugin: Install
) -> None:
    install_plugin("claimant", CLAIM, entry="claimant")
    assert "convlstm" in cli.succeed("list")
    assert "convlstm" in cli.succeed("info", "convlstm")
    rows = {row["name"]: row for row in json.loads(cli.succeed("plugins", "--json"))}
    assert "'convlstm'" in rows["claimant"]["error"]
    assert "spatiotemporal-zoo" in rows["claimant"]["error"]


@pytest.fixture
def broken(install_plugin: Install) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, with a plugin that fails to import."""
    site = install_plugin("broken", "raise RuntimeError('out of\\norder')", entry="broken").parent
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("zoo"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run


@pytest.mark.slow
def test_broken_plugin_is_one_line_on_standard_error(broken: Callable) -> None:
    ran = broken("list")
    assert ran.returncode == 0
    assert "ms-convlstm" in ran.stdout
    assert ran.stderr == (
        "Warning: plugin 'broken' of distribution broken 1.0 is left out: "
        "RuntimeError: out of order\n"
    )


@pytest.mark.slow
def test_broken_plugin_is_listed_with_its_error(broken: Callable) -> None:
    ran = broken("plugins", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    errors = {row["name"]: row["error"] for row in json.loads(ran.stdout)}
    assert errors["broken"] == "RuntimeError: out of order"


@pytest.mark.slow
def test_error_with_a_broken_plugin_has_no_traceback(broken: Callable) -> None:
    ran = broken("predict", "nope", "x.npy", "-o", "x.gif")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in ran.stderr
