"""Helpers for tests of training: a tiny recipe, and processes that train it."""

import json
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from zoo.errors import ZooError
from zoo.train.engine import train

# Children are forked from a process that has imported torch once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["zoo.train.engine"])

RECIPE = """
[model]
name = "ms-predrnn"
hidden = 4
layers = 3
patch = 8

[data]
name = "mmnist"
input_frames = 2
horizon = 2

[train]
steps = 12
batch_size = 2
schedule = "cosine"
warmup_steps = 1
checkpoint_every = 1
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def assert_same(run: Path, other: Path) -> None:
    """Check that the weights are equal bit for bit, and that the log has every line once."""
    one, two = weights(run), weights(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [line["step"] for line in log(run) if "loss" in line]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12


def assert_close(run: Path, other: Path) -> None:
    """Check that the weights are equal except for rounding."""
    one, two = weights(run), weights(other)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=1e-4)


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def train_rank(rank: int, world: int, port: int, arguments: tuple, options: dict) -> None:
    """Train as one of several processes, as torchrun starts it.

    Exits with 0 if finished, 3 if stopped, 2 if another process is lost, 4 on other errors.
    """
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    try:
        outcome = train(*arguments, **options)
    except ZooError as error:
        sys.exit(2 if isinstance(error.__cause__, RuntimeError) else 4)
    sys.exit(0 if outcome.finished else 3)


def start_together(world: int, *arguments: object, **options: object) -> list:
    port = free_port()
    children = [
        processes.Process(target=train_rank, args=(rank, world, port, arguments, options))
        for rank in range(world)
    ]
    for child in children:
        child.start()
    return children


def train_together(world: int, *arguments: object, **options: object) -> list[int]:
    """Train with several processes and return their exit codes."""
    return exit_codes(start_together(world, *arguments, **options))


def exit_codes(children: list) -> list[int]:
    """Wait for processes to end, kill those that hang, and return exit codes."""
    for child in children:
        child.join(240)
        child.kill()
        child.join()
    return [child.exitcode for child in children]


def wait_for_step(run: Path, step: int) -> None:
    """Wait until a run has the checkpoint of a step or a later one."""
    deadline = time.monotonic() + 180
    while not any(int(p.name[-8:]) >= step for p in run.glob("checkpoints/step-*")):
        assert time.monotonic() < deadline, "the run is too slow"
        time.sleep(0.02)


def replaced(*pairs: tuple[str, str], more: str = "") -> str:
    """The tiny recipe with some of its text replaced."""
    text = RECIPE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text + more
