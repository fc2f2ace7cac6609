"""A run never loses work: what is kept, what is passed over, and how it stops."""

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import RECIPE, assert_same, log, processes, replaced, weights

import zoo
from zoo.errors import ZooError
from zoo.train.checkpoints import verify
from zoo.train.engine import train


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    more = "ema_decay = 0.9\nkeep = 3\n[evaluation]\nevery = 2\nsequences = 2\n"
    path.write_text(RECIPE + more)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, noise_root: Path) -> Path:
    run = recipe.parent / "run"
    assert train(recipe, run, data_root=noise_root).finished
    return run


def checkpoints(run: Path) -> list[int]:
    return [int(path.name[-8:]) for path in sorted(run.glob("checkpoints/step-*"))]


def damage(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.bin", "average.safetensors", "checksums.json"]
)
def test_a_damaged_checkpoint_is_passed_over(
    undisturbed: Path, recipe: Path, noise_root: Path, tmp_path: Path, name: str, how: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "model.safetensors").unlink()
    last = run / "checkpoints" / "step-00000012"
    assert verify(last) is None
    damage(last / name, how)
    with pytest.warns(UserWarning, match=r"step-00000012 is passed over: .*"):
        outcome = train(recipe, run, resume=True, data_root=noise_root)
    assert outcome.finished
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 11]
    assert_same(run, undisturbed)
    assert checkpoints(run)[-3:] == [10, 11, 12]


