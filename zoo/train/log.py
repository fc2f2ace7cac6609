"""The log of a run: log.jsonl and the trackers of the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from zoo.atomic import atomic_path
from zoo.errors import ConfigError, ZooError, did_you_mean
from zoo.plugins import DISTRIBUTION
from zoo.train.records import log_lines

__all__ = ["Log", "check_trackers"]


class Log:
    """log.jsonl, one JSON object per line; numbers go to the recipe's trackers as well.

    Opening the log drops the lines after `step`, from which the run resumes.
    """

    def __init__(self, path: Path, step: int, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        if accelerator.is_main_process and path.exists():
            kept = [line for line, values in log_lines(path) if values and values["step"] <= step]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def write(self, step: int, **values: Any) -> None:
        """Append a line.

        Raises:
            ZooError: if the file cannot be written, for example on a full disk.
        """
        if not self.accelerator.is_main_process:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise ZooError(
                f"cannot write {self.path} ({error.strerror}); free some disk space, then continue "
                "with --resume"
            ) from error
        numbers = {name: v for name, v in values.items() if isinstance(v, int | float)}
        self.accelerator.log(numbers, step=step)


def check_trackers(names: tuple[str, ...]) -> None:
    """Check that accelerate knows the trackers and that they are installed.

    Raises:
        ConfigError: if one is unknown or not installed.
    """
    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    installed = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"watch.trackers: unknown tracker {name!r}{did_you_mean(name, known)}"
            )
        if name not in installed:
            extra = f"'{DISTRIBUTION}[tensorboard]'" if name == "tensorboard" else name
            raise ConfigError(f"watch.trackers: {name} is not installed: pip install {extra}")
