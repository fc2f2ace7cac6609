"""Checkpoints: everything a run needs to go on, whole or not at all, and verified."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from zoo.atomic import atomic_folder, make_folder
from zoo.errors import ZooError
from zoo.train.processes import on_main
from zoo.weights import save_weights

__all__ = ["Checkpoints", "verify"]

CHECKSUMS = "checksums.json"
AVERAGE = "average.safetensors"
LEFTOVER = re.compile(r"\.[0-9a-f]{12}(-old)?")  # what zoo.atomic names a folder in the making


class Checkpoints:
    """The checkpoints of a run, in `folder`: ``step-00000500`` and so on.

    Each holds what accelerate saves (weights, optimiser, scaler of the gradient, random states
    of every process), the moving average of the weights where there is one, and how far
    the run was; and the checksum of every file.

    Args:
        folder: where they are, which need not exist yet.
        accelerator: with the model and optimiser prepared.
        keep: how many of the last ones are kept, beside the best.
        identity: what a checkpoint must fit, by the keys of the recipe.
        average: the module with the moving average of the weights, if any.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        keep: int,
        identity: dict[str, Any],
        average: nn.Module | None = None,
    ) -> None:
        self.folder, self.keep, self.average = folder, keep, average
        self.accelerator, self.identity = accelerator, identity
        # A wrapper for several processes puts a prefix to the names of weights. Without it they
        # are read by any number of processes.
        accelerator.register_save_state_pre_hook(_without_prefix)
        accelerator.register_load_state_pre_hook(self._load_weights)

    def path(self, step: int) -> Path:
        """That of a step."""
        return self.folder / f"step-{step:08d}"

    def all(self) -> list[Path]:
        """Those that are there, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def clean(self) -> None:
        """Remove what a run that was killed left half done."""
        for leftover in self.folder.glob(".*"):
            if LEFTOVER.fullmatch(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)

    def save(self, step: int, progress: dict[str, Any], best: int | None = None) -> None:
        """Write the checkpoint of a step, then remove those that are not to be kept.

        Called by all processes. Raises ZooError where it cannot be written; those before
        stay.
        """
        main = self.accelerator.is_main_process
        if main:
            make_folder(self.folder)
        try:
            with atomic_folder(self.path(step)) if main else nullcontext() as temporary:
                place = broadcast_object_list([str(temporary)])[0]
                self.accelerator.save_state(place)
                self.accelerator.wait_for_everyone()
                if temporary is not None:
                    if self.average is not None:
                        save_weights(self.average, temporary / AVERAGE)
                    told = json.dumps({**progress, "recipe": self.identity})
                    (temporary / "progress.json").write_text(told)
                    (temporary / CHECKSUMS).write_text(json.dumps(_checksums(temporary)))
        except (ZooError, RuntimeError, SafetensorError, OSError) as error:
            if self.accelerator.num_processes > 1 and isinstance(error, RuntimeError):
                raise  # of another process that is lost
            kept = self.all()
            intact = f"{kept[-1]} is intact" if kept else "there is none before it"
            raise ZooError(
                f"the checkpoint of step {step} could not be written ({_reason(error)}, "
                f"{shutil.disk_usage(self.folder).free / 1e6:.1f} MB free); {intact}; make room, "
                "then go on with --resume"
            ) from error
        if main:
            for old in self.all()[: -self.keep]:
                if old != self.path(best or 0):
                    shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def load_last(self) -> dict[str, Any] | None:
        """Load the last checkpoint that verifies and return its progress; None without any.

        Called by all processes. Those that do not verify are put aside, with a warning.
        """
        path = on_main(self.accelerator, self._last_sound)
        return None if path is None else self.load(path)

    def load(self, path: Path) -> dict[str, Any]:
        """Load one checkpoint and return its progress.

        Called by all processes. Raises ZooError for one of another recipe.
        """
        progress: dict[str, Any] = json.loads((path / "progress.json").read_text())
        told, wanted = progress.get("recipe", {}), self.identity
        other = [key for key in told if key in wanted and told[key] != wanted[key]]
        if other:
            shown = ", ".join(f"{key} was {told[key]}, is {wanted[key]}" for key in other)
            raise ZooError(
                f"{path} is of another recipe ({shown}); put it where it belongs, then go on with "
                "--resume"
            )
        self.accelerator.load_state(str(path))
        if self.average is not None:
            self.average.load_state_dict(load_file(path / AVERAGE))
        return progress

    def _last_sound(self) -> Path | None:
        found = self.all()
        for path in reversed(found):
            problem = verify(path)
            if problem is None:
                return path
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            warnings.warn(f"{path} is passed over: {problem}", stacklevel=2)
        if found:
            raise ZooError(
                f"no checkpoint in {self.folder} is sound; to start again from the first step: "
                f"rm -r {self.folder}"
            )
        if any(self.folder.glob("damaged-*")):
            raise ZooError(
                f"{self.folder} holds damaged checkpoints alone; to start again from the first "
                f"step: rm -r {self.folder}"
            )
        return None

    def _load_weights(self, models: list[nn.Module], place: str) -> None:
        while models:  # those taken off here are not loaded once more
            model = self.accelerator.unwrap_model(models.pop())
            model.load_state_dict(load_file(Path(place) / "model.safetensors"))


def verify(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint: None where every file is what was written."""
    try:
        told = json.loads((checkpoint / CHECKSUMS).read_text())
        there = _checksums(checkpoint)
    except (OSError, ValueError) as error:
        return f"{error}"
    if not isinstance(told, dict):
        return f"{CHECKSUMS} holds no object"
    wrong = sorted(name for name in {*told, *there} if told.get(name) != there.get(name))
    return f"{', '.join(wrong)} is not as it was written" if wrong else None


def _without_prefix(models: list[nn.Module], weights: list[dict], place: str) -> None:
    for number, state in enumerate(weights):
        weights[number] = {
            name.removeprefix("module."): tensor.contiguous() for name, tensor in state.items()
        }


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder but the list itself."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            name = str(path.relative_to(folder))
            sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sums


def _reason(error: BaseException) -> str:
    """What the system said, which the libraries that write wrap in errors of their own."""
    while error.__cause__ is not None:
        error = error.__cause__
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(told.split())[:200]
