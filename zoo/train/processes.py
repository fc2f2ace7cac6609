"""The processes of a run: how they start, agree, stop, and notice that one of them is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    InitProcessGroupKwargs,
    broadcast_object_list,
    set_seed,
)

from zoo.errors import ConfigError, ZooError
from zoo.train.recipe import Recipe
from zoo.train.rendezvous import METHOD

__all__ = [
    "create_accelerator",
    "is_about_lost_process",
    "on_main",
    "report_lost_processes",
    "stop_signals",
]

T = TypeVar("T")

#: Seconds that a process waits for the others, unless ZOO_PROCESS_TIMEOUT is set. (accelerate
#: ignores 600, its default with nccl, and gloo then waits for half an hour.)
TIMEOUT = 900

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def create_accelerator(recipe: Recipe, run: Path) -> Accelerator:
    """Join the other processes of the run, if there are any, and seed this one.

    Raises:
        ConfigError: if accelerate is configured to shard the model or to divide the gradient.
    """
    # Otherwise accelerate reuses the precision of an earlier run in this process.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else processes on CPUs would not join
        mixed_precision="no" if recipe.train.precision == "fp32" else recipe.train.precision,
        log_with=list(recipe.watch.trackers) or None,
        project_dir=run,
        kwargs_handlers=[InitProcessGroupKwargs(init_method=METHOD, timeout=_timeout())],
    )
    if accelerator.distributed_type in SHARDED:
        raise ConfigError(
            f"accelerate is configured for {accelerator.distributed_type.value}, which zoo train "
            "does not support; run accelerate config again without it"
        )
    if accelerator.gradient_accumulation_steps != 1:  # would divide the gradient
        raise ConfigError(
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS (set by hand or by accelerate config) is "
            f"{accelerator.gradient_accumulation_steps}, must be 1; to split batches, use --set "
            "memory.accumulate=N"
        )
    set_seed(recipe.train.seed, deterministic=recipe.train.deterministic)
    return accelerator


def on_main(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """Call a function in the main process alone.

    Every process gets its result, or the ZooError it raises; both are pickled.
    """
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = function()
        except ZooError as error:
            outcome[1] = error
    result, problem = broadcast_object_list(outcome)
    if problem is not None:
        raise problem
    value: T = result
    return value


@contextmanager
def report_lost_processes() -> Iterator[None]:
    """Turn torch's errors about a lost process into a ZooError."""
    try:
        yield
    except RuntimeError as error:
        if not is_about_lost_process(error):
            raise
        raise ZooError(
            "lost another process of the run; restart all of them with --resume"
        ) from error


def is_about_lost_process(error: Exception) -> bool:
    """Return whether torch raised an error because another process is lost."""
    # gloo has no error class of its own.
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C in a list, to stop after the current step."""
    received: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(kind, lambda number, _: received.append(number)) for kind in kinds]
    try:
        yield received
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _timeout() -> timedelta:
    """Return how long a process waits for the others."""
    seconds = os.environ.get("ZOO_PROCESS_TIMEOUT", str(TIMEOUT))
    if not seconds.isdecimal() or int(seconds) == 0:
        raise ConfigError(f"ZOO_PROCESS_TIMEOUT is {seconds!r}, must be a positive integer")
    return timedelta(seconds=int(seconds))
