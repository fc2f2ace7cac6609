"""The folder of a run: who may train in it, by which recipe, and what becomes of it afterwards."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny_runs import RECIPE, assert_same, log, processes, train_until_step

from zoo.cli import zoo as command
from zoo.errors import ZooError
from zoo.train.engine import train
from zoo.train.recipe import read_recipe

SCORES = {"model": {"mse": 1.0}, "persistence": {"mse": 2.0}}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def finished(recipe: Path, noise_root: Path) -> Path:
    run = recipe.parent / "run"
    assert not train(recipe, run, data_root=noise_root).already
    return run


@pytest.fixture
def begun(recipe: Path, noise_root: Path, tmp_path: Path) -> Path:
    """A run with one step of twelve."""
    assert train(recipe, tmp_path / "run", max_minutes=0, data_root=noise_root).step == 1
    return tmp_path / "run"


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_two_processes_do_not_train_in_one_folder(
    recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    """One that is killed leaves the folder free."""
    longer, run = tmp_path / "recipe.toml", tmp_path / "run"
    longer.write_text(recipe.read_text().replace("steps = 12", "steps = 12000"))
    options: dict[str, Any] = {"resume": True, "data_root": noise_root}
    child = processes.Process(target=train, args=(longer, run), kwargs=options)
    child.start()
    train_until_step(run, 2)
    with pytest.raises(ZooError, match=rf"another process trains in .*\(process {child.pid}, "):
        train(longer, run, **options)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert train(longer, run, max_minutes=0, **options).step > 2
    steps = [line["step"] for line in log(run)]
    assert steps == sorted(set(steps))


def test_a_finished_run_is_left_as_it_is(
    finished: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    """What was measured of its model, and the model alone where the checkpoints were removed."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints")
    facts = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**facts, "forecast": SCORES}))
    before = contents(run)
    outcome = train(recipe, run, resume=True, data_root=noise_root)
    assert (outcome.already, outcome.finished, outcome.step) == (True, True, 12)
    assert outcome.loss == facts["training"]["loss"]
    assert contents(run) == before
    arguments = ["train", str(recipe), "-o", str(run), "--data-dir", str(noise_root), "--resume"]
    assert "was trained before" in CliRunner().invoke(command, arguments).stderr


