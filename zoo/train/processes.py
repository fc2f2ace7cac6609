"""Several processes of one run: what the main one finds out, and how they tell of a lost one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from zoo.errors import ZooError

__all__ = ["lost_processes", "on_main"]

T = TypeVar("T")


def on_main(accelerator: Accelerator, act: Callable[[], T]) -> T:
    """Act in the main process alone; all of them get what it returns, or the ZooError it raises.

    What is returned is pickled.
    """
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = act()
        except ZooError as error:
            found[1] = str(error)
    value, problem = broadcast_object_list(found)
    if problem is not None:
        raise ZooError(problem)
    result: T = value
    return result


@contextmanager
def lost_processes() -> Iterator[None]:
    """Tell in one line that another process of the run is gone."""
    try:
        yield
    except RuntimeError as error:  # gloo has no error of its own
        lost = isinstance(error, torch.distributed.DistBackendError) or "gloo" in str(error)
        if not lost:
            raise
        raise ZooError(
            "another process of the run is lost; start all of them again with --resume"
        ) from error
