"""run.json: what each start of a run ran on."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from zoo.atomic import write_json
from zoo.forecast import Forecaster
from zoo.plugins import DISTRIBUTION
from zoo.train.folder import Changes
from zoo.train.records import read_starts

__all__ = ["add_start"]


def add_start(
    path: Path, accelerator: Accelerator, model: Forecaster, step: int, changes: Changes
) -> list[dict[str, Any]]:
    """Add this start to run.json and return all starts.

    Args:
        path: the file, which is created if it does not exist.
        accelerator: the processes and their device.
        model: the model that is trained.
        step: the step from which the run continues.
        changes: recipe keys that change from this step on.
    """
    starts = read_starts(path)
    start = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": step,
        "command": sys.argv,
        "processes": accelerator.num_processes,
        "distributed": accelerator.distributed_type.value,
        "device": str(accelerator.device),
        "device_name": _device_name(accelerator.device),
        "threads": torch.get_num_threads(),
        "pid": os.getpid(),
        "changed": changes,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _packages(model)},
        },
    }
    if not changes:
        del start["changed"]
    starts.append(start)
    content = {"parameters": sum(p.numel() for p in model.parameters()), "starts": starts}
    write_json(path, content)
    return starts


def _packages(model: Forecaster) -> list[str]:
    plugin = model.config.plugin
    own = [DISTRIBUTION, "torch", "accelerate", "timm"]
    return own if plugin is None or plugin.distribution in own else [*own, plugin.distribution]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return platform.processor() or platform.machine()
