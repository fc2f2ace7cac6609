"""zoo runs: listing and comparing runs; log, pictures and trackers."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Cli
from tiny_runs import RECIPE, log

from zoo.errors import ConfigError
from zoo.train.engine import train
from zoo.train.runs import compare, find_runs, read_run

MORE = """
[evaluation]
every = 4
sequences = 2

[watch]
log_every = 2
pictures_every = 6
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, noise_root: Path) -> Path:
    """A folder with a finished run and a stopped one."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE + MORE)
    train(recipe, folder / "runs" / "one", data_root=noise_root)
    settings = [("train.lr", 0.1), ("model.name", "ms-convlstm"), ("train.checkpoint_every", 5)]
    other = folder / "runs" / "more" / "other"
    train(recipe, other, data_root=noise_root, settings=settings, max_minutes=0)
    return folder / "runs"


def test_runs_are_listed(folder: Path, cli: Cli) -> None:
    other, one = json.loads(cli.succeed("runs", "--folder", folder, "--json"))
    assert (one["model"], one["data"], one["state"]) == ("ms-predrnn", "mmnist", "finished")
    assert (one["step"], one["steps"]) == (12, 12)
    assert one["loss"] == log(folder / "one")[-2]["loss"]
    measured = {line["step"]: line["mse"] for line in log(folder / "one") if "mse" in line}
    assert list(measured) == [4, 8, 12]
    assert (one["metric"], one["best"]) == ("mse", min(measured.values()))
    assert measured[one["best_step"]] == one["best"]
    assert (other["model"], other["state"], other["step"]) == ("ms-convlstm", "8%", 1)
    shown = cli.succeed("runs", "--folder", folder)
    assert "12 of 12" in shown
    assert "1 of 12" in shown


def test_folder_without_runs_gives_a_hint(tmp_path: Path, cli: Cli) -> None:
    result = cli("runs", "--folder", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "zoo train" in result.stderr


def test_run_with_invalid_recipe_is_reported(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "log.jsonl").write_text("")
    (tmp_path / "bad" / "recipe.toml").write_text("[model")
    runs, (problem,) = find_runs(tmp_path)
    assert not runs
    assert str(tmp_path / "bad" / "recipe.toml") in problem


def test_compare_refuses_other_folders_and_single_runs(tmp_path: Path, cli: Cli) -> None:
    assert "recipe.toml" in cli.fail("runs", "compare", tmp_path, tmp_path)
    result = cli("runs", "compare", tmp_path)
    assert result.exit_code == 2
    assert "two" in result.stderr


def test_runs_are_compared(folder: Path, cli: Cli) -> None:
    names = [str(folder / "one"), str(folder / "more" / "other")]
    comparison = json.loads(cli.succeed("runs", "compare", *names, "--json"))
    assert comparison["runs"] == names
    assert comparison["recipe"]["train.lr"] == [3e-4, 0.1]
    assert comparison["recipe"]["model.name"] == ["ms-predrnn", "ms-convlstm"]
    assert "train.steps" not in comparison["recipe"]
    curve = comparison["curves"]["loss"]
    own = {line["step"]: line["loss"] for line in log(folder / "one") if "loss" in line}
    assert curve["12"] == [own[12], None]
    assert curve["1"][1] == log(folder / "more" / "other")[0]["loss"]
    assert list(comparison["curves"]["mse"]) == ["4", "8", "12"]
    assert comparison["results"]["state"] == ["finished", "8%"]
    shown = cli.succeed("runs", "compare", *names)
    for text in ("train.lr", "0.1", "loss at step", "mse at step", "ms-convlstm"):
        assert text in shown


def test_long_curves_are_thinned_but_keep_their_end(folder: Path) -> None:
    run, short = read_run(folder / "one"), read_run(folder / "one")
    run.log = [{"step": step, "loss": 1 / step} for step in range(10, 1010, 10)]
    short.log = run.log[:30]
    curve = compare([run, short])["curves"]["loss"]
    assert 10 <= len(curve) <= 14
    assert curve[max(curve)] == [1 / 1000, None]
    assert all(values[0] == 1 / step for step, values in curve.items())
    assert all((values[1] is None) == (step > 300) for step, values in curve.items())


def test_run_leaves_pictures_and_log(folder: Path) -> None:
    from PIL import Image

    pictures = sorted((folder / "one" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["step-00000006.png", "step-00000012.png"]
    with Image.open(pictures[1]) as picture:
        assert picture.width > 200
    lines = [line for line in log(folder / "one") if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert set(lines[0]) == {"step", "loss", "lr", "gradient_norm", "seconds"}
    assert not list(folder.glob("*/tracked"))


@pytest.mark.slow
def test_tensorboard_is_an_option(noise_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE + MORE + 'trackers = ["tensorboard"]\n')
    train(recipe, run, data_root=noise_root)
    events = EventAccumulator(str(run / "tracked"))
    events.Reload()
    own = {line["step"]: line["loss"] for line in log(run) if "loss" in line}
    assert {e.step: pytest.approx(e.value) for e in events.Scalars("loss")} == own
    assert len(events.Scalars("mse")) == 3


@pytest.mark.slow
def test_tensorboard_has_repeated_steps_once(noise_root: Path, tmp_path: Path) -> None:
    """As after a kill, when the steps since the last checkpoint are repeated."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE + '[watch]\nlog_every = 1\ntrackers = ["tensorboard"]\n')
    train(recipe, run, data_root=noise_root)
    (run / "model.safetensors").unlink()
    shutil.rmtree(run / "checkpoints" / "step-00000012")  # resume from step 11
    train(recipe, run, data_root=noise_root, resume=True)
    events = EventAccumulator(str(run / "tracked"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [*range(1, 13)]


def test_run_without_log_is_listed(folder: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(folder / "one", tmp_path / "one", ignore=shutil.ignore_patterns("[!r]*"))
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["recipe.toml", "run.json"]
    (one,) = json.loads(cli.succeed("runs", "--folder", tmp_path, "--json"))
    assert (one["state"], one["step"], one["steps"], one["loss"]) == ("0%", 0, 12, None)


@pytest.mark.parametrize(
    ("tracker", "message"),
    [("tensorbord", "'tensorbord'.*tensorboard"), ("clearml", "pip install")],
)
def test_unknown_and_missing_trackers_are_refused(
    noise_root: Path, tmp_path: Path, tracker: str, message: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + f'[watch]\ntrackers = ["{tracker}"]\n')
    with pytest.raises(ConfigError, match=message):
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run").exists()