def test_measures_stay_with_the_weights_that_were_measured(
    finished: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    facts = json.loads((run / "metrics.json").read_text())
    measured = {**facts, "forecast": SCORES}
    (run / "metrics.json").write_text(json.dumps(measured))
    more: dict[str, Any] = {"resume": True, "data_root": noise_root}
    train(recipe, run, settings=[("train.clip_norm", 1.0)], **more)  # there is no step left
    assert json.loads((run / "metrics.json").read_text()) == measured
    settings = [("train.clip_norm", 1.0), ("train.steps", 14)]
    outcome = train(recipe, run, settings=settings, **more)
    assert (outcome.step, outcome.steps, outcome.already) == (14, 14, False)
    told = json.loads((run / "metrics.json").read_text())
    assert (list(told), told["training"]["steps"]) == (["training"], 14)
    assert "# Until step 12: train.steps = 12\n" in (run / "recipe.toml").read_text()
    with pytest.raises(ZooError, match=r"has taken 14 steps; train.steps cannot become 13"):
        train(recipe, run, settings=[("train.steps", 13), settings[0]], **more)


def test_a_key_is_set_anew_from_a_step_on(
    begun: Path, finished: Path, recipe: Path, noise_root: Path
) -> None:
    settings = [("train.lr", 1e-2), ("evaluation.every", 4), ("evaluation.sequences", 2)]
    more: dict[str, Any] = {"resume": True, "data_root": noise_root}
    assert train(recipe, begun, settings=settings, **more).finished
    before, after = ([line for line in log(run) if "lr" in line] for run in (finished, begun))
    assert after[-1]["lr"] == pytest.approx(before[-1]["lr"] * 1e-2 / 3e-4)
    assert [line["step"] for line in log(begun) if "mse" in line] == [4, 8, 12]
    first, second = json.loads((begun / "run.json").read_text())["starts"]
    assert "changed" not in first
    assert (second["step"], second["changed"]["train.lr"]) == (1, [3e-4, 1e-2])
    assert read_recipe(begun / "recipe.toml").train.lr == 1e-2
    assert "# Until step 1: train.lr = 0.0003\n" in (begun / "recipe.toml").read_text()
    assert train(recipe, begun, settings=settings, **more).already
    with pytest.raises(ZooError, match=r"train.lr.*go on with the former, .* --set KEY=VALUE"):
        train(recipe, begun, **more)


def test_keys_that_change_no_result_may_differ(
    begun: Path, finished: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "recipe.toml"
    text = recipe.read_text().replace("checkpoint_every = 1", "checkpoint_every = 5\nkeep = 1")
    other.write_text(text + "[memory]\ncheckpoint_every = 2\n[watch]\nlog_every = 3\n")
    assert train(other, begun, resume=True, data_root=noise_root).finished
    assert_same(begun, finished)
    assert [line["step"] for line in log(begun)] == [1, 3, 6, 9, 12]
    assert read_recipe(begun / "recipe.toml").watch.log_every == 3
    assert "# Until" not in (begun / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.hidden", 6),
        ("data.seed", 1),
        ("data.options", {"size": 48}),
        ("sampling.kind", "none"),
        ("train.optimizer", "sgd"),
        ("train.optimizer_options", {"weight_decay": 0.1}),
        ("train.freeze", ["embed.*"]),
        ("train.lr_parts", {"head.*": 1e-3}),
        ("train.precision", "fp16"),
        ("train.ema_decay", 0.9),
    ],
)
def test_keys_that_no_run_can_set_anew(
    finished: Path, recipe: Path, noise_root: Path, key: str, value: Any
) -> None:
    before = contents(finished)
    with pytest.raises(ZooError, match=rf"\({key}.*cannot change in a run.*take another folder"):
        train(recipe, finished, resume=True, data_root=noise_root, settings=[(key, value)])
    assert contents(finished) == before


def test_another_way_of_measuring_begins_without_a_best(
    begun: Path, recipe: Path, noise_root: Path
) -> None:
    settings: list[tuple[str, Any]] = [("evaluation.every", 1), ("evaluation.sequences", 2)]
    more: dict[str, Any] = {"resume": True, "data_root": noise_root, "max_minutes": 0}
    assert train(recipe, begun, settings=settings, **more).best_step == 2
    outcome = train(recipe, begun, settings=[*settings, ("evaluation.metric", "psnr")], **more)
    assert (outcome.step, outcome.best_step) == (3, 3)
    assert outcome.best == log(begun)[-1]["psnr"]


def test_a_gradient_is_not_divided_by_the_environment(
    recipe: Path, noise_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ZooError, match=r"_STEPS is 4, .*memory.accumulate"):
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (("model.hidden", 6), r"model.hidden was 6, is 4"),
        (("train.optimizer", "sgd"), r"train.optimizer was sgd, is adam"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_not_taken(
    begun: Path, recipe: Path, noise_root: Path, tmp_path: Path, setting: tuple, told: str
) -> None:
    other, more = tmp_path / "other", {"data_root": noise_root, "max_minutes": 0}
    train(recipe, other, settings=[setting], **more)
    shutil.rmtree(begun / "checkpoints")
    shutil.copytree(other / "checkpoints", begun / "checkpoints")
    with pytest.raises(ZooError, match=rf"step-00000001 is of another recipe \({told}\)"):
        train(recipe, begun, resume=True, data_root=noise_root)


def test_files_of_others_beside_the_checkpoints_stay(
    begun: Path, finished: Path, recipe: Path, noise_root: Path
) -> None:
    stray, half_done = begun / "checkpoints" / ".DS_Store", begun / "checkpoints" / ".0123456789ab"
    stray.write_text("")
    half_done.mkdir()
    assert train(recipe, begun, resume=True, data_root=noise_root).finished
    assert stray.exists()
    assert not half_done.exists()
    assert_same(begun, finished)


def test_a_log_that_is_torn_is_read_up_to_there(
    begun: Path, finished: Path, recipe: Path, noise_root: Path
) -> None:
    with (begun / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 1, "lo\x00\xff\x00\n')
    found = CliRunner().invoke(command, ["runs", "--folder", str(begun), "--json"])
    assert json.loads(found.stdout)[0]["step"] == 1
    assert train(recipe, begun, resume=True, data_root=noise_root).finished
    assert_same(begun, finished)
