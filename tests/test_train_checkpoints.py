"""Checkpoints: what is kept, how damage is handled, and how a run stops."""

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

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    more = "ema_decay = 0.9\nkeep = 3\n[evaluation]\nevery = 2\nsequences = 2\n"
    path.write_text(RECIPE + more)
    return path


@pytest.fixture(scope="module")
def reference(recipe: Path, noise_root: Path) -> Path:
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
def test_resume_skips_damaged_checkpoints(
    reference: Path, recipe: Path, noise_root: Path, tmp_path: Path, name: str, how: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (run / "model.safetensors").unlink()
    last = run / "checkpoints" / "step-00000012"
    assert verify(last) is None
    damage(last / name, how)
    with pytest.warns(UserWarning, match="step-00000012"):
        outcome = train(recipe, run, resume=True, data_root=noise_root)
    assert outcome.finished
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 11]
    assert_same(run, reference)
    assert checkpoints(run)[-3:] == [10, 11, 12]


def test_verify_names_files_that_differ_from_checksums(reference: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(reference / "checkpoints" / "step-00000012", tmp_path / "step")
    assert verify(checkpoint) is None
    (checkpoint / "more.bin").write_text("")
    assert "more.bin" in (verify(checkpoint) or "")
    (checkpoint / "checksums.json").write_text("{}")
    assert "average.safetensors, model.safetensors, more.bin" in (verify(checkpoint) or "")


def test_run_without_intact_checkpoint_does_not_restart(
    reference: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (run / "model.safetensors").unlink()
    for path in run.glob("checkpoints/*/model.safetensors"):
        damage(path, "cut")
    for _ in range(2):
        with pytest.raises(ZooError, match="rm -r"):
            train(recipe, run, resume=True, data_root=noise_root)


def test_last_checkpoints_and_the_best_are_kept(
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

    # A damaged best checkpoint is an error, not silently replaced by another.
    (run / "model.safetensors").unlink()
    damage(run / "checkpoints" / f"step-{best:08d}" / "model.safetensors", "flipped")
    more: dict[str, Any] = {"resume": True, "data_root": noise_root}
    message = rf"step-{best:08d}.*--set evaluation.select=last"
    for _ in range(2):
        with pytest.raises(ZooError, match=message):
            train(worse, run, **more)
        shutil.rmtree(run / "checkpoints" / f"step-{best:08d}", ignore_errors=True)
    assert train(worse, run, settings=[("evaluation.select", "last")], **more).finished
    kept = load_file(run / "checkpoints" / "step-00000010" / "model.safetensors")
    assert all(torch.equal(kept[f"model.network.{n}"], t) for n, t in weights(run).items())


def test_model_has_averaged_weights(reference: Path) -> None:
    found, raw = weights(reference), reference / "checkpoints" / "step-00000012"
    average = load_file(raw / "average.safetensors")
    last = load_file(raw / "model.safetensors")
    before = load_file(reference / "checkpoints" / "step-00000011" / "average.safetensors")
    assert any(not torch.equal(found[name], last[f"model.network.{name}"]) for name in found)
    for name, tensor in found.items():
        assert torch.equal(tensor, average[name])
        expected = 0.9 * before[name] + 0.1 * last[f"model.network.{name}"]
        torch.testing.assert_close(tensor, expected)


def train_in_little_room(recipe: Path, run: Path, root: Path, limit: int) -> None:
    """Train with a limit on the size of files, which fails as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        train(recipe, run, resume=True, data_root=root)
    except ZooError as error:
        (run.parent / "message").write_text(str(error))
        sys.exit(2)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.2], ids=["little", "weights", "optimizer"])
def test_full_disk_leaves_last_checkpoint_intact(
    reference: Path, recipe: Path, noise_root: Path, tmp_path: Path, share: float
) -> None:
    run = tmp_path / "run"
    train(recipe, run, max_minutes=0, data_root=noise_root)
    assert checkpoints(run) == [1]
    for name in ("run.json", "log.jsonl"):  # small files still have room
        (run / name).unlink(missing_ok=True)
    limit = int(share * (reference / "model.safetensors").stat().st_size)
    arguments = (recipe, run, noise_root, limit)
    child = processes.Process(target=train_in_little_room, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == 2
    message = (tmp_path / "message").read_text()
    assert "\n" not in message
    assert re.search("cannot write|could not be written", message)
    if share > 0.1:  # else run.json has no room either
        assert re.search(r"\(.+ MB free\); \S+step-00000001 is intact", message)
    assert checkpoints(run) == [1]
    assert verify(run / "checkpoints" / "step-00000001") is None
    assert train(recipe, run, resume=True, data_root=noise_root).finished
    assert_same(run, reference)


@pytest.fixture
def broken_digit(noise_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sequence 9 of Moving MNIST infinite."""
    from zoo.data.mmnist import MovingMNIST

    whole = MovingMNIST.__getitems__

    def items(self: MovingMNIST, indices: list[int]) -> list[torch.Tensor]:
        return [
            sequence / 0 if index == 9 else sequence
            for index, sequence in zip(indices, whole(self, indices), strict=True)
        ]

    monkeypatch.setattr(MovingMNIST, "__getitems__", items)


@pytest.mark.usefixtures("broken_digit")
def test_nonfinite_step_stops_with_checkpoint_of_step_before(
    noise_root: Path, tmp_path: Path
) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    with pytest.raises(ZooError, match=r"step 5 is (nan|inf) .*9; .*step-00000004"):
        train(recipe, run, data_root=noise_root)
    assert log(run)[-1] == {"step": 5, "skipped": 1, "sequences": [9]}
    assert verify(run / "checkpoints" / "step-00000004") is None


@pytest.mark.usefixtures("broken_digit")
def test_resume_past_nonfinite_step_equals_skipping_it(noise_root: Path, tmp_path: Path) -> None:
    recipe, skipping = tmp_path / "recipe.toml", tmp_path / "skipping.toml"
    recipe.write_text(RECIPE.replace("checkpoint_every = 1", "checkpoint_every = 3"))
    skipping.write_text(recipe.read_text() + 'nonfinite = "skip"\n')
    with pytest.raises(ZooError, match=r"step-00000004.*--resume --set train.nonfinite=skip$"):
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
def test_nonfinite_step_is_skipped_and_counted(noise_root: Path, tmp_path: Path) -> None:
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


def test_accumulation_equals_whole_batch(reference: Path, noise_root: Path, tmp_path: Path) -> None:
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
    """Train with 480 MB more than already in use: a part of a batch fits."""
    torch.set_num_threads(1)
    # Allocate tensors outside the heap, so that freed memory can be reused by oneDNN.
    mmap_threshold = -3  # malloc.h
    ctypes.CDLL(None).mallopt(mmap_threshold, 2**16)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 480 * 2**20,) * 2)
    from zoo.train import engine

    find_parts = engine.find_parts

    def record_parts(*arguments: Any) -> int:
        parts = find_parts(*arguments)
        (run.parent / "parts").write_text(str(parts))
        return parts

    engine.find_parts = record_parts
    train(recipe, run, data_root=root)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
def test_batch_that_does_not_fit_is_split(noise_root: Path, tmp_path: Path) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    text = replaced(("batch_size = 2", "batch_size = 128"), ("steps = 12", "steps = 2"))
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