def test_a_checkpoint_has_the_files_that_it_tells_of(undisturbed: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(undisturbed / "checkpoints" / "step-00000012", tmp_path / "step")
    assert verify(checkpoint) is None
    (checkpoint / "more.bin").write_text("")
    assert verify(checkpoint) == "more.bin is not as it was written"
    (checkpoint / "checksums.json").write_text("{}")
    assert "average.safetensors, model.safetensors, more.bin" in (verify(checkpoint) or "")


def test_no_sound_checkpoint_is_said_and_nothing_is_started_anew(
    undisturbed: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "model.safetensors").unlink()
    for path in run.glob("checkpoints/*/model.safetensors"):
        damage(path, "cut")
    for _ in range(2):
        with (
            pytest.raises(ZooError, match=r"start again from the first step: rm -r"),
            pytest.MonkeyPatch.context(),
        ):
            train(recipe, run, resume=True, data_root=noise_root)


def test_the_last_checkpoints_and_the_best_are_kept(
    recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    """The best of a run that gets worse is an early one."""
    worse, run = tmp_path / "recipe.toml", tmp_path / "run"
    text = recipe.read_text().replace('schedule = "cosine"', "lr = 3.0").replace("keep = 3", "")
    text = text.replace("steps = 12", "steps = 10").replace("ema_decay = 0.9\n", "")
    worse.write_text(text + 'select = "best"\n')
    outcome = train(worse, run, data_root=noise_root)
    measured = {line["step"]: line["mse"] for line in log(run) if "mse" in line}
    assert list(measured) == [2, 4, 6, 8, 10]
    best = min(measured, key=lambda step: measured[step])
    assert (outcome.best_step, outcome.best) == (best, measured[best])
    assert best < 9
    assert checkpoints(run) == [best, 9, 10]
    kept = load_file(run / "checkpoints" / f"step-{best:08d}" / "model.safetensors")
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, kept[f"model.network.{name}"])
    facts = json.loads((run / "metrics.json").read_text())["training"]
    assert facts["validation"] == {"metric": "mse", "best": measured[best], "step": best}
    assert facts["select"] == "best"

    # One that is damaged is not taken, nor another in its place unasked.
    (run / "model.safetensors").unlink()
    damage(run / "checkpoints" / f"step-{best:08d}" / "model.safetensors", "flipped")
    more: dict[str, Any] = {"resume": True, "data_root": noise_root}
    told = rf"step-{best:08d}, the best, is not sound .*--set evaluation.select=last"
    for _ in range(2):
        with pytest.raises(ZooError, match=told):
            train(worse, run, **more)
        shutil.rmtree(run / "checkpoints" / f"step-{best:08d}", ignore_errors=True)
    assert train(worse, run, settings=[("evaluation.select", "last")], **more).finished
    kept = load_file(run / "checkpoints" / "step-00000010" / "model.safetensors")
    assert all(torch.equal(kept[f"model.network.{n}"], t) for n, t in weights(run).items())


def test_the_moving_average_is_what_is_kept(undisturbed: Path) -> None:
    """It is that of the weights of all steps."""
    found, raw = weights(undisturbed), undisturbed / "checkpoints" / "step-00000012"
    average = load_file(raw / "average.safetensors")
    last = load_file(raw / "model.safetensors")
    before = load_file(undisturbed / "checkpoints" / "step-00000011" / "average.safetensors")
    assert any(not torch.equal(found[name], last[f"model.network.{name}"]) for name in found)
    for name, tensor in found.items():
        assert torch.equal(tensor, average[name])
        expected = 0.9 * before[name] + 0.1 * last[f"model.network.{name}"]
        torch.testing.assert_close(tensor, expected)


def train_in_little_room(recipe: Path, run: Path, root: Path, limit: int) -> None:
    """What the disk says when it is full, it says of files that are longer than the limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        train(recipe, run, resume=True, data_root=root)
    except ZooError as error:
        (run.parent / "said").write_text(str(error))
        sys.exit(2)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.2], ids=["little", "weights", "optimiser"])
def test_a_full_disk_leaves_the_last_checkpoint(
    undisturbed: Path, recipe: Path, noise_root: Path, tmp_path: Path, share: float
) -> None:
    run = tmp_path / "run"
    train(recipe, run, max_minutes=0, data_root=noise_root)
    assert checkpoints(run) == [1]
    for name in ("run.json", "log.jsonl"):  # small files still have room
        (run / name).unlink(missing_ok=True)
    limit = int(share * (undisturbed / "model.safetensors").stat().st_size)
    arguments = (recipe, run, noise_root, limit)
    child = processes.Process(target=train_in_little_room, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == 2
    said = (tmp_path / "said").read_text()
    assert "\n" not in said
    assert "could not be written" in said
    if share > 0.1:  # else run.json has no room either
        assert re.search(r"\(.+ MB free\); \S+step-00000001 is intact; make room", said)
    assert checkpoints(run) == [1]
    assert verify(run / "checkpoints" / "step-00000001") is None
    assert train(recipe, run, resume=True, data_root=noise_root).finished
    assert_same(run, undisturbed)


@pytest.fixture
def broken_digit(noise_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving MNIST, but for sequence 9, which is infinite."""
    from zoo.data.mmnist import MovingMNIST

    whole = MovingMNIST.__getitems__

    def items(self: MovingMNIST, indices: list[int]) -> list[torch.Tensor]:
        return [
            sequence / 0 if index == 9 else sequence
            for index, sequence in zip(indices, whole(self, indices), strict=True)
        ]

    monkeypatch.setattr(MovingMNIST, "__getitems__", items)


@pytest.mark.usefixtures("broken_digit")
def test_a_step_that_is_not_finite_stops_with_its_sequences(
    noise_root: Path, tmp_path: Path
) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    told = r"loss of step 5 is (nan|inf), from the sequences 9; \S+step-00000004 is sound"
    with pytest.raises(ZooError, match=told):
        train(recipe, run, data_root=noise_root)
    assert log(run)[-1] == {"step": 5, "skipped": 1, "sequences": [9]}
    assert verify(run / "checkpoints" / "step-00000004") is None


@pytest.mark.usefixtures("broken_digit")
def test_a_run_goes_on_past_a_step_that_is_not_finite(noise_root: Path, tmp_path: Path) -> None:
    """From the step before, as it says, and ends like one that left the step out at once."""
    recipe, skipping = tmp_path / "recipe.toml", tmp_path / "skipping.toml"
    recipe.write_text(RECIPE.replace("checkpoint_every = 1", "checkpoint_every = 3"))
    skipping.write_text(recipe.read_text() + 'nonfinite = "skip"\n')
    told = r"step-00000004 is sound; .*: --resume --set train.nonfinite=skip$"
    with pytest.raises(ZooError, match=told):
        train(recipe, tmp_path / "run", data_root=noise_root)
    settings = [("train.nonfinite", "skip")]
    more: dict[str, Any] = {"resume": True, "data_root": noise_root}
    outcome = train(recipe, tmp_path / "run", settings=settings, **more)
    assert (outcome.step, outcome.skipped) == (12, 1)
    train(skipping, tmp_path / "other", data_root=noise_root)
    assert_same(tmp_path / "run", tmp_path / "other")
    whole = [{k: v for k, v in line.items() if k != "seconds"} for line in log(tmp_path / "other")]
    assert [{k: v for k, v in e.items() if k != "seconds"} for e in log(tmp_path / "run")] == whole


@pytest.mark.usefixtures("broken_digit")
def test_a_step_that_is_not_finite_is_skipped_and_counted(noise_root: Path, tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE.replace("checkpoint_every = 1", 'keep = 12\nnonfinite = "skip"'))
    recipe.write_text(recipe.read_text() + "checkpoint_every = 1\n")
    outcome = train(recipe, run, data_root=noise_root)
    assert (outcome.step, outcome.skipped) == (12, 1)
    assert [line for line in log(run) if "skipped" in line] == [
        {"step": 5, "skipped": 1, "sequences": [9]}
    ]
    before, after, next_one = (
        load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
        for step in (4, 5, 6)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(next_one[name], after[name]) for name in before)
    facts = json.loads((run / "metrics.json").read_text())["training"]
    assert facts["skipped"] == 1
    assert zoo.load(f"local-dir:{run}")


def test_parts_of_a_batch_add_up_to_it(undisturbed: Path, noise_root: Path, tmp_path: Path) -> None:
    for accumulate, batch_size in ((2, 3), (3, 3), (1, 3)):
        path = tmp_path / f"{accumulate}.toml"
        more = f"[memory]\naccumulate = {accumulate}\ncheckpoint_every = 2\n"
        path.write_text(replaced(("batch_size = 2", f"batch_size = {batch_size}"), more=more))
        train(path, tmp_path / str(accumulate), data_root=noise_root)
    whole = weights(tmp_path / "1")
    for accumulate in (2, 3):
        for name, tensor in weights(tmp_path / str(accumulate)).items():
            torch.testing.assert_close(tensor, whole[name], atol=1e-6, rtol=1e-4)


def train_in_little_memory(recipe: Path, run: Path, root: Path) -> None:
    """More than 240 MB beside what is taken already are not to be had: the half of a batch fits."""
    torch.set_num_threads(1)
    # Tensors apart from the heap, so that what is freed is there for all: oneDNN takes no heap.
    mmap_threshold = -3  # malloc.h
    ctypes.CDLL(None).mallopt(mmap_threshold, 2**16)
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 240 * 2**20,) * 2)
    from zoo.train import engine

    found = engine._Training._find_parts

    def told(self: engine._Training) -> int:
        parts = found(self)
        (run.parent / "parts").write_text(str(parts))
        return parts

    engine._Training._find_parts = told
    train(recipe, run, data_root=root)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
def test_a_batch_that_does_not_fit_is_cut(noise_root: Path, tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    text = replaced(("batch_size = 2", "batch_size = 32"), ("steps = 12", "steps = 2"))
    text = text.replace("patch = 8", "patch = 2").replace("hidden = 4", "hidden = 16")
    recipe.write_text(text + "[memory]\nfit = true\n")
    child = processes.Process(target=train_in_little_memory, args=(recipe, run, noise_root))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert 1 < int((tmp_path / "parts").read_text()) <= 8
    recipe.write_text(text)
    train(recipe, tmp_path / "whole", data_root=noise_root)
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, weights(tmp_path / "whole")[name], atol=1e-5, rtol=1e-3)
