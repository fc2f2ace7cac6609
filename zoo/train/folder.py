"""The folder of a run: who may train in it, and from which recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.atomic import atomic_path, make_folder, remove_leftovers
from zoo.errors import ConfigError, ZooError
from zoo.train.model import resolve
from zoo.train.recipe import Recipe, differences, read_recipe, write_recipe
from zoo.train.records import read_starts

__all__ = ["Changes", "affects_result", "claim", "identity", "lock", "save_recipe"]

#: Recipe keys with their values until now and from now on.
Changes = dict[str, tuple[Any, Any]]

#: What zoo train writes into the folder of a run.
WRITTEN = (
    ".lock",
    "README.md",
    "checkpoints",
    "config.json",
    "log.jsonl",
    "metrics.json",
    "model.safetensors",
    "pictures",
    "recipe.toml",
    "run.json",
    "tracked",
)

#: Files of a run that no other command writes.
OWN = ("config.json", "log.jsonl", "model.safetensors", "recipe.toml", "run.json")

#: Keys that do not affect the result.
FREE = ("memory.*", "watch.*", "data.workers", "train.checkpoint_every", "train.keep")
#: Keys that may change when a run is resumed.
CHANGEABLE = (*FREE, "train.*", "loss.*", "evaluation.*")
#: Keys of `train` that may not, as the optimizer state in a checkpoint depends on them.
FIXED = ("optimizer", "optimizer_options", "lr_parts", "freeze")


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Create the folder of a run and lock it; the lock ends with the process at the latest.

    Raises:
        ConfigError: if writing into the folder would change files elsewhere.
        ZooError: if another process trains in the folder, or it cannot be locked.
    """
    make_folder(run)
    _check_files(run)
    try:
        lock = FileLock(run / ".lock").acquire(timeout=0)
    except Timeout:
        raise ZooError(
            f"another process trains in {run}{_last_start(run)}; wait for it or choose another "
            "folder"
        ) from None
    except OSError as error:
        raise ZooError(f"cannot lock {run} ({error.strerror}); choose a writable folder") from error
    with lock:
        for name in OWN:
            remove_leftovers(run.resolve() / name, age=0)  # of a process that was killed
        yield


def claim(
    run: Path, recipe: Recipe, source: Path, settings: Iterable[tuple[str, Any]], resume: bool
) -> Changes | None:
    """Save the recipe in a new folder, or compare it with the recipe of the run in it.

    Args:
        run: the folder.
        recipe: the recipe, with the settings applied.
        source: the file of the recipe, for messages.
        settings: keys and values given explicitly; only these may change the result.
        resume: whether the folder may hold a run already.

    Returns:
        How the recipe differs from that of the run; None for a new run.

    Raises:
        ConfigError: if the folder holds a run and `resume` is false, or if a key differs that
            must not.
    """
    path = run / "recipe.toml"
    if not path.exists():
        save_recipe(run, recipe)
        return None
    if not resume:
        raise ConfigError(f"{run} already holds a run; add --resume or choose another folder")
    changes = differences(resolve(read_recipe(path)), recipe)
    fixed = [key for key, values in changes.items() if not _may_change(key, values)]
    if fixed:
        raise ConfigError(
            f"the recipe differs from {path} in {', '.join(fixed)}, which cannot change when a run "
            "is resumed; choose another folder"
        )
    given = [key for key, _ in settings]
    implicit = [
        key for key in changes if affects_result(key) and not any(_overlap(key, k) for k in given)
    ]
    if implicit:
        raise ConfigError(
            f"{source} differs from {path} in {', '.join(implicit)}; resume with the latter, "
            "change keys explicitly with --set KEY=VALUE, or choose another folder"
        )
    return changes


def affects_result(key: str) -> bool:
    """Return whether the weights a run ends with depend on a key."""
    return not _matches(key, FREE)


def save_recipe(run: Path, recipe: Recipe, starts: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write recipe.toml; values that were changed by the starts in run.json become comments."""
    history = [
        f"# Until step {start['step']}: {key} = {json.dumps(old)}\n"
        for start in starts
        for key, (old, _) in start.get("changed", {}).items()
        if start["step"] and affects_result(key)
    ]
    with atomic_path(run / "recipe.toml") as temporary:
        temporary.write_text("".join(history) + write_recipe(recipe), encoding="utf-8")


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return the keys that a checkpoint depends on: those of the model and of the optimizer."""
    train = recipe.train.model_dump(mode="json")
    model = {key: value for key, value in recipe.flat().items() if key.startswith("model.")}
    return {**model, **{f"train.{name}": train[name] for name in FIXED}}


def _check_files(run: Path) -> None:
    """Refuse links and pipes instead of the files of a run, which anyone may have made.

    Writing through a link would change a file elsewhere, and reading a pipe would wait forever.
    """
    for path in (run / name for name in WRITTEN):
        inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
        for file in (path, *inside):
            if file.is_symlink() or (file.exists() and not (file.is_file() or file.is_dir())):
                raise ConfigError(
                    f"{file} is a link or not a regular file; replace it with the file of the run, "
                    "or move it away"
                )
    # Locking empties the file; all others are replaced, which leaves hard links elsewhere alone.
    lock = run / ".lock"
    if lock.exists() and lock.stat().st_nlink > 1:
        raise ConfigError(f"{lock} is a hard link to another file; move it away")


def _may_change(key: str, values: tuple[Any, Any]) -> bool:
    if any(_overlap(key, f"train.{name}") for name in FIXED):
        return False
    # A checkpoint has an fp16 gradient scale, or averaged weights, only if the run has.
    if key == "train.precision" and "fp16" in values:
        return False
    if key == "train.ema_decay" and None in values:
        return False
    return _matches(key, CHANGEABLE)


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _overlap(key: str, other: str) -> bool:
    """Return whether two keys are the same or one is a table that contains the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _last_start(run: Path) -> str:
    """Describe the process that trains in a folder, as far as run.json says."""
    start = (read_starts(run / "run.json") or [{}])[-1]
    return f" (process {start.get('pid')}, since {start.get('time')})" if start else ""
