"""What a run tells: its log, its measurements, its pictures, and what it ran on."""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from torch.utils.data import DataLoader, Subset

from zoo.atomic import atomic_path, make_folder, write_json
from zoo.data import open_dataset
from zoo.errors import ZooError, did_you_mean
from zoo.forecast import Forecaster
from zoo.inspect.pictures import comparison_strip
from zoo.metrics import FrameMetrics
from zoo.plugins import DISTRIBUTION
from zoo.train.folder import Changes
from zoo.train.recipe import Recipe
from zoo.train.sampling import Share

__all__ = ["Log", "Validation", "check_trackers", "write_facts"]


METRICS = ("mse", "mae", "ssim", "psnr")


class Log:
    """log.jsonl, a line of JSON every few steps, and the same to the recipe's trackers.

    Lines after the step that a run goes on from are dropped.
    """

    def __init__(self, path: Path, step: int, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        if accelerator.is_main_process and path.exists():
            # Where the power was cut there may be anything, which is no line of JSON.
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if _is_until(line, step)]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def write(self, step: int, **values: Any) -> None:
        """Write a line; ZooError where there is no room for it."""
        if not self.accelerator.is_main_process:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise ZooError(
                f"{self.path} could not be written ({error.strerror}); make room, then go on "
                "with --resume"
            ) from error
        numbers = {name: v for name, v in values.items() if isinstance(v, int | float)}
        self.accelerator.log(numbers, step=step)


def _is_until(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):  # one that was being written when the run was killed
        return False


def check_trackers(names: tuple[str, ...]) -> None:
    """ZooError for a tracker that accelerate does not know or that is not installed."""
    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    there = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise ZooError(f"watch.trackers: accelerate has no {name!r}{did_you_mean(name, known)}")
        if name not in there:
            extra = f"'{DISTRIBUTION}[tensorboard]'" if name == "tensorboard" else name
            raise ZooError(f"watch.trackers: {name} is not installed: pip install {extra}")


class Validation:
    """How good the model is on sequences that it is not trained on.

    Raises ZooError where the data are absent.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator, root: Path | None) -> None:
        self.accelerator = accelerator
        self.given, self.horizon = recipe.data.input_frames, recipe.data.horizon
        settings = recipe.evaluation
        options: dict[str, Any] = {**recipe.data.options, **settings.options}
        dataset: Any = open_dataset(
            recipe.data.name,
            settings.split,
            root=root,
            frames=self.given + self.horizon,
            **options,
        )
        self.dataset = Subset(dataset, range(min(settings.sequences, len(dataset))))
        self.batch_size = settings.batch_size

    def measure(self, model: Forecaster) -> dict[str, float | None]:
        """The metrics of the forecast frames; each process forecasts its share."""
        metrics, device = FrameMetrics(), self.accelerator.device
        model.eval()
        for sequences in DataLoader(self.dataset, self.batch_size):
            share = Share.of(
                len(sequences), self.accelerator.process_index, self.accelerator.num_processes
            )
            past = sequences[share.rows, : self.given].nan_to_num().to(device)
            with torch.no_grad():
                forecast = model(past, self.horizon)[:, -self.horizon :].float()
            together = self.accelerator.gather(forecast.contiguous())[: len(sequences)]
            metrics.update(together.cpu(), sequences[:, self.given :].float())
        found = metrics.compute()
        return {name: found[name] for name in METRICS}

    def draw(self, model: Forecaster, path: Path) -> None:
        """A picture of the first sequence: what was read, the truth and the forecast."""
        sequence = self.dataset[0]
        model.eval()
        with torch.no_grad():
            past = sequence[None, : self.given].nan_to_num().to(self.accelerator.device)
            forecast = model(past, self.horizon)[0, -self.horizon :].float().cpu().clamp(0, 1)
        shown = slice(None) if sequence.shape[1] in (1, 3) else slice(1)  # channels
        frames = (sequence[: self.given], sequence[self.given :], forecast)
        make_folder(path.parent)
        with atomic_path(path) as temporary:
            comparison_strip(*(f[:, shown].nan_to_num().numpy() for f in frames)).save(temporary)


def write_facts(
    path: Path, accelerator: Accelerator, model: Forecaster, step: int, changes: Changes
) -> list[dict[str, Any]]:
    """Add to run.json what this start of the run runs on, and return those of all starts."""
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "starts": []}
    with suppress(OSError, ValueError, KeyError, TypeError):  # the first start, a damaged file
        facts["starts"] = list(json.loads(path.read_text())["starts"])
    facts["starts"].append(
        {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "step": step,
            "command": sys.argv,
            "processes": accelerator.num_processes,
            "distributed": accelerator.distributed_type.value,
            "device": str(accelerator.device),
            "device_name": _device_name(accelerator.device),
            "threads": torch.get_num_threads(),
            "pid": os.getpid(),
            **({"changed": changes} if changes else {}),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in _packages(model)},
            },
        }
    )
    write_json(path, facts)
    starts: list[dict[str, Any]] = facts["starts"]
    return starts


def _packages(model: Forecaster) -> list[str]:
    plugin = model.config.plugin
    own = [DISTRIBUTION, "torch", "accelerate", "timm"]
    return own if plugin is None or plugin.distribution in own else [*own, plugin.distribution]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return platform.processor() or platform.machine()
