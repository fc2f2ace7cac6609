"""Several processes train one model, with the result of one process."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import (
    assert_close,
    exit_codes,
    free_port,
    log,
    processes,
    replaced,
    start_together,
    train_rank,
    train_together,
    wait_for_step,
)
from torch.distributed import TCPStore
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from zoo.train.engine import train
from zoo.train.rendezvous import agree_on_prefix
from zoo.train.sampling import Order, Share, ShareSampler


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Epochs of 7 sequences in batches of 3, so that nothing divides evenly."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    text = replaced(
        ("steps = 12\nbatch_size = 2", "epochs = 4\nbatch_size = 3\nema_decay = 0.5"),
        ("horizon = 2", "horizon = 2\noptions = {sequences = 7}"),
        more="[evaluation]\nevery = 5\nsequences = 5\nbatch_size = 3\n",
    )
    path.write_text(text.replace("ms-predrnn", "ms-predrnnv2"))
    return path


@pytest.fixture(scope="module")
def single(recipe: Path, noise_root: Path) -> Path:
    run = recipe.parent / "single"
    outcome = train(recipe, run, data_root=noise_root)
    assert (outcome.step, outcome.steps) == (12, 12)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_give_the_weights_of_one(
    single: Path, recipe: Path, noise_root: Path, tmp_path: Path, world: int
) -> None:
    run = tmp_path / "run"
    assert train_together(world, recipe, run, data_root=noise_root) == [0] * world
    assert_close(run, single)
    for one, other in zip(log(run), log(single), strict=True):
        assert one.keys() == other.keys()
        for name in set(one) - {"seconds"}:
            assert one[name] == pytest.approx(other[name], rel=1e-4)
    facts = json.loads((run / "metrics.json").read_text())["training"]
    assert (facts["processes"], facts["sequences"]) == (world, 4 * 7)


@given(
    length=st.integers(1, 30),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    shuffle=st.booleans(),
    first=st.integers(0, 40),
)
def test_every_sequence_of_an_epoch_is_seen_once(
    length: int, batch_size: int, world: int, seed: int, shuffle: bool, first: int
) -> None:
    """From whatever step the run resumes; padding rows do not count."""
    order = Order(length, batch_size, seed, shuffle)
    steps = 3 * order.steps_per_epoch
    first = min(first, steps)
    seen: list[list[int]] = [[] for _ in range(steps)]
    for process in range(world):
        sampler = ShareSampler(order, first, steps, process, world)
        assert len(list(sampler)) == len(sampler) == steps - first
        for step, sequences in enumerate(sampler, start=first):
            share = Share.of(len(order.batch(step)), process, world)
            counting = (share.weights > 0).tolist()
            assert len(counting) == len(sequences)
            seen[step] += [s for s, counts in zip(sequences, counting, strict=True) if counts]
    for step in range(first, steps):
        assert seen[step] == order.batch(step)
    for epoch in range(3):
        steps_of_it = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        assert sorted(s for step in steps_of_it for s in order.batch(step)) == [*range(length)]


def test_order_depends_on_epoch_and_seed() -> None:
    order = Order(50, 50, seed=3)
    assert order.batch(0) != order.batch(1)
    assert order.batch(0) == Order(50, 50, seed=3).batch(0) != Order(50, 50, seed=4).batch(0)


@given(batch=st.integers(1, 40), world=st.integers(1, 9))
def test_shares_have_one_size_and_weights_of_a_mean(batch: int, world: int) -> None:
    shares = [Share.of(batch, process, world) for process in range(world)]
    assert len({len(share.rows) for share in shares}) == 1
    total = torch.zeros(batch, dtype=torch.float64)
    for share in shares:
        total.index_add_(0, torch.tensor(share.rows), share.weights.double())
    torch.testing.assert_close(total, torch.full((batch,), 1 / batch, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_resume_with_different_number_of_processes(
    single: Path, recipe: Path, noise_root: Path, tmp_path: Path, before: int, after: int
) -> None:
    run = tmp_path / "run"
    options = {"data_root": noise_root, "resume": True}
    assert train_together(before, recipe, run, max_minutes=0, **options) == [3] * before
    assert train_together(after, recipe, run, **options) == [0] * after
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [(start["step"], start["processes"]) for start in starts] == [(0, before), (1, after)]
    assert_close(run, single)


@pytest.mark.slow
def test_signal_to_one_process_stops_all_with_checkpoint(
    recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    longer, run = tmp_path / "recipe.toml", tmp_path / "run"
    longer.write_text(recipe.read_text().replace("epochs = 4", "epochs = 4000"))
    children = start_together(2, longer, run, data_root=noise_root)
    wait_for_step(run, 4)
    os.kill(children[1].pid, signal.SIGTERM)
    assert exit_codes(children) == [3, 3]
    assert log(run)[-1]["step"] == int(max((run / "checkpoints").iterdir()).name[-8:])


@pytest.mark.slow
def test_all_processes_report_why_a_run_cannot_start(
    single: Path, recipe: Path, noise_root: Path
) -> None:
    assert train_together(2, recipe, single, data_root=noise_root) == [4, 4]
    starts = (single / "run.json").read_bytes()
    assert train_together(2, recipe, single, data_root=noise_root, resume=True) == [0, 0]
    assert (single / "run.json").read_bytes() == starts


@pytest.mark.slow
def test_lost_process_ends_the_others_with_an_error(
    recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    longer, run = tmp_path / "recipe.toml", tmp_path / "run"
    longer.write_text(recipe.read_text().replace("epochs = 4", "epochs = 4000"))
    children = start_together(2, longer, run, data_root=noise_root)
    wait_for_step(run, 4)
    os.kill(children[1].pid, signal.SIGKILL)
    assert exit_codes(children)[0] == 2  # a ZooError


def train_with_timeout(seconds: int, *arguments: Any) -> None:
    os.environ["ZOO_PROCESS_TIMEOUT"] = str(seconds)
    train_rank(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_missing_process_is_an_error_after_the_timeout(
    recipe: Path, noise_root: Path, tmp_path: Path, rank: int
) -> None:
    arguments = (rank, 2, free_port(), (recipe, tmp_path / "run"), {"data_root": noise_root})
    child = processes.Process(target=train_with_timeout, args=(3, *arguments))
    child.start()
    assert exit_codes([child]) == [2]  # a ZooError
    assert not (tmp_path / "run").exists()


def test_prefix_is_agreed_upon_despite_an_earlier_start() -> None:
    """The processes come in any order; what the earlier start left in the store has no effect."""
    server = TCPStore("127.0.0.1", 0, is_master=True)
    prefixes = set()
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        with ThreadPoolExecutor() as pool:
            agreed = set()
            for future in [pool.submit(join, server.port, rank) for rank in order]:
                agreed.add(future.result())
        assert len(agreed) == 1
        prefixes |= agreed
    assert len(prefixes) == 3


def join(port: int, rank: int) -> str:
    client = TCPStore("127.0.0.1", port, is_master=False)
    return agree_on_prefix(client, rank, 3, timedelta(seconds=30))


@pytest.mark.parametrize("rank", [0, 1])
def test_process_that_does_not_arrive_is_an_error(rank: int) -> None:
    """Although one arrived in an earlier start."""
    server = TCPStore("127.0.0.1", 0, is_master=True)
    for other in {0, 1} - {rank}:
        server.set(f"process {other}", "earlier")
        server.set("prefix for earlier", "earlier")
    with pytest.raises(torch.distributed.DistError):
        agree_on_prefix(server, rank, 2, timedelta(seconds=0.2))


@pytest.mark.slow
def test_two_hosts_restart_after_a_process_was_killed(
    single: Path, recipe: Path, noise_root: Path, tmp_path: Path
) -> None:
    """Two agents of torchrun meet over loopback; the worker of one is killed, and both restart."""
    options = {"data_root": noise_root, "resume": True}
    port, run = free_port(), tmp_path / "run"
    hosts = [
        processes.Process(target=host, args=(f"127.0.0.{number}", port, (recipe, run), options))
        for number in (1, 2)
    ]
    for agent in hosts:
        agent.start()
    try:
        wait_for_step(run, 3)
        (start,) = json.loads((run / "run.json").read_text())["starts"]
        os.kill(start["pid"], signal.SIGKILL)
        for agent in hosts:
            agent.join(240)
        codes = [agent.exitcode for agent in hosts]
    finally:
        for agent in hosts:
            with suppress(ProcessLookupError):
                os.killpg(agent.pid, signal.SIGKILL)  # and its workers
    assert codes == [0, 0]
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2, 2]
    assert 3 <= starts[1]["step"] < 12
    assert_close(run, single)


def host(address: str, port: int, arguments: tuple, options: dict) -> None:
    """Run what ``torchrun --nnodes 2 --max-restarts 3`` runs on one host."""
    os.setpgrp()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["ZOO_PROCESS_TIMEOUT"] = "60"
    processes.set_forkserver_preload(["zoo.train.engine"])  # for the workers of this process
    config = LaunchConfig(
        min_nodes=2,
        max_nodes=2,
        nproc_per_node=1,
        run_id="zoo",
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{port}",
        max_restarts=3,
        start_method="forkserver",
        local_addr=address,
    )
    elastic_launch(config, worker)(arguments, options)


def worker(arguments: tuple, options: dict) -> None:
    torch.set_num_threads(1)
    assert train(*arguments, **options).finished
