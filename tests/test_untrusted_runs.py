"""Untrusted runs: any content of their files gives a clear error or a valid result."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import alarm
import pytest
import torch
from conftest import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_runs import RECIPE

from zoo.errors import ConfigError, ZooError
from zoo.train.checkpoints import CHECKSUMS, _checksums
from zoo.train.engine import train
from zoo.train.recipe import read_recipe
from zoo.train.runs import find_runs

no_hang = partial(alarm.no_hang, seconds=60)

SCORES = {"model": {"mse": 1.0}, "persistence": {"mse": 2.0}}
DATA = {"name": "mmnist", "split": "test", "sequences": 1, "input_frames": 2, "horizon": 2}
TRAINING = {"steps": 12, "sequences": 1, "minutes": 1.0, "device": "cpu", "torch": "2"}
METRICS = {"training": TRAINING, "data": DATA, "forecast": SCORES, "all-steps": SCORES}
PROGRESS = {
    "step": 5,
    "steps": 12,
    "seconds": 1.0,
    "loss": 1.0,
    "skipped": 0,
    "best": None,
    "best_step": None,
    "unlogged": [0.0, 0],
}
LINE = {"step": 1, "loss": 2.0, "seconds": 3.0}


HOSTILE_TEXTS = {
    "empty": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "UTF-16": "{}".encode("utf-16"),
    "nested": b"[" * 100_000,
    "long number": b"9" * 5_000,
    "null": b"null",
    "list": b"[1]",
    "text": b'"x"',
    "NaN": b"NaN",
    "zeros": bytes(5 << 20),
}

HOSTILE_RECIPES = {
    **HOSTILE_TEXTS,
    "nested lists": b"a = " + b"[" * 900 + b"]" * 900,
    "nested tables": b"a = " + b"{b = " * 900 + b"1" + b"}" * 900,
    "long key": b"a" + b".a" * 30_000 + b" = 1",
    "long integer": b"train = " + b"9" * 5_000,
    "large": b"#" * (1 << 20),
}


@pytest.mark.parametrize("content", HOSTILE_RECIPES.values(), ids=HOSTILE_RECIPES)
def test_hostile_recipe_is_an_error_of_one_line(tmp_path: Path, cli: Cli, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with no_hang(), pytest.raises(ConfigError) as raised:
        read_recipe(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert str(path) in cli.fail("train", path, "--show")


@pytest.mark.parametrize(
    "line",
    [
        "train.lr = nan",
        "train.lr = inf",
        "train.lr = 1e400",
        "train.steps = 1e3",
        "train.steps = true",
        f"train.steps = {'9' * 4_000}",
        "train.optimizer_options = {eps = nan}",
        f"train.optimizer_options = {{eps = {'9' * 4_000}}}",
        f"model.kernel_sizes = {'[' * 20}{']' * 20}",
        "model.when = 1979-05-27",
        "loss.weights = [nan]",
        'data.options = {folder = ["/"]}',
        'model = "ms-predrnn"',
    ],
    ids=lambda line: line[:30],
)
def test_recipe_with_an_invalid_value_is_refused(tmp_path: Path, cli: Cli, line: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'{line}\nmodel.name = "ms-predrnn"\ntrain.steps = 1\ndata.name = "mmnist"\n')
    if line.split(" ")[0] in ("train.steps", "model"):
        path.write_text(path.read_text().replace("\ntrain.steps = 1", ""))
        path.write_text(path.read_text().replace("\nmodel.name = ", "\n#"))
    cli.fail("train", path, "--show")


def test_recipe_may_be_a_pipe_without_a_writer(tmp_path: Path, cli: Cli) -> None:
    os.mkfifo(tmp_path / "recipe.toml")
    with no_hang():
        cli.fail("train", tmp_path / "recipe.toml", "--show")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**9, 10**18, 2**63, 10**400, 1e308, "", "\0", "../..", "\x1b[31m"])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)

OFTEN = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@OFTEN
@given(data=st.data())
def test_any_setting_gives_a_recipe_or_an_error_of_one_line(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    keys = [*read_recipe(path).flat(), "model.foo", "data", "train", "x", "train.lr.x"]
    pairs = st.lists(st.tuples(st.sampled_from(keys) | st.text(max_size=5), VALUES), max_size=3)
    try:
        read_recipe(path, data.draw(pairs, "settings"))
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017


def write_run(folder: Path) -> Path:
    """Write a run of five steps."""
    checkpoint = folder / "checkpoints" / "step-00000005"
    checkpoint.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "run.json").write_text(json.dumps({"starts": [{"step": 0}]}))
    (folder / "log.jsonl").write_text(json.dumps(LINE) + "\n")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (checkpoint / "progress.json").write_text(json.dumps(PROGRESS))
    return folder


FILES = {
    "log": "log.jsonl",
    "metrics": "metrics.json",
    "progress": "checkpoints/step-00000005/progress.json",
}


@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
@pytest.mark.parametrize("content", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
def test_odd_file_marks_its_run_and_hides_no_other(
    tmp_path: Path, cli: Cli, name: str, content: bytes
) -> None:
    write_run(tmp_path / "runs" / "good")
    bad = write_run(tmp_path / "runs" / "bad")
    (bad / name).write_bytes(content + b"\n" + content + b"\n")
    with no_hang():
        odd, good = json.loads(cli.succeed("runs", "--folder", tmp_path / "runs", "--json"))
    assert (good["state"], good["loss"], good["problems"]) == ("finished", 2.0, [])
    (problem,) = odd["problems"]
    assert Path(name).name in problem
    assert odd["state"] == "damaged"
    shown = cli("runs", "--folder", tmp_path / "runs")
    assert (shown.exit_code, "Warning" in shown.stderr) == (0, True)
    cli.succeed("runs", "compare", bad, tmp_path / "runs" / "good")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("made", [a_pipe, endless, a_folder])
@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
def test_pipes_and_devices_are_not_read(
    tmp_path: Path, name: str, made: Callable[[Path], None]
) -> None:
    bad = write_run(tmp_path / "bad")
    (bad / name).unlink()
    made(bad / name)
    write_run(tmp_path / "good")
    with no_hang():
        (odd, good), problems = find_runs(tmp_path)
    assert (odd.state, good.state, problems) == ("damaged", "finished", [])


@OFTEN
@given(data=st.data())
def test_any_value_in_the_files_of_a_run_is_listed(tmp_path: Path, cli: Cli, data: Any) -> None:
    """Any value of any key: the run is shown, as damaged or as it is."""
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    run = write_run(tmp_path / "run")
    path = run / data.draw(st.sampled_from(list(FILES.values())), "file")
    values = json.loads(path.read_text())
    holder = values
    while isinstance(holder, dict) and data.draw(st.booleans(), "deeper"):
        inner = [value for value in holder.values() if isinstance(value, dict) and value]
        holder = data.draw(st.sampled_from(inner), "table") if inner else holder
        if not inner:
            break
    holder[data.draw(st.sampled_from(sorted(holder)) | st.text(max_size=5), "key")] = data.draw(
        VALUES, "value"
    )
    path.write_text(json.dumps(values) + "\n")
    (row,) = json.loads(cli.succeed("runs", "--folder", tmp_path, "--json"))
    assert row["state"] in ("damaged", "finished")
    assert cli.succeed("runs", "compare", run, run).count("\x1b") == 0


# Resuming.


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def first_step(recipe: Path, noise_root: Path) -> Path:
    run = recipe.parent / "run"
    assert train(recipe, run, max_minutes=0, data_root=noise_root).step == 1
    return run


@pytest.fixture
def run(first_step: Path, tmp_path: Path) -> Path:
    """A run with one step of twelve."""
    return shutil.copytree(first_step, tmp_path / "foreign" / "run")


def resume(run: Path, noise_root: Path) -> None:
    recipe = run.parent / "recipe.toml"
    recipe.write_text(RECIPE)
    train(recipe, run, resume=True, max_minutes=0, data_root=noise_root)


PARTS = [
    ".lock",
    "checkpoints",
    "checkpoints/step-00000001",
    "checkpoints/step-00000001/progress.json",
    "config.json",
    "log.jsonl",
    "metrics.json",
    "model.safetensors",
    "pictures",
    "recipe.toml",
    "run.json",
]


@pytest.mark.slow
@pytest.mark.parametrize("made", ["link", "pipe"])
@pytest.mark.parametrize("part", PARTS)
def test_resume_writes_nothing_outside_the_run(
    run: Path, noise_root: Path, tmp_path: Path, part: str, made: str
) -> None:
    path, outside = run / part, tmp_path / "outside"
    if path.is_dir():
        shutil.move(path, outside)
    elif path.exists():
        path.rename(outside)
    else:
        outside.write_text("mine")
    before = outside.read_bytes() if outside.is_file() else sorted(outside.rglob("*"))
    path.symlink_to(outside) if made == "link" else os.mkfifo(path)
    with no_hang(), pytest.raises(ConfigError, match=path.name):
        resume(run, noise_root)
    assert before == (outside.read_bytes() if outside.is_file() else sorted(outside.rglob("*")))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["log.jsonl", "run.json", "recipe.toml"])
def test_resume_leaves_hard_links_elsewhere_alone(
    run: Path, noise_root: Path, tmp_path: Path, part: str
) -> None:
    os.link(run / part, tmp_path / "outside")
    before = (tmp_path / "outside").read_bytes()
    resume(run, noise_root)
    assert (tmp_path / "outside").read_bytes() == before


@pytest.mark.slow
def test_lock_that_is_a_hard_link_is_refused(run: Path, noise_root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (run / ".lock").unlink()
    os.link(tmp_path / "outside", run / ".lock")
    with pytest.raises(ConfigError, match="hard link"):
        resume(run, noise_root)
    assert (tmp_path / "outside").read_text() == "mine"


class Code:
    """Unpickling it would create a file."""

    def __reduce__(self) -> tuple:
        return (open, ("executed", "w"))


def forge(run: Path, name: str, content: bytes) -> None:
    """Replace a file of the last checkpoint, with the right checksum."""
    (checkpoint,) = (run / "checkpoints").iterdir()
    (checkpoint / name).write_bytes(content)
    (checkpoint / CHECKSUMS).write_text(json.dumps(_checksums(checkpoint)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.bin", "model.safetensors", "progress.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04.", b"[]", b"[" * 100_000, pickle.dumps(Code()), b"PK\x03\x04"],
    ids=["empty", "nothing", "list", "nested", "code", "zip"],
)
def test_checkpoint_that_cannot_be_loaded_is_an_error(
    run: Path,
    noise_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
) -> None:
    monkeypatch.chdir(tmp_path)
    forge(run, name, content)
    with pytest.raises(ZooError, match="step-00000001") as raised:
        resume(run, noise_root)
    assert str(raised.value).isprintable()
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_compressed_checkpoint_is_not_unpacked(run: Path, noise_root: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    with (
        zipfile.ZipFile(checkpoint / "optimizer.bin") as stored,
        zipfile.ZipFile(checkpoint / "small.bin", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in stored.namelist():
            small.writestr(name, stored.read(name))
    content = (checkpoint / "small.bin").read_bytes()
    (checkpoint / "small.bin").unlink()
    forge(run, "optimizer.bin", content)
    with pytest.raises(ZooError, match="compressed"):
        resume(run, noise_root)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"step": -1}, {"step": "1"}, {"unlogged": 3}, {"recipe": []}, {"seconds": None}]
)
def test_checkpoint_with_invalid_progress_is_an_error(
    run: Path, noise_root: Path, change: dict[str, Any]
) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    progress = json.loads((checkpoint / "progress.json").read_text())
    forge(run, "progress.json", json.dumps(progress | change).encode())
    with pytest.raises(ZooError, match=r"progress\.json"):
        resume(run, noise_root)


@pytest.mark.slow
def test_optimizer_state_of_another_model_is_an_error(run: Path, noise_root: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    state = torch.load(checkpoint / "optimizer.bin", weights_only=True)
    for values in state["state"].values():
        values["exp_avg"] = torch.zeros(7)
    torch.save(state, checkpoint / "other.bin")
    forge(run, "optimizer.bin", (checkpoint / "other.bin").read_bytes())
    with pytest.raises(ZooError, match="optimizer"):
        resume(run, noise_root)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log.jsonl", "run.json", "metrics.json"])
@pytest.mark.parametrize("content", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
def test_resume_with_a_damaged_record_continues_or_is_an_error(
    run: Path, noise_root: Path, name: str, content: bytes
) -> None:
    (run / name).write_bytes(content)
    try:
        with no_hang():
            resume(run, noise_root)
    except ZooError as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert (run / "checkpoints" / "step-00000002").is_dir()
