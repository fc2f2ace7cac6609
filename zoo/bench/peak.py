"""The peak memory of a function, measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

from zoo.errors import ConfigError

__all__ = ["can_measure", "peak"]

_STATUS = Path("/proc/self/status")


def can_measure(device: str) -> bool:
    """Return whether memory can be measured: on CUDA, and on the CPU if the system is Linux."""
    return device.startswith("cuda") or (device == "cpu" and _STATUS.exists())


def peak(
    run: Callable[..., object], *arguments: object, warm_up: tuple[object, ...], device: str = "cpu"
) -> int:
    """Measure the memory that ``run(*arguments)`` takes at its peak.

    On CUDA it is the memory that torch allocates; on a CPU, the growth of the resident memory of
    a new process.

    Args:
        run: A function of a module.
        arguments: Its arguments, which can be pickled.
        warm_up: Arguments of a small run before, which loads parts of torch that are not counted.
        device: Where it runs.

    Returns:
        Bytes.

    Raises:
        ConfigError: If the device is unknown or out of memory, or if it is a CPU and the system
            is not Linux.
    """
    if not can_measure(device):
        raise ConfigError(
            f"memory cannot be measured on the device {device!r}; expected cuda, or cpu on Linux"
        )
    if device != "cpu":
        return _cuda_peak(run, arguments, device)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            threads = torch.get_num_threads()
            return pool.submit(_resident_peak, run, arguments, warm_up, threads).result()
        except BrokenProcessPool:
            raise ConfigError(
                "a run was killed, probably because it ran out of memory; choose smaller frames, "
                "fewer of them, or a smaller batch"
            ) from None


def _cuda_peak(run: Callable[..., object], arguments: tuple[object, ...], device: str) -> int:
    try:
        torch.empty(0, device=device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run(*arguments)
        return torch.cuda.max_memory_allocated(device) - before
    except (RuntimeError, AssertionError, ValueError) as error:  # whatever torch raises
        reason = str(error).splitlines()[0]
        raise ConfigError(f"it fails on {device!r}: {reason}") from None


def _resident_peak(
    run: Callable[..., object],
    arguments: tuple[object, ...],
    warm_up: tuple[object, ...],
    threads: int,
) -> int:
    """Return how much this new process grows."""
    torch.set_num_threads(threads)
    run(*warm_up)
    before = _resident("VmRSS")
    try:
        run(*arguments)
    except RuntimeError as error:
        raise ConfigError(f"it fails: {str(error).splitlines()[0]}") from None
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    """Return the resident bytes of this process: current (VmRSS) or peak (VmHWM)."""
    match = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    return int(match[1]) * 1024 if match else 0
