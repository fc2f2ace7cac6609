"""Training: what a run leaves behind, and that interruptions do not change the result."""

import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import RECIPE, assert_same, processes

import zoo
from zoo.errors import ConfigError, ZooError
from zoo.train.engine import train
from zoo.train.recipe import read_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def reference(recipe: Path, noise_root: Path) -> Path:
    run = recipe.parent / "run"
    outcome = train(recipe, run, data_root=noise_root)
    assert outcome.finished
    return run


def test_finished_run_contains_model_and_facts(reference: Path) -> None:
    model = zoo.load(f"local-dir:{reference}")
    assert model.config.architecture == "ms-predrnn"
    assert model.config.data.model_dump(include={"name", "size", "input_frames", "horizon"}) == {
        "name": "mmnist",
        "size": (64, 64),
        "input_frames": 2,
        "horizon": 2,
    }
    facts = json.loads((reference / "metrics.json").read_text())["training"]
    assert (facts["steps"], facts["sequences"], facts["device"]) == (12, 24, "cpu")
    assert facts["torch"] == torch.__version__
    whole = read_recipe(reference / "recipe.toml")
    assert whole.model["kernel_size"] == 3  # an option that the recipe leaves to its default
    (start,) = json.loads((reference / "run.json").read_text())["starts"]
    assert (start["step"], start["processes"], start["device"]) == (0, 1, "cpu")
    assert start["versions"]["torch"] == torch.__version__.split("+")[0]
    last = json.loads((reference / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 12
    assert 0 < last["loss"] < float("inf")
    kept = [path.name for path in sorted((reference / "checkpoints").iterdir())]
    assert kept == ["step-00000011", "step-00000012"]


@pytest.mark.slow
def test_training_lowers_the_loss(recipe: Path, noise_root: Path, tmp_path: Path) -> None:
    longer = tmp_path / "recipe.toml"
    longer.write_text(RECIPE.replace("steps = 12", "steps = 60\nlr = 1e-2", 1))
    train(longer, tmp_path / "run", data_root=noise_root)
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    assert len(losses) == 6
    assert losses[-1] < 0.9 * losses[0]


def train_until(moment: int, kill: int, recipe: Path, run: Path, root: Path) -> None:
    """Train, and send this process a signal before its n-th access to the run folder."""
    left = moment

    def count(event: str, arguments: tuple) -> None:
        nonlocal left
        if event.startswith(("open", "os.", "shutil.")) and str(run) in str(arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), kill)

    sys.addaudithook(count)
    outcome = train(recipe, run, resume=True, data_root=root)
    sys.exit(0 if outcome.finished else 3)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM], ids=lambda kill: kill.name)
def test_resume_after_kill_gives_identical_weights(
    reference: Path, recipe: Path, noise_root: Path, tmp_path: Path, kill: signal.Signals
) -> None:
    run = tmp_path / "run"
    # Kill later every time, to hit each stage of a step, of a checkpoint and of the end.
    kills = 0
    for moment in itertools.count(2, 5):
        child = processes.Process(target=train_until, args=(moment, kill, recipe, run, noise_root))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        kills += 1
        assert child.exitcode in ({-kill} if kill == signal.SIGKILL else {-kill, 3})
    assert kills > 8
    assert_same(run, reference)


@pytest.mark.slow
def test_resume_after_time_limit_gives_identical_weights(
    reference: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    seconds = 0.0
    for step in range(1, 13):
        outcome = train(recipe, run, resume=True, max_minutes=0, data_root=noise_root)
        assert (outcome.step, outcome.finished) == (step, step == 12)
        assert outcome.seconds > seconds
        assert (run / "model.safetensors").exists() == outcome.finished
        seconds = outcome.seconds
    assert_same(run, reference)


def test_run_killed_before_saving_its_model_is_finished(
    reference: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (run / "model.safetensors").unlink()  # as if killed just before
    assert train(recipe, run, resume=True, data_root=noise_root).finished
    assert_same(run, reference)


def test_folder_with_a_run_is_left_alone_without_resume(
    reference: Path, noise_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "recipe.toml"
    other.write_text(RECIPE + "seed = 1\n")
    before = sorted(reference.rglob("*"))
    with pytest.raises(ConfigError, match="--resume"):
        train(reference / "recipe.toml", reference, data_root=noise_root)
    with pytest.raises(ConfigError, match=r"train\.seed"):
        train(other, reference, resume=True, data_root=noise_root)
    assert sorted(reference.rglob("*")) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_options(noise_root: Path, tmp_path: Path, precision: str) -> None:
    recipe = tmp_path / "recipe.toml"
    options = f'channels_last = true\nclip_norm = 1.0\nprecision = "{precision}"\n'
    recipe.write_text(RECIPE.replace("steps = 12", "steps = 2") + options)
    train(recipe, tmp_path / "run", data_root=noise_root)
    frames = torch.rand(1, 3, 1, 64, 64)
    assert zoo.load(f"local-dir:{tmp_path / 'run'}").predict(frames, 2).isfinite().all()


def test_nonfinite_loss_stops_and_names_the_sequences(noise_root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("warmup_steps = 1", "lr = 1e30"))
    message = r"loss of step 2 is (nan|inf) .*2, 3; .*step-00000001"
    with pytest.raises(ZooError, match=message):
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size", "batchsize", r"train\.batchsize.*batch_size"),
        ("[data]", "[dataset]", r"dataset.*data"),
        ("steps = 12", "steps = 0", r"train\.steps.*1"),
        ("steps = 12", "", r"steps.*epochs"),
        ("steps = 12", "steps = 12\nepochs = 1", r"steps.*epochs"),
        ("warmup_steps = 1", "warmup_steps = 12", r"warmup_steps.*12"),
        ("cosine", "cosin", r"train\.schedule.*'cosine'"),
        ("mmnist", "mnist", r"'mnist'.*mmnist"),
        ('name = "ms-predrnn"', "", r"\[model\].*name"),
        ("ms-predrnn", "ms-predrn", r"'ms-predrn'.*ms-predrnn"),
        ("hidden", "hiden", r"hiden.*hidden"),
        ("steps = 12", 'steps = 12\noptimizer = "adamm"', r"adamm"),
        ("steps = 12", "steps = ", r"recipe\.toml.*TOML"),
    ],
)
def test_invalid_recipes_leave_no_folder(
    noise_root: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(ZooError, match=message) as caught:
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_missing_data_leave_no_folder(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="train-images"):
        train(recipe, tmp_path / "run", data_root=tmp_path)
    assert not (tmp_path / "run").exists()
