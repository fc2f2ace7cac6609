"""The folder of a run: who may train in it, and by which recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.atomic import atomic_path, make_folder
from zoo.errors import ZooError
from zoo.train.model import resolve
from zoo.train.recipe import Recipe, differences, read_recipe, write_recipe

__all__ = ["Changes", "claim", "counts", "identity", "lock", "put_recipe"]

#: Keys and their values until now and from now on.
Changes = dict[str, tuple[Any, Any]]

#: Keys that change no result.
FREE = ("memory.*", "watch.*", "data.workers", "train.checkpoint_every", "train.keep")
#: Those that can be set anew on the way.
CHANGEABLE = (*FREE, "train.*", "loss.*", "evaluation.*")
#: Those of them that a checkpoint is made for: it holds what the optimiser keeps.
KEPT = ("optimizer", "optimizer_options", "lr_parts", "freeze")


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Make a run's folder and keep other trainings out of it, until this process ends at last."""
    make_folder(run)
    try:
        held = FileLock(run / ".lock").acquire(timeout=0)
    except Timeout:
        raise ZooError(
            f"another process trains in {run}{_who(run)}; wait for it, or take another folder"
        ) from None
    except OSError as error:
        raise ZooError(
            f"{run} could not be locked ({error.strerror}); choose a place that is writable"
        ) from error
    with held:
        yield


def claim(
    run: Path, recipe: Recipe, source: Path, settings: Iterable[tuple[str, Any]], resume: bool
) -> Changes | None:
    """Put the recipe into a new folder (None), or tell how it changes that of the run there.

    Raises ZooError for a run that is not to be gone on with, and for changes that it cannot
    take.
    """
    kept = run / "recipe.toml"
    if not kept.exists():
        put_recipe(run, recipe)
        return None
    if not resume:
        raise ZooError(f"{run} holds a run already; add --resume, or take another folder")
    changes = differences(resolve(read_recipe(kept)), recipe)
    told = [name for name, _ in settings]
    refused = [key for key, pair in changes.items() if not _may_change(key, pair)]
    if refused:
        raise ZooError(
            f"{kept} is another recipe ({', '.join(refused)}); this cannot change in a run, --set "
            "or not; take another folder"
        )
    untold = [
        key for key in changes if not _fits(key, FREE) and not any(_within(key, n) for n in told)
    ]
    if untold:
        raise ZooError(
            f"{kept} is another recipe than {source} ({', '.join(untold)}); go on with the former, "
            "change it from here on by --set KEY=VALUE, or take another folder"
        )
    return changes


def counts(key: str) -> bool:
    """Whether what a run ends with depends on a key."""
    return not _fits(key, FREE)


def put_recipe(run: Path, recipe: Recipe, starts: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write the recipe; what was another before, by the starts in run.json, in comments."""
    before = [
        f"# Until step {start['step']}: {key} = {json.dumps(old)}\n"
        for start in starts
        for key, (old, _) in start.get("changed", {}).items()
        if start["step"] and counts(key)
    ]
    with atomic_path(run / "recipe.toml") as temporary:
        temporary.write_text("".join(before) + write_recipe(recipe), encoding="utf-8")


def identity(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint fits: the keys that decide which weights there are, and their optimiser."""
    train = recipe.train.model_dump(mode="json")
    model = {key: value for key, value in recipe.flat().items() if key.startswith("model.")}
    return {**model, **{f"train.{name}": train[name] for name in KEPT}}


def _may_change(key: str, pair: tuple[Any, Any]) -> bool:
    if any(_within(key, f"train.{name}") for name in KEPT):
        return False
    # A checkpoint has no scale of an fp16 gradient, and no average, if there was none.
    if (key == "train.precision" and "fp16" in pair) or (key == "train.ema_decay" and None in pair):
        return False
    return _fits(key, CHANGEABLE)


def _fits(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _within(key: str, other: str) -> bool:
    """Whether one is the other or a part of it: of the table `evaluation.options`, for one."""
    one, two = f"{key}.", f"{other}."
    return one.startswith(two) or two.startswith(one)


def _who(run: Path) -> str:
    """Who trains there, as it says in run.json."""
    try:
        start = json.loads((run / "run.json").read_text(encoding="utf-8"))["starts"][-1]
        return f" (process {start['pid']}, since {start['time']})"
    except (OSError, ValueError, LookupError, TypeError):  # it has not come so far
        return ""
