"""The folder of a run: who may train in it, and from which recipe."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from tiny_runs import RECIPE, assert_same, log, processes, wait_for_step

from zoo.atomic import atomic_path
from zoo.errors import ConfigError, ZooError
from zoo.train.engine import train
from zoo.train.recipe import read_recipe

pytestmark = pytest.mark.slow

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
def started(recipe: Path, noise_root: Path, tmp_path: Path) -> Path:
    """A run with one step of twelve."""
    assert train(recipe, tmp_path / "run", max_minutes=0, data_root=noise_root).step == 1
    return tmp_path / "run"


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_lock_refuses_second_process_and_ends_with_a_kill(
    recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    longer, run = tmp_path / "recipe.toml", tmp_path / "run"
    longer.write_text(recipe.read_text().replace("steps = 12", "steps = 12000"))
    options: dict[str, Any] = {"resume": True, "data_root": noise_root}
    child = processes.Process(target=train, args=(longer, run), kwargs=options)
    child.start()
    wait_for_step(run, 2)
    with pytest.raises(ZooError, match=rf"\b{child.pid}\b"):
        train(longer, run, **options)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert train(longer, run, max_minutes=0, **options).step > 2
    steps = [line["step"] for line in log(run)]
    assert steps == sorted(set(steps))


def test_resume_of_finished_run_changes_nothing(
    finished: Path, recipe: Path, noise_root: Path, tmp_path: Path, cli: Cli
) -> None:
    """Even if it has scores and its checkpoints were removed."""
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
    result = cli("train", recipe, "-o", run, "--data-dir", noise_root, "--resume")
    assert "already" in result.stderr


def test_scores_are_dropped_when_weights_change(
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
    facts = json.loads((run / "metrics.json").read_text())
    assert (list(facts), facts["training"]["steps"]) == (["training"], 14)
    assert "# Until step 12: train.steps = 12\n" in (run / "recipe.toml").read_text()
    with pytest.raises(ConfigError, match=r"train\.steps to 13: .*14 steps"):
        train(recipe, run, settings=[("train.steps", 13), settings[0]], **more)


def test_set_with_resume_changes_keys_from_that_step_on(
    started: Path, finished: Path, recipe: Path, noise_root: Path
) -> None:
    settings = [("train.lr", 1e-2), ("evaluation.every", 4), ("evaluation.sequences", 2)]
    more: dict[str, Any] = {"resume": True, "data_root": noise_root}
    assert train(recipe, started, settings=settings, **more).finished
    before, after = ([line for line in log(run) if "lr" in line] for run in (finished, started))
    assert after[-1]["lr"] == pytest.approx(before[-1]["lr"] * 1e-2 / 3e-4)
    assert [line["step"] for line in log(started) if "mse" in line] == [4, 8, 12]
    first, second = json.loads((started / "run.json").read_text())["starts"]
    assert "changed" not in first
    assert (second["step"], second["changed"]["train.lr"]) == (1, [3e-4, 1e-2])
    assert read_recipe(started / "recipe.toml").train.lr == 1e-2
    assert "# Until step 1: train.lr = 0.0003\n" in (started / "recipe.toml").read_text()
    assert train(recipe, started, settings=settings, **more).already
    with pytest.raises(ConfigError, match=r"train\.lr.*--set KEY=VALUE"):
        train(recipe, started, **more)


def test_keys_that_do_not_affect_the_result_may_differ(
    started: Path, finished: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "recipe.toml"
    text = recipe.read_text().replace("checkpoint_every = 1", "checkpoint_every = 5\nkeep = 1")
    other.write_text(text + "[memory]\ncheckpoint_every = 2\n[watch]\nlog_every = 3\n")
    assert train(other, started, resume=True, data_root=noise_root).finished
    assert_same(started, finished)
    assert [line["step"] for line in log(started)] == [1, 3, 6, 9, 12]
    assert read_recipe(started / "recipe.toml").watch.log_every == 3
    assert "# Until" not in (started / "recipe.toml").read_text()


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
def test_fixed_keys_cannot_change(
    finished: Path, recipe: Path, noise_root: Path, key: str, value: Any
) -> None:
    before = contents(finished)
    with pytest.raises(ConfigError, match=rf"{key}.*cannot change"):
        train(recipe, finished, resume=True, data_root=noise_root, settings=[(key, value)])
    assert contents(finished) == before


def test_new_metric_resets_the_best(started: Path, recipe: Path, noise_root: Path) -> None:
    settings: list[tuple[str, Any]] = [("evaluation.every", 1), ("evaluation.sequences", 2)]
    more: dict[str, Any] = {"resume": True, "data_root": noise_root, "max_minutes": 0}
    assert train(recipe, started, settings=settings, **more).best_step == 2
    outcome = train(recipe, started, settings=[*settings, ("evaluation.metric", "psnr")], **more)
    assert (outcome.step, outcome.best_step) == (3, 3)
    assert outcome.best == log(started)[-1]["psnr"]


def test_accumulation_from_environment_is_refused(
    recipe: Path, noise_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ConfigError, match=r"_STEPS.* is 4, .*memory\.accumulate"):
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", ""])
def test_invalid_process_timeout_is_refused(
    recipe: Path, noise_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setenv("ZOO_PROCESS_TIMEOUT", seconds)
    with pytest.raises(ConfigError, match="ZOO_PROCESS_TIMEOUT"):
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("model.hidden", 6), r"model\.hidden was 6, is 4"),
        (("train.optimizer", "sgd"), r"train\.optimizer was sgd, is adam"),
    ],
)
def test_checkpoint_of_different_recipe_is_refused(
    started: Path, recipe: Path, noise_root: Path, tmp_path: Path, setting: tuple, message: str
) -> None:
    other, more = tmp_path / "other", {"data_root": noise_root, "max_minutes": 0}
    train(recipe, other, settings=[setting], **more)
    shutil.rmtree(started / "checkpoints")
    shutil.copytree(other / "checkpoints", started / "checkpoints")
    with pytest.raises(ConfigError, match=rf"step-00000001.*{message}"):
        train(recipe, started, resume=True, data_root=noise_root)


def test_foreign_files_next_to_checkpoints_stay(
    started: Path, finished: Path, recipe: Path, noise_root: Path
) -> None:
    folder = started / "checkpoints"
    stray, unfinished = folder / ".DS_Store", folder / ".0123456789ab"
    stray.write_text("")
    unfinished.mkdir()
    assert train(recipe, started, resume=True, data_root=noise_root).finished
    assert stray.exists()
    assert not unfinished.exists()
    assert_same(started, finished)


def test_resume_removes_what_a_killed_write_left(
    started: Path, recipe: Path, noise_root: Path
) -> None:
    killed = atomic_path(started / "model.safetensors")
    temporary = killed.__enter__()
    temporary.write_text("half")
    (started / ".mine").write_text("")
    train(recipe, started, resume=True, max_minutes=0, data_root=noise_root)
    assert not temporary.exists()
    assert (started / ".mine").exists()


def test_damaged_log_is_read_up_to_the_damage(
    started: Path, finished: Path, recipe: Path, noise_root: Path, cli: Cli
) -> None:
    with (started / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 1, "lo\x00\xff\x00\n')
    assert json.loads(cli.succeed("runs", "--folder", started, "--json"))[0]["step"] == 1
    assert train(recipe, started, resume=True, data_root=noise_root).finished
    assert_same(started, finished)
