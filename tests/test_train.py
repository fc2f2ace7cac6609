"""Training: what a run leaves, and that no way of stopping it changes what it ends with."""

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
from zoo.errors import ZooError
from zoo.train.engine import train
from zoo.train.recipe import read_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, noise_root: Path) -> Path:
    run = recipe.parent / "run"
    outcome = train(recipe, run, data_root=noise_root)
    assert outcome.finished
    return run


def test_a_run_leaves_a_model(undisturbed: Path) -> None:
    model = zoo.load(f"local-dir:{undisturbed}")
    assert model.config.architecture == "ms-predrnn"
    assert model.config.data.model_dump(include={"name", "size", "input_frames", "horizon"}) == {
        "name": "mmnist",
        "size": (64, 64),
        "input_frames": 2,
        "horizon": 2,
    }
    facts = json.loads((undisturbed / "metrics.json").read_text())["training"]
    assert (facts["steps"], facts["sequences"], facts["device"]) == (12, 24, "cpu")
    assert facts["torch"] == torch.__version__
    whole = read_recipe(undisturbed / "recipe.toml")
    assert whole.model["kernel_size"] == 3  # an option that the recipe leaves to its default
    (start,) = json.loads((undisturbed / "run.json").read_text())["starts"]
    assert (start["step"], start["processes"], start["device"]) == (0, 1, "cpu")
    assert start["versions"]["torch"] == torch.__version__.split("+")[0]
    last = json.loads((undisturbed / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 12
    assert 0 < last["loss"] < float("inf")
    kept = [path.name for path in sorted((undisturbed / "checkpoints").iterdir())]
    assert kept == ["step-00000011", "step-00000012"]


def test_training_lowers_the_loss(recipe: Path, noise_root: Path, tmp_path: Path) -> None:
    longer = tmp_path / "recipe.toml"
    longer.write_text(RECIPE.replace("steps = 12", "steps = 60\nlr = 1e-2", 1))
    train(longer, tmp_path / "run", data_root=noise_root)
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    assert len(losses) == 6
    assert losses[-1] < 0.9 * losses[0]


def train_until(moment: int, kill: int, recipe: Path, run: Path, root: Path) -> None:
    """Train, and send this process a signal before it touches its run for the n-th time."""
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


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM], ids=lambda kill: kill.name)
def test_a_run_that_is_killed_ends_like_the_undisturbed(
    undisturbed: Path, recipe: Path, noise_root: Path, tmp_path: Path, kill: signal.Signals
) -> None:
    run = tmp_path / "run"
    # Later every time, so that each stage of a step, of a checkpoint and of the end has its turn.
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
    assert_same(run, undisturbed)


def test_a_run_that_is_out_of_time_goes_on_later(
    undisturbed: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    seconds = 0.0
    for step in range(1, 13):
        outcome = train(recipe, run, resume=True, max_minutes=0, data_root=noise_root)
        assert (outcome.step, outcome.finished) == (step, step == 12)
        assert outcome.seconds > seconds
        assert (run / "model.safetensors").exists() == outcome.finished
        seconds = outcome.seconds
    assert_same(run, undisturbed)


def test_a_run_that_was_killed_at_its_end_is_finished(
    undisturbed: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "model.safetensors").unlink()  # as if killed just before
    assert train(recipe, run, resume=True, data_root=noise_root).finished
    assert_same(run, undisturbed)


def test_a_folder_with_a_run_is_not_taken(
    undisturbed: Path, noise_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "recipe.toml"
    other.write_text(RECIPE + "seed = 1\n")
    before = sorted(undisturbed.rglob("*"))
    with pytest.raises(ZooError, match="holds a run already; add --resume"):
        train(undisturbed / "recipe.toml", undisturbed, data_root=noise_root)
    with pytest.raises(ZooError, match="is another recipe than"):
        train(other, undisturbed, resume=True, data_root=noise_root)
    assert sorted(undisturbed.rglob("*")) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ways_of_running(noise_root: Path, tmp_path: Path, precision: str) -> None:
    recipe = tmp_path / "recipe.toml"
    options = f'channels_last = true\nclip_norm = 1.0\nprecision = "{precision}"\n'
    recipe.write_text(RECIPE.replace("steps = 12", "steps = 2") + options)
    train(recipe, tmp_path / "run", data_root=noise_root)
    frames = torch.rand(1, 3, 1, 64, 64)
    assert zoo.load(f"local-dir:{tmp_path / 'run'}").predict(frames, 2).isfinite().all()


def test_a_loss_that_is_not_finite_ends_the_run(noise_root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("warmup_steps = 1", "lr = 1e30"))
    told = r"loss of step 2 is (nan|inf), from the sequences 2, 3; \S+step-00000001 is sound; lower"
    with pytest.raises(ZooError, match=told):
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size", "batchsize", r"unknown key 'train.batchsize' \(did you mean .*batch_size"),
        ("[data]", "[dataset]", r"unknown key 'dataset' \(did you mean .*data"),
        ("steps = 12", "steps = 0", r"train.steps: .*greater than or equal to 1"),
        ("steps = 12", "", r"budget as steps or as epochs"),
        ("steps = 12", "steps = 12\nepochs = 1", r"budget as steps or as epochs"),
        ("warmup_steps = 1", "warmup_steps = 12", r"warmup_steps \(12\) must be below steps"),
        ("cosine", "cosin", r"train.schedule: .*'cosine'"),
        ("mmnist", "mnist", r"no data set is named 'mnist' \(did you mean mmnist"),
        ('name = "ms-predrnn"', "", r"\[model\] needs a name"),
        ("ms-predrnn", "ms-predrn", r"no model is named 'ms-predrn' \(did you mean ms-predrnn"),
        ("hidden", "hiden", r"hiden.*did you mean .*hidden"),
        ("steps = 12", 'steps = 12\noptimizer = "adamm"', r"adamm"),
        ("steps = 12", "steps = ", r"cannot be read as TOML"),
    ],
)
def test_recipes_that_cannot_be_carried_out(
    noise_root: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(ZooError, match=message) as caught:
        train(recipe, tmp_path / "run", data_root=noise_root)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_data_that_are_absent(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"no train-images.* put the four files of MNIST there"):
        train(recipe, tmp_path / "run", data_root=tmp_path)
    assert not (tmp_path / "run").exists()
