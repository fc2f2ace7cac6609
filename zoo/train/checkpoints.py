"""Checkpoints: everything a run needs to resume, written atomically and verified when read."""

from __future__ import annotations

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
from zoo.errors import ConfigError, ZooError
from zoo.inputs import check_checkpoint
from zoo.model_folder import LARGEST, parse_json, read_limited, sha256_of
from zoo.train.processes import is_about_lost_process, on_main
from zoo.train.records import read_progress
from zoo.weights import save_weights

__all__ = ["Checkpoints", "verify"]

CHECKSUMS = "checksums.json"
AVERAGE = "average.safetensors"
TEMPORARY = re.compile(r"\.[0-9a-f]{12}(-old)?")  # unfinished folders of zoo.atomic


class Checkpoints:
    """The checkpoints of a run, in folders such as ``step-00000500``.

    Each holds accelerate's state (weights, optimizer, gradient scaler, random states of every
    process), the averaged weights if there are any, the progress of the run, and a checksum of
    every file.

    Args:
        folder: the folder of the checkpoints; need not exist.
        accelerator: with model and optimizer prepared.
        keep: how many of the last checkpoints to keep, in addition to the best.
        identity: recipe keys and values that a checkpoint must agree with.
        average: the module with the averaged weights, if there is one.
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
        # The wrapper for several processes prefixes the names of weights. Without the prefix, any
        # number of processes can load them.
        accelerator.register_save_state_pre_hook(_strip_prefix)
        accelerator.register_load_state_pre_hook(self._load_weights)

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}"

    def all(self) -> list[Path]:
        """List the checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def clean(self) -> None:
        """Remove unfinished checkpoints of a run that was killed."""
        for path in self.folder.glob(".*"):
            if TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def save(self, step: int, progress: dict[str, Any], best: int | None = None) -> None:
        """Write the checkpoint of a step, then remove old ones; called by all processes.

        Args:
            step: the step.
            progress: the progress of the run, to be returned by `load`.
            best: the step of the best checkpoint, which is kept.

        Raises:
            ZooError: if the checkpoint cannot be written; earlier ones stay intact.
        """
        if self.accelerator.is_main_process:
            make_folder(self.folder)
        try:
            self._write(step, progress)
        except (ZooError, RuntimeError, SafetensorError, OSError) as error:
            if self.accelerator.num_processes > 1 and isinstance(error, RuntimeError):
                raise  # reports that another process is lost
            earlier = self.all()
            last = f"{earlier[-1]} is intact" if earlier else "there is no earlier one"
            free = shutil.disk_usage(self.folder).free / 1e6
            raise ZooError(
                f"cannot write the checkpoint of step {step} ({_reason(error)}, {free:.1f} MB "
                f"free); {last}; free some disk space, then continue with --resume"
            ) from error
        if self.accelerator.is_main_process:
            for path in self.all()[: -self.keep]:
                if path != self.path(best or 0):
                    shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

    def load_last(self) -> dict[str, Any] | None:
        """Load the last intact checkpoint; called by all processes.

        Damaged checkpoints are renamed, with a warning.

        Returns:
            Its progress; None if there are no checkpoints.

        Raises:
            ZooError: if all checkpoints are damaged.
        """
        path = on_main(self.accelerator, self._last_intact)
        return None if path is None else self.load(path)

    def load(self, path: Path) -> dict[str, Any]:
        """Load a checkpoint and return its progress; called by all processes.

        Raises:
            ConfigError: if the checkpoint is from a different recipe.
            ZooError: if it does not fit the model, or contains more than tensors, which is never
                run.
        """
        progress = read_progress(path)
        saved = progress.get("recipe", {})
        differing = ", ".join(
            f"{key} was {saved[key]}, is {value}"
            for key, value in self.identity.items()
            if key in saved and saved[key] != value
        )
        if differing:
            raise ConfigError(
                f"{path} is from a different recipe ({differing}); move it away, then continue "
                "with --resume"
            )
        try:
            for file in path.iterdir():
                check_checkpoint(file)
            self.accelerator.load_state(str(path))
            if self.average is not None:
                self.average.load_state_dict(load_file(path / AVERAGE))
        except Exception as error:  # a file that zoo train did not write can raise anything
            if is_about_lost_process(error):
                raise
            raise ZooError(
                f"{path} cannot be loaded ({_reason(error)}); move it away, then continue with "
                "--resume"
            ) from error
        return progress

    def _write(self, step: int, progress: dict[str, Any]) -> None:
        main = self.accelerator.is_main_process
        with atomic_folder(self.path(step)) if main else nullcontext() as temporary:
            shared = broadcast_object_list([str(temporary)])[0]
            self.accelerator.save_state(shared)
            self.accelerator.wait_for_everyone()
            if temporary is not None:
                if self.average is not None:
                    save_weights(self.average, temporary / AVERAGE)
                content = json.dumps({**progress, "recipe": self.identity})
                (temporary / "progress.json").write_text(content)
                (temporary / CHECKSUMS).write_text(json.dumps(_checksums(temporary)))

    def _last_intact(self) -> Path | None:
        for path in reversed(self.all()):
            problem = verify(path)
            if problem is None:
                return path
            damaged = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(damaged, ignore_errors=True)
            path.rename(damaged)
            warnings.warn(f"skipping {path}: {problem}", stacklevel=2)
        if any(self.folder.glob("damaged-*")):
            raise ZooError(
                f"all checkpoints in {self.folder} are damaged; to start from the first step: "
                f"rm -r {self.folder}"
            )
        return None

    def _load_weights(self, models: list[nn.Module], folder: str) -> None:
        while models:  # accelerate loads the models that are left in the list
            model = self.accelerator.unwrap_model(models.pop())
            model.load_state_dict(load_file(Path(folder) / "model.safetensors"))


def verify(checkpoint: Path) -> str | None:
    """Compare the files of a checkpoint with their checksums.

    Returns:
        What is wrong, or None if the checkpoint is intact.
    """
    try:
        expected = parse_json(read_limited(checkpoint / CHECKSUMS, LARGEST).decode("utf-8"))
        actual = _checksums(checkpoint)
    except (OSError, ValueError) as error:
        return str(error)
    if not isinstance(expected, dict):
        return f"{CHECKSUMS} is not a JSON object"
    wrong = sorted(n for n in {*expected, *actual} if expected.get(n) != actual.get(n))
    return f"checksum mismatch: {', '.join(wrong)}" if wrong else None


def _strip_prefix(models: list[nn.Module], weights: list[dict], folder: str) -> None:
    for number, state in enumerate(weights):
        weights[number] = {
            name.removeprefix("module."): tensor.contiguous() for name, tensor in state.items()
        }


def _checksums(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file in a folder except the list of checksums."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }


def _reason(error: BaseException) -> str:
    """Return the message of the system, which libraries wrap in their own errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    system = error.strerror if isinstance(error, OSError) else None
    return " ".join((system or str(error)).split())[:200]
