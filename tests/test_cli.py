"""The command line: what each command does, and how each bad input ends."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file

import zoo
import zoo.hub
from zoo.cli import find_command
from zoo.cli import zoo as command
from zoo.data.files import GAP
from zoo.inspect.palettes import NOTHING, RAIN
from zoo.plugins import forget, names

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
    """Commands run in an empty folder, and find no data there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_DATA", raising=False)
    return tmp_path


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The built-in models are one tiny model."""
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


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(*arguments: object) -> str:
    """The one line of the error; nothing was printed or written besides."""
    before = sorted(Path().rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert sorted(Path().rglob("*")) == before
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").strip()


def test_help_needs_no_torch() -> None:
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
def test_every_command_has_help(name: str) -> None:
    assert find_command(name)[0].help
    assert succeed(name, "--help").startswith(f"Usage: zoo {name}")


def test_version() -> None:
    assert succeed("--version").startswith("zoo, version 0.")


def test_list(place: Path) -> None:
    rows = {row["name"]: row for row in json.loads(succeed("list", "--json"))}
    assert {"convlstm", "ms-convlstm", "ms-mklstm", "mslstm-tiny"} <= rows.keys()
    assert rows["ms-mklstm"]["aliases"] == ["mslstm", "ms-lstm"]
    assert rows["mslstm-tiny"] == {
        "name": "mslstm-tiny",
        "aliases": [],
        "architecture": "ms-mklstm",
        "pretrained": True,
        "data": "mmnist",
        "hub": str(place),
    }
    assert "trained on mmnist" in succeed("list")


def test_list_selects(place: Path) -> None:
    names = [row["name"] for row in json.loads(succeed("list", "ms-co*", "--json"))]
    assert names == ["ms-convlstm"]
    names = [row["name"] for row in json.loads(succeed("list", "--pretrained", "--json"))]
    assert names == ["mslstm-tiny"]
    result = run("list", "nothing*")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no model matches 'nothing*'" in result.stderr
    assert json.loads(succeed("list", "nothing*", "--json")) == []


def test_info(place: Path, model: Path) -> None:
    facts = json.loads(succeed("info", "mslstm", "--json"))
    assert facts["name"] == "ms-mklstm"
    assert facts["pretrained"] == ["mslstm-tiny"]
    assert facts["config"]["hidden"] == 32
    by_name = json.loads(succeed("info", "mslstm-tiny", "--json"))
    assert (by_name["name"], by_name["folder"]) == ("mslstm-tiny", str(model))
    assert by_name["config"]["hidden"] == 4
    assert by_name == json.loads(succeed("info", f"local-dir:{model}", "--json"))
    assert f"{by_name['parameters']:,}" in succeed("info", "mslstm-tiny")


def test_pull(model: Path) -> None:
    for ref in ("mslstm-tiny", "mslstm", "ms-mklstm-tiny", f"local-dir:{model}"):
        assert succeed("pull", ref).strip() == str(model)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".gif", ".mp4", ".png"])
def test_predict_writes_by_the_ending(model: Path, clip: Path, ending: str) -> None:
    output = clip.with_name(f"future{ending}")
    said = json.loads(succeed("predict", "mslstm", clip, "-o", output, "--horizon", 4, "--json"))
    assert said == {"output": str(output), "input": [5, 1, 16, 24], "forecast": [4, 1, 16, 24]}
    assert output.stat().st_size > 0
    if ending == ".npy":
        expected = zoo.load("mslstm").predict(np.load(clip), 4)
        assert np.array_equal(np.load(output), expected)


def test_predict_shows_rain_in_its_colours(here: Path) -> None:
    meaning = {"variable": "rain_rate", "unit": "mm/h", "reflectivity": {}, "time_step": 300}
    zoo.save(zoo.create("convlstm", hidden=4, layers=2, patch=2, data=meaning), "rain")
    np.save("rain.npy", np.random.default_rng(0).gamma(1, 5, (3, 8, 10)).astype("float32"))
    few = ("predict", "local-dir:rain", "rain.npy", "--horizon", 2, "--unit", "mm/h")
    for name in ("rain.png", "values.npy"):
        succeed(*few, "--time-step", "5min", "-o", name)
    values, picture = np.load("values.npy"), np.asarray(Image.open("rain.png"))
    assert picture.shape == (8, 10 + GAP + 10, 3)
    levels = [*RAIN]
    expected = np.array([NOTHING, *RAIN.values()])[np.digitize(values[0, 0], levels)]
    assert np.array_equal(picture[:, :10], expected)


def test_predict_reads_pictures(model: Path, here: Path) -> None:
    (here / "frames").mkdir()
    for number in range(12):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(here / "frames" / f"{number}.png")
    succeed("predict", "mslstm", "frames", "-o", "future.npy", "--size", "16x24")
    future = np.load("future.npy")
    assert (future.shape, future.dtype) == ((2, 1, 16, 24), np.uint8)
    succeed("predict", "mslstm", "frames", "-o", "few.npy", "--size", "16x24", "--input-frames", 2)
    assert not np.array_equal(np.load("few.npy"), future)


def test_demo(model: Path, here: Path) -> None:
    said = json.loads(succeed("demo", "mslstm", "--json"))
    assert said["forecast"]["model"].keys() >= {"mse", "mae", "ssim", "psnr"}
    for ending in ("gif", "png"):
        with Image.open(here / "zoo-demo" / f"demo.{ending}") as picture:
            assert min(picture.size) > 64
    assert "persistence" in succeed("demo", "mslstm", "-o", "elsewhere")


def test_eval(model: Path, noise_root: Path) -> None:
    few = ("--sequences", 3, "--data-dir", noise_root)
    report = json.loads(succeed("eval", "mslstm", *few, "--save", "--json"))
    assert report["model"] == "mslstm-tiny"
    assert report["data"]["sequences"] == 3
    assert len(report["per_frame"]["model"]["mse"]) == 4
    saved = json.loads((model / "metrics.json").read_text())
    assert saved == {key: value for key, value in report.items() if key != "model"}
    again = json.loads(succeed("eval", f"local-dir:{model}", *few, "--batch-size", 1, "--json"))
    assert again["forecast"]["model"] == pytest.approx(report["forecast"]["model"], rel=1e-4)
    table = succeed("eval", "mslstm", *few)
    assert "all-steps" in table
    assert "persistence" in table
    assert f"{report['forecast']['model']['mse']:.2f}" in succeed("info", "mslstm-tiny")


def test_train(noise_root: Path, here: Path) -> None:
    (here / "tiny").mkdir()
    (here / "tiny" / "recipe.toml").write_text(RECIPE)
    arguments = ("train", "tiny/recipe.toml", "--data-dir", noise_root, "--json")
    said = json.loads(succeed(*arguments, "--max-minutes", 0))
    assert (said["run"], said["step"], said["finished"]) == ("runs/tiny", 1, False)
    said = json.loads(succeed(*arguments, "--resume"))
    assert (said["step"], said["finished"]) == (2, True)
    facts = json.loads(succeed("info", "local-dir:runs/tiny", "--json"))
    assert facts["metrics"]["training"]["sequences"] == 4


def test_plugins() -> None:
    rows = {row["name"]: row for row in json.loads(succeed("plugins", "--json"))}
    assert rows["convlstm"]["cells"] == ["convlstm"]
    assert rows["convlstm"]["distribution"] == "spatiotemporal-zoo"
    assert rows["convlstm"]["error"] is None
    assert "zoo 0." in succeed("plugins")


@pytest.mark.parametrize("verb", ["info", "pull", "demo", "eval", "cost"])
def test_unknown_names(model: Path, verb: str) -> None:
    assert "mslstm-tiny" in fail(verb, "mslstm-tyni")
    assert "there is no folder" in fail(verb, "local-dir:nowhere")
    assert "a" * 300 in fail(verb, "a" * 300)


@pytest.mark.parametrize("verb", ["info", "pull", "cost"])
def test_what_keeps_a_model_from_being_had_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    model.with_name("SHA256SUMS").write_text(f"{'0' * 64}  mslstm-tiny/model.safetensors\n")
    assert "is not mslstm-tiny: it has sha256" in fail(verb, "mslstm-tiny")
    monkeypatch.setenv("ZOO_HUB", "nowhere")
    assert "the hub nowhere is no folder" in fail(verb, "theirs")


@pytest.mark.parametrize("verb", ["info", "cost", "pull"])
def test_a_folder_given_as_a_name(model: Path, here: Path, verb: str) -> None:
    shutil.copytree(model, here / "mine")
    assert "the folder of that name is local-dir:./mine" in fail(verb, "./mine")
    succeed(verb, "local-dir:./mine")


def test_unknown_architectures(place: Path) -> None:
    assert "ms-convlstm" in fail("info", "ms-convlsm")
    assert "no folder nowhere" in fail("pull", "local-dir:nowhere")
    assert "no name of a repository" in fail("pull", "hf-hub:not a name")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 3, 16, 16), "3 channels, expected 1"),
        ((0, 1, 16, 16), "at least one"),
        ((16, 16), r"expected (T, H, W)"),
    ],
)
def test_frames_of_a_wrong_shape(model: Path, shape: tuple[int, ...], message: str) -> None:
    np.save("wrong.npy", np.zeros(shape, dtype=np.float32))
    assert message in fail("predict", "mslstm", "wrong.npy", "-o", "future.gif")


def test_too_few_frames(model: Path, clip: Path) -> None:
    message = fail("predict", "mslstm", clip, "-o", "future.gif", "--input-frames", 6)
    assert "has 5 frames; --input-frames asks for 6" in message


def test_frames_with_nan(model: Path, clip: Path) -> None:
    frames = np.load(clip)
    frames[3, 0, 2, 2] = np.nan
    np.save(clip, frames)
    message = fail("predict", "mslstm", clip, "-o", "future.gif")
    assert "NaN" in message
    assert "frame 3" in message


def test_frames_out_of_range(model: Path, clip: Path) -> None:
    np.save(clip, np.load(clip) * 255)
    assert "0 to 1" in fail("predict", "mslstm", clip, "-o", "future.gif")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/future.gif", "mkdir -p nowhere"),
        ("clip.npy/future.gif", "clip.npy is a file"),
        ("future.xyz", "unknown ending '.xyz'"),
        ("folder.gif", "is a folder"),
    ],
)
def test_outputs_that_cannot_be_written(
    model: Path, clip: Path, here: Path, output: str, message: str
) -> None:
    (here / "folder.gif").mkdir()
    assert message in fail("predict", "mslstm", clip, "-o", output)


def test_folders_that_cannot_be_made(model: Path, clip: Path, noise_root: Path) -> None:
    assert "choose a place that is writable" in fail("demo", "mslstm", "-o", clip)
    Path("recipe.toml").write_text(RECIPE)
    arguments = ("--data-dir", noise_root, "-o", clip / "run")
    assert "choose a place that is writable" in fail("train", "recipe.toml", *arguments)


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
def test_paths_that_the_system_does_not_take(arguments: list[str]) -> None:
    assert LONG in fail(*arguments)


@pytest.mark.skipif(os.geteuid() == 0, reason="no folder is locked for the superuser")
@pytest.mark.parametrize("arguments", [["info", "local-dir:locked"], ["info", "locked/it"]])
def test_a_folder_that_may_not_be_read(place: Path, here: Path, arguments: list[str]) -> None:
    (here / "locked").mkdir(mode=0)
    assert "locked" in fail(*arguments)


def test_inputs_that_cannot_be_read(model: Path, here: Path) -> None:
    (here / "text.npy").write_text("no array")
    (here / "empty").mkdir()
    arguments = ("-o", "future.gif")
    assert "no such file" in fail("predict", "mslstm", "absent.npy", *arguments)
    assert "could not be read" in fail("predict", "mslstm", "text.npy", *arguments)
    assert "holds no pictures" in fail("predict", "mslstm", "empty", *arguments)


def rename(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("head.bias", "foot.bias"): value for name, value in tensors.items()}


def reshape(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"head.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (rename, ["missing: head.bias", "not of this model: foot.bias"]),
        (reshape, ["head.bias [3] (expected [64])"]),
    ],
)
def test_weights_that_do_not_fit(model: Path, change: Callable, messages: list[str]) -> None:
    path = model / "model.safetensors"
    save_file(change(load_file(path)), path)
    error = fail("demo", "mslstm")
    assert all(message in error for message in messages)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a foreign file", b"\xff" * 100, None], ids=str
)
def test_corrupt_weights(model: Path, content: bytes | None) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    assert "is not a sound safetensors file" in fail("demo", "mslstm")


FOREIGN = "[/x] [red]\x1b]0;owned\x07 \u202e"
SHOWN = "[/x] [red]]0;owned"


def test_texts_of_other_people_are_shown_as_they_are(model: Path) -> None:
    """They are no markup, and no control characters reach the terminal."""
    path = model / "config.json"
    config = json.loads(path.read_text())
    config["data"] |= {"name": FOREIGN, "unit": "mm\n"}
    path.write_text(json.dumps(config))
    means = {"mse": 1.0, f"csi@{FOREIGN}": 0.5}
    scores = dict.fromkeys(("model", "persistence", FOREIGN), means)
    (model / "metrics.json").write_text(json.dumps({"forecast": scores}))
    for arguments in (["list"], ["info", "mslstm-tiny"], ["search", "--hub", model.parent]):
        shown = succeed(*arguments)
        assert SHOWN in shown
        assert shown.replace("\n", "").isprintable()
    message = fail("pull", f"local-dir:{FOREIGN}")
    assert SHOWN in message
    assert message.isprintable()


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"hidden": 4}'])
def test_corrupt_json(model: Path, here: Path, name: str, content: str) -> None:
    shutil.copytree(model, here / "copy")
    (here / "copy" / name).write_text(content)
    if name == "metrics.json" and content == '{"hidden": 4}':
        succeed("info", "local-dir:copy")
    else:
        assert f"copy/{name}" in fail("info", "local-dir:copy")


def test_unknown_devices(model: Path) -> None:
    assert "'cuda:9'" in fail("demo", "mslstm", "--device", "cuda:9")
    assert "'gpu'" in fail("demo", "mslstm", "--device", "gpu")


def test_missing_data(model: Path) -> None:
    Path("recipe.toml").write_text(RECIPE)
    for message in (fail("eval", "mslstm"), fail("train", "recipe.toml")):
        assert "data/mnist" in message
        assert "put the four files of MNIST there" in message
        assert "ZOO_DATA" in message
    assert "no data set is named 'nmist'" in fail("eval", "mslstm", "--data", "nmist")


def distribution(folder: Path, name: str, source: str) -> None:
    """Install a distribution whose only module is a plugin."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo]\n{name} = {name}\n")
    (folder / f"{name}.py").write_text(source)


CLAIM = """
import zoo

class Mine(zoo.RecurrentCell):
    pass

@zoo.hookimpl
def zoo_cells():
    return {"convlstm": Mine}
"""


@pytest.fixture
def installed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder of distributions, installed until the test ends."""
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(folder)
    forget()
    yield folder
    forget()


def test_two_plugins_that_claim_one_name(installed: Path) -> None:
    distribution(installed, "claimant", CLAIM)
    for arguments in (["list"], ["info", "convlstm"]):
        message = fail(*arguments)
        assert "'convlstm' is claimed by" in message
        assert "claimant" in message
        assert "spatiotemporal-zoo" in message
    rows = {row["name"]: row for row in json.loads(succeed("plugins", "--json"))}
    assert rows["claimant"]["error"] == "another plugin provides convlstm, too"


def test_a_broken_plugin_is_reported_once(installed: Path) -> None:
    """In a process of its own: the exit codes and streams are those that a person sees."""
    distribution(installed, "broken", "raise RuntimeError('out of\\norder')")
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def zoo(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("zoo"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    ran = zoo("list")
    assert ran.returncode == 0
    assert "ms-convlstm" in ran.stdout
    assert ran.stderr == (
        "Warning: plugin 'broken' of distribution broken 1.0 is left out: "
        "RuntimeError: out of order\n"
    )
    ran = zoo("plugins", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    errors = {row["name"]: row["error"] for row in json.loads(ran.stdout)}
    assert errors["broken"] == "RuntimeError: out of order"
    ran = zoo("predict", "nope", "x.npy", "-o", "x.gif")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in ran.stderr
